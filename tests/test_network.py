"""Parity with the published implementation, whose outputs lie in golden/ (`compact-io.safetensors` says how)."""

from __future__ import annotations

import copy
import dataclasses
import json
import platform
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from conftest import GOLDEN, INTEGER, TINY, TWO_STEPS, load_json, tiny_network
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from esdnet_cli.checkpoint.store import load_network, open_checkpoint
from esdnet_cli.energy.counter import ActivityCounter
from esdnet_cli.errors import EsdnetError
from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.model.inference import Inference, Lowered, Precision, choose_precision
from esdnet_cli.model.layers import LIF, MixedAttentionUnit, SeqConv2d, TDBatchNorm2d, folded, unfolded
from esdnet_cli.model.low_precision import FiredLIF, Int8SeqConv2d, QuantisedLIF, int8_works, quantisation_works
from esdnet_cli.model.network import ESDNet, FeatureRefinement
from esdnet_cli.model.neurons import CACHED, integer_lif


def golden(name: str) -> tuple[ESDNet, dict[str, Tensor], dict[str, Any]]:
    """The network that a golden file was computed with, its tensors and its metadata (rates as `spike_rates`)."""
    with safe_open(GOLDEN / name, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = {key: json.loads(text) for key, text in file.metadata().items()}
    metadata.setdefault("spike_rates", metadata.get("rates"))
    weights = "compact-weights.safetensors" if name.startswith("compact") else name.replace("-io", "-weights")
    network = ESDNet(ESDNetConfig.from_dict(metadata["config"]))
    network.load_state_dict(load_network(open_checkpoint(str(GOLDEN / weights))).state_dict())
    return network.eval(), tensors, metadata


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    error = (actual - expected).abs()
    place = [int(index) for index in torch.unravel_index(error.argmax(), error.shape)]
    assert error.max() <= tolerance, f"largest error {error.max():.3g} at {place}, allowed {tolerance}"


def roundings(network: ESDNet) -> Iterator[None]:
    """The network as it is, then with the potential of one layer's neurons moved by what float32 rounds off its sums.

    Processors sum in different orders. Where a potential lies at the threshold, that decides on a spike, and attention
    carries it to every pixel; so a golden output is equalled if it is equalled in one of these states.
    """
    yield
    for layer in [module for module in network.modules() if isinstance(module, LIF)]:
        for rounded in (1e-7, -1e-7):
            hook = layer.register_forward_pre_hook(lambda _, args, rounded=rounded: (args[0] + rounded,))
            yield
            hook.remove()


def assert_equals_golden(network: ESDNet, image: Tensor, expected: Tensor) -> None:
    errors = []
    for _ in roundings(network):
        errors.append(float((network(image).detach() - expected).abs().max()))
        if errors[-1] <= 1e-5:
            return
    raise AssertionError(f"largest error {errors[0]:.3g}, with potentials moved {min(errors):.3g}")


@pytest.mark.parametrize("name", ["compact-io.safetensors", "compact-spike-shortcut-io.safetensors"])
@pytest.mark.parametrize("piece", ["", "whole_"])
@torch.inference_mode()
def test_output_equals_the_published_one(name: str, piece: str) -> None:
    network, tensors, _ = golden(name)
    assert_equals_golden(network, tensors[f"{piece}input"], tensors[f"{piece}output"])


VARIANTS = ["integer-io.safetensors", "integer-two-steps-io.safetensors", "patches-io.safetensors"]


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_output_of_our_variants_equals_the_second_implementation(name: str, gradient: bool) -> None:
    network, tensors, _ = golden(name)
    with torch.set_grad_enabled(gradient):
        assert_equals_golden(network, tensors["input"], tensors["output"])


@pytest.mark.parametrize(
    "name, rated",
    [
        ("compact-io.safetensors", "input"),
        ("compact-spike-shortcut-io.safetensors", "whole_input"),
        *((name, "input") for name in VARIANTS),
    ],
)
@torch.inference_mode()
def test_spike_rates_equal_the_published_ones(name: str, rated: str) -> None:
    network, tensors, metadata = golden(name)
    steps, seen = network.config.virtual_steps, []
    for _ in roundings(network):
        with ActivityCounter(network) as counter:
            network(tensors[rated])
        layers = counter.activity().layers
        seen.append({layer.name: layer.spike_rate(steps) for layer in layers if layer.kind == "neuron"})
        if seen[-1] == pytest.approx(metadata["spike_rates"], abs=1e-6):
            return
    assert seen[0] == pytest.approx(metadata["spike_rates"], abs=1e-6)


def test_published_size_has_the_published_keys() -> None:
    with torch.device("meta"):
        network = ESDNet(ESDNetConfig())
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes == load_json(GOLDEN / "published-keys.json")
    assert len(shapes) == 549
    assert sum(parameter.numel() for parameter in network.parameters()) == 12_811_463


@torch.inference_mode()
def test_pictures_of_a_batch_do_not_touch_each_other() -> None:
    network, images = tiny_network(), torch.rand(3, 3, 16, 20)
    together = network(images)
    assert_close(together, torch.cat([network(image[None]) for image in images]), 1e-5)
    assert torch.equal(together, network(images)), "a second call differs: some state was kept"


@pytest.mark.parametrize("config", [TINY, INTEGER, TWO_STEPS], ids=["published", "integer", "two steps"])
def test_every_parameter_gets_a_gradient(config: ESDNetConfig) -> None:
    network = ESDNet(config).train()
    (network(torch.rand(2, 3, 16, 16)) ** 2).mean().backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not without


def test_tdbn_scales_start_as_published() -> None:
    block = ESDNet(TINY).encoder_level1[0]
    assert block.residual[2].weight.unique().item() == pytest.approx(0.15 / 2**0.5)
    assert block.residual[5].weight.unique().item() == pytest.approx(0.2 * 0.15 / 2**0.5)
    assert block.shortcut[1].weight.unique().item() == pytest.approx(0.15 / 2**0.5)


@pytest.mark.parametrize("shortcut, expected", [("membrane", 0), ("spike", 6)])
def test_spiking_convs_name_what_spikes_drive(shortcut: str, expected: int) -> None:
    network = ESDNet(ESDNetConfig.from_dict({**TINY.to_dict(), "shortcut": shortcut}))
    convs = [conv for names in network.spiking_convs().values() for conv in names]
    assert len(convs) == len(set(convs))
    assert sum(".shortcut.0" in conv for conv in convs) == expected  # TINY has six blocks
    assert {"down1_2.maxpool_conv.1", "up2_1.up.1", "reduce_chan_level2.1"} <= set(convs)


@torch.inference_mode()
def test_autocast_without_gradients_stays_close() -> None:
    network, tensors, _ = golden("compact-io.safetensors")
    with torch.autocast("cpu", torch.bfloat16):
        derained = network(tensors["input"])
    removed = (tensors["output"] - tensors["input"]).abs().mean()
    assert (derained - tensors["output"]).abs().mean() < 0.1 * removed


@torch.inference_mode()
def test_equal_steps_are_computed_once_and_alike() -> None:
    conv, norm = SeqConv2d(3, 5, 3, padding=1, bias=False), TDBatchNorm2d(5).eval()
    x_seq = torch.randn(2, 3, 8, 12).expand(4, -1, -1, -1, -1)
    for layer in (conv, norm):
        each, once = layer(x_seq.contiguous()), layer(x_seq)
        assert once.stride(0) == 0 and torch.equal(once, each)
        x_seq = once


@pytest.mark.parametrize(("steps", "tiles"), [(1, 1), (1, 3), (2, 1)])
def test_folding_steps_keeps_the_layout(steps: int, tiles: int) -> None:
    # by the strides of a batch of one PyTorch tells channels last from planes, and copies where it takes them for these
    x = torch.rand(steps * tiles, 8, 4, 6).contiguous(memory_format=torch.channels_last)
    again = folded(unfolded(x, steps))
    assert unfolded(x, steps).shape == (steps, tiles, 8, 4, 6)
    assert torch.equal(again, x) and again.stride() == x.stride() and again.data_ptr() == x.data_ptr()
    within, gradients = x.clone().requires_grad_() * 1, []
    within.register_hook(gradients.append)
    folded(unfolded(within, steps)).mul(x).sum().backward()
    assert gradients[0].stride() == x.stride(), "nor is the gradient's lost"


@torch.inference_mode()
def test_batch_norm_at_inference_needs_no_memory_of_its_own() -> None:
    norm = TDBatchNorm2d(5).eval()
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 2)
    x_seq = torch.randn(2, 3, 5, 8, 12)
    expected = nn.BatchNorm2d.forward(norm, x_seq.flatten(0, 1)).unflatten(0, (2, 3))
    normed = norm(x_seq)
    assert torch.equal(normed, expected) and normed.data_ptr() == x_seq.data_ptr()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_refinement_a_few_tiles_at_a_time_equals_the_traced_one(layout: torch.memory_format) -> None:
    refinement, x = FeatureRefinement(48), torch.randn(5, 48, 64, 60).contiguous(memory_format=layout)
    before = x.clone()
    assert x[0].numel() > CACHED  # so each tile is a group of its own
    traced = refinement(x).detach()
    with torch.no_grad():
        assert_close(refinement(x), traced, 1e-6)
        refinement.sa.to(torch.bfloat16)
        lowered = refinement(x)
    assert lowered.dtype == refinement(x).dtype == torch.bfloat16, "as the output convolution is lowered, too"
    assert torch.equal(x, before), "the counter still reads it"
    assert_close(lowered.float(), traced, 0.03)


@pytest.mark.parametrize("channels", [32, 48, 64])
@pytest.mark.parametrize("timesteps", [1, 4])
def test_attention_in_place_equals_the_traced_one(timesteps: int, channels: int) -> None:
    unit, shape = MixedAttentionUnit(channels, timesteps), (timesteps, 3, channels, 20, 24)
    first = [torch.randn(shape) for _ in range(3)]
    traced = unit(*first).detach()
    last = [y.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, shape[:2]) for y in first]
    with torch.no_grad():
        torch.testing.assert_close(unit(*last), traced, rtol=0, atol=1e-5)
        torch.testing.assert_close(unit(*first), traced, rtol=0, atol=1e-5)


LOWERED_HERE = [
    "bf16",
    pytest.param("int8", marks=pytest.mark.skipif(not int8_works(), reason="no 8-bit convolution in this PyTorch")),
]


@pytest.mark.parametrize("precision", ["fp32", *LOWERED_HERE])
@torch.inference_mode()
def test_a_gate_that_is_the_same_everywhere_is_not_convolved_for(precision: Precision) -> None:
    network, images = tiny_network(INTEGER), torch.rand(3, 3, 48, 40)
    network.refinement.sa[3].weight.data.zero_()
    inference = Inference(network, torch.device("cpu"), precision)
    called: list[nn.Module] = []
    network.refinement.sa[0].register_forward_hook(lambda module, *_: called.append(module))
    derained = inference(images)
    assert not called
    network.refinement.uniform = False
    # products and sums may be rounded together or apart, and the blend to 8 digits after that
    assert_close(inference(images), derained, 1e-6 if precision == "fp32" else 4e-3)
    assert called


@pytest.mark.parametrize("precision", LOWERED_HERE)
@pytest.mark.parametrize("name", ["compact-io.safetensors", "compact-spike-shortcut-io.safetensors"])
@torch.inference_mode()
def test_lower_precision_stays_close(name: str, precision: Lowered) -> None:
    network, tensors, _ = golden(name)
    lowered = copy.deepcopy(network)
    image, expected = tensors["input"], tensors["output"]
    derained = Inference(lowered, torch.device("cpu"), precision)(image)
    assert (derained - expected).abs().mean() < 0.1 * (expected - image).abs().mean()
    # layer by layer, where no spike can flip: only weights, and in bf16 sums, are rounded
    x = torch.randn(4, 1, 16, 24, 24).mul_(0.3)
    exact = network.down1_2(x)
    rounded = lowered.down1_2(x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (4, 1)))
    assert rounded.dtype == {"bf16": torch.bfloat16, "int8": torch.float32}[precision]
    assert_close(rounded.float(), exact, 0.02 * float(exact.abs().max()))


@pytest.mark.parametrize("precision", LOWERED_HERE)
@pytest.mark.parametrize("name", VARIANTS)
@torch.inference_mode()
def test_lower_precision_of_our_variants_stays_close(name: str, precision: Lowered) -> None:
    network, tensors, _ = golden(name)
    image, expected = tensors["input"], tensors["output"]
    derained = Inference(network, torch.device("cpu"), precision)(image)
    assert (derained - expected).abs().mean() < 0.1 * (expected - image).abs().mean()


def in_8_bits(levels: int) -> Any:
    """A parameter: skipped where 8 bits are missing, or sums of so many spikes overflow."""
    return pytest.param(levels, marks=pytest.mark.skipif(not int8_works(levels), reason="not in 8 bits here"))


def rounded_weight(conv: Int8SeqConv2d) -> torch.Tensor:
    return conv.weight * conv.scale[:, None, None, None]


@pytest.mark.parametrize("levels", [in_8_bits(127), in_8_bits(255)])
@torch.inference_mode()
def test_many_levels_are_exact_in_8_bits(levels: int) -> None:
    config = dataclasses.replace(INTEGER, levels=levels)
    exact, rounded = tiny_network(config), tiny_network(config)
    neurons, conv, _ = exact.down1_2.maxpool_conv
    Inference(rounded, torch.device("cpu"), "int8")
    x = torch.rand(1, 2, 8, 8, 12) * 45  # 0 to 300 thresholds
    spikes = rounded.down1_2.maxpool_conv[0](x)
    assert torch.equal(spikes.float(), neurons(x)) and spikes.max() == levels
    conv8 = rounded.down1_2.maxpool_conv[1]
    expected = F.conv2d(spikes[0].float(), rounded_weight(conv8), conv8.bias, conv.stride, conv.padding)
    channels_last = spikes[0].contiguous(memory_format=torch.channels_last)[None]
    assert_close(conv8(channels_last)[0], expected, 1e-4 * float(expected.abs().max()))


@pytest.mark.skipif(not int8_works(), reason="no 8-bit convolution in this PyTorch")
@pytest.mark.parametrize("kernel_size, stride", [(3, 1), (3, 2), (1, 1)])
@torch.inference_mode()
def test_8_bit_weights_are_rounded_by_channel_and_sums_are_exact(kernel_size: int, stride: int) -> None:
    conv = SeqConv2d(6, 5, kernel_size, stride, kernel_size // 2)
    conv.weight[2] *= 100  # of no consequence to the other channels
    conv.weight[3] = 0
    rounded = Int8SeqConv2d(conv)
    weight = rounded_weight(rounded)
    largest = conv.weight.abs().amax((1, 2, 3), keepdim=True)
    assert ((weight - conv.weight).abs() <= largest / 254 * 1.001).all()
    for batch, height, width in ((1, 8, 12), (3, 21, 7), (2, 5, 5), (1, 8, 12)):  # each packs for its own
        spikes = (torch.rand(2, batch, 6, height, width) < 0.3).to(torch.int8)
        expected = F.conv2d(spikes.flatten(0, 1).float(), weight, conv.bias, stride, kernel_size // 2)
        assert_close(rounded(spikes).flatten(0, 1), expected, 1e-5 * float(largest.max()))


def calls_of(capfd: pytest.CaptureFixture[str], run: Callable[[], object]) -> list[str]:
    """What oneDNN logs while it runs: `weights` put into another order, and `convolution`, in turn."""
    capfd.readouterr()
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        run()
    lines = [line for line in capfd.readouterr().out.splitlines() if ",exec,cpu," in line]
    return [
        "weights" if ",reorder," in line else "convolution"
        for line in lines
        if ",convolution," in line or (",reorder," in line and "src:s8" in line)
    ]


@pytest.mark.skipif(not int8_works(), reason="no 8-bit convolution in this PyTorch")
@torch.inference_mode()
def test_8_bit_weights_are_packed_once_for_a_shape(capfd: pytest.CaptureFixture[str]) -> None:
    """Weights packed for another shape would be put into another order at each call, which is slow."""
    conv = Int8SeqConv2d(SeqConv2d(384, 192, 3, padding=1))
    shared = copy.deepcopy(conv)

    def packed(layer: Int8SeqConv2d, *sizes: int) -> int:
        spikes = [torch.ones(1, size, size, 384, dtype=torch.int8).movedim(-1, 1)[None] for size in sizes]
        calls = calls_of(capfd, lambda: [layer(x) for x in spikes])
        assert calls.count("convolution") == len(sizes)
        return calls.count("weights")

    assert packed(conv, 64, 8) == 2
    assert packed(conv, 64, 8, 64) == 0
    assert packed(shared, 64) == 0, "copies share what is packed"
    assert packed(conv, 16, 64, 8) == 2, "of more than two shapes the oldest makes room"


@pytest.mark.skipif(not int8_works(), reason="no 8-bit convolution in this PyTorch")
@pytest.mark.parametrize("config", [INTEGER, TWO_STEPS, TINY])
def test_all_8_bit_weights_are_packed_before_the_pass(config: ESDNetConfig, capfd: pytest.CaptureFixture[str]) -> None:
    inference = Inference(tiny_network(config), torch.device("cpu"), "int8")
    convs = sum(isinstance(module, Int8SeqConv2d) for module in inference.network.modules())
    for images in (torch.rand(3, 3, 32, 48), torch.rand(1, 3, 16, 32)):
        calls = calls_of(capfd, partial(inference, images))
        assert calls[:convs] == ["weights"] * convs and "weights" not in calls[convs:]
        assert "weights" not in calls_of(capfd, partial(inference, images))


@pytest.mark.parametrize("precision", LOWERED_HERE)
@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2])
@torch.inference_mode()
def test_narrow_convolutions_are_whole(stride: int, width: int, precision: Lowered) -> None:
    """Matrix units leave results of one column unwritten; what freed memory holds is NaN here."""
    conv = SeqConv2d(64, 96, 3, stride, 1)
    for height in (1, 2, 16, 33):
        spikes = torch.randint(0, 5, (3, 64, height, width), dtype=torch.int8).contiguous(
            memory_format=torch.channels_last
        )
        lowered = Int8SeqConv2d(conv) if precision == "int8" else copy.deepcopy(conv).to(torch.bfloat16)
        expected = torch.conv2d(spikes.float(), conv.weight, conv.bias, stride, 1)
        torch.full((2**20,), float("nan"))  # freed at once
        torch.testing.assert_close(lowered(spikes[None])[0].float(), expected, atol=0.1, rtol=0.05)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the 8-bit kernel is for x86")
