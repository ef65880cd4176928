"""The network of a run, loaded as its options say."""

from __future__ import annotations

from esdnet_cli.model.inference import choose_device, keep_freed_memory
from esdnet_cli.pipeline.derainer import Derainer, load
from esdnet_cli.settings import RunOptions
from esdnet_cli.shards import local_rank
from esdnet_cli.show.terminal import tell


def load_derainer(options: RunOptions) -> Derainer:
    """The Derainer that these options ask for; it says on stderr when memory made it take smaller batches.

    Under torchrun each process takes a GPU of its own.
    """
    keep_freed_memory()
    device = choose_device(options.device, local_rank())
    derainer = load(
        options.weights, device=str(device), precision=options.precision,
        tile=options.tile, overlap=options.overlap, batch=options.batch, ensemble=options.ensemble,
        scales=options.scales,
    )  # fmt: skip
    if derainer.checkpoint.assumption:
        tell(derainer.checkpoint.assumption)
    if not options.quiet:
        derainer.on_smaller_batch = lambda size: tell(f"Out of memory: continuing with {size} tiles at a time.")
    return derainer
