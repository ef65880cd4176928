"""Where and how precisely the network computes."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Literal

import torch
from torch import Tensor, nn

from esdnet_cli.errors import EsdnetError
from esdnet_cli.model.layers import LIF, SeqConv2d, TDBatchNorm2d
from esdnet_cli.model.network import ESDNet

Precision = Literal["fp32", "bf16"]
_CPU_BATCH_BYTES = 30 * 2**20  # the widest activation of a batch: what `keep_freed_memory` still keeps
_ACTIVATIONS = 12  # how many activations of that size the pass holds at once, generously
_MOST_TILES = 64
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """`auto` (CUDA, else MPS, else CPU), `cpu`, `cuda`, `cuda:N` or `mps`. Raises EsdnetError if it is not there.

    local_rank: which of several processes on this machine asks; each takes a CUDA device of its own.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    if name == "cuda" and local_rank:
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps") or (device.type != "cuda" and device.index):
        raise EsdnetError(f"--device {name}: no such device; use auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and not cuda:
        raise EsdnetError(f"--device {name}: no CUDA device is available here; use --device auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EsdnetError(f"--device {name}: there are {torch.cuda.device_count()} CUDA devices, counted from cuda:0")
    if device.type == "mps" and not mps:
        raise EsdnetError(f"--device {name}: no Apple GPU is available here; use --device auto or cpu")
    return device


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; emulated it would be slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and supported is not None and bool(supported())


def choose_precision(name: str, device: torch.device, bf16_is_close: bool = False) -> Precision:
    """`auto` is bf16 where that is close to fp32 and the device has it, fp32 elsewhere.

    bf16_is_close: what was measured of the checkpoint says so. Raises EsdnetError if the device cannot compute in bf16.
    """
    if name == "auto":
        return "bf16" if bf16_is_close and has_bf16(device) else "fp32"
    if name == "bf16":
        if device.type == "cuda" and not has_bf16(device):
            raise EsdnetError(f"--precision bf16: {torch.cuda.get_device_name(device)} has no bfloat16; use fp32")
        return "bf16"
    if name != "fp32":
        raise EsdnetError(f"--precision {name}: no such precision; use auto, fp32 or bf16")
    return "fp32"


def choose_batch(network: ESDNet, height: int, width: int, device: torch.device) -> int:
    """How many tiles [3, height, width] to run at once: to the cache on a CPU, to the free memory on a GPU."""
    config = network.config
    widest = config.timesteps * 2 * config.dim * height * width * 4  # bytes of float32 at the last level, one tile
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return max(1, min(_MOST_TILES, free // 2 // (widest * _ACTIVATIONS)))
    return max(1, min(_MOST_TILES, _CPU_BATCH_BYTES // widest))


def keep_freed_memory() -> None:
    """Let glibc keep what it frees for the next layer, instead of fetching fresh pages; elsewhere nothing happens.

    For a whole process, so it is a command's to call: freed memory of up to 512 MiB stays with it.
    """
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for parameter, size in ((_M_MMAP_THRESHOLD, 32), (_M_TRIM_THRESHOLD, 512), (_M_TOP_PAD, 64)):
            mallopt(parameter, size * 2**20)


def lower(network: ESDNet) -> None:
    """Let the network compute in bfloat16, in place, where that costs no quality: in convolutions of spikes, exact but
    for their weights and sums, and in those of the refinement. Batch norm is folded into them, channels come last."""
    network.requires_grad_(False)
    for sequence in list(network.modules()):
        if isinstance(sequence, nn.Sequential):
            for index, (conv, norm) in enumerate(zip(sequence, list(sequence)[1:]), start=1):
                if isinstance(conv, SeqConv2d) and isinstance(norm, TDBatchNorm2d):
                    _fold(conv, norm)
                    sequence[index] = nn.Identity()
    for neurons in network.modules():
        if isinstance(neurons, LIF):
            neurons.spike_dtype = torch.bfloat16
    spiking = (module for module in network.modules() if isinstance(module, SeqConv2d))
    for conv in (*spiking, *network.refinement.sa):
        if isinstance(conv, nn.Conv2d):
            conv.to(torch.bfloat16)
            conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)


def _fold(conv: SeqConv2d, norm: TDBatchNorm2d) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    conv.weight.data *= scale[:, None, None, None]
    conv.bias = nn.Parameter(norm.bias - norm.running_mean * scale, requires_grad=False)


class Inference:
    """A network placed on a device in a precision: rainy float32 [N, 3, H, W] on the CPU -> derained, the same."""

    def __init__(self, network: ESDNet, device: torch.device, precision: Precision) -> None:
        self.network = network.to(device)
        self.device = device
        self.precision = precision
        if precision == "bf16":
            lower(network)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        images = images.to(self.device)
        # TF32 would round float32 to 10 bits, and a spike flips where that crosses the threshold
        # and an algorithm picked by timing would flip others from run to run
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            if self.precision == "bf16":
                images = images.contiguous(memory_format=torch.channels_last)
            return self.network(images).float().cpu()
