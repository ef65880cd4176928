"""Tiles: where they lie, how they blend, that they fit into memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import GOLDEN, photo, tiny_network
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from esdnet_cli.checkpoint.store import load_network, open_checkpoint
from esdnet_cli.errors import PictureError
from esdnet_cli.model.inference import Inference
from esdnet_cli.pipeline.tiling import Batches, SelfEnsemble, Tiling, blend_weight, derain_tiled, pad


def batches(network: Callable[[Tensor], Tensor], size: int) -> Batches:
    return Batches([network], size, 4)


@pytest.mark.parametrize("copies", [1, 2, 4, 8])
def test_ensembles_average_over_mirrored_and_turned_copies(copies: int) -> None:
    images = torch.rand(2, 3, 8, 12)
    seen: list[Tensor] = []

    def network(tiles: Tensor) -> Tensor:
        seen.append(tiles)
        ramp = torch.linspace(0, 1, tiles.shape[3])  # brighter to the right, whichever way the copy was turned
        return torch.cat((tiles * ramp, tiles[:, :1]), dim=1)

    averaged = SelfEnsemble(network, copies)(images)
    assert len({str(tiles.flatten().tolist()) for tiles in seen}) == len(seen) == copies
    torch.testing.assert_close(averaged[:, 3:], images[:, :1])  # what does not depend on the place comes back
    x, y = torch.linspace(0, 1, 12), torch.linspace(0, 1, 8)[:, None]
    factor = {1: x, 2: (x + x.flip(0)) / 2, 4: (x + x.flip(0)) / 2, 8: (x + x.flip(0) + y + y.flip(0)) / 4}[copies]
    torch.testing.assert_close(averaged[:, :3], images * factor)


def identity(tiles: Tensor) -> Tensor:
    return tiles.clone()


@pytest.mark.parametrize("batch", [1, 4])
def test_published_tiling_is_reproduced(batch: int) -> None:
    with safe_open(GOLDEN / "compact-io.safetensors", "pt") as file:
        rainy, expected = (file.get_tensor(f"tiled_{name}")[0].permute(1, 2, 0) for name in ("input", "output"))
    network = load_network(open_checkpoint(str(GOLDEN / "compact-weights.safetensors")))
    inference = Inference(network, torch.device("cpu"), "fp32")
    derained = derain_tiled(np.ascontiguousarray(rainy.numpy()), Tiling(80, 8), batches(inference, batch))
    assert np.abs(derained - expected.numpy().clip(0, 1)).max() <= 1e-4


@pytest.mark.parametrize("size, tile, overlap", [*itertools.product((1, 9, 80, 81, 133, 500), (8, 80), (0, 3, 7))])
def test_tiles_cover_everything_and_end_at_the_border(size: int, tile: int, overlap: int) -> None:
    tiling = Tiling(tile, overlap)
    starts, side = tiling.starts(size), tiling.window(size)
    covered = {pixel for start in starts for pixel in range(start, start + side)}
    assert covered == set(range(size))
    assert len(set(starts)) == len(starts)
    assert all(later - earlier <= max(tile - overlap, 1) for earlier, later in itertools.pairwise(starts))


def test_whole_picture_is_one_tile() -> None:
    assert Tiling(0, 8).starts(1000) == [0]
    assert Tiling(0, 8).window(1000) == 1000


@pytest.mark.parametrize(
    "height, width, tiles",  # count, height and width; of square ones the last overlap by what is left
    [
        (321, 481, (1, 321, 481)), (481, 321, (1, 481, 321)), (480, 640, (2, 480, 328)), (512, 512, (2, 512, 272)),
        (408, 408, (1, 408, 408)), (416, 416, (2, 416, 272)), (555, 611, (4, 288, 312)), (1080, 1920, (15, 368, 392)),
        (3000, 4000, (80, 384, 408)), (1, 1, (1, 1, 1)), (100, 1000, (2, 100, 504)),
    ],
)  # fmt: skip
def test_fitted_tiles_take_the_shape_of_the_picture(height: int, width: int, tiles: tuple[int, int, int]) -> None:
    fitted, square = (Tiling(408, 8, fitted).grid(height, width) for fitted in (True, False))
    assert (len(fitted), fitted.height, fitted.width) == tiles
    assert len(fitted) * fitted.height * fitted.width <= len(square) * square.height * square.width


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 60), st.integers(0, 59))
def test_fitted_tiles_cover_any_picture_evenly_and_are_no_larger_than_square_ones(
    height: int, width: int, tile: int, overlap: int
) -> None:
    grid = Tiling(tile, overlap % tile, fitted=True).grid(height, width)
    multiple = 8
    padded = [side + -side % multiple for side in (grid.height, grid.width, tile)]
    assert padded[0] * padded[1] <= padded[2] ** 2
    for size, side, starts in ((height, grid.height, grid.tops), (width, grid.width, grid.lefts)):
        assert min(2 * tile // 3, size) <= side <= 1.5 * tile + multiple
        assert (starts[0], starts[-1] + side) == (0, size)
        distances = {later - earlier for earlier, later in itertools.pairwise(starts)}
        assert not distances or (max(distances) - min(distances) <= 1 and max(distances) <= side - overlap % tile)


def test_blend_weight_is_the_published_formula() -> None:
    weight = blend_weight(80, 60)
    assert weight[0, 0].item() == pytest.approx(1 / (40**2 + 30**2 + 1e-3) ** 0.5)
    assert weight[40, 30].item() == pytest.approx(1 / 1e-3**0.5)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 9), (2, 5), (7, 3), (16, 16)])
def test_pad_reaches_multiples_of_four_and_keeps_the_picture(height: int, width: int) -> None:
    tiles = torch.rand(2, 3, height, width)
    padded = pad(tiles, 4)
    assert padded.shape[2] % 4 == padded.shape[3] % 4 == 0
    assert padded.shape[2] - height < 4 and padded.shape[3] - width < 4
    assert torch.equal(padded[..., :height, :width], tiles)
    if height == 7:
        assert torch.equal(padded[..., 7, :width], tiles[..., 5, :]), "reflected without doubling the border"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 2), (21, 50)])
@pytest.mark.parametrize("fitted", [False, True])
def test_identity_network_gives_the_picture_back(dtype: type, shape: tuple[int, int], fitted: bool) -> None:
    peak = 1 if dtype is np.float32 else np.iinfo(dtype).max
    pixels = (np.random.default_rng(0).random((*shape, 3)) * peak).astype(dtype)
    back = derain_tiled(pixels, Tiling(8, 3, fitted), batches(identity, 5))
    assert back.dtype == pixels.dtype
    if dtype is np.float32:
        np.testing.assert_allclose(back, pixels, atol=1e-6)
    else:
        np.testing.assert_array_equal(back, pixels)


def test_values_out_of_range_are_clamped() -> None:
    assert derain_tiled(photo(), Tiling(16, 4), batches(lambda tiles: tiles + 9, 2)).min() == 255
    assert derain_tiled(photo(), Tiling(16, 4), batches(lambda tiles: tiles - 9, 2)).max() == 0


def test_batch_size_does_not_change_the_picture() -> None:
    inference = Inference(tiny_network(), torch.device("cpu"), "fp32")
    pixels = [derain_tiled(photo(40, 50), Tiling(16, 4), batches(inference, size)) for size in (1, 3, 100)]
    assert all(np.abs(other.astype(int) - pixels[0]).max() <= 1 for other in pixels[1:])


def _behind(cause: Exception) -> Exception:
    error = RuntimeError("operation failed due to a previous error during capture")
    error.__context__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        _behind(torch.OutOfMemoryError("CUDA out of memory")),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory"),
    ],
)
def test_out_of_memory_halves_the_batch_and_goes_on(error: Exception) -> None:
    tried: list[int] = []
    told: list[int] = []

    def network(tiles: Tensor) -> Tensor:
        tried.append(len(tiles))
        if len(tiles) > 2:
            raise error
        return tiles

    picture = photo(20, 60)
    np.testing.assert_array_equal(derain_tiled(picture, Tiling(16, 4), Batches([network], 8, 4, told.append)), picture)
    assert told == [4, 2]
    assert tried[:2] == [8, 4] and set(tried[2:]) <= {1, 2}


@pytest.mark.parametrize(
    "networks, size, sizes",
    [(1, 64, [64, 1]), (2, 64, [33, 32]), (2, 12, [11, 11, 11, 11, 11, 10]), (3, 8, [8, 8, 7, 7, 7, 7, 7, 7, 7])],
    ids=str,
)
def test_one_network_fills_its_batches_several_share_the_tiles_evenly(
    networks: int, size: int, sizes: list[int]
) -> None:
    seen: list[int] = []

    def network(tiles: Tensor) -> Tensor:
        seen.append(len(tiles))
        return tiles

    tiles = np.random.default_rng(0).random((65, 4, 4, 3), np.float32)
    derained = Batches([network] * networks, size, 4).derain(iter(tiles), 65)
    assert np.array_equal(torch.stack(list(derained)).permute(0, 2, 3, 1).numpy(), tiles)
    assert seen == sizes


def test_one_tile_too_many_names_the_mend() -> None:
    def network(tiles: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(PictureError, match="tile of 16x16; use a smaller --tile"):
        derain_tiled(photo(), Tiling(16, 4), batches(network, 4))


def test_other_errors_of_the_network_are_not_taken_for_memory() -> None:
    def network(tiles: Tensor) -> Tensor:
        raise RuntimeError("illegal instruction")

    with pytest.raises(RuntimeError, match="illegal instruction"):
        derain_tiled(photo(), Tiling(16, 4), batches(network, 4))


@pytest.mark.parametrize("channel", [0, 1, 2])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_errors_of_the_picture(value: float, channel: int) -> None:
    def network(tiles: Tensor) -> Tensor:
        tiles = tiles.clone()
        tiles[-1, channel, 0, 0] = value
        return tiles

    with pytest.raises(PictureError, match="NaN or infinity"):
        derain_tiled(photo(), Tiling(16, 4), batches(network, 2))
