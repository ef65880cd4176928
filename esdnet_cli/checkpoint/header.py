"""What a checkpoint's header says, read without torch, whose import takes a second."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from esdnet_cli.checkpoint.bundled import PREFIX, bundled
from esdnet_cli.checkpoint.infer import UNSEEN, assumption, completed, config_from_shapes
from esdnet_cli.errors import CheckpointError, one_line
from esdnet_cli.files import file_digest
from esdnet_cli.model.config import ESDNetConfig

PUBLISHED_TILE, PUBLISHED_OVERLAP = 80, 8
TILE_SHAPES = SQUARE, FITTED = ("square", "fitted")  # metadata's words, the first one where it says nothing
MOST_DB_LOST = 0.05  # of PSNR, what a faster precision may cost where none was asked for
_FLOATS = {"F32", "F16", "BF16"}
_COUNTERS = {"I64", "I32"}  # num_batches_tracked
_PICKLES = (b"PK\x03\x04", b"\x80", b"\x1f\x8b")  # torch.save's zip, a bare pickle, a compressed one


@dataclass(frozen=True)
class Checkpoint:
    """A safetensors file whose header was read; its tensors are read by `store.load_network`.

    sha256: of the file when it was opened, in hexadecimal.
    tile, overlap: the tiling that it was tuned for, the published one (80, 8) where it says nothing. fitted: its tiles
    take a shape that suits the picture (see pipeline.tiling.Tiling).
    metadata: the header's strings as they stand. shapes: of every tensor. stated: fields of the configuration that
    whoever opened it stated.
    """

    name: str
    path: Path
    sha256: str
    config: ESDNetConfig
    tile: int
    overlap: int
    fitted: bool
    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    stated: tuple[str, ...] = ()

    @property
    def assumption(self) -> str | None:
        """One line on what neither names, shapes nor metadata tell, and how to state it; None if all is told."""
        return None if "config" in self.metadata else assumption(self.config, self.stated, str(self.path))

    @property
    def parameters(self) -> int:
        """Trained numbers: everything but the batch-norm statistics."""
        statistics = (".running_mean", ".running_var", ".num_batches_tracked")
        return sum(math.prod(shape) for name, shape in self.shapes.items() if not name.endswith(statistics))

    @property
    def tiling(self) -> dict[str, str]:
        """As `tiling_metadata`."""
        return tiling_metadata(self.tile, self.overlap, self.fitted)

    @property
    def origin(self) -> dict[str, str]:
        """What weights made from these must say, too: licence and training data, where it is known."""
        return {key: self.metadata[key] for key in ("license", "trained_on") if key in self.metadata}

    @property
    def close_precisions(self) -> tuple[str, ...]:
        """Those that its metrics, measured on validation pairs, allow: at most MOST_DB_LOST below float32."""
        return tuple(precision for precision in ("int8", "bf16") if self._is_close(precision))

    def _is_close(self, precision: str) -> bool:
        try:
            change = json.loads(self.metadata["metrics"])["validation"][f"{precision}_psnr_y_change"]
            return bool(change >= -MOST_DB_LOST)
        except (KeyError, TypeError, ValueError, RecursionError):
            return False


def tiling_metadata(tile: int, overlap: int, fitted: bool) -> dict[str, str]:
    """How a header states the tiling that its network was tuned for."""
    return {"tile": str(tile), "overlap": str(overlap), **({"tile_shape": FITTED} if fitted else {})}


def find(weights: str) -> tuple[str, Path]:
    """Name and file of a bundled checkpoint (`small`, `esdnet-small`) or a path (`./small`). Raises CheckpointError."""
    known = bundled()
    if (name := weights.removeprefix(PREFIX)) in known:
        return name, known[name]
    if os.path.isfile(weights):
        return Path(weights).stem, Path(weights)
    if os.path.isdir(weights):
        raise CheckpointError(f"{weights}: is a folder; name the .safetensors file in it")
    raise CheckpointError(
        f"{weights}: no such checkpoint; give a file or one of: {', '.join(known) or '(none bundled)'}"
    )


def read_header(weights: str, stated: Mapping[str, Any] | None = None) -> Checkpoint:
    """Read the header of a bundled checkpoint or a file, and check its dtypes and metadata, no tensor's name or shape.

    stated: fields of the configuration that override the metadata's.

    Raises CheckpointError with one line that names the file, the tensor and the mend.
    """
    name, path = find(weights)
    try:
        with safe_open(path, "np") as file:
            metadata = dict(file.metadata() or {})
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
            shapes = {key: tuple(value.get_shape()) for key, value in slices.items()}
            dtypes = {key: value.get_dtype() for key, value in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        if is_pickle(path):
            raise CheckpointError(
                f"{path}: is a pickle, not safetensors; "
                f"run `esdnet convert {path} {path.with_suffix('.converted.safetensors')}`"
            ) from error
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({one_line(error)}); download or convert it again"
        ) from error
    if metadata.get("format") == "esdnet-training":
        raise CheckpointError(f"{path}: is the state of a training run; use best.safetensors or last.safetensors there")
    config = _config(metadata, shapes, path)
    if stated:
        config = completed(config, stated, str(path))
    for key, dtype in dtypes.items():
        allowed = _COUNTERS if key.endswith("num_batches_tracked") else _FLOATS
        if dtype not in allowed:
            raise CheckpointError(
                f"{path}: tensor {key} is {dtype}; only {', '.join(sorted(allowed))} are read, convert it again"
            )
    tile = _whole(metadata, "tile", PUBLISHED_TILE, path)
    overlap = _whole(metadata, "overlap", PUBLISHED_OVERLAP, path)
    if tile and overlap >= tile:
        raise CheckpointError(
            f"{path}: metadata overlap {overlap} is not smaller than tile {tile}; convert the original again"
        )
    shape = metadata.get("tile_shape", SQUARE)
    if shape not in TILE_SHAPES:
        raise CheckpointError(
            f"{path}: metadata tile_shape is {shape[:20]!r}, not {' or '.join(TILE_SHAPES)}; convert the original again"
        )
    fitted = bool(tile) and shape == FITTED
    told = tuple(stated or ())
    return Checkpoint(name, path, file_digest(path), config, tile, overlap, fitted, metadata, shapes, told)


def is_pickle(path: Path) -> bool:
    """Whether a file is a pickle, and not a safetensors file whose header's length only looks like one."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if not head.startswith(_PICKLES) or head[8:] == b"{":  # a header's first byte, behind its length
            return False
        with safe_open(path, "np"):
            return False
    except OSError:
        return False
    except SafetensorError:
        return True


def _config(metadata: dict[str, str], shapes: dict[str, tuple[int, ...]], path: Path) -> ESDNetConfig:
    """From names and shapes; the metadata may add what these cannot show, but not contradict them."""
    shown = config_from_shapes(shapes, str(path))
    if "config" not in metadata:
        return shown
    try:
        stated = ESDNetConfig.from_dict(json.loads(metadata["config"]))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: metadata config: {one_line(error)}; convert the original again") from error
    if replace(stated, **{field: getattr(shown, field) for field in UNSEEN}) != shown:
        raise CheckpointError(
            f"{path}: metadata config says {stated.to_dict()}, tensors {shown.to_dict()}; convert the original again"
        )
    return stated


def _whole(metadata: dict[str, str], key: str, default: int, path: Path) -> int:
    text = metadata.get(key, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise CheckpointError(
            f"{path}: metadata {key} is {text[:20]!r}, not a whole number; convert the original again"
        )
    return int(text)
