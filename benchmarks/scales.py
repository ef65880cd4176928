"""What smaller copies of a large picture gain: photographs enlarged, with rain as large, derained at 1, 2 ... sizes.

python benchmarks/scales.py [FOLDER] [--weights NAME|PATH] [--side N ...] [--streaks DIR]
FOLDER has photographs without rain; --streaks has streak masks, without which the rain is our own (`esdnet synth`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from numpy.typing import NDArray

import esdnet_cli
from esdnet_cli.metrics import quality
from esdnet_cli.pipeline.derainer import Derainer
from esdnet_cli.pipeline.images import read_picture
from esdnet_cli.pipeline.scales import add_difference, halved
from esdnet_cli.settings import scales_for
from esdnet_cli.training.synth import Rainmaker

SAMPLES = Path(__file__).parents[1] / "samples" / "clean"


def at_sizes(derainer: Derainer, picture: NDArray[Any], most: int) -> Iterator[NDArray[Any]]:
    """Derained at 1, 2 ... `most` sizes, each of which goes through the network once."""
    derained: list[NDArray[Any]] = []
    for _ in range(most):
        derained.append(derainer(picture, count=False).image)
        picture = halved(derained[-1])
        result = derained[-1]
        for larger in reversed(derained[:-1]):
            smaller, result = result, larger.copy()
            add_difference(result, halved(larger), smaller)
        yield result


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=SAMPLES)
@click.option("--weights", default="small", show_default=True)
@click.option("--side", "sides", multiple=True, type=int, default=(500, 700, 1000, 1500, 2000), show_default=True)
@click.option("--streaks", type=click.Path(path_type=Path))
def main(folder: Path, weights: str, sides: tuple[int, ...], streaks: Path | None) -> None:
    """Print PSNR (Y, dB; mean over the photographs) of what is rainy and of what is dry, by shorter side."""
    rain = Rainmaker("mixed", streaks, seed=1)
    derainer = esdnet_cli.load(weights, scales=1)
    for side in sides:
        most = scales_for(side, side, None)
        scores: list[list[float]] = []
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            photo = read_picture(path.read_bytes(), path).rgb
            times = side / min(photo.shape[:2])
            with tempfile.TemporaryDirectory() as scratch:
                large = Path(scratch) / f"{path.stem}.png"
                larger = cv2.resize(photo, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)
                cv2.imwrite(str(large), larger[..., ::-1])
                rainy, dry = rain(large, Path(large.name))
            row = [quality(rainy, dry).psnr_y]
            for picture in (rainy, dry):
                row += (quality(image, dry).psnr_y for image in at_sizes(derainer, picture, most))
            scores.append(row)
        before, *after = (f"{mean:.2f}" for mean in np.mean(scores, axis=0))
        rained, stayed = ", ".join(after[:most]), ", ".join(after[most:])
        click.echo(f"{side}: {before} dB, derained at 1 to {most} sizes {rained}; where it is dry {stayed}")


if __name__ == "__main__":
    main()
