"""What a run is held against: the same counts priced in many ways, each beside the network's ordinary twin.

The twin is the same graph without spikes (T = 1, ReLU in place of neurons). Which of its prices is fair depends on the
hardware that one has in mind, so no percentage stands alone: Dampfhoffer et al., "Are SNNs Really More Energy-Efficient
Than ANNs?", IEEE TETCI 2022, who grant the ordinary network its best reuse and sparsity; Lemaire et al., "An Analytical
Estimation of Spiking Neural Networks Energy Efficiency", ICONIP 2022.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import nn

from esdnet_cli.energy.cost import (
    MJ_PER_PJ,
    PRESETS,
    SRAM_BYTES,
    Activity,
    Energy,
    EnergyCosts,
    LayerActivity,
)
from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.model.network import ESDNet

_WIDEST = 64  # times a network's own width: as far as the search for an equal cost goes
TWIN_DENSITY = 0.5  # of a ReLU's outputs behind batch norm, which centres its inputs
FORMATS = {  # what is priced in them is called by these names
    "fp32": PRESETS["fp32-45nm"],
    "fp16": PRESETS["fp16-45nm"],
    "int8, 8-bit sums": PRESETS["int8-45nm"],
    "int8, 32-bit sums": PRESETS["int8-sum32-45nm"],
}


@dataclass(frozen=True)
class View:
    """One way to look at a run: millijoules of the network and of its twin."""

    name: str
    network_mj: float
    twin_mj: float

    @property
    def below(self) -> float | None:
        """Share of the twin's energy that the network saves; negative if it takes more, None if the twin takes none."""
        return 1 - self.network_mj / self.twin_mj if self.twin_mj else None


@dataclass(frozen=True)
class Comparison:
    """Views, and what they leave open.

    dim: of the network. equal_cost_dim: the widest ordinary network of this graph that costs no more than strict.
    accumulations_per_synapse: of spike-driven convolutions, for each multiplication that the twin makes there.
    not_spiking_share: of strict: embedding, attention, real-valued shortcuts, refinement and output.
    refinement_share: of strict: the part that could be made spiking, refinement and output.
    """

    views: tuple[View, ...]
    dim: int
    equal_cost_dim: int
    accumulations_per_synapse: float
    not_spiking_share: float
    refinement_share: float

    @property
    def range(self) -> tuple[float, float] | None:
        """The least and the greatest `below` of all views."""
        shares = [view.below for view in self.views if view.below is not None]
        return (min(shares), max(shares)) if shares else None


def compare(activity: Activity, config: ESDNetConfig, costs: EnergyCosts) -> Comparison:
    """Hold a run, summed by layer, against its twin. costs: of the strict figure, for what is no view."""
    layers, by_cause = activity.layers, activity.by_cause(costs)
    driven = [layer for layer in layers if layer.cause == "spike-driven convolutions"]
    strict = sum(by_cause.values())
    spiking = by_cause["spike-driven convolutions"] + by_cause["membrane updates"]
    return Comparison(
        views=tuple(_views(activity, driven, config)),
        dim=config.dim,
        equal_cost_dim=equal_cost_dim(layers, config, strict, costs),
        accumulations_per_synapse=sum(layer.ac for layer in driven) / max(sum(layer.ann_mac for layer in driven), 1),
        not_spiking_share=(strict - spiking) / strict if strict else 0.0,
        refinement_share=by_cause["refinement and output"] / strict if strict else 0.0,
    )


def _views(activity: Activity, driven: Sequence[LayerActivity], config: ESDNetConfig) -> list[View]:
    # spike_only_mj alone is no sum over layers
    prices = {name: activity.energy(costs) for name, costs in FORMATS.items()}
    skipped = (1 - TWIN_DENSITY) * sum(layer.ann_mac for layer in driven)
    views = []
    for name, energy in prices.items():
        views.append(View(name, energy.strict_mj, energy.ann_mj))
        if name == "fp32":
            sparse_mj = energy.ann_mj - skipped * FORMATS[name].pj_mac * MJ_PER_PJ
            views.append(View(f"{name}, every neuron firing", energy.dense_snn_mj, energy.ann_mj))
            views.append(View(f"{name}, twin skips its zeros ({TWIN_DENSITY:.0%})", energy.strict_mj, sparse_mj))
        views += _with_memory(name, energy, FORMATS[name], config)
        if name == "fp32":  # what the network has least of against what the twin has most of
            no_reuse_mj, twin_mj = energy.strict_mj + energy.memory_no_reuse_mj, sparse_mj + energy.ann_memory_mj
            views.append(View(f"{name}, nothing reused, twin reuses and skips", no_reuse_mj, twin_mj))
    fp32, small, large = (prices[name] for name in ("fp32", "int8, 8-bit sums", "int8, 32-bit sums"))
    if fp32.as_run_mj is not None:
        views.append(View("formats as run, twin int8, 8-bit sums", fp32.as_run_mj, small.ann_mj))
        views.append(View("formats as run, twin int8, 32-bit sums", fp32.as_run_mj, large.ann_mj))
    return views


def _with_memory(name: str, energy: Energy, costs: EnergyCosts, config: ESDNetConfig) -> list[View]:
    once, ann_once = energy.strict_mj + energy.memory_mj, energy.ann_mj + energy.ann_memory_mj
    views = [View(f"{name}, each number moved once", once, ann_once)]
    if weight_bytes(config, costs) > SRAM_BYTES and energy.weights_dram_mj:
        far = energy.weights_dram_mj
        views.append(View(f"{name}, moved once, weights DRAM", once + far, ann_once + far))
    nothing = energy.strict_mj + energy.memory_no_reuse_mj, energy.ann_mj + energy.ann_memory_no_reuse_mj
    return [*views, View(f"{name}, nothing reused", *nothing)]


def equal_cost_dim(layers: Sequence[LayerActivity], config: ESDNetConfig, strict_mj: float, costs: EnergyCosts) -> int:
    """The widest d at which the twin of these runs costs at most `strict_mj`; 0 if even d = 1 costs more.

    At most _WIDEST times the network's own, which no price of a real chip comes near.

    A layer's multiplications grow with its weights, those of attention and refinement products with its channels.
    """
    if not costs.pj_mac:
        return 0
    own = _weights(config)

    def ann_mj(dim: int) -> float:
        weights = _weights(replace(config, dim=dim))
        return MJ_PER_PJ * costs.pj_mac * sum(
            layer.ann_mac * (weights[layer.name] / own[layer.name] if layer.name in own else dim / config.dim)
            for layer in layers
            if layer.ann_mac
        )  # fmt: skip

    most = _WIDEST * config.dim
    return bisect_right(range(1, most + 1), strict_mj, key=ann_mj)


def weight_bytes(config: ESDNetConfig, costs: EnergyCosts) -> int:
    """All parameters in words of these costs."""
    return sum(parameter.numel() for parameter in shapes(config).parameters()) * costs.word_bits // 8


def _weights(config: ESDNetConfig) -> dict[str, int]:
    """Of each convolution and perceptron layer."""
    modules = shapes(config).named_modules()
    return {name: module.weight.numel() for name, module in modules if isinstance(module, (nn.Conv2d, nn.Conv3d))}


@lru_cache(maxsize=64)
def shapes(config: ESDNetConfig) -> ESDNet:
    """The network without its numbers, which take no memory."""
    with torch.device("meta"):
        return ESDNet(config)
