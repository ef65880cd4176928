"""Our counts against an independent counter (spikingjelly 2's), which sees every convolution at the dispatcher."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import GOLDEN, INTEGER, TINY, TWO_STEPS, tiny_network
from torch import Tensor, nn
from torch.nn import functional as F

from esdnet_cli.checkpoint.store import load_network, open_checkpoint
from esdnet_cli.energy.counter import ActivityCounter
from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.model.low_precision import int8_works, lower
from esdnet_cli.pipeline.images import read_picture
from esdnet_cli.pipeline.tiling import Batches, Tiling, derain_tiled

SAMPLE = Path(__file__).parents[1] / "samples" / "coffee.jpg"
CONVOLUTION = torch.ops.aten.convolution.default
CONFIGS = {
    "membrane": TINY,
    "spike": replace(TINY, shortcut="spike"),
    "lif, two steps, patches": replace(TINY, shortcut="spike", timesteps=2, patch=2),
    "lif, one step": replace(TINY, timesteps=1),
    "integer, one step, patches": INTEGER,
    "integer, two steps": TWO_STEPS,
    "integer, two steps, patches, membrane": replace(TWO_STEPS, patch=2, shortcut="membrane"),
}


@pytest.fixture
def independent() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reason = "spikingjelly is absent: pip install --no-deps spikingjelly loguru"
        return pytest.importorskip("spikingjelly.activation_based.op_counter", reason=reason)


def note_binary_inputs(network: nn.Module) -> Counter[str]:
    """Filled as the network runs: names of the convolutions that saw zeros and ones alone, which are spikes to it."""
    binary = Counter[str]()

    def note(name: str, values: Tensor) -> None:
        binary[name] += bool(((values == 0) | (values == 1)).all())

    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            module.register_forward_pre_hook(lambda _, args, name=name: note(name, args[0]))
    return binary


def operations(counter: Any, scope: str) -> int:
    """What it counted of convolutions in a module, by the module's name."""
    return int(counter.get_counts().get(scope, {}).get(CONVOLUTION, 0))


@pytest.mark.parametrize("precision", ["fp32", "bf16", *(["int8"] if int8_works() else [])])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_as_it_runs_without_gradients_in_every_number_format(
    config: ESDNetConfig, precision: str, independent: Any
) -> None:
    """Real-valued convolutions where they run; spike-driven ones, which low precision joins or hands to a kernel that
    the counter does not know, by convolving the spikes that fired, unit by unit, under it."""
    network = tiny_network(config)
    shapes = {name: module for name, module in tiny_network(config).named_modules() if isinstance(module, nn.Conv2d)}
    if precision != "fp32":
        lower(network, precision, others=torch.bfloat16)
    fired: dict[str, Tensor] = {}
    for name in network.spiking_convs():
        network.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: fired.__setitem__(name, out))
    taken_for_spikes = note_binary_inputs(network)
    picture = read_picture(SAMPLE.read_bytes(), SAMPLE).rgb[:24, :40]
    tiles = torch.from_numpy(picture / 255).float().permute(2, 0, 1)[None]
    macs = independent.MACCounter()
    with torch.no_grad(), ActivityCounter(network) as counter, independent.DispatchCounterMode([macs]):
        network(tiles)
    assert not {"patch_embed.proj", "refinement.sa.0", "output.0"} & {*+taken_for_spikes}
    layers = {layer.name: layer for layer in counter.activity().layers}
    driven = {conv: neurons for neurons, convs in network.spiking_convs().items() for conv in convs}
    for name, conv in shapes.items():
        if name not in driven:
            if not taken_for_spikes[name]:
                assert layers[name].mac == operations(macs, f"ESDNet.{name}"), name
            continue
        spikes = fired[driven[name]].flatten(0, 1).float()
        accumulations = independent.ACCounter()
        with torch.no_grad(), independent.DispatchCounterMode([accumulations]):
            for unit in range(config.levels):
                F.conv2d((spikes > unit).float(), conv.weight, None, conv.stride, conv.padding)
        assert layers[name].ac == operations(accumulations, "Global") > 0, name
        assert layers[name].mac == 0


@pytest.mark.parametrize("weights", ["lif", str(GOLDEN / "compact-weights.safetensors")], ids=["spike", "membrane"])
@pytest.mark.parametrize("tiling", [Tiling(0, 0), Tiling(16, 4)], ids=["one piece", "tiles"])
@pytest.mark.parametrize("height, width", [(16, 16), (24, 36), (21, 45)])
def test_every_convolution_agrees_with_an_independent_counter(
    height: int, width: int, tiling: Tiling, weights: str, independent: Any
) -> None:
    network = load_network(open_checkpoint(weights)).eval()
    taken_for_spikes = note_binary_inputs(network)
    accumulations, macs = independent.ACCounter(), independent.MACCounter()

    @torch.enable_grad()  # without one, perceptrons are no single operation that it knows
    def counted(tiles: Tensor) -> Tensor:
        with independent.DispatchCounterMode([accumulations, macs]):
            output: Tensor = network(tiles)
        return output.detach()

    picture = read_picture(SAMPLE.read_bytes(), SAMPLE).rgb[:height, :width]
    with ActivityCounter(network) as counter:
        derain_tiled(picture, tiling, Batches([counted], 1, 4))
    layers = {layer.name: layer for layer in counter.activity().layers}
    products = torch.ops.aten.mm.default
    driven = {conv for convs in network.spiking_convs().values() for conv in convs}
    compared = 0
    for name, module in network.named_modules():
        if not isinstance(module, (nn.Conv2d, nn.Conv3d)) or (name not in driven and taken_for_spikes[name]):
            continue
        kind = products if isinstance(module, nn.Conv3d) else CONVOLUTION  # perceptrons are matrix products
        ac, mac = (each.get_counts().get(f"ESDNet.{name}", {}).get(kind, 0) for each in (accumulations, macs))
        assert (layers[name].ac, layers[name].mac) == (ac, mac), name
        compared += 1
    assert compared >= len(driven) + 5


@pytest.mark.parametrize("config", [TINY, CONFIGS["lif, two steps, patches"]], ids=["published", "patches"])
def test_the_librarys_own_neuron_computes_the_same(config: ESDNetConfig, independent: Any) -> None:
    """The lines of docs/energy.md."""
    document = (Path(__file__).parents[1] / "docs" / "energy.md").read_text()
    (snippet,) = re.findall(r"```\n(from spikingjelly.*?)```", document, flags=re.DOTALL)
    network = tiny_network(config)
    images = torch.rand(2, 3, 16, 24)
    with torch.inference_mode():
        ours = network(images)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(snippet, {"network": network})
        assert "LIFNode" in repr(network) and "LIF()" not in repr(network)
        torch.testing.assert_close(network(images), ours)
