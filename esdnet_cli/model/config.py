"""The four numbers and one choice that fix an ESDNet; they travel in the checkpoint's metadata."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Shortcut = Literal["membrane", "spike"]
SHORTCUTS: tuple[str, ...] = get_args(Shortcut)


@dataclass(frozen=True)
class ESDNetConfig:
    """Size of the network; the defaults are the published one ("base", 12.81 M parameters).

    dim: channels d of the first level, a multiple of 8 (the channel attention divides d by 16 or,
        at d = 8, keeps one channel; the refinement divides 2d by 8).
    encoder_blocks, decoder_blocks: spiking residual blocks of level 1, 2, 3.
    timesteps: T, how often the picture is shown.
    shortcut: what drives a block's shortcut convolution, the real-valued `membrane` input (published)
        or the block's first `spike`s.
    """

    dim: int = 48
    encoder_blocks: tuple[int, int, int] = (4, 4, 8)
    decoder_blocks: tuple[int, int, int] = (2, 2, 2)
    timesteps: int = 4
    shortcut: Shortcut = "membrane"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, as it stands in checkpoint metadata and reports."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, raw: Any) -> ESDNetConfig:
        """Rebuild from `to_dict` or a checkpoint's metadata. Raises ValueError, saying which field is wrong."""
        if not isinstance(raw, dict):
            raise ValueError("is not a JSON object")
        if unknown := set(raw) - set(cls.__dataclass_fields__):
            raise ValueError(f"has unknown fields: {', '.join(sorted(map(str, unknown)))}")

        def whole(name: str, value: Any, least: int) -> int:
            if type(value) is not int or value < least:
                raise ValueError(f"{name} must be a whole number of {least} or more, not {value!r}")
            return value

        def levels(name: str, default: tuple[int, int, int]) -> tuple[int, int, int]:
            value = raw.get(name, default)
            if not isinstance(value, (list, tuple)) or len(value) != 3:
                raise ValueError(f"{name} must be three numbers, not {value!r}")
            first, second, third = (whole(name, blocks, 0) for blocks in value)
            return first, second, third

        shortcut = raw.get("shortcut", "membrane")
        if shortcut not in SHORTCUTS:
            raise ValueError(f"shortcut must be one of {', '.join(SHORTCUTS)}, not {shortcut!r}")
        return cls(
            dim=whole("dim", raw.get("dim", cls.dim), 1),
            encoder_blocks=levels("encoder_blocks", cls.encoder_blocks),
            decoder_blocks=levels("decoder_blocks", cls.decoder_blocks),
            timesteps=whole("timesteps", raw.get("timesteps", cls.timesteps), 1),
            shortcut=shortcut,
        )


SIZES = {
    "small": ESDNetConfig(48, (2, 2, 4), (1, 1, 2), timesteps=2, shortcut="spike"),
    "base": ESDNetConfig(),
}
