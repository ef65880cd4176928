"""Our counts by the names that the field's tools give them; docs/energy.md says where they differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from esdnet_cli.energy.cost import LayerActivity
from esdnet_cli.energy.twin import shapes
from esdnet_cli.model.config import ESDNetConfig

_POTENTIAL_BYTES = 4  # membrane potentials are kept in float32


@dataclass(frozen=True)
class FieldCounts:
    """One picture, or several summed by layer, by the names of NeuroBench 2 (Yik et al., Nature Communications 2025).

    effective_acs: accumulations of spike-driven convolutions. effective_macs: multiply-accumulates of real-valued
    convolutions whose input is not zero (zeros spread evenly over positions; the embedding's are not looked for).
    synops: both. dense_ops: of all convolutions at all T steps, if no input were zero. membrane_updates: neurons x T.
    activation_sparsity: 1 - spike rate; None without neurons.
    """

    synops: int
    effective_macs: int
    effective_acs: int
    dense_ops: int
    membrane_updates: int
    activation_sparsity: float | None


def field_counts(layers: Sequence[LayerActivity], spike_rate: float | None) -> FieldCounts:
    """Our counts by these names."""
    convolutions = [layer for layer in layers if layer.kind in ("conv", "embedding")]
    effective_acs = sum(layer.ac for layer in convolutions)
    effective_macs = sum(
        layer.mac if layer.kind == "embedding" else round(layer.mac * layer.nonzero / max(layer.inputs, 1))
        for layer in convolutions
    )
    return FieldCounts(
        effective_macs + effective_acs,
        effective_macs,
        effective_acs,
        sum(layer.dense for layer in convolutions),
        sum(layer.membrane_updates for layer in layers),
        None if spike_rate is None else 1 - spike_rate,
    )


def footprint_bytes(config: ESDNetConfig) -> int:
    """Parameters and buffers in fp32: NeuroBench's `footprint`."""
    network = shapes(config)
    return sum(tensor.numel() * tensor.element_size() for tensor in (*network.parameters(), *network.buffers()))


def state_bytes(layers: Sequence[LayerActivity], config: ESDNetConfig, height: int, width: int) -> tuple[int, int]:
    """Membrane potentials that a tile of this size keeps between steps: of the largest layer, of all.

    Our layers run one after the other through all steps, so one layer's exist at a time; hardware that goes step by
    step keeps all. At T = 1 there are none.
    """
    pixels = sum(layer.inputs for layer in layers if layer.kind == "embedding") // 3
    if config.timesteps == 1 or not pixels:
        return 0, 0
    window = math.prod(-(-side // config.multiple) * config.multiple for side in (height, width))
    sizes = [layer.neurons * window // pixels * _POTENTIAL_BYTES for layer in layers]
    return max(sizes), sum(sizes)
