"""Damaged pictures and checkpoints by the thousand: each must load or be refused with our own error, nothing else.

python benchmarks/fuzz.py [--cases N] [--seed S]
"""

from __future__ import annotations

import io
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import click
import cv2
import numpy as np
import torch

from esdnet_cli.checkpoint.convert import read_source
from esdnet_cli.checkpoint.store import load_network, open_checkpoint, save
from esdnet_cli.errors import CheckpointError, PictureError
from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.model.network import ESDNet
from esdnet_cli.pipeline.images import read_picture

FORMATS = (".png", ".jpg", ".webp", ".tiff", ".bmp", ".jp2", ".avif", ".gif", ".ppm", ".ras")
Target = tuple[str, bytes, Callable[[Path], object]]


def targets(folder: Path) -> list[Target]:
    """Name, sound bytes and loader of everything that is damaged here."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)
    exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"

    def picture(path: Path) -> object:
        return read_picture(path.read_bytes(), path)

    found: list[Target] = []
    for ending in FORMATS:
        kinds = [cv2.IMAGE_METADATA_EXIF] if ending in (".png", ".jpg", ".webp", ".avif") else []
        blobs = [np.frombuffer(exif, np.uint8)] if kinds else []
        _, data = cv2.imencodeWithMetadata(ending, pixels, kinds, blobs)
        found.append((f"picture{ending}", bytes(data), picture))
    config = ESDNetConfig(dim=8, encoder_blocks=(1, 0, 0), decoder_blocks=(0, 0, 0))
    state = ESDNet(config).state_dict()
    save(folder / "sound.safetensors", state, config, {"tile": "80", "overlap": "8"})
    sound = (folder / "sound.safetensors").read_bytes()
    header = sound[: 8 + int.from_bytes(sound[:8], "little")]
    pth = io.BytesIO()
    torch.save({"state_dict": state}, pth)

    def checkpoint(path: Path) -> object:
        return load_network(open_checkpoint(str(path)))

    def headed(path: Path) -> object:  # most of the file is weights: damage the header apart
        path.write_bytes(path.read_bytes() + sound[len(header) :])
        return checkpoint(path)

    found += [("weights.safetensors", sound, checkpoint), ("header.safetensors", header, headed)]
    return [*found, ("weights.pth", pth.getvalue(), lambda path: read_source(path, {}))]


def damaged(data: bytes, source: random.Random) -> bytes:
    """A few of: bits flipped, bytes replaced, a piece cut out, doubled, zeroed, moved, the end cut, a forged length."""
    changed = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 4))):
        if not changed:
            break
        at = source.randrange(min(len(changed), source.choice((32, 256, len(changed)))))
        size = source.choice((1, 2, 4, 16, 100))
        piece = changed[at : at + size]
        match source.randrange(8):
            case 0:
                changed[at] ^= 1 << source.randrange(8)
            case 1:
                changed[at : at + size] = source.randbytes(len(piece))
            case 2:
                del changed[at : at + size]
            case 3:
                changed[at:at] = piece
            case 4:
                changed[at : at + size] = bytes(len(piece))
            case 5:
                to = source.randrange(len(changed))
                changed[to : to + size] = piece
                changed[at : at + size] = b"\xff" * len(piece)
            case 6:
                del changed[at:]
            case 7:
                changed[at : at + 4] = source.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 60000)).to_bytes(4, "big")
    return bytes(changed)


class Memory:
    """How far the resident memory of this process rises, from /proc (Linux; elsewhere always 0)."""

    def __init__(self) -> None:
        self._start = self._status("VmRSS")
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far

    def grown_mib(self) -> float:
        return self._status("VmHWM") - self._start

    @staticmethod
    def _status(field: str) -> float:
        with suppress(OSError):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith(field):
                    return int(line.split()[1]) / 1024
        return 0.0


def fuzz(cases: int, seed: int, folder: Path) -> tuple[Counter[tuple[str, str]], float]:
    """Damage and load `cases` files, in turn over all targets: how many were loaded and refused, most MiB to refuse.

    Any other exception is a bug: it is raised, and the file that caused it stays in `folder`.
    """
    source = random.Random(seed)
    every = targets(folder)
    outcomes: Counter[tuple[str, str]] = Counter()
    most = 0.0
    for name, data, load in every:  # undamaged, each must load: else nothing is shown
        (folder / name).write_bytes(data)
        load(folder / name)
    for case in range(cases):
        name, data, load = every[case % len(every)]
        path = folder / f"{case}-{name}"
        path.write_bytes(damaged(data, source))
        memory = Memory()
        try:
            load(path)
            outcomes[name, "loaded"] += 1
        except (PictureError, CheckpointError) as error:
            assert "\n" not in str(error), error
            outcomes[name, "refused"] += 1
            most = max(most, memory.grown_mib())
        path.unlink()
    return outcomes, most


@click.command()
@click.option("--cases", default=14000, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(cases: int, seed: int) -> None:
    """Print how many damaged files were loaded and refused, and the most memory that refusing one took."""
    with tempfile.TemporaryDirectory() as folder:
        outcomes, most = fuzz(cases, seed, Path(folder))
    for name in sorted({name for name, _ in outcomes}):
        click.echo(f"{name:<22} {outcomes[name, 'loaded']:>6} loaded {outcomes[name, 'refused']:>6} refused")
    click.echo(f"{cases} cases, seed {seed}: no crash; a refused file took {most:.1f} MiB at most")


if __name__ == "__main__":
    main()
