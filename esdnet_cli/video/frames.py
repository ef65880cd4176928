"""Numbered frames: pictures with what only a sequence has, which is order, deflicker, before and after in one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esdnet_cli.errors import PictureError
from esdnet_cli.pipeline.images import Picture, read_picture
from esdnet_cli.pipeline.run import Output
from esdnet_cli.pipeline.sources import Job, Source
from esdnet_cli.video.flow import Deflicker


def in_order(sources: Sequence[Source]) -> list[Source]:
    """By the numbers in their names: frame-2 before frame-10."""

    def key(source: Source) -> list[Any]:
        parts = re.split(r"(\d+)", source.relative.stem)
        return [(int(part), part) if index % 2 else (0, part) for index, part in enumerate(parts)]

    return sorted(sources, key=key)


@dataclass(frozen=True)
class FrameOutput(Output):
    """Pictures written as the frames of a sequence, in order: `deflicker` and `compare` come between.

    places: where in `jobs` each output stands. After a rerun has skipped frames, the deflicker goes on from the last
    file that was written: exactly, if its format is lossless.
    """

    jobs: Sequence[Job]
    places: Mapping[Path, int]
    compare: bool
    deflicker: Deflicker | None
    max_megapixels: float
    _seen: list[int] = field(default_factory=lambda: [-1])  # the frame that came last

    def write(self, path: Path, picture: Picture, source_sha256: str, modified_ns: int | None = None) -> None:
        """As Output.write."""
        place = self.places[path]
        if self.deflicker is not None:
            if place and self._seen[0] != place - 1:
                self.deflicker.last = self._written(place - 1)
            self._seen[0] = place
            picture = replace(picture, rgb=self.deflicker(picture.rgb))
        if self.compare:
            source = self.jobs[place].source.path
            before = read_picture(source.read_bytes(), source, self.max_megapixels)
            alpha = picture.alpha if picture.alpha is None else np.hstack((picture.alpha, picture.alpha))
            picture = replace(picture, rgb=np.hstack((before.rgb, picture.rgb)), alpha=alpha)
        super().write(path, picture, source_sha256, modified_ns)

    def _written(self, place: int) -> NDArray[Any] | None:
        path = self.jobs[place].output
        try:
            assert path is not None
            rgb = read_picture(path.read_bytes(), path, self.max_megapixels * (1 + self.compare)).rgb
        except (OSError, PictureError):
            return None
        return rgb[:, rgb.shape[1] // 2 :] if self.compare else rgb
