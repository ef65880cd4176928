"""What recorded passes save on a CUDA device: the same picture with passes replayed and as they are, in turn.

python benchmarks/replays.py [--weights NAME|PATH] [--precision P] [--width N] [--height N] [--no-count] [--rounds N]
"""

from __future__ import annotations

import statistics
import time
from unittest import mock

import click
import numpy as np
import torch

import esdnet_cli
from esdnet_cli.model import inference


@click.command()
@click.option("--weights", default="small", show_default=True)
@click.option("--precision", default="auto", show_default=True)
@click.option("--width", default=481, show_default=True)
@click.option("--height", default=321, show_default=True)
@click.option("--count/--no-count", default=True, show_default=True)
@click.option("--rounds", default=15, show_default=True)
def main(weights: str, precision: str, width: int, height: int, count: bool, rounds: int) -> None:
    """Print the medians of both, and of their ratio, over interleaved pairs."""
    derainer = esdnet_cli.load(weights, device="cuda", precision=precision)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)

    def seconds(largest: int) -> float:
        with mock.patch.object(inference, "_REPLAYED_BYTES", largest):
            start = time.perf_counter()
            derainer(image, count=count)
            torch.cuda.synchronize()
            return time.perf_counter() - start

    replayed, plain = inference._REPLAYED_BYTES, 0
    for _ in range(2):  # the second is recorded
        seconds(replayed), seconds(plain)
    pairs = [(seconds(plain), seconds(replayed)) for _ in range(rounds)]
    ratios = sorted(as_they_are / by_replay for as_they_are, by_replay in pairs)
    click.echo(
        f"{weights} in {derainer.precision} on {torch.cuda.get_device_name()}, {width}x{height}, "
        f"{'counted' if count else 'not counted'}, {rounds} pairs: {1e3 * statistics.median(s for s, _ in pairs):.1f} "
        f"ms, replayed {1e3 * statistics.median(s for _, s in pairs):.1f} ms; {statistics.median(ratios):.2f} times as "
        f"fast (quartiles {ratios[rounds // 4]:.2f} to {ratios[-(rounds // 4) - 1]:.2f})"
    )


if __name__ == "__main__":
    main()
