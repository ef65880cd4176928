"""Give the refinement's dead units another life, without changing what the network computes.

    python tools/revive.py before.safetensors after.safetensors PICTURE...

The pixel attention of the feature refinement goes through a ReLU. A unit of it that no pixel activates gets no gradient
and stays so for good, though its convolutions are paid for. Such units get new random weights, so that half of the pixels
activate them, and no weight onward: the result is the same to the last bit, and training can use them again.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from torch import Tensor, nn

from esdnet_cli.checkpoint.store import load_network, open_checkpoint, save
from esdnet_cli.model.network import ESDNet
from esdnet_cli.pipeline.images import eight_bit, read_picture

ALIVE = 0.01  # share of the pixels that activate a unit
SIDE = 160  # of the piece of each picture that is looked at


def hidden(network: ESDNet, pictures: list[Path]) -> tuple[Tensor, Tensor]:
    """What enters the second convolution of the pixel attention, and what leaves it before the ReLU: [N, C, H, W]."""
    seen: list[tuple[Tensor, Tensor]] = []
    hook = network.refinement.sa[1].register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    with torch.inference_mode():
        for path in pictures:
            rgb = eight_bit(read_picture(path.read_bytes(), path).rgb)[:SIDE, :SIDE]
            if rgb.shape[:2] != (SIDE, SIDE):
                raise click.ClickException(f"{path}: is smaller than {SIDE}x{SIDE}; name a larger picture")
            network(torch.from_numpy(rgb.copy()).movedim(-1, 0)[None].float() / 255)
    hook.remove()
    inputs, outputs = zip(*seen)
    return torch.cat(inputs), torch.cat(outputs)


@click.command()
@click.argument("before")
@click.argument("after", type=click.Path(path_type=Path))
@click.argument("pictures", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seed", default=0, show_default=True)
def main(before: str, after: Path, pictures: tuple[Path, ...], seed: int) -> None:
    """Write BEFORE to AFTER with its dead units made anew; PICTURES (rainy) tell which are dead."""
    torch.manual_seed(seed)
    checkpoint = open_checkpoint(before)
    network = load_network(checkpoint).eval()
    inputs, outputs = hidden(network, list(pictures))
    dead = ((outputs > 0).float().mean((0, 2, 3)) < ALIVE).nonzero().flatten()
    second, onward = network.refinement.sa[1], network.refinement.sa[3]
    assert isinstance(second, nn.Conv2d) and isinstance(onward, nn.Conv2d) and second.bias is not None
    with torch.no_grad():
        fresh = torch.randn_like(second.weight[dead])
        sums = nn.functional.conv2d(inputs, fresh, padding=1)
        spread = sums.std((0, 2, 3)).clamp(min=1e-6)
        second.weight[dead] = fresh / spread[:, None, None, None]
        second.bias[dead] = -sums.mean((0, 2, 3)) / spread
        onward.weight[:, dead] = 0
    state = {name: tensor.half() if tensor.dim() >= 4 else tensor for name, tensor in network.state_dict().items()}
    save(after, state, checkpoint.config, {"tile": str(checkpoint.tile), "overlap": str(checkpoint.overlap)})
    click.echo(f"{len(dead)} of {second.out_channels} units made anew")


if __name__ == "__main__":
    main()
