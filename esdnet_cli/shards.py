"""One folder over many processes, GPUs and machines that need not talk: each takes every n-th picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from esdnet_cli.errors import EsdnetError

T = TypeVar("T")
# of torchrun; of srun, whose step count a batch script itself does not have
_LAUNCHERS = (("torchrun", "RANK", "WORLD_SIZE"), ("SLURM", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, from 1. source: who said so."""

    index: int = 1
    count: int = 1
    source: str = ""

    def take(self, items: Sequence[T]) -> list[T]:
        """This shard's items: every count-th, so that neighbours of like size spread."""
        return list(items[self.index - 1 :: self.count])

    def exit_code(self, code: int) -> int:
        """What to end with: torchrun stops all its processes when one ends in anything but 0."""
        return 0 if self.source == "torchrun" else code

    def report(self, path: Path, ending: str) -> Path:
        """The report's name for this shard alone: run.json becomes run.shard-2-of-4.json."""
        if self.count == 1:
            return path
        return path.with_name(
            f"{path.name[: -len(ending)]}.shard-{self.index}-of-{self.count}{path.name[-len(ending) :]}"
        )


def local_rank() -> int:
    """This process's number on its machine under torchrun; 0 elsewhere, and where LOCAL_RANK is no number."""
    rank = os.environ.get("LOCAL_RANK", "")
    return int(rank) if rank.isdecimal() else 0


def find_shard(given: str | None) -> Shard:
    """What `--shard I/N` says, else the environment of torchrun or SLURM, else everything. Raises EsdnetError."""
    if given is not None:
        return _shard(given, *given.split("/", 1), source="--shard")
    for source, rank, count in _LAUNCHERS:
        if rank in os.environ and count in os.environ:
            shown = f"{rank}={os.environ[rank]}, {count}={os.environ[count]}"
            return _shard(shown, os.environ[rank], os.environ[count], source=source, first=0)
    return Shard()


def _shard(shown: str, *numbers: str, source: str, first: int = 1) -> Shard:
    try:
        index, count = (int(number) for number in numbers)
    except ValueError:
        index, count = 0, 0
    if not first <= index < count + first:
        raise EsdnetError(f"{source} {shown}: is not a valid share; use I/N with I from 1 to N, such as --shard 1/4")
    return Shard(index - first + 1, count, source)
