"""The terminal itself: messages and progress on stderr, rows on stdout, C libraries kept quiet."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tqdm import tqdm

from esdnet_cli.errors import printable
from esdnet_cli.shards import local_rank

BAR = "{desc}{percentage:3.0f}%|{bar}| {n:.1f}/{total_fmt} pictures [{elapsed}<{remaining}]"


def tell(message: str) -> None:
    """A line on stderr, above the progress bar if there is one."""
    with suppress(OSError):  # a full disk behind stderr is no failure of the run
        tqdm.write(message, file=sys.stderr)


def print_rows(*lines: str) -> None:
    """Results, on stdout, above the progress bar if there is one. A reader who has gone ends no work."""
    try:
        for line in lines:
            tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def picture_bar(count: int, quiet: bool) -> Any:
    """A tqdm bar over `count` pictures, which takes shares of one, too; none where stderr is no terminal."""
    # disable=None: no bar where stderr is no terminal; miniters=0: shares of a picture count, too
    disable = True if quiet or not count else None
    row = local_rank()  # processes of one terminal stack their bars
    return tqdm(total=count, bar_format=BAR, disable=disable, miniters=0, dynamic_ncols=True, leave=False, position=row)


def typed_command() -> str:
    """This process's command line with the variables that set options, for reports."""
    variables = sorted(item for item in os.environ.items() if item[0].startswith("ESDNET_"))
    settings = [f"{name}={shlex.quote(value)}" for name, value in variables]
    return printable(" ".join([*settings, shlex.join(["esdnet", *sys.argv[1:]])]))


@contextmanager
def libraries_muted() -> Iterator[None]:
    """Keep C libraries off stderr: libpng and libjpeg print about odd files on their own, and name none of them."""
    python_stderr = sys.stderr
    if python_stderr is not sys.__stderr__ or python_stderr is None or python_stderr.fileno() != 2:
        yield  # redirected within Python: they do not reach it
        return
    descriptor = os.dup(2)
    results = sys.stdout  # which goes to stderr, too, where a picture goes to stdout
    with open(os.devnull, "w") as nowhere, open(descriptor, "w", buffering=1, errors="replace") as ours:
        python_stderr.flush()
        os.dup2(nowhere.fileno(), 2)
        sys.stderr = ours
        if results is python_stderr:
            sys.stdout = ours
        try:
            yield
        finally:
            sys.stderr, sys.stdout = python_stderr, results
            os.dup2(descriptor, 2)
