"""Options that several commands share, each written once; they arrive as one frozen RunOptions."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from esdnet_cli.energy.cost import PRESETS
from esdnet_cli.settings import DEFAULT_WEIGHTS, MAX_MEGAPIXELS, RunOptions

Command = Callable[..., Any]
REPORT_ENDINGS = (".html", ".json", ".csv")  # .layers.csv too


def option(name: str, *rest: Any, **attributes: Any) -> Callable[[Command], Command]:
    """click.option that also reads an environment variable: --pj-mac is ESDNET_PJ_MAC."""
    long = next(part for part in (name, *rest) if part.startswith("--")).split("/")[0]
    return click.option(name, *rest, envvar="ESDNET_" + long.removeprefix("--").replace("-", "_").upper(), **attributes)


class _Tile(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 only
    name = "tile"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "auto|N|0"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "auto":
            return None
        try:
            side = int(value)
        except ValueError:
            self.fail(f"{value!r} is neither auto nor a number of pixels", param, ctx)
        if side != 0 and side < 8:
            self.fail(f"{side} is too small; use 8 or more, or 0 for the picture in one piece", param, ctx)
        return side


def _cost(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 <= value <= 1e6:  # a NaN is not, either
        raise click.BadParameter(f"{value} is no cost; give picojoules, such as 0.9")
    return value


def _megapixels(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if not 0 <= value <= 10_000:
        raise click.BadParameter(f"{value} is no limit; give 0 to 10000")
    return value


def _report(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    if path is None:
        return None
    if path.suffix.lower() not in REPORT_ENDINGS:
        raise click.BadParameter(
            f"{path}: the ending says the format; use {', '.join(REPORT_ENDINGS[:-1])} or {REPORT_ENDINGS[-1]}"
        )
    if os.path.isdir(path):
        raise click.BadParameter(f"{path}: is a folder; name a file")
    folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))  # the rest is made later
    try:  # now, not after hours of work
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise click.BadParameter(f"{path}: cannot be written there ({error.strerror}); choose another place") from error
    return path


def _cost_option(name: str, text: str) -> Callable[[Command], Command]:
    help_text = f"{text}  [default: the preset's]"
    return option(name, type=float, callback=_cost, metavar="PJ", help=help_text)


inputs_argument = click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
recursive_option = option("-r", "--recursive", is_flag=True, help="Look into subfolders too.")
overwrite_option = option("--overwrite", is_flag=True, help="Replace whatever is in the way of an output.")
shard_option = option(
    "--shard", metavar="I/N", help="Take part I of N, from 1.  [default: torchrun's or SLURM's share, else all]"
)
weights_option = option(
    "--weights",
    default=DEFAULT_WEIGHTS,
    show_default=True,
    metavar="NAME|PATH",
    help="Bundled checkpoint or .safetensors file.",
)

device_option = option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda|cuda:N|mps", help="Where to compute."
)
quiet_option = option("-q", "--quiet", is_flag=True, help="Print errors only.")

_RUN_OPTIONS = (
    weights_option,
    device_option,
    option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16"]),
        default="auto",
        show_default=True,
        help="Number format of the convolutions; auto: bf16 where fast and within 0.05 dB, else fp32.",
    ),
    option("--tile", type=_Tile(), default="auto", show_default=True, help="Tile side in pixels; 0: in one piece."),
    option(
        "--overlap",
        type=click.IntRange(min=0),
        metavar="N",
        help="Pixels that neighbouring tiles share.  [default: the checkpoint's]",
    ),
    option("--batch", type=click.IntRange(min=1), metavar="N", help="Tiles computed at once.  [default: what fits]"),
    option(
        "--max-megapixels",
        type=float,
        callback=_megapixels,
        metavar="N",
        default=MAX_MEGAPIXELS,
        show_default="500",
        help="Refuse larger pictures, before memory is taken.",
    ),
    option(
        "--energy-preset",
        type=click.Choice(list(PRESETS)),
        default="fp32-45nm",
        show_default=True,
        help="Costs of an operation (Horowitz, ISSCC 2014).",
    ),
    _cost_option("--pj-mac", "Picojoules of a multiply-accumulate."),
    _cost_option("--pj-ac", "Picojoules of an accumulate."),
    option(
        "--report",
        type=click.Path(path_type=Path),
        callback=_report,
        metavar="FILE",
        help="Also write all figures to FILE: .html (with pictures), .json (with layers), .csv or .layers.csv.",
    ),
    option(
        "--spike-map",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Also write heat maps of where neurons fire, three PNGs a picture.",
    ),
    option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
    quiet_option,
    option("-v", "--verbose", is_flag=True, help="Show the layers of each picture."),
)


def run_options(command: Command) -> Command:
    """Put the options of every run on a command, which takes them as `options: RunOptions`."""

    @functools.wraps(command)
    def wrapped(
        *args: Any, weights: str, device: str, precision: Any, tile: int | None, overlap: int | None, batch: int | None,
        max_megapixels: float, energy_preset: str, pj_mac: float | None, pj_ac: float | None, report: Path | None,
        spike_map: Path | None, dry_run: bool, quiet: bool, verbose: bool, **rest: Any,
    ) -> Any:  # fmt: skip
        if quiet and verbose:
            raise click.UsageError("--quiet and --verbose exclude each other.")
        if tile and overlap is not None and overlap >= tile:
            raise click.UsageError(f"--overlap {overlap} must be smaller than --tile {tile}.")
        # OpenCV holds every format to this before it allocates, but reads it only once, when it is loaded
        os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(int(max_megapixels * 1e6))
        preset = PRESETS[energy_preset]
        costs = replace(
            preset,
            pj_mac=preset.pj_mac if pj_mac is None else pj_mac,
            pj_ac=preset.pj_ac if pj_ac is None else pj_ac,
        )
        options = RunOptions(
            weights, device, precision, tile, overlap, batch, max_megapixels, costs, report, spike_map,
            dry_run, quiet, verbose,
        )  # fmt: skip
        return command(*args, options=options, **rest)

    decorated: Command = wrapped
    for decorate in reversed(_RUN_OPTIONS):  # the help shows them as they are written here
        decorated = decorate(decorated)
    return decorated
