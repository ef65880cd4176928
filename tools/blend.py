"""Average two checkpoints of one configuration, tensor by tensor: what a run learned, without what it unlearned.

    python tools/blend.py before.safetensors after.safetensors blended.safetensors --share 0.75

Weights before and after a run that began with them (WiSE-FT: Wortsman et al., CVPR 2022); batch-norm statistics, too.
"""

from __future__ import annotations

from pathlib import Path

import click

from esdnet_cli.checkpoint.store import as_shipped, load_network, open_checkpoint, save


def origins(first: dict[str, str], second: dict[str, str]) -> dict[str, str]:
    """What both say of licence and training data; what the second tells of the first already stands once."""
    both = {key: text if first.get(key, "") in text else f"{first[key]}; {text}" for key, text in second.items()}
    return first | both


@click.command()
@click.argument("before")
@click.argument("after")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--share", type=click.FloatRange(0, 1), required=True, help="Of AFTER; the rest is BEFORE's.")
def main(before: str, after: str, target: Path, share: float) -> None:
    """Write the average, convolutions in fp16."""
    first, second = open_checkpoint(before), open_checkpoint(after)
    if first.config != second.config:
        raise click.ClickException(f"{before} is {first.config.to_dict()}, {after} {second.config.to_dict()}")
    old = load_network(first).state_dict()
    state = {}
    for name, new in load_network(second).state_dict().items():
        if new.is_floating_point():
            new = old[name].lerp(new, share)
        state[name] = new
    save(target, as_shipped(state), second.config, origins(first.origin, second.origin) | second.tiling)


if __name__ == "__main__":
    main()
