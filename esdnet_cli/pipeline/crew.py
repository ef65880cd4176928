"""Several pictures at once: on a CPU the cores are shared out, since two small pictures take less time than one twice.

What a layer's threads lose by waiting for each other they lose for each layer; with a core for each picture they do not
wait. Measured in benchmarks/video.md.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import TypeVar

import torch

from esdnet_cli.pipeline.derainer import Derainer

R = TypeVar("R")
MOST = 4  # each takes the memory of a batch


class Crew:
    """Copies of a Derainer, `size` of them, each on its share of the CPU's cores; one, on all of them, elsewhere."""

    def __init__(self, derainer: Derainer) -> None:
        cores = torch.get_num_threads()
        self.size = min(cores, MOST) if derainer.device == "cpu" else 1
        self._free: SimpleQueue[Derainer] = SimpleQueue()
        for copy in (derainer, *(derainer.copy() for _ in range(self.size - 1))):
            self._free.put(copy)
        self._pool = ThreadPoolExecutor(self.size, "network", torch.set_num_threads, (cores // self.size,))

    def submit(self, work: Callable[[Derainer], R]) -> Future[R]:
        """Do some work with whichever is free first; begun in the order of the calls."""
        return self._pool.submit(self._do, work)

    def _do(self, work: Callable[[Derainer], R]) -> R:
        derainer = self._free.get()
        try:
            return work(derainer)
        finally:
            self._free.put(derainer)

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for what has begun; what has not is dropped."""
        self._pool.shutdown(cancel_futures=True)
