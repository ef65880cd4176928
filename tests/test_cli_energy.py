"""esdnet energy: the same figures as images, and no picture written."""

from __future__ import annotations

import csv
import json
import re
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Run, load_json, photo, write

from esdnet_cli.model.low_precision import int8_works

PRECISIONS = ("fp32", "bf16", *(["int8"] if int8_works() else []))


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


def test_lower_precisions_run(tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "a.png")
    rates = {}
    for precision in PRECISIONS:
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
    assert list(rates.values()) == pytest.approx([rates["fp32"]] * len(rates), rel=0.05)


def test_bad_inputs_count_as_failed(tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "a.png").write_bytes(b"nothing")
    result = run("energy", tmp_path / "a.png", "--weights", tiny)
    assert result.exit_code == 1 and "0 done, 0 skipped, 1 failed" in result.stdout


def test_layers_add_up_to_pictures_and_pictures_to_the_total(tiny: Path, tmp_path: Path, run: Run) -> None:
    for name, size in (("a", (16, 28)), ("b", (33, 20))):
        write(tmp_path / f"{name}.png", photo(*size))
    run("energy", tmp_path, "--weights", tiny, "--report", tmp_path / "r.json")
    report = load_json(tmp_path / "r.json")
    for key in ("mac", "ac"):
        for image in report["images"]:
            assert sum(layer[key] for layer in image["layers"]) == image[key]
        assert sum(image[key] for image in report["images"]) == report["totals"][key]
    layers = [layer for image in report["images"] for layer in image["layers"]]
    assert sum(layer["spikes"] for layer in layers) == report["totals"]["spikes"]
    assert sum(layer["energy_mj"] for layer in layers) == pytest.approx(report["totals"]["energy_mj"], rel=1e-12)
    assert sum(report["totals"]["energy_by_cause_mj"].values()) == pytest.approx(report["totals"]["energy_mj"])
    # 28 wide is two tiles of 16 that share 4; 33x20 is 3 by 2 tiles
    assert [image["tiling_share"] for image in report["images"]] == pytest.approx([1 - 28 / 32, 1 - 33 * 20 / 6 / 256])


def test_presets_and_costs(tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "a.png")

    def measured(*options: object) -> dict[str, float]:
        run("energy", tmp_path / "a.png", "--weights", tiny, "--report", tmp_path / "r.json", *options)
        report = load_json(tmp_path / "r.json")
        constants = {key: report["run"][key] for key in ("pj_mac", "pj_ac", "word_bits")}
        figures = ("mac", "ac", "energy_mj", "memory_mj", "energy_ann_mj", "energy_ann_int8_mj")
        return constants | {key: report["images"][0][key] for key in figures}

    fp32, int8 = measured(), measured("--energy-preset", "int8-45nm")
    assert (fp32["pj_mac"], fp32["pj_ac"], fp32["word_bits"]) == (4.6, 0.9, 32)
    assert int8["energy_mj"] == pytest.approx((int8["mac"] * 0.23 + int8["ac"] * 0.03) * 1e-9)
    assert int8["energy_ann_mj"] == int8["energy_ann_int8_mj"] == fp32["energy_ann_int8_mj"]
    assert int8["memory_mj"] < fp32["memory_mj"]
    mixed = measured("--energy-preset", "fp16-45nm", "--pj-ac", "0.1")
    assert (mixed["pj_mac"], mixed["pj_ac"], mixed["word_bits"]) == (1.5, 0.1, 16)
    constants = load_json(tmp_path / "r.json")["run"]
    assert (constants["sum_bits"], constants["pj_memory_bit"], constants["pj_dram_bit"]) == (16, 100 / 64, 1300 / 64)
    assert "each number moved once" in constants["memory_model"] and "nothing reused" in constants["no_reuse_model"]


