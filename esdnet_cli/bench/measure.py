"""How fast a checkpoint runs here, against this machine's own matmul peak and against the published way of computing.

Ratios of one run, taken in turn: machines differ and drift.
"""

from __future__ import annotations

import platform
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from threading import get_ident
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from esdnet_cli.bench.published import published
from esdnet_cli.checkpoint.store import load_network
from esdnet_cli.energy.cost import AS_RUN, LayerActivity, NumberFormat
from esdnet_cli.model.layers import LIF, MixedAttentionUnit, SeqConv2d, TDBatchNorm2d
from esdnet_cli.model.low_precision import FiredLIF
from esdnet_cli.pipeline.derainer import Derained, Derainer
from esdnet_cli.pipeline.tiling import Batches, derain_tiled

PEAK_SIDE = 2048  # of the square matrices whose product is the peak
PEAK_SECONDS = 1.0
COPIED = 30 * 2**20  # bytes that are copied to see how fast memory is: some of the largest activations together
_PARTS: tuple[tuple[type[nn.Module], str], ...] = (
    (LIF, "neurons"),
    (SeqConv2d, "convolutions"),
    (TDBatchNorm2d, "batch norm"),
    (MixedAttentionUnit, "attention"),
    (nn.Conv2d, "convolutions"),  # embedding, refinement and output
)


@dataclass(frozen=True)
class AgainstPublished:
    """Ours against the published way. speedup: median of ratios taken in turn; differences in levels of 8 bits."""

    published_seconds: float
    speedup: float
    speedup_quartiles: tuple[float, float]
    largest_difference: int
    within_one_level: float


@dataclass(frozen=True)
class Bound:
    """What this machine could not do a picture faster than, this way of computing kept: the longer of two times.

    Both at once, perfectly overlapping, would reach it; their sum is what neither overlapping takes.
    operations_s: every dense multiply-accumulate at the matmul peak of the number format that it runs in.
    traffic_s: `gigabytes` at `gigabytes_per_s`, a large copy's. gigabytes: what neurons, convolutions and products read
    and write, each number once, spikes in the format that hands them on; weights not counted.
    """

    operations_s: float
    traffic_s: float
    gigabytes: float
    gigabytes_per_s: float

    @property
    def seconds(self) -> float:
        return max(self.operations_s, self.traffic_s)


