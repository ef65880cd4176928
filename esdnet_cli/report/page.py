"""The HTML report: one file that needs nothing else, with pictures and SVG charts; no arithmetic beyond shares."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from itertools import groupby
from string import Template

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
    break_even_rate,
)
from esdnet_cli.energy.twin import TWIN_DENSITY, Comparison
from esdnet_cli.pipeline.results import ImageResult, RunInfo, Totals
from esdnet_cli.report.figures import comparison, digits, priced

_ROW, _BAR, _GAP = 20, 16, 12  # pixels of an SVG chart: text, bar, space
_LEVEL_NAMES = ("full", "half", "quarter")


def to_html(results: Sequence[ImageResult], run: RunInfo, totals: Totals) -> str:
    """The report as one HTML page; pictures are those that a `previews` observer made."""
    counted = totals.activity.spike_rate is not None
    sections = []
    if any(result.preview or result.status != "ok" for result in results):  # merged reports hold no pictures
        sections.append(("pictures", "Pictures", _pictures(results, run)))
    if counted:
        sections += [
            ("energy", "Energy", _energy(totals, run)),
            ("layers", "Spike rate by layer", _layers(totals)),
        ]
    sections += [("table", "All figures", _table(results, run)), ("method", "How this was measured", _method(run))]
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title, _ in sections)
    network = f"network {escape(run.model.weights_name)}" if run.model else "scored as they were"
    title = f"esdnet report: {totals.ok} picture{'' if totals.ok == 1 else 's'}"
    body = (
        f"<header><h1>{title}</h1>"
        f'<p class="soft">esdnet {__version__}, {network}, {escape(run.started)}</p></header>'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav><main>{_facts(totals, run)}'
        + "".join(f'<section><h2 id="{name}">{title}</h2>{content}</section>' for name, title, content in sections)
        + "<footer>Energy is an estimate from counted operations, not a measurement, except where it says so.</footer>"
        "</main>"
    )
    template = Template(files("esdnet_cli.report").joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(title=title, body=body)


def _facts(totals: Totals, run: RunInfo) -> str:
    facts = [
        ("Pictures", f"{totals.ok}", f"{totals.megapixels:.2f} megapixels in {run.seconds:.0f} s"),
    ]
    if totals.skipped or totals.failed:
        facts.append(
            ("Not done", f"{totals.skipped + totals.failed}", f"{totals.skipped} skipped, {totals.failed} failed")
        )
    if totals.quality:
        facts.append(("PSNR, mean", f"{totals.quality.psnr_y:.2f} dB", f"SSIM {totals.quality.ssim_y:.4f} (Y channel)"))
    activity, energy = totals.activity, totals.activity.energy
    if activity.spike_rate is not None:
        compared = comparison(totals, run)
        against = "by counted operations"
        if compared is not None and compared.range is not None:
            least, most = (100 * share for share in compared.range)
            against = f"from {_below(least)} to {_below(most)} its ordinary twin, by what is counted"
        facts += [
            ("Spike rate", f"{100 * activity.spike_rate:.1f} %", "of all neurons at all steps fired"),
            ("Energy, strict estimate", f"{digits(energy.strict_mj)} mJ", against),
        ]
    for measured in run.measured:
        what = f"net of {measured.idle_watts:.1f} W idle; {measured.source}, all that ran there"
        facts.append(("Measured", f"{digits(measured.net_joules)} J", what))
    cells = (
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for name, value, note in facts
    )
    return f'<dl class="facts">{"".join(cells)}</dl>'


def _pictures(results: Sequence[ImageResult], run: RunInfo) -> str:
    shown = [_picture(result, run) for result in results if result.preview]
    told = [
        f"<li><strong>{escape(result.input)}</strong>: {escape(_fate(result))}</li>"
        for result in results
        if result.status != "ok"
    ]
    hint = "Drag over a picture, or focus it and use the arrow keys: rainy on the left, derained on the right."
    return (
        (f'<p class="soft">{hint}</p>' if shown else "")
        + f'<div class="pictures">{"".join(shown)}</div>'
        + (f"<ul>{''.join(told)}</ul>" if told else "")
    )


def _fate(result: ImageResult) -> str:
    if result.status == "skipped":
        return "skipped: done before, its figures are in the report of that run"
    return result.error or result.status


def _picture(result: ImageResult, run: RunInfo) -> str:
    preview = result.preview
    assert preview is not None
    name = escape(result.input, quote=True)
    facts = [f"{result.width}x{result.height}"]
    if result.quality:
        facts.append(f"PSNR {result.quality.psnr_y:.2f} dB, SSIM {result.quality.ssim_y:.4f}")
    if result.activity and result.seconds is not None:
        energy = result.activity.energy(run.costs)
        facts += [
            f"{result.seconds:.2f} s",
            f"spike rate {100 * result.activity.spike_rate:.1f} %",
            f"strict {digits(energy.strict_mj)} mJ",
        ]
    if result.spike_rain and result.spike_rain.spike_rain_r is not None:
        facts.append(f"correlation of spikes and rain {result.spike_rain.spike_rain_r:.2f}")
    maps = "".join(
        f'<div><img src="{_data(spikes)}" decoding="async" '
        f'alt="Where neurons fire in {name} at {resolution} resolution">'
        f"<span>{resolution} resolution: {100 * low:.0f} to {100 * high:.0f}&nbsp;%</span></div>"
        for spikes, (low, high), resolution in zip(preview.spikes, preview.scales, _LEVEL_NAMES)
    )
    return (
        f'<figure><div class="compare">'
        f'<img class="after" src="{_data(preview.after)}" decoding="async" alt="{name}, derained">'
        f'<img class="before" src="{_data(preview.before)}" decoding="async" alt="{name}, rainy">'
        f'<input type="range" min="0" max="100" value="50" '
        f'aria-label="{name}: how much of the rainy picture is shown, in percent">'
        f"</div><figcaption><strong>{name}</strong><br>{escape(', '.join(facts))}"
        + (f'<div class="maps">{maps}</div>' if maps else "")
        + "</figcaption></figure>"
    )


def _energy(totals: Totals, run: RunInfo) -> str:
    energy, causes = totals.activity.energy, totals.activity.by_cause
    bars = [
        ("strict: operations as executed", [(f"c{index}", causes[cause]) for index, cause in enumerate(CAUSES)]),
        ("spike-only: the literature's habit", [("plain", energy.spike_only_mj)]),
        ("ann: the same graph, not spiking", [("plain", energy.ann_mj)]),
        ("strict, every neuron firing", [("plain", energy.dense_snn_mj)]),
    ]
    legend = "".join(
        f'<li><svg aria-hidden="true"><rect width="100%" height="100%" class="c{index}"/></svg>'
        f"{cause}: {digits(causes[cause])} mJ ({100 * causes[cause] / energy.strict_mj:.1f} %)</li>"
        for index, cause in enumerate(CAUSES)
        if causes[cause]
    )
    rate = break_even_rate(totals.activity, energy, run.costs)
    if rate is None:
        even = "Its multiply-accumulates alone cost more than the ordinary network: no spike rate would break even."
    elif rate >= 1:
        even = "Strict stays below the ordinary network at any spike rate."
    else:
        even = f"Strict would equal the ordinary network at a spike rate of {100 * rate:.1f} %."
    tiling = ""
    if totals.tiling_share is not None:
        tiling = f" Overlap and padding of tiles were {100 * totals.tiling_share:.1f} % of the computed pixels."
    note = priced(totals, run)
    compared = comparison(totals, run)
    return (
        (f'<p class="soft">{note[:1].upper()}{escape(note[1:])}.</p>' if note else "")
        + _bars(bars)
        + f'<ul class="legend" aria-label="Strict energy by cause">{legend}</ul><p>{even}{tiling}</p>'
        + (_twin(compared) if compared else "")
    )


def _twin(compared: Comparison) -> str:
    """The views as a table, and what an ordinary network of the same cost would be."""
    head = ["In mJ", "Network", "Twin", "It is"]
    rows = []
    for view in compared.views:
        share = "" if view.below is None else _below(100 * view.below)
        rows.append([view.name, digits(view.network_mj), digits(view.twin_mj), share])
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
    return (
        '<h3>Against its ordinary twin</h3><p class="soft">The same run in many ways of counting, each beside the same '
        "graph without spikes, counted in that way. Which one is fair depends on the hardware.</p>"
        f'<div class="scroll"><table class="views"><thead><tr>{_cells("th", head)}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
        f"<p>An ordinary network of this graph that costs what strict says would be {compared.equal_cost_dim} channels "
        f"wide instead of {compared.dim}. Spikes cause {compared.accumulations_per_synapse:.2f} accumulations for each "
        f"synapse and inference. {100 * compared.not_spiking_share:.1f} % of strict is not spiking; "
        f"{100 * compared.refinement_share:.1f} % is refinement and output, which could be.</p>"
    )


def _below(percent: float) -> str:
    return f"{abs(percent):.0f} % {'above' if percent < 0 else 'below'}"


def _bars(bars: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> str:
    """Horizontal bars, each of (class, millijoules) parts, as wide as the page."""
    longest = max(sum(value for _, value in parts) for _, parts in bars) or 1.0
    rows, told = [], []
    for index, (name, parts) in enumerate(bars):
        top, at = index * (_ROW + _BAR + _GAP), 0.0
        label = f"{name}: {digits(sum(value for _, value in parts))} mJ"
        told.append(label)
        rows.append(f'<text x="0" y="{top + 14}">{escape(label)}</text>')
        for style, value in parts:
            width = 100 * value / longest
            rows.append(f'<rect x="{at:.3f}%" y="{top + _ROW}" width="{width:.3f}%" height="{_BAR}" class="{style}"/>')
            at += width
    height = len(bars) * (_ROW + _BAR + _GAP)
    return f'<svg role="img" height="{height}" aria-label="{escape("; ".join(told), quote=True)}">{"".join(rows)}</svg>'


def _layers(totals: Totals) -> str:
    rates = totals.activity.spike_rates
    width = 100 / len(rates)
    top = math.ceil(100 * max(rates.values()) / 25) * 25 or 25  # percent
    columns: list[str] = []
    groups = []
    for color, (part, names) in enumerate(groupby(rates, lambda name: name.split(".")[0])):
        members = list(names)
        label = part.replace("encoder_level", "enc ").replace("decoder_level", "dec ").replace("_chan_level", " ")
        groups.append(
            f'<span style="width:{len(members) * width:.3f}%" title="{escape(part)}">'
            f"{escape(label.replace('_', '-'))}</span>"
        )
        for name in members:
            x, percent = len(columns) * width, 100 * rates[name]
            height = 100 * percent / top
            columns.append(
                f'<rect x="{x + 0.1 * width:.3f}%" y="{100 - height:.2f}%" width="{0.8 * width:.3f}%" '
                f'height="{height:.2f}%" class="c{color % 2 * 4}"><title>{escape(name)}: {percent:.2f} %</title></rect>'
            )
    highest = max(rates, key=lambda name: rates[name])
    peak = f"highest {100 * rates[highest]:.1f} % in {highest}"
    told = escape(f"Spike rates of {len(rates)} neuron layers in the order of the data; {peak}")
    marks = [(mark, 100 - 100 * mark / top) for mark in range(0, top + 1, 25)]
    grid = "".join(f'<line x2="100%" y1="{y:.2f}%" y2="{y:.2f}%" stroke="var(--line)"/>' for _, y in marks)
    scale = "".join(f'<text x="6" y="{y:.2f}%" dy="5">{mark} %</text>' for mark, y in marks)
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{100 * rate:.2f} %</td></tr>" for name, rate in rates.items())
    return (
        f'<div class="chart"><svg role="img" height="220" aria-label="{told}">{grid}{"".join(columns)}</svg>'
        f'<svg height="220" aria-hidden="true">{scale}</svg>'
        f'<div class="groups" aria-hidden="true">{"".join(groups)}</div></div>'
        f'<details><summary>As a table</summary><div class="scroll"><table><thead><tr><th scope="col">Layer</th>'
        f'<th scope="col">Spike rate</th></tr></thead><tbody>{rows}</tbody></table></div></details>'
    )


def _table(results: Sequence[ImageResult], run: RunInfo) -> str:
    scored, counted = any(result.quality for result in results), any(result.activity for result in results)
    head = ["Picture", "Size", *(["PSNR, dB", "SSIM"] if scored else [])]
    if counted:
        head += ["Seconds", "Spike rate", "Strict, mJ", "Spike-only, mJ", "ANN, mJ"]
    rows = []
    for result in results:
        if result.status != "ok":
            rows.append([result.input, _fate(result)])
            continue
        cells = [result.input, f"{result.width}x{result.height}"]
        if scored:
            quality = result.quality
            cells += [f"{quality.psnr_y:.2f}", f"{quality.ssim_y:.4f}"] if quality else ["", ""]
        if result.activity and result.seconds is not None:
            energy = result.activity.energy(run.costs)
            cells += [f"{result.seconds:.2f}", f"{100 * result.activity.spike_rate:.2f} %"]
            cells += [digits(value) for value in (energy.strict_mj, energy.spike_only_mj, energy.ann_mj)]
        rows.append(cells)
    body = "".join(_row(row, len(head)) for row in rows)
    return f'<div class="scroll"><table><thead><tr>{_cells("th", head)}</tr></thead><tbody>{body}</tbody></table></div>'


def _row(cells: Sequence[str], columns: int) -> str:
    if len(cells) == columns:
        return f"<tr>{_cells('td', cells)}</tr>"
    return f'<tr>{_cells("td", cells[:1])}<td class="words" colspan="{columns - 1}">{escape(cells[1])}</td></tr>'


def _cells(tag: str, texts: Iterable[str]) -> str:
    scope = ' scope="col"' if tag == "th" else ""
    return "".join(f"<{tag}{scope}>{escape(text)}</{tag}>" for text in texts)


def _method(run: RunInfo) -> str:
    costs, model = run.costs, run.model
    entries = [("Command", f"<pre>{escape(run.command)}</pre>")]
    if model:
        config = ", ".join(f"{key} {value}" for key, value in model.config.items())
        side = f"tiles of {model.tile}, overlap {model.overlap}" if model.tile else "in one piece"
        entries += [
            ("Network", escape(f"{model.weights_name}: {config}; SHA-256 {model.weights_sha256}")),
            ("Run", escape(f"{model.device}, {model.precision}, {side}, {model.timesteps} steps; {run.seconds:.1f} s")),
            (
                "Constants",
                f"{costs.pj_mac:g} pJ for a multiply-accumulate, {costs.pj_ac:g} pJ for an accumulation "
                + ("(45 nm: Horowitz, ISSCC 2014)" if costs in PRESETS.values() else "(set by hand)"),
            ),
            (
                "Strict",
                "An accumulation for each spike, output position that its window reaches and output channel. "
                "Multiply-accumulates for convolutions of real numbers, attention, refinement and membrane updates. "
                "Counted in the real run, tile by tile, overlap and padding included.",
            ),
            ("Spike-only", "The first convolution as multiply-accumulates, every other at its input's non-zero rate as "
             "accumulations, and nothing else: what papers on spiking networks usually report."),
            ("Ann", "The ordinary twin: the same graph once (T = 1), every convolution, attention and refinement as "
             "multiply-accumulates, padding not multiplied, no membrane."),
            ("Every neuron firing", "Strict with a spike of each neuron at each step. The break-even rate is read off "
             "between silence, the run and this, accumulations growing evenly in between."),
            ("Number formats", escape(_formats()) + " (Horowitz). Formats as run: each layer in the format that it "
             "computed in, added up in 32 bits."),
            ("Twin skips its zeros", f"Where spikes drive our convolutions, the twin multiplies {TWIN_DENSITY:.0%} of "
             "its inputs: what a ReLU lets through of centred ones."),
            ("Memory", f"{MEMORY_MODEL}; {PJ_PER_BIT:g} pJ a bit, 32, 16 or 8 bits a word. Weights that do not fit "
             f"come from DRAM for each tile, at {PJ_PER_DRAM_BIT:.1f} pJ a bit. Or {NO_REUSE_MODEL}. Both are bounds, "
             "and in no other figure."),
            ("Left out", escape(", ".join(LEFT_OUT)) + ". Nothing is claimed of latency."),
            ("Where neurons fire", "Spikes / (neurons x steps) at each place, of all neuron layers of one resolution; "
             "the darkest and brightest colours are the 1st and 99th percentile of that map."),
        ]  # fmt: skip
    return f'<dl class="method">{"".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in entries)}</dl>'


def _formats() -> str:
    named = {"fp32": "fp32-45nm", "fp16": "fp16-45nm", "int8": "int8-45nm", "int8 into 32 bits": "int8-sum32-45nm"}
    costs = {**{name: PRESETS[key] for name, key in named.items()}, "bf16 as run": AS_RUN["bf16"]}
    parts = (f"{name} {cost.pj_mac:g} and {cost.pj_ac:g}" for name, cost in costs.items())
    return f"Picojoules of a MAC and an AC: {', '.join(parts)}"


def _data(webp: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"
