"""esdnet evaluate: PSNR, SSIM, spike rate and energy on pairs of pictures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from esdnet_cli.options import PATH, option, recursive_option, run_options
from esdnet_cli.settings import RunOptions


@click.command(name="evaluate")
@option("--input", "inputs", required=True, type=PATH, metavar="DIR", help="Rainy pictures.")
@option("--target", "targets", type=PATH, metavar="DIR", help="Clean pictures of the same names.")
@option("--flicker", type=PATH, metavar="PATH", help="Derained frames or clip: measure only its flicker.")
@option("--as-is", is_flag=True, help="Score the pictures of --input themselves, without the network.")
@recursive_option
@run_options("no_energy")
@click.pass_context
def command(
    ctx: click.Context, inputs: Path, targets: Path | None, flicker: Path | None, as_is: bool, recursive: bool,
    options: RunOptions,
) -> None:  # fmt: skip
    """Measure PSNR, SSIM, spike rate and energy on pairs.

    PSNR and SSIM are computed on the whole picture, on Y of 8-bit RGB (MATLAB's conversion); SSIM uses an 11x11
    Gaussian window (sigma 1.5) over its valid region. --report also holds the values of the published code (Y not
    rounded, 4 pixels cropped) and of RGB. The row `total` shows the mean scores and the summed energy.

    --flicker measures the warping error of a derained sequence; it, --input and --target may be numbered frames or
    clips. Motion is estimated on --target if given, else on --input. The network does not run.

    \b
    Examples:
      esdnet evaluate --input rain100h/input --target rain100h/target
      esdnet evaluate --input derained/ --target clean/ --as-is --report scores.csv
      esdnet evaluate --input rainy.mp4 --flicker clear.mp4
    """
    if flicker is not None:
        if options.report is not None:
            raise click.UsageError("--flicker is only printed; leave out --report.")
        from esdnet_cli.show.frames import show_flicker

        show_flicker(inputs, flicker, targets)
        return
    if targets is None:
        raise click.UsageError("Missing option '--target'.")
    if as_is and options.spike_map:
        raise click.UsageError("--spike-map needs the network; leave out --as-is.")
    from esdnet_cli.early import answer_early
    from esdnet_cli.pipeline.sources import Job, find_sources, pair_up, plan_maps

    unread: Counter[str] = Counter()
    sources, unusable = find_sources([str(inputs)], recursive, [options.spike_map], unread)
    pairs, alone = pair_up(sources, targets)
    jobs = [Job(source) for source, _ in pairs]
    names = plan_maps(jobs, options.spike_map)
    answer_early(ctx, pairs, [*unusable, *alone], options, unread, network=not as_is)
    from esdnet_cli.pipeline.derainer import AsIs
    from esdnet_cli.pipeline.output import Nowhere
    from esdnet_cli.show.network import load_derainer
    from esdnet_cli.show.pictures import show_plan, show_run, spike_maps

    derainer = AsIs() if as_is or not jobs else load_derainer(options)
    nowhere = Nowhere("score" if as_is else "measure")
    maps = spike_maps(derainer.info, names, options)
    if options.dry_run:
        ctx.exit(show_plan(derainer, jobs, [*unusable, *alone], nowhere, unread, maps))
    ctx.exit(show_run(derainer, jobs, [*unusable, *alone], nowhere, options, dict(pairs), unread, maps))
