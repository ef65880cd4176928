"""Operations counted against other ways of counting: by hand, by brute force, by a convolution with ones."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import replace
from unittest import mock

import peer
import pytest
import torch
from conftest import INTEGER, TINY, TWO_STEPS, tiny_network
from torch.nn import functional as F

from esdnet_cli.energy.cost import PRESETS, Activity, EnergyCosts, LayerActivity, break_even_rate, total
from esdnet_cli.energy.counter import ActivityCounter
from esdnet_cli.energy.spikemap import SpikeMapper
from esdnet_cli.energy.spikes import count_nonzero, fan_out, over_rows, spikes_by_place
from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.model.layers import LIF
from esdnet_cli.model.low_precision import int8_works, lower
from esdnet_cli.model.network import ESDNet
from esdnet_cli.model.replay import Replays, _recording

DRIVEN, REAL = ("conv", "spike-driven convolutions"), ("conv", "real-valued shortcuts")


@pytest.mark.parametrize("size, kernel, stride", [*itertools.product((1, 2, 3, 7, 8), (1, 3), (1, 2))])
def test_fan_out_equals_brute_force(size: int, kernel: int, stride: int) -> None:
    padding = kernel // 2
    outputs = range((size + 2 * padding - kernel) // stride + 1)
    reach = [sum(0 <= i - (o * stride - padding) < kernel for o in outputs) for i in range(size)]
    assert fan_out(size, kernel, stride, padding).tolist() == reach


def count(network: ESDNet, *images: torch.Tensor) -> dict[str, LayerActivity]:
    with torch.inference_mode(), ActivityCounter(network) as counter:
        for image in images:
            network(image)
    return {layer.name: layer for layer in counter.activity().layers}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.uint8])
@pytest.mark.parametrize("levels", [1, 4, 100])
@pytest.mark.parametrize("size", [(4, 3, 8, 6, 10), (2, 1, 5, 3, 3), (1, 2, 400, 3, 4), (600, 1, 8, 2, 4)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_spikes_of_each_place_in_every_format(
    size: tuple[int, ...], levels: int, dtype: torch.dtype, channels_last: bool
) -> None:
    spikes = (torch.rand(size) < 0.9) * levels  # 600 steps: bytes and bf16 would miscount
    expected = spikes.sum((0, 2))
    if channels_last:
        spikes = spikes.movedim(2, -1).contiguous().movedim(-1, 2)
    assert torch.equal(spikes_by_place(spikes.to(dtype), levels), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("levels", [1, 4, 255])
@pytest.mark.parametrize("tiles", [1, 3, 70])  # of 70 and four levels, bytes cannot hold one row
@pytest.mark.parametrize("size", [(8, 17, 6), (24, 40, 5), (5, 6, 7), (16, 3, 1)])
@pytest.mark.parametrize("convs", [((3, 1, 1),), ((3, 2, 1),), ((1, 1, 0), (3, 1, 1)), ((5, 3, 2), (3, 2, 1))])
def test_how_far_spikes_reach_in_every_layout(
    size: tuple[int, ...], tiles: int, levels: int, convs: tuple[tuple[int, int, int], ...], dtype: torch.dtype
) -> None:
    spikes = torch.randint(levels + 1, (2, tiles, *size)).double()
    expected = [spikes.sum()]
    for kernel, stride, padding in convs:
        ones = torch.ones(1, size[0], kernel, kernel, dtype=torch.float64)
        expected.append(torch.conv2d(spikes.flatten(0, 1), ones, stride=stride, padding=padding).sum())
    for layout in (torch.contiguous_format, torch.channels_last):
        fired = spikes.flatten(0, 1).to(dtype).contiguous(memory_format=layout).unflatten(0, (2, tiles))
        by_place, alike = over_rows(fired, levels, convs)
        assert (alike.reaches(by_place.device) * by_place).sum(1).tolist() == [int(value) for value in expected]


def test_more_spikes_of_one_place_than_float32_counts() -> None:
    spikes = torch.full((255, 1, 301, 1, 2), 255.0)
    assert spikes_by_place(spikes, 255).tolist() == [[[255 * 301 * 255] * 2]]


@pytest.mark.parametrize(
    "config",
    [TINY, dataclasses.replace(TINY, shortcut="spike"), INTEGER, TWO_STEPS],
    ids=["membrane", "spike", "integer", "two steps"],
)
def test_accumulations_equal_a_convolution_of_the_spikes_with_ones(config: ESDNetConfig) -> None:
    network = tiny_network(config)
    modules = dict(network.named_modules())
    driven = network.spiking_convs()
    spikes: dict[str, torch.Tensor] = {}
    for name in driven:
        modules[name].register_forward_hook(lambda _, __, out, name=name: spikes.__setitem__(name, out.flatten(0, 1)))
    layers = count(network, torch.rand(2, 3, 16, 24))
    for neuron, convs in driven.items():
        for name in convs:
            conv = modules[name]
            ones = torch.ones_like(conv.weight, dtype=torch.float64)
            reached = F.conv2d(spikes[neuron].double(), ones, stride=conv.stride, padding=conv.padding)
            assert layers[name].ac == int(reached.sum()), name
            assert layers[name].mac == 0
        assert layers[neuron].spikes == int(spikes[neuron].sum()) > 0


def test_everything_of_a_tiny_network_by_hand() -> None:
    network = tiny_network()
    layers = count(network, torch.rand(1, 3, 8, 12))
    pixels, d, steps = 8 * 12, TINY.dim, TINY.virtual_steps
    assert layers["patch_embed.proj"].mac == pixels * 3 * d * 9  # once: every step sees the same picture
    block = "encoder_level1.0"
    assert layers[f"{block}.shortcut.0"].mac == pixels * d * d * 9  # once, too: its steps are equal
    assert layers["decoder_level1.0.shortcut.0"].mac == steps * pixels * (2 * d) ** 2 * 9
    assert layers[f"{block}.residual.0"].neurons == pixels * d
    assert layers[f"{block}.residual.0"].mac == steps * pixels * d  # membrane updates
    assert layers[f"{block}.attn.ta.sharedMLP.0"].mac == layers[f"{block}.attn.ta.sharedMLP.2"].mac == 2 * steps
    assert layers[f"{block}.attn.ca.sharedMLP.0"].mac == 2 * d  # mean and maximum, one hidden channel
    assert layers[f"{block}.attn.sa.conv"].mac == pixels * 2 * 9
    assert layers[f"{block}.attn"].mac == 3 * steps * pixels * d  # temporal, channel, spatial products
    assert layers["down1_2.maxpool_conv.0"].neurons == pixels * d
    assert layers["up3_2.up.0"].neurons == pixels // 4 * 4 * d
    assert layers["refinement.sa.0"].mac == pixels * (2 * d) ** 2 * 9
    assert layers["refinement.ca.1"].mac == 2 * d * 2
    assert layers["refinement"].mac == 2 * pixels * 2 * d
    assert layers["output.0"].mac == pixels * 2 * d * 3 * 9
    network.refinement.uniform = True  # (1 - f) a is the same at every pixel then
    assert count(network, torch.rand(1, 3, 8, 12))["refinement"].mac == (pixels + 1) * 2 * d
    dense = {name: layer.dense for name, layer in layers.items()}
    assert dense["down1_2.maxpool_conv.1"] == steps * pixels // 4 * d * 2 * d * 9
    assert dense["reduce_chan_level2.1"] == steps * pixels // 4 * 4 * d * 2 * d


def test_integer_neurons_and_patches_by_hand() -> None:
    network = tiny_network(INTEGER)
    layers = count(network, torch.rand(1, 3, 16, 24))
    positions, d, levels = 8 * 12, INTEGER.dim, INTEGER.levels
    assert layers["patch_embed.proj"].mac == positions * 12 * d * 9
    neurons = layers["encoder_level1.0.residual.0"]
    assert neurons.neurons == neurons.mac == positions * d
    assert neurons.ac == levels * positions * d  # a comparison and a subtraction in each virtual step
    assert neurons.cause == "membrane updates"
    assert layers["output.0"].mac == positions * 2 * d * 12 * 9
    activity = Activity(INTEGER.virtual_steps, tuple(layers.values()))
    assert activity.spike_rate == activity.spikes / (activity.neurons * 4) < 1
    assert activity.pixels == 16 * 24


def test_published_size_has_the_published_operations() -> None:
    """DESIGN: 492 GMAC for 256x256 over four steps, 333 driven by spikes, 152 real-valued shortcuts."""
    # dense ones grow with the pixels, save for a few pooled ones: 32x32 costs 1/64
    layers = count(ESDNet(ESDNetConfig()).eval(), torch.rand(1, 3, 32, 32)).values()
    spiking = sum(layer.dense for layer in layers if layer.kind == "conv" and not layer.mac)
    shortcuts = sum(layer.dense for layer in layers if ".shortcut." in layer.name)
    assert sum(layer.dense for layer in layers) * 64 / 1e9 == pytest.approx(492, abs=0.5)
    assert spiking * 64 / 1e9 == pytest.approx(333, abs=0.5)
    assert shortcuts * 64 / 1e9 == pytest.approx(152, abs=0.5)


def test_the_ordinary_twin_multiplies_no_padding() -> None:
    """Against a convolution of ones with ones: its sum is the number of products of a real input."""
    network = tiny_network()
    sizes: dict[str, torch.Size] = {}
    convs = {name: module for name, module in network.named_modules() if isinstance(module, torch.nn.Conv2d)}
    for name, conv in convs.items():
        conv.register_forward_pre_hook(lambda _, args, name=name: sizes.__setitem__(name, args[0].shape[-3:]))
    layers = count(network, torch.rand(2, 3, 16, 24))
    for name, conv in convs.items():
        weight = torch.ones_like(conv.weight)
        products = F.conv2d(torch.ones(2, *sizes[name]), weight, stride=conv.stride, padding=conv.padding).double()
        assert layers[name].ann_mac == int(products.sum()), name
        assert layers[name].weights == 2 * conv.weight.numel(), name


def test_the_benchmarks_peer_multiplies_no_padding() -> None:
    network = peer.Peer()
    products = []
    for conv in network.modules():
        if isinstance(conv, torch.nn.Conv2d):
            conv.register_forward_hook(
                lambda conv, args, _: products.append(F.conv2d(args[0] * 0 + 1, conv.weight * 0 + 1, padding=1).sum())
            )
    with torch.inference_mode():
        network(torch.rand(1, 3, 5, 7))
    assert network.macs(5, 7) == sum(map(int, products))


@pytest.mark.parametrize("precision", ["fp32", "bf16", *(["int8"] if int8_works() else [])])
def test_every_layer_says_in_which_number_format_it_ran(precision: str) -> None:
    network = tiny_network(INTEGER)
    if precision != "fp32":
        lower(network, precision, others=torch.bfloat16)
    layers = count(network, torch.rand(1, 3, 16, 24))
    formats = {name: layer.precision for name, layer in layers.items()}
    others = "fp32" if precision == "fp32" else "bf16"
    for name in ("encoder_level1.0.residual.1", "encoder_level1.0.shortcut.0", "down1_2.maxpool_conv.1"):
        assert formats[name] == precision
    assert formats["refinement.sa.1"] == formats["output.0"] == others
    for name in ("patch_embed.proj", "encoder_level1.0.residual.0", "encoder_level1.0.attn", "refinement.ca.1"):
        assert formats[name] == "fp32"


def test_passes_add_up_and_a_failed_pass_counts_nothing() -> None:
    network, image = tiny_network(), torch.rand(1, 3, 16, 16)
    once, twice = count(network, image), count(network, image, image)
    assert all(twice[name].ac == 2 * layer.ac and twice[name].mac == 2 * layer.mac for name, layer in once.items())
    assert count(network, torch.cat((image, image))) == twice

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    with torch.inference_mode(), ActivityCounter(network) as counter:
        handle = network.refinement.register_forward_hook(fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            network(image)
        handle.remove()
        network(image)
    assert {layer.name: layer for layer in counter.activity().layers} == once


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_counted_pass_asks_nothing_of_the_device(precision: str) -> None:
    """A device without data raises where the host would have to wait for a value, or mixes devices."""
    network = tiny_network()
    if precision == "bf16":
        lower(network, precision, others=torch.bfloat16)
    network.to("meta")
    images = torch.empty(2, 3, 16, 24, device="meta")
    with torch.inference_mode(), ActivityCounter(network) as counter, SpikeMapper(network, network) as mapper:
        for _ in range(2):
            assert mapper(images).device == images.device
    with pytest.raises(RuntimeError, match="no data"):
        counter.activity()


def test_zeros_are_counted_before_anything_is_written_over_them() -> None:
    network = tiny_network(INTEGER)
    entered: list[torch.Tensor] = []
    network.refinement.sa[0].register_forward_pre_hook(lambda _, args: entered.append(args[0].clone()))
    layers = count(network, torch.zeros(1, 3, 16, 24))
    assert layers["refinement.sa.0"].nonzero == int(entered[0].count_nonzero()) < entered[0].numel()


@pytest.mark.parametrize("layout", ["planes", "channels last", "equal steps"])
def test_nonzero_values_are_counted_in_any_layout(layout: str) -> None:
    x = torch.randn(2, 3, 5, 8, 12).relu()
    if layout == "channels last":
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    if layout == "equal steps":
        x = x[0].expand(4, -1, -1, -1, -1)
    assert count_nonzero(x) == torch.count_nonzero(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_negative_zero_is_a_zero(dtype: torch.dtype) -> None:
    assert count_nonzero(torch.tensor([-0.0, 0.0, -1e-7, 3.0, -2.0], dtype=dtype)[None, :, None]) == 3


def test_leaving_the_counter_leaves_no_hook() -> None:
    network = tiny_network()
    with ActivityCounter(network):
        pass
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())
    assert hooks == 0


def test_silent_and_saturated_neurons() -> None:
    drive = -1.0
    network = tiny_network()
    for module in network.modules():
        if isinstance(module, LIF):
            module.register_forward_pre_hook(lambda _, args: (torch.full_like(args[0], drive),))
    image = torch.rand(1, 3, 16, 16)
    silent = count(network, image)
    assert sum(layer.ac + layer.spikes for layer in silent.values()) == 0
    drive = 1.0
    saturated = count(network, image)
    assert all(layer.spike_rate(TINY.virtual_steps) in (None, 1) for layer in saturated.values())
    for name, layer in saturated.items():
        assert layer.ac == layer.saturated == silent[name].saturated, name
    energies = [Activity(TINY.virtual_steps, tuple(layers.values())).energy() for layers in (silent, saturated)]
    assert energies[0].strict_mj < energies[0].dense_snn_mj == energies[1].strict_mj


def test_causes_name_every_layer_and_add_up() -> None:
    network = tiny_network()
    layers = count(network, torch.rand(1, 3, 16, 16))
    activity = Activity(TINY.virtual_steps, tuple(layers.values()))
    causes = {
        "patch_embed.proj": "embedding",
        "encoder_level1.0.residual.0": "membrane updates",
        "encoder_level1.0.residual.1": "spike-driven convolutions",
        "encoder_level1.0.shortcut.0": "real-valued shortcuts",
        "encoder_level1.0.attn": "attention",
        "encoder_level1.0.attn.ta.sharedMLP.0": "attention",
        "refinement": "refinement and output",
        "refinement.sa.0": "refinement and output",
        "output.0": "refinement and output",
    }
    assert {name: layers[name].cause for name in causes} == causes
    shares = activity.by_cause()
    assert all(share > 0 for share in shares.values())
    assert sum(shares.values()) == pytest.approx(activity.energy().strict_mj, rel=1e-12)
    assert activity.pixels == 16 * 16
    driven = count(tiny_network(INTEGER), torch.rand(1, 3, 16, 16))["encoder_level1.0.shortcut.0"]
    assert driven.cause == "spike-driven convolutions", "where spikes drive the shortcut"


def test_memory_traffic_of_a_tiny_network_by_hand() -> None:
    layers = count(tiny_network(), torch.rand(2, 3, 8, 12))  # two tiles
    pixels, d, steps = 2 * 8 * 12, TINY.dim, TINY.virtual_steps
    embedding = layers["patch_embed.proj"]
    assert embedding.words == embedding.ann_words == 2 * d * 3 * 9 + pixels * (3 + d)
    neuron = layers["encoder_level1.0.residual.0"]  # input, potential written and read between steps; a spike is a bit
    assert (neuron.words, neuron.bits) == ((steps + 2 * (steps - 1)) * pixels * d, steps * pixels * d)
    assert (neuron.state_words, neuron.ann_words) == (2 * (steps - 1) * pixels * d, 2 * pixels * d)
    conv = layers["encoder_level1.0.residual.1"]
    weights = 2 * d * d * 9
    assert (conv.words, conv.bits) == (weights + steps * pixels * d, steps * pixels * d)
    assert conv.ann_words == weights + 2 * pixels * d
    first = layers["encoder_level1.0.shortcut.0"]  # of equal steps
    assert (first.words, first.ann_words) == (weights + 2 * pixels * d, weights + 2 * pixels * d)
    later = layers["decoder_level1.0.shortcut.0"]
    assert (later.words, later.ann_words) == (4 * weights + 4 * steps * pixels * d, 4 * weights + 4 * pixels * d)
    attention = layers["encoder_level1.0.attn.ta.sharedMLP.0"]  # mean and maximum, each T -> 1, by the same weights
    assert (attention.words, attention.ann_words) == (2 * (steps + 2 * (steps + 1)), 2 * (1 + 2 * (1 + 1)))
    energy = Activity(steps, (conv,)).energy(EnergyCosts(word_bits=16))
    assert energy.memory_mj == pytest.approx((conv.words * 16 + conv.bits) * 100 / 64 * 1e-9)
    assert energy.ann_memory_mj == pytest.approx(conv.ann_words * 16 * 100 / 64 * 1e-9)
    assert energy.weights_dram_mj == pytest.approx(weights * 16 * (1300 - 100) / 64 * 1e-9)
    energy = Activity(steps, (neuron, conv, first)).energy()  # nothing reused: 50 pJ for 32 bits
    words = 3 * conv.ac + 2 * first.mac + 2 * (steps - 1) * pixels * d
    assert energy.memory_no_reuse_mj == pytest.approx(words * 50e-9)
    assert energy.ann_memory_no_reuse_mj == pytest.approx(2 * (conv.ann_mac + first.ann_mac) * 50e-9)


@pytest.mark.parametrize("sum_bits, once, no_reuse", [
    (8, 100 * 8 + 40, (7 * 3 + 5 * 2 + 60) * 8),
    (32, 40 * 8 + 60 * 32 + 40, 7 * (8 + 2 * 32) + 5 * 2 * 8 + 60 * 32),
])  # fmt: skip
def test_sums_and_states_are_as_wide_as_they_are_added_up(sum_bits: int, once: int, no_reuse: int) -> None:
    layers = (
        LayerActivity("lif", "neuron", "membrane updates", neurons=10, mac=40, words=100, bits=40),  # 60 of the state
        LayerActivity("conv", *DRIVEN, ac=7),
        LayerActivity("shortcut", *REAL, mac=5, ann_mac=3),
    )
    energy = Activity(4, layers).energy(EnergyCosts(word_bits=8, sum_bits=sum_bits))
    assert energy.memory_mj == pytest.approx(once * 100 / 64 * 1e-9)
    assert energy.memory_no_reuse_mj == pytest.approx(no_reuse * 50 / 32 * 1e-9)
    assert energy.ann_memory_no_reuse_mj == pytest.approx(3 * 2 * 8 * 50 / 32 * 1e-9), (
        "the twin's sums stay where they are"
    )


def test_an_integer_neuron_of_one_step_keeps_no_state() -> None:
    for config, accesses in ((INTEGER, 0), (TWO_STEPS, 2)):
        neuron = count(tiny_network(config), torch.rand(1, 3, 16, 24))["encoder_level1.0.residual.0"]
        assert neuron.state_words == accesses * neuron.neurons, "only between steps"
        assert neuron.words == neuron.neurons * (config.timesteps + accesses)


def test_break_even_rate_by_hand() -> None:
    layers = (
        LayerActivity("embed", "embedding", "embedding", mac=100, dense=100, ann_mac=100, inputs=30),
        LayerActivity("lif", "neuron", "membrane updates", spikes=8, neurons=10, mac=40),
        LayerActivity("conv", *DRIVEN, ac=80, dense=400, ann_mac=100, nonzero=8, inputs=40, saturated=300),
    )

    def rate(pj_ac: float, *counted: LayerActivity) -> float | None:
        activity, costs = Activity(4, counted or layers), EnergyCosts(pj_ac=pj_ac)
        return break_even_rate(activity, activity.energy(costs), costs)

    # ann 200 MACs; ours 140 MACs, which leaves 60 * 4.6 pJ for accumulations: 80 were made at a rate of 0.2, and 300 if
    # all neurons fired
    assert rate(6.9) == pytest.approx(0.2 * 276 / (80 * 6.9))
    assert rate(1.2) == pytest.approx(0.2 + 0.8 * (276 - 80 * 1.2) / (300 * 1.2 - 80 * 1.2))
    assert rate(0.9) == 1, "all 300 cost less than what is left"
    assert rate(0) == 1, "accumulations cost nothing"
    silent = (layers[0], replace(layers[1], spikes=0), replace(layers[2], ac=0, nonzero=0))
    assert rate(1.2, *silent) == pytest.approx(276 / (300 * 1.2))
    # an integer neuron compares whatever it fires: 200 - 140 MACs and 40 of its ACs are left
    integer = replace(layers[1], ac=40, saturated=40)
    assert rate(3, layers[0], integer, layers[2]) == pytest.approx(0.2 * (276 - 40 * 3) / (80 * 3))
    shortcut = LayerActivity("shortcut", *REAL, mac=400, dense=400, ann_mac=100)
    assert rate(0.9, *layers, shortcut) is None, "the MACs alone cost more"


def test_presets_are_horowitz() -> None:
    assert {
        "fp32-45nm": EnergyCosts(4.6, 0.9, 32, 32),
        "fp16-45nm": EnergyCosts(1.5, 0.4, 16, 16),
        "int8-45nm": EnergyCosts(0.23, 0.03, 8, 8),
        "int8-sum32-45nm": EnergyCosts(0.3, 0.1, 8, 32),
    } == {name: replace(costs, pj_mac=round(costs.pj_mac, 9)) for name, costs in PRESETS.items()}


def test_three_figures_by_hand() -> None:
    activity = Activity(
        virtual_steps=4,
        layers=(
            LayerActivity("embed", "embedding", "embedding", mac=1000, dense=1000, ann_mac=1000, inputs=30),
            LayerActivity("lif", "neuron", "membrane updates", spikes=2, neurons=5, mac=20),
            # two spikes that reach three outputs each: six accumulations
            LayerActivity("conv", *DRIVEN, ac=6, dense=400, ann_mac=100, nonzero=2, inputs=20),
            LayerActivity("shortcut", *REAL, mac=400, dense=400, ann_mac=100, nonzero=15, inputs=20),
            LayerActivity("attn", "product", "attention", mac=60, ann_mac=15),
        ),
    )
    assert activity.spike_rate == 2 / (5 * 4)
    assert (activity.mac, activity.ac) == (1480, 6)
    energy = activity.energy()
    assert energy.strict_mj == pytest.approx((1480 * 4.6 + 6 * 0.9) * 1e-9)
    assert energy.spike_only_mj == pytest.approx((1000 * 4.6 + (400 * 2 / 20 + 400 * 15 / 20) * 0.9) * 1e-9)
    assert energy.ann_mj == pytest.approx(1215 * 4.6e-9)
    assert energy.ann_int8_mj == pytest.approx(1215 * 0.23e-9)
    free = activity.energy(EnergyCosts(pj_mac=0, pj_ac=1))
    assert free.strict_mj == pytest.approx(6e-9)


def test_totals_divide_sums_once() -> None:
    small = Activity(1, (LayerActivity("lif", "neuron", "membrane updates", spikes=1, neurons=1),))
    large = Activity(1, (LayerActivity("lif", "neuron", "membrane updates", spikes=0, neurons=99),))
    assert total([small, large]).spike_rate == 0.01
    assert not total([]).layers


def test_a_recorded_pass_counts_as_often_as_it_is_replayed() -> None:
    # a CUDA graph leaves hooks out, so each of them must do its part on the CPU by `after_pass`
    network = tiny_network(INTEGER)
    replays = Replays(network, torch.device("cpu"))
    images = torch.rand(2, 3, 16, 24)
    with torch.inference_mode(), ActivityCounter(network) as counter:
        assert replays._within() is not None
        network(images)
        once = counter.activity()
        again: list[Callable[[], None]] = []
        with mock.patch.object(_recording, "following", again):
            network(images)
        assert counter.activity() == once
        for action in again * 2:
            action()
        assert counter.activity().spikes == 3 * once.spikes
        assert [layer.dense for layer in counter.activity().layers] == [3 * layer.dense for layer in once.layers]
    network.register_forward_hook(lambda *_: None)
    assert replays._within() is None
