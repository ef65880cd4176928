"""Clips shown in a terminal: a row for each on stdout, progress by frames on stderr, then report and exit code."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import av.error
from tqdm import tqdm

from esdnet_cli.energy import meter
from esdnet_cli.energy.cost import total, total_energy
from esdnet_cli.errors import EsdnetError, PictureError, printable, system_error, unexpected
from esdnet_cli.pipeline.derainer import Derainer
from esdnet_cli.pipeline.results import ImageResult, RunInfo, Totals
from esdnet_cli.pipeline.sources import Unusable
from esdnet_cli.report import figures, page, rows
from esdnet_cli.report.files import report_ending, write_text
from esdnet_cli.settings import RunOptions
from esdnet_cli.show.pictures import show_fates, show_summary, tell_figures_missing
from esdnet_cli.show.terminal import libraries_muted, print_rows, tell, typed_command
from esdnet_cli.video.clip import (
    ClipOptions,
    ClipPlan,
    ClipResult,
    FrameResult,
    Interrupted,
    derain_clip,
    plan_clip,
    remove_finished_parts,
)
from esdnet_cli.video.decode import reason
from esdnet_cli.video.inputs import ClipJob


def show_clips(
    derainer: Derainer, jobs: Sequence[ClipJob], unusable: Sequence[Unusable], overwrite: bool, options: RunOptions,
    clip_options: ClipOptions,
) -> int:  # fmt: skip
    """Derain clips one after the other and print each as it is done; returns the exit code.

    Interrupted, it still prints the summary and writes the report, then raises KeyboardInterrupt.
    """
    show = _Show(derainer, options, clip_options)
    for entry in unusable:
        show.done(ClipResult(ImageResult.failed(entry.input, entry.error)), row=bool(jobs))
    interrupted = False
    with libraries_muted():
        if not options.quiet and jobs:
            heading, units = rows.heading(False, True)
            show.print(heading.replace("picture", "clip"), units)
        for job in jobs:
            try:
                show.clip(job, overwrite)
            except Interrupted as interruption:
                interrupted = True
                if not options.quiet:
                    tell(
                        f"Interrupted: {interruption.kept} frames of {printable(job.source)} are kept; "
                        "the same command continues from there."
                    )
            except KeyboardInterrupt:
                interrupted = True
            if interrupted:
                break
    show.summary(bool(jobs))
    if interrupted:
        raise KeyboardInterrupt
    return 1 if any(result.image.status == "failed" for result in show.results) else 0


def show_clip_plans(
    derainer: Derainer, jobs: Sequence[ClipJob], unusable: Sequence[Unusable], overwrite: bool, options: RunOptions,
    clip_options: ClipOptions,
) -> int:  # fmt: skip
    """Print what a run would do with each clip, writing nothing; returns the exit code that it would begin with."""

    def fate(job: ClipJob) -> ImageResult:
        source = printable(job.source)
        try:
            plan = plan_clip(derainer, job, clip_options, overwrite)
        except (PictureError, OSError, av.error.FFmpegError) as error:
            return ImageResult.failed(source, _why(error))
        for note in plan.notes:
            tell(f"{source}: {note}.")
        return ImageResult(source, printable(job.output), "skipped" if plan.done else "ok")

    with libraries_muted():
        return show_fates(derainer, map(fate, jobs), unusable)


class _Show:
    def __init__(self, derainer: Derainer, options: RunOptions, clip_options: ClipOptions) -> None:
        self._derainer, self._options, self._clip_options = derainer, options, clip_options
        self._meters = derainer.meters()
        meter.begin(self._meters)
        self._started = datetime.now(UTC).astimezone().isoformat(timespec="seconds")
        self._clock = time.perf_counter()
        self.results: list[ClipResult] = []
        self._rows: list[dict[str, Any]] = []  # one for each frame, if there is a report to write

    def print(self, *lines: str) -> None:
        if not self._options.quiet:
            print_rows(*lines)

    def clip(self, job: ClipJob, overwrite: bool) -> None:
        """One clip, whatever becomes of it."""
        known = len(self._rows)
        try:
            plan = plan_clip(self._derainer, job, self._clip_options, overwrite)
            if plan.done:
                remove_finished_parts(job, plan)
                result = ClipResult(ImageResult.skipped(printable(job.source), printable(job.output)))
            else:
                result = self._derain(job, plan)
        except Interrupted:  # its frames have no output yet, and a rerun tells of them
            del self._rows[known:]
            raise
        except Exception as error:  # whatever goes wrong with one clip must not cost the others
            if isinstance(error, EsdnetError) and not isinstance(error, PictureError):
                raise
            del self._rows[known:]
            result = ClipResult(ImageResult.failed(printable(job.source), _why(error), printable(job.output)))
        self.done(result)

    def _derain(self, job: ClipJob, plan: ClipPlan) -> ClipResult:
        for note in plan.notes:
            self._tell(f"{printable(job.source)}: {note}.")
        expected = self._clip_options.selection.expected(plan.info)
        bar = tqdm(
            total=expected, unit="frame", desc=job.source.name, leave=False, dynamic_ncols=True,
            disable=True if self._options.quiet else None,
        )  # fmt: skip

        def on_frame(frame: FrameResult) -> None:
            if expected is None:
                bar.total = frame.estimate
            if frame.kept:  # they say nothing of the speed
                bar.initial = bar.n = bar.last_print_n = bar.n + 1
            else:
                bar.update()
            for counter in self._meters:
                counter.update()
            if self._options.report is not None:
                self._rows.append(_frame_row(frame, self._options))
            if self._options.verbose:
                self.print(rows.row(frame.image, self._options.costs, scored=False))

        with bar:
            return derain_clip(self._derainer, job, plan, self._clip_options, on_frame, self._tell)

    def done(self, result: ClipResult, row: bool = True) -> None:
        """Print and remember it."""
        self.results.append(result)
        image = result.image
        if image.status == "failed":
            tell(f"{image.input}: {image.error}")
        what = f"{image.input} ({result.frames} frames)" if result.frames else image.input
        # a truncated clip has figures all the same
        shown = replace(image, input=what, status=image.status if image.seconds is None else "ok")
        if row:  # else there is no heading above it
            self.print(rows.row(shown, self._options.costs, scored=False))
        if self._options.verbose and image.activity is not None:
            self.print(*rows.layer_rows(image.activity, self._options.costs))
            share = result.waited / result.took if result.took else 0.0
            self.print(
                f"The network waited {result.waited:.2f} s of {result.took:.2f} s for frames ({100 * share:.1f} %)."
            )

    def summary(self, named: bool) -> None:
        """Totals, what the figures leave out and failures again, if any clip was `named`; and the report."""
        options = self._options
        totals = _totals(self.results, options)
        seconds = time.perf_counter() - self._clock
        measured = meter.end(self._meters)
        info = RunInfo(self._derainer.info, options.costs, typed_command(), self._started, seconds, measured)
        if named:
            show_summary([result.image for result in self.results], info, totals, options, short=True)
        if options.report is not None:
            _write_report(options.report, self.results, self._rows, info, totals, options)
            tell_figures_missing(options, totals.skipped, "clips")

    def _tell(self, message: str) -> None:
        if not self._options.quiet:
            tell(message)


def _totals(results: Sequence[ClipResult], options: RunOptions) -> Totals:
    images = [result.image for result in results]
    counted = [image.activity for image in images if image.activity]
    return Totals(
        ok=sum(image.status == "ok" for image in images),
        skipped=sum(image.status == "skipped" for image in images),
        failed=sum(image.status == "failed" for image in images),
        megapixels=sum(_pixels(result) for result in results) / 1e6,
        counted_megapixels=sum(_pixels(result) for result in results if result.image.activity) / 1e6,
        activity=total(counted),
        energy=total_energy(counted, options.costs),
    )


def _pixels(result: ClipResult) -> int:
    return result.frames * (result.image.width or 0) * (result.image.height or 0)


def _frame_row(frame: FrameResult, options: RunOptions) -> dict[str, Any]:
    return {**figures.image_dict(frame.image, options.costs), "frame": frame.frame, "time": frame.time}


def _write_report(
    path: Path, results: Sequence[ClipResult], frames: Sequence[dict[str, Any]], info: RunInfo, totals: Totals,
    options: RunOptions,
) -> None:  # fmt: skip
    """JSON: as of pictures, with an entry of `images` for each frame, and `clips`; CSV: a row for each frame.

    Layers are those of clips. A clip that was skipped or failed has a row of its own in CSV, without figures: those are
    its frames'.
    """
    images = [result.image for result in results]
    ending = report_ending(path)
    if ending == ".html":
        text = page.to_html(images, info, totals, each="clip")
    elif ending == ".layers.csv":
        text = figures.to_layers_csv(images, info, totals)
    elif ending == ".csv":
        fates = (ImageResult(i.input, i.output, i.status, i.error) for i in images if i.status != "ok")
        others = [figures.image_dict(fate, options.costs) for fate in fates]
        text = figures.csv_text((*figures.IMAGE_KEYS, "frame", "time"), [*frames, *others])
    else:
        whole = figures.report_dict(images, info, totals)
        clips = whole.pop("images")
        for clip, result in zip(clips, results):
            pixels = result.image.activity.pixels if result.image.activity else 0
            clip.update(
                frames=result.frames, tiling_share=1 - _pixels(result) / pixels if pixels else None,
                waited_seconds=result.waited,
            )  # fmt: skip
        images_of = [{**frame, "layers": []} for frame in frames]
        text = figures.json_text({**whole, "clips": clips, "images": images_of})
    write_text(path, text)


def _why(error: Exception) -> str:
    if isinstance(error, PictureError):
        return str(error)
    if isinstance(error, MemoryError) and not isinstance(error, av.error.FFmpegError):
        return "not enough memory for its frames; use a smaller --tile"
    if isinstance(error, OSError):
        return system_error(error)
    if isinstance(error, av.error.FFmpegError):
        return f"FFmpeg cannot go on ({reason(error)}); try another --codec, or convert the clip first"
    return unexpected(error)
