"""--deflicker: what the network removes, smoothed over time along the motion."""

from __future__ import annotations

import cv2
import numpy as np

from esdnet_cli.video.flow import Image, flow, inside, warp

STRENGTH = 0.6  # of the last frame's share where both agree wholly
TOLERANCE = 24.0  # levels of 255: a difference of motion-compensated frames at which the share falls to 1/e
WINDOW = 5  # pixels over which frames must agree
SCENE_CUT = 24.0  # levels of 255: the mean difference after motion compensation from which nothing is carried over


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
        share = STRENGTH * np.exp(-np.square(distance / TOLERANCE)) * inside(offsets)
        self.last = np.clip(np.rint(image + difference * share[..., None]), 0, peak).astype(image.dtype)
        return self.last
