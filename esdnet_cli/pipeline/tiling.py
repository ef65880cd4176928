"""Cut a picture into overlapping tiles, run them in batches, blend: memory stays bounded whatever the picture.

The published inference, kept because the network pools over its whole input, so that tiling is part of the result:
square tiles at a fixed stride, the last row and column flush with the border, blended with weights that fall with the
distance from the tile's centre.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from esdnet_cli.checkpoint.header import FITTED, SQUARE
from esdnet_cli.errors import PictureError
from esdnet_cli.model.inference import fetch

_MULTIPLE = 8  # of pixels: what sides of fitted tiles are padded to, as a network of patches of two wants it
_NO_MEMORY = ("not enough memory", "CUDA error: out of memory", "can't allocate memory")


@dataclass(frozen=True)
class Grid:
    """Tiles of one size, height x width, which cover a picture. tops, lefts: the first row and column of each."""

    height: int
    width: int
    tops: Sequence[int]
    lefts: Sequence[int]

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)


@dataclass(frozen=True)
class Tiling:
    """tile: side in pixels, 0 for the picture in one piece. overlap: pixels that neighbours share, less than tile.

    fitted: tiles lie at even distances and have at most the pixels of a square of that side, and sides of two thirds to
    one and a half of it (the network judges by all that a tile shows, and a strip shows little), or the picture's own.
    Of such shapes, padded for the network, they have the one by which the fewest pixels are computed, a rim around each
    among them: what a tile sees too little of. Else they are that square, as published, and the last ones overlap by
    what is left.
    """

    tile: int
    overlap: int
    fitted: bool = False

    def __str__(self) -> str:
        if not self.tile:
            return "one piece"
        return f"{'fitted ' if self.fitted else ''}tiles of {self.tile}, overlap {self.overlap}"

    @property
    def shape(self) -> str:
        """As headers and reports say it."""
        return FITTED if self.fitted else SQUARE

    def window(self, size: int) -> int:
        """Side of a square tile along an axis of `size` pixels."""
        return min(self.tile, size) if self.tile else size

    def starts(self, size: int) -> list[int]:
        """First pixel of each square tile along an axis of `size` pixels; the last tile ends at the border."""
        last = size - self.window(size)
        if not last:
            return [0]
        return [*range(0, last, self.tile - self.overlap), last]

    def grid(self, height: int, width: int) -> Grid:
        """The tiles of a picture."""
        if not self.tile or not self.fitted:
            return Grid(self.window(height), self.window(width), self.starts(height), self.starts(width))
        pairs = itertools.product(self._divisions(height), self._divisions(width))
        rim = 2 * self.overlap  # large and square tiles have the least of it
        rows, columns = min(
            ((rows, columns) for rows, columns in pairs if rows.side * columns.side <= _padded(self.tile) ** 2),
            key=lambda pair: math.prod(axis.tiles * (axis.side + rim) for axis in pair),
        )
        h, w = min(rows.side, height), min(columns.side, width)
        return Grid(h, w, _spread(height, h, rows.tiles), _spread(width, w, columns.tiles))

    def _divisions(self, size: int) -> list[_Division]:
        """Into how many tiles an axis may be divided; at least one of them has no longer side than a square tile."""
        shortest, longest = self.tile * 2 // 3, _padded(self.tile * 3 // 2)
        least = _padded(min(shortest, size))
        most = -(-(size - self.overlap) // (max(shortest, (self.tile + self.overlap) // 2 + 1) - self.overlap))
        sides = ((count, -(-(size + (count - 1) * self.overlap) // count)) for count in range(1, max(most, 1) + 1))
        divisions = [_Division(count, max(_padded(side), least)) for count, side in sides]
        return [division for division in divisions if division.side <= longest]


class _Division(NamedTuple):
    """An axis in so many tiles. side: of each, with what the network's padding adds."""

    tiles: int
    side: int


def _padded(side: int) -> int:
    return side + -side % _MULTIPLE


