"""What is measured when nobody names a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from esdnet_cli.pipeline.images import eight_bit, open_picture

WIDTH, HEIGHT = 481, 321  # of BSDS500's photographs


def read_or_make(path: Path | None) -> NDArray[Any]:
    """The picture in 8 bits RGB [H, W, 3], or smooth noise of always the same kind. Raises EsdnetError."""
    if path is None:
        noise = np.random.default_rng(0).normal(0, 60, (HEIGHT, WIDTH, 3)).astype(np.float32)
        smooth = cv2.GaussianBlur(noise, (0, 0), 2) * 5 + 0.2 * noise + 128
        return np.clip(smooth, 0, 255).astype(np.uint8)
    return eight_bit(open_picture(path).rgb)
