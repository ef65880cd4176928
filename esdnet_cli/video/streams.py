"""A clip's other streams: which of them a container takes, as they are or decoded and encoded anew; their packets."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.error
from av.audio.layout import AudioLayout
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.subtitles.stream import SubtitleStream

from esdnet_cli.pipeline.boxes import holds_places
from esdnet_cli.video.clock import Join, one_clock
from esdnet_cli.video.cues import Cues, begin_at
from esdnet_cli.video.decode import open_clip
from esdnet_cli.video.info import ClipInfo
from esdnet_cli.video.inputs import CONTAINERS
from esdnet_cli.video.silence import Unbroken

QUICKTIME = ("mp4", "mov")
_WITH_ATTACHMENTS = ("matroska",)
_LOOKED_AT, _LOOKED_INTO = 400, 2**27  # packets and bytes before the work, to see whether a container takes them
# of the file, not the film
_OWN_TAGS = {"encoder", "major_brand", "minor_version", "compatible_brands", "duration", "alpha_mode"}
_COARSE = Fraction(1, 1000)  # seconds; AVI's unit is a packet of sound, perhaps a tenth: what is cut off is no multiple
_STATISTICS = ("_STATISTICS", "NUMBER_OF", "BPS")
_DEEP = ("pcm_bluray", "pcm_dvd", "truehd", "mlp", "alac", "flac")  # 24 bits where they have more than 16
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_OPUS_RATE, _OPUS_BITS = 48000, 64_000  # samples of a second; bits of a second and channel
_TEXT = ("subrip", "srt", "ass", "ssa", "mov_text", "webvtt", "text")
_TEXT_ENCODERS = ("srt", "mov_text", "webvtt")
_SHOWN = {"libopus": "Opus", "srt": "SubRip", "mov_text": "timed text", "webvtt": "WebVTT"}

Kept = Mapping[int, str | None]  # streams by index in the source: the encoder that makes them anew, None to copy them


@dataclass(frozen=True)
class Cut:
    """What goes along: from `start` to before `end`, in seconds of the source's clock, moved back by `shift`."""

    start: Fraction | None = None
    end: Fraction | None = None
    shift: Fraction = Fraction(0)


def choose_streams(source: Path, info: ClipInfo, container: str) -> tuple[dict[int, str | None], list[str]]:
    """Which streams besides the video go into a container, and notes on those that do not go as they are.

    Raises PictureError or OSError if the source cannot be read.
    """
    kept: dict[int, str | None] = {}
    notes = []
    with source.open("rb") as file:
        if holds_places(file):
            notes.append("left out: the dash-cam's record of its places (GPS)")
    with open_clip(source) as (origin, main):
        others = [stream for stream in origin.streams if stream.index != main.index]
        first = _first_packets(origin, info)
        for stream in others:
            packets = first.get(stream.index, [])
            if stream.type == "attachment":
                if container in _WITH_ATTACHMENTS:
                    kept[stream.index] = None
                else:
                    notes.append(f"left out: the attachment {stream.metadata.get('filename', stream.index)}")
            elif stream.type not in ("audio", "subtitle"):
                # QuickTime files hold chapters' names in such streams, and the timecode: both are written anew
                named = stream.type == "data" and origin.chapters()
                timed = stream.type == "data" and container in QUICKTIME and "timecode" in stream.metadata
                if not (named or timed):
                    cover = stream.disposition & Disposition.attached_pic
                    notes.append(f"left out: {'the cover picture' if cover else f'a {stream.type} stream'}")
            elif isinstance(stream, AudioStream) and stream.codec_context and not stream.codec_context.sample_rate:
                # files that break off early
                why = "has no sound in the first part; split it at the join" if info.joins else "contains no sound"
                notes.append(f"left out: {_name(stream)}, which {why}")
            elif _takes(container, stream, packets):
                kept[stream.index] = None
            elif encoder := _encoder(container, stream, packets):
                kept[stream.index] = encoder
                written = _SHOWN.get(encoder, encoder)
                notes.append(
                    f"{_name(stream)} is converted to {written}, because {container_ending(container)} cannot hold it"
                )
            else:
                holders = [ending for ending, name in CONTAINERS.items()
                           if name != container and _takes(name, stream, packets)]  # fmt: skip
                which = f"{container_ending(container)} cannot hold it, {holders[0]} can" if holders else (
                    "no supported container can hold it")  # fmt: skip
                notes.append(f"left out: {_name(stream)}; {which}")
    return kept, notes


