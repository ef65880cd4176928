"""Where and how precisely the network computes."""

from __future__ import annotations

import copy
import ctypes
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from esdnet_cli.errors import EsdnetError
from esdnet_cli.model.low_precision import int8_works, lower, pack
from esdnet_cli.model.network import ESDNet
from esdnet_cli.model.replay import Replays

Lowered = Literal["int8", "bf16"]
Precision = Literal["fp32", Lowered]
LOWERED: tuple[Lowered, ...] = get_args(Lowered)  # the fastest first, where the device has both
_CPU_BATCH_BYTES = 14 * 2**20  # the widest activation of a batch: larger ones cost memory and save little time
_ACTIVATIONS = 12  # how many activations of that size the pass holds at once, generously
_MOST_TILES = 64
_REPLAYED_BYTES = 128 * 2**20  # the widest activation of a batch: of larger ones a GPU has longer than the CPU
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
_one_at_a_time = threading.Lock()


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


def is_fast(precision: Lowered, device: torch.device, levels: int = 1) -> bool:
    """Whether the device multiplies faster in this precision than in float32.

    levels: how many spikes a neuron fires at once; see `int8_works`.
    """
    if device.type == "cuda":
        return precision == "bf16" and torch.cuda.is_bf16_supported(including_emulation=False)
    # AVX2 has three instructions for 32 products of bytes, and one for 8 of float32; VNNI has one for 32
    supported = {"int8": "_is_avx2_supported", "bf16": "_is_avx512_bf16_supported"}[precision]
    has = device.type == "cpu" and bool(getattr(torch.cpu, supported, bool)())
    return has and (_bf16_pays() if precision == "bf16" else int8_works(levels))


@lru_cache(maxsize=1)
def _bf16_pays() -> bool:
    """Whether a convolution takes less time in bfloat16 than in float32 on this CPU, tried once for a few milliseconds.

    The instructions alone do not tell: without matrix units some processors take twice as long with them.
    """
    x, weight = torch.ones(1, 64, 40, 40), torch.ones(64, 64, 3, 3)
    best = {}
    with torch.inference_mode():
        for dtype in (torch.float32, torch.bfloat16):
            picture = x.to(dtype).contiguous(memory_format=torch.channels_last)
            kernel = weight.to(dtype).contiguous(memory_format=torch.channels_last)
            times = []
            for _ in range(8):  # the best of them is one that nobody disturbed
                started = time.perf_counter()
                torch.conv2d(picture, kernel, padding=1)
                times.append(time.perf_counter() - started)
            best[dtype] = min(times)
    return best[torch.bfloat16] < best[torch.float32]


def choose_precision(name: str, device: torch.device, close: Collection[str] = (), levels: int = 1) -> Precision:
    """`auto` is the fastest that the device has and that is close to fp32, else fp32.

    close: what was measured of the checkpoint. levels: its neurons'. Raises EsdnetError if the device cannot compute
    so.
    """
    if name == "auto":
        fast = (precision for precision in LOWERED if precision in close and is_fast(precision, device, levels))
        return next(fast, "fp32")
    if name == "bf16":
        if device.type == "cuda" and not is_fast("bf16", device):
            raise EsdnetError(f"--precision bf16: {torch.cuda.get_device_name(device)} has no bfloat16; use fp32")
        return "bf16"
    if name == "int8":
        if device.type != "cpu":
            raise EsdnetError(f"--precision int8: computes on the CPU, not on {device}; use bf16, fp32 or --device cpu")
        if not int8_works():
            raise EsdnetError("--precision int8: this PyTorch has no 8-bit convolution (x86 only); use bf16 or fp32")
        if not int8_works(levels):
            raise EsdnetError(
                f"--precision int8: this processor's 8-bit sums overflow with {levels} spikes at once; use fp32"
            )
        return "int8"
    if name != "fp32":
        raise EsdnetError(f"--precision {name}: no such precision; use auto, fp32, bf16 or int8")
    return "fp32"


