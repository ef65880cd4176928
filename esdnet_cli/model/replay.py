"""Passes on a CUDA device that the CPU does not hold up: hundreds of short kernels take longer to start than to run."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

_MOST = 8  # kinds of passes that are remembered: tiles of a few sizes, and the last batch of each
_Hook = TypeVar("_Hook", bound=Callable[..., Any])


class _Recording(threading.local):
    """What follows each pass of the kind that this thread records, if it records one."""

    following: list[Callable[[], None]] | None = None


_recording = _Recording()


def replayable(hook: _Hook) -> _Hook:
    """Mark a hook that a replay may leave out: all that it does on the CPU, for each pass, it does by `after_pass`."""
    hook.replayable = True  # type: ignore[attr-defined]
    return hook


def after_pass(action: Callable[[], None]) -> None:
    """Do this now; in a pass that is being recorded, after each replay instead.

    A replay writes the same tensors again, so the action must not keep one as it is.
    """
    if _recording.following is None:
        action()
    else:
        _recording.following.append(action)


class Replays:
    """Runs a network on a CUDA device: two passes of a kind as it is, the second is recorded then, all later replayed.

    A kind: the shape of the input, the network's modules and tensors, and their hooks. With a hook that is not
    `replayable` nothing is recorded. Where that fails, for want of memory say, passes go on as they are, and nothing
    more is recorded. A pass that finds no memory gets what recordings hold. PyTorch bears one recording at a time in a
    process: not to be called from two threads at once.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network, self._device = network, device
        self._known: OrderedDict[Any, _Replay | None] = OrderedDict()  # the latest last; None: came once
        # what one replay computes with, the next may overwrite; memory is handed on within a stream alone
        self._pool: Any = None
        self._stream: Any = None
        self._failed = False

    def __call__(self, images: Tensor, record: bool = True) -> Tensor:
        """Rainy [N, 3, H, W] on the device -> derained, float32. Without `record` as it is."""
        within = self._within() if record else None
        if within is None:
            return self._plain(images)
        kind = images.shape, images.stride(), within
        came = kind in self._known
        replay = self._known.setdefault(kind, None)
        self._known.move_to_end(kind)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)
        if replay is not None:
            return replay(images)
        result = self._plain(images)
        if came and not self._failed and kind in self._known:
            self._known[kind] = self._recorded(images)
        return result

    def _recorded(self, images: Tensor) -> _Replay | None:
        """Right after such a pass went through, so that what libraries and counters keep is there: a copy from the CPU,
        or a wait for it, ends a recording. What one that failed had taken is given back on return."""
        if self._stream is None:
            self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(self._device)
        try:
            return _Replay(self._computed, images, self._pool, self._stream)
        except RuntimeError:
            self._failed = True
            return None

    def _plain(self, images: Tensor) -> Tensor:
        try:
            return self._computed(images)
        except torch.OutOfMemoryError:
            if not any(self._known.values()):
                raise
        self._known.clear()
        self._pool = self._stream = None  # PyTorch takes no pool up again that was given back
        torch.cuda.empty_cache()
        return self._computed(images)

    def _computed(self, images: Tensor) -> Tensor:
        result: Tensor = self._network(images)
        return result.float()

    def _within(self) -> tuple[Any, ...] | None:
        """The network's modules, their hooks, where their tensors lie; None if a replay cannot do without a hook."""
        modules, hooks, places = [self._network], list[Callable[..., Any]](), list[int]()
        for module in modules:  # which grow meanwhile
            modules += filter(None, module._modules.values())
            hooks += (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
            for of_module in (module._parameters, module._buffers):
                places += [tensor.data_ptr() for tensor in of_module.values() if tensor is not None]
        if not all(getattr(hook, "replayable", False) for hook in hooks):
            return None
        return *modules, *hooks, *places


class _Replay:
    """One kind of pass, recorded."""

    def __init__(self, compute: Callable[[Tensor], Tensor], images: Tensor, pool: Any, stream: Any) -> None:
        self._images = images.clone()
        self._following: list[Callable[[], None]] = []
        self._graph = torch.cuda.CUDAGraph()
        _recording.following = self._following
        try:
            # after one that failed PyTorch's own leaves the stream the current one
            recording = torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local")
            with torch.cuda.stream(stream), recording:
                self._result = compute(self._images)
        except RuntimeError:
            # PyTorch leaves the device's generator within the recording: whoever drew from it next would fail
            random = torch.cuda.default_generators[images.device.index]
            random.graphsafe_set_state(random.clone_state())
            raise
        finally:
            _recording.following = None

    def __call__(self, images: Tensor) -> Tensor:
        self._images.copy_(images)
        self._graph.replay()
        result = self._result.clone()  # before what counts the pass: there may be no room for it
        for action in self._following:
            action()
        return result
