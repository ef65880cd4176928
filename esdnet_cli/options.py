"""Options that several commands share, each written once; they arrive as one frozen RunOptions."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import click

from esdnet_cli.energy.cost import PRESETS
from esdnet_cli.settings import (
    DEFAULT_WEIGHTS,
    ENSEMBLES,
    MAX_MEGAPIXELS,
    PrecisionChoice,
    RunOptions,
    limit_megapixels,
)

Command = Callable[..., Any]


class _Path(click.Path):
    """A path that is one: click would take an empty word, such as a shell's unset variable, for this folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not os.fspath(value):
            self.fail("is empty; give a name", param, ctx)
        return super().convert(value, param, ctx)


class _OnePath(_Path):
    """Of an option that may not be repeated: all of its environment variable, which click would split as PATH is."""

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv]


PATH = _Path(path_type=Path)


def option(name: str, *rest: Any, **attributes: Any) -> Callable[[Command], Command]:
    """click.option that also reads an environment variable: --pj-mac is ESDNET_PJ_MAC."""
    long = next(part for part in (name, *rest) if part.startswith("--")).split("/")[0]
    return click.option(name, *rest, envvar="ESDNET_" + long.removeprefix("--").replace("-", "_").upper(), **attributes)


class _AutoOr(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 only
    """A whole number of at least `least`, or auto, which becomes None. fault: of such a number, None if it will do."""

    name = "number"

    def __init__(self, metavar: str, what: str, least: int, fault: Callable[[int], str | None] = lambda _: None):
        self._metavar, self._what, self._least, self._fault = metavar, what, least, fault

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return self._metavar

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "auto":
            return None
        try:
            number = int(value)
        except ValueError:
            number = self._least - 1
        if number < self._least:
            self.fail(f"{value!r} is neither auto nor {self._what}", param, ctx)
        if (fault := self._fault(number)) is not None:
            self.fail(f"{number} {fault}", param, ctx)
        return number


def _tile_fault(side: int) -> str | None:
    return "is too small; use 8 or more, or 0 for the picture in one piece" if 0 < side < 8 else None


def _cost(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 <= value <= 1e6:  # a NaN is not, either
        raise click.BadParameter(f"{value} is not a cost; give picojoules, such as 0.9")
    return value


def _megapixels(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if not 0 <= value <= 10_000:
        raise click.BadParameter(f"{value} is not a limit; give 0 to 10000")
    return value


def _report_option(**formats: str) -> Callable[[Command], Command]:
    """--report for these file name endings, without their dots, each with what it holds."""
    endings = [f".{ending}" for ending in formats]
    either = f"{', '.join(endings[:-1])} or {endings[-1]}" if len(endings) > 1 else endings[0]

    def check(ctx: click.Context, param: click.Parameter, paths: tuple[Path, ...]) -> Path | None:
        if not paths:
            return None
        path, *more = paths
        if more:
            raise click.BadParameter(f"one file, not {len(paths)}; esdnet energy --merge makes others of a .json")
        if path.suffix.lower() not in endings:
            raise click.BadParameter(f"{path}: unknown file name ending; use {either}")
        if os.path.isdir(path):
            raise click.BadParameter(f"{path}: is a folder; name a file")
        folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))  # the rest is made later
        try:  # now, not after hours of work
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            mend = "choose another place"
            raise click.BadParameter(f"{path}: cannot be written there ({error.strerror}); {mend}") from error
        return path

    told = "; ".join(f".{ending}{held and f' ({held})'}" for ending, held in formats.items())
    return option(
        "--report",
        type=_OnePath(path_type=Path),
        multiple=True,  # to say so, where click would take the last one
        callback=check,
        metavar="FILE",
        help=f"Also write all figures to FILE; its extension selects the format: {told}.",
    )


def _cost_option(name: str, text: str) -> Callable[[Command], Command]:
    help_text = f"{text}  [default: the preset's]"
    return option(name, type=float, callback=_cost, metavar="PJ", help=help_text)


def _verbose_option(text: str) -> Callable[[Command], Command]:
    return option("-v", "--verbose", is_flag=True, help=text)


inputs_argument = click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
recursive_option = option("-r", "--recursive", is_flag=True, help="Include subfolders.")
overwrite_option = option("--overwrite", is_flag=True, help="Overwrite existing files.")
new_dates_option = option(
    "--new-dates", is_flag=True, help="Give outputs the current date.  [default: their inputs' dates]"
)
shard_option = option(
    "--shard",
    metavar="I/N",
    help="Process part I of N, counted from 1.  [default: torchrun's or SLURM's share, else all]",
)
weights_option = option(
    "--weights",
    default=DEFAULT_WEIGHTS,
    show_default=True,
    metavar="NAME|PATH",
    help="Bundled checkpoint or .safetensors file.",
)

device_option = option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda|cuda:N|mps", help="Device to compute on."
)
quiet_option = option("-q", "--quiet", is_flag=True, help="Print errors only.")

