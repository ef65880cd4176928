"""Counts spikes and operations during the real forward pass, by hooks: the network itself counts nothing."""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from esdnet_cli.energy.cost import Activity, LayerActivity, LayerKind
from esdnet_cli.model.layers import LIF, MixedAttentionUnit, SeqConv2d
from esdnet_cli.model.network import ESDNet, FeatureRefinement

_COUNTED = ("spikes", "ac", "nonzero")  # depend on the data
_FROM_SHAPES = ("neurons", "mac", "dense", "ann_mac", "inputs", "saturated", "words", "bits", "ann_words")


def fan_out(size: int, kernel_size: int, stride: int, padding: int) -> Tensor:
    """How many output positions each of `size` input positions reaches along one axis: int64 [size], on the CPU.

    Input i reaches the outputs o with o * stride - padding <= i < o * stride - padding + kernel_size.
    """
    reach = torch.zeros(size, dtype=torch.int64)
    outputs = (size + 2 * padding - kernel_size) // stride + 1
    for offset in range(kernel_size):
        positions = torch.arange(outputs) * stride - padding + offset
        reach[positions[(positions >= 0) & (positions < size)]] += 1
    return reach


def count_nonzero(x: Tensor) -> Tensor:
    """torch.count_nonzero of at least two dimensions, twice as fast on a CPU: booleans are slow there."""
    flags = torch.ne(x, 0, out=torch.empty_like(x, dtype=torch.float32))
    return flags.flatten(0, -2).sum(0).long().sum()  # sums of columns stay below 2**24, where float32 is exact


