"""One run shown in a terminal: progress on stderr, rows on stdout, then summary, report and exit code."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from esdnet_cli.energy import meter
from esdnet_cli.energy.cost import LEFT_OUT, EnergyCosts
from esdnet_cli.errors import EsdnetError, printable
from esdnet_cli.files import write_atomically
from esdnet_cli.model.inference import choose_device, keep_freed_memory
from esdnet_cli.pipeline.derainer import Derainer, load
from esdnet_cli.pipeline.journal import Journal
from esdnet_cli.pipeline.kinds import unread_line
from esdnet_cli.pipeline.observers import previews, score, spike_pictures
from esdnet_cli.pipeline.results import ImageResult, ModelInfo, RunInfo, Totals, totals
from esdnet_cli.pipeline.run import Observer, Output, derain_files, pixel_settings, plan
from esdnet_cli.pipeline.sources import Job, Source, Unusable, plan_outputs
from esdnet_cli.report import figures as report
from esdnet_cli.report import page, papers
from esdnet_cli.report.merge import merge
from esdnet_cli.settings import RunOptions
from esdnet_cli.shards import Shard

RENDERERS = {  # the first that fits a name
    ".html": page.to_html,
    ".json": report.to_json,
    ".layers.csv": report.to_layers_csv,
    ".csv": report.to_csv,
    ".tex": papers.to_tex,
}
PREVIEW_BYTES = 12 * 2**20  # of all pictures of an HTML report, in which they take a third more
PREVIEW_FEWEST = 24  # fewer pictures than that get no larger share
BAR = "{desc}{percentage:3.0f}%|{bar}| {n:.1f}/{total_fmt} pictures [{elapsed}<{remaining}]"


def load_derainer(options: RunOptions) -> Derainer:
    """The Derainer that these options ask for; it says on stderr when memory made it take smaller batches.

    Under torchrun each process takes a GPU of its own.
    """
    keep_freed_memory()
    device = choose_device(options.device, int(os.environ.get("LOCAL_RANK", "0")))
    derainer = load(
        options.weights, device=str(device), precision=options.precision,
        tile=options.tile, overlap=options.overlap, batch=options.batch, ensemble=options.ensemble,
    )  # fmt: skip
    if derainer.checkpoint.assumption:
        tell(derainer.checkpoint.assumption)
    if not options.quiet:
        derainer.on_smaller_batch = lambda size: tell(f"Out of memory: going on with {size} tiles at once.")
    return derainer


def split(
    shard: Shard, jobs: Sequence[Job], unusable: list[Unusable], options: RunOptions
) -> tuple[list[Job], list[Unusable], RunOptions]:
    """This process's share of the work, with a report of its own; the first one tells what is unusable."""
    share = shard.take(jobs)
    if shard.count > 1 and not options.quiet:
        tell(f"Shard {shard.index} of {shard.count} ({shard.source}): {len(share)} of {len(jobs)} pictures.")
    if options.report is not None:
        options = replace(options, report=shard.report(options.report, _ending(options.report)))
    return share, unusable if shard.index == 1 else [], options


def tell(message: str) -> None:
    """A line on stderr, above the progress bar if there is one."""
    with suppress(OSError):  # a full disk behind stderr is no failure of the run
        tqdm.write(message, file=sys.stderr)


