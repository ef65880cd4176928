"""What goes into a paper: LaTeX tables, and two reports side by side."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import pytest
from conftest import Run, load_json, photo, write


@pytest.fixture
def reports(tiny: Path, tmp_path: Path, run: Run) -> tuple[Path, Path]:
    """Of two tilings of one network; a picture is in each alone."""
    paths = tmp_path / "a.json", tmp_path / "b.json"
    for name, seed in (("x.png", 1), ("y.png", 2), ("50%_{z}.png", 3), ("w.png", 4)):
        write(tmp_path / "in" / name, photo(20, 28, seed))
    for path, names, tile in zip(paths, (("x.png", "50%_{z}.png", "y.png"), ("x.png", "y.png", "w.png")), (16, 0)):
        inputs = [tmp_path / "in" / name for name in names]
        assert run("energy", *inputs, "--weights", tiny, "--tile", tile, "--report", path).exit_code == 0
    return paths


def test_two_reports_side_by_side(reports: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    result = run("energy", "--compare", *reports)
    assert result.exit_code == 0
    a, b = map(load_json, reports)
    assert "2 pictures in both, 1 in A alone, 1 in B alone" in result.stdout
    assert "tiles of 16, overlap 4" in result.stdout and "one piece" in result.stdout
    rows = {row.split()[-1]: row.split() for row in result.stdout.splitlines()[3:]}
    by_name = [{image["input"]: image for image in report["images"]} for report in (a, b)]
    for name in ("x.png", "y.png"):
        mj_a, mj_b, change, _, rate_a, rate_b, _ = rows[str(tmp_path / "in" / name)]
        first, second = (images[str(tmp_path / "in" / name)] for images in by_name)
        assert (float(mj_a), float(mj_b)) == pytest.approx((first["energy_mj"], second["energy_mj"]), abs=6e-4)
        assert float(change) == pytest.approx(100 * (second["energy_mj"] / first["energy_mj"] - 1), abs=0.06)
        assert (float(rate_a), float(rate_b)) == pytest.approx(
            (100 * first["spike_rate"], 100 * second["spike_rate"]), abs=0.006
        )
    total = sum(by_name[0][str(tmp_path / "in" / name)]["energy_mj"] for name in ("x.png", "y.png"))
    assert float(rows["total"][0]) == pytest.approx(total, abs=6e-4)
    of_ann = sum(by_name[1][str(tmp_path / "in" / name)]["energy_ann_mj"] for name in ("x.png", "y.png"))
    assert float(rows["ann"][1]) == pytest.approx(of_ann, abs=6e-4) and "spike-only" in rows
    layers = [row for row in result.stdout.splitlines() if "encoder_level1.0" in row]
    assert len(layers) == 6, "attention is one"
    assert not (tmp_path / "in").joinpath("a.json").exists()


def test_many_times_the_energy_stays_in_its_column(reports: tuple[Path, Path], run: Run) -> None:
    a, b = map(load_json, reports)
    for layer in (layer for image in b["images"] for layer in image["layers"]):
        layer["mac"], layer["ac"] = 30 * layer["mac"], 30 * layer["ac"]
    reports[1].write_text(json.dumps(b))
    heading, row = (
        next(line for line in run("energy", "--compare", *reports).stdout.splitlines() if line.endswith(f"  {name}"))
        for name in ("picture", "total")
    )
    assert row.index("  total") == heading.index("  picture") and re.search(r" \+\d,\d{3} % ", row)


def test_both_sides_are_priced_alike(reports: tuple[Path, Path], run: Run, tmp_path: Path) -> None:
    priced = run("energy", "--compare", *reports, "--energy-preset", "int8-45nm").stdout
    assert "0.23 pJ a MAC, 0.03 pJ an AC" in priced
    run("energy", "--merge", reports[1], "--energy-preset", "int8-45nm", "--report", tmp_path / "c.json")
    mixed = run("energy", "--compare", reports[0], tmp_path / "c.json").stdout
    assert mixed.splitlines()[2:] == run("energy", "--compare", *reports).stdout.splitlines()[2:], "as the first is"


def test_different_pictures_of_one_name_are_not_compared(reports: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    other = json.loads(reports[1].read_text())
    name = other["images"][0]["input"]
    other["images"][0]["input_sha256"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(other))
    before, after = (run("energy", "--compare", reports[0], b).stdout for b in (reports[1], tmp_path / "other.json"))
    assert f"  {name}\n" in before and f"  {name}\n" not in after
    assert "in B alone, 1 of one name of different files\n" in after and "of different files" not in before


def test_what_does_not_compare(reports: tuple[Path, Path], tiny: Path, tmp_path: Path, run: Run) -> None:
    command = (tmp_path / "in" / "w.png", "--weights", tiny, "--report")
    run("energy", *command, tmp_path / "w.json")
    run("images", "-o", tmp_path / "out", *command, tmp_path / "uncounted.json", "--no-energy")
    run("images", "-o", tmp_path / "out", *command, tmp_path / "again.json")
    for arguments, message in (
        (reports[:1], "takes two JSON reports, not 1"),
        ((reports[0], tmp_path / "w.json"), "have no picture in common"),
        ((reports[0], tmp_path / "uncounted.json"), "uncounted.json: has no energy figures: was made with --no-energy"),
        ((reports[0], tmp_path / "again.json"), "again.json: has no energy figures: nothing was computed in its run"),
        ((*reports, "--merge"), "exclude each other"),
        ((*reports, "--report", tmp_path / "r.csv"), "leave out --report"),
    ):
        result = run("energy", "--compare", *arguments)
        assert result.exit_code == 2 and message in result.stderr, message


def test_latex(reports: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    assert run("energy", "--merge", reports[0], "--report", tmp_path / "r.tex").exit_code == 0
    text = (tmp_path / "r.tex").read_text()
    totals = load_json(reports[0])["totals"]
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == text.count(r"\toprule") == 2
    assert r"50\%\_\{z\}.png &" in text
    mean, std = 100 * totals["mean"]["spike_rate"], 100 * totals["std"]["spike_rate"]
    assert rf"Mean and deviation & {mean:.2f} $\pm$ {std:.2f} &" in text
    for view in totals["views"]:
        name = view["name"].replace("%", r"\%")
        assert re.search(rf"^{re.escape(name)} & [\d.]+ & [\d.]+ & {100 * view['below']:.0f} \\\\$", text, re.MULTILINE)
    body = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert {line.count("&") - line.count(r"\&") for line in body} == {3, 4}


def test_latex_of_names_that_a_row_would_take_for_its_own(tiny: Path, tmp_path: Path, run: Run) -> None:
    for name in ("[1] a.png", "*b.png"):
        write(tmp_path / "in" / name)
    with contextlib.chdir(tmp_path / "in"):
        assert run("energy", "[1] a.png", "*b.png", "--weights", tiny, "--report", "r.tex").exit_code == 0
        rows = Path("r.tex").read_text().splitlines()
    assert [row.split(" &")[0] for row in rows if "png" in row and not row.startswith("%")] == [
        "{[}1] a.png",
        "{*}b.png",
    ]


def test_latex_of_scores(tiny: Path, tmp_path: Path, run: Run) -> None:
    for folder, seed in (("in", 1), ("clean", 2)):
        for name in ("a.png", "b.png"):
            write(tmp_path / folder / name, photo(24, 30, seed + len(name)))
    pairs = ("--input", tmp_path / "in", "--target", tmp_path / "clean")
    assert run("evaluate", *pairs, "--weights", tiny, "--report", tmp_path / "r.tex").exit_code == 0
    head = r"Picture & Spike rate, \% & Strict, mJ & Spike-only, mJ & ANN, mJ & PSNR, dB & SSIM \\"
    assert head in (tmp_path / "r.tex").read_text()
    assert run("evaluate", *pairs, "--as-is", "--report", tmp_path / "s.tex").exit_code == 0
    assert "Picture & PSNR, dB & SSIM" in (tmp_path / "s.tex").read_text()
