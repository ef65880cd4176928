"""Tiles of a picture side by side: the same results as one after the other, within the same memory, whatever fails."""

from __future__ import annotations

from pathlib import Path
from threading import Barrier, get_ident

import numpy as np
import pytest
import torch
from clips import make_clip
from conftest import INTEGER, Run, load_json, photo, tiny_network

from esdnet_cli.checkpoint.store import save
from esdnet_cli.energy.counter import ActivityCounter
from esdnet_cli.model.low_precision import int8_works
from esdnet_cli.pipeline.derainer import load


@pytest.fixture
def integer(tmp_path: Path) -> Path:
    path = tmp_path / "integer.safetensors"
    save(path, tiny_network(INTEGER).state_dict(), INTEGER, {"tile": "16", "overlap": "4"})
    return path


@pytest.mark.parametrize("precision", ["fp32", "bf16", *(["int8"] if int8_works() else [])])
def test_copies_share_their_tensors_and_count_apart(precision: str, integer: Path) -> None:
    one = load(integer, device="cpu", precision=precision)
    other = one.copy()
    for (name, mine), (_, theirs) in zip(one.network.state_dict().items(), other.network.state_dict().items()):
        assert mine is theirs or mine.data_ptr() == theirs.data_ptr(), name
    with ActivityCounter(one.network) as counter:
        copied = other(photo())
    assert counter.activity().layers == (), "the copy's passes are its own"
    alone = one(photo())
    assert np.array_equal(copied.image, alone.image) and copied.activity == alone.activity


@pytest.mark.parametrize("precision", ["fp32", "bf16", *(["int8"] if int8_works() else [])])
def test_tiles_side_by_side_are_those_of_one_core(precision: str, integer: Path, two_cores: None) -> None:
    both = Barrier(2, timeout=20)
    threads = set()

    def meet(*_: object) -> None:
        if get_ident() not in threads:
            threads.add(get_ident())
            both.wait()  # nobody passes alone

    derainer, alone = (load(integer, device="cpu", precision=precision) for _ in range(2))
    derainer.network.register_forward_pre_hook(meet)  # which its copies have, too
    picture = photo(40, 60)
    two = derainer(picture, spike_map=True)
    assert len(threads) == 2
    torch.set_num_threads(1)
    one = alone(picture, spike_map=True)
    assert one.activity == two.activity and one.activity is not None and one.activity.spikes
    assert np.array_equal(one.image, two.image)
    assert one.spike_map is not None and two.spike_map is not None and np.array_equal(one.spike_map, two.spike_map)


def test_a_clip_on_two_cores_is_the_clip_on_one(integer: Path, tmp_path: Path, run: Run, two_cores: None) -> None:
    source = make_clip(tmp_path / "a.mp4", 30)

    def derained(name: str) -> list[list[float]]:
        done = run("video", source, "-o", tmp_path / f"{name}.mp4", "--weights", integer, "--precision", "fp32",
                   "--report", tmp_path / f"{name}.json")  # fmt: skip
        assert done.exit_code == 0, done.stderr
        keys = ("frame", "time", "mac", "ac", "spike_rate")
        return [[image[key] for key in keys] for image in load_json(tmp_path / f"{name}.json")["images"]]

    two = derained("two")
    torch.set_num_threads(1)
    assert two == derained("one") and len(two) == 30
    assert (tmp_path / "two.mp4").read_bytes() == (tmp_path / "one.mp4").read_bytes()
