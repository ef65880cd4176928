"""Published PyTorch checkpoints (.pth) in, clean state dicts out."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from esdnet_cli.checkpoint.infer import config_from_shapes, problems
from esdnet_cli.checkpoint.store import faulty_value
from esdnet_cli.errors import CheckpointError, one_line
from esdnet_cli.model.config import ESDNetConfig

CONTAINERS = ("state_dict", "params", "params_ema", "model")
DATA_PARALLEL = "module."


def read_pth(path: Path) -> tuple[dict[str, Tensor], ESDNetConfig]:
    """Tensors and configuration of a .pth file: a state dict, bare or in one of CONTAINERS, with or without `module.`.

    Loaded with `weights_only=True` on the CPU; floats become float32. Raises CheckpointError, which lists every
    missing, extra or misshapen tensor: nothing is converted in part.
    """
    state = _unwrap(_load(path), path)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    config = config_from_shapes(shapes, str(path))
    if found := problems(shapes, config):
        raise CheckpointError(f"{path}: does not fit ESDNet {config.to_dict()}; mend or retrain it:", found)
    if problem := faulty_value(state):
        raise CheckpointError(f"{path}: {problem}; train or export it again")
    return state, config


def _load(path: Path) -> Any:
    try:
        # a file object: from a path, torch.load would guess the format by the ending
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols, of no use to a user
            try:
                return torch.load(file, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError as error:
                raise CheckpointError(
                    f"{path}: holds more than tensors (or is no PyTorch file); save its state_dict alone"
                ) from error
            except Exception as error:  # what torch.load raises on a broken archive or stream is not documented
                reason = one_line(error)[:120]
                raise CheckpointError(
                    f"{path}: not a whole PyTorch checkpoint ({reason}); download it again"
                ) from error
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; check the name") from error
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); check what it is and its permissions"
        ) from error


def _unwrap(loaded: Any, path: Path) -> dict[str, Tensor]:
    for key in CONTAINERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    if not isinstance(loaded, dict) or not loaded:
        raise CheckpointError(
            f"{path}: holds no state dict (bare or under {', '.join(CONTAINERS)}); save model.state_dict()"
        )
    state: dict[str, Tensor] = {}
    for name, value in loaded.items():
        plain = name.removeprefix(DATA_PARALLEL) if isinstance(name, str) else name
        if plain in state:
            raise CheckpointError(f"{path}: holds {plain} twice, with and without {DATA_PARALLEL}; remove one of them")
        state[plain] = _dense(name, value, path)
    return state


def _dense(name: Any, value: Any, path: Path) -> Tensor:
    """An ordinary tensor of ours: float32, or int64 for the batch counters."""
    if not isinstance(name, str) or not isinstance(value, Tensor):
        raise CheckpointError(f"{path}: entry {name!r} is no tensor; save model.state_dict() alone")
    counter = name.endswith("num_batches_tracked")
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu" or value.is_complex():
        raise CheckpointError(
            f"{path}: tensor {name} is quantised, sparse, complex or without values; save a dense one"
        )
    if value.is_floating_point() == counter or value.dtype == torch.bool:
        wanted = "whole numbers" if counter else "floating-point numbers"
        raise CheckpointError(f"{path}: tensor {name} is {value.dtype}, not {wanted}; save the trained network itself")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise CheckpointError(f"{path}: tensor {name} claims more values than the file holds; save .contiguous()")
    return value.long() if counter else value.float()
