"""Clips written: frames encoded in segments that stand alone, segments joined with the source's other streams."""

from __future__ import annotations

import heapq
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import av
import av.error
import numpy as np
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from esdnet_cli.errors import PictureError
from esdnet_cli.files import HeldErrors
from esdnet_cli.video.inputs import CONTAINERS
from esdnet_cli.video.reader import EXACT, FULL, LIMITED, SWS_MATRIX, ClipInfo, open_clip, reason

_QUICKTIME = ("mp4", "mov")
_WITH_ATTACHMENTS = ("matroska",)
_OWN_TAGS = {"encoder", "major_brand", "minor_version", "compatible_brands", "duration"}  # of the file, not the film


@dataclass(frozen=True)
class Codec:
    """How FFmpeg is asked for a codec. crf: the default, None if it is lossless. even: 4:2:0 needs even sides.

    narrowest: the least width in pixels. most: the highest crf.
    """

    encoder: str
    crf: int | None
    even: bool = False
    narrowest: int = 1
    most: int = 63
    options: tuple[tuple[str, str], ...] = ()


CODECS = {
    "h264": Codec("libx264", 17, even=True, most=51),
    # narrower frames make libx265 write over memory that is not its own
    # info=0: else its header names the machine's cores and instructions, and parts of two machines do not join
    "hevc": Codec(
        "libx265", 19, even=True, narrowest=64, most=51, options=(("x265-params", "log-level=none:info=0"),)
    ),  # fmt: skip
    "vp9": Codec("libvpx-vp9", 24, options=(("row-mt", "1"), ("cpu-used", "2"))),
    "av1": Codec("libsvtav1", 23, options=(("preset", "7"),)),
    "ffv1": Codec("ffv1", None, options=(("level", "3"), ("slicecrc", "1"))),
}


@dataclass(frozen=True)
class Encoding:
    """All that an encoder is told: two of equal value make segments that join.

    full: RGB is converted to the full range; tagged_full: the file says so.
    """

    encoder: str
    options: tuple[tuple[str, str], ...]
    pix_fmt: str
    width: int
    height: int
    time_base: Fraction
    rate: Fraction
    matrix: int
    full: bool
    tagged_full: bool
    primaries: int
    transfer: int
    aspect: Fraction | None
    gop: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return plain


def default_codec(container: str) -> str:
    """What a container holds by default: vp9 in .webm, h264 elsewhere."""
    return "vp9" if container == "webm" else "h264"


def choose_encoding(
    info: ClipInfo, codec_name: str, crf: int | None, width: int, height: int, gop: int
) -> tuple[Encoding, list[str]]:
    """The encoding that keeps most of the source, and notes on what it cannot keep.

    width, height: as stored. gop: frames of a segment. Raises PictureError if this FFmpeg lacks the codec.
    """
    codec = CODECS[codec_name]
    try:
        formats = [video_format.name for video_format in av.Codec(codec.encoder, "w").video_formats or ()]
    except av.codec.codec.UnknownCodecError as error:
        raise PictureError(
            f"--codec {codec_name}: the FFmpeg in this PyAV has no {codec.encoder}; choose another codec"
        ) from error
    if width < codec.narrowest:
        raise PictureError(
            f"is narrower than {codec.narrowest} pixels, too narrow for {codec_name}; choose another --codec"
        )
    if crf is not None and crf > codec.most:
        raise PictureError(f"--crf {crf}: {codec_name} has 0 to {codec.most}; choose one of these")
    options = dict(codec.options)
    if codec.crf is not None:
        options["crf"] = str(codec.crf if crf is None else crf)
    pix_fmt, depth, chroma = _choose_format(info, codec, formats, odd=bool(width % 2 or height % 2))
    notes = []
    if depth < info.depth:
        notes.append(f"{codec_name} is written with {depth} bits here, the source has {info.depth}")
    if chroma != info.chroma and info.chroma in ("420", "422", "444"):
        notes.append(f"written as 4:{chroma[1]}:{chroma[2]}, the source is 4:{info.chroma[1]}:{info.chroma[2]}")
    if info.alpha:
        notes.append("transparency is left out")
    if info.interlaced:
        notes.append("interlaced frames are derained as they are and written as progressive; deinterlace them before")
    rgb = chroma == "rgb"
    return Encoding(
        encoder=codec.encoder,
        options=tuple(sorted(options.items())),
        pix_fmt=pix_fmt,
        width=width,
        height=height,
        time_base=info.time_base,
        rate=info.rate,
        matrix=0 if rgb else info.colour.matrix,
        # swscale takes grey as full range whatever its tag: the numbers stay, and so does the tag
        full=rgb or info.chroma == "grey" or (info.colour.full and info.chroma != "rgb"),
        tagged_full=rgb or (info.colour.full and info.chroma != "rgb"),
        primaries=info.colour.primaries,
        transfer=info.colour.transfer,
        aspect=info.aspect,
        gop=gop,
    ), notes


