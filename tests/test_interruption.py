"""Ctrl-C twice: whatever a command is doing, and however long that would take, it ends at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clips import make_clip
from conftest import write

ENDLESS = """
import sys, time
from esdnet_cli.cli import cli
from esdnet_cli.files import whole_file
from esdnet_cli.pipeline import output
from esdnet_cli.video.encoder import SegmentEncoder
from pathlib import Path

def endless(*_):
    with whole_file(Path(sys.argv[1]) / "half") as file:
        (Path(sys.argv[1]) / "begun").touch()
        time.sleep(100)

output.encode_picture = SegmentEncoder.add = endless
cli(sys.argv[2:])
"""


@pytest.mark.parametrize("kind", ["images", "video"])
def test_a_second_ctrl_c_ends_at_once(kind: str, tiny: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "a.png") if kind == "images" else make_clip(tmp_path / "a.mp4", 3)
    work = tmp_path / "work"
    work.mkdir()
    target = tmp_path / "out" if kind == "images" else tmp_path / "out.mp4"
    command = [sys.executable, "-c", ENDLESS, work, kind, source, "-o", target, "--weights", tiny, "--tile", "0"]
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (work / "begun").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None, "what is in hand is finished first"
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and time.monotonic() - began < 5
    assert "Traceback" not in stderr
    assert [path.name for path in work.iterdir()] == ["begun"], "and nothing is left half written"
