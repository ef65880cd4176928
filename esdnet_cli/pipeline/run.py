"""A batch of files through a Derainer: reading, network and writing overlap in time; one bad file stops nothing."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from esdnet_cli.errors import PictureError, one_line, printable, unexpected
from esdnet_cli.files import NAME_BYTES, digest, write_atomically
from esdnet_cli.pipeline.derainer import Derainer
from esdnet_cli.pipeline.images import (
    Picture,
    check_output,
    encode_picture,
    grey_again,
    read_picture,
    without_hidden_colours,
    writer_for,
)
from esdnet_cli.pipeline.journal import Journal
from esdnet_cli.pipeline.results import ImageResult
from esdnet_cli.pipeline.sources import Job, Source
from esdnet_cli.settings import MAX_MEGAPIXELS

R = TypeVar("R")
READ_AHEAD = 2  # pictures decoded and waiting, and as many waiting to be written: more would only take memory

# of the code that makes pixels, raised with every change to what comes out for the same input and network: decoding,
# colours, tiles, arithmetic, encoding; outputs of another number are made again
PIXELS = 3

Progress = Callable[[float], None]  # told the share of one picture that was just done


def pixel_settings(derainer: Derainer) -> dict[str, Any]:
    """Everything that shapes an output's pixels: what the journal compares before it skips a picture."""
    return {
        "pixels": PIXELS,
        "weights": derainer.checkpoint.sha256,
        "precision": derainer.precision,
        "tile": derainer.tiling.tile,
        "overlap": derainer.tiling.overlap,
        "ensemble": derainer.ensemble,
    }


@dataclass(frozen=True)
class Output:
    """Where pictures go: `journal` knows what is done; `overwrite` replaces whatever is in the way.

    mend: what to do about it otherwise. dates: outputs carry their input's modification time.
    """

    journal: Journal
    overwrite: bool
    mend: str = field(default="--overwrite replaces it", kw_only=True)
    dates: bool = field(default=True, kw_only=True)

    def is_done(self, path: Path, source_sha256: str) -> bool:
        """True to skip, False to go on. Raises PictureError if something that is not ours is in the way."""
        if len(os.fsencode(path.name)) > NAME_BYTES:
            raise PictureError(f"its output's name would be longer than {NAME_BYTES} bytes; rename it")
        if os.path.isdir(path):
            raise PictureError(
                f"{printable(path)} is a folder with the name of an output; move it, or choose another place"
            )
        if self.overwrite:
            return False
        state = self.journal.state(path, source_sha256)
        if state == "foreign":
            raise PictureError(
                f"{printable(path)} already exists and was not written by esdnet from this input, "
                f"or has changed since; {self.mend}"
            )
        return state == "done"

    def write(self, path: Path, picture: Picture, source_sha256: str, modified_ns: int | None = None) -> None:
        """Encode one picture, note it, give it its name and its input's modification time.

        Raises PictureError if something came in the way meanwhile.
        """
        encoded = encode_picture(picture, path)
        if self.is_done(path, source_sha256):
            return  # by another run, while this one computed
        path.parent.mkdir(parents=True, exist_ok=True)
        self.journal.note(path, source_sha256, digest(encoded))
        try:
            replaced = self.overwrite or os.path.lexists(path)
            write_atomically(path, encoded, replaced, modified_ns if self.dates else None)
        except FileExistsError:
            self.is_done(path, source_sha256)


@dataclass(frozen=True)
class Done:
    """A picture before and after. sha256: of the source's bytes. spike_map: [H, W, levels], if asked for.

    modified_ns: when the source was last changed, in nanoseconds since 1970.
    """

    source: Source
    sha256: str
    rainy: Picture
    derained: Picture
    spike_map: NDArray[np.float16] | None
    modified_ns: int | None = None


Observer = Callable[[Done, ImageResult], ImageResult]  # adds what it found; PictureError makes the picture failed


@dataclass(frozen=True)
class _Read:
    sha256: str
    modified_ns: int
    picture: Picture
    lost: tuple[str, ...]


