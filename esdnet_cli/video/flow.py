"""Motion between frames: what `Deflicker` smooths along, and what `WarpingError` measures along."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from esdnet_cli.pipeline.images import eight_bit

Image = NDArray[Any]


def flow(image: Image, other: Image) -> NDArray[np.float32]:
    """Where each pixel of `image` lies in `other`: offsets [H, W, 2] (x, y) in pixels; RGB of 8 or 16 bits.

    Dense inverse search (Kroeger et al., ECCV 2016).
    """
    grey = [cv2.cvtColor(eight_bit(frame), cv2.COLOR_RGB2GRAY) for frame in (image, other)]
    if min(image.shape[:2]) < 16:  # too small to search in
        return np.zeros((*image.shape[:2], 2), np.float32)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(search.calc(grey[0], grey[1], None), np.float32)  # type: ignore[call-overload]


def warp(image: Image, offsets: NDArray[np.float32]) -> NDArray[np.float32]:
    """`image` [H, W, C] moved by `flow`'s offsets, float32; borders are replicated."""
    places = _places(offsets)
    moved = cv2.remap(
        image.astype(np.float32), places[..., 0], places[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, np.float32)


def inside(offsets: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 where the offsets lead to a pixel of the picture, else 0."""
    places = _places(offsets)
    height, width = offsets.shape[:2]
    x, y = places[..., 0], places[..., 1]
    return ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).astype(np.float32)


def _places(offsets: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = offsets.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.dstack((x, y)) + offsets
