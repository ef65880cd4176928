"""Pairs of rainy and clean pictures being made, in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from esdnet_cli.errors import EsdnetError, PictureError, printable, system_error
from esdnet_cli.pipeline.sources import Job, Unusable
from esdnet_cli.show.terminal import print_rows, tell
from esdnet_cli.training.synth import Rainmaker, write_pair


def show_pairs(
    jobs: Sequence[Job], unusable: Sequence[Unusable], rainmaker: Rainmaker, output: Path, overwrite: bool, quiet: bool
) -> int:
    """Make the pairs whose rainy pictures are the jobs' outputs, in output/input; returns the exit code."""
    failed = [f"{entry.input}: {entry.error}" for entry in unusable]
    for line in failed:
        tell(line)
    try:
        if jobs:
            output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EsdnetError(f"{printable(output)}: cannot be made ({error.strerror}); choose another folder") from error
    written = 0
    for job in tqdm(jobs, unit="picture", disable=True if quiet else None, leave=False):
        try:
            name = job.output.relative_to(output / "input")
            written += write_pair(output, name, rainmaker(job.source.path, name), overwrite)
        except (PictureError, OSError) as error:
            reason = system_error(error, job.source.path) if isinstance(error, OSError) else error
            failed.append(f"{printable(job.source.path)}: {reason}")
            tell(failed[-1])
    if not quiet:
        same = len(jobs) - written - (len(failed) - len(unusable))
        print_rows(f"{written} pairs written, {same} already there, {len(failed)} failed: {output}")
        for line in failed:
            tell(f"failed: {line}")
    return 1 if failed else 0
