"""How much a derained sequence flickers, against its input and, where there is one, the clean sequence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import av.error
import numpy as np
from numpy.typing import NDArray

from esdnet_cli.errors import EsdnetError, PictureError, printable
from esdnet_cli.pipeline.images import open_picture
from esdnet_cli.pipeline.sources import find_sources
from esdnet_cli.video.decode import reason
from esdnet_cli.video.flow import Image, flow, inside, warp
from esdnet_cli.video.frames import in_order
from esdnet_cli.video.info import read_info
from esdnet_cli.video.reader import Frames, Selection


class WarpingError:
    """How much clips flicker: the mean square difference of frames and their motion-compensated predecessors.

    As Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018: over pixels that both frames show (motion
    there and back agrees), values in [0, 1], mean over frames. Motion comes from a reference that all clips share.
    """

    def __init__(self, clips: int) -> None:
        self._sums = np.zeros(clips)
        self._pairs = 0
        self._before: tuple[Image, list[Image]] | None = None

    def add(self, reference: Image, frames: list[Image]) -> None:
        """One frame of each clip, and of the reference: uint8 or uint16 [H, W, 3]."""
        before, self._before = self._before, (reference, frames)
        if before is None:
            return
        backward, forward = flow(reference, before[0]), flow(before[0], reference)
        there_and_back = backward + warp(forward, backward)
        far = np.square(backward).sum(2) + np.square(warp(forward, backward)).sum(2)
        seen = (np.square(there_and_back).sum(2) < 0.01 * far + 0.5) * inside(backward)
        if seen.mean() < 0.25:  # a scene cut
            return
        errors = []
        for frame, last in zip(frames, before[1]):
            difference = (warp(last, backward) - frame) / np.iinfo(frame.dtype).max
            errors.append(float((np.square(difference).mean(2) * seen).sum() / seen.sum()))
        self._sums += errors
        self._pairs += 1

    @property
    def means(self) -> list[float] | None:
        """The error of each clip; None if no two frames could be compared."""
        return list(self._sums / self._pairs) if self._pairs else None


@dataclass(frozen=True)
class Flicker:
    """Mean warping errors of sequences in the order given, pixels in [0, 1], over so many frames of each."""

    means: tuple[float, ...]
    frames: int


def warping_errors(rainy: Path, derained: Path, clean: Path | None) -> Flicker:
    """Warping errors of clips, or folders of numbered frames: of rainy, derained and, if given, clean.

    All are measured along the same motion: that of the clean sequence if there is one, else that of the rainy one.
    Raises EsdnetError if they cannot be read, or are not of one length and size.
    """
    paths = [rainy, derained, *([] if clean is None else [clean])]
    error, count = WarpingError(len(paths)), 0
    sequences = [_frames(path) for path in paths]
    first: tuple[int, ...] | None = None
    for frames in zip_longest(*sequences):
        if any(frame is None for frame in frames):
            ended = next(path for path, frame in zip(paths, frames) if frame is None)
            raise EsdnetError(f"{printable(ended)}: has {count} frames, fewer than the others; give the same ones")
        if len({frame.shape for frame in frames}) > 1:
            sizes = ", ".join(f"{frame.shape[1]}x{frame.shape[0]}" for frame in frames)
            raise EsdnetError(f"{printable(derained)}: frame {count} differs in size from the others ({sizes})")
        shape = frames[0].shape
        first = first or shape
        if shape != first:
            raise EsdnetError(
                f"{printable(rainy)}: frame {count} has {shape[1]}x{shape[0]}, the first one {first[1]}x{first[0]}; "
                "give frames of one size"
            )
        error.add(frames[-1] if clean is not None else frames[0], list(frames))
        count += 1
    means = error.means
    if means is None:
        raise EsdnetError(f"{printable(rainy)}: has no two frames of one scene; flicker needs them")
    return Flicker(tuple(means), count)


def _frames(path: Path) -> Iterator[NDArray[Any]]:
    """RGB of a clip, or of a folder's pictures in the order of their numbers. Raises EsdnetError."""
    try:
        if path.is_dir():
            sources, unusable = find_sources([str(path)], recursive=None)
            for entry in unusable:
                raise PictureError(entry.error)
            for source in in_order(sources):
                yield open_picture(source.path).rgb
        else:
            for frame in Frames(path, read_info(path), Selection(), 0):
                yield frame.rgb
    except PictureError as error:
        raise EsdnetError(f"{printable(path)}: {error}") from error
    except av.error.FFmpegError as error:
        raise EsdnetError(f"{printable(path)}: cannot be read ({reason(error)}); name a clip or a folder") from error
