"""Clips written: segments joined, packet by packet, with the source's other streams."""

from __future__ import annotations

import heapq
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import av
import av.error
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

from esdnet_cli.errors import PictureError
from esdnet_cli.files import HeldErrors
from esdnet_cli.video.encoder import Encoding, Segment, set_up
from esdnet_cli.video.inputs import CONTAINERS
from esdnet_cli.video.reader import open_clip, reason

_QUICKTIME = ("mp4", "mov")
_WITH_ATTACHMENTS = ("matroska",)
_OWN_TAGS = {"encoder", "major_brand", "minor_version", "compatible_brands", "duration"}  # of the file, not the film


@dataclass(frozen=True)
class Cut:
    """What goes along: from `start` to before `end`, in seconds of the source's clock, moved back by `shift`."""

    start: Fraction | None = None
    end: Fraction | None = None
    shift: Fraction = Fraction(0)


def join(
    output: IO[bytes], container_name: str, encoding: Encoding, display_matrix: Sequence[int] | None,
    segments: Iterable[Segment], times: Sequence[int], delay: int, source: Path, cut: Cut,
) -> int:  # fmt: skip
    """Write the file: the segments' packets as they are, every audio and subtitle stream, chapters and metadata.

    times: pts of all frames, in order. delay: the most that any segment reorders. Returns how many packets of the other
    streams are too damaged for the container, and are left out. Raises PictureError if segments do not fit together or
    the container cannot hold a stream, OSError if the disk does not take it.
    """
    dropped = 0
    file = HeldErrors(output)
    with (
        open_clip(source) as (origin, main),
        av.open(file, "w", format=container_name, container_options=_options(container_name)) as target,
    ):
        video, copies = _lay_out(target, container_name, encoding, display_matrix, origin, main, cut)
        target.start_encoding()
        header = video.codec_context.extradata or b""
        merged = heapq.merge(
            _video_packets(video, encoding, header, segments, times, delay, cut),
            _copied_packets(origin, copies, cut),
            key=lambda entry: entry[0],
        )
        for _, packet in merged:
            try:
                target.mux_one(packet)
            except (av.error.InvalidDataError, av.error.ArgumentError):
                dropped += 1  # perhaps one that waited for its turn, and surely none of ours: see `count_frames`
            file.check()
    file.check()
    return dropped


def count_frames(path: Path) -> int:
    """Packets of the video in a file that was just written."""
    with open_clip(path) as (container, stream):
        return sum(packet.size > 0 for packet in container.demux(stream))


def check_container(
    container_name: str, encoding: Encoding, display_matrix: Sequence[int] | None, source: Path, cut: Cut
) -> list[str]:
    """Write the header to nowhere: raises PictureError if the container cannot hold a stream.

    Returns notes on what is left out, such as data streams.
    """
    notes = []
    with open_clip(source) as (origin, main):
        with av.open(io.BytesIO(), "w", format=container_name, container_options=_options(container_name)) as target:
            _, copies = _lay_out(target, container_name, encoding, display_matrix, origin, main, cut)
            try:
                target.start_encoding()
            except (av.error.FFmpegError, ValueError) as error:
                what = reason(error) if isinstance(error, av.error.FFmpegError) else str(error)
                raise PictureError(
                    f"its streams do not fit into {_ending(container_name)} ({what}); choose another ending"
                ) from error
        left = [stream for stream in origin.streams if stream.index not in copies]
        # QuickTime files hold their chapters' names in such a stream, too
        kinds = [
            stream.type for stream in left
            if stream.index != main.index and not (stream.type == "data" and origin.chapters())
        ]  # fmt: skip
        if kinds:
            notes.append(f"left out: {', '.join(f'a stream of {kind}' for kind in kinds)}")
    return notes


def _ending(container_name: str) -> str:
    return next(ending for ending, name in CONTAINERS.items() if name == container_name)


def _options(container_name: str) -> dict[str, str]:
    # times stay as they are, even where decoding begins before zero
    return {"avoid_negative_ts": "disabled"} if container_name not in _QUICKTIME else {}


