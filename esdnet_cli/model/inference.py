"""Where and how precisely the network computes."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Literal

import torch
from torch import Tensor, nn

from esdnet_cli.errors import EsdnetError
from esdnet_cli.model.network import ESDNet

Precision = Literal["fp32", "bf16"]
_CPU_BATCH_BYTES = 16 * 2**20  # the widest activation of a batch: larger batches leave the cache and gain nothing
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


def choose_precision(name: str, device: torch.device) -> Precision:
    """`auto` is fp32. Raises EsdnetError if the device cannot compute in bf16."""
    if name == "bf16":
        if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise EsdnetError(f"--precision bf16: {torch.cuda.get_device_name(device)} has no bfloat16; use fp32")
        return "bf16"
    if name not in ("auto", "fp32"):
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


class Inference:
    """A network placed on a device in a precision: rainy float32 [N, 3, H, W] on the CPU -> derained, the same."""

    def __init__(self, network: ESDNet, device: torch.device, precision: Precision) -> None:
        self.network = network.to(device)
        self.device = device
        self.precision = precision
        if precision == "bf16":
            for module in network.modules():
                # batch-norm statistics stay in float32: rounding them shifts whole channels
                if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                    module.to(torch.bfloat16)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        images = images.to(self.device)
        # TF32 would round float32 to 10 bits, and a spike flips where that crosses the threshold
        # and an algorithm picked by timing would flip others from run to run
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            return self.network(images).float().cpu()
