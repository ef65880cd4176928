"""The configuration that tensor names and shapes tell; they are what a file cannot lie about."""

from __future__ import annotations

import re
import shlex
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any

from esdnet_cli.errors import CheckpointError, one_line, printable
from esdnet_cli.model.config import PATCHES, ESDNetConfig

_MOST_TENSORS = 20_000  # some 40 times the published size: a header of millions must not cost minutes
UNSEEN = ("shortcut", "neuron", "levels")  # of a configuration, what neither names nor shapes tell
Shapes = Mapping[str, Sequence[int]]


def config_from_shapes(shapes: Shapes, file: str) -> ESDNetConfig:
    """ESDNetConfig from a checkpoint's tensor names and shapes; what is in neither (UNSEEN) stays the published one.

    Raises CheckpointError, naming `file`, if these are not the tensors of an ESDNet.
    """

    def blocks(level: str) -> int:
        # counted, not the highest index plus one: a name may claim any index
        return len({match[1] for name in shapes if (match := re.match(rf"{level}\.(\d+)\.", name))})

    def size(name: str, axis: int, *others: tuple[int, ...]) -> int:
        shape = shapes.get(name)
        if shape is None:
            raise CheckpointError(
                f"{file}: not an ESDNet checkpoint: tensor {name} is missing; use one that `esdnet convert` wrote"
            )
        if len(shape) <= axis or shape[axis] < 1 or (*shape[:axis], *shape[axis + 1 :]) not in others:
            raise CheckpointError(
                f"{file}: tensor {name} has shape {list(shape)}, not that of an ESDNet; export it again"
            )
        return shape[axis]

    if len(shapes) > _MOST_TENSORS:
        raise CheckpointError(f"{file}: holds {len(shapes)} tensors, more than any ESDNet; export it again")
    encoder = tuple(blocks(f"encoder_level{level}") for level in (1, 2, 3))
    decoder = tuple(blocks(f"decoder_level{level}") for level in (1, 2, 3))
    patches = {3 * patch**2: patch for patch in PATCHES}
    dim = size("patch_embed.proj.weight", 0, *((channels, 3, 3) for channels in patches))
    attention = sorted(name for name in shapes if name.endswith(".attn.ta.sharedMLP.0.weight"))
    if not any(encoder + decoder):
        raise CheckpointError(
            f"{file}: not an ESDNet checkpoint: has no residual block; use one that `esdnet convert` wrote"
        )
    return ESDNetConfig(
        dim=dim,
        encoder_blocks=encoder,  # type: ignore[arg-type]
        decoder_blocks=decoder,  # type: ignore[arg-type]
        # without any attention `problems` names what is missing
        timesteps=size(attention[0], 1, (1, 1, 1, 1)) if attention else ESDNetConfig.timesteps,
        patch=patches[shapes["patch_embed.proj.weight"][1]],
    )


def completed(shown: ESDNetConfig, stated: Mapping[str, Any], file: str) -> ESDNetConfig:
    """What tensors show, completed by `stated` fields of a configuration.

    Raises CheckpointError, naming `file`, if a field is wrong or the tensors contradict it.
    """
    try:
        config = ESDNetConfig.from_dict({**shown.to_dict(), **stated})
    except ValueError as error:
        raise CheckpointError(f"{file}: the stated config: {one_line(error)}; correct it") from error
    if replace(config, **{field: getattr(shown, field) for field in UNSEEN}) != shown:
        raise CheckpointError(
            f"{file}: the stated config is {config.to_dict()}, the tensors' {shown.to_dict()}; correct it"
        )
    return config


def assumption(config: ESDNetConfig, stated: Container[str], file: str) -> str | None:
    """One line on the fields of UNSEEN that were not `stated`, and how to state them; None if all were."""
    unsaid = [field for field in UNSEEN if field not in stated and (field != "levels" or config.neuron == "integer")]
    if not unsaid:
        return None
    assumed = ", ".join(f"{field} {getattr(config, field)}" for field in unsaid)
    state = " ".join(f"--{field} {example}" for field, example in zip(UNSEEN, ("spike", "integer", "4")))
    return (
        f"{file}: does not contain the full configuration; assuming {assumed}. "
        f"To set it: esdnet convert {shlex.quote(file)} NEW.safetensors {state}"
    )


def problems(shapes: Shapes, config: ESDNetConfig) -> list[str]:
    """What keeps these tensors from being an ESDNet of this size: a phrase for each missing, extra or misshapen one."""
    import torch  # takes a second, and a header is read without it

    from esdnet_cli.model.network import ESDNet

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