DEFAULT_PRESET = "fp32-45nm"
_RUN_OPTIONS = {
    "weights": weights_option,
    "device": device_option,
    "precision": option(
        "--precision",
        type=click.Choice(get_args(PrecisionChoice)),
        default="auto",
        show_default=True,
        help="Number format of the convolutions; auto takes the fastest within 0.05 dB of fp32.",
    ),
    "tile": option(
        "--tile",
        type=_AutoOr("auto|N|0", "a number of pixels", least=0, fault=_tile_fault),
        default="auto",
        show_default=True,
        help="Side of square tiles in pixels; 0 for the picture in one piece; auto takes the checkpoint's tiles.",
    ),
    "overlap": option(
        "--overlap",
        type=click.IntRange(min=0),
        metavar="N",
        help="Pixels that neighbouring tiles share.  [default: the checkpoint's, at most a quarter of --tile]",
    ),
    "batch": option(
        "--batch",
        type=click.IntRange(min=1),
        metavar="N",
        help="Number of tiles computed at once.  [default: what fits in memory]",
    ),
    "ensemble": option(
        "--ensemble",
        type=click.Choice(ENSEMBLES[1:]),
        help="Average over this many mirrored and rotated copies: slightly better pictures for 2, 4 or 8 times the "
        "work.",
    ),
    "scales": option(
        "--scales",
        type=_AutoOr("auto|N", "a number of sizes, 1 or more", least=1),
        default="auto",
        show_default=True,
        help="At how many sizes to look for rain, each half of the one before; auto takes 1 with --tile, else 2 from "
        "360 pixels of the shorter side, 3 from 2,000.",
    ),
    "max_megapixels": option(
        "--max-megapixels",
        type=float,
        callback=_megapixels,
        metavar="N",
        default=MAX_MEGAPIXELS,
        help="Refuse pictures larger than this before allocating memory.  [default: 500]",
    ),
    "energy_preset": option(
        "--energy-preset",
        type=click.Choice(list(PRESETS)),
        default=DEFAULT_PRESET,
        show_default=True,
        help="Energy cost per operation (Horowitz, ISSCC 2014).",
    ),
    "no_energy": option("--no-energy", is_flag=True, help="Do not count spikes and operations: slightly faster."),
    "pj_mac": _cost_option("--pj-mac", "Picojoules per multiply-accumulate."),
    "pj_ac": _cost_option("--pj-ac", "Picojoules per accumulate."),
    "report": _report_option(
        html="with pictures", json="with layers", csv="or .layers.csv: a row for each layer", tex="for booktabs"
    ),
    "spike_map": option(
        "--spike-map",
        type=PATH,
        metavar="DIR",
        help="Also write heat maps of neuron activity, three PNGs per picture.",
    ),
    "dry_run": option("--dry-run", is_flag=True, help="Show what would be done without doing it."),
    "quiet": quiet_option,
    "verbose": _verbose_option("Also show the layers of each picture."),
}


def run_options(*without: str, verbose: str | None = None, **reports: str) -> Callable[[Command], Command]:
    """Put the options of every run on a command, which takes them as `options: RunOptions`.

    without: names of those that it does not need. verbose: help of --verbose, if not the usual. reports: endings of
    --report and what they hold, if not the usual.
    """
    offered = {name: decorate for name, decorate in _RUN_OPTIONS.items() if name not in without}
    if verbose:
        offered["verbose"] = _verbose_option(verbose)
    if reports:
        offered["report"] = _report_option(**reports)

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapped(*args: Any, **given: Any) -> Any:
            values = {name: given.pop(name) for name in offered}
            if values.get("ensemble", 0) is None:
                values["ensemble"] = 1
            tile, overlap = values["tile"], values["overlap"]
            if values["quiet"] and values.get("verbose"):
                raise click.UsageError("--quiet and --verbose exclude each other.")
            if tile and overlap is not None and overlap >= tile:
                raise click.UsageError(f"--overlap {overlap} must be smaller than --tile {tile}.")
            limit_megapixels(values.pop("max_megapixels"))
            free = {name: value for name in ("pj_mac", "pj_ac") if (value := values.pop(name, None)) is not None}
            costs = replace(PRESETS[values.pop("energy_preset", DEFAULT_PRESET)], **free)
            count = not values.pop("no_energy", False)
            return command(*args, options=RunOptions(costs=costs, count=count, **values), **given)

        decorated: Command = wrapped
        for add in reversed(offered.values()):  # the help shows them as they are written above
            decorated = add(decorated)
        return decorated

    return decorate
