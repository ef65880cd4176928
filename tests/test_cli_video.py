"""esdnet video, from files to files, as a user runs it."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import struct
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from clips import frames_of, make_clip, packets_of, scene, times_of
from conftest import Run, load_json, read, write
from PIL import Image

from esdnet_cli.pipeline.journal import JOURNAL
from esdnet_cli.video.info import read_info

ESDNET = [sys.executable, "-m", "esdnet_cli"]
MILLISECONDS = Fraction(1, 1000)
UNEVEN = [int(index * 41.7 + index % 3 * 5) for index in range(12)]  # a camera that takes its time


@pytest.fixture
def still(identity: Path) -> Path:
    """A checkpoint under which a clip stands still: whatever differs in the output was not the network."""
    return identity


def length_of(path: Path) -> float:
    """Seconds that players show, as FFmpeg finds them."""
    with av.open(str(path)) as container:
        assert container.duration is not None
        return container.duration / 1e6


def facts(path: Path) -> dict[str, Any]:
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        frame = next(container.decode(video))
        return {
            "tags": (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc),
            "rotation": frame.rotation,
            "aspect": video.sample_aspect_ratio,
            "size": (frame.width, frame.height),
            "pixels": frame.format.name,
            "codec": video.codec_context.name,
            "title": container.metadata.get("title"),
            "chapters": [
                (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]) for c in container.chapters()
            ],
            "languages": [stream.metadata.get("language") for stream in container.streams.audio],
        }


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "sound and chapters": ("x.mp4", {"sound": "aac", "chapters": True, "matrix": 1, "tags": (1, 1)}),
    "variable rate, subtitles": (
        "x.mkv",
        {"sound": "libopus", "subtitles": "srt", "chapters": True, "unit": MILLISECONDS, "times": UNEVEN},
    ),
    "variable rate in mp4": ("x.mp4", {"times": [pts * 13 for pts in UNEVEN], "sound": "aac"}),
    "turned": ("x.mp4", {"rotation": 90, "matrix": 1}),
    "turned in mov": ("x.mov", {"rotation": 180, "sound": "pcm_s16le"}),
    "odd size, vp9": ("x.webm", {"codec": "libvpx-vp9", "size": (47, 33), "sound": "libopus"}),
    "odd size, h264": ("x.mkv", {"size": (47, 33), "pix_fmt": "yuv444p"}),
    "10 bit": (
        "x.mkv",
        {
            "codec": "libx265",
            "size": (96, 64),
            "pix_fmt": "yuv420p10le",
            "matrix": 9,
            "tags": (9, 16),
            "options": {"x265-params": "log-level=none"},
        },
    ),
    "full range, wide pixels": ("x.mp4", {"full": True, "matrix": 6, "tags": (6, 6), "aspect": Fraction(4, 3)}),
    "anamorphic in webm": ("x.webm", {"codec": "libvpx-vp9", "aspect": Fraction(4, 3)}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_everything_but_the_rain_is_kept(kind: str, still: Path, tmp_path: Path, run: Run) -> None:
    name, details = KINDS[kind]
    source, target = make_clip(tmp_path / name, **details), tmp_path / "out" / name
    result = run("video", source, "-o", target, "--weights", still)
    assert result.exit_code == 0, result.stderr
    before, after = facts(source), facts(target)
    assert after["codec"] == ("vp9" if name.endswith("webm") else "h264")
    for key in ("rotation", "aspect", "size", "title", "chapters", "languages", "pixels"):
        assert after[key] == before[key], key
    matrix, sampled, primaries, transfer = before["tags"]
    assert after["tags"] == (6 if matrix == 2 else matrix, sampled or 1, primaries, transfer)
    assert times_of(target) == times_of(source)
    assert packets_of(target, "audio") == packets_of(source, "audio")
    assert packets_of(target, "subtitle") == packets_of(source, "subtitle")
    depth = 4 if "10" in kind else 1
    for index, (ours, theirs) in enumerate(zip(frames_of(target), frames_of(source), strict=True)):
        error = np.abs(ours.astype(int) - theirs)
        assert error.mean() < 4 * depth, f"frame {index} is another picture"
    assert files(tmp_path / "out") == [JOURNAL, name], "no parts are left behind"


@pytest.mark.parametrize(
    "matrix, full, pix_fmt",
    [
        (1, False, "yuv420p"),
        (6, False, "yuv420p"),
        (9, False, "yuv420p10le"),
        (1, True, "yuv420p"),
        (2, False, "yuv422p"),
    ],
)
def test_colours_come_back_as_numbers(
    matrix: int, full: bool, pix_fmt: str, still: Path, tmp_path: Path, run: Run
) -> None:
    scale = 4 if pix_fmt.endswith("le") else 1
    fill = (90 * scale, 110 * scale, 170 * scale)
    source = make_clip(tmp_path / "x.mkv", 3, codec="ffv1", pix_fmt=pix_fmt, matrix=matrix, full=full, fill=fill)
    assert run("video", source, "-o", tmp_path / "y.mkv", "--codec", "ffv1", "--weights", still).exit_code == 0
    for ours, theirs in zip(frames_of(tmp_path / "y.mkv"), frames_of(source), strict=True):
        assert np.abs(ours.astype(int) - theirs).max() <= (1 if not full else 2) * scale


@pytest.mark.parametrize("codec, ending", [("hevc", "mp4"), ("av1", "mp4"), ("av1", "webm"), ("ffv1", "mkv")])
def test_codecs(codec: str, ending: str, still: Path, tmp_path: Path, run: Run) -> None:
    source = make_clip(tmp_path / "x.mp4", 30, size=(64, 64))
    target = tmp_path / f"y.{ending}"
    result = run("video", source, "-o", target, "--codec", codec, "--weights", still, "--crf", 20) if codec != "ffv1" \
        else run("video", source, "-o", target, "--codec", codec, "--weights", still)  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert facts(target)["codec"] in (codec, "libdav1d", "libaom-av1")
    rounding = 0 if ending == "mp4" else Fraction(1, 2000)  # Matroska counts milliseconds
    for ours, theirs in zip(times_of(target), times_of(source), strict=True):
        assert abs(ours - theirs) <= rounding
    for ours, theirs in zip(frames_of(target), frames_of(source), strict=True):
        assert np.abs(ours.astype(int) - theirs).mean() < 4


@pytest.mark.parametrize("codec, ending", [("vp9", "webm"), ("av1", "mkv"), ("h264", "mp4")])
@pytest.mark.parametrize("rate", [12800, 300])
def test_rates_that_a_clock_or_a_codec_does_not_know(
    rate: int, codec: str, ending: str, still: Path, tmp_path: Path, run: Run
) -> None:
    source, target = tmp_path / "x.mkv", tmp_path / f"y.{ending}"
    with av.open(str(source), "w") as container:  # whose clock has 1000 ticks a second
        stream: Any = container.add_stream("ffv1", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for index in range(6):
            frame = av.VideoFrame.from_ndarray(scene(index, 32, 48), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    result = run("video", source, "-o", target, "--codec", codec, "--weights", still)
    assert result.exit_code == 0, result.stderr
    times = times_of(target)
    assert len(times) == len(set(times)) == 6
    assert read_info(source).rate == min(rate, 1000)


def test_a_rate_that_its_own_times_belie(tmp_path: Path) -> None:
    with av.open(str(make_clip(tmp_path / "x.mp4"))) as old, av.open(str(tmp_path / "x.mkv"), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0], opaque=True)  # the header says 12800
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)
    assert read_info(tmp_path / "x.mkv").rate == 25


def test_what_a_codec_cannot_keep_is_said(still: Path, tmp_path: Path, run: Run) -> None:
    deep = make_clip(tmp_path / "x.mkv", 3, codec="ffv1", pix_fmt="yuv420p10le")
    result = run("video", deep, "-o", tmp_path / "x.webm", "--weights", still)
    if facts(tmp_path / "x.webm")["pixels"] == "yuv420p":
        assert "vp9 is written with 8 bits here, the source has 10" in result.stderr
    odd = make_clip(tmp_path / "odd.mkv", 3, codec="ffv1", size=(33, 17))
    result = run("video", odd, "-o", tmp_path / "odd.mp4", "--weights", still)
    assert facts(tmp_path / "odd.mp4")["size"] == (33, 17)
    assert "written as 4:4:4, the source is 4:2:0" in result.stderr


@pytest.mark.parametrize(
    "name, codec, pix_fmt, written",
    [
        ("x.mkv", "ffv1", "yuv411p", "yuv422p"),
        ("x.mkv", "ffv1", "yuv440p", "yuv444p"),
        ("x.mkv", "ffv1", "yuv440p12le", "yuv444p10le"),
        ("x.mov", "qtrle", "rgb555be", "yuv444p"),
    ],
)
def test_rare_pixels_lose_nothing(
    name: str, codec: str, pix_fmt: str, written: str, still: Path, tmp_path: Path, run: Run
) -> None:
    source, target = make_clip(tmp_path / name, 3, codec=codec, pix_fmt=pix_fmt), tmp_path / "y.mp4"
    result = run("video", source, "-o", target, "--weights", still)
    assert result.exit_code == 0 and facts(target)["pixels"] == written
    rare = {"yuv411p": "4:1:1", "yuv440p": "4:4:0", "yuv440p12le": "4:4:0"}.get(pix_fmt)
    assert f"the source is {rare}" in result.stderr if rare else "the source" not in result.stderr


def test_rgb_that_becomes_coarser_is_said(still: Path, tmp_path: Path, run: Run) -> None:
    source = make_clip(tmp_path / "x.mov", 2, size=(64, 64), codec="qtrle", pix_fmt="rgb24")
    for codec, coarser in (("av1", True), ("h264", False)):
        result = run("video", source, "-o", tmp_path / f"{codec}.mp4", "--codec", codec, "--weights", still)
        assert ("written as 4:2:0, the source is RGB" in result.stderr) == coarser


@pytest.mark.parametrize("ending", ["webm", "mp4"])
def test_transparency_is_left_out_and_said(ending: str, still: Path, tmp_path: Path, run: Run) -> None:
    source = make_clip(tmp_path / "x.webm", 3, codec="libvpx-vp9", pix_fmt="yuva420p")
    result = run("video", source, "-o", tmp_path / f"y.{ending}", "--weights", still)
    assert result.exit_code == 0 and "transparency is left out" in result.stderr
    with av.open(str(tmp_path / f"y.{ending}")) as container:
        assert not [key for key in container.streams.video[0].metadata if key.lower() == "alpha_mode"]


def test_a_rerun_skips_and_what_is_not_ours_is_kept(still: Path, tmp_path: Path, run: Run) -> None:
    source, target = make_clip(tmp_path / "x.mp4", 5), tmp_path / "out.mp4"
    command = ("video", source, "-o", target, "--weights", still)
    assert "1 done, 0 skipped, 0 failed" in run(*command).stdout
    before = target.stat().st_mtime_ns
    assert "0 done, 1 skipped, 0 failed" in run(*command).stdout
    assert target.stat().st_mtime_ns == before
    assert "1 done" in run(*command, "--crf", 30).stdout, "other settings: made again"
    planned = run(*command, "--crf", 30, "--dry-run")
    assert planned.stdout == f"skip     {source} -> {target}\n"
    assert planned.stderr == "Dry run: identity, cpu, fp32, one piece; nothing was written.\n"
    target.write_bytes(b"holiday")
    result = run(*command)
    assert result.exit_code == 1 and "already exists" in result.stderr
    assert target.read_bytes() == b"holiday"
    assert "1 done" in run(*command, "--overwrite").stdout


@pytest.mark.parametrize("size", [241, 242, 252, 255])
@pytest.mark.parametrize("ending", ["mkv", "ts"])
def test_names_as_long_as_they_may_be(size: int, ending: str, still: Path, tmp_path: Path, run: Run) -> None:
    stem = "雨ß" * 60
    while len(f"{stem}.{ending}".encode()) > size:
        stem = stem[:-1]
    stem += "x" * (size - len(f"{stem}.{ending}".encode()))
    source = make_clip(tmp_path / f"x.{ending}", 8, unit=Fraction(1, 90000)).rename(tmp_path / f"{stem}.{ending}")
    command = ("video", source, "-o", tmp_path / "out", "--weights", still)
    (tmp_path / "out").mkdir()
    result = run(*command)
    assert result.exit_code == 0, result.stderr
    (name,) = (name for name in files(tmp_path / "out") if name != JOURNAL)
    assert name.startswith(stem[:70]) and name.endswith(".mkv")
    assert (name == f"{stem}.mkv") == (len(f"{stem}.mkv".encode()) <= 255)
    assert "1 skipped" in run(*command).stdout


def test_the_output_has_the_date_of_its_source(still: Path, tmp_path: Path, run: Run) -> None:
    source = make_clip(tmp_path / "x.mp4", 2)
    os.utime(source, ns=(10**18, 10**18 + 1))
    assert run("video", source, "-o", tmp_path / "y.mp4", "--weights", still).exit_code == 0
    assert (tmp_path / "y.mp4").stat().st_mtime_ns == 10**18 + 1


def test_killed_and_resumed_is_as_if_it_had_not_been(tiny: Path, tmp_path: Path, run: Run) -> None:
    source = make_clip(tmp_path / "x.mkv", 60, sound="libopus", unit=MILLISECONDS,
                       times=[int(index * 41.7 + index % 3 * 5) for index in range(60)])  # fmt: skip
    options = ("--weights", tiny, "--codec", "ffv1", "--deflicker", "--tile", "0")
    whole, target = tmp_path / "whole.mkv", tmp_path / "out" / "x.mkv"
    assert run("video", source, "-o", whole, *options, "--report", tmp_path / "whole.json").exit_code == 0
    command = ["video", source, "-o", target, *options]
    kept = 0
    while kept < 2:  # one part at a time, each killed while at the next
        part = target.parent / ".x.mkv.esdnet-parts" / f"{kept:06}.part"
        with subprocess.Popen(
            [*ESDNET, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while not part.exists():
                assert process.poll() is None
                time.sleep(0.005)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        kept += 1
        assert not target.exists()
    result = run(*command, "--report", tmp_path / "resumed.json")
    assert result.exit_code == 0
    assert "continuing after 48 frames" in result.stderr
    assert times_of(target) == times_of(source)
    assert packets_of(target, "audio") == packets_of(source, "audio")
    for index, (ours, theirs) in enumerate(zip(frames_of(target), frames_of(whole), strict=True)):
        assert np.array_equal(ours, theirs), f"frame {index}"
    reports = [load_json(tmp_path / f"{name}.json") for name in ("whole", "resumed")]
    counts = [[(image["frame"], image["time"], image["ac"]) for image in report["images"]] for report in reports]
    assert counts[0] == counts[1] and len(counts[0]) == 60
    assert reports[0]["totals"]["ac"] == reports[1]["totals"]["ac"] == sum(ac for *_, ac in counts[0])


def test_parts_of_other_settings_are_not_mixed_in(tiny: Path, tmp_path: Path, run: Run) -> None:
    source, target = make_clip(tmp_path / "x.mp4", 30), tmp_path / "y.mp4"
    _interrupt(source, target, tiny, signal.SIGTERM)
    result = run("video", source, "-o", target, "--weights", tiny, "--tile", "0", "--crf", "30")
    assert "starting over" in result.stderr and result.exit_code == 0
    assert len(times_of(target)) == 30


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_parts_of_another_encoder_are_not_mixed_in(
    overwrite: tuple[str, ...], still: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from esdnet_cli.video.encoder import SegmentEncoder

    source, target = make_clip(tmp_path / "x.mp4", 5), tmp_path / "y.mp4"
    command = ("video", source, "-o", target, "--weights", still, *overwrite)
    with monkeypatch.context() as patched:
        patched.setattr(SegmentEncoder, "extradata", b"of another machine")
        assert "do not fit together" in run(*command).stderr
    result = run(*command)
    assert "starting over" in result.stderr and result.exit_code == 0
    assert times_of(target) == times_of(source)


def test_an_interrupted_overwrite_goes_on(tiny: Path, tmp_path: Path, run: Run) -> None:
    source, target = make_clip(tmp_path / "x.mp4", 30), tmp_path / "y.mp4"
    target.write_bytes(b"holiday")
    _interrupt(source, target, tiny, signal.SIGINT, "--overwrite")
    assert target.read_bytes() == b"holiday"
    result = run("video", source, "-o", target, "--weights", tiny, "--tile", "0", "--overwrite")
    assert "continuing after 24 frames" in result.stderr and times_of(target) == times_of(source)


def test_parts_that_a_kill_left_beside_the_output_go(
    still: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from esdnet_cli.video import clip

    def killed(*_: Any) -> None:
        raise SystemExit(9)

    source, target = make_clip(tmp_path / "x.mp4", 2), tmp_path / "out" / "y.mp4"
    command = ("video", source, "-o", target, "--weights", still)
    whole = [JOURNAL, "y.mp4"]
    left = [JOURNAL, *(f".y.mp4.esdnet-parts/{name}" for name in ("000000.part", "job.json")), "y.mp4"]
    with monkeypatch.context() as patched:
        patched.setattr(clip.Parts, "remove", killed)  # after the output has its name
        assert run(*command).exit_code == 9 and files(tmp_path / "out") == left
    assert "1 skipped" in run(*command).stdout and files(tmp_path / "out") == whole
    with monkeypatch.context() as patched:
        patched.setattr(clip, "_write", killed)
        assert run(*command, "--crf", "30").exit_code == 9
    assert "1 skipped" in run(*command).stdout and files(tmp_path / "out") == left, "those may go on"


def test_interrupted_says_how_far_and_how_to_go_on(tiny: Path, tmp_path: Path, run: Run) -> None:
    source, target = make_clip(tmp_path / "x.mp4", 30), tmp_path / "y.mp4"
    report = tmp_path / "r.json"
    stderr = _interrupt(source, target, tiny, signal.SIGINT, "--report", report)
    assert "Interrupted: 24 frames of" in stderr and "the same command continues from there" in stderr
    assert load_json(report)["images"] == load_json(report)["clips"] == [], "of a clip that is not there"
    assert "Traceback" not in stderr and not target.exists()
    assert run("video", source, "-o", target, "--weights", tiny, "--tile", "0").exit_code == 0
    assert times_of(target) == times_of(source)


def _interrupt(source: Path, target: Path, weights: Path, number: int, *options: object) -> str:
    """Run until the first part is there, then send a signal; returns stderr."""
    command = [
        *ESDNET,
        "video",
        str(source),
        "-o",
        str(target),
        "--weights",
        str(weights),
        "--tile",
        "0",
        *map(str, options),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not (target.parent / f".{target.name}.esdnet-parts" / "000000.part").exists():
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(number)
        assert process.stderr is not None
        stderr = process.stderr.read()
    assert process.returncode == 130, stderr
    return stderr


def test_a_truncated_file_yields_what_decodes(still: Path, tmp_path: Path, run: Run) -> None:
    whole = make_clip(tmp_path / "whole.mkv", 40, codec="ffv1", sound="libopus")
    data = whole.read_bytes()
    source, target = tmp_path / "x.mkv", tmp_path / "y.mkv"
    source.write_bytes(data[: len(data) // 2])
    result = run("video", source, "-o", target, "--codec", "ffv1", "--weights", still, "--report", tmp_path / "r.json")
    assert result.exit_code == 1
    count = len(times_of(target))
    assert 10 < count < 30
    assert f"about {40 - count} of 40 frames are missing; the frames that could be decoded are in" in result.stderr
    for ours, theirs in zip(frames_of(target), frames_of(whole)):
        assert np.abs(ours.astype(int) - theirs).mean() < 0.5
    assert packets_of(target, "audio") == packets_of(source, "audio") != packets_of(whole, "audio")
    assert load_json(tmp_path / "r.json")["clips"][0]["status"] == "failed"


def test_a_truncated_mp4_counts_by_its_index(still: Path, tmp_path: Path, run: Run) -> None:
    source = make_clip(tmp_path / "x.mp4", 40)
    with av.open(str(source)) as old, av.open(str(tmp_path / "f.mp4"), "w", options={"movflags": "faststart"}) as new:
        copy = new.add_stream_from_template(old.streams.video[0], opaque=True)
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)
    data = (tmp_path / "f.mp4").read_bytes()
    (tmp_path / "f.mp4").write_bytes(data[: len(data) * 2 // 3])
    result = run("video", tmp_path / "f.mp4", "-o", tmp_path / "y.mp4", "--weights", still)
    assert result.exit_code == 1
    assert (
        "of 40 frames are missing" in result.stderr and "about" not in result.stderr.split("of 40")[0].split(": ")[-1]
    )
    assert 15 < len(times_of(tmp_path / "y.mp4")) < 40


def test_damage_anywhere_costs_no_more_than_what_it_hit(still: Path, tmp_path: Path, run: Run) -> None:
    """Clips damaged at random are derained or refused, each by one line; what comes out can be played."""
    clips = [
        make_clip(tmp_path / "a.mp4", 8, sound="aac"),
        make_clip(tmp_path / "b.mkv", 8, sound="libopus", subtitles="srt"),
        make_clip(tmp_path / "c.ts", 8, sound="aac", unit=Fraction(1, 90000)),
    ]
    random = np.random.default_rng(5)
    sources = []
    for index in range(18):
        clip = clips[index % 3]
        data = bytearray(clip.read_bytes())
        for position in random.integers(len(data) // 3, len(data), 10):
            data[position] = random.integers(256)
        sources.append(tmp_path / "in" / f"{index:02}{clip.suffix}")
        sources[-1].parent.mkdir(exist_ok=True)
        sources[-1].write_bytes(data[: random.integers(len(data) // 2, len(data) + 1)])
    result = run("video", *sources, "-o", tmp_path / "out", "--weights", still)
    assert result.exit_code == 1
    assert "unexpected" not in result.stderr and "Traceback" not in result.stderr
    outputs = sorted((tmp_path / "out").glob("[0-9]*"))
    assert len(outputs) >= 3
    for path in outputs:
        assert times_of(path)


def test_a_packet_of_sound_that_no_container_takes_costs_itself(
    still: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from esdnet_cli.video import join

    whole = join.copied_packets

    def torn(*rest: Any) -> Any:
        for index, timed in enumerate(whole(*rest)):
            if index == 9:
                timed.packet.dts = timed.packet.pts = 0  # a jump back, which muxers refuse
            yield timed

    monkeypatch.setattr(join, "copied_packets", torn)
    source, target = make_clip(tmp_path / "x.mp4", 12, sound="aac"), tmp_path / "y.mp4"
    result = run("video", source, "-o", target, "--weights", still)
    assert result.exit_code == 1 and "1 packets of sound or subtitles are left out of" in result.stderr
    assert times_of(target) == times_of(source)
    (kept,), (all_of_it,) = packets_of(target, "audio"), packets_of(source, "audio")
    assert [data for *_, data in kept] == [data for index, (*_, data) in enumerate(all_of_it) if index != 9]


def test_bad_inputs_are_one_line_each_and_leave_nothing(still: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    good = make_clip(folder / "good.mp4", 3)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video at all\n" * 100)
    (folder / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{good}\n#EXT-X-ENDLIST\n")
    (folder / "headless.mp4").write_bytes(good.read_bytes()[:200])
    with av.open(str(folder / "sound.mkv"), "w") as container:
        stream = container.add_stream("libopus", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1920), np.int16), format="s16", layout="stereo")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    result = run("video", *sorted(folder.iterdir()), folder / "missing.mp4", "-o", tmp_path / "out", "--weights", still)
    assert result.exit_code == 1
    assert "1 done, 0 skipped, 6 failed" in result.stdout
    for name in ("empty.mp4", "text.mp4", "list.m3u8", "headless.mp4", "sound.mkv", "missing.mp4"):
        lines = [line for line in result.stderr.splitlines() if f"{name}: " in line]
        assert len(lines) == 2, name
    assert "is empty" in result.stderr and "has no video stream" in result.stderr
    assert files(tmp_path / "out") == [JOURNAL, "good.mp4"]


@pytest.mark.parametrize("ending", [".mp4", ".mov"])
def test_a_recording_that_broke_off_without_its_index_is_called_so(
    ending: str, still: Path, tmp_path: Path, run: Run
) -> None:
    data = make_clip(tmp_path / f"whole{ending}", 20, sound="aac").read_bytes()
    index, frames = data.index(b"moov") - 4, data.index(b"mdat") - 4
    endless = data[:frames] + b"\0\0\0\1mdat" + (1 << 33).to_bytes(8)  # as long as the recorder expects to write
    for part in (data[:index], data[: index + 99], data[: index - 99], endless + data[frames + 16 : index]):
        (tmp_path / f"x{ending}").write_bytes(part)
        result = run("video", tmp_path / f"x{ending}", "-o", tmp_path / "y.mkv", "--weights", still)
        assert result.exit_code == 1 and "breaks off before its index" in result.stderr
    (tmp_path / f"x{ending}").write_bytes(data[:frames])
    result = run("video", tmp_path / f"x{ending}", "-o", tmp_path / "y.mkv", "--weights", still)
    assert result.exit_code == 1 and "index" not in result.stderr, "a header alone has nothing to restore"


@pytest.mark.parametrize("where", ["moov", "free"])
def test_the_places_of_a_dash_cam_are_not_left_out_in_silence(
    where: str, still: Path, tmp_path: Path, run: Run
) -> None:
    source = make_clip(tmp_path / "x.mp4", 3)
    command = ("video", source, "-o", tmp_path / "y.mp4", "--weights", still)
    assert "GPS" not in run(*command, "--dry-run").stderr
    data, places = source.read_bytes(), (16).to_bytes(4) + b"gps " + bytes(8)
    index = data.index(b"moov") - 4  # the last box
    within = data[index + 8 :] if where == "moov" else b""
    box = (8 + len(within + places)).to_bytes(4) + where.encode() + within + places
    source.write_bytes(data[:index] + box if where == "moov" else data + box)
    result = run(*command)
    assert result.exit_code == 0 and "x.mp4: left out: the dash-cam's record of its places (GPS)." in result.stderr


@pytest.mark.parametrize("ending, key", [("mp4", "name"), ("mkv", "title")])
def test_a_stream_keeps_its_name_and_a_cover_is_called_so(
    ending: str, key: str, still: Path, tmp_path: Path, run: Run
) -> None:
    source, target = tmp_path / "x.mp4", tmp_path / f"y.{ending}"
    with av.open(str(make_clip(tmp_path / "plain.mp4", 3, sound="aac"))) as old, av.open(str(source), "w") as new:
        copies = [new.add_stream_from_template(stream) for stream in old.streams]
        copies[1].metadata["title"] = "Cabin"
        cover: Any = new.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 16, 16, "yuvj420p", Disposition.attached_pic
        new.mux(cover.encode(av.VideoFrame(16, 16, "yuvj420p")))
        for packet in old.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                new.mux(packet)
    result = run("video", source, "-o", target, "--weights", still)
    assert result.exit_code == 0 and "x.mp4: left out: the cover picture." in result.stderr
    with av.open(str(target)) as container:
        assert container.streams.audio[0].metadata[key] == "Cabin"


def test_disk_full_is_said_and_leaves_nothing_half_written(tiny: Path, tmp_path: Path) -> None:
    noise = make_clip(tmp_path / "x.mkv", 24, codec="ffv1", pix_fmt="gbrp16le", matrix=0, full=True, size=(64, 64))
    limited = ["bash", "-c", 'ulimit -f 100; exec "$@"', "bash"]  # files of at most 100 kB
    command = [*ESDNET, "video", str(noise), "-o", str(tmp_path / "out" / "y.mkv"), "--weights", str(tiny)]
    done = subprocess.run([*limited, *command, "--tile", "0", "--codec", "ffv1"], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "x.mkv: File too large; check" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "y.mkv").exists()
    assert not [name for name in files(tmp_path / "out") if name.endswith((".mkv", ".part"))]


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_disk_that_fills_up_while_joining(ending: str, still: Path, tmp_path: Path, run: Run) -> None:
    source, target = make_clip(tmp_path / "x.mkv", 120, codec="ffv1", size=(96, 64)), tmp_path / "out" / f"y.{ending}"
    options = ["-o", target, "--weights", still, "--codec", "h264", "--crf", "0", "--quiet"]
    command = [*ESDNET, "video", source, *options]
    limited = ["bash", "-c", 'ulimit -f 200; exec "$@"', "bash"]  # files of at most 200 kB: parts, but not the whole
    done = subprocess.run([*limited, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"{source}: File too large; check that it exists, that you have permission, and that the disk is not full"
    ]
    parts = [f".y.{ending}.esdnet-parts/{name}" for name in (*(f"{part:06}.part" for part in range(5)), "job.json")]
    assert files(tmp_path / "out") == parts
    again = run("video", source, *options[:-1])
    assert again.exit_code == 0 and "continuing after 120 frames" in again.stderr
    assert times_of(target) == times_of(source)


def test_reports_have_an_entry_for_each_frame(tiny: Path, tmp_path: Path, run: Run) -> None:
    sources = [make_clip(tmp_path / f"{name}.mp4", 6) for name in "ab"]
    options = ("-o", tmp_path / "out", "--weights", tiny, "--every", "2", "-v", "--overwrite")
    result = run("video", *sources, *options, "--report", tmp_path / "r.json")
    assert result.exit_code == 0, result.stderr
    report = load_json(tmp_path / "r.json")
    assert [(image["input"].rpartition("/")[2], image["frame"], image["time"]) for image in report["images"]] == [
        (f"{name}.mp4#{frame:06}", frame, frame * 0.04) for name in "ab" for frame in (0, 2, 4)
    ]
    for clip, part in zip(report["clips"], (report["images"][:3], report["images"][3:])):
        assert clip["frames"] == 3 and clip["status"] == "ok"
        for key in ("mac", "ac", "energy_mj", "energy_spike_only_mj", "energy_ann_mj", "seconds"):
            assert clip[key] == pytest.approx(sum(image[key] for image in part)), key
        assert clip["tiling_share"] == pytest.approx(part[0]["tiling_share"])
        assert clip["ac"] == sum(layer["ac"] for layer in clip["layers"])
    totals = report["totals"]
    assert totals["ac"] == sum(image["ac"] for image in report["images"]) and totals["ok"] == 2
    assert totals["megapixels"] == pytest.approx(6 * 48 * 32 / 1e6)
    assert "a.mp4 (3 frames)" in result.stdout and "a.mp4#000004" in result.stdout
    assert "The network waited" in result.stdout
    run("video", *sources, *options, "--report", tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["ac"] for row in rows] == [str(image["ac"]) for image in report["images"]]
    assert set(report["images"][0]) - {"layers"} == set(rows[0])
    run("video", *sources, *options, "--report", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "esdnet report: 2 clips" in page and "<dt>Clips</dt><dd>2" in page
    assert '<th scope="col">Clip</th>' in page and "Picture" not in page
    merged = run("energy", "--merge", tmp_path / "r.json")
    assert merged.exit_code == 2 and "r.json: is a report of clips" in merged.stderr


def test_a_terminal_shows_frames_and_the_time_left(tiny: Path, tmp_path: Path) -> None:
    import fcntl
    import pty
    import struct
    import termios

    source = make_clip(tmp_path / "x.ts", 20, unit=Fraction(1, 90000))  # a container that does not know its length
    command = [*ESDNET, "video", str(source), "-o", str(tmp_path / "y.mp4"), "--weights", str(tiny)]
    terminal, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=child, text=True)
    os.close(child)
    shown = os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert done.returncode == 0
    assert "x.ts:   0%" in shown and "0/20 [" in shown and "frame/s" in shown
    assert "20 frames" in done.stdout and "frame/s" not in done.stdout


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The progress bars of this process, as if it had a terminal; each notes (done, of how many) in `seen`."""
    from esdnet_cli.show import clips

    made: list[Any] = []

    class Bar(clips.tqdm):  # type: ignore[misc, name-defined]
        def __init__(self, **options: Any) -> None:
            super().__init__(**{**options, "disable": False, "file": io.StringIO()})
            self.seen: list[tuple[int, int | None]] = []
            made.append(self)

        def update(self, n: float | None = 1) -> bool | None:
            self.seen.append((int(self.n) + 1, self.total))
            return super().update(n)

    monkeypatch.setattr(clips, "tqdm", Bar)
    return made


