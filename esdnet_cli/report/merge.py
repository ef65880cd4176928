"""Reports read back: those of several machines become one, and counts are priced anew without running anything."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

from esdnet_cli.checkpoint.header import FITTED, SQUARE, TILE_SHAPES
from esdnet_cli.energy.cost import COUNTS, PRESETS, Activity, Cause, EnergyCosts, LayerActivity, LayerKind, Precision
from esdnet_cli.energy.meter import Measured
from esdnet_cli.errors import EsdnetError, printable
from esdnet_cli.metrics import Quality, SpikeRain
from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.pipeline.results import ImageResult, ModelInfo, RunInfo, Status
from esdnet_cli.report.figures import FACTS, SCHEMA


def merge(
    paths: Sequence[Path], reprice: Callable[[EnergyCosts], EnergyCosts], command: str
) -> tuple[list[ImageResult], RunInfo]:
    """All pictures of several JSON reports, priced at what `reprice` makes of the first one's costs, in their order.

    A picture that stands in several is taken from where it was done, best with counts, then with scores. seconds: the
    longest run's, since shards run side by side. Raises EsdnetError if a file is no report of pictures, or of other
    weights or settings than the first, or if a name stands for different pictures in two of them.
    """
    pictures: dict[str, ImageResult] = {}
    runs: list[RunInfo] = []
    for path in paths:
        results, run = _read(path)
        if runs and _settings(run, path) != _settings(runs[0], paths[0]):
            raise EsdnetError(
                f"{printable(path)}: was made with other weights, precision or tiling than {printable(paths[0])}; "
                "merge only reports with the same settings"
            )
        runs.append(run)
        for result in results:
            known = pictures.get(result.input)
            if known and known.activity and result.activity and known.activity != result.activity:
                raise EsdnetError(
                    f"{printable(path)}: {result.input} has different counts in an earlier report, so two pictures "
                    "share this name; run esdnet from the folder above both, so that their names differ"
                )
            if known is None or _worth(result) > _worth(known):
                pictures[result.input] = result
    merged = replace(
        runs[0],
        costs=reprice(runs[0].costs),
        command=command,
        started=min(run.started for run in runs),
        seconds=max(run.seconds for run in runs),
        measured=tuple(
            replace(measured, source=f"{measured.source}, {printable(path.name)}")
            for path, run in zip(paths, runs)
            for measured in run.measured
        ),
    )
    return list(pictures.values()), merged


def done_before(path: Path, model: ModelInfo) -> dict[str, ImageResult]:
    """The pictures that a JSON report, if there is one, has figures of, by name; none of other settings."""
    try:
        results, run = _read(path)
    except EsdnetError:
        return {}
    if run.model is None or _settings(run, path) != replace(model, device="", weights_name=""):
        return {}
    return {result.input: result for result in results if result.status == "ok"}


def _worth(result: ImageResult) -> tuple[bool, int, bool, bool]:
    done = ("failed", "skipped", "ok").index(result.status)
    return result.activity is not None, done, result.quality is not None, result.spike_rain is not None


def _settings(run: RunInfo, path: Path) -> ModelInfo:
    """What two reports must agree in: the same weights may have another name, and run elsewhere."""
    return replace(_model(run, path), device="", weights_name="")


def _model(run: RunInfo, path: Path) -> ModelInfo:
    if run.model is None:
        raise EsdnetError(
            f"{printable(path)}: contains no energy figures (made with --as-is, or of no picture); leave it out"
        )
    return run.model


def _read(path: Path) -> tuple[list[ImageResult], RunInfo]:
    try:
        report = json.loads(path.read_bytes())
        if report["schema"] != SCHEMA:
            raise ValueError
        if "clips" in report:
            raise EsdnetError(f"{printable(path)}: is a report of clips; give reports of pictures")
        levels = (report["weights"] or {"config": {}})["config"].get("levels", 1)
        virtual_steps = _count(report["run"]["timesteps"] or 0) * _count(levels)
        # reports of older versions say neither; only in fp32 do all layers compute in one format
        older = {"precision": "fp32" if report["run"]["precision"] == "fp32" else "unknown", "weights": 0}
        return [_result(image, virtual_steps, older) for image in report["images"]], _run(report)
    except OSError as error:
        raise EsdnetError(f"{printable(path)}: {error.strerror}; name a JSON report") from error
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise EsdnetError(
            f"{printable(path)}: is not a JSON report of this version; give a .json file written by --report"
        ) from error


def _result(image: dict[str, Any], virtual_steps: int, older: dict[str, Any]) -> ImageResult:
    if image["status"] not in get_args(Status) or image["input"] is None:
        raise ValueError
    facts: dict[str, Any] = {
        key: None if image[key] is None else _READ[kind](image[key]) for key, kind in FACTS.items()
    }
    layers = tuple(_layer({**older, **layer}) for layer in image["layers"])
    counted = Activity(virtual_steps, layers) if layers else None
    sha256 = image.get("input_sha256")
    if sha256 is not None:
        facts["input_sha256"] = _text(sha256)
    if facts["status"] == "skipped" and facts["width"] is not None:  # with an earlier run's figures
        facts["status"] = "ok"
    return ImageResult(**facts, activity=counted, quality=_quality(image), spike_rain=_spike_rain(image))


def _quality(image: dict[str, Any]) -> Quality | None:
    """What `esdnet evaluate` added; a PSNR of null is that of equal pictures, since JSON knows no infinity."""
    if "psnr_y" not in image:
        return None
    scores = {field.name: image[field.name] for field in fields(Quality)}
    return Quality(**{key: math.inf if score is None else float(score) for key, score in scores.items()})


def _spike_rain(image: dict[str, Any]) -> SpikeRain | None:
    if "spike_rain_r" not in image:
        return None
    rates = {field.name: image[field.name] for field in fields(SpikeRain)}
    return SpikeRain(**{key: None if r is None else float(r) for key, r in rates.items()})


def _layer(layer: dict[str, Any]) -> LayerActivity:
    named = {"kind": LayerKind, "cause": Cause, "precision": Precision}
    if any(layer[key] not in get_args(known) for key, known in named.items()):
        raise ValueError
    counts = {key: _count(layer[key]) for key in COUNTS}
    return LayerActivity(_text(layer["name"]), layer["kind"], layer["cause"], layer["precision"], **counts)


def _run(report: dict[str, Any]) -> RunInfo:
    run, weights = report["run"], report["weights"]
    model = None
    if weights is not None:
        name, sha256, device, precision = (
            _text(text) for text in (weights["name"], weights["sha256"], run["device"], run["precision"])
        )
        tile, overlap, timesteps = (_count(run[key]) for key in ("tile", "overlap", "timesteps"))
        ESDNetConfig.from_dict(weights["config"])
        copies = _count(run.get("ensemble", 1))
        scales = run.get("scales", 1)  # older versions knew one only, and square tiles
        shape = run.get("tile_shape", SQUARE)
        if shape not in TILE_SHAPES:
            raise ValueError
        model = ModelInfo(
            name, sha256, dict(weights["config"]), device, precision, tile, overlap, timesteps, copies,
            None if scales == "auto" else _count(scales), shape == FITTED,
        )  # fmt: skip
    measured = [
        Measured(_text(entry["source"]), *(float(entry[key]) for key in ("joules", "idle_watts", "seconds")))
        for entry in run["measured"]
    ]
    command, started = (_text(run[key]) for key in ("command", "started"))
    return RunInfo(model, _costs(run), command, started, _amount(run["seconds"]), tuple(measured))


def _costs(run: dict[str, Any]) -> EnergyCosts:
    pj_mac, pj_ac, word_bits = _amount(run["pj_mac"]), _amount(run["pj_ac"]), _count(run["word_bits"])
    if "sum_bits" in run:
        return EnergyCosts(pj_mac, pj_ac, word_bits, _count(run["sum_bits"]))
    older = EnergyCosts(pj_mac, pj_ac, word_bits, word_bits)
    return next((costs for costs in PRESETS.values() if replace(costs, sum_bits=word_bits) == older), older)


def _text(value: Any) -> str:
    """A stranger's text, safe to print. Raises ValueError if it is none."""
    if not isinstance(value, str):
        raise ValueError
    return printable(value)


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError
    return value


def _amount(value: Any) -> float:
    if not 0 <= (amount := float(value)) < math.inf:  # nor NaN
        raise ValueError
    return amount


_READ: dict[type, Callable[[Any], Any]] = {str: _text, int: _count, float: _amount}
