"""Draw docs/before-after.jpg and docs/limits.jpg: two samples, and heavy rain on two, derained by the default network.

python tools/draw_pictures.py
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import esdnet_cli
from esdnet_cli.pipeline.images import read_picture
from esdnet_cli.training.synth import Rainmaker

ROOT = Path(__file__).resolve().parents[1]
QUALITY = 88
HEAVY = Rainmaker("heavy", None, seed=4)


def side_by_side(pairs: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """Pairs of one height in a row, white between."""
    height = max(rainy.shape[0] for rainy, _ in pairs)
    row: list[NDArray[np.uint8]] = []
    for rainy, derained in pairs:
        size = (round(rainy.shape[1] * height / rainy.shape[0]), height)
        left, right = (cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC) for picture in (rainy, derained))
        row += [left, np.full((height, 4, 3), 255, np.uint8), right, np.full((height, 12, 3), 255, np.uint8)]
    return np.concatenate(row[:-1], axis=1)


def main() -> None:
    """Write both."""
    derainer = esdnet_cli.load(device="cpu")
    samples = [ROOT / "samples" / name for name in ("cat.png", "coffee.jpg")]
    rainy = {"before-after": [read_picture(path.read_bytes(), path).rgb for path in samples]}
    clean = [ROOT / "samples" / "clean" / name for name in ("rocket.png", "coffee.png")]
    rainy["limits"] = [HEAVY(path, Path(path.name))[0] for path in clean]
    for name, pictures in rainy.items():
        drawn = side_by_side([(picture, derainer(picture, count=False).image) for picture in pictures])
        cv2.imwrite(str(ROOT / "docs" / f"{name}.jpg"), drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


if __name__ == "__main__":
    main()
