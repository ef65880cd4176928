"""Tiles of a picture side by side: the same results as one after the other, within the same memory, whatever fails."""

from __future__ import annotations

import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Barrier, Lock, get_ident

import numpy as np
import pytest
import torch
from clips import frames_of, make_clip
from conftest import INTEGER, Run, load_json, photo, tiny_network, write
from torch import Tensor

from esdnet_cli.checkpoint.store import save
from esdnet_cli.energy.cost import Activity
from esdnet_cli.energy.counter import ActivityCounter
from esdnet_cli.errors import PictureError
from esdnet_cli.model.low_precision import int8_works
from esdnet_cli.pipeline import threads
from esdnet_cli.pipeline.derainer import Derained, Derainer, load
from esdnet_cli.pipeline.output import Nowhere
from esdnet_cli.pipeline.results import ImageResult
from esdnet_cli.pipeline.run import Done, derain_files
from esdnet_cli.pipeline.sources import Job, Source
from esdnet_cli.pipeline.tiling import Batches, Tiling, derain_tiled


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


@pytest.mark.parametrize("cores", [*range(1, 13)])
def test_no_core_is_idle(cores: int) -> None:
    for hands in range(1, min(cores, 4) + 1):
        each = threads.shares(cores, hands)
        assert len(each) == hands and sum(each) == cores and max(each) - min(each) <= 1


def cores_of_a_new_thread() -> int:
    with ThreadPoolExecutor(1) as new:
        return new.submit(torch.get_num_threads).result()


def test_each_hand_has_its_cores_and_nobody_else_loses_any(integer: Path, two_cores: None) -> None:
    torch.set_num_threads(3)
    both = Barrier(2, timeout=20)
    cores: dict[int, int] = {}

    def look(*_: object) -> None:
        if get_ident() not in cores:
            cores[get_ident()] = torch.get_num_threads()
            both.wait()

    derainer = load(integer, device="cpu", batch=2)
    derainer.network.register_forward_pre_hook(look)
    others: list[int] = []
    own: list[int] = []

    def on_tile() -> None:
        own.append(torch.get_num_threads())
        others.append(cores_of_a_new_thread())

    derainer(photo(), on_tile=on_tile)
    assert sorted(cores.values()) == [1, 2]
    assert {*own} == {1}, "what cuts and blends meanwhile takes no core from them"
    assert {*others, torch.get_num_threads(), cores_of_a_new_thread()} == {3}


def test_observers_compute_on_one_core_and_nobody_else_loses_any(
    integer: Path, tmp_path: Path, two_cores: None
) -> None:
    path = write(tmp_path / "a.png")
    seen = []

    def observe(_: Done, result: ImageResult) -> ImageResult:
        seen.append(torch.get_num_threads())
        return result

    jobs = [Job(Source(path, Path(path.name)))]
    for _ in derain_files(load(integer, device="cpu"), jobs, Nowhere(), observers=[observe]):
        assert cores_of_a_new_thread() == 2
    assert seen == [1]


@pytest.mark.parametrize("batch, hands", [(1, 1), (2, 2), (3, 2), (7, 2)])
def test_batch_is_of_all_hands_together(batch: int, hands: int, integer: Path, two_cores: None) -> None:
    derainer = load(integer, device="cpu", batch=batch)
    seen = watch(derainer)
    derainer(photo(40, 60))
    assert len({thread for thread, _ in seen}) <= hands and max(tiles for _, tiles in seen) == batch // hands
    assert (seen[0][0] == get_ident()) == (hands == 1)