def show_run(
    derainer: Derainer | None, jobs: Sequence[Job], unusable: Sequence[Unusable], output: Output | None,
    options: RunOptions, targets: Mapping[Source, Path] | None = None, unread: Counter[str] | None = None,
) -> int:  # fmt: skip
    """Derain (or measure, without `output`) and print each result as it comes; returns the exit code.

    With `targets` each picture is scored too; without a derainer pictures are scored as they are. unread: pictures that
    were passed over, by ending.
    Interrupted, it still prints the summary and writes the report, then raises KeyboardInterrupt.
    """
    observers = _observers(derainer, jobs, output, options, targets)
    results = [ImageResult(entry.input, None, "failed", entry.error) for entry in unusable]
    meters = meter.find_meters(derainer.device) if derainer else []
    meter.begin(meters)
    started, clock = datetime.now(UTC).astimezone().isoformat(timespec="seconds"), time.perf_counter()
    interrupted = False
    with libraries_muted(), _bar(len(jobs), options.quiet) as bar:

        def on_progress(share: float) -> None:
            bar.update(share)
            for counter in meters:  # within a picture, too: they wrap around, and a panorama takes long
                counter.update()

        for result in results:
            tell(f"{result.input}: {result.error}")
        if not options.quiet and jobs:
            _print(*report.heading(targets is not None, derainer is not None))
        try:
            for result in derain_files(
                derainer, jobs, output, on_progress, options.max_megapixels, observers, bool(observers), options.count
            ):
                results.append(result)
                _show(result, options)
        except KeyboardInterrupt:
            interrupted = True
    seconds = time.perf_counter() - clock
    info = RunInfo(
        model_info(derainer) if derainer else None, options.costs, typed_command(),
        started, seconds, meter.end(meters),
    )  # fmt: skip
    summary = totals(results, options.costs)
    if jobs:
        show_summary(results, info, summary, options, short=output is not None)
    if unread and not options.quiet:
        tell(unread_line(unread))
    if interrupted and not options.quiet:
        resume = "; the same command goes on from here" if output else ""
        tell(f"Interrupted after {summary.ok + summary.skipped} of {len(jobs)} pictures{resume}.")
    if options.report is not None:
        _write_report(options.report, results, info, summary)
        tell_figures_missing(options, summary, "pictures")
    if interrupted:
        raise KeyboardInterrupt
    return 1 if summary.failed else 0


def show_merged(paths: Sequence[Path], costs: EnergyCosts | None, options: RunOptions) -> int:
    """Print the pictures of several JSON reports and their total, as one run's; returns the exit code."""
    results, info = merge(paths, costs, typed_command())
    options = replace(options, costs=info.costs)
    summary = totals(results, info.costs)
    if not options.quiet:
        _print(*report.heading(scored=False, network=True))
    for result in results:
        _show(result, options)
    show_summary(results, info, summary, options, short=False)
    if options.report is not None:
        _write_report(options.report, results, info, summary)
    return 1 if summary.failed else 0


def tell_figures_missing(options: RunOptions, summary: Totals, what: str) -> None:
    """Say that what an earlier run has done stands in the report without figures."""
    if options.report is not None and summary.skipped and not options.quiet:
        tell(
            f"{printable(options.report)}: without the figures of {summary.skipped} {what} done before; "
            "they are in the report of that run, or --overwrite computes them again."
        )


def show_compared(paths: Sequence[Path], costs: EnergyCosts | None) -> int:
    """Print two JSON reports side by side; returns the exit code. Raises EsdnetError if they are not two."""
    if len(paths) != 2:
        raise EsdnetError(f"--compare takes two JSON reports, not {len(paths)}")
    _print(*papers.compare_rows(paths[0], paths[1], costs, typed_command()))
    return 0


def typed_command() -> str:
    """This process's command line with the variables that set options, for reports."""
    variables = sorted(item for item in os.environ.items() if item[0].startswith("ESDNET_"))
    settings = [f"{name}={shlex.quote(value)}" for name, value in variables]
    return printable(" ".join([*settings, shlex.join(["esdnet", *sys.argv[1:]])]))


def show_summary(
    results: Sequence[ImageResult], info: RunInfo, summary: Totals, options: RunOptions, *, short: bool
) -> None:
    """Totals, what they are made of (unless `short` and not verbose), what they leave out, and failures again."""
    if options.quiet:
        return
    _print(*report.total_rows(summary, info))
    if not short or options.verbose:  # who came for a picture wants it short
        _print(*report.summary_rows(summary, info))
    if info.model is not None and options.count:
        tell("Energy is estimated from counted operations; left out: " + ", ".join(LEFT_OUT) + ".")
    for result in results:
        if result.status == "failed":
            tell(f"failed: {result.input}: {result.error}")


