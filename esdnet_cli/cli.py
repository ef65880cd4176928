"""The command group. A command's module is imported when it is named, and torch and OpenCV only when it runs."""

from __future__ import annotations

import atexit
import errno
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import IO, Any

import click

from esdnet_cli import __version__
from esdnet_cli.errors import EsdnetError, printable, system_error, unexpected
from esdnet_cli.files import abandon_writes

COMMANDS = ("images", "video", "energy", "evaluate", "train", "synth", "convert", "weights", "bench")
INTERRUPTED = 130  # as shells report a process that SIGINT ended
_ONE_PRESS = 0.2  # seconds in which a second signal is an echo of the first
_SPINS = "1000"  # the OpenMP runtime has 300000: measured in benchmarks/README.md


_presses: list[float] = []  # when signals came during this command
_watching = threading.Event()


class _Failure(click.ClickException):
    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        with suppress(OSError):  # a full disk behind stderr changes no exit code
            super().show(file)


class _Stderr(logging.Handler):
    """Writes to what stderr is at that moment: a run moves it while C libraries are muted."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"esdnet_cli.commands.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """The one place where errors become exit codes: 2 for what stops a command, 130 for an interruption."""
        _mend_streams()
        _wait_politely()
        if os.environ.get("ESDNET_DEBUG"):
            logging.basicConfig(format="%(name)s: %(message)s", handlers=[_Stderr()])
            logging.getLogger("esdnet_cli").setLevel(logging.DEBUG)
        try:
            with _interruptible():
                return super().invoke(ctx)
        except EsdnetError as error:
            raise _Failure("\n  ".join(map(printable, [str(error), *error.details]))) from error
        except KeyboardInterrupt:
            with suppress(OSError):
                click.echo("Interrupted.", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output has gone: click ends quietly
                raise
            place = printable(os.fsdecode(error.filename)) if error.filename is not None else "standard output"
            raise _Failure(f"{place}: {system_error(error)}") from error
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            raise _Failure(unexpected(error)) from error


def _mend_streams() -> None:
    """Printing must not end a run: closed streams go nowhere, what an encoding lacks becomes a question mark."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115 (for the rest of the process)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (for the rest of the process)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _wait_politely() -> None:
    """Threads that wait for another one give up their core soon: it may be the one that the other needs.

    Read when torch is imported, so never too late here. What the user has set stands.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM end a command alike: the picture being written is finished, the summary printed.

    A second one ends the process at once. Some launchers hand one Ctrl-C on, so that it comes twice: that is one.
    """

    def interrupt(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)  # the watch counts them
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only there are signals handled
        yield
        return
    _watch_signals()
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        # once all threads have ended, Python's last steps must not end in another code
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
        raise
    for number, handler in before.items():  # not after an interruption or error: the process is about to end
        signal.signal(number, handler)


def _watch_signals() -> None:
    """End the process at a second signal, from a thread: the main one may be in a computation that lets no handler run.

    Files are whole or absent whenever that happens.
    """
    _presses.clear()
    if _watching.is_set():
        return
    _watching.set()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        while number := os.read(reader, 1):
            now = time.monotonic()
            if number[0] in (signal.SIGINT, signal.SIGTERM):
                if _presses and now - _presses[0] > _ONE_PRESS:
                    abandon_writes()
                    os._exit(INTERRUPTED)
                _presses.append(now)

    threading.Thread(target=watch, daemon=True).start()


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="esdnet")
def cli() -> None:
    """Removes rain from photographs and clips with the spiking network ESDNet, and reports spike rates and energy.

    Every option can also be set by an environment variable: --device by ESDNET_DEVICE, and so on; several folders,
    where an option may be repeated, are separated there as in PATH.
    Exit codes: 0 all done, 1 some inputs failed, 2 wrong usage or checkpoint, 130 interrupted.

    \b
    Example:
      esdnet images rainy/ -o derained/
    """
