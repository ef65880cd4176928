"""Counts spikes and operations during the real forward pass, by hooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from itertools import groupby
from operator import attrgetter
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from esdnet_cli.energy.cost import Activity, Cause, LayerActivity, LayerKind, NumberFormat, Precision
from esdnet_cli.model.layers import LIF, MixedAttentionUnit, SeqConv2d
from esdnet_cli.model.network import ESDNet, FeatureRefinement, OverlapPatchEmbed, SpikingResidualBlock
from esdnet_cli.model.neurons import CACHED, in_memory_order

# of a LayerActivity, what follows from the shapes; the rest depends on the data
_FROM_SHAPES = (
    "neurons", "mac", "ac", "dense", "ann_mac", "inputs", "saturated", "words", "bits", "ann_words", "weights",
)  # fmt: skip
_from_shapes = attrgetter(*_FROM_SHAPES)
_NUMBER_FORMATS: dict[torch.dtype | None, NumberFormat] = {
    torch.int8: "int8", torch.uint8: "int8", torch.bfloat16: "bf16", torch.float16: "fp16",
}  # fmt: skip
_SMALL = 2**17  # elements; smaller inputs are counted together, since a call costs more than they do
_LARGE = 2**19  # elements; larger sums of spikes are not kept until the end

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes
_EXACT = 2**24  # up to this, float32 counts
# spikes of one place, before their own format miscounts them
_MOST_ADDED = {torch.int8: 255, torch.uint8: 255, torch.bfloat16: 256, torch.float16: 2048}
_WORD = 8  # bytes

Geometry = tuple[tuple[int, int, int], ...]  # of convolutions: see `geometry_of`


@lru_cache(maxsize=256)
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


def reach(height: int, width: int, geometry: Geometry, rows: tuple[int, ...], device: torch.device) -> Tensor:
    """How far spikes in these rows of a plane reach: int64 [1 + convolutions, rows * width] on the device.

    1 for the spike itself, then how many output positions it reaches by each convolution.
    """
    maps = [torch.outer(fan_out(height, *conv)[list(rows)], fan_out(width, *conv)) for conv in geometry]
    return torch.stack([torch.ones(len(rows), width, dtype=torch.int64), *maps]).flatten(1).to(device)


# what a few sizes of pictures need; of whole planes fewer: the maps of a large piece are large
_reach_of_rows, _reach_of_planes = lru_cache(maxsize=64)(reach), lru_cache(maxsize=16)(reach)


@lru_cache(maxsize=256)
def rows_alike(height: int, geometry: Geometry, most: int) -> tuple[tuple[slice, tuple[int, ...]], ...]:
    """Every row of a plane once, those together whose spikes reach equally far by each convolution.

    Some rows, which fall into parts of at most `most`, all of the same size; and the first row of each part.
    """
    reached = list(zip(*(fan_out(height, *conv).tolist() for conv in geometry)))
    stride = max(stride for _, stride, _ in geometry)
    alike = []
    for first in range(stride):
        for _, run in groupby(range(first, height, stride), key=reached.__getitem__):
            rows = list(run)
            even = len(rows) - len(rows) % most
            for some, size in ((rows[:even], most), (rows[even:], len(rows) - even)):
                if some:
                    alike.append((slice(some[0], some[-1] + 1, stride), tuple(some[::size])))
    return tuple(alike)


@lru_cache(maxsize=256)
def windows(height: int, width: int, conv: tuple[int, int, int]) -> int:
    """Pixels under the windows of a convolution (kernel_size, stride, padding) over a plane, without its padding."""
    return int(fan_out(height, *conv).sum() * fan_out(width, *conv).sum())


def spikes_by_place(spike_seq: Tensor, levels: int) -> Tensor:
    """How many spikes, 0 to `levels` in each of [T, N, C, H, W], fell at each place: int64 [N, H, W]."""
    return _over_channels(*_over_steps(spike_seq, levels))


def _over_steps(spike_seq: Tensor, levels: int) -> tuple[Tensor, int]:
    """Sum of [T, N, C, H, W] over T, in the order of memory, and where its channels are.

    [N, H, W, C] and 3, or [N, C, H, W] and 1. Bytes, or numbers that are exact.
    """
    axis = 1 if spike_seq[0].is_contiguous() else 3
    steps = spike_seq.movedim(2, axis + 1)
    most = _MOST_ADDED.get(spike_seq.dtype, _EXACT) // levels
    sums = [_added(some) for some in steps.flatten(2).split(most)]
    by_channel = sums[0] if len(sums) == 1 else reduce(torch.add, map(Tensor.long, sums))
    if by_channel.is_floating_point() and len(steps) * levels * spike_seq.shape[2] > _EXACT:
        by_channel = by_channel.long()
    return by_channel.view(steps.shape[1:]), axis


def _in_words(spike_seq: Tensor) -> Tensor | None:
    """[T, N, C, H, W] of bytes as words, int64 [T * N, H, W * C / 8], if they lie in memory so."""
    planes = spike_seq.flatten(0, 1).movedim(1, 3)
    if planes.element_size() > 1 or planes.shape[3] % _WORD or not planes.is_contiguous():
        return None
    return planes.flatten(2).view(torch.int64)


class Alike(NamedTuple):
    """What layers have in common whose spikes are counted together: how they were added, the plane, the convolutions.

    shape: of the sums, whose channels stand at `axis`. rows: one of those that each row of the sums is of.
    """

    shape: torch.Size
    axis: int
    rows: tuple[int, ...]
    height: int
    geometry: Geometry

    def reached(self, by_rows: Tensor) -> Tensor:
        """Spikes of `by_rows`, and how many output positions of each convolution they reach: int64 [K, 1 + convs]."""
        by_place = _over_channels(by_rows, self.axis)
        known = _reach_of_planes if len(self.rows) == self.height else _reach_of_rows
        weights = known(self.height, by_place.shape[2], self.geometry, self.rows, by_place.device)
        return (weights * by_place.flatten(1)[:, None]).sum(2)


def over_rows(spike_seq: Tensor, levels: int, geometry: Geometry) -> tuple[Tensor, Alike]:
    """Sums of [T, N, C, H, W] over T, N and, of bytes, over rows that reach equally far; what else shares their kind.

    [1, rows, W, C] or [1, C, rows, W]. Bytes, or numbers that are exact.
    """
    height, width = spike_seq.shape[3:]
    words = _in_words(spike_seq)
    at_once = 0 if words is None else _MOST_ADDED[torch.uint8] // levels // len(words)
    if words is None or not at_once:
        sums, axis = _over_steps(spike_seq.flatten(0, 1)[:, None], levels)
        return sums, Alike(sums.shape, axis, tuple(range(height)), height, geometry)
    rows = rows_alike(height, geometry, at_once)
    # eight bytes at a time, none reaches 256; planes first, which is by far the fastest
    by_row = words.sum(0)
    sums = torch.cat([by_row[some].unflatten(0, (len(parts), -1)).sum(1) for some, parts in rows])
    first = tuple(row for _, parts in rows for row in parts)
    sums = sums.view(torch.uint8).view(1, len(first), width, -1)
    return sums, Alike(sums.shape, 3, first, height, geometry)


def _over_channels(by_channel: Tensor, axis: int) -> Tensor:
    """Sum of what `_over_steps` returns over channels: int64 [N, H, W]."""
    # bytes as they are are added slowly, but sooner than they are converted
    return by_channel.sum(axis, dtype=torch.int32 if by_channel.element_size() == 1 else None).long()


def _added(steps: Tensor) -> Tensor:
    """Sum of a few [K, N, M] of spikes over K: [N, M]. Bytes are added eight at a time, none reaches 256."""
    if steps.element_size() > 1:
        return (steps[0] if len(steps) == 1 else steps.sum(0)).float()
    if len(steps) == 1:
        return steps[0]
    if steps.shape[2] % _WORD == 0:
        return steps.view(torch.int64).sum(0).view(torch.uint8)
    return steps.sum(0, dtype=torch.int32)


def count_nonzero(x: Tensor) -> Tensor:
    """torch.count_nonzero of [..., C, H, W], floats; on a CPU as integers, by NumPy, in pieces that a core caches."""
    if x.device.type != "cpu":
        return torch.count_nonzero(x)
    if x.stride(0) == 0:  # equal steps, which lie in memory once
        return count_nonzero(x[0]) * len(x)
    bits = in_memory_order(x).view(_INTEGERS[x.element_size()]).numpy()
    negative_zero = np.iinfo(bits.dtype).min  # a sign alone, the least integer: a minimum finds it
    counted = 0
    for start in range(0, len(bits), CACHED):
        part = bits[start : start + CACHED]
        counted += int(np.count_nonzero(part))
        if part.min() == negative_zero:
            counted -= int(np.count_nonzero(part == negative_zero))
    return torch.tensor(counted)


def geometry_of(conv: nn.Conv2d) -> tuple[int, int, int]:
    """Kernel size, stride and padding, which are the same along both axes."""
    return conv.kernel_size[0], conv.stride[0], int(conv.padding[0])


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
    counts: what depends on the data. small: inputs whose zeros are counted together at the end. spikes: sums of layers
    alike, which are counted together, too.
    """

    shape: torch.Size = torch.Size()
    is_new: bool = False
    layers: list[LayerActivity] = field(default_factory=list)
    counts: list[tuple[list[_Sum], Tensor]] = field(default_factory=list)
    small: list[tuple[str, Tensor]] = field(default_factory=list)
    spikes: dict[Alike, list[tuple[list[_Sum], Tensor]]] = field(default_factory=dict)

    def count_alike(self, alike: Alike) -> None:
        """Count spikes of layers alike, and how many output positions of each convolution they reach."""
        sums, by_rows = zip(*self.spikes.pop(alike))
        counted = alike.reached(by_rows[0] if len(by_rows) == 1 else torch.cat(by_rows))
        self.counts.append(([entry for of_layer in sums for entry in of_layer], counted))


