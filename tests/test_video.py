"""What clips are made of: colours, times, parts, motion."""

from __future__ import annotations

import io
import os
import struct
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import make_clip, times_of
from conftest import Run, photo, write
from numpy.typing import NDArray

from esdnet_cli.energy.cost import Activity, LayerActivity
from esdnet_cli.errors import PictureError
from esdnet_cli.pipeline.boxes import holds_places, lacks_index
from esdnet_cli.pipeline.images import read_picture
from esdnet_cli.pipeline.journal import Journal
from esdnet_cli.pipeline.sources import Job, Source
from esdnet_cli.video.deflicker import Deflicker
from esdnet_cli.video.encoder import EncodedPacket, Segment, SegmentEncoder, choose_encoding, reordering
from esdnet_cli.video.flicker import WarpingError
from esdnet_cli.video.flow import flow, warp
from esdnet_cli.video.frames import FrameOutput, in_order, unsmoothed
from esdnet_cli.video.info import read_info
from esdnet_cli.video.parts import ActivitySum, FrameRecord, Part, Parts, counts_of, with_counts, without_counts
from esdnet_cli.video.reader import Frames, Selection

WEIGHTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}  # of red and blue, H.273


def expected_rgb(yuv: tuple[int, int, int], matrix: int, full: bool, bits: int) -> NDArray[Any]:
    """Colour in [0, 1] by ITU-T H.273's equations, written out again."""
    red, blue = WEIGHTS[matrix]
    scale = 2 ** (bits - 8)
    y, u, v = yuv
    if full:
        peak = 2**bits - 1
        luma, cb, cr = y / peak, (u - 128 * scale) / peak, (v - 128 * scale) / peak
    else:
        luma, cb, cr = (y / scale - 16) / 219, (u / scale - 128) / 224, (v / scale - 128) / 224
    r, b = luma + 2 * (1 - red) * cr, luma + 2 * (1 - blue) * cb
    return np.array([r, (luma - red * r - blue * b) / (1 - red - blue), b])


@pytest.mark.parametrize(
    "matrix, full, pix_fmt, size",
    [
        (1, False, "yuv420p", (48, 32)), (6, False, "yuv420p", (48, 32)), (7, False, "yuv444p", (48, 32)),
        (9, False, "yuv420p10le", (48, 32)), (1, True, "yuv420p", (48, 32)), (6, True, "yuv422p", (47, 33)),
    ],
)  # fmt: skip
def test_colours_follow_the_tagged_matrix_and_range(
    matrix: int, full: bool, pix_fmt: str, size: tuple[int, int], tmp_path: Path
) -> None:
    bits = 10 if pix_fmt.endswith("10le") else 8
    yuv = tuple(value * 2 ** (bits - 8) for value in (120, 100, 150))
    path = make_clip(tmp_path / "x.mkv", 2, size, "ffv1", pix_fmt, matrix=matrix, full=full, fill=yuv)
    info = read_info(path)
    assert (info.colour.matrix, info.colour.full, info.depth) == (matrix, full, bits)
    first = next(iter(Frames(path, info, Selection(), 0))).rgb
    assert first.dtype == (np.uint8 if bits == 8 else np.uint16) and first.shape == (size[1], size[0], 3)
    error = np.abs(first / np.iinfo(first.dtype).max - expected_rgb(yuv, matrix, full, bits)).max()  # type: ignore[arg-type]
    assert error * 255 < 1, f"off by {255 * error:.2f} levels"


@pytest.mark.parametrize("size, matrix", [((64, 576), 6), ((64, 720), 1), ((1278, 32), 6), ((1280, 32), 1)])
def test_untagged_video_is_taken_as_players_take_it(size: tuple[int, int], matrix: int, tmp_path: Path) -> None:
    info = read_info(make_clip(tmp_path / "x.mkv", 1, size, "ffv1"))
    assert info.colour.matrix == matrix
    encoding, _ = choose_encoding(info, "h264", None, info.width, info.height, 24)
    assert encoding.matrix == matrix


