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

_BAND = 16  # rows of the smaller copy that are enlarged at once: a core's cache holds them
_SHARPER = 1.5  # a speck of two pixels is fainter in the copy: more than its change there has to go


def halved(pixels: NDArray[Any]) -> NDArray[Any]:
    """[H, W, C] -> [H // 2, W // 2, C]: the mean of each 2x2 pixels, rounded; an odd row or column is left out."""
    height, width = (size // 2 for size in pixels.shape[:2])
    return cv2.resize(pixels[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)


def add_difference(pixels: NDArray[Any], before: NDArray[Any], after: NDArray[Any]) -> None:
    """Add what became of the smaller copy `before`, enlarged twice (bilinear) and 1.5-fold, to `pixels`, in place.

    No value goes past that of the enlarged `after`; or a bright speck that is sharper than the copy would leave a dark
    ring.
    """
    height, width = before.shape[:2]
    for top in range(0, height, _BAND):
        rows = slice(top, min(top + _BAND, height))
        part = pixels[2 * top : 2 * rows.stop if rows.stop < height else None]
        goal = _enlarged(after, rows, part.shape)
        result = goal - _enlarged(before, rows, part.shape)
        result *= _SHARPER
        here = part.astype(np.float32)
        result += here
        np.maximum(result, np.minimum(goal, here), out=result)
        np.minimum(result, np.maximum(goal, here), out=result)
        part[:] = np.rint(result, out=result) if peak(pixels) > 1 else result


def _enlarged(copy: NDArray[Any], rows: slice, shape: tuple[int, ...]) -> NDArray[Any]:
    """Rows of a copy, enlarged twice to float32 of this shape: what is left out there of odd sizes is as its edge."""
    first, last = max(rows.start - 1, 0), min(rows.stop + 1, len(copy))  # what those within look at
    size = 2 * copy.shape[1], 2 * (last - first)
    larger: NDArray[Any] = cv2.resize(copy[first:last].astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    larger = larger[2 * (rows.start - first) : 2 * (rows.stop - first)]
    odd = [(0, wanted - there) for wanted, there in zip(shape, larger.shape)]
    return np.pad(larger, odd, mode="edge") if larger.shape != shape else larger
