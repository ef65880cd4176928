"""A checkpoint ready for use: pixels in, derained pixels and their activity out."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esdnet_cli.checkpoint.header import Checkpoint
from esdnet_cli.checkpoint.store import load_network, open_checkpoint
from esdnet_cli.energy.cost import Activity
from esdnet_cli.energy.counter import ActivityCounter
from esdnet_cli.energy.meter import Meter, find_meters
from esdnet_cli.energy.spikemap import SpikeMapper
from esdnet_cli.errors import EsdnetError
from esdnet_cli.model.inference import (
    Inference,
    Precision,
    choose_batch,
    choose_device,
    choose_precision,
    return_freed_memory,
)
from esdnet_cli.model.network import ESDNet
from esdnet_cli.pipeline import threads
from esdnet_cli.pipeline.results import ModelInfo
from esdnet_cli.pipeline.tiling import Batches, SelfEnsemble, Tiling, derain_and_blend
from esdnet_cli.settings import DEFAULT_WEIGHTS, ENSEMBLES, scales_for

MOST_HANDS = 4  # copies of a network at work side by side
_LARGE = 32 * 2**20  # bytes of a picture beside which what a pass leaves behind counts


@dataclass(frozen=True)
class Derained:
    """image: [H, W, 3], the input's dtype. activity: spikes and operations that it took, None if not asked for.

    spike_map: firing rate of each place by level, float16 [H, W, levels] (see energy.spikemap), None if not asked for;
    of the picture itself, not of its smaller copies.
    seconds: cutting, network and blending; None if there was no network.
    """

    image: NDArray[Any]
    activity: Activity | None
    spike_map: NDArray[np.float16] | None = None
    seconds: float | None = None


class Derainer:
    """A network on its device with its tiling; made by `load`, called with pictures.

    batch: tiles at once, None for what memory allows. ensemble: of how many mirrored and turned copies its results are
    the mean. scales: at how many sizes it derains, None for what the picture's asks for: see pipeline.scales.
    """

    def __init__(
        self, checkpoint: Checkpoint, inference: Inference, tiling: Tiling, batch: int | None, ensemble: int = 1,
        scales: int | None = None,
    ) -> None:  # fmt: skip
        self.checkpoint = checkpoint
        self.tiling = tiling
        self.ensemble = ensemble
        self.scales = scales
        self.inference = inference
        self._inferences = [inference]  # and copies of it: see `_hands`
        self._counters: list[ActivityCounter] = []  # of these, once they were asked for
        self._batch = batch
        self._calls = Lock()
        self.on_smaller_batch: Callable[[int], None] = lambda size: None

    @property
    def network(self) -> ESDNet:
        """The network, on its device."""
        return self.inference.network

    @property
    def device(self) -> str:
        """Such as `cpu` or `cuda:0`."""
        return str(self.inference.device)

    @property
    def precision(self) -> Precision:
        """Of the convolutions."""
        return self.inference.precision

    @property
    def info(self) -> ModelInfo:
        """What reports and journals say of it."""
        return ModelInfo(
            weights_name=self.checkpoint.name,
            weights_sha256=self.checkpoint.sha256,
            config=self.checkpoint.config.to_dict(),
            device=self.device,
            precision=self.precision,
            tile=self.tiling.tile,
            overlap=self.tiling.overlap,
            timesteps=self.checkpoint.config.timesteps,
            ensemble=self.ensemble,
            scales=self.scales,
            fitted=self.tiling.fitted,
        )

    def __str__(self) -> str:
        return f"{self.checkpoint.name}, {self.device}, {self.precision}, {self.info.tiling}"

    def tiles(self, height: int, width: int) -> int:
        """Of a picture, at all its sizes."""
        scales = scales_for(height, width, self.scales)
        return sum(len(self.tiling.grid(height >> scale, width >> scale)) for scale in range(scales))

    def meters(self) -> list[Meter]:
        """This machine's energy counters of what it computes on."""
        return find_meters(self.device)

    def copy(self) -> Derainer:
        """Another one of the same tensors, to be called from another thread at the same time."""
        other = copy.copy(self)
        other.inference = self.inference.copy()
        other._inferences, other._counters = [other.inference], []
        other._calls = Lock()
        return other

    def __call__(
        self,
        image: NDArray[Any],
        count: bool = True,
        on_tile: Callable[[], None] = lambda: None,
        spike_map: bool = False,
    ) -> Derained:
        """Derain RGB [H, W, 3]: uint8 or uint16 of full range, or float32 in [0, 1]; any size from 1x1.

        count: also count spikes and operations. on_tile: called after each tile.
        spike_map: also say where neurons fire. One picture at a time: a call from another thread waits; `copy` makes
        one that does not.
        Raises ValueError for another shape or dtype, PictureError if memory does not suffice for one tile or the
        network returns NaN.
        """
        if image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"image must be [H, W, 3], not {list(image.shape)}")
        if image.dtype not in (np.uint8, np.uint16, np.float32):
            raise ValueError(f"image must be uint8, uint16 or float32, not {image.dtype}")
        height, width = image.shape[:2]
        scales = scales_for(height, width, self.scales)
        grids = [self.tiling.grid(height >> scale, width >> scale) for scale in range(scales)]
        largest = max(grids, key=lambda grid: grid.height * grid.width)
        with ExitStack() as stack:
            stack.enter_context(self._calls)
            started = time.perf_counter()
            device, side_by_side = self.inference.device, self._most_hands()
            most = self._batch or choose_batch(self.network, largest.height, largest.width, device, side_by_side)
            hands = self._hands(min(most, len(grids[0]), side_by_side))
            counters = [stack.enter_context(counter) for counter in self._counters_of(hands)] if count else []
            networks: list[Callable[[Tensor], Tensor]] = [*hands]
            if spike_map:
                networks = [stack.enter_context(SpikeMapper(hand, hand.network)) for hand in hands]
            if self.ensemble > 1:
                networks = [SelfEnsemble(network, self.ensemble) for network in networks]
            derained, maps = self._derain(image, networks, most // len(hands), on_tile, scales)
            activity = counters[0].activity(counters[1:]) if count else None
            if image.nbytes > _LARGE:
                return_freed_memory()  # a copy of the picture comes next, to be encoded
        return Derained(derained, activity, maps if spike_map else None, time.perf_counter() - started)

    def _most_hands(self) -> int:
        """One for each core of a CPU: threads that share each layer wait for each other."""
        return min(torch.get_num_threads(), MOST_HANDS) if self.inference.device.type == "cpu" else 1

    def _hands(self, hands: int) -> list[Inference]:
        while len(self._inferences) < hands:
            self._inferences.append(self.inference.copy())
        return self._inferences[:hands]

    def _counters_of(self, hands: Sequence[Inference]) -> list[ActivityCounter]:
        self._counters += [ActivityCounter(hand.network) for hand in hands[len(self._counters) :]]
        return self._counters[: len(hands)]

    def _derain(
        self, image: NDArray[Any], networks: Sequence[Callable[[Tensor], Tensor]], size: int,
        on_tile: Callable[[], None], scales: int,
    ) -> tuple[NDArray[Any], NDArray[np.float16]]:  # fmt: skip
        """At so many sizes. size: tiles of a batch, at most; each of the networks takes one at a time."""

        def smaller(tiles: int) -> None:
            self._batch = tiles  # what did not fit once will not fit for the next picture
            self.on_smaller_batch(tiles)

        hands = len(networks)
        cores = threads.shares(torch.get_num_threads(), hands)
        with threads.pool("network", cores) if hands > 1 else nullcontext() as pool:
            batches = Batches(networks, size, self.network.config.multiple, smaller, pool)
            try:
                with threads.one_core() if hands > 1 else nullcontext():  # which cuts and blends meanwhile
                    return self._at_sizes(image, batches, on_tile, scales)
            except BaseException:  # an interrupt, too, does not wait for what has not begun
                if pool is not None:
                    pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _at_sizes(
        self, image: NDArray[Any], batches: Batches, on_tile: Callable[[], None], scales: int
    ) -> tuple[NDArray[Any], NDArray[np.float16]]:
        derained, maps = derain_and_blend(image, self.tiling, batches, on_tile)
        if scales > 1:
            # OpenCV is loaded with the first file, which says it in one line if that fails
            from esdnet_cli.pipeline.scales import add_difference, halved

            before = halved(derained)
            after, _ = self._at_sizes(before, batches, on_tile, scales - 1)
            add_difference(derained, before, after)
        return derained, maps


class AsIs:
    """As Derainer, without a network: leaves pictures as they are. There is nothing to count, and nothing to tell."""

    info = None

    def tiles(self, height: int, width: int) -> int:
        """One: the whole."""
        return 1

    def __call__(
        self,
        image: NDArray[Any],
        count: bool = True,
        on_tile: Callable[[], None] = lambda: None,
        spike_map: bool = False,
    ) -> Derained:
        """A copy of the picture."""
        on_tile()
        return Derained(image.copy(), None)

    def __str__(self) -> str:
        return "no network"

    def meters(self) -> list[Meter]:
        """None: nothing is computed."""
        return []


def load(
    weights: str | Path = DEFAULT_WEIGHTS,
    *,
    device: str = "auto",
    precision: str = "auto",
    tile: int | None = None,
    overlap: int | None = None,
    batch: int | None = None,
    ensemble: int = 1,
    scales: int | None = None,
) -> Derainer:
    """Load a checkpoint, by bundled name or path, onto a device.

    device: auto, cpu, cuda, cuda:N or mps. precision: auto (the fastest that the device and the checkpoint's metrics
    allow), fp32, bf16 or int8. tile: side in pixels of square tiles, 0 for one piece. tile and overlap default to what
    the checkpoint was tuned for, tiles that are fitted to the picture among it; batch to what memory allows. ensemble:
    1, 2, 4 or 8 mirrored and turned copies whose mean is the result; their operations add up. scales: at how many sizes
    to derain, each half of the one before; None for one with a tile of your own, else one below 360 pixels of the
    shorter side, two below 2,000, and more.
    Raises EsdnetError (CheckpointError) with one line that says what to do.
    """
    if (tile is not None and tile < 0) or (overlap is not None and overlap < 0) or (batch is not None and batch < 1):
        raise EsdnetError("tile and overlap must be 0 or more, batch 1 or more")
    if scales is not None and scales < 1:
        raise EsdnetError("scales must be 1 or more")
    if ensemble not in ENSEMBLES:
        raise EsdnetError(f"ensemble must be one of {', '.join(map(str, ENSEMBLES))}, not {ensemble}")
    checkpoint = open_checkpoint(str(weights))
    chosen = choose_device(device)
    chosen_precision = choose_precision(precision, chosen, checkpoint.close_precisions, checkpoint.config.levels)
    side = checkpoint.tile if tile is None else tile
    shared = (
        (checkpoint.overlap if tile is None else min(checkpoint.overlap, tile // 4)) if overlap is None else overlap
    )
    if side and shared >= side:
        raise EsdnetError(f"--overlap {shared} must be smaller than --tile {side}")
    if scales is None and tile is not None:
        scales = 1  # tile=80, overlap=8 is the published result, however large the picture
    inference = Inference(load_network(checkpoint), chosen, chosen_precision)
    return_freed_memory()  # of the weights in float32 and as they were stored: pieces that no layer fits into
    tiling = Tiling(side, shared, fitted=checkpoint.fitted and tile is None)
    return Derainer(checkpoint, inference, tiling, batch, ensemble, scales)
