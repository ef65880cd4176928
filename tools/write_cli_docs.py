"""Write docs/cli.md: the help of `esdnet` and of every command, 100 columns wide.

python tools/write_cli_docs.py
"""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from esdnet_cli.cli import COMMANDS, cli

TARGET = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
INTRODUCTION = """# Commands and options

You look for an option. This page has the help of every command, as `esdnet COMMAND --help` prints it.

Every option can also be set by an environment variable: `ESDNET_DEVICE=cpu`, `ESDNET_WEIGHTS=my.safetensors`, and so
on; `ESDNET_CLEAN=photos:more` holds two folders. Exit codes: 0 all done, 1 some inputs failed, 2 wrong usage or
checkpoint, 130 interrupted. Results go to stdout, progress and messages to stderr.

This page is written by `python tools/write_cli_docs.py`.
"""


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for command in ((), *((name,) for name in COMMANDS)):
        result = CliRunner().invoke(cli, [*command, "--help"], prog_name="esdnet", terminal_width=100)
        parts.append(f"## `{' '.join(('esdnet', *command))}`\n\n```\n{result.stdout.strip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(page())
