"""The neurons' equations, once: everything else refers to them (Song et al., IJCAI 2024, section 3; I-LIF)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

V_THRESHOLD = 0.15
TAU = 2.0  # the membrane potential keeps 1 - 1/TAU of itself from step to step; the input does not decay
CACHED = 2**17  # elements of float32 that one core goes through at once: what its cache holds, in few calls
SURROGATE_ALPHA = 4.0  # sharpness of the sigmoid whose derivative stands in for the spike's


def in_memory_order(x: Tensor) -> Tensor:
    """All elements of [..., C, H, W], contiguous or channels last, as one dimension without copying."""
    return (x if x.is_contiguous() else x.movedim(-3, -1)).flatten()


def cached_piece(x: Tensor) -> int:
    """How many elements to go through at once: an even share that a CPU's cache holds, elsewhere all of them.

    Even, since each core takes its part of a piece: in a shorter last piece they would swap parts of what they share.
    """
    size = max(x.numel(), 1)
    return size if x.device.type != "cpu" else -(-size // -(-size // (CACHED * torch.get_num_threads())))


def _empty_spikes(x_seq: Tensor, dtype: torch.dtype) -> Tensor:
    shape = x_seq.shape
    if x_seq.dim() == 5 and not x_seq[0].is_contiguous():  # channels last
        return x_seq.new_empty(*shape[:2], *shape[3:], shape[2], dtype=dtype).movedim(-1, 2)
    return x_seq.new_empty(shape, dtype=dtype)


def _in_dtype_of(scratch: Tensor, x: Tensor) -> Tensor:
    """x itself, or copied into `scratch` if that has another dtype: on a CPU mixed dtypes are slow."""
    return x if x.dtype == scratch.dtype else scratch.copy_(x)


def _needs_gradient(x: Tensor) -> bool:
    """Whether to make an autograd node, whose call takes longer than a small layer's work."""
    return torch.is_grad_enabled() and x.requires_grad


def _potential_dtype(x_seq: Tensor) -> torch.dtype:
    """float32 or better: bf16 cannot resolve h near the threshold."""
    return torch.promote_types(x_seq.dtype, torch.float32)


