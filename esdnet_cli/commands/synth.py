"""esdnet synth: rainy pairs from clean photographs, the same for the same seed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from esdnet_cli.options import PATH, option, overwrite_option, quiet_option, recursive_option

if TYPE_CHECKING:
    from esdnet_cli.training.synth import Kind


@click.command(name="synth", short_help="Make pairs of rainy and clean pictures.")
@click.argument("clean", type=PATH, metavar="CLEAN_DIR")
@option("-o", "--output", required=True, type=PATH, metavar="DIR", help="Folder for the pairs.")
@recursive_option
@option(
    "--rain",
    type=click.Choice(["light", "medium", "heavy", "mixed", "camera"]),
    default="mixed",
    show_default=True,
    help="Strength of the rain; camera: drops of all sizes, in the light of the scene.",
)
@option(
    "--streaks",
    type=PATH,
    metavar="DIR",
    help="Use grey streak masks from DIR instead of generated streaks.",
)
@option("--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True, help="Random seed.")
@overwrite_option
@quiet_option
@click.pass_context
def command(
    ctx: click.Context, clean: Path, output: Path, recursive: bool, rain: Kind, streaks: Path | None, seed: int,
    overwrite: bool, quiet: bool,
) -> None:  # fmt: skip
    """Make pairs of rainy and clean pictures from clean photographs: DIR/input and DIR/target, 8-bit PNG.

    Both pictures of a pair have the same sensor noise and JPEG marks: they differ only in rain and mist. The rain of
    a picture depends on the seed and its name, not on its neighbours; the same seed gives the same bytes.

    \b
    Example:
      esdnet synth photos/ -o pairs/ --rain heavy --seed 1
    """
    from esdnet_cli.pipeline.sources import find_sources, plan_outputs
    from esdnet_cli.show.pairs import show_pairs
    from esdnet_cli.training.synth import Rainmaker

    sources, unusable = find_sources([str(clean)], recursive, [output, output / "input", output / "target"])
    jobs = plan_outputs(sources, output / "input", "png")
    ctx.exit(show_pairs(jobs, unusable, Rainmaker(rain, streaks, seed), output, overwrite, quiet))
