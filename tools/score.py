"""Score a checkpoint on the sets that weights/README.md reports, and write the figures into its metadata.

    python tools/score.py run/last.safetensors --data DIR
    python tools/score.py run/last.safetensors --data DIR --stamp weights/esdnet-small.safetensors --version 7

DIR holds the folders of weights/validation.txt, each with input/ and target/. Scores are of the int8 that a CPU takes,
and of pictures at one size: the figures are the network's.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from esdnet_cli.checkpoint.header import tiling_metadata
from esdnet_cli.checkpoint.store import as_shipped, load_network, open_checkpoint, save
from esdnet_cli.errors import EsdnetError
from esdnet_cli.metrics import quality
from esdnet_cli.model.inference import LOWERED, is_fast, keep_freed_memory
from esdnet_cli.pipeline.derainer import Derainer, load
from esdnet_cli.pipeline.images import eight_bit, open_picture
from esdnet_cli.settings import ENSEMBLES
from esdnet_cli.training.synth import Rainmaker

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]

LISTS = Path(__file__).resolve().parents[1] / "weights" / "validation.txt"
CHOSEN_ON = "rain100h-dev"  # whose targets also make the sets of our own


def listed() -> dict[str, list[str]]:
    """File names by folder: a line that begins with [folder], then names to the next one."""
    names: dict[str, list[str]] = {}
    for line in LISTS.read_text().splitlines():
        if line.startswith("["):
            of_folder = names.setdefault(line[1 : line.index("]")], [])
        elif line and not line.startswith("#"):
            of_folder += line.split()
    return names


def paths(data: Path) -> dict[str, list[tuple[Path, Path]]]:
    """Input and target of every listed picture, by folder. Raises ClickException for the first that is missing."""
    found: dict[str, list[tuple[Path, Path]]] = {}
    for folder, names in listed().items():
        for name in names:
            target = next((data / folder / "target").glob(f"{Path(name).stem}.*"), data / folder / "target" / name)
            for path in (data / folder / "input" / name, target):
                if not path.is_file():
                    raise click.ClickException(
                        f"{path}: no such file; --data names the folder of weights/validation.txt's"
                    )
            found.setdefault(folder, []).append((data / folder / "input" / name, target))
    return found


def read(path: Path) -> NDArray[np.uint8]:
    """RGB [H, W, 3]."""
    return eight_bit(open_picture(path).rgb)


def sets(data: Path) -> dict[str, list[Pair]]:
    """Rainy and clean pictures of each set, by its name in the metadata."""
    pairs: dict[str, list[Pair]] = {}
    light, camera = Rainmaker("light", None, seed=1), Rainmaker("camera", None, seed=1)
    for folder, files in paths(data).items():
        pairs[folder.replace("-", "_")] = [(read(rainy), read(clean)) for rainy, clean in files]
        if folder == CHOSEN_ON:
            pairs["own_light_rain"] = [light(clean, Path(clean.name)) for _, clean in files]
            pairs["own_camera_rain"] = [camera(clean, Path(clean.name)) for _, clean in files]
            pairs["dry"] = [(read(clean), read(clean)) for _, clean in files]
    return pairs


def mean(derainer: Derainer, pairs: list[Pair]) -> tuple[float, float]:
    """PSNR in dB and SSIM, on Y."""
    scores = [quality(derainer(rainy, count=False).image, clean) for rainy, clean in pairs]
    return float(np.mean([s.psnr_y for s in scores])), float(np.mean([s.ssim_y for s in scores]))


def score(derainer: Derainer, pairs_of: dict[str, list[Pair]]) -> dict[str, dict[str, float]]:
    """Means of every set, printed as they come."""
    metrics = {}
    for name, pairs in pairs_of.items():
        psnr, ssim = mean(derainer, pairs)
        metrics[name] = {"psnr_y": round(psnr, 2), "ssim_y": round(ssim, 4)}
        click.echo(f"{name:<16} {psnr:6.2f} / {ssim:.4f}  {len(pairs)} pairs")
    return metrics


def write(weights: str, target: Path, like: str, tiling: dict[str, str], more: dict[str, str]) -> None:
    """The checkpoint as it is shipped, with the licence and data of `like`."""
    model = open_checkpoint(like).metadata
    terms = {key: model[key] for key in ("license", "trained_on") if key in model}
    checkpoint = open_checkpoint(weights)
    save(target, as_shipped(load_network(checkpoint).state_dict()), checkpoint.config, {**terms, **tiling, **more})


@click.command()
@click.argument("weights")
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--tile", type=int)
@click.option("--overlap", type=int)
@click.option("--fitted", is_flag=True, help="Tiles take the shape that suits a picture.")
@click.option("--ensemble", type=click.Choice([str(copies) for copies in ENSEMBLES]), default="1", show_default=True)
@click.option("--stamp", type=click.Path(path_type=Path), help="Write the checkpoint with its figures here.")
@click.option("--version", help="Of the stamped file.")
@click.option("--like", default="small", show_default=True, help="Whose licence and data the stamped file states.")
def main(
    weights: str, data: Path, tile: int | None, overlap: int | None, fitted: bool, ensemble: str,
    stamp: Path | None, version: str | None, like: str,
) -> None:  # fmt: skip
    """Print PSNR and SSIM of every set; with --stamp, of the stamped file, and what lower precision changes, too."""
    if (stamp is None) != (version is None) or (stamp and ensemble != "1"):
        raise click.UsageError("--stamp and --version belong together, and a file's figures are those of one copy.")
    keep_freed_memory()
    try:
        derainer = load(
            weights, device="cpu", precision="int8", tile=tile, overlap=overlap, ensemble=int(ensemble), scales=1
        )
        if fitted:
            derainer.tiling = replace(derainer.tiling, fitted=True)
        pairs_of = sets(data)
        if stamp is None or version is None:
            score(derainer, pairs_of)
            return
        tiling = tiling_metadata(**asdict(derainer.tiling))
        write(weights, stamp, like, tiling, {"version": version})
        metrics = score(load(stamp, device="cpu", precision="int8", scales=1), pairs_of)
        chosen_on = pairs_of[CHOSEN_ON.replace("-", "_")]
        exact = mean(load(stamp, device="cpu", precision="fp32", scales=1), chosen_on)
        metrics["validation"] = {"psnr_y": round(exact[0], 2), "ssim_y": round(exact[1], 4)}
        for precision in LOWERED:
            if is_fast(precision, derainer.inference.device, derainer.inference.network.config.levels):
                change = mean(load(stamp, device="cpu", precision=precision, scales=1), chosen_on)[0] - exact[0]
                metrics["validation"][f"{precision}_psnr_y_change"] = round(change, 2)
        click.echo(json.dumps(metrics["validation"]))
        write(weights, stamp, like, tiling, {"version": version, "metrics": json.dumps(metrics)})
    except EsdnetError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
