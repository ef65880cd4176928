"""tools/: a card's figures are of the pictures that weights/validation.txt names; dead units live again or go, others
fire less; derived weights keep their terms."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import blend
import pytest
import quieten
import revive
import score
import torch
import widen
from click.testing import CliRunner
from conftest import INTEGER, TINY, photo, tiny_network, write

import esdnet_cli
from esdnet_cli.checkpoint.store import load_network, open_checkpoint, save
from esdnet_cli.energy.counter import ActivityCounter
from esdnet_cli.model.inference import Inference
from esdnet_cli.model.low_precision import int8_works


@pytest.mark.skipif(not int8_works(), reason="no 8-bit convolution in this PyTorch")
def test_a_checkpoint_is_scored_and_stamped(tmp_path: Path) -> None:
    for folder, names in score.listed().items():
        for index, name in enumerate(names):
            for side in ("input", "target"):
                write(tmp_path / "data" / folder / side / name, photo(40, 48, seed=index))
        write(tmp_path / "data" / folder / "input" / "another.png", photo(24, 30))  # is in no list
    weights, stamped = tmp_path / "run.safetensors", tmp_path / "stamped.safetensors"
    save(weights, tiny_network(INTEGER).state_dict(), INTEGER, {"tile": "40", "overlap": "8"})
    arguments = [str(weights), "--data", str(tmp_path / "data"), "--tile", "24", "--overlap", "8", "--fitted"]
    run = CliRunner().invoke(score.main, [*arguments, "--stamp", str(stamped), "--version", "9"])
    assert run.exit_code == 0, run.output
    metadata = open_checkpoint(str(stamped)).metadata
    assert [metadata[key] for key in ("version", "tile", "overlap", "tile_shape")] == ["9", "24", "8", "fitted"]
    assert "non-commercial" in metadata["license"]
    metrics = json.loads(metadata["metrics"])
    sets = {"rain100h_dev", "own_light_rain", "own_camera_rain", "dry", "rain100l_dev", "sirr_dev", "nturain_dev"}
    assert set(metrics) == {*sets, "validation"}
    assert metrics["dry"] == metrics["rain100h_dev"]  # here input and target are the same
    assert metrics["own_light_rain"] != metrics["dry"]
    for name in sets:
        assert f"{metrics[name]['psnr_y']:.2f} / {metrics[name]['ssim_y']:.4f}" in run.output
    same = esdnet_cli.load(weights, device="cpu", precision="fp32", tile=24, overlap=8)
    same.tiling = replace(same.tiling, fitted=True)
    again = esdnet_cli.load(stamped, device="cpu", precision="fp32")
    picture = photo(40, 48)
    # convolutions are stored in fp16, so that a spike may flip
    assert abs(same(picture).image.astype(int) - again(picture).image).mean() < 1


def test_a_missing_picture_is_named_before_anything_is_scored(tmp_path: Path, tiny: Path) -> None:
    run = CliRunner().invoke(score.main, [str(tiny), "--data", str(tmp_path)])
    assert run.exit_code == 1
    assert "017.png: no such file; --data names the folder of weights/validation.txt's" in run.output


def test_dead_units_of_the_refinement_are_made_anew_and_the_result_is_the_same(tmp_path: Path) -> None:
    network = tiny_network(INTEGER)
    network.refinement.sa[1].bias.data[0] = -1e3
    before, after = tmp_path / "before.safetensors", tmp_path / "after.safetensors"
    save(before, network.state_dict(), INTEGER, {"license": "as it was"})
    pictures = [write(tmp_path / f"{seed}.png", photo(170, 180, seed=seed)) for seed in range(2)]
    arguments = [str(before), str(after), *map(str, pictures)]
    run = CliRunner().invoke(revive.main, arguments)
    assert "1 of 2 units made anew" in run.output, run.output
    assert open_checkpoint(str(after)).metadata["license"] == "as it was"
    old, new = (load_network(open_checkpoint(str(path))) for path in (before, after))
    units = torch.cat([revive.hidden(new, picture)[1] for picture in pictures])
    assert 0.3 < (units[:, 0] > 0).float().mean() < 0.7
    image = torch.from_numpy(photo(160, 160)).movedim(-1, 0)[None].float() / 255
    kernels = {name: tensor.half().float() for name, tensor in old.state_dict().items() if tensor.dim() >= 4}
    old.load_state_dict({**old.state_dict(), **kernels})
    torch.testing.assert_close(new(image), old(image), rtol=0, atol=1e-6)
    again = CliRunner().invoke(revive.main, [str(after), str(before), *map(str, pictures)])
    assert again.exit_code == 1 and "all of its 2 units are alive" in again.output


@pytest.mark.parametrize("dead", [1, 2])
@torch.inference_mode()
def test_dead_units_taken_away_change_nothing_and_cost_nothing(dead: int, tmp_path: Path) -> None:
    network = tiny_network(INTEGER)
    network.load_state_dict({name: tensor.half().float() for name, tensor in network.state_dict().items()})
    network.refinement.sa[1].bias.data[:dead] = -1e3
    network.refinement.sa[1].bias.data[dead:] = 1e3
    before, after = tmp_path / "before.safetensors", tmp_path / "after.safetensors"
    save(before, network.state_dict(), INTEGER, {"license": "as it was"})
    picture = write(tmp_path / "rainy.png", photo(170, 180))
    run = CliRunner().invoke(revive.main, [str(before), str(after), str(picture), "--bury"])
    assert f"{dead} of 2 units taken away" in run.output, run.output
    image = torch.from_numpy(photo(160, 160)).movedim(-1, 0)[None].float() / 255
    inference = Inference(load_network(open_checkpoint(str(after))), torch.device("cpu"), "fp32")
    with ActivityCounter(inference.network) as counter:
        torch.testing.assert_close(inference(image), network(image), rtol=0, atol=1e-6)
    convolutions = {layer.name for layer in counter.activity().layers if layer.name.startswith("refinement.sa")}
    assert len(convolutions) == (0 if dead == 2 else 3)


def test_averaged_and_widened_weights_keep_their_terms(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{name}.safetensors") for name in ("first", "second", "target")]
    for path, about in zip(paths, ({"license": "not for sale"}, {"trained_on": "pictures"})):
        save(Path(path), tiny_network(INTEGER).state_dict(), INTEGER, about)
    assert CliRunner().invoke(blend.main, [*paths, "--share", "0.5"]).exit_code == 0
    metadata = open_checkpoint(paths[2]).metadata
    assert (metadata["license"], metadata["trained_on"]) == ("not for sale", "pictures")
    begun = {"license": "not for sale", "trained_on": "pictures"}
    assert blend.origins(begun, {"license": "free", "trained_on": "pictures; then mine"}) == {
        "license": "not for sale; free", "trained_on": "pictures; then mine"
    }  # fmt: skip
    assert CliRunner().invoke(widen.main, [paths[0], paths[2], "--dim", str(2 * INTEGER.dim)]).exit_code == 0
    assert open_checkpoint(paths[2]).metadata["license"] == "not for sale"


def test_widening_changes_nothing_or_says_so(tmp_path: Path) -> None:
    source, target = str(tmp_path / "source.safetensors"), str(tmp_path / "target.safetensors")
    network = tiny_network(INTEGER)
    save(Path(source), network.state_dict(), INTEGER, {})
    images = torch.rand(1, 3, 16, 24)

    def widened(dim: int) -> tuple[int, str, float]:
        run = CliRunner().invoke(widen.main, [source, target, "--dim", str(dim)])
        if run.exit_code:
            return run.exit_code, run.output, 0.0
        with torch.inference_mode():
            return 0, run.output, float((load_network(open_checkpoint(target))(images) - network(images)).abs().max())

    assert widened(2 * INTEGER.dim) == (0, "", pytest.approx(0, abs=1e-5))
    code, said, _ = widened(INTEGER.dim + 4)
    assert code == 0 and "12 is no multiple of 8" in said
    code, said, _ = widened(INTEGER.dim - 4)
    assert code == 1 and "--dim 4 is narrower than" in said


def test_neurons_that_fire_less_cost_less_and_change_little(tmp_path: Path) -> None:
    before, after = tmp_path / "before.safetensors", tmp_path / "after.safetensors"
    save(before, tiny_network(INTEGER).state_dict(), INTEGER, {"license": "as it was", "tile_shape": "fitted"})
    pictures = [write(tmp_path / f"{seed}.png", photo(64, 64, seed=seed)) for seed in range(3)]
    arguments = [str(before), str(after), *map(str, pictures), "--save", "0.25"]
    run = CliRunner().invoke(quieten.main, arguments)
    assert run.exit_code == 0 and "of the accumulations" in run.output, run.output
    assert open_checkpoint(str(after)).metadata["license"] == "as it was"
    assert open_checkpoint(str(after)).fitted
    old, new = (load_network(open_checkpoint(str(path))) for path in (before, after))
    shifted = copy.deepcopy(new)  # without what was given back in the mean
    for name, tensor in shifted.state_dict().items():
        if name.endswith("residual.5.running_mean"):
            tensor.copy_(old.state_dict()[name])
    accumulations, changes = [], []
    for network in (old, new, shifted):
        derained = []
        with torch.inference_mode(), ActivityCounter(network) as counter:
            for seed in range(3):
                derained.append(network(torch.from_numpy(photo(64, 64, seed=seed)).movedim(-1, 0)[None].float() / 255))
        layers = counter.activity().layers
        accumulations.append(sum(layer.ac for layer in layers if layer.name.endswith("residual.4")))
        changes.append(torch.cat(derained))
    # a block's spikes depend on those before it, so not to the last one; at borders a spike reaches fewer places
    assert accumulations[1] == pytest.approx(0.75 * accumulations[0], rel=0.1)
    assert (changes[1] - changes[0]).abs().mean() < 0.8 * (changes[2] - changes[0]).abs().mean()

    save(before, tiny_network(TINY).state_dict(), TINY, {})
    run = CliRunner().invoke(quieten.main, arguments)
    assert run.exit_code == 1 and "has no integer neurons of one step" in run.output
