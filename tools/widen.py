"""Widen a checkpoint without changing what it computes, to go on training from there.

    python tools/widen.py run/last.safetensors wide.safetensors --dim 48 [--timesteps 2]

Channels are repeated, and what reads them shares its weight among the copies at random, so that their gradients differ
(Net2Net: Chen et al., ICLR 2016). Another number of timesteps does change the result, and so does a width that is no
multiple of the old one: some channels are repeated more often than others, and attention takes means over channels.
Training mends both.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
import torch
from torch import Tensor

from esdnet_cli.checkpoint.store import load_network, open_checkpoint, save
from esdnet_cli.model.network import ESDNet


def copies(old: int, new: int) -> Tensor:
    """Which of `old` channels each of `new` ones repeats: neighbours, so that halves of a concatenation stay halves."""
    return torch.arange(new) * old // new


def widened(tensor: Tensor, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """`tensor` in a wider `shape`: outputs (dimension 0) repeated, weights of inputs (1) shared by the copies."""
    if tensor.dim() and shape[0] != tensor.shape[0]:
        tensor = tensor[copies(tensor.shape[0], shape[0])]
    if tensor.dim() > 1 and shape[1] != tensor.shape[1]:
        source = copies(tensor.shape[1], shape[1])
        share = 0.25 + 0.5 * torch.rand(shape, generator=generator)
        whole = torch.zeros_like(tensor).index_add_(1, source, share)
        tensor = tensor[:, source] * share / whole[:, source]
    return tensor.contiguous()


@click.command()
@click.argument("source")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--dim", type=int, required=True, help="Channels of the result's first level, more than the source's.")
@click.option("--timesteps", type=int, help="T of the result.  [default: the source's]")
def main(source: str, target: Path, dim: int, timesteps: int | None) -> None:
    """Write the wider network."""
    checkpoint = open_checkpoint(source)
    config = checkpoint.config
    if dim < config.dim:
        raise click.ClickException(f"--dim {dim} is narrower than {source}, which has {config.dim}; give more")
    if dim % config.dim:
        click.echo(f"{dim} is no multiple of {config.dim}: the result will differ a little from {source}'s", err=True)
    config = dataclasses.replace(config, dim=dim, timesteps=timesteps or config.timesteps)
    shapes = {name: tensor.shape for name, tensor in ESDNet(config).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in sorted(load_network(checkpoint).state_dict().items()):
        if ".ta." in name:  # the perceptron over steps keeps its first ones
            state[name] = tensor[tuple(slice(size) for size in shapes[name])].contiguous()
        else:
            state[name] = widened(tensor, shapes[name], generator)
    save(target, state, config, checkpoint.origin | checkpoint.tiling)


if __name__ == "__main__":
    main()
