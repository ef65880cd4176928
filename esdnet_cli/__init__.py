"""esdnet-cli: removes rain from pictures with the spiking network ESDNet, and says what it cost.

::

    import esdnet_cli
    derainer = esdnet_cli.load("small", device="auto")
    derained = derainer(image)  # uint8 RGB [H, W, 3]
    derained.image, derained.activity.spike_rate, derained.activity.energy().strict_mj
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "CheckpointError",
    "Derained",
    "Derainer",
    "EnergyCosts",
    "EsdnetError",
    "PictureError",
    "__version__",
    "load",
]

if TYPE_CHECKING:
    from esdnet_cli.energy.cost import EnergyCosts
    from esdnet_cli.errors import CheckpointError, EsdnetError, PictureError
    from esdnet_cli.pipeline.derainer import Derained, Derainer, load

_HOME = {
    "CheckpointError": "esdnet_cli.errors",
    "Derained": "esdnet_cli.pipeline.derainer",
    "Derainer": "esdnet_cli.pipeline.derainer",
    "EnergyCosts": "esdnet_cli.energy.cost",
    "EsdnetError": "esdnet_cli.errors",
    "PictureError": "esdnet_cli.errors",
    "load": "esdnet_cli.pipeline.derainer",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: `esdnet --help` must not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'esdnet_cli' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
