"""The frames of a clip: upright RGB, each with its own time, and how many of them are missing."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import av.error
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from esdnet_cli.pipeline.boxes import breaks_off
from esdnet_cli.video.decode import Tally, decode, open_clip
from esdnet_cli.video.info import EXACT, FULL, LIMITED, SWS_MATRIX, ClipInfo, check_size

_STANDS = Fraction(1, 10)  # seconds: a picture that is shown for longer, after a start, is a frame there
_UNSHOWN = 4  # packets at the end of a clip that give no frame and no error: second fields, references, a frame cut off


@dataclass(frozen=True)
class Selection:
    """Which frames are wanted: from `start` to before `end`, in seconds from the first frame; each `every`th."""

    start: Fraction | None = None
    end: Fraction | None = None
    every: int = 1

    @property
    def whole(self) -> bool:
        return self.start is None and self.end is None

    def expected(self, info: ClipInfo) -> int | None:
        """How many frames that makes, as far as the file tells."""
        count = info.expected
        if not self.whole:
            seconds = None if count is None else count / info.rate
            end = min((value for value in (self.end, seconds) if value is not None), default=None)
            count = None if end is None else max(0, round((end - (self.start or 0)) * info.rate))
        return None if count is None else -(-count // self.every)


@dataclass(frozen=True)
class Frame:
    """number: in the source, from 0 (from the selection's start). pts, duration: in units of the clip's time base.

    rgb: upright, uint8 [H, W, 3], or uint16 of full range where the source has more than 8 bits.
    """

    number: int
    pts: int
    duration: int
    rgb: NDArray[Any]


class Frames:
    """The frames of a clip that a selection wants, in order, the first `skip` of them left out; iterate once.

    decoded: how many there were so far, wanted or not. Frames that do not decode are passed over and counted. Raises
    PictureError if the picture changes its size midway.
    """

    def __init__(self, path: Path, info: ClipInfo, selection: Selection, skip: int) -> None:
        self._path, self._info, self._selection, self._skip = path, info, selection, skip
        self._tally = Tally()
        self._bytes = path.stat().st_size
        self._to_rgb = RGBConverter(info)
        self._read_to_end = False
        self._gaps: list[tuple[int, int]] = []  # pts of two frames between which others would have place
        self.decoded = 0

    def __iter__(self) -> Iterator[Frame]:
        """Each frame lasts until the next one that is wanted."""
        every = self._selection.every
        with closing(self._selected()) as frames:
            held: tuple[int, int, VideoFrame] | None = None
            ends = 0
            for number, (pts, duration, frame) in enumerate(frames):
                if number % every == 0:
                    if held is not None:
                        yield from self._made(*held, pts)
                    held = number, pts, frame
                ends = pts + duration
            if held is not None:
                yield from self._made(*held, ends)

    def _made(self, number: int, pts: int, frame: VideoFrame, ends: int) -> Iterator[Frame]:
        if number // self._selection.every >= self._skip:
            info = self._info
            begins = float((pts - info.first) * info.time_base)
            check_size((info.width, info.height), (frame.width, frame.height), begins)
            yield Frame(number, pts, max(1, ends - pts), self._to_rgb(frame))

    def _selected(self) -> Generator[tuple[int, int, VideoFrame]]:
        """The frames from the selection's start to its end, as `_rising` gives them.

        Of a picture that stands longer than frames do, as in a slide show, what is left of it at the start is one, too.
        """
        info, selection = self._info, self._selection
        start, end = (None if edge is None else math.ceil(info.first + edge / info.time_base)
                      for edge in (selection.start, selection.end))  # fmt: skip
        stands = min(1 / info.rate, _STANDS) / info.time_base
        shown: tuple[int, VideoFrame] | None = None  # the end of the last frame before the start, and it
        with closing(self._from(start)) as frames:
            for pts, duration, frame in self._rising(frames):
                if start is not None and pts < start:
                    shown = pts + duration, frame
                    continue
                if start is not None and shown is not None and pts - start > stands:
                    yield start, (pts if end is None else min(pts, end)) - start, shown[1]
                shown = None
                if end is not None and pts >= end:
                    return
                yield pts, duration if end is None else min(duration, end - pts), frame
        if start is not None and shown is not None and shown[0] - start > stands:
            yield start, (shown[0] if end is None else min(shown[0], end)) - start, shown[1]
        self._read_to_end = True

    def _rising(self, frames: Iterable[VideoFrame]) -> Iterator[tuple[int, int, VideoFrame]]:
        """Each frame with pts and duration; no container holds two frames of one time, or goes back, as some files do.

        Where a frame has no time of its own, or one that the next frame belies, it follows the last one.
        """
        info = self._info
        last = None
        for frame, following in pairwise(chain(frames, (None,))):
            assert frame is not None
            self.decoded += 1
            step = frame.duration or round(1 / info.rate / info.time_base)
            pts = frame.pts if frame.pts is not None else info.first if last is None else last + step
            after = None if following is None else following.pts
            if last is not None and after is not None and last < after < pts:
                pts = min(last + step, after - 1)  # else all that follow would be moved to after it
            if last is not None and pts <= last:
                pts = last + (1 if last - pts < step else step)
            last = pts
            lasts = step
            if after is not None and (after - pts) * info.time_base * info.rate >= Fraction(3, 2):
                self._gaps.append((pts, after))
            if after is not None and after > pts:
                lasts = after - pts  # what the file says is, in MP4, of the frame that is decoded next
            elif after is None and info.last is not None and info.last[0] <= pts < info.last[1]:
                lasts = info.last[1] - pts  # of the last one, which a file that breaks off has not
            yield pts, lasts, frame

    @property
    def estimate(self) -> int | None:
        """How many a whole clip has of those that are wanted, by how much of the file is read."""
        tally = self._tally
        if not self._selection.whole or not tally.reached:
            return None
        count = round(tally.packets * self._bytes / tally.reached)
        return -(-count // self._selection.every)

    def missing(self) -> int:
        """Frames that the file declares and that did not come, after the whole of it was read.

        The count alone proves nothing: AVI counts frames that were dropped on purpose, and a tag outlives a cut. It is
        believed where the times end early, too.
        """
        info, tally = self._info, self._tally
        if not self._selection.whole:
            return max(tally.damaged, self._torn_out()) + (self._cut_off() if self._read_to_end else 0)
        # a damaged packet may cost more frames than its own
        lost = max(tally.damaged, tally.packets - self.decoded) if tally.damaged else 0
        lost = max(lost, self._torn_out(), self._broken_off())
        if len(tally.awaited) > _UNSHOWN:  # nothing is damaged, as where another codec follows
            lost = max(lost, len(tally.awaited))
        if info.ends is None:
            return lost
        rate = self._rate
        uncounted = max(0, (info.frames or 0) - tally.packets) if rate == info.rate else 0
        reached = tally.file_ends if info.ends_with_file else tally.video_ends
        if (info.ends - reached) * rate < Fraction(1 if uncounted else 3, 2):  # ends are rounded
            return lost
        return (uncounted or max(1, round((info.ends - tally.video_ends) * rate))) + lost

    def _broken_off(self) -> int:
        """About how many frames lie behind the place at which an MP4 in fragments is damaged."""
        reached = self._tally.reached
        if not reached:
            return 0
        with self._path.open("rb") as file:
            if not breaks_off(file, reached):
                return 0
        return max(1, round(self._tally.packets * (self._bytes - reached) / reached))

    def _torn_out(self) -> int:
        """Frames that would have place where the file lacks bytes: where it was merely joined, times go on."""
        info = self._info
        if info.joins:  # between parts with clocks of their own the pause is ours
            return 0
        around = round(1 / info.time_base)  # a packet's pts may lie before or after the gap that it tells of
        gaps = (
            after - before for before, after in self._gaps
            if any(before - around < pts < after + around for pts in self._tally.torn)
        )  # fmt: skip
        return sum(max(1, round(gap * info.time_base * info.rate) - 1) for gap in gaps)

    def _cut_off(self) -> int:
        """Frames of a selection that the file's end lacks, where it breaks off before that and what it declares."""
        info, tally, end = self._info, self._tally, self._selection.end
        if info.ends is None:
            return 0
        wanted = info.ends if end is None else min(info.ends, info.first * info.time_base + end)
        reached = tally.file_ends if info.ends_with_file else tally.video_ends
        missing = (wanted - reached) * self._rate
        return 0 if missing < Fraction(3, 2) else round(missing)

    @property
    def _rate(self) -> Fraction:
        """Frames of a second: of an AVI's declared ones some are empty places."""
        seen = self._tally.rate
        return seen if seen and seen * 4 / 3 < self._info.rate else self._info.rate

    def _from(self, start: int | None) -> Generator[VideoFrame]:
        """What decodes, from the key frame before a pts; from the beginning where the file's index leads past it."""
        if start is not None and not self._info.joins:
            with open_clip(self._path) as (container, stream):
                with suppress(av.error.FFmpegError):  # some files cannot seek, and are read from their beginning
                    container.seek(start, stream=stream)
                frames = decode(container, stream, self._tally)
                first = next(frames, None)
                if first is not None and first.pts is not None and first.pts <= start:
                    yield first
                    yield from frames
                    return
            self._tally = Tally()
        # opened again: not every container finds back to its first frame
        with open_clip(self._path) as (container, stream):
            yield from decode(container, stream, self._tally, self._info.joins)


class RGBConverter:
    """Decoded frames -> upright RGB by the clip's own matrix and range."""

    def __init__(self, info: ClipInfo) -> None:
        self._info = info
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> NDArray[Any]:
        info = self._info
        rgb = self._reformatter.reformat(
            frame,
            format="rgb24" if info.depth == 8 else "rgb48le",
            src_colorspace=None if info.chroma == "rgb" else SWS_MATRIX[info.colour.matrix],
            src_color_range=FULL if info.colour.full else LIMITED,
            interpolation=EXACT,
            threads=1,
        )
        return np.ascontiguousarray(info.orientation.upright(rgb.to_ndarray()))
