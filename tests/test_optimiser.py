"""Muon and AdamW side by side: every parameter moves, whatever the layout; a state goes on where it was."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import TINY
from torch import nn

from esdnet_cli.model.layers import SeqConv2d
from esdnet_cli.model.network import ESDNet
from esdnet_cli.training import optimiser
from esdnet_cli.training.loop import channels_last
from esdnet_cli.training.optimiser import MuonAdamW, orthogonalised

LR = 1e-3


def step(network: nn.Module, optimiser: MuonAdamW, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape, generator=random))
    optimiser.step(LR)


@pytest.mark.parametrize("last", [False, True], ids=["planes", "channels last"])
def test_every_parameter_moves_and_kernels_by_an_orthogonal_step(last: bool) -> None:
    network = ESDNet(TINY)
    if last:
        channels_last(network)
    before = copy.deepcopy(network)
    step(network, MuonAdamW(network, LR, weight_decay=0.0), seed=1)
    moved = {name: new - old for (name, new), old in zip(network.named_parameters(), before.parameters())}
    assert not [name for name, change in moved.items() if not change.any()]
    kernels = [f"{name}.weight" for name, module in network.named_modules() if isinstance(module, SeqConv2d)]
    for name in kernels:
        rows = moved[name].detach().flatten(1)
        size = LR * 0.2 * max(rows.shape) ** 0.5  # of each singular value, about: Newton-Schulz stops at 0.7 to 1.2
        values = torch.linalg.svdvals(rows) / size
        assert values.min() > 0.3 and values.max() < 1.4, name
    others = torch.cat([change.detach().flatten() for name, change in moved.items() if name not in kernels])
    torch.testing.assert_close(others.abs(), torch.full_like(others, LR), rtol=1e-3, atol=0)  # AdamW's first step


@pytest.mark.parametrize("shape", [(16, 144), (144, 16)])
@pytest.mark.parametrize("decades", [0, 2])
def test_bfloat16_orthogonalises_as_float32_does(shape: tuple[int, int], decades: int) -> None:
    left, _, right = torch.linalg.svd(torch.randn(2, *shape), full_matrices=False)
    matrices = left @ torch.diag(torch.logspace(0, -decades, 16)) @ right  # singular values over so many decades
    exact, rounded = orthogonalised(matrices), orthogonalised(matrices, torch.bfloat16).float()
    assert torch.cosine_similarity(exact.flatten(), rounded.flatten(), dim=0) > 0.99
    assert torch.linalg.svdvals(rounded).max() < 1.25


def test_an_iteration_that_diverges_makes_a_small_step_of_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = torch.randn(2, 64, 576)
    monkeypatch.setattr(optimiser, "_NEWTON_SCHULZ", (7.0, -5.0, 2.0))  # as rounding errors do, these let it grow
    values = torch.linalg.svdvals(orthogonalised(matrices, torch.bfloat16).float())
    expected = torch.linalg.svdvals(matrices / torch.linalg.matrix_norm(matrices, keepdim=True))
    torch.testing.assert_close(values, expected, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("before, after", [(False, True), (True, False)])
def test_a_state_goes_on_in_either_layout(before: bool, after: bool) -> None:
    first = ESDNet(TINY)
    if before:
        channels_last(first)
    optimiser = MuonAdamW(first, LR, weight_decay=1e-2)
    for seed in (1, 2):
        step(first, optimiser, seed)
    second = ESDNet(TINY)
    if after:
        channels_last(second)
    second.load_state_dict(first.state_dict())
    resumed = MuonAdamW(second, LR, weight_decay=1e-2)
    resumed.restore(copy.deepcopy(optimiser.state()))
    for network, going_on in ((first, optimiser), (second, resumed)):
        step(network, going_on, seed=3)
    for name, parameter in first.named_parameters():
        torch.testing.assert_close(second.get_parameter(name), parameter, rtol=0, atol=0.05 * LR)


def test_another_network_does_not_go_on() -> None:
    optimiser = MuonAdamW(ESDNet(TINY), LR, weight_decay=0.0)
    with pytest.raises(KeyError, match="momentum"):
        optimiser.restore({})