def add_streams(target: OutputContainer, origin: InputContainer, kept: Kept) -> dict[int, StreamWriter]:
    """Give the output its other streams, by index in the source. Raises ValueError or FFmpegError."""
    writers = {}
    for index, encoder in kept.items():
        stream = origin.streams[index]
        writers[index] = StreamWriter(stream, _add(target, stream, encoder), anew=encoder is not None)
        tag(writers[index].copy, stream)
    return writers


def tag(copy: Stream, stream: Stream) -> None:
    """Give a stream another one's metadata and disposition, without what tells of its file."""
    copy.metadata.update(
        ("title" if key == "name" else key, value)  # FFmpeg reads that of an MP4's track under another name
        for key, value in film_tags(stream.metadata).items()
        if not key.startswith(_STATISTICS)
    )
    copy.disposition = stream.disposition


def film_tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata without what tells of the file that it is in."""
    return {key: value for key, value in metadata.items() if key.lower() not in _OWN_TAGS}


def container_ending(container: str) -> str:
    """A container's ending, such as .mkv."""
    return next(ending for ending, name in CONTAINERS.items() if name == container)


class StreamWriter:
    """One stream's packets on their way into the output. anew: decoded and encoded. damaged: how many did not decode.

    What an edit list hides does not go along: but before the clip's beginning, where the output hides it again, or as
    the one packet that a decoder wants before the first.
    """

    def __init__(self, stream: Stream, copy: Stream, *, anew: bool) -> None:
        self.stream, self.copy = stream, copy
        self.damaged = 0
        self._anew = anew
        self._hides = copy.container.format.name in QUICKTIME
        self._in_line = _in_line(copy) if self._hides else None
        self._begun = False
        self._held: Packet[Any] | None = None
        self._until: Fraction | None = None  # second at which the sound decoded so far ends

    def take(self, packet: Packet[Any]) -> Iterator[Packet[Any]]:
        """What a packet of the source becomes."""
        if self._in_line is None:
            yield from self._made(packet)
            return
        for made in self._made(packet):
            yield from map(self._own, self._in_line.add(made))

    def finish(self) -> Iterator[Packet[Any]]:
        """What is held back here, or by an encoder."""
        last = self._sound(None) if self._anew and isinstance(self.copy, AudioStream) else iter(())
        if self._in_line is None:
            yield from last
            return
        for made in last:
            yield from map(self._own, self._in_line.add(made))
        yield from map(self._own, self._in_line.finish())

    def _made(self, packet: Packet[Any]) -> Iterator[Packet[Any]]:
        if self._anew:
            yield from self._encoded(packet)
            return
        if packet.is_discard:
            if self._hides and not self._begun and (packet.pts or 0) + (packet.duration or 0) <= 0:
                yield self._own(packet)
            elif not self._begun and not _stands_alone(self.stream):
                self._held = packet
            return
        self._begun = True
        if self._held is not None:
            yield self._own(self._held)
            self._held = None
        yield self._own(packet)

    def _own(self, packet: Packet[Any]) -> Packet[Any]:
        packet.stream = self.copy
        return packet

    def _encoded(self, packet: Packet[Any]) -> Iterator[Packet[Any]]:
        try:
            yield from self._text(packet) if isinstance(self.stream, SubtitleStream) else self._sound(packet)
        except (av.error.FFmpegError, ValueError):  # ValueError: the sound's format changes midway
            self.damaged += 1

    def _sound(self, packet: Packet[Any] | None) -> Iterator[Packet[Any]]:
        assert isinstance(self.stream, AudioStream) and isinstance(self.copy, AudioStream)
        for frame in self.stream.codec_context.decode(packet):
            unit = frame.time_base or Fraction(1, frame.sample_rate)
            begins = self._until if frame.pts is None else frame.pts * unit
            if begins is None:
                continue
            if self._until is not None and abs(begins - self._until) <= 2 * (self.stream.time_base or unit):
                begins = self._until  # times are rounded, and short frames would fall on one
            self._until = begins + Fraction(frame.samples, frame.sample_rate)
            frame.time_base = Fraction(1, frame.sample_rate)
            frame.pts = round(begins * frame.sample_rate)
            yield from map(self._own, self.copy.codec_context.encode(frame))
        if packet is None:
            yield from map(self._own, self.copy.codec_context.encode(None))

    def _text(self, packet: Packet[Any]) -> Iterator[Packet[Any]]:
        assert isinstance(self.stream, SubtitleStream) and isinstance(self.copy, SubtitleStream)
        if (shown := self.stream.codec_context.decode2(packet)) is not None:
            encoded = self.copy.codec_context.encode_subtitle(shown)
            encoded.pts, encoded.dts, encoded.duration = packet.pts, packet.dts, packet.duration or 0
            encoded.time_base = packet.time_base
            yield self._own(encoded)


