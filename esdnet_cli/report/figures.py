"""The figures of a report, each once in a table that every kind of report reads; JSON (schema 1) and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from typing import Any, Generic, NamedTuple, TypeVar

from esdnet_cli import __version__
from esdnet_cli.energy.cost import (
    AS_RUN,
    COUNTS,
    LEFT_OUT,
    MEMORY_MODEL,
    NO_REUSE_MODEL,
    PJ_PER_BIT,
    PJ_PER_DRAM_BIT,
    Activity,
    Energy,
    EnergyCosts,
    LayerActivity,
    break_even_rate,
    total,
    total_energy,
)
from esdnet_cli.energy.names import FieldCounts, field_counts, footprint_bytes, state_bytes
from esdnet_cli.energy.twin import Comparison, compare
from esdnet_cli.metrics import Quality, SpikeRain, mean_quality, mean_spike_rain
from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.pipeline.results import ImageResult, ModelInfo, RunInfo, Spread, Totals
from esdnet_cli.settings import scales_for

T = TypeVar("T")
SCHEMA = 1
_BITS: dict[str, int] = {name: costs.word_bits for name, costs in AS_RUN.items()}


@dataclass(frozen=True)
class Figure(Generic[T]):
    """One figure. key: in JSON and CSV. of: how it follows from a T.

    For people, where they see it: name: over a narrow column; title: where there is room; about: what it counts.
    unit: theirs, in which % is a hundredth. decimals: None for as many as `digits` gives.
    spread: whether reports hold its mean and deviation over pictures. each: whether each picture has it, or all alone.
    """

    key: str
    of: Callable[[T], Any]
    name: str = ""
    unit: str = ""
    decimals: int | None = None
    title: str = ""
    about: str = ""
    spread: bool = False
    each: bool = True

    def in_unit(self, value: float) -> float:
        """As people see it."""
        return 100 * value if self.unit == "%" else value

    def text(self, value: Any) -> str:
        """The number that people see; a dash for None."""
        if value is None:
            return "-"
        return digits(self.in_unit(value)) if self.decimals is None else f"{self.in_unit(value):.{self.decimals}f}"

    def with_unit(self, value: Any) -> str:
        """As `text`, with its unit."""
        return f"{self.text(value)} {self.unit}".rstrip()

    def heading(self, title: str) -> str:
        """Over a column, with the unit."""
        return f"{title}, {self.unit}" if self.unit else title


@dataclass(frozen=True)
class Counted:
    """What was counted of one picture, or of all, and its price: what most figures follow from."""

    activity: Activity
    energy: Energy
    costs: EnergyCosts
    tiling_share: float | None

    @cached_property
    def field(self) -> FieldCounts:
        """By the field's names."""
        return field_counts(self.activity.layers, self.activity.spike_rate)


class PricedLayer(NamedTuple):
    """What a layer's figures follow from."""

    layer: LayerActivity
    virtual_steps: int
    costs: EnergyCosts


