"""Inputs: the pictures that a command line names, and where each result goes."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from esdnet_cli.errors import EsdnetError, printable
from esdnet_cli.files import fitting_name, why_absent
from esdnet_cli.model.config import LEVELS
from esdnet_cli.pipeline.journal import JOURNAL, noted_outputs
from esdnet_cli.pipeline.kinds import unread_ending

_HEIF = (".heic", ".heif", ".hif")
READABLE = frozenset(
    # what OpenCV decodes to whole numbers
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".jp2", ".avif", ".gif")
    + (".ppm", ".pgm", ".pnm", ".pbm", ".pam", ".ras", ".sr", ".mpo", ".j2k", ".j2c")
    + _HEIF  # what libheif decodes
)
_WRITTEN = {".mpo": ".jpg", ".j2k": ".jp2", ".j2c": ".jp2"}  # endings of what is written as another format
NO_FILE = Path(os.devnull)
FORMAT_ENDINGS = {"png": ".png", "jpg": ".jpg", "webp": ".webp", "tiff": ".tiff"}  # of --format


@dataclass(frozen=True)
class Source:
    """A file to derain. relative: its place below the folder or pattern that named it; its output goes there too.

    shown: what it is called in tables, if not by its path.
    """

    path: Path
    relative: Path
    shown: str | None = None

    @property
    def name(self) -> str:
        """What results call it."""
        return self.shown or printable(self.path)


@dataclass(frozen=True)
class Job:
    """A source and the file that its result goes to: the null device if it is only measured.

    shown: what that file is called in tables, if not by its path.
    """

    source: Source
    output: Path = NO_FILE
    shown: str | None = None

    @property
    def output_name(self) -> str | None:
        """What results call it; None if nothing is written."""
        return None if self.output == NO_FILE else self.shown or printable(self.output)


@dataclass(frozen=True)
class Unusable:
    """An input that named no picture: reported as failed beside the others."""

    input: str
    error: str


def find_sources(
    inputs: Sequence[str],
    recursive: bool | None,
    leave_out: Sequence[Path | None] = (),
    unread: Counter[str] | None = None,
) -> tuple[list[Source], list[Unusable]]:
    """Pictures named by files, folders (by ending; below them too if `recursive`) and patterns, in order, each once.

    @LIST stands for what the lines of that file name. unread: counts pictures of kinds that are not read, by ending,
    and links to folders, which are not followed, by their names and a slash, unless pictures below were found anyway.
    recursive: None where the command has no -r to name.
    Folders and patterns pass over hidden files, and over everything below the folders `leave_out` (our own outputs)
    where these lie inside them; folders also over what a journal inside them knows as ours.
    Raises EsdnetError if one of `leave_out` is itself an input.
    """
    ours = [folder for folder in leave_out if folder is not None]
    sources: dict[str, Source] = {}
    unusable: list[Unusable] = []
    unread = Counter() if unread is None else unread
    for text in _listed(inputs, unusable):
        found, trouble = _find(text, recursive, ours, unusable, unread)
        if not found and trouble:
            unusable.append(Unusable(printable(text) or "an empty name", trouble))
        for source in found:
            sources.setdefault(os.path.abspath(source.path), source)
    if links := [key for key in unread if key.endswith("/")]:
        reached = {Path(os.path.realpath(source.path)) for source in sources.values()}
        for link in links:
            if any(path.is_relative_to(os.path.realpath(link)) for path in reached):
                del unread[link]
    return list(sources.values()), unusable


def _listed(inputs: Sequence[str], unusable: list[Unusable]) -> Iterator[str]:
    """The inputs, with what a list names in its place: one on a line, or ended by zero bytes as find -print0 does."""
    for text in inputs:
        if not text.startswith("@") or os.path.lexists(text):
            yield text
            continue
        if Path(text).suffix.lower() in READABLE:
            unusable.append(Unusable(printable(text), "is a picture, not a list of names; leave out the @"))
            continue
        try:
            lines = Path(text[1:]).read_bytes()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            unusable.append(Unusable(printable(text), f"the list cannot be read: {reason}; check the name after the @"))
            continue
        if lines.startswith((b"\xff\xfe", b"\xfe\xff")):  # as PowerShell writes lists
            lines = os.fsencode(lines.decode("utf-16", "replace"))
        lines = lines.removeprefix(b"\xef\xbb\xbf")
        names = [name for name in (lines.split(b"\0") if b"\0" in lines else lines.splitlines()) if name.strip()]
        if not names:
            unusable.append(Unusable(printable(text), "the list names nothing; check how it was made"))
        yield from map(os.fsdecode, names)


def _find(
    text: str, recursive: bool | None, leave_out: Sequence[Path], unusable: list[Unusable], unread: Counter[str]
) -> tuple[list[Source], str | None]:
    """What one input names; or no source, and why. Folders that cannot be listed are added to `unusable`."""
    path = Path(text)
    # os.path's questions, unlike Path's, raise for no name and no permission
    if os.path.isdir(text):
        if os.path.realpath(text) in map(os.path.realpath, leave_out):
            raise EsdnetError(f"{text}: is both input and output folder; choose another output folder")
        before = len(unusable)
        found = list(_in_folder(path, recursive, _inside(leave_out, path), unusable, unread))
        hint = "-r looks into subfolders" if recursive is False else "name another"
        return found, None if len(unusable) > before else f"no pictures in this folder; {hint}"
    if os.path.isfile(text):
        return [Source(path, Path(path.name))], None
    if os.path.lexists(text):
        return [], "is neither a file nor a folder, or a link that leads nowhere; name a picture"
    if glob.has_magic(text):
        root = Path(*_plain_parts(path))
        outputs = _inside(leave_out, root)
        found = []
        matches: dict[str, Path] = {}
        # "**" follows links, which may loop: of the ways to a file, the shortest
        for match in sorted(
            map(Path, glob.glob(text, recursive=True)), key=lambda match: (len(match.parts), str(match))
        ):
            matches.setdefault(os.path.join(os.path.realpath(match.parent), match.name), match)
        for match in sorted(matches.values(), key=str):
            if _skipped(match, outputs):
                continue
            if _is_picture(match):
                found.append(Source(match, match.relative_to(root)))
            else:
                _count(match, unread)
        return found, "the pattern matches no picture; check the pattern and its quotes"
    return [], why_absent(text, "file or folder")


def check_folder(output: Path) -> None:
    """Raises EsdnetError if pictures would go into a new folder that is called like one."""
    if output.suffix.lower() in READABLE and not os.path.lexists(output):
        name = printable(output)
        raise EsdnetError(
            f"{name}: pictures go into a folder; name one, or make this one first, or write a single picture with "
            f"-o - > {name}, and --format if it shall be of another kind than its input"
        )


def plan_outputs(sources: Sequence[Source], folder: Path, file_format: str | None) -> list[Job]:
    """Where each result goes: same relative path, stem and format (`file_format` changes its ending).

    MPO becomes JPEG, bare JPEG 2000 gets its boxes, and HEIC becomes what `heif.written_ending` says; beside an a.jpg,
    a.heic becomes a.heic.jpg.

    Raises EsdnetError before any work if two inputs land on one name, or one on an input.
    """
    endings = [None if file_format else _other_ending(source.path) for source in sources]
    places = [folder / source.relative for source in sources]
    if file_format:
        places = [place.with_suffix(FORMAT_ENDINGS[file_format]) for place in places]
    converted = [place.with_suffix(ending) if ending else place for place, ending in zip(places, endings)]
    wanted = Counter(map(_key, converted))
    jobs: list[Job] = []
    taken: dict[str, Path] = {}
    inputs = {os.path.realpath(source.path) for source in sources}
    for source, place, output, ending in zip(sources, places, converted, endings):
        if ending and wanted[_key(output)] > 1:
            output = place.with_name(place.name + ending)
        key = _key(output)
        if key in taken:
            mend = ", or name the folder above both, with -r"
            if taken[key].parent == source.path.parent:
                mend = ", or leave out --format" if file_format else ""
            raise EsdnetError(f"{taken[key]} and {source.path} would both become {output}; rename one{mend}")
        if os.path.realpath(output) in inputs:
            raise EsdnetError(f"{output} would be written over an input; choose another output folder")
        taken[key] = source.path
        jobs.append(Job(source, output))
    return jobs


def plan_maps(jobs: Sequence[Job], folder: Path | None) -> dict[Source, Path]:
    """The name of each job's spike maps, of which `map_paths` makes theirs: same relative path and stem. None: no maps.

    Beside an a.jpg, those of a.png are called a.png, and the others a.jpg.
    Raises EsdnetError before any work if one would be written over an input or an output, or over another one.
    """
    if folder is None:
        return {}
    places = [folder / job.source.relative for job in jobs]
    wanted = Counter(_key(place.with_suffix("")) for place in places)
    elsewhere = "choose another --spike-map"
    taken = {
        _key(job.output): (f"the output {printable(job.output)}", elsewhere) for job in jobs if job.output != NO_FILE
    }
    taken |= {_key(job.source.path): (f"the input {printable(job.source.path)}", elsewhere) for job in jobs}
    names = {}
    for job, place in zip(jobs, places):
        alone = wanted[_key(place.with_suffix(""))] == 1
        name = place.with_suffix(".png") if alone else place.with_name(place.name + ".png")
        for path in map_paths(name):
            if (key := _key(path)) in taken:
                what, mend = taken[key]
                raise EsdnetError(f"{printable(path)} would be written over {what}; {mend}")
            taken[key] = (
                f"the map of {printable(job.source.path)}",
                "rename one, or name the folder above both, with -r",
            )
        names[job.source] = name
    return names


def map_paths(name: Path) -> list[Path]:
    """The spike maps of a picture, finest first: name.level1.png and so on."""
    return [with_ending(name, f".level{level}.png") for level in range(1, LEVELS + 1)]


def _other_ending(path: Path) -> str | None:
    """The ending of what is written as another format, None if it is written as what it is."""
    if path.suffix.lower() not in _HEIF:
        return _WRITTEN.get(path.suffix.lower())
    from esdnet_cli.pipeline import heif  # takes long to import, and few need it

    return heif.written_ending(path)


def _key(path: Path) -> str:
    return os.path.normcase(os.path.realpath(path))  # without case where the system knows none


def with_ending(path: Path, ending: str) -> Path:
    """A path with another ending; a name that would be too long is cut, and told from others by a part of its hash."""
    longer = max(len(ending) - len(os.fsencode(path.suffix)), 0)
    return path.with_name(fitting_name(path.name, longer)).with_suffix(ending)


def pair_up(sources: Sequence[Source], targets: Path) -> tuple[list[tuple[Source, Path]], list[Unusable]]:
    """Each source with its target: the picture at the same place below `targets`, else one with another ending.

    A target may also carry Rain100H's names, norain-1 beside rain-1. Raises EsdnetError if `targets` is not a folder.
    """
    if not targets.is_dir():
        raise EsdnetError(f"{printable(targets)}: is not a folder; name the one that holds the targets")
    found, _ = find_sources([str(targets)], recursive=True)
    exact = {source.relative: source.path for source in found}
    known: dict[Path, list[Path]] = {}
    for target in found:
        known.setdefault(target.relative.with_suffix(""), []).append(target.path)
    pairs, unusable = [], []
    for source in sources:
        name = source.relative.with_suffix("")
        alike = known.get(name) or known.get(name.with_name("no" + name.name)) or []
        chosen = [exact[source.relative]] if source.relative in exact else alike
        if len(chosen) == 1:
            pairs.append((source, chosen[0]))
            continue
        reason = f"has no target of that name in {printable(targets)}; add it"
        if chosen:
            reason = f"has {len(chosen)} targets of that name ({', '.join(map(printable, chosen))}); keep one of them"
        unusable.append(Unusable(printable(source.path), reason))
    return pairs, unusable


def _in_folder(
    folder: Path, recursive: bool | None, outputs: Sequence[str], unusable: list[Unusable], unread: Counter[str]
) -> Iterable[Source]:
    def note(error: OSError) -> None:
        reason = f"cannot be listed: {error.strerror}; check its permissions"
        unusable.append(Unusable(printable(str(error.filename)), reason))

    ours: set[str] = set()  # outputs of other runs, in folders below the one that was named
    for root, folders, files in os.walk(folder, onerror=note):  # does not follow links to folders: they may loop
        here = Path(root)
        if JOURNAL in files and here != folder:
            ours |= noted_outputs(here)
        folders[:] = sorted(name for name in folders if not _skipped(here / name, outputs)) if recursive else []
        unread.update(f"{here / name}/" for name in folders if os.path.islink(here / name))
        for name in sorted(files):
            path = here / name
            if _skipped(path, outputs) or str(path) in ours:
                continue
            if _is_picture(path):
                yield Source(path, path.relative_to(folder))
            else:
                _count(path, unread)


def _count(path: Path, unread: Counter[str]) -> None:
    ending = unread_ending(path)
    if ending and os.path.isfile(path):
        unread[ending] += 1


def _is_picture(path: Path) -> bool:
    # a link that leads nowhere is named as a failure when it is read
    return (
        path.suffix.lower() in READABLE and (os.path.isfile(path) or os.path.islink(path)) and not os.path.isdir(path)
    )


def _inside(leave_out: Sequence[Path], root: Path) -> list[str]:
    """The real paths of those that lie below `root`: only then can our own outputs be among what is found."""
    above = Path(os.path.realpath(root))
    real = [Path(os.path.realpath(outputs)) for outputs in leave_out]
    return [str(outputs) for outputs in real if outputs != above and outputs.is_relative_to(above)]


def _skipped(path: Path, outputs: Sequence[str]) -> bool:
    if path.name.startswith("."):
        return True
    return bool(outputs) and any(Path(os.path.realpath(path)).is_relative_to(folder) for folder in outputs)


def _plain_parts(pattern: Path) -> list[str]:
    """The parts of a pattern before the first that has a wildcard; never all of them."""
    parts = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return parts
