"""What a command line of clips names, and where each result goes."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from esdnet_cli.errors import EsdnetError, printable
from esdnet_cli.files import fitting_name, why_absent
from esdnet_cli.pipeline.kinds import is_clip
from esdnet_cli.pipeline.sources import Unusable

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
OTHERWISE = ".mkv"  # holds every codec, where the input's own ending is not written


@dataclass(frozen=True)
class ClipJob:
    """A clip and the file that its result goes to."""

    source: Path
    output: Path


def is_frames(inputs: Sequence[str]) -> bool:
    """Is it one folder of frames? Raises EsdnetError if a folder stands among other inputs."""
    folders = [text for text in inputs if os.path.isdir(text)]
    if folders and len(inputs) > 1:
        raise EsdnetError(f"{folders[0]}: is a folder of frames; give it as the only input")
    return bool(folders)


def check_folder(output: Path) -> None:
    """Raises EsdnetError if frames would go into a folder that is called like a clip."""
    if output.suffix.lower() in CONTAINERS and not output.is_dir():
        raise EsdnetError(f"{output}: a folder of frames becomes a folder of frames, not a clip; name a folder")


def holds_clips(folder: str) -> bool:
    """Are there clips in a folder, by their endings?"""
    return any(map(is_clip, Path(folder).glob("*")))


def find_clips(inputs: Sequence[str], output: Path) -> tuple[list[ClipJob], list[Unusable]]:
    """Each clip with its output: `output` itself for one input, a file in it for several, or if it is a folder.

    Raises EsdnetError before any work for an ending that is no container, an output that is an input, or two of one
    name.
    """
    paths: dict[str, Path] = {}  # each once
    unusable = []
    for text in inputs:
        found = [text] if os.path.lexists(text) or not glob.has_magic(text) else sorted(glob.glob(text, recursive=True))
        if not found:
            unusable.append(Unusable(printable(text), "the pattern matches no file; check the pattern and its quotes"))
        for name in found:
            if os.path.isfile(name):
                paths.setdefault(os.path.abspath(name), Path(name))
            else:
                special = "is no ordinary file, or a link that leads nowhere; save it as one"
                why = special if os.path.lexists(name) else why_absent(name, "file")
                unusable.append(Unusable(printable(name), why))
    single = len(inputs) == 1 and len(paths) <= 1 and not os.path.isdir(output)
    if single and output.suffix.lower() not in CONTAINERS:
        fault = f"cannot write {output.suffix}" if output.suffix else "it has no file extension"
        endings = ", ".join(CONTAINERS)
        raise EsdnetError(f"{output}: {fault}; use {endings}; or, if it shall be a folder, make it first")
    if not single and output.suffix.lower() in CONTAINERS and not output.is_dir():
        raise EsdnetError(f"{output}: several clips become several clips; name a folder")
    jobs: dict[str, ClipJob] = {}
    sources = {os.path.realpath(path) for path in paths}
    for path in paths.values():
        ending = path.suffix if path.suffix.lower() in CONTAINERS else OTHERWISE
        target = output if single else output / fitting_name(f"{path.stem}{ending}")
        key = os.path.normcase(os.path.realpath(target))
        if key in sources or os.path.realpath(target) in sources:
            raise EsdnetError(f"{target} would be written over an input; choose another output")
        if key in jobs:
            raise EsdnetError(f"{jobs[key].source} and {path} would both become {target}; rename one")
        jobs[key] = ClipJob(path, target)
    return list(jobs.values()), unusable
