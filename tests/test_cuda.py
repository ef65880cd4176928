"""What only a CUDA device can show; skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import GOLDEN, photo
from safetensors.torch import load_file

import esdnet_cli
from esdnet_cli.model.inference import fetch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def test_fp32_equals_the_published_output() -> None:
    tensors = load_file(GOLDEN / "compact-io.safetensors")
    derainer = esdnet_cli.load(GOLDEN / "compact-weights.safetensors", device="cuda", precision="fp32")
    derained = fetch(derainer.inference(tensors["input"]))()
    torch.testing.assert_close(derained, tensors["output"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("batch", [1, 3, None])
def test_batches_in_flight_come_back_in_order(batch: int | None, tiny: Path) -> None:
    picture = photo(90, 130)
    expected = esdnet_cli.load(tiny, device="cpu", precision="fp32")(picture)
    derained = esdnet_cli.load(tiny, device="cuda", precision="fp32", batch=batch)(picture, spike_map=True)
    assert np.abs(derained.image.astype(int) - expected.image).mean() < 0.1
    assert expected.activity is not None and derained.activity is not None
    assert derained.activity.spike_rate == pytest.approx(expected.activity.spike_rate, rel=1e-3)


def test_bf16_stays_close() -> None:
    tensors = load_file(GOLDEN / "compact-io.safetensors")
    derainer = esdnet_cli.load(GOLDEN / "compact-weights.safetensors", device="cuda", precision="bf16")
    derained = fetch(derainer.inference(tensors["input"]))()
    removed = (tensors["output"] - tensors["input"]).abs().mean()
    assert (derained - tensors["output"]).abs().mean() < 0.1 * removed
