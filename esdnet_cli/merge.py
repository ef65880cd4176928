"""Reports read back: those of several machines become one, and counts are priced anew without running anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from esdnet_cli.energy.cost import Activity, EnergyCosts, LayerActivity
from esdnet_cli.energy.meter import Measured
from esdnet_cli.errors import EsdnetError, printable
from esdnet_cli.pipeline.results import ImageResult, ModelInfo, RunInfo
from esdnet_cli.report import SCHEMA

_LAYER_FIELDS = tuple(field.name for field in fields(LayerActivity))


def merge(paths: Sequence[Path], costs: EnergyCosts | None, command: str) -> tuple[list[ImageResult], RunInfo]:
    """All pictures of several JSON reports, priced at `costs` (None: at the first report's), in the order given.

    A picture that stands in several is taken from where it was done. seconds: the longest run's, since shards run side
    by side. Raises EsdnetError if a file is no report, or of other weights or settings than the first.
    """
    pictures: dict[str, ImageResult] = {}
    runs: list[RunInfo] = []
    for path in paths:
        results, run = _read(path)
        if runs and replace(_model(run, path), device="") != replace(_model(runs[0], paths[0]), device=""):
            raise EsdnetError(
                f"{printable(path)}: of other weights, precision or tiling than {printable(paths[0])}; "
                "merge reports of one network only"
            )
        runs.append(run)
        for result in results:
            known = pictures.get(result.input)
            if known is None or (known.activity is None and result.activity is not None):
                pictures[result.input] = result
    merged = replace(
        runs[0],
        costs=costs or runs[0].costs,
        command=command,
        started=min(run.started for run in runs),
        seconds=max(run.seconds for run in runs),
        measured=tuple(measured for run in runs for measured in run.measured),
    )
    return list(pictures.values()), merged


def _model(run: RunInfo, path: Path) -> ModelInfo:
    if run.model is None:
        raise EsdnetError(f"{printable(path)}: has no energy (its pictures were scored as they were); leave it out")
    return run.model


def _read(path: Path) -> tuple[list[ImageResult], RunInfo]:
    try:
        report = json.loads(path.read_bytes())
        if report["schema"] != SCHEMA:
            raise ValueError
        return [_result(image, report["run"]["timesteps"]) for image in report["images"]], _run(report)
    except OSError as error:
        raise EsdnetError(f"{printable(path)}: {error.strerror}; name a JSON report") from error
    except (ValueError, KeyError, TypeError) as error:
        raise EsdnetError(f"{printable(path)}: is no report of this version; name the .json of --report") from error


def _result(image: dict[str, Any], timesteps: int) -> ImageResult:
    activity = None
    if image["layers"]:
        layers = (LayerActivity(**{name: layer[name] for name in _LAYER_FIELDS}) for layer in image["layers"])
        activity = Activity(timesteps, tuple(layers))
    names = ("input", "output", "status", "error", "width", "height", "seconds")
    return ImageResult(**{name: image[name] for name in names}, activity=activity)


def _run(report: dict[str, Any]) -> RunInfo:
    run, weights = report["run"], report["weights"]
    model = None
    if weights is not None:
        settings = {name: run[name] for name in ("device", "precision", "tile", "overlap", "timesteps")}
        model = ModelInfo(weights["name"], weights["sha256"], weights["config"], **settings)
    measured = [
        Measured(entry["source"], entry["joules"], entry["idle_watts"], entry["seconds"]) for entry in run["measured"]
    ]
    costs = EnergyCosts(run["pj_mac"], run["pj_ac"], run["word_bits"])
    return RunInfo(model, costs, run["command"], run["started"], run["seconds"], tuple(measured))
