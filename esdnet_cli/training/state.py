"""What a run that was killed goes on from: one safetensors file with its tensors, its recipe and its place in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from esdnet_cli.errors import EsdnetError, one_line, printable
from esdnet_cli.files import write_atomically

STATE, LOG = "state.safetensors", "log.jsonl"
LAST, BEST = "last.safetensors", "best.safetensors"
MAY_BE_UNSAID = ("data", "validation")  # of a recipe: in states of older versions, and in a run that validates nothing


@dataclass(frozen=True)
class Position:
    """Steps done, the seconds that they took, and the best validation PSNR so far in dB, if there was one.

    origin: what its weights say of licence and training data; None in states of older versions.
    """

    step: int
    seconds: float
    best: float | None
    origin: Mapping[str, str] | None = None


def write_state(path: Path, tensors: Mapping[str, Tensor], recipe: Mapping[str, Any], here: Position) -> None:
    """Write a state, at once or not at all. recipe: JSON-ready."""
    header = {"format": "esdnet-training", "recipe": json.dumps(recipe), "run": json.dumps(asdict(here))}
    contiguous = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    write_atomically(path, safetensors.torch.save(contiguous, header))


def read_state(path: Path, recipe: Mapping[str, Any], processes: int) -> tuple[dict[str, Tensor], Position]:
    """The state that `write_state` wrote with this recipe by as many processes (`random.N` of each is in it).

    Raises EsdnetError if it is not there, damaged, or another run's.
    """
    if not path.is_file():
        raise EsdnetError(f"{printable(path)}: does not exist, so there is nothing to resume; leave out --resume")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
        begun, here = dict(json.loads(header["recipe"])), Position(**json.loads(header["run"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise EsdnetError(f"{printable(path)}: is not a training state ({one_line(error)}); start a new run") from error
    unsaid = {key for key in MAY_BE_UNSAID if recipe.get(key) is None or begun.get(key) is None}
    if other := sorted(key for key in {*recipe, *begun} - unsaid if recipe.get(key) != begun.get(key)):
        raise EsdnetError(
            f"{printable(path)}: was started with {other[0]} {begun.get(other[0])}, not {recipe.get(other[0])}; "
            "resume with the original options and data"
        )
    if f"random.{processes - 1}" not in tensors or f"random.{processes}" in tensors:
        count = len(below(tensors, "random."))
        raise EsdnetError(f"{printable(path)}: was started with {count} processes; resume with the same number")
    return tensors, here


def read_recipe(path: Path) -> dict[str, Any]:
    """What a state says that it was started with; empty if it cannot be read, of which `read_state` says more."""
    try:
        with safe_open(path, "pt") as file:
            return dict(json.loads((file.metadata() or {})["recipe"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return {}


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def is_log(path: Path) -> bool:
    """Whether a file begins as the log of a run does. Raises OSError."""
    with path.open("rb") as file:
        try:
            return {"step", "loss"} <= set(json.loads(file.readline()))
        except (ValueError, TypeError, RecursionError):
            return False


def forget_after(log: Path, step: int) -> None:
    """Drop what a log, a JSON object with its `step` on each line, tells of steps that a kill undid, and torn lines."""

    def stands(line: str) -> bool:
        try:
            return line.endswith("\n") and bool(json.loads(line)["step"] <= step)
        except (ValueError, LookupError, TypeError):  # a crash of the machine may leave anything, and costs no run
            return False

    if log.is_file():
        lines = log.read_text(errors="replace").splitlines(keepends=True)
        write_atomically(log, "".join(filter(stands, lines)).encode())
