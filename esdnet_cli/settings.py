"""What the shared command line options say, in one frozen value."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from esdnet_cli.energy.cost import EnergyCosts

PrecisionChoice = Literal["auto", "fp32", "bf16", "int8"]
DEFAULT_WEIGHTS = "small"
ENSEMBLES = (1, 2, 4, 8)  # copies of a picture whose mean can be taken
# pixels of the shorter side of a picture's smallest copies: what is clearly larger than the 321 that the networks have
# learned from gets one, what is several times as large gets more; or as many as are asked for
_ONE_COPY, _MORE_COPIES, _ASKED_FOR = 180, 500, 8
MAX_MEGAPIXELS = 500.0  # a picture that claims more is refused before memory is taken
_MAX_PIXELS = "OPENCV_IO_MAX_IMAGE_PIXELS"


def limit_megapixels(most: float) -> None:
    """Refuse larger pictures in this process. OpenCV must not be loaded yet, or it takes memory for them first.

    The limit stands in the environment, since OpenCV looks for it nowhere else, and only once.
    """
    os.environ[_MAX_PIXELS] = str(round(most * 1e6))


def max_pixels() -> int:
    """The limit that holds, in pixels."""
    return int(os.environ.get(_MAX_PIXELS, MAX_MEGAPIXELS * 1e6))


def too_large(frames: bool = False) -> str:
    """What is wrong with a picture, or a clip's `frames`, of more pixels than that, and the mend."""
    kind, mend = ("frames of ", "raise") if frames else ("", "split it, or raise")
    return f"has {kind}more than {max_pixels() / 1e6:g} megapixels; {mend} --max-megapixels"


def scales_for(height: int, width: int, scales: int | None) -> int:
    """At how many sizes a picture is derained, each half of the one before: `scales`, or None for auto."""
    sizes, side = 1, min(height, width) // 2
    least = _ONE_COPY if scales is None else _ASKED_FOR
    while sizes != scales and side >= least:
        sizes, side = sizes + 1, side // 2
        least = _MORE_COPIES if scales is None else _ASKED_FOR
    return sizes


@dataclass(frozen=True)
class RunOptions:
    """None stands for auto: tile and overlap from the checkpoint, batch from memory, scales from the picture's size.

    count: spikes and operations.
    """

    weights: str = DEFAULT_WEIGHTS
    device: str = "auto"
    precision: PrecisionChoice = "auto"
    tile: int | None = None
    overlap: int | None = None
    batch: int | None = None
    ensemble: int = 1
    scales: int | None = None
    count: bool = True
    costs: EnergyCosts = field(default_factory=EnergyCosts)
    report: Path | None = None
    spike_map: Path | None = None
    dry_run: bool = False
    quiet: bool = False
    verbose: bool = False
