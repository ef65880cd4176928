"""Checkpoints on disk: safetensors, checked before anything is believed. Nothing in a file is ever executed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from esdnet_cli.checkpoint.header import Checkpoint, read_header
from esdnet_cli.checkpoint.infer import problems, summary
from esdnet_cli.errors import CheckpointError, one_line
from esdnet_cli.files import write_atomically
from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.model.network import ESDNet


def open_checkpoint(weights: str, stated: Mapping[str, Any] | None = None) -> Checkpoint:
    """Read and check the header of a bundled checkpoint or a file: names, shapes, dtypes, metadata; no tensor yet.

    stated: fields of the configuration that override the metadata's.

    Raises CheckpointError with one line that names the file, the tensor and the mend.
    """
    checkpoint = read_header(weights, stated)
    if found := problems(checkpoint.shapes, checkpoint.config):
        raise CheckpointError(
            f"{checkpoint.path}: does not fit ESDNet {checkpoint.config.to_dict()}: {summary(found)}; "
            "convert the original again"
        )
    return checkpoint


def load_network(checkpoint: Checkpoint) -> ESDNet:
    """Read the tensors (float32 in memory, whatever the disk holds), check their values, build the network.

    Raises CheckpointError for NaN, infinity or a negative variance, naming the tensor.
    """
    state = {}
    try:
        with safe_open(checkpoint.path, "pt") as file:
            for key in checkpoint.shapes:
                tensor = file.get_tensor(key)
                state[key] = tensor.float() if tensor.is_floating_point() else tensor.long()
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{checkpoint.path}: cannot be read ({one_line(error)}); download or convert it again"
        ) from error
    if problem := faulty_value(state):
        raise CheckpointError(f"{checkpoint.path}: {problem}; train or export it again")
    with torch.device("meta"):
        network = ESDNet(checkpoint.config)
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False).eval()


def faulty_value(state: dict[str, Tensor]) -> str | None:
    """What no trained network holds: NaN, infinity, a negative variance; None if all is well."""
    for key, tensor in state.items():
        if not torch.isfinite(tensor).all():
            return f"tensor {key} holds NaN or infinity"
        if key.endswith(".running_var") and (tensor < 0).any():
            return f"tensor {key} holds a negative variance"
    return None


def as_shipped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Kernels of convolutions in float16 where that holds them, everything else as it is, all contiguous on the CPU."""

    def shipped(tensor: Tensor) -> Tensor:
        fits = tensor.dim() >= 4 and tensor.abs().max() <= torch.finfo(torch.float16).max
        return (tensor.half() if fits else tensor).cpu().contiguous()

    return {name: shipped(tensor) for name, tensor in state.items()}


def save(path: Path, state: dict[str, Tensor], config: ESDNetConfig, metadata: dict[str, str]) -> None:
    """Write a checkpoint, under its final name only when it is whole; `metadata` stands beside format and config."""
    header = {"format": "esdnet", "config": json.dumps(config.to_dict()), **metadata}
    tensors = {key: tensor.clone(memory_format=torch.contiguous_format) for key, tensor in state.items()}
    write_atomically(path, _in_order(safetensors.torch.save(tensors, header)))


def _in_order(data: bytes) -> bytes:
    """A safetensors file whose metadata stand in the order of their names: the library's order is another each time."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    return len(text).to_bytes(8, "little") + text + data[end:]
