"""Files that are whole or not there at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

_PREFIX, _SUFFIX = ".esdnet-", ".part"
_LEFT_OVER_SECONDS = 3600  # no write takes so long: what is younger may belong to a run beside this one


def write_atomically(path: Path, data: bytes, replace: bool = True, modified_ns: int | None = None) -> None:
    """Write a file so that its name never stands for half of it: see `whole_file`."""
    with whole_file(path, replace, modified_ns) as file:
        file.write(data)


@contextmanager
def whole_file(path: Path, replace: bool = True, modified_ns: int | None = None) -> Iterator[IO[bytes]]:
    """A file to write that gets its name when all is in it: temporary file in the same folder, then rename.

    Makes the folder if need be. Without `replace`, a file that has the name already raises FileExistsError, even if it
    came a moment ago. modified_ns: its modification time, in nanoseconds since 1970, where the file system takes it.
    Raises OSError, and leaves nothing behind then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=_PREFIX, suffix=_SUFFIX, dir=path.parent)
    os.close(handle)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)  # mkstemp's files are private
        if modified_ns is not None:
            with suppress(OSError):
                os.utime(temporary, ns=(time.time_ns(), modified_ns))
        if replace or not _linked(temporary, path):
            os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


class HeldErrors:
    """A file for libraries that print a traceback of what it raises: it raises nothing, `check` does so later."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        """As of files; nothing is written any more after an error."""
        return self._tried(self._file.write, data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of files."""
        return self._tried(self._file.seek, offset, whence)

    def tell(self) -> int:
        """As of files."""
        return self._tried(self._file.tell)

    def check(self) -> None:
        """Raise the first error, if there was one."""
        if self._error is not None:
            raise self._error

    def _tried(self, step: Callable[..., int], *args: Any) -> int:
        if self._error is None:
            try:
                return step(*args)
            except OSError as error:
                self._error = error
        return 0


def _linked(temporary: str, path: Path) -> bool:
    """Give a file its name only if that is free; False where the file system knows no links, as on memory cards."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        return False
    os.unlink(temporary)
    return True


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writes have left below a folder: temporary files that nothing has touched for long."""
    for path in folder.rglob(f"{_PREFIX}*{_SUFFIX}"):
        with suppress(OSError):  # another run may be at the same
            if time.time() - path.stat().st_mtime > _LEFT_OVER_SECONDS:
                path.unlink()


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """As `digest`, of a file of any length, which need not fit into memory. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _read_umask()  # once, at import: reading it sets it, which threads would notice
