"""Work in a process of its own: a library that crashes there costs one picture, not the run."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Lock
from types import ModuleType
from typing import Any, TypeVar

R = TypeVar("R")
_lock = Lock()  # one call at a time
_children: list[Connection] = []  # to the child, if there is one; it ends with this process, however that ends


def call(function: Callable[..., R], *args: Any) -> R:
    """What a module's function gives in the child, which is made by the first call. Raises what it raises there.

    Raises ChildProcessError if the child died of it.
    """
    with _lock:
        while True:
            if fresh := not _children:
                _children.append(_new_child())
            try:
                _children[0].send((function, args))
                failed, answer = _children[0].recv()
                break
            except BaseException as error:  # an interruption, too: its answer must not be taken for the next one's
                _children.pop().close()
                if not isinstance(error, (EOFError, ConnectionError)):
                    raise
                if fresh:  # else what an earlier call has damaged may have ended it
                    raise ChildProcessError("the process has crashed") from error
    if failed:
        raise answer
    return answer


def _new_child() -> Connection:
    context = get_context("spawn")  # of this process, with its threads, no copy would be sound
    ours, theirs = context.Pipe()
    # a child begins with the main module, of which it needs nothing; a script without a guard would run again
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        context.Process(target=_serve, args=(theirs,), daemon=True).start()
    finally:
        sys.modules["__main__"] = main
    theirs.close()
    return ours


def _serve(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what ends
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # what the library prints names no file
    with suppress(EOFError, ConnectionError):  # the parent has ended
        while True:
            function, args = connection.recv()
            try:
                answer = False, function(*args)
            except Exception as error:
                answer = True, error
            connection.send(answer)
