"""Large pictures at several sizes: a network takes a streak of rain for one only up to the size that it has learned.

It has learned from pictures of 481x321, and what falls before a camera of more pixels covers more of them. So a large
picture is derained, then a copy of half its size, and so on; what the network changes in a smaller copy is added
to the larger one, whose detail stays.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from esdnet_cli.pipeline.tiling import peak

_BAND = 64  # rows of the smaller copy whose difference is enlarged at once: memory stays bounded


def halved(pixels: NDArray[Any]) -> NDArray[Any]:
    """[H, W, C] -> [H // 2, W // 2, C]: the mean of each 2x2 pixels, rounded; an odd row or column is left out."""
    height, width = (size // 2 for size in pixels.shape[:2])
    return cv2.resize(pixels[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)


def add_difference(pixels: NDArray[Any], before: NDArray[Any], after: NDArray[Any]) -> None:
    """Add what became of the smaller copy `before`, enlarged twice (bilinear), to `pixels`, in place; clamped."""
    height, width = before.shape[:2]
    for top in range(0, height, _BAND):
        bottom = min(top + _BAND, height)
        first, last = max(top - 1, 0), min(bottom + 1, height)  # a row more on either side, which those within look at
        difference = after[first:last].astype(np.float32) - before[first:last]
        larger = cv2.resize(difference, (2 * width, 2 * (last - first)), interpolation=cv2.INTER_LINEAR)
        larger = larger[2 * (top - first) : 2 * (bottom - first)]
        part = pixels[2 * top : 2 * bottom if bottom < height else None]
        odd = [(0, here - there) for here, there in zip(part.shape, larger.shape)]
        result = np.pad(larger, odd, mode="edge")
        result += part
        if peak(pixels) > 1:
            np.rint(result, out=result)
        part[:] = np.clip(result, 0, peak(pixels), out=result)
