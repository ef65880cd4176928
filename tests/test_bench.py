"""esdnet bench: the published way gives the same picture; figures hang together."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import INTEGER, TINY, TWO_STEPS, Run, load_json, photo, tiny_network, write

import esdnet_cli
from esdnet_cli.bench.measure import Bench, Bound, _warmed_up, bench, bound
from esdnet_cli.bench.published import published
from esdnet_cli.commands.bench import lines
from esdnet_cli.energy.cost import LayerActivity
from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.model.inference import Inference


@pytest.mark.parametrize("config", [TINY, dataclasses.replace(TINY, shortcut="spike"), INTEGER, TWO_STEPS], ids=str)
def test_the_published_way_computes_the_same(config: ESDNetConfig) -> None:
    network, images = tiny_network(config), torch.rand(1, 3, 24, 32)
    ours = Inference(network, torch.device("cpu"), "fp32")(images)
    torch.testing.assert_close(published(network, torch.device("cpu"))(images), ours, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_the_published_way_leaves_nothing_out() -> None:
    network = tiny_network(INTEGER)
    network.refinement.sa[3].weight.data.zero_()
    called: list[bool] = []
    network.refinement.sa[0].register_forward_hook(lambda *_: called.append(True))
    published(network, torch.device("cpu"))(torch.rand(1, 3, 24, 32))
    assert called


@pytest.mark.parametrize("rounds", [1, 3])
def test_figures_hang_together(rounds: int, tiny: Path, two_cores: None) -> None:
    measured = bench(esdnet_cli.load(tiny, device="cpu"), photo(40, 50), rounds, against_published=True)
    assert measured.convolution_peak_share > measured.peak_share
    assert 50 < measured.peak_memory_mib < 20_000
    assert set(measured.stages_s) == {
        "decode", "convolutions", "batch norm", "neurons", "attention", "between layers", "cut and blend",
        "encode",
    }  # fmt: skip
    assert all(seconds > 0 for seconds in measured.stages_s.values())
    assert 0 < measured.bound.operations_s == pytest.approx(measured.gmac / measured.peak_gmac_per_s)
    other = measured.published
    assert other is not None and other.largest_difference <= 1 and other.within_one_level == 1
    assert other.speedup_quartiles[0] <= other.speedup <= other.speedup_quartiles[1]


@pytest.mark.parametrize(("device", "passes"), [("cpu", [True]), ("cuda", [True, False, False])])
def test_no_round_pays_for_a_recording(device: str, passes: list[bool]) -> None:
    seen: list[bool] = []
    _warmed_up(lambda image, count=True: seen.append(count), photo(9, 9), torch.device(device))  # type: ignore[arg-type]
    assert seen == passes


def test_rates_and_shares_follow_in_terminal_and_json_alike() -> None:
    measured = Bench(
        device="cpu", processor="x", threads=2, precision="int8", tile=80, overlap=8, tile_shape="square",
        width=500, height=400, rounds=1,
        seconds=0.5, gmac=40.0, peak_gmac_per_s=400.0, peak_memory_mib=300.0,
        stages_s={"convolutions": 0.25, "neurons": 0.25}, bound=Bound(0.125, 0.25, 2.5, 10.0), published=None,
    )  # fmt: skip
    told = measured.to_dict()
    assert (told["images_per_s"], told["megapixels_per_s"], told["gmac_per_s"]) == (2, 0.4, 80)
    assert (told["peak_share"], told["convolution_peak_share"], told["bound"]["seconds"]) == (0.2, 0.4, 0.25)
    assert all(told[field.name] is not None for field in dataclasses.fields(Bench) if field.name != "published")
    shown = "\n".join(lines(measured, "small"))
    assert "2.000 /s" in shown and "0.4000 /s" in shown and "80.0 /s" in shown
    assert "20.0 % of it reached, 40.0 % in convolutions" in shown and "0.250 s     the longer of" in shown


def test_dense_operations_are_those_of_the_energy_report(tiny: Path, tmp_path: Path, run: Run, two_cores: None) -> None:
    write(tmp_path / "a.png", photo(40, 50))
    report = ("--weights", tiny, "--report", tmp_path / "bench.json")
    result = run("bench", tmp_path / "a.png", "--rounds", 1, *report)
    assert result.exit_code == 0 and "% of it reached" in result.stdout
    run("energy", tmp_path / "a.png", "--weights", tiny, "--report", tmp_path / "energy.json")
    layers = load_json(tmp_path / "energy.json")["images"][0]["layers"]
    assert load_json(tmp_path / "bench.json")["gmac"] == pytest.approx(sum(layer["dense"] for layer in layers) / 1e9)


def test_the_bound_follows_from_counts() -> None:
    driven, real = ("conv", "spike-driven convolutions", "int8"), ("conv", "refinement and output", "fp32")
    layers = [
        LayerActivity("lif", "neuron", "membrane updates", mac=1000, words=1500, bits=1000),  # 500 words of state
        LayerActivity("conv", *driven, dense=8000, inputs=1000, words=2100, bits=1000, weights=100),
        LayerActivity("refine", *real, mac=600, dense=600, inputs=50, words=90, weights=10),
    ]
    least = bound(layers, "int8", {"int8": 4.0, "fp32": 2.0}, bandwidth=10.0)
    assert least.operations_s == pytest.approx((8000 / 4 + 600 / 2) / 1e9)
    assert least.gigabytes == pytest.approx((4 * (1500 + 2000 + 80) + 1000 + 1000) / 1e9)  # spikes written, and read
    assert least.traffic_s == pytest.approx(least.gigabytes / 10)
    assert least.seconds == least.operations_s > least.traffic_s
    # what the convolution before them fires, the neurons do not read, and no sum of theirs is written
    fired = bound(layers, "int8", {"int8": 4.0, "fp32": 2.0}, bandwidth=10.0, fired={"lif"})
    assert least.gigabytes - fired.gigabytes == pytest.approx(4 * 2 * 1000 / 1e9)
    slow = bound(layers, "int8", {"int8": 4.0, "fp32": 2.0}, bandwidth=1.0)
    assert slow.seconds == slow.traffic_s == pytest.approx(10 * least.traffic_s)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("absent.png",), "absent.png: No such file or directory; check that it exists, "),
        (("--report", "bench.csv"), "bench.csv: unknown file name ending; use .json"),
        (("bad.png",), "bad.png: "),
    ],
    ids=str,
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.png").write_bytes(b"nothing")
    result = run("bench", *arguments)
    assert result.exit_code == 2 and message in result.stderr.splitlines()[-1]


def test_the_pattern_is_always_the_same() -> None:
    from esdnet_cli.bench.pattern import read_or_make

    np.testing.assert_array_equal(read_or_make(None), read_or_make(None))
    assert read_or_make(None).shape == (321, 481, 3)
