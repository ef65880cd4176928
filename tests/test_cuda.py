"""What only a CUDA device can show; skipped where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import GOLDEN, INTEGER, TINY, photo
from safetensors.torch import load_file
from test_training import RECIPE, new_run

import esdnet_cli
from esdnet_cli.checkpoint.store import load_network, open_checkpoint
from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.model.inference import fetch
from esdnet_cli.model.network import ESDNet
from esdnet_cli.model.replay import replayable
from esdnet_cli.training.loop import restoration_loss
from esdnet_cli.training.recorded import Recorded

CUDA = torch.device("cuda")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def test_the_published_output_comes_out() -> None:
    # in float64: in float32 a GPU sums in another order, one membrane potential crosses the threshold, and in this
    # network of random weights all after it follows, as on a CPU where the picture changes by a millionth
    tensors = load_file(GOLDEN / "compact-io.safetensors")
    network = load_network(open_checkpoint(str(GOLDEN / "compact-weights.safetensors"))).double().to(CUDA)
    with torch.inference_mode():
        derained = network(tensors["input"].double().to(CUDA)).cpu()
    torch.testing.assert_close(derained, tensors["output"].double(), atol=1e-5, rtol=0)


def test_fp32_multiplies_in_float32() -> None:  # TF32, the default, is off by 1e-4 and more
    picture = load_file(GOLDEN / "compact-io.safetensors")["input"]
    embedded = []
    for device in ("cpu", "cuda"):
        derainer = esdnet_cli.load(GOLDEN / "compact-weights.safetensors", device=device, precision="fp32")
        derainer.network.patch_embed.register_forward_hook(lambda _, __, features: embedded.append(features.cpu()))
        derainer.inference(picture)
    torch.testing.assert_close(embedded[1], embedded[0], atol=1e-5, rtol=0)


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


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("count", [True, False])
def test_later_passes_are_replayed(count: bool, precision: str, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[torch.Size] = []
    forward = ESDNet.forward

    def noted(network: ESDNet, images: torch.Tensor) -> torch.Tensor:
        begun.append(images.shape)
        return forward(network, images)

    monkeypatch.setattr(ESDNet, "forward", noted)
    derainer = esdnet_cli.load(tiny, device="cuda", precision=precision, batch=3)  # of the 15 tiles of each picture
    pictures = [photo(40, 56, seed=seed) for seed in (1, 2, 1)]
    replayed = [derainer(picture, count=count) for picture in pictures]
    assert len(begun) == 3  # twice as it is, and recorded
    monkeypatch.setattr("esdnet_cli.model.inference._REPLAYED_BYTES", 0)
    for picture, derained in zip(pictures, replayed):
        expected = derainer(picture, count=count)
        assert np.array_equal(derained.image, expected.image)
        assert derained.activity == expected.activity
    assert len(begun) == 3 + 15


def test_after_a_recording_that_fails_all_is_as_before(tiny: Path) -> None:
    @replayable
    def waits(*_: object) -> None:
        torch.cuda.synchronize()  # which no recording bears

    picture = photo(40, 56)
    derainer = esdnet_cli.load(tiny, device="cuda", precision="fp32", batch=1)
    expected = derainer(picture)
    derainer.network.register_forward_hook(waits)
    again = derainer(picture)
    assert np.array_equal(again.image, expected.image) and again.activity == expected.activity
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert 0 <= torch.rand(1, device="cuda").item() < 1


def test_a_spike_map_is_no_replay(tiny: Path) -> None:
    derainer = esdnet_cli.load(tiny, device="cuda", batch=1)
    maps = [derainer(photo(40, 56, seed=seed), spike_map=True).spike_map for seed in (1, 2, 1)]
    assert all(rates is not None for rates in maps)
    assert np.array_equal(maps[0], maps[2]) and not np.array_equal(maps[0], maps[1])  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [TINY, INTEGER], ids=["lif", "integer"])
def test_a_recorded_step_computes_what_a_plain_one_does(config: ESDNetConfig) -> None:
    # in float64: a recording may take other algorithms, and in float32 (TF32 by default) spikes flip then
    plain = ESDNet(config).double().to(CUDA)
    recorded = ESDNet(config).double().to(CUDA)
    recorded.load_state_dict(plain.state_dict())
    batches = [tuple(torch.rand(2, 2, 3, 32, 32, dtype=torch.float64, device=CUDA)) for _ in range(3)]

    def compute(network: ESDNet, rainy: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        loss = restoration_loss(network(rainy), target)
        loss.backward()
        return loss.detach()

    replay = Recorded(lambda *batch: compute(recorded, *batch), recorded, batches[0])
    for batch in batches:
        plain.zero_grad()
        torch.testing.assert_close(replay(*batch), compute(plain, *batch), rtol=1e-6, atol=1e-8)
        for (name, one), other in zip(plain.named_parameters(), recorded.parameters()):
            assert one.grad is not None and other.grad is not None, name
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-5, atol=1e-8, msg=name)
    for (name, one), other in zip(plain.named_buffers(), recorded.buffers()):
        torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-8, msg=name)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_learns(precision: str, tmp_path: Path) -> None:
    run = new_run(
        tmp_path, replace(RECIPE, config=INTEGER, steps=60, lr=4e-3, batch=8, precision=precision), device=CUDA
    )
    losses = [event.loss for event in run.train()]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])


def test_a_stopped_run_goes_on_with_the_batch_that_it_had_begun(tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=10)  # two draws
    whole = [event.loss for event in new_run(tmp_path / "whole", recipe, CUDA).train()]
    halted = new_run(tmp_path / "halted", recipe, CUDA)
    steps = halted.train()
    for _ in range(3):
        next(steps)
    steps.close()
    resumed = [event.loss for event in new_run(tmp_path / "halted", recipe, CUDA, resume=True).train()]
    # algorithms are chosen by timing and sums have no order: spikes flip; other batches differ by more
    assert resumed == pytest.approx(whole[3:], rel=0.02)
