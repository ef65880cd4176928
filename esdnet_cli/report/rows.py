"""A report as rows for a terminal of 80 columns."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

from esdnet_cli.energy.cost import Activity, EnergyCosts
from esdnet_cli.energy.twin import Comparison
from esdnet_cli.pipeline.results import ImageResult, RunInfo, Totals
from esdnet_cli.report.figures import FIGURES, attention_as_one, comparison, digits, figures_of, priced

_BAR = 12  # characters of a spike rate of 100 %
_DONE = 46  # of the columns that what was skipped or failed leaves empty
_SCORES = {"psnr_y": 5, "ssim_y": 6, "psnr_rgb": 5}  # widths: with 13 characters of a name, 80 columns in all
_COUNTED = {"seconds": 6, "spike_rate": 5, "energy_mj": 7, "energy_spike_only_mj": 7, "energy_ann_mj": 7}
_BESIDE = 58  # characters of a fact, beside its name
_UNDER = {"psnr_rgb": "RGB", "seconds": ""}  # a heading, where it is not the unit


def heading(scored: bool, network: bool) -> tuple[str, str]:
    """Two lines over the rows: what the columns are, and their units."""
    columns = (_SCORES if scored else {}) | (_COUNTED if network else {})
    names = [f"{FIGURES[key].name:>{width}}" for key, width in columns.items()]
    units = [f"{_UNDER.get(key, FIGURES[key].unit):>{width}}" for key, width in columns.items()]
    return " ".join([f"{'size':>9}", *names]) + "  picture", " ".join([f"{'px':>9}", *units])


def row(result: ImageResult, costs: EnergyCosts, scored: bool) -> str:
    """One picture's line under the heading; what was skipped or failed says so instead of figures.

    scored: whether the heading has scores, which in merged reports not every picture has.
    """
    if result.status == "skipped":
        return f"{'skipped: done before':>{_DONE}}  {result.input}"
    if result.status == "failed":
        return f"{'failed':>{_DONE}}  {result.input}"
    columns = (_SCORES if scored else {}) | ({} if result.seconds is None else _COUNTED)
    return _row(f"{result.width}x{result.height}", columns, figures_of(result, costs), result.input)


def total_rows(totals: Totals, run: RunInfo) -> list[str]:
    """The last lines: wall-clock seconds, rate and energies of everything that was done, mean quality; counts."""
    columns = (_SCORES if totals.quality else {}) | (_COUNTED if run.model else {})
    figures = {**figures_of(totals, run.costs), "seconds": run.seconds}
    means = "; scores are means" if totals.quality else ""
    counts = f"{totals.ok} done, {totals.skipped} skipped, {totals.failed} failed{means}"
    return [
        _row(f"{totals.megapixels:.2f} MP", columns, figures, "total"), counts, *filter(None, [priced(totals, run)])
    ]  # fmt: skip


def _row(size: str, columns: dict[str, int], figures: dict[str, Any], name: str) -> str:
    cells = (f"{FIGURES[key].text(figures[key]):>{width}}" for key, width in columns.items())
    return " ".join([f"{size:>9}", *cells]) + f"  {name}"


def layer_rows(activity: Activity, costs: EnergyCosts) -> list[str]:
    """One line for each layer, in the order of the data, with a bar for its spike rate; attention is one."""
    lines = [f"{'rate %':>7} {'':{_BAR}} {'G op':>8} {'mJ':>8}  layer"]
    for name, layers in attention_as_one(activity.layers):
        rate = layers[0].spike_rate(activity.virtual_steps)
        shown, bar = ("", "") if rate is None else (FIGURES["spike_rate"].text(rate), "█" * round(_BAR * rate))
        operations = sum(layer.mac + layer.ac for layer in layers) / 1e9
        energy = sum(layer.strict_mj(costs) for layer in layers)
        lines.append(f"{shown:>7} {bar:<{_BAR}} {digits(operations):>8} {digits(energy):>8}  {name}")
    return lines


def summary_rows(totals: Totals, run: RunInfo) -> list[str]:
    """What the run's energy is made of, and what it is held against: at most 80 columns."""
    if not totals.activity.layers:
        return []
    causes = totals.activity.by_cause(run.costs)
    parts = sorted(((cause, mj) for cause, mj in causes.items() if mj), key=lambda part: -part[1])
    lines = [_fact("" if index else "strict, by cause", share, cause, 100 * share / totals.energy.strict_mj)
             for index, (cause, share) in enumerate(parts)]  # fmt: skip
    lines += _spread_rows(totals)
    if compared := comparison(totals, run):
        lines += _twin_rows(compared)
    figures = figures_of(totals, run.costs)
    even, rate = FIGURES["break_even_spike_rate"], figures["break_even_spike_rate"]
    if rate is None:
        against = "above ann at any rate"
    else:
        against = "below ann at any rate" if rate >= 1 else f"below ann up to {even.with_unit(rate)}"
    spikes, tiling = (FIGURES[key].text(figures[key]) for key in ("spike_rate", "tiling_share"))
    lines.append(f"{'spike rate':<19} {spikes:>7} %           strict is {against}")
    if totals.tiling_share is not None:
        lines.append(f"{'tiling':<19} {tiling:>7} %           of the pixels: {_added(run)}")
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
        share = "" if view.below is None else f"{round(100 * view.below):>7} %"  # an integer has no negative zero
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
    lines, name = [""], "mean ± deviation"
    for key, spread in totals.spread.items():
        figure = FIGURES[key]
        mean, std = (digits(figure.in_unit(value)) for value in (spread.mean, spread.std))
        part = f"{figure.name} {mean} ± {std} {figure.unit}".rstrip()
        if lines[-1] and len(lines[-1]) + len(part) > _BESIDE:
            lines.append("")
        lines[-1] += f"{', ' if lines[-1] else ''}{part}"
    return [f"{'' if index else name:<19} {line}" for index, line in enumerate(lines)]


def _added(run: RunInfo) -> str:
    """What was computed besides each pixel once."""
    model = run.model
    sizes = ["scales"] if model and model.scales != 1 else []
    copies = ["the ensemble's copies"] if model and model.ensemble > 1 else []
    return ", ".join(["overlap", "padding", *sizes, *copies])


def _fact(name: str, millijoules: float, what: str, percent: float | None = None) -> str:
    share = "" if percent is None else f"{percent:.1f} %"
    return f"{name:<19} {digits(millijoules):>7} mJ {share:>8}  {what}"
