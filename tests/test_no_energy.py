"""--no-energy: the same pixels, and nothing counted."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from clips import frames_of, make_clip
from conftest import Run, load_json, photo, write

from esdnet_cli.energy.counter import ActivityCounter


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("counts")

    monkeypatch.setattr(ActivityCounter, "__init__", refuse)


def test_images(tiny: Path, tmp_path: Path, run: Run, request: pytest.FixtureRequest) -> None:
    write(tmp_path / "in" / "a.png", photo(16, 20))
    write(tmp_path / "in" / "b.png", photo(20, 16))
    run("images", tmp_path / "in", "-o", tmp_path / "counted", "--weights", tiny)
    request.getfixturevalue("uncounted")
    command = ("images", tmp_path / "in", "-o", tmp_path / "out", "--weights", tiny, "--no-energy", "-v")
    result = run(*command, "--report", tmp_path / "r.json")
    assert result.exit_code == 0, result.stderr
    for name in ("a.png", "b.png"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "counted" / name).read_bytes()
    rows = result.stdout.splitlines()
    assert [row.split()[-5:-1] for row in rows[2:5]] == [["-"] * 4] * 3 and rows[5] == "2 done, 0 skipped, 0 failed"
    assert len(rows) == 6 and "left out" not in result.stderr
    report = load_json(tmp_path / "r.json")
    for entry in (*report["images"], report["totals"]):
        assert entry["seconds"] > 0
        for key in ("spike_rate", "mac", "ac", "energy_mj", "energy_ann_mj", "memory_mj", "tiling_share"):
            assert entry[key] is None, key
    assert [image["layers"] for image in report["images"]] == [[], []]
    again = run("images", tmp_path / "in", "-o", tmp_path / "counted", "--weights", tiny, "--no-energy")
    assert "0 done, 2 skipped" in again.stdout, "the same pixels"
    for ending in ("csv", "html"):
        assert run(*command, "--overwrite", "--report", tmp_path / f"r.{ending}").exit_code == 0
    with (tmp_path / "r.csv").open(newline="") as file:
        assert [row["energy_mj"] for row in csv.DictReader(file)] == ["", ""]
    assert 'id="energy"' not in (tmp_path / "r.html").read_text()


def test_what_was_not_counted_is_no_part_of_the_tiling(tiny: Path, tmp_path: Path, run: Run) -> None:
    for name, options in (("a", ()), ("b", ("--no-energy",))):
        picture = write(tmp_path / f"{name}.png", photo(18, 20))
        report = tmp_path / f"{name}.json"
        run("images", picture, "-o", tmp_path / "out", "--weights", tiny, "--report", report, *options)
    assert run("energy", "--merge", tmp_path / "a.json", tmp_path / "b.json", "--report", tmp_path / "r.json").stdout
    merged, alone = (load_json(tmp_path / f"{name}.json")["totals"] for name in "ra")
    assert merged["tiling_share"] == alone["tiling_share"] > 0
    assert merged["megapixels"] == 2 * alone["megapixels"]


def test_video(tiny: Path, tmp_path: Path, run: Run, request: pytest.FixtureRequest) -> None:
    clip = make_clip(tmp_path / "x.mkv", 3, codec="ffv1", size=(24, 16))
    run("video", clip, "-o", tmp_path / "counted.mkv", "--weights", tiny)
    request.getfixturevalue("uncounted")
    command = ("video", clip, "--weights", tiny, "--no-energy")
    result = run(*command, "-o", tmp_path / "y.mkv", "--report", tmp_path / "r.json")
    assert result.exit_code == 0, result.stderr
    frames, counted = frames_of(tmp_path / "y.mkv"), frames_of(tmp_path / "counted.mkv")
    assert len(frames) == 3 and all(map(np.array_equal, frames, counted))
    assert all(row.split().count("-") == 4 for row in result.stdout.splitlines()[2:4])
    report = load_json(tmp_path / "r.json")
    entries = (*report["images"], *report["clips"], report["totals"])
    assert len(entries) == 5
    assert all(entry["energy_mj"] is None and entry["spike_rate"] is None for entry in entries)
    assert "0 done, 1 skipped" in run(*command, "-o", tmp_path / "counted.mkv").stdout
