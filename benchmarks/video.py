"""Clips: what --deflicker gains and costs, how long the network waits for frames, and peak memory against length.

python benchmarks/video.py clip walk.mp4
python benchmarks/video.py deflicker --photos DIR --frames DIR
python benchmarks/video.py waiting
python benchmarks/video.py memory
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import click
import cv2
import numpy as np
from numpy.typing import NDArray

SAMPLE = Path(__file__).resolve().parents[1] / "samples" / "coffee.jpg"


@click.group()
def main() -> None:
    """Measure `esdnet video`."""


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--seconds", default=1, show_default=True)
def clip(path: Path, seconds: int) -> None:
    """Make a clip to try things with: 320x180 at 25 frames a second, over a rainy sample."""
    _clip(path, seconds)


@main.command()
@click.option("--photos", type=click.Path(path_type=Path), help="Clean photographs to pan over, the largest first.")
@click.option("--frames", "folder", type=click.Path(path_type=Path), help="Numbered frames of real rain.")
@click.option("--pans", default=3, show_default=True, help="How many photographs.")
@click.option("--length", default=12, show_default=True, help="Frames of each sequence.")
def deflicker(photos: Path | None, folder: Path | None, pans: int, length: int) -> None:
    """Warping error with and without --deflicker; PSNR where there is a ground truth: synthetic rain on a clean pan.

    Detail: the standard deviation of the last frame's Laplacian, in levels.
    """
    from esdnet_cli.metrics import quality
    from esdnet_cli.pipeline.derainer import load
    from esdnet_cli.video.deflicker import Deflicker
    from esdnet_cli.video.flicker import WarpingError

    derainer = load()
    chosen = sorted(photos.iterdir(), key=lambda path: -path.stat().st_size)[:pans] if photos else []
    sequences: list[tuple[str, Iterator[Any]]] = [(path.name, _pan(path, length)) for path in chosen]
    if folder is not None:
        paths = sorted(folder.iterdir())[:length]
        sequences.append((folder.name, ((cv2.imread(str(path))[..., ::-1], None) for path in paths)))
    for name, sequence in sequences:
        smooth, clips = Deflicker(), None
        scores: list[tuple[float, float]] = []
        for rainy, clean in sequence:
            plain = derainer(np.ascontiguousarray(rainy), count=False).image
            steady = smooth(plain)
            frames = [rainy, plain, steady, *([] if clean is None else [clean])]
            clips = clips or WarpingError(len(frames))
            clips.add(rainy if clean is None else clean, frames)
            if clean is not None:
                scores.append((quality(plain, clean).psnr_y, quality(steady, clean).psnr_y))
        assert clips is not None and clips.means is not None
        errors = [1e3 * error for error in clips.means]
        line = f"{name}: warping error x 1000: rainy {errors[0]:.2f}, derained {errors[1]:.2f}, steady {errors[2]:.2f}"
        if scores:
            before, after = (sum(column) / len(scores) for column in zip(*scores))
            line += f", clean {errors[3]:.2f}; PSNR (Y) {before:.2f} dB, steady {after:.2f} dB ({after - before:+.2f})"
        detail = ", ".join(f"{_laplacian(frame):.1f}" for frame in frames[:3])  # of the last ones
        click.echo(f"{line}; detail {detail}")


def _laplacian(frame: NDArray[Any]) -> float:
    grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).std())


def _pan(path: Path, length: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """(rainy, clean) frames of a camera that moves over a photograph; other rain, of medium strength, in each."""
    from esdnet_cli.training.synth import Rainmaker

    photo = cv2.imread(str(path))
    height, width = photo.shape[:2]
    tall, wide = int(height * 0.7), int(width * 0.7)
    rain = Rainmaker("medium", None, 0)
    with tempfile.TemporaryDirectory() as folder:
        for index in range(length):
            share = index / max(length - 1, 24)  # a pan of 25 frames would reach the other corner
            centre = (width - wide) * share + wide / 2, (height - tall) * share + tall / 2
            frame = Path(folder) / f"{index:03}.png"
            cv2.imwrite(str(frame), cv2.getRectSubPix(photo, (wide, tall), centre))
            yield rain(frame, Path(f"{path.stem}-{index:03}.png"))


@main.command()
@click.option("--seconds", default=4, show_default=True, help="Length of the clip, 320x180 at 25 frames a second.")
def waiting(seconds: int) -> None:
    """The share of the time in which the network waits for frames, with the bundled checkpoint on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        clip = _clip(Path(folder) / "clip.mp4", seconds)
        report = _derain(clip, Path(folder), "--every", "2")
        (entry,) = report["clips"]
        whole = report["run"]["seconds"]
        share = entry["waited_seconds"] / whole
        click.echo(
            f"{entry['frames']} frames of 320x180: network {entry['seconds']:.1f} s of {whole:.1f} s, "
            f"waited for frames {entry['waited_seconds']:.2f} s ({100 * share:.2f} %)"
        )


@main.command()
@click.option("--weights", help="A checkpoint.  [default: a tiny one of random weights]")
def memory(weights: str | None) -> None:
    """Peak memory of deraining each tenth frame of 30 and 120 seconds of 320x180, a report written."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = weights or str(_tiny(folder / "tiny.safetensors"))
        peaks = []
        for seconds in (30, 120):
            clip = _clip(folder / f"{seconds}.mp4", seconds)
            peaks.append(_peak(clip, folder, "--weights", checkpoint, "--every", "10"))
            click.echo(f"{seconds} s: peak {peaks[-1]:.0f} MiB")
        click.echo(f"ratio {peaks[1] / peaks[0]:.3f}")


def _tiny(path: Path) -> Path:
    from esdnet_cli.checkpoint.store import save
    from esdnet_cli.model.config import ESDNetConfig
    from esdnet_cli.model.network import ESDNet

    config = ESDNetConfig(dim=4, encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1))
    save(path, ESDNet(config).state_dict(), config, {"tile": "0", "overlap": "0"})
    return path


def _clip(path: Path, seconds: int) -> Path:
    """A camera that moves over a sample, 320x180 at 25 frames a second, H.264."""
    photo = cv2.imread(str(SAMPLE))[..., ::-1]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for index in range(25 * seconds):
            top, left = round(40 + 40 * np.sin(index / 40)), round(30 + 30 * np.cos(index / 50))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(photo[top : top + 180, left : left + 320]))
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _command(clip: Path, folder: Path, *options: str) -> list[str]:
    output = folder / f"out-{clip.name}"
    return [sys.executable, "-m", "esdnet_cli", "video", str(clip), "-o", str(output), "--device", "cpu", *options]


def _derain(clip: Path, folder: Path, *options: str) -> Any:
    report = folder / "report.json"
    command = _command(clip, folder, "--report", str(report), *options)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return json.loads(report.read_text())


def _peak(clip: Path, folder: Path, *options: str) -> float:
    """MiB of one process of its own, by the operating system's account."""
    command = _command(clip, folder, "--report", str(folder / "report.csv"), *options)
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True)
    return int(done.stdout) / 2**10  # kilobytes on Linux


if __name__ == "__main__":
    main()
