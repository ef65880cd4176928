"""A run as its three values: what computes, where it goes, who watches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import photo, write
from numpy.typing import NDArray

import esdnet_cli
from esdnet_cli.files import digest
from esdnet_cli.pipeline.derainer import AsIs
from esdnet_cli.pipeline.journal import Journal
from esdnet_cli.pipeline.output import Nowhere, Output
from esdnet_cli.pipeline.results import ImageResult
from esdnet_cli.pipeline.run import Done, derain_files
from esdnet_cli.pipeline.sources import Job, Source

HIDDEN = np.where(np.arange(30) < 9, 0, 255).astype(np.uint8) * np.ones((24, 1), np.uint8)
PICTURES = {
    "colour": photo(),
    "hidden pixels": np.dstack((photo(), HIDDEN)),
    "16 bits of grey": photo()[..., 0].astype(np.uint16) * 251 + 7,
}


@pytest.mark.parametrize("kind", PICTURES)
def test_as_it_is_and_nowhere_change_and_write_nothing(kind: str, tmp_path: Path) -> None:
    pixels: NDArray[np.generic] = PICTURES[kind]
    source = Source(write(tmp_path / "a.png", pixels), Path("a.png"))
    seen: list[Done] = []

    def watch(done: Done, result: ImageResult) -> ImageResult:
        seen.append(done)
        return result

    shares: list[float] = []
    (result,) = derain_files(AsIs(), [Job(source)], Nowhere(), shares.append, [watch])
    sha256 = digest(source.path.read_bytes())
    expected = ImageResult(str(source.path), None, "ok", None, 30, 24, input_sha256=sha256)
    assert result == expected, "no time, no counts"
    assert sum(shares) == 1
    np.testing.assert_array_equal(seen[0].derained.rgb, seen[0].rainy.rgb)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_cut_out_is_derained_as_what_is_visible_of_it(tiny: Path, tmp_path: Path) -> None:
    whole = np.dstack((photo(40, 48), np.zeros((40, 48), np.uint8)))
    whole[5:29, 9:40, 3] = 255
    whole[5:9, 9:13, 3] = 0  # a corner of it that is hidden, too
    jobs = []
    for name, pixels in (("whole", whole), ("cut", whole[5:29, 9:40])):
        jobs.append(Job(Source(write(tmp_path / f"{name}.png", pixels), Path(f"{name}.png"))))
    seen: list[Done] = []

    def watch(done: Done, result: ImageResult) -> ImageResult:
        seen.append(done)
        return result

    shares: list[float] = []
    results = list(derain_files(esdnet_cli.load(tiny, device="cpu"), jobs, Nowhere(), shares.append, [watch]))
    assert sum(shares) == pytest.approx(2)
    assert [(result.width, result.height) for result in results] == [(48, 40), (31, 24)]
    assert results[0].activity == results[1].activity is not None
    of_whole, of_cut = seen
    np.testing.assert_array_equal(of_whole.derained.rgb[5:29, 9:40], of_cut.derained.rgb)
    outside = np.ones((40, 48), bool)
    outside[5:29, 9:40] = False
    np.testing.assert_array_equal(of_whole.derained.rgb[outside], of_whole.rainy.rgb[outside])
    assert of_whole.spike_map is not None and of_cut.spike_map is not None
    np.testing.assert_array_equal(of_whole.spike_map[5:29, 9:40], of_cut.spike_map)
    assert not of_whole.spike_map[outside].any()


def test_a_job_that_names_no_file_overwrites_none(tmp_path: Path) -> None:
    source = Source(write(tmp_path / "a.png"), Path("a.png"))
    (result,) = derain_files(AsIs(), [Job(source)], Output(Journal(tmp_path / "out", {}), False))
    assert result.status == "failed" and result.output is None
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