def test_a_matrix_that_is_no_matrix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="has the colour matrix 8"):
        read_info(make_clip(tmp_path / "x.mkv", 1, matrix=8, fill=(100, 100, 100)))


def test_segments_stand_alone_and_begin_with_a_key_frame(tmp_path: Path) -> None:
    info = read_info(make_clip(tmp_path / "x.mp4", 2))
    encoding, _ = choose_encoding(info, "h264", None, 48, 32, 24)
    encoder = SegmentEncoder(encoding)
    for index in range(12):
        encoder.add(pan(2 * index, 4, 32, 48), 100 + 512 * index, 512)
    encoder.finish()
    assert [packet.key for packet in encoder.packets] == [True] + [False] * 11
    times = [packet.pts for packet in encoder.packets]
    assert sorted(times) == [100 + 512 * index for index in range(12)] and times != sorted(times)
    delay = reordering(times)
    for place, pts in enumerate(times):
        assert place < delay or sorted(times)[place - delay] <= pts, "no packet is decoded after it is shown"


def test_the_header_of_hevc_does_not_name_the_machine(tmp_path: Path) -> None:
    info = read_info(make_clip(tmp_path / "x.mkv", 1, (64, 64), "ffv1"))
    header = SegmentEncoder(choose_encoding(info, "hevc", None, 64, 64, 24)[0]).extradata
    assert header and b"cpuid" not in header and b"frame-threads" not in header


def test_reordering_counts_places() -> None:
    assert reordering([0, 1, 2]) == 0
    assert reordering([0, 4, 2, 1, 3]) == 2
    assert reordering([]) == 0


def test_selections_take_frames_by_their_times(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "x.mp4", 50)
    info = read_info(path)
    whole = times_of(path)

    def taken(start: str | None, end: str | None, every: int, skip: int = 0) -> list[Fraction]:
        selection = Selection(start and Fraction(start), end and Fraction(end), every)  # type: ignore[arg-type]
        frames = list(Frames(path, info, selection, skip))
        if not skip:
            assert selection.expected(info) == len(frames)
        return [frame.pts * info.time_base for frame in frames]

    assert info.expected == 50 and taken(None, None, 1) == whole
    assert taken("0.4", "0.8", 1) == whole[10:20]
    assert taken("1.9", None, 1) == whole[48:]
    assert taken(None, None, 20) == whole[::20]
    assert taken("0.4", None, 3, skip=2) == whole[10::3][2:]


@pytest.mark.parametrize("name", ["x.ts", "x.h264"])
def test_a_start_that_a_container_cannot_seek_to_loses_no_frame(name: str, tmp_path: Path) -> None:
    path = make_clip(tmp_path / name, 24, unit=Fraction(1, 90000))
    info = read_info(path)
    for start, left in (("0.1", 21), ("0.5", 11), ("0.9", 1)):
        frames = list(Frames(path, info, Selection(Fraction(start)), 0))
        assert len(frames) == left
        assert (frames[0].pts - info.first) * info.time_base == Fraction(24 - left, 25)


def missing(path: Path) -> tuple[int, int]:
    """How many frames come, and how many are said not to."""
    frames = Frames(path, read_info(path), Selection(), 0)
    return len(list(frames)), frames.missing()


