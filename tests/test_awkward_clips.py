"""Clips as people have them, through a network that changes nothing: one line for each, what it is and what comes back.

`made` writes the clip into a folder. `to` is the ending of the output. What is not given is as in the source: frames,
their times, and of each stream of sound its codec, first second and length. `says` stands on stderr. Judged by PyAV.
"""

from __future__ import annotations

import io
import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.packet import Packet
from clips import make_clip, packets_of, scene, times_of
from conftest import Run
from dolby import remuxed, with_descriptor, with_rpu
from numpy.typing import NDArray
from PIL import Image, ImageOps

from esdnet_cli.errors import PictureError
from esdnet_cli.video.info import read_info
from esdnet_cli.video.reader import Frames, Selection
from esdnet_cli.video.silence import Unbroken

CASES = Path(__file__).parent / "cases"
BROADCAST = Fraction(1, 90000)
UNITS = {
    ".avi": Fraction(1, 25),
    ".dv": Fraction(1, 25),
    ".ts": BROADCAST,
    ".m2ts": BROADCAST,
    ".vob": Fraction(1, 25),
    ".flv": Fraction(1, 1000),
    ".wmv": Fraction(1, 1000),
}
Made = Callable[[Path], Path]
Sound = tuple[str, float, float]  # codec, first second, seconds
Edits = list[tuple[float, float | None]]


@dataclass(frozen=True)
class Case:
    """One line of the table. like: has the pictures, if others see not all of them in this clip.

    refused: nothing is written, and `says` is why.
    """

    made: Made
    to: str
    says: str = ""
    frames: int = 12
    sound: list[Sound] = field(default_factory=list)
    text: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    like: Made | None = None
    refused: bool = False


def case(name: str) -> Made:
    """A file of tests/cases."""
    return lambda folder: Path(shutil.copy(CASES / name, folder))


def clip(name: str, frames: int = 12, **details: Any) -> Made:
    """As `make_clip`."""
    details.setdefault("unit", UNITS.get(Path(name).suffix, Fraction(1, 12800)))
    return lambda folder: make_clip(folder / name, frames, **details)


def joined(*parts: Made) -> Made:
    """Parts one after the other, as `cat` does it."""

    def made(folder: Path) -> Path:
        whole = b""
        for part in parts:
            path = part(folder)
            whole += path.read_bytes()
        path.write_bytes(whole)
        return path

    return made


def in_avi(whole: Made) -> Made:
    """Its packets as they are in an AVI, whose clock has a place for each of 600 ticks of a second."""

    def made(folder: Path) -> Path:
        old, path = whole(folder), folder / "copied.avi"
        with av.open(str(old)) as source, av.open(str(path), "w") as target:
            copies = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
            copies[0].time_base = Fraction(1, 600)
            for packet in source.demux():
                if packet.size:
                    packet.stream = copies[packet.stream_index]
                    target.mux(packet)
        return path

    return made


def beside(codec: str, whole: Made, early: float = 0) -> Made:
    """With one more stream, of a codec that nobody encodes here: its packets are noise. early: seconds before all."""

    def made(folder: Path) -> Path:
        path = whole(folder)
        old = path.rename(folder / f"plain{path.suffix}")
        last = 0
        with av.open(str(old)) as source, av.open(str(path), "w") as target:
            copies = {stream.index: target.add_stream_from_template(stream, opaque=True) for stream in source.streams}
            more = target.add_mux_stream(codec)
            target.start_encoding()
            for place, packet in enumerate(source.demux()):
                if not packet.size:
                    continue
                packet.stream = copies[packet.stream_index]
                begins = (packet.dts or 0) * packet.time_base - (0 if place else Fraction(early))
                target.mux(packet)
                if place % 4 == 0:
                    noise: Any = av.Packet(bytes(range(1, 185)))
                    noise.stream, noise.time_base = more, BROADCAST
                    last = noise.pts = noise.dts = max(last + 1, round(begins / BROADCAST))
                    noise.duration = 9000
                    target.mux(noise)
        old.unlink()
        return path

    return made


def dolby(name: str, change: Callable[[Path], bytes]) -> Made:
    """The clip of Dolby Vision, changed."""

    def made(folder: Path) -> Path:
        (folder / name).write_bytes(change(CASES / "dvp5.mp4"))
        return folder / name

    return made


