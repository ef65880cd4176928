"""esdnet energy: spike rates and energy of pictures, no picture written."""

from __future__ import annotations

import click

from esdnet_cli.options import inputs_argument, recursive_option, run_options
from esdnet_cli.settings import RunOptions


@click.command(name="energy")
@inputs_argument
@recursive_option
@run_options
@click.pass_context
def command(ctx: click.Context, inputs: tuple[str, ...], recursive: bool, options: RunOptions) -> None:
    """Measure spike rates and estimate energy; writes no picture.

    Three figures stand together: strict (counted MACs and ACs), sp-only (the spiking literature's habit) and ann (the
    same graph as an ordinary network).

    \b
    Example:
      esdnet energy rainy/ -v --report energy.json
    """
    from esdnet_cli.pipeline.sources import Job, find_sources
    from esdnet_cli.terminal import load_derainer, show_plan, show_run

    sources, unusable = find_sources(inputs, recursive)
    jobs = [Job(source, None) for source in sources]
    derainer = load_derainer(options)
    if options.dry_run:
        ctx.exit(show_plan(derainer, jobs, unusable, None))
    ctx.exit(show_run(derainer, jobs, unusable, None, options))