# of a picture, and what kind of value each is
FACTS: dict[str, type] = {
    "input": str, "output": str, "status": str, "error": str, "width": int, "height": int, "seconds": float,
}  # fmt: skip
SECONDS: Figure[ImageResult] = Figure("seconds", lambda of: of.seconds, "s", "s", 2, "Time")
COUNTED: tuple[Figure[Counted], ...] = (
    Figure("spike_rate", lambda of: of.activity.spike_rate, "rate", "%", 2, "Spike rate", spread=True),
    Figure("spikes", lambda of: of.activity.spikes, each=False),
    Figure("mac", lambda of: of.activity.mac),
    Figure("ac", lambda of: of.activity.ac),
    Figure("energy_mj", lambda of: of.energy.strict_mj, "strict", "mJ", None, "Strict", "operations as executed", True),
    Figure(
        "energy_spike_only_mj", lambda of: of.energy.spike_only_mj, "sp-only", "mJ", None, "Spike-only",
        "the literature's habit", True,
    ),
    Figure("energy_ann_mj", lambda of: of.energy.ann_mj, "ann", "mJ", None, "ANN", "the same graph, not spiking", True),
    Figure("energy_ann_int8_mj", lambda of: of.energy.ann_int8_mj),
    Figure(
        "energy_dense_snn_mj", lambda of: of.energy.dense_snn_mj, "", "mJ", None, "Strict", "every neuron firing",
    ),
    Figure("memory_mj", lambda of: of.energy.memory_mj),
    Figure("ann_memory_mj", lambda of: of.energy.ann_memory_mj),
    Figure("memory_no_reuse_mj", lambda of: of.energy.memory_no_reuse_mj),
    Figure("ann_memory_no_reuse_mj", lambda of: of.energy.ann_memory_no_reuse_mj),
    Figure("weights_dram_mj", lambda of: of.energy.weights_dram_mj),
    Figure("energy_as_run_mj", lambda of: of.energy.as_run_mj),
    Figure("break_even_spike_rate", lambda of: break_even_rate(of.activity, of.energy, of.costs), "", "%", 1),
    Figure("tiling_share", lambda of: of.tiling_share, "", "%", 2),
)  # fmt: skip
FIELD: tuple[Figure[Counted], ...] = (
    Figure("synops", lambda of: of.field.synops),
    Figure("effective_macs", lambda of: of.field.effective_macs),
    Figure("effective_acs", lambda of: of.field.effective_acs),
    Figure("dense_ops", lambda of: of.field.dense_ops),
    Figure("membrane_updates", lambda of: of.field.membrane_updates),
    Figure("activation_sparsity", lambda of: of.field.activation_sparsity),
)
QUALITY: tuple[Figure[Quality], ...] = (
    Figure("psnr_y", lambda of: of.psnr_y, "PSNR", "dB", 2, "PSNR", spread=True),
    Figure("ssim_y", lambda of: of.ssim_y, "SSIM", "", 4, "SSIM", spread=True),
    Figure("psnr_y_published", lambda of: of.psnr_y_published),
    Figure("ssim_y_published", lambda of: of.ssim_y_published),
    Figure("psnr_rgb", lambda of: of.psnr_rgb, "PSNR", "dB", 2, "PSNR, RGB"),
    Figure("ssim_rgb", lambda of: of.ssim_rgb),
)
SPIKE_RAIN: tuple[Figure[SpikeRain], ...] = (
    Figure("spike_rain_r", lambda of: of.spike_rain_r, decimals=2),
    Figure("spike_rain_r_level1", lambda of: of.spike_rain_r_level1, decimals=2),
    Figure("spike_rain_r_level2", lambda of: of.spike_rain_r_level2, decimals=2),
    Figure("spike_rain_r_level3", lambda of: of.spike_rain_r_level3, decimals=2),
)
LAYER: tuple[Figure[PricedLayer], ...] = (
    *(Figure[PricedLayer](key, attrgetter(f"layer.{key}")) for key in ("name", "kind", "precision", "cause")),
    Figure("spike_rate", lambda of: of.layer.spike_rate(of.virtual_steps)),
    Figure("energy_mj", lambda of: of.layer.strict_mj(of.costs)),
    *(Figure[PricedLayer](key, attrgetter(f"layer.{key}")) for key in COUNTS),
)
SCORES: tuple[Figure[Any], ...] = (*QUALITY, *SPIKE_RAIN)
_ALL: tuple[Figure[Any], ...] = (SECONDS, *COUNTED, *FIELD, *SCORES)
FIGURES = {figure.key: figure for figure in _ALL}
IMAGE_KEYS = (*FACTS, *(figure.key for figure in (*COUNTED, *FIELD) if figure.each))


def values(figures: Iterable[Figure[T]], of: T | None) -> dict[str, Any]:
    """Figures by key; None where there is nothing that they follow from."""
    return {figure.key: None if of is None else figure.of(of) for figure in figures}


def figures_of(shown: ImageResult | Totals, costs: EnergyCosts) -> dict[str, Any]:
    """All figures of one picture, or of all but the seconds: None where nothing was counted, or scored."""
    activity, counted = shown.activity, None
    timed = values([SECONDS], shown) if isinstance(shown, ImageResult) else {}
    if activity is not None and activity.layers:
        energy = shown.energy if isinstance(shown, Totals) else activity.energy(costs)
        counted = Counted(activity, energy, costs, shown.tiling_share)
    scores = values(QUALITY, shown.quality) | values(SPIKE_RAIN, shown.spike_rain)
    return timed | values((*COUNTED, *FIELD), counted) | scores