def edited(whole: Made, picture: Edits, sound: Edits | None = None) -> Made:
    """An MP4 with edit lists: of each track, pieces (seconds, where they begin, None for nothing)."""

    def made(folder: Path) -> Path:
        path = whole(folder)
        data = path.read_bytes()
        moov = data.index(b"moov") - 4  # the last box
        for start in reversed([found.start() - 4 for found in re.finditer(b"trak", data)]):
            track = data[start : start + int.from_bytes(data[start : start + 4])]
            scale = struct.unpack_from(">I", track, track.index(b"mdhd") + 16)[0]
            edts, elst = track.index(b"edts") - 4, track.index(b"elst") - 4
            size, first = struct.unpack_from(">I16xi", track, elst)
            edits = picture if b"vide" in track or sound is None else sound
            new = struct.pack(">I4sII", 16 + 12 * len(edits), b"elst", 0, len(edits))
            for seconds, begin in edits:
                media = -1 if begin is None else first + round(begin * scale)
                new += struct.pack(">IiI", round(seconds * 1000), media, 0x10000)
            longer = len(new) - size
            track = _resized(track[:elst] + new + track[elst + size :], longer, 0, edts)
            data = _resized(data[:start] + track + data[start + len(track) - longer :], longer, moov)
        path.write_bytes(data)
        return path

    return made


def _resized(data: bytes, longer: int, *boxes: int) -> bytes:
    changed = bytearray(data)
    for box in boxes:
        struct.pack_into(">I", changed, box, struct.unpack_from(">I", data, box)[0] + longer)
    return bytes(changed)


def captioned(folder: Path) -> Path:
    """With closed captions (CEA-708) before its first frame."""
    path = make_clip(folder / "x.h264", 12)
    data = path.read_bytes()
    words = bytes.fromhex("b500314741393403") + b"\x42\xff" + bytes.fromhex("fc942cfc8080ff")
    first = data.index(b"\0\0\1\x65")
    path.write_bytes(data[:first] + b"\0\0\1\x06\x04" + bytes([len(words)]) + words + b"\x80" + data[first:])
    return path


def all_round(folder: Path) -> Path:
    """A picture of all that is around, as a ball is laid flat (Spherical Video V2)."""
    path = make_clip(folder / "x.mp4", 12)
    data = path.read_bytes()
    ball = _box(b"proj", _box(b"prhd", bytes(16)) + _box(b"equi", bytes(20)))
    ball = _box(b"sv3d", _box(b"svhd", bytes(5)) + ball)
    kinds = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")
    boxes = [data.index(kind, data.index(b"moov")) - 4 for kind in kinds]  # the last one of the file
    end = boxes[-1] + int.from_bytes(data[boxes[-1] :][:4])
    path.write_bytes(_resized(data[:end] + ball + data[end:], len(ball), *boxes))
    return path


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


