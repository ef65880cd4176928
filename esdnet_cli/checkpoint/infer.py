"""The configuration that tensor names and shapes tell; they are what a file cannot lie about."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch

from esdnet_cli.errors import CheckpointError, printable
from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.model.network import ESDNet

_MOST_TENSORS = 20_000  # some 40 times the published size: a header of millions must not cost minutes
Shapes = Mapping[str, Sequence[int]]


def config_from_shapes(shapes: Shapes, file: str) -> ESDNetConfig:
    """ESDNetConfig from a checkpoint's tensor names and shapes; `shortcut`, in neither, stays `membrane`.

    Raises CheckpointError, naming `file`, if these are not the tensors of an ESDNet.
    """

    def blocks(level: str) -> int:
        # counted, not the highest index plus one: a name may claim any index
        return len({match[1] for name in shapes if (match := re.match(rf"{level}\.(\d+)\.", name))})

    def size(name: str, axis: int, others: tuple[int, ...]) -> int:
        shape = shapes.get(name)
        if shape is None:
            raise CheckpointError(
                f"{file}: not an ESDNet checkpoint: tensor {name} is missing; use one that `esdnet convert` wrote"
            )
        if len(shape) <= axis or shape[axis] < 1 or (*shape[:axis], *shape[axis + 1 :]) != others:
            raise CheckpointError(
                f"{file}: tensor {name} has shape {list(shape)}, not that of an ESDNet; export it again"
            )
        return shape[axis]

    if len(shapes) > _MOST_TENSORS:
        raise CheckpointError(f"{file}: holds {len(shapes)} tensors, more than any ESDNet; export it again")
    encoder = tuple(blocks(f"encoder_level{level}") for level in (1, 2, 3))
    decoder = tuple(blocks(f"decoder_level{level}") for level in (1, 2, 3))
    attention = sorted(name for name in shapes if name.endswith(".attn.ta.sharedMLP.0.weight"))
    return ESDNetConfig(
        dim=size("patch_embed.proj.weight", 0, (3, 3, 3)),
        encoder_blocks=encoder,  # type: ignore[arg-type]
        decoder_blocks=decoder,  # type: ignore[arg-type]
        timesteps=size(attention[0], 1, (1, 1, 1, 1)) if attention else ESDNetConfig.timesteps,
    )


def problems(shapes: Shapes, config: ESDNetConfig) -> list[str]:
    """What keeps these tensors from being an ESDNet of this size: a phrase for each missing, extra or misshapen one."""
    try:
        with torch.device("meta"):  # shapes without memory
            expected = {name: tuple(tensor.shape) for name, tensor in ESDNet(config).state_dict().items()}
    except RuntimeError:
        return [f"no network can be {config.dim} channels wide"]  # sizes past 2**63
    found = [f"missing {name}" for name in expected if name not in shapes]
    found += [f"extra {printable(name)}" for name in shapes if name not in expected]
    for name, shape in expected.items():
        if name in shapes and tuple(shapes[name]) != shape:
            found.append(f"{name} is {list(shapes[name])}, should be {list(shape)}")
    return found


def summary(found: Sequence[str], most: int = 3) -> str:
    """The first few problems on one line, and how many more there are."""
    return "; ".join(found[:most]) + (f"; and {len(found) - most} more" if len(found) > most else "")
