"""esdnet convert: a published PyTorch checkpoint, or one that lacks its configuration -> safetensors."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from esdnet_cli.model.config import NEURONS, SHORTCUTS
from esdnet_cli.options import PATH, option, overwrite_option


def _json(ctx: click.Context, param: click.Parameter, text: str | None) -> dict[str, Any]:
    try:
        stated = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"{text}: is not JSON ({error})") from error
    if not isinstance(stated, dict):
        raise click.BadParameter(f'{text}: is not a JSON object, such as {{"shortcut": "spike"}}')
    return stated


@click.command(name="convert", short_help="Convert a published checkpoint to safetensors.")
@click.argument("source", type=PATH, metavar="SRC")
@click.argument("target", type=PATH, metavar="DST.safetensors")
@option("--shortcut", type=click.Choice(SHORTCUTS), help="What drives the shortcut convolutions.")
@option("--neuron", type=click.Choice(NEURONS), help="Neuron type.")
@option("--levels", type=int, metavar="N", help="Maximum number of spikes of an integer neuron per step.")
@option("--config", "stated", callback=_json, metavar="JSON", help="Configuration fields to set.")
@overwrite_option
def command(
    source: Path, target: Path, shortcut: str | None, neuron: str | None, levels: int | None, stated: dict[str, Any],
    overwrite: bool,
) -> None:  # fmt: skip
    """Convert a published checkpoint (.pth) to safetensors, or add a missing configuration to a .safetensors file.

    Takes a state dict, bare or under params_ema, params, state_dict and the like, with or without prefixes such as
    "module.", of any width and depth. Only tensors are read: nothing in the file is executed. If tensors do not fit,
    they are listed and nothing is written.

    Size and patches are read from the tensors. Shortcut and neuron type are not: set them if they differ from the
    published network.

    \b
    Examples:
      esdnet convert net_g_latest.pth esdnet.safetensors
      esdnet convert bare.safetensors esdnet.safetensors --shortcut spike --neuron integer --levels 4
    """
    if target.suffix != ".safetensors":
        raise click.UsageError(f"{target}: must end in .safetensors.")
    if os.path.lexists(target) and not overwrite:
        raise click.UsageError(f"{target} exists; --overwrite replaces it.")
    from esdnet_cli.checkpoint.convert import read_source
    from esdnet_cli.checkpoint.store import save
    from esdnet_cli.errors import EsdnetError

    options = {"shortcut": shortcut, "neuron": neuron, "levels": levels}
    stated |= {name: value for name, value in options.items() if value is not None}
    converted = read_source(source, stated)
    for note in converted.notes:
        click.echo(note, err=True)
    try:
        save(target, converted.state, converted.config, converted.metadata)
    except OSError as error:
        raise EsdnetError(f"{target}: cannot be written ({error.strerror}); choose another place") from error
    click.echo(f"{target}: {len(converted.state)} tensors, {converted.config.to_dict()}")
