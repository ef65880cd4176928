"""Let the neurons of a checkpoint fire less where it matters least, to go on training from there.

    python tools/quieten.py before.safetensors after.safetensors PICTURE... --save 0.2

In each block the second neurons (integer, of one step) see a batch norm's result, so each channel of them can be given
a lower potential, and thereby fewer spikes. What a channel loses in the mean is given back to the batch norm behind the
next convolution, so only the variance of what it loses changes the result: where neurons always fire, nothing. The
channels, and how much lower, are chosen by that variance for each accumulation that is saved, until the share is
reached. Energy by the strict count falls so; quality does, too, and training brings it back.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from torch import Tensor

from esdnet_cli.checkpoint.store import as_shipped, load_network, open_checkpoint, save
from esdnet_cli.errors import EsdnetError
from esdnet_cli.model.layers import IntegerLIF, SeqConv2d, TDBatchNorm2d
from esdnet_cli.model.network import ESDNet, SpikingResidualBlock
from esdnet_cli.model.neurons import V_THRESHOLD, integer_lif
from esdnet_cli.pipeline.images import eight_bit, open_picture

SIDE = 264  # pixels; of the piece of each picture that is looked at, at most
LOWER = tuple(V_THRESHOLD * steps for steps in (0.5, 1, 1.5, 2, 3))


@dataclass(frozen=True)
class Choice:
    """A channel's potential lowered by `lower`: spikes lost in the mean, accumulations saved, what that changes."""

    block: str
    channel: int
    lower: float
    lost: float
    saved: float
    change: float


def lost_spikes(network: ESDNet, pictures: list[Path]) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """By block: mean number of spikes [C]; mean and variance of those lost, [lowerings, C]; over all pictures' places.

    Times the places of a picture of SIDE x SIDE, relative to the block's resolution, they are counts.
    """
    sums: dict[str, list[Tensor]] = {}

    def hook(name: str, levels: int, potential: Tensor) -> None:
        fired = integer_lif(potential, levels)
        lost = torch.stack([fired - integer_lif(potential - lower, levels) for lower in LOWER]).double()
        places = torch.full((), float(fired[0, :, 0].numel()), dtype=torch.float64)
        over = (1, 2, 4, 5)
        noted = [places, fired.double().sum((0, 1, 3, 4)), lost.sum(over), (lost * lost).sum(over)]
        sums[name] = [a + b for a, b in zip(sums[name], noted)] if name in sums else noted

    handles = []
    for name, block in blocks(network).items():
        neurons = block.residual[3]
        assert isinstance(neurons, IntegerLIF)
        handles.append(
            neurons.register_forward_pre_hook(lambda module, args, name=name: hook(name, module.levels, args[0]))
        )
    with torch.inference_mode():
        for path in pictures:
            rgb = eight_bit(open_picture(path).rgb)[:SIDE, :SIDE]
            multiple = network.config.multiple
            height, width = (side // multiple * multiple for side in rgb.shape[:2])
            if not height or not width:
                raise click.ClickException(f"{path}: is smaller than {multiple}x{multiple}; name a larger picture")
            network(torch.from_numpy(rgb[:height, :width].copy()).movedim(-1, 0)[None].float() / 255)
    for handle in handles:
        handle.remove()
    means = {}
    for name, (places, fired, lost, squared) in sums.items():
        mean = lost / places
        means[name] = fired / places, mean, (squared / places - mean**2).clamp(min=0)
    return means


def blocks(network: ESDNet) -> dict[str, SpikingResidualBlock]:
    """The residual blocks by name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, SpikingResidualBlock)}


def choices(network: ESDNet, means: dict[str, tuple[Tensor, Tensor, Tensor]]) -> tuple[list[Choice], float]:
    """All of them, the cheapest first, and all accumulations, relative to a place of the first level."""
    found, total = [], 0.0
    for name, block in blocks(network).items():
        conv, norm, shortcut_norm = block.residual[4], block.residual[5], block.shortcut[1]
        assert isinstance(norm, TDBatchNorm2d) and isinstance(shortcut_norm, TDBatchNorm2d)
        assert norm.running_var is not None and isinstance(conv.weight, Tensor)
        gain = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).double()
        power = ((conv.weight.double() * gain[:, None, None, None]) ** 2).sum((0, 2, 3))
        whole = (norm.weight**2).sum().double() + (shortcut_norm.weight**2).sum().double()
        level = (conv.weight.shape[0] // network.config.dim).bit_length() - 1
        level -= name.startswith("decoder_level1")  # twice as wide as the first level, and as large
        each = conv.weight[:, 0].numel() / 4**level
        fired, lost, variance = means[name]
        total += float(fired.sum()) * each
        for step, lower in enumerate(LOWER):
            for channel in range(len(power)):
                saved = float(lost[step, channel]) * each
                if saved > 0:
                    change = float(power[channel] * variance[step, channel] / whole)
                    found.append(Choice(name, channel, lower, float(lost[step, channel]), saved, change))
    return sorted(found, key=lambda choice: choice.change / choice.saved), total


def chosen(found: list[Choice], least: float) -> list[Choice]:
    """Of each channel the one that saves most, of the cheapest that together save so many accumulations."""

    def of_cheapest(count: int) -> list[Choice]:
        best: dict[tuple[str, int], Choice] = {}
        for choice in found[:count]:
            key = choice.block, choice.channel
            if key not in best or choice.saved > best[key].saved:
                best[key] = choice
        return list(best.values())

    def saved(count: int) -> float:
        return sum(choice.saved for choice in of_cheapest(count))

    return of_cheapest(bisect.bisect_left(range(len(found)), least, key=lambda index: saved(index + 1)) + 1)


@click.command()
@click.argument("before")
@click.argument("after", type=click.Path(path_type=Path))
@click.argument("pictures", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--save", "share", type=click.FloatRange(0, 1, min_open=True, max_open=True), required=True,
    help="Share of the accumulations that these neurons cause.",
)  # fmt: skip
def main(before: str, after: Path, pictures: tuple[Path, ...], share: float) -> None:
    """Write BEFORE to AFTER with neurons that fire less; PICTURES (rainy) tell which may."""
    try:
        checkpoint = open_checkpoint(before)
        if (checkpoint.config.neuron, checkpoint.config.timesteps) != ("integer", 1):
            raise click.ClickException(f"{before}: has no integer neurons of one step")
        network = load_network(checkpoint)
        means = lost_spikes(network, list(pictures))
    except EsdnetError as error:
        raise click.ClickException(str(error)) from error
    found, total = choices(network, means)
    if not found:
        raise click.ClickException(f"{before}: its second neurons do not fire on these pictures; name others")
    quieter = chosen(found, share * total)
    for choice in quieter:
        _, _, norm, _, conv, next_norm = blocks(network)[choice.block].residual
        assert isinstance(norm, TDBatchNorm2d) and isinstance(next_norm, TDBatchNorm2d) and isinstance(conv, SeqConv2d)
        assert next_norm.running_mean is not None
        norm.bias.data[choice.channel] -= choice.lower
        next_norm.running_mean -= conv.weight[:, choice.channel].sum((1, 2)) * choice.lost
    save(after, as_shipped(network.state_dict()), checkpoint.config, checkpoint.origin | checkpoint.tiling)
    saved = sum(choice.saved for choice in quieter) / total
    click.echo(f"{len(quieter)} channels fire less: {100 * saved:.1f} % of the accumulations of second neurons saved")


if __name__ == "__main__":
    main()
