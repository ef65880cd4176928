"""Results as text and files: rows for the terminal, JSON (schema 1) and CSV. Formatting, no arithmetic."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, fields
from typing import Any

from esdnet_cli import __version__
from esdnet_cli.energy.cost import (
    COUNTS,
    LEFT_OUT,
    MEMORY_MODEL,
    PJ_PER_BIT,
    Activity,
    ActivityTotal,
    Energy,
    EnergyCosts,
    break_even_rate,
)
from esdnet_cli.energy.names import NAMES, field_names, footprint_bytes, state_bytes
from esdnet_cli.energy.twin import Comparison, compare
from esdnet_cli.metrics import Quality, SpikeRain
from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.pipeline.results import ImageResult, RunInfo, Totals

SCHEMA = 1
IMAGE_KEYS = (
    "input", "output", "status", "error", "width", "height", "seconds",
    "spike_rate", "mac", "ac", "energy_mj", "energy_spike_only_mj", "energy_ann_mj",
    "energy_ann_int8_mj", "energy_dense_snn_mj", "memory_mj", "ann_memory_mj",
    "memory_no_reuse_mj", "ann_memory_no_reuse_mj", "weights_dram_mj", "energy_as_run_mj", "break_even_spike_rate",
    "tiling_share", *NAMES,
)  # fmt: skip
LAYER_KEYS = ("name", "kind", "precision", "cause", "spike_rate", "energy_mj", *COUNTS)
ENERGY_KEYS = IMAGE_KEYS[IMAGE_KEYS.index("energy_mj") : IMAGE_KEYS.index("tiling_share")]
QUALITY_KEYS = tuple(field.name for field in (*fields(Quality), *fields(SpikeRain)))
_BITS = {"fp32": 32, "bf16": 16, "int8": 8}  # of what spikes drive
_BAR = 12  # characters of a spike rate of 100 %
_SIZE = ("size", "px", 9)  # with the others, and 13 characters of a name, 80 columns
_QUALITY = (("PSNR", "dB", 5), ("SSIM", "", 6), ("PSNR", "RGB", 5))
_ACTIVITY = (("s", "", 6), ("rate", "%", 5), ("strict", "mJ", 7), ("sp-only", "mJ", 7), ("ann", "mJ", 7))


def heading(scored: bool, network: bool) -> tuple[str, str]:
    """Two lines over the rows: what the columns are, and their units."""
    columns = (_SIZE, *(_QUALITY if scored else ()), *(_ACTIVITY if network else ()))
    names, units = (" ".join(f"{column[part]:>{column[2]}}" for column in columns) for part in (0, 1))
    return f"{names}  picture", units


def row(result: ImageResult, costs: EnergyCosts) -> str:
    """One picture's line under the heading; what was skipped or failed says so instead of figures."""
    if result.status == "skipped":
        return f"{'skipped: done before':>46}  {result.input}"
    if result.status == "failed":
        return f"{'failed':>46}  {result.input}"
    parts = [f"{f'{result.width}x{result.height}':>9}", *_scores(result.quality)]
    if result.seconds is not None:
        activity = result.activity
        figures = (activity.spike_rate, activity.energy(costs)) if activity else (None, None)
        parts.append(_figures(result.seconds, *figures))
    return f"{' '.join(parts)}  {result.input}"


def total_rows(totals: Totals, run: RunInfo) -> list[str]:
    """The last lines: wall-clock seconds, rate and energies of everything that was done, mean quality; counts."""
    parts = [f"{f'{totals.megapixels:.2f} MP':>9}", *_scores(totals.quality)]
    if run.model is not None:
        parts.append(_figures(run.seconds, totals.activity.spike_rate, totals.activity.energy))
    means = "; scores are means" if totals.quality else ""
    counts = f"{totals.ok} done, {totals.skipped} skipped, {totals.failed} failed{means}"
    return [f"{' '.join(parts)}  total", counts, *filter(None, [priced(totals, run)])]


def priced(totals: Totals, run: RunInfo) -> str:
    """A line that says so where the number format that ran is not the one that is priced; else empty."""
    if run.model is None or totals.activity.spike_rate is None:
        return ""
    if _BITS.get(run.model.precision) == run.costs.word_bits:
        return ""
    costs = f"{run.costs.word_bits}-bit numbers ({run.costs.pj_mac:g} pJ a MAC, {run.costs.pj_ac:g} pJ an AC)"
    return f"computed in {run.model.precision}, priced as {costs}"


