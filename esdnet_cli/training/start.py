"""Before the first step: where a run begins, on what, among which processes, in which folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from esdnet_cli.checkpoint.infer import problems, summary
from esdnet_cli.checkpoint.store import load_network, open_checkpoint
from esdnet_cli.errors import EsdnetError, one_line, printable
from esdnet_cli.model.config import SIZES, ESDNetConfig
from esdnet_cli.model.inference import LOWERED, Inference, choose_precision
from esdnet_cli.pipeline.tiling import SelfEnsemble
from esdnet_cli.training.state import BEST, LAST, LOG, STATE, is_log, read_recipe


@contextmanager
def join_processes(device: torch.device) -> Iterator[None]:
    """Within: a member of the group that torchrun's environment describes, if it does.

    A CUDA device with a number becomes the current one, from then on: NCCL talks to that.
    Raises EsdnetError for an environment that describes none.
    """
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes == "1":
        yield
        return
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (ValueError, RuntimeError) as error:
        raise EsdnetError(
            f"WORLD_SIZE={printable(processes)}: {one_line(error)}; start with torchrun, or unset WORLD_SIZE"
        ) from error
    try:
        yield
        dist.barrier()  # who closes its connections while another still sends aborts that one, now and then
    finally:
        dist.destroy_process_group()


def starting_point(
    size: str | None, init: str | None, say: Callable[[str], None]
) -> tuple[ESDNetConfig, dict[str, Tensor] | None, dict[str, str]]:
    """Config and initial weights: those of `init` (a bundled name or a path), or random ones (None); and its origin.

    size: a name in SIZES, or a config as JSON, as it stands in a checkpoint; by default that of `init`, else `small`.
    With both, `init` may differ where its tensors fit, as in the shortcut. say: takes what was assumed of `init`.
    Raises EsdnetError.
    """
    if init is None:
        return _config(size or "small"), None, {}
    checkpoint = open_checkpoint(init)
    if size is None and checkpoint.assumption:
        say(checkpoint.assumption)
    config = checkpoint.config if size is None else _config(size)
    if found := problems(checkpoint.shapes, config):
        raise EsdnetError(f"--init {printable(init)}: does not fit --size {config.to_dict()}: {summary(found)}")
    return config, load_network(checkpoint).state_dict(), checkpoint.origin


class Teacher(NamedTuple):
    """What another network learns from. identity: which it is, for a run's state; origin: as `Checkpoint.origin`."""

    name: str
    network: Callable[[Tensor], Tensor]
    identity: str
    origin: dict[str, str]


def teacher_of(name: str, copies: int, crop: int, device: torch.device, say: Callable[[str], None]) -> Teacher:
    """A bundled network or a checkpoint, whose results are the means over so many mirrored and turned copies.

    In 8 bits on a CPU that has them, in bfloat16 on such a GPU: a run that goes on must find the same. crop: side of
    what it is shown. say: takes what was assumed of it. Raises EsdnetError.
    """
    checkpoint = open_checkpoint(name)
    if checkpoint.assumption:
        say(checkpoint.assumption)
    if crop % checkpoint.config.multiple:
        raise EsdnetError(
            f"--teacher {printable(name)}: takes crops whose side is a multiple of {checkpoint.config.multiple}, "
            f"not {crop}; use another --crop"
        )
    # not what a stopwatch may choose today and not tomorrow
    close = LOWERED if device.type == "cuda" else ["int8"]
    precision = choose_precision("auto", device, close, checkpoint.config.levels)
    network = SelfEnsemble(Inference(load_network(checkpoint), device, precision), copies)
    return Teacher(name, network, f"{checkpoint.sha256[:12]}={copies} in {precision}", checkpoint.origin)


def origin_of(begun: Mapping[str, str], folders: Iterable[Path], teacher: Teacher | None) -> dict[str, str]:
    """What a run's weights must say of licence and training data; begun: what those that it began with say."""
    trained_on = ", ".join(map(printable, folders))
    if "trained_on" in begun:
        trained_on = f"{begun['trained_on']}; then {trained_on}"
    taught = {} if teacher is None else teacher.origin
    if teacher is not None:
        about = f" ({taught['trained_on']})" if "trained_on" in taught else ""
        trained_on += f"; taught by {teacher.name}{about}"
    licences = dict.fromkeys(of["license"] for of in (begun, taught) if "license" in of)
    return {**({"license": "; ".join(licences)} if licences else {}), "trained_on": trained_on}


def _config(size: str) -> ESDNetConfig:
    if size in SIZES:
        return SIZES[size]
    try:
        return ESDNetConfig.from_dict(json.loads(size))
    except (ValueError, RecursionError) as error:
        raise EsdnetError(f"--size {printable(size)}: {one_line(error)}; give {', '.join(SIZES)} or JSON") from error


def autocast_precision(name: str, device: torch.device, compiled: bool = False, begun: Path | None = None) -> str:
    """`auto` is bf16 where the device has it, fp32 elsewhere, and in a step compiled for a CPU; alike in all processes.

    begun: folder of a run that goes on, for which `auto` is what it was begun in.
    Raises EsdnetError for bf16 in vain, and in such a step: PyTorch 2.13 computes NaN for some of its gradients.
    """
    if compiled and device.type == "cpu":
        if name == "bf16":
            raise EsdnetError("--compile: gets gradients in bf16 wrong on a CPU; use --precision fp32 or no --compile")
        return "fp32"
    if begun is not None and name == "auto":  # by a stopwatch it might be another one today
        name = str(read_recipe(begun / STATE).get("precision", name))
    chosen: list[str] = [choose_precision(name, device, close=["bf16"])]
    if dist.is_initialized():  # by a stopwatch, on some CPUs
        dist.broadcast_object_list(chosen, 0)
    return chosen[0]


def prepare_folder(folder: Path, resume: bool) -> None:
    """Make the folder of a run. Raises EsdnetError if it holds a run that is not to be resumed, or cannot be made."""
    if not resume and (folder / STATE).exists():
        raise EsdnetError(f"{printable(folder)}: already contains a run; add --resume, or choose another folder")
    for name in (BEST, LAST):  # of a run whose state is gone, such as one whose user needed the room
        if not resume and (folder / name).exists():
            raise EsdnetError(f"{printable(folder / name)}: would be replaced; move it, or choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not resume and (folder / LOG).exists():
            if not is_log(folder / LOG):
                raise EsdnetError(f"{printable(folder / LOG)}: is no log of a run; move it, or choose another folder")
            (folder / LOG).unlink()  # of a run that ended before its first state
    except OSError as error:
        raise EsdnetError(f"{printable(folder)}: cannot be made ({error.strerror}); choose another folder") from error
