"""The neuron, followed by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from esdnet_cli.model.neurons import SURROGATE_ALPHA, V_THRESHOLD, integer_lif, lif


def test_nine_steps_by_hand() -> None:
    #  v before:  0    0.10  0.14  0     0     0.02  0    -0.4  -0.2
    x = torch.tensor([0.10, 0.09, 0.08, 0.15, 0.02, 0.20, -0.4, 0.00, 0.30])
    # h:              0.10  0.14  0.15  0.15  0.02  0.21  -0.4  -0.2  0.20
    assert lif(x.double()).tolist() == [0, 0, 1, 1, 0, 1, 0, 0, 1]


@pytest.mark.parametrize("gradient", [False, True])
def test_fires_exactly_at_the_threshold_and_not_below(gradient: bool) -> None:
    threshold = torch.tensor(V_THRESHOLD)
    below = torch.nextafter(threshold, torch.tensor(0.0))
    assert lif(threshold[None].requires_grad_(gradient)).item() == 1
    assert lif(below[None].requires_grad_(gradient)).item() == 0


def test_nothing_is_remembered_between_calls() -> None:
    x = torch.full((3, 2, 2), 0.1)
    first = lif(x)
    assert torch.equal(first, lif(x))
    assert first[0].sum() == 0  # a leftover potential of 0.05 or more would fire here


def _plain(x_seq: Tensor) -> Tensor:
    """The same neuron through autograd, step by step: a Heaviside whose gradient is the surrogate's."""
    v = torch.zeros_like(x_seq[0])
    spikes = []
    for x in x_seq:
        h = v / 2 + x
        smooth = torch.sigmoid(SURROGATE_ALPHA * (h - V_THRESHOLD))
        spike = smooth + ((h >= V_THRESHOLD).to(h.dtype) - smooth).detach()
        v = h * (1 - spike)  # not detached
        spikes.append(spike)
    return torch.stack(spikes)


def test_gradient_equals_plain_autograd() -> None:
    x = torch.randn(4, 2, 3, 5, 5, dtype=torch.float64).mul_(0.3).requires_grad_()
    upstream = torch.randn_like(x)
    (ours,) = torch.autograd.grad((lif(x) * upstream).sum(), x)
    (plain,) = torch.autograd.grad((_plain(x) * upstream).sum(), x)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)
    assert ours.abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_spikes_keep_the_dtype_and_are_zero_or_one(dtype: torch.dtype) -> None:
    spikes = lif(torch.randn(4, 100).to(dtype))
    assert spikes.dtype == dtype
    assert set(spikes.unique().tolist()) == {0.0, 1.0}


def test_bfloat16_input_keeps_a_float32_membrane() -> None:
    x = torch.tensor([0.0010, 0.1494]).to(torch.bfloat16)
    assert x[0] / 2 + x[1] >= V_THRESHOLD, "in bfloat16 the sum of 0.1499 would round up past the threshold"
    assert lif(x).tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_with_and_without_a_gradient_it_fires_alike(dtype: torch.dtype) -> None:
    x = (0.3 * torch.randn(6, 2, 3, 7, 5)).to(dtype)
    before = x.clone()
    assert torch.equal(lif(x), lif(x.requires_grad_()).detach())
    assert torch.equal(x.detach(), before), "the input is another's"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(2, 3, 8, 12, 16), (3, 2, 96, 72, 80)], ids=["small", "larger than a cache"])
@torch.inference_mode()
def test_layout_and_pieces_change_no_spike(size: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randn(size).mul_(0.3).to(dtype)
    channels_last = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, size[:2])
    expected = _plain(x.float()).to(dtype)
    for layout in (x, channels_last):
        spikes = lif(layout)
        assert torch.equal(spikes, expected) and spikes[0].stride() == layout[0].stride()
    assert torch.equal(lif(x, torch.bfloat16), expected.bfloat16())


