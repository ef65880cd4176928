"""Two processes with one thread each on one folder (--shard) against one such process: whole processes, in turn.

python benchmarks/sharing.py [--pictures N] [--rounds N]
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

SAMPLE = Path(__file__).resolve().parents[1] / "samples" / "coffee.jpg"


@click.command()
@click.option("--pictures", default=12, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--precision", default="auto", show_default=True)
def main(pictures: int, rounds: int, precision: str) -> None:
    """Print the median ratio."""
    with tempfile.TemporaryDirectory() as folder:
        rainy = Path(folder, "rainy")
        rainy.mkdir()
        for number in range(pictures):
            shutil.copy(SAMPLE, rainy / f"{number:03}.jpg")

        def seconds(processes: int) -> float:
            started = time.perf_counter()
            command = [sys.executable, "-m", "esdnet_cli", "images", str(rainy), "-o", f"{folder}/out", "--overwrite"]
            command += ["-q", "--precision", precision, "--shard"]
            single = {**os.environ, "OMP_NUM_THREADS": "1"}
            running = [
                subprocess.Popen([*command, f"{part}/{processes}"], env=single) for part in range(1, processes + 1)
            ]
            if any(process.wait() for process in running):
                raise click.ClickException("a process failed")
            return time.perf_counter() - started

        ratios = sorted(seconds(1) / seconds(2) for _ in range(rounds))
    click.echo(
        f"{pictures} pictures, {precision}: two processes {statistics.median(ratios):.2f} times as fast as one "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f} of {rounds} rounds)"
    )


if __name__ == "__main__":
    main()