def test_held_against_its_twin_in_many_ways(tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "a.png")
    result = run(
        "energy", tmp_path / "a.png", "--weights", tiny, "--report", tmp_path / "r.json", "--precision", "fp32"
    )
    totals = load_json(tmp_path / "r.json")["totals"]
    views = {view["name"]: view for view in totals["views"]}

    def equals(name: str, network_mj: float, twin_mj: float) -> None:
        view = views[name]
        assert (view["network_mj"], view["twin_mj"]) == pytest.approx((network_mj, twin_mj)), name
        assert view["below"] == pytest.approx(1 - network_mj / twin_mj)
        assert name in result.stdout

    strict, ann = totals["energy_mj"], totals["energy_ann_mj"]
    equals("fp32", strict, ann)
    equals("fp32, every neuron firing", totals["energy_dense_snn_mj"], ann)
    equals("fp32, each number moved once", strict + totals["memory_mj"], ann + totals["ann_memory_mj"])
    equals("fp32, nothing reused", strict + totals["memory_no_reuse_mj"], ann + totals["ann_memory_no_reuse_mj"])
    ann_macs = ann / 4.6e-9
    equals("int8, 8-bit sums", (totals["mac"] * 0.23 + totals["ac"] * 0.03) * 1e-9, ann_macs * 0.23e-9)
    equals("int8, 32-bit sums", (totals["mac"] * 0.3 + totals["ac"] * 0.1) * 1e-9, ann_macs * 0.3e-9)
    equals("formats as run, twin int8, 32-bit sums", strict, ann_macs * 0.3e-9)  # it ran in fp32
    layers = load_json(tmp_path / "r.json")["images"][0]["layers"]
    driven = [layer for layer in layers if layer["kind"] == "conv" and layer["saturated"]]
    synapses = sum(layer["ann_mac"] for layer in driven)
    sparse = ann - synapses / 2 * 4.6e-9
    equals("fp32, twin skips its zeros (50%)", strict, sparse)
    no_reuse = strict + totals["memory_no_reuse_mj"]
    equals("fp32, nothing reused, twin reuses and skips", no_reuse, sparse + totals["ann_memory_mj"])
    assert min(views, key=lambda name: views[name]["below"]) == "fp32, nothing reused, twin reuses and skips"
    assert totals["accumulations_per_synapse"] == pytest.approx(sum(layer["ac"] for layer in driven) / synapses)
    assert not any("DRAM" in name for name in views), "0.4 MB of weights fit"


def test_the_width_that_costs_the_same_costs_the_same(tmp_path: Path, run: Run) -> None:
    """Run the ordinary network's shapes at that width, and one channel more."""
    from conftest import TINY, tiny_network

    from esdnet_cli.checkpoint.store import save

    write(tmp_path / "a.png", photo(32, 32))

    def measured(dim: int) -> dict[str, float]:
        config = replace(TINY, dim=dim, shortcut="spike", timesteps=1)
        save(tmp_path / "w.safetensors", tiny_network(config).state_dict(), config, {})
        run("energy", tmp_path / "a.png", "--weights", tmp_path / "w.safetensors", "--report", tmp_path / "r.json")
        totals: dict[str, float] = load_json(tmp_path / "r.json")["totals"]
        return totals

    wide = measured(16)
    dim = int(wide["equal_cost_dim"])
    assert 1 < dim < 16
    cost = {d: measured(d)["energy_ann_mj"] for d in (dim, dim + 1)}
    assert cost[dim] <= wide["energy_mj"] < cost[dim + 1]


@pytest.mark.parametrize("precision, preset, told", [
    ("bf16", "fp32-45nm", "computed in bf16, priced as 32-bit numbers (4.6 pJ a MAC, 0.9 pJ an AC)"),
    ("bf16", "fp16-45nm", "priced as 16-bit numbers, yet layers in fp32 are "),
    ("fp32", "fp32-45nm", ""),
    ("fp32", "int8-45nm", "computed in fp32, priced as 8-bit numbers (0.23 pJ a MAC, 0.03 pJ an AC)"),
])  # fmt: skip
@pytest.mark.parametrize("command", ["energy", "images"])
def test_says_when_another_number_format_is_priced(
    command: str, precision: str, preset: str, told: str, tiny: Path, tmp_path: Path, run: Run
) -> None:
    write(tmp_path / "a.png", photo(16, 16))
    output = ("-o", tmp_path / "out") if command == "images" else ()
    options = ("--weights", tiny, "--precision", precision, "--energy-preset", preset)
    stdout = run(command, tmp_path / "a.png", *output, *options).stdout
    assert (told in stdout) if told else ("priced" not in stdout)


