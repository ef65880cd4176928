"""Files that are whole or absent, on disks and shares of every kind."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from esdnet_cli.files import abandon_writes, copy_times, fitting_name, whole_file, write_atomically


def refusing(code: int) -> Any:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.EROFS])
def test_a_share_without_permissions_takes_files(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "chmod", refusing(code))
    write_atomically(tmp_path / "a", b"whole")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"whole")]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP])
def test_a_share_without_fsync_takes_files(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", refusing(code))
    write_atomically(tmp_path / "a", b"whole")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"whole")]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fails_at_fsync_is_an_error(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", refusing(code))
    with pytest.raises(OSError) as caught:
        write_atomically(tmp_path / "a", b"whole")
    assert caught.value.errno == code and not list(tmp_path.iterdir())
    assert caught.value.filename == str(tmp_path / "a"), "of two disks, it is known which"


def test_abandoned_writes_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "a") as file:
        file.write(b"half")
        assert len(list(tmp_path.iterdir())) == 1
        abandon_writes()
        assert not list(tmp_path.iterdir())
    write_atomically(tmp_path / "b", b"whole")
    abandon_writes()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_times_are_copied_where_that_is_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    for path in (source, target):
        path.touch()
    os.utime(source, ns=(10**18, 123456789 * 10**9))
    copy_times(source, target)
    assert target.stat().st_mtime_ns == 123456789 * 10**9
    copy_times(tmp_path / "gone", target)
    monkeypatch.setattr(os, "utime", refusing(errno.EPERM))
    copy_times(source, target)


@pytest.mark.parametrize("stem", ["a", "雨", "é", "a.b", "\udcff"])
def test_names_fit(stem: str) -> None:
    size = len(os.fsencode(stem))
    for length in (1, 200, 242, 255):
        name = stem * (length // size) + ".mp4"
        for spare in (0, 14):
            fitting = fitting_name(name, spare)
            assert len(os.fsencode(fitting)) + spare <= 255 and fitting.endswith(".mp4")
            assert (fitting == name) == (len(os.fsencode(name)) + spare <= 255)
    long = stem * (300 // size)
    assert fitting_name(long + "x.mp4") != fitting_name(long + "y.mp4"), "no two names become one"
    assert len(os.fsencode(fitting_name("a." + long))) <= 255, "what is no ending"


@pytest.mark.parametrize("name_it", ["link", "replace"])
def test_an_interruption_just_after_the_rename_is_one(
    name_it: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = getattr(os, name_it)

    def interrupted(source: str, target: Path) -> None:
        rename(source, target)
        if name_it == "link":
            os.unlink(source)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, name_it, interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a", b"whole", replace=name_it == "replace")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"whole")]
