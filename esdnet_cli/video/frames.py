"""Numbered frames: pictures with what only a sequence has, which is order, deflicker, before and after in one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from esdnet_cli.errors import PictureError
from esdnet_cli.pipeline.images import Picture, read_picture
from esdnet_cli.pipeline.output import Output
from esdnet_cli.pipeline.sources import Job, Source
from esdnet_cli.video.deflicker import Deflicker
from esdnet_cli.video.flow import Image


def in_order(sources: Sequence[Source]) -> list[Source]:
    """By the numbers in their names: frame-2 before frame-10."""

    def key(source: Source) -> list[Any]:
        parts = re.split(r"(\d+)", source.relative.stem)
        return [(int(part), part) if index % 2 else (0, part) for index, part in enumerate(parts)]

    return sorted(sources, key=key)


def numbered(sources: Sequence[Source]) -> tuple[list[Source], list[Source]]:
    """Frames, and what lies beside them, such as a cover: the fewer without a number among more that have one."""
    frames = [source for source in sources if re.search(r"\d", source.relative.stem)]
    others = [source for source in sources if not re.search(r"\d", source.relative.stem)]
    return (frames, others) if len(frames) > len(others) else (list(sources), [])


@dataclass(frozen=True)
class FrameOutput(Output):
    """Pictures written as the frames of a sequence, in order: `smooth` and `compare` come between.

    places: where in `jobs` each output stands. smooth: (place, RGB) -> RGB.
    """

    jobs: Sequence[Job]
    places: Mapping[Path, int]
    compare: bool
    smooth: Callable[[int, Image], Image]

    def write(self, path: Path, picture: Picture, source_sha256: str, modified_ns: int | None = None) -> None:
        """As Output.write."""
        place = self.places[path]
        picture = replace(picture, rgb=self.smooth(place, picture.rgb))
        if self.compare:
            source = self.jobs[place].source.path
            before = read_picture(source.read_bytes(), source)
            alpha = picture.alpha if picture.alpha is None else np.hstack((picture.alpha, picture.alpha))
            picture = replace(picture, rgb=np.hstack((before.rgb, picture.rgb)), alpha=alpha)
        super().write(path, picture, source_sha256, modified_ns)


def unsmoothed(place: int, image: Image) -> Image:
    """The frame as it is."""
    return image


class FrameDeflicker:
    """A Deflicker for frames that are files.

    Where a rerun has skipped some, it goes on from the last one that was written: exactly, if its format is lossless.
    """

    def __init__(self, jobs: Sequence[Job], compare: bool) -> None:
        self._jobs, self._compare = jobs, compare
        self._deflicker = Deflicker()
        self._next = 0  # the place after the one that came last

    def __call__(self, place: int, image: Image) -> Image:
        """RGB [H, W, 3], smoothed."""
        if place != self._next:
            self._deflicker.last = self._written(place - 1)
        self._next = place + 1
        return self._deflicker(image)

    def _written(self, place: int) -> Image | None:
        path = self._jobs[place].output
        try:
            rgb = read_picture(path.read_bytes(), path).rgb
        except (OSError, PictureError):
            return None
        return rgb[:, rgb.shape[1] // 2 :] if self._compare else rgb
