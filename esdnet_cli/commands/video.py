"""esdnet video: clips, or a folder of numbered frames -> derained ones."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from esdnet_cli.options import PATH, inputs_argument, new_dates_option, option, overwrite_option, run_options
from esdnet_cli.settings import RunOptions


class _Time(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 only
    name = "time"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "SECONDS|H:M:S"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        if isinstance(value, Fraction):
            return value
        seconds = Fraction(0)
        parts = str(value).split(":")
        try:
            for part in parts:
                seconds = seconds * 60 + Fraction(part)
        except (ValueError, ZeroDivisionError):
            seconds = Fraction(-1)
        if seconds < 0 or len(parts) > 3:
            self.fail(f"{value!r} is not a valid time; use seconds (12.5) or 0:01:30", param, ctx)
        return seconds


def _check_crf(crf: int, codec: str | None, output: Path) -> None:
    """Refuse what no codec takes, with the range of the one that is chosen; the others are asked clip by clip."""
    if 0 <= crf <= 63:
        return
    from esdnet_cli.video.encoder import CODECS, default_codec
    from esdnet_cli.video.inputs import CONTAINERS

    name = codec or default_codec(CONTAINERS.get(output.suffix.lower(), ""))
    chosen = CODECS[name]
    raise click.BadParameter(
        f"{crf} is out of range; use {chosen.least} to {chosen.most} for {name}", param_hint="'--crf'"
    )


@click.command(name="video")
@inputs_argument
@option(
    "-o", "--output", required=True, type=PATH, metavar="PATH",
    help="Output file for one clip; output folder for several clips or for frames.",
)  # fmt: skip
@option(
    "--codec",
    type=click.Choice(["h264", "hevc", "vp9", "av1", "ffv1"]),
    help="Codec of the picture.  [default: vp9 in .webm, else h264]",
)
@option(
    "--crf",
    type=int,
    metavar="N",
    help="Quality, lower is better: 0 to 51 for h264 and hevc, 0 to 63 for vp9, 1 to 63 for av1.  "
    "[default: 17 for h264, 19 hevc, 24 vp9, 23 av1]",
)
@option("--start", type=_Time(), help="Start time, counted from the first frame.")
@option("--end", type=_Time(), help="End time.")
@option("--every", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Use every Nth frame.")
@option("--compare", is_flag=True, help="Write before and after side by side.")
@option("--deflicker", is_flag=True, help="Reduce flicker: smooth the removed rain over time, following the motion.")
@overwrite_option
@new_dates_option
@run_options(
    "ensemble", "spike_map", verbose="Also show each frame, and the layers of each clip.",
    html="", json="with layers", csv="or .layers.csv: a row for each layer",
)  # fmt: skip
@click.pass_context
def command(
    ctx: click.Context, inputs: tuple[str, ...], output: Path, codec: str | None, crf: int | None,
    start: Fraction | None, end: Fraction | None, every: int, compare: bool, deflicker: bool, overwrite: bool,
    new_dates: bool, options: RunOptions,
) -> None:  # fmt: skip
    """Derain clips, or a folder of numbered frames.

    Sound, subtitles, chapters, frame times, rotation and colours are kept. The file extension of PATH selects the
    container: .mp4, .m4v, .mov, .mkv or .webm. After an interruption the same command continues where it stopped;
    finished clips are skipped.

    \b
    Examples:
      esdnet video dashcam.mp4 -o clear.mp4
      esdnet video dashcam.mp4 -o try.mp4 --start 1:30 --end 1:40 --compare
      esdnet video frames/ -o derained/ --deflicker
    """
    if "-" in (*inputs, str(output)):
        raise click.UsageError("clips do not go through standard input and output; name files.")
    if start is not None and end is not None and start >= end:
        raise click.UsageError("--start must come before --end.")
    if crf is not None and codec == "ffv1":
        raise click.UsageError("--crf does not go with ffv1, which is lossless.")
    if crf is not None:
        _check_crf(crf, codec, output)
    from esdnet_cli.early import answer_early
    from esdnet_cli.video.inputs import find_clips, is_frames

    if is_frames(inputs):
        for name, given in (("--codec", codec), ("--crf", crf), ("--start", start), ("--end", end)):
            if given is not None:
                raise click.UsageError(f"{name} does not go with a folder of frames.")
        answer_early(ctx, inputs, (), options)
        from esdnet_cli.show.frames import show_frames

        ctx.exit(
            show_frames(
                inputs[0], output, options, every=every, compare=compare, deflicker=deflicker, overwrite=overwrite,
                dates=not new_dates,
            )
        )  # fmt: skip
    jobs, unusable = find_clips(inputs, output)
    answer_early(ctx, jobs, unusable, options)
    from esdnet_cli.show.clips import show_clip_plans, show_clips
    from esdnet_cli.show.network import load_derainer
    from esdnet_cli.video.clip import ClipOptions
    from esdnet_cli.video.reader import Selection

    derainer = load_derainer(options)
    selection = Selection(start, end, every)
    clip_options = ClipOptions(codec, crf, selection, compare, deflicker, dates=not new_dates, count=options.count)
    show = show_clip_plans if options.dry_run else show_clips
    ctx.exit(show(derainer, jobs, unusable, overwrite, options, clip_options))
