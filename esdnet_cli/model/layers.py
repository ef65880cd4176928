"""The parts that every block is made of. Activations are time-major: [T, N, C, H, W]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from esdnet_cli.model.functional import V_THRESHOLD, largest, lif, scaled


class LIF(nn.Module):
    """Spiking neurons, one for each of [N, C, H, W], fed for T steps: see `functional.lif`."""

    def forward(self, x_seq: Tensor) -> Tensor:
        return lif(x_seq)


class SeqConv2d(nn.Conv2d):
    """Convolution of every step with the same kernel: T is folded into the batch, so it is one call."""

    def forward(self, x_seq: Tensor) -> Tensor:
        return super().forward(x_seq.flatten(0, 1)).unflatten(0, x_seq.shape[:2])


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
    """MAU: temporal, then channel, then spatial attention, each multiplied onto its input, then ReLU."""

    def __init__(self, channels: int, timesteps: int) -> None:
        super().__init__()
        self.ta = PooledAttention(timesteps, 1)
        self.ca = PooledAttention(channels, max(channels // 16, 1))
        self.sa = SpatialAttention()

    def forward(self, x: Tensor) -> Tensor:  # [T, N, C, H, W], fresh: see functional.scaled
        # attention is positive, so the maximum of a product is the product of the maxima: x is pooled but once
        mean, maximum = x.mean((3, 4)), largest(x.flatten(3), 3)  # [T, N, C]
        temporal = self.ta(mean.mean(2).T, largest(maximum, 2).T).T[..., None]
        scale = temporal * self.ca((mean * temporal).mean(0), largest(maximum * temporal, 0))
        x = scaled(x, scale[..., None, None])
        x = scaled(x, self.sa(x.mean((0, 2)), largest(largest(x, 2), 0))[None, :, None])
        return torch.relu(x) if torch.is_grad_enabled() else x.relu_()