def test_the_time_left_comes_from_this_run_alone(tiny: Path, tmp_path: Path, run: Run, bars: list[Any]) -> None:
    source, target = make_clip(tmp_path / "x.mp4", 30), tmp_path / "y.mp4"
    _interrupt(source, target, tiny, signal.SIGINT)
    assert run("video", source, "-o", target, "--weights", tiny, "--tile", "0").exit_code == 0
    assert bars[0].initial == 24 and bars[0].seen == [(frame, 30) for frame in range(25, 31)]


@pytest.mark.parametrize("every", [1, 3])
def test_a_length_that_no_header_tells_is_estimated(
    every: int, still: Path, tmp_path: Path, run: Run, bars: list[Any]
) -> None:
    source, target = make_clip(tmp_path / "x.h264", 50), tmp_path / "y.mp4"
    assert run("video", source, "-o", target, "--weights", still, "--every", every).exit_code == 0
    count = -(-50 // every)
    (*_, halfway), (done, total) = bars[0].seen[: count // 2], bars[0].seen[-1]
    assert 0.5 * count < halfway[1] < 2 * count and done == total == count


@pytest.mark.parametrize("name", ["y.mp4", "y.mkv", "y.webm"])
def test_the_rate_that_a_header_tells_is_that_of_the_frames_that_are_left(
    name: str, still: Path, tmp_path: Path, run: Run
) -> None:
    source, target = make_clip(tmp_path / "x.mp4", 12), tmp_path / name
    assert run("video", source, "-o", target, "--weights", still, "--every", 3).exit_code == 0
    with av.open(source) as before, av.open(target) as after:
        rates = [stream.guessed_rate for stream in (before.streams.video[0], after.streams.video[0])]
    assert rates[0] == pytest.approx(3 * rates[1], rel=1e-3)


def test_a_clip_that_failed_has_its_row(still: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "empty.mp4").touch()
    report, torn = tmp_path / "r.csv", make_clip(tmp_path / "torn.mkv", 24, codec="ffv1")
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 8])
    clips = (make_clip(tmp_path / "x.mp4", 2), tmp_path / "empty.mp4", torn)
    assert run("video", *clips, "-o", tmp_path / "out", "--weights", still, "--report", report).exit_code == 1
    with report.open(newline="") as file:
        rows = list(csv.DictReader(file))
    fates = [(Path(row["input"]).name, row["status"], row["frame"]) for row in rows]
    assert fates[:2] == [("x.mp4#000000", "ok", "0"), ("x.mp4#000001", "ok", "1")]
    assert fates[2] == ("torn.mkv#000000", "ok", "0")
    assert fates[-2:] == [("empty.mp4", "failed", ""), ("torn.mkv", "failed", "")]
    assert "of 24 frames are missing" in rows[-1]["error"] and rows[-1]["ac"] == "", "the figures are the frames'"


