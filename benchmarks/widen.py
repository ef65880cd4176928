"""Double the width of a checkpoint without changing what it computes, to go on training from there.

    python benchmarks/widen.py run/last.safetensors wide.safetensors [--timesteps 2]

Every channel is doubled, and what reads it splits its weight over the two copies at random, so that their gradients
differ (Net2Net: Chen et al., ICLR 2016). Another number of timesteps does change the result; training mends it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
import torch
from torch import Tensor

from esdnet_cli.checkpoint.store import load_network, open_checkpoint, save
from esdnet_cli.model.network import ESDNet


def widened(tensor: Tensor, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """`tensor` with outputs (dimension 0) and inputs (1) doubled wherever `shape` is twice as long."""
    if tensor.dim() and shape[0] == 2 * tensor.shape[0]:
        tensor = tensor.repeat_interleave(2, 0)
    if tensor.dim() > 1 and shape[1] == 2 * tensor.shape[1]:
        share = 0.25 + 0.5 * torch.rand(tensor.shape, generator=generator)
        tensor = torch.stack((tensor * share, tensor * (1 - share)), 2).flatten(1, 2)
    return tensor.contiguous()


@click.command()
@click.argument("source")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--timesteps", type=int, help="T of the result.  [default: the source's]")
def main(source: str, target: Path, timesteps: int | None) -> None:
    """Write the doubled network."""
    checkpoint = open_checkpoint(source)
    config = checkpoint.config
    config = dataclasses.replace(config, dim=2 * config.dim, timesteps=timesteps or config.timesteps)
    shapes = {name: tensor.shape for name, tensor in ESDNet(config).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in sorted(load_network(checkpoint).state_dict().items()):
        if ".ta." in name:  # the perceptron over steps keeps its first ones
            state[name] = tensor[tuple(slice(size) for size in shapes[name])].contiguous()
        else:
            state[name] = widened(tensor, shapes[name], generator)
    tiling = {"tile": str(checkpoint.tile), "overlap": str(checkpoint.overlap)}
    save(target, state, config, tiling)


if __name__ == "__main__":
    main()
