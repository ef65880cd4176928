"""Peak memory of deraining a large photograph on the CPU: one process, by the operating system's own account.

python benchmarks/memory.py [--width W --height H] [--weights NAME|PATH]
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import cv2

SAMPLE = Path(__file__).resolve().parents[1] / "samples" / "coffee.jpg"


@click.command()
@click.option("--width", default=4000, show_default=True)
@click.option("--height", default=3000, show_default=True)
@click.option("--weights", default="small", show_default=True)
def main(width: int, height: int, weights: str) -> None:
    """Enlarge a sample, derain it, print the peak resident memory."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "large.jpg"
        cv2.imwrite(str(picture), cv2.resize(cv2.imread(str(SAMPLE)), (width, height), interpolation=cv2.INTER_CUBIC))
        command = [
            sys.executable, "-m", "esdnet_cli", "images", str(picture), "-o", f"{folder}/out", "--device", "cpu",
            "--weights", weights,
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # kilobytes on Linux
    pixels = 3 * width * height / 2**30
    click.echo(f"{width}x{height} on cpu: peak {peak:.2f} GiB, {peak - pixels:.2f} GiB above the picture's own pixels")


if __name__ == "__main__":
    main()
