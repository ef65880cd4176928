"""esdnet train: direct training with the surrogate gradient, on CPU, one GPU or several under torchrun."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import click

from esdnet_cli.options import PATH, device_option, option, quiet_option
from esdnet_cli.settings import ENSEMBLES


class _SharedFolder(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 only
    """DIR or DIR=SHARE -> (folder, share of the crops or None)."""

    name = "folder"
    envvar_list_splitter = os.path.pathsep  # as of folders without a share; click's own would be any space

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not value:
            self.fail("is empty; give a name", param, ctx)
        folder, separator, share = str(value).rpartition("=")
        if not separator or Path(value).is_dir():
            return Path(value), None
        try:
            number = float(share)
        except ValueError:
            return Path(value), None
        if not 0 < number <= 1:
            self.fail(f"{value}: the share of the crops must be above 0 and at most 1", param, ctx)
        return Path(folder), number


class _Teacher(click.ParamType):  # type: ignore[type-arg]  # as above
    """NAME, PATH or one of them with =COPIES -> (name or path, copies)."""

    name = "teacher"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        weights, separator, copies = str(value).rpartition("=")
        if not separator or not copies.isdecimal() or Path(value).exists():
            return value, 1
        if int(copies) not in ENSEMBLES:
            self.fail(f"{value}: the copies must be one of {', '.join(map(str, ENSEMBLES))}", param, ctx)
        return weights, int(copies)


class _Number(click.FloatRange):
    """click's range, without NaN, which is beyond no limit, and infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a number to go by", param, ctx)
        return number


_SHARED = _SharedFolder()


