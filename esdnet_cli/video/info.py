"""What a clip is, by its header and first frame: size, rate, length, what its numbers mean as colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from esdnet_cli.errors import PictureError
from esdnet_cli.settings import max_pixels, too_large
from esdnet_cli.video.clock import Join, find_joins, first_frames
from esdnet_cli.video.decode import Tally, decode, open_clip
from esdnet_cli.video.dolby import is_bare_dolby_vision
from esdnet_cli.video.length import declared_end, declared_frames, last_of_track, zero_of

_HD = 1280, 720  # width or height from which untagged video counts as BT.709, as players take it
# swscale's defaults are fast, and off by several levels
EXACT = int(
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.BITEXACT
)
_SIDE_DATA = {
    "A53_CC": "closed captions within the picture",
    "SPHERICAL": "what makes it a view all round (360 degrees)",
}
_UNSPECIFIED = 2  # of a matrix, primaries or transfer (ITU-T H.273)
_BT709, _BT601 = 1, 6
# swscale's names of the matrices of H.273: 1 BT.709, 4 FCC, 5 and 6 BT.601, 7 SMPTE 240M, 9 BT.2020
SWS_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
LIMITED, FULL = 1, 2

Chroma = Literal["411", "420", "422", "440", "444", "rgb", "grey"]
# by how many columns and lines share one; the rest, such as 4:1:0, is coarser than 4:2:0
_CHROMAS: dict[tuple[int, int], Chroma] = {(4, 1): "411", (2, 1): "422", (1, 2): "440", (1, 1): "444"}


@dataclass(frozen=True)
class Colour:
    """How numbers become colours. matrix, primaries, transfer: as H.273 numbers them; full: range of 0 to the peak.

    matrix is never unspecified: where the file does not name it, its size does.
    """

    matrix: int
    full: bool
    primaries: int
    transfer: int


class Orientation(NamedTuple):
    """How stored pixels become upright ones: rows and columns change places if `transposed`, then axes are flipped."""

    transposed: bool = False
    flipped: tuple[int, ...] = ()

    @classmethod
    def of(cls, matrix: Sequence[int] | None) -> Orientation:
        """By a display matrix [a, b, _, c, d, ...], by which x' = a x + c y and y' = b x + d y; None: upright."""
        if matrix is None:
            return cls()
        a, b, _, c, d = matrix[:5]
        transposed = abs(b) > abs(a)
        down, right = (b, c) if transposed else (d, a)
        return cls(transposed, tuple(axis for axis, along in enumerate((down, right)) if along < 0))

    def upright(self, stored: NDArray[Any]) -> NDArray[Any]:
        """[H, W, ...] as stored -> as shown, a view."""
        return np.flip(stored.swapaxes(0, 1) if self.transposed else stored, self.flipped)

    def stored(self, upright: NDArray[Any]) -> NDArray[Any]:
        """The way back, a view."""
        back = np.flip(upright, self.flipped)
        return back.swapaxes(0, 1) if self.transposed else back


@dataclass(frozen=True)
class ClipInfo:
    """What a clip is, from its header and first frame. width, height: as stored.

    frames: as the file declares, None if it does not. ends: declared end of the video (or of the file, if
    `ends_with_file`) in seconds, taking the last frame for as long as others; last: see `length.last_of_track`. first:
    pts of the first frame, in units of time_base. zero: the second on the file's clock that is 0 in the output. joins:
    where that clock jumps. left: what frames carry that goes into no output.
    """

    width: int
    height: int
    time_base: Fraction
    rate: Fraction
    first: int
    zero: Fraction
    depth: int
    chroma: Chroma
    alpha: bool
    interlaced: bool
    colour: Colour
    aspect: Fraction | None
    display_matrix: tuple[int, ...] | None
    orientation: Orientation
    frames: int | None
    ends: Fraction | None
    ends_with_file: bool
    last: tuple[int, int] | None
    joins: tuple[Join, ...]
    left: tuple[str, ...]

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height as shown."""
        return (self.height, self.width) if self.orientation.transposed else (self.width, self.height)

    @property
    def expected(self) -> int | None:
        """How many frames there should be: declared, or estimated from the duration."""
        if self.frames is not None or self.ends is None:
            return self.frames
        return max(1, round((self.ends - self.first * self.time_base) * self.rate))


