"""How long it takes until work begins.

`esdnet --help` and `--version` against `python -c "import click"`: whole processes, as ratios. Then what passes before
the second tile, in fresh processes: importing, loading the checkpoint, the first tile.

python benchmarks/startup.py [--rounds N]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import click

PHASES = """
import time
clock = [time.perf_counter()]
import torch
clock.append(time.perf_counter())
import esdnet_cli.commands.images
import esdnet_cli.show.pictures
clock.append(time.perf_counter())
import esdnet_cli, numpy
derainer = esdnet_cli.load({weights!r})
clock.append(time.perf_counter())
for _ in range(2):
    derainer(numpy.zeros((80, 80, 3), numpy.uint8))
    clock.append(time.perf_counter())
print(*(after - before for before, after in zip(clock, clock[1:])))
"""
BASE = [sys.executable, "-c", "import click"]


def seconds(command: list[str]) -> float:
    """Wall clock of one process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


@click.command()
@click.option("--rounds", default=21, show_default=True)
@click.option("--weights", default="small", show_default=True)
def main(rounds: int, weights: str) -> None:
    """Print the median ratio for each option, over interleaved pairs, and the median of each phase."""
    for option in ("--help", "--version"):
        command = [sys.executable, "-c", f"from esdnet_cli.cli import cli; cli([{option!r}])"]
        seconds(command), seconds(BASE)  # warm-up
        ratios = [seconds(command) / seconds(BASE) for _ in range(rounds)]
        click.echo(f"esdnet {option} / import click: median {statistics.median(ratios):.2f} of {rounds} pairs")
    script = [sys.executable, "-c", PHASES.format(weights=weights)]
    printed = [
        subprocess.run(script, check=True, capture_output=True, text=True).stdout for _ in range(rounds // 4 + 1)
    ]
    phases = [statistics.median(phase) for phase in zip(*(map(float, line.split()) for line in printed))]
    named = zip(("import torch", "import the rest", f"load {weights}", "first tile", "second tile"), phases)
    click.echo(", ".join(f"{name} {spent:.2f} s" for name, spent in named) + f" (medians of {len(printed)})")


if __name__ == "__main__":
    main()