def _observers(
    derainer: Derainer | None, jobs: Sequence[Job], output: Output | None, options: RunOptions,
    targets: Mapping[Source, Path] | None,
) -> list[Observer]:  # fmt: skip
    found = []
    if targets is not None:
        found.append(score(targets, options.max_megapixels))
    if options.spike_map is not None and derainer is not None:
        planned = plan_outputs([job.source for job in jobs], options.spike_map, "png")
        journal = Journal(options.spike_map, {**pixel_settings(derainer), "spike_map": True})
        journal.prepare()
        maps = Output(journal, output is not None and output.overwrite, mend="move it, or choose another --spike-map")
        found.append(spike_pictures({job.source: job.output for job in planned if job.output}, maps))
    if options.report is not None and _ending(options.report) == ".html":
        found.append(previews(PREVIEW_BYTES // max(len(jobs), PREVIEW_FEWEST)))
    return found


def show_plan(
    derainer: Derainer | None, jobs: Sequence[Job], unusable: Sequence[Unusable], output: Output | None,
    unread: Counter[str] | None = None,
) -> int:  # fmt: skip
    """Print what a run would do with each input, touching nothing; returns the exit code that it would begin with."""
    failed = len(unusable)
    for entry in unusable:
        tell(f"{entry.input}: {entry.error}")
    for job in jobs:
        fate = plan(job, output)
        failed += fate.status == "failed"
        work = "derain" if output else "measure" if derainer else "score"
        verb = {"ok": work, "skipped": "skip", "failed": "fail"}[fate.status]
        arrow = f" -> {fate.output}" if fate.output else ""
        _print(f"{verb:<8} {fate.input}{arrow}{f': {fate.error}' if fate.error else ''}")
    if unread:
        tell(unread_line(unread))
    tell(f"Dry run: {_network(derainer) if derainer else 'no network'}; nothing was written.")
    return 1 if failed else 0


def _network(derainer: Derainer) -> str:
    tiling = derainer.tiling
    side = f"tiles of {tiling.tile}, overlap {tiling.overlap}" if tiling.tile else "one piece"
    return f"{derainer.checkpoint.name}, {derainer.device}, {derainer.precision}, {side}"


@contextmanager
def libraries_muted() -> Iterator[None]:
    """Keep C libraries off stderr: libpng and libjpeg print about odd files on their own, and name none of them."""
    python_stderr = sys.stderr
    if python_stderr is not sys.__stderr__ or python_stderr is None or python_stderr.fileno() != 2:
        yield  # redirected within Python: they do not reach it
        return
    descriptor = os.dup(2)
    results = sys.stdout  # which goes to stderr, too, where a picture goes to stdout
    with open(os.devnull, "w") as nowhere, open(descriptor, "w", buffering=1, errors="replace") as ours:
        python_stderr.flush()
        os.dup2(nowhere.fileno(), 2)
        sys.stderr = ours
        if results is python_stderr:
            sys.stdout = ours
        try:
            yield
        finally:
            sys.stderr, sys.stdout = python_stderr, results
            os.dup2(descriptor, 2)


def _show(result: ImageResult, options: RunOptions) -> None:
    if result.status == "failed":
        tell(f"{result.input}: {result.error}")
    if options.quiet:
        return
    if result.lost:
        tell(f"{result.input}: not in the output: {', '.join(result.lost)}.")
    _print(report.row(result, options.costs))
    if options.verbose and result.activity is not None:
        _print(*report.layer_rows(result.activity, options.costs))


def _print(*lines: str) -> None:
    for line in lines:
        tqdm.write(line, file=sys.stdout)


def _bar(count: int, quiet: bool) -> Any:
    # disable=None: no bar where stderr is no terminal; miniters=0: shares of a picture count, too
    disable = True if quiet or not count else None
    row = int(os.environ.get("LOCAL_RANK", "0"))  # processes of one terminal stack their bars
    return tqdm(total=count, bar_format=BAR, disable=disable, miniters=0, dynamic_ncols=True, leave=False, position=row)


def model_info(derainer: Derainer) -> ModelInfo:
    checkpoint = derainer.checkpoint
    return ModelInfo(
        weights_name=checkpoint.name,
        weights_sha256=checkpoint.sha256,
        config=checkpoint.config.to_dict(),
        device=derainer.device,
        precision=derainer.precision,
        tile=derainer.tiling.tile,
        overlap=derainer.tiling.overlap,
        timesteps=checkpoint.config.timesteps,
        ensemble=derainer.ensemble,
    )


def _ending(report_path: Path) -> str:
    return next(ending for ending in RENDERERS if report_path.name.lower().endswith(ending))


def _write_report(path: Path, results: Sequence[ImageResult], info: RunInfo, summary: Totals) -> None:
    try:
        write_atomically(path, RENDERERS[_ending(path)](results, info, summary).encode())
    except OSError as error:
        raise EsdnetError(f"{path}: the report cannot be written ({error.strerror}); choose another place") from error
