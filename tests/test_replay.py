"""What of recorded passes shows without a CUDA device: which are recorded, and what a recording may not do."""

from __future__ import annotations

from threading import Event, Thread
from typing import Any
from unittest import mock

import pytest
import torch
from conftest import INTEGER, tiny_network
from torch import Tensor, nn

from esdnet_cli.energy import spikes
from esdnet_cli.energy.counter import ActivityCounter
from esdnet_cli.model import replay
from esdnet_cli.model.inference import choose_batch, exact
from esdnet_cli.model.replay import Replays, _Replay, after_pass


class Recording:
    """In place of a CUDA graph, of which a CPU has none: computes each time, and notes what it was made of."""

    made: list[tuple[torch.Size, Any, Any]] = []

    def __init__(self, compute: Any, images: Tensor, pool: Any, stream: Any) -> None:
        self._compute = compute
        compute(images)
        self.made.append((images.shape, pool, stream))

    def __call__(self, images: Tensor) -> Tensor:
        result: Tensor = self._compute(images)
        return result


@pytest.fixture(autouse=True)
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: object())
    monkeypatch.setattr(Recording, "made", [])
    monkeypatch.setattr(replay, "_Replay", Recording)


def test_recordings_share_their_memory() -> None:
    replays = Replays(nn.ReLU(), torch.device("cpu"))
    for side in (8, 9, 8, 9, 8, 9):
        replays(torch.ones(1, 3, side, side))
    assert [shape[2] for shape, *_ in Recording.made] == [8, 9]
    assert len({pool for _, pool, _ in Recording.made}) == len({stream for *_, stream in Recording.made}) == 1


def test_what_changed_in_the_network_is_no_replay() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    replays, images = Replays(network, torch.device("cpu")), torch.ones(1, 3, 8, 8)

    def recorded() -> int:
        for _ in range(3):
            replays(images)
        return len(Recording.made)

    assert recorded() == 1
    network[1] = nn.Sigmoid()
    assert recorded() == 2
    network[0].weight.data = torch.zeros(3, 3, 1, 1)
    assert recorded() == 3
    network[0].weight.data += 1  # in place, where the recording finds it
    assert recorded() == 3


def test_a_recording_copies_nothing_that_pictures_of_other_sizes_drove_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # maps of how far spikes reach are made on the CPU; of two sizes more are needed than are kept
    known = spikes._reach_of_planes
    copied: list[int] = []

    class Watched(Recording):
        def __init__(self, *made_of: Any) -> None:
            before = known.cache_info().misses
            super().__init__(*made_of)
            copied.append(known.cache_info().misses - before)

    monkeypatch.setattr(replay, "_Replay", Watched)
    monkeypatch.setattr(spikes, "_in_words", lambda spike_seq: None)  # as on a CUDA device
    network = tiny_network(INTEGER)
    replays = Replays(network, torch.device("cpu"))
    known.cache_clear()
    with torch.inference_mode(), ActivityCounter(network):
        for width in (16, 24, 16, 24):
            replays(torch.rand(1, 3, 16, width))
    assert known.cache_info().misses > known.cache_info().maxsize  # type: ignore[operator]
    assert copied == [0, 0]


def test_after_a_recording_that_failed_passes_go_on_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[torch.Size] = []

    def fails(_: Any, images: Tensor, *__: Any) -> None:
        tried.append(images.shape)
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    monkeypatch.setattr(replay, "_Replay", fails)
    replays = Replays(nn.ReLU(), torch.device("cpu"))
    for side in (8, 9, 8, 9, 8, 9):
        assert replays(-torch.ones(1, 3, side, side)).abs().sum() == 0
    assert len(tried) == 1


def test_a_replay_that_finds_no_room_for_its_result_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDAGraph", "graph", "stream"):
        monkeypatch.setattr(torch.cuda, name, mock.MagicMock())
    counted: list[str] = []

    def computed(images: Tensor) -> Any:
        after_pass(lambda: counted.append("a pass"))
        return mock.Mock(clone=mock.Mock(side_effect=[images, torch.OutOfMemoryError]))

    replay = _Replay(computed, torch.ones(1), None, None)
    replay(torch.ones(1))
    with pytest.raises(torch.OutOfMemoryError):
        replay(torch.ones(1))
    assert counted == ["a pass"]


def test_threads_leave_each_other_cudnn_as_it_must_be() -> None:
    before = torch.backends.cudnn.allow_tf32
    first_has_left, within = Event(), list[bool]()

    def second() -> None:
        with exact():
            first_has_left.wait(1)
            within.append(torch.backends.cudnn.allow_tf32)

    with exact():
        thread = Thread(target=second)
        thread.start()
        thread.join(0.1)  # time to enter, if it may
    first_has_left.set()
    thread.join()
    assert within == [False] and torch.backends.cudnn.allow_tf32 == before


def test_batches_stay_as_large_from_picture_to_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_gpu(free: int, reserved: int, allocated: int) -> int:
        for name, value in (("mem_get_info", (free, 8 * free)), ("memory_reserved", reserved)):
            monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)
        return choose_batch(tiny_network(INTEGER), 64, 64, torch.device("cuda:0"), side_by_side=1)

    first = on_gpu(free=2**26, reserved=0, allocated=0)
    assert 1 < first < 64  # neither too little memory nor too much to tell
    # half of it went to the first picture; PyTorch keeps it, and uses a little
    assert on_gpu(free=2**25, reserved=2**25, allocated=2**10) == pytest.approx(first, abs=1)
    assert on_gpu(free=2**25, reserved=2**25, allocated=2**25) == pytest.approx(first / 2, abs=1)


def test_a_pass_that_finds_no_memory_has_that_of_the_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    class Large(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            if images.shape[2] > 8 and any(replays._known.values()):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return images

    emptied: list[None] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(None))
    replays = Replays(Large(), torch.device("cpu"))
    for side in (8, 8, 16, 8, 8):
        assert replays(torch.ones(1, 3, side, side), record=side == 8).shape[2] == side
    assert len(emptied) == 1 and [shape[2] for shape, *_ in Recording.made] == [8, 8]
    assert len({pool for _, pool, _ in Recording.made}) == 2  # PyTorch takes none up again that was given back
