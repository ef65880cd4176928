"""Remakes the rainy samples from public-domain photographs that ship inside scikit-image (pip install scikit-image).

    python samples/make_samples.py samples

Rain is additive and grey: drops of random brightness, blurred along the direction of fall, in a few layers.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data


@dataclass(frozen=True)
class Layer:
    """Streaks of one size: drops for each pixel, length and width in pixels, degrees from the vertical, brightness."""

    density: float
    length: int
    width: float
    degrees: float
    brightness: float


COFFEE = [Layer(0.0014, 21, 1.0, 12, 0.45), Layer(0.006, 11, 0.7, 10, 0.28)]
ROCKET = [Layer(0.0016, 25, 1.0, -18, 0.42), Layer(0.007, 13, 0.7, -15, 0.25)]
CAT = [Layer(0.0018, 19, 1.0, 25, 0.45), Layer(0.007, 11, 0.7, 22, 0.28)]
ASTRONAUT = [Layer(0.0016, 27, 1.1, 5, 0.45), Layer(0.007, 13, 0.7, 3, 0.28)]
SAMPLES = {
    # photograph in scikit-image, crop (top, left, height, width), size (width, height), seed, rain
    "coffee.jpg": (data.coffee, (0, 40, 400, 560), (384, 274), 1, COFFEE),
    "rocket.png": (data.rocket, (40, 60, 380, 560), (352, 239), 2, ROCKET),
    "cat.png": (data.chelsea, (0, 0, 300, 451), (361, 240), 3, CAT),
    "astronaut.webp": (data.astronaut, (0, 0, 512, 512), (256, 256), 4, ASTRONAUT),
}


def streaks(height: int, width: int, layer: Layer, random: np.random.Generator) -> NDArray[np.float32]:
    """One layer of rain, float32 [height, width] from 0."""
    drops = (random.random((height, width)) < layer.density) * random.uniform(0.3, 1, (height, width))
    size = 2 * layer.length + 1
    line = np.zeros((size, size), np.float32)
    tilt = np.deg2rad(layer.degrees)
    reach = np.array([np.sin(tilt), np.cos(tilt)]) * layer.length / 2
    ends = [tuple(int(round(16 * (layer.length + sign * part))) for part in reach) for sign in (-1, 1)]
    cv2.line(line, ends[0], ends[1], 1.0, 1, cv2.LINE_AA, shift=4)
    line = cv2.GaussianBlur(line, (0, 0), layer.width / 2)
    fallen = cv2.filter2D(drops.astype(np.float32), -1, line / line.max(), borderType=cv2.BORDER_REFLECT)
    return np.clip(fallen, 0, 1) * np.float32(layer.brightness)


def rainy(photograph: NDArray[np.uint8], layers: list[Layer], seed: int) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3] with rain in front."""
    random = np.random.default_rng(seed)
    rain = sum(streaks(*photograph.shape[:2], layer, random) for layer in layers)
    return (np.clip(photograph / 255 + rain[..., None], 0, 1) * 255).round().astype(np.uint8)


def main(folder: Path) -> None:
    for name, (photograph, (top, left, height, width), size, seed, layers) in SAMPLES.items():
        crop = photograph()[top : top + height, left : left + width, :3]
        small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
        params = [cv2.IMWRITE_WEBP_QUALITY, 92] if name.endswith(".webp") else []
        cv2.imwrite(str(folder / name), rainy(small, layers, seed)[..., ::-1], params)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