def _spread(size: int, side: int, count: int) -> list[int]:
    """First pixel of each of `count` tiles at even distances, the first and the last one at the borders."""
    last = max(size - side, 0)
    return [last * index // max(count - 1, 1) for index in range(count)]


def blend_weight(height: int, width: int) -> Tensor:
    """Weight of each pixel of a tile: 1 / sqrt((y - h/2)^2 + (x - w/2)^2 + 1e-3), float32 [height, width]."""
    y = torch.arange(height, dtype=torch.float32)[:, None] - height / 2
    x = torch.arange(width, dtype=torch.float32) - width / 2
    return 1 / torch.sqrt(y**2 + x**2 + 1e-3)


def pad(tiles: Tensor, multiple: int) -> Tensor:
    """[N, 3, H, W] grown at its lower and right edge to multiples of `multiple`.

    Reflected, or replicated where too small for that.
    """
    for axis in (3, 2):
        missing = -tiles.shape[axis] % multiple
        if missing:
            widths = (0, missing, 0, 0) if axis == 3 else (0, 0, 0, missing)
            tiles = F.pad(tiles, widths, mode="reflect" if missing < tiles.shape[axis] else "replicate")
    return tiles


def peak(pixels: NDArray[Any]) -> int:
    """The value that stands for 1."""
    return int(np.iinfo(pixels.dtype).max) if np.issubdtype(pixels.dtype, np.integer) else 1


def to_floats(pixels: NDArray[Any]) -> Tensor:
    """[N, H, W, 3] -> float32 [N, 3, H, W] in [0, 1], in memory as it was: channels last."""
    floats = pixels.astype(np.float32)
    floats /= np.float32(peak(pixels))
    return torch.from_numpy(floats).permute(0, 3, 1, 2)


class SelfEnsemble:
    """A network whose result is the mean over mirrored and turned copies of its input: 1, 2, 4 or 8 of them.

    2: and left to right; 4: and top to bottom; 8: each transposed, too (Timofte et al., CVPR 2016). All channels of the
    result are turned back and averaged, so rates of places (energy.spikemap) are, too.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], copies: int) -> None:
        self._network = network
        self._axes = list(itertools.product((False, True), repeat=3))[:copies]  # the last changes fastest

    def __call__(self, images: Tensor) -> Tensor:
        """Rainy [N, 3, H, W] -> [N, C, H, W]."""
        total: Tensor | None = None
        for transposed, upside_down, mirrored in self._axes:
            flipped = [axis for axis, flip in ((2, upside_down), (3, mirrored)) if flip]
            turned = images.flip(flipped)
            result = self._network(turned.mT.contiguous()).mT if transposed else self._network(turned)
            result = result.flip(flipped)
            total = result if total is None else total + result
        assert total is not None
        return total / len(self._axes)


class Batches:
    """Runs tiles through the network, as many at once as fit: out of memory halves their number, for good, and goes on.

    networks: one, or copies of one that take a batch each, side by side, on as many threads of `pool`.
    size: of the largest batch. multiple: what height and width of the network's input are multiples of.
    on_halved: told how many tiles there still are at once, in all networks together.
    """

    def __init__(
        self, networks: Sequence[Callable[[Tensor], Tensor]], size: int, multiple: int,
        on_halved: Callable[[int], None] = lambda tiles: None, pool: Executor | None = None,
    ) -> None:  # fmt: skip
        self._free: SimpleQueue[Callable[[Tensor], Tensor]] = SimpleQueue()
        for network in networks:
            self._free.put(network)
        self._networks = len(networks)  # still at work
        self._size = size
        self._shrinking = Lock()
        self._multiple = multiple
        self._on_halved = on_halved
        self._pool = pool

    def derain(self, tiles: Iterator[NDArray[Any]], count: int) -> Iterator[Tensor]:
        """Each of `count` tiles [h, w, 3], pixels of a picture, derained, in order: [C, h, w].

        Raises PictureError if not even one fits into memory.
        """
        ahead = self._networks
        # side by side, batches of even size, as many for each network; one alone takes as many tiles as it can
        batches = ahead * -(-count // (ahead * self._size)) if ahead > 1 else 1
        started: deque[Callable[[], Tensor]] = deque()
        while count:
            size = min(-(-count // batches), self._size)
            started.append(self._begin(np.stack(list(itertools.islice(tiles, size)))))
            count, batches = count - size, max(batches - 1, 1)
            if len(started) > ahead:  # while batches compute, an earlier one is blended and the next one cut
                yield from started.popleft()()
        for finish in started:
            yield from finish()

    def _begin(self, batch: NDArray[Any]) -> Callable[[], Tensor]:
        def forward() -> Callable[[], Tensor]:
            return self._forward(to_floats(batch))

        if self._pool is None:
            return forward()
        future = self._pool.submit(forward)
        return lambda: future.result()()

    def _forward(self, batch: Tensor) -> Callable[[], Tensor]:
        """One batch, in smaller ones if memory wants it; what is returned waits for the result."""
        networks = self._networks
        network = self._free.get()
        try:
            if (finish := self._attempt(network, batch)) is not None:
                return finish
        finally:
            self._free.put(network)
        if len(batch) == 1:
            return self._alone(batch, networks)
        with self._shrinking:
            self._shrink(self._networks, len(batch) // 2)
        parts = []
        while len(batch):
            part, batch = batch[: self._size], batch[self._size :]
            parts.append(self._forward(part))
        return lambda: torch.cat([finish() for finish in parts])

    def _alone(self, tile: Tensor, networks: int) -> Callable[[], Tensor]:
        """Once more, while no other network holds memory, if one of `networks` did; half of them go on."""
        if networks > 1:
            with self._shrinking:
                taken = [self._free.get() for _ in range(self._networks)]
                try:
                    finish = self._attempt(taken[0], tile)
                finally:
                    self._shrink(networks // 2, 1)
                    for network in taken[: self._networks]:
                        self._free.put(network)
            if finish is not None:
                return finish
        height, width = tile.shape[2:]
        raise PictureError(f"not enough memory for a tile of {width}x{height}; use a smaller --tile")

    def _shrink(self, networks: int, size: int) -> None:
        """For good, unless another thread has done so by now."""
        if networks < self._networks or size < self._size:
            self._networks, self._size = min(networks, self._networks), min(size, self._size)
            self._on_halved(self._networks * self._size)

    def _attempt(self, network: Callable[[Tensor], Tensor], batch: Tensor) -> Callable[[], Tensor] | None:
        """None if memory did not suffice: by then what the attempt had taken is given back."""
        height, width = batch.shape[2:]
        try:
            return fetch(network(pad(batch, self._multiple))[..., :height, :width])
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return None


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory did not suffice, as one of its many errors says, or one that another came from."""
    if error is None:
        return False
    # the CPU allocator has no class of its own for it
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(text in str(error) for text in _NO_MEMORY):
        return True
    return is_out_of_memory(error.__context__)  # a recording that was cut short says only that


def derain_tiled(
    pixels: NDArray[Any], tiling: Tiling, batches: Batches, on_tile: Callable[[], None] = lambda: None
) -> NDArray[Any]:
    """Derain RGB [H, W, 3] of uint8, uint16 (full range) or float32 ([0, 1]); same shape and dtype, clamped.

    Only one row of tiles is held in float32. Calls `on_tile` after each tile. Raises PictureError if the network
    returns NaN or infinity.
    """
    return derain_and_blend(pixels, tiling, batches, on_tile)[0]


def derain_and_blend(
    pixels: NDArray[Any], tiling: Tiling, batches: Batches, on_tile: Callable[[], None]
) -> tuple[NDArray[Any], NDArray[np.float16]]:
    """As `derain_tiled`, for a network of C channels: those after the third come second, blended alike [H, W, C-3]."""
    height, width = pixels.shape[:2]
    grid = tiling.grid(height, width)
    h, w, tops, lefts = grid.height, grid.width, grid.tops, grid.lefts
    cut = (pixels[top : top + h, left : left + w] for top in tops for left in lefts)
    derained = batches.derain(cut, len(grid))
    result = np.empty_like(pixels)
    more = np.empty((height, width, 0), np.float16)
    # the row of tiles being blended, from its top, and the sum of its weights
    band = norm = weight = torch.empty(0)
    for top, following in zip(tops, [*tops[1:], height]):
        for left in lefts:
            tile = next(derained).permute(1, 2, 0)
            if not len(band):
                channels = tile.shape[2]
                band, norm = torch.zeros(h, width, channels), torch.zeros(h, width, 1)
                weight = blend_weight(h, w)[..., None].expand_as(tile).contiguous()
                more = np.empty((height, width, channels - 3), np.float16)
            band[:, left : left + w] += tile * weight
            norm[:, left : left + w] += weight[..., :1]
            on_tile()
        done = following - top  # no later tile reaches these rows
        rows = band[:done].div_(norm[:done])
        if not np.isfinite(rows.numpy()).all():  # PyTorch's takes fifteen times as long
            raise PictureError("the network returned NaN or infinity; try --precision fp32 or another checkpoint")
        rows.clamp_(0, 1)
        more[top:following] = rows[..., 3:].numpy()
        image = rows[..., :3].mul_(peak(pixels))
        result[top:following] = (image.round_() if peak(pixels) > 1 else image).numpy()
        for rows_of in (band, norm):
            _drop(rows_of, done)
    return result, more


def _drop(band: Tensor, done: int) -> None:
    """Drop the finished rows at the top, in place: the others move up, and zeros follow."""
    left = band[done:].clone()  # where more than half is left, it would overwrite itself
    band[: len(left)] = left
    band[len(left) :] = 0