def _lay_out(
    target: OutputContainer, container_name: str, encoding: Encoding, display_matrix: Sequence[int] | None,
    origin: InputContainer, main: Stream, cut: Cut,
) -> tuple[Any, dict[int, Stream]]:  # fmt: skip
    """The output's streams: the video, and a copy for each index of the source's; metadata and chapters."""
    try:
        video: Any = target.add_stream(encoding.encoder, rate=encoding.rate, options=dict(encoding.options))
    except ValueError as error:
        raise PictureError(
            f"{encoding.encoder} does not fit into {_ending(container_name)}; choose another --codec"
        ) from error
    context = video.codec_context
    set_up(context, encoding)
    video.time_base = encoding.time_base
    if encoding.encoder == "libx265" and container_name in _QUICKTIME:
        context.codec_tag = "hvc1"  # Apple's players know no other
    if display_matrix is not None:
        video.set_display_matrix(display_matrix)
    _tag(video, main)
    copies: dict[int, Stream] = {}
    for stream in origin.streams:
        if stream.type not in ("audio", "subtitle", *(("attachment",) if container_name in _WITH_ATTACHMENTS else ())):
            continue
        if isinstance(stream, AudioStream) and stream.codec_context and not stream.codec_context.sample_rate:
            continue  # a header without a sound: where files break off early
        try:
            copy = target.add_stream_from_template(stream)
        except (ValueError, av.error.FFmpegError) as error:
            name = getattr(stream, "name", None) or "unknown codec"
            raise PictureError(
                f"its {stream.type} stream {stream.index} ({name}) does not fit into {_ending(container_name)}; "
                "choose another ending, such as .mkv"
            ) from error
        _tag(copy, stream)
        copies[stream.index] = copy
    target.metadata.update((key, value) for key, value in origin.metadata.items() if key.lower() not in _OWN_TAGS)
    if chapters := _chapters(origin, cut):
        target.set_chapters(chapters)
    return video, copies


def _tag(copy: Stream, stream: Stream) -> None:
    tags = {key: value for key, value in stream.metadata.items() if key.lower() not in _OWN_TAGS}
    copy.metadata.update(
        (key, value) for key, value in tags.items() if not key.startswith(("_STATISTICS", "NUMBER_OF", "BPS"))
    )
    copy.disposition = stream.disposition


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


def _video_packets(
    stream: Any, encoding: Encoding, header: bytes, segments: Iterable[Segment], times: Sequence[int], delay: int,
    cut: Cut,
) -> Iterator[tuple[Fraction, Packet[Any]]]:  # fmt: skip
    """The segments' packets in decoding order. dts: the times in order, `delay` places late, so never after its pts."""
    unit = encoding.time_base
    shift = round(cut.shift / unit)
    step = max(1, round(1 / encoding.rate / unit))
    place = 0
    for segment in segments:
        if segment.extradata != header:
            raise PictureError(
                "its parts do not fit together; remove their hidden folder beside the output, and run it again"
            )
        for pts, duration, key, data in segment.packets:
            packet = Packet(data)
            packet.pts = pts - shift
            packet.dts = (times[place - delay] if place >= delay else times[0] - (delay - place) * step) - shift
            packet.duration, packet.time_base, packet.is_keyframe, packet.stream = duration, unit, key, stream
            place += 1
            yield packet.dts * unit, packet
    if place != len(times):
        raise PictureError("its parts were changed during the work; run it again")


def _copied_packets(
    origin: InputContainer, copies: dict[int, Stream], cut: Cut
) -> Iterator[tuple[Fraction, Packet[Any]]]:
    """The other streams' packets, unchanged, in the order of the file; a file that breaks off ends there."""
    wanted = [stream for stream in origin.streams if stream.index in copies and stream.type != "attachment"]
    packets = origin.demux(wanted) if wanted else iter(())  # demux of no stream means all
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.InvalidDataError, av.error.EOFError):
            return
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None:
            continue
        time = (packet.pts if packet.pts is not None else stamp) * packet.time_base
        if (cut.start is not None and time < cut.start) or (cut.end is not None and time >= cut.end):
            continue
        shift = round(cut.shift / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        packet.stream = copies[packet.stream_index]
        yield (stamp - shift) * packet.time_base, packet
