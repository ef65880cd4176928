"""Give the refinement's dead units another life, without changing what the network computes.

    python tools/revive.py before.safetensors after.safetensors PICTURE...

The pixel attention of the feature refinement goes through a ReLU. A unit of it that no pixel activates gets no
gradient and stays so for good, though its convolutions are paid for. Units that no pixel of the pictures activates get
new random weights, so that half of the pixels do, and no weight onward: on these pictures the result stays the same,
and training can use the units again.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from torch import Tensor, nn

from esdnet_cli.checkpoint.store import as_shipped, load_network, open_checkpoint, save
from esdnet_cli.errors import EsdnetError
from esdnet_cli.model.network import ESDNet
from esdnet_cli.pipeline.images import eight_bit, open_picture

SIDE = 160  # pixels; of the piece of each picture that is looked at


def hidden(network: ESDNet, pictures: list[Path]) -> tuple[Tensor, Tensor]:
    """What enters the second convolution of the pixel attention, and what leaves it before the ReLU: [N, C, H, W]."""
    seen: list[tuple[Tensor, Tensor]] = []
    hook = network.refinement.sa[1].register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    with torch.inference_mode():
        for path in pictures:
            rgb = eight_bit(open_picture(path).rgb)[:SIDE, :SIDE]
            if rgb.shape[:2] != (SIDE, SIDE):
                raise click.ClickException(f"{path}: is smaller than {SIDE}x{SIDE}; name a larger picture")
            network(torch.from_numpy(rgb.copy()).movedim(-1, 0)[None].float() / 255)
    hook.remove()
    inputs, outputs = zip(*seen)
    return torch.cat(inputs), torch.cat(outputs)


@click.command()
@click.argument("before")
@click.argument("after", type=click.Path(path_type=Path))
@click.argument("pictures", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seed", default=0, show_default=True)
def main(before: str, after: Path, pictures: tuple[Path, ...], seed: int) -> None:
    """Write BEFORE to AFTER with its dead units made anew; PICTURES (rainy) tell which are dead."""
    torch.manual_seed(seed)
    try:
        checkpoint = open_checkpoint(before)
        network = load_network(checkpoint)
        inputs, outputs = hidden(network, list(pictures))
    except EsdnetError as error:
        raise click.ClickException(str(error)) from error
    dead = (outputs <= 0).all(3).all(2).all(0).nonzero().flatten()
    second, onward = network.refinement.sa[1], network.refinement.sa[3]
    assert isinstance(second, nn.Conv2d) and isinstance(onward, nn.Conv2d) and second.bias is not None
    if not len(dead):
        raise click.ClickException(f"{before}: all of its {second.out_channels} units are alive")
    fresh = torch.randn_like(second.weight[dead])
    sums = nn.functional.conv2d(inputs, fresh, padding=1)
    spread = sums.std((0, 2, 3)).clamp(min=1e-6)
    second.weight[dead] = fresh / spread[:, None, None, None]
    second.bias[dead] = -sums.mean((0, 2, 3)) / spread
    onward.weight[:, dead] = 0
    tiling = {"tile": str(checkpoint.tile), "overlap": str(checkpoint.overlap)}
    save(after, as_shipped(network.state_dict()), checkpoint.config, checkpoint.origin | tiling)
    click.echo(f"{len(dead)} of {second.out_channels} units made anew")


if __name__ == "__main__":
    main()
