"""What people may rely on: docs/reliability.md points here. One line of a table for each case."""

from __future__ import annotations

import ast
import io
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import fuzz
import numpy as np
import pytest
import torch
from conftest import LEAST, TINY, Run, photo, read, tiny_network, write
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

from esdnet_cli.checkpoint.store import save
from esdnet_cli.errors import EsdnetError, printable
from esdnet_cli.files import digest, remove_leftovers, write_atomically
from esdnet_cli.pipeline import apart
from esdnet_cli.pipeline.images import Picture
from esdnet_cli.pipeline.journal import JOURNAL, Journal
from esdnet_cli.pipeline.sources import Source, find_sources, plan_outputs
from esdnet_cli.pipeline.tiling import Batches, Tiling, derain_tiled, pad

ROOT = Path(__file__).resolve().parents[1]
PROMISES = (ROOT / "docs" / "reliability.md").read_text()


def interlaced_png(pixels: NDArray[np.uint8]) -> bytes:
    """Adam7, which neither OpenCV nor Pillow writes; RGB in."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = b""
    for y, x, down, right in passes:
        part = pixels[y::down, x::right]
        rows += b"".join(b"\0" + line.tobytes() for line in part) if part.size else b""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


COLOUR = photo(40, 48)
GREY = COLOUR[..., 0]
DEEP = COLOUR.astype(np.uint16) * 257 ^ 37
UNCHANGED = {
    "colour": ("a.png", COLOUR),
    "grey": ("a.png", GREY),
    "alpha": ("a.png", np.dstack((COLOUR, GREY))),
    "16 bit": ("a.png", DEEP),
    "16 bit grey": ("a.png", DEEP[..., 0]),
    "16 bit alpha": ("a.png", np.dstack((DEEP, DEEP[..., 1]))),
    "TIFF": ("a.tiff", COLOUR),
    "TIFF 16 bit": ("a.TIF", DEEP),
    "lossless WebP": ("a.webp", COLOUR),
    "BMP": ("a.bmp", COLOUR),
    "JPEG 2000": ("a.jp2", COLOUR),
    "PPM": ("a.ppm", COLOUR),
    "PGM 16 bit": ("a.pgm", DEEP[..., 0]),
    "one pixel": ("a.png", photo(1, 1)),
    "one row": ("a.png", photo(1, 70)),
    "one column": ("a.png", photo(70, 1)),
    "8x2000": ("a.png", photo(8, 2000)),
    "upper case": ("A.PNG", COLOUR),
    "spaces and Unicode": ("ein Bild – 雨.png", COLOUR),
    "leading dash": ("-a.png", COLOUR),
}


@pytest.mark.parametrize("case", UNCHANGED)
def test_only_the_network_changes_pixels(case: str, identity: Path, tmp_path: Path, run: Run) -> None:
    name, pixels = UNCHANGED[case]
    before = read(write(tmp_path / "in" / name, pixels))
    result = run("images", tmp_path / "in", "-o", tmp_path / "out", "--weights", identity, "--tile", 16)
    assert result.exit_code == 0, result.stderr
    np.testing.assert_array_equal(read(tmp_path / "out" / name), before)


def test_interlaced_png(identity: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "a.png").write_bytes(interlaced_png(COLOUR[..., ::-1].copy()))
    assert run("images", tmp_path / "a.png", "-o", tmp_path / "out", "--weights", identity, "--tile", 16).exit_code == 0
    np.testing.assert_array_equal(read(tmp_path / "out" / "a.png"), COLOUR)


def test_colour_under_transparency_does_not_bleed(tiny: Path, tmp_path: Path, run: Run) -> None:
    alpha = np.full((40, 48), 255, np.uint8)
    alpha[10:30, 12:40] = 0
    pictures = []
    for colour in (0, 255):
        pixels = np.dstack((COLOUR, alpha))
        pixels[alpha == 0, :3] = colour
        write(tmp_path / f"{colour}.png", pixels)
        assert run("images", tmp_path / f"{colour}.png", "-o", tmp_path / "out", "--weights", tiny).exit_code == 0
        pictures.append(read(tmp_path / "out" / f"{colour}.png"))
        assert (pictures[-1][alpha == 0] == [colour] * 3 + [0]).all(), "what nobody sees stays as it was"
    np.testing.assert_array_equal(pictures[0][alpha > 0], pictures[1][alpha > 0])


def test_jpeg_keeps_its_colour_resolution(identity: Path, tmp_path: Path, run: Run) -> None:
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2, 2] = stripes[:, 1::2, 0] = 254
    full = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    (tmp_path / "a.jpg").write_bytes(bytes(cv2.imencode(".jpg", stripes, full)[1]))
    assert run("images", tmp_path / "a.jpg", "-o", tmp_path / "out", "--weights", identity, "--tile", 16).exit_code == 0
    assert np.abs(read(tmp_path / "out" / "a.jpg").astype(int) - read(tmp_path / "a.jpg")).mean() < 4


def test_wholly_transparent_pictures(tiny: Path, tmp_path: Path, run: Run) -> None:
    pixels = np.dstack((COLOUR, np.zeros_like(GREY)))
    write(tmp_path / "a.png", pixels)
    assert run("images", tmp_path / "a.png", "-o", tmp_path / "out", "--weights", tiny).exit_code == 0
    np.testing.assert_array_equal(read(tmp_path / "out" / "a.png"), pixels)


def test_our_outputs_are_no_inputs(tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "in" / "a.png")
    for folder in ("first", "second"):
        result = run("images", tmp_path / "in", "-r", "-o", tmp_path / "in" / folder, "--weights", tiny)
        assert "1 done" in result.stdout
    assert "1 done" in run("energy", tmp_path / "in", "-r", "--weights", tiny).stdout
    assert "1 done" in run("energy", tmp_path / "in" / "first", "--weights", tiny).stdout, "unless they are named"


ENDINGS = ("png", "jpg", "webp", "tiff", "bmp", "jp2", "avif", "gif", "ppm")


def test_a_picture_over_the_limit_is_refused_before_memory_is_taken(tiny: Path, tmp_path: Path) -> None:
    pictures = [str(write(tmp_path / f"a.{ending}", photo(100, 110))) for ending in ENDINGS]
    command = [sys.executable, "-m", "esdnet_cli", "energy", *pictures, "--weights", str(tiny), "-q"]
    done = subprocess.run([*command, "--max-megapixels", "0.01"], capture_output=True, text=True)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    for picture in pictures:
        (line,) = (line for line in lines if line.startswith(f"{picture}: "))
        assert "has more than 0.01 megapixels" in line and "--max-megapixels" in line


PEAK = """
import resource, sys
from esdnet_cli.cli import cli
try:
    cli(sys.argv[1:])