@dataclass(frozen=True)
class Bench:
    """One checkpoint on one device. seconds: medians over rounds, of one picture; stages add up to about the whole.

    On a GPU they add up to more, where the whole replays recorded passes (model.replay): with a clock inside it cannot.

    gmac: dense multiply-accumulates of the picture's convolutions over all T steps, tiles and overlap included.
    peak_gmac_per_s: of a large matrix product in the same number format. peak_memory_mib: of the process, or the GPU.
    """

    device: str
    processor: str
    threads: int
    precision: str
    tile: int
    overlap: int
    tile_shape: str
    width: int
    height: int
    rounds: int
    seconds: float
    gmac: float
    peak_gmac_per_s: float
    peak_memory_mib: float
    stages_s: dict[str, float]
    bound: Bound
    published: AgainstPublished | None

    @property
    def images_per_s(self) -> float:
        return 1 / self.seconds

    @property
    def megapixels_per_s(self) -> float:
        return self.width * self.height / 1e6 / self.seconds

    @property
    def gmac_per_s(self) -> float:
        return self.gmac / self.seconds

    @property
    def peak_share(self) -> float:
        """How much of the peak the whole reaches."""
        return self.gmac_per_s / self.peak_gmac_per_s

    @property
    def convolution_peak_share(self) -> float:
        """How much of it the convolutions alone reach."""
        return self.gmac / self.stages_s["convolutions"] / self.peak_gmac_per_s

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: what was measured and what follows from it."""
        follows = ("images_per_s", "megapixels_per_s", "gmac_per_s", "peak_share", "convolution_peak_share")
        bound = {**asdict(self.bound), "seconds": self.bound.seconds}
        return {**asdict(self), **{name: getattr(self, name) for name in follows}, "bound": bound}


def bench(derainer: Derainer, image: NDArray[np.uint8], rounds: int, against_published: bool) -> Bench:
    """Derain RGB [H, W, 3] `rounds` times, in turn with the published way, and as often again with a clock inside."""
    device = torch.device(derainer.device)
    warm_up = _warmed_up(derainer, image, device)
    assert warm_up.activity is not None
    ours, layers = warm_up.image, warm_up.activity.layers
    plain = _published_way(derainer) if against_published else None
    theirs = plain(image) if plain else None
    mine, other = [], []
    for turn in range(rounds):
        # the order alternates, so that a drift of the machine's speed favours neither
        if plain and turn % 2:
            other.append(_seconds(lambda: plain(image), device))
        mine.append(_seconds(lambda: derainer(image, count=False), device))
        if plain and not turn % 2:
            other.append(_seconds(lambda: plain(image), device))
    comparison = None
    if theirs is not None:
        ratios = sorted(b / a for a, b in zip(mine, other))
        levels = np.abs(ours.astype(int) - theirs)
        comparison = AgainstPublished(
            statistics.median(other),
            statistics.median(ratios),
            (ratios[rounds // 4], ratios[-(rounds // 4) - 1]),
            int(levels.max()),
            float((levels <= 1).all(2).mean()),
        )
    height, width = image.shape[:2]
    stages = _stages(derainer, image, device, rounds)
    formats = {layer.precision for layer in layers if layer.dense} | {derainer.precision}
    peaks: dict[str, float] = {precision: _matmul_peak(device, precision) for precision in sorted(formats)}
    return Bench(
        device=derainer.device,
        processor=torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        threads=torch.get_num_threads(),
        precision=derainer.precision,
        tile=derainer.tiling.tile,
        overlap=derainer.tiling.overlap,
        tile_shape=derainer.tiling.shape,
        width=width,
        height=height,
        rounds=rounds,
        seconds=statistics.median(mine),
        gmac=sum(layer.dense for layer in layers) / 1e9,
        peak_gmac_per_s=peaks[derainer.precision],
        peak_memory_mib=_peak_memory(device),
        stages_s=stages,
        bound=bound(layers, derainer.precision, peaks, _bandwidth(device), _fired(derainer.network)),
        published=comparison,
    )


def bound(
    layers: Sequence[LayerActivity], precision: NumberFormat, peaks: Mapping[str, float], bandwidth: float,
    fired: Collection[str] = (),
) -> Bound:  # fmt: skip
    """From a picture's counts; peaks: GMAC/s of each layer's number format. bandwidth: GB/s, read and written.

    fired: neuron layers whose spikes the convolution before them writes itself, and no sum.
    """
    operations = sum(layer.dense / peaks[layer.precision] for layer in layers if layer.dense) / 1e9
    numbers = sum(layer.words - layer.weights for layer in layers)
    numbers -= sum(2 * layer.mac for layer in layers if layer.name in fired)  # sums neither written nor read
    spikes = sum(layer.mac if layer.kind == "neuron" else layer.inputs for layer in layers if layer.bits)
    gigabytes = (4 * numbers + AS_RUN[precision].word_bits // 8 * spikes) / 1e9
    return Bound(operations, gigabytes / bandwidth, gigabytes, bandwidth)


def _fired(network: nn.Module) -> set[str]:
    return {name for name, module in network.named_modules() if isinstance(module, FiredLIF)}


def _warmed_up(derainer: Derainer, image: NDArray[np.uint8], device: torch.device) -> Derained:
    """The picture, counted. On a GPU it is also computed twice as it will be timed: the second pass is recorded."""
    derained = derainer(image)
    for _ in range(2 if device.type == "cuda" else 0):
        derainer(image, count=False)
    return derained


def _published_way(derainer: Derainer) -> Callable[[NDArray[np.uint8]], NDArray[Any]]:
    network = published(load_network(derainer.checkpoint), derainer.inference.device)
    tiles = Batches([network], 1, derainer.network.config.multiple)
    return lambda image: derain_tiled(image, derainer.tiling, tiles)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _matmul_peak(device: torch.device, precision: str) -> float:
    """GMAC/s of the best of many products of two square matrices."""
    product = _int8_product() if precision == "int8" else _product(device, precision)
    best, until = float("inf"), time.perf_counter() + PEAK_SECONDS
    while time.perf_counter() < until or best == float("inf"):
        best = min(best, _seconds(product, device))
    return PEAK_SIDE**3 / best / 1e9


def _bandwidth(device: torch.device) -> float:
    """GB/s read and written by the best of many copies."""
    source = torch.zeros(COPIED // 4, device=device)
    target = torch.zeros_like(source)
    best = min(_seconds(lambda: target.copy_(source), device) for _ in range(50))
    return 2 * COPIED / best / 1e9


def _product(device: torch.device, precision: str) -> Callable[[], Tensor]:
    a = torch.randn(PEAK_SIDE, PEAK_SIDE, device=device).to(torch.bfloat16 if precision == "bf16" else torch.float32)
    return lambda: a @ a


def _int8_product() -> Callable[[], Tensor]:
    """By the kernel that the 8-bit convolutions have, too; torch._int_mm is several times slower."""
    shape = (PEAK_SIDE, PEAK_SIDE)
    spikes, weights = torch.ones(shape, dtype=torch.uint8), torch.ones(shape, dtype=torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(weights, list(shape))
    scale, zero = torch.ones(PEAK_SIDE), torch.zeros(PEAK_SIDE, dtype=torch.long)
    return lambda: torch.ops.onednn.qlinear_pointwise(
        spikes, 1.0, 0, packed, scale, zero, None, 1.0, 0, torch.float32, "none", [], ""
    )


def _stages(derainer: Derainer, image: NDArray[np.uint8], device: torch.device, rounds: int) -> dict[str, float]:
    """Median seconds of each stage of one picture. A clock between layers costs a little itself, most on a GPU."""

    def median(work: Callable[[], Any]) -> float:
        return statistics.median(_seconds(work, device) for _ in range(rounds))

    png = cv2.imencode(".png", image)[1]
    decode = median(lambda: cv2.imdecode(png, cv2.IMREAD_UNCHANGED))
    watched = derainer.copy()  # the copies that it makes of itself in turn have the clock, too
    passes: list[dict[str, float]] = []
    with _clocked(watched.network, device) as clocks:
        derained = watched(image, count=False).image  # their first picture, which takes longer
        for _ in range(rounds):
            clocks.clear()
            whole = _seconds(lambda: watched(image, count=False), device)
            spent = [clock.spent for clock in clocks.values()]  # side by side, so their mean is what passed
            parts = {name: sum(each.get(name, 0.0) for each in spent) / len(spent) for name in spent[0]}
            network = parts.pop("network")
            passes.append({**parts, "between layers": network - sum(parts.values()), "cut and blend": whole - network})
    network_stages = {name: statistics.median(each[name] for each in passes) for name in passes[0]}
    encode = median(lambda: cv2.imencode(".png", derained))
    return {"decode": decode, **network_stages, "encode": encode}


@dataclass
class _Clock:
    """Of one thread. open: the layers under way, and since when. spent: seconds by kind of layer."""

    open: list[tuple[nn.Module, float]] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)


@contextmanager
def _clocked(network: nn.Module, device: torch.device) -> Iterator[dict[int, _Clock]]:
    """A clock for each thread while this is entered; what a kind contains of another counts for the outer one."""
    clocks: defaultdict[int, _Clock] = defaultdict(_Clock)

    def begin(module: nn.Module, _: Any) -> None:
        _wait(device)
        clocks[get_ident()].open.append((module, time.perf_counter()))

    def end(_: nn.Module, __: Any, ___: Any, name: str, inner: bool) -> None:
        _wait(device)
        clock = clocks[get_ident()]
        _, started = clock.open.pop()
        if not (inner and any(isinstance(outer, MixedAttentionUnit) for outer, _ in clock.open)):
            clock.spent[name] = clock.spent.get(name, 0.0) + time.perf_counter() - started

    handles = []
    for module in network.modules():
        name = "network" if module is network else next((n for kind, n in _PARTS if isinstance(module, kind)), None)
        if name is not None:
            handles.append(module.register_forward_pre_hook(begin))
            handles.append(
                module.register_forward_hook(
                    lambda m, i, o, name=name: end(m, i, o, name, inner=isinstance(m, nn.Conv2d))
                )
            )
    try:
        yield clocks
    finally:
        for handle in handles:
            handle.remove()


def _peak_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (20 if platform.system() == "Darwin" else 10)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
