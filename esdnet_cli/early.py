"""What can be said before torch is imported, which takes a second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import click

from esdnet_cli.pipeline.sources import Unusable
from esdnet_cli.settings import RunOptions
from esdnet_cli.shards import find_shard


def answer_early(
    ctx: click.Context, sources: Sequence[object], unusable: Sequence[Unusable], unread: Counter[str],
    shard: str | None, options: RunOptions,
) -> None:  # fmt: skip
    """End the command if it names no picture or clip, or weights that are not there; one with more to say goes on.

    Raises CheckpointError.
    """
    if sources:
        from esdnet_cli.checkpoint.header import find

        find(options.weights)
    elif not (unread or options.report or options.dry_run) and find_shard(shard).count == 1:
        with suppress(OSError):  # a full disk behind stderr changes no exit code
            for entry in unusable:
                click.echo(f"{entry.input}: {entry.error}", err=True)
        ctx.exit(1 if unusable else 0)