class ActivityCounter:
    """Counts while it is entered: `with ActivityCounter(network) as counter: network(x)`, then `counter.activity()`.

    Several forward passes (tiles, batches) add up. A pass that fails, for want of memory say, counts nothing.
    The sums stay on the network's device until `activity()` fetches them all at once.
    """

    def __init__(self, network: ESDNet) -> None:
        self._network = network
        self._timesteps = network.config.timesteps
        self._driven = network.spiking_convs()
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._fan_outs: dict[tuple[Any, ...], tuple[Tensor, int]] = {}
        self._pass: list[tuple[LayerActivity, dict[str, Tensor]]] = []
        self._shapes: dict[str, LayerActivity] = {}
        self._sums: dict[tuple[str, str], Tensor] = {}

    def __enter__(self) -> ActivityCounter:
        modules = dict(self._network.named_modules())
        spike_driven = {conv for convs in self._driven.values() for conv in convs}
        hooks: list[tuple[nn.Module, Any]] = [(self._network, self._commit)]
        for name, module in modules.items():
            if isinstance(module, LIF):
                hooks.append((module, self._neuron_hook(name, {conv: modules[conv] for conv in self._driven[name]})))
            elif isinstance(module, (nn.Conv2d, nn.Conv3d)) and name not in spike_driven:
                hooks.append((module, self._real_conv_hook(name)))
            elif isinstance(module, MixedAttentionUnit):
                hooks.append((module, self._product_hook(name, 3)))  # one product for each of its attentions
            elif isinstance(module, FeatureRefinement):
                hooks.append((module, self._product_hook(name, 2)))  # (1 - f) a and f x
        self._handles = [module.register_forward_hook(hook) for module, hook in hooks]
        self._handles.append(self._network.register_forward_pre_hook(lambda *_: self._pass.clear()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def activity(self) -> Activity:
        """All layers counted so far, in the order in which they run; one transfer from the device."""
        keys = list(self._sums)
        values = torch.stack([self._sums[key] for key in keys]).tolist() if keys else []
        counted: dict[str, dict[str, int]] = {}
        for (name, field), value in zip(keys, values):
            counted.setdefault(name, {})[field] = value
        layers = []
        for name, layer in self._shapes.items():
            sums = counted.get(name, {})
            layers.append(replace(layer, **{field: sums.get(field, 0) for field in _COUNTED}))  # type: ignore[arg-type]
        return Activity(self._timesteps, tuple(layers))

    def _commit(self, *_: Any) -> None:
        """The pass went through: add what its hooks noted."""
        for layer, counted in self._pass:
            known = self._shapes.get(layer.name)
            if known is not None:
                sums = {field: getattr(known, field) + getattr(layer, field) for field in _FROM_SHAPES}
                layer = replace(layer, **sums)
            self._shapes[layer.name] = layer
            for field in _COUNTED:
                if field in counted:
                    key = (layer.name, field)
                    self._sums[key] = self._sums[key] + counted[field] if key in self._sums else counted[field]
        self._pass.clear()

    def _fan_out_map(self, conv: nn.Conv2d, height: int, width: int, device: torch.device) -> tuple[Tensor, int]:
        """Output positions that each input position of `conv` reaches, int64 [height, width], and their sum."""
        k, s, p = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
        key = (height, width, k, s, p, device)
        if key not in self._fan_outs:
            rows, columns = fan_out(height, k, s, p), fan_out(width, k, s, p)
            self._fan_outs[key] = torch.outer(rows, columns).to(device), int(rows.sum() * columns.sum())
        return self._fan_outs[key]

    def _neuron_hook(self, name: str, convs: dict[str, nn.Module]) -> Any:
        def hook(_: nn.Module, __: Any, spike_seq: Tensor) -> None:  # [T, N, C, H, W]
            timesteps, batch, height, width = (spike_seq.shape[axis] for axis in (0, 1, 3, 4))
            # at most T * N * C in a float32, so this sum is exact; the sums over the plane are in int64
            plane = spike_seq.flatten(0, 2).sum(0, dtype=torch.float32).long()
            spikes, neuron_steps = plane.sum(), spike_seq.numel()
            neurons = neuron_steps // timesteps
            neuron = LayerActivity(
                name, "neuron", neurons=neurons, mac=neuron_steps,
                words=3 * neuron_steps, bits=neuron_steps, ann_words=2 * neurons,  # input, potential in and out; spike
            )  # fmt: skip
            self._pass.append((neuron, {"spikes": spikes}))
            for conv_name, conv in convs.items():
                assert isinstance(conv, nn.Conv2d)
                fan_outs, total_reach = self._fan_out_map(conv, height, width, plane.device)
                reached = (plane * fan_outs).sum()
                stride = conv.stride[0]
                positions = batch * (-(-height // stride)) * (-(-width // stride))  # padding is k // 2
                ann_mac = conv.weight.numel() * positions
                weights, outputs = batch * conv.weight.numel(), conv.out_channels * positions
                layer = LayerActivity(
                    conv_name, "conv", dense=ann_mac * timesteps, ann_mac=ann_mac, inputs=neuron_steps,
                    saturated=total_reach * batch * timesteps * conv.in_channels * conv.out_channels,
                    words=weights + timesteps * outputs, bits=neuron_steps, ann_words=weights + outputs + neurons,
                )  # fmt: skip
                self._pass.append((layer, {"ac": reached * conv.out_channels, "nonzero": spikes}))

        return hook

    def _real_conv_hook(self, name: str) -> Any:
        kind: LayerKind = "embedding" if name.startswith("patch_embed") else "conv"

        def hook(conv: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            assert isinstance(conv, (nn.Conv2d, nn.Conv3d))
            dense = output.numel() * conv.weight[0].numel()
            # at T = 1 a convolution of the body runs once and a temporal perceptron is 1 -> 1 -> 1
            temporal = ".ta." in name
            steps = self._timesteps if temporal or isinstance(conv, SeqConv2d) else 1
            tiles = inputs[0].shape[1] if isinstance(conv, SeqConv2d) else inputs[0].shape[0]
            weights, moved = tiles * conv.weight.numel(), inputs[0].numel() + output.numel()
            layer = LayerActivity(
                name, kind, mac=dense, dense=dense, ann_mac=dense // steps, inputs=inputs[0].numel(),
                words=weights + moved, ann_words=3 * tiles if temporal else weights + moved // steps,
            )  # fmt: skip
            # the embedding's rate enters no figure
            self._pass.append((layer, {} if kind == "embedding" else {"nonzero": count_nonzero(inputs[0])}))

        return hook

    def _product_hook(self, name: str, factors: int) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            products = factors * output.numel()
            at_once = products // self._timesteps if output.dim() == 5 else products
            layer = LayerActivity(
                name, "product", mac=products, ann_mac=at_once, words=2 * products, ann_words=2 * at_once
            )
            self._pass.append((layer, {}))

        return hook