def _in_line(copy: Stream) -> Cues | Unbroken | None:
    """What a QuickTime muxer needs where it knows no times that overlap, or no holes."""
    if copy.codec_context is None:
        return None
    if copy.codec_context.name == "mov_text":
        return Cues()
    if isinstance(copy, AudioStream) and copy.codec_context.name.startswith("pcm_"):
        context = copy.codec_context
        return Unbroken(context.name, context.sample_rate, context.layout.nb_channels)
    return None


class Timed(NamedTuple):
    """A packet and when it is decoded, in seconds: what an output's packets are ordered by."""

    time: Fraction
    packet: Packet[Any]


def timed(packet: Packet[Any]) -> Timed:
    """By its dts, or its pts where there is none; one of them there must be."""
    stamp = packet.dts if packet.dts is not None else packet.pts
    assert stamp is not None
    return Timed(stamp * packet.time_base, packet)


def copied_packets(
    origin: InputContainer, writers: Mapping[int, StreamWriter], joins: Sequence[Join], cut: Cut
) -> Iterator[Timed]:
    """The other streams' packets, in the order of the file; a file that breaks off ends there."""
    if not any(writer.stream.type != "attachment" for writer in writers.values()):
        return
    packets = one_clock(origin, origin.demux(), joins)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.InvalidDataError, av.error.EOFError):
            break
        stamp = packet.dts if packet.dts is not None else packet.pts
        writer = writers.get(packet.stream_index)
        if stamp is None or writer is None:
            continue
        time = (packet.pts if packet.pts is not None else stamp) * packet.time_base
        if cut.end is not None and time >= cut.end:
            continue
        ends = time + (packet.duration or 0) * packet.time_base
        if writer.stream.type == "subtitle" and ends < cut.shift:
            continue  # of a broadcast, before its first picture and sound
        if cut.start is not None and time < cut.start:
            if writer.stream.type != "subtitle" or ends <= cut.start:
                continue
            begin_at(cut.start, packet)  # a cue that still shows
            time = cut.start
        if cut.end is not None and writer.stream.type == "subtitle" and packet.duration and ends > cut.end:
            packet.duration = max(1, round((cut.end - time) / packet.time_base))
        if packet.time_base > _COARSE:
            _count_finer(packet)
        shift = round(cut.shift / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        yield from map(timed, writer.take(packet))
    for writer in writers.values():
        yield from map(timed, writer.finish())


def _count_finer(packet: Packet[Any]) -> None:
    """Count a packet's times in thousandths of its unit."""
    packet.pts, packet.dts = (None if stamp is None else 1000 * stamp for stamp in (packet.pts, packet.dts))
    packet.duration, packet.time_base = 1000 * (packet.duration or 0), packet.time_base / 1000


def _first_packets(origin: InputContainer, info: ClipInfo) -> dict[int, list[Packet[Any]]]:
    found: dict[int, list[Packet[Any]]] = {
        stream.index: [] for stream in origin.streams if stream.type in ("audio", "subtitle")
    }
    packets = one_clock(origin, origin.demux(), info.joins)
    with suppress(av.error.FFmpegError):  # a file that breaks off
        looked_at = 0
        for packet in islice(packets, _LOOKED_AT if found else 0):
            looked_at += packet.size
            if looked_at > _LOOKED_INTO:
                break
            if packet.stream_index in found and packet.dts is not None and not packet.is_discard:
                found[packet.stream_index].append(packet)
    return found


def _takes(container: str, stream: Stream, packets: Iterable[Packet[Any]]) -> bool:
    """Does a container take a stream as it is: its header, and any of its first packets?"""
    tried = taken = 0
    try:
        with av.open(io.BytesIO(), "w", format=container) as target:
            copy = _add(target, stream, None)
            target.start_encoding()
            for packet in packets:
                tried += 1
                try:
                    target.mux_one(_again(packet, copy))
                    taken += 1
                except av.error.FFmpegError:
                    pass
    except (ValueError, av.error.FFmpegError):
        return False
    return bool(taken or not tried)


def _again(packet: Packet[Any], stream: Stream) -> Packet[Any]:
    copy: Packet[Any] = Packet(bytes(packet))
    copy.pts, copy.dts, copy.duration, copy.time_base = packet.pts, packet.dts, packet.duration or 0, packet.time_base
    copy.is_keyframe, copy.stream = packet.is_keyframe, stream
    return copy


def _encoder(container: str, stream: Stream, packets: Iterable[Packet[Any]]) -> str | None:
    """An encoder of which a container takes what it makes of a stream; None if the stream does not decode."""
    if not stream.codec_context:
        return None
    for encoder in _TEXT_ENCODERS if stream.type == "subtitle" else (_pcm(stream), "libopus"):
        if stream.type == "subtitle" and stream.codec_context.name not in _TEXT:
            return None
        try:
            with av.open(io.BytesIO(), "w", format=container) as target:
                writer = StreamWriter(stream, _add(target, stream, encoder), anew=True)
                target.start_encoding()
                made = [made for packet in packets for made in writer.take(_again(packet, stream))]
                made += writer.finish()
                target.mux(made)
        except (ValueError, av.error.FFmpegError):
            continue
        if made or not packets:
            return encoder
    return None


def _add(target: OutputContainer, stream: Stream, encoder: str | None) -> Stream:
    if encoder is None:
        copy = target.add_stream_from_template(stream)
        if isinstance(copy, AudioStream) and _stands_alone(stream):
            copy.codec_context.layout = _layout(copy)
        return copy
    if isinstance(stream, SubtitleStream):
        text = target.add_stream(encoder)
        assert isinstance(text, SubtitleStream)
        stream.codec_context.open(strict=False)  # only then is there a header
        text.codec_context.subtitle_header = stream.codec_context.subtitle_header
        text.time_base = stream.time_base
        return text
    assert isinstance(stream, AudioStream)
    source = stream.codec_context
    opus = encoder == "libopus"
    sound = target.add_stream(encoder, rate=_OPUS_RATE if opus else source.sample_rate)
    assert isinstance(sound, AudioStream)
    channels = source.layout.nb_channels
    sound.codec_context.layout = _LAYOUTS.get(channels, "stereo") if opus else _layout(stream)
    if opus:
        sound.codec_context.bit_rate = _OPUS_BITS * channels
    return sound


def _layout(sound: AudioStream) -> AudioLayout:
    """Which channels there are: the usual ones where a file only counts them, as AVI does.

    MP4 holds PCM of several channels only if it can say which they are.
    """
    layout = sound.codec_context.layout
    channels = layout.nb_channels
    return AudioLayout(_LAYOUTS[channels]) if layout.name == f"{channels} channels" and channels in _LAYOUTS else layout


def _stands_alone(stream: Stream) -> bool:
    """Does each packet decode without the one before?"""
    return stream.codec_context is not None and stream.codec_context.name.startswith("pcm_")


def _pcm(stream: Stream) -> str:
    """The PCM that holds what a decoder gives: floating point of lossy codecs is worth 16 bits."""
    context: Any = stream.codec_context
    if context.name.startswith("pcm_f"):
        return "pcm_f32le"
    if context.format is not None and context.format.name.startswith("s32"):
        return "pcm_s24le" if context.name in _DEEP else "pcm_s32le"
    return "pcm_s16le"


def _name(stream: Stream) -> str:
    context = stream.codec_context
    kind = {"audio": "sound", "subtitle": "subtitle"}.get(stream.type, stream.type)
    return f"{kind} stream {stream.index} ({context.name if context else 'of an unknown codec'})"
