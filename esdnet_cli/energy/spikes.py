"""Arithmetic on spikes: how many fell where, and how many output positions of a convolution they reach, exactly."""

from __future__ import annotations

from functools import lru_cache, reduce
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from esdnet_cli.model.neurons import CACHED, in_memory_order

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


def _in_words(spike_seq: Tensor) -> NDArray[np.int64] | None:
    """[T, N, C, H, W] of bytes as words, [T * N, H, W * C / 8], if they lie in memory so, and a CPU's."""
    if spike_seq.element_size() > 1 or spike_seq.device.type != "cpu":
        return None
    planes = spike_seq.numpy().transpose(0, 1, 3, 4, 2)
    if planes.shape[4] % _WORD or not planes.flags.c_contiguous:
        return None
    return planes.reshape(-1, planes.shape[2], planes.shape[3] * planes.shape[4]).view(np.int64)


class Alike(NamedTuple):
    """What layers have in common whose spikes are counted together: the plane, the convolutions, how rows were added.

    rows: one of those that each row of the sums is of.
    """

    rows: tuple[int, ...]
    height: int
    width: int
    geometry: Geometry

    def reaches(self, device: torch.device) -> Tensor:
        """How far spikes of each place of the sums reach: int64 [1 + convolutions, rows * width] on the device."""
        known = _reach_of_planes if len(self.rows) == self.height else _reach_of_rows
        return known(self.height, self.width, self.geometry, self.rows, device)


@lru_cache(maxsize=256)
def rows_alike(height: int, width: int, geometry: Geometry, most: int) -> tuple[Alike, tuple[tuple[slice, slice], ...]]:
    """Which rows of a plane to add, since spikes in them reach equally far by each convolution, at most `most` of them.

    Each entry: rows, every one of the plane's in one of the entries, and those of the sums that they go to, each an
    even share of them.
    """
    reached = list(zip(*(fan_out(height, *conv).tolist() for conv in geometry)))
    stride = max(stride for _, stride, _ in geometry)
    added: list[tuple[slice, slice]] = []
    first: list[int] = []
    for begin in range(stride):
        for _, run in groupby(range(begin, height, stride), key=reached.__getitem__):
            rows = list(run)
            even = len(rows) - len(rows) % most
            for some, size in ((rows[:even], most), (rows[even:], len(rows) - even)):
                if some:
                    into = slice(len(first), len(first) + len(some) // size)
                    added.append((slice(some[0], some[-1] + 1, stride), into))
                    first += some[::size]
    return Alike(tuple(first), height, width, geometry), tuple(added)


def over_rows(spike_seq: Tensor, levels: int, geometry: Geometry) -> tuple[Tensor, Alike]:
    """Sums of [T, N, C, H, W] over T, N, C and, of bytes, over rows that reach equally far; whose kind they are of.

    int64, or int32, [rows * W]. Bytes on a CPU by NumPy, whose calls take less time than PyTorch's.
    """
    height, width = spike_seq.shape[3:]
    words = _in_words(spike_seq)
    at_once = 0 if words is None else _MOST_ADDED[torch.uint8] // levels // len(words)
    if words is None or not at_once:
        by_place = spikes_by_place(spike_seq.flatten(0, 1)[:, None], levels)
        return by_place.flatten(), Alike(tuple(range(height)), height, width, geometry)
    alike, added = rows_alike(height, width, geometry, at_once)
    # eight bytes at a time, none reaches 256; planes first, which is by far the fastest
    by_row = words[0] if len(words) == 1 else np.add.reduce(words)
    sums = np.empty((len(alike.rows), by_row.shape[1]), np.int64)
    for some, into in added:
        rows, of_rows = by_row[some], sums[into]
        if len(rows) == len(of_rows):
            of_rows[:] = rows
        else:
            np.add.reduce(rows.reshape(len(of_rows), -1, rows.shape[1]), axis=1, out=of_rows)
    places = sums.view(np.uint8).reshape(len(sums) * width, -1)
    return torch.from_numpy(np.add.reduce(places, axis=1, dtype=np.int32)), alike


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
