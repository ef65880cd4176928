"""Tiny pictures and a tiny network, so that every test runs in a blink."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from esdnet_cli.checkpoint.store import save
from esdnet_cli.cli import cli
from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.model.network import ESDNet

# tiny tensors gain nothing from threads, which only fight on a busy machine; subprocesses inherit this
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

GOLDEN = Path(__file__).parent / "golden"
TINY = ESDNetConfig(dim=8, encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1))
LEAST = ESDNetConfig(8, (1, 0, 0), (0, 0, 0), timesteps=1, shortcut="spike")  # where the network does not matter
INTEGER = ESDNetConfig(8, (1, 1, 1), (1, 1, 1), timesteps=1, shortcut="spike", patch=2, neuron="integer", levels=4)
TWO_STEPS = ESDNetConfig(8, (1, 1, 1), (1, 1, 1), timesteps=2, shortcut="spike", neuron="integer", levels=3)
Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(7)
    for name in ("DEVICE", "WEIGHTS", "PRECISION", "TILE", "OVERLAP", "BATCH", "SCALES"):
        monkeypatch.delenv(f"ESDNET_{name}", raising=False)


def tiny_network(config: ESDNetConfig = TINY) -> ESDNet:
    """A network of random weights, trained nowhere, whose neurons nevertheless fire at many rates."""
    network = ESDNet(config)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_mean"):
                tensor.normal_(0, 0.02)
            elif name.endswith("running_var"):
                tensor.uniform_(0.02, 0.2)
            elif name.endswith(".bias"):
                tensor.normal_(0.05, 0.1)
    return network.eval()


@pytest.fixture(scope="session")
def _tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save(path, tiny_network().state_dict(), TINY, {"tile": "16", "overlap": "4"})
    return path


@pytest.fixture
def tiny(_tiny: Path, tmp_path: Path) -> Path:
    """A checkpoint of TINY, tuned for tiles of 16; the test's own, which it may change."""
    path = tmp_path / "weights" / "tiny.safetensors"
    path.parent.mkdir()
    shutil.copyfile(_tiny, path)
    return path


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    """A checkpoint that gives back what it gets: whatever differs in the output was not the network."""
    return save_identity(tmp_path / "weights" / "identity.safetensors")


def save_identity(path: Path, tile: int = 0, overlap: int = 0) -> Path:
    """A checkpoint of LEAST that gives back what it gets, tuned for this tiling."""
    state = tiny_network(LEAST).state_dict()
    state["output.0.weight"].zero_()
    state["output.0.bias"].zero_()
    save(path, state, LEAST, {"tile": str(tile), "overlap": str(overlap)})
    return path


@pytest.fixture
def run() -> Run:
    """Call the command line in this process: run("images", path, "-o", folder)."""

    def call(*args: object) -> Result:
        return CliRunner().invoke(cli, [str(arg) for arg in args], prog_name="esdnet", catch_exceptions=False)

    return call


def photo(height: int = 24, width: int = 30, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colours with noise, uint8 [H, W, 3]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    ramp = np.stack((255 * y / height, 255 * x / width, np.full((height, width), 128.0)), axis=2)
    return np.clip(ramp + random.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


def write(path: Path, pixels: NDArray[np.generic] | None = None) -> Path:
    """An image file; the ending says which."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix, photo() if pixels is None else pixels)
    assert done
    path.write_bytes(bytes(data))
    return path


def read(path: Path) -> NDArray[np.generic]:
    """What OpenCV sees in a file, unchanged."""
    pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None, path
    return pixels


def load_json(path: Path) -> dict:  # type: ignore[type-arg]
    return json.loads(path.read_text())  # type: ignore[no-any-return]


@pytest.fixture
def two_cores() -> Iterator[None]:
    """PyTorch may use two cores, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
