"""The network of a run: loaded as its options say, and named in what is shown."""

from __future__ import annotations

import os

from esdnet_cli.model.inference import choose_device, keep_freed_memory
from esdnet_cli.pipeline.derainer import Derainer, load
from esdnet_cli.pipeline.results import ModelInfo
from esdnet_cli.settings import RunOptions
from esdnet_cli.show.terminal import tell


def load_derainer(options: RunOptions) -> Derainer:
    """The Derainer that these options ask for; it says on stderr when memory made it take smaller batches.

    Under torchrun each process takes a GPU of its own.
    """
    keep_freed_memory()
    device = choose_device(options.device, int(os.environ.get("LOCAL_RANK", "0")))
    derainer = load(
        options.weights, device=str(device), precision=options.precision,
        tile=options.tile, overlap=options.overlap, batch=options.batch, ensemble=options.ensemble,
    )  # fmt: skip
    if derainer.checkpoint.assumption:
        tell(derainer.checkpoint.assumption)
    if not options.quiet:
        derainer.on_smaller_batch = lambda size: tell(f"Out of memory: going on with {size} tiles at once.")
    return derainer


def model_info(derainer: Derainer) -> ModelInfo:
    """What a report says of the network and how it ran."""
    checkpoint = derainer.checkpoint
    return ModelInfo(
        weights_name=checkpoint.name,
        weights_sha256=checkpoint.sha256,
        config=checkpoint.config.to_dict(),
        device=derainer.device,
        precision=derainer.precision,
        tile=derainer.tiling.tile,
        overlap=derainer.tiling.overlap,
        timesteps=checkpoint.config.timesteps,
        ensemble=derainer.ensemble,
    )


def network_line(derainer: Derainer) -> str:
    """Which network will run, and how."""
    model = model_info(derainer)
    return f"{model.weights_name}, {model.device}, {model.precision}, {model.tiling}"
