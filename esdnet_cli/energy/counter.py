"""Counts spikes and operations during the real forward pass, by hooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from esdnet_cli.energy.cost import Activity, Cause, LayerActivity, LayerKind, NumberFormat, Precision
from esdnet_cli.energy.spikes import Alike, count_nonzero, geometry_of, over_rows, windows
from esdnet_cli.model.layers import LIF, MixedAttentionUnit, SeqConv2d
from esdnet_cli.model.network import ESDNet, FeatureRefinement, OverlapPatchEmbed, SpikingResidualBlock
from esdnet_cli.model.replay import after_pass, replayable

# of a LayerActivity, what follows from the shapes; the rest depends on the data
_FROM_SHAPES = (
    "neurons", "mac", "ac", "dense", "ann_mac", "inputs", "saturated", "words", "bits", "ann_words", "weights",
)  # fmt: skip
_from_shapes = attrgetter(*_FROM_SHAPES)
_NUMBER_FORMATS: dict[torch.dtype | None, NumberFormat] = {
    torch.int8: "int8", torch.uint8: "int8", torch.bfloat16: "bf16", torch.float16: "fp16",
}  # fmt: skip
_SHAPES = 32  # what follows from the shape of an input is kept for so many, from one picture to the next
_LARGE = 2**16  # places; of more, spikes are not kept until the end of a pass
_SMALL = 2**17  # elements; smaller inputs are counted together, since a call costs more than they do


def causes_of_real(network: ESDNet) -> dict[nn.Module, Cause]:
    """What a convolution of real numbers is counted under: what the part of the network that it belongs to says."""
    # an ordinary twin's convolutions, which no spikes drive, stand where the network's do
    causes: dict[nn.Module, Cause] = dict.fromkeys(network.modules(), "spike-driven convolutions")
    causes |= dict.fromkeys(network.output.modules(), "refinement and output")
    for module in network.modules():
        if isinstance(module, OverlapPatchEmbed):
            causes |= dict.fromkeys(module.modules(), "embedding")
        elif isinstance(module, SpikingResidualBlock):
            causes |= dict.fromkeys(module.shortcut.modules(), "real-valued shortcuts")
        elif isinstance(module, MixedAttentionUnit):
            causes |= dict.fromkeys(module.modules(), "attention")
        elif isinstance(module, FeatureRefinement):
            causes |= dict.fromkeys(module.modules(), "refinement and output")
    return causes


class _Sum(NamedTuple):
    """What a number that was counted is of: `field` of a layer's activity, in units of `factor`."""

    layer: str
    field: str
    factor: int


@dataclass
class _Pass:
    """What the hooks note during one forward pass.

    is_new: no pass of this shape went through yet. layers: what follows from the shape alone, noted only then.
    counts: what depends on the data. small: inputs whose zeros are counted together at the end. spikes: by place, of
    layers alike, for whose reach that is done, too. reaches: how far those of a place reach; a replay needs it.
    """

    shape: torch.Size = torch.Size()
    is_new: bool = False
    layers: list[LayerActivity] = field(default_factory=list)
    counts: list[tuple[list[_Sum], Tensor]] = field(default_factory=list)
    small: list[tuple[str, Tensor]] = field(default_factory=list)
    spikes: dict[Alike, list[tuple[list[_Sum], Tensor]]] = field(default_factory=dict)
    reaches: list[Tensor] = field(default_factory=list)

    def count_alike(self, alike: Alike) -> None:
        """Count spikes of layers alike, and how many output positions of each convolution they reach."""
        sums, by_place = zip(*self.spikes.pop(alike))
        reaches = alike.reaches(by_place[0].device)
        self.reaches.append(reaches)
        reached = (reaches * torch.stack(by_place)[:, None]).sum(2)
        self.counts.append(([entry for of_layer in sums for entry in of_layer], reached))


