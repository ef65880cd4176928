"""Tiny clips of every kind, made with PyAV."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

FORMATS = {
    ".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".ts": "mpegts", ".m2ts": "mpegts",
    ".vob": "vob", ".avi": "avi", ".h264": "h264", ".flv": "flv", ".wmv": "asf",
    ".dv": "dv",
}  # fmt: skip
SUBTITLES = b"1\n00:00:00,100 --> 00:00:00,400\nRain\n\n2\n00:00:00,500 --> 00:00:00,700\nNo rain\n\n"


def scene(frame: int, height: int, width: int, peak: int = 255) -> NDArray[Any]:
    """A frame of smooth colours that drift, uint8 or uint16 [height, width, 3]."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    planes = (x + 0.02 * frame) % 1, (y + 0.01 * frame) % 1, 0.5 + 0.4 * np.sin(6 * (x - y) + frame / 4)
    return (np.stack([np.abs(2 * p - 1) for p in planes], axis=2) * peak).astype(np.uint8 if peak == 255 else np.uint16)


def make_clip(
    path: Path, frames: int = 12, size: tuple[int, int] = (48, 32), codec: str = "libx264", pix_fmt: str = "yuv420p",
    unit: Fraction = Fraction(1, 12800), times: Sequence[int] | None = None, matrix: int = 2, full: bool = False,
    tags: tuple[int, int] = (2, 2), rotation: int | None = None, aspect: Fraction | None = None, sound: str = "",
    subtitles: str | bytes = "", chapters: bool = False, options: dict[str, str] | None = None, fill: Any = None,
    declared: int | None = None, offset: float = 0, late: float = 0, tags_of_file: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None, layout: str = "",
) -> Path:  # fmt: skip
    """Write a clip of `scene`s, or of one colour (`fill`, YUV of the stored depth).

    sound: codecs of its streams, joined by "+", each with the sample format after ":" if it is not the default.
    layout: of their channels, if it is not the default.
    subtitles: "srt", or what an SRT file says. times: pts in units of `unit`.
    declared: how many frames a tag says there are. muxer: its options.
    offset: seconds by which all streams begin later. late: by which the sound ends later.
    """
    width, height = size
    times = times if times is not None else [index * round(1 / (25 * unit)) for index in range(frames)]
    muxing = {"output_ts_offset": str(offset), **(muxer or {})}
    with av.open(str(path), "w", format=FORMATS[path.suffix], container_options=muxing) as target:
        video: Any = target.add_stream(codec, rate=25, options=options or {})
        video.width, video.height, video.pix_fmt = width, height, pix_fmt
        video.codec_context.time_base = video.time_base = unit
        context = video.codec_context
        context.colorspace, context.color_range = matrix, 2 if full else 1
        context.color_primaries, context.color_trc = tags
        context.gop_size = 10
        if aspect:
            context.sample_aspect_ratio = aspect
        if declared is not None:
            video.metadata["NUMBER_OF_FRAMES"] = str(declared)
        if rotation is not None:
            video.set_display_rotation(rotation)
        audios = [_add_sound(target, layout, *kind.split(":")) for kind in sound.split("+") if kind]
        lines = SUBTITLES if subtitles == "srt" else subtitles
        text = av.open(io.BytesIO(lines), format="srt") if isinstance(lines, bytes) else None
        copied: Any = target.add_stream_from_template(text.streams[0]) if text else None
        if chapters:
            unit_of = Fraction(1, 1000)
            target.set_chapters(
                [{"id": 1, "start": 0, "end": 200, "time_base": unit_of, "metadata": {"title": "Dry"}},
                 {"id": 2, "start": 200, "end": 480, "time_base": unit_of, "metadata": {"title": "Wet"}}]
            )  # fmt: skip
        target.metadata["title"] = "A walk"
        target.metadata.update(tags_of_file or {})
        target.start_encoding()
        if text:
            for packet in text.demux():
                if packet.dts is not None:
                    packet.stream = copied
                    target.mux(packet)
            text.close()
        for index, pts in enumerate(times):
            frame = _frame(index, width, height, pix_fmt, matrix, full, fill)
            frame.colorspace, frame.color_range = matrix, 2 if full else 1
            frame.color_primaries, frame.color_trc = tags
            frame.pts, frame.time_base = pts, unit
            target.mux(video.encode(frame))
        target.mux(video.encode(None))
        for audio in audios:
            _sound(target, audio, float(times[-1] * unit) + 0.04 + late)
    return path


def _add_sound(target: Any, layout: str, codec: str, sample_format: str = "") -> Any:
    rate = {"adpcm_swf": 44100, "pcm_alaw": 8000}.get(codec, 48000)  # what Flash has
    audio = target.add_stream(codec, rate=rate)
    audio.layout = layout or ("stereo" if codec.startswith(("pcm_bluray", "pcm_dvd")) else "mono")
    if codec.startswith("wma"):
        audio.bit_rate = 64_000  # it has no default
    if sample_format:
        audio.format = sample_format
    audio.metadata["language"] = "deu"
    return audio


def _frame(index: int, width: int, height: int, pix_fmt: str, matrix: int, full: bool, fill: Any) -> av.VideoFrame:
    if fill is None:
        deep = pix_fmt.endswith("le")
        array = scene(index, height, width, 65535 if deep else 255)
        frame = av.VideoFrame.from_ndarray(array, format="rgb48le" if deep else "rgb24")
        return frame.reformat(
            format=pix_fmt, dst_colorspace=1 if matrix == 1 else 5, dst_color_range=2 if full else 1
        )  # fmt: skip
    frame = av.VideoFrame(width, height, pix_fmt)
    for plane, value in zip(frame.planes, fill):
        dtype = np.uint16 if pix_fmt.endswith("le") else np.uint8
        plane.update(np.full(plane.buffer_size // np.dtype(dtype).itemsize, value, dtype).tobytes())
    return frame


def _sound(target: Any, audio: Any, seconds: float) -> None:
    size = audio.codec_context.frame_size or (4 if audio.codec_context.name == "pcm_alaw" else 1024)
    rate = audio.codec_context.sample_rate
    for start in range(0, int(seconds * rate), size):
        wave = 0.2 * np.sin(np.arange(start, start + size) * 2 * np.pi * 440 / rate)
        frame = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        target.mux(audio.encode(frame))
    target.mux(audio.encode(None))


def times_of(path: Path) -> list[Fraction]:
    """When each frame is shown, in seconds."""
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(container.streams.video[0])]  # type: ignore


def frames_of(path: Path) -> list[NDArray[Any]]:
    """The frames' planes as they are stored, each as one row; no colour conversion."""
    with av.open(str(path)) as container:
        return [np.concatenate([_plane(plane, frame) for plane in frame.planes]) for frame in container.decode(video=0)]


def _plane(plane: Any, frame: Any) -> NDArray[Any]:
    dtype = np.uint16 if frame.format.components[0].bits > 8 else np.uint8
    return np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width].ravel()


def packets_of(path: Path, kind: str) -> list[list[tuple[Fraction | None, Fraction | None, bytes]]]:
    """For each stream of a kind, its packets: time, duration, bytes."""
    with av.open(str(path)) as container:
        found: dict[int, list[Any]] = {s.index: [] for s in container.streams if s.type == kind}
        for packet in container.demux():
            if packet.dts is not None and packet.stream.index in found:
                unit = packet.time_base
                found[packet.stream_index].append(
                    (None if packet.pts is None else packet.pts * unit, (packet.duration or 0) * unit, bytes(packet))
                )
        return list(found.values())
