"""esdnet images, from files to files, as a user runs it."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import make_clip
from conftest import TINY, Run, load_json, photo, read, tiny_network, write

from esdnet_cli.checkpoint.store import save
from esdnet_cli.pipeline.journal import JOURNAL

ROOT = str(Path(__file__).resolve().parents[1])
ESDNET = [sys.executable, "-m", "esdnet_cli"]


@pytest.fixture
def rainy(tmp_path: Path) -> Path:
    """A folder of four pictures, one of them in a subfolder."""
    folder = tmp_path / "rainy"
    write(folder / "a.png")
    write(folder / "b.jpg", photo(20, 50))
    write(folder / "c.png", photo()[..., 0])
    write(folder / "sub" / "a.png", photo(18, 18).astype(np.uint16) * 257)
    return folder


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_folder_in_folder_out(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    result = run("images", rainy, "-o", out, "-r", "--weights", tiny)
    assert result.exit_code == 0, result.stderr
    assert files(out) == [JOURNAL, "a.png", "b.jpg", "c.png", "sub/a.png"]
    assert read(out / "a.png").shape == (24, 30, 3) and read(out / "b.jpg").shape == (20, 50, 3)
    assert read(out / "c.png").shape == (24, 30), "grey stays grey"
    assert read(out / "sub" / "a.png").dtype == np.uint16
    assert not np.array_equal(read(out / "a.png"), read(rainy / "a.png"))
    rows = result.stdout.splitlines()
    assert [row.split()[0] for row in rows[2:-1]] == ["30x24", "50x20", "30x24", "18x18", "0.00"]
    assert rows[-1] == "4 done, 0 skipped, 0 failed"
    assert "memory traffic" in result.stderr


def test_library_and_command_give_the_same_picture(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    import esdnet_cli

    assert run("images", rainy / "a.png", "-o", tmp_path, "--weights", tiny).exit_code == 0
    derained = esdnet_cli.load(str(tiny), device="cpu")(np.ascontiguousarray(read(rainy / "a.png")[..., ::-1]))
    np.testing.assert_array_equal(derained.image[..., ::-1], read(tmp_path / "a.png"))


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (3, 5), (17, 200)])
def test_any_size_from_one_pixel(shape: tuple[int, int], tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "x.png", photo(*shape))
    for tile in ("auto", "0", "80"):
        result = run(
            "images", tmp_path / "x.png", "-o", tmp_path / "out", "--weights", tiny, "--tile", tile, "--overwrite"
        )
        assert result.exit_code == 0, result.stderr
        assert read(tmp_path / "out" / "x.png").shape == (*shape, 3)


def test_alpha_is_copied(tiny: Path, tmp_path: Path, run: Run) -> None:
    pixels = np.dstack((photo(), photo(seed=5)[..., 0]))
    write(tmp_path / "x.png", pixels)
    assert run("images", tmp_path / "x.png", "-o", tmp_path / "out", "--weights", tiny).exit_code == 0
    np.testing.assert_array_equal(read(tmp_path / "out" / "x.png")[..., 3], pixels[..., 3])


def test_format_changes_the_ending(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    assert run("images", rainy, "-o", out, "--weights", tiny, "--format", "webp").exit_code == 0
    assert files(out) == [JOURNAL, "a.webp", "b.webp", "c.webp"]


def test_reports_hold_every_figure(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    write(rainy / "broken.png").write_bytes(b"no picture")
    options = ("-r", "--weights", tiny, "--overwrite", "--pj-mac", "3", "--pj-ac", "1")
    result = run("images", rainy, "-o", tmp_path / "out", *options, "--report", tmp_path / "r.json")
    assert result.exit_code == 1
    report = load_json(tmp_path / "r.json")
    assert set(report) == {"schema", "tool", "weights", "run", "images", "totals"} and report["schema"] == 1
    assert report["weights"]["config"]["dim"] == 8 and len(report["weights"]["sha256"]) == 64
    run_info = report["run"]
    assert (run_info["tile"], run_info["overlap"], run_info["timesteps"], run_info["pj_mac"]) == (16, 4, 4, 3)
    assert any("memory traffic" in phrase for phrase in run_info["energy_leaves_out"])
    done = [image for image in report["images"] if image["status"] == "ok"]
    (failed,) = (image for image in report["images"] if image["status"] == "failed")
    assert failed["input"].endswith("broken.png") and failed["error"] and failed["mac"] is None and not failed["layers"]
    for image in done:
        assert image["mac"] == sum(layer["mac"] for layer in image["layers"])
        assert image["ac"] == sum(layer["ac"] for layer in image["layers"])
        assert image["energy_mj"] == pytest.approx((image["mac"] * 3 + image["ac"] * 1) * 1e-9)
        spikes, neurons = (sum(layer[key] for layer in image["layers"]) for key in ("spikes", "neurons"))
        assert image["spike_rate"] == pytest.approx(spikes / (neurons * 4)) and 0 < image["spike_rate"] < 1
        assert 0 < image["energy_spike_only_mj"] < image["energy_mj"]
    totals = report["totals"]
    assert (totals["ok"], totals["skipped"], totals["failed"]) == (4, 0, 1)
    assert totals["ac"] == sum(image["ac"] for image in done)
    run("images", rainy, "-o", tmp_path / "out", *options, "--report", tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["input"] for row in rows] == [image["input"] for image in report["images"]]
    assert [row["ac"] for row in rows] == [str(image["ac"] or "") for image in report["images"]]


def test_rerun_skips_what_is_done(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    command = ("images", rainy, "-o", out, "--weights", tiny)
    run(*command)
    (out / "b.jpg").unlink()
    before = (out / "a.png").stat().st_mtime_ns
    result = run(*command)
    assert result.exit_code == 0
    assert "1 done, 2 skipped, 0 failed" in result.stdout
    assert (out / "a.png").stat().st_mtime_ns == before and (out / "b.jpg").exists()
    assert "3 done" in run(*command, "--overwrite").stdout


@pytest.mark.parametrize("change", ["input", "output", "journal", "torn journal", "link"])
def test_what_is_not_ours_is_never_replaced_unasked(
    change: str, rainy: Path, tiny: Path, tmp_path: Path, run: Run
) -> None:
    out, options = tmp_path / "out", ("--weights", tiny)
    write(rainy / "z.png")
    run("images", rainy / "a.png", "-o", out, *options)
    if change == "input":
        write(rainy / "a.png", photo(seed=9))
    elif change == "output":
        write(out / "a.png", photo(seed=9))
    elif change == "journal":
        (out / JOURNAL).unlink()
    elif change == "torn journal":
        (out / JOURNAL).write_bytes((out / JOURNAL).read_bytes()[:-20])
    else:
        (out / "a.png").unlink()
        (out / "a.png").symlink_to(write(tmp_path / "dear.png"))
    kept = (out / "a.png").read_bytes()
    result = run("images", rainy / "a.png", rainy / "z.png", "-o", out, *options)
    assert result.exit_code == 1
    assert "a.png already exists" in result.stderr and "--overwrite replaces it" in result.stderr
    assert (out / "a.png").read_bytes() == kept
    assert (out / "z.png").exists(), "the others are done all the same"
    assert run("images", rainy / "a.png", "-o", out, *options, "--overwrite").exit_code == 0
    assert "1 skipped" in run("images", rainy / "a.png", "-o", out, *options).stdout
    if change == "link":
        np.testing.assert_array_equal(read(tmp_path / "dear.png"), photo())  # the link is replaced, not its target


@pytest.mark.parametrize("options", [("--tile", "24"), ("--precision", "bf16"), ("--weights", "small")], ids=str)
def test_outputs_made_with_other_weights_or_options_are_made_again(
    options: tuple[str, str], rainy: Path, tiny: Path, tmp_path: Path, run: Run
) -> None:
    command = ("images", rainy, "-o", tmp_path / "out", "--weights", tiny)
    run(*command)
    before = (tmp_path / "out" / "a.png").read_bytes()
    assert "3 done, 0 skipped, 0 failed" in run(*command, *options).stdout
    assert (tmp_path / "out" / "a.png").read_bytes() != before
    assert "0 done, 3 skipped, 0 failed" in run(*command, *options).stdout
    assert "3 done, 0 skipped, 0 failed" in run(*command).stdout


def test_one_bad_input_never_stops_the_batch(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    whole = (rainy / "a.png").read_bytes()
    (rainy / "a-truncated.png").write_bytes(whole[: len(whole) // 2])
    (rainy / "empty.png").touch()
    (rainy / "notes.txt").write_text("a list")
    (tmp_path / "nothing").mkdir()
    inputs = (rainy, rainy / "notes.txt", tmp_path / "missing.png", tmp_path / "nothing", tmp_path / "*.tif")
    result = run("images", *inputs, "-o", tmp_path / "out", "--weights", tiny)
    assert result.exit_code == 1
    assert "3 done, 0 skipped, 6 failed" in result.stdout
    for name in ("a-truncated.png", "empty.png", "notes.txt", "missing.png", "nothing", "*.tif"):
        lines = [line for line in result.stderr.splitlines() if name in line]
        assert len(lines) == 2, "once when it happens, once in the summary"
        assert all(": " in line and ("; " in line) for line in lines), "each says what to do"
    assert files(tmp_path / "out") == [JOURNAL, "a.png", "b.jpg", "c.png"]


USAGE = {
    "no output": (("images", "{rainy}"), "Missing option '-o'"),
    "no input": (("images", "-o", "{out}"), "Missing argument 'INPUT...'"),
    "unknown device": (("images", "{rainy}", "-o", "{out}", "--device", "tpu"), "--device tpu: no such device"),
    "cuda without cuda": (("images", "{rainy}", "-o", "{out}", "--device", "cuda"), "no CUDA device is available here"),
    "cuda:3 without cuda": (("images", "{rainy}", "-o", "{out}", "--device", "cuda:3"), "no CUDA device"),
    "mps without mps": (("images", "{rainy}", "-o", "{out}", "--device", "mps"), "no Apple GPU is available here"),
    "unknown precision": (("images", "{rainy}", "-o", "{out}", "--precision", "int3"), "'int3' is not one of"),
    "small tile": (("images", "{rainy}", "-o", "{out}", "--tile", "4"), "4 is too small; use 8 or more"),
    "tile of words": (("images", "{rainy}", "-o", "{out}", "--tile", "large"), "neither auto nor a number"),
    "overlap": (
        ("images", "{rainy}", "-o", "{out}", "--tile", "16", "--overlap", "16"),
        "must be smaller than --tile 16",
    ),
    "cost": (("images", "{rainy}", "-o", "{out}", "--pj-mac", "nan"), "nan is not a cost"),
    "report ending": (("images", "{rainy}", "-o", "{out}", "--report", "r.pdf"), "use .html, .json, .csv or .tex"),
    "report folder": (
        ("images", "{rainy}", "-o", "{out}", "--report", "{rainy}/a.png/r.json"),
        "cannot be written there (Not a directory)",
    ),
    "pixel limit": (("images", "{rainy}", "-o", "{out}", "--max-megapixels", "nan"), "nan is not a limit"),
    "quiet and verbose": (("images", "{rainy}", "-o", "{out}", "-q", "-v"), "exclude each other"),
    "no weights": (("images", "{rainy}", "-o", "{out}", "--weights", "huge"), "huge: no such checkpoint"),
    "same folder": (("images", "{rainy}", "-o", "{rainy}"), "is both input and output folder"),
    "over an input": (("images", "{rainy}/a.png", "-o", "{rainy}"), "would be written over an input"),
    "file as folder": (("images", "{rainy}", "-o", "{rainy}/a.png"), "is not a folder; choose another"),
    "picture as folder": (("images", "{rainy}/a.png", "-o", "{out}.JPG"), ".JPG, and --format if"),
    "one name": (("images", "{rainy}/a.png", "{rainy}/sub/a.png", "-o", "{out}"), "would both become"),
}


@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage_is_one_line_and_code_2(case: str, rainy: Path, tmp_path: Path, run: Run) -> None:
    if "cuda" in case and torch.cuda.is_available() or "mps" in case and torch.backends.mps.is_available():
        pytest.skip("this machine has that device")
    arguments, message = USAGE[case]
    before = files(tmp_path)
    result = run(*(part.format(rainy=rainy, out=tmp_path / "out") for part in arguments))
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert result.stdout == ""
    assert files(tmp_path) == before, "nothing was written"


def test_a_folder_may_be_called_like_a_picture(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "out.png").mkdir()
    assert run("images", rainy / "a.png", "-o", tmp_path / "out.png", "--weights", tiny).exit_code == 0
    assert files(tmp_path / "out.png") == [JOURNAL, "a.png"]


def test_options_come_from_the_environment(
    rainy: Path, tiny: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESDNET_WEIGHTS", str(tiny))
    monkeypatch.setenv("ESDNET_OUTPUT", str(tmp_path / "out"))
    monkeypatch.setenv("ESDNET_TILE", "24")
    assert run("images", rainy, "--report", tmp_path / "r.json").exit_code == 0
    assert load_json(tmp_path / "r.json")["run"]["tile"] == 24
    monkeypatch.setenv("ESDNET_DEVICE", "tpu")
    assert run("images", rainy).exit_code == 2


def test_dry_run_touches_nothing(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    command = ("images", rainy, "-o", out, "--weights", tiny)
    result = run(*command, "--dry-run")
    assert result.exit_code == 0 and not out.exists()
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["derain"] * 3
    run(*command)
    write(out / "b.jpg", photo(seed=4))
    result = run(*command, "--dry-run")
    assert result.exit_code == 1
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["skip", "fail", "skip"]


def test_quiet_prints_errors_only_and_verbose_the_layers(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    quiet = run("images", rainy, tmp_path / "missing", "-o", tmp_path / "out", "--weights", tiny, "-q")
    assert quiet.exit_code == 1 and quiet.stdout == ""
    assert quiet.stderr.splitlines() == [f"{tmp_path / 'missing'}: no such file or folder; check the name"]
    verbose = run("images", rainy / "a.png", "-o", tmp_path / "out2", "--weights", tiny, "-v")
    assert "encoder_level1.0.residual.0" in verbose.stdout and "refinement.sa.0" in verbose.stdout


def test_odd_names(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("with space.png", "Regentröpfchen-雨.png", "-dash.PNG", "two.dots.png", "'quoted'.png"):
        write(folder / name)
    os.link(folder / "two.dots.png", os.fsencode(folder) + b"/latin-\xe9.png")
    command = [
        *ESDNET,
        "images",
        "--weights",
        tiny,
        "-o",
        "../out",
        "--report",
        "../r.json",
        "--",
        *os.listdir(os.fsencode(folder)),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ROOT})
    assert done.returncode == 0, done.stderr
    assert set(os.listdir(os.fsencode(tmp_path / "out"))) == {*os.listdir(os.fsencode(folder)), JOURNAL.encode()}
    assert load_json(tmp_path / "r.json")["totals"]["ok"] == 6


HOSTILE = {
    "report of a name that is no UTF-8": [b"\xff.png", "--report", "r.csv"],
    "page of a name that is no UTF-8": [b"\xff.png", "--report", "r.html"],
    "name with a line break": ["no\nsuch.png"],
    "name with an escape sequence": ["\x1b]0;red.png"],
    "name that no system takes": ["a" * 5000],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_names_cost_one_line(case: str, rainy: Path, tiny: Path) -> None:
    command = [*ESDNET, "images", "a.png", "-o", "../out", "-q", "--weights", tiny, *HOSTILE[case]]
    done = subprocess.run(command, cwd=rainy, capture_output=True, env={**os.environ, "PYTHONPATH": ROOT})
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1 and b"no such file or folder" in done.stderr and b"\x1b" not in done.stderr
    assert (rainy.parent / "out" / "a.png").exists()


LOCALES = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "C": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}


@pytest.mark.parametrize("locale", LOCALES)
def test_what_a_terminal_cannot_show_stops_nothing(locale: str, tiny: Path, tmp_path: Path) -> None:
    write(tmp_path / "in" / "ü ß 雨.png")
    write(tmp_path / "in" / "z.png")
    command = [*ESDNET, "images", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--weights", str(tiny)]
    done = subprocess.run(command, capture_output=True, env={**os.environ, **LOCALES[locale]})
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "out") == [JOURNAL, "z.png", "ü ß 雨.png"]


@pytest.mark.parametrize("redirection, code", [(">/dev/full", 2), ("2>&-", 0), (">&-", 0)])
def test_closed_and_full_streams_are_no_traceback(
    redirection: str, code: int, rainy: Path, tiny: Path, tmp_path: Path
) -> None:
    script = f"{' '.join(ESDNET)} images {rainy} -o {tmp_path / 'out'} --weights {tiny} {redirection}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_a_closed_stdin_is_an_empty_one(tiny: Path) -> None:
    script = f"{' '.join(ESDNET)} images - -o - --weights {tiny} <&-"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.returncode == 1 and "-: is empty; copy it again" in done.stderr


def test_a_full_disk_behind_stderr_changes_no_exit_code(rainy: Path, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [*ESDNET, "images", str(rainy), "-o", str(tmp_path / "out"), "--weights", "mistyped"]
        assert subprocess.run(command, stderr=full).returncode == 2


def test_a_folder_in_the_way_is_named(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "out" / "a.png").mkdir(parents=True)
    result = run("images", rainy, "-o", tmp_path / "out", "--weights", tiny, "--overwrite")
    assert result.exit_code == 1
    assert f"a folder already has the name {tmp_path / 'out' / 'a.png'}" in result.stderr


def test_nonsense_in_the_journal_is_passed_over(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    command = ("images", rainy, "-o", tmp_path / "out", "--weights", tiny)
    run(*command)
    with (tmp_path / "out" / JOURNAL).open("ab") as file:
        file.write(b"[" * 200_000 + b"\n\xff\xfe\n[]\n3\n{}\n" + b'{"output": []}\n')
    assert "0 done, 3 skipped, 0 failed" in run(*command).stdout


def test_a_folder_called_small_does_not_hide_the_default(
    rainy: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    assert run("images", rainy / "a.png", "-o", "out", "--dry-run").exit_code == 0


def _many(folder: Path, count: int) -> None:
    for index in range(count):
        write(folder / f"{index:03}.png", photo(60, 60, seed=index))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_runs_end_cleanly_and_go_on(how: signal.Signals, tiny: Path, tmp_path: Path, run: Run) -> None:
    _many(tmp_path / "in", 40)
    out = tmp_path / "out"
    command = [
        *ESDNET,
        "images",
        str(tmp_path / "in"),
        "-o",
        str(out),
        "--weights",
        str(tiny),
        "--report",
        str(tmp_path / "r.json"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _wait_for(lambda: len(list(out.glob("*.png"))) >= 3)
    process.send_signal(how)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "continues from here" in stderr and "total" in stdout
    done = sorted(out.glob("*.png"))
    assert 3 <= len(done) < 40
    assert all(read(path).shape == (60, 60, 3) for path in done)
    assert not list(out.glob("*.part"))
    assert load_json(tmp_path / "r.json")["totals"]["ok"] == len(done)
    result = run("images", tmp_path / "in", "-o", out, "--weights", tiny)
    assert result.exit_code == 0
    assert f"{40 - len(done)} done, {len(done)} skipped, 0 failed" in result.stdout


@pytest.mark.parametrize("kind", ["images", "video"])
def test_outputs_of_older_code_are_made_again(
    kind: str, tiny: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from esdnet_cli.pipeline import output

    source = write(tmp_path / "a.png") if kind == "images" else make_clip(tmp_path / "a.mp4", 2)
    command = (kind, source, "-o", tmp_path / ("out" if kind == "images" else "b.mp4"), "--weights", tiny)
    for fate in ("1 done, 0 skipped", "0 done, 1 skipped"):
        assert fate in run(*command).stdout
    monkeypatch.setattr(output, "PIXELS", output.PIXELS + 1)
    for fate in ("1 done, 0 skipped", "0 done, 1 skipped"):
        assert fate in run(*command).stdout


def test_fitted_tiles_are_the_checkpoint_s_and_any_tile_of_ones_own_is_square(tmp_path: Path, run: Run) -> None:
    weights = tmp_path / "fitted.safetensors"
    save(weights, tiny_network().state_dict(), TINY, {"tile": "40", "overlap": "4", "tile_shape": "fitted"})
    write(tmp_path / "a.png", photo(24, 60))
    command = ("images", tmp_path / "a.png", "-o", tmp_path / "out", "--weights", weights)
    computed = {}
    for name, options in {"fitted": (), "square": ("--tile", "40", "--overlap", "4")}.items():
        for fate in ("1 done, 0 skipped", "0 done, 1 skipped"):  # one's output is not the other's
            assert fate in run(*command, *options, "--scales", "1", "--report", tmp_path / f"{name}.json").stdout
        report = load_json(tmp_path / f"{name}.json")
        said = report["run"]
        assert (said["tile"], said["overlap"], said["tile_shape"]) == (40, 4, name)
        computed[name] = report["totals"]["tiling_share"], report["totals"]["state_bytes"]
    assert computed["fitted"][0] == 0  # one tile of 60x24, else two of 40x24
    assert computed["square"][0] == pytest.approx(1 - 60 / 80)
    assert computed["fitted"][1] / computed["square"][1] == pytest.approx(60 / 40)
    merged = run("energy", "--merge", tmp_path / "fitted.json", tmp_path / "square.json")
    assert merged.exit_code == 2 and "other weights, precision or tiling" in merged.stderr
    assert "tile_shape  fitted" in run("weights", weights).stdout


def test_a_json_report_keeps_figures_over_reruns(tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "in" / "a.png")
    report = tmp_path / "r.json"
    command = ("images", tmp_path / "in", "-o", tmp_path / "out", "--weights", tiny)
    assert run(*command, "--report", report).exit_code == 0
    first = load_json(report)
    write(tmp_path / "in" / "b.png", photo(30, 20))
    for again in range(2):
        result = run(*command, "--report", report)
        assert "lacks the figures" not in result.stderr
        a, b = load_json(report)["images"]
        assert a["status"] == "skipped" and {**a, "status": "ok"} == first["images"][0]
        assert b["status"] == ("skipped" if again else "ok") and b["energy_mj"] > 0
        totals = load_json(report)["totals"]
        assert (totals["ok"], totals["skipped"]) == (1 - again, 1 + again)
        assert totals["energy_mj"] == pytest.approx(a["energy_mj"] + b["energy_mj"])
    merged = run("energy", "--merge", report, "--report", tmp_path / "merged.json")
    assert merged.exit_code == 0 and "2 done, 0 skipped" in merged.stdout

    elsewhere = ("images", tmp_path / "in", "-o", tmp_path / "new", "--weights", tiny)
    run(*elsewhere)
    run(*elsewhere, "--report", report)
    images = load_json(report)["images"]
    assert [Path(image["output"]).parent.name for image in images] == ["new"] * 2 and images[0]["energy_mj"] > 0

    times = (tmp_path / "in" / "a.png").stat()
    os.utime(write(tmp_path / "in" / "a.png", photo(40, 40, seed=5)), ns=(times.st_atime_ns, times.st_mtime_ns))
    run(*command, "--overwrite")  # made anew, and not in the report
    assert "lacks the figures of 1 pictures" in run(*command, "--report", report).stderr
    run("images", tmp_path / "in", "-o", tmp_path / "out", "--weights", tiny, "--tile", 32, "--overwrite")
    other = run(*command[:-2], "--weights", tiny, "--tile", 32, "--report", report)
    assert "lacks the figures of 2 pictures" in other.stderr, "those of other settings are not taken"


def _stop_after_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C when a run has finished its first picture."""
    from esdnet_cli.show import pictures

    derain_files = pictures.derain_files

    def one_only(*arguments: object) -> Iterator[object]:
        yield next(derain_files(*arguments))  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(pictures, "derain_files", one_only)


