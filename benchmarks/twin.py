"""The ordinary twin, trained: the same graph with ReLU in place of the neurons, T = 1, narrower or as wide.

    python benchmarks/twin.py train --dim 29 -o twin/ --clean DIR ... (any option of `esdnet train` but --size)
    python benchmarks/twin.py evaluate twin/last.safetensors PAIRS...

What a spiking network's energy is worth: an ordinary network that costs as much (`equal cost` of `esdnet energy` says
how wide it is), and one of the same quality, by the same data, optimiser, loss, schedule and time. It is `esdnet train`
that trains, so a run resumes (--resume) as its runs do. Its files name neurons `relu`, and esdnet refuses them: only
this script runs them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import click
from torch import Tensor, nn

from esdnet_cli.checkpoint.store import open_checkpoint
from esdnet_cli.cli import cli
from esdnet_cli.energy.cost import Activity, Energy
from esdnet_cli.errors import EsdnetError
from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.model.network import ESDNet

RELU = "relu"  # what a twin's file says of its neurons


class Twin(ESDNet):
    """ESDNet without spikes, in float32. A spike-driven shortcut takes what the first ReLU lets through."""

    def __init__(self, config: ESDNetConfig) -> None:
        super().__init__(config)
        for neurons in self.spiking_convs():
            self.set_submodule(neurons, nn.ReLU())


def twin_config(config: ESDNetConfig, dim: int) -> ESDNetConfig:
    """Of the twin that is `dim` wide."""
    return replace(config, dim=dim, timesteps=1, neuron=RELU, levels=1)  # type: ignore[arg-type]


def read_twin(path: Path) -> Twin:
    """From a file that `train` wrote."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        config = json.loads((file.metadata() or {}).get("config", "{}"))
        if config.get("neuron") != RELU:
            raise click.ClickException(f"{path}: is no twin's checkpoint; name a file that `train` wrote")
        tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    # from_dict knows spiking neurons only
    twin = Twin(twin_config(ESDNetConfig.from_dict({**config, "neuron": "lif"}), config["dim"]))
    twin.load_state_dict(tensors)
    return twin.requires_grad_(False).eval()


@click.group()
def main() -> None:
    """Train and score the ordinary twin of a spiking network."""


weights_option = click.option("--weights", default="small", show_default=True, help="The spiking network.")


@main.command(context_settings={"ignore_unknown_options": True})
@click.option("--dim", type=click.IntRange(min=1), required=True, help="Channels of the twin's first level.")
@weights_option
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def train(dim: int, weights: str, options: Sequence[str]) -> None:
    """`esdnet train` with these OPTIONS, of the twin in place of the network; --init takes a twin's file."""
    from esdnet_cli.training import loop, start

    config = twin_config(open_checkpoint(weights).config, dim)

    def starting_point(size: str | None, init: str | None, say: Any) -> tuple[ESDNetConfig, Any, dict[str, str]]:
        if size is not None:
            raise EsdnetError("--size: --dim and --weights say it")
        initial = None if init is None else read_twin(Path(init))
        if initial is not None and initial.config != config:
            raise EsdnetError(f"--init {init}: is of {initial.config.to_dict()}, not of {config.to_dict()}")
        return config, None if initial is None else initial.state_dict(), {}

    # nothing drives its convolutions with spikes, so there is nothing for int8 or bf16 to validate
    others = mock.patch.multiple(loop, ESDNet=Twin, LOWERED=())
    with others, mock.patch.object(start, "starting_point", starting_point):
        cli.main(["train", *options], prog_name="twin.py")


@main.command()
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("pairs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@weights_option
def evaluate(checkpoint: Path, pairs: Sequence[Path], weights: str) -> None:
    """Score a twin beside the spiking network on folders of PAIRS (input/ and target/), as `esdnet evaluate` does.

    Both in float32 and in the spiking network's tiles. Energy: means over the pictures, the spiking network's by the
    strict count, the twin's 4.6 pJ a MAC, padding not multiplied.
    """
    from esdnet_cli.metrics import quality
    from esdnet_cli.model.inference import Inference, keep_freed_memory
    from esdnet_cli.pipeline.derainer import Derainer, load
    from esdnet_cli.training.data import load_validation

    keep_freed_memory()
    spiking = load(weights, device="cpu", precision="fp32")
    twin = read_twin(checkpoint)
    inference = Inference(twin, spiking.inference.device, "fp32")
    ordinary = Derainer(spiking.checkpoint, inference, spiking.tiling, None)
    for folder in pairs:
        couples = load_validation(folder)
        click.echo(f"{folder.name}: {len(couples)} pairs, {spiking.info.tiling}, fp32")
        for derainer in (spiking, ordinary):
            scores, figures = [], []
            for _, rainy, target in couples:
                derained = derainer(rainy)
                scores.append(quality(derained.image, target))
                assert derained.activity is not None
                figures.append(_mj(derained.activity, derainer.network))
            psnr, ssim, energy = (
                sum(column) / len(couples)
                for column in ([s.psnr_y for s in scores], [s.ssim_y for s in scores], figures)
            )
            name = f"twin, d = {twin.config.dim}" if derainer is ordinary else f"{spiking.checkpoint.name}, spiking"
            click.echo(f"  {name:<16} {psnr:6.2f} dB  {ssim:.4f}  {energy:8.2f} mJ a picture")


def _mj(activity: Activity, network: ESDNet) -> float:
    energy: Energy = activity.energy()
    return energy.ann_mj if isinstance(network, Twin) else energy.strict_mj


if __name__ == "__main__":
    main()
