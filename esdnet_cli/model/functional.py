"""The neuron's equations, once: everything else refers to them (Song et al., IJCAI 2024, section 3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

V_THRESHOLD = 0.15
TAU = 2.0  # the membrane potential keeps 1 - 1/TAU of itself from step to step; the input does not decay
SURROGATE_ALPHA = 4.0  # sharpness of the sigmoid whose derivative stands in for the spike's


def _fire(x_seq: Tensor, dtype: torch.dtype) -> Tensor:
    """The same without a gradient: three passes a step, in place and without booleans, which are slow on a CPU."""
    spike_seq = torch.empty_like(x_seq)
    h, v, fired = (torch.empty_like(x_seq[0], dtype=dtype) for _ in range(3))
    for t, (x, spike) in enumerate(zip(x_seq, spike_seq)):
        if t:
            torch.add(x, v, alpha=1 - 1 / TAU, out=h)
        else:
            h.copy_(x)
        if spike.dtype == dtype:
            fired = spike
        torch.ge(h, V_THRESHOLD, out=fired)
        if spike.dtype != dtype:
            spike.copy_(fired)
        torch.addcmul(h, h, fired, value=-1, out=v)
    return spike_seq


class _LIF(torch.autograd.Function):
    """The whole sequence as one autograd node that keeps only the membrane potentials h."""

    @staticmethod
    def forward(ctx: Any, x_seq: Tensor) -> Tensor:
        dtype = torch.promote_types(x_seq.dtype, torch.float32)  # bf16 cannot resolve h near the threshold
        if not ctx.needs_input_grad[0]:
            return _fire(x_seq, dtype)
        spike_seq = torch.empty_like(x_seq)
        h_seq = []
        v = None
        for x, spike in zip(x_seq, spike_seq):
            h = x.to(dtype) if v is None else torch.add(x, v, alpha=1 - 1 / TAU)
            fired = h >= V_THRESHOLD
            spike.copy_(fired)
            v = h.masked_fill(fired, 0)
            h_seq.append(h)
        ctx.save_for_backward(torch.stack(h_seq))
        return spike_seq

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (h_seq,) = ctx.saved_tensors
        (grad_spike_seq,) = grad_outputs
        sigmoid = torch.sub(h_seq, V_THRESHOLD).mul_(SURROGATE_ALPHA).sigmoid_()
        surrogate_seq = torch.addcmul(sigmoid, sigmoid, sigmoid, value=-1).mul_(SURROGATE_ALPHA)
        grad_x_seq = torch.empty_like(grad_spike_seq)
        grad_h = None
        for t in reversed(range(len(h_seq))):
            later, surrogate = grad_h, surrogate_seq[t]
            grad_h = grad_spike_seq[t] * surrogate
            if later is not None:
                # v = h (1 - spike) and the reset is not detached: dv/dh = (1 - spike) - h dspike/dh
                kept = torch.addcmul((h_seq[t] < V_THRESHOLD).to(h_seq.dtype), h_seq[t], surrogate, value=-1)
                grad_h.addcmul_(kept, later, value=1 - 1 / TAU)
            grad_x_seq[t] = grad_h
        return grad_x_seq


def added(fresh: Tensor, other: Tensor) -> Tensor:
    """fresh + other; in place where no gradient is wanted. Nobody else may hold `fresh`."""
    return fresh + other if torch.is_grad_enabled() else fresh.add_(other)


def scaled(fresh: Tensor, factor: Tensor) -> Tensor:
    """fresh * factor, like `added`."""
    return fresh * factor if torch.is_grad_enabled() else fresh.mul_(factor)


def largest(x: Tensor, dim: int) -> Tensor:
    """Maximum along a dimension. With a gradient by index: that of amax looks for values equal to the maximum, and a
    compiler that keeps more digits of a value than of its maximum finds none. Without, amax, which is far faster."""
    return x.max(dim).values if torch.is_grad_enabled() else x.amax(dim)


def lif(x_seq: Tensor) -> Tensor:
    """Leaky integrate-and-fire neurons with hard reset, T steps from rest; no state outlives the call.

        h[t] = v[t-1] (1 - 1/TAU) + x[t],  spike[t] = 1 where h[t] >= V_THRESHOLD else 0,  v[t] = h[t] (1 - spike[t])

    x_seq: [T, ...], any float dtype and device; v[-1] = 0. Returns spikes of 0 and 1, same shape, dtype and layout.
    The membrane potential is kept in float32 or better. Gradient of a spike: derivative of
    sigmoid(SURROGATE_ALPHA (h - V_THRESHOLD)) (surrogate gradient; Song et al., IJCAI 2024, eq. 1 to 3).
    """
    return _LIF.apply(x_seq)  # type: ignore[no-untyped-call]
