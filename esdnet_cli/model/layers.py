"""The parts that every block is made of. Activations are time-major: [T, N, C, H, W]."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.model.neurons import V_THRESHOLD, cached_piece, integer_lif, lif

_UNROLLED = 64  # float32 that a CPU's reductions take at once: four vectors of 512 bits


class LIF(nn.Module):
    """Spiking neurons, one for each of [N, C, H, W], fed for T steps: see `neurons.lif`.

    spike_dtype: of the spikes, where it is not the input's. price: of their mean while it learns, where it has one.
    """

    spike_dtype: torch.dtype | None = None
    price: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("price", None, persistent=False)

    def forward(self, x_seq: Tensor) -> Tensor:
        return lif(x_seq, self.spike_dtype, self.price)


class IntegerLIF(LIF):
    """Neurons that fire up to `levels` spikes in a step: see `neurons.integer_lif`."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x_seq: Tensor) -> Tensor:
        return integer_lif(x_seq, self.levels, self.spike_dtype, self.price)

    def extra_repr(self) -> str:
        return f"levels={self.levels}"


def folded(x_seq: Tensor) -> Tensor:
    """The steps in the batch: [T, N, ...] -> [T N, ...], a view.

    A single step is taken as it is: `flatten` gives a batch of one the stride of a channel, by which PyTorch no longer
    knows that its channels come last, and every layer after it would copy.
    """
    return x_seq.squeeze(0) if len(x_seq) == 1 else x_seq.flatten(0, 1)


def unfolded(x: Tensor, steps: int) -> Tensor:
    """What `folded` folded: [T N, ...] -> [T, N, ...], for T = steps."""
    return x[None] if steps == 1 else x.unflatten(0, (steps, -1))


def over_steps(layer: Callable[[Tensor], Tensor], x_seq: Tensor) -> Tensor:
    """A layer without memory on every step: T is folded into the batch, so it is one call, and one tensor.

    Steps that share their memory, as those of the picture do before the first spikes, are computed once.
    """
    if x_seq.stride(0) == 0 and not torch.is_grad_enabled():
        return layer(x_seq[0]).expand(len(x_seq), -1, -1, -1, -1)
    return unfolded(layer(folded(x_seq)), len(x_seq))


