"""How long `esdnet --help` and `--version` take against `python -c "import click"`: whole processes, as ratios.

python benchmarks/startup.py [--rounds N]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import click

BASE = [sys.executable, "-c", "import click"]


def seconds(command: list[str]) -> float:
    """Wall clock of one process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


@click.command()
@click.option("--rounds", default=21, show_default=True)
def main(rounds: int) -> None:
    """Print the median ratio for each option, over interleaved pairs."""
    for option in ("--help", "--version"):
        command = [sys.executable, "-c", f"from esdnet_cli.cli import cli; cli([{option!r}])"]
        seconds(command), seconds(BASE)  # warm-up
        ratios = [seconds(command) / seconds(BASE) for _ in range(rounds)]
        click.echo(f"esdnet {option} / import click: median {statistics.median(ratios):.2f} of {rounds} pairs")


if __name__ == "__main__":
    main()
