"""esdnet energy: the same figures as images, and no picture written."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Run, load_json, photo, write


def figures(path: Path) -> list[dict[str, object]]:
    return [
        {key: image[key] for key in image if key not in ("output", "seconds")} for image in load_json(path)["images"]
    ]


def test_figures_equal_those_of_images_and_nothing_is_written(tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "in" / "a.png")
    write(tmp_path / "in" / "b.png", photo(50, 20))
    assert run("energy", tmp_path / "in", "--weights", tiny, "--report", tmp_path / "e.json").exit_code == 0
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "a.png", "b.png", "e.json", "tiny.safetensors",
    ]  # fmt: skip
    assert [image["output"] for image in load_json(tmp_path / "e.json")["images"]] == [None, None]
    run("images", tmp_path / "in", "-o", tmp_path / "out", "--weights", tiny, "--report", tmp_path / "i.json")
    assert figures(tmp_path / "e.json") == figures(tmp_path / "i.json")


@pytest.mark.parametrize("options", [(), ("--batch", 1), ("--batch", 7)], ids=str)
def test_counts_are_the_same_to_the_last_spike(
    options: tuple[object, ...], tiny: Path, tmp_path: Path, run: Run
) -> None:
    write(tmp_path / "a.png", photo(50, 40))
    run("energy", tmp_path / "a.png", "--weights", tiny, "--report", tmp_path / "first.json")
    run("energy", tmp_path / "a.png", "--weights", tiny, "--report", tmp_path / "second.json", *options)
    assert figures(tmp_path / "first.json") == figures(tmp_path / "second.json")


def test_overlap_and_padding_are_counted_as_executed(tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "a.png", photo(16, 28))
    neurons = {}
    for overlap in (4, 10):
        run("energy", tmp_path / "a.png", "--weights", tiny, "--overlap", overlap, "--report", tmp_path / "r.json")
        neurons[overlap] = sum(layer["neurons"] for layer in load_json(tmp_path / "r.json")["images"][0]["layers"])
    assert neurons[10] * 2 == neurons[4] * 3  # tiles at 0, 12 against 0, 6, 12
    write(tmp_path / "b.png", photo(13, 15))  # padded to 16x16: the size of one tile
    run("energy", tmp_path / "b.png", "--weights", tiny, "--report", tmp_path / "r.json")
    assert sum(layer["neurons"] for layer in load_json(tmp_path / "r.json")["images"][0]["layers"]) * 2 == neurons[4]


def test_membrane_shortcuts_cost_more_than_spike_driven_ones(tmp_path: Path, run: Run) -> None:
    from conftest import TINY, tiny_network

    from esdnet_cli.checkpoint.store import save
    from esdnet_cli.model.config import ESDNetConfig

    write(tmp_path / "a.png")
    energy = {}
    for shortcut in ("membrane", "spike"):
        config = ESDNetConfig.from_dict({**TINY.to_dict(), "shortcut": shortcut})
        save(tmp_path / f"{shortcut}.safetensors", tiny_network(config).state_dict(), config, {})
        run(
            "energy",
            tmp_path / "a.png",
            "--weights",
            tmp_path / f"{shortcut}.safetensors",
            "--report",
            tmp_path / "r.json",
        )
        (energy[shortcut],) = load_json(tmp_path / "r.json")["images"]
    assert energy["spike"]["energy_mj"] < energy["membrane"]["energy_mj"]
    assert energy["spike"]["energy_ann_mj"] == energy["membrane"]["energy_ann_mj"], "their ANN twin is the same"


def test_bfloat16_runs(tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "a.png")
    rates = {}
    for precision in ("fp32", "bf16"):
        command = (
            "energy",
            tmp_path / "a.png",
            "--weights",
            tiny,
            "--precision",
            precision,
            "--report",
            tmp_path / "r.json",
        )
        assert run(*command).exit_code == 0
        report = load_json(tmp_path / "r.json")
        assert report["run"]["precision"] == precision
        rates[precision] = report["totals"]["spike_rate"]
    assert rates["bf16"] == pytest.approx(rates["fp32"], rel=0.05)


def test_bad_inputs_count_as_failed(tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "a.png").write_bytes(b"nothing")
    result = run("energy", tmp_path / "a.png", "--weights", tiny)
    assert result.exit_code == 1 and "0 done, 0 skipped, 1 failed" in result.stdout
