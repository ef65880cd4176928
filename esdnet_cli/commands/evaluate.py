"""esdnet evaluate: PSNR, SSIM, spike rate and energy on pairs of pictures."""

from __future__ import annotations

from pathlib import Path

import click

from esdnet_cli.options import option, recursive_option, run_options
from esdnet_cli.settings import RunOptions

_FOLDER = click.Path(path_type=Path)


@click.command(name="evaluate")
@option("--input", "inputs", required=True, type=_FOLDER, metavar="DIR", help="Rainy pictures.")
@option("--target", "targets", required=True, type=_FOLDER, metavar="DIR", help="Clean ones of the same names.")
@option("--as-is", is_flag=True, help="Score the pictures of --input as they stand, without the network.")
@recursive_option
@run_options
@click.pass_context
def command(ctx: click.Context, inputs: Path, targets: Path, as_is: bool, recursive: bool, options: RunOptions) -> None:
    """Measure PSNR, SSIM, spike rate and energy on pairs.

    PSNR and SSIM are taken on Y of 8-bit pictures by MATLAB's conversion, the whole picture, SSIM with an 11x11
    Gaussian window (sigma 1.5) over its valid region. --report adds the published code's way (Y not rounded, 4 pixels
    cropped) and RGB. The last line holds the means.

    \b
    Examples:
      esdnet evaluate --input rain100h/input --target rain100h/target
      esdnet evaluate --input derained/ --target clean/ --as-is --report scores.csv
    """
    if as_is and options.spike_map:
        raise click.UsageError("--spike-map needs the network; leave out --as-is.")
    from esdnet_cli.pipeline.sources import Job, find_sources, pair_up
    from esdnet_cli.terminal import load_derainer, show_plan, show_run

    sources, unusable = find_sources([str(inputs)], recursive)
    pairs, alone = pair_up(sources, targets)
    jobs = [Job(source, None) for source, _ in pairs]
    derainer = None if as_is else load_derainer(options)
    if options.dry_run:
        ctx.exit(show_plan(derainer, jobs, [*unusable, *alone], None))
    ctx.exit(show_run(derainer, jobs, [*unusable, *alone], None, options, dict(pairs)))
