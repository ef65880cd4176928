"""esdnet energy: spike rates and energy of pictures, no picture written."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import click
from click.core import ParameterSource

from esdnet_cli.energy.cost import EnergyCosts
from esdnet_cli.options import inputs_argument, option, recursive_option, run_options, shard_option
from esdnet_cli.settings import RunOptions


@click.command(name="energy")
@inputs_argument
@recursive_option
@option("--merge", is_flag=True, help="Combine the JSON reports given as INPUT, without running the network.")
@option("--compare", is_flag=True, help="Compare the two JSON reports given as INPUT.")
@shard_option
@run_options("ensemble", "no_energy")
@click.pass_context
def command(
    ctx: click.Context, inputs: tuple[str, ...], recursive: bool, merge: bool, compare: bool, shard: str | None,
    options: RunOptions,
) -> None:  # fmt: skip
    """Measure spike rates and estimate energy; writes no picture.

    Three figures are shown together: strict (counted MACs and ACs), sp-only (the spiking literature's habit) and ann
    (the same graph as an ordinary network). A comparison with an ordinary network is printed under them.

    \b
    Examples:
      esdnet energy rainy/ -v --report energy.json
      esdnet energy --merge run.shard-*.json --report all.json
      esdnet energy --merge energy.json --energy-preset int8-45nm
      esdnet energy --compare small.json tiny.json
    """
    if merge or compare:
        if merge and compare:
            raise click.UsageError("--merge and --compare exclude each other.")
        if compare and options.report is not None:
            raise click.UsageError("--compare is only printed; leave out --report.")
        given = [
            name for name in ("energy_preset", "pj_mac", "pj_ac")
            if ctx.get_parameter_source(name) != ParameterSource.DEFAULT
        ]  # fmt: skip

        def reprice(costs: EnergyCosts) -> EnergyCosts:
            if "energy_preset" in given:
                return options.costs
            return replace(costs, **{name: getattr(options.costs, name) for name in given})

        from esdnet_cli.show.pictures import show_compared, show_merged

        paths = [Path(path) for path in inputs]
        ctx.exit(show_compared(paths, reprice) if compare else show_merged(paths, reprice, options))
    from esdnet_cli.early import answer_early
    from esdnet_cli.pipeline.sources import Job, find_sources, plan_maps
    from esdnet_cli.shards import find_shard

    unread: Counter[str] = Counter()
    sources, unusable = find_sources(inputs, recursive, [options.spike_map], unread)
    jobs = [Job(source) for source in sources]
    names = plan_maps(jobs, options.spike_map)
    part = find_shard(shard)
    answer_early(ctx, sources, unusable, options, unread, part)
    from esdnet_cli.pipeline.derainer import AsIs
    from esdnet_cli.pipeline.output import Nowhere
    from esdnet_cli.show.network import load_derainer
    from esdnet_cli.show.pictures import show_plan, show_run, spike_maps, split

    jobs, unusable, options = split(part, jobs, unusable, options)
    derainer = load_derainer(options) if sources else AsIs()
    maps = spike_maps(derainer.info, names, options)
    if options.dry_run:
        ctx.exit(show_plan(derainer, jobs, unusable, Nowhere(), unread, maps))
    ctx.exit(part.exit_code(show_run(derainer, jobs, unusable, Nowhere(), options, unread=unread, maps=maps)))
