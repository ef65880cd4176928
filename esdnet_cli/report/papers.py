"""Results for papers: a LaTeX table of a run, and two runs side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from esdnet_cli import __version__
from esdnet_cli.energy.cost import Activity, EnergyCosts
from esdnet_cli.errors import EsdnetError, printable
from esdnet_cli.pipeline.results import ImageResult, RunInfo, Totals
from esdnet_cli.report.figures import (
    FIGURES,
    Figure,
    attention_as_one,
    comparison,
    digits,
    figures_of,
    priced,
    totals,
)
from esdnet_cli.report.merge import merge

_SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{character: f"{{{character}}}" for character in "[*"},  # which a row's end before them would take for its own
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
}  # fmt: skip


def to_tex(results: Sequence[ImageResult], run: RunInfo, totals: Totals) -> str:
    """Two tables for LaTeX with booktabs: pictures with mean and deviation, and the run against its ordinary twin."""
    pictures = [(_escaped(result.input), figures_of(result, run.costs)) for result in results if result.status == "ok"]
    # not only what has a mean: a picture that equals its target has a PSNR, which is infinite
    columns = [
        figure for figure in FIGURES.values()
        if figure.spread and any(figures[figure.key] is not None for _, figures in pictures)
    ]  # fmt: skip
    rows = [[name, *(_number(column, figures[column.key]) for column in columns)] for name, figures in pictures]
    spread = [
        rf"{_number(column, over.mean)} $\pm$ {_number(column, over.std)}" if over else _number(column, None)
        for column, over in ((column, totals.spread.get(column.key)) for column in columns)
    ]
    network = f"; network {run.model.weights_name}, SHA-256 {run.model.weights_sha256}" if run.model else ""
    note = priced(totals, run)
    lines = [
        f"% esdnet {__version__}{network}; \\usepackage{{booktabs}}",
        f"% {run.command}",
        *([f"% {note}"] if note else []),
        *_tabular(["Picture", *map(_heading, columns)], rows, ["Mean and deviation", *spread]),
    ]
    compared = comparison(totals, run)
    if compared is not None:
        views = [
            [_escaped(view.name), *(digits(mj).replace(",", "") for mj in (view.network_mj, view.twin_mj)),
             "" if view.below is None else f"{round(100 * view.below)}"]
            for view in compared.views
        ]  # fmt: skip
        equal = [f"Width at equal cost: {compared.equal_cost_dim} instead of {compared.dim}", "", "", ""]
        lines += ["", *_tabular(["Counted and priced", "Network, mJ", "Twin, mJ", "Below, \\%"], views, equal)]
    return "\n".join(lines) + "\n"


def compare_rows(first: Path, second: Path, reprice: Callable[[EnergyCosts], EnergyCosts], command: str) -> list[str]:
    """Two JSON reports picture by picture and layer by layer, both at what `reprice` makes of the first one's costs.

    Raises EsdnetError if a file is no report, or if they have no picture in common.
    """
    results_a, run_a = merge([first], reprice, command)
    results_b, run_b = merge([second], lambda _: run_a.costs, command)
    a, b = _counted(results_a, run_a, first), _counted(results_b, run_b, second)
    shared = [name for name in a if name in b]
    both = [name for name in shared if _may_be_one(a[name], b[name])]
    others = f", {len(shared) - len(both)} of one name of different files" if len(both) < len(shared) else ""
    if not both:
        raise EsdnetError(
            f"{printable(first)} and {printable(second)} have no picture in common; run both on one folder"
        )
    lines = [
        f"A: {_about(run_a)}: {printable(first)}",
        f"B: {_about(run_b)}: {printable(second)}",
        f"strict, {run_a.costs.pj_mac:g} pJ a MAC, {run_a.costs.pj_ac:g} pJ an AC; "
        f"{len(both)} picture{'s' if len(both) != 1 else ''} in both, "
        f"{len(a) - len(shared)} in A alone, {len(b) - len(shared)} in B alone{others}",
        f"{'A, mJ':>8} {'B, mJ':>8} {'B to A':>8} {'A, %':>6} {'B, %':>6}  picture",
    ]
    for name in both:
        (mj_a, rate_a), (mj_b, rate_b) = (
            (figures["energy_mj"], figures["spike_rate"])
            for figures in (figures_of(side[name], run_a.costs) for side in (a, b))
        )
        lines.append(_compared(mj_a, mj_b, rate_a, rate_b, name))
    sums_a, sums_b = (totals([side[name] for name in both], run_a.costs) for side in (a, b))
    rate_a, rate_b = sums_a.activity.spike_rate, sums_b.activity.spike_rate
    energy_a, energy_b = sums_a.energy, sums_b.energy
    lines += [
        _compared(energy_a.strict_mj, energy_b.strict_mj, rate_a, rate_b, "total"),
        _compared(energy_a.spike_only_mj, energy_b.spike_only_mj, None, None, "total, spike-only"),
        _compared(energy_a.ann_mj, energy_b.ann_mj, None, None, "total, ann"),
    ]
    layers_a, layers_b = (_by_layer(sums.activity, run_a.costs) for sums in (sums_a, sums_b))
    lines.append(f"{'':>41}  layer")
    for name in dict.fromkeys((*layers_a, *layers_b)):
        (mj_a, rate_a), (mj_b, rate_b) = (layers.get(name, (None, None)) for layers in (layers_a, layers_b))
        lines.append(_compared(mj_a, mj_b, rate_a, rate_b, name))
    return lines


def _may_be_one(a: ImageResult, b: ImageResult) -> bool:
    """Whether both are of the same file, as far as their reports say."""
    return None in (a.input_sha256, b.input_sha256) or a.input_sha256 == b.input_sha256


def _counted(results: Sequence[ImageResult], run: RunInfo, path: Path) -> dict[str, ImageResult]:
    counted = {result.input: result for result in results if result.activity}
    if counted:
        return counted
    why = "was made with --no-energy; run without it"
    if not any(result.status == "ok" for result in results):
        why = "nothing was computed in its run; give the report of one that did"
    elif run.model is None:
        why = "was made with --as-is; give a run of the network"
    raise EsdnetError(f"{printable(path)}: has no energy figures: {why}")


def _about(run: RunInfo) -> str:
    model = run.model
    if model is None:
        return "no network"
    return f"{model.weights_name}, {model.precision}, {model.tiling}"


def _by_layer(activity: Activity, costs: EnergyCosts) -> dict[str, tuple[float, float | None]]:
    """Strict millijoules and spike rate of each layer, attention as one."""
    shown, rates = attention_as_one(activity.layers), activity.spike_rates
    return {name: (sum(layer.strict_mj(costs) for layer in group), rates.get(name)) for name, group in shown}


def _compared(mj_a: float | None, mj_b: float | None, rate_a: float | None, rate_b: float | None, name: str) -> str:
    change = ""
    if mj_a and mj_b is not None:
        percent = 100 * (mj_b / mj_a - 1)
        change = f"{percent:+,.{0 if percent >= 1000 else 1}f} %"
    energies = (f"{'-' if mj is None else digits(mj):>8}" for mj in (mj_a, mj_b))
    rates = (f"{'' if rate is None else f'{100 * rate:.2f}':>6}" for rate in (rate_a, rate_b))
    return f"{' '.join(energies)} {change:>8} {' '.join(rates)}  {name}"


def _heading(figure: Figure[Any]) -> str:
    return _escaped(figure.heading(figure.title))


def _number(figure: Figure[Any], value: float | None) -> str:
    if value is None:
        return "--"
    return r"$\infty$" if math.isinf(value) else figure.text(value).replace(",", "")


def _tabular(head: Sequence[str], rows: Sequence[Sequence[str]], last: Sequence[str]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(cells) + r" \\"

    return [
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", line(head), r"\midrule",
        *map(line, rows), r"\midrule", line(last), r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)
