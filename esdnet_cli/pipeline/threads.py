"""Threads that share the cores of a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier, Thread

import torch


def shares(cores: int, threads: int) -> list[int]:
    """How many cores each of several threads gets: all of them are given out, as evenly as may be."""
    return [(cores + thread) // threads for thread in range(threads)]


@contextmanager
def pool(name: str, cores: Sequence[int]) -> Iterator[ThreadPoolExecutor]:
    """A thread for each number in `cores`, on which PyTorch's operations take so many; left when all work is done.

    Nobody else's number changes. PyTorch keeps one for each thread, but threads that begin later take over what was set
    last, by whomever: so all of them begin here, and then the caller's number is set once more.
    """
    own = torch.get_num_threads()
    together = Barrier(len(cores))  # so that each takes a thread of its own

    def begin(number: int) -> None:
        torch.get_num_threads()  # which takes over what was set last: later it would undo the next line
        torch.set_num_threads(number)
        together.wait()

    with ThreadPoolExecutor(len(cores), name) as threads:
        try:
            for begun in [threads.submit(begin, number) for number in cores]:
                begun.result()
        except BaseException:
            together.abort()  # a thread that could not begin, or an interrupt: nobody waits for it
            raise
        finally:
            torch.set_num_threads(own)
        yield threads


@contextmanager
def one_core() -> Iterator[None]:
    """The operations of this thread take one core meanwhile: a team would wait for cores at which others compute.

    Nobody else's number changes, as in `pool`.
    """
    own = torch.get_num_threads()
    setting = Thread(target=torch.set_num_threads, args=(own,))  # which threads that begin later take over
    try:
        torch.set_num_threads(1)
        setting.start()
        setting.join()
        yield
    finally:
        torch.set_num_threads(own)
