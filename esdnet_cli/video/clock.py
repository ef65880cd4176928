"""Recordings joined end to end, as `cat` joins MPEG-TS: where their clocks jump, and what makes them one clock."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, BinaryIO

import av.error
from av.container import InputContainer
from av.format import Flags
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

_BACK, _AHEAD = Fraction(1, 10), 10  # seconds by which a clock must jump; ahead as FFmpeg has it, a gap is shorter
_TABLE, _TABLES = b"\x47\x40\0", 2048  # how a program table of MPEG-TS begins; bytes before packets in which it lies


@dataclass(frozen=True)
class Late:
    """A packet that FFmpeg gives out long after its turn: the last before a join, where streams are numbered anew."""

    stream: int
    position: int
    pts: int | None
    dts: int | None
    duration: int
    keyframe: bool
    data: bytes


@dataclass(frozen=True)
class Join:
    """From a byte of the file on, times are shifted by so many seconds. late: what belongs before it."""

    position: int
    shift: Fraction
    late: tuple[Late, ...] = ()


@dataclass
class _Stretch:
    """Packets of one stream between two jumps of its clock. position, until: of its first and last one in the file.

    after: of the last one before it. dts, step: of the last packet; start, end: the first and the last second.
    """

    position: int
    until: int
    after: int
    dts: Fraction
    start: Fraction
    end: Fraction
    step: Fraction = Fraction(0)


class Part:
    """A stretch of a file, to be opened as one of its own: with the tables that stand before it (MPEG-TS)."""

    def __init__(self, file: BinaryIO, begin: int, end: int) -> None:
        start = max(0, begin - _TABLES)
        file.seek(start)
        table = file.read(begin - start).rfind(_TABLE)
        self._file = file
        self._begin, self._end = start + table if table >= 0 else begin, end
        self.seek(0)

    def read(self, size: int) -> bytes:
        """As of a file."""
        return self._file.read(max(0, min(size, self._end - self._file.tell())))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of a file."""
        begin = {os.SEEK_SET: self._begin, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._end}[whence]
        return self._file.seek(begin + offset) - self._begin

    def tell(self) -> int:
        """As of a file."""
        return self._file.tell() - self._begin


def find_joins(container: InputContainer) -> tuple[Join, ...]:
    """Read a file whose format lets clocks jump, and find where they do; none of another format.

    Pictures and sound jump together: what comes after is shifted so that none begins before it has ended.
    """
    if not Flags(container.format.flags) & Flags.ts_discont:
        return ()
    stretches = {stream.index: list[_Stretch]() for stream in container.streams if stream.type in ("video", "audio")}
    doubtful: dict[int, _Stretch] = {}  # jumps that the next packet confirms, or not
    places = _Places()
    late = []
    for packet in _packets(container):
        known = stretches.get(packet.stream_index)
        if known is None or packet.dts is None:
            continue
        position = places.of(packet)
        stretch = _beginning(packet, position, places.last(packet))
        if position < stretch.after:
            late.append(_late(packet, position))
            before = [other for other in known if other.position <= position]
            if before:
                _go_on(before[-1], stretch)
            continue
        if not known:
            known.append(stretch)
            continue
        jump = doubtful.pop(packet.stream_index, None)
        if jump is not None and 0 < jump.dts - known[-1].dts <= 2 * (stretch.dts - jump.dts):
            _go_on(known[-1], jump)  # no jump: packets come as seldom as that
            jump = None
        if jump is not None:
            still_back = jump.dts < known[-1].dts and stretch.dts <= known[-1].dts
            if still_back or abs(stretch.dts - jump.dts) < abs(stretch.dts - known[-1].dts):
                known.append(jump)
            _go_on(known[-1], stretch)
        elif -_BACK < stretch.dts - known[-1].dts < _AHEAD:
            _go_on(known[-1], stretch)
        else:
            doubtful[packet.stream_index] = stretch
    joins = _joins(list(stretches.values()))
    return tuple(
        replace(join, late=tuple(packet for packet in late if start <= packet.position < join.position))
        for start, join in zip((0, *(join.position for join in joins)), joins)
    )


def _late(packet: Packet[Any], position: int) -> Late:
    return Late(
        packet.stream_index, position, packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe, bytes(packet)
    )


def _packets(container: InputContainer) -> Iterator[Packet[Any]]:
    packets = container.demux()
    while True:
        try:
            yield next(packets)
        except (StopIteration, av.error.FFmpegError):
            return