def layer_rows(activity: Activity, costs: EnergyCosts) -> list[str]:
    """One line for each layer, in the order of the data, with a bar for its spike rate; attention is one."""
    lines = [f"{'rate %':>7} {'':{_BAR}} {'G op':>8} {'mJ':>8}  layer"]
    for name, group in itertools.groupby(activity.layers, lambda layer: re.sub(r"\.attn\..*", ".attn", layer.name)):
        layers = list(group)
        rate = layers[0].spike_rate(activity.virtual_steps)
        shown, bar = ("", "") if rate is None else (f"{100 * rate:.2f}", "█" * round(_BAR * rate))
        operations = sum(layer.mac + layer.ac for layer in layers) / 1e9
        energy = sum(layer.strict_mj(costs) for layer in layers)
        lines.append(f"{shown:>7} {bar:<{_BAR}} {digits(operations):>8} {digits(energy):>8}  {name}")
    return lines


def summary_rows(totals: Totals, run: RunInfo) -> list[str]:
    """What the run's energy is made of, and what it is held against: at most 80 columns."""
    energy, activity, costs = totals.activity.energy, totals.activity, run.costs
    if activity.spike_rate is None:
        return []
    parts = sorted(((cause, mj) for cause, mj in activity.by_cause.items() if mj), key=lambda part: -part[1])
    lines = [_fact("" if index else "strict, by cause", share, cause, 100 * share / energy.strict_mj)
             for index, (cause, share) in enumerate(parts)]  # fmt: skip
    lines += _spread_rows(totals)
    if compared := comparison(totals, run):
        lines += _twin_rows(compared)
    rate = break_even_rate(activity, energy, costs)
    if rate is None:
        even = "above ann at any rate"
    else:
        even = "below ann at any rate" if rate >= 1 else f"below ann up to {100 * rate:.1f} %"
    lines.append(f"{'spike rate':<19} {100 * activity.spike_rate:>7.2f} %           strict is {even}")
    if totals.tiling_share is not None:
        lines.append(f"{'tiling':<19} {100 * totals.tiling_share:>7.2f} %           of the pixels: overlap and padding")
    if totals.spike_rain is not None:
        over_all, *levels = ("-" if r is None else f"{r:.2f}" for r in astuple(totals.spike_rain))
        lines.append(f"{'spikes and rain':<19} {over_all:>7} r           by level: {', '.join(levels)}")
    for measured in run.measured:
        net = f"net of {measured.idle_watts:.1f} W idle; all that ran there:"
        lines.append(f"{'measured':<19} {digits(measured.net_joules):>7} J           {net}")
        lines.append(f"{'':<39} {measured.source[:40]}")
    return lines


def _twin_rows(compared: Comparison) -> list[str]:
    """The table of views, and what an ordinary network of the same cost would be."""
    lines = [f"{'against its ordinary twin':<45} {'network':>8} {'twin, mJ':>8} {'below':>9}"]
    for view in compared.views:
        share = "" if view.below is None else f"{100 * view.below:>7.0f} %"
        lines.append(f"  {view.name:<43} {digits(view.network_mj):>8} {digits(view.twin_mj):>8} {share:>9}")
    equal = f"widest ordinary network of that cost ({compared.dim})"
    per_synapse = "accumulations a synapse and inference"
    refinement = f"of strict; refinement and output {100 * compared.refinement_share:.1f} %"
    return [
        *lines,
        f"{'equal cost':<19} {f'd = {compared.equal_cost_dim}':>7}             {equal}",
        f"{'per synapse':<19} {compared.accumulations_per_synapse:>7.2f} AC          {per_synapse}",
        f"{'not spiking':<19} {100 * compared.not_spiking_share:>7.2f} %           {refinement}",
    ]


def _spread_rows(totals: Totals) -> list[str]:
    """Mean and standard deviation over pictures, where there are several."""
    if totals.ok < 2 or not totals.spread:
        return []
    units = {
        "spike_rate": ("rate", 100, " %"), "energy_mj": ("strict", 1, " mJ"),
        "psnr_y": ("PSNR", 1, " dB"), "ssim_y": ("SSIM", 1, ""),
    }  # fmt: skip
    parts = []
    for key, spread in totals.spread.items():
        name, factor, unit = units[key]
        parts.append(f"{name} {digits(factor * spread.mean)} ± {digits(factor * spread.std)}{unit}")
    return [f"{'mean ± deviation':<19} {', '.join(parts)}"]


