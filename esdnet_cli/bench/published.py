"""The published implementation's way of computing, kept only to be measured against: same weights, same results.

Every layer is what the published code runs (Song et al., IJCAI 2024, on spikingjelly's torch backend): the picture
repeated T times before the first convolution, neurons as a loop over T of separate element-wise operations, each
attention with pooling of its own, one tile at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esdnet_cli.model.inference import Inference
from esdnet_cli.model.layers import LIF, IntegerLIF, MixedAttentionUnit, PooledAttention
from esdnet_cli.model.network import ESDNet, OverlapPatchEmbed
from esdnet_cli.model.neurons import TAU, V_THRESHOLD


class _LoopedLIF(nn.Module):
    def forward(self, x_seq: Tensor) -> Tensor:
        v = torch.zeros_like(x_seq[0])
        spikes = []
        for x in x_seq:
            v = v * (1 - 1 / TAU) + x
            spike = (v >= V_THRESHOLD).to(v)
            v = (1.0 - spike) * v
            spikes.append(spike)
        return torch.stack(spikes)


class _LoopedIntegerLIF(nn.Module):
    """The published code has no such neuron: this is what its loop would be."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self._levels = levels

    def forward(self, x_seq: Tensor) -> Tensor:
        v = torch.zeros_like(x_seq[0])
        spikes = []
        for x in x_seq:
            v = v * (1 - 1 / TAU) + x
            spike = (v / V_THRESHOLD).round().clamp(0, self._levels)
            v = v - V_THRESHOLD * spike
            spikes.append(spike)
        return torch.stack(spikes)


class _RepeatedEmbed(nn.Module):
    def __init__(self, embed: OverlapPatchEmbed, timesteps: int) -> None:
        super().__init__()
        self._embed, self._timesteps = embed, timesteps

    def forward(self, image: Tensor) -> Tensor:
        return self._embed(image.repeat(self._timesteps, 1, 1, 1)).unflatten(0, (self._timesteps, -1))


class _SeparateAttention(nn.Module):
    def __init__(self, unit: MixedAttentionUnit) -> None:
        super().__init__()
        self.ta, self.ca, self.sa = unit.ta, unit.ca, unit.sa

    def forward(self, x: Tensor, shortcut: Tensor, identity: Tensor) -> Tensor:  # all [T, N, C, H, W]
        x = (x + shortcut).transpose(0, 1)  # [N, T, C, H, W]
        x = x * self._pooled(self.ta, x)
        x = x * self._pooled(self.ca, x.transpose(1, 2)).transpose(1, 2)
        planes = x.flatten(1, 2)
        maps = torch.cat((planes.mean(1, keepdim=True), planes.max(1, keepdim=True).values), dim=1)
        x = x * torch.sigmoid(self.sa.conv(maps))[:, :, None]
        return F.relu(x.transpose(0, 1)) + identity

    @staticmethod
    def _pooled(attention: PooledAttention, x: Tensor) -> Tensor:
        first, relu, second = attention.sharedMLP

        def perceptron(pooled: Tensor) -> Tensor:
            return F.conv3d(relu(F.conv3d(pooled, first.weight)), second.weight)  # type: ignore[arg-type]

        return torch.sigmoid(perceptron(F.adaptive_avg_pool3d(x, 1)) + perceptron(F.adaptive_max_pool3d(x, 1)))


def published(network: ESDNet, device: torch.device) -> Inference:
    """A network, used up by this, that computes the published way in fp32. Feed it one tile at a time."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, IntegerLIF):
                setattr(module, name, _LoopedIntegerLIF(child.levels))
            elif isinstance(child, LIF):
                setattr(module, name, _LoopedLIF())
            elif isinstance(child, MixedAttentionUnit):
                setattr(module, name, _SeparateAttention(child))
            elif isinstance(child, OverlapPatchEmbed):
                setattr(module, name, _RepeatedEmbed(child, network.config.timesteps))
    inference = Inference(network, device, "fp32")
    inference.network.refinement.uniform = False  # it computes what changes nothing, too
    return inference
