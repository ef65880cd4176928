"""esdnet energy: spike rates and energy of pictures, no picture written."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from esdnet_cli.options import inputs_argument, option, recursive_option, run_options, shard_option
from esdnet_cli.settings import RunOptions


@click.command(name="energy")
@inputs_argument
@recursive_option
@option("--merge", is_flag=True, help="INPUTs are JSON reports: make one of them, nothing is run.")
@shard_option
@run_options("no_energy")
@click.pass_context
def command(
    ctx: click.Context, inputs: tuple[str, ...], recursive: bool, merge: bool, shard: str | None, options: RunOptions
) -> None:
    """Measure spike rates and estimate energy; writes no picture.

    Three figures stand together: strict (counted MACs and ACs), sp-only (the spiking literature's habit) and ann (the
    same graph as an ordinary network).

    \b
    Examples:
      esdnet energy rainy/ -v --report energy.json
      esdnet energy --merge run.shard-*.json --report all.json
      esdnet energy --merge energy.json --energy-preset int8-45nm
    """
    from esdnet_cli.pipeline.sources import Job, find_sources
    from esdnet_cli.shards import find_shard
    from esdnet_cli.terminal import load_derainer, show_merged, show_plan, show_run, split

    if merge:
        given = any(
            ctx.get_parameter_source(name) != ParameterSource.DEFAULT for name in ("energy_preset", "pj_mac", "pj_ac")
        )
        ctx.exit(show_merged([Path(path) for path in inputs], options.costs if given else None, options))
    sources, unusable = find_sources(inputs, recursive, leave_out=[options.spike_map])
    part = find_shard(shard)
    jobs, unusable, options = split(part, [Job(source, None) for source in sources], unusable, options)
    derainer = load_derainer(options)
    if options.dry_run:
        ctx.exit(show_plan(derainer, jobs, unusable, None))
    ctx.exit(part.exit_code(show_run(derainer, jobs, unusable, None, options)))
