"""esdnet images: files, folders and patterns of pictures -> derained pictures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from esdnet_cli.options import (
    PATH,
    inputs_argument,
    new_dates_option,
    option,
    overwrite_option,
    recursive_option,
    run_options,
    shard_option,
)
from esdnet_cli.pipeline.sources import FORMAT_ENDINGS
from esdnet_cli.settings import RunOptions


@click.command(name="images")
@inputs_argument
@option(
    "-o",
    "--output",
    required=True,
    type=PATH,
    metavar="DIR",
    help="Folder for the derained pictures, or - to write one picture to standard output.",
)
@recursive_option
@option(
    "--format",
    "file_format",
    type=click.Choice(list(FORMAT_ENDINGS)),
    help="Write this format.  [default: the input's]",
)
@overwrite_option
@new_dates_option
@shard_option
@run_options()
@click.pass_context
def command(
    ctx: click.Context, inputs: tuple[str, ...], output: Path, recursive: bool, file_format: str | None,
    overwrite: bool, new_dates: bool, shard: str | None, options: RunOptions,
) -> None:  # fmt: skip
    """Derain pictures.

    INPUT is a file, a folder, a quoted pattern, or @LIST, a text file that names one input per line.

    Outputs keep name, size, bit depth, alpha, metadata and date; HEIC becomes JPEG or PNG. Running it again skips
    finished pictures. Under torchrun or srun, or with --shard, each process takes its share. With - for input and
    output, one picture is read from standard input and written to standard output; the figures go to stderr.

    \b
    Examples:
      esdnet images holiday/ -o derained/ -r
      esdnet images 'rain-*.jpg' -o derained/ --format png --report run.json
      curl example.org/rain.jpg | esdnet images - -o - > clear.jpg
    """
    if "-" in (*inputs, str(output)):
        if str(output) != "-" or len(inputs) > 1 or shard is not None:
            raise click.UsageError("- is for one picture: esdnet images - -o -, or a file in place of the first -.")
        from esdnet_cli.show.stream import derain_stream

        ctx.exit(derain_stream(inputs[0], recursive, file_format, overwrite, options))
    from esdnet_cli.early import answer_early
    from esdnet_cli.pipeline.sources import check_folder, find_sources, plan_maps, plan_outputs
    from esdnet_cli.shards import find_shard

    check_folder(output)
    unread: Counter[str] = Counter()
    sources, unusable = find_sources(inputs, recursive, [output, options.spike_map], unread)
    jobs = plan_outputs(sources, output, file_format)
    names = plan_maps(jobs, options.spike_map)
    part = find_shard(shard)
    answer_early(ctx, sources, unusable, options, unread, part)
    # only now what takes seconds to import: a mistyped name is answered at once
    from esdnet_cli.pipeline.derainer import AsIs, Derainer
    from esdnet_cli.pipeline.journal import Journal
    from esdnet_cli.pipeline.output import Nowhere, Output, pixel_settings
    from esdnet_cli.show.network import load_derainer
    from esdnet_cli.show.pictures import show_plan, show_run, spike_maps, split

    jobs, unusable, options = split(part, jobs, unusable, options)
    derainer: Derainer | AsIs = AsIs()
    target: Output | Nowhere = Nowhere()
    if sources:  # else nobody waits for the network
        derainer = load_derainer(options)
        target = Output(Journal(output, pixel_settings(derainer.info)), overwrite, dates=not new_dates)
    maps = spike_maps(derainer.info, names, options, overwrite)
    if options.dry_run:
        ctx.exit(show_plan(derainer, jobs, unusable, target, unread, maps))
    target.prepare()
    ctx.exit(part.exit_code(show_run(derainer, jobs, unusable, target, options, unread=unread, maps=maps)))
