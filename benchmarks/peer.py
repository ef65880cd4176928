"""Time and energy beside what a user would pick instead: an ordinary deraining network of PReNet's shape.

    python benchmarks/peer.py [PICTURE] [--weights small]

PReNet (Ren et al., CVPR 2019): six passes of a convolution from the rainy picture and the last result to 32 channels, a
convolutional LSTM, five residual blocks of two convolutions, and one back to three channels. Its weights are random
here: they change neither time nor operations. Both networks run on the same picture, in turn, on the same cores, each
the way that suits it: the peer in one piece in float32, as published, ours as `esdnet images` does.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import click
import torch
from torch import Tensor, nn

import esdnet_cli
from esdnet_cli.bench.pattern import read_or_make
from esdnet_cli.energy.cost import MJ_PER_PJ, EnergyCosts
from esdnet_cli.energy.spikes import geometry_of, windows
from esdnet_cli.model.inference import keep_freed_memory
from esdnet_cli.settings import DEFAULT_WEIGHTS

PASSES, CHANNELS, BLOCKS = 6, 32, 5


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Peer(nn.Module):
    """A network of PReNet's shape: rainy [N, 3, H, W] -> [N, 3, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.begin = conv(6, CHANNELS)
        self.gates = conv(2 * CHANNELS, 4 * CHANNELS)  # the four gates of the LSTM at once
        self.blocks = nn.ModuleList(nn.ModuleList(conv(CHANNELS, CHANNELS) for _ in range(2)) for _ in range(BLOCKS))
        self.end = conv(CHANNELS, 3)

    def forward(self, rainy: Tensor) -> Tensor:
        derained = rainy
        hidden = cell = rainy.new_zeros(rainy.shape[0], CHANNELS, *rainy.shape[2:]).contiguous(
            memory_format=torch.channels_last
        )
        for _ in range(PASSES):
            x = torch.relu_(self.begin(torch.cat((rainy, derained), dim=1)))
            keep, forget, candidate, out = self.gates(torch.cat((x, hidden), dim=1)).chunk(4, dim=1)
            cell = torch.sigmoid(forget) * cell + torch.sigmoid(keep) * torch.tanh(candidate)
            hidden = x = torch.sigmoid(out) * torch.tanh(cell)
            for first, second in self.blocks:
                x = torch.relu_(torch.relu_(second(torch.relu_(first(x)))) + x)
            derained = self.end(x)
        return derained

    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates for a picture, padding not multiplied, as our own counts have it."""
        convs = [layer for layer in self.modules() if isinstance(layer, nn.Conv2d)]
        products = (
            layer.in_channels * layer.out_channels * windows(height, width, geometry_of(layer)) for layer in convs
        )
        return PASSES * sum(products)


def seconds(work: object) -> float:
    started = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - started


@click.command()
@click.argument("picture", required=False, type=click.Path(path_type=Path))
@click.option("--weights", default=DEFAULT_WEIGHTS, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@torch.inference_mode()
def main(picture: Path | None, weights: str, rounds: int) -> None:
    """Print seconds, energy and ratios; without PICTURE for a noise pattern of 481x321."""
    keep_freed_memory()
    image = read_or_make(picture)
    rainy = torch.from_numpy(image).permute(2, 0, 1)[None].float().div(255)
    rainy = rainy.contiguous(memory_format=torch.channels_last)
    peer = Peer().eval().to(memory_format=torch.channels_last)
    derainer = esdnet_cli.load(weights, device="cpu")
    activity = derainer(image).activity
    assert activity is not None
    peer(rainy)
    ours, theirs = [], []
    for turn in range(rounds):  # in turn, and in changing order, so that a drift of the machine favours neither
        pair = [(ours, lambda: derainer(image, count=False)), (theirs, lambda: peer(rainy))]
        for times, work in pair if turn % 2 else reversed(pair):
            times.append(seconds(work))
    ratios = sorted(mine / other for mine, other in zip(ours, theirs))
    macs = peer.macs(rainy.shape[2], rainy.shape[3])
    peer_mj, our_mj = macs * EnergyCosts().pj_mac * MJ_PER_PJ, activity.energy().strict_mj
    size = f"{rainy.shape[3]}x{rainy.shape[2]}"
    click.echo(f"{size} on {torch.get_num_threads()} threads, median of {rounds}")
    click.echo(f"peer    {statistics.median(theirs):7.2f} s  {peer_mj:8.1f} mJ  fp32, {macs / 1e9:.0f} GMAC")
    click.echo(f"{weights:<7} {statistics.median(ours):7.2f} s  {our_mj:8.1f} mJ  {derainer.precision}")
    low, high = ratios[rounds // 4], ratios[-(rounds // 4) - 1]
    click.echo(f"ratio   {statistics.median(ratios):7.2f} of the peer's time (quartiles {low:.2f} to {high:.2f}), "
               f"{our_mj / peer_mj:.2f} of its energy (strict, memory left out)")  # fmt: skip


if __name__ == "__main__":
    main()
