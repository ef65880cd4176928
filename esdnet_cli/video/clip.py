"""One clip through a Derainer: decoding, network and encoding overlap; finished segments outlive a kill."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from esdnet_cli.energy.cost import Activity
from esdnet_cli.errors import PictureError, printable
from esdnet_cli.files import copy_times, file_digest, whole_file
from esdnet_cli.pipeline.derainer import Derainer
from esdnet_cli.pipeline.images import grey_again
from esdnet_cli.pipeline.journal import Journal
from esdnet_cli.pipeline.output import Output, pixel_settings
from esdnet_cli.pipeline.results import ImageResult
from esdnet_cli.pipeline.run import READ_AHEAD
from esdnet_cli.video.deflicker import Deflicker
from esdnet_cli.video.encoder import Segment, SegmentEncoder, choose_encoding, default_codec
from esdnet_cli.video.info import ClipInfo, read_info
from esdnet_cli.video.inputs import CONTAINERS, ClipJob
from esdnet_cli.video.join import Film, Footage, check_container, count_frames, join
from esdnet_cli.video.parts import (
    ActivitySum,
    FrameRecord,
    Part,
    Parts,
    counts_of,
    delay_of,
    parts_folder,
    with_counts,
    without_counts,
)
from esdnet_cli.video.reader import Frame, Frames, Selection
from esdnet_cli.video.streams import Cut, choose_streams

SEGMENT = 24  # frames: what a kill costs at most; each begins with a key frame


@dataclass(frozen=True)
class ClipOptions:
    """What is done to clips besides deraining. codec, crf: None for the container's, the codec's default.

    dates: outputs carry their clip's modification time. count: spikes and operations.
    """

    codec: str | None = None
    crf: int | None = None
    selection: Selection = Selection()
    compare: bool = False
    deflicker: bool = False
    dates: bool = True
    count: bool = True


@dataclass(frozen=True)
class FrameResult:
    """One frame's figures. time: in the clip, in seconds. kept: by an earlier run.

    estimate: how many frames there will be, as `Frames.estimate`.
    """

    image: ImageResult
    frame: int
    time: float
    kept: bool
    estimate: int | None


@dataclass(frozen=True)
class ClipResult:
    """One clip's fate: `image` sums up its frames (width and height are those of one).

    waited: seconds that the network waited for frames; took: from the first frame asked for to the last one encoded.
    """

    image: ImageResult
    frames: int = 0
    waited: float = 0.0
    took: float = 0.0


@dataclass(frozen=True)
class ClipPlan:
    """What is known before the first frame is computed. notes: on what the output cannot keep.

    sha256: the source's. identity: all that shapes the result. done: the output is there already.
    """

    film: Film
    notes: list[str]
    sha256: str
    output: Output
    identity: dict[str, Any]
    done: bool

    @property
    def info(self) -> ClipInfo:
        """The source's."""
        return self.film.info


class Interrupted(KeyboardInterrupt):
    """Ctrl-C within a clip. kept: frames that a rerun need not compute again."""

    def __init__(self, kept: int) -> None:
        super().__init__()
        self.kept = kept


def plan_clip(derainer: Derainer, job: ClipJob, options: ClipOptions, overwrite: bool) -> ClipPlan:
    """Look at a clip, choose its encoding, see what is in the way; nothing is written.

    Raises PictureError, FFmpegError or OSError if it cannot be done.
    """
    info = read_info(job.source)
    container = CONTAINERS[job.output.suffix.lower()]
    width, height = info.width, info.height
    if options.compare:
        width, height = (width, 2 * height) if info.orientation.transposed else (2 * width, height)
    codec = options.codec or default_codec(container)
    selection = options.selection
    paced = replace(info, rate=info.rate / selection.every)
    encoding, notes = choose_encoding(paced, codec, options.crf, width, height, SEGMENT)
    settings = {
        **pixel_settings(derainer.info),
        "encoding": encoding.to_dict(),
        "container": container,
        "start": None if selection.start is None else str(selection.start),
        "end": None if selection.end is None else str(selection.end),
        "every": selection.every,
        "compare": options.compare,
        "deflicker": options.deflicker,
    }
    if encoding.aspect not in (None, 1) and container in ("matroska", "webm") and codec not in ("h264", "hevc"):
        notes.append(
            f"its pixel aspect {encoding.aspect} is left out, since {codec} in {job.output.suffix} is written "
            "without one; choose .mp4 to keep it"
        )
    kept, left = choose_streams(job.source, info, container)
    notes += left
    film = Film(job.source, info, container, encoding, kept)
    check_container(film)
    sha256 = file_digest(job.source)
    output = Output(Journal(job.output.parent, settings), overwrite, dates=options.dates)
    done = output.is_done(job.output, sha256)
    # segments join only if one and the same encoder made them
    identity = {"source": sha256, "libavcodec": list(av.library_versions["libavcodec"]), **settings}
    if not options.count:
        identity["counted"] = False  # figures of a clip are of all its frames or of none
    return ClipPlan(film, notes, sha256, output, identity, done)


