"""esdnet images: files, folders and patterns of pictures -> derained pictures."""

from __future__ import annotations

from pathlib import Path

import click

from esdnet_cli.options import inputs_argument, option, overwrite_option, recursive_option, run_options, shard_option
from esdnet_cli.settings import RunOptions


@click.command(name="images")
@inputs_argument
@option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the derained pictures.",
)
@recursive_option
@option(
    "--format",
    "file_format",
    type=click.Choice(["png", "jpg", "webp", "tiff"]),
    help="Write this format.  [default: the input's]",
)
@overwrite_option
@shard_option
@run_options()
@click.pass_context
def command(
    ctx: click.Context, inputs: tuple[str, ...], output: Path, recursive: bool, file_format: str | None,
    overwrite: bool, shard: str | None, options: RunOptions,
) -> None:  # fmt: skip
    """Derain pictures: files, folders, quoted patterns.

    Outputs keep name, size, bit depth, alpha, EXIF and ICC profile. A rerun skips what is done. Under torchrun or srun,
    or with --shard, each process takes its share.

    \b
    Examples:
      esdnet images holiday/ -o derained/ -r
      esdnet images 'rain-*.jpg' -o derained/ --format png --report run.json
    """
    from esdnet_cli.pipeline.sources import find_sources, plan_outputs

    sources, unusable = find_sources(inputs, recursive, leave_out=[output, options.spike_map])
    jobs = plan_outputs(sources, output, file_format)
    # only now what takes seconds to import: a mistyped name is answered at once
    from esdnet_cli.pipeline.journal import Journal
    from esdnet_cli.pipeline.run import Output, pixel_settings
    from esdnet_cli.shards import find_shard
    from esdnet_cli.terminal import load_derainer, show_plan, show_run, split

    part = find_shard(shard)
    jobs, unusable, options = split(part, jobs, unusable, options)
    derainer = load_derainer(options)
    journal = Journal(output, pixel_settings(derainer))
    target = Output(journal, overwrite)
    if options.dry_run:
        ctx.exit(show_plan(derainer, jobs, unusable, target))
    journal.prepare()
    ctx.exit(part.exit_code(show_run(derainer, jobs, unusable, target, options)))
