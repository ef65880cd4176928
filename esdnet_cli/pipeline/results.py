"""What a run hands to whoever shows it: plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from esdnet_cli.energy.cost import Activity, Energy, EnergyCosts
from esdnet_cli.energy.meter import Measured
from esdnet_cli.metrics import Quality, SpikeRain
from esdnet_cli.pipeline.tiling import Tiling

Status = Literal["ok", "skipped", "failed"]


@dataclass(frozen=True)
class Preview:
    """Small WebP files for the HTML report. spikes: a heat map of each level; scales: rates at its colours' ends."""

    before: bytes
    after: bytes
    spikes: tuple[bytes, ...]
    scales: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ImageResult:
    """One input's fate. seconds: cutting, network and blending, without waiting for files.

    quality, spike_rain: if scored. preview: if asked for. lost: what the input has besides, and the output has not.
    input_sha256: of its bytes, where they were read.
    """

    input: str
    output: str | None
    status: Status
    error: str | None = None
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    activity: Activity | None = None
    quality: Quality | None = None
    spike_rain: SpikeRain | None = None
    preview: Preview | None = None
    lost: tuple[str, ...] = ()
    input_sha256: str | None = None

    @classmethod
    def done(
        cls, input: str, output: str | None, size: tuple[int, int], seconds: float | None, activity: Activity | None,
        lost: tuple[str, ...] = (), input_sha256: str | None = None,
    ) -> ImageResult:  # fmt: skip
        """size: width and height."""
        return cls(input, output, "ok", None, *size, seconds, activity, lost=lost, input_sha256=input_sha256)

    @classmethod
    def skipped(cls, input: str, output: str | None, input_sha256: str | None = None) -> ImageResult:
        """An earlier run has made its output."""
        return cls(input, output, "skipped", input_sha256=input_sha256)

    @classmethod
    def failed(cls, input: str, error: str, output: str | None = None) -> ImageResult:
        """error: the fault and the mend, on one line."""
        return cls(input, output, "failed", error)

    @property
    def tiling_share(self) -> float | None:
        """Share of the pixels through the network that overlap, padding and copies added, if any."""
        if self.activity is None or not self.activity.pixels or self.width is None or self.height is None:
            return None
        return 1 - self.width * self.height / self.activity.pixels


@dataclass(frozen=True)
class ModelInfo:
    """Which network ran, and how. ensemble: copies whose mean was taken. scales: sizes, None for auto.

    tile, overlap, fitted: see pipeline.tiling.Tiling.
    """

    weights_name: str
    weights_sha256: str
    config: dict[str, object]
    device: str
    precision: str
    tile: int
    overlap: int
    timesteps: int
    ensemble: int = 1
    scales: int | None = None
    fitted: bool = False

    @property
    def tiles(self) -> Tiling:
        """Where tiles lie."""
        return Tiling(self.tile, self.overlap, self.fitted)

    @property
    def tiling(self) -> str:
        """In words."""
        copies = f", mean of {self.ensemble} copies" if self.ensemble > 1 else ""
        sizes = "" if self.scales is None else ", at one size" if self.scales == 1 else f", at {self.scales} sizes"
        return str(self.tiles) + copies + sizes


@dataclass(frozen=True)
class RunInfo:
    """What the figures of a run depend on. model: None if pictures were scored as they were.

    command: as it was typed. started: ISO 8601 with time zone. seconds: wall clock of the whole run.
    measured: by this machine's energy counters, if it has any.
    """

    model: ModelInfo | None
    costs: EnergyCosts
    command: str
    started: str
    seconds: float = 0.0
    measured: tuple[Measured, ...] = ()


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (0 of a single one) over pictures."""

    mean: float
    std: float


@dataclass(frozen=True)
class Totals:
    """Counts over all inputs, sums over what was computed; quality and spike_rain are means over those scored.

    counted_megapixels: of those whose operations were counted.
    spread: over pictures, of some figures by their keys in reports, as far as they are known and finite.
    """

    ok: int
    skipped: int
    failed: int
    megapixels: float
    counted_megapixels: float
    activity: Activity
    energy: Energy
    quality: Quality | None = None
    spike_rain: SpikeRain | None = None
    spread: dict[str, Spread] = field(default_factory=dict)

    @property
    def tiling_share(self) -> float | None:
        """As of one picture, over all that were counted."""
        return 1 - self.counted_megapixels * 1e6 / self.activity.pixels if self.activity.pixels else None