except SystemExit:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_of_a_refused_bomb(tiny: Path, tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "bomb.png").read_bytes())
    struct.pack_into(">II", data, 16, 60000, 60000)
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    (tmp_path / "bomb.png").write_bytes(data)
    write(tmp_path / "small.png", photo(4, 4))
    peaks = []
    for name in ("small.png", "bomb.png"):
        arguments = ["energy", str(tmp_path / name), "--weights", str(tiny), "-q"]
        done = subprocess.run([sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.splitlines()[-1]) / 1024)
    assert peaks[1] < peaks[0] + 100, f"{peaks} MiB"


def test_inputs_that_disappear_cost_only_themselves(tiny: Path, tmp_path: Path, run: Run) -> None:
    for name in ("a.png", "b.png", "c.png"):
        write(tmp_path / "in" / name)
    found, _ = find_sources([str(tmp_path / "in")], recursive=False)
    (tmp_path / "in" / "b.png").unlink()
    import esdnet_cli
    from esdnet_cli.pipeline.output import Output
    from esdnet_cli.pipeline.run import derain_files

    out = tmp_path / "out"
    jobs = plan_outputs(found, out, None)
    results = list(derain_files(esdnet_cli.load(tiny, device="cpu"), jobs, Output(Journal(out, {}), False)))
    assert [result.status for result in results] == ["ok", "failed", "ok"]
    assert "No such file" in (results[1].error or "")