def totals(results: Sequence[ImageResult], costs: EnergyCosts) -> Totals:
    """Add a run's results up; those of pictures that it skipped, too, if an earlier report had their figures."""
    done = [result for result in results if result.status != "failed" and result.width is not None]
    counted = [result.activity for result in done if result.activity]
    return Totals(
        ok=sum(result.status == "ok" for result in results),
        skipped=sum(result.status == "skipped" for result in results),
        failed=sum(result.status == "failed" for result in results),
        megapixels=_megapixels(done),
        counted_megapixels=_megapixels([result for result in done if result.activity]),
        activity=total(counted),
        energy=total_energy(counted, costs),
        quality=mean_quality([result.quality for result in done if result.quality]),
        spike_rain=mean_spike_rain([result.spike_rain for result in done if result.spike_rain]),
        spread=_spread([figures_of(result, costs) for result in done]),
    )


def _megapixels(results: Sequence[ImageResult]) -> float:
    return sum((result.width or 0) * (result.height or 0) for result in results) / 1e6


def _spread(pictures: Sequence[dict[str, Any]]) -> dict[str, Spread]:
    spread = {}
    for key in (figure.key for figure in FIGURES.values() if figure.spread):
        known = [value for picture in pictures if (value := picture[key]) is not None]
        if known and all(map(math.isfinite, known)):
            spread[key] = Spread(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else 0.0)
    return spread


def comparison(totals: Totals, run: RunInfo) -> Comparison | None:
    """The run held against its ordinary twin; None if nothing was counted."""
    if run.model is None or not totals.activity.layers:
        return None
    config = ESDNetConfig.from_dict(run.model.config)
    return compare(totals.activity, config, run.costs)


def priced(totals: Totals, run: RunInfo) -> str:
    """A line that says so where the number format that ran, of the whole or of some layers, is not the one that is
    priced; else empty."""
    if run.model is None or not totals.activity.layers:
        return ""
    numbers = f"{run.costs.word_bits}-bit numbers"
    if _BITS.get(run.model.precision) != run.costs.word_bits:
        costs = f"({run.costs.pj_mac:g} pJ a MAC, {run.costs.pj_ac:g} pJ an AC)"
        return f"computed in {run.model.precision}, priced as {numbers} {costs}"
    others: dict[str, float] = {}  # millijoules by format
    for layer in totals.activity.layers:
        if layer.precision != "unknown" and _BITS[layer.precision] != run.costs.word_bits:
            others[layer.precision] = others.get(layer.precision, 0.0) + layer.strict_mj(run.costs)
    if not any(others.values()):
        return ""
    share = 100 * sum(others.values()) / totals.energy.strict_mj
    return f"priced as {numbers}, yet layers in {' and '.join(sorted(others))} are {share:.0f} % of strict"


def attention_as_one(layers: Iterable[LayerActivity]) -> Iterator[tuple[str, list[LayerActivity]]]:
    """Layers as people see them, in the order of the data: the parts of a block's attention together."""

    def shown(layer: LayerActivity) -> str:
        block, attention, _ = layer.name.partition(".attn")
        return block + attention if layer.cause == "attention" else layer.name

    for name, group in groupby(layers, shown):
        yield name, list(group)


def to_json(results: Sequence[ImageResult], run: RunInfo, totals: Totals) -> str:
    """The report as JSON, schema 1."""
    return json_text(report_dict(results, run, totals))


def json_text(report: dict[str, Any]) -> str:
    """As reports are written."""
    return json.dumps(report, indent=1) + "\n"


def report_dict(results: Sequence[ImageResult], run: RunInfo, totals: Totals) -> dict[str, Any]:
    """The report as JSON takes it, schema 1."""
    by_cause, model, figures = totals.activity.by_cause(run.costs), run.model, figures_of(totals, run.costs)
    return {
        "schema": SCHEMA,
        "tool": {"name": "esdnet-cli", "version": __version__},
        "weights": model and {"name": model.weights_name, "sha256": model.weights_sha256, "config": model.config},
        "run": {
            "device": model and model.device,
            "precision": model and model.precision,
            "tile": model and model.tile,
            "overlap": model and model.overlap,
            "tile_shape": model and model.tiles.shape,
            "timesteps": model and model.timesteps,
            "ensemble": model and model.ensemble,
            "scales": model and (model.scales or "auto"),
            "pj_mac": run.costs.pj_mac,
            "pj_ac": run.costs.pj_ac,
            "word_bits": run.costs.word_bits,
            "sum_bits": run.costs.sum_bits,
            "pj_memory_bit": PJ_PER_BIT,
            "pj_dram_bit": PJ_PER_DRAM_BIT,
            "memory_model": MEMORY_MODEL,
            "no_reuse_model": NO_REUSE_MODEL,
            "energy_leaves_out": list(LEFT_OUT),
            "command": run.command,
            "started": run.started,
            "seconds": run.seconds,
            "measured": [{**asdict(measured), "net_joules": measured.net_joules} for measured in run.measured],
        },
        "images": [
            {
                **image_dict(result, run.costs),
                "input_sha256": result.input_sha256,
                "scales": _scales(result, model),
                "layers": _layers(result.activity, run.costs),
            }
            for result in results
        ],
        "totals": {
            "ok": totals.ok,
            "skipped": totals.skipped,
            "failed": totals.failed,
            "megapixels": totals.megapixels,
            "seconds": run.seconds,
            **{figure.key: figures[figure.key] for figure in COUNTED},
            "energy_by_cause_mj": by_cause if totals.activity.layers else dict.fromkeys(by_cause),
            **_network_dict(results, run, totals, figures),
            "mean": {name: spread.mean for name, spread in totals.spread.items()},
            "std": {name: spread.std for name, spread in totals.spread.items()},
            **_scores(totals, figures),
        },
    }


