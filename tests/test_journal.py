"""The journal: what a rerun may believe of a folder that others write into at the same time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from esdnet_cli.files import digest
from esdnet_cli.pipeline.journal import JOURNAL, Journal, noted_outputs

SETTINGS = {"tile": 80}


def written(folder: Path, name: str = "a.png", data: bytes = b"pixels") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


def test_each_state_by_hand(tmp_path: Path) -> None:
    output = tmp_path / "a.png"
    journal = Journal(tmp_path, SETTINGS)
    assert journal.state(output, "source") == "missing"
    written(tmp_path)
    assert journal.state(output, "source") == "foreign"
    journal.note(output, "source", digest(b"pixels"))
    assert journal.state(output, "source") == "done"
    assert journal.state(output, "another source") == "foreign"
    assert Journal(tmp_path, {"tile": 64}).state(output, "source") == "outdated"
    written(tmp_path, data=b"changed")
    assert journal.state(output, "source") == "foreign"
    output.unlink()
    output.mkdir()
    assert journal.state(output, "source") == "foreign"
    assert noted_outputs(tmp_path) == {str(output)}


def test_a_line_that_another_run_is_still_writing_is_read_when_it_is_whole(tmp_path: Path) -> None:
    output = written(tmp_path)
    other = Journal(tmp_path, SETTINGS)
    other.note(output, "source", digest(b"pixels"))
    line = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(line[:30])
    journal = Journal(tmp_path, SETTINGS)
    assert journal.state(output, "source") == "foreign"
    (tmp_path / JOURNAL).write_bytes(line)  # from the same place on, not from behind what was read of it
    assert journal.state(output, "source") == "done"


def test_what_another_run_has_noted_since_is_known(tmp_path: Path) -> None:
    ours, theirs = Journal(tmp_path, SETTINGS), Journal(tmp_path, SETTINGS)
    for journal, name in ((ours, "a.png"), (theirs, "b.png"), (ours, "c.png")):
        journal.note(written(tmp_path, name), "source", digest(b"pixels"))
    for journal in (ours, theirs):
        assert {journal.state(tmp_path / f"{name}.png", "source") for name in "abc"} == {"done"}


@pytest.mark.parametrize("line", [b"", b"no json", b'{"output": 3}', b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_lines_that_are_none_of_ours_are_passed_over(line: bytes, tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(line + b"\n")
    journal = Journal(tmp_path, SETTINGS)
    journal.note(written(tmp_path), "source", digest(b"pixels"))
    assert Journal(tmp_path, SETTINGS).state(tmp_path / "a.png", "source") == "done"
    assert noted_outputs(tmp_path) == {str(tmp_path / "a.png")}


def test_a_line_after_one_that_was_cut_short_stands_alone(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(b'{"output": "a.p')
    Journal(tmp_path, SETTINGS).note(written(tmp_path), "source", digest(b"pixels"))
    lines = (tmp_path / JOURNAL).read_bytes().splitlines()
    assert json.loads(lines[-1])["output"] == "a.png"
