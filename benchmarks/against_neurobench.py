"""Our counts against those of NeuroBench (Yik et al., Nature Communications 2025), convolution by convolution.

    pip install --no-deps neurobench==2.3.0
    python benchmarks/against_neurobench.py [--weights NAME|PATH] ...

Accumulations of what spikes drive, where NeuroBench sees an integer neuron's k as k layers of spikes, and the ordinary
twin's multiply-accumulates of all others, which multiply no padding. Without --weights: five small networks of random
weights, with LIF and integer neurons, in every precision that this machine has.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

import click
import torch
from torch import Tensor, nn

from esdnet_cli.checkpoint.store import load_network, open_checkpoint
from esdnet_cli.energy.counter import ActivityCounter
from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.model.low_precision import int8_works, lower
from esdnet_cli.model.network import ESDNet

_LIF = ESDNetConfig(dim=8, encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1))
_INTEGER = replace(_LIF, timesteps=1, shortcut="spike", patch=2, neuron="integer", levels=4)
SMALL = {
    "lif, membrane shortcuts": _LIF,
    "lif, two steps, patches": replace(_LIF, timesteps=2, shortcut="spike", patch=2),
    "lif, one step": replace(_LIF, timesteps=1),
    "integer, patches": _INTEGER,
    "integer, two steps": replace(_INTEGER, timesteps=2, patch=1, levels=3),
}
PRECISIONS = ("fp32", "bf16", *(["int8"] if int8_works() else []))
SIZE = 24, 40


def random_network(config: ESDNetConfig) -> ESDNet:
    """Random weights, with batch norms that let neurons fire."""
    network = ESDNet(config)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.fill_(0.1)
        elif name.endswith(".bias"):
            tensor.fill_(0.05)
    return network.eval()


def both_counts(network: ESDNet, precision: str) -> Iterator[tuple[str, int, int]]:
    """Of each convolution of one pass: name, our count, theirs."""
    from neurobench.metrics.utils.layers import single_layer_MACs

    plain = {name: _of_ones(conv) for name, conv in network.named_modules() if isinstance(conv, nn.Conv2d)}
    drives = {conv: neurons for neurons, convs in network.spiking_convs().items() for conv in convs}
    if precision != "fp32":
        lower(network, precision, others=torch.bfloat16)
    seen: dict[str, Tensor] = {}  # what neurons fired, what other convolutions read
    for name in {*drives.values()}:
        network.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
    for name in plain.keys() - drives.keys():
        network.get_submodule(name).register_forward_hook(
            lambda _, args, __, name=name: seen.__setitem__(name, args[0])
        )
    with torch.inference_mode(), ActivityCounter(network) as counter:
        network(torch.rand(1, 3, *SIZE))
    layers = {layer.name: layer for layer in counter.activity().layers}
    for name, conv in plain.items():
        if name in drives:
            spikes = seen[drives[name]].flatten(0, 1)
            units = [(spikes > unit).double() for unit in range(network.config.levels)]
            yield name, layers[name].ac, sum(single_layer_MACs(unit, conv)[0] for unit in units)
        else:
            x = seen[name].double()
            steps = network.config.timesteps if x.dim() == 5 else 1  # the twin has one
            inputs = x.flatten(0, 1) if x.dim() == 5 else x
            yield name, layers[name].ann_mac * steps, single_layer_MACs(inputs, conv, total=True)[0]


def _of_ones(conv: nn.Conv2d) -> nn.Conv2d:
    """A plain one of its shape, in which no weight is zero; float64 adds up exactly."""
    shape = conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding
    plain = nn.Conv2d(*shape, bias=False, dtype=torch.float64)  # type: ignore[arg-type]
    nn.init.ones_(plain.weight)
    return plain


@click.command()
@click.option("--weights", multiple=True, help="Checkpoint to check instead; may be given several times.")
def main(weights: tuple[str, ...]) -> None:
    """Print how many convolutions were compared and each that differs; exit status 1 if one does."""
    torch.manual_seed(1)
    compared, differing = 0, 0
    for title in weights or SMALL:
        original = load_network(open_checkpoint(title)).eval() if weights else random_network(SMALL[title])
        for precision in PRECISIONS:
            for name, ours, theirs in both_counts(deepcopy(original), precision):
                compared += 1
                if ours != theirs:
                    differing += 1
                    click.echo(f"{title}, {precision}: {name}: ours {ours}, theirs {theirs}")
    click.echo(f"{compared} convolutions ({', '.join(PRECISIONS)}), {differing} differ")
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
