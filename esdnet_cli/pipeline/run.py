"""A batch of files through a Derainer: reading, network and writing overlap in time; one bad file stops nothing."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from esdnet_cli.errors import PictureError, system_error, unexpected
from esdnet_cli.files import digest
from esdnet_cli.pipeline.derainer import AsIs, Derainer
from esdnet_cli.pipeline.images import Picture, grey_again, read_picture, visible_part, without_hidden_colours
from esdnet_cli.pipeline.output import Nowhere, Output
from esdnet_cli.pipeline.results import ImageResult
from esdnet_cli.pipeline.sources import Job, Source
from esdnet_cli.pipeline.threads import pool

R = TypeVar("R")
READ_AHEAD = 2  # pictures decoded and waiting, and as many waiting to be written: more would only take memory

Progress = Callable[[float], None]  # told the share of one picture that was just done


@dataclass(frozen=True)
class Done:
    """A picture before and after. sha256: of the source's bytes. spike_map: [H, W, levels], if there is a network.

    modified_ns: when the source was last changed, in nanoseconds since 1970.
    """

    source: Source
    sha256: str
    rainy: Picture
    derained: Picture
    spike_map: NDArray[np.float16] | None
    modified_ns: int | None = None


Observer = Callable[[Done, ImageResult], ImageResult]  # adds what it found; PictureError makes the picture failed


class Beside(Protocol):
    """Files that are written of a picture beside its output, before it."""

    def are_done(self, source: Source, sha256: str) -> bool:
        """Whether all are there: True to skip. Raises PictureError if something that is not ours is in the way."""

    def write(self, done: Done) -> None:
        """Write those that are not there. Raises PictureError or OSError."""


@dataclass(frozen=True)
class _Read:
    sha256: str
    modified_ns: int
    picture: Picture
    lost: tuple[str, ...]


def derain_files(
    derainer: Derainer | AsIs,
    jobs: Sequence[Job],
    output: Output | Nowhere,
    progress: Progress = lambda share: None,
    observers: Sequence[Observer] = (),
    count: bool = True,
    maps: Beside | None = None,
) -> Iterator[ImageResult]:
    """Derain each job's source into its output; results in order, as they come.

    observers: see each picture that is done, with its spike map. count: also count spikes and operations. maps: what
    is written of the spike maps; a picture without them is not done. What goes wrong with a picture is its result, no
    exception.
    Reader thread -> this thread (network) -> writer thread.
    """
    steps = _Steps(derainer, output, progress, observers, count, maps)
    waiting = deque(jobs)
    reading: deque[tuple[Job, Future[_Read | ImageResult]]] = deque()
    writing: deque[Future[ImageResult]] = deque()
    # observers compute, too: on one thread, so that they do not fight with the network for its cores
    # leaving this block waits for the writes in hand: an interrupted run loses no finished picture
    with pool("writer", [1]) as writer, ThreadPoolExecutor(1, "reader") as reader:

        def compute(job: Job, content: Future[_Read | ImageResult]) -> Future[ImageResult]:
            """What comes of a picture; a function of its own, which holds on to no picture once it has returned."""
            read = content.result()
            if isinstance(read, ImageResult):
                progress(1)
                return _settled(read)
            derained = _or_failed(steps.derain, job, read)
            if isinstance(derained, ImageResult):
                return _settled(derained)
            return writer.submit(_or_failed, steps.write, job, derained)

        try:
            while waiting or reading:
                while waiting and len(reading) < READ_AHEAD:
                    job = waiting.popleft()
                    reading.append((job, reader.submit(_or_failed, steps.read, job)))
                writing.append(compute(*reading.popleft()))
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


def plan(job: Job, output: Output | Nowhere, maps: Beside | None = None) -> ImageResult:
    """What `derain_files` would begin to do with a job, without decoding, computing or writing anything."""
    return _or_failed(_look, job, output, maps)


def _look(job: Job, output: Output | Nowhere, maps: Beside | None) -> ImageResult:
    data = job.source.path.read_bytes()
    output.check_ending(job.output)
    if _is_done(job, digest(data), output, maps):
        return ImageResult.skipped(job.source.name, job.output_name)
    return ImageResult(job.source.name, job.output_name, "ok")


def _is_done(job: Job, sha256: str, output: Output | Nowhere, maps: Beside | None) -> bool:
    """True to skip. Raises PictureError if something that is not ours is in the way of one of the files."""
    done = [output.is_done(job.output, sha256)]
    if maps is not None:
        done.append(maps.are_done(job.source, sha256))
    return all(done)


@dataclass(frozen=True)
class _Steps:
    """What happens to a picture, on three threads; a step may raise whatever `_or_failed` takes for a failure."""

    derainer: Derainer | AsIs
    output: Output | Nowhere
    progress: Progress
    observers: Sequence[Observer]
    count: bool
    maps: Beside | None

    def read(self, job: Job) -> _Read | ImageResult:
        """On the reader's thread."""
        modified_ns = os.stat(job.source.path).st_mtime_ns
        data = job.source.path.read_bytes()
        sha256 = digest(data)
        if _is_done(job, sha256, self.output, self.maps):
            return ImageResult.skipped(job.source.name, job.output_name, sha256)
        picture = read_picture(data, job.source.path)
        return _Read(sha256, modified_ns, picture, self.output.loses(picture, job.output))

    def derain(self, job: Job, read: _Read) -> tuple[Done, ImageResult]:
        """On the thread of whoever iterates: the network has all cores."""
        picture = read.picture
        part = visible_part(picture)
        seen = replace(picture, rgb=picture.rgb[part], alpha=None if picture.alpha is None else picture.alpha[part])
        left = tiles = self.derainer.tiles(seen.height, seen.width)

        def on_tile() -> None:
            nonlocal left
            left -= 1
            self.progress(1 / tiles)

        try:
            mapped = bool(self.observers or self.maps)
            derained = self.derainer(without_hidden_colours(seen), self.count, on_tile, mapped)
        finally:
            self.progress(left / tiles)
        rgb, spike_map = grey_again(derained.image) if picture.grey else derained.image, derained.spike_map
        if seen.rgb.shape != picture.rgb.shape:
            rgb = _within(picture.rgb.copy(), part, rgb)
            if spike_map is not None:  # where nothing was computed nothing fired
                whole = np.zeros((picture.height, picture.width, spike_map.shape[2]), spike_map.dtype)
                spike_map = _within(whole, part, spike_map)
        if picture.alpha is not None:
            rgb[picture.alpha == 0] = picture.rgb[picture.alpha == 0]  # what nobody sees stays as it was
        size = picture.width, picture.height
        return (
            Done(job.source, read.sha256, picture, replace(picture, rgb=rgb), spike_map, read.modified_ns),
            ImageResult.done(
                job.source.name, job.output_name, size, derained.seconds, derained.activity, read.lost, read.sha256
            ),
        )  # fmt: skip

    def write(self, job: Job, derained: tuple[Done, ImageResult]) -> ImageResult:
        """On the writer's thread, the observers' work, too."""
        done, result = derained
        if self.maps is not None:
            self.maps.write(done)
        self.output.write(job.output, done.derained, done.sha256, done.modified_ns)
        for observer in self.observers:
            result = observer(done, result)
        return result


def _within(whole: NDArray[Any], part: tuple[slice, slice], pixels: NDArray[Any]) -> NDArray[Any]:
    whole[part] = pixels
    return whole


def _or_failed(step: Callable[..., R], job: Job, *args: Any) -> R | ImageResult:
    """Run one step for one picture; what goes wrong with it becomes its failed result."""
    try:
        return step(job, *args)
    except PictureError as error:
        reason = str(error)
    except OSError as error:
        reason = system_error(error, job.source.path)
    except MemoryError:
        reason = "not enough memory for this picture; use a smaller --tile or cut it into parts"
    except Exception as error:  # a broken driver, or a bug of ours, must not cost the other pictures
        reason = unexpected(error)
    return ImageResult.failed(job.source.name, reason, job.output_name)


def _settled(result: ImageResult) -> Future[ImageResult]:
    future: Future[ImageResult] = Future()
    future.set_result(result)
    return future