def derain_clip(
    derainer: Derainer, job: ClipJob, plan: ClipPlan, options: ClipOptions,
    on_frame: Callable[[FrameResult], None], tell: Callable[[str], None],
) -> ClipResult:  # fmt: skip
    """Derain a clip into its output, going on where an earlier run was stopped.

    on_frame: told each frame as it is computed, those of earlier runs first. tell: for what happens on the way.
    Reader thread -> this thread (network) -> writer thread (deflicker, encoder, disk).
    Raises what `plan_clip` raises, and Interrupted.
    """
    parts = _parts(job, plan)
    plan.output.prepare()
    if not parts.begin():
        other = "with other options, by another encoder or of another input"
        tell(f"{printable(job.source)}: discarding parts made {other}; starting over.")
    work = _ClipWork(job, plan, options, parts, on_frame)
    if work.kept:
        tell(f"{printable(job.source)}: continuing after {work.kept} frames.")
    frames = Frames(job.source, plan.info, options.selection, work.kept)
    began = time.perf_counter()
    try:
        work.compute(derainer, frames)
        took = time.perf_counter() - began
        if not work.times:
            parts.remove()
            raise PictureError("has no frame between --start and --end; choose other times")
        dropped = _write(job, plan, options, parts, work.times)
    except KeyboardInterrupt:
        raise Interrupted(work.kept) from None
    parts.remove()
    result = ImageResult.done(
        printable(job.source), printable(job.output), plan.info.upright, work.seconds, work.activity.total()
    )
    if missing := frames.missing():
        about = "" if plan.info.frames is not None else "about "
        error = (
            f"is truncated or damaged: {about}{missing} of {missing + frames.decoded} frames are missing; "
            f"the frames that could be decoded are in {printable(job.output)}"
        )
        result = replace(result, status="failed", error=error)
    elif dropped:
        error = f"is damaged: {dropped} packets of sound or subtitles are left out of {printable(job.output)}"
        result = replace(result, status="failed", error=error)
    return ClipResult(result, len(work.times), work.waited, took)


def remove_finished_parts(job: ClipJob, plan: ClipPlan) -> None:
    """The parts of an output that is done: they stay where a run is killed as it ends. Those of other options stay."""
    if parts_folder(job.output).exists() and (parts := _parts(job, plan)).are_ours():
        parts.remove()


def _parts(job: ClipJob, plan: ClipPlan) -> Parts:
    # another machine's encoder may write another header: told now, not when the parts do not join
    return Parts(job.output, {**plan.identity, "header": SegmentEncoder(plan.film.encoding).extradata.hex()})


