"""esdnet synth: pairs on disk, the same for the same seed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, photo, read, write


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    write(tmp_path / "clean" / "a.jpg", photo(60, 80))
    write(tmp_path / "clean" / "sub" / "b.png", photo(50, 40, 1))
    return tmp_path / "clean"


def test_the_same_seed_gives_the_same_bytes(clean: Path, tmp_path: Path, run: Run) -> None:
    for folder, seed in (("one", 4), ("two", 4), ("other", 5)):
        assert run("synth", clean, "-r", "-o", tmp_path / folder, "--seed", seed).exit_code == 0
    one = contents(tmp_path / "one")
    assert sorted(one) == ["input/a.png", "input/sub/b.png", "target/a.png", "target/sub/b.png"]
    assert one == contents(tmp_path / "two")
    assert one["input/a.png"] != contents(tmp_path / "other")["input/a.png"]


def test_a_name_that_is_no_utf8(tmp_path: Path, run: Run) -> None:
    (tmp_path / "in").mkdir()
    name = os.fsdecode(b"b\xff.png")
    (tmp_path / "in" / name).write_bytes(write(tmp_path / "z.png").read_bytes())
    done = run("synth", tmp_path / "in", "-o", tmp_path / "out")
    assert done.exit_code == 0 and "1 pairs written" in done.stdout, done.output
    assert (tmp_path / "out" / "target" / name).is_file()


def test_a_picture_keeps_its_rain_when_others_come_and_go(clean: Path, tmp_path: Path, run: Run) -> None:
    run("synth", clean, "-o", tmp_path / "before")
    write(clean / "0.png")
    run("synth", clean, "-o", tmp_path / "after")
    assert contents(tmp_path / "before")["input/a.png"] == contents(tmp_path / "after")["input/a.png"]


def test_from_inside_the_folder_it_is_the_same(
    clean: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(clean / "b.png")
    assert run("synth", clean, "-o", tmp_path / "outside").exit_code == 0
    monkeypatch.chdir(clean)
    assert run("synth", ".", "-o", tmp_path / "inside").exit_code == 0
    assert contents(tmp_path / "inside") == contents(tmp_path / "outside")


def test_what_cannot_be_written_is_named(clean: Path, tmp_path: Path, run: Run) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    refused = run("synth", clean, "-o", file)
    assert refused.exit_code == 2 and f"{file}: cannot be made (File exists); choose another folder" in refused.stderr
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "target").write_text("in the way")
    failed = run("synth", clean, "-o", tmp_path / "out", "-q")
    assert failed.exit_code == 1
    assert f"{clean / 'a.jpg'}: {tmp_path / 'out' / 'target'}" in failed.stderr, failed.stderr


def test_what_gives_no_pair_is_named(clean: Path, tmp_path: Path, run: Run) -> None:
    nowhere = run("synth", tmp_path / "nowhere", "-o", tmp_path / "out")
    assert nowhere.exit_code == 1
    assert nowhere.stderr.count(f"{tmp_path / 'nowhere'}: no such file or folder") == 2, "at once, and at the end"
    quiet = run("synth", tmp_path / "nowhere", "-o", tmp_path / "out", "-q")
    assert quiet.stderr.count("no such file or folder") == 1 and not quiet.stdout
    (clean / "c.png").write_bytes(b"no picture")
    mixed = run("synth", clean, "-o", tmp_path / "out")
    assert mixed.exit_code == 1 and "1 pairs written, 0 already there, 1 failed" in mixed.stdout
    assert "failed: " in mixed.stderr and "c.png" in mixed.stderr


def test_pairs_are_rainy_and_dry(clean: Path, tmp_path: Path, run: Run) -> None:
    light = {}
    for rain in ("light", "heavy"):
        run("synth", clean, "-o", tmp_path / rain, "--rain", rain)
        rainy, dry = (read(tmp_path / rain / kind / "a.png").astype(float) for kind in ("input", "target"))
        assert rainy.shape == dry.shape == (60, 80, 3)
        assert np.abs(dry - read(clean / "a.jpg")).mean() < 8, "the target is the photograph, with a camera's noise"
        light[rain] = (rainy - dry).clip(0).mean()
    assert 0 < light["light"] < light["heavy"]


def test_rain_as_cameras_see_it_has_the_colours_of_the_scene(tmp_path: Path, run: Run) -> None:
    night = np.full((96, 128, 3), 20, np.uint8)
    night[20:40, 30:50] = (255, 160, 30)  # an orange lamp
    for name in "abcdefgh":
        write(tmp_path / "night" / f"{name}.png", night)
    assert run("synth", tmp_path / "night", "-o", tmp_path / "pairs", "--rain", "camera").exit_code == 0
    fell = []
    for name in "abcdefgh":
        rainy, dry = (read(tmp_path / "pairs" / kind / f"{name}.png").astype(float) for kind in ("input", "target"))
        fell.append((rainy - dry)[50:].mean((0, 1)))  # below the lamp
    assert np.mean(fell) > 0.5, "rain adds light"
    red, _, blue = np.transpose(fell)
    assert (red > 1.5 * blue).any() and (abs(red - blue) < 0.1 * red).any(), "the lamp's, or grey"


def test_streaks_come_from_masks(clean: Path, tmp_path: Path, run: Run) -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[:, 7] = 150  # smaller than the picture: repeated in mirror
    write(tmp_path / "streaks" / "m.png", mask)
    assert run("synth", clean, "-o", tmp_path / "out", "--streaks", tmp_path / "streaks").exit_code == 0
    rainy, dry = (read(tmp_path / "out" / kind / "a.png").astype(float) for kind in ("input", "target"))
    columns = (rainy - dry).mean((0, 2))
    assert columns[[7, 32, 47, 72]].min() > 60 > columns[[0, 20, 40, 60]].max()


def test_what_is_there_is_kept_or_said(clean: Path, tmp_path: Path, run: Run) -> None:
    synth = ("synth", clean, "-r", "-o", tmp_path / "out")
    assert "2 pairs written" in run(*synth).stdout
    again = run(*synth)
    assert again.exit_code == 0 and "0 pairs written, 2 already there" in again.stdout
    (tmp_path / "out" / "input" / "a.png").write_bytes(b"mine")
    refused = run(*synth)
    assert refused.exit_code == 1
    assert "a.png already exists and differs; --overwrite replaces it" in refused.stderr
    assert run(*synth, "--overwrite").exit_code == 0
    assert (tmp_path / "out" / "input" / "a.png").read_bytes() != b"mine"


def test_a_bad_photograph_costs_only_itself(clean: Path, tmp_path: Path, run: Run) -> None:
    (clean / "torn.png").write_bytes(b"no picture")
    (clean / "gone.png").symlink_to("nowhere.png")
    done = run("synth", clean, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert "torn.png: is damaged" in done.stderr
    assert "gone.png: No such file or directory; check that it exists, " in done.stderr
    assert "1 pairs written, 0 already there, 2 failed" in done.stdout


def test_an_unusable_folder_of_masks_is_said(clean: Path, tmp_path: Path, run: Run) -> None:
    refused = run("synth", clean, "-o", tmp_path / "out", "--streaks", tmp_path / "nowhere")
    assert refused.exit_code == 2
    assert "nowhere: is not a folder" in refused.stderr


def test_photographs_are_never_among_the_pairs(clean: Path, tmp_path: Path, run: Run) -> None:
    pairs = tmp_path / "pairs"
    before = write(pairs / "target" / "a.png", photo(60, 80)).read_bytes()
    for folder in (pairs, pairs / "target"):
        refused = run("synth", folder, "-o", pairs, "--overwrite")
        assert refused.exit_code == 2 and "both input and output folder" in refused.stderr
    assert contents(pairs) == {"target/a.png": before}
