"""Joules that this machine measured, where it can: NVIDIA's energy counter and Linux RAPL. Absent without fuss.

They count the whole GPU or processor package, whoever uses it, and say nothing of the 45 nm estimate's hardware.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

POWERCAP = Path("/sys/class/powercap")
IDLE_SECONDS = 1.0


@dataclass(frozen=True)
class Measured:
    """What one counter saw. joules: from start to end. idle_watts: just before. seconds: from start to end."""

    source: str
    joules: float
    idle_watts: float
    seconds: float

    @property
    def net_joules(self) -> float:
        """Without what the idle machine would have taken."""
        return self.joules - self.idle_watts * self.seconds


class Meter:
    """One energy counter: made by `find_meters`. Call `update` now and then, since counters wrap around."""

    def __init__(self, source: str, read: Callable[[], float], wraps_at: float | None = None) -> None:
        self.source, self._read, self._wraps_at = source, read, wraps_at
        self._last = read()
        self._joules = 0.0
        self._started = time.perf_counter()
        self._idle_watts = 0.0
        self._lost = False

    def update(self) -> None:
        """Take up what was used since the last call; a counter that cannot be read any more is given up."""
        try:
            now = self._read()
        except Exception:  # a driver of whatever kind: no run ends for that
            self._lost = True
            return
        used = now - self._last
        if used < 0 and self._wraps_at is not None:
            used += self._wraps_at
        self._joules += max(used, 0.0)
        self._last = now

    def begin(self) -> None:
        """What was seen so far was the idle machine; from here on it counts."""
        self.update()
        idle = time.perf_counter() - self._started
        self._idle_watts = self._joules / idle if idle else 0.0
        self._joules, self._started = 0.0, time.perf_counter()

    def measured(self) -> Measured | None:
        """What was used since `begin`; None if the counter was lost on the way."""
        self.update()
        if self._lost:
            return None
        return Measured(self.source, self._joules, self._idle_watts, time.perf_counter() - self._started)


def begin(meters: Sequence[Meter]) -> None:
    """Watch the idle machine for a moment, then begin to count. Without meters nothing is waited for."""
    if meters:
        time.sleep(IDLE_SECONDS)
    for meter in meters:
        meter.begin()


def end(meters: Sequence[Meter]) -> tuple[Measured, ...]:
    """What each counter saw since `begin`, without those that were lost."""
    return tuple(measured for meter in meters if (measured := meter.measured()) is not None)


def find_meters(device: str) -> list[Meter]:
    """The counters that this machine lets us read: the GPU's if `device` is one, and the processor packages'."""
    sources = [partial(_gpu, torch.device(device)), *(partial(_package, zone) for zone in _zones())]
    return [meter for source in sources if (meter := _if_readable(source))]


def _if_readable(source: Callable[[], Meter | None]) -> Meter | None:
    try:
        return source()
    except Exception:  # no driver, no permission, no such counter: an estimate needs no measurement beside it
        return None


def _zones() -> list[Path]:
    return sorted(POWERCAP.glob("intel-rapl:[0-9]*")) if POWERCAP.is_dir() else []


def _package(zone: Path) -> Meter | None:
    name = (zone / "name").read_text().strip()
    if zone.name.count(":") > 1 or not name.startswith("package"):  # parts of a package, or the whole platform
        return None
    wraps_at = int((zone / "max_energy_range_uj").read_text()) / 1e6
    return Meter(f"Linux RAPL, {name}", lambda: int((zone / "energy_uj").read_text()) / 1e6, wraps_at)


def _gpu(device: torch.device) -> Meter | None:
    if device.type != "cuda":
        return None
    import pynvml  # nvidia-ml-py; whoever has it gets the figure

    pynvml.nvmlInit()
    properties: Any = torch.cuda.get_device_properties(device)
    handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}")
    return Meter(f"NVML, {properties.name}", lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)
