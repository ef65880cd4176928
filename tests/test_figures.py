"""The table of figures: what schema 1 promises, and that all kinds of report say the same."""

from __future__ import annotations

import csv
import math
import re

import pytest

from esdnet_cli.energy.cost import Activity, EnergyCosts, LayerActivity
from esdnet_cli.metrics import Quality, SpikeRain
from esdnet_cli.pipeline.results import ImageResult, RunInfo
from esdnet_cli.report.figures import FIGURES, report_dict, to_csv, to_layers_csv, totals
from esdnet_cli.report.page import to_html
from esdnet_cli.report.papers import to_tex
from esdnet_cli.report.rows import row, total_rows

HOW = ["input_sha256", "scales"]
FACTS = ["input", "output", "status", "error", "width", "height", "seconds", "spike_rate"]
COUNTED = [
    "mac", "ac", "energy_mj", "energy_spike_only_mj", "energy_ann_mj", "energy_ann_int8_mj", "energy_dense_snn_mj",
    "memory_mj", "ann_memory_mj", "memory_no_reuse_mj", "ann_memory_no_reuse_mj", "weights_dram_mj",
    "energy_as_run_mj", "break_even_spike_rate", "tiling_share",
]  # fmt: skip
FIELD = ["synops", "effective_macs", "effective_acs", "dense_ops", "membrane_updates", "activation_sparsity"]
SCORES = [
    "psnr_y", "ssim_y", "psnr_y_published", "ssim_y_published", "psnr_rgb", "ssim_rgb",
    "spike_rain_r", "spike_rain_r_level1", "spike_rain_r_level2", "spike_rain_r_level3",
]  # fmt: skip
LAYER = [
    "name", "kind", "precision", "cause", "spike_rate", "energy_mj", "spikes", "neurons", "mac", "ac", "dense",
    "ann_mac", "nonzero", "inputs", "saturated", "words", "bits", "ann_words", "weights",
]  # fmt: skip
COSTS = EnergyCosts()
RUN = RunInfo(None, COSTS, "esdnet evaluate", "2026-01-01T00:00:00+00:00", 3.0)


def picture(name: str = "a.png", psnr: float = 31.234, millions: int = 1) -> ImageResult:
    layers = (
        LayerActivity("embed", "embedding", "embedding", mac=2 * 10**6, dense=2 * 10**6, ann_mac=2 * 10**6, inputs=300),
        LayerActivity("lif", "neuron", "membrane updates", spikes=1, neurons=8, mac=32),
        LayerActivity("conv", "conv", "spike-driven convolutions", ac=millions * 10**6, saturated=10**8),
    )
    scores = Quality(psnr, 0.91234, 30.0, 0.9, 29.0, 0.89)
    return ImageResult(
        name, None, "ok", None, 9, 10, 2.5, Activity(4, layers), scores, SpikeRain(0.5, 0.4, None, 0.2)
    )  # fmt: skip


def test_keys_of_schema_1_and_their_order() -> None:
    results = [picture(), ImageResult("b.png", None, "failed", "is broken")]
    summed = totals(results, COSTS)
    assert to_csv(results, RUN, summed).splitlines()[0].split(",") == [*FACTS, *COUNTED, *FIELD, *SCORES]
    assert to_layers_csv(results, RUN, summed).splitlines()[0].split(",") == ["input", *LAYER]
    report = report_dict(results, RUN, summed)
    done, failed = report["images"]
    assert [*done] == [*FACTS, *COUNTED, *FIELD, *SCORES, *HOW, "layers"] and [*done["layers"][0]] == LAYER
    assert [*failed] == [*FACTS, *COUNTED, *FIELD, *HOW, "layers"], "no scores of what was not scored"
    assert [*report["totals"]] == [
        "ok", "skipped", "failed", "megapixels", "seconds", "spike_rate", "spikes", *COUNTED, "energy_by_cause_mj",
        "mean", "std", *SCORES,
    ]  # fmt: skip


def test_every_kind_of_report_says_the_same() -> None:
    results = [picture(), picture("b.png", 28.5, millions=3)]
    summed = totals(results, COSTS)
    strict = 2000032 * 4.6e-9 + 1e6 * 0.9e-9
    assert FIGURES["energy_mj"].with_unit(strict) == "0.010 mJ"
    entry = report_dict(results, RUN, summed)["images"][0]
    assert entry["energy_mj"] == pytest.approx(strict) and entry["spike_rate"] == 1 / 32
    (cells, _) = csv.DictReader(to_csv(results, RUN, summed).splitlines())
    for key in ("energy_mj", "spike_rate", "psnr_y"):
        assert float(cells[key]) == entry[key]
    shown = "9x10 31.23 0.9123 29.00 2.50 3.12 0.010 0.0092 0.0092 a.png"
    assert row(results[0], COSTS, scored=True).split() == shown.split()
    table = re.search(r'id="table".*?</table>', to_html(results, RUN, summed), re.DOTALL)
    assert table and '<th scope="col">Strict, mJ</th>' in table[0]
    assert "<td>31.23</td><td>0.9123</td><td>2.50</td><td>3.12</td><td>0.010</td>" in table[0]
    assert r"a.png & 3.12 & 0.010 & 0.0092 & 0.0092 & 31.23 & 0.9123 \\" in to_tex(results, RUN, summed)
    head = r"Picture & Spike rate, \% & Strict, mJ & Spike-only, mJ & ANN, mJ & PSNR, dB & SSIM \\"
    assert head in to_tex(results, RUN, summed)


def test_mean_and_deviation_are_of_what_is_finite() -> None:
    summed = totals([picture(), picture("b.png", math.inf)], COSTS)
    energies = ["energy_mj", "energy_spike_only_mj", "energy_ann_mj"]
    assert [*summed.spread] == ["spike_rate", *energies, "ssim_y"], "equal pictures have no mean PSNR"
    table = to_tex([picture(), picture("b.png", math.inf)], RUN, summed).splitlines()
    assert next(line for line in table if line.startswith("b.png")).split(" & ")[5] == r"$\infty$"
    assert next(line for line in table if line.startswith("Mean")).split(" & ")[5] == "--"
    assert report_dict([picture(psnr=math.inf)], RUN, summed)["images"][0]["psnr_y"] is None
    assert "inf" in row(picture(psnr=math.inf), COSTS, scored=True)
    assert "2 done" in total_rows(summed, RUN)[1]
