"""From counted operations to millijoules: three figures that always stand together, and what to hold them against.

Costs of an operation in 45 nm CMOS: Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014,
figure 1.1.9. A MAC is a multiplication and an addition: 3.7 + 0.9 pJ in 32-bit floating point, 1.1 + 0.4 pJ in 16-bit,
0.2 + 0.03 pJ for 8-bit integers; an accumulation is the addition alone. 8-bit numbers added up in 32 bits, as hardware
does, take 0.2 + 0.1 pJ; 16-bit numbers added up in 32 bits 1.1 + 0.9 pJ.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields, replace
from typing import Any, Literal, get_args

MJ_PER_PJ = 1e-9
PJ_PER_BIT = 100 / 64  # reading or writing 64 bits of a 1 MB SRAM costs 100 pJ (Horowitz, ISSCC 2014)
PJ_PER_DRAM_BIT = 1300 / 64  # of DRAM, the lower end of 1.3 to 2.6 nJ for 64 bits (Horowitz, ISSCC 2014)
SRAM_BYTES = 2**20  # of the memory that PJ_PER_BIT is for
LayerKind = Literal["neuron", "embedding", "conv", "product"]
NumberFormat = Literal["fp32", "fp16", "bf16", "int8"]
Precision = Literal[NumberFormat, "unknown"]
Cause = Literal[
    "spike-driven convolutions", "real-valued shortcuts", "embedding", "attention", "refinement and output",
    "membrane updates",
]  # fmt: skip
CAUSES: tuple[Cause, ...] = get_args(Cause)
LEFT_OUT = (
    "memory traffic (often the larger part on real hardware)",
    "address computation and control",
    "batch norm (folded into the convolutions; fp32 runs it unfolded)",
    "residual and bias additions, the mean over steps",
    "upsampling",
    "pooling, comparisons of LIF neurons, sigmoids",
    "leakage and idle power",
)
MEMORY_MODEL = (
    "each number moved once: neurons, convolutions and products of attention and refinement read their inputs and, "
    "for each tile, their weights, and write their outputs, as if all lay in an SRAM of 1 MB at 100 pJ for 64 bits; a "
    "neuron's output takes 1 bit at each step, an integer neuron's as many as its levels need (3 for 4 levels), "
    "everything else a word; the membrane potential, as wide as the format's sums, is read and written between steps; "
    "residual additions and upsampling move nothing"
)
NO_REUSE_MODEL = (
    "nothing reused: 3 words for an accumulation (weight, sum read, sum written), 2 for a multiply-accumulate (weight, "
    "input), and the neurons' state between steps, each from that SRAM, 50 pJ for 32 bits, sums and states as wide as "
    "the format's sums (Lemaire et al. 2022); the neurons' inputs, the writing of spikes and comparisons are left out"
)


@dataclass(frozen=True)
class EnergyCosts:
    """Picojoules of one multiply-accumulate and of one accumulate.

    word_bits: what a number that is no spike takes. sum_bits: what a sum on its way, and a membrane potential, takes.
    """

    pj_mac: float = 4.6
    pj_ac: float = 0.9
    word_bits: int = 32
    sum_bits: int = 32


PRESETS = {
    "fp32-45nm": EnergyCosts(),
    "fp16-45nm": EnergyCosts(1.1 + 0.4, 0.4, 16, 16),
    "int8-45nm": EnergyCosts(0.2 + 0.03, 0.03, 8, 8),
    "int8-sum32-45nm": EnergyCosts(0.2 + 0.1, 0.1, 8, 32),
}
# what an operation costs in the number format that a layer ran in; all of them add up in 32 bits
AS_RUN: dict[NumberFormat, EnergyCosts] = {
    "fp32": PRESETS["fp32-45nm"],
    "fp16": EnergyCosts(1.1 + 0.9, 0.9, 16, 32),
    "bf16": EnergyCosts(1.1 + 0.9, 0.9, 16, 32),
    "int8": PRESETS["int8-sum32-45nm"],
}


@dataclass(frozen=True)
class Energy:
    """Estimated energy of one picture in millijoules; each figure is a sum over layers, so pictures add up.

    strict_mj: MACs and ACs as counted.
    spike_only_mj: the habit of the spiking literature: the embedding as MACs, every later convolution at the non-zero
        rate of its input as ACs, nothing else.
    ann_mj: the same graph as an ordinary network: T = 1, every convolution dense MACs.
    ann_int8_mj: that network in 8-bit integers, whatever the costs are otherwise.
    dense_snn_mj: as strict, if every neuron fired at every step.
    memory_mj, ann_memory_mj: what moving numbers adds to strict and to ann, by MEMORY_MODEL.
    memory_no_reuse_mj, ann_memory_no_reuse_mj: what it adds by NO_REUSE_MODEL. Both are estimates, neither a bound.
    weights_dram_mj: what memory_mj and ann_memory_mj grow by where the weights come from DRAM, for each tile.
    as_run_mj: as strict, each layer in the number format that it ran in (AS_RUN), whatever the costs are otherwise;
        None where that is not known.
    """

    strict_mj: float = 0.0
    spike_only_mj: float = 0.0
    ann_mj: float = 0.0
    ann_int8_mj: float = 0.0
    dense_snn_mj: float = 0.0
    memory_mj: float = 0.0
    ann_memory_mj: float = 0.0
    memory_no_reuse_mj: float = 0.0
    ann_memory_no_reuse_mj: float = 0.0
    weights_dram_mj: float = 0.0
    as_run_mj: float | None = 0.0


@dataclass(frozen=True)
class LayerActivity:
    """What one module did for one picture, all tiles together; whole numbers, so sums are exact.

    kind: `neuron` (spikes; membrane updates as MACs), `embedding` or `conv` (AC if spikes drive it, else MAC),
        `product` (attention and refinement multiplications, MAC).
    cause: what its energy is counted under.
    precision: the number format that it computed in; unknown in reports of versions that did not say.
    spikes: over all T steps; an integer neuron's k counts as k. neurons: in one step.
    mac, ac: operations as executed; an integer neuron's comparisons and subtractions are ACs. dense: MACs of a
    convolution if no input were zero, at all T steps, padding included. ann_mac: MACs at T = 1, padding not multiplied.
    saturated: ACs if every neuron fired at every virtual step. nonzero, inputs: elements of a convolution's input, of
    all T steps, non-zero and all. words, bits: numbers and spikes read and written, weights among them; ann_words:
    numbers at T = 1; weights: the weights alone (see MEMORY_MODEL).
    """

    name: str
    kind: LayerKind
    cause: Cause
    precision: Precision = "fp32"
    spikes: int = 0
    neurons: int = 0
    mac: int = 0
    ac: int = 0
    dense: int = 0
    ann_mac: int = 0
    nonzero: int = 0
    inputs: int = 0
    saturated: int = 0
    words: int = 0
    bits: int = 0
    ann_words: int = 0
    weights: int = 0

    @property
    def membrane_updates(self) -> int:
        """Neurons x T."""
        return self.mac if self.kind == "neuron" else 0

    @property
    def state_words(self) -> int:
        """Membrane potentials read and written between steps: a neuron's other words are its inputs."""
        return self.words - self.mac if self.kind == "neuron" else 0

    def memory_bits(self, costs: EnergyCosts) -> int:
        """By MEMORY_MODEL."""
        return (self.words - self.state_words) * costs.word_bits + self.state_words * costs.sum_bits + self.bits

    def no_reuse_bits(self, costs: EnergyCosts) -> int:
        """By NO_REUSE_MODEL."""
        if self.kind == "neuron":
            return self.state_words * costs.sum_bits
        return self.ac * (costs.word_bits + 2 * costs.sum_bits) + 2 * self.mac * costs.word_bits

    def strict_mj(self, costs: EnergyCosts) -> float:
        """MACs and ACs as counted."""
        return (self.mac * costs.pj_mac + self.ac * costs.pj_ac) * MJ_PER_PJ

    def added(self, other: LayerActivity) -> LayerActivity:
        """The same layer over more pictures."""
        sums: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in COUNTS}
        return replace(self, **sums)

    def spike_rate(self, virtual_steps: int) -> float | None:
        """Spikes / (neurons x T x D), or None where the layer has no neurons."""
        return self.spikes / (self.neurons * virtual_steps) if self.neurons else None


