"""The record in the output folder by which a rerun knows what it has already done."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from esdnet_cli.errors import EsdnetError
from esdnet_cli.files import digest

JOURNAL = ".esdnet-journal.jsonl"


class Journal:
    """One line of JSON for each output written into a folder: what it was made from, with what, and its own digest.

    `settings` is everything that shapes the pixels (weights, precision, tiling). Lines are appended whole, so a run
    that is killed, or two that share a folder, leave a journal that can be read; the last word on an output counts.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._folder = folder
        self._path = folder / JOURNAL
        self._settings = settings
        self._entries: dict[str, dict[str, Any]] = {}
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        except NotADirectoryError as error:
            raise EsdnetError(f"{folder}: is not a folder; choose another with -o") from error
        except OSError as error:
            raise EsdnetError(
                f"{self._path}: cannot be read ({error.strerror}); check the output folder and its permissions"
            ) from error
        for line in lines:
            try:
                entry = json.loads(line)
                self._entries[entry["output"]] = entry
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # a line that a full disk or a kill cut short: its output is then foreign

    def prepare(self) -> None:
        """Make the folder, and see that it and the record can be written. Raises EsdnetError."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder), self._path.open("ab"):
                pass
        except OSError as error:
            raise EsdnetError(
                f"{self._folder}: cannot be used as output folder ({error.strerror}); choose another with -o"
            ) from error

    def is_done(self, output: Path, source_sha256: str) -> bool:
        """Is `output` what this tool wrote from this input with these settings, untouched since?"""
        entry = self._entries.get(self._key(output))
        if entry is None or entry.get("input_sha256") != source_sha256 or entry.get("settings") != self._settings:
            return False
        return entry.get("output_sha256") == digest(output.read_bytes())

    def note(self, output: Path, source_sha256: str, output_sha256: str) -> None:
        """Append the record of an output that now stands under its final name."""
        key = self._key(output)
        entry = {
            "output": key,
            "input_sha256": source_sha256,
            "output_sha256": output_sha256,
            "settings": self._settings,
        }
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            # a leading newline ends a line that a kill cut short; blank lines are passed over
            os.write(handle, b"\n" + json.dumps(entry).encode() + b"\n")
        finally:
            os.close(handle)
        self._entries[key] = entry

    def _key(self, output: Path) -> str:
        return output.relative_to(self._folder).as_posix()
