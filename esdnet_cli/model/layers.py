"""The parts that every block is made of. Activations are time-major: [T, N, C, H, W]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from esdnet_cli.model.functional import V_THRESHOLD, lif


class LIF(nn.Module):
    """Spiking neurons, one for each of [N, C, H, W], fed for T steps: see `functional.lif`.

    spike_dtype: of the spikes, where it is not the input's. watchers: how many want to know `sums`, the spikes of the
    last call at each place, over T and C: float32 [N, H, W].
    """

    spike_dtype: torch.dtype | None = None
    watchers: int = 0
    sums: Tensor | None = None

    def forward(self, x_seq: Tensor) -> Tensor:
        self.sums = None
        if self.watchers:
            _, batch, _, *plane = x_seq.shape
            self.sums = torch.zeros(batch, *plane, device=x_seq.device)
        return lif(x_seq, self.spike_dtype, self.sums)


class SeqConv2d(nn.Conv2d):
    """Convolution of every step with the same kernel: T is folded into the batch, so it is one call."""

    def forward(self, x_seq: Tensor) -> Tensor:
        return super().forward(x_seq.flatten(0, 1).to(self.weight.dtype)).unflatten(0, x_seq.shape[:2])


class TDBatchNorm2d(nn.BatchNorm2d):
    """tdBN: batch norm over T * N whose scale starts at `gain` * V_THRESHOLD / sqrt(2) (Zheng et al., AAAI 2021)."""

    def __init__(self, channels: int, gain: float = 1.0) -> None:
        super().__init__(channels)
        nn.init.constant_(self.weight, gain * V_THRESHOLD / 2**0.5)

    def forward(self, x_seq: Tensor) -> Tensor:
        return super().forward(x_seq.flatten(0, 1)).unflatten(0, x_seq.shape[:2])


def scu(
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, gain: float = 1.0
) -> tuple[nn.Module, ...]:
    """Spiking convolution unit: neurons, convolution of their spikes without bias, tdBN."""
    conv = SeqConv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
    return LIF(), conv, TDBatchNorm2d(out_channels, gain)


class PooledAttention(nn.Module):
    """sigmoid(MLP(mean) + MLP(max)) with one perceptron, features -> hidden -> features, for both.

    The published checkpoint stores the perceptron's layers as 1x1x1 convolutions, so they are that here.
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.sharedMLP = nn.Sequential(
            nn.Conv3d(features, hidden, 1, bias=False), nn.ReLU(), nn.Conv3d(hidden, features, 1, bias=False)
        )

    def forward(self, mean: Tensor, maximum: Tensor) -> Tensor:  # two of [N, features]
        shape = (*mean.shape, 1, 1, 1)
        return torch.sigmoid(self.sharedMLP(mean.view(shape)) + self.sharedMLP(maximum.view(shape))).view_as(mean)


class SpatialAttention(nn.Module):
    """sigmoid(3x3 convolution of mean and maximum over T and C)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def forward(self, mean: Tensor, maximum: Tensor) -> Tensor:  # two of [N, H, W]
        return torch.sigmoid(self.conv(torch.stack((mean, maximum), dim=1))).squeeze(1)


class MixedAttentionUnit(nn.Module):
    """MAU: temporal, then channel, then spatial attention, each multiplied onto its input, then ReLU.

    Its input is x + shortcut, and identity is added to its result: sums made while the data are in the cache.
    Attention is positive, so the maximum of a product is the product of the maxima, and x is pooled but once.
    """

    def __init__(self, channels: int, timesteps: int) -> None:
        super().__init__()
        self.ta = PooledAttention(timesteps, 1)
        self.ca = PooledAttention(channels, max(channels // 16, 1))
        self.sa = SpatialAttention()

    def forward(self, x: Tensor, shortcut: Tensor, identity: Tensor) -> Tensor:
        """All [T, N, C, H, W]. Without a gradient x is used up."""
        return (self._traced if torch.is_grad_enabled() else self._in_place)(x, shortcut, identity)

    def _scale(self, mean: Tensor, maximum: Tensor) -> Tensor:
        """Temporal times channel attention from the pooled input, all of [T, N, C]."""
        temporal = self.ta(mean.mean(2).T, maximum.max(2).values.T).T[..., None]
        return temporal * self.ca((mean * temporal).mean(0), (maximum * temporal).max(0).values)

    def _traced(self, x: Tensor, shortcut: Tensor, identity: Tensor) -> Tensor:
        x = x + shortcut
        # maxima by index: the gradient of amax looks for values equal to the maximum, and a compiler that keeps more
        # digits of a value than of its maximum finds none
        x = x * self._scale(x.mean((3, 4)), x.flatten(3).max(3).values)[..., None, None]
        x = x * self.sa(x.mean((0, 2)), x.max(2).values.max(0).values)[None, :, None]
        return torch.relu(x) + identity

    def _in_place(self, x: Tensor, shortcut: Tensor, identity: Tensor) -> Tensor:
        """The same, on a CPU tile by tile, so that a tile stays in the cache; float32 or better, whatever x is."""
        channels_last = not x[0].is_contiguous()
        channel, position = (3, 2) if channels_last else (2, 3)
        planes, shortcuts, identities = (
            (y.movedim(2, -1).flatten(2, 3) if channels_last else y.flatten(3)) for y in (x, shortcut, identity)
        )  # [T, N, H * W, C] or [T, N, C, H * W]
        dtype = torch.promote_types(x.dtype, torch.float32)
        tiles = [slice(n, n + 1) for n in range(x.shape[1])] if x.device.type == "cpu" else [slice(None)]
        result = planes if x.dtype == dtype else torch.empty_like(planes, dtype=dtype)
        pooled = []
        for tile in tiles:
            part = result[:, tile]  # each operation has one dtype only: a CPU is slow where they are mixed
            if result is not planes:
                part.copy_(planes[:, tile])
            pooled.append(_pool(part.add_(shortcuts[:, tile].to(dtype)), position))
        mean, maximum = (torch.cat(pools, dim=1) for pools in zip(*pooled))
        scale = self._scale(mean, maximum).unsqueeze(position)
        for tile in tiles:
            part = result[:, tile].mul_(scale[:, tile])
            mean, maximum = _pool(part, channel)  # [T, N, H * W]
            shape = (-1, *x.shape[3:])
            spatial = self.sa(mean.mean(0).view(shape), maximum.amax(0).view(shape)).flatten(1).unsqueeze(channel - 1)
            torch.addcmul(identities[:, tile].to(dtype), part.relu_(), spatial, out=part)
        result = result.unflatten(position, x.shape[3:])
        return result.movedim(-1, 2) if channels_last else result


def _pool(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Mean and maximum of [T, N, A, B] over A (2) or B (3)."""
    # over A the mean is a product: a sum over an outer dimension is slow on a CPU
    mean = x.mean(3) if axis == 3 else torch.matmul(x.new_full((x.shape[2],), 1 / x.shape[2]), x)
    return mean, x.amax(axis)