def test_the_fields_own_names(tmp_path: Path, run: Run) -> None:
    from conftest import INTEGER, TINY, tiny_network

    from esdnet_cli.checkpoint.store import save

    write(tmp_path / "a.png", photo(32, 40))
    for config in (TINY, INTEGER):
        network = tiny_network(config)
        save(tmp_path / "w.safetensors", network.state_dict(), config, {"tile": "16", "overlap": "4"})
        run("energy", tmp_path / "a.png", "--weights", tmp_path / "w.safetensors", "--report", tmp_path / "r.json")
        report = load_json(tmp_path / "r.json")
        totals, (image,) = report["totals"], report["images"]
        convs = [layer for layer in image["layers"] if layer["kind"] in ("conv", "embedding")]
        neurons = [layer for layer in image["layers"] if layer["kind"] == "neuron"]
        for entry in (totals, image):
            assert entry["effective_acs"] == sum(layer["ac"] for layer in convs)
            assert 0 < entry["effective_macs"] <= sum(layer["mac"] for layer in convs)
            assert entry["synops"] == entry["effective_macs"] + entry["effective_acs"]
            assert entry["dense_ops"] == sum(layer["dense"] for layer in convs)
            assert entry["membrane_updates"] == sum(layer["neurons"] for layer in neurons) * config.timesteps
            assert entry["activation_sparsity"] == pytest.approx(1 - entry["spike_rate"])
        tensors = [*network.parameters(), *network.buffers()]
        assert totals["footprint_bytes"] == sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        tiles = image["tiling_share"] and round(40 * 32 / (1 - image["tiling_share"]) / 256)
        states = [4 * layer["neurons"] // tiles for layer in neurons] if config.timesteps > 1 else [0]
        assert (totals["state_bytes_largest_layer"], totals["state_bytes"]) == (max(states), sum(states))


def test_mean_and_deviation_over_pictures(tiny: Path, tmp_path: Path, run: Run) -> None:
    for index in range(3):
        write(tmp_path / "in" / f"{index}.png", photo(24, 24 + 8 * index, index))
        write(tmp_path / "clean" / f"{index}.png", photo(24, 24 + 8 * index, index + 9))
    pairs = ("--input", tmp_path / "in", "--target", tmp_path / "clean")
    result = run("evaluate", *pairs, "--weights", tiny, "--report", tmp_path / "r.json")
    report = load_json(tmp_path / "r.json")
    for key in ("spike_rate", "energy_mj", "psnr_y", "ssim_y"):
        values = [image[key] for image in report["images"]]
        assert report["totals"]["mean"][key] == pytest.approx(statistics.fmean(values))
        assert report["totals"]["std"][key] == pytest.approx(statistics.stdev(values))
    assert "mean ± deviation" in result.stdout
    assert max(map(len, result.stdout.splitlines()[2:])) < 80 + len(str(tmp_path))


def test_a_row_for_each_layer_on_request(tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "a.png")
    write(tmp_path / "b.png").write_bytes(b"nothing")
    run("energy", tmp_path, "--weights", tiny, "--report", tmp_path / "r.layers.csv")
    run("energy", tmp_path, "--weights", tiny, "--report", tmp_path / "r.json")
    with (tmp_path / "r.layers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    layers = load_json(tmp_path / "r.json")["images"][0]["layers"]
    assert [row["name"] for row in rows] == [layer["name"] for layer in layers]
    assert [int(row["ac"]) for row in rows] == [layer["ac"] for layer in layers]
    assert {row["input"] for row in rows} == {str(tmp_path / "a.png")}


def test_terminal_fits_80_columns_and_says_what_energy_is_made_of(
    tiny: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.png")
    result = run("energy", "a.png", "--weights", tiny, "-v")
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert (
        "█" in result.stdout
        and "real-valued shortcuts" in result.stdout
        and "strict is above ann at any rate" in result.stdout
    )
    shares = [float(share) for share in re.findall(r" mJ +([0-9.]+) %  ", result.stdout)]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    assert shares == sorted(shares, reverse=True)


def test_reports_of_the_same_weights_under_two_names_merge(tiny: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "renamed.safetensors").write_bytes(tiny.read_bytes())
    reports = []
    for weights in (tiny, tmp_path / "renamed.safetensors"):
        picture = write(tmp_path / f"{weights.stem}.png", photo(16, 16))
        reports.append(tmp_path / f"{weights.stem}.json")
        assert run("energy", picture, "--weights", weights, "--report", reports[-1]).exit_code == 0
    merged = run("energy", "--merge", *reports)
    assert merged.exit_code == 0 and "2 done" in merged.stdout, merged.output


@pytest.mark.parametrize("change", [{"config": []}, {"config": None}, {"config": {"levels": 10**400}}], ids=str)
def test_a_report_with_nonsense_for_weights_is_refused(
    change: dict[str, object], tiny: Path, tmp_path: Path, run: Run
) -> None:
    report = tmp_path / "r.json"
    run("energy", write(tmp_path / "a.png", photo(16, 16)), "--weights", tiny, "--report", report)
    content = load_json(report)
    content["weights"] |= change
    report.write_text(json.dumps(content))
    result = run("energy", "--merge", report)
    assert result.exit_code == 2 and "unexpected" not in result.stderr, result.output
