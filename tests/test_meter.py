"""Measured joules: a powercap tree and an NVML of our own making, since few machines have both."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from clips import make_clip
from conftest import Run, load_json, write

from esdnet_cli.energy import meter
from esdnet_cli.energy.meter import Meter, find_meters


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One package of 1000 J before it wraps, with a core in it, and the whole platform, which would count it twice."""
    root = tmp_path / "powercap"
    for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:1", "psys")):
        (root / zone).mkdir(parents=True)
        (root / zone / "name").write_text(f"{name}\n")
        (root / zone / "energy_uj").write_text("900000000\n")
        (root / zone / "max_energy_range_uj").write_text("1000000000\n")
    monkeypatch.setattr(meter, "POWERCAP", root)
    monkeypatch.setattr(meter, "IDLE_SECONDS", 0.01)
    return root


def test_counts_the_package_alone_and_knows_that_it_wraps(powercap: Path) -> None:
    (package,) = find_meters("cpu")
    package.begin()
    (powercap / "intel-rapl:0" / "energy_uj").write_text("950000000\n")
    package.update()
    (powercap / "intel-rapl:0" / "energy_uj").write_text("20000000\n")
    measured = package.measured()
    assert measured is not None and measured.source == "Linux RAPL, package-0"
    assert measured.joules == pytest.approx(50 + 70)


def test_idle_power_is_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(meter.time, "perf_counter", lambda: now)
    joules = 100.0
    counter = Meter("a counter", lambda: joules)
    now, joules = 2.0, 120.0
    counter.begin()  # 10 W while idle
    now, joules = 5.0, 200.0
    measured = counter.measured()
    assert measured is not None
    assert (measured.joules, measured.idle_watts, measured.seconds) == (80, 10, 3)
    assert measured.net_joules == 50


def test_a_counter_that_is_lost_on_the_way_ends_no_run(powercap: Path) -> None:
    (package,) = find_meters("cpu")
    package.begin()
    (powercap / "intel-rapl:0" / "energy_uj").unlink()
    package.update()
    assert meter.end([package]) == ()


def test_gpu_is_found_by_its_identity(monkeypatch: pytest.MonkeyPatch, powercap: Path) -> None:
    seen = []
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: seen.append(uuid) or "handle",
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: {"handle": 5000}[handle],
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    properties = SimpleNamespace(uuid="1234", name="Some GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert [found.source for found in find_meters("cuda:0")] == ["NVML, Some GPU", "Linux RAPL, package-0"]
    assert seen == ["GPU-1234"]


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_absent_without_fuss(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(meter, "POWERCAP", tmp_path / "nowhere")
    assert find_meters(device) == []
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0" / "name").write_text("package-0")  # and energy_uj, which only root may read
    monkeypatch.setattr(meter, "POWERCAP", tmp_path)
    assert find_meters(device) == []


def test_stands_beside_the_estimate(powercap: Path, tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "a.png")
    result = run("energy", tmp_path / "a.png", "--weights", tiny, "--report", tmp_path / "r.json")
    assert "W idle; all that ran there:" in result.stdout and "Linux RAPL, package-0" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80 + len(str(tmp_path))
    (measured,) = load_json(tmp_path / "r.json")["run"]["measured"]
    assert measured["source"] == "Linux RAPL, package-0" and measured["joules"] == 0
    quiet = run("energy", tmp_path / "a.png", "--weights", tiny, "-q")
    assert not quiet.stdout
    clip = make_clip(tmp_path / "x.mkv", 3, codec="ffv1", size=(33, 17))
    run("video", clip, "-o", tmp_path / "y.mkv", "--weights", tiny, "--report", tmp_path / "v.json")
    assert [entry["source"] for entry in load_json(tmp_path / "v.json")["run"]["measured"]] == [measured["source"]]