@pytest.mark.parametrize("first, shown", [(0, 20), (7, 20), (7, 33)])
def test_what_an_edit_list_hides_is_not_missing(first: int, shown: int, tmp_path: Path) -> None:
    path = make_clip(tmp_path / "x.mp4", 40)
    data = bytearray(path.read_bytes())
    entry = data.find(b"elst") + 12  # duration in milliseconds, first pts
    duration, pts = struct.unpack_from(">Ii", data, entry)
    struct.pack_into(">Ii", data, entry, duration * shown // 40, pts + first * 512)
    path.write_bytes(data)
    assert read_info(path).expected == shown
    assert missing(path) == (shown, 0)


def test_counts_that_the_times_belie_are_not_believed(tmp_path: Path) -> None:
    kept = [index for index in range(24) if index not in (5, 6, 7, 15)]
    dropped = make_clip(tmp_path / "x.avi", codec="mjpeg", pix_fmt="yuvj420p", unit=Fraction(1, 25), times=kept)
    assert read_info(dropped).frames == 24, "the header counts what was dropped"
    assert missing(dropped) == (20, 0)
    thirds = make_clip(
        tmp_path / "y.avi", codec="mjpeg", pix_fmt="yuvj420p", unit=Fraction(1, 25), times=range(0, 60, 3)
    )
    part = Frames(thirds, read_info(thirds), Selection(Fraction(1, 2)), 0)
    assert len(list(part)) == 16 and part.missing() == 0, "places after the last one are empty, too"
    stale = make_clip(tmp_path / "x.mkv", 12, declared=99)
    assert read_info(stale).frames == 99
    assert missing(stale) == (12, 0)


def test_an_avi_that_breaks_off_lacks_what_its_header_counts(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "x.avi", 50, codec="mjpeg", pix_fmt="yuvj420p", unit=Fraction(1, 25), sound="pcm_s16le")
    assert missing(path) == (50, 0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    came, lost = missing(path)
    assert 25 < came < 35 and came + lost == 50


@pytest.mark.parametrize("step", [40, 400])
def test_packets_without_decoding_times_have_their_place(step: int, tmp_path: Path) -> None:
    path = make_clip(tmp_path / "x.mkv", unit=Fraction(1, 1000), times=[0, step, 2 * step])
    with av.open(str(path)) as container:
        assert all(packet.dts is None for packet in container.demux())
    assert missing(path) == (3, 0)


def test_bytes_that_a_broadcast_lacks_are_missed_and_joints_are_not(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "x.ts", 60, unit=Fraction(1, 90000), sound="mp2")
    data = path.read_bytes()
    with av.open(str(path)) as container:
        begins = [packet.pos for packet in container.demux(video=0) if packet.size]
    path.write_bytes(data[: begins[23]] + data[begins[27] :])  # no key frame: what follows decodes without an error
    came, lost = missing(path)
    assert came < 60 and came + lost in range(59, 62)
    halves = [make_clip(tmp_path / f"{part}.ts", 30, unit=Fraction(1, 90000), offset=1.2 * part) for part in (0, 1)]
    path.write_bytes(b"".join(half.read_bytes() for half in halves))
    assert missing(path) == (60, 0), "their counters begin anew, their clock goes on"
    path.write_bytes(data * 2)
    assert missing(path) == (120, 0)


@pytest.mark.parametrize("zeros", [True, False])
def test_bytes_that_a_demuxer_passes_over_are_missed(zeros: bool, tmp_path: Path) -> None:
    path = make_clip(tmp_path / "x.mkv", 60, (64, 48), "ffv1", unit=Fraction(1, 1000), sound="libopus")
    assert missing(path) == (60, 0)
    data = path.read_bytes()
    begin, end = len(data) * 2 // 5, len(data) // 2  # what follows is found again, and no packet is broken
    path.write_bytes(data[:begin] + bytes(end - begin if zeros else 0) + data[end:])
    came, lost = missing(path)
    assert came < 55 and came + lost == 60


def test_what_makes_pixels_transparent_is_no_missing_bytes(tmp_path: Path) -> None:
    path, random = tmp_path / "x.webm", np.random.default_rng(0)
    with av.open(str(path), "w") as target:
        stream: Any = target.add_stream("libvpx-vp9", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuva420p"
        for pts in (0, 1, 2, 50, 51, 125):  # pauses, as a phone makes them
            grain = random.integers(0, 256, (64, 96, 4), np.uint8)
            frame = av.VideoFrame.from_ndarray(grain, "rgba").reformat(format="yuva420p")
            frame.pts, frame.time_base = pts, Fraction(1, 25)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    assert missing(path) == (6, 0)


def test_frames_lost_with_a_damaged_one_are_counted(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "x.mp4", 40)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for position, size in packets[20:23]:  # a key frame, on which more depend, is among them
        data[position : position + size] = bytes(size)
    path.write_bytes(data)
    decoded, lost = missing(path)
    assert decoded + lost == 40 and lost > 3


def test_frames_are_turned_upright(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "x.mp4", 2, rotation=90)
    info = read_info(path)
    assert (info.orientation.transposed, info.upright, info.width) == (True, (32, 48), 48)
    upright = next(iter(Frames(path, info, Selection(), 0))).rgb
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    right, wrong = (np.abs(np.rot90(stored, turns).astype(int) - upright).mean() for turns in (1, 3))
    assert right < 10 < wrong, "FFmpeg's angle is counterclockwise"


def test_parts_are_whole_or_not_there(tmp_path: Path) -> None:
    layers = (
        LayerActivity("a", "neuron", "membrane updates", spikes=3, neurons=9, mac=2),
        LayerActivity("b", "conv", "spike-driven convolutions", ac=5, nonzero=3),
    )
    activity = Activity(4, layers)
    part = Part(
        Segment(b"head", [EncodedPacket(0, 1, True, b"abc"), EncodedPacket(1, 1, False, b"de")]),
        [FrameRecord(0, 0, 0.5, counts_of(activity)), FrameRecord(1, 1, 0.25, counts_of(activity))],
        without_counts(activity),
        b"state",
    )
    parts = Parts(tmp_path / "x.mp4", {"source": "1"})
    assert parts.begin()
    for index in range(3):
        parts.write(index, part)
    assert list(parts.read()) == [part] * 3
    (frame, _) = next(parts.read()).frames
    assert with_counts(part.activity, frame.counts) == activity
    path = parts.folder / "000001.part"
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    assert list(parts.read()) == [part], "what comes after a damaged part is made again"
    assert not Parts(tmp_path / "x.mp4", {"source": "2"}).begin() and list(parts.read()) == []


def test_parts_of_two_runs_are_never_mixed(tmp_path: Path) -> None:
    part = Part(
        Segment(b"head", [EncodedPacket(0, 1, True, b"abc")]), [FrameRecord(0, 0, 0.5, [])], Activity(4, ()), b""
    )
    first, second = (Parts(tmp_path / "x.mp4", {"weights": name}) for name in ("small", "tiny"))
    assert first.begin() and first.begin(), "nothing had to go yet"
    first.write(0, part)
    late = (first.folder / "000000.part").read_bytes()
    assert not second.begin()
    with pytest.raises(PictureError, match="another run with other options is making this output now"):
        first.write(1, part)
    (second.folder / "000000.part").write_bytes(late)  # the first run looked before the second began
    assert list(second.read()) == []
    second.write(0, part)
    assert list(second.read()) == [part]


def test_the_activity_of_a_clip_is_the_sum_of_its_frames() -> None:
    frames = [
        Activity(4, (LayerActivity("a", "neuron", "membrane updates", spikes=n, neurons=9, mac=2, ac=n * n),))
        for n in range(5)
    ]
    total = ActivitySum()
    assert total.total() is None
    for frame in frames:
        total.add(without_counts(frame), counts_of(frame))
    assert total.total() == Activity(
        4, (LayerActivity("a", "neuron", "membrane updates", spikes=10, neurons=45, mac=10, ac=30),)
    )


def pan(offset: int, noise: int = 0, height: int = 64, width: int = 96) -> NDArray[np.uint8]:
    """A window on a textured wall, `offset` pixels to the right, with noise of its own."""
    random = np.random.default_rng(3)
    wall = np.kron(random.integers(40, 216, (16, 60, 3)), np.ones((8, 8, 1)))[:height, offset : offset + width]
    grain = np.random.default_rng(offset + 99).normal(0, noise, wall.shape) if noise else 0
    return np.clip(wall + grain, 0, 255).astype(np.uint8)


def test_flow_leads_to_where_a_pixel_was() -> None:
    offsets = flow(pan(4), pan(0))
    assert np.median(offsets[..., 0]) == pytest.approx(4, abs=0.3) and abs(np.median(offsets[..., 1])) < 0.3
    inner = np.abs(warp(pan(0), offsets) - pan(4))[8:-8, 8:-12]
    assert inner.mean() < 4 < np.abs(pan(0).astype(int) - pan(4)).mean()


def test_deflicker_steadies_and_does_not_smear() -> None:
    clean, noisy = [pan(3 * i) for i in range(8)], [pan(3 * i, noise=8) for i in range(8)]
    smooth = Deflicker()
    steady = [smooth(frame) for frame in noisy]
    error = WarpingError(3)
    for frames in zip(clean, noisy, steady, clean):
        error.add(frames[0], list(frames[1:]))
    assert error.means is not None
    before, after, floor = error.means
    assert after < 0.6 * before and floor < after
    distances = [np.square(frames[-1].astype(float) - clean[-1]).mean() for frames in (noisy, steady)]
    assert distances[1] < distances[0], "nearer to the truth, too"
    assert np.array_equal(steady[0], noisy[0])


def test_deflicker_stops_at_a_cut_and_at_what_disagrees() -> None:
    random = np.random.default_rng(0)
    smooth = Deflicker(random.integers(0, 255, (64, 96, 3)).astype(np.uint8))
    assert np.array_equal(smooth(pan(0)), pan(0)), "another scene"
    drop = pan(0).copy()
    drop[20:50, 40:52] = 255
    result = smooth(drop).astype(int)
    assert np.abs(result - drop)[30:40, 44:48].max() <= 2, "something new is not painted over with the past"
    deep = pan(0).astype(np.uint16) * 257
    assert Deflicker(deep)(deep).dtype == np.uint16
    assert np.array_equal(Deflicker(pan(0, height=8, width=8))(pan(0, height=8, width=8)), pan(0, height=8, width=8))


def test_numbers_order_frames() -> None:
    names = ["f10", "f9", "f1", "f02", "a"]
    ordered = in_order([Source(Path(f"{name}.png"), Path(f"{name}.png")) for name in names])
    assert [source.path.stem for source in ordered] == ["a", "f1", "f02", "f9", "f10"]


@pytest.mark.parametrize("megapixels, fits", [(1, False), (2, True)])
def test_frames_beside_their_source_obey_max_megapixels(
    megapixels: float, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(tmp_path / "in" / "1.png", Path("1.png"))
    write(source.path, np.zeros((1200, 1200, 3), np.uint8))
    job = Job(source, tmp_path / "out" / "1.png")
    output = FrameOutput(Journal(tmp_path / "out", {}), False, [job], {job.output: 0}, True, unsmoothed)
    picture = read_picture(source.path.read_bytes(), source.path)
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", str(megapixels * 10**6))
    with nullcontext() if fits else pytest.raises(PictureError, match="megapixels"):
        output.write(job.output, picture, "digest")
    assert job.output.exists() == fits


def test_evaluate_measures_flicker(tmp_path: Path, run: Run) -> None:
    for kind, noise in (("rainy", 16), ("derained", 8), ("clean", 0)):
        for index in range(5):
            write(tmp_path / kind / f"{index}.png", pan(3 * index, noise))
    command = ("evaluate", "--input", tmp_path / "rainy", "--flicker", tmp_path / "derained")
    result = run(*command, "--target", tmp_path / "clean")
    assert result.exit_code == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0][-2:] == ["5", "frames"]
    errors = [float(row[0]) for row in rows[1:]]
    assert errors[0] > errors[1] > errors[2]
    assert float(rows[2][1]) == pytest.approx(errors[1] / errors[0], abs=0.001)
    assert float(rows[2][2]) == pytest.approx(errors[1] / errors[2], rel=0.01)
    without = run(*command)
    assert without.exit_code == 0 and without.stdout.splitlines()[2].split()[2] == "-"
    (tmp_path / "derained" / "4.png").write_bytes(b"no picture")
    bad = run(*command)
    assert bad.exit_code == 2 and f"{tmp_path / 'derained' / '4.png'}: is damaged" in bad.stderr
    (tmp_path / "derained" / "4.png").unlink()
    short = run(*command)
    assert short.exit_code == 2 and "has 4 frames, fewer than the others" in short.stderr
    assert run("evaluate", "--input", tmp_path / "rainy").exit_code == 2


def test_a_still_sequence_has_no_flicker_to_take_a_share_of(tmp_path: Path, run: Run) -> None:
    for index in range(3):
        write(tmp_path / "still" / f"{index}.png", pan(0))
        write(tmp_path / "derained" / f"{index}.png", pan(3 * index, 8))
    result = run("evaluate", "--input", tmp_path / "still", "--flicker", tmp_path / "derained")
    assert result.exit_code == 0 and not result.stderr and "nan" not in result.stdout, result.output
    assert [row.split()[1] for row in result.stdout.splitlines()[1:]] == ["-", "-"]


def test_flicker_of_clips(tmp_path: Path, run: Run) -> None:
    clip = make_clip(tmp_path / "x.mkv", 5)
    result = run("evaluate", "--input", clip, "--flicker", clip)
    assert result.exit_code == 0 and result.stdout.splitlines()[2].split()[1] == "1.000"
    (tmp_path / "y.mkv").write_bytes(b"no clip")
    broken = run("evaluate", "--input", clip, "--flicker", tmp_path / "y.mkv")
    assert broken.exit_code == 2 and "cannot be opened as video" in broken.stderr


def test_flicker_of_pictures_of_two_sizes(tmp_path: Path, run: Run) -> None:
    for index, size in enumerate(((48, 64), (48, 64), (32, 64))):
        write(tmp_path / "in" / f"{index}.png", photo(*size))
    result = run("evaluate", "--input", tmp_path / "in", "--flicker", tmp_path / "in")
    assert result.exit_code == 2 and "frame 2 has 64x32, the first one 64x48; give frames of one size" in result.stderr


def test_an_encoder_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from esdnet_cli.video import encoder

    info = read_info(make_clip(tmp_path / "x.mp4", 1))
    monkeypatch.setitem(encoder.CODECS, "av1", replace(encoder.CODECS["av1"], encoder="libnothing"))
    with pytest.raises(PictureError, match="the FFmpeg in this PyAV has no libnothing; choose another codec"):
        choose_encoding(info, "av1", None, 48, 32, 24)
    with pytest.raises(PictureError, match="too narrow for hevc"):
        choose_encoding(info, "hevc", None, 48, 32, 24)


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no such call on this system")
def test_encoders_leave_the_process_its_priority(tmp_path: Path) -> None:
    """SVT-AV1 takes real-time priority where it may, as root: neighbours and subprocesses would never run."""
    info = read_info(make_clip(tmp_path / "a.mp4", 2))
    before = os.sched_getscheduler(0)
    for codec in ("av1", "h264"):
        encoding, _ = choose_encoding(info, codec, None, 64, 64, 24)
        encoder = SegmentEncoder(encoding)
        encoder.add(np.zeros((64, 64, 3), np.uint8), 0, 1)
        encoder.finish()
        assert os.sched_getscheduler(0) == before, codec


def box(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def test_boxes_that_claim_more_than_any_file_has() -> None:
    endless = [struct.pack(">I4sQ", 1, kind, size) for kind, size in ((b"moov", 2**64 - 1), (b"trak", 2**63))]
    assert not holds_places(io.BytesIO(b"".join(endless) + bytes(9)))
    assert holds_places(io.BytesIO(endless[0] + box(b"gps ")))


@pytest.mark.parametrize("instead", [b"meta", b"moof"], ids=["a photograph", "a piece of a stream"])
def test_what_never_had_an_index_is_no_recording_that_broke_off(instead: bytes) -> None:
    frames = box(b"mdat", bytes(9))
    assert lacks_index(io.BytesIO(box(b"ftyp") + frames))
    assert not lacks_index(io.BytesIO(box(b"ftyp") + box(instead) + frames))
