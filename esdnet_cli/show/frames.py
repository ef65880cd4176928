"""Numbered frames in a terminal: a folder of them derained in order, and how much a sequence flickers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from esdnet_cli.errors import EsdnetError, printable
from esdnet_cli.pipeline.journal import Journal
from esdnet_cli.pipeline.output import pixel_settings
from esdnet_cli.pipeline.sources import find_sources, plan_outputs
from esdnet_cli.settings import RunOptions
from esdnet_cli.show.network import load_derainer
from esdnet_cli.show.pictures import show_plan, show_run
from esdnet_cli.show.terminal import print_rows, tell
from esdnet_cli.video.flicker import warping_errors
from esdnet_cli.video.frames import FrameDeflicker, FrameOutput, in_order, numbered, unsmoothed
from esdnet_cli.video.inputs import check_folder, holds_clips


def show_frames(
    folder: str,
    output: Path,
    options: RunOptions,
    *,
    every: int,
    compare: bool,
    deflicker: bool,
    overwrite: bool,
    dates: bool,
) -> int:
    """Derain the pictures of a folder in the order of their numbers; names and formats stay. Returns the exit code."""
    check_folder(output)
    unread: Counter[str] = Counter()
    sources, unusable = find_sources([folder], recursive=None, leave_out=[output], unread=unread)
    if not sources and holds_clips(folder):
        raise EsdnetError(f"{folder}: contains clips, but a folder is taken as numbered frames; name the clips")
    frames, others = numbered(sources)
    if others and not options.quiet:
        names = ", ".join(source.name for source in others[:3]) + (", ..." if len(others) > 3 else "")
        tell(f"Left out, without a number among numbered frames: {names}.")
    jobs = plan_outputs(in_order(frames)[::every], output, None)
    derainer = load_derainer(options)
    settings = pixel_settings(derainer.info)
    if compare or deflicker:  # without them, frames are pictures like others
        settings |= {"compare": compare, "deflicker": deflicker, "every": every}
    places = {job.output: place for place, job in enumerate(jobs)}
    smooth = FrameDeflicker(jobs, compare) if deflicker else unsmoothed
    target = FrameOutput(Journal(output, settings), overwrite, jobs, places, compare, smooth, dates=dates)
    if options.dry_run:
        return show_plan(derainer, jobs, unusable, target, unread)
    target.prepare()
    return show_run(derainer, jobs, unusable, target, options, unread=unread)


def show_flicker(rainy: Path, derained: Path, clean: Path | None) -> None:
    """Print the warping error of each sequence, and its share of the rainy and the clean one's."""
    paths = [rainy, derained, *([] if clean is None else [clean])]
    flicker = warping_errors(rainy, derained, clean)
    print_rows(f"{'warping error':>13} {'of rainy':>8} {'of clean':>8}  {flicker.frames} frames")
    for path, mean in zip(paths, flicker.means):
        # a still sequence has no error to take a share of
        of_rainy, *of_clean = (f"{mean / whole:.3f}" if whole else "-" for whole in flicker.means[::2])
        print_rows(f"{1e3 * mean:>10.4f}e-3 {of_rainy:>8} {''.join(of_clean) or '-':>8}  {printable(path)}")