def test_integers_by_hand() -> None:
    #  v before:  0     -0.05    -0.025     0.3375
    x = torch.tensor([0.10, 0.35, 0.95, -0.3])
    # h:              0.10  0.325  0.9375  -0.13125
    # h / threshold:  0.67  2.17   6.25    -0.875
    assert integer_lif(x.double(), 4).tolist() == [1, 2, 4, 0]


def test_integers_round_half_to_even_and_stay_within_their_levels() -> None:
    x = torch.tensor([[-9.0, -0.5, 0.5, 1.5, 2.5, 3.49, 3.51, 4.5, 99.0]], dtype=torch.float64) * V_THRESHOLD
    assert integer_lif(x, 4).tolist() == [[0, 0, 0, 2, 2, 3, 4, 4, 4]]
    assert integer_lif(x, 200, torch.uint8).max() == 99


def _plain_integers(x_seq: Tensor, levels: int) -> Tensor:
    """The same neuron through autograd, step by step: rounding whose gradient is straight through its window."""
    v = torch.zeros_like(x_seq[0])
    spikes = []
    for x in x_seq:
        h = v / 2 + x
        window = h.clamp(-V_THRESHOLD / 2, (levels + 0.5) * V_THRESHOLD) / V_THRESHOLD
        spike = window + ((h / V_THRESHOLD).round().clamp(0, levels) - window).detach()
        v = h - V_THRESHOLD * spike  # not detached
        spikes.append(spike)
    return torch.stack(spikes)


@pytest.mark.parametrize("timesteps, levels", [(1, 4), (3, 2), (2, 1)])
def test_gradient_of_integers_equals_plain_autograd(timesteps: int, levels: int) -> None:
    x = torch.randn(timesteps, 2, 3, 5, 5, dtype=torch.float64).mul_(0.6).requires_grad_()
    upstream = torch.randn_like(x)
    ours = integer_lif(x, levels)
    plain = _plain_integers(x, levels)
    assert torch.equal(ours, plain)
    gradients = [torch.autograd.grad((spikes * upstream).sum(), x)[0] for spikes in (ours, plain)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)
    assert gradients[0].abs().max() > 1 and (gradients[0] == 0).any()


@pytest.mark.parametrize("timesteps", [1, 3])
@pytest.mark.parametrize("levels", [None, 4], ids=["lif", "integer"])
def test_a_price_is_that_of_the_mean_firing(levels: int | None, timesteps: int) -> None:
    def fired(x: Tensor, price: Tensor | None = None) -> Tensor:
        return lif(x, price=price) if levels is None else integer_lif(x, levels, price=price)

    x = torch.randn(timesteps, 2, 3, 5, 5, dtype=torch.float64).mul_(0.6).requires_grad_()
    upstream = torch.randn_like(x)
    (priced,) = torch.autograd.grad((fired(x, torch.tensor(0.7, dtype=torch.float64)) * upstream).sum(), x)
    spikes = fired(x)
    (stated,) = torch.autograd.grad((spikes * upstream).sum() + 0.7 * spikes.mean(), x)
    torch.testing.assert_close(priced, stated, rtol=0, atol=1e-12)
    assert (priced - torch.autograd.grad((fired(x) * upstream).sum(), x)[0]).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("timesteps", [1, 3])
def test_integers_fire_alike_with_and_without_a_gradient_in_either_layout(timesteps: int, dtype: torch.dtype) -> None:
    x = (0.5 * torch.randn(timesteps, 2, 96, 72, 80)).to(dtype)
    before = x.clone()
    expected = integer_lif(x.clone().requires_grad_(), 4).detach()
    channels_last = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])
    for layout in (x, channels_last):
        spikes = integer_lif(layout, 4)
        assert torch.equal(spikes, expected) and spikes[0].stride() == layout[0].stride()
    assert torch.equal(integer_lif(x, 4, torch.int8), expected.to(torch.int8))
    assert torch.equal(x, before), "the input is another's"
