"""A report as a file of the kind that its name ends in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from esdnet_cli.errors import EsdnetError
from esdnet_cli.files import write_atomically
from esdnet_cli.pipeline.results import ImageResult, RunInfo, Totals
from esdnet_cli.report import page, papers
from esdnet_cli.report.figures import to_csv, to_json, to_layers_csv

RENDERERS = {  # the first that fits a name
    ".html": page.to_html,
    ".json": to_json,
    ".layers.csv": to_layers_csv,
    ".csv": to_csv,
    ".tex": papers.to_tex,
}


def report_ending(path: Path) -> str:
    """The key of RENDERERS that fits a report's name; options.py has made sure that there is one."""
    return next(ending for ending in RENDERERS if path.name.lower().endswith(ending))


def write_report(path: Path, results: Sequence[ImageResult], run: RunInfo, totals: Totals) -> None:
    """Write it whole, or not at all. Raises EsdnetError if it cannot be written."""
    write_text(path, RENDERERS[report_ending(path)](results, run, totals))


def write_text(path: Path, text: str) -> None:
    """A report's text into its file. Raises EsdnetError if it cannot be written."""
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise EsdnetError(f"{path}: the report cannot be written ({error.strerror}); choose another place") from error
