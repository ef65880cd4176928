"""The checkpoints that travel with the tool, by name."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
PREFIX = "esdnet-"


def folder() -> Path:
    """Where they lie: inside the installed package, or beside it in a checkout."""
    inside = _PACKAGE / "weights"
    return inside if inside.is_dir() else _PACKAGE.parent / "weights"


def bundled() -> dict[str, Path]:
    """Name -> file: `small` is weights/esdnet-small.safetensors."""
    return {path.stem.removeprefix(PREFIX): path for path in sorted(folder().glob(f"{PREFIX}*.safetensors"))}