def test_a_tile_that_takes_all_the_memory_is_alone(
    integer: Path, two_cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esdnet_cli.model.inference._CPU_BATCH_BYTES", 1)
    derainer = load(integer, device="cpu")
    seen = watch(derainer)
    derainer(photo())
    assert {*seen} == {(get_ident(), 1)}


def watch(derainer: Derainer) -> list[tuple[int, int]]:
    """The thread and number of tiles of each pass."""
    seen = []
    derainer.network.register_forward_pre_hook(lambda _, inputs: seen.append((get_ident(), len(inputs[0]))))
    return seen


def limited(room: int) -> tuple[Callable[[Tensor], Tensor], list[int]]:
    """A network with memory for so many tiles in all passes at work, and the sizes of these; the first two meet."""
    lock, both = Lock(), Barrier(2, timeout=20)
    passes: list[int] = []
    held = 0

    def network(tiles: Tensor) -> Tensor:
        nonlocal held
        with lock:
            held += len(tiles)
            passes.append(len(tiles))
            first = len(passes) <= 2
        try:
            if first:
                both.wait()
            if held > room:
                raise RuntimeError("DefaultCPUAllocator: not enough memory")
            return tiles.clone()
        finally:
            with lock:
                held -= len(tiles)

    return network, passes


@pytest.mark.parametrize("room, size, first", [(1, 1, 1), (2, 4, 4), (1, 2, 2)])
def test_out_of_memory_in_several_hands_goes_on_with_fewer_tiles(room: int, size: int, first: int) -> None:
    network, passes = limited(room)
    told: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        batches = Batches([network, network], size, 4, told.append, pool)
        picture = photo(20, 100)
        np.testing.assert_array_equal(derain_tiled(picture, Tiling(16, 4), batches), picture)
    assert told[0] == first and told == sorted(set(told), reverse=True)
    assert passes[:2] == [size, size]


def test_a_tile_too_large_even_alone_is_an_error_of_the_picture() -> None:
    network, passes = limited(0)
    with ThreadPoolExecutor(2) as pool:
        batches = Batches([network, network], 1, 4, pool=pool)
        with pytest.raises(PictureError, match="tile of 16x16; use a smaller --tile"):
            derain_tiled(photo(16, 28), Tiling(16, 4), batches)
    assert len(passes) == 4, "each tile beside the other, then alone"


def test_what_did_not_fit_is_not_tried_with_the_next_picture(integer: Path, two_cores: None) -> None:
    derainer = load(integer, device="cpu", batch=8)
    told: list[int] = []
    derainer.on_smaller_batch = told.append
    seen = watch(derainer)

    def small(_: object, inputs: tuple[Tensor]) -> None:
        if len(inputs[0]) > 2:
            raise MemoryError

    derainer.network.register_forward_pre_hook(small)
    first = derainer(photo(40, 60))
    assert told == [4] and max(tiles for _, tiles in seen) == 4
    seen.clear()
    second = derainer(photo(40, 60))
    assert told == [4] and max(tiles for _, tiles in seen) == 2
    assert np.array_equal(first.image, second.image)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_is_given_back_beside_a_large_picture(tiny: Path) -> None:
    code = """
import sys
import numpy as np
from esdnet_cli import load
from esdnet_cli.model.inference import keep_freed_memory
from esdnet_cli.pipeline import derainer as module

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

keep_freed_memory()
derainer = load(sys.argv[1], device="cpu", precision="fp32")
derainer(np.zeros((16, 16, 3), np.uint8))
before = resident()
scratch = [np.ones(2**17) for _ in range(128)]  # of 1 MiB each
end = np.ones(8)  # above them: they cannot be given back as the heap's end
del scratch
derainer(np.zeros((16, 16, 3), np.uint8))
kept = resident() - before
module._LARGE = 0
derainer(np.zeros((16, 16, 3), np.uint8))
print(kept, resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tiny)], capture_output=True, text=True, check=True)
    kept, given_back = map(float, done.stdout.split())
    assert kept > 100 > 30 > given_back


def test_an_error_in_one_hand_is_raised_and_leaves_nothing_behind(integer: Path, two_cores: None) -> None:
    derainer = load(integer, device="cpu", batch=2)
    calls = count()

    def break_once(*_: object) -> None:
        if next(calls) == 3:
            raise RuntimeError("illegal instruction")

    derainer.network.register_forward_pre_hook(break_once)
    with pytest.raises(RuntimeError, match="illegal instruction"):
        derainer(photo(40, 60), spike_map=True)
    assert cores_of_a_new_thread() == 2
    again, alone = derainer(photo(40, 60)), load(integer, device="cpu")(photo(40, 60))
    assert np.array_equal(again.image, alone.image) and again.activity == alone.activity


def test_ctrl_c_does_not_wait_for_batches_that_have_not_begun(integer: Path, two_cores: None) -> None:
    derainer = load(integer, device="cpu", batch=2)
    both = Barrier(2, timeout=20)
    begun = []
    main = get_ident()

    def interrupt(*_: object) -> None:
        begun.append(get_ident())
        if both.wait() == 0:
            signal.pthread_kill(main, signal.SIGINT)
        time.sleep(0.3)  # by then the main thread, which waits for the first batch, has dropped the third one

    derainer.network.register_forward_pre_hook(interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            derainer(photo(40, 60))
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(begun) == len(set(begun)) == 2


def test_calls_from_two_threads_take_turns(integer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(counter: ActivityCounter, copies: Sequence[ActivityCounter]) -> Activity:
        time.sleep(0.05)  # time to begin anew with what is being read
        return activity(counter, copies)

    activity = ActivityCounter.activity
    monkeypatch.setattr(ActivityCounter, "activity", slowly)
    alone = load(integer, device="cpu", batch=1)
    expected = alone(photo()), alone(photo(seed=1))
    derainer = load(integer, device="cpu", batch=1)
    other: list[Future[Derained]] = []
    with ThreadPoolExecutor(1) as thread:

        def call() -> None:
            if not other:
                other.append(thread.submit(derainer, photo(seed=1)))
                time.sleep(0.1)  # time to get in between

        mine = derainer(photo(), on_tile=call)
    for derained, lone in zip((mine, other[0].result()), expected):
        assert np.array_equal(derained.image, lone.image) and derained.activity == lone.activity


def test_a_clip_on_two_cores_is_the_clip_on_one(integer: Path, tmp_path: Path, run: Run, two_cores: None) -> None:
    source = make_clip(tmp_path / "a.mp4", 30)

    def derained(name: str) -> list[list[float]]:
        done = run("video", source, "-o", tmp_path / f"{name}.mkv", "--codec", "ffv1", "--weights", integer,
                   "--precision", "fp32", "--report", tmp_path / f"{name}.json")  # fmt: skip
        assert done.exit_code == 0, done.stderr
        keys = ("frame", "time", "mac", "ac", "spike_rate")
        return [[image[key] for key in keys] for image in load_json(tmp_path / f"{name}.json")["images"]]

    two = derained("two")
    torch.set_num_threads(1)
    assert two == derained("one") and len(two) == 30
    # PyTorch has other kernels for a few small tiles at once than for many: they may round a number otherwise
    levels = [np.stack(frames_of(tmp_path / name)).astype(int) for name in ("two.mkv", "one.mkv")]
    assert np.abs(levels[0] - levels[1]).max() <= 1
