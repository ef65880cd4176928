"""The record in the output folder by which a rerun knows what it has already done."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from esdnet_cli.errors import EsdnetError
from esdnet_cli.files import file_digest, remove_leftovers

JOURNAL = ".esdnet-journal.jsonl"
# done: ours, from this input, with these settings, untouched since; outdated: the same, but with other settings;
# foreign: anything else
State = Literal["missing", "done", "outdated", "foreign"]


def noted_outputs(folder: Path) -> set[str]:
    """Paths of what the journal in a folder knows as written there: outputs of ours. Empty if it cannot be read."""
    try:
        lines = (folder / JOURNAL).read_bytes().splitlines()
    except OSError:
        return set()
    return {str(folder / entry["output"]) for entry in _entries(lines)}


def _entries(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The records among the lines; a line that was cut short, or is none of ours, is passed over."""
    for line in lines:
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            entry = json.loads(line)
            if isinstance(entry["output"], str) and isinstance(entry["output_sha256"], str):
                yield entry


class Journal:
    """One line of JSON for each output written into a folder: what it was made from, with what, and its own digest.

    `settings` is everything that shapes the pixels (the code's number, weights, precision, tiling). A line is appended
    whole, and before its output gets its final name: a run that is killed at any moment, or two that share a folder,
    leave no output that the journal does not know. A line for an output that never came is harmless.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._folder = folder
        self._path = folder / JOURNAL
        self._settings = settings
        self._entries: dict[tuple[str, str], dict[str, Any]] = {}  # by output and its digest
        self._read_to = 0
        self._tidied: set[Path] = set()
        self._reading = threading.Lock()  # two threads at once would both move on by what each has read
        self._read()

    def prepare(self) -> None:
        """Make the folder, and see that it and the record can be written. Raises EsdnetError."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder):
                self._tidy(self._folder)
            if self._path.exists():  # none is made before there is something to note
                self._path.open("ab").close()
        except OSError as error:
            raise EsdnetError(
                f"{self._folder}: cannot be used as output folder ({error.strerror}); choose another"
            ) from error

    def state(self, output: Path, source_sha256: str) -> State:
        """What stands under an output's name: see State. Raises OSError if it cannot be read."""
        if not os.path.lexists(output):
            return "missing"
        if not os.path.isfile(output):
            return "foreign"
        key = (self._key(output), file_digest(output))
        if key not in self._entries:
            self._read()  # another run may have written it since
        entry = self._entries.get(key)
        if entry is None or entry.get("input_sha256") != source_sha256:
            return "foreign"
        return "done" if entry.get("settings") == self._settings else "outdated"

    def note(self, output: Path, source_sha256: str, output_sha256: str) -> None:
        """Append the record of an output that is about to get its final name, in a folder that is there."""
        self._tidy(output.parent)
        key = self._key(output)
        entry = {
            "output": key,
            "input_sha256": source_sha256,
            "output_sha256": output_sha256,
            "settings": self._settings,
        }
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            # a leading newline ends a line that a full disk cut short; blank lines are passed over
            line = b"\n" + json.dumps(entry).encode() + b"\n"
            if os.write(handle, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        finally:
            os.close(handle)
        self._entries[key, output_sha256] = entry

    def _tidy(self, folder: Path) -> None:
        """Of the folders that this run writes to: others below the output folder may be anybody's, and many."""
        if folder not in self._tidied:
            self._tidied.add(folder)
            remove_leftovers(folder)

    def _read(self) -> None:
        """Take in what has been appended since the last time."""
        with self._reading:
            try:
                with self._path.open("rb") as file:
                    file.seek(self._read_to)
                    lines = file.read()
            except FileNotFoundError:
                return
            except NotADirectoryError as error:
                raise EsdnetError(f"{self._folder}: is not a folder; choose another") from error
            except OSError as error:
                raise EsdnetError(
                    f"{self._path}: cannot be read ({error.strerror}); check the output folder and its permissions"
                ) from error
            self._read_to += lines.rfind(b"\n") + 1  # the last line may be in the making
            for entry in _entries(lines.splitlines()):
                self._entries[entry["output"], entry["output_sha256"]] = entry

    def _key(self, output: Path) -> str:
        return output.relative_to(self._folder).as_posix()