def _fact(name: str, millijoules: float, what: str, percent: float | None = None) -> str:
    share = "" if percent is None else f"{percent:.1f} %"
    return f"{name:<19} {digits(millijoules):>7} mJ {share:>8}  {what}"


def to_json(results: Sequence[ImageResult], run: RunInfo, totals: Totals) -> str:
    """The report as JSON, schema 1."""
    activity, energy, model = totals.activity, totals.activity.energy, run.model
    counted = activity.spike_rate is not None
    report = {
        "schema": SCHEMA,
        "tool": {"name": "esdnet-cli", "version": __version__},
        "weights": model and {"name": model.weights_name, "sha256": model.weights_sha256, "config": model.config},
        "run": {
            "device": model and model.device,
            "precision": model and model.precision,
            "tile": model and model.tile,
            "overlap": model and model.overlap,
            "timesteps": model and model.timesteps,
            "ensemble": model and model.ensemble,
            "pj_mac": run.costs.pj_mac,
            "pj_ac": run.costs.pj_ac,
            "word_bits": run.costs.word_bits,
            "pj_memory_bit": PJ_PER_BIT,
            "memory_model": MEMORY_MODEL,
            "energy_leaves_out": list(LEFT_OUT),
            "command": run.command,
            "started": run.started,
            "seconds": run.seconds,
            "measured": [{**asdict(measured), "net_joules": measured.net_joules} for measured in run.measured],
        },
        "images": [
            {**image_dict(result, run.costs), "layers": _layers(result.activity, run.costs)} for result in results
        ],
        "totals": {
            "ok": totals.ok,
            "skipped": totals.skipped,
            "failed": totals.failed,
            "megapixels": totals.megapixels,
            "seconds": run.seconds,
            "spike_rate": activity.spike_rate,
            "spikes": activity.spikes if counted else None,
            "mac": activity.mac if counted else None,
            "ac": activity.ac if counted else None,
            **(_energy_dict(activity, energy, run.costs) if counted else dict.fromkeys(ENERGY_KEYS)),
            "tiling_share": totals.tiling_share,
            "energy_by_cause_mj": activity.by_cause if counted else dict.fromkeys(activity.by_cause),
            **_network_dict(results, run, totals),
            "mean": {name: spread.mean for name, spread in totals.spread.items()},
            "std": {name: spread.std for name, spread in totals.spread.items()},
            **_scores_dict(totals),
        },
    }
    return json.dumps(report, indent=1) + "\n"


def to_csv(results: Sequence[ImageResult], run: RunInfo, totals: Totals) -> str:
    """One row for each picture, the JSON keys as header."""
    keys = IMAGE_KEYS + (QUALITY_KEYS if totals.quality else ())
    return csv_text(keys, (image_dict(result, run.costs) for result in results))


def to_layers_csv(results: Sequence[ImageResult], run: RunInfo, totals: Totals) -> str:
    """One row for each layer of each picture."""
    rows = ({"input": each.input, **layer} for each in results for layer in _layers(each.activity, run.costs))
    return csv_text(("input", *LAYER_KEYS), rows)


def csv_text(keys: Sequence[str], rows: Iterable[dict[str, Any]]) -> str:
    """CSV that spreadsheets open as it is meant: what begins like a formula gets an apostrophe, which makes it text.

    Where there is more than ASCII, a byte order mark comes first, without which Excel takes UTF-8 for something else.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"'{cell}" if _is_formula(cell) else cell for key, cell in row.items()})
    written = text.getvalue()
    return written if written.isascii() else "\ufeff" + written


def _is_formula(cell: Any) -> bool:
    return isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def image_dict(result: ImageResult, costs: EnergyCosts) -> dict[str, Any]:
    """One picture's entry of the report, without its layers; None where nothing was measured."""
    activity = result.activity
    return {
        "input": result.input,
        "output": result.output,
        "status": result.status,
        "error": result.error,
        "width": result.width,
        "height": result.height,
        "seconds": result.seconds,
        "spike_rate": activity.spike_rate if activity else None,
        "mac": activity.mac if activity else None,
        "ac": activity.ac if activity else None,
        **(_energy_dict(activity, activity.energy(costs), costs) if activity else dict.fromkeys(ENERGY_KEYS)),
        "tiling_share": result.tiling_share,
        **(field_names(activity.layers, activity.virtual_steps) if activity else dict.fromkeys(NAMES)),
        **_scores_dict(result),
    }


