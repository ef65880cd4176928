"""One run shown in a terminal: progress on stderr, rows on stdout, then summary, report and exit code."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from esdnet_cli.energy import meter
from esdnet_cli.energy.cost import LEFT_OUT, EnergyCosts
from esdnet_cli.errors import EsdnetError, printable
from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.pipeline.derainer import AsIs, Derainer
from esdnet_cli.pipeline.journal import Journal
from esdnet_cli.pipeline.kinds import unread_lines
from esdnet_cli.pipeline.observers import SpikeMaps, previews, score
from esdnet_cli.pipeline.output import Nowhere, Output, pixel_settings
from esdnet_cli.pipeline.results import ImageResult, ModelInfo, RunInfo, Totals
from esdnet_cli.pipeline.run import Observer, derain_files, plan
from esdnet_cli.pipeline.sources import Job, Source, Unusable
from esdnet_cli.report import papers, rows
from esdnet_cli.report.figures import totals
from esdnet_cli.report.files import report_ending, write_report
from esdnet_cli.report.merge import done_before, merge
from esdnet_cli.settings import RunOptions
from esdnet_cli.shards import Shard
from esdnet_cli.show.terminal import libraries_muted, picture_bar, print_rows, tell, typed_command

PREVIEW_BYTES = 12 * 2**20  # of all pictures of an HTML report, in which they take a third more
PREVIEW_FEWEST = 24  # fewer pictures than that get no larger share


def split(
    shard: Shard, jobs: Sequence[Job], unusable: list[Unusable], options: RunOptions
) -> tuple[list[Job], list[Unusable], RunOptions]:
    """This process's share of the work, with a report of its own; the first one tells what is unusable."""
    share = shard.take(jobs)
    if shard.count > 1 and not options.quiet:
        tell(f"Shard {shard.index} of {shard.count} ({shard.source}): {len(share)} of {len(jobs)} pictures.")
    if options.report is not None:
        options = replace(options, report=shard.report(options.report, report_ending(options.report)))
    return share, unusable if shard.index == 1 else [], options


def show_run(
    derainer: Derainer | AsIs, jobs: Sequence[Job], unusable: Sequence[Unusable], output: Output | Nowhere,
    options: RunOptions, targets: Mapping[Source, Path] = {}, unread: Mapping[str, int] = {},
    maps: SpikeMaps | None = None,
) -> int:  # fmt: skip
    """Derain and print each result as it comes; returns the exit code.

    targets: what pictures that have one are scored against. unread: what was passed over, as of `find_sources`.
    maps: see `spike_maps`. Interrupted, it still prints the summary and writes the report, then raises
    KeyboardInterrupt.
    """
    model = derainer.info
    if maps is not None:
        maps.output.prepare()
    observers = _observers(len(jobs), options, targets)
    results = [ImageResult.failed(entry.input, entry.error) for entry in unusable]
    meters = derainer.meters()
    meter.begin(meters)
    started, clock = datetime.now(UTC).astimezone().isoformat(timespec="seconds"), time.perf_counter()
    interrupted = False
    with libraries_muted(), picture_bar(len(jobs), options.quiet) as bar:

        def on_progress(share: float) -> None:
            bar.update(share)
            for counter in meters:  # within a picture, too: they wrap around, and a panorama takes long
                counter.update()

        for result in results:
            tell(f"{result.input}: {result.error}")
        if not options.quiet and jobs:
            print_rows(*rows.heading(bool(targets), bool(model)))
        try:
            for result in derain_files(derainer, jobs, output, on_progress, observers, options.count, maps):
                results.append(result)
                _show(result, options, bool(targets))
        except KeyboardInterrupt:
            interrupted = True
    seconds = time.perf_counter() - clock
    info = RunInfo(model, options.costs, typed_command(), started, seconds, meter.end(meters))
    summary = totals(results, options.costs)
    if jobs:
        show_summary(results, info, summary, options, short=output.writes)
    if not options.quiet:
        for line in unread_lines(unread):
            tell(line)
    if interrupted and not options.quiet:
        anew = "begins anew; without --overwrite it skips what is finished"  # files of others it would still refuse
        resume = f"; the same command {anew if output.overwrite else 'continues from here'}" if output.writes else ""
        tell(f"Interrupted after {summary.ok + summary.skipped} of {len(jobs)} pictures{resume}.")
    if options.report is not None:
        if output.writes and model is not None and (known := done_before(options.report, model)):
            results = _with_earlier_figures(results, jobs, known)
            summary = totals(results, options.costs)
        write_report(options.report, results, info, summary)
        missing = sum(result.status == "skipped" and result.width is None for result in results)
        tell_figures_missing(options, missing, "pictures")
    if interrupted:
        raise KeyboardInterrupt
    return 1 if summary.failed else 0


def _with_earlier_figures(
    results: Sequence[ImageResult], jobs: Sequence[Job], known: Mapping[str, ImageResult]
) -> list[ImageResult]:
    """With the figures that the report which this run's replaces has of what was skipped, or not reached any more."""
    both = []
    for result in results:
        before = known.get(result.input)
        if result.status == "skipped" and before is not None and before.input_sha256 == result.input_sha256:
            result = replace(before, status="skipped", output=result.output)
        both.append(result)
    reached = {result.input for result in results}
    left = [job.source.name for job in jobs if job.source.name not in reached]
    return both + [replace(known[name], status="skipped") for name in left if name in known]


