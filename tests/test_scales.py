"""Large pictures at several sizes: what is added to what, when, and what it costs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Run, load_json, photo, read, write
from numpy.typing import NDArray

import esdnet_cli
from esdnet_cli import settings
from esdnet_cli.errors import EsdnetError
from esdnet_cli.pipeline import derainer, scales
from esdnet_cli.pipeline.scales import add_difference, halved
from esdnet_cli.pipeline.tiling import Tiling
from esdnet_cli.settings import scales_for


@pytest.mark.parametrize("side, sizes", [(1, 1), (321, 1), (359, 1), (360, 2), (1999, 2), (2000, 3), (4000, 4)])
def test_larger_pictures_are_derained_at_more_sizes(side: int, sizes: int) -> None:
    assert scales_for(side, 6000, None) == scales_for(6000, side, None) == sizes
    assert scales_for(side, 6000, 1) == 1


def test_a_number_that_was_asked_for_goes_down_to_8_pixels() -> None:
    assert [scales_for(40, 50, most) for most in (1, 2, 3, 4)] == [1, 2, 3, 3]
    assert scales_for(15, 15, 2) == 1


@pytest.mark.parametrize("dtype, peak", [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
@pytest.mark.parametrize("height, width", [(20, 30), (21, 31), (3, 2)])
def test_the_difference_is_enlarged_and_added(
    dtype: type[np.generic], peak: int, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scales, "_BAND", 4)  # several, which must not show
    random = np.random.default_rng(1)
    pixels = (random.random((height, width, 3)) * peak).astype(dtype)
    smaller = halved(pixels)
    even = pixels[: height // 2 * 2, : width // 2 * 2].astype(np.float64)
    mean = even.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
    assert smaller.dtype == dtype and np.abs(smaller - mean).max() <= (0.5 if peak > 1 else 1e-6)
    after = (random.random(smaller.shape) * peak).astype(dtype)

    def enlarged(copy: NDArray[np.generic]) -> NDArray[np.float64]:
        larger = cv2.resize(copy.astype(np.float64), None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
        return np.pad(larger, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")

    goal = enlarged(after)
    added = pixels + 1.5 * (goal - enlarged(smaller))
    expected = np.where(goal < pixels, np.clip(added, goal, pixels), np.clip(added, pixels, goal))
    add_difference(pixels, smaller, after)
    assert pixels.dtype == dtype and np.abs(pixels - expected).max() <= (0.51 if peak > 1 else 1e-6)


def test_a_sharp_speck_goes_and_leaves_no_ring() -> None:
    pixels = np.full((24, 24, 3), 40, np.uint8)
    pixels[10:12, 10:12] = 200
    smaller = halved(pixels)
    add_difference(pixels, smaller, np.full_like(smaller, 40))
    assert pixels.min() == 40 and pixels.max() < 80


def barred(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """With a broad bright bar below the middle."""
    image[image.shape[0] // 2 :][:16] = 255
    return image


def test_each_size_is_derained_after_the_larger_one(tiny: Path) -> None:
    picture = barred(photo(50, 61))
    once = esdnet_cli.load(tiny, precision="fp32", scales=1)

    def by_hand(image: NDArray[np.uint8], sizes: int) -> NDArray[np.uint8]:
        result = once(image).image
        if sizes > 1:
            add_difference(result, halved(result), by_hand(halved(result), sizes - 1))
        return result

    by_size = [esdnet_cli.load(tiny, precision="fp32", scales=sizes)(picture).image for sizes in (1, 2, 3)]
    assert all((image == by_hand(picture, sizes)).all() for sizes, image in enumerate(by_size, 1))
    assert (by_size[0] != by_size[1]).any() and (by_size[1] != by_size[2]).any()


def test_sizes_add_up(tiny: Path) -> None:
    picture = barred(photo(50, 61))
    once = esdnet_cli.load(tiny, precision="fp32", scales=1)
    first = once(picture)
    second = once(halved(first.image))
    twice, tiles = esdnet_cli.load(tiny, precision="fp32", scales=2), []
    derained = twice(picture, on_tile=lambda: tiles.append(1), spike_map=True)
    assert first.activity and second.activity and derained.activity
    assert derained.activity.spikes == first.activity.spikes + second.activity.spikes
    assert derained.activity.pixels == first.activity.pixels + second.activity.pixels
    assert len(tiles) == twice.tiles(50, 61) == once.tiles(50, 61) + once.tiles(25, 30)
    assert derained.spike_map is not None and derained.spike_map.shape[:2] == (50, 61)


def test_batches_go_by_the_largest_tile_of_all_sizes(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = []

    def one(network: object, height: int, width: int, *_: object) -> int:
        sides.append((height, width))
        return 1

    monkeypatch.setattr(derainer, "choose_batch", one)
    twice = esdnet_cli.load(tiny, precision="fp32", scales=2)
    twice.tiling = Tiling(40, 4, fitted=True)
    twice(photo(80, 146), count=False)
    assert sides == [(40, 40)] and twice.tiling.grid(80, 146).height == 32


def test_by_default_large_pictures_alone_are_derained_at_several(
    tiny: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "_ONE_COPY", 20)  # where a photograph has 180
    for name, side in (("large", 44), ("small", 38)):
        write(tmp_path / "in" / f"{name}.png", photo(side, 50))
    command = ("images", tmp_path / "in", "--weights", tiny, "-v", "--report", tmp_path / "r.json", "-o")
    done = run(*command, tmp_path / "auto")
    assert done.exit_code == 0 and "overlap, padding, scales" in done.stdout
    auto = load_json(tmp_path / "r.json")
    assert auto["run"]["scales"] == "auto" and [image["scales"] for image in auto["images"]] == [2, 1]
    done = run(*command, tmp_path / "one", "--scales", 1)
    assert done.exit_code == 0 and "scales" not in done.stdout
    one = load_json(tmp_path / "r.json")
    assert one["run"]["scales"] == 1 and [image["scales"] for image in one["images"]] == [1, 1]
    (large, small), (large_once, small_once) = auto["images"], one["images"]
    assert small["mac"] == small_once["mac"] and 1.1 < large["mac"] / large_once["mac"] < 1.6
    assert (read(tmp_path / "auto" / "small.png") == read(tmp_path / "one" / "small.png")).all()
    assert (read(tmp_path / "auto" / "large.png") != read(tmp_path / "one" / "large.png")).any()
    tiled = run(*command, tmp_path / "tiled", "--tile", 48)
    assert tiled.exit_code == 0 and load_json(tmp_path / "r.json")["run"]["scales"] == 1, "the published way"
    again = run(*command, tmp_path / "one", "--scales", 2)
    assert again.exit_code == 0 and "2 done" in again.stdout, "at other sizes it is another picture"


def test_reports_of_versions_that_knew_one_size_are_read(tiny: Path, tmp_path: Path, run: Run) -> None:
    picture, report = write(tmp_path / "a.png"), tmp_path / "r.json"
    assert run("energy", picture, "--weights", tiny, "--scales", 1, "--report", report).exit_code == 0
    text = report.read_text()
    (tmp_path / "old.json").write_text(text.replace('  "scales": 1,\n', ""))
    assert run("energy", "--merge", tmp_path / "old.json", report).exit_code == 0
    (tmp_path / "new.json").write_text(text.replace('"scales": 1,', '"scales": "auto",'))
    done = run("energy", "--merge", tmp_path / "old.json", tmp_path / "new.json")
    assert done.exit_code == 2 and "was made with other weights, precision or tiling" in done.stderr


@pytest.mark.parametrize("value", ["0", "-1", "half"])
def test_what_is_no_number_of_sizes_is_refused(value: str, run: Run, tmp_path: Path) -> None:
    done = run("images", tmp_path, "-o", tmp_path / "out", "--scales", value)
    assert done.exit_code == 2 and f"'{value}' is neither auto nor a number of sizes" in done.stderr
    if value == "0":
        with pytest.raises(EsdnetError, match="scales must be 1 or more"):
            esdnet_cli.load("small", scales=0)