AAC, SHORT = ("aac", 0.0, 0.48), ("pcm_s16le", 0.0, 0.48)
CATTED = clip("x.ts", sound="aac")
WHOLE = clip("x.mp4", 50, sound="aac")
TABLE = {
    "a sound that nobody decodes": Case(case("apac.mov"), ".mov", "left out: sound stream 2", 10, [("aac", 0, 1)]),
    "the same in .mp4": Case(case("apac.mov"), ".mp4", "no supported container can hold it", 10, [("aac", 0, 1)]),
    "the same in .mkv": Case(case("apac.mov"), ".mkv", "no supported container can hold it", 10, [("aac", 0, 1)]),
    "teletext": Case(beside("dvb_teletext", CATTED), ".mkv", "left out: subtitle stream 2", sound=[AAC]),
    "teletext from before": Case(
        beside("dvb_teletext", clip("x.ts", sound="aac", offset=9), early=3), ".mkv", "left out", sound=[AAC]
    ),
    "teletext in .mp4": Case(beside("dvb_teletext", CATTED), ".mp4", "no supported container", sound=[AAC]),
    "subtitles as pictures": Case(
        beside("hdmv_pgs_subtitle", clip("x.m2ts")), ".mp4", "(pgssub); .mp4 cannot hold it, .mkv can"
    ),
    "Blu-ray": Case(
        clip("x.m2ts", sound="pcm_bluray"), ".mkv", "is converted to pcm_s16le, because .mkv cannot", sound=[SHORT]
    ),
    "Blu-ray in .mp4": Case(clip("x.m2ts", sound="pcm_bluray"), ".mp4", "is converted to pcm_s16le", sound=[SHORT]),
    "Blu-ray in .mov": Case(clip("x.m2ts", sound="pcm_bluray"), ".mov", "is converted to pcm_s16le", sound=[SHORT]),
    "Blu-ray in .webm": Case(
        clip("x.m2ts", sound="pcm_bluray"), ".webm", "is converted to Opus", sound=[("opus", 0, 0.48)]
    ),
    "Blu-ray, 24 bits": Case(
        clip("x.m2ts", sound="pcm_bluray:s32"), ".mkv", "is converted to pcm_s24le", sound=[("pcm_s24le", 0, 0.48)]
    ),
    "DVD": Case(
        clip("x.vob", codec="mpeg2video", sound="pcm_dvd"), ".mkv", "is converted to pcm_s16le", sound=[SHORT]
    ),
    "two channels that a camera's AVI only counts": Case(
        clip("x.avi", codec="mjpeg", pix_fmt="yuvj420p", sound="pcm_s16le", layout="stereo"), ".mp4", sound=[SHORT]
    ),
    "the same, of 8 bits": Case(
        clip("x.avi", codec="mjpeg", pix_fmt="yuvj420p", sound="pcm_u8", layout="stereo"), ".mp4",
        "is converted to pcm_s16le", sound=[SHORT],
    ),
    "several sounds": Case(
        clip("x.m2ts", sound="aac+pcm_bluray+ac3"), ".mp4", "sound stream 2 (pcm_bluray) is converted to pcm_s16le",
        sound=[AAC, SHORT, ("ac3", 0, 0.48)],
    ),
    "sound of Windows": Case(
        clip("x.wmv", codec="wmv2", sound="wmav2"), ".mp4", "(wmav2) is converted to pcm_s16le",
        sound=[("pcm_s16le", 0.09, 0.48)],  # the decoder is late
    ),
    "sound of Flash": Case(
        clip("x.flv", codec="flv1", sound="adpcm_swf"), ".mkv", "(adpcm_swf) is converted to pcm_s16le", sound=[SHORT]
    ),
    "sound in packets shorter than its clock's ticks": Case(
        clip("x.flv", codec="flv1", sound="pcm_alaw"), ".mp4", "(pcm_alaw) is converted to pcm_s16le", sound=[SHORT]
    ),
    "AAC in .webm": Case(WHOLE, ".webm", "(aac) is converted to Opus", 50, [("opus", 0, 2)]),
    "SubRip in .mp4": Case(clip("x.mkv", subtitles="srt"), ".mp4", "(srt) is converted to timed text", text="No rain"),
    "SubRip in .webm": Case(clip("x.mkv", subtitles="srt"), ".webm", "(srt) is converted to WebVTT", text="No rain"),
    "joined": Case(joined(CATTED, CATTED), ".mkv", frames=24, sound=[("aac", 0, 1)]),
    "joined, four parts": Case(joined(*[CATTED] * 4), ".mp4", frames=48, sound=[("aac", 0, 2)]),
    "joined, of few pictures": Case(
        joined(*[clip("x.ts", times=[0, 9000, 18000], sound="mp2", late=0.06)] * 8), ".mkv",
        frames=24, sound=[("mp2", 0, 2.5)],
    ),
    "joined, later clock": Case(
        joined(CATTED, clip("x.ts", sound="aac", offset=5000)), ".mkv", frames=24, sound=[("aac", 0, 1)]
    ),
    "joined, earlier clock": Case(
        joined(clip("x.ts", sound="aac", offset=5000), CATTED), ".mp4", frames=24, sound=[("aac", 0, 1)]
    ),
    "joined, sound ends late": Case(
        joined(clip("x.ts", sound="mp2", late=0.3), clip("x.ts", sound="mp2")), ".mkv", frames=24,
        sound=[("mp2", 0, 1.28)],
    ),
    "joined Blu-ray": Case(
        joined(*[clip("x.m2ts", sound="pcm_bluray")] * 2), ".mkv", "pcm_s16le", 24, [("pcm_s16le", 0, 0.98)]
    ),
    "joined, other numbers": Case(
        joined(CATTED, clip("x.ts", sound="aac", muxer={"mpegts_start_pid": "300"})), ".mkv", frames=24,
        like=joined(CATTED, CATTED),
        sound=[("aac", 0, 1)],
    ),
    "joined, of two sizes": Case(
        joined(CATTED, clip("x.ts", size=(64, 48), sound="aac")), ".mkv",
        "changes its size midway, from 48x32 to 64x48; split it there", refused=True,
    ),
    "joined, sound only after it": Case(
        joined(clip("x.ts", 150), CATTED), ".mkv",
        "has no sound in the first part; split it at the join", frames=162,
    ),
    "joined, of two codecs": Case(
        joined(clip("x.ts", codec="mpeg2video", unit=Fraction(1, 25), sound="mp2"), clip("x.ts", sound="mp2")), ".mkv",
        "changes its codec midway, from mpeg2video to h264; split it there", refused=True,
    ),
    "joined, of two codecs that leave errors": Case(
        joined(clip("x.ts", sound="mp2"), clip("x.ts", codec="libx265", size=(64, 64), sound="mp2")), ".mkv",
        "changes its codec midway, from h264 to hevc; split it there", refused=True,
    ),
    "trimmed": Case(edited(WHOLE, [(1.2, 0.4)]), ".mkv", frames=30, sound=[("aac", 0, 1.2)]),
    "trimmed, .mp4 to .mp4": Case(edited(WHOLE, [(1.2, 0.4)]), ".mp4", frames=30, sound=[("aac", 0, 1.2)]),
    "trimmed at its end": Case(edited(WHOLE, [(0.8, 0)]), ".mkv", frames=20, sound=[("aac", 0, 0.8)]),
    "trimmed, to .webm": Case(
        edited(WHOLE, [(0.8, 1)]), ".webm", "converted to Opus", frames=20, sound=[("opus", 0, 0.8)]
    ),
    "trimmed PCM": Case(
        edited(clip("x.mov", 50, sound="pcm_s16le"), [(1.2, 0.4)]), ".mkv", frames=30, sound=[("pcm_s16le", 0, 1.2)]
    ),
    "only its sound trimmed": Case(
        edited(WHOLE, [(2, 0)], [(1.5, 0.5)]), ".mkv", frames=50, sound=[("aac", 0, 1.5)]
    ),
    "cut out of the middle": Case(
        edited(WHOLE, [(0.4, 0.4), (0.6, 1.2)]), ".mp4", frames=25, sound=[("aac", 0, 1)]
    ),
    "its sound begins late": Case(
        edited(WHOLE, [(2, 0)], [(0.5, None), (1.4, 0)]), ".mp4", frames=50, sound=[("aac", 0.5, 1.4)]
    ),
    "its sound begins late, and is trimmed": Case(
        edited(WHOLE, [(2, 0)], [(0.8, None), (1, 0.6)]), ".mp4", frames=50, sound=[("aac", 0.8, 1)]
    ),
    "its picture begins late": Case(
        edited(WHOLE, [(0.5, None), (1.4, 0)], [(2, 0)]), ".mkv", frames=35, sound=[("aac", 0, 2)]
    ),
    "a phone's keys": Case(
        case("keys.mov"), ".mov", frames=10, sound=[("aac", 0, 1)],
        tags={"com.apple.quicktime.make": "Acme", "com.apple.quicktime.model": "Phone"},
    ),
    "a phone's keys in .mp4": Case(
        case("keys.mov"), ".mp4", frames=10, sound=[("aac", 0, 1)],
        tags={"com.apple.quicktime.make": "Acme", "location": "+48.1000-011.5000/"},
    ),
    "another phone's": Case(
        clip("x.mp4", tags_of_file={"com.android.version": "15"}, muxer={"movflags": "use_metadata_tags"}), ".mp4",
        tags={"com.android.version": "15", "title": "A walk"},
    ),
    "bare DV": Case(
        clip("x.dv", 2, size=(720, 576), codec="dvvideo", sound="pcm_s16le", layout="stereo"), ".mp4",
        "interlaced frames", frames=2, sound=[("pcm_s16le", 0, 0.08)],
    ),
    "captions within the picture": Case(captioned, ".mp4", "left out: closed captions within the picture"),
    "all round": Case(all_round, ".mkv", "left out: what makes it a view all round (360 degrees)"),
    "Dolby Vision 5": Case(case("dvp5.mp4"), ".mp4", "is Dolby Vision without a picture", refused=True),
    "the same in Matroska": Case(
        dolby("x.mkv", lambda clip: remuxed(clip, "matroska")), ".mp4", "is Dolby Vision without", refused=True
    ),
    "the same in MPEG-TS": Case(
        dolby("x.ts", lambda clip: with_descriptor(remuxed(clip, "mpegts"), 5)), ".mp4", "is Dolby Vision without",
        refused=True,
    ),
    "the same in no container": Case(
        dolby("x.hevc", lambda clip: with_rpu(remuxed(clip, "hevc"), 0, 1)), ".mp4", "is Dolby Vision without",
        refused=True,
    ),
    "Dolby Vision 8": Case(
        dolby("x.ts", lambda clip: with_descriptor(remuxed(clip, "mpegts"), 8)), ".mp4", frames=5
    ),
    "Dolby Vision 8 in no container": Case(
        dolby("x.hevc", lambda clip: with_rpu(remuxed(clip, "hevc"), 1, 0)), ".mp4", frames=5
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_awkward_clips_come_back_right(name: str, identity: Path, tmp_path: Path, run: Run) -> None:
    case = TABLE[name]
    source = case.made(tmp_path)
    target = tmp_path / "out" / f"y{case.to}"
    result = run("video", source, "-o", target, "--weights", identity)
    assert case.says in result.stderr
    if case.refused:
        assert result.exit_code == 1 and not (tmp_path / "out").exists()
        return
    assert result.exit_code == 0, result.stderr
    if not case.says:
        assert len(result.stderr.splitlines()) == 1, "nothing to say but what energy leaves out"
    times = times_of(target)
    steps = [float(b - a) for a, b in zip(times, times[1:])]
    assert len(times) == case.frames and min(steps) > 0.03 and max(steps) < 0.5
    heard = sounds(target)
    assert [codec for codec, *_ in heard] == [codec for codec, *_ in case.sound]
    assert min(float(times[0]), *(begins for _, begins, _ in heard), 1) < 0.1
    for (_, begins, seconds), (_, should_begin, should_last) in zip(heard, case.sound):
        assert begins == pytest.approx(should_begin, abs=0.06) and seconds == pytest.approx(should_last, abs=0.08)
    assert case.text in texts(target)
    with av.open(str(target)) as container:
        assert case.tags.items() <= container.metadata.items()
    assert_same_picture(case.like(tmp_path) if case.like else source, target)


def test_a_part_of_a_joined_clip(tmp_path: Path) -> None:
    source = joined(clip("x.ts", sound="mp2", late=0.3), CATTED)(tmp_path)
    info = read_info(source)
    whole = [frame.pts for frame in Frames(source, info, Selection(), 0)]
    for start in (Fraction(1, 5), Fraction(9, 10), Fraction(1)):
        part = [frame.pts for frame in Frames(source, info, Selection(start), 0)]
        assert part == [pts for pts in whole if pts - info.first >= start / info.time_base] and part


def test_where_a_clip_changes_its_size_is_said(identity: Path, tmp_path: Path, run: Run) -> None:
    source, target = tmp_path / "x.webm", tmp_path / "y.mkv"
    parts = [clip(f"{size[0]}.webm", 5, size=size, codec="libvpx-vp9")(tmp_path) for size in ((48, 32), (64, 48))]
    with av.open(str(parts[0])) as first, av.open(str(parts[1])) as second, av.open(str(source), "w") as new:
        copy = new.add_stream_from_template(first.streams.video[0], opaque=True)
        for old, later in ((first, 0), (second, 200)):  # as a browser records a call
            for packet in old.demux():
                if packet.size:
                    packet.pts, packet.dts, packet.stream = (packet.pts or 0) + later, (packet.dts or 0) + later, copy
                    new.mux(packet)
    command = ("video", source, "-o", target, "--weights", identity)
    result = run(*command)
    assert result.exit_code == 1
    assert "from 48x32 to 64x48; split it there, or end before, with --end 0.2" in result.stderr
    assert run(*command, "--end", "0.2").exit_code == 0 and len(times_of(target)) == 5


@pytest.mark.parametrize("ending", ["mkv", "avi", "ts"])
@pytest.mark.parametrize("first, second", [(0, 5), (5, 5), (0, 0)])
def test_a_stream_without_a_frame_hides_none_that_has(first: int, second: int, ending: str, tmp_path: Path) -> None:
    source, counts = tmp_path / f"x.{ending}", (first, second)
    with av.open(str(source), "w") as target:
        streams: list[Any] = [target.add_stream("mpeg2video", rate=25) for _ in counts]
        for stream, size in zip(streams, (64, 48)):
            stream.width, stream.height, stream.pix_fmt = size, 32, "yuv420p"
        target.start_encoding()
        for stream, count in zip(streams, counts):
            for _ in range(count):
                target.mux(stream.encode(av.VideoFrame(stream.width, 32, "yuv420p")))
            target.mux(stream.encode(None))
    if not second:
        with pytest.raises(PictureError):
            read_info(source)
        return
    info = read_info(source)
    assert info.width == (64 if first else 48) and len(list(Frames(source, info, Selection(), 0))) == 5


def test_another_codec_on_the_same_clock_is_counted_as_missing(tmp_path: Path) -> None:
    first = clip("x.ts", 50, size=(320, 240), codec="mpeg2video", unit=Fraction(1, 25))
    source = joined(first, clip("x.ts", 50, size=(320, 240), offset=2))(tmp_path)
    info = read_info(source)
    frames = Frames(source, info, Selection(), 0)
    assert not info.joins and len(list(frames)) <= 50 and frames.missing() >= 49


def test_empty_places_of_an_avi_are_no_missing_frames(tmp_path: Path) -> None:
    source = in_avi(clip("x.ts", 50, sound="mp2"))(tmp_path)
    info = read_info(source)
    frames = Frames(source, info, Selection(), 0)
    assert info.time_base == Fraction(1, 600) and info.rate == 25 and abs((info.expected or 0) - 50) <= 2
    assert len(list(frames)) == 50 and frames.missing() == 0


@pytest.mark.parametrize("lost", ["audio", "video"])
def test_a_stream_that_pauses_is_no_join(lost: str, tmp_path: Path) -> None:
    source = clip("x.ts", 340, sound="mp2")(tmp_path)
    with av.open(str(source)) as old, av.open(str(tmp_path / "y.ts"), "w") as new:
        copies = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        for packet in old.demux():
            moment = (packet.dts or 0) * packet.time_base
            if packet.size and not (packet.stream.type == lost and 1 < moment < 12):
                packet.stream = copies[packet.stream_index]
                new.mux(packet)
    assert read_info(tmp_path / "y.ts").joins == ()


@pytest.mark.parametrize("name", ["x.flv", "x.mkv"])
def test_a_clip_that_begins_late_is_whole(name: str, tmp_path: Path) -> None:
    late = {".flv": {"options": {"bf": "3"}}, ".mkv": {"times": range(200, 680, 40)}}[Path(name).suffix]
    source = clip(name, unit=Fraction(1, 1000), **late)(tmp_path)
    source.write_bytes(source.read_bytes().replace(b"DURATION", b"XURATION"))  # many muxers write no such tag
    frames = Frames(source, read_info(source), Selection(), 0)
    assert len(list(frames)) == 12 and frames.missing() == 0


@pytest.mark.parametrize("share, missing", [(1.0, 0), (0.97, 0), (0.6, 30), (0.3, 64)])
def test_a_truncated_clip_of_windows(share: float, missing: int, tmp_path: Path) -> None:
    source = clip("x.wmv", 75, codec="wmv2", size=(64, 48))(tmp_path)
    data = source.read_bytes()
    source.write_bytes(data[: int(len(data) * share)])  # to 97 %: what is lost is the index
    frames = Frames(source, read_info(source), Selection(), 0)
    assert len(list(frames)) == pytest.approx(75 - missing, abs=2)
    assert frames.missing() == pytest.approx(missing, abs=2 if missing else 0)


def test_an_empty_sample_costs_itself_alone(tmp_path: Path) -> None:
    source = clip("x.mov", codec="mjpeg", pix_fmt="yuvj420p")(tmp_path)
    data = bytearray(source.read_bytes())
    sizes = data.index(b"stsz") + 16
    before, dropped = struct.unpack_from(">II", data, sizes + 4 * 4)
    struct.pack_into(">II", data, sizes + 4 * 4, before + dropped, 0)
    source.write_bytes(data)
    info = read_info(source)
    frames = Frames(source, info, Selection(), 0)
    assert [frame.pts // 512 for frame in frames] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert frames.missing() == 0, "it was dropped on purpose"


def test_one_wrong_time_moves_no_other_frame(tmp_path: Path) -> None:
    source = clip("x.mkv", codec="ffv1", unit=Fraction(1, 1000))(tmp_path)
    with av.open(str(source)) as container:
        place = next(packet.pos for packet in container.demux() if packet.pts == 200) or 0
    data = bytearray(source.read_bytes())
    struct.pack_into(">h", data, data.index(struct.pack(">h", 200), place), 2000)
    source.write_bytes(data)
    assert times_of(source)[5] == 2
    frames = Frames(source, read_info(source), Selection(), 0)
    assert [frame.pts for frame in frames] == list(range(0, 480, 40)) and frames.missing() == 0


def test_frames_that_come_seldom_are_no_joins(tmp_path: Path) -> None:
    seconds = [0, 15, 30, 42, 60, 75]
    source = clip("x.ts", times=[90000 * second for second in seconds], options={"bf": "0"})(tmp_path)
    info = read_info(source)
    assert [(frame.pts - info.first) * info.time_base for frame in Frames(source, info, Selection(), 0)] == seconds
    later = clip("y.ts", times=[90000 * second for second in seconds], options={"bf": "0"}, offset=5000)(tmp_path)
    source.write_bytes(source.read_bytes() + later.read_bytes())
    assert len(read_info(source).joins) == 1


OVERLAPPING = clip(
    "x.mkv", 50,
    subtitles=b"1\n00:00:00,100 --> 00:00:01,500\nA sign\n\n2\n00:00:00,200 --> 00:00:00,400\none\n\n"
    b"3\n00:00:00,800 --> 00:00:01,000\ntwo\n\n4\n00:00:01,500 --> 00:00:01,600\n-\n\n",
)  # fmt: skip


@pytest.mark.parametrize("ending", [".mp4", ".mov"])
def test_cues_that_overlap_are_shown_in_time(ending: str, identity: Path, tmp_path: Path, run: Run) -> None:
    target = tmp_path / f"y{ending}"
    assert run("video", OVERLAPPING(tmp_path), "-o", target, "--weights", identity, "--every", "5").exit_code == 0
    assert shown(target) == [
        (0.1, 0.2, "A sign"), (0.2, 0.4, "A sign\none"), (0.4, 0.8, "A sign"), (0.8, 1.0, "A sign\ntwo"),
        (1.0, 1.5, "A sign"), (1.5, 1.6, "-"),
    ]  # fmt: skip


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_a_cue_that_began_before_the_part_is_shown(ending: str, identity: Path, tmp_path: Path, run: Run) -> None:
    target = tmp_path / f"y{ending}"
    options = ("--weights", identity, "--every", "5", "--start", "0.4")
    assert run("video", OVERLAPPING(tmp_path), "-o", target, *options).exit_code == 0
    (begin, _, text), *_ = found = shown(target)
    assert begin == 0 and text == "A sign" and "one" not in str(found)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_frames_that_carry_exif_as_photographs_do(orientation: int, identity: Path, tmp_path: Path, run: Run) -> None:
    source, target, both, exif = tmp_path / "x.mov", tmp_path / "y.mp4", tmp_path / "both.mp4", Image.Exif()
    exif[0x0112] = orientation
    with av.open(str(source), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuvj420p"
        for index in range(3):
            Image.fromarray(scene(index, 32, 48)).save(picture := io.BytesIO(), "JPEG", exif=exif)
            packet: Any = Packet(picture.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, index, index, Fraction(1, 25)
            container.mux(packet)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(picture))).astype(int)

    def shown(path: Path) -> NDArray[Any]:
        *_, last = Frames(path, read_info(path), Selection(), 0)
        return last.rgb.astype(int)

    assert np.abs(shown(source) - upright).mean() < 4
    result = run("video", source, "-o", target, "--weights", identity)
    assert result.exit_code == 0, result.stderr
    assert np.abs(shown(target) - upright).mean() < 6
    assert run("video", source, "-o", both, "--weights", identity, "--compare").exit_code == 0
    assert np.abs(shown(both) - np.hstack((upright, upright))).mean() < 6


@pytest.mark.parametrize("codec", ["adpcm_ima_wav", "libmp3lame"])
@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_sound_that_an_avi_counts_in_packets_stays_with_a_part(
    codec: str, ending: str, identity: Path, tmp_path: Path, run: Run
) -> None:
    source = clip("x.avi", 20, codec="mjpeg", pix_fmt="yuvj420p", sound=codec)(tmp_path)
    target, start = tmp_path / f"y{ending}", Fraction(1, 5)
    assert run("video", source, "-o", target, "--weights", identity, "--start", "0.2").exit_code == 0
    with av.open(str(source)) as container:
        assert container.streams.audio[0].time_base > Fraction(1, 50), "so long are packets, and no cut fits them"
    (sound,), (cut,) = packets_of(source, "audio"), packets_of(target, "audio")
    begins = min(pts for pts, *_ in sound if pts is not None and pts >= start) - start
    assert cut[0][0] == pytest.approx(begins, abs=0.002)


@pytest.mark.parametrize("ending", [".mp4", ".mov"])
@pytest.mark.parametrize(
    "name, details",
    [
        ("x.flv", {"codec": "flv1", "sound": "adpcm_swf"}),
        ("x.mkv", {"sound": "pcm_s16le", "unit": Fraction(1, 1000)}),
        ("x.mkv", {"sound": "pcm_u8", "unit": Fraction(1, 1000)}),
    ],
)
def test_a_hole_in_sound_stays(
    name: str, details: dict[str, Any], ending: str, identity: Path, tmp_path: Path, run: Run
) -> None:
    source, target = tmp_path / f"hole{name[1:]}", tmp_path / f"y{ending}"
    with av.open(str(clip(name, 50, **details)(tmp_path))) as old, av.open(str(source), "w") as new:
        copies = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        for packet in old.demux():
            moment = (packet.pts or 0) * packet.time_base
            if packet.size and not (packet.stream.type == "audio" and Fraction(2, 5) < moment < Fraction(6, 5)):
                packet.stream = copies[packet.stream_index]
                new.mux(packet)
    assert run("video", source, "-o", target, "--weights", identity, "--every", "10").exit_code == 0
    with av.open(str(target)) as container:
        mono = av.AudioResampler(format="flt", layout="mono", rate=8000)
        frames = container.decode(container.streams.audio[0])
        heard = np.concatenate([out.to_ndarray()[0] for frame in frames for out in mono.resample(frame)])
    loud = [float(np.abs(heard[int(8000 * second) :][:80]).max()) for second in (0.2, 0.6, 1.1, 1.5, 1.9)]
    assert [level > 0.1 for level in loud] == [True, False, False, True, True] and loud[1] < 0.01
    assert len(heard) / 8000 == pytest.approx(2, abs=0.1)


def test_a_single_wrong_time_of_sound_is_no_hole() -> None:
    sound = Unbroken("pcm_s16le", 1000, 1)
    made = []
    for begins in (0, 100, 1700, 300, 400, 900):
        packet: Any = Packet(bytes(200))
        packet.pts, packet.time_base = begins, Fraction(1, 1000)
        made += sound.add(packet)
    made += sound.finish()
    assert [(packet.pts, packet.size) for packet in made] == [
        (0, 200), (100, 200), (1700, 200), (300, 200), (400, 200), (500, 800), (900, 200)
    ]  # fmt: skip


def test_a_dry_run_says_what_would_be_left_out(identity: Path, tmp_path: Path, run: Run) -> None:
    source = case("apac.mov")(tmp_path)
    result = run("video", source, "-o", tmp_path / "y.mp4", "--weights", identity, "--dry-run")
    assert result.exit_code == 0 and "left out: sound stream 2" in result.stderr and "derain" in result.stdout


def sounds(path: Path) -> list[Sound]:
    """Of each stream of sound: codec, first second, seconds without a gap or silence."""
    found = []
    with av.open(str(path)) as container:
        count = len(container.streams.audio)
    for index in range(count):
        with av.open(str(path)) as container:
            stream = container.streams.audio[index]
            frames = [frame for frame in container.decode(stream) if frame.samples]
            mono = av.AudioResampler(format="flt", layout="mono", rate=frames[0].sample_rate)
            loud = np.concatenate([out.to_ndarray()[0] for frame in frames for out in mono.resample(frame)])
            begins, ends = (float(frame.pts * frame.time_base) for frame in (frames[0], frames[-1]))  # type: ignore
            seconds = sum(frame.samples / frame.sample_rate for frame in frames)
            assert ends + frames[-1].samples / frames[-1].sample_rate - begins == pytest.approx(seconds, abs=0.15)
            assert np.sqrt(np.mean(loud**2)) == pytest.approx(0.1, abs=0.06), "the tone that was put in, not noise"
            found.append((stream.codec_context.name.removeprefix("lib"), begins, seconds))
    return [(codec.replace("float", ""), *rest) for codec, *rest in found]  # type: ignore[misc]


def shown(path: Path) -> list[tuple[float, float, str]]:
    """Each cue that is seen: begin, end, text."""
    (packets,) = packets_of(path, "subtitle")
    head = 0 if path.suffix == ".mkv" else 2  # the length, in timed text
    cues = [(float(pts or 0), float((pts or 0) + duration), data[head:].decode()) for pts, duration, data in packets]
    return [(begin, end, text) for begin, end, text in cues if end > begin and text]


def texts(path: Path) -> str:
    """What all subtitles say."""
    with av.open(str(path)) as container:
        return "".join(
            bytes(packet).decode(errors="replace") for packet in container.demux()
            if packet.dts is not None and container.streams[packet.stream_index].type == "subtitle"
        )  # fmt: skip


def assert_same_picture(source: Path, target: Path) -> None:
    """Frame by frame, but for what the codec loses."""
    with av.open(str(source)) as before, av.open(str(target)) as after:
        for index, (old, new) in enumerate(zip(before.decode(video=0), after.decode(video=0), strict=True)):
            error = np.abs(old.to_ndarray(format="gray").astype(int) - new.to_ndarray(format="gray")).mean()
            assert error < 4, f"frame {index} is another picture: {error:.1f}"


def test_joined_sound_stays_with_its_picture(identity: Path, tmp_path: Path, run: Run) -> None:
    """The second part's streams are shifted alike, so far that nothing overlaps."""
    source = joined(clip("x.ts", sound="mp2", late=0.3), clip("x.ts", sound="mp2"))(tmp_path)
    assert run("video", source, "-o", tmp_path / "y.mkv", "--weights", identity).exit_code == 0
    pictures, pictures_after = times_of(source), times_of(tmp_path / "y.mkv")
    sound, sound_after = (
        [pts or 0 for pts, *_ in packets_of(path, "audio")[0]] for path in (source, tmp_path / "y.mkv")
    )
    join = next(place for place in range(1, len(sound)) if sound[place] < sound[place - 1])
    assert len(sound_after) == len(sound) and sorted(sound_after) == sound_after
    apart = pictures[12] - sound[join]
    assert abs(pictures_after[12] - sound_after[join] - apart) < Fraction(2, 1000)
    assert sound_after[join] - sound_after[join - 1] < Fraction(1, 20), "no gap in the sound"