def show_merged(paths: Sequence[Path], reprice: Callable[[EnergyCosts], EnergyCosts], options: RunOptions) -> int:
    """Print the pictures of several JSON reports and their total, as one run's; returns the exit code.

    reprice: the first report's costs -> those that hold.
    """
    results, info = merge(paths, reprice, typed_command())
    options = replace(options, costs=info.costs)
    summary = totals(results, info.costs)
    scored = any(result.quality for result in results)
    if not options.quiet:
        print_rows(*rows.heading(scored, network=True))
    for result in results:
        _show(result, options, scored)
    show_summary(results, info, summary, options, short=False)
    if options.report is not None and not options.dry_run:
        write_report(options.report, results, info, summary)
    return 1 if summary.failed else 0


def tell_figures_missing(options: RunOptions, missing: int, what: str) -> None:
    """Say that what an earlier run has done stands in the report without figures."""
    if options.report is not None and missing and not options.quiet:
        tell(
            f"{printable(options.report)} lacks the figures of {missing} {what} finished by an earlier run; "
            "--overwrite computes them again."
        )


def show_compared(paths: Sequence[Path], reprice: Callable[[EnergyCosts], EnergyCosts]) -> int:
    """As `show_merged`, of two JSON reports side by side. Raises EsdnetError if they are not two."""
    if len(paths) != 2:
        raise EsdnetError(f"--compare takes two JSON reports, not {len(paths)}")
    print_rows(*papers.compare_rows(paths[0], paths[1], reprice, typed_command()))
    return 0


def show_summary(
    results: Sequence[ImageResult], info: RunInfo, summary: Totals, options: RunOptions, *, short: bool
) -> None:
    """Totals, what they are made of (unless `short` and not verbose), what they leave out, and failures again."""
    if options.quiet:
        return
    print_rows(*rows.total_rows(summary, info))
    if not short or options.verbose:  # who came for a picture wants it short
        print_rows(*rows.summary_rows(summary, info))
    if info.model is not None and any(result.activity is not None for result in results):
        tell("Energy is estimated from counted operations; left out: " + ", ".join(LEFT_OUT) + ".")
    for result in results:
        if result.status == "failed":
            tell(f"failed: {result.input}: {result.error}")


def spike_maps(
    model: ModelInfo | None, names: Mapping[Source, Path], options: RunOptions, overwrite: bool = False
) -> SpikeMaps | None:
    """What --spike-map asks for, if there is a network; names: of the pictures' maps (`sources.plan_maps`)."""
    if options.spike_map is None or model is None:
        return None
    journal = Journal(options.spike_map, {**pixel_settings(model), "spike_map": True})
    maps = Output(journal, overwrite, mend="move it, or choose another --spike-map")
    return SpikeMaps(names, maps, ESDNetConfig.from_dict(model.config).spiking_levels)


def _observers(pictures: int, options: RunOptions, targets: Mapping[Source, Path]) -> list[Observer]:
    found = []
    if targets:
        found.append(score(targets))
    if options.report is not None and report_ending(options.report) == ".html":
        found.append(previews(PREVIEW_BYTES // max(pictures, PREVIEW_FEWEST)))
    return found


def show_plan(
    derainer: Derainer | AsIs, jobs: Sequence[Job], unusable: Sequence[Unusable], output: Output | Nowhere,
    unread: Mapping[str, int] = {}, maps: SpikeMaps | None = None,
) -> int:  # fmt: skip
    """Print what a run would do with each input, touching nothing; returns the exit code that it would begin with."""
    return show_fates(derainer, (plan(job, output, maps) for job in jobs), unusable, output.verb, unread)


def show_fates(
    derainer: Derainer | AsIs, fates: Iterable[ImageResult], unusable: Sequence[Unusable], verb: str = "derain",
    unread: Mapping[str, int] = {},
) -> int:  # fmt: skip
    """As `show_plan`, of fates that are known or found as they are asked for; verb: what is done with those ahead."""
    failed = len(unusable)
    for entry in unusable:
        tell(f"{entry.input}: {entry.error}")
    for fate in fates:
        failed += fate.status == "failed"
        does = {"ok": verb, "skipped": "skip", "failed": "fail"}[fate.status]
        arrow = f" -> {fate.output}" if fate.output else ""
        print_rows(f"{does:<8} {fate.input}{arrow}{f': {fate.error}' if fate.error else ''}")
    for line in unread_lines(unread):
        tell(line)
    tell(f"Dry run: {derainer}; nothing was written.")
    return 1 if failed else 0


def _show(result: ImageResult, options: RunOptions, scored: bool) -> None:
    if result.status == "failed":
        tell(f"{result.input}: {result.error}")
    if options.quiet:
        return
    if result.lost:
        tell(f"{result.input}: not in the output: {', '.join(result.lost)}.")
    print_rows(rows.row(result, options.costs, scored))
    if options.verbose and result.activity is not None:
        print_rows(*rows.layer_rows(result.activity, options.costs))