class ActivityCounter:
    """Counts while it is entered: `with ActivityCounter(network) as counter: network(x)`, then `counter.activity()`.

    Several forward passes (tiles, batches) add up; entered again, it begins anew. A pass that fails, for want of memory
    say, counts nothing.
    The sums stay on the network's device until `activity()` fetches them. What lives how long: `_Pass` for one forward
    pass; what follows from the shape of its input alone, once for each shape; the sums until the end.
    """

    def __init__(self, network: ESDNet) -> None:
        self._network = network
        self._config = network.config
        self._driven = network.spiking_convs()
        self._hooks = self._all_hooks()
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._pass = _Pass()  # the one under way
        # by shape of the input: how many passes went through, and the layers of one of them
        self._passes: Counter[torch.Size] = Counter()
        self._layers: dict[torch.Size, list[LayerActivity]] = {}
        # of all passes: int64, by what each is of, in the order of a pass
        self._sums: dict[tuple[_Sum, ...], Tensor] = {}

    def __enter__(self) -> ActivityCounter:
        self._passes.clear()
        self._layers.clear()
        self._sums.clear()
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

    def _begin(self, _: nn.Module, inputs: tuple[Tensor]) -> None:
        shape = inputs[0].shape
        self._pass = _Pass(shape, is_new=shape not in self._layers)

    def _commit(self, *_: Any) -> None:
        """The pass went through: add what its hooks noted."""
        done, self._pass = self._pass, _Pass()
        for alike in list(done.spikes):
            done.count_alike(alike)
        self._layers.setdefault(done.shape, done.layers)
        self._passes[done.shape] += 1
        by_size: dict[int, list[tuple[str, Tensor]]] = {}
        for name, x in done.small:
            by_size.setdefault(x.numel(), []).append((name, x))
        for inputs in by_size.values():
            flags = torch.stack([x.flatten() for _, x in inputs]).float().ne_(0)
            done.counts.append(([_Sum(name, "nonzero", 1) for name, _ in inputs], flags.sum(1).long()))
        sums = tuple(entry for sums, _ in done.counts for entry in sums)
        values = torch.cat([value.view(-1) for _, value in done.counts])
        self._sums[sums] = self._sums[sums].add_(values) if sums in self._sums else values

    def _neuron_hook(self, name: str, driven: dict[str, nn.Module]) -> Any:
        convs = {conv_name: conv for conv_name, conv in driven.items() if isinstance(conv, nn.Conv2d)}
        geometry = tuple(map(geometry_of, convs.values()))
        levels = self._config.levels
        integer = self._config.neuron == "integer"
        sums = [_Sum(name, "spikes", 1)]
        sums += [_Sum(conv_name, "ac", conv.out_channels) for conv_name, conv in convs.items()]

        def hook(neurons: nn.Module, _: Any, spike_seq: Tensor) -> None:  # [T, N, C, H, W]
            timesteps, batch, _, height, width = spike_seq.shape
            by_rows, alike = over_rows(spike_seq, levels, geometry)
            self._pass.spikes.setdefault(alike, []).append((sums, by_rows))
            if by_rows.numel() > _LARGE:
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
            tiles = inputs[0].shape[1] if isinstance(conv, SeqConv2d) else inputs[0].shape[0]
            weights = tiles * conv.weight.numel()
            self._pass.layers.append(
                LayerActivity(
                    name, kind, cause, _NUMBER_FORMATS.get(conv.weight.dtype, "fp32"), mac=dense * ran // steps,
                    dense=dense, ann_mac=ann_mac, inputs=inputs[0].numel(), words=weights + moved * ran // steps,
                    ann_words=3 * tiles if temporal else weights + moved // steps, weights=weights,
                )
            )  # fmt: skip

        return hook

    def _product_hook(self, name: str, cause: Cause, factors: int) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            if not self._pass.is_new:
                return
            products = factors * output.numel()
            at_once = products // self._config.timesteps if output.dim() == 5 else products
            self._pass.layers.append(
                LayerActivity(
                    name, "product", cause, mac=products, ann_mac=at_once, words=2 * products, ann_words=2 * at_once
                )
            )

        return hook
