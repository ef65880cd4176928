"""esdnet convert: a published PyTorch checkpoint -> safetensors."""

from __future__ import annotations

import os
from pathlib import Path

import click

from esdnet_cli.options import overwrite_option


@click.command(name="convert")
@click.argument("source", type=click.Path(path_type=Path), metavar="SRC.pth")
@click.argument("target", type=click.Path(path_type=Path), metavar="DST.safetensors")
@overwrite_option
def command(source: Path, target: Path, overwrite: bool) -> None:
    """Convert a published checkpoint (.pth) to safetensors.

    Takes a raw state dict or one under state_dict or params, with or without "module.", of any width and depth.
    Only tensors are read: nothing in the file is executed. What does not fit is listed, and nothing is written then.

    \b
    Example:
      esdnet convert net_g_latest.pth esdnet.safetensors
    """
    if target.suffix != ".safetensors":
        raise click.UsageError(f"{target}: must end in .safetensors.")
    if os.path.lexists(target) and not overwrite:
        raise click.UsageError(f"{target} exists; --overwrite replaces it.")
    from esdnet_cli.checkpoint.published import read_pth
    from esdnet_cli.checkpoint.store import save
    from esdnet_cli.errors import EsdnetError

    state, config = read_pth(source)
    try:
        save(target, state, config, {})
    except OSError as error:
        raise EsdnetError(f"{target}: cannot be written ({error.strerror}); choose another place") from error
    click.echo(f"{target}: {len(state)} tensors, {config.to_dict()}")