def test_an_output_folder_that_disappears_is_made_again(tiny: Path, tmp_path: Path) -> None:
    import esdnet_cli
    from esdnet_cli.pipeline.output import Output
    from esdnet_cli.pipeline.run import derain_files

    for index in range(8):
        write(tmp_path / "in" / f"{index}.png")
    out = tmp_path / "out"
    jobs = plan_outputs(find_sources([str(tmp_path / "in")], recursive=False)[0], out, None)
    statuses = []
    for result in derain_files(esdnet_cli.load(tiny, device="cpu"), jobs, Output(Journal(out, {}), False)):
        statuses.append(result.status)
        if len(statuses) == 1:
            out.rename(tmp_path / "moved away")
    assert statuses.count("ok") >= 6, "a write that was under way may fail, no other"
    assert all(read(path).shape == (24, 30, 3) for path in out.glob("*.png"))


KILL = """
import os, random, signal, sys, time
import torch, esdnet_cli.show.pictures
from esdnet_cli.cli import cli
arguments, kills = sys.argv[1:-1], int(sys.argv[-1])
source = random.Random(5)
for turn in range(kills):
    child = os.fork()  # what takes long to import is there already
    if not child:
        try:
            cli(arguments)
        finally:
            os._exit(0)
    time.sleep(source.uniform(0, 0.2))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    print("killed" if os.WIFSIGNALED(status) else "ended", flush=True)
    sys.stdin.readline()
"""


