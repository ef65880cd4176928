"""Where in a picture neurons fire: the firing rate of every place, by level of the network.

The paper's claim (Song et al., IJCAI 2024, section 3) is that rain excites spikes; these maps show it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from esdnet_cli.energy.spikes import spikes_by_place
from esdnet_cli.model.layers import LIF
from esdnet_cli.model.network import ESDNet


class SpikeMapper:
    """Runs a network while it is entered, and hands its firing rates back as more channels, one for each level.

    Levels without neurons, which can only be the last, have none: `model.config.LEVELS` is the most.
    Rate of a place at a level: spikes / (neurons x T x D) of all neuron layers of that resolution, 0 to 1.
    """

    def __init__(self, inference: Callable[[Tensor], Tensor], network: ESDNet) -> None:
        self._inference = inference
        self._config = network.config
        self._layers = [module for module in network.modules() if isinstance(module, LIF)]
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._spikes: dict[int, Tensor] = {}  # by height
        self._neuron_steps: dict[int, int] = {}

    def __enter__(self) -> SpikeMapper:
        self._handles = [layer.register_forward_hook(self._hook) for layer in self._layers]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def __call__(self, images: Tensor) -> Tensor:
        """Rainy [N, 3, H, W] -> derained and rates [N, 3 + levels, H, W], rates of coarse levels interpolated."""
        self._spikes.clear()
        self._neuron_steps.clear()
        derained = self._inference(images)
        size = images.shape[-2:]
        maps = [derained]
        for height in sorted(self._spikes, reverse=True):
            rate = self._spikes[height][:, None] / self._neuron_steps[height]
            own = rate.shape[-2:] == size
            maps.append(rate if own else F.interpolate(rate, size, mode="bilinear", align_corners=False))
        return torch.cat([part.to(derained) for part in maps], dim=1)

    def _hook(self, _: Any, __: Any, spike_seq: Tensor) -> None:  # [T, N, C, h, w]
        height, spikes = spike_seq.shape[3], spikes_by_place(spike_seq, self._config.levels)
        self._spikes[height] = self._spikes[height] + spikes if height in self._spikes else spikes
        steps = self._config.virtual_steps * spike_seq.shape[2]
        self._neuron_steps[height] = self._neuron_steps.get(height, 0) + steps