@click.command(name="train")
@option(
    "--clean", multiple=True, type=PATH, metavar="DIR", help="Clean photographs; rain is generated. May be repeated."
)
@option(
    "--streaks",
    multiple=True,
    type=_SHARED,
    metavar="DIR[=SHARE]",
    help="Pictures of grey rain on black, to add to those of --clean. May be repeated.",
)
@option(
    "--pairs",
    multiple=True,
    type=_SHARED,
    metavar="DIR[=SHARE]",
    help="Rainy pictures in DIR/input, clean ones of the same names in DIR/target. May be repeated.",
)
@option(
    "--validate",
    type=PATH,
    metavar="DIR",
    help="Pairs to validate on, ten times per run; the best weights are kept.",
)
@option("-o", "--output", required=True, type=PATH, metavar="DIR", help="Folder of the run.")
@option(
    "--size", metavar="NAME|JSON", help="small, tiny, lif, base, or a config as JSON.  [default: --init's, else small]"
)
@option("--init", metavar="NAME|PATH", help="Start from this checkpoint's weights.")
@option(
    "--teacher",
    type=_Teacher(),
    metavar="NAME|PATH[=COPIES]",
    help="Learn from this checkpoint's results, too: with =2, =4 or =8 from the mean over mirrored and rotated copies.",
)
@option(
    "--spike-budget",
    type=_Number(0.1, 2),
    metavar="FRACTION",
    help="Hold the accumulations that spikes cause near this fraction of --init's.",
)
@option("--resume", is_flag=True, help="Continue the run in --output exactly where it stopped.")
@option("--steps", type=click.IntRange(min=1), metavar="N", help="Length of the run in steps.")
@option("--minutes", type=_Number(min=0, min_open=True), metavar="N", help="Length of the run in minutes.")
@option("--batch", type=click.IntRange(min=1), metavar="N", default=8, show_default=True, help="Crops per step.")
@option(
    "--crop",
    type=click.IntRange(min=16),
    metavar="N",
    default=64,
    show_default=True,
    help="Side of a crop in pixels, a multiple of 4 (of 8 with patches).",
)
@option(
    "--lr",
    type=_Number(min=0, min_open=True),
    metavar="RATE",
    default=2e-3,
    show_default=True,
    help="Learning rate.",
)
@option(
    "--cooldown",
    type=_Number(0, 1),
    metavar="FRACTION",
    default=0.25,
    show_default=True,
    help="Final fraction of the run over which the learning rate falls to 0. Use 0 if another run will continue from "
    "this one.",
)
@option(
    "--freeze-norm",
    is_flag=True,
    help="Keep the batch-norm statistics of --init, to fine-tune it with few crops per step.",
)
@option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    metavar="N",
    default=0,
    show_default=True,
    help="Random seed of weights, crops and rain.",
)
@device_option
@option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="bf16 uses autocast; auto uses bf16 where it is faster.",
)
@option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Compile the training step: slow to start, then faster; needs a C++ compiler; on a CPU fp32 only.",
)
@quiet_option
def command(
    clean: tuple[Path, ...], streaks: tuple[Any, ...], pairs: tuple[Any, ...], validate: Path | None, output: Path,
    size: str | None, init: str | None, teacher: tuple[str, int] | None, spike_budget: float | None, resume: bool,
    steps: int | None, minutes: float | None, batch: int, crop: int, lr: float, cooldown: float, freeze_norm: bool,
    seed: int, device: str, precision: str, compiled: bool, quiet: bool,
) -> None:  # fmt: skip
    """Train a network on clean photographs, rainy pairs, or both.

    The output folder receives last.safetensors and, with --validate, best.safetensors (averaged weights, ready for
    --weights), log.jsonl, and state.safetensors, from which --resume continues an interrupted run. Training stops after
    --steps or --minutes.

    SHARE is the fraction of the training crops taken from a folder, such as --pairs rain800=0.1. Folders without one
    divide the rest equally; with --clean, a quarter of the crops (or what the shares leave) gets generated rain.

    \b
    Examples:
      esdnet train --clean photos/ --validate pairs/ -o run/ --minutes 120
      torchrun --nproc-per-node 4 -m esdnet_cli train --pairs Rain100H/ -o run/ --steps 100000
    """
    if not clean and not pairs:
        raise click.UsageError("Give --clean, --pairs, or both.")
    if streaks and not clean:
        raise click.UsageError("--streaks needs --clean.")
    if freeze_norm and init is None:
        raise click.UsageError("--freeze-norm needs --init, whose statistics it keeps.")
    if spike_budget is not None and init is None:
        raise click.UsageError("--spike-budget needs --init, whose spikes it goes by.")
    if (steps is None) == (minutes is None):
        raise click.UsageError("Give either --steps or --minutes.")
    from esdnet_cli.model.inference import choose_device, keep_freed_memory
    from esdnet_cli.shards import local_rank
    from esdnet_cli.show.terminal import tell
    from esdnet_cli.show.training import show_training
    from esdnet_cli.training.loop import Recipe, TrainingRun
    from esdnet_cli.training.start import (
        autocast_precision,
        join_processes,
        origin_of,
        prepare_folder,
        starting_point,
        teacher_of,
    )

    keep_freed_memory()
    config, initial, origin = starting_point(size, init, tell)
    if crop % config.multiple:
        raise click.UsageError(f"--crop {crop} is not a multiple of {config.multiple}, which this network needs.")
    chosen = choose_device(device, local_rank())
    from esdnet_cli.training.data import CropSource, Folder, Taught, fingerprint, load_batches, load_validation

    with join_processes(chosen):
        taught = teacher_of(*teacher, crop, chosen, tell) if teacher else None
        masks, couples = ([Folder(*entry) for entry in given] for given in (streaks, pairs))
        mixed = load_batches(clean, masks, couples, crop, chosen)
        batches: CropSource = Taught(mixed, taught.network, batch) if taught else mixed
        validation = load_validation(validate) if validate else []
        scored = fingerprint(picture for _, *both in validation for picture in both)
        computed_in = autocast_precision(precision, chosen, compiled, output if resume else None)
        recipe = Recipe(
            config, steps, minutes, batch, crop, lr, seed, computed_in, cooldown, freeze_norm, spike_budget,
            teacher=taught.identity if taught else None, data=mixed.identity,
            validation=f"{len(validation)} pairs {scored}" if validation else None,
        )  # fmt: skip
        prepare_folder(output, resume)
        folders = (*clean, *(path for path, _ in (*streaks, *pairs)))
        run = TrainingRun(
            recipe, batches, validation, output, chosen,
            initial=initial, resume=resume, compiled=compiled, origin=origin_of(origin, folders, taught),
        )  # fmt: skip
        show_training(run, quiet or run.rank > 0)
