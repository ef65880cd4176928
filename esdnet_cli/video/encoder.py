"""Frames encoded in segments that stand alone: codecs, what they hold of a source, packets in decoding order."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import av
import av.error
import numpy as np
from av.codec.context import Flags
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from esdnet_cli.errors import PictureError
from esdnet_cli.video.info import EXACT, FULL, LIMITED, SWS_MATRIX, ClipInfo


@dataclass(frozen=True)
class Codec:
    """How FFmpeg is asked for a codec. crf: the default, None if it is lossless. even: 4:2:0 needs even sides.

    narrowest: the least width in pixels. least, most: the lowest and the highest crf. fastest: the highest rate; frames
    keep their times.
    """

    encoder: str
    crf: int | None
    even: bool = False
    narrowest: int = 1
    least: int = 0
    most: int = 63
    fastest: Fraction | None = None
    options: tuple[tuple[str, str], ...] = ()


CODECS = {
    "h264": Codec("libx264", 17, even=True, most=51),
    # narrower frames make libx265 write over memory that is not its own
    # info=0: else its header names the machine's cores and instructions, and parts of two machines do not join
    "hevc": Codec(
        "libx265", 19, even=True, narrowest=64, most=51, options=(("x265-params", "log-level=none:info=0"),)
    ),  # fmt: skip
    "vp9": Codec("libvpx-vp9", 24, options=(("row-mt", "1"), ("cpu-used", "2"))),
    # to its wrapper in FFmpeg, 0 is as if none were given, and becomes 35
    "av1": Codec("libsvtav1", 23, least=1, fastest=Fraction(240), options=(("preset", "7"),)),
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
    if crf is not None and not codec.least <= crf <= codec.most:
        wrong = "low" if crf < codec.least else "high"
        raise PictureError(f"--crf {crf} is too {wrong} for {codec_name}; use {codec.least} to {codec.most}")
    options = dict(codec.options)
    if codec.crf is not None:
        options["crf"] = str(codec.crf if crf is None else crf)
    pix_fmt, depth, chroma = _choose_format(info, codec, formats, odd=bool(width % 2 or height % 2))
    notes = []
    if depth < info.depth:
        notes.append(f"{codec_name} is written with {depth} bits here, the source has {info.depth}")
    if chroma != info.chroma and info.chroma != "grey" and (info.chroma, chroma) != ("rgb", "444"):
        source = "RGB" if info.chroma == "rgb" else f"4:{info.chroma[1]}:{info.chroma[2]}"
        notes.append(f"written as 4:{chroma[1]}:{chroma[2]}, the source is {source}")
    if info.alpha:
        notes.append("transparency is left out")
    notes += [f"left out: {what}" for what in info.left]
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
        rate=info.rate if codec.fastest is None else min(info.rate, codec.fastest),
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
    # 4:1:1 and 4:4:0 are what few players show: the next finer one
    wanted = {"rgb": "444", "grey": "420", "411": "422", "440": "444"}.get(info.chroma, info.chroma)
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


class EncodedPacket(NamedTuple):
    """One encoded frame. pts, duration: in units of the clip's time base. key: it decodes without those before."""

    pts: int
    duration: int
    key: bool
    data: bytes


class SegmentEncoder:
    """Encodes the frames of one segment: `add` them, then `packets` holds them all, the first of them a key frame."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        context = av.CodecContext.create(encoding.encoder, "w")
        assert isinstance(context, VideoCodecContext)
        set_up(context, encoding)
        context.flags |= Flags.global_header  # all segments share one header, the container's
        context.options = dict(encoding.options)
        with _same_scheduling():
            context.open()
        self._context = context
        self._reformatter = VideoReformatter()
        self._durations: dict[int, int] = {}
        self.packets: list[EncodedPacket] = []

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
            duration = self._durations[packet.pts]
            self.packets.append(EncodedPacket(packet.pts, duration, packet.is_keyframe, bytes(packet)))

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


@contextmanager
def _same_scheduling() -> Iterator[None]:
    """Within, nothing changes how the system schedules this process, or what it begins.

    SVT-AV1 takes real-time priority if it may, as root may: nothing else would run beside it then.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    yield
    for thread in os.listdir("/proc/self/task") if os.path.isdir("/proc/self/task") else ["0"]:
        with suppress(OSError):  # it may have ended
            if os.sched_getscheduler(int(thread)) != policy:
                os.sched_setscheduler(int(thread), policy, priority)


def set_up(context: VideoCodecContext, encoding: Encoding) -> None:
    """Give a codec's context size, format, clock and colour tags; an encoder's and an output stream's must agree."""
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
    """One segment's packets, in decoding order, and the encoder's header."""

    extradata: bytes
    packets: list[EncodedPacket]


def reordering(pts: Sequence[int]) -> int:
    """By how many places packets (their pts, in decoding order) come before their turn to be shown."""
    rank = {value: place for place, value in enumerate(sorted(pts))}
    return max((place - rank[value] for place, value in enumerate(pts)), default=0)
