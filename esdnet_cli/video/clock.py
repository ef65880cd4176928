"""Recordings joined end to end, as `cat` joins MPEG-TS: where their clocks jump, and what makes them one clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av.error
from av.container import InputContainer
from av.format import Flags
from av.packet import Packet

_BACK, _AHEAD = Fraction(1, 10), 10  # seconds by which a clock must jump; ahead as FFmpeg has it, a gap is shorter


@dataclass(frozen=True)
class Join:
    """From a byte of the file on, times are shifted by so many seconds."""

    position: int
    shift: Fraction


@dataclass
class _Run:
    """Packets of one stream between two jumps of its clock. after: the last byte position before it.

    dts, step: of the last packet; start, end: the first and the last second.
    """

    position: int
    after: int
    dts: Fraction
    start: Fraction
    end: Fraction
    step: Fraction = Fraction(0)


def find_joins(container: InputContainer) -> tuple[Join, ...]:
    """Read a file whose format lets clocks jump, and find where they do; none of another format.

    All streams jump together: what comes after is shifted so that none begins before it has ended.
    """
    if not Flags(container.format.flags) & Flags.ts_discont:
        return ()
    runs = {stream.index: list[_Run]() for stream in container.streams if stream.type in ("video", "audio")}
    doubtful: dict[int, _Run] = {}  # jumps that the next packet confirms, or not
    places = _Places()
    for packet in _packets(container):
        known = runs.get(packet.stream_index)
        if known is None or packet.dts is None:
            continue
        run = _beginning(packet, places.of(packet), places.last(packet))
        if not known:
            known.append(run)
        elif packet.stream_index in doubtful:
            jump = doubtful.pop(packet.stream_index)
            if abs(run.dts - jump.dts) < abs(run.dts - known[-1].dts):
                known.append(jump)
            _go_on(known[-1], run)
        elif -_BACK < run.dts - known[-1].dts < _AHEAD:
            _go_on(known[-1], run)
        else:
            doubtful[packet.stream_index] = run
    return _joins(list(runs.values()))


def _packets(container: InputContainer) -> Iterator[Packet[Any]]:
    packets = container.demux()
    while True:
        try:
            yield next(packets)
        except (StopIteration, av.error.FFmpegError):
            return


def _beginning(packet: Packet[Any], position: int, after: int) -> _Run:
    unit, length = packet.time_base, packet.duration or 0
    assert packet.dts is not None
    shown = packet.dts if packet.pts is None else packet.pts
    return _Run(position, after, packet.dts * unit, shown * unit, (shown + length) * unit)


def _go_on(run: _Run, packet: _Run) -> None:
    run.step = packet.dts - run.dts
    run.dts, run.start = packet.dts, min(run.start, packet.start)
    unknown = run.step if packet.end == packet.start else 0  # a packet's length
    run.end = max(run.end, packet.end + unknown)


def _joins(streams: Sequence[Sequence[_Run]]) -> tuple[Join, ...]:
    # each jump lies between two packets of its stream; where such spans overlap, it is the same
    spans = sorted((run.after, run.position) for runs in streams for run in runs[1:])
    positions: list[int] = []
    for after, position in spans:
        if positions and after < positions[-1]:
            positions[-1] = min(positions[-1], position)
        else:
            positions.append(position)
    shifts = [Fraction(0)]
    for place in range(1, len(positions) + 1):
        needed = []
        for runs in streams:
            section = [sum(position <= run.position for position in positions) for run in runs]
            for before, run in enumerate(runs[1:]):
                if section[before + 1] == place:
                    needed.append(runs[before].end + shifts[section[before]] - run.start)
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
        self._now[index] = last if packet.pos is None or packet.pos < 0 else packet.pos
        return self._now[index]

    def last(self, packet: Packet[Any]) -> int:
        """That of the one before it in its stream."""
        return self._before[packet.stream_index]


class Clock:
    """Makes the clocks of a joined file one: give it all packets, in the order of the file."""

    def __init__(self, joins: Sequence[Join]) -> None:
        self._joins = joins
        self._places = _Places()

    def set(self, packet: Packet[Any]) -> None:
        """Shift a packet's times, as `Join` says."""
        if not self._joins:
            return
        position = self._places.of(packet)
        shift = next((join.shift for join in reversed(self._joins) if join.position <= position), None)
        if shift is not None and packet.time_base:
            ticks = round(shift / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks
