"""Lower precision where it costs no quality: in what spikes drive, only weights and sums are rounded."""

from __future__ import annotations

import threading
import warnings
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from esdnet_cli.model.config import MOST_LEVELS
from esdnet_cli.model.layers import LIF, IntegerLIF, SeqConv2d, TDBatchNorm2d, convolved, folded, unfolded
from esdnet_cli.model.network import LEVELS, ESDNet, SpikingResidualBlock
from esdnet_cli.model.neurons import V_THRESHOLD, integer_lif

_LARGEST = 127  # of a signed 8-bit weight


class _Packings:
    """A convolution's 8-bit weights in the order that its kernel wants for the shapes of the latest inputs.

    Which order that is depends on the shape and on the number of threads. Weights in another order are reordered at
    each call, which on a processor with VNNI alone takes up to five times as long as the convolution. Copies of a
    network share them, whichever thread comes first.

    The first are for any shape, and make room for those of a shape that comes.
    """

    _KEPT = 2  # of a picture's tiles, and of a last batch with fewer or of its smaller copies

    def __init__(self, weight: Tensor, scale: Tensor, window: tuple[Any, ...]) -> None:
        self._plain = (weight, scale, 1.0, 0, *window)
        self._packed: dict[tuple[int, ...], Tensor] = {(): self._pack(None)}
        self._lock = threading.Lock()

    def __call__(self, shape: torch.Size) -> Tensor:
        key = (*shape, torch.get_num_threads())
        with self._lock:
            packed = self._packed.pop(key, None)
            if packed is None:
                if () in self._packed or len(self._packed) == self._KEPT:
                    del self._packed[next(iter(self._packed))]
                packed = self._pack(list(shape))
            self._packed[key] = packed  # the latest is the last
        return packed

    def __deepcopy__(self, memo: dict[int, object]) -> _Packings:
        return self

    def _pack(self, shape: list[int] | None) -> Tensor:
        packed: Tensor = torch.ops.onednn.qconv_prepack(*self._plain, shape)
        return packed


class Int8SeqConv2d(SeqConv2d):
    """A convolution of spikes whose weights have 8 bits and a scale for each output channel; the sums are exact.

    By PyTorch's own kernel for x86 (oneDNN): spikes as bytes in (0 and 1, or integers to 255), float32 out, channels
    last. fires: out come the spikes of the integer neurons that follow, at T = 1, of so many levels (bytes, too): the
    kernel divides, rounds half to even and saturates while it has a sum in its registers. weight: bytes; times the
    `scale` of its output channel, [C], each is what it was rounded to.
    """

    def __init__(self, conv: SeqConv2d, fires: int | None = None) -> None:
        geometry = (conv.kernel_size, conv.stride, conv.padding)
        super().__init__(conv.in_channels, conv.out_channels, *geometry, device="meta")  # type: ignore[arg-type]
        weight = conv.weight.detach()
        self.scale = weight.abs().amax((1, 2, 3)).clamp(min=torch.finfo(torch.float32).tiny) / _LARGEST
        rounded = (weight / self.scale[:, None, None, None]).round().to(torch.int8)
        self.weight = nn.Parameter(rounded, requires_grad=False)
        self.bias = conv.bias
        self._zero = torch.zeros(len(weight), dtype=torch.long)
        self._window: tuple[Any, ...] = (list(conv.stride), [int(p) for p in conv.padding], list(conv.dilation), 1)
        self._packings = _Packings(rounded, self.scale, self._window)
        self._result: tuple[Any, ...] = (1.0, 0, torch.float32, "none", [], "")
        if fires is not None:
            self._result = (V_THRESHOLD, 0, torch.uint8, "hardtanh", [0.0, fires * V_THRESHOLD], "")

    def forward(self, x_seq: Tensor) -> Tensor:
        # unsigned is what the processor multiplies by signed; a view, since a copy from int8 to uint8 is slow
        result = convolved(self, self._sums, folded(x_seq).view(torch.uint8))
        if result.dtype == torch.uint8:
            result = result.view(x_seq.dtype)
        return unfolded(result, len(x_seq))

    def pack(self, shape: torch.Size) -> Tensor:
        """The weights for spikes [N, C, H, W]."""
        return self._packings(shape)

    def _sums(self, spikes: Tensor) -> Tensor:
        packed = self.pack(spikes.shape)
        sums: Tensor = torch.ops.onednn.qconv2d_pointwise(
            spikes, 1.0, 0, packed, self.scale, self._zero, self.bias, *self._window, *self._result
        )
        return sums


class QuantisedLIF(IntegerLIF):
    """Integer neurons at T = 1 by PyTorch's quantisation: divided, rounded half to even and saturated in one pass.

    By a product with 1 / V_THRESHOLD, so ties and their neighbours may differ from `integer_lif`.
    Float32 in, bytes out.
    """

    def forward(self, x_seq: Tensor) -> Tensor:
        quantised = torch.quantize_per_tensor(folded(x_seq), V_THRESHOLD, 0, torch.quint8)
        # the same memory: `int_repr` copies it, which takes longer than the pass itself
        spikes = torch.empty(0, dtype=torch.uint8)
        spikes.set_(quantised.untyped_storage(), 0, quantised.shape, quantised.stride())
        spikes.clamp_(max=self.levels)
        return unfolded(spikes.view(self.spike_dtype or torch.uint8), len(x_seq))


class FiredLIF(IntegerLIF):
    """Integer neurons whose spikes the convolution before them fires: these pass, for hooks to count."""

    def forward(self, x_seq: Tensor) -> Tensor:
        return x_seq


def int8_works(levels: int = 1) -> bool:
    """Whether the kernel sums right here what neurons of so many levels fire.

    It is for x86 only, and no part of PyTorch's stable interface. Without VNNI a processor adds two products in 16
    bits, which saturate beyond 129 levels.
    """
    return _has_int8() and any(levels <= most and _sums_exactly(most) for most in (_LARGEST, MOST_LEVELS))


@lru_cache
def _sums_exactly(levels: int) -> bool:
    conv = SeqConv2d(64, 64, 3, device="meta")  # of a width that the kernel for wide layers takes
    conv.weight, conv.bias = nn.Parameter(torch.ones(conv.weight.shape)), nn.Parameter(torch.zeros(64))
    spikes = torch.full((1, 1, 64, 8, 8), levels, dtype=torch.uint8)
    with torch.inference_mode():
        sums = Int8SeqConv2d(conv)(spikes)
    return torch.allclose(sums, torch.tensor(64.0 * 9 * levels))


@lru_cache(maxsize=1)
def _has_int8() -> bool:
    conv = SeqConv2d(2, 3, 3, padding=1, device="meta")
    weight = torch.linspace(-0.2, 0.3, conv.weight.numel()).view(conv.weight.shape)
    conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(torch.tensor([0.01, 0.02, -0.01]))
    spikes = (torch.arange(50) % 3 == 0).view(1, 1, 2, 5, 5).to(torch.int8)
    try:
        rounded = Int8SeqConv2d(conv)
        with torch.inference_mode():
            weight = rounded.weight * rounded.scale[:, None, None, None]
            expected = nn.functional.conv2d(spikes[0].float(), weight, conv.bias, padding=1)
            fired = Int8SeqConv2d(conv, fires=2)(spikes)
            return torch.allclose(rounded(spikes)[0], expected, rtol=0, atol=1e-4) and torch.equal(
                fired, integer_lif(expected[None], 2, torch.int8)
            )
    except (AttributeError, RuntimeError, TypeError):
        return False


@lru_cache(maxsize=1)
def quantisation_works() -> bool:
    """Whether this PyTorch has what QuantisedLIF is made of: a later one will not."""
    neurons = QuantisedLIF(levels=3)
    neurons.spike_dtype = torch.int8
    potential = torch.linspace(-0.4, 0.8, 24).view(1, 2, 3, 2, 2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*quantize", category=UserWarning)  # said once, here
        try:
            return torch.equal(neurons(potential), integer_lif(potential, 3, torch.int8))
        except (AttributeError, RuntimeError, TypeError):
            return False


def lower(network: ESDNet, precision: str, others: torch.dtype) -> None:
    """Let the network compute in `bf16` or `int8`, in place.

    Spike-driven convolutions take that precision; the other ones of the body, of the refinement and the output take
    `others`. Batch norm is folded into them, two whose results are added become one, channels come last, and what lies
    between stays in float32.
    """
    network.requires_grad_(False)
    _fold_batch_norms(network)
    driven = _join_shortcuts(network)
    if precision == "int8":
        fires = _followed_by_neurons(network)
        for name in driven:
            conv = network.get_submodule(name)
            assert isinstance(conv, SeqConv2d)
            network.set_submodule(name, Int8SeqConv2d(conv, fires.get(conv)))
        _quantise_neurons(network)
        # signed bytes have the faster conversions; both kinds are exact up to their levels
        spike_dtype = torch.int8 if network.config.levels <= _LARGEST else torch.uint8
    else:
        spike_dtype = torch.bfloat16
    for module in network.modules():
        if isinstance(module, LIF):
            module.spike_dtype = spike_dtype
    body = [module for module in network.modules() if isinstance(module, SeqConv2d)]
    for layer in (*body, *network.refinement.sa, *network.output):
        if isinstance(layer, nn.Conv2d) and not isinstance(layer, Int8SeqConv2d):
            layer.to(others)
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)