def convolved(conv: nn.Conv2d, kernel: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """kernel(x) of [N, C, H, W] for a convolution in 8 or 16 bits on a CPU, whatever the width.

    On matrix units oneDNN (of PyTorch 2.13) leaves results of stride 2 unwritten where they are one column wide. Zeros
    on the right, which that column does not see, make it two.
    """
    needed = 2 * conv.stride[1]
    if conv.stride[1] == 1 or x.shape[3] >= needed - conv.stride[1] + 1:
        return kernel(x)
    wider = F.pad(x, (0, needed - x.shape[3])).contiguous(memory_format=torch.channels_last)
    return kernel(wider)[..., :1].contiguous(memory_format=torch.channels_last)


class SeqConv2d(nn.Conv2d):
    """Convolution of every step with the same kernel."""

    def forward(self, x_seq: Tensor) -> Tensor:
        return over_steps(self._convolve, x_seq)

    def _convolve(self, x: Tensor) -> Tensor:
        # autocast converts by itself: after this it would convert once more, and the gradient, too
        training = torch.is_grad_enabled() and torch.is_autocast_enabled(x.device.type)
        x = x if training else x.to(self.weight.dtype)
        return convolved(self, super().forward, x) if x.dtype == torch.bfloat16 else super().forward(x)


class TDBatchNorm2d(nn.BatchNorm2d):
    """tdBN: batch norm over T * N whose scale starts at `gain` * V_THRESHOLD / sqrt(2) (Zheng et al., AAAI 2021).

    At inference on a CPU its input, always a convolution's result, is used up: memory is the limit there.
    """

    def __init__(self, channels: int, gain: float = 1.0) -> None:
        super().__init__(channels)
        nn.init.constant_(self.weight, gain * V_THRESHOLD / 2**0.5)

    def forward(self, x_seq: Tensor) -> Tensor:
        return over_steps(self._normalise, x_seq)

    def _normalise(self, x: Tensor) -> Tensor:
        if self.training or torch.is_grad_enabled() or x.device.type != "cpu":
            return super().forward(x)
        statistics = (self.weight.new_empty(0), self.weight.new_empty(0))  # of the batch: this kernel makes none
        parameters = (self.weight, self.bias, self.running_mean, self.running_var)
        return torch.native_batch_norm(x, *parameters, False, 0.0, self.eps, out=(x, *statistics))[0]


def scu(
    config: ESDNetConfig, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, gain: float = 1.0
) -> tuple[nn.Module, ...]:
    """Spiking convolution unit: the config's neurons, convolution of their spikes without bias, tdBN."""
    neurons = IntegerLIF(config.levels) if config.neuron == "integer" else LIF()
    conv = SeqConv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
    return neurons, conv, TDBatchNorm2d(out_channels, gain)


class Pointwise(nn.Conv3d):
    """The published checkpoint's 1x1x1 convolution without bias, on features alone: [N, in] -> [N, out].

    No convolution is called, which takes longer than so small a one's work; and without a gradient no BLAS, whose
    threads leave the next operation slow.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.flatten(1)
        if torch.is_grad_enabled():
            return F.linear(x, weight)  # which autocast knows
        return (x[:, None] * weight).sum(2)


class PooledAttention(nn.Module):
    """sigmoid(MLP(mean) + MLP(max)) with one perceptron, features -> hidden -> features, for both."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.sharedMLP = nn.Sequential(Pointwise(features, hidden), nn.ReLU(), Pointwise(hidden, features))

    def forward(self, pooled: Tensor) -> Tensor:  # means, then maxima: [2 N, features] -> [N, features]
        mean, maximum = self.sharedMLP(pooled).chunk(2)
        return torch.sigmoid(mean + maximum)


class SpatialAttention(nn.Module):
    """sigmoid(3x3 convolution of mean and maximum over T and C)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def forward(self, pooled: Tensor) -> Tensor:  # mean and maximum: [N, 2, H, W] -> [N, H, W]
        return torch.sigmoid(self.conv(pooled)).squeeze(1)


class MixedAttentionUnit(nn.Module):
    """MAU: temporal, then channel, then spatial attention, each multiplied onto its input, then ReLU.

    Its input is x + shortcut (None: x holds it), and identity is added to its result: sums made while the data are in
    the cache.
    Attention is positive, so the maximum of a product is the product of the maxima, and x is pooled but once.
    """

    def __init__(self, channels: int, timesteps: int) -> None:
        super().__init__()
        self.ta = PooledAttention(timesteps, 1)
        self.ca = PooledAttention(channels, max(channels // 16, 1))
        self.sa = SpatialAttention()

    def forward(self, x: Tensor, shortcut: Tensor | None, identity: Tensor) -> Tensor:
        """All [T, N, C, H, W]. Without a gradient x is used up."""
        return (self._traced if torch.is_grad_enabled() else self._in_place)(x, shortcut, identity)

    def _scale(self, mean: Tensor, maximum: Tensor) -> Tensor:
        """Temporal times channel attention from the pooled input, all of [T, N, C]."""
        temporal = self.ta(torch.cat((mean.mean(2).T, maximum.max(2).values.T))).T[..., None]
        return temporal * self.ca(torch.cat(((mean * temporal).mean(0), (maximum * temporal).max(0).values)))

    def _traced(self, x: Tensor, shortcut: Tensor | None, identity: Tensor) -> Tensor:
        x = x if shortcut is None else x + shortcut
        # maxima by index: the gradient of amax looks for values equal to the maximum, and a compiler that keeps more
        # digits of a value than of its maximum finds none
        x = x * self._scale(x.mean((3, 4)), x.flatten(3).max(3).values)[..., None, None]
        x = x * self.sa(torch.stack((x.mean((0, 2)), x.max(2).values.max(0).values), dim=1))[None, :, None]
        return torch.relu(x) + identity

    def _in_place(self, x: Tensor, shortcut: Tensor | None, identity: Tensor) -> Tensor:
        """As `_traced` without a gradient, in three passes, on a CPU each a few tiles at a time, which its cache holds.

        x is used up. The result is float32 or better, whatever x is.
        """
        channels_last = not x[0].is_contiguous()
        channel, position = (3, 2) if channels_last else (2, 3)

        def flat(y: Tensor) -> Tensor:  # [T, N, H * W, C] or [T, N, C, H * W]
            return y.movedim(2, -1).flatten(2, 3) if channels_last else y.flatten(3)

        planes, identities = flat(x), flat(identity)
        dtype = torch.promote_types(x.dtype, torch.float32)
        result = planes if x.dtype == dtype else torch.empty_like(planes, dtype=dtype)
        group = max(cached_piece(x) // x[:, 0].numel(), 1)
        positions = x.shape[3] * x.shape[4]
        # sums, which become means of all tiles at once: small calls take their time, too
        sums, maxima = torch.empty(2, *x.shape[:3], dtype=dtype, device=x.device)
        # views of all groups by one call, where each slice would be a call of its own
        parts = result.split(group, 1)
        sources = parts if result is planes else planes.split(group, 1)
        shortcuts = (None,) * len(parts) if shortcut is None else flat(shortcut).split(group, 1)
        pooled_parts = zip(sums.split(group, 1), maxima.split(group, 1))
        for part, source, added, (total, most) in zip(parts, sources, shortcuts, pooled_parts):
            # the sum with the shortcut, pooled over positions
            if part is not source:  # each operation has one dtype only: a CPU is slow where they are mixed
                part.copy_(source)
            if added is not None:
                part.add_(added.to(dtype))
            torch.sum(part, position, out=total)
            most.copy_(_amax(part, position))
        scales = self._scale(sums.div_(positions), maxima).unsqueeze(position).split(group, 1)
        pooled = torch.empty(x.shape[1], 2, positions, dtype=dtype, device=x.device)
        mean, maximum = pooled.unbind(1)
        for part, scale, of_channels, most in zip(parts, scales, mean.split(group), maximum.split(group)):
            part.mul_(scale)  # temporal and channel attention, then pooled over steps and channels
            of_steps = part.mean(channel)
            of_channels.copy_(of_steps[0] if len(x) == 1 else of_steps.mean(0))
            most.copy_(_amax_of_all(part, channel))
        spatial = self.sa(pooled.unflatten(2, x.shape[3:])).flatten(1).unsqueeze(channel - 1).split(group)
        for part, scale, kept in zip(parts, spatial, identities.split(group, 1)):
            # times spatial attention, which is positive, so that ReLU may come before it
            torch.addcmul(kept.to(dtype), part.relu_(), scale, out=part)
        result = result.unflatten(position, x.shape[3:])
        return result.movedim(-1, 2) if channels_last else result


def _amax(x: Tensor, axis: int) -> Tensor:
    """Of [T, N, A, B] over A (2) or B (3)."""
    rows, columns = x.shape[2:]
    several = _UNROLLED // math.gcd(columns, _UNROLLED)
    if axis == 2 and several > 1 and rows % several == 0:
        # several rows as one: the kernel for a width that is no multiple of its unrolled vectors is ten times slower
        x = x.unflatten(2, (-1, several)).flatten(3)
        return x.amax(2).unflatten(2, (several, columns)).amax(2)
    return x.amax(axis)


def _amax_of_all(x: Tensor, axis: int) -> Tensor:
    """Of [T, N, A, B] over T and A (2) or B (3)."""
    if axis == 3 and x.shape[3] < _UNROLLED:  # the kernel for short rows is slow: T first
        return reduce(torch.maximum, x).amax(2)
    return x.amax(axis).amax(0)