def test_an_interrupted_rerun_costs_a_report_nothing(
    tiny: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        write(tmp_path / "in" / name)
    report = tmp_path / "r.json"
    command = ("images", tmp_path / "in", "-o", tmp_path / "out", "--weights", tiny, "--report", report)
    assert run(*command).exit_code == 0
    whole = load_json(report)["totals"]["energy_mj"]
    _stop_after_one(monkeypatch)
    assert run(*command).exit_code != 0
    assert load_json(report)["totals"]["energy_mj"] == whole


def test_an_interrupted_overwrite_says_that_it_would_begin_anew(
    tiny: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        write(tmp_path / "in" / name)
    command = ("images", tmp_path / "in", "-o", tmp_path / "out", "--weights", tiny)
    with monkeypatch.context() as patch:
        _stop_after_one(patch)
        stopped = run(*command, "--overwrite").stderr
        assert "; the same command begins anew; without --overwrite it skips what is finished." in stopped
        assert "; the same command continues from here." in run(*command).stderr
    assert "skipped: done before" in run(*command).stdout


@pytest.mark.parametrize("kind, what, ending", [("images", "pictures", "csv"), ("video", "clips", "json")])
def test_a_rerun_says_whose_figures_its_report_lacks(
    kind: str, what: str, ending: str, tiny: Path, tmp_path: Path, run: Run
) -> None:
    source = write(tmp_path / "a.png") if kind == "images" else make_clip(tmp_path / "a.mp4", 2)
    command = (kind, source, "-o", tmp_path / ("out" if kind == "images" else "b.mp4"), "--weights", tiny)
    report = ("--report", tmp_path / f"r.{ending}")
    assert "lacks the figures" not in run(*command, *report).stderr
    assert f"r.{ending} lacks the figures of 1 {what} finished by an earlier run" in run(*command, *report).stderr
    assert "lacks the figures" not in run(*command).stderr, "no report, nothing to say"
    if kind == "images":
        run(*command, "--report", tmp_path / "r.html")
        assert (tmp_path / "r.html").read_text().count("done before, its figures are in the report of that run") == 2


def test_an_echo_of_the_first_signal_does_not_cut_it_short(tiny: Path, tmp_path: Path) -> None:
    """As when a launcher hands on the Ctrl-C that the terminal has sent to both."""
    _many(tmp_path / "in", 40)
    out = tmp_path / "out"
    command = [*ESDNET, "images", str(tmp_path / "in"), "-o", str(out), "--weights", str(tiny)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _wait_for(lambda: len(list(out.glob("*.png"))) >= 3)
    for how in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGINT):
        process.send_signal(how)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr and "Exception ignored" not in stderr
    assert f"{len(list(out.glob('*.png')))} done, " in stdout


SLOW = """
import hashlib, sys, threading, time
from esdnet_cli.cli import cli
from esdnet_cli.pipeline import output
from esdnet_cli.pipeline.derainer import Derainer

def slow(*arguments, **options):
    print("busy", flush=True)
    time.sleep(60)

def slow_in_c(*arguments, **options):
    threading.Timer(0.2, print, ["busy"], {"flush": True}).start()  # when this thread is in C, and answers no signal
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)

if sys.argv[1] == "writer":
    output.write_atomically = slow
else:
    Derainer.__call__ = slow_in_c
cli(sys.argv[2:])
"""


@pytest.mark.parametrize("where", ["writer", "network"])
def test_a_second_signal_ends_at_once(where: str, tiny: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    command = ["images", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--weights", str(tiny), "-q"]
    with subprocess.Popen([sys.executable, "-c", SLOW, where, *command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "busy\n"
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None, "the first one waits for what is in hand"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=5) == 130


def test_killed_runs_leave_whole_files_and_go_on(tiny: Path, tmp_path: Path, run: Run) -> None:
    _many(tmp_path / "in", 40)
    out = tmp_path / "out"
    process = subprocess.Popen([*ESDNET, "images", str(tmp_path / "in"), "-o", str(out), "--weights", str(tiny), "-q"])
    _wait_for(lambda: len(list(out.glob("*.png"))) >= 3)
    process.kill()
    process.wait()
    done = list(out.glob("*.png"))
    assert all(read(path).shape == (60, 60, 3) for path in done)
    result = run("images", tmp_path / "in", "-o", out, "--weights", tiny)
    assert result.exit_code == 0
    assert f"{40 - len(done)} done, {len(done)} skipped, 0 failed" in result.stdout


def _wait_for(condition: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs Linux")
def test_disk_full_is_said_and_leaves_nothing_half_written(tiny: Path, tmp_path: Path) -> None:
    write(tmp_path / "large.bmp", photo(300, 300))  # 270 kB, over the limit below
    write(tmp_path / "small.png", photo(8, 8))
    limited = ["bash", "-c", 'ulimit -f 100; exec "$@"', "bash"]  # files of at most 100 kB: the write fails halfway
    command = [
        *ESDNET,
        "images",
        str(tmp_path / "large.bmp"),
        str(tmp_path / "small.png"),
        "-o",
        str(tmp_path / "out"),
        "--weights",
        str(tiny),
    ]
    done = subprocess.run([*limited, *command], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "large.bmp: " in done.stderr and "File too large" in done.stderr and "Traceback" not in done.stderr
    assert files(tmp_path / "out") == [JOURNAL, "small.png"]


def test_a_full_disk_for_what_comes_through_standard_input_is_named(tmp_path: Path) -> None:
    write(tmp_path / "large.bmp", photo(300, 300))
    limited = ["bash", "-c", 'ulimit -f 100; exec "$@"', "bash"]
    command = [*limited, *ESDNET, "images", "-", "-o", "-"]
    with (tmp_path / "large.bmp").open("rb") as source:
        done = subprocess.run(command, stdin=source, capture_output=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.returncode == 2 and done.stdout == b""
    assert re.fullmatch(rf"Error: {tmp_path}/esdnet-\w+/stdin.bmp: File too large; .*\n", done.stderr.decode())


def test_a_closed_pipe_is_no_traceback(rainy: Path, tiny: Path, tmp_path: Path) -> None:
    command = f"{' '.join(ESDNET)} images {rainy} -o {tmp_path / 'out'} --weights {tiny} --report {tmp_path / 'r.json'}"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", f"{command} | true"], capture_output=True, text=True)
    assert "Traceback" not in done.stderr and done.returncode == 0
    assert len(load_json(tmp_path / "r.json")["images"]) == 3, "who reads no rows may want the report"


def test_a_terminal_shows_a_bar_and_a_file_does_not(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    import fcntl
    import pty
    import struct
    import termios

    command = [*ESDNET, "images", str(rainy), "-o", str(tmp_path / "out"), "--weights", str(tiny)]
    terminal, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=child, text=True)
    os.close(child)
    shown = os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert done.returncode == 0
    assert "0.0/3 pictures [" in shown and "\r" in shown
    assert "3 done" in done.stdout and "pictures [" not in done.stdout
    assert "pictures [" not in run("images", rainy, "-o", tmp_path / "out2", "--weights", tiny).stderr


def test_an_ensemble_is_the_mean_of_its_copies_and_costs_their_sum(tiny: Path, tmp_path: Path, run: Run) -> None:
    picture = write(tmp_path / "in" / "a.png", photo(32, 32))
    reports = {}
    for copies in ((), ("--ensemble", 4)):
        out = tmp_path / f"out{len(copies)}"
        done = run("images", picture, "-v", "-o", out, "--weights", tiny, *copies, "--report", tmp_path / "r.json")
        assert done.exit_code == 0, done.output
        assert ("the ensemble's copies" in done.stdout) == bool(copies)
        reports[copies] = (load_json(tmp_path / "r.json"), read(out / "a.png").astype(int))
    (once, plain), (four, averaged) = reports.values()
    assert (once["run"]["ensemble"], four["run"]["ensemble"]) == (1, 4)
    assert four["totals"]["mac"] == 4 * once["totals"]["mac"]
    assert four["totals"]["energy_mj"] == pytest.approx(4 * once["totals"]["energy_mj"], rel=0.05)
    assert 0 < abs(plain - averaged).mean() < 10
    again = run("images", picture, "-o", tmp_path / "out0", "--weights", tiny, "--ensemble", 2)
    assert again.exit_code == 0 and "1 done" in again.stdout, "another ensemble is another picture"


def test_outputs_carry_the_dates_of_their_inputs(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    for path in rainy.glob("*.*"):
        os.utime(path, ns=(0, 1_000_000_000_123_456_700))
    command = ("images", rainy, "--weights", tiny, "-o")
    run(*command, tmp_path / "out")
    run(*command, tmp_path / "new", "--new-dates")
    for name in ("a.png", "b.jpg", "c.png"):
        assert (tmp_path / "out" / name).stat().st_mtime_ns == (rainy / name).stat().st_mtime_ns
        assert (tmp_path / "new" / name).stat().st_mtime > 1_700_000_000
    assert "3 skipped" in run(*command, tmp_path / "out").stdout


def test_what_was_passed_over_is_counted(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    for name in ("a.jxl", "b.JXL", "c.dng", "d.cr2", "e.CR3", "f.mp4", "notes.txt", ".hidden.jxl"):
        (rainy / name).write_bytes(b"x")
    line = "Not read: 2 Canon camera raw (.cr2, .cr3), 1 DNG camera raw (.dng), 2 JPEG XL (.jxl), 1 clip (.mp4); "
    line += "develop raw files first, convert pictures of other kinds to PNG, esdnet video takes clips."
    command = ("images", rainy, "-o", tmp_path / "out", "--weights", tiny)
    for options in (("--dry-run",), ()):
        result = run(*command, *options)
        assert result.exit_code == 0 and line in result.stderr.splitlines()
    assert "2 JPEG XL (.jxl), 1 clip" in run("energy", rainy / "*", "--weights", tiny).stderr
    assert "Not read" not in run("images", rainy / "a.png", "-o", tmp_path / "out", "--weights", tiny).stderr


def test_a_linked_folder_is_not_followed_but_named(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "elsewhere" / "deep" / "e.png")
    for link, target in {"link": "elsewhere", "loop": "rainy", ".hidden": "elsewhere"}.items():
        (rainy / link).symlink_to(tmp_path / target)
    line = f"{rainy / 'link'}: is a link to a folder, which -r does not follow; name it to include it"
    command = ("images", rainy, "-r", "-o", tmp_path / "out", "--weights", tiny)
    for options in (("--dry-run",), ()):
        result = run(*command, *options)
        assert result.exit_code == 0
        assert [text for text in result.stderr.splitlines() if "link" in text] == [line]
    assert "is a link" not in run(*command, rainy / "link").stderr
    assert (tmp_path / "out" / "deep" / "e.png").exists()
    assert "is a link" not in run("images", rainy, "-o", tmp_path / "out", "--weights", tiny).stderr


def test_clips_of_every_ending_are_counted(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    make_clip(rainy / "a.ts", 2)
    for name in ("b.M2TS", "c.mts", "d.m2t", "e.tp", "f.vob", "g.wmv", "h.mxf", "i.3g2"):
        (rainy / name).write_bytes(b"x")
    (rainy / "program.ts").write_text("import { rain } from './rain';\n" * 9)
    stderr = run("images", rainy, "-o", tmp_path / "out", "--weights", tiny, "--dry-run").stderr
    endings = ".3g2, .m2t, .m2ts, .mts, .mxf, .tp, .ts, .vob, .wmv"
    assert f"Not read: 9 clips ({endings}); esdnet video takes clips." in stderr.splitlines()
    folder = tmp_path / "clips"
    folder.mkdir()
    command = ("video", folder, "-o", tmp_path / "frames", "--weights", tiny)
    (rainy / "program.ts").rename(folder / "program.ts")
    assert "contains clips" not in run(*command).stderr
    (rainy / "a.ts").rename(folder / "a.ts")
    assert "contains clips, but a folder is taken as numbered frames; name the clips" in run(*command).stderr


def test_no_input_means_no_folder_no_checkpoint_no_table(tmp_path: Path, run: Run) -> None:
    for command in ("images", "energy"):
        result = run(command, tmp_path / "nosuch", *(("-o", tmp_path / "x") if command == "images" else ()))
        assert result.exit_code == 1 and result.stdout == ""
        assert result.stderr == f"{tmp_path / 'nosuch'}: no such file or folder; check the name\n"
    assert not (tmp_path / "x").exists()
    result = run("images", tmp_path / "nosuch", "-o", tmp_path / "x", "--weights", tmp_path / "broken")
    assert result.exit_code == 1 and "broken" not in result.stderr
    run("images", tmp_path / "nosuch", "-o", tmp_path / "x", "--report", tmp_path / "r.json")
    assert load_json(tmp_path / "r.json")["totals"]["failed"] == 1


def test_lists_name_inputs(rainy: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "lines.txt").write_text(f"{rainy / 'a.png'}\n\n{rainy / 'b.jpg'}\n")
    (tmp_path / "zeros.txt").write_bytes(os.fsencode(rainy / "a.png") + b"\0" + os.fsencode(rainy / "c.png") + b"\0")
    lists = [f"@{tmp_path / name}" for name in ("lines.txt", "zeros.txt", "gone.txt")]
    result = run("images", *lists, "-o", tmp_path / "out", "--weights", tiny)
    assert result.exit_code == 1 and "3 done, 0 skipped, 1 failed" in result.stdout
    assert "gone.txt: the list cannot be read: No such file or directory; check the name after the @" in result.stderr


def stream(*arguments: object, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*ESDNET, "images", *map(str, arguments)], input=data, capture_output=True, cwd=ROOT)


@pytest.mark.parametrize("ending, start", [("png", b"\x89PNG"), ("jpg", b"\xff\xd8"), ("tif", b"II*"), ("ppm", b"P6")])
def test_a_stream_is_one_picture(ending: str, start: bytes, tiny: Path, tmp_path: Path, run: Run) -> None:
    source = write(tmp_path / f"a.{ending}")
    run("images", source, "-o", tmp_path / "out", "--weights", tiny)
    done = stream("-", "-o", "-", "--weights", tiny, data=source.read_bytes())
    assert done.returncode == 0
    assert done.stdout.startswith(start) and done.stdout == (tmp_path / "out" / source.name).read_bytes()
    assert b"30x24" in done.stderr and b"1 done, 0 skipped, 0 failed" in done.stderr


def test_a_file_into_a_stream(tiny: Path, tmp_path: Path, run: Run) -> None:
    source = write(tmp_path / "a.png")
    run("images", source, "-o", tmp_path / "out", "--weights", tiny)
    assert stream(source, "-o", "-", "--weights", tiny, "-q").stdout == (tmp_path / "out" / "a.png").read_bytes()


def test_streams_change_format_and_fail_without_output(tiny: Path, tmp_path: Path, run: Run) -> None:
    data = write(tmp_path / "a.png").read_bytes()
    options = ("-o", "-", "--weights", tiny, "--report", tmp_path / "r.json")
    assert stream("-", *options, "--format", "webp", data=data).stdout[8:12] == b"WEBP"
    (image,) = load_json(tmp_path / "r.json")["images"]
    assert (image["input"], image["output"], image["status"]) == ("-", "-", "ok")
    failed = stream("-", *options, data=data[:99])
    assert (failed.returncode, failed.stdout) == (1, b"") and b"-: is truncated or damaged" in failed.stderr
    for arguments in (
        ("-", "-o", tmp_path), ("-", tmp_path / "a.png", "-o", "-"), ("-", "-o", "-", "--shard", "1/2"),
    ):  # fmt: skip
        result = run("images", *arguments)
        assert result.exit_code == 2 and "- is for one picture" in result.stderr


def test_maps_of_one_stream_after_another(tiny: Path, tmp_path: Path) -> None:
    command = ("-", "-o", "-", "--weights", tiny, "--spike-map", tmp_path / "maps")
    one, two = (write(tmp_path / f"{seed}.png", photo(seed=seed)).read_bytes() for seed in (1, 2))
    assert stream(*command, data=one).returncode == 0
    refused = stream(*command, data=two)
    assert refused.returncode == 1 and b"stdin.level1.png already exists" in refused.stderr
    assert stream(*command, "--overwrite", data=two).stdout.startswith(b"\x89PNG")


def test_what_names_no_picture_or_several_is_no_stream(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("")
    write(tmp_path / "in" / "sub" / "a.png")
    for name, phrase in ((f"@{tmp_path / 'none.txt'}", b"the list names nothing"), (tmp_path / "in", b"-r looks into")):
        done = stream(name, "-o", "-", "--weights", tiny)
        assert done.returncode in (1, 2) and not done.stdout and phrase in done.stderr, done.stderr
    assert stream(tmp_path / "in", "-r", "-o", "-", "--weights", tiny).stdout.startswith(b"\x89PNG")
    write(tmp_path / "in" / "b.png")
    assert b"names 2 pictures" in stream(tmp_path / "in", "-r", "-o", "-", "--weights", tiny).stderr


def test_two_reports_are_not_one(tiny: Path, rainy: Path, tmp_path: Path, run: Run) -> None:
    reports = ("--report", tmp_path / "a.json", "--report", tmp_path / "b.csv")
    result = run("energy", rainy, "--weights", tiny, *reports)
    assert result.exit_code == 2 and "one file, not 2" in result.stderr


def test_a_report_named_in_the_environment_may_hold_a_colon(
    tmp_path: Path, run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / f"12{os.pathsep}30.json"
    monkeypatch.setenv("ESDNET_REPORT", str(report))
    assert run("energy", write(tmp_path / "a.png"), "--weights", tiny).exit_code == 0
    assert load_json(report)["totals"]["ok"] == 1


def test_csv_is_harmless_in_spreadsheets(tiny: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["=1+1.png", "+a.png", "-a.png", "@a.png", "plain.png"]
    for name in (*names, "雨.png"):
        write(tmp_path / name, photo(8, 8))
    for report in ("r.csv", "r.layers.csv"):
        run("energy", "--weights", tiny, "--report", report, "--", *names)
        text = (tmp_path / report).read_text()
        assert text.isascii()
        inputs = {row["input"] for row in csv.DictReader(text.splitlines())}
        assert inputs == {"'=1+1.png", "'+a.png", "'-a.png", "'@a.png", "plain.png"}
        run("energy", "雨.png", "--weights", tiny, "--report", report)
        assert (tmp_path / report).read_bytes().startswith(b"\xef\xbb\xbf"), "Excel takes it for UTF-8"


def test_names_as_long_as_the_system_takes(tiny: Path, tmp_path: Path, run: Run) -> None:
    for last in "xy":
        write(tmp_path / "in" / f"{'雨' * 83}{last}.png", photo(8, 8))  # 254 bytes
    options = ("--weights", tiny, "--spike-map", tmp_path / "maps")
    result = run("images", tmp_path / "in", "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.stderr
    maps = [path.name for path in (tmp_path / "maps").glob("*.png")]
    assert len(maps) == 6 and all("~" in name and ".level" in name for name in maps)
    result = run("images", tmp_path / "in", "-o", tmp_path / "webp", *options[:2], "--format", "webp", "--dry-run")
    assert result.stdout.count("output name would exceed 255 bytes; rename the input") == 0
    write(tmp_path / "in" / f"{'z' * 251}.png", photo(8, 8))
    result = run("images", tmp_path / "in", "-o", tmp_path / "webp", *options[:2], "--format", "webp")
    assert "name would exceed 255 bytes; rename the input" in result.stderr and "2 done" in result.stdout