def _scales(result: ImageResult, model: ModelInfo | None) -> int | None:
    if model is None or result.width is None or result.height is None:
        return None
    return scales_for(result.height, result.width, model.scales)


def to_csv(results: Sequence[ImageResult], run: RunInfo, totals: Totals) -> str:
    """One row for each picture, the JSON keys as header."""
    keys = (*IMAGE_KEYS, *(figure.key for figure in SCORES if totals.quality))
    return csv_text(keys, (image_dict(result, run.costs) for result in results))


def to_layers_csv(results: Sequence[ImageResult], run: RunInfo, totals: Totals) -> str:
    """One row for each layer of each picture."""
    rows = ({"input": each.input, **layer} for each in results for layer in _layers(each.activity, run.costs))
    return csv_text(("input", *(figure.key for figure in LAYER)), rows)


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
    figures = figures_of(result, costs)
    known = {key: getattr(result, key) for key in FACTS} | figures
    return {**{key: known[key] for key in IMAGE_KEYS}, **_scores(result, figures)}


def _scores(scored: ImageResult | Totals, figures: dict[str, Any]) -> dict[str, float | None]:
    """The scores, without those of no scoring; JSON knows no infinity, so equal pictures have a PSNR of null."""
    known: list[Figure[Any]] = [*(QUALITY if scored.quality else ()), *(SPIKE_RAIN if scored.spike_rain else ())]
    scores = {figure.key: figures[figure.key] for figure in known}
    return {key: None if value is None or math.isinf(value) else value for key, value in scores.items()}


def _layers(activity: Activity | None, costs: EnergyCosts) -> list[dict[str, Any]]:
    if activity is None:
        return []
    return [values(LAYER, PricedLayer(layer, activity.virtual_steps, costs)) for layer in activity.layers]


def _network_dict(
    results: Sequence[ImageResult], run: RunInfo, totals: Totals, figures: dict[str, Any]
) -> dict[str, Any]:
    """What needs the network's configuration: the field's names, memory, and the comparison with the twin."""
    compared = comparison(totals, run)
    if run.model is None or compared is None:
        return {}
    config, layers = ESDNetConfig.from_dict(run.model.config), totals.activity.layers
    sizes = {(result.height, result.width) for result in results if result.activity}
    grids = (run.model.tiles.grid(height, width) for height, width in sizes if height and width)
    states = [state_bytes(layers, config, grid.height, grid.width) for grid in grids]
    return {
        **{figure.key: figures[figure.key] for figure in FIELD},
        "footprint_bytes": footprint_bytes(config),
        "state_bytes_largest_layer": max(largest for largest, _ in states),
        "state_bytes": max(every for _, every in states),
        "views": [{**asdict(view), "below": view.below} for view in compared.views],
        "equal_cost_dim": compared.equal_cost_dim,
        "accumulations_per_synapse": compared.accumulations_per_synapse,
        "not_spiking_share": compared.not_spiking_share,
        "refinement_share": compared.refinement_share,
    }


def digits(value: float) -> str:
    """At least three that count (two below 0.1), at most seven characters below a million."""
    if 0 < abs(value) < 0.1:
        return f"{value:#.2g}"  # 0.080, too
    return f"{value:,.{3 if value < 9.9995 else 2 if value < 99.995 else 1 if value < 9999.95 else 0}f}"
