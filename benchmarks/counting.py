"""What counting activity costs: the same tiles with and without the counter, in turn, as a ratio.

python benchmarks/counting.py [--weights NAME|PATH] [--precision P] [--rounds N]
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import click
import numpy as np

import esdnet_cli
from esdnet_cli.model.inference import keep_freed_memory
from esdnet_cli.pipeline.images import read_picture

SAMPLE = Path(__file__).resolve().parents[1] / "samples" / "coffee.jpg"


@click.command()
@click.option("--weights", default="small", show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--precision", default="auto", show_default=True)
@click.option("--rounds", default=15, show_default=True)
def main(weights: str, device: str, precision: str, rounds: int) -> None:
    """Print the median ratio of time with counting to time without, over interleaved pairs."""
    keep_freed_memory()  # as every command does
    derainer = esdnet_cli.load(weights, device=device, precision=precision)
    image = np.ascontiguousarray(read_picture(SAMPLE.read_bytes(), SAMPLE).rgb)

    def seconds(count: bool) -> float:
        start = time.perf_counter()
        derainer(image, count=count)
        return time.perf_counter() - start

    for _ in range(2):  # warm-up; on a GPU the second pass is recorded
        seconds(True), seconds(False)
    pairs = []
    for turn in range(rounds):
        # the order alternates, so that a drift of the machine's speed favours neither
        with_first = turn % 2 == 0
        first, second = seconds(with_first), seconds(not with_first)
        pairs.append((first, second) if with_first else (second, first))
    ratios = sorted(counted / plain for counted, plain in pairs)
    click.echo(
        f"{weights} in {derainer.precision} on {derainer.device}, {image.shape[1]}x{image.shape[0]}, {rounds} pairs: "
        f"plain {statistics.median(plain for _, plain in pairs):.3f} s, "
        f"with / without counting: median {statistics.median(ratios):.3f}, "
        f"quartiles {ratios[rounds // 4]:.3f} to {ratios[-(rounds // 4) - 1]:.3f}"
    )


if __name__ == "__main__":
    main()
