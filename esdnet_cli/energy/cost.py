"""From counted operations to millijoules: three figures that always stand together.

Costs of a 32-bit floating-point operation in 45 nm CMOS: Horowitz, "Computing's energy problem (and what we can do
about it)", ISSCC 2014: multiplication 3.7 pJ + addition 0.9 pJ = 4.6 pJ a MAC, 0.9 pJ an accumulation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

PJ_MAC = 4.6
PJ_AC = 0.9
MJ_PER_PJ = 1e-9
LayerKind = Literal["neuron", "embedding", "conv", "product"]
LEFT_OUT = (
    "memory traffic (often the larger part on real hardware)",
    "residual additions",
    "upsampling",
    "pooling, comparisons and sigmoids",
)


@dataclass(frozen=True)
class EnergyCosts:
    """Picojoules of one multiply-accumulate and of one accumulate."""

    pj_mac: float = PJ_MAC
    pj_ac: float = PJ_AC


@dataclass(frozen=True)
class Energy:
    """Estimated energy of one picture in millijoules.

    strict_mj: MACs and ACs as counted.
    spike_only_mj: the habit of the spiking literature: the embedding as MACs, every later convolution at the non-zero
        rate of its input as ACs, nothing else.
    ann_mj: the same graph as an ordinary network: T = 1, every convolution dense MACs.
    """

    strict_mj: float
    spike_only_mj: float
    ann_mj: float


@dataclass(frozen=True)
class LayerActivity:
    """What one module did for one picture, all tiles together; whole numbers, so sums are exact.

    kind: `neuron` (spikes; membrane updates as MACs), `embedding` or `conv` (AC if spikes drive it, else MAC),
        `product` (attention and refinement multiplications, MAC).
    spikes: over all T steps. neurons: in one step.
    mac, ac: operations as executed. dense: MACs of a convolution if no input were zero. ann_mac: MACs at T = 1.
    nonzero, inputs: elements of a convolution's input, non-zero and all.
    """

    name: str
    kind: LayerKind
    spikes: int = 0
    neurons: int = 0
    mac: int = 0
    ac: int = 0
    dense: int = 0
    ann_mac: int = 0
    nonzero: int = 0
    inputs: int = 0

    def spike_rate(self, timesteps: int) -> float | None:
        """Spikes / (neurons x T), or None where the layer has no neurons."""
        return self.spikes / (self.neurons * timesteps) if self.neurons else None


@dataclass(frozen=True)
class Activity:
    """Every layer's activity for one picture, or for several added up by `total`."""

    timesteps: int
    layers: tuple[LayerActivity, ...]

    @property
    def spikes(self) -> int:
        return sum(layer.spikes for layer in self.layers)

    @property
    def neurons(self) -> int:
        return sum(layer.neurons for layer in self.layers)

    @property
    def spike_rate(self) -> float:
        """All spikes / all neuron-steps."""
        return self.spikes / max(self.neurons * self.timesteps, 1)

    @property
    def mac(self) -> int:
        return sum(layer.mac for layer in self.layers)

    @property
    def ac(self) -> int:
        return sum(layer.ac for layer in self.layers)

    def energy(self, costs: EnergyCosts = EnergyCosts()) -> Energy:
        """The three figures at these costs."""
        spike_only = 0.0
        for layer in self.layers:
            if layer.kind == "embedding":
                spike_only += layer.mac * costs.pj_mac
            elif layer.kind == "conv":
                spike_only += layer.dense * layer.nonzero / max(layer.inputs, 1) * costs.pj_ac
        return Energy(
            strict_mj=(self.mac * costs.pj_mac + self.ac * costs.pj_ac) * MJ_PER_PJ,
            spike_only_mj=spike_only * MJ_PER_PJ,
            ann_mj=sum(layer.ann_mac for layer in self.layers) * costs.pj_mac * MJ_PER_PJ,
        )


@dataclass(frozen=True)
class ActivityTotal:
    """Sums over pictures. Rates divide the sums once: a mean of rates is not the rate of the whole."""

    spikes: int
    neuron_steps: int
    mac: int
    ac: int
    energy: Energy

    @property
    def spike_rate(self) -> float | None:
        return self.spikes / self.neuron_steps if self.neuron_steps else None


def total(activities: Iterable[Activity], costs: EnergyCosts = EnergyCosts()) -> ActivityTotal:
    """Add the activity of several pictures up."""
    activities = list(activities)
    energies = [activity.energy(costs) for activity in activities]
    return ActivityTotal(
        spikes=sum(activity.spikes for activity in activities),
        neuron_steps=sum(activity.neurons * activity.timesteps for activity in activities),
        mac=sum(activity.mac for activity in activities),
        ac=sum(activity.ac for activity in activities),
        energy=Energy(
            strict_mj=sum(energy.strict_mj for energy in energies),
            spike_only_mj=sum(energy.spike_only_mj for energy in energies),
            ann_mj=sum(energy.ann_mj for energy in energies),
        ),
    )
