"""Give the refinement's dead units another life, or take them away, without changing what the network computes.

    python tools/revive.py before.safetensors after.safetensors PICTURE... [--bury]

The pixel attention of the feature refinement goes through a ReLU. A unit of it that no pixel activates gets no
gradient and stays so for good, though its convolutions are paid for. Units that no pixel of the pictures activates get
new random weights, so that half of the pixels do, and no weight onward: on these pictures the result stays the same,
and training can use the units again. With --bury they lose all their weights instead, and, where none is alive, the
convolution before them does, too: then the attention is the same at every pixel, and inference computes none of its
convolutions. Name all kinds of pictures that the network may meet.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from torch import Tensor, nn

from esdnet_cli.checkpoint.store import as_shipped, load_network, open_checkpoint, save
from esdnet_cli.errors import EsdnetError
from esdnet_cli.model.network import ESDNet
from esdnet_cli.pipeline.images import eight_bit, open_picture

SIDE = 160  # pixels; of the piece of each picture that is looked at
ENOUGH = 16  # pictures, to make units anew by


def hidden(network: ESDNet, picture: Path) -> tuple[Tensor, Tensor]:
    """What enters the second convolution of the pixel attention, and what leaves it before the ReLU: [1, C, H, W]."""
    seen: list[tuple[Tensor, Tensor]] = []
    hook = network.refinement.sa[1].register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    rgb = eight_bit(open_picture(picture).rgb)[:SIDE, :SIDE]
    if rgb.shape[:2] != (SIDE, SIDE):
        raise click.ClickException(f"{picture}: is smaller than {SIDE}x{SIDE}; name a larger picture")
    with torch.inference_mode():
        network(torch.from_numpy(rgb.copy()).movedim(-1, 0)[None].float() / 255)
    hook.remove()
    return seen[0]


def make_anew(network: ESDNet, dead: Tensor, inputs: Tensor) -> None:
    """Give `dead` units random weights such that half of what they see, `inputs`, activates them, and none onward."""
    second, onward = network.refinement.sa[1], network.refinement.sa[3]
    assert isinstance(second, nn.Conv2d) and isinstance(onward, nn.Conv2d) and second.bias is not None
    fresh = torch.randn_like(second.weight[dead])
    sums = nn.functional.conv2d(inputs, fresh, padding=1)
    spread = sums.std((0, 2, 3)).clamp(min=1e-6)
    second.weight[dead] = fresh / spread[:, None, None, None]
    second.bias[dead] = -sums.mean((0, 2, 3)) / spread
    onward.weight[:, dead] = 0


def bury(network: ESDNet, dead: Tensor) -> None:
    """Take all weights of `dead` units away, and of what is computed for them alone."""
    first, second, _, onward, _ = network.refinement.sa
    assert isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d) and isinstance(onward, nn.Conv2d)
    assert first.bias is not None and second.bias is not None
    second.weight[dead] = 0
    second.bias[dead] = 0
    onward.weight[:, dead] = 0
    if len(dead) == second.out_channels:
        first.weight[:] = 0
        first.bias[:] = 0


@click.command()
@click.argument("before")
@click.argument("after", type=click.Path(path_type=Path))
@click.argument("pictures", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--bury", "buried", is_flag=True, help="Take the units away instead.")
@click.option("--seed", default=0, show_default=True)
def main(before: str, after: Path, pictures: tuple[Path, ...], buried: bool, seed: int) -> None:
    """Write BEFORE to AFTER with its dead units made anew; PICTURES (rainy) tell which are dead."""
    torch.manual_seed(seed)
    alive: Tensor | None = None
    kept = []  # of the first pictures, which are enough to make units anew by
    try:
        checkpoint = open_checkpoint(before)
        network = load_network(checkpoint)
        for path in pictures:
            inputs, outputs = hidden(network, path)
            activated = (outputs > 0).any(3).any(2)[0]
            alive = activated if alive is None else alive | activated
            if len(kept) < ENOUGH:
                kept.append(inputs)
    except EsdnetError as error:
        raise click.ClickException(str(error)) from error
    assert alive is not None
    dead = (~alive).nonzero().flatten()
    if not len(dead):
        raise click.ClickException(f"{before}: all of its {len(alive)} units are alive")
    if buried:
        bury(network, dead)
    else:
        make_anew(network, dead, torch.cat(kept))
    save(after, as_shipped(network.state_dict()), checkpoint.config, checkpoint.origin | checkpoint.tiling)
    click.echo(f"{len(dead)} of {len(alive)} units {'taken away' if buried else 'made anew'}")


if __name__ == "__main__":
    main()
