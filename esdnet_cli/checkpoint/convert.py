"""Published PyTorch checkpoints (.pth) in, clean state dicts out."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from esdnet_cli.checkpoint.header import is_pickle
from esdnet_cli.checkpoint.infer import assumption, completed, config_from_shapes, problems
from esdnet_cli.checkpoint.store import faulty_value, load_network, open_checkpoint
from esdnet_cli.errors import CheckpointError, one_line
from esdnet_cli.model.config import ESDNetConfig

_DEEPEST = 8  # state dicts in dicts; what goes deeper holds itself
NESTED_UNDER = (  # the first one is taken
    "params_ema", "ema", "params", "state_dict", "model_state_dict", "net_g", "generator", "model", "net",
)  # fmt: skip
WRAPPERS = ("module.", "_orig_mod.")  # of a parallel and of a compiled network
NETWORKS = ("net_g.", "generator.", "model.", "ema.")
_FIRST = "patch_embed.proj.weight"


@dataclass(frozen=True)
class Convertible:
    """What a checkpoint to convert holds: clean tensors and their configuration.

    notes: a line for each choice among several networks in one file, and for what was assumed. metadata: of a
    safetensors file.
    """

    state: dict[str, Tensor]
    config: ESDNetConfig
    notes: Sequence[str]
    metadata: dict[str, str]


def read_source(path: Path, stated: Mapping[str, Any]) -> Convertible:
    """A .pth file: a state dict, bare or in one of NESTED_UNDER, with or without prefixes; or a .safetensors file.

    stated: fields of the configuration, which neither names nor shapes may contradict. A .pth is loaded with
    `weights_only=True` on the CPU; floats become float32. Raises CheckpointError, which lists every missing, extra or
    misshapen tensor: nothing is converted in part.
    """
    notes: list[str] = []
    if path.suffix == ".safetensors" and not is_pickle(path):
        checkpoint = open_checkpoint(str(path), stated)
        left_out = {"format", "config"}
        if stated and "config" in checkpoint.metadata and checkpoint.config != open_checkpoint(str(path)).config:
            left_out |= {"metrics", "version"}  # which speak of another network
        metadata = {key: text for key, text in checkpoint.metadata.items() if key not in left_out}
        notes += [checkpoint.assumption] if checkpoint.assumption else []
        return Convertible(load_network(checkpoint).state_dict(), checkpoint.config, notes, metadata)
    state = _unwrap(_load(path), path, notes)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    config = completed(config_from_shapes(shapes, str(path)), stated, str(path))
    if found := problems(shapes, config):
        raise CheckpointError(f"{path}: does not fit ESDNet {config.to_dict()}; correct or retrain it:", found)
    if problem := faulty_value(state):
        raise CheckpointError(f"{path}: {problem}; train or export it again")
    assumed = assumption(config, stated, str(path))
    return Convertible(state, config, [*notes, assumed] if assumed else notes, {})


def _load(path: Path) -> Any:
    try:
        # a file object: from a path, torch.load would guess the format by the ending
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols, of no use to a user
            try:
                return torch.load(file, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError as error:
                raise CheckpointError(
                    f"{path}: contains more than tensors, or is not a PyTorch file; save only its state_dict"
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


def _unwrap(loaded: Any, path: Path, notes: list[str]) -> dict[str, Tensor]:
    for _ in range(_DEEPEST):
        if not isinstance(loaded, dict):
            break
        held = [key for key in NESTED_UNDER if isinstance(loaded.get(key), dict)]
        if not held:
            break
        if len(held) > 1:
            notes.append(f"{path}: took {held[0]}; left out {', '.join(held[1:])}")
        loaded = loaded[held[0]]
    if not isinstance(loaded, dict) or not loaded:
        raise CheckpointError(
            f"{path}: holds no state dict (bare or under {', '.join(NESTED_UNDER)}); save model.state_dict()"
        )
    networks: dict[str, dict[str, Tensor]] = {}  # by prefix
    for name, value in loaded.items():
        prefix, plain = _split(name) if isinstance(name, str) else ("", name)
        state = networks.setdefault(prefix, {})
        if plain in state:
            raise CheckpointError(f"{path}: holds {plain} twice, with and without a prefix; remove one of them")
        state[plain] = _dense(name, value, path)
    whole = [prefix for prefix, state in networks.items() if _FIRST in state] or list(networks)
    averaged = [prefix for prefix in whole if "ema." in prefix]
    chosen = (averaged or whole)[0]
    if len(whole) > 1 and not averaged:
        raise CheckpointError(f"{path}: holds several networks, under {', '.join(map(repr, whole))}; keep one of them")
    if others := [prefix for prefix in networks if prefix != chosen]:
        left = sum(len(networks[prefix]) for prefix in others)
        notes.append(f"{path}: took the tensors under {chosen or 'no prefix'!r}; left out {left} others")
    return networks[chosen]


def _split(name: str) -> tuple[str, str]:
    """The prefix that says which network a tensor is of, and its name without that and without wrappers'."""
    prefix = ""
    while found := next((known for known in (*WRAPPERS, *NETWORKS) if name.startswith(known)), None):
        name = name.removeprefix(found)
        prefix += found if found in NETWORKS else ""
    return prefix, name


def _dense(name: Any, value: Any, path: Path) -> Tensor:
    """An ordinary tensor of ours: float32, or int64 for the batch counters."""
    if not isinstance(name, str) or not isinstance(value, Tensor):
        raise CheckpointError(f"{path}: entry {name!r} is not a tensor; save only model.state_dict()")
    counter = name.endswith("num_batches_tracked")
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu" or value.is_complex():
        raise CheckpointError(
            f"{path}: tensor {name} is quantised, sparse, complex or without values; save a dense one"
        )
    if value.dtype == torch.bool or not (counter or value.is_floating_point()):  # averaging makes counters floats, too
        wanted = "numbers" if counter else "floating-point numbers"
        raise CheckpointError(f"{path}: tensor {name} is {value.dtype}, not {wanted}; save the trained network itself")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise CheckpointError(f"{path}: tensor {name} claims more values than the file holds; save .contiguous()")
    return value.long() if counter else value.float()
