"""The numbers and choices that fix an ESDNet; they travel in the checkpoint's metadata."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Shortcut = Literal["membrane", "spike"]
SHORTCUTS: tuple[str, ...] = get_args(Shortcut)
Neuron = Literal["lif", "integer"]
NEURONS: tuple[str, ...] = get_args(Neuron)
PATCHES = (1, 2)
LEVELS = 3  # one over the patch of the picture's resolution, half and quarter of that; the third may have no neurons
MOST_LEVELS = 255  # what 8 bits hold, in which spikes travel at low precision
USUAL_LEVELS = 4  # of integer neurons where nothing is said (Luo et al., ECCV 2024)
_HALVINGS = 4  # two strides of 2
_MOST = 4096  # channels, blocks of a level, steps: far beyond the published ones; more is a slip of the pen


@dataclass(frozen=True)
class ESDNetConfig:
    """Size of the network; the defaults are the published one ("base", 12.81 M parameters).

    dim: channels d of the first level, a multiple of 8 (the channel attention divides d by 16 or,
        at d = 8, keeps one channel; the refinement divides 2d by 8).
    encoder_blocks, decoder_blocks: spiking residual blocks of level 1, 2, 3, at least one in all.
    timesteps: T, how often the picture is shown.
    shortcut: what drives a block's shortcut convolution, the real-valued `membrane` input (published)
        or the block's first `spike`s.
    patch: side of the pixel squares that enter side by side as channels: 1 (published) or 2, half the resolution.
    neuron: `lif` (published), or `integer`, which fires up to `levels` spikes at once (`neurons.integer_lif`).
    levels: D, the most spikes of a neuron in one step; always 1 with `lif`.
    """

    dim: int = 48
    encoder_blocks: tuple[int, int, int] = (4, 4, 8)
    decoder_blocks: tuple[int, int, int] = (2, 2, 2)
    timesteps: int = 4
    shortcut: Shortcut = "membrane"
    patch: int = 1
    neuron: Neuron = "lif"
    levels: int = 1

    @property
    def multiple(self) -> int:
        """Height and width of what the network takes are multiples of this."""
        return _HALVINGS * self.patch

    @property
    def spiking_levels(self) -> int:
        """At how many levels neurons work: those of the third are in its blocks."""
        return LEVELS if self.encoder_blocks[2] or self.decoder_blocks[2] else LEVELS - 1

    @property
    def virtual_steps(self) -> int:
        """T x D: how often a neuron could fire."""
        return self.timesteps * self.levels

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, for checkpoint metadata and reports; the published patch and neuron go unsaid."""
        unsaid = {name for name in ("patch", "neuron", "levels") if getattr(self, name) == getattr(ESDNetConfig, name)}
        if self.neuron == "integer":
            unsaid.discard("levels")
        items = asdict(self).items()
        return {key: list(value) if isinstance(value, tuple) else value for key, value in items if key not in unsaid}

    @classmethod
    def from_dict(cls, raw: Any) -> ESDNetConfig:
        """Rebuild from `to_dict` or a checkpoint's metadata. Raises ValueError, saying which field is wrong."""
        if not isinstance(raw, dict):
            raise ValueError("is not a JSON object")
        if unknown := set(raw) - set(cls.__dataclass_fields__):
            raise ValueError(f"has unknown fields: {', '.join(sorted(map(str, unknown)))}")

        def whole(name: str, value: Any, least: int, most: int = _MOST) -> int:
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
            return value

        def three(name: str, default: tuple[int, int, int]) -> tuple[int, int, int]:
            value = raw.get(name, default)
            if not isinstance(value, (list, tuple)) or len(value) != 3:
                raise ValueError(f"{name} must be three numbers, not {value!r}")
            first, second, third = (whole(name, blocks, 0) for blocks in value)
            return first, second, third

        def one_of(name: str, known: tuple[Any, ...], default: Any) -> Any:
            value = raw.get(name, default)
            if type(value) is not type(default) or value not in known:
                raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, not {value!r}")
            return value

        encoder, decoder = (three(name, getattr(cls, name)) for name in ("encoder_blocks", "decoder_blocks"))
        if not any(encoder + decoder):
            raise ValueError("encoder_blocks and decoder_blocks must not all be 0")
        neuron = one_of("neuron", NEURONS, cls.neuron)
        most = whole("levels", raw.get("levels", USUAL_LEVELS if neuron == "integer" else 1), 1, MOST_LEVELS)
        if most > 1 and neuron != "integer":
            raise ValueError(f"levels {most} needs neuron integer; a lif neuron fires once in a step")
        return cls(
            dim=whole("dim", raw.get("dim", cls.dim), 1),
            encoder_blocks=encoder,
            decoder_blocks=decoder,
            timesteps=whole("timesteps", raw.get("timesteps", cls.timesteps), 1),
            shortcut=one_of("shortcut", SHORTCUTS, cls.shortcut),
            patch=one_of("patch", PATCHES, cls.patch),
            neuron=neuron,
            levels=most,
        )


SIZES = {
    "small": ESDNetConfig(96, (2, 2, 4), (1, 1, 2), 1, "spike", patch=2, neuron="integer", levels=4),
    "tiny": ESDNetConfig(24, (2, 2, 4), (1, 1, 2), 1, "spike", patch=2, neuron="integer", levels=4),
    "lif": ESDNetConfig(48, (2, 2, 4), (1, 1, 2), timesteps=2, shortcut="spike"),
    "base": ESDNetConfig(),
}