COUNTS = tuple(field.name for field in fields(LayerActivity) if field.type == "int")


@dataclass(frozen=True)
class Activity:
    """Every layer's activity for one picture, or for several added up by `total`.

    virtual_steps: T x D, how often each neuron could have fired.
    """

    virtual_steps: int
    layers: tuple[LayerActivity, ...]

    @property
    def spikes(self) -> int:
        return sum(layer.spikes for layer in self.layers)

    @property
    def neurons(self) -> int:
        return sum(layer.neurons for layer in self.layers)

    @property
    def spike_rate(self) -> float:
        """All spikes / all virtual neuron-steps."""
        return self.spikes / max(self.neurons * self.virtual_steps, 1)

    @property
    def spike_rates(self) -> dict[str, float]:
        """Of each neuron layer, in the order of the data."""
        return {
            layer.name: layer.spikes / (layer.neurons * self.virtual_steps) for layer in self.layers if layer.neurons
        }

    @property
    def mac(self) -> int:
        return sum(layer.mac for layer in self.layers)

    @property
    def ac(self) -> int:
        return sum(layer.ac for layer in self.layers)

    @property
    def fixed_ac(self) -> int:
        """Accumulations of the neurons themselves, which silence does not save."""
        return sum(layer.ac for layer in self.layers if layer.kind == "neuron")

    @property
    def pixels(self) -> int:
        """Pixels that went through the network, overlap and padding included."""
        # three numbers each, whatever the patches
        return sum(layer.inputs for layer in self.layers if layer.kind == "embedding") // 3

    def energy(self, costs: EnergyCosts = EnergyCosts()) -> Energy:
        """All figures at these costs."""
        spike_only = 0.0
        for layer in self.layers:
            if layer.kind == "embedding":
                spike_only += layer.mac * costs.pj_mac
            elif layer.kind == "conv":
                spike_only += layer.dense * layer.nonzero / max(layer.inputs, 1) * costs.pj_ac
        ann_mac = sum(layer.ann_mac for layer in self.layers)
        saturated = sum(layer.saturated for layer in self.layers)
        memory_bits = sum(layer.memory_bits(costs) for layer in self.layers)
        no_reuse_bits = sum(layer.no_reuse_bits(costs) for layer in self.layers)
        ann_memory_bits = sum(layer.ann_words for layer in self.layers) * costs.word_bits
        weight_bits = sum(layer.weights for layer in self.layers) * costs.word_bits
        as_run = [layer.strict_mj(AS_RUN[layer.precision]) for layer in self.layers if layer.precision != "unknown"]
        return Energy(
            strict_mj=(self.mac * costs.pj_mac + self.ac * costs.pj_ac) * MJ_PER_PJ,
            spike_only_mj=spike_only * MJ_PER_PJ,
            ann_mj=ann_mac * costs.pj_mac * MJ_PER_PJ,
            ann_int8_mj=ann_mac * PRESETS["int8-45nm"].pj_mac * MJ_PER_PJ,
            dense_snn_mj=(self.mac * costs.pj_mac + saturated * costs.pj_ac) * MJ_PER_PJ,
            memory_mj=memory_bits * PJ_PER_BIT * MJ_PER_PJ,
            ann_memory_mj=ann_memory_bits * PJ_PER_BIT * MJ_PER_PJ,
            memory_no_reuse_mj=no_reuse_bits * PJ_PER_BIT * MJ_PER_PJ,
            ann_memory_no_reuse_mj=2 * ann_mac * costs.word_bits * PJ_PER_BIT * MJ_PER_PJ,
            weights_dram_mj=weight_bits * (PJ_PER_DRAM_BIT - PJ_PER_BIT) * MJ_PER_PJ,
            as_run_mj=sum(as_run) if len(as_run) == len(self.layers) else None,
        )

    def by_cause(self, costs: EnergyCosts = EnergyCosts()) -> dict[Cause, float]:
        """The strict figure in millijoules, split over CAUSES."""
        shares = dict.fromkeys(CAUSES, 0.0)
        for layer in self.layers:
            shares[layer.cause] += layer.strict_mj(costs)
        return shares


