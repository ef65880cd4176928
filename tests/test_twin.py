"""benchmarks/twin.py: what the ordinary twin costs, and that nobody takes it for a spiking network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import twin
from click.testing import CliRunner, Result
from conftest import INTEGER, photo, tiny_network, write

from esdnet_cli.checkpoint.store import open_checkpoint, save
from esdnet_cli.energy.cost import Activity, EnergyCosts
from esdnet_cli.energy.counter import ActivityCounter
from esdnet_cli.energy.twin import equal_cost_dim
from esdnet_cli.errors import CheckpointError
from esdnet_cli.model.network import ESDNet


def count(network: ESDNet) -> Activity:
    with torch.inference_mode(), ActivityCounter(network.eval()) as counter:
        network(torch.rand(2, 3, 24, 32))
    return counter.activity()


def twin_of(dim: int) -> twin.Twin:
    return twin.Twin(twin.twin_config(INTEGER, dim))


def test_the_twin_multiplies_what_the_spiking_network_s_figures_say() -> None:
    spiking = {layer.name: layer.ann_mac for layer in count(tiny_network(INTEGER)).layers if layer.ann_mac}
    own = count(twin_of(INTEGER.dim))
    assert {layer.name: layer.ann_mac for layer in own.layers} == spiking
    assert own.ac == 0 and own.neurons == 0, "nothing spikes"


def test_the_width_of_equal_cost_is_what_the_built_twin_costs() -> None:
    activity = count(tiny_network(INTEGER))
    strict = activity.energy().strict_mj
    dim = equal_cost_dim(activity.layers, INTEGER, strict, EnergyCosts())
    assert dim > 1
    assert count(twin_of(dim)).energy().ann_mj <= strict < count(twin_of(dim + 1)).energy().ann_mj


def test_an_ordinary_network_that_costs_next_to_nothing_has_a_width() -> None:
    activity = count(tiny_network(INTEGER))
    dear = EnergyCosts(pj_mac=1e-9)
    dim = equal_cost_dim(activity.layers, INTEGER, activity.energy(dear).strict_mj, dear)
    assert dim >= 8 * INTEGER.dim


def test_a_twin_is_trained_resumed_and_scored(tmp_path: Path) -> None:
    for side in ("input", "target"):
        write(tmp_path / "pairs" / side / "a.png", photo(40, 48))
    weights, run = tmp_path / "spiking.safetensors", tmp_path / "run"
    save(weights, tiny_network(INTEGER).state_dict(), INTEGER, {"tile": "24", "overlap": "8"})

    def call(*args: object) -> Result:
        return CliRunner().invoke(twin.main, [str(arg) for arg in (*args, "--weights", weights)])

    few = ("--pairs", tmp_path / "pairs", "--crop", 16, "--batch", 2, "--precision", "fp32", "--device", "cpu")
    begun = call("train", "--dim", 5, "-o", run, "--validate", tmp_path / "pairs", "--steps", 2, *few)
    assert begun.exit_code == 0 and "2 steps in" in begun.output, begun.output
    assert call("train", "--dim", 5, "-o", run, "--resume", "--steps", 2, *few).exit_code == 0
    assert call("train", "--dim", 6, "-o", run, "--resume", "--steps", 2, *few).exit_code == 2, "another width"
    trained = run / "last.safetensors"
    with pytest.raises(CheckpointError, match="neuron must be one of lif, integer, not 'relu'"):
        open_checkpoint(str(trained))
    assert twin.read_twin(trained).config.dim == 5
    scored = call("evaluate", trained, tmp_path / "pairs")
    assert scored.exit_code == 0, scored.output
    assert "pairs: 1 pairs, tiles of 24, overlap 8" in scored.output
    assert "spiking, spiking" in scored.output and "twin, d = 5" in scored.output


def test_a_twin_answers_as_its_graph_does() -> None:
    """ReLU passes what is above 0, unlike neurons, which round and stop at D."""
    network = twin_of(4)
    block = network.encoder_level1[0]
    x = torch.randn(1, 1, 4, 8, 8)
    seen: list[torch.Tensor] = []
    block.shortcut[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    block(x)
    torch.testing.assert_close(seen[0], x.clamp(min=0))