def choose_batch(network: ESDNet, height: int, width: int, device: torch.device, side_by_side: int) -> int:
    """How many tiles [3, height, width] to run at once: on CUDA by its free memory, elsewhere by _CPU_BATCH_BYTES.

    side_by_side: into how many batches of their own these tiles go, at once.
    """
    widest = _widest(network, height, width)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # what PyTorch keeps of the picture before is free for this one, whose batches are to be of the same size
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return max(1, min(_MOST_TILES, free // 2 // (widest * _ACTIVATIONS)))
    return max(1, side_by_side * min(_MOST_TILES, _CPU_BATCH_BYTES // widest))


def _widest(network: ESDNet, height: int, width: int) -> int:
    """Bytes of the widest activation of one tile: float32 at the last level."""
    config = network.config
    return max(config.timesteps * 2 * config.dim * (height * width // config.patch**2) * 4, 1)


def keep_freed_memory() -> None:
    """Let glibc keep what it frees for the next layer, instead of fetching fresh pages; elsewhere nothing happens.

    For a whole process, so it is a command's to call: freed memory of up to 512 MiB stays with it.
    """
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for parameter, size in ((_M_MMAP_THRESHOLD, 32), (_M_TRIM_THRESHOLD, 512), (_M_TOP_PAD, 64)):
            mallopt(parameter, size * 2**20)


def return_freed_memory() -> None:
    """Give back what glibc kept since `keep_freed_memory`, before something large that has other sizes."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class Inference:
    """A network placed on a device in a precision: rainy float32 [N, 3, H, W], from anywhere -> derained on the device.

    A CUDA device is not waited for: `fetch` does that. There passes of few tiles, which take the CPU longer to start
    than the device to run, are recorded and replayed.
    """

    def __init__(self, network: ESDNet, device: torch.device, precision: Precision) -> None:
        self.network = network.to(device)
        self.device = device
        self.precision = precision
        network.refinement.leave_out_idle()
        if precision != "fp32":
            native = precision == "bf16" or is_fast("bf16", device)
            lower(network, precision, others=torch.bfloat16 if native else torch.float32)
        self._replays = Replays(self.network, device)
        self._packed_for: tuple[int, ...] | None = None

    def copy(self) -> Inference:
        """Another one of the same tensors: hooks on its modules see its own passes alone."""
        network = self.network
        own = (value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor))
        shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers(), *own)}
        other = copy.copy(self)
        other.network = copy.deepcopy(network, dict[int, Any](shared))
        other._replays = Replays(other.network, self.device)
        return other

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        cuda = self.device.type == "cuda"
        if cuda and not images.is_cuda:
            images = images.pin_memory()  # copied beside what the CPU does next
        images = images.to(self.device, non_blocking=cuda)
        with exact() if cuda else nullcontext():
            # sums of fp32 depend on the layout
            layout = torch.contiguous_format if self.precision == "fp32" else torch.channels_last
            images = images.contiguous(memory_format=layout)
            if self.precision == "int8":
                self._pack(images.shape)
            if cuda:
                few = len(images) * _widest(self.network, *images.shape[2:]) <= _REPLAYED_BYTES
                return self._replays(images, record=few)
            return self.network(images).float()

    def _pack(self, shape: torch.Size) -> None:
        key = (*shape, torch.get_num_threads())
        if key != self._packed_for:
            pack(self.network, shape)
            if self._packed_for is None:
                return_freed_memory()  # of the weights as they were packed before, which no layer fits into
            self._packed_for = key


@contextmanager
def exact() -> Iterator[None]:
    """Within, cuDNN computes what it should and the same each time; one thread at a time, for its flags are the
    process's: the first of two threads to leave would set them back for the other. Nor does a recording bear company.

    TF32 would round float32 to 10 bits, and a spike flips where that crosses the threshold; an algorithm picked by
    timing would flip others from run to run.
    """
    with _one_at_a_time, torch.backends.cudnn.flags(True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def fetch(result: Tensor) -> Callable[[], Tensor]:
    """Bring a result to the CPU: what is returned waits for it, the copy from a CUDA device goes on by itself."""
    if result.device.type != "cuda":
        on_cpu = result.cpu()
        return lambda: on_cpu
    copied = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
    copied.copy_(result, non_blocking=True)
    done = torch.cuda.current_stream(result.device).record_event()

    def wait() -> Tensor:
        done.synchronize()
        return copied

    return wait
