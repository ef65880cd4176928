"""Cues of subtitles: begun where a part of a clip begins, and laid side by side for timed text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

from av.packet import Packet

_LONGEST = 0xFFFF  # bytes of text in a sample


class Cues:
    """Timed text (3GPP TS 26.245), of which one sample is shown at a time: cues that overlap share samples.

    As they are, the muxer would begin each only where the last one ends.
    """

    def __init__(self) -> None:
        self._open: list[Packet[Any]] = []
        self._place = 0  # what is shown before it is known

    def add(self, cue: Packet[Any]) -> Iterator[Packet[Any]]:
        """What is shown before a cue begins."""
        begins = cue.pts or 0
        yield from self._until(begins)
        self._open = [*(other for other in self._open if _end(other) > begins), cue]
        self._place = max(self._place, begins)

    def finish(self) -> Iterator[Packet[Any]]:
        """What is shown to the last."""
        yield from self._until(None)

    def _until(self, end: int | None) -> Iterator[Packet[Any]]:
        while self._open and (end is None or self._place < end):
            ends = [_end(cue) for cue in self._open]
            change = max(self._place, min(ends if end is None else (*ends, end)))
            sample: Packet[Any] = Packet(_shared([bytes(cue) for cue in self._open]))
            sample.pts = sample.dts = self._place
            sample.duration, sample.time_base, sample.is_keyframe = change - self._place, self._open[0].time_base, True
            yield sample
            self._place = change
            self._open = [cue for cue in self._open if _end(cue) > change]


def begin_at(second: Fraction, cue: Packet[Any]) -> None:
    """Cut what a cue shows before."""
    begins = -(-second // cue.time_base)
    cue.duration = max(1, _end(cue) - begins)
    cue.pts = cue.dts = begins


def _end(cue: Packet[Any]) -> int:
    return (cue.pts or 0) + (cue.duration or 0)


def _shared(cues: Sequence[bytes]) -> bytes:
    """One sample of several: their texts, each on a line of its own, without the styles, which count characters."""
    if len(cues) == 1:
        return cues[0]
    text = b"\n".join(cue[2 : 2 + int.from_bytes(cue[:2])] for cue in cues)
    text = text[:_LONGEST].decode(errors="ignore").encode()  # whole characters
    return len(text).to_bytes(2) + text
