"""Inputs: the pictures that a command line names, and where each result goes."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from esdnet_cli.errors import EsdnetError

READABLE = frozenset(
    # what OpenCV decodes to whole numbers
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".jp2", ".avif", ".gif")
    + (".ppm", ".pgm", ".pnm", ".pbm", ".pam", ".ras", ".sr")
)
FORMATS = {"png": ".png", "jpg": ".jpg", "webp": ".webp", "tiff": ".tiff"}  # of --format


@dataclass(frozen=True)
class Source:
    """A file to derain. relative: its place below the folder or pattern that named it; its output goes there too."""

    path: Path
    relative: Path


@dataclass(frozen=True)
class Job:
    """A source and the file that its result goes to, None if it is only measured."""

    source: Source
    output: Path | None


@dataclass(frozen=True)
class Unusable:
    """An input that named no picture: reported as failed beside the others."""

    input: str
    error: str


def find_sources(
    inputs: Sequence[str], recursive: bool, leave_out: Path | None = None
) -> tuple[list[Source], list[Unusable]]:
    """Pictures named by files, folders (by ending; below them too if `recursive`) and patterns, in order, each once.

    Hidden files, and everything below the folder `leave_out` (our own outputs), are passed over in folders and
    patterns. Raises EsdnetError if `leave_out` is itself an input.
    """
    sources: dict[Path, Source] = {}
    unusable: list[Unusable] = []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            if leave_out is not None and leave_out.is_dir() and path.samefile(leave_out):
                raise EsdnetError(f"{text}: is input and output folder at once; choose another output folder")
            found: Iterable[Source] = _in_folder(path, recursive, leave_out, unusable)
            trouble = f"no pictures in this folder{'' if recursive else '; -r looks into subfolders'}"
        elif path.exists() or path.is_symlink():
            found, trouble = [Source(path, Path(path.name))], ""
        elif glob.has_magic(text):
            root = Path(*_plain_parts(path))
            matches = sorted(Path(match) for match in glob.glob(text, recursive=True))
            found = [Source(match, match.relative_to(root)) for match in matches if not _skipped(match, leave_out)]
            trouble = "the pattern matches no picture; check it, and its quotes"
        else:
            found, trouble = [], "no such file or folder; check the name"
        found = list(found)
        if not found and not any(entry.input == text for entry in unusable):
            unusable.append(Unusable(text, trouble))
        for source in found:
            sources.setdefault(Path(os.path.abspath(source.path)), source)
    return list(sources.values()), unusable


def plan_outputs(sources: Sequence[Source], folder: Path, file_format: str | None) -> list[Job]:
    """Where each result goes: same relative path, stem and format (`file_format` changes its ending).

    Raises EsdnetError before any work if two inputs land on one name, or one on an input.
    """
    jobs: list[Job] = []
    taken: dict[str, Path] = {}
    inputs = {os.path.realpath(source.path) for source in sources}
    for source in sources:
        output = folder / source.relative
        if file_format is not None:
            output = output.with_suffix(FORMATS[file_format])
        # compared without case: some file systems know none
        key = os.path.realpath(output).casefold()
        if key in taken:
            raise EsdnetError(
                f"{source.path} and {taken[key]} would both become {output}; "
                "rename one, or derain their common folder with -r"
            )
        if os.path.realpath(output) in inputs:
            raise EsdnetError(f"{output} would be written over an input; choose another output folder")
        taken[key] = source.path
        jobs.append(Job(source, output))
    return jobs


def make_folder(folder: Path) -> None:
    """Make an output folder and see that it can be written. Raises EsdnetError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise EsdnetError(
            f"{folder}: cannot be used as output folder ({error.strerror}); choose another with -o"
        ) from error


def _in_folder(folder: Path, recursive: bool, leave_out: Path | None, unusable: list[Unusable]) -> Iterable[Source]:
    def note(error: OSError) -> None:
        unusable.append(Unusable(str(error.filename), f"cannot be listed: {error.strerror}; check its permissions"))

    for root, folders, files in os.walk(folder, onerror=note):  # does not follow links to folders: they may loop
        here = Path(root)
        folders[:] = sorted(name for name in folders if not _skipped(here / name, leave_out)) if recursive else []
        for name in sorted(files):
            path = here / name
            if path.suffix.lower() in READABLE and not _skipped(path, leave_out):
                yield Source(path, path.relative_to(folder))


def _skipped(path: Path, leave_out: Path | None) -> bool:
    inside = leave_out is not None and Path(os.path.abspath(path)).is_relative_to(os.path.abspath(leave_out))
    return path.name.startswith(".") or inside


def _plain_parts(pattern: Path) -> list[str]:
    """The parts of a pattern before the first that has a wildcard; never all of them."""
    parts = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return parts
