"""A step on a CUDA device that the CPU does not hold up: hundreds of short kernels take longer to start than to run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

SEVERAL = 8  # batches of one draw: starting the kernels that make 8 takes a CPU as long as for one
_WARM_UP = 3  # steps before the recording, in which libraries choose and compile what they run (PyTorch's own number)


class Recorded:
    """Forward and backward over a batch, recorded as a CUDA graph and replayed.

    compute: (rainy, target, ...) -> loss, leaving gradients in the network's parameters; the same kernels at each call.
    example: a batch; later ones must have its shapes. The gradients are the same tensors ever after: they must not be
    set to None. Buffers of the network are as before when this is made.
    """

    def __init__(self, compute: Callable[..., Tensor], network: nn.Module, example: tuple[Tensor, ...]) -> None:
        kept = [buffer.clone() for buffer in network.buffers()]
        self._batch = [side.clone() for side in example]
        device = example[0].device
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside), _fastest():
            for _ in range(_WARM_UP):
                network.zero_grad()
                compute(*self._batch)
        torch.cuda.current_stream(device).wait_stream(aside)
        network.zero_grad()  # so that the recording makes gradients of its own, rather than adding to these
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=aside), _fastest():  # by itself it takes one of the current device
            self._loss = compute(*self._batch)
        for buffer, value in zip(network.buffers(), kept):
            buffer.copy_(value)

    def __call__(self, *batch: Tensor) -> Tensor:
        """The loss, which the next call overwrites; not waited for."""
        for recorded, side in zip(self._batch, batch):
            recorded.copy_(side)
        self._graph.replay()
        return self._loss


@contextmanager
def _fastest() -> Iterator[None]:
    """Within: each convolution by the algorithm that a trial on this device found fastest."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class Ahead:
    """Batches made ahead: on a CUDA device on a stream of its own beside the steps before, and SEVERAL by one draw.

    draw: (count, random generator) -> rainy, target and the like of `count` crops. size: crops of a batch.
    """

    def __init__(
        self, draw: Callable[[int, torch.Generator], tuple[Tensor, ...]], size: int, random: torch.Generator
    ) -> None:
        self._draw, self._size, self._random = draw, size, random
        self._aside: torch.cuda.Stream | None = None
        self._several = 1
        if random.device.type == "cuda":
            self._aside, self._several = torch.cuda.Stream(random.device), SEVERAL
            self._aside.wait_stream(torch.cuda.current_stream(random.device))  # for what crops are cut from
        self._ready: deque[tuple[Tensor, ...]] = deque()
        self._of_ready = random.get_state()  # before their draw
        self._begun: tuple[Tensor, list[tuple[Tensor, ...]]] | None = None  # the draw after, and the state before it
        self._skipped = 0  # batches of the next draw that were taken before

    @property
    def state(self) -> Tensor:
        """The generator's before the draw that the next batch is of."""
        if self._ready:
            return self._of_ready
        return self._random.get_state() if self._begun is None else self._begun[0]

    def restore(self, state: Tensor, steps: int) -> None:
        """Go on from a `state` after so many steps."""
        self._random.set_state(state)
        self._skipped = steps % self._several

    def begin(self) -> None:
        """Begin the next draw, unless it is begun."""
        if self._begun is not None:
            return
        state = self._random.get_state()
        with torch.cuda.stream(self._aside) if self._aside else nullcontext():
            sides = self._draw(self._several * self._size, self._random)
            if self._several > 1:  # crops of one source lie side by side
                order = torch.randperm(len(sides[0]), generator=self._random, device=sides[0].device)
                sides = tuple(side[order] for side in sides)
            self._begun = state, list(zip(*(side.split(self._size) for side in sides)))

    def take(self) -> tuple[Tensor, ...]:
        """The next batch."""
        if not self._ready:
            self.begin()
            assert self._begun is not None
            self._of_ready, batches = self._begun
            self._ready, self._begun, self._skipped = deque(batches[self._skipped :]), None, 0
            if self._aside is not None:
                here = torch.cuda.current_stream(self._random.device)
                here.wait_stream(self._aside)
                for side in batches[0]:  # views of one memory, which is not to be used anew before this stream is done
                    side.record_stream(here)
        return self._ready.popleft()

    def close(self) -> None:
        """Wait for what is begun: the pictures that it is cut from may go then."""
        if self._aside is not None:
            self._aside.synchronize()
