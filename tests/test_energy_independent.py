"""Our counts against an independent counter (spikingjelly 2's), which sees every convolution at the dispatcher."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import GOLDEN
from torch import Tensor, nn

from esdnet_cli.checkpoint.store import load_network, open_checkpoint
from esdnet_cli.energy.counter import ActivityCounter
from esdnet_cli.pipeline.images import read_picture
from esdnet_cli.pipeline.tiling import Batches, Tiling, derain_tiled

SAMPLE = Path(__file__).parents[1] / "samples" / "coffee.jpg"


@pytest.mark.parametrize("weights", ["small", str(GOLDEN / "compact-weights.safetensors")], ids=["spike", "membrane"])
@pytest.mark.parametrize("tiling", [Tiling(0, 0), Tiling(16, 4)], ids=["one piece", "tiles"])
@pytest.mark.parametrize("height, width", [(16, 16), (24, 36), (21, 45)])
def test_every_convolution_agrees_with_an_independent_counter(
    height: int, width: int, tiling: Tiling, weights: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reason = "spikingjelly is absent: pip install --no-deps spikingjelly loguru"
        independent = pytest.importorskip("spikingjelly.activation_based.op_counter", reason=reason)
    network = load_network(open_checkpoint(weights)).eval()
    taken_for_spikes = Counter[str]()  # that counter goes by values: a real input of zeros and ones are spikes to it

    def note(name: str, values: Tensor) -> None:
        taken_for_spikes[name] += bool(((values == 0) | (values == 1)).all())

    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            module.register_forward_pre_hook(lambda _, args, name=name: note(name, args[0]))
    accumulations, macs = independent.ACCounter(), independent.MACCounter()

    @torch.enable_grad()  # without one, perceptrons are no single operation that it knows
    def counted(tiles: Tensor) -> Tensor:
        with independent.DispatchCounterMode([accumulations, macs]):
            output: Tensor = network(tiles)
        return output.detach()

    picture = read_picture(SAMPLE.read_bytes(), SAMPLE).rgb[:height, :width]
    with ActivityCounter(network) as counter:
        derain_tiled(picture, tiling, Batches(counted, 1, 4, lambda size: None))
    layers = {layer.name: layer for layer in counter.activity().layers}
    convolution, products = torch.ops.aten.convolution.default, torch.ops.aten.mm.default
    driven = {conv for convs in network.spiking_convs().values() for conv in convs}
    compared = 0
    for name, module in network.named_modules():
        if not isinstance(module, (nn.Conv2d, nn.Conv3d)) or (name not in driven and taken_for_spikes[name]):
            continue
        kind = products if isinstance(module, nn.Conv3d) else convolution  # perceptrons are matrix products
        ac, mac = (each.get_counts().get(f"ESDNet.{name}", {}).get(kind, 0) for each in (accumulations, macs))
        assert (layers[name].ac, layers[name].mac) == (ac, mac), name
        compared += 1
    assert compared >= len(driven) + 5
