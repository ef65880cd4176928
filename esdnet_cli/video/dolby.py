"""Dolby Vision whose picture is nothing without Dolby's own data: what no matrix of ITU-T H.273 turns into colours.

"Dolby Vision Streams within the ISO Base Media File Format" 2.7: a box of 24 bytes says profile and compatibility.
"""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from typing import Any

import av
import av.error
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

_BOXES = (b"dvcC", b"dvvC", b"dvwC")
_CARRIERS = ("hevc", "av1", "libdav1d", "h264")


def is_bare_dolby_vision(stream: VideoStream, frame: VideoFrame) -> bool:
    """Are a stream's colours Dolby's own (IPT), by its container's word or by the data within its first frame?

    So are profile 5, and from 10 on what is compatible with nothing. Others have a base layer that every player shows.
    """
    if stream.codec_context.name not in _CARRIERS:
        return False
    if (record := _record(stream)) is not None:
        profile, compatible = record[2] >> 1, record[4] >> 4
        return profile == 5 or (profile >= 10 and not compatible)
    rpu: Any = frame.side_data.get("DOVI_METADATA")
    if rpu is None:
        return False
    data = bytes(rpu)
    # libavutil/dovi_meta.h: AVDOVIMetadata begins with the offset of AVDOVIRpuDataHeader
    (header,) = struct.unpack_from("@N", data)
    profile, full_range = data[header + 4], data[header + 10]
    return profile == 0 and full_range == 1  # as ff_dovi_guess_profile_hevc tells it


def _record(stream: VideoStream) -> bytes | None:
    """The configuration record, whatever the container: FFmpeg writes it into the header of an MP4 of its own."""
    header = io.BytesIO()
    options = {"movflags": "empty_moov", "strict": "unofficial"}
    with suppress(av.error.FFmpegError, ValueError), av.open(header, "w", "mp4", container_options=options) as target:
        target.add_stream_from_template(stream, opaque=True)
        target.start_encoding()
    for box in _BOXES:
        _, found, rest = header.getvalue().partition(box)
        if found and len(rest) >= 5:
            return rest[:5]
    return None
