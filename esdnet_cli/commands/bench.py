"""esdnet bench: how fast a checkpoint runs on this machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from esdnet_cli.options import PATH, option, run_options
from esdnet_cli.settings import RunOptions

if TYPE_CHECKING:
    from esdnet_cli.bench.measure import Bench


@click.command(name="bench", short_help="Measure speed and peak memory on this machine.")
@click.argument("picture", required=False, type=PATH, metavar="[PICTURE]")
@option(
    "--rounds",
    type=click.IntRange(min=1),
    metavar="N",
    default=5,
    show_default=True,
    help="Number of timed runs; the median is shown.",
)
@option("--against-published", is_flag=True, help="Also time the published implementation.")
@run_options(
    "ensemble", "scales", "no_energy", "energy_preset", "pj_mac", "pj_ac", "spike_map", "dry_run", "verbose", json="",
)  # fmt: skip
def command(picture: Path | None, rounds: int, against_published: bool, options: RunOptions) -> None:
    """Measure images/s, GMAC/s, the share of this machine's matmul peak, peak memory, a lower bound for the
    time, and where the time goes.

    Without PICTURE, a 481x321 noise pattern is used. The published implementation runs in fp32: the picture repeated
    for every step, neurons as a loop over steps, one tile at a time.

    \b
    Examples:
      esdnet bench --against-published
      esdnet bench photo.jpg --precision int8 --report bench.json
    """
    from esdnet_cli.bench.measure import bench
    from esdnet_cli.bench.pattern import read_or_make
    from esdnet_cli.report.files import write_text
    from esdnet_cli.show.network import load_derainer

    image = read_or_make(picture)
    derainer = load_derainer(replace(options, scales=1))  # as the published way
    measured = bench(derainer, image, rounds, against_published)
    if not options.quiet:
        click.echo("\n".join(lines(measured, derainer.checkpoint.name)))
    if options.report is not None:
        weights = {"name": derainer.checkpoint.name, "sha256": derainer.checkpoint.sha256}
        write_text(options.report, json.dumps({"weights": weights, **measured.to_dict()}, indent=1) + "\n")


def lines(measured: Bench, weights: str) -> list[str]:
    """For a terminal, with the name of the weights."""
    from esdnet_cli.checkpoint.header import FITTED
    from esdnet_cli.pipeline.tiling import Tiling

    tiling = Tiling(measured.tile, measured.overlap, measured.tile_shape == FITTED)
    lines = [
        f"{weights}, {measured.precision}, {measured.width}x{measured.height}, {tiling}",
        f"{measured.processor} ({measured.device}), {measured.threads} threads, median of {measured.rounds}",
        f"{'images':<16} {measured.images_per_s:>9.3f} /s    {measured.seconds:.3f} s each",
        f"{'megapixels':<16} {measured.megapixels_per_s:>9.4f} /s",
        f"{'GMAC':<16} {measured.gmac_per_s:>9.1f} /s    {measured.gmac:.1f} each, as if dense",
        f"{'matmul peak':<16} {measured.peak_gmac_per_s:>9.1f} /s    {100 * measured.peak_share:.1f} % of it reached, "
        f"{100 * measured.convolution_peak_share:.1f} % in convolutions",
        f"{'peak memory':<16} {measured.peak_memory_mib:>9.0f} MiB",
    ]
    least = measured.bound
    lines.append(
        f"{'bound':<16} {least.seconds:>9.3f} s     the longer of operations at their peak {least.operations_s:.3f} s, "
        f"{least.gigabytes:.2f} GB moved once at {least.gigabytes_per_s:.0f} GB/s {least.traffic_s:.3f} s"
    )
    whole = sum(measured.stages_s.values())
    lines += [
        f"{name:<16} {1000 * spent:>9.1f} ms {100 * spent / whole:>6.1f} %" for name, spent in measured.stages_s.items()
    ]
    if measured.published:
        other = measured.published
        low, high = other.speedup_quartiles
        lines += [
            f"{'published way':<16} {other.published_seconds:>9.3f} s     {other.speedup:.2f} times as fast as it "
            f"(quartiles {low:.2f} to {high:.2f})",
            f"{'difference':<16} {other.largest_difference:>9} levels at most; {100 * other.within_one_level:.3f} % of "
            "the pixels within 1",
        ]
    return lines