class _ClipWork:
    """The frames of one clip on their way; `kept` of them are in finished parts."""

    def __init__(
        self, job: ClipJob, plan: ClipPlan, options: ClipOptions, parts: Parts, on_frame: Callable[[FrameResult], None]
    ) -> None:
        self._job, self._plan, self._options, self._parts, self._on_frame = job, plan, options, parts, on_frame
        self.times: list[int] = []  # pts of all frames, the only thing that grows with the clip
        self.activity = ActivitySum()
        self.seconds = self.waited = 0.0
        self.kept = self._written = 0
        state = b""
        for part in parts.read():
            for frame in part.frames:
                self._note(frame, part.activity, kept=True)
            self._written += 1
            state = part.state
        self.kept = len(self.times)
        self._deflicker = Deflicker(_decoded(state))
        self._encoder: SegmentEncoder | None = None
        self._frames: list[FrameRecord] = []
        self._shape: Activity | None = None

    def compute(self, derainer: Derainer, frames: Frames) -> None:
        """Everything that is not in finished parts."""
        source = iter(frames)
        with ThreadPoolExecutor(1, "writer") as writer, ThreadPoolExecutor(1, "reader") as reader:
            reading = deque(reader.submit(next, source, None) for _ in range(READ_AHEAD))
            writing: deque[Future[None]] = deque()
            try:
                while (frame := self._awaited(reading.popleft())) is not None:
                    reading.append(reader.submit(next, source, None))
                    derained = derainer(frame.rgb, self._options.count)
                    activity = derained.activity or Activity(1, ())
                    record = FrameRecord(frame.number, frame.pts, derained.seconds or 0.0, counts_of(activity))
                    shape = self._shape = self._shape or without_counts(activity)
                    self._note(record, shape, estimate=frames.estimate)
                    writing.append(writer.submit(self._encode, frame, derained.image, record))
                    while len(writing) > READ_AHEAD or (writing and writing[0].done()):
                        writing.popleft().result()
                while writing:
                    writing.popleft().result()
                writer.submit(self._finish_part).result()
            finally:
                for read in reading:
                    read.cancel()
                reader.submit(source.close)  # type: ignore[attr-defined]

    def _awaited(self, future: Future[Frame | None]) -> Frame | None:
        began = time.perf_counter()
        frame = future.result()
        self.waited += time.perf_counter() - began
        return frame

    def _note(self, record: FrameRecord, shape: Activity, kept: bool = False, estimate: int | None = None) -> None:
        self.times.append(record.pts)
        self.activity.add(shape, record.counts)
        self.seconds += record.seconds
        info = self._plan.info
        activity = with_counts(shape, record.counts) if record.counts else None
        name = f"{printable(self._job.source)}#{record.number:06}"
        image = ImageResult.done(name, printable(self._job.output), info.upright, record.seconds, activity)
        moment = float((record.pts - info.first) * info.time_base)
        self._on_frame(FrameResult(image, record.number, moment, kept, estimate))

    def _encode(self, frame: Frame, derained: NDArray[Any], record: FrameRecord) -> None:
        info = self._plan.info
        if info.chroma == "grey":
            derained = grey_again(derained)
        if self._options.deflicker:
            derained = self._deflicker(derained)
        shown = np.hstack((frame.rgb, derained)) if self._options.compare else derained
        if self._encoder is None:
            self._encoder = SegmentEncoder(self._plan.film.encoding)
        self._encoder.add(info.orientation.stored(shown), frame.pts, frame.duration)
        self._frames.append(record)
        if len(self._frames) == SEGMENT:
            self._finish_part()

    def _finish_part(self) -> None:
        if self._encoder is None or self._shape is None:
            return
        self._encoder.finish()
        segment = Segment(self._encoder.extradata, self._encoder.packets)
        part = Part(segment, self._frames, self._shape, _encoded(self._deflicker.last))
        self._parts.write(self._written, part)
        self._written += 1
        self.kept += len(self._frames)
        self._encoder, self._frames = None, []


def _write(job: ClipJob, plan: ClipPlan, options: ClipOptions, parts: Parts, times: list[int]) -> int:
    """Join the parts into the output; returns what `join` does. Raises PictureError if something came in the way."""
    if plan.output.is_done(job.output, plan.sha256):
        return 0  # by another run, while this one computed
    unit, selection = plan.info.time_base, options.selection
    cut = Cut(shift=plan.info.zero)
    if not selection.whole:
        end = None if selection.end is None else plan.info.first * unit + selection.end
        # the first frame gets the time of the clip's first
        cut = Cut(times[0] * unit, end, plan.info.zero + (times[0] - plan.info.first) * unit)
    delay = max((delay_of(part) for part in parts.read()), default=0)
    replaced = plan.output.overwrite or job.output.exists()
    try:
        with whole_file(job.output, replaced) as file:
            dropped = join(file, plan.film, Footage((part.segment for part in parts.read()), times, delay), cut)
            file.flush()
            if (written := count_frames(Path(file.name))) != len(times):
                raise PictureError(
                    f"came out with {written} of {len(times)} frames; choose another ending, and report it"
                )
            plan.output.journal.note(job.output, plan.sha256, file_digest(Path(file.name)))
        if plan.output.dates:
            copy_times(job.source, job.output)  # only now: an old file of a temporary name is taken for a leftover
    except FileExistsError:
        plan.output.is_done(job.output, plan.sha256)
    return dropped


def _encoded(image: NDArray[Any] | None) -> bytes:
    """PNG, without loss."""
    return b"" if image is None else bytes(cv2.imencode(".png", image)[1])


def _decoded(png: bytes) -> NDArray[Any] | None:
    return None if not png else cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
