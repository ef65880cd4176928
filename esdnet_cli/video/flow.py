"""Motion between frames: what --deflicker smooths along, and the warping error that says how much a clip flickers."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from esdnet_cli.pipeline.images import eight_bit

STRENGTH = 0.6  # of the last frame's share where both agree wholly
TOLERANCE = 24.0  # levels of 255: a difference of motion-compensated frames at which the share falls to 1/e
WINDOW = 5  # pixels over which frames must agree
SCENE_CUT = 24.0  # levels of 255: the mean difference after motion compensation from which nothing is carried over

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


class Deflicker:
    """Smooths derained frames over time: call it with one after the other.

    What the network removes is corrected so that the result agrees with the last one along the motion, as far as the
    two agree already; where they do not (occlusion, wrong motion, other rain), and across scene cuts, nothing changes.
    `last` is all that it remembers: the frame it gave out last.
    """

    def __init__(self, last: Image | None = None) -> None:
        self.last = last

    def __call__(self, image: Image) -> Image:
        """The frame [H, W, 3], uint8 or uint16, smoothed; same dtype."""
        last, self.last = self.last, image
        if last is None or last.shape != image.shape:
            return image
        peak = np.iinfo(image.dtype).max
        offsets = flow(image, last)
        difference = warp(last, offsets) - image
        distance = np.abs(difference).max(axis=2) * np.float32(255 / peak)
        if distance.mean() > SCENE_CUT:
            return image
        distance = cv2.blur(distance, (WINDOW, WINDOW))
        share = STRENGTH * np.exp(-np.square(distance / TOLERANCE)) * _inside(offsets)
        self.last = np.clip(np.rint(image + difference * share[..., None]), 0, peak).astype(image.dtype)
        return self.last


class WarpingError:
    """How much clips flicker: the mean square difference of frames and their motion-compensated predecessors.

    As Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018: over pixels that both frames show (motion
    there and back agrees), values in [0, 1], mean over frames. Motion comes from a reference that all clips share.
    """

    def __init__(self, clips: int) -> None:
        self._sums = np.zeros(clips)
        self._pairs = 0
        self._before: tuple[Image, list[Image]] | None = None

    def add(self, reference: Image, frames: list[Image]) -> None:
        """One frame of each clip, and of the reference: uint8 or uint16 [H, W, 3]."""
        before, self._before = self._before, (reference, frames)
        if before is None:
            return
        backward, forward = flow(reference, before[0]), flow(before[0], reference)
        there_and_back = backward + warp(forward, backward)
        far = np.square(backward).sum(2) + np.square(warp(forward, backward)).sum(2)
        seen = (np.square(there_and_back).sum(2) < 0.01 * far + 0.5) * _inside(backward)
        if seen.mean() < 0.25:  # a scene cut
            return
        errors = []
        for frame, last in zip(frames, before[1]):
            difference = (warp(last, backward) - frame) / np.iinfo(frame.dtype).max
            errors.append(float((np.square(difference).mean(2) * seen).sum() / seen.sum()))
        self._sums += errors
        self._pairs += 1

    @property
    def means(self) -> list[float] | None:
        """The error of each clip; None if no two frames could be compared."""
        return list(self._sums / self._pairs) if self._pairs else None


def _places(offsets: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = offsets.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.dstack((x, y)) + offsets


def _inside(offsets: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 where the offsets lead to a pixel of the picture, else 0."""
    places = _places(offsets)
    height, width = offsets.shape[:2]
    x, y = places[..., 0], places[..., 1]
    return ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).astype(np.float32)
