"""esdnet weights: the bundled checkpoints, or all about one."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from esdnet_cli.checkpoint.header import Checkpoint


@click.command(name="weights")
@click.argument("weights", required=False, metavar="[NAME|PATH]")
def command(weights: str | None) -> None:
    """List the bundled checkpoints, or describe one. Give a path to describe and check your own file.

    \b
    Examples:
      esdnet weights
      esdnet weights small
    """
    from esdnet_cli.checkpoint.bundled import bundled
    from esdnet_cli.checkpoint.header import read_header

    if weights is None:
        _show(
            [("name", "M parameters", "size", "terms", "trained on"), *(_line(read_header(name)) for name in bundled())]
        )
        return
    from esdnet_cli.checkpoint.store import load_network, open_checkpoint  # only now what imports torch

    checkpoint = open_checkpoint(weights)
    if checkpoint.assumption:
        click.echo(checkpoint.assumption, err=True)
    load_network(checkpoint)  # a file that is described is one that loads
    facts = {
        "name": checkpoint.name,
        "file": str(checkpoint.path),
        "sha256": checkpoint.sha256,
        "parameters": f"{checkpoint.parameters:,}",
        "config": json.dumps(checkpoint.config.to_dict()),  # as `train --size` takes it
        **checkpoint.tiling,
    }
    others = {key: text for key, text in checkpoint.metadata.items() if key not in facts}
    _show([("", ""), *facts.items(), *sorted(others.items())])


def _line(checkpoint: Checkpoint) -> tuple[str, ...]:
    config = checkpoint.config
    blocks = f"{config.encoder_blocks} {config.decoder_blocks}"
    neurons = f"integer neurons of {config.levels} levels" if config.neuron == "integer" else "LIF neurons"
    patches = f"patches of {config.patch}x{config.patch}, " if config.patch > 1 else ""
    size = f"d {config.dim}, blocks {blocks}, T {config.timesteps}, {patches}{neurons}, {config.shortcut} shortcut"
    terms = checkpoint.metadata.get("license", "").removeprefix("weights: ").partition(" (")[0]
    return checkpoint.name, f"{checkpoint.parameters / 1e6:.2f}", size, terms, checkpoint.metadata.get("trained_on", "")


def _show(rows: list[tuple[str, ...]]) -> None:
    """A table whose first row is its heading."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from esdnet_cli.errors import printable

    table = Table(box=None, pad_edge=False, show_header=any(rows[0]))
    for heading in rows[0]:
        table.add_column(heading, overflow="fold", no_wrap=heading == "name")
    for row in rows[1:]:
        table.add_row(*(Text(printable(cell)) for cell in row))  # a stranger's metadata is no markup
    # a pipe gets each value on one line
    Console(highlight=False, width=None if sys.stdout.isatty() else 10_000).print(table)
