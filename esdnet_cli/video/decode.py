"""A clip's file, opened and demuxed: every frame that decodes, and what was seen of those that do not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from esdnet_cli.errors import PictureError, one_line
from esdnet_cli.pipeline.boxes import lacks_index
from esdnet_cli.video.clock import Join, Part, one_clock

# PyAV lacks kinds that its FFmpeg has, such as the EXIF of a camera's Motion JPEG, and raises at any frame with one
Type._missing_ = classmethod(lambda kinds, number: kinds.VIDEO_HINT)  # type: ignore[method-assign, assignment]
# a playlist in a video's clothes opens nothing else; joined MPEG-TS is one clip even where parts number streams anew
_OPTIONS = {"protocol_whitelist": "none", "merge_pmt_versions": "1"}
_BETWEEN = 512  # bytes that may lie between two packets of Matroska: damage costs all up to the next cluster
_BROKEN_OFF = (
    "breaks off before its index, without which nothing plays it; copy it again, or, if the camera lost its power, "
    "restore it with untrunc and a whole clip of that camera"
)


@contextmanager
def open_clip(path: Path, part: tuple[int, int] | None = None) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and its video stream (no cover picture). part: only from one byte to another.

    Raises PictureError if it has none, OSError if unreadable.
    """
    with path.open("rb") as file, ExitStack() as stack:
        if not os.fstat(file.fileno()).st_size:
            raise PictureError("is empty; copy it again")
        source = file if part is None else Part(file, *part)
        container = stack.enter_context(_opened(source, file))
        streams, place = _pictures(container), 0
        if len(streams) > 1:
            place = _first_filled(container, streams)
            source.seek(0)  # not every container finds back to its first frame: opened again
            container = stack.enter_context(_opened(source, file))
            streams = _pictures(container)
        if not streams:
            why = "has no video stream; name a file that has one"
            raise PictureError(_BROKEN_OFF if lacks_index(file) else why)
        if streams[place].codec_context is None:
            raise PictureError("has video of a codec that FFmpeg does not know; convert it to H.264")
        yield container, streams[place]


def _opened(source: BinaryIO | Part, file: BinaryIO) -> InputContainer:
    try:
        # from a file object: FFmpeg opens nothing by name
        return av.open(source, "r", metadata_errors="replace", options=_OPTIONS, buffer_size=2**20)
    except av.error.FFmpegError as error:
        why = f"cannot be opened as video ({error.strerror}); copy it again or convert it"
        raise PictureError(_BROKEN_OFF if lacks_index(file) else why) from error


def _pictures(container: InputContainer) -> list[VideoStream]:
    return [stream for stream in container.streams.video if not stream.disposition & av.stream.Disposition.attached_pic]


def _first_filled(container: InputContainer, streams: Sequence[VideoStream]) -> int:
    """Which of several streams is the first that has packets: others are only announced, as in a recorded broadcast."""
    filled = set()
    with suppress(av.error.FFmpegError):
        for packet in container.demux(*streams):
            if packet.size:
                filled.add(packet.stream_index)
            if streams[0].index in filled:
                break
    return next((place for place, stream in enumerate(streams) if stream.index in filled), 0)


@dataclass
class Tally:
    """What demuxing saw, without what an edit list hides. ends: last second of the video and of all streams.

    reached: bytes of the file up to the last packet. awaited: pts of packets after the last frame that came. torn: pts
    of packets where the file lacks bytes, or that files were joined at, as far as the container tells, or where the
    demuxer passed over bytes (`hole`).
    """

    packets: int = 0
    damaged: int = 0
    reached: int = 0
    video_ends: Fraction = Fraction(0)
    file_ends: Fraction = Fraction(0)
    awaited: list[int] = field(default_factory=list)
    torn: list[int] = field(default_factory=list)
    hole: bool = False
    _place: tuple[int, int] | None = None  # where the last packet's bytes begin and end
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

    def note_place(self, packet: Packet[Any]) -> None:
        """One packet of any stream of a Matroska file, where packets lie close behind one another."""
        if packet.pos is None or not packet.size:
            return
        begins, ends = self._place or (packet.pos, packet.pos)
        self.hole = self.hole or packet.pos - ends > _BETWEEN
        self._place = (
            packet.pos,
            (ends if packet.pos == begins else packet.pos) + packet.size,
        )  # packets may share a place

    def end_of(self, packet: Packet[Any], stamp: int) -> Fraction:
        """When a packet ends, in seconds: where its length is not said, it is taken for as long as the one before."""
        begins = stamp * packet.time_base
        last = self._stamps.get(packet.stream_index, begins)
        self._stamps[packet.stream_index] = begins
        return begins + (packet.duration * packet.time_base if packet.duration else max(begins - last, Fraction(0)))


def decode(
    container: InputContainer, stream: VideoStream, tally: Tally, joins: Sequence[Join] = ()
) -> Iterator[VideoFrame]:
    """Every frame of a stream that decodes. A file that breaks off ends there; damaged packets are counted."""
    packets = one_clock(container, container.demux(), joins)
    # what makes pixels transparent lies between packets
    close = "matroska" in container.format.name and "alpha_mode" not in stream.metadata
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError as error:
            if isinstance(error, OSError) and not isinstance(error, av.error.InvalidDataError) and error.errno:
                raise
            return
        if close:
            tally.note_place(packet)
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
                if packet.is_corrupt or tally.hole:
                    tally.torn.append(packet.pts)
                    tally.hole = False
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


def reason(error: av.error.FFmpegError) -> str:
    """FFmpeg's word for what went wrong, on one line."""
    return error.strerror or one_line(error)