def _beginning(packet: Packet[Any], position: int, after: int) -> _Stretch:
    unit, length = packet.time_base, packet.duration or 0
    assert packet.dts is not None
    shown = packet.dts if packet.pts is None else packet.pts
    return _Stretch(position, position, after, packet.dts * unit, shown * unit, (shown + length) * unit)


def _go_on(stretch: _Stretch, packet: _Stretch) -> None:
    stretch.step = packet.dts - stretch.dts
    stretch.dts, stretch.start = packet.dts, min(stretch.start, packet.start)
    stretch.until = max(stretch.until, packet.position)
    unknown = stretch.step if packet.end == packet.start else 0  # a packet's length
    stretch.end = max(stretch.end, packet.end + unknown)


def _joins(streams: Sequence[Sequence[_Stretch]]) -> tuple[Join, ...]:
    # each jump lies between two packets of its stream; where such spans overlap, it is the same
    spans = sorted((stretch.after, stretch.position) for stretches in streams for stretch in stretches[1:])
    positions: list[int] = []
    for after, position in spans:
        if positions and after < positions[-1]:
            positions[-1] = min(positions[-1], position)
        else:
            positions.append(position)
    # a stream that goes on as before has only lost the others for a while
    positions = [
        position for position in positions
        if not any(stretch.position < position <= stretch.until for stretches in streams for stretch in stretches)
    ]  # fmt: skip
    shifts = [Fraction(0)]
    for place in range(1, len(positions) + 1):
        needed = []
        for stretches in streams:
            section = [sum(position <= stretch.position for position in positions) for stretch in stretches]
            for before, stretch in enumerate(stretches[1:]):
                if section[before + 1] == place > section[before]:
                    needed.append(stretches[before].end + shifts[section[before]] - stretch.start)
        shifts.append(max(needed, default=shifts[-1]))
    return tuple(Join(position, shift) for position, shift in zip(positions, shifts[1:]))


class _Places:
    """Where packets lie in the file: those that share a place with the one before do not say it."""

    def __init__(self) -> None:
        self._now: dict[int, int] = {}
        self._before: dict[int, int] = {}

    def of(self, packet: Packet[Any]) -> int:
        """Byte position of a packet, each asked for once and in order."""
        index = packet.stream_index
        last = self._before[index] = self._now.get(index, 0)
        place = last if packet.pos is None or packet.pos < 0 else packet.pos
        self._now[index] = max(last, place)  # but for late ones
        return place

    def last(self, packet: Packet[Any]) -> int:
        """The furthest before it in its stream."""
        return self._before[packet.stream_index]


def one_clock(
    container: InputContainer, packets: Iterator[Packet[Any]], joins: Sequence[Join]
) -> Iterator[Packet[Any]]:
    """All packets of a joined file in their order, shifted as `Join` says. Raises what the demuxer raises."""
    if not joins:
        yield from packets
        return
    places = _Places()
    sections: dict[int, int] = {}
    for packet in packets:
        index, position = packet.stream_index, places.of(packet)
        if position < places.last(packet):
            continue  # late: it came in its turn
        section = sum(join.position <= position for join in joins)
        for place in range(sections.get(index, 0), section):
            for late in joins[place].late:
                if late.stream == index:
                    yield _shifted(_in_turn(container, late), joins, place)
        sections[index] = section
        yield _shifted(packet, joins, section)


def first_frames(container: InputContainer, stream: VideoStream, joins: Sequence[Join]) -> Iterator[VideoFrame]:
    """The first frame that decodes after each join, without decoding the rest."""
    places = _Places()
    section, found = 0, True
    for packet in _packets(container):
        if packet.stream_index != stream.index or not packet.size:
            continue
        reached = sum(join.position <= places.of(packet) for join in joins)
        if reached > section:
            section, found = reached, False
            stream.codec_context.flush_buffers()
        if not found:
            with suppress(av.error.FFmpegError):
                for frame in stream.decode(packet)[:1]:
                    found = True
                    yield frame


def _in_turn(container: InputContainer, late: Late) -> Packet[Any]:
    packet: Packet[Any] = Packet(late.data)
    packet.stream = container.streams[late.stream]
    packet.time_base = packet.stream.time_base or Fraction(1)
    packet.pts, packet.dts, packet.duration, packet.is_keyframe = late.pts, late.dts, late.duration, late.keyframe
    return packet


def _shifted(packet: Packet[Any], joins: Sequence[Join], section: int) -> Packet[Any]:
    if section and packet.time_base:
        ticks = round(joins[section - 1].shift / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts + ticks
        packet.dts = None if packet.dts is None else packet.dts + ticks
    return packet
