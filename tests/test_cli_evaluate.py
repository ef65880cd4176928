"""esdnet evaluate: scores of pairs, with and without the network."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, load_json, photo, read, write

from esdnet_cli.metrics import quality


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[Path, Path]:
    for index, name in enumerate(("a.png", "sub/b.png")):
        target = photo(24, 30 + index, index)
        write(tmp_path / "input" / name, np.clip(target.astype(int) + 20 + index, 0, 255).astype(np.uint8))
        write(tmp_path / "target" / name, target)
    return tmp_path / "input", tmp_path / "target"


def test_scores_are_those_of_the_files_that_images_writes(
    pairs: tuple[Path, Path], tmp_path: Path, run: Run, tiny: Path
) -> None:
    inputs, targets = pairs
    report, derained = tmp_path / "e.json", tmp_path / "derained"
    done = run("evaluate", "--input", inputs, "--target", targets, "-r", "--weights", tiny, "--report", report)
    assert done.exit_code == 0, done.output
    assert run("images", inputs, "-r", "-o", derained, "--weights", tiny).exit_code == 0
    images = load_json(report)["images"]
    for image, name in zip(images, ("a.png", "sub/b.png")):
        expected = quality(read(derained / name)[..., ::-1], read(targets / name)[..., ::-1])
        assert {key: image[key] for key in vars(expected)} == pytest.approx(vars(expected))
        assert image["energy_mj"] > 0 and image["output"] is None
    totals = load_json(report)["totals"]
    assert totals["psnr_y"] == pytest.approx(np.mean([image["psnr_y"] for image in images]))
    assert totals["ssim_y"] == pytest.approx(np.mean([image["ssim_y"] for image in images]))
    (total,) = (line for line in done.stdout.splitlines() if line.endswith("  total"))
    assert f"{totals['psnr_y']:.2f}" in total
    assert max(map(len, done.stdout.splitlines()[2:])) <= 80 + len(f"{inputs}/sub/b.png") - 13
    assert not list(inputs.rglob("*.json")), "nothing is written beside the pictures"


def test_merged_reports_keep_their_scores(pairs: tuple[Path, Path], tmp_path: Path, run: Run, tiny: Path) -> None:
    inputs, targets = pairs
    whole, merged = tmp_path / "e.json", tmp_path / "all.json"
    run("evaluate", "--input", inputs, "--target", targets, "-r", "--weights", tiny, "--report", whole)
    done = run("energy", "--merge", whole, "--report", merged)
    assert done.exit_code == 0 and "PSNR" in done.stdout.splitlines()[0]
    run("energy", targets, "-r", "--weights", tiny, "--report", tmp_path / "unscored.json")
    mixed = run("energy", "--merge", whole, tmp_path / "unscored.json").stdout.splitlines()
    assert {line.index(str(tmp_path)) for line in mixed if str(tmp_path) in line} == {mixed[0].index("picture")}
    assert load_json(merged)["images"] == load_json(whole)["images"]
    before, after = load_json(whole)["totals"], load_json(merged)["totals"]
    scores = {key for key in before if key.startswith(("psnr", "ssim", "spike_rain"))}
    assert len(scores) == 10 and {key: after[key] for key in scores} == {key: before[key] for key in scores}
    run("energy", inputs, "-r", "--weights", tiny, "--report", tmp_path / "counts.json")
    for reports in ((whole, tmp_path / "counts.json"), (tmp_path / "counts.json", whole)):
        assert run("energy", "--merge", *reports, "--report", merged).exit_code == 0
        assert load_json(merged)["totals"]["psnr_y"] == before["psnr_y"], "in either order"


def test_as_is_scores_the_files_as_they_stand(pairs: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    inputs, targets = pairs
    done = run("evaluate", "--input", inputs, "--target", targets, "--as-is", "--report", tmp_path / "e.csv",
               "--weights", "nowhere.safetensors")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "mJ" not in done.stdout
    (row,) = csv.DictReader((tmp_path / "e.csv").read_text().splitlines())
    expected = quality(read(inputs / "a.png")[..., ::-1], read(targets / "a.png")[..., ::-1])
    assert float(row["psnr_y"]) == pytest.approx(expected.psnr_y)
    assert row["energy_mj"] == ""
    assert run("evaluate", "--input", inputs, "--target", targets, "--as-is", "--report",
               tmp_path / "e.json").exit_code == 0  # fmt: skip
    assert load_json(tmp_path / "e.json")["weights"] is None


def test_equal_pictures_are_infinitely_good_and_the_report_stays_json(
    pairs: tuple[Path, Path], tmp_path: Path, run: Run
) -> None:
    done = run("evaluate", "--input", pairs[1], "--target", pairs[1], "--as-is", "--report", tmp_path / "e.json")
    assert "inf" in done.stdout
    assert load_json(tmp_path / "e.json")["images"][0]["psnr_y"] is None
    assert load_json(tmp_path / "e.json")["images"][0]["ssim_y"] == pytest.approx(1)
    assert "Infinity" not in (tmp_path / "e.json").read_text()


def test_names_of_rain100h_are_understood(tmp_path: Path, run: Run) -> None:
    write(tmp_path / "input" / "rain-001.png")
    write(tmp_path / "target" / "norain-001.png")
    assert run("evaluate", "--input", tmp_path / "input", "--target", tmp_path / "target", "--as-is").exit_code == 0


def test_bad_pairs_fail_alone(pairs: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    inputs, targets = pairs
    write(inputs / "alone.png")
    write(inputs / "other.png", photo(30, 30))
    write(targets / "other.png", photo(30, 31))
    write(inputs / "small.png", photo(8, 8))
    write(targets / "small.png", photo(8, 8))
    write(inputs / "torn.png")
    (targets / "torn.png").write_bytes((inputs / "torn.png").read_bytes()[:100])
    done = run("evaluate", "--input", inputs, "--target", targets, "--as-is", "--report", tmp_path / "e.json")
    assert done.exit_code == 1
    for line in (
        "alone.png: has no target of that name in",
        "other.png: is 30x30, its target 31x30; both must be of one size",
        "small.png: is smaller than 11 pixels",
        "torn.png: its target ",
        "torn.png: is truncated or damaged",
    ):
        assert line in done.stderr
    totals = load_json(tmp_path / "e.json")["totals"]
    assert (totals["ok"], totals["failed"]) == (1, 4)


def test_a_target_of_the_very_name_comes_first(tmp_path: Path, run: Run) -> None:
    inputs, targets = tmp_path / "in", tmp_path / "target"
    for folder in (inputs, targets):
        write(folder / "x.bmp", photo(30, 30, 1))
        write(folder / "x.png", photo(30, 30, 2))
    report = tmp_path / "e.json"
    scored = ("evaluate", "--input", inputs, "--target", targets, "--as-is", "--report", report)
    assert run(*scored).exit_code == 0
    assert [image["psnr_y"] for image in load_json(report)["images"]] == [None, None], "equal: infinite"
    (inputs / "x.bmp").rename(inputs / "x.webp")  # whatever it is
    (inputs / "x.png").unlink()
    ambiguous = run(*scored)
    assert ambiguous.exit_code == 1
    both = f"{targets / 'x.bmp'}, {targets / 'x.png'}"
    assert f"x.webp: has 2 targets of that name ({both}); keep one" in ambiguous.stderr


def test_targets_must_be_a_folder(pairs: tuple[Path, Path], run: Run) -> None:
    refused = run("evaluate", "--input", pairs[0], "--target", "nowhere", "--as-is")
    assert refused.exit_code == 2
    assert "nowhere: is not a folder" in refused.stderr


def test_dry_run_says_what_would_be_scored(pairs: tuple[Path, Path], run: Run, tiny: Path) -> None:
    planned = run("evaluate", "--input", pairs[0], "--target", pairs[1], "--as-is", "--dry-run")
    assert planned.stdout.startswith("score ") and "no network" in planned.stderr
