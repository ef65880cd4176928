"""Remakes the samples from public-domain photographs that ship inside scikit-image (pip install scikit-image).

    python samples/make_samples.py samples

The rain is `esdnet synth`'s: samples/NAME is the rainy picture, samples/clean/NAME.png the same without rain.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2
from skimage import data

from esdnet_cli.training.synth import Rainmaker

SAMPLES = {
    # photograph in scikit-image, crop (top, left, height, width), size (width, height), rain, seed
    "coffee.jpg": (data.coffee, (0, 40, 400, 560), (384, 274), "medium", 1),
    "rocket.png": (data.rocket, (40, 60, 380, 560), (352, 239), "heavy", 2),
    "cat.png": (data.chelsea, (0, 0, 300, 451), (361, 240), "heavy", 5),
    "astronaut.webp": (data.astronaut, (0, 0, 512, 512), (256, 256), "heavy", 4),
}


def main(folder: Path) -> None:
    (folder / "clean").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name, (photograph, (top, left, height, width), size, rain, seed) in SAMPLES.items():
            crop = photograph()[top : top + height, left : left + width, :3]
            source = Path(scratch) / "photograph.png"
            cv2.imwrite(str(source), cv2.resize(crop, size, interpolation=cv2.INTER_AREA)[..., ::-1])
            rainy, dry = Rainmaker(rain, None, seed)(source, Path(name))
            params = [cv2.IMWRITE_WEBP_QUALITY, 92] if name.endswith(".webp") else []
            cv2.imwrite(str(folder / name), rainy[..., ::-1], params)
            cv2.imwrite(str((folder / "clean" / name).with_suffix(".png")), dry[..., ::-1])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
