"""Files that are whole or not there at all."""

from __future__ import annotations

import errno
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
_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # of fsync: this file system has none
NAME_BYTES = 255  # the longest name of a file that common file systems take
_LONGEST_ENDING = 16  # what is longer behind a dot is no ending

_in_hand: set[str] = set()  # temporary files being written


def write_atomically(path: Path, data: bytes, replace: bool = True, modified_ns: int | None = None) -> None:
    """Write a file so that its name never stands for half of it: see `whole_file`. Errors name the file."""
    try:
        with whole_file(path, replace, modified_ns) as file:
            file.write(data)
    except OSError as error:
        if error.filename is None:  # of a full disk
            error.filename = os.fspath(path)
        raise


@contextmanager
def whole_file(path: Path, replace: bool = True, modified_ns: int | None = None) -> Iterator[IO[bytes]]:
    """A file to write that gets its name when all is in it: temporary file in the same folder, then rename.

    Makes the folder if need be. Without `replace`, a file that has the name already raises FileExistsError, even if it
    came a moment ago. modified_ns: its modification time, in nanoseconds since 1970, where the file system takes it.
    Raises OSError, and leaves nothing behind then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=_PREFIX, suffix=_SUFFIX, dir=path.parent)
    _in_hand.add(temporary)
    os.close(handle)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            _sync(file)
        with suppress(OSError):  # many shares have no permissions, and say so
            os.chmod(temporary, 0o666 & ~_UMASK)  # mkstemp's files are private
        if replace or not _linked(temporary, path):
            os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):  # an interruption may come just after the rename
            os.unlink(temporary)
        raise
    finally:
        _in_hand.discard(temporary)
    if modified_ns is not None:  # only now: a run that begins takes an old file of a temporary name for a leftover
        with suppress(OSError):
            os.utime(path, ns=(time.time_ns(), modified_ns))


def _sync(file: IO[bytes]) -> None:
    """Have a file on the disk, where the file system knows how. Raises OSError if the disk does not take it."""
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def abandon_writes() -> None:
    """Remove what is half written, in a process that is about to end in the middle of it."""
    for temporary in list(_in_hand):
        with suppress(OSError):
            os.unlink(temporary)


def copy_times(source: Path, target: Path) -> None:
    """Give a file the access and modification time of another; where that is not possible, it keeps its own."""
    with suppress(OSError):
        times = os.stat(source)
        os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))


def fitting_name(name: str, spare: int = 0) -> str:
    """A name that with `spare` bytes more is short enough for a file: itself, or cut, with a digest in its place.

    The ending stays.
    """
    if len(os.fsencode(name)) + spare <= NAME_BYTES:
        return name
    stem, ending = os.path.splitext(name)
    if len(ending) > _LONGEST_ENDING:
        stem, ending = name, ""
    mark = f"~{digest(os.fsencode(name))[:8]}{ending}"
    room = NAME_BYTES - spare - len(os.fsencode(mark))
    while len(os.fsencode(stem)) > room:
        stem = stem[:-1]  # whole characters
    return stem + mark


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
    """Remove what killed writes have left in a folder: temporary files that nothing has touched for long."""
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with suppress(OSError):  # another run may be at the same
            if time.time() - path.stat().st_mtime > _LEFT_OVER_SECONDS:
                path.unlink()


def why_absent(name: str, kind: str) -> str:
    """Why the system shows no `kind`, such as a file, of this name, and what to do."""
    try:
        os.stat(name)
    except PermissionError as error:
        return f"cannot be looked at: {error.strerror}; check the permissions of its folder"
    except (OSError, ValueError):  # a name that no system takes is no file's, either
        pass
    return f"no such {kind}; check the name"


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