def break_even_rate(activity: Activity, energy: Energy, costs: EnergyCosts) -> float | None:
    """The spike rate at which the strict figure would equal the ordinary network's; 1 if it is below at any rate.

    Accumulations are known at three rates, and grow evenly in between: in silence those of the neurons themselves,
    those counted, and those of all neurons firing. None if silence alone costs more.
    """
    silence = (activity.mac * costs.pj_mac + activity.fixed_ac * costs.pj_ac) * MJ_PER_PJ
    counted, all_firing, left = (mj - silence for mj in (energy.strict_mj, energy.dense_snn_mj, energy.ann_mj))
    rate = activity.spike_rate
    if left < 0:
        return None
    if left >= all_firing:
        return 1.0
    if left >= counted:
        return rate + (1 - rate) * (left - counted) / (all_firing - counted)
    return rate * left / counted


def total(activities: Iterable[Activity]) -> Activity:
    """Several pictures' activity by one network, added up: rates then divide the sums once, as they should."""
    virtual_steps, sums = 1, dict[str, LayerActivity]()
    for activity in activities:
        virtual_steps = activity.virtual_steps
        for layer in activity.layers:
            sums[layer.name] = layer.added(sums[layer.name]) if layer.name in sums else layer
    return Activity(virtual_steps, tuple(sums.values()))


def total_energy(activities: Iterable[Activity], costs: EnergyCosts = EnergyCosts()) -> Energy:
    """The sum of their energies, which is not that of their sum: spike-only is no sum over layers."""
    figures = zip(*(astuple(activity.energy(costs)) for activity in activities))
    sums: list[Any] = [None if None in figure else sum(figure) for figure in figures]
    return Energy(*sums)
