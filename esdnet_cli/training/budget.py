"""A network that learns with no more spikes than it may spend."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from esdnet_cli.errors import EsdnetError
from esdnet_cli.model.layers import LIF
from esdnet_cli.model.network import ESDNet

EVERY = 100  # steps from one price to the next
COUNTED = 8  # crops, always the same, on which spikes are counted
FREE = 0.95  # of the budget: below, spikes cost nothing
AT_BUDGET = 0.1  # what all spikes together add to the loss where just the budget is spent


class SpikeBudget:
    """Holds a network near `fraction` of the accumulations that its spikes caused when this was made.

    Each spike has a price in the loss, in proportion to the accumulations that it causes: the kernel's positions times
    the output channels of all convolutions that it drives. All together cost nothing up to FREE of the budget, then
    more the more is spent: AT_BUDGET where it is just the budget, and on in a straight line. So fewer are fired where
    that costs the picture least, and what is spent ends within a few percent of the budget, however dear that is.

    learning: the network whose neurons get the prices. average: its averaged weights, whose spikes are counted.
    images: [N, 3, H, W] rainy crops, on their device. lowered: counted in bf16 under autocast.
    Raises EsdnetError for a network that fires no spikes.
    """

    def __init__(self, learning: ESDNet, average: ESDNet, fraction: float, images: Tensor, lowered: bool) -> None:
        self._average, self._fraction, self._images, self._lowered = average, fraction, images, lowered
        modules = dict(learning.named_modules())
        driven = learning.spiking_convs()
        self._costs = {name: sum(_of_a_spike(modules[conv]) for conv in convs) for name, convs in driven.items()}
        self._neurons = {name: module for name, module in modules.items() if isinstance(module, LIF)}
        counted = self._count()
        self._all_fired_once = {name: self._costs[name] * neurons for name, (neurons, _) in counted.items()}
        self._begun_with = self._accumulations(counted)
        if not self._begun_with:
            raise EsdnetError("--spike-budget: the network of --init fires no spikes to go by; train it without first")
        for layer in self._neurons.values():
            layer.price = torch.zeros((), device=images.device)

    def spent(self) -> float:
        """Accumulations that the averaged weights' spikes cause in the crops."""
        return self._accumulations(self._count())

    def charge(self, spent: float) -> None:
        """Set the prices by what is spent now."""
        beyond = max(spent / (self._fraction * self._begun_with) - FREE, 0.0)
        of_all = AT_BUDGET * beyond / (1 - FREE)
        for name, layer in self._neurons.items():
            assert layer.price is not None
            layer.price.fill_(of_all * self._all_fired_once[name] / self._begun_with)

    def state(self) -> dict[str, Tensor]:
        """What `restore` takes."""
        prices = {name: layer.price for name, layer in self._neurons.items() if layer.price is not None}
        return {"begun_with": torch.tensor(self._begun_with, dtype=torch.float64), **prices}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a `state()`. Raises KeyError if it is another network's."""
        self._begun_with = float(tensors["begun_with"])
        for name, layer in self._neurons.items():
            assert layer.price is not None
            layer.price.copy_(tensors[name])

    def _accumulations(self, counted: Mapping[str, tuple[int, Tensor]]) -> float:
        return float(sum(self._costs[name] * spikes for name, (_, spikes) in counted.items()))

    @torch.no_grad()
    def _count(self) -> dict[str, tuple[int, Tensor]]:
        """By neuron layer: the neuron steps of all crops, and the spikes fired in them."""
        counted: dict[str, tuple[int, Tensor]] = {}

        def hook(name: str) -> Callable[..., None]:
            def count(_: nn.Module, __: tuple[Tensor], spikes: Tensor) -> None:
                counted[name] = spikes.numel(), spikes.sum(dtype=torch.float64)

            return count

        handles = [
            module.register_forward_hook(hook(name)) for name, module in self._average.named_modules()
            if isinstance(module, LIF)
        ]  # fmt: skip
        try:
            with torch.autocast(self._images.device.type, torch.bfloat16, enabled=self._lowered):
                self._average(self._images)
        finally:
            for handle in handles:
                handle.remove()
        return counted


def _of_a_spike(conv: nn.Module) -> float:
    """Accumulations that a spike causes in a convolution, away from the border."""
    assert isinstance(conv, nn.Conv2d)
    return conv.out_channels * conv.kernel_size[0] * conv.kernel_size[1] / (conv.stride[0] * conv.stride[1])