def _fire(
    x_seq: Tensor, spike_dtype: torch.dtype | None,
    fired: Callable[[Tensor, Tensor], Tensor], left: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:  # fmt: skip
    """All steps without a gradient: a few passes over pieces that stay in a CPU's cache, where memory is the limit.

    fired: (h, out) -> spikes, in out. left: (h, spikes, out) -> the potential after the reset, in out. Neither uses
    booleans, which are slow on a CPU.
    """
    dtype = _potential_dtype(x_seq)
    spike_seq = _empty_spikes(x_seq, spike_dtype or x_seq.dtype)
    piece = cached_piece(x_seq[0])
    scratch = torch.empty(2, piece, dtype=dtype, device=x_seq.device).unbind()
    inputs, outputs = ([in_memory_order(step).split(piece) for step in seq] for seq in (x_seq, spike_seq))
    for xs, spikes in zip(zip(*inputs), zip(*outputs)):  # of one piece, T each
        potential, spare = scratch if len(xs[0]) == piece else (part[: len(xs[0])] for part in scratch)
        h = _in_dtype_of(potential, xs[0])
        for t, spike in enumerate(spikes):
            # straight into the result, or by way of `spare` if that has another dtype
            k = fired(h, spike if spike.dtype == dtype else spare)
            if k is not spike:
                spike.copy_(k)
            if t + 1 < len(xs):
                v = left(h, k, spare)
                h = torch.add(_in_dtype_of(potential, xs[t + 1]), v, alpha=1 - 1 / TAU, out=potential)
    return spike_seq


def _fire_keeping_potentials(
    x_seq: Tensor, spike_dtype: torch.dtype | None,
    fired: Callable[[Tensor], Tensor], left: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    """All steps for a gradient: the spikes, and the membrane potential h of each step. fired, left: as of `_fire`."""
    dtype = _potential_dtype(x_seq)
    spike_seq = torch.empty_like(x_seq, dtype=spike_dtype)
    h_seq: list[Tensor] = []
    v = None
    for x, spike in zip(x_seq, spike_seq):
        h = x.to(dtype) if v is None else torch.add(x, v, alpha=1 - 1 / TAU)
        k = fired(h)
        spike.copy_(k)
        v = left(h, k)
        h_seq.append(h)
    return spike_seq, h_seq


def _with_price(grad_spike_seq: Tensor, price: Tensor | None) -> Tensor:
    """The gradient of spikes with that of `price` times their mean: in float32, since it is small beside theirs."""
    if price is None:
        return grad_spike_seq
    return grad_spike_seq.to(_potential_dtype(grad_spike_seq)) + price / grad_spike_seq.numel()


class _LIF(torch.autograd.Function):
    """The whole sequence as one autograd node that keeps only the membrane potentials h."""

    @staticmethod
    def forward(ctx: Any, x_seq: Tensor, spike_dtype: torch.dtype | None, price: Tensor | None) -> Tensor:
        spike_seq, h_seq = _fire_keeping_potentials(
            x_seq, spike_dtype, lambda h: h >= V_THRESHOLD, lambda h, spike: h.masked_fill(spike, 0)
        )
        ctx.save_for_backward(torch.stack(h_seq), price)
        return spike_seq

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        h_seq, price = ctx.saved_tensors
        grad_spike_seq = _with_price(grad_outputs[0], price)
        sigmoid = torch.sub(h_seq, V_THRESHOLD).mul_(SURROGATE_ALPHA).sigmoid_()
        surrogate_seq = torch.addcmul(sigmoid, sigmoid, sigmoid, value=-1).mul_(SURROGATE_ALPHA)
        grad_x_seq = torch.empty_like(grad_outputs[0])
        grad_h = None
        for t in reversed(range(len(h_seq))):
            later, surrogate = grad_h, surrogate_seq[t]
            grad_h = grad_spike_seq[t] * surrogate
            if later is not None:
                # v = h (1 - spike) and the reset is not detached: dv/dh = (1 - spike) - h dspike/dh
                kept = torch.addcmul((h_seq[t] < V_THRESHOLD).to(h_seq.dtype), h_seq[t], surrogate, value=-1)
                grad_h.addcmul_(kept, later, value=1 - 1 / TAU)
            grad_x_seq[t] = grad_h
        return grad_x_seq, None, None


def lif(x_seq: Tensor, spike_dtype: torch.dtype | None = None, price: Tensor | None = None) -> Tensor:
    """Leaky integrate-and-fire neurons with hard reset, T steps from rest; no state outlives the call.

        h[t] = v[t-1] (1 - 1/TAU) + x[t],  spike[t] = 1 where h[t] >= V_THRESHOLD else 0,  v[t] = h[t] (1 - spike[t])

    x_seq: [T, ...], any float dtype and device; v[-1] = 0. Returns spikes of 0 and 1, same shape and layout, in
    `spike_dtype` or the input's. The membrane potential is kept in float32 or better. Gradient of a spike: derivative
    of sigmoid(SURROGATE_ALPHA (h - V_THRESHOLD)) (surrogate gradient; Song et al., IJCAI 2024, eq. 1 to 3).
    price: what the mean firing rate costs, a scalar tensor: its gradient is added to that of what comes after.
    """
    if _needs_gradient(x_seq):
        return _LIF.apply(x_seq, spike_dtype, price)  # type: ignore[no-untyped-call]
    return _fire(
        x_seq, spike_dtype,
        lambda h, out: torch.ge(h, V_THRESHOLD, out=out),
        lambda h, spike, out: torch.addcmul(h, h, spike, value=-1, out=out),
    )  # fmt: skip


def _count(h: Tensor, levels: int, out: Tensor | None = None) -> Tensor:
    """clamp(round(h / V_THRESHOLD), 0, levels): how many spikes a membrane potential h fires, ties to even."""
    return torch.div(h, V_THRESHOLD, out=out).round_().clamp_(0, levels)


class _IntegerLIF(torch.autograd.Function):
    """The whole sequence as one autograd node that keeps only the membrane potentials h."""

    @staticmethod
    def forward(ctx: Any, x_seq: Tensor, levels: int, spike_dtype: torch.dtype | None, price: Tensor | None) -> Tensor:
        spike_seq, h_seq = _fire_keeping_potentials(
            x_seq, spike_dtype, lambda h: _count(h, levels), lambda h, spike: torch.add(h, spike, alpha=-V_THRESHOLD)
        )
        ctx.save_for_backward(x_seq if len(x_seq) == 1 else torch.stack(h_seq), price)  # at T = 1 the input is h
        ctx.levels = levels
        return spike_seq

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        h_seq, price = ctx.saved_tensors
        grad_x_seq = torch.empty_like(grad_outputs[0])
        grad_spike_seq = _with_price(grad_outputs[0], price)
        later = None
        for t in reversed(range(len(h_seq))):
            low, high = -V_THRESHOLD / 2, (ctx.levels + 0.5) * V_THRESHOLD
            h = h_seq[t].to(torch.promote_types(h_seq.dtype, grad_spike_seq.dtype))
            grad = grad_spike_seq[t].to(h.dtype)
            # 0 but between low and high
            grad_h = torch.ops.aten.hardtanh_backward(grad, h, low, high).div_(V_THRESHOLD)
            if later is not None:
                # v = h - V_THRESHOLD k and the reset is not detached: dv/dh = 0 where the gradient passes, else 1
                grad_h.add_(later * ((h <= low) | (h >= high)), alpha=1 - 1 / TAU)
            grad_x_seq[t] = later = grad_h
        return grad_x_seq, None, None, None


def integer_lif(
    x_seq: Tensor, levels: int, spike_dtype: torch.dtype | None = None, price: Tensor | None = None
) -> Tensor:
    """Leaky integrate-and-fire neurons that fire whole numbers of spikes, with soft reset; T steps from rest.

        h[t] = v[t-1] (1 - 1/TAU) + x[t]
        k[t] = clamp(round(h[t] / V_THRESHOLD), 0, D)
        v[t] = h[t] - V_THRESHOLD k[t]

    Rounded half to even. A convolution is linear, so that of k is the sum over k unit spikes in D virtual steps.
    x_seq: [T, ...], any float dtype and device; v[-1] = 0. levels: D. Returns k, same shape and layout, in
    `spike_dtype` or the input's. The membrane potential is kept in float32 or better. Gradient: straight through,
    1 / V_THRESHOLD where -V_THRESHOLD / 2 < h < (D + 1/2) V_THRESHOLD, else 0 (after I-LIF: Luo et al., "Integer-Valued
    Training and Spike-Driven Inference Spiking Neural Network", ECCV 2024). price: as of `lif`, of the mean k.
    """
    if _needs_gradient(x_seq):
        return _IntegerLIF.apply(x_seq, levels, spike_dtype, price)  # type: ignore[no-untyped-call]
    return _fire(
        x_seq, spike_dtype,
        lambda h, out: _count(h, levels, out),
        lambda h, spike, out: torch.add(h, spike, alpha=-V_THRESHOLD, out=out),
    )  # fmt: skip
