"""What can be said before torch is imported, which takes a second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import click

from esdnet_cli.pipeline.sources import Unusable
from esdnet_cli.settings import RunOptions
from esdnet_cli.shards import Shard


def answer_early(
    ctx: click.Context, found: Sequence[object], unusable: Sequence[Unusable], options: RunOptions,
    unread: Counter[str] | None = None, part: Shard | None = None, network: bool = True,
) -> None:  # fmt: skip
    """End the command if no picture or clip was found, or weights are not there; one with more to say goes on.

    part: of the inputs, that this process takes. network: whether it will run. Raises CheckpointError.
    """
    if found:
        from esdnet_cli.checkpoint.header import find

        if network:
            find(options.weights)
        return
    part = part or Shard()
    if not (unread or options.report or options.dry_run) and part.count == 1:
        with suppress(OSError):  # a full disk behind stderr changes no exit code
            for entry in unusable:
                click.echo(f"{entry.input}: {entry.error}", err=True)
        ctx.exit(part.exit_code(1 if unusable else 0))