def test_an_unexpected_error_costs_one_clip(
    still: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from esdnet_cli.show import clips as show

    plan = show.plan_clip

    def broken(derainer: Any, job: Any, *rest: Any) -> Any:
        if job.source.name == "a.mp4":
            raise RuntimeError("driver fell over")
        return plan(derainer, job, *rest)

    clips = [make_clip(tmp_path / f"{name}.mp4", 2) for name in "ab"]
    monkeypatch.setattr(show, "plan_clip", broken)
    result = run("video", *clips, "-o", tmp_path / "out", "--weights", still)
    assert result.exit_code == 1 and "1 done, 0 skipped, 1 failed" in result.stdout
    assert "a.mp4: unexpected RuntimeError: driver fell over; try --device cpu" in result.stderr


@pytest.mark.parametrize("pix_fmt", ["gray", "bgr0", "gbrp16le"])
def test_grey_and_rgb_clips(pix_fmt: str, still: Path, tmp_path: Path, run: Run) -> None:
    matrix = 2 if pix_fmt == "gray" else 0
    source = make_clip(tmp_path / "x.mkv", 3, codec="ffv1", pix_fmt=pix_fmt, matrix=matrix, full=matrix == 0)
    assert run("video", source, "-o", tmp_path / "y.mkv", "--codec", "ffv1", "--weights", still).exit_code == 0
    for ours, theirs in zip(frames_of(tmp_path / "y.mkv"), frames_of(source), strict=True):
        if pix_fmt == "gray":
            ours, colour = ours[: theirs.size], ours[theirs.size :]
            assert (colour == 128).all(), "grey stays grey"
        assert np.abs(ours.astype(int) - theirs).max() <= (1 if pix_fmt == "gray" else 0)


def test_chapters_end_where_the_part_ends(still: Path, tmp_path: Path, run: Run) -> None:
    source = make_clip(tmp_path / "x.mkv", 12, codec="ffv1", chapters=True, unit=MILLISECONDS)
    for end, expected in (("0.1", ["Dry"]), ("0.3", ["Dry", "Wet"])):
        target = tmp_path / f"{end}.mkv"
        assert run("video", source, "-o", target, "--weights", still, "--end", end).exit_code == 0
        with av.open(str(target)) as container:
            chapters = container.chapters()
        assert [chapter["metadata"]["title"] for chapter in chapters] == expected
        assert chapters[-1]["end"] * chapters[-1]["time_base"] == Fraction(end)


def test_streams_keep_their_flags_and_their_last_packet(still: Path, tmp_path: Path, run: Run) -> None:
    plain = make_clip(tmp_path / "plain.mkv", 12, sound="flac+flac", subtitles="srt")
    source, flags = tmp_path / "x.mkv", Disposition.default | Disposition.forced
    with av.open(str(plain)) as origin, av.open(str(source), "w") as copy:
        streams = {stream.index: copy.add_stream_from_template(stream) for stream in origin.streams}
        wanted = [Disposition.default, Disposition(0), flags, flags]  # picture, two sounds, text
        for stream, disposition in zip(streams.values(), wanted, strict=True):
            stream.disposition = disposition
        for packet in origin.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                copy.mux(packet)
    target = tmp_path / "y.mkv"
    assert run("video", source, "-o", target, "--weights", still).exit_code == 0
    with av.open(str(source)) as before, av.open(str(target)) as after:
        kept = [stream.disposition & flags for stream in after.streams]
        assert kept == [stream.disposition & flags for stream in before.streams] == wanted
    for kind in ("audio", "subtitle"):
        for ours, theirs in zip(packets_of(target, kind), packets_of(source, kind), strict=True):
            assert [data for *_, data in ours] == [data for *_, data in theirs]


def test_hevc_in_mp4_is_named_as_apples_players_know_it(still: Path, tmp_path: Path, run: Run) -> None:
    source = make_clip(tmp_path / "x.mp4", 2, (64, 64))
    assert run("video", source, "-o", tmp_path / "y.mp4", "--codec", "hevc", "--weights", still).exit_code == 0
    with av.open(str(tmp_path / "y.mp4")) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"


def test_a_part_of_a_clip_begins_at_the_beginning(still: Path, tmp_path: Path, run: Run) -> None:
    source = make_clip(tmp_path / "x.mkv", 50, codec="ffv1", sound="libopus", chapters=True, unit=MILLISECONDS)
    target = tmp_path / "y.mkv"
    result = run(
        "video", source, "-o", target, "--codec", "ffv1", "--weights", still, "--start", "0:0.4", "--end", "1.2"
    )
    assert result.exit_code == 0, result.stderr
    assert times_of(target) == times_of(source)[:20]
    for ours, theirs in zip(frames_of(target), frames_of(source)[10:30], strict=True):
        assert np.abs(ours.astype(int) - theirs).mean() < 0.5
    (sound,), (whole,) = packets_of(target, "audio"), packets_of(source, "audio")
    assert [data for *_, data in sound] == [data for pts, _, data in whole if pts is not None and 0.4 <= pts < 1.2]
    assert 0 <= sound[0][0] < 0.02  # type: ignore[operator]
    assert facts(target)["chapters"] == [(0, Fraction(2, 25), {"title": "Wet"})]
    beyond = run("video", source, "-o", tmp_path / "z.mkv", "--weights", still, "--start", "10")
    assert beyond.exit_code == 1 and "no frame between --start and --end" in beyond.stderr
    assert not (tmp_path / "z.mkv").exists()


@pytest.mark.parametrize("name", ["y.mp4", "y.mkv"])
@pytest.mark.parametrize("frames, every", [(3, 1), (6, 1), (6, 2), (7, 4)])
def test_the_last_picture_of_a_slide_show_stands_as_long(
    frames: int, every: int, name: str, still: Path, tmp_path: Path, run: Run
) -> None:
    first, *others = (Image.fromarray(scene(frame, 48, 64)) for frame in range(frames))
    source = tmp_path / "x.gif"
    first.save(source, save_all=True, append_images=others, duration=[100] * (frames - 1) + [2000])
    target = tmp_path / name
    assert run("video", source, "-o", target, "--weights", still, "--every", every).exit_code == 0
    assert times_of(target) == [Fraction(frame, 10) for frame in range(0, frames, every)]
    assert length_of(target) == pytest.approx(0.1 * (frames - 1) + 2, abs=0.002)
    for again in ("z.mp4", "z.mkv"):
        assert run("video", target, "-o", tmp_path / again, "--weights", still).exit_code == 0
        assert length_of(tmp_path / again) == pytest.approx(0.1 * (frames - 1) + 2, abs=0.002)


def test_lengths_in_mp4_are_those_of_frames_as_they_are_shown(still: Path, tmp_path: Path, run: Run) -> None:
    times = [0, 33, 66, 500, 533, 566, 600, 633, 666, 2000, 2033, 2066, 2100, 2133, 2166]
    source = make_clip(tmp_path / "x.mp4", unit=MILLISECONDS, times=times, options={"bf": "3"})
    for name in ("y.mp4", "y.mkv"):
        assert run("video", source, "-o", tmp_path / name, "--weights", still).exit_code == 0
        assert length_of(tmp_path / name) == pytest.approx(length_of(source), abs=0.002)


@pytest.mark.parametrize(
    "start, end, times",
    [
        ("0.1", "1", [0, 400, 433, 466]),
        ("0.1", "0.4", [0]),
        ("0.6", "0.9", [0]),
        ("1.9", None, [0, 100]),
        ("0.033", "0.1", [0, 33]),
        ("slow 3", None, [0, 2000, 7000, 12000]),
        ("slow 3", "4", [0]),
        ("slow 12", "13", [0]),
    ],
)
def test_a_part_begins_with_what_stands_there(
    start: str, end: str | None, times: list[int], still: Path, tmp_path: Path, run: Run
) -> None:
    shown = [0, 33, 66, 500, 533, 566, 2000]
    if start.startswith("slow "):
        start, shown = start.removeprefix("slow "), [0, 5000, 10000, 15000]
    source = make_clip(tmp_path / "x.mkv", codec="ffv1", sound="libopus", unit=MILLISECONDS, times=shown)
    target = tmp_path / "y.mkv"
    until = ("--end", end) if end else ()
    assert run("video", source, "-o", target, "--weights", still, "--start", start, *until).exit_code == 0
    assert [round(1000 * time) for time in times_of(target)] == times
    (sound,) = packets_of(target, "audio")
    assert 0 <= sound[0][0] < 0.02  # type: ignore[operator]


@pytest.mark.parametrize(
    "selection, code", [(("--start", "0.5"), 1), (("--end", "2"), 1), (("--start", "0.5", "--end", "0.9"), 0)]
)
def test_what_a_file_that_breaks_off_lacks_of_a_part_is_said(
    selection: tuple[str, ...], code: int, still: Path, tmp_path: Path, run: Run
) -> None:
    source = make_clip(tmp_path / "x.mkv", 60, codec="ffv1", declared=60)
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 6 // 10])
    result = run("video", source, "-o", tmp_path / "y.mkv", "--weights", still, *selection)
    assert result.exit_code == code and ("truncated or damaged" in result.stderr) == bool(code), result.stderr


def test_cues_end_with_the_part(still: Path, tmp_path: Path, run: Run) -> None:
    cue = b"1\n00:00:00,100 --> 00:00:09,000\nRain\n\n"
    source = make_clip(tmp_path / "x.mkv", 50, codec="ffv1", subtitles=cue)
    for name in ("y.mkv", "y.mp4"):
        options = ("--weights", still, "--start", "0.4", "--end", "1")
        assert run("video", source, "-o", tmp_path / name, *options).exit_code == 0
        assert length_of(tmp_path / name) == pytest.approx(0.6, abs=0.05)


def test_a_pixel_aspect_that_is_lost_is_said(still: Path, tmp_path: Path, run: Run) -> None:
    source = make_clip(tmp_path / "x.mp4", 2, aspect=Fraction(16, 11))
    said = run("video", source, "-o", tmp_path / "y.webm", "--weights", still).stderr
    assert "its pixel aspect 16/11 is left out" in said
    for name in ("y.mp4", "y.mkv"):
        assert "aspect" not in run("video", source, "-o", tmp_path / name, "--weights", still).stderr
        assert facts(tmp_path / name)["aspect"] == Fraction(16, 11)


def test_grey_png_is_a_clip_too(still: Path, tmp_path: Path, run: Run) -> None:
    first, *others = (Image.fromarray(scene(frame, 48, 64)).convert("L") for frame in range(3))
    first.save(tmp_path / "x.apng", save_all=True, append_images=others, duration=40)
    target = tmp_path / "y.mkv"
    assert run("video", tmp_path / "x.apng", "-o", target, "--codec", "ffv1", "--weights", still).exit_code == 0
    with av.open(str(target)) as container:
        shown = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    assert np.abs(shown[0].astype(int) - np.asarray(first)).mean() < 1


def test_an_animated_webp_is_refused_with_a_way_out(still: Path, tmp_path: Path, run: Run) -> None:
    first, *others = (Image.fromarray(scene(frame, 48, 64)) for frame in range(3))
    first.save(tmp_path / "x.webp", save_all=True, append_images=others)
    refused = run("video", tmp_path / "x.webp", "-o", tmp_path / "y.mp4", "--weights", still)
    assert refused.exit_code == 1 and "is an animated WebP, which FFmpeg does not decode" in refused.stderr


@pytest.mark.parametrize("start, end", [(None, None), ("0.4", "0.8")])
def test_the_clock_of_a_broadcast_begins_anew(
    start: str | None, end: str | None, still: Path, tmp_path: Path, run: Run
) -> None:
    source = make_clip(tmp_path / "x.ts", 30, unit=Fraction(1, 90000), sound="mp2", offset=20_000)
    target = tmp_path / "y.mp4"
    selection = ("--start", start, "--end", end) if start and end else ()
    assert run("video", source, "-o", target, "--weights", still, *selection).exit_code == 0
    times, (sound,) = times_of(source), packets_of(source, "audio")
    begins = min(times[0], *(pts for pts, *_ in sound))
    assert 19_999 < begins < times[0], "the encoder of the sound begins early"
    first, last = (times[0] + Fraction(start), times[0] + Fraction(end)) if start and end else (begins, times[-1] + 1)
    shift = begins + (first - times[0] if start else 0)
    shown = [pts - shift for pts in times if first <= pts < last]
    for ours, theirs in zip(times_of(target), shown, strict=True):
        assert abs(ours - theirs) < MILLISECONDS, "as precise as an mp4's edit list"
    heard = [(pts - shift, data) for pts, _, data in sound if first <= pts < last]
    for (ours, _, data), (theirs, packet) in zip(packets_of(target, "audio")[0], heard, strict=True):
        assert data == packet and abs(ours - theirs) < MILLISECONDS


def piece_of_a_stream(path: Path, offset: int) -> Path:
    """A clip, as joined from the init segment and later ones of a stream: by so many seconds its clock is late."""
    sound = {".mp4": "aac", ".webm": "libopus"}[path.suffix]
    if path.suffix == ".webm":
        return make_clip(path, codec="libvpx", unit=MILLISECONDS, sound=sound, offset=offset)
    make_clip(path, 30, sound=sound, muxer={"movflags": "frag_keyframe+empty_moov"})
    data, place = bytearray(path.read_bytes()), 0
    while (place := data.find(b"tfdt", place + 1)) > 0:
        (track,) = struct.unpack_from(">I", data, data.rfind(b"tfhd", 0, place) + 8)
        (begins,) = struct.unpack_from(">Q", data, place + 8)
        struct.pack_into(">Q", data, place + 8, begins + offset * (12800 if track == 1 else 48000))
    path.write_bytes(data)
    return path


def test_fragments_behind_a_damage_are_missed(still: Path, tmp_path: Path, run: Run) -> None:
    source = make_clip(tmp_path / "x.mp4", 12, muxer={"movflags": "frag_every_frame+empty_moov"})
    data = bytearray(source.read_bytes())
    place = len(data) // 2
    place = data.index(b"mdat", data.index(b"moof", place))
    data[place - 4 : place + 4] = bytes(8)
    (tmp_path / "damaged.mp4").write_bytes(data)
    result = run("video", tmp_path / "damaged.mp4", "-o", tmp_path / "y.mp4", "--weights", still)
    assert result.exit_code == 1 and re.search(r"about \d of \d+ frames are missing", result.stderr), result.stderr
    assert 2 < len(times_of(tmp_path / "y.mp4")) < 10
    whole = run("video", source, "-o", tmp_path / "z.mp4", "--weights", still)
    assert whole.exit_code == 0 and len(times_of(tmp_path / "z.mp4")) == 12, whole.stderr


@pytest.mark.parametrize("name", ["x.mp4", "x.webm"])
@pytest.mark.parametrize("offset", [0, 7200, 1_700_000_000])
def test_a_piece_of_a_stream_is_whole_and_begins_anew(
    name: str, offset: int, still: Path, tmp_path: Path, run: Run
) -> None:
    source, target = piece_of_a_stream(tmp_path / name, offset), tmp_path / "y.mp4"
    result = run("video", source, "-o", target, "--weights", still)
    assert result.exit_code == 0, result.stderr
    times, (sound,), (heard,) = times_of(source), packets_of(source, "audio"), packets_of(target, "audio")
    assert times[0] >= offset
    shifts = [theirs - ours for ours, theirs in zip(times_of(target), times, strict=True)]
    shifts.append((sound[0][0] or 0) - (heard[0][0] or 0))
    assert max(shifts) - min(shifts) < MILLISECONDS, "all streams alike"
    assert abs(min(shifts[0] - offset, times[0] - shifts[0])) < Fraction(1, 10) and (offset or not shifts[0])


@pytest.mark.parametrize("rotation, size", [(None, (96, 32)), (90, (48, 64))])
def test_compare_stands_side_by_side_as_shown(
    rotation: int | None, size: tuple[int, int], tiny: Path, tmp_path: Path, run: Run
) -> None:
    source = make_clip(tmp_path / "x.mkv", 4, codec="ffv1", rotation=rotation)
    both, alone = tmp_path / "both.mkv", tmp_path / "alone.mkv"
    options = ("--codec", "ffv1", "--weights", tiny)
    assert run("video", source, "-o", both, *options, "--compare").exit_code == 0
    assert run("video", source, "-o", alone, *options).exit_code == 0
    assert facts(both)["size"] == size

    def shown(path: Path) -> list[Any]:
        with av.open(str(path)) as container:
            return [np.rot90(f.to_ndarray(format="rgb24"), (rotation or 0) // 90) for f in container.decode(video=0)]

    for pair, before, after in zip(shown(both), shown(source), shown(alone), strict=True):
        left, right = np.hsplit(pair, 2)
        assert np.abs(left.astype(int) - before).mean() < 3 and np.abs(right.astype(int) - after).mean() < 3


def test_a_folder_of_numbered_frames(tiny: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "in"
    for number in (1, 2, 5, 10, 11):
        write(folder / f"frame-{number}.png", scene(number, 32, 48))
    result = run("video", folder, "-o", tmp_path / "out", "--weights", tiny, "--tile", "0")
    assert result.exit_code == 0, result.stderr
    assert files(tmp_path / "out") == [JOURNAL, *sorted(path.name for path in folder.iterdir())]
    rows = [line.rpartition("-")[2] for line in result.stdout.splitlines() if "frame-" in line]
    assert rows == ["1.png", "2.png", "5.png", "10.png", "11.png"]
    assert run("images", folder, "-o", tmp_path / "images", "--weights", tiny, "--tile", "0").exit_code == 0
    for name in files(tmp_path / "images")[1:]:
        assert (tmp_path / "images" / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name


def test_what_lies_beside_frames_is_said(tiny: Path, tmp_path: Path, run: Run) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    for name in ("2", "10", "cover"):
        write(folder / f"{name}.png", scene(1, 32, 48))
    make_clip(folder / "x.mp4", 2)
    for extra in ("--dry-run", "--verbose"):
        result = run("video", folder, "-o", out, "--weights", tiny, "--tile", "0", extra)
        assert result.exit_code == 0 and "Not read: 1 clip (.mp4)" in result.stderr
        assert "Left out, without a number among numbered frames: " in result.stderr and "cover.png." in result.stderr
    assert files(out) == [JOURNAL, "10.png", "2.png"]
    for name in ("2.png", "10.png", "x.mp4"):
        (folder / name).unlink()
    assert run("video", folder, "-o", out, "--weights", tiny, "--tile", "0").exit_code == 0
    assert "cover.png" in files(out), "no frame has a number"


def test_frames_smoothed_compared_and_resumed(tiny: Path, tmp_path: Path, run: Run) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    for number in range(6):
        write(folder / f"{number:03}.png", scene(number, 32, 48))
    command = ("video", folder, "-o", out, "--weights", tiny, "--tile", "0", "--deflicker", "--compare", "--every", "2")
    assert run(*command).exit_code == 0
    assert files(out) == [JOURNAL, "000.png", "002.png", "004.png"]
    assert read(out / "002.png").shape == (32, 96, 3)
    np.testing.assert_array_equal(read(out / "002.png")[:, :48], read(folder / "002.png"))
    before = (out / "004.png").read_bytes()
    (out / "004.png").unlink()
    assert "1 done, 2 skipped, 0 failed" in run(*command).stdout
    assert (out / "004.png").read_bytes() == before


USAGE = {
    "no container": (("x.mp4", "-o", "y.xyz"), "cannot write .xyz; use .mp4"),
    "no ending": (("x.mp4", "-o", "y"), "it has no file extension"),
    "standard input": (("-", "-o", "y.mp4"), "clips do not go through standard input and output; name files"),
    "standard output": (("x.mp4", "-o", "-"), "clips do not go through standard input and output; name files"),
    "a new folder for one": (("x*.mp4", "-o", "out/"), "if it shall be a folder, make it first"),
    "over the input": (("x.mp4", "-o", "x.mp4"), "would be written over an input"),
    "one name": (("x.mp4", "sub/x.mp4", "-o", "out"), "would both become"),
    "time": (("x.mp4", "-o", "y.mp4", "--start", "soon"), "'soon' is not a valid time"),
    "order": (("x.mp4", "-o", "y.mp4", "--start", "2", "--end", "1"), "--start must come before --end"),
    "quality": (("x.mp4", "-o", "y.mp4", "--crf", "70"), "70 is out of range; use 0 to 51 for h264"),
    "quality of VP9": (("x.mp4", "-o", "y.webm", "--crf", "70"), "70 is out of range; use 0 to 63 for vp9"),
    "lossless": (("x.mp4", "-o", "y.mkv", "--codec", "ffv1", "--crf", "5"), "--crf does not go with ffv1"),
    "frames": (("sub", "-o", "out", "--codec", "vp9"), "--codec does not go with a folder of frames"),
    "frames into a clip": (("sub", "-o", "y.mp4"), "becomes a folder of frames, not a clip; name a folder"),
    "clips into a clip": (("x.mp4", "sub/x.mp4", "-o", "y.mp4"), "several clips become several clips; name a folder"),
    "folder of clips": (("sub", "-o", "out"), "a folder is taken as numbered frames; name the clips"),
    "folder beside a clip": (("sub", "x.mp4", "-o", "out"), "is a folder of frames; give it as the only input"),
}


@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage_is_one_line_and_code_2(
    case: str, still: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clip(tmp_path / "x.mp4", 2)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.mp4").write_bytes((tmp_path / "x.mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    arguments, message = USAGE[case]
    result = run("video", *arguments, "--weights", still)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1] and result.stdout == ""
    assert files(tmp_path) == before


def test_a_clip_named_twice_is_derained_once(still: Path, tmp_path: Path, run: Run) -> None:
    source = make_clip(tmp_path / "x.mp4", 2)
    result = run("video", source, os.path.relpath(source), "-o", tmp_path / "out", "--weights", still)
    assert result.exit_code == 0 and "1 done, 0 skipped, 0 failed" in result.stdout


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_a_pipe_is_not_called_missing(still: Path, tmp_path: Path, run: Run) -> None:
    os.mkfifo(tmp_path / "x.mp4")
    result = run("video", tmp_path / "x.mp4", "-o", tmp_path / "y.mp4", "--weights", still)
    assert result.exit_code == 1 and "x.mp4: is no ordinary file" in result.stderr


def test_an_empty_folder_of_frames_is_told_of_no_option_that_is_not_there(
    still: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "in").mkdir()
    result = run("video", tmp_path / "in", "-o", tmp_path / "out", "--weights", still)
    assert result.exit_code == 1 and "in: no pictures in this folder; name another" in result.stderr


def test_where_nothing_was_computed_nothing_is_summed_up(still: Path, tmp_path: Path, run: Run) -> None:
    result = run("video", tmp_path / "nosuch.mp4", "-o", tmp_path / "y.mp4", "--weights", still)
    assert result.exit_code == 1 and result.stdout == "" and len(result.stderr.splitlines()) == 1
    (tmp_path / "x.mp4").write_bytes(b"no clip")
    result = run("video", tmp_path / "x.mp4", "-o", tmp_path / "y.mp4", "--weights", still)
    assert result.exit_code == 1 and "Energy is estimated" not in result.stderr


@pytest.mark.parametrize("ending", ["mov", "mp4"])
def test_a_timecode_that_is_written_anew_is_not_called_left_out(
    ending: str, still: Path, tmp_path: Path, run: Run
) -> None:
    source, target = tmp_path / "x.mov", tmp_path / f"y.{ending}"
    make_clip(source, 2, tags_of_file={"timecode": "01:02:03:04"})
    result = run("video", source, "-o", target, "--weights", still)
    assert result.exit_code == 0 and "a data stream" not in result.stderr
    with av.open(str(target)) as container:
        assert container.streams.video[0].metadata["timecode"] == "01:02:03:04"
    result = run("video", source, "-o", tmp_path / "y.mkv", "--weights", still)
    assert "left out: a data stream" in result.stderr


def test_an_opaque_gif_is_not_called_transparent(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "x.gif"), "w") as target:
        stream: Any = target.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "rgb8"
        for index in range(2):
            target.mux(stream.encode(av.VideoFrame.from_ndarray(scene(index, 32, 48), "rgb24").reformat(format="rgb8")))
        target.mux(stream.encode(None))
    assert not read_info(tmp_path / "x.gif").alpha


def test_a_codec_that_does_not_fit_is_said_before_the_work(still: Path, tmp_path: Path, run: Run) -> None:
    source = make_clip(tmp_path / "x.mkv", 3, subtitles="srt")
    result = run("video", source, "-o", tmp_path / "y.webm", "--codec", "h264", "--weights", still)
    assert result.exit_code == 1 and "libx264 does not fit into .webm" in result.stderr
    result = run("video", source, "-o", tmp_path / "y.mkv", "--codec", "h264", "--crf", "60", "--weights", still)
    assert result.exit_code == 1 and "x.mkv: --crf 60 is too high for h264; use 0 to 51" in result.stderr
    result = run("video", source, "-o", tmp_path / "y.mkv", "--codec", "av1", "--crf", "0", "--weights", still)
    assert result.exit_code == 1 and "x.mkv: --crf 0 is too low for av1; use 1 to 63" in result.stderr
    assert files(tmp_path) == ["weights/identity.safetensors", "x.mkv"]
