"""The HTML report: one file that needs nothing else, with pictures and SVG charts. page.html says how it looks."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import TYPE_CHECKING, Any

from esdnet_cli import __version__
from esdnet_cli.energy.cost import (
    AS_RUN,
    CAUSES,
    LEFT_OUT,
    MEMORY_MODEL,
    NO_REUSE_MODEL,
    PJ_PER_BIT,
    PJ_PER_DRAM_BIT,
    PRESETS,
)
from esdnet_cli.energy.twin import FORMATS, TWIN_DENSITY, Comparison
from esdnet_cli.model.config import LEVELS
from esdnet_cli.pipeline.results import ImageResult, RunInfo, Totals
from esdnet_cli.report.figures import FIGURES, comparison, digits, figures_of, priced

if TYPE_CHECKING:
    from jinja2 import Template

_LEVELS = tuple(f"level {level}" for level in range(1, LEVELS + 1))
_SCORES = ("psnr_y", "ssim_y")
_COUNTED = ("seconds", "spike_rate", "energy_mj", "energy_spike_only_mj", "energy_ann_mj")


def to_html(results: Sequence[ImageResult], run: RunInfo, totals: Totals, each: str = "picture") -> str:
    """The report as one HTML page; pictures are those that a `previews` observer made. each: what a result is of."""
    counted = bool(totals.activity.layers)
    compared = comparison(totals, run)
    return _template().render(
        title=f"esdnet report: {totals.ok} {each}{'' if totals.ok == 1 else 's'}",
        each=each,
        version=__version__,
        network=f"network {run.model.weights_name}" if run.model else "scored as they were",
        run=run,
        facts=_facts(totals, run, compared, each),
        # merged reports hold no pictures
        pictures=[_picture(result, run) for result in results if result.preview],
        left=[(result.input, _fate(result)) for result in results if result.status != "ok"],
        energy=_energy(totals, run) if counted else None,
        twin=compared,
        layers=_layers(totals.activity.spike_rates) if counted else None,
        table=_table(results, run, each),
        presets=PRESETS,
        formats={**FORMATS, "bf16 as run": AS_RUN["bf16"]},
        twin_density=TWIN_DENSITY,
        memory={
            "once": MEMORY_MODEL, "no_reuse": NO_REUSE_MODEL, "pj_bit": PJ_PER_BIT, "pj_dram_bit": PJ_PER_DRAM_BIT,
        },
        left_out=LEFT_OUT,
    )  # fmt: skip


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined  # a run without this report need not wait for it

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters |= {"digits": digits, "below": _below, "data": _data}
    return environment.from_string(files("esdnet_cli.report").joinpath("page.html").read_text(encoding="utf-8"))


def _facts(totals: Totals, run: RunInfo, compared: Comparison | None, each: str) -> list[tuple[str, str, str]]:
    """The boxes at the top: name, value, and a note."""
    figures = figures_of(totals, run.costs)
    facts = [(f"{each.capitalize()}s", f"{totals.ok}", f"{totals.megapixels:.2f} megapixels in {run.seconds:.0f} s")]
    if totals.skipped or totals.failed:
        left = f"{totals.skipped} skipped, {totals.failed} failed"
        facts.append(("Not done", f"{totals.skipped + totals.failed}", left))
    if totals.quality:
        ssim = f"SSIM {FIGURES['ssim_y'].text(figures['ssim_y'])} (Y channel)"
        facts.append(("PSNR, mean", FIGURES["psnr_y"].with_unit(figures["psnr_y"]), ssim))
    if totals.activity.layers:
        against = "by counted operations"
        if compared is not None and compared.range is not None:
            least, most = map(_below, compared.range)
            against = f"from {least} to {most} its ordinary twin, by what is counted"
        facts += [
            ("Spike rate", f"{100 * totals.activity.spike_rate:.1f} %", "of all neurons at all steps fired"),
            ("Energy, strict estimate", FIGURES["energy_mj"].with_unit(figures["energy_mj"]), against),
        ]
    for measured in run.measured:
        what = f"net of {measured.idle_watts:.1f} W idle; {measured.source}, all that ran there"
        facts.append(("Measured", f"{digits(measured.net_joules)} J", what))
    return facts


def _fate(result: ImageResult) -> str:
    if result.status == "skipped":
        return "skipped: done before, its figures are in the report of that run"
    return result.error or result.status


def _picture(result: ImageResult, run: RunInfo) -> dict[str, Any]:
    preview, figures = result.preview, figures_of(result, run.costs)
    assert preview is not None
    words = {
        "psnr_y": "PSNR", "ssim_y": "SSIM", "seconds": "", "spike_rate": "spike rate", "energy_mj": "strict",
        "spike_rain_r": "correlation of spikes and rain",
    }  # fmt: skip
    known = (
        f"{name} {FIGURES[key].with_unit(figures[key])}".strip()
        for key, name in words.items()
        if figures[key] is not None
    )
    return {
        "name": result.input,
        "preview": preview,
        "facts": [f"{result.width}x{result.height}", *known],
        "maps": [(spikes, *scale, name) for spikes, scale, name in zip(preview.spikes, preview.scales, _LEVELS)],
    }


def _energy(totals: Totals, run: RunInfo) -> dict[str, Any]:
    """Bars of one scale, strict in the colours of its causes, and the legend."""
    figures, causes = figures_of(totals, run.costs), totals.activity.by_cause(run.costs)
    strict = [(f"c{index}", cause, causes[cause]) for index, cause in enumerate(CAUSES)]
    bars = {key: [("plain", figures[key])] for key in ("energy_spike_only_mj", "energy_ann_mj", "energy_dense_snn_mj")}
    bars = {"energy_mj": [(style, mj) for style, _, mj in strict], **bars}
    longest = max(figures[key] for key in bars) or 1.0
    return {
        "note": priced(totals, run),
        "bars": [_bar(key, figures[key], parts, longest) for key, parts in bars.items()],
        "causes": [(style, cause, mj, 100 * mj / figures["energy_mj"]) for style, cause, mj in strict if mj],
        "even": figures["break_even_spike_rate"],
        "tiling": figures["tiling_share"],
    }


def _bar(key: str, millijoules: float, parts: Sequence[tuple[str, float]], longest: float) -> dict[str, Any]:
    """One bar of (class, millijoules) parts: each with where it starts and how wide it is, in percent."""
    figure, start, placed = FIGURES[key], 0.0, []
    for style, part in parts:
        width = 100 * part / longest
        placed.append((style, start, width))
        start += width
    return {"label": f"{figure.title}, {figure.about}: {figure.with_unit(millijoules)}", "parts": placed}


def _layers(rates: dict[str, float]) -> dict[str, Any]:
    """A column for each neuron layer, neighbouring parts of the network in two colours."""
    top = math.ceil(100 * max(rates.values()) / 25) * 25 or 25  # percent
    columns: list[dict[str, Any]] = []
    groups = []
    for color, (part, names) in enumerate(groupby(rates, lambda name: name.split(".")[0])):
        percents = {name: 100 * rates[name] for name in names}
        label = part.replace("encoder_level", "enc ").replace("decoder_level", "dec ").replace("_chan_level", " ")
        groups.append((part, label.replace("_", "-"), len(percents)))
        columns += [
            {"name": name, "percent": percent, "height": 100 * percent / top, "style": f"c{color % 2 * 4}"}
            for name, percent in percents.items()
        ]
    return {
        "columns": columns,
        "groups": groups,
        "width": 100 / len(columns),
        "marks": [(mark, 100 - 100 * mark / top) for mark in range(0, top + 1, 25)],
        "highest": max(columns, key=lambda column: column["percent"]),
    }


def _table(results: Sequence[ImageResult], run: RunInfo, each: str) -> dict[str, Any]:
    """A row for each result; one that is not done has its fate instead of figures."""
    scored, counted = any(result.quality for result in results), any(result.activity for result in results)
    columns = [FIGURES[key] for key in (*(_SCORES if scored else ()), *(_COUNTED if counted else ()))]
    rows = []
    for result in results:
        if result.status == "ok":
            figures = figures_of(result, run.costs)
            size = f"{result.width}x{result.height}"
            rows.append([result.input, size, *(column.text(figures[column.key]) for column in columns)])
        else:
            rows.append([result.input, _fate(result)])
    head = [each.capitalize(), "Size", *(column.heading(column.title) for column in columns)]
    return {"head": head, "rows": rows}


def _below(share: float | None) -> str:
    """A share of the twin's energy in words: 0.8 is "80 % below"."""
    return "" if share is None else f"{abs(100 * share):,.0f} % {'above' if share < 0 else 'below'}"


def _data(webp: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"