def test_fifty_kills_leave_whole_files_and_a_journal_that_knows_them(tmp_path: Path, run: Run) -> None:
    weights = tmp_path / "least.safetensors"  # quick, so that what is killed writes most of the time
    save(weights, tiny_network(LEAST).state_dict(), LEAST, {"tile": "16", "overlap": "4"})
    for index in range(20):
        write(tmp_path / "in" / f"{index:02}.png", photo(40, 40, seed=index))
    out, expected = tmp_path / "out", tmp_path / "expected"
    run("images", tmp_path / "in", "-o", expected, "--weights", weights)
    command = ("images", tmp_path / "in", "-o", out, "--weights", weights)
    killing = [sys.executable, "-c", KILL, *map(str, command), "-q", "50"]
    fates = []
    with subprocess.Popen(killing, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killer:
        assert killer.stdin and killer.stdout
        for fate in killer.stdout:
            fates.append(fate.strip())
            for path in out.glob("*.png"):
                assert path.read_bytes() == (expected / path.name).read_bytes(), f"{path} after kill {len(fates)}"
            if len(list(out.glob("*.png"))) == 20:
                assert "0 done, 20 skipped, 0 failed" in run(*command).stdout
                for path in out.glob("*.png"):
                    path.unlink()
            killer.stdin.write("\n")
            killer.stdin.flush()
    assert killer.returncode == 0
    assert len(fates) == 50 and fates.count("killed") >= 25
    assert run(*command).exit_code == 0
    assert len(list(out.glob("*.png"))) == 20


def test_leftovers_of_killed_writes_are_removed_when_they_are_old(tmp_path: Path) -> None:
    old, new = tmp_path / ".esdnet-1.part", tmp_path / ".esdnet-2.part"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    remove_leftovers(tmp_path)
    assert not old.exists() and new.exists()


def test_leftovers_are_looked_for_where_a_run_writes_and_nowhere_else(tmp_path: Path, tiny: Path, run: Run) -> None:
    write(tmp_path / "in" / "sub" / "a.png")
    others = [tmp_path / "out" / name / ".esdnet-1.part" for name in ("", "sub", "other")]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
        os.utime(path, (time.time() - 7200,) * 2)
    assert run("images", tmp_path / "in", "-r", "-o", tmp_path / "out", "--weights", tiny).exit_code == 0
    assert [path.exists() for path in others] == [False, False, True]


def test_a_run_beside_another_leaves_its_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("link", "replace"):
        name_it = getattr(os, kind)

        def meanwhile(*paths: object, name_it: Any = name_it) -> None:
            remove_leftovers(tmp_path)
            name_it(*paths)

        monkeypatch.setattr(os, kind, meanwhile)
    write_atomically(tmp_path / "old.png", b"of an old picture", modified_ns=10**18)
    write_atomically(tmp_path / "new.png", b"of an old picture", replace=False, modified_ns=10**18)
    assert {path.stat().st_mtime_ns for path in tmp_path.iterdir()} == {10**18}


def test_two_runs_into_one_folder(tiny: Path, tmp_path: Path, run: Run) -> None:
    for index in range(30):
        write(tmp_path / "in" / f"{index:02}.png", photo(40, 40, seed=index))
    command = ["images", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--weights", str(tiny)]
    runs = [subprocess.Popen([sys.executable, "-m", "esdnet_cli", *command, "-q"]) for _ in range(2)]
    assert [process.wait() for process in runs] == [0, 0]
    assert "0 done, 30 skipped, 0 failed" in run(*command).stdout
    assert not list((tmp_path / "out").glob("*.part"))


def test_threads_that_read_the_journal_at_once_miss_no_line(tmp_path: Path) -> None:
    """The reader and the writer of a run, while another run writes into the same folder."""
    ours, theirs = Journal(tmp_path, {}), Journal(tmp_path, {})
    both = threading.Barrier(2, timeout=0.2)

    class ReadByBoth(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            data = super().read(size)
            with suppress(threading.BrokenBarrierError):  # nobody else comes this far
                both.wait()
            return data

    ours._path = SimpleNamespace(open=lambda mode: ReadByBoth(tmp_path / JOURNAL))  # type: ignore[assignment]
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())
        theirs.note(tmp_path / name, "source", digest(name.encode()))
        with ThreadPoolExecutor(2) as threads:
            assert [*threads.map(ours.state, [tmp_path / name] * 2, ["source"] * 2)] == ["done", "done"]


def test_what_comes_in_the_way_during_the_work_is_not_replaced(tiny: Path, tmp_path: Path) -> None:
    import esdnet_cli
    from esdnet_cli.pipeline.output import Output
    from esdnet_cli.pipeline.run import derain_files

    write(tmp_path / "in" / "a.png")
    out = tmp_path / "out"
    jobs = plan_outputs(find_sources([str(tmp_path / "in")], recursive=False)[0], out, None)
    derainer = esdnet_cli.load(tiny, device="cpu")
    comes = iter([write(tmp_path / "dear.png", photo(seed=3)).read_bytes()])

    def progress(share: float) -> None:
        for data in comes:
            out.mkdir()
            (out / "a.png").write_bytes(data)

    (result,) = derain_files(derainer, jobs, Output(Journal(out, {}), False), progress)
    assert result.status == "failed" and "already exists" in (result.error or "")
    np.testing.assert_array_equal(read(out / "a.png"), photo(seed=3))


def test_a_name_is_given_only_if_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"first", replace=False)
    with pytest.raises(FileExistsError):
        write_atomically(path, b"second", replace=False)
    assert path.read_bytes() == b"first" and [*tmp_path.iterdir()] == [path]
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second"


def test_a_journal_line_that_does_not_fit_is_an_error(tiny: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.png", photo(4, 4))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / JOURNAL).write_bytes(b"\n" * 900)
    command = [sys.executable, "-m", "esdnet_cli", "images", str(tmp_path / "a.png"), "-o", str(tmp_path / "out")]
    limited = ["bash", "-c", 'ulimit -f 1; exec "$@"', "bash", *command, "--weights", str(tiny)]
    done = subprocess.run(limited, capture_output=True, text=True)
    assert done.returncode == 1 and "No space left" in done.stderr, done.stderr
    assert not (tmp_path / "out" / "a.png").exists()


@pytest.mark.parametrize("name", ["a.pbm", "a.pam", "a.ras"])
def test_a_format_that_is_not_written_is_said_before_the_work(name: str, tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / name, GREY)
    command = ("images", tmp_path / name, "-o", tmp_path / "out", "--weights", tiny)
    for result in (run(*command, "--dry-run"), run(*command)):
        message = f"cannot write {Path(name).suffix}; use --format png"
        assert result.exit_code == 1 and message in result.stdout + result.stderr
    assert run(*command, "--format", "png").exit_code == 0


def test_originals_beside_our_outputs_stay_inputs(tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "photos" / "in" / "a.png")
    run("images", tmp_path / "photos" / "in", "-o", tmp_path / "photos", "--weights", tiny)
    write(tmp_path / "photos" / "b.png")
    found, _ = find_sources([str(tmp_path)], recursive=True)
    assert [source.relative.as_posix() for source in found if source.relative.parts[0] == "photos"] == [
        "photos/b.png",
        "photos/in/a.png",
    ]


def test_libraries_say_nothing_on_their_own(tiny: Path, tmp_path: Path) -> None:
    """libpng complains of a colour profile in a grey picture, libjpeg of bytes between segments; both are readable."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(GREY).save(tmp_path / "grey.png", icc_profile=profile)
    jpeg = write(tmp_path / "odd.jpg").read_bytes()
    (tmp_path / "odd.jpg").write_bytes(jpeg[:20] + b"\0\0\0" + jpeg[20:])
    inputs = [str(tmp_path / "grey.png"), str(tmp_path / "odd.jpg")]
    command = [
        sys.executable,
        "-m",
        "esdnet_cli",
        "images",
        *inputs,
        "-o",
        str(tmp_path / "out"),
        "--weights",
        str(tiny),
    ]
    done = subprocess.run([*command, "-q"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    failing = subprocess.run([*command[:-1], "nothing"], capture_output=True, text=True)
    assert failing.returncode == 2 and "no such checkpoint" in failing.stderr


def test_nan_in_the_output_is_an_error_of_that_picture(tiny: Path, tmp_path: Path, run: Run) -> None:
    state = tiny_network().state_dict()
    state["output.0.weight"].fill_(3e38)  # finite, but what it makes is not
    save(tiny, state, TINY, {"tile": "16", "overlap": "4"})
    write(tmp_path / "a.png")
    result = run("images", tmp_path / "a.png", "-o", tmp_path / "out", "--weights", tiny)
    assert result.exit_code == 1 and "NaN or infinity" in result.stderr
    assert not (tmp_path / "out" / "a.png").exists()


def test_a_bug_of_ours_costs_one_picture(tiny: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from esdnet_cli.pipeline import run as pipeline

    sound = pipeline.without_hidden_colours

    def broken(picture: Picture) -> NDArray[np.generic]:
        assert picture.width != 31, "odd"
        return sound(picture)

    monkeypatch.setattr(pipeline, "without_hidden_colours", broken)
    write(tmp_path / "a.png", photo(24, 31))
    write(tmp_path / "b.png")
    result = run("images", tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / "out", "--weights", tiny)
    assert result.exit_code == 1 and "1 done, 0 skipped, 1 failed" in result.stdout
    assert "a.png: unexpected AssertionError: odd" in result.stderr


def test_what_crashes_a_decoder_costs_one_picture(identity: Path, tmp_path: Path, run: Run) -> None:
    sound = (Path(__file__).parent / "cases" / "turned.heic").read_bytes()
    (tmp_path / "in").mkdir()
    for name, data in {"a": sound, "b": sound.replace(b"Exif", b"\xffxif", 1), "c": sound}.items():
        (tmp_path / "in" / f"{name}.heic").write_bytes(data)
    result = run("images", tmp_path / "in", "-o", tmp_path / "out", "--weights", identity)
    assert result.exit_code == 1 and "2 done, 0 skipped, 1 failed" in result.stdout
    assert "b.heic: is damaged HEIF, on which its decoder crashes; copy it again" in result.stderr


def test_a_process_that_has_died_is_made_again() -> None:
    os.kill(apart.call(os.getpid), signal.SIGKILL)
    assert apart.call(abs, -1) == 1, "what an earlier call did is no fault of this one"
    with pytest.raises(ChildProcessError):
        apart.call(os._exit, 0)
    with pytest.raises(ValueError, match="invalid literal"):
        apart.call(int, "one")
    assert apart.call(abs, -2) == 2


def test_a_process_needs_no_guard_in_the_main_module(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from esdnet_cli.pipeline import apart\nprint(apart.call(abs, -1))\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, script], capture_output=True, env=environment).stdout.split() == [b"1"]


def test_damaged_files_load_or_are_refused(tmp_path: Path) -> None:
    """A slice; `python benchmarks/fuzz.py` runs more."""
    outcomes, refused_mib = fuzz.fuzz(1400, seed=1, folder=tmp_path)
    assert sum(outcomes.values()) == 1400
    assert sum(count for (_, fate), count in outcomes.items() if fate == "refused") > 500
    assert refused_mib < 100


FORBIDDEN = {"pickle.load", "pickle.loads", "eval", "exec", "os.system", "os.popen"}
FORBIDDEN |= {"socket", "urllib", "http", "requests", "subprocess"}


@pytest.mark.parametrize("path", sorted((ROOT / "esdnet_cli").rglob("*.py")), ids=lambda path: path.stem)
def test_no_shell_no_eval_no_pickle_no_network(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in FORBIDDEN, f"{path}:{node.lineno} calls {called}"
            if called == "torch.load":
                assert {"weights_only": "True"}.items() <= {k.arg: ast.unparse(k.value) for k in node.keywords}.items()
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & FORBIDDEN, f"{path}:{node.lineno} imports {names}"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(8, 30), st.integers(0, 29), st.integers(1, 9))
def test_any_tiling_gives_the_picture_back(height: int, width: int, tile: int, overlap: int, batch: int) -> None:
    pixels = photo(height, width, seed=height * 61 + width)
    tiling = Tiling(tile, overlap % tile)
    batches = Batches([lambda tiles: pad(tiles, 4)], batch, 4)
    np.testing.assert_array_equal(derain_tiled(pixels, tiling, batches), pixels)
    assert len(tiling.grid(height, width)) == len(tiling.starts(height)) * len(tiling.starts(width))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_padding_of_any_size(height: int, width: int) -> None:
    padded = pad(torch.rand(1, 3, height, width), 4)
    assert padded.shape[2] in range(height, height + 4) and padded.shape[3] in range(width, width + 4)
    assert padded.shape[2] % 4 == padded.shape[3] % 4 == 0


NAMES = st.text("abA.ß雨 -_", min_size=1, max_size=4).filter(lambda name: name.strip(". "))
FILES = st.lists(st.tuples(NAMES, st.sampled_from([".png", ".jpg", ".PNG"])), max_size=6)


@settings(max_examples=100, deadline=None)
@given(FILES, st.sampled_from([None, "png"]))
def test_outputs_never_share_a_name(parts: list[tuple[str, str]], file_format: str | None) -> None:
    sources = [Source(Path(f"/in/{index}/{name}{end}"), Path(name + end)) for index, (name, end) in enumerate(parts)]
    try:
        jobs = plan_outputs(sources, Path("/out"), file_format)
    except EsdnetError:
        renamed = [source.relative.with_suffix(".png") if file_format else source.relative for source in sources]
        assert len(set(renamed)) < len(renamed), "refused without a reason"
    else:
        assert len({job.output for job in jobs}) == len(jobs)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=60) | st.just(None), max_size=8))
def test_the_journal_survives_anything_between_its_lines(noise: list[bytes | None]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index, junk in enumerate(noise):
            if junk is None:  # an output of ours
                (folder / f"{index}.png").write_bytes(b"%d" % index)
                Journal(folder, {"tile": 80}).note(folder / f"{index}.png", "source", digest(b"%d" % index))
            else:
                with (folder / JOURNAL).open("ab") as file:
                    file.write(junk)
        for index, junk in enumerate(noise):
            if junk is None:
                output = folder / f"{index}.png"
                assert Journal(folder, {"tile": 80}).state(output, "source") == "done"
                assert Journal(folder, {"tile": 64}).state(output, "source") == "outdated"
                assert Journal(folder, {"tile": 80}).state(output, "another") == "foreign"
                output.write_bytes(b"changed")
                assert Journal(folder, {"tile": 80}).state(output, "source") == "foreign"


@given(st.text())
def test_any_text_is_shown_on_one_line(text: str) -> None:
    shown = printable(text)
    shown.encode("utf-8")
    assert len(shown.splitlines()) <= 1 and "\x1b" not in shown


def test_every_promise_names_a_test_that_exists() -> None:
    named = re.findall(r"`(test_\w+)\.py::(test_\w+)`", PROMISES)
    promises = [line for line in PROMISES.splitlines() if line.startswith("- ")]
    assert len(promises) >= 8
    for module, name in named:
        assert f"def {name}(" in (ROOT / "tests" / f"{module}.py").read_text(), name
    assert len(named) >= len(promises)
