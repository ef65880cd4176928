"""Results as text and files: rows for the terminal, JSON (schema 1) and CSV. Formatting, no arithmetic."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from esdnet_cli import __version__
from esdnet_cli.energy.cost import LEFT_OUT, Activity, Energy, EnergyCosts
from esdnet_cli.metrics import Quality
from esdnet_cli.pipeline.results import ImageResult, RunInfo, Totals

SCHEMA = 1
IMAGE_KEYS = (
    "input", "output", "status", "error", "width", "height", "seconds",
    "spike_rate", "mac", "ac", "energy_mj", "energy_spike_only_mj", "energy_ann_mj",
)  # fmt: skip
QUALITY_KEYS = tuple(field.name for field in fields(Quality))
_SIZE = ("size", "pixels", 11)
_QUALITY = (("PSNR", "dB, Y", 7), ("SSIM", "Y", 7), ("PSNR", "dB, RGB", 7))
_ACTIVITY = (("s", "", 7), ("rate", "%", 7), ("strict", "mJ", 9), ("sp-only", "mJ", 9), ("ann", "mJ", 9))


def heading(scored: bool, network: bool) -> tuple[str, str]:
    """Two lines over the rows: what the columns are, and their units."""
    columns = (_SIZE, *(_QUALITY if scored else ()), *(_ACTIVITY if network else ()))
    names, units = (" ".join(f"{column[part]:>{column[2]}}" for column in columns) for part in (0, 1))
    return f"{names}  picture", units


def row(result: ImageResult, costs: EnergyCosts) -> str:
    """One picture's line under the heading; what was skipped or failed says so instead of figures."""
    if result.status == "skipped":
        return f"{'skipped: done before':>57}  {result.input}"
    if result.status == "failed":
        return f"{'failed':>57}  {result.input}"
    parts = [f"{f'{result.width}x{result.height}':>11}", *_scores(result.quality)]
    if result.activity is not None and result.seconds is not None:
        parts.append(_figures(result.seconds, result.activity.spike_rate, result.activity.energy(costs)))
    return f"{' '.join(parts)}  {result.input}"


def total_row(totals: Totals, run: RunInfo) -> str:
    """The last line: counts, wall-clock seconds, rate and energies of everything that was done, mean quality."""
    parts = [f"{f'{totals.megapixels:.2f} MP':>11}", *_scores(totals.quality)]
    if run.model is not None:
        parts.append(_figures(run.seconds, totals.activity.spike_rate, totals.activity.energy))
    means = "; scores are means" if totals.quality else ""
    return f"{' '.join(parts)}  total: {totals.ok} done, {totals.skipped} skipped, {totals.failed} failed{means}"


def layer_rows(activity: Activity) -> list[str]:
    """One line for each layer, in the order of the data."""
    lines = [f"{'rate %':>13} {'neurons':>12} {'spikes':>13} {'MAC':>14} {'AC':>14}  layer"]
    for layer in activity.layers:
        rate = layer.spike_rate(activity.timesteps)
        lines.append(
            f"{'' if rate is None else f'{100 * rate:.2f}':>13} {layer.neurons or '':>12} {layer.spikes or '':>13} "
            f"{layer.mac:>14} {layer.ac:>14}  {layer.name}"
        )
    return lines


def to_json(results: Sequence[ImageResult], run: RunInfo, totals: Totals) -> str:
    """The report as JSON, schema 1."""
    activity, energy, model = totals.activity, totals.activity.energy, run.model
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
            "pj_mac": run.costs.pj_mac,
            "pj_ac": run.costs.pj_ac,
            "energy_leaves_out": list(LEFT_OUT),
            "started": run.started,
            "seconds": run.seconds,
        },
        "images": [{**image_dict(result, run.costs), "layers": _layers(result.activity)} for result in results],
        "totals": {
            "ok": totals.ok,
            "skipped": totals.skipped,
            "failed": totals.failed,
            "megapixels": totals.megapixels,
            "seconds": run.seconds,
            "spike_rate": activity.spike_rate,
            "spikes": activity.spikes,
            "mac": activity.mac,
            "ac": activity.ac,
            "energy_mj": energy.strict_mj,
            "energy_spike_only_mj": energy.spike_only_mj,
            "energy_ann_mj": energy.ann_mj,
            **_quality_dict(totals.quality),
        },
    }
    return json.dumps(report, indent=1) + "\n"


def to_csv(results: Sequence[ImageResult], run: RunInfo, totals: Totals) -> str:
    """One row for each picture, the JSON keys as header."""
    text = io.StringIO()
    keys = IMAGE_KEYS + (QUALITY_KEYS if totals.quality else ())
    writer = csv.DictWriter(text, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows(image_dict(result, run.costs) for result in results)
    return text.getvalue()


RENDERERS = {".json": to_json, ".csv": to_csv}


def render(path: Path, results: Sequence[ImageResult], run: RunInfo, totals: Totals) -> bytes:
    """The report in the format of the path's ending, which must be one of RENDERERS."""
    return RENDERERS[path.suffix.lower()](results, run, totals).encode()


def image_dict(result: ImageResult, costs: EnergyCosts) -> dict[str, Any]:
    """One picture's entry of the report, without its layers; None where nothing was measured."""
    activity = result.activity
    energy = activity.energy(costs) if activity else None
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
        "energy_mj": energy.strict_mj if energy else None,
        "energy_spike_only_mj": energy.spike_only_mj if energy else None,
        "energy_ann_mj": energy.ann_mj if energy else None,
        **_quality_dict(result.quality),
    }


def _quality_dict(quality: Quality | None) -> dict[str, float | None]:
    """The scores, without those of no scoring; JSON knows no infinity, so equal pictures have a PSNR of null."""
    if quality is None:
        return {}
    return {key: value if math.isfinite(value) else None for key, value in asdict(quality).items()}


def _scores(quality: Quality | None) -> list[str]:
    if quality is None:
        return []
    return [f"{quality.psnr_y:>7.2f}", f"{quality.ssim_y:>7.4f}", f"{quality.psnr_rgb:>7.2f}"]


def _layers(activity: Activity | None) -> list[dict[str, Any]]:
    if activity is None:
        return []
    return [
        {
            "name": layer.name,
            "kind": layer.kind,
            "spike_rate": layer.spike_rate(activity.timesteps),
            "spikes": layer.spikes,
            "neurons": layer.neurons,
            "mac": layer.mac,
            "ac": layer.ac,
        }
        for layer in activity.layers
    ]


def _figures(seconds: float, rate: float | None, energy: Energy) -> str:
    shown_rate = "-" if rate is None else f"{100 * rate:.2f}"
    millijoules = (energy.strict_mj, energy.spike_only_mj, energy.ann_mj)
    return " ".join([f"{seconds:>7.2f}", f"{shown_rate:>7}", *(f"{_three_digits(mj):>9}" for mj in millijoules)])


def _three_digits(value: float) -> str:
    return f"{value:,.{3 if value < 10 else 2 if value < 100 else 1}f}"
