"""What a file says of how long its video is, and where its clock begins."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

# ASF's File Properties Object, and how much of a file is searched for it
_PROPERTIES, _HEADER = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"), 2**20
_LATE = 1  # seconds: a Matroska file that begins later is a piece of a stream


def declared_end(path: Path, container: InputContainer, stream: VideoStream) -> tuple[Fraction | None, bool]:
    """Where the video ends by the file's word in seconds, and whether that is only known of the whole file."""
    if "asf" in container.format.name:  # one for all streams, from the beginning of the clock
        return _asf_end(path) if container.duration is None else Fraction(container.duration, av.time_base), True
    parts = stream.metadata.get("DURATION", "").split(":")  # Matroska's tag
    try:
        hours, minutes, seconds = (Fraction(part) for part in parts)
        return hours * 3600 + minutes * 60 + seconds, False
    except ValueError:
        pass
    if stream.duration is not None and stream.time_base is not None:
        duration = stream.duration
        if container.format.name == "avi":  # FFmpeg shortens it where the file is shorter than its header says
            duration = max(duration, stream.frames)
        # a piece of a stream counts its duration from 0; that of one that begins there lacks what B-frames delay
        piece = _in_fragments(container, stream) and any(entry.timestamp > 0 for entry in stream.index_entries[:1])
        ends = (duration + (0 if piece else stream.start_time or 0)) * stream.time_base
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


def last_of_track(container: InputContainer, stream: VideoStream) -> tuple[int, int] | None:
    """When an MP4's index has its last frame decoded, and where its track ends, that one's length included.

    Both in units of the stream's time base. The index tells how long frames are as they are decoded, not as they are
    shown. None for others, and where the track begins later than 0: an edit list counts what it puts before, or not.
    """
    shown = _shown_entries(container, stream)
    if not shown or stream.duration is None or stream.start_time:
        return None
    return shown[-1].timestamp, stream.duration


def _asf_end(path: Path) -> Fraction | None:
    """By the header, which FFmpeg does not believe once the file is longer or shorter than it says, as if cut off."""
    with path.open("rb") as file:
        header = file.read(_HEADER)
    place = header.find(_PROPERTIES)
    if place < 0 or len(header) < place + 92:
        return None
    play, preroll, flags = struct.unpack_from("<Q8xQI", header, place + 64)  # in 100 ns, in ms
    seconds = Fraction(play, 10**7) - Fraction(preroll, 1000)
    return seconds if seconds > 0 and not flags & 1 else None  # a broadcast's length is not known


def zero_of(container: InputContainer, stream: VideoStream, first: Fraction) -> Fraction:
    """Where a file's clock begins anywhere, as that of a broadcast (MPEG-TS): its first frame, or what comes before.

    MP4 and Matroska count from 0, unless they are a piece of a stream.
    """
    starts = (
        stream.start_time * stream.time_base for stream in container.streams
        if stream.type == "audio" and stream.start_time is not None and stream.time_base
    )  # fmt: skip
    begins = min([first, *starts])
    if "matroska" in container.format.name:
        return begins if begins > _LATE else Fraction(0)
    if "mp4" in container.format.name:
        return max(begins, Fraction(0)) if _in_fragments(container, stream) else Fraction(0)
    return begins


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


def _in_fragments(container: InputContainer, stream: VideoStream) -> bool:
    """Is it an MP4 whose index comes in fragments, as those of streams?"""
    return "mp4" in container.format.name and not stream.frames
