"""A folder of numbered frames as `esdnet images` derains it, with what only a sequence has: order, deflicker."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esdnet_cli.errors import EsdnetError, PictureError
from esdnet_cli.pipeline.images import Picture, read_picture
from esdnet_cli.pipeline.journal import Journal
from esdnet_cli.pipeline.run import Output, pixel_settings
from esdnet_cli.pipeline.sources import Job, Source, find_sources, plan_outputs
from esdnet_cli.settings import RunOptions
from esdnet_cli.show.pictures import load_derainer, show_plan, show_run
from esdnet_cli.video.flow import Deflicker
from esdnet_cli.video.inputs import holds_clips


def in_order(sources: Sequence[Source]) -> list[Source]:
    """By the numbers in their names: frame-2 before frame-10."""

    def key(source: Source) -> list[Any]:
        parts = re.split(r"(\d+)", source.relative.stem)
        return [(int(part), part) if index % 2 else (0, part) for index, part in enumerate(parts)]

    return sorted(sources, key=key)


def show_frames(
    folder: str,
    output: Path,
    every: int,
    compare: bool,
    deflicker: bool,
    overwrite: bool,
    dates: bool,
    options: RunOptions,
) -> int:
    """Derain the pictures of a folder in the order of their numbers; names and formats stay. Returns the exit code."""
    sources, unusable = find_sources([folder], recursive=False, leave_out=[output])
    if not sources and holds_clips(folder):
        raise EsdnetError(f"{folder}: contains clips, but a folder is taken as numbered frames; name the clips")
    jobs = plan_outputs(in_order(sources)[::every], output, None)
    derainer = load_derainer(options)
    settings = pixel_settings(derainer)
    if compare or deflicker:  # without them, frames are pictures like others
        settings |= {"compare": compare, "deflicker": deflicker, "every": every}
    journal = Journal(output, settings)
    places = {job.output: place for place, job in enumerate(jobs) if job.output is not None}
    smoother = Deflicker() if deflicker else None
    target = FrameOutput(journal, overwrite, jobs, places, compare, smoother, options.max_megapixels, dates=dates)
    if options.dry_run:
        return show_plan(derainer, jobs, unusable, target)
    journal.prepare()
    return show_run(derainer, jobs, unusable, target, options)


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