def _energy_dict(activity: Activity | ActivityTotal, energy: Energy, costs: EnergyCosts) -> dict[str, float | None]:
    return {
        "energy_mj": energy.strict_mj,
        "energy_spike_only_mj": energy.spike_only_mj,
        "energy_ann_mj": energy.ann_mj,
        "energy_ann_int8_mj": energy.ann_int8_mj,
        "energy_dense_snn_mj": energy.dense_snn_mj,
        "memory_mj": energy.memory_mj,
        "ann_memory_mj": energy.ann_memory_mj,
        "memory_no_reuse_mj": energy.memory_no_reuse_mj,
        "ann_memory_no_reuse_mj": energy.ann_memory_no_reuse_mj,
        "weights_dram_mj": energy.weights_dram_mj,
        "energy_as_run_mj": energy.as_run_mj,
        "break_even_spike_rate": break_even_rate(activity, energy, costs),
    }


def _network_dict(results: Sequence[ImageResult], run: RunInfo, totals: Totals) -> dict[str, Any]:
    """What needs the network's configuration: the field's names, memory, and the comparison with the twin."""
    compared = comparison(totals, run)
    if run.model is None or compared is None:
        return {}
    config, layers = ESDNetConfig.from_dict(run.model.config), totals.activity.layers
    states = [
        state_bytes(layers, config, result.height, result.width, run.model.tile)
        for result in results
        if result.activity and result.height and result.width
    ]
    return {
        **field_names(layers, config.virtual_steps),
        "footprint_bytes": footprint_bytes(config),
        "state_bytes_largest_layer": max(largest for largest, _ in states),
        "state_bytes": max(every for _, every in states),
        "views": [{**asdict(view), "below": view.below} for view in compared.views],
        "equal_cost_dim": compared.equal_cost_dim,
        "accumulations_per_synapse": compared.accumulations_per_synapse,
        "not_spiking_share": compared.not_spiking_share,
        "refinement_share": compared.refinement_share,
    }


def comparison(totals: Totals, run: RunInfo) -> Comparison | None:
    """The run held against its ordinary twin; None if nothing was counted."""
    if run.model is None or totals.activity.spike_rate is None:
        return None
    config = ESDNetConfig.from_dict(run.model.config)
    return compare(totals.activity.layers, totals.activity.by_cause, config, run.costs)


def _scores_dict(scored: ImageResult | Totals) -> dict[str, float | None]:
    """The scores, without those of no scoring; JSON knows no infinity, so equal pictures have a PSNR of null."""
    figures = {**asdict(scored.quality)} if scored.quality else {}
    if scored.spike_rain:
        figures |= asdict(scored.spike_rain)
    return {key: None if value is None or math.isinf(value) else value for key, value in figures.items()}


def _scores(quality: Quality | None) -> list[str]:
    if quality is None:
        return []
    return [f"{quality.psnr_y:>5.2f}", f"{quality.ssim_y:>6.4f}", f"{quality.psnr_rgb:>5.2f}"]


def _layers(activity: Activity | None, costs: EnergyCosts) -> list[dict[str, Any]]:
    if activity is None:
        return []
    return [
        {
            "name": layer.name,
            "kind": layer.kind,
            "precision": layer.precision,
            "cause": layer.cause,
            "spike_rate": layer.spike_rate(activity.virtual_steps),
            "energy_mj": layer.strict_mj(costs),
            **{name: getattr(layer, name) for name in COUNTS},
        }
        for layer in activity.layers
    ]


def _figures(seconds: float, rate: float | None, energy: Energy | None) -> str:
    """Dashes where nothing was counted."""
    if rate is None or energy is None:
        return " ".join([f"{seconds:>6.2f}", f"{'-':>5}", *[f"{'-':>7}"] * 3])
    millijoules = (energy.strict_mj, energy.spike_only_mj, energy.ann_mj)
    return " ".join([f"{seconds:>6.2f}", f"{100 * rate:>5.2f}", *(f"{digits(mj):>7}" for mj in millijoules)])


def digits(value: float) -> str:
    """At least three that count (two below 0.1), at most seven characters below a million."""
    if 0 < abs(value) < 0.1:
        return f"{value:.2g}"
    return f"{value:,.{3 if value < 9.9995 else 2 if value < 99.995 else 1 if value < 9999.95 else 0}f}"
