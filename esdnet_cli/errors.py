"""Errors that a user can mend. Each message is one line: what is wrong with which file, and what to do."""

from __future__ import annotations


class EsdnetError(Exception):
    """Ends the command with exit code 2: a wrong option, a missing device, a broken checkpoint."""


class CheckpointError(EsdnetError):
    """A checkpoint that is missing, broken, or of another network."""


class PictureError(EsdnetError):
    """One input that cannot be read, derained or written: reported as failed (exit code 1), the others go on."""


def one_line(error: BaseException) -> str:
    """The message of any exception on one line, its type's name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
