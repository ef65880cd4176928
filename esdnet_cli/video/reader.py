"""Clips, opened and decoded: upright RGB frames, each with its own time, and what the file says about its colours."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from esdnet_cli.errors import PictureError, one_line
from esdnet_cli.settings import max_pixels, too_large
from esdnet_cli.video.clock import Join, Part, find_joins, first_frames, one_clock
from esdnet_cli.video.dolby import is_bare_dolby_vision
from esdnet_cli.video.length import declared_end, declared_frames, zero_of

HD = 1280, 720  # width or height from which untagged video counts as BT.709, as players take it
# swscale's defaults are fast, and off by several levels
EXACT = int(
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.BITEXACT
)
# a playlist in a video's clothes opens nothing else; joined MPEG-TS is one clip even where parts number streams anew
_OPTIONS = {"protocol_whitelist": "none", "merge_pmt_versions": "1"}
_UNSHOWN = 4  # packets at the end of a clip that give no frame and no error: second fields, references, a frame cut off
UNSPECIFIED = 2  # of a matrix, primaries or transfer (ITU-T H.273)
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


@dataclass(frozen=True)
class ClipInfo:
    """What a clip is, from its header and first frame. width, height: as stored; turns: quarter turns to upright.

    frames: as the file declares, None if it does not. ends: declared end of the video (or of the file, if
    `ends_with_file`) in seconds. first: pts of the first frame, in units of time_base. zero: the second on the file's
    clock that is 0 in the output. joins: where that clock jumps.
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
    turns: int
    frames: int | None
    ends: Fraction | None
    ends_with_file: bool
    joins: tuple[Join, ...]

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height as shown."""
        return (self.height, self.width) if self.turns % 2 else (self.width, self.height)

    @property
    def expected(self) -> int | None:
        """How many frames there should be: declared, or estimated from the duration."""
        if self.frames is not None or self.ends is None:
            return self.frames
        return max(1, round((self.ends - self.first * self.time_base) * self.rate))


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


@contextmanager
def open_clip(path: Path, part: tuple[int, int] | None = None) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and its video stream (no cover picture). part: only from one byte to another.

    Raises PictureError if it has none, OSError if unreadable.
    """
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise PictureError("is empty; copy it again")
        try:
            # from a file object: FFmpeg opens nothing by name
            opened = file if part is None else Part(file, *part)
            container = av.open(opened, "r", metadata_errors="replace", options=_OPTIONS, buffer_size=2**20)
        except av.error.FFmpegError as error:
            raise PictureError(f"cannot be opened as video ({error.strerror}); copy it again or convert it") from error
        with container:
            streams = [
                stream
                for stream in container.streams.video
                if not stream.disposition & av.stream.Disposition.attached_pic
            ]
            if not streams:
                raise PictureError("has no video stream; name a file that has one")
            if streams[0].codec_context is None:
                raise PictureError("has video of a codec that FFmpeg does not know; convert it to H.264")
            yield container, streams[0]


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
        frame = next(_decode(container, stream, _Tally()), None)
        if frame is None:
            raise PictureError(f"has no frame that decodes ({stream.codec_context.name}); copy it again")
        for size in later:
            _check_size((frame.width, frame.height), size)
        name, bits = frame.format.name, max(component.bits for component in frame.format.components)
        if "float" in name or name.endswith(("f32le", "f32be", "f16le", "f16be")):
            raise PictureError(f"has floating-point pixels ({name}); convert it to 8 to 16 bits")
        if is_bare_dolby_vision(stream, frame):
            raise PictureError(
                "is Dolby Vision without a picture for other players (profile 5), whose colours are not supported; "
                "convert it to BT.709, or to profile 8"
            )
        ends, by_file = declared_end(path, container, stream)
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
        assert stream.time_base is not None
        rate = _rate(stream, 1 / stream.time_base)
        return ClipInfo(
            width=frame.width,
            height=frame.height,
            time_base=stream.time_base,
            rate=rate,
            first=frame.pts or 0,
            zero=zero_of(container, (frame.pts or 0) * stream.time_base),
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
            display_matrix=None if matrix is None else tuple(np.frombuffer(bytes(matrix), np.int32).tolist()),
            turns=round(frame.rotation / 90) % 4,
            frames=None if stream.average_rate and rate < stream.average_rate else declared_frames(container, stream),
            ends=None if joins else ends,  # what a header or the last packet says is one part's
            ends_with_file=by_file,
            joins=joins,
        )


