"""Clips written: segments joined, packet by packet, with the source's other streams."""

from __future__ import annotations

import heapq
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import attrgetter
from pathlib import Path
from typing import IO, Any

import av
import av.error
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

from esdnet_cli.errors import PictureError
from esdnet_cli.files import HeldErrors
from esdnet_cli.video.decode import open_clip, reason
from esdnet_cli.video.encoder import Encoding, Segment, set_up
from esdnet_cli.video.info import ClipInfo
from esdnet_cli.video.inputs import CONTAINERS
from esdnet_cli.video.streams import (
    QUICKTIME,
    Cut,
    Kept,
    StreamWriter,
    Timed,
    add_streams,
    container_ending,
    copied_packets,
    film_tags,
    tag,
    timed,
)

_PHONE = ("make", "model")


@dataclass(frozen=True)
class Film:
    """What a file is made of, as far as it is known before the first frame. container: FFmpeg's name.

    source, info: the clip that gives metadata, chapters and the other streams, those of `kept`. encoding: the video's.
    """

    source: Path
    info: ClipInfo
    container: str
    encoding: Encoding
    kept: Kept


@dataclass(frozen=True)
class Footage:
    """The encoded frames. times: pts of all of them, in order. delay: the most places that a segment reorders."""

    segments: Iterable[Segment]
    times: Sequence[int]
    delay: int


def join(output: IO[bytes], film: Film, footage: Footage, cut: Cut) -> int:
    """Write the file: the segments' packets as they are, the other streams, chapters and metadata.

    Returns how many packets of the other streams are too damaged for the container, and are left out. Raises
    PictureError if segments do not fit together or the container cannot hold a stream, OSError if the disk does not
    take it.
    """
    dropped = 0
    file = HeldErrors(output)
    with (
        open_clip(film.source) as (origin, main),
        av.open(file, "w", format=film.container, container_options=_options(film, origin)) as target,
    ):
        video, writers = _lay_out(target, film, origin, main, cut)
        target.start_encoding()
        merged = heapq.merge(
            _video_packets(video, film, footage, cut.shift),
            copied_packets(origin, writers, film.info.joins, cut),
            key=attrgetter("time"),
        )
        for entry in merged:
            try:
                target.mux_one(entry.packet)
            except (av.error.InvalidDataError, av.error.ArgumentError):
                dropped += 1  # perhaps one that waited for its turn, and surely none of ours: see `count_frames`
            file.check()
    file.check()
    return dropped + sum(writer.damaged for writer in writers.values())


def count_frames(path: Path) -> int:
    """Packets of the video in a file that was just written."""
    with open_clip(path) as (container, stream):
        return sum(packet.size > 0 for packet in container.demux(stream))


def check_container(film: Film) -> None:
    """Write the header to nowhere: raises PictureError if the container cannot hold the video."""
    with open_clip(film.source) as (origin, main):
        options = _options(film, origin)
        with av.open(io.BytesIO(), "w", format=film.container, container_options=options) as target:
            _lay_out(target, film, origin, main, Cut())
            try:
                target.start_encoding()
            except (av.error.FFmpegError, ValueError) as error:
                what = reason(error) if isinstance(error, av.error.FFmpegError) else str(error)
                others = ", ".join(ending for ending, name in CONTAINERS.items() if name != film.container)
                ending = container_ending(film.container)
                raise PictureError(
                    f"does not fit into {ending} ({what}); try another --codec, or one of {others}"
                ) from error


def _options(film: Film, origin: InputContainer) -> dict[str, str]:
    if film.container not in QUICKTIME:
        return {"avoid_negative_ts": "disabled"}  # times stay as they are, even where decoding begins before zero
    # such as com.apple.quicktime.make: only as a list of keys; without any, tags go where more players look for them
    keys = any("." in key or key in _PHONE for key in origin.metadata)
    return {"movflags": "use_metadata_tags"} if keys else {}


def _lay_out(
    target: OutputContainer, film: Film, origin: InputContainer, main: Stream, cut: Cut
) -> tuple[Any, dict[int, StreamWriter]]:
    """The output's streams: the video, and a writer for each index of the source's; metadata and chapters."""
    encoding = film.encoding
    try:
        video: Any = target.add_stream(encoding.encoder, rate=encoding.rate, options=dict(encoding.options))
    except ValueError as error:
        raise PictureError(
            f"{encoding.encoder} does not fit into {container_ending(film.container)}; choose another --codec"
        ) from error
    context = video.codec_context
    set_up(context, encoding)
    video.time_base = encoding.time_base
    if encoding.encoder == "libx265" and film.container in QUICKTIME:
        context.codec_tag = "hvc1"  # Apple's players know no other
    if film.info.display_matrix is not None:
        video.set_display_matrix(film.info.display_matrix)
    tag(video, main)
    writers = add_streams(target, origin, film.kept)
    target.metadata.update(film_tags(origin.metadata))
    if chapters := _chapters(origin, cut):
        target.set_chapters(chapters)
    return video, writers


def _chapters(origin: InputContainer, cut: Cut) -> list[Any]:
    kept = []
    for chapter in origin.chapters():
        unit = chapter["time_base"] or Fraction(1)
        start, end = chapter["start"] * unit, chapter["end"] * unit
        start = max(start, cut.shift if cut.start is None else cut.start)
        end = end if cut.end is None else min(end, cut.end)
        if start < end:
            first, last = (round((edge - cut.shift) / unit) for edge in (start, end))
            kept.append({**chapter, "start": first, "end": last})
    return kept


def _video_packets(stream: Any, film: Film, footage: Footage, earlier: Fraction) -> Iterator[Timed]:
    """The segments' packets in decoding order, moved back by `earlier` seconds.

    dts: the times in order, `delay` places late, so never after its pts.
    """
    encoding, times, delay = film.encoding, footage.times, footage.delay
    unit = encoding.time_base
    shift = round(earlier / unit)
    step = max(1, round(1 / encoding.rate / unit))
    header = stream.codec_context.extradata or b""
    place = ends = 0
    for segment in footage.segments:
        if segment.extradata != header:
            raise PictureError(
                "its parts do not fit together; remove their hidden folder beside the output, and run it again"
            )
        for pts, duration, key, data in segment.packets:
            packet = Packet(data)
            packet.pts = pts - shift
            packet.dts = (times[place - delay] if place >= delay else times[0] - (delay - place) * step) - shift
            ends = max(ends, packet.pts + duration)
            place += 1
            late = ends - packet.dts - duration > delay * step + step // 2
            if place == len(times) and late and film.container in QUICKTIME:
                # there the film ends with the packet that is decoded last, even if another picture stands longer
                packet.dts, duration = packet.pts, ends - packet.pts
            packet.duration, packet.time_base, packet.is_keyframe, packet.stream = duration, unit, key, stream
            yield timed(packet)
    if place != len(times):
        raise PictureError("its parts were changed during the work; run it again")