def test_8_bit_convolutions_work_here() -> None:
    assert int8_works(), "else every test of int8 is skipped, and everybody gets a slower precision"


def test_quantisation_works_here() -> None:
    assert quantisation_works(), "else neurons take three times as long in int8"


@pytest.mark.skipif(not quantisation_works(), reason="no quantisation in this PyTorch")
@pytest.mark.parametrize("levels", [1, 4, 255])
@pytest.mark.parametrize("channels_last", [False, True])
@torch.inference_mode()
def test_quantised_neurons_fire_as_plain_ones(levels: int, channels_last: bool) -> None:
    neurons = QuantisedLIF(levels)
    neurons.spike_dtype = torch.int8 if levels <= 127 else torch.uint8
    x = torch.randn(3, 40, 33, 27) * levels * 0.15
    x[0, 0, 0, :4] = torch.tensor([1e9, -1e9, torch.inf, -torch.inf])
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    fired, expected = neurons(x[None]), integer_lif(x[None], levels, neurons.spike_dtype)
    assert fired.dtype == expected.dtype and fired[0].stride() == expected[0].stride()
    ties = (x[None] / 0.15 % 1 - 0.5).abs() < 1e-4
    assert torch.equal(fired[~ties], expected[~ties]) and ties.float().mean() < 0.01


def test_8_bits_are_refused_where_their_sums_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esdnet_cli.model.low_precision._sums_exactly", lambda levels: levels <= 127)  # without VNNI
    monkeypatch.setattr("esdnet_cli.model.low_precision._has_int8", lambda: True)
    monkeypatch.setattr("torch.cpu._is_vnni_supported", lambda: False)
    monkeypatch.setattr("torch.cpu._is_avx2_supported", lambda: True)
    device = torch.device("cpu")
    for levels in (1, 4, 127):
        assert choose_precision("int8", device, (), levels) == choose_precision("auto", device, ["int8"], levels)
    with pytest.raises(EsdnetError, match=r"--precision int8: .*overflow with 128 spikes at once; use fp32"):
        choose_precision("int8", device, (), 128)
    assert choose_precision("auto", device, ["int8"], 128) == "fp32"


