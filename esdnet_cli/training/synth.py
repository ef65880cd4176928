"""Rainy pairs as files: a photograph becomes the same scene with and without rain."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from esdnet_cli.errors import PictureError, printable
from esdnet_cli.files import write_atomically
from esdnet_cli.pipeline.images import Picture, eight_bit, encode_picture, read_picture
from esdnet_cli.training.data import listing, read_mask
from esdnet_cli.training.rain import Strength, camera_rain, light, photograph, streak_layers

USUAL_SIDE = 400  # pixels of the shorter side for which streaks are drawn at their own size

Kind = Strength | Literal["camera"]
MAX_VEIL_OF: dict[Kind, float] = {"light": 0.05, "medium": 0.1, "heavy": 0.2, "mixed": 0.12, "camera": 0.12}
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


class Rainmaker:
    """Photographs -> (rainy, dry), uint8 RGB [H, W, 3]; what falls follows from the seed and the picture's name."""

    def __init__(self, kind: Kind, streaks: Path | None, seed: int) -> None:
        """Raises EsdnetError if the folder of streak masks cannot be used."""
        self._kind, self._seed = kind, seed
        self._masks = [] if streaks is None else [read_mask(mask.path, 1) for mask in listing(streaks)]

    def __call__(self, path: Path, name: Path) -> Pair:
        """Raises PictureError for a file that is no picture, OSError if it cannot be read."""
        rgb = eight_bit(read_picture(path.read_bytes(), path).rgb)
        clean = torch.from_numpy(rgb).movedim(-1, 0)[None].float() / 255
        hashed = hashlib.sha256(f"{self._seed}/{name.as_posix()}".encode("utf-8", "surrogateescape")).digest()
        random = torch.Generator().manual_seed(int.from_bytes(hashed[:7], "big"))
        height, width = rgb.shape[:2]
        scale = max(1.0, min(height, width) / USUAL_SIDE)
        if self._masks:
            streaks = self._mask(height, width, scale, random)
        elif self._kind == "camera":
            streaks = camera_rain(1, height, width, random, scale).clamp(0, 1) * (light(clean, random) - clean)
        else:
            streaks = streak_layers(1, height, width, self._kind, random, scale)
        veil = torch.rand(1, generator=random) * MAX_VEIL_OF[self._kind]
        rainy, dry = photograph(clean, streaks, veil, random)
        return _quantised(rainy), _quantised(dry)

    def _mask(self, height: int, width: int, scale: float, random: torch.Generator) -> torch.Tensor:
        """One mask, drawn at the streaks' scale and repeated in mirror until it covers the picture."""
        index = int(torch.randint(len(self._masks), (1,), generator=random))
        mask: NDArray[Any] = self._masks[index][..., 0]
        if scale > 1:
            mask = cv2.resize(mask, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        missing = [(0, max(0, size - side)) for size, side in zip((height, width), mask.shape)]
        mask = np.pad(mask, missing, "symmetric")[:height, :width]
        return torch.from_numpy(np.ascontiguousarray(mask))[None, None].float() / 255


def write_pair(folder: Path, name: Path, pair: Pair, overwrite: bool) -> bool:
    """Write folder/input/name and folder/target/name; False if they stood there already, byte for byte.

    Raises PictureError if something else is in the way and `overwrite` is false.
    """
    written = False
    for kind, rgb in zip(("input", "target"), pair):
        path = folder / kind / name
        encoded = encode_picture(Picture(rgb, None, False), path)
        if path.is_file() and path.read_bytes() == encoded:
            continue
        if os.path.lexists(path) and not overwrite:
            raise PictureError(f"{printable(path)} already exists and differs; --overwrite replaces it")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, encoded)
        written = True
    return written


def _quantised(image: torch.Tensor) -> NDArray[np.uint8]:
    rounded = (image[0] * 255).round().to(torch.uint8)
    return np.ascontiguousarray(rounded.movedim(0, -1).numpy())