class ActivityCounter:
    """Counts while it is entered: `with ActivityCounter(network) as counter: network(x)`, then `counter.activity()`.

    Several forward passes (tiles, batches) add up; entered again, it begins anew. A pass that fails, for want of memory
    say, counts nothing.
    The sums stay on the network's device until `activity()` fetches them. What lives how long: `_Pass` for one forward
    pass; the sums until it is entered again; what follows from the shape of a pass's input alone, longer.
    """

    def __init__(self, network: ESDNet) -> None:
        self._network = network
        self._config = network.config
        self._driven = network.spiking_convs()
        self._hooks = self._all_hooks()
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._pass = _Pass()  # the one under way
        # by shape of the input: how many passes went through, and the layers of any of them
        self._passes: Counter[torch.Size] = Counter()
        self._layers: dict[torch.Size, list[LayerActivity]] = {}
        # of all passes: int64, by what each is of, in the order of a pass
        self._sums: dict[tuple[_Sum, ...], Tensor] = {}

    def __enter__(self) -> ActivityCounter:
        self._passes.clear()
        self._sums.clear()
        if len(self._layers) > _SHAPES:
            self._layers.clear()
        self._handles = [module.register_forward_hook(hook) for module, hook in self._hooks]
        self._handles.append(self._network.register_forward_pre_hook(self._begin))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._pass = _Pass()  # of one that failed

    def activity(self, copies: Iterable[ActivityCounter] = ()) -> Activity:
        """All layers counted so far, in the order in which they run; few transfers from the device.

        copies: counters of copies of the network, whose counts are added.
        """
        counters = (self, *copies)
        kinds: dict[str, tuple[LayerKind, Cause, Precision]] = {}
        totals: dict[str, Counter[str]] = {}
        for shape in dict.fromkeys(shape for counter in counters for shape in counter._passes):
            passes = sum(counter._passes[shape] for counter in counters)
            for layer in next(counter._layers[shape] for counter in counters if shape in counter._layers):
                kinds[layer.name] = layer.kind, layer.cause, layer.precision
                of_one_pass = zip(_FROM_SHAPES, _from_shapes(layer))
                totals.setdefault(layer.name, Counter()).update({name: passes * value for name, value in of_one_pass})
        for counter in counters:
            for sums, values in counter._sums.items():
                for entry, value in zip(sums, values.tolist()):
                    totals[entry.layer][entry.field] += entry.factor * value
        for neurons, convs in self._driven.items():
            for name in convs:
                if name in totals:
                    totals[name]["nonzero"] = totals[neurons]["spikes"]
        counted = (
            LayerActivity(name, kind, cause, precision, **totals[name])
            for name, (kind, cause, precision) in kinds.items()
        )
        return Activity(self._config.virtual_steps, tuple(counted))

    def _all_hooks(self) -> list[tuple[nn.Module, Any]]:
        modules = dict(self._network.named_modules())
        spike_driven = {conv for convs in self._driven.values() for conv in convs}
        joint = {block.joint for block in modules.values() if isinstance(block, SpikingResidualBlock)}
        units = [module for module in modules.values() if isinstance(module, MixedAttentionUnit)]
        temporal = {part for unit in units for part in unit.ta.modules()}
        causes = causes_of_real(self._network)
        hooks: list[tuple[nn.Module, Any]] = [(self._network, self._commit)]
        for name, module in modules.items():
            if isinstance(module, LIF):
                hooks.append((module, self._neuron_hook(name, {conv: modules[conv] for conv in self._driven[name]})))
            elif module in joint:
                continue  # counted as the two that it stands for
            elif isinstance(module, (nn.Conv2d, nn.Conv3d)) and name not in spike_driven:
                hooks.append((module, self._real_conv_hook(name, causes[module], module in temporal)))
            elif isinstance(module, MixedAttentionUnit):
                hooks.append((module, self._product_hook(name, "attention", 3)))  # one product for each
            elif isinstance(module, FeatureRefinement):
                hooks.append((module, self._product_hook(name, "refinement and output", 2)))  # (1 - f) a and f x
        return hooks

    @replayable
    def _begin(self, _: nn.Module, inputs: tuple[Tensor]) -> None:
        shape = inputs[0].shape
        self._pass = _Pass(shape, is_new=shape not in self._layers)

    @replayable
    def _commit(self, *_: Any) -> None:
        """The pass went through: add what its hooks noted."""
        done, self._pass = self._pass, _Pass()
        for alike in list(done.spikes):
            done.count_alike(alike)
        by_size: dict[int, list[tuple[str, Tensor]]] = {}
        for name, x in done.small:
            by_size.setdefault(x.numel(), []).append((name, x))
        for inputs in by_size.values():
            flags = torch.stack([x.flatten() for _, x in inputs]).float().ne_(0)
            done.counts.append(([_Sum(name, "nonzero", 1) for name, _ in inputs], flags.sum(1).long()))
        sums = tuple(entry for sums, _ in done.counts for entry in sums)
        values = torch.cat([value.view(-1) for _, value in done.counts])
        layers = done.layers if done.is_new else self._layers[done.shape]

        def add() -> None:
            self._sums[sums] = self._sums[sums].add_(values) if sums in self._sums else values.clone()
            self._layers[done.shape] = layers
            self._passes[done.shape] += 1

        after_pass(add)

    def _neuron_hook(self, name: str, driven: dict[str, nn.Module]) -> Any:
        convs = {conv_name: conv for conv_name, conv in driven.items() if isinstance(conv, nn.Conv2d)}
        geometry = tuple(map(geometry_of, convs.values()))
        levels = self._config.levels
        integer = self._config.neuron == "integer"
        sums = [_Sum(name, "spikes", 1)]
        sums += [_Sum(conv_name, "ac", conv.out_channels) for conv_name, conv in convs.items()]

        @replayable
        def hook(neurons: nn.Module, _: Any, spike_seq: Tensor) -> None:  # [T, N, C, H, W]
            timesteps, batch, _, height, width = spike_seq.shape
            by_place, alike = over_rows(spike_seq, levels, geometry)
            self._pass.spikes.setdefault(alike, []).append((sums, by_place))
            if len(by_place) > _LARGE:
                self._pass.count_alike(alike)
            if not self._pass.is_new:
                return
            totals = [windows(height, width, conv) for conv in geometry]
            neuron_steps = spike_seq.numel()
            count = neuron_steps // timesteps
            bits = neuron_steps * levels.bit_length()
            compared = neuron_steps * levels if integer else 0  # in each virtual step with the threshold
            state = 2 * (neuron_steps - count)  # nothing is read at the first step, nothing kept after the last
            self._pass.layers.append(
                LayerActivity(
                    name, "neuron", "membrane updates", neurons=count, mac=neuron_steps, ac=compared,
                    saturated=compared, words=neuron_steps + state, bits=bits, ann_words=2 * count,
                )
            )  # fmt: skip
            precision = _NUMBER_FORMATS.get(spike_seq.dtype, "fp32")
            for (conv_name, conv), total_reach in zip(convs.items(), totals):
                stride = conv.stride[0]
                positions = batch * (-(-height // stride)) * (-(-width // stride))  # padding is k // 2
                channels = conv.in_channels * conv.out_channels
                moved, outputs = batch * conv.weight.numel(), conv.out_channels * positions
                self._pass.layers.append(
                    LayerActivity(
                        conv_name, "conv", "spike-driven convolutions", precision,
                        dense=conv.weight.numel() * positions * timesteps,
                        ann_mac=total_reach * batch * channels, inputs=neuron_steps,
                        saturated=total_reach * batch * timesteps * levels * channels,
                        words=moved + timesteps * outputs, bits=bits, ann_words=moved + outputs + count, weights=moved,
                    )
                )  # fmt: skip

        return hook

    def _real_conv_hook(self, name: str, cause: Cause, temporal: bool) -> Any:
        kind: LayerKind = "embedding" if cause == "embedding" else "conv"

        @replayable
        def hook(conv: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            assert isinstance(conv, (nn.Conv2d, nn.Conv3d))
            if kind == "embedding":
                pass  # its rate enters no figure
            elif inputs[0].numel() < _SMALL:
                self._pass.small.append((name, inputs[0]))
            else:
                self._pass.counts.append(([_Sum(name, "nonzero", 1)], count_nonzero(inputs[0])))
            if not self._pass.is_new:
                return
            # at T = 1 a convolution of the body runs once and a temporal perceptron is 1 -> 1 -> 1
            steps = self._config.timesteps if temporal or isinstance(conv, SeqConv2d) else 1
            # steps that are equal share their memory and ran once
            ran = 1 if output.dim() == 5 and output.stride(0) == 0 else steps
            dense, moved = output.numel() * conv.weight[0].numel(), inputs[0].numel() + output.numel()
            ann_mac = dense // steps
            if isinstance(conv, nn.Conv2d):
                planes = output.numel() // steps // (output.shape[-2] * output.shape[-1])
                ann_mac = planes * conv.in_channels * windows(*inputs[0].shape[-2:], geometry_of(conv))
            tiles = self._pass.shape[0]
            weights = tiles * conv.weight.numel()  # a perceptron's once for mean and maximum
            self._pass.layers.append(
                LayerActivity(
                    name, kind, cause, _NUMBER_FORMATS.get(conv.weight.dtype, "fp32"), mac=dense * ran // steps,
                    dense=dense, ann_mac=ann_mac, inputs=inputs[0].numel(), words=weights + moved * ran // steps,
                    ann_words=5 * tiles if temporal else weights + moved // steps, weights=weights,
                )
            )  # fmt: skip

        return hook

    def _product_hook(self, name: str, cause: Cause, factors: int) -> Any:
        @replayable
        def hook(module: nn.Module, _: Any, output: Tensor) -> None:
            if not self._pass.is_new:
                return
            products = factors * output.numel()
            if isinstance(module, FeatureRefinement) and module.uniform:
                products = output.numel() + output[..., 0, 0].numel()  # (1 - f) a is the same at every pixel
            at_once = products // self._config.timesteps if output.dim() == 5 else products
            self._pass.layers.append(
                LayerActivity(
                    name, "product", cause, mac=products, ann_mac=at_once, words=2 * products, ann_words=2 * at_once
                )
            )

        return hook