@pytest.mark.parametrize("levels", [in_8_bits(1), in_8_bits(4), in_8_bits(127), in_8_bits(255)])
@torch.inference_mode()
def test_an_8_bit_convolution_fires_what_the_neurons_after_it_would(levels: int) -> None:
    config = dataclasses.replace(INTEGER, levels=levels)
    network = tiny_network(config)
    Inference(network, torch.device("cpu"), "int8")
    block = network.encoder_level1[0]
    neurons, conv, _, passing, *_ = block.residual
    spikes = neurons(torch.randn(2, 8, 12, 20).contiguous(memory_format=torch.channels_last)[None])
    assert isinstance(passing, FiredLIF) and conv(spikes).dtype == spikes.dtype
    fired = passing(conv(spikes))
    sums = F.conv2d(spikes[0].float(), rounded_weight(conv), conv.bias, padding=1)[None]
    assert fired.dtype == spikes.dtype
    off = (fired.float() - integer_lif(sums, levels)).abs()
    assert off.max() <= 1 and off.mean() < 1e-3  # the kernel's sum may lie on the other side of a tie
    assert len(fired.unique()) > 1
    of_two_steps = tiny_network(dataclasses.replace(config, timesteps=2))
    Inference(of_two_steps, torch.device("cpu"), "int8")
    assert not any(isinstance(module, FiredLIF) for module in of_two_steps.modules()), "the next step needs the sum"


@pytest.mark.parametrize("precision", LOWERED_HERE)
@pytest.mark.parametrize("shortcut", ["membrane", "spike"])
@torch.inference_mode()
def test_lower_precision_is_counted_as_it_ran(shortcut: str, precision: Lowered) -> None:
    network = tiny_network(dataclasses.replace(TINY, shortcut=shortcut))
    run = Inference(network, torch.device("cpu"), precision)
    seen: dict[str, int] = {}
    for name, module in network.named_modules():
        if isinstance(module, (LIF, nn.Conv2d)):
            which = (lambda _, out: out) if isinstance(module, LIF) else (lambda args, _: args[0])
            module.register_forward_hook(
                lambda _, args, out, name=name, which=which: seen.__setitem__(
                    name, int(which(args, out).count_nonzero())
                )
            )
    with ActivityCounter(network) as counter:
        run(torch.rand(2, 3, 24, 32))
    layers = {layer.name: layer for layer in counter.activity().layers}
    checked = 0
    for name, layer in layers.items():
        if layer.kind == "neuron":
            assert layer.spikes == seen[name]
            checked += layer.spikes > 0
        elif layer.kind == "conv" and ".attn." not in name and name in seen:  # those of attention run several times
            assert layer.nonzero == seen[name]
            checked += 1
    joint = [name.removesuffix(".joint") for name in seen if name.endswith(".joint")]
    for block in joint:  # two convolutions in one: each is counted by its own spikes, and has its own shape
        first, second = layers[f"{block}.shortcut.0"], layers[f"{block}.residual.4"]
        assert seen[f"{block}.joint"] == first.nonzero + second.nonzero
        assert (first.dense, first.ann_mac) == (second.dense, second.ann_mac)
        assert f"{block}.joint" not in layers
    assert checked > 20 and len(joint) == (6 if shortcut == "spike" else 0)


@pytest.mark.parametrize("precision", LOWERED_HERE)
@torch.inference_mode()
def test_two_convolutions_as_one_add_up(precision: Lowered) -> None:
    network = tiny_network(dataclasses.replace(TINY, shortcut="spike"))
    block = network.encoder_level2[0]
    spikes = [(torch.rand(2, 3, 16, 8, 12) < 0.3).float() for _ in range(2)]
    expected = block.shortcut(spikes[0].clone()) + block.residual[4:](spikes[1].clone())
    Inference(network, torch.device("cpu"), precision)
    both = torch.cat(spikes, dim=2).to(torch.int8 if precision == "int8" else torch.bfloat16)
    assert_close(block.joint(both).float(), expected, 0.01 * float(expected.abs().max()))