def read_info(path: Path) -> ClipInfo:
    """Look at a clip. Raises PictureError if it cannot be derained, with the reason; OSError if it cannot be read."""
    with open_clip(path) as (container, _):
        joins = find_joins(container)
    later = []
    if joins:
        with open_clip(path) as (container, stream):
            later = [(frame.width, frame.height) for frame in first_frames(container, stream, joins)]
        _check_codecs(path, joins)
    with open_clip(path) as (container, stream):
        if stream.codec_context.width * stream.codec_context.height > max_pixels():
            raise PictureError(too_large(frames=True))
        frame = next(decode(container, stream, Tally()), None)
        if frame is None and stream.codec_context.name == "webp":
            raise PictureError("is an animated WebP, which FFmpeg does not decode; convert it to GIF or PNG")
        if frame is None:
            raise PictureError(f"has no frame that decodes ({stream.codec_context.name}); copy it again")
        for size in later:
            check_size((frame.width, frame.height), size)
        name, bits = frame.format.name, max(component.bits for component in frame.format.components)
        if "float" in name or name.endswith(("f32le", "f32be", "f16le", "f16be")):
            raise PictureError(f"has floating-point pixels ({name}); convert it to 8 to 16 bits")
        if is_bare_dolby_vision(stream, frame):
            raise PictureError(
                "is Dolby Vision without a picture for other players (profile 5), whose colours are not supported; "
                "convert it to BT.709, or to profile 8"
            )
        ends, by_file = declared_end(path, container, stream)
        side_data: Any = frame.side_data.get("DISPLAYMATRIX")
        matrix = None if side_data is None else tuple(np.frombuffer(bytes(side_data), np.int32).tolist())
        assert stream.time_base is not None
        rate = _rate(stream, 1 / stream.time_base)
        return ClipInfo(
            width=frame.width,
            height=frame.height,
            time_base=stream.time_base,
            rate=rate,
            first=frame.pts or 0,
            zero=zero_of(container, stream, (frame.pts or 0) * stream.time_base),
            depth=max(8, min(bits, 16)),
            chroma=_chroma(frame),
            # FFmpeg's own decoder of VP9 does not show it; that of GIF does where there is none
            alpha=(
                stream.codec_context.name != "gif" and any(component.is_alpha for component in frame.format.components)
            )
            or stream.metadata.get("alpha_mode") == "1",
            interlaced=frame.interlaced_frame,
            colour=_colour(frame),
            aspect=stream.sample_aspect_ratio or None,
            display_matrix=matrix,
            orientation=Orientation.of(matrix),
            frames=None if stream.average_rate and rate < stream.average_rate else declared_frames(container, stream),
            ends=None if joins else ends,  # what a header or the last packet says is one part's
            ends_with_file=by_file,
            last=last_of_track(container, stream),
            joins=joins,
            left=tuple(name for kind, name in _SIDE_DATA.items() if kind in frame.side_data),
        )


def _rate(stream: VideoStream, most: Fraction) -> Fraction:
    """Frames of a second by the header, which may say more than the clock has ticks, as after a remux to Matroska.

    An AVI's may count empty places of its clock, that of bare DV counts the clock itself.
    """
    rates = [rate for rate in (stream.average_rate, stream.guessed_rate) if rate] or [Fraction(25)]
    if stream.container.format.name in ("avi", "dv"):
        return min(rates)
    return next((rate for rate in rates if rate <= most), most)


def check_size(first: tuple[int, int], later: tuple[int, int], begins: float | None = None) -> None:
    """Raises PictureError if width and height of a later frame are not the first one's. begins: its second."""
    if later != first:
        (width, height), (new_width, new_height) = first, later
        end = "" if begins is None else f", or end before, with --end {math.floor(1000 * begins) / 1000}"
        raise PictureError(
            f"changes its size midway, from {width}x{height} to {new_width}x{new_height}; split it there{end}"
        )


def _check_codecs(path: Path, joins: Sequence[Join]) -> None:
    # part by part: of a whole file FFmpeg knows one, whose decoder may take the other's packets and give no frame
    first = None
    for begin, end in pairwise((0, *(join.position for join in joins), path.stat().st_size)):
        half = begin, (begin + end) // 2  # not to the end: where codecs change, a join is found late
        with suppress(PictureError), open_clip(path, half) as (_, stream):  # some are of sound alone
            codec = stream.codec_context.name
            first = first or codec
            if codec != first:
                break
    else:
        return
    raise PictureError(f"changes its codec midway, from {first} to {codec}; split it there")


def _colour(frame: VideoFrame) -> Colour:
    matrix, rgb = frame.colorspace, frame.format.is_rgb
    tagged = matrix in SWS_MATRIX
    uncoded = rgb or _chroma(frame) == "grey"  # such as PNG's: 0 says that the numbers are what they are
    if matrix not in (*SWS_MATRIX, _UNSPECIFIED) and not (uncoded and matrix == 0):
        raise PictureError(
            f"has the colour matrix {matrix} (ITU-T H.273), which is not supported; convert it to BT.709"
        )
    return Colour(
        matrix=matrix if tagged else _BT709 if frame.width >= _HD[0] or frame.height >= _HD[1] else _BT601,
        full=rgb or frame.color_range == FULL or frame.format.name.startswith("yuvj"),
        primaries=frame.color_primaries,
        transfer=frame.color_trc,
    )


def _chroma(frame: VideoFrame) -> Chroma:
    if frame.format.is_rgb or frame.format.has_palette:
        return "rgb"
    if sum(not component.is_alpha for component in frame.format.components) < 3:
        return "grey"
    # not from the frame's sides, which are rounded up
    return _CHROMAS.get((16 // frame.format.chroma_width(16), 16 // frame.format.chroma_height(16)), "420")