@dataclass
class _Tally:
    """What demuxing saw, without what an edit list hides. ends: last second of the video and of all streams.

    reached: bytes of the file up to the last packet. awaited: pts of packets after the last frame that came.
    """

    packets: int = 0
    damaged: int = 0
    reached: int = 0
    video_ends: Fraction = Fraction(0)
    file_ends: Fraction = Fraction(0)
    awaited: list[int] = field(default_factory=list)
    _first: Fraction | None = None
    _last: Fraction = Fraction(0)
    _stamps: dict[int, Fraction] = field(default_factory=dict)

    @property
    def rate(self) -> Fraction | None:
        """Packets of a second of the video."""
        if self._first is None or self._last == self._first:
            return None
        return (self.packets - 1) / (self._last - self._first)

    def note(self, begins: Fraction, ends: Fraction) -> None:
        """One packet of the video, from second to second."""
        self._first = begins if self._first is None else min(self._first, begins)
        self._last, self.video_ends = max(self._last, begins), max(self.video_ends, ends)

    def end_of(self, packet: Packet[Any], stamp: int) -> Fraction:
        """When a packet ends, in seconds: where its length is not said, it is taken for as long as the one before."""
        begins = stamp * packet.time_base
        last = self._stamps.get(packet.stream_index, begins)
        self._stamps[packet.stream_index] = begins
        return begins + (packet.duration * packet.time_base if packet.duration else max(begins - last, Fraction(0)))


class Frames:
    """The frames of a clip that a selection wants, in order, the first `skip` of them left out; iterate once.

    decoded: how many there were so far, wanted or not. Frames that do not decode are passed over and counted. Raises
    PictureError if the picture changes its size midway.
    """

    def __init__(self, path: Path, info: ClipInfo, selection: Selection, skip: int) -> None:
        self._path, self._info, self._selection, self._skip = path, info, selection, skip
        self._tally = _Tally()
        self._bytes = path.stat().st_size
        self._to_rgb = RGBConverter(info)
        self._read_to_end = False
        self.decoded = 0

    def __iter__(self) -> Iterator[Frame]:
        every = self._selection.every
        with closing(self._selected()) as frames:
            for number, (pts, duration, frame) in enumerate(frames):
                if number % every == 0 and number // every >= self._skip:
                    yield Frame(number, pts, duration, self._to_rgb(frame))

    def _selected(self) -> Generator[tuple[int, int, VideoFrame]]:
        """The frames from the selection's start to its end, as `_rising` gives them."""
        info, selection = self._info, self._selection
        start, end = (None if edge is None else info.first + edge / info.time_base
                      for edge in (selection.start, selection.end))  # fmt: skip
        with closing(self._from(start)) as frames:
            for pts, duration, frame in self._rising(frames):
                if start is not None and pts < start:
                    continue
                if end is not None and pts >= end:
                    return
                yield pts, duration, frame
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
            yield pts, step, frame

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
        if not self._selection.whole or not self._read_to_end:
            return tally.damaged
        # a damaged packet may cost more frames than its own
        lost = max(tally.damaged, tally.packets - self.decoded) if tally.damaged else 0
        if len(tally.awaited) > _UNSHOWN:  # nothing is damaged, as where another codec follows
            lost = max(lost, len(tally.awaited))
        if info.ends is None:
            return lost
        uncounted, rate = max(0, (info.frames or 0) - tally.packets), info.rate
        if (seen := tally.rate) and seen * 4 / 3 < rate:  # empty places of an AVI, which are declared as frames
            uncounted, rate = 0, seen
        reached = tally.file_ends if info.ends_with_file else tally.video_ends
        if (info.ends - reached) * rate < Fraction(1 if uncounted else 3, 2):  # ends are rounded
            return lost
        return (uncounted or max(1, round((info.ends - tally.video_ends) * rate))) + lost

    def _from(self, start: Fraction | None) -> Generator[VideoFrame]:
        """What decodes, from the key frame before a pts; from the beginning where the file's index leads past it."""
        if start is not None and not self._info.joins:
            with open_clip(self._path) as (container, stream):
                with suppress(av.error.FFmpegError):  # some files cannot seek, and are read from their beginning
                    container.seek(int(start), stream=stream)
                frames = _decode(container, stream, self._tally)
                first = next(frames, None)
                if first is not None and first.pts is not None and first.pts <= start:
                    yield first
                    yield from frames
                    return
            self._tally = _Tally()
        # opened again: not every container finds back to its first frame
        with open_clip(self._path) as (container, stream):
            yield from _decode(container, stream, self._tally, self._info.joins)