def _choose_format(info: ClipInfo, codec: Codec, formats: Sequence[str], odd: bool) -> tuple[str, int, str]:
    """Pixel format, its depth and chroma: the source's depth before its chroma, then the next best."""
    if info.chroma == "rgb" and codec.encoder == "ffv1":
        return ("bgr0", 8, "rgb") if info.depth == 8 else ("gbrp16le", 16, "rgb")
    wanted = {"rgb": "444", "grey": "420"}.get(info.chroma, info.chroma)
    chromas = [wanted, *(chroma for chroma in ("420", "444", "422") if chroma != wanted)]
    if odd and codec.even:
        chromas = ["444"]
    deeper = [depth for depth in (9, 10, 12, 14, 16) if depth >= info.depth]
    depths = [8] if info.depth == 8 else [*deeper, *(depth for depth in (12, 10, 8) if depth < info.depth)]
    for depth in depths:
        for chroma in chromas:
            name = f"yuv{chroma}p" if depth == 8 else f"yuv{chroma}p{depth}le"
            if name in formats:
                return name, depth, chroma
    raise PictureError(f"{codec.encoder} has no pixel format for {info.width}x{info.height}; choose another --codec")


class SegmentEncoder:
    """Encodes the frames of one segment: `add` them, then `packets` holds them all, the first of them a key frame."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        context = av.CodecContext.create(encoding.encoder, "w")
        assert isinstance(context, VideoCodecContext)
        _set_up(context, encoding)
        context.flags |= Flags.global_header  # all segments share one header, the container's
        context.options = dict(encoding.options)
        context.open()
        self._context = context
        self._reformatter = VideoReformatter()
        self._durations: dict[int, int] = {}
        self.packets: list[tuple[int, int, bool, bytes]] = []

    @property
    def extradata(self) -> bytes:
        """The header, known before the first frame."""
        return self._context.extradata or b""

    def add(self, rgb: NDArray[Any], pts: int, duration: int) -> None:
        """Encode a frame: uint8 or uint16 [H, W, 3] as stored, not as shown."""
        self._durations[pts] = duration
        self._take(self._context.encode(self._to_yuv(rgb, pts)))

    def finish(self) -> None:
        """Let the encoder give out what it holds back."""
        self._take(self._context.encode(None))

    def _take(self, packets: Iterable[Packet[Any]]) -> None:
        for packet in packets:
            assert packet.pts is not None
            self.packets.append((packet.pts, self._durations[packet.pts], packet.is_keyframe, bytes(packet)))

    def _to_yuv(self, rgb: NDArray[Any], pts: int) -> VideoFrame:
        encoding = self._encoding
        frame = VideoFrame.from_ndarray(
            np.ascontiguousarray(rgb), format="rgb24" if rgb.dtype == np.uint8 else "rgb48le"
        )
        frame.color_range = FULL
        if encoding.matrix:
            frame = self._reformatter.reformat(
                frame,
                format=encoding.pix_fmt,
                dst_colorspace=SWS_MATRIX[encoding.matrix],
                dst_color_range=FULL if encoding.full else LIMITED,
                interpolation=EXACT,
                threads=1,
            )
        else:
            frame = self._reformatter.reformat(frame, format=encoding.pix_fmt, interpolation=EXACT, threads=1)
        # the tag as the source has it: swscale knows both names of BT.601 as one
        frame.colorspace = encoding.matrix
        frame.color_range = FULL if encoding.tagged_full else LIMITED
        frame.color_primaries, frame.color_trc = encoding.primaries, encoding.transfer
        frame.pts, frame.time_base = pts, encoding.time_base
        return frame


def _set_up(context: VideoCodecContext, encoding: Encoding) -> None:
    context.width, context.height, context.pix_fmt = encoding.width, encoding.height, encoding.pix_fmt
    context.time_base, context.framerate = encoding.time_base, encoding.rate
    context.bit_rate = 0  # --crf decides
    context.gop_size = encoding.gop
    context.colorspace, context.color_range = encoding.matrix, FULL if encoding.tagged_full else LIMITED
    context.color_primaries, context.color_trc = encoding.primaries, encoding.transfer
    if encoding.aspect is not None:
        context.sample_aspect_ratio = encoding.aspect


@dataclass(frozen=True)
class Segment:
    """One segment's packets, in decoding order: (pts, duration, is key frame, data)."""

    extradata: bytes
    packets: list[tuple[int, int, bool, bytes]]


def reordering(pts: Sequence[int]) -> int:
    """By how many places packets (their pts, in decoding order) come before their turn to be shown."""
    rank = {value: place for place, value in enumerate(sorted(pts))}
    return max((place - rank[value] for place, value in enumerate(pts)), default=0)


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
    _set_up(context, encoding)
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
