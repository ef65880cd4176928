"""Errors that a user can mend. Each message is one line: what is wrong with which file, and what to do."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

_log = logging.getLogger(__name__)


class EsdnetError(Exception):
    """Ends the command with exit code 2: a wrong option, a missing device, a broken checkpoint.

    details: what a list is needed for, such as the tensors that do not fit; each is shown on a line of its own.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = details


class CheckpointError(EsdnetError):
    """A checkpoint that is missing, broken, or of another network."""


class PictureError(EsdnetError):
    """One input that cannot be read, derained or written: reported as failed (exit code 1), the others go on."""


def printable(text: str | Path) -> str:
    """A stranger's name or text as any terminal and file takes it, on one line: odd characters escaped."""
    known = str(text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in known)


def one_line(error: BaseException) -> str:
    """The message of any exception on one line, its type's name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def system_error(error: OSError, source: Path | None = None) -> str:
    """What the system said of a file, and what to look at; the caller names the file.

    source: that file, where it may have been another, which is named here then.
    """
    reason = error.strerror or one_line(error)
    if source is not None and error.filename is not None and os.fspath(error.filename) != os.fspath(source):
        reason = f"{printable(os.fsdecode(error.filename))}: {reason}"
    return f"{reason}; check that it exists, that you have permission, and that the disk is not full"


def unexpected(error: Exception) -> str:
    """One line on an error that nobody foresaw; its traceback goes to the log, which ESDNET_DEBUG=1 shows."""
    _log.debug("unexpected error", exc_info=error)
    reason = f"unexpected {type(error).__name__}: {one_line(error)[:200]}"
    return f"{reason}; try --device cpu, and report it with what ESDNET_DEBUG=1 shows"
