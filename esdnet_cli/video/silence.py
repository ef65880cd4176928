"""Sound whose samples follow one another without times of their own: holes become silence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from av.packet import Packet

_HOLE = Fraction(1, 10)  # seconds: shorter ones may be times that are rounded, or a clock that drifts
_SILENCE = {"pcm_u8": b"\x80", "pcm_alaw": b"\xd5", "pcm_mulaw": b"\xff"}  # other formats: zeros


class Unbroken:
    """PCM as MP4 and QuickTime hold it: after a hole, sound would be heard early. codec: FFmpeg's name of it."""

    def __init__(self, codec: str, rate: int, channels: int) -> None:
        bits = re.search(r"\d+", codec)
        self._size = channels * (int(bits[0]) if bits else 8) // 8  # bytes of a sample of all channels
        self._rate, self._silence = rate, _SILENCE.get(codec, b"\0")
        self._ends: Fraction | None = None  # second at which the sound so far ends
        self._held: Packet[Any] | None = None

    def add(self, packet: Packet[Any]) -> Iterator[Packet[Any]]:
        """The packet before, behind the silence that it needs: a single wrong time is no hole."""
        yield from self._filled(_begins(packet))
        self._held = packet

    def finish(self) -> Iterator[Packet[Any]]:
        """The last packet."""
        yield from self._filled(None)

    def _filled(self, following: Fraction | None) -> Iterator[Packet[Any]]:
        packet = self._held
        if packet is None:
            return
        begins = _begins(packet)
        if self._ends is None:
            self._ends = begins
        if begins - self._ends > _HOLE and (following is None or following >= begins):
            while (missing := round((begins - self._ends) * self._rate)) > 0:
                samples = min(missing, self._rate)  # a second at a time: holes may be long
                quiet: Packet[Any] = Packet(self._silence * (samples * self._size))
                quiet.time_base, quiet.is_keyframe = Fraction(1, self._rate), True
                quiet.pts = quiet.dts = round(self._ends * self._rate)
                quiet.duration = samples
                yield quiet
                self._ends += Fraction(samples, self._rate)
        self._ends += Fraction(packet.size // self._size, self._rate)
        yield packet


def _begins(packet: Packet[Any]) -> Fraction:
    stamp = packet.pts if packet.pts is not None else packet.dts
    assert stamp is not None
    return stamp * packet.time_base