def pack(network: ESDNet, images: torch.Size) -> None:
    """Pack all 8-bit weights for pictures [N, 3, H, W] at once: amid what layers hand each other they leave gaps."""
    batch, _, height, width = images
    for name, conv in network.named_modules():
        if isinstance(conv, Int8SeqConv2d):
            side = network.config.patch * 2 ** (LEVELS[name.partition(".")[0]] - 1)
            conv.pack(torch.Size((network.config.timesteps * batch, conv.in_channels, height // side, width // side)))


def _fold_batch_norms(network: ESDNet) -> None:
    """Each batch norm of the body goes into the convolution before it."""
    for sequence in network.modules():
        if not isinstance(sequence, nn.Sequential):
            continue
        for index, (conv, norm) in enumerate(zip(sequence, list(sequence)[1:])):
            if isinstance(conv, SeqConv2d) and isinstance(norm, TDBatchNorm2d):
                _fold(conv, norm)
                sequence[index + 1] = nn.Identity()


def _join_shortcuts(network: ESDNet) -> set[str]:
    """A block adds its second and its shortcut convolution; where spikes drive both, one convolution does for the two.

    Returns the names of all convolutions that spikes drive then.
    """
    driven = {name for names in network.spiking_convs().values() for name in names}
    for name, block in list(network.named_modules()):
        if isinstance(block, SpikingResidualBlock) and block.spike_driven:
            parts = f"{name}.shortcut.0", f"{name}.residual.4"
            block.joint = _added(*(network.get_submodule(part) for part in parts))
            driven = driven - {*parts} | {f"{name}.joint"}
    return driven


def _followed_by_neurons(network: ESDNet) -> dict[nn.Module, int]:
    """Convolutions whose sums nothing but integer neurons of one step takes, and these neurons' levels.

    The neurons become such as let pass what the convolution fires.
    """
    fires: dict[nn.Module, int] = {}
    for module in network.modules():
        if isinstance(module, SpikingResidualBlock) and network.config.timesteps == 1:
            _, conv, _, neurons, *_ = module.residual
            if isinstance(neurons, IntegerLIF):
                fires[conv] = neurons.levels
                module.residual[3] = FiredLIF(neurons.levels)
    return fires


def _quantise_neurons(network: ESDNet) -> None:
    """Let integer neurons of one step that fire by themselves do so by quantisation, where there is such."""
    for name, module in list(network.named_modules()):
        # of two steps the next one needs the potential
        if type(module) is IntegerLIF and network.config.timesteps == 1 and quantisation_works():
            network.set_submodule(name, QuantisedLIF(module.levels))


def _added(first: nn.Module, second: nn.Module) -> SeqConv2d:
    """One convolution over the channels of both, for the sum of two. Of these only the shapes stay, to count by."""
    assert isinstance(first, SeqConv2d) and isinstance(second, SeqConv2d)
    assert first.bias is not None and second.bias is not None
    joint = SeqConv2d(2 * first.in_channels, first.out_channels, 3, padding=1, device="meta")
    joint.weight = nn.Parameter(torch.cat((first.weight, second.weight), dim=1), requires_grad=False)
    joint.bias = nn.Parameter(first.bias + second.bias, requires_grad=False)
    for part in (first, second):
        part.to("meta")
    return joint


def _fold(conv: SeqConv2d, norm: TDBatchNorm2d) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    conv.weight.data *= scale[:, None, None, None]
    conv.bias = nn.Parameter(norm.bias - norm.running_mean * scale, requires_grad=False)