def derain_files(
    derainer: Derainer | None,
    jobs: Sequence[Job],
    output: Output | None,
    progress: Progress = lambda share: None,
    max_megapixels: float = MAX_MEGAPIXELS,
    observers: Sequence[Observer] = (),
    spike_maps: bool = False,
    count: bool = True,
) -> Iterator[ImageResult]:
    """Derain each job's source into its output, or only measure it if `output` is None; results in order, as they come.

    derainer: None leaves pictures as they are. observers: see each picture that is done, with its spike map if
    `spike_maps`. count: also count spikes and operations. What goes wrong with a picture is its result, no exception.
    Reader thread -> this thread (network) -> writer thread.
    """

    def read(job: Job) -> _Read | ImageResult:
        modified_ns = os.stat(job.source.path).st_mtime_ns
        data = job.source.path.read_bytes()
        sha256 = digest(data)
        if output is not None and job.output is not None and output.is_done(job.output, sha256):
            return _result(job, "skipped")
        picture = read_picture(data, job.source.path, max_megapixels)
        lost = () if job.output is None else check_output(picture, job.output)
        return _Read(sha256, modified_ns, picture, lost)

    def write(job: Job, derained: tuple[Done, ImageResult]) -> ImageResult:
        done, result = derained
        if output is not None and job.output is not None:
            output.write(job.output, done.derained, done.sha256, done.modified_ns)
        for observer in observers:
            result = observer(done, result)
        return result

    waiting = deque(jobs)
    reading: deque[tuple[Job, Future[_Read | ImageResult]]] = deque()
    writing: deque[Future[ImageResult]] = deque()
    # leaving this block waits for the writes in hand: an interrupted run loses no finished picture
    # observers compute, too: on one thread, so that they do not fight with the network for its cores
    single = (torch.set_num_threads, (1,))
    with ThreadPoolExecutor(1, "writer", *single) as writer, ThreadPoolExecutor(1, "reader") as reader:
        try:
            while waiting or reading:
                while waiting and len(reading) < READ_AHEAD:
                    job = waiting.popleft()
                    reading.append((job, reader.submit(_or_failed, job, read, job)))
                job, future = reading.popleft()
                content = future.result()
                if isinstance(content, _Read):
                    derained = _or_failed(job, _derain, derainer, job, content, spike_maps, count, progress)
                    if not isinstance(derained, ImageResult):
                        writing.append(writer.submit(_or_failed, job, write, job, derained))
                    else:
                        writing.append(_settled(derained))
                    del derained
                else:
                    writing.append(_settled(content))
                    progress(1)
                del content, future  # a large picture need not wait for the next one
                while writing and (len(writing) > READ_AHEAD or writing[0].done()):
                    yield writing.popleft().result()
            while writing:
                yield writing.popleft().result()
        except KeyboardInterrupt:
            for _, future in reading:
                future.cancel()
            while writing:  # what is on its way to the disk is done all the same, and counts
                yield writing.popleft().result()
            raise


def plan(job: Job, output: Output | None) -> ImageResult:
    """What `derain_files` would begin to do with a job, without decoding, computing or writing anything."""

    def look() -> ImageResult:
        data = job.source.path.read_bytes()
        if output is None or job.output is None:
            return _result(job, "ok")
        writer_for(job.output)
        return _result(job, "skipped" if output.is_done(job.output, digest(data)) else "ok")

    return _or_failed(job, look)


def _derain(
    derainer: Derainer | None, job: Job, read: _Read, spike_map: bool, count: bool, progress: Progress
) -> tuple[Done, ImageResult]:
    picture = read.picture
    if derainer is None:
        progress(1)
        return Done(job.source, read.sha256, picture, picture, None), _result(
            job, "ok", None, picture.width, picture.height
        )
    tiles = derainer.tiling.count(picture.height, picture.width)
    left = tiles

    def on_tile() -> None:
        nonlocal left
        left -= 1
        progress(1 / tiles)

    started = time.perf_counter()
    try:
        derained = derainer(without_hidden_colours(picture), count, on_tile, spike_map)
    finally:
        progress(left / tiles)
    rgb = grey_again(derained.image) if picture.grey else derained.image
    if picture.alpha is not None:
        rgb[picture.alpha == 0] = picture.rgb[picture.alpha == 0]  # what nobody sees stays as it was
    seconds = time.perf_counter() - started
    result = _result(job, "ok", None, picture.width, picture.height, seconds, derained.activity)
    done = Done(job.source, read.sha256, picture, replace(picture, rgb=rgb), derained.spike_map, read.modified_ns)
    return done, replace(result, lost=read.lost)


def _result(job: Job, status: Literal["ok", "skipped", "failed"], *rest: Any) -> ImageResult:
    output = None if job.output is None else job.shown or printable(job.output)
    return ImageResult(job.source.shown or printable(job.source.path), output, status, *rest)


def _or_failed(job: Job, step: Callable[..., R], *args: Any) -> R | ImageResult:
    """Run one step for one picture; what goes wrong with it becomes its failed result."""
    try:
        return step(*args)
    except PictureError as error:
        reason = str(error)
    except OSError as error:
        reason = f"{error.strerror or one_line(error)}; check that it exists, its permissions and the disk's space"
        if error.filename is not None and os.fspath(error.filename) != os.fspath(job.source.path):
            reason = f"{printable(os.fsdecode(error.filename))}: {reason}"
    except MemoryError:
        reason = "not enough memory for this picture; use a smaller --tile or cut it into parts"
    except Exception as error:  # a broken driver, or a bug of ours, must not cost the other pictures
        reason = unexpected(error)
    return _result(job, "failed", reason)


def _settled(result: ImageResult) -> Future[ImageResult]:
    future: Future[ImageResult] = Future()
    future.set_result(result)
    return future
