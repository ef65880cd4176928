"""What a file says of how long its video is, and where its clock begins."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream


def declared_end(container: InputContainer, stream: VideoStream) -> tuple[Fraction | None, bool]:
    """Where the video ends by the file's word in seconds, and whether that is only known of the whole file."""
    if "asf" in container.format.name:  # one for all streams, from the beginning of the clock
        return None if container.duration is None else Fraction(container.duration, av.time_base), True
    parts = stream.metadata.get("DURATION", "").split(":")  # Matroska's tag
    try:
        hours, minutes, seconds = (Fraction(part) for part in parts)
        return hours * 3600 + minutes * 60 + seconds, False
    except ValueError:
        pass
    if stream.duration is not None and stream.time_base is not None:
        ends = (stream.duration + (stream.start_time or 0)) * stream.time_base
        shown = _shown_entries(container, stream)
        if shown:  # the duration of an edit list counts what it puts before the first frame, too
            rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            length = (shown[-1].timestamp - shown[0].timestamp) * stream.time_base + 1 / rate
            ends = min(ends, (stream.start_time or 0) * stream.time_base + length)
        return ends, False
    if container.duration is None:
        return None, True
    # Matroska and Flash count from 0, others from the first packet
    from_zero = any(name in container.format.name for name in ("matroska", "flv"))
    before = 0 if from_zero else max(container.start_time or 0, 0)
    return Fraction(container.duration + before, av.time_base), True


def zero_of(container: InputContainer, first: Fraction) -> Fraction:
    """Where a file's clock begins anywhere, as that of a broadcast (MPEG-TS): its first frame, or what comes before."""
    if any(name in container.format.name for name in ("mp4", "matroska")):
        return Fraction(0)
    starts = (
        stream.start_time * stream.time_base for stream in container.streams
        if stream.type == "audio" and stream.start_time is not None and stream.time_base
    )  # fmt: skip
    return min([first, *starts])


def declared_frames(container: InputContainer, stream: VideoStream) -> int | None:
    """How many frames there are by the file's word."""
    if shown := _shown_entries(container, stream):
        return len(shown)
    tag = stream.metadata.get("NUMBER_OF_FRAMES", "")  # mkvmerge's
    return stream.frames or (int(tag) if tag.isdecimal() else 0) or None


def _shown_entries(container: InputContainer, stream: VideoStream) -> list[Any]:
    """What an MP4's edit list shows of its index; nothing of another container's, or where it comes in fragments."""
    if not stream.frames or "mp4" not in container.format.name:
        return []
    return [entry for entry in stream.index_entries if not entry.is_discard]
