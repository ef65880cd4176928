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
    """Runs a network on a CUDA device: at first as it is, the second pass of a kind is recorded, all later replayed.

    A kind: the shape of the input, and the hooks in the network. With a hook that is not `replayable` nothing is.
    Where recording fails, for want of memory say, passes go on as they are.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network, self._device = network, device
        self._modules = list(network.modules())
        self._known: OrderedDict[Any, _Replay | None] = OrderedDict()  # the latest last; None: came once
        self._pool: Any = None  # what one replay computes with, the next may overwrite

    def __call__(self, images: Tensor) -> Tensor:
        """Rainy [N, 3, H, W] on the device -> derained, float32."""
        hooks = self._hooks()
        if hooks is None:
            return self._plain(images)
        kind = images.shape, images.stride(), hooks
        if kind not in self._known:
            self._known[kind] = None
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
            return self._plain(images)
        self._known.move_to_end(kind)
        replay = self._known[kind]
        if replay is None:
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            try:
                replay = self._known[kind] = _Replay(self._plain, images, self._pool, self._device)
            except RuntimeError:
                return self._plain(images)
        return replay(images)

    def _plain(self, images: Tensor) -> Tensor:
        result: Tensor = self._network(images)
        return result.float()

    def _hooks(self) -> tuple[Callable[..., Any], ...] | None:
        """All hooks in the network; None if a replay cannot do without one of them."""
        hooks = tuple(
            hook
            for module in self._modules
            for of_module in (module._forward_pre_hooks, module._forward_hooks)
            for hook in of_module.values()
        )
        return hooks if all(getattr(hook, "replayable", False) for hook in hooks) else None


class _Replay:
    """One kind of pass, recorded. Made after such a pass went through, so that what libraries keep is there."""

    def __init__(
        self, compute: Callable[[Tensor], Tensor], images: Tensor, pool: Any, device: torch.device
    ) -> None:  # fmt: skip
        self._images = images.clone()
        self._following: list[Callable[[], None]] = []
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(device)  # by itself a recording takes one of the current device
        _recording.following = self._following
        try:
            with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                self._result = compute(self._images)
        finally:
            _recording.following = None

    def __call__(self, images: Tensor) -> Tensor:
        self._images.copy_(images)
        self._graph.replay()
        for action in self._following:
            action()
        return self._result.clone()
