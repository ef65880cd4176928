"""Score a checkpoint on the sets that weights/README.md reports, and write the figures into its metadata.

    python tools/score.py run/last.safetensors --data DIR
    python tools/score.py run/last.safetensors --data DIR --tile 160 --overlap 16 \
        --stamp weights/esdnet-small.safetensors --version 7

DIR holds the folders of weights/validation.txt, each with input/ and target/. In the precision that a processor with
8-bit units takes, one thread pool as `esdnet evaluate` has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from esdnet_cli.checkpoint.store import load_network, open_checkpoint, save
from esdnet_cli.metrics import quality
from esdnet_cli.model.inference import LOWERED, Precision, is_fast, keep_freed_memory
from esdnet_cli.pipeline.derainer import Derainer, load
from esdnet_cli.pipeline.images import eight_bit, read_picture
from esdnet_cli.training.synth import Rainmaker

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]

LISTS = Path(__file__).resolve().parents[1] / "weights" / "validation.txt"
CHOSEN_ON = "rain100h-dev"  # whose targets also make the sets of our own


def listed() -> dict[str, list[str]]:
    """File names by folder."""
    lines = [line for line in LISTS.read_text().splitlines() if line and not line.startswith("#")]
    return {head[1 : head.index("]")]: names.split() for head, names in zip(lines[::2], lines[1::2])}


def read(path: Path) -> NDArray[np.uint8]:
    """RGB [H, W, 3]."""
    return eight_bit(read_picture(path.read_bytes(), path).rgb)


def sets(data: Path) -> Iterator[tuple[str, list[Pair]]]:
    """Each set's name as in the metadata, and its pairs of rainy and clean pictures."""
    for folder, names in listed().items():
        target = {name: next((data / folder / "target").glob(f"{Path(name).stem}.*")) for name in names}
        pairs = [(read(data / folder / "input" / name), read(target[name])) for name in names]
        yield folder.replace("-", "_"), pairs
        if folder == CHOSEN_ON:
            rain = Rainmaker("light", None, seed=1)
            yield "own_light_rain", [rain(path, Path(path.name)) for path in target.values()]
            yield "dry", [(clean, clean) for _, clean in pairs]


def mean(derainer: Derainer, pairs: list[Pair]) -> tuple[float, float]:
    """PSNR in dB and SSIM, on Y."""
    scores = [quality(derainer(rainy, count=False).image, clean) for rainy, clean in pairs]
    return float(np.mean([s.psnr_y for s in scores])), float(np.mean([s.ssim_y for s in scores]))


@click.command()
@click.argument("weights")
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--tile", type=int)
@click.option("--overlap", type=int)
@click.option("--ensemble", type=int, default=1, show_default=True)
@click.option("--stamp", type=click.Path(path_type=Path), help="Write the checkpoint with its figures here.")
@click.option("--version", help="What the stamped file is called; licence and data are those of --like.")
@click.option("--like", default="small", show_default=True)
def main(
    weights: str, data: Path, tile: int | None, overlap: int | None, ensemble: int,
    stamp: Path | None, version: str | None, like: str,
) -> None:  # fmt: skip
    """Print PSNR and SSIM of every set; with --stamp, what lower precision changes, too."""
    keep_freed_memory()

    def loaded(precision: Precision) -> Derainer:
        return load(weights, device="cpu", precision=precision, tile=tile, overlap=overlap, ensemble=ensemble)

    derainer = loaded("int8")
    metrics: dict[str, dict[str, float]] = {}
    chosen_on: list[Pair] = []
    for name, pairs in sets(data):
        psnr, ssim = mean(derainer, pairs)
        metrics[name] = {"psnr_y": round(psnr, 2), "ssim_y": round(ssim, 4)}
        chosen_on = chosen_on or pairs
        click.echo(f"{name:<16} {psnr:6.2f} / {ssim:.4f}  {len(pairs)} pairs")
    if stamp is None:
        return
    exact = mean(loaded("fp32"), chosen_on)
    metrics["validation"] = {"psnr_y": round(exact[0], 2), "ssim_y": round(exact[1], 4)}
    for precision in LOWERED:
        if is_fast(precision, derainer.inference.device):
            change = mean(loaded(precision), chosen_on)[0] - exact[0]
            metrics["validation"][f"{precision}_psnr_y_change"] = round(change, 2)
    click.echo(json.dumps(metrics["validation"]))
    checkpoint, model = open_checkpoint(weights), open_checkpoint(like)
    info: dict[str, Any] = {key: model.metadata[key] for key in ("license", "trained_on")}
    info |= {"tile": str(derainer.tiling.tile), "overlap": str(derainer.tiling.overlap), "version": version}
    state = {
        name: tensor.half() if tensor.dim() >= 4 else tensor
        for name, tensor in load_network(checkpoint).state_dict().items()
    }
    save(stamp, state, checkpoint.config, {**info, "metrics": json.dumps(metrics)})


if __name__ == "__main__":
    main()
