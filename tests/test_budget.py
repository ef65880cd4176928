"""Training with a spike budget: what spikes cost, and what they come to."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import INTEGER, TINY
from test_training import RECIPE, batches, new_run, random

from esdnet_cli.energy.counter import ActivityCounter
from esdnet_cli.errors import EsdnetError
from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.model.layers import LIF
from esdnet_cli.model.network import ESDNet
from esdnet_cli.training import loop
from esdnet_cli.training.budget import AT_BUDGET, FREE, SpikeBudget

BUDGET = replace(RECIPE, config=INTEGER, spike_budget=0.6)


def made(config: ESDNetConfig, fraction: float = 1.0) -> tuple[SpikeBudget, ESDNet, torch.Tensor]:
    learning = ESDNet(config)
    images = batches()(4, 24, random())[0]
    return SpikeBudget(learning, copy.deepcopy(learning).eval(), fraction, images, False), learning, images


@pytest.mark.parametrize("config", [TINY, INTEGER], ids=["lif", "integer"])
def test_spikes_are_weighed_by_the_accumulations_that_they_cause(config: ESDNetConfig) -> None:
    # TINY's shortcuts, which see real numbers, are no spikes'
    learning = ESDNet(config).eval()
    images = torch.rand(1, 3, 128, 128)
    spent = SpikeBudget(learning, learning, 1.0, images, False).spent()
    with torch.inference_mode(), ActivityCounter(learning) as counter:
        learning(images)
    driven = {conv for convs in learning.spiking_convs().values() for conv in convs}
    counted = sum(layer.ac for layer in counter.activity().layers if layer.name in driven)
    assert 0 < counted < spent < 1.05 * counted  # at the border some reach fewer places


def test_spikes_cost_the_more_the_more_is_spent() -> None:
    spikes, learning, images = made(INTEGER, fraction=0.5)
    begun_with = spikes.spent()
    means = dict[str, float]()
    for name, layer in learning.named_modules():
        if isinstance(layer, LIF):
            layer.register_forward_hook(lambda _, __, fired, name=name: means.update({name: float(fired.mean())}))
    with torch.no_grad():
        learning.eval()(images)

    def in_loss(spent: float) -> float:
        spikes.charge(spent)
        return sum(float(dict(learning.named_modules())[name].price) * mean for name, mean in means.items())  # type: ignore[arg-type]

    assert in_loss(0.5 * FREE * begun_with) == in_loss(0) == 0
    assert in_loss(0.5 * begun_with) == pytest.approx(AT_BUDGET, rel=1e-4)
    assert in_loss(begun_with) == pytest.approx(AT_BUDGET * (2 - FREE) / (1 - FREE), rel=1e-4)


def test_a_network_without_spikes_has_no_budget() -> None:
    silent = ESDNet(INTEGER).eval()
    silent.patch_embed.proj.weight.data.zero_()
    with pytest.raises(EsdnetError, match="fires no spikes to go by"):
        SpikeBudget(silent, silent, 1.0, torch.rand(1, 3, 16, 16), False)


def test_a_run_keeps_to_its_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "EVERY", 2)
    first = new_run(tmp_path / "first", replace(BUDGET, spike_budget=None, steps=20, lr=4e-3, ema=0.8))
    list(first.train())
    images = batches()(8, 16, random())[0]

    def left(fraction: float | None) -> float:
        recipe = replace(BUDGET, spike_budget=fraction, steps=30, lr=5e-4, ema=0.8, warmup=5)
        run = new_run(tmp_path / str(fraction), recipe, initial=first.average.state_dict())
        judged = SpikeBudget(ESDNet(INTEGER), run.average, 1.0, images, False)
        before = judged.spent()
        list(run.train())
        return judged.spent() / before

    assert left(0.7) < 0.85 < 1 < left(None)


def test_a_stopped_run_keeps_its_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "EVERY", 2)
    recipe = replace(BUDGET, spike_budget=0.1)  # more is spent to the end, so that spikes have a price
    whole = [event.loss for event in new_run(tmp_path / "whole", recipe).train()]
    halted = new_run(tmp_path / "halted", recipe)
    steps = halted.train()
    for _ in range(3):
        next(steps)
    steps.close()
    # whatever it is said to begin with now, what that spent then counts
    resumed = new_run(tmp_path / "halted", recipe, resume=True, initial=ESDNet(INTEGER).state_dict())
    prices = [layer.price for layer in resumed.network.modules() if isinstance(layer, LIF)]
    assert prices and all(price is not None and price > 0 for price in prices)
    assert [event.loss for event in resumed.train()] == whole[3:]
    with pytest.raises(EsdnetError, match=r"was started with spike_budget 0.1, not None"):
        new_run(tmp_path / "halted", replace(recipe, spike_budget=None), resume=True)


def test_the_crops_of_a_run_are_the_same_with_a_budget(tmp_path: Path) -> None:
    first = [
        next(iter(new_run(tmp_path / str(fraction), replace(BUDGET, spike_budget=fraction)).train())).loss
        for fraction in (None, 0.6)
    ]
    assert first[0] == first[1]