class RGBConverter:
    """Decoded frames -> upright RGB by the clip's own matrix and range."""

    def __init__(self, info: ClipInfo) -> None:
        self._info = info
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> NDArray[Any]:
        info = self._info
        _check_size((info.width, info.height), (frame.width, frame.height))
        rgb = self._reformatter.reformat(
            frame,
            format="rgb24" if info.depth == 8 else "rgb48le",
            src_colorspace=None if info.chroma == "rgb" else SWS_MATRIX[info.colour.matrix],
            src_color_range=FULL if info.colour.full else LIMITED,
            interpolation=EXACT,
            threads=1,
        )
        return np.ascontiguousarray(np.rot90(rgb.to_ndarray(), info.turns))


def _decode(
    container: InputContainer, stream: VideoStream, tally: _Tally, joins: Sequence[Join] = ()
) -> Iterator[VideoFrame]:
    """Every frame of a stream that decodes. A file that breaks off ends there; damaged packets are counted."""
    packets = one_clock(container, container.demux(), joins)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError as error:
            if isinstance(error, OSError) and not isinstance(error, av.error.InvalidDataError) and error.errno:
                raise
            return
        stamp = packet.pts if packet.pts is not None else packet.dts
        shown = not packet.is_discard
        if stamp is not None and packet.time_base and shown:
            ends = tally.end_of(packet, stamp)
            tally.file_ends = max(tally.file_ends, ends)
        if packet.stream.index != stream.index:  # the packets that flush have no index of their own
            continue
        if (stamp is not None or packet.size) and shown:
            tally.packets += 1
            tally.reached = max(tally.reached, (packet.pos or 0) + packet.size)
            if stamp is not None:
                tally.note(stamp * packet.time_base, ends)
            if packet.pts is not None:
                tally.awaited.append(packet.pts)
        if stamp is not None and not packet.size:
            continue  # a frame that was dropped; taken as the end, it would cost all that follow
        try:
            frames = stream.decode(packet if packet.size else None)
        except av.error.FFmpegError:
            tally.damaged += 1
            continue
        for frame in frames:
            if frame.pts is not None:
                tally.awaited = [pts for pts in tally.awaited if pts > frame.pts]
            yield frame


def _rate(stream: VideoStream, most: Fraction) -> Fraction:
    """Frames of a second by the header, which may say more than the clock has ticks, as after a remux to Matroska.

    An AVI's may count empty places of its clock.
    """
    rates = [rate for rate in (stream.average_rate, stream.guessed_rate) if rate] or [Fraction(25)]
    if stream.container.format.name == "avi":
        return min(rates)
    return next((rate for rate in rates if rate <= most), most)


def _check_size(first: tuple[int, int], later: tuple[int, int]) -> None:
    if later != first:
        (width, height), (new_width, new_height) = first, later
        raise PictureError(
            f"changes its size midway, from {width}x{height} to {new_width}x{new_height}; split it there"
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
    if matrix not in (*SWS_MATRIX, UNSPECIFIED) and not (rgb and matrix == 0):
        raise PictureError(
            f"has the colour matrix {matrix} (ITU-T H.273), which is not supported; convert it to BT.709"
        )
    return Colour(
        matrix=matrix if tagged else _BT709 if frame.width >= HD[0] or frame.height >= HD[1] else _BT601,
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


def reason(error: av.error.FFmpegError) -> str:
    """FFmpeg's word for what went wrong, on one line."""
    return error.strerror or one_line(error)
