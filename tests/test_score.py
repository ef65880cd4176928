"""tools/score.py: a card's figures are of the pictures that weights/validation.txt names, and go into the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import score
from click.testing import CliRunner
from conftest import INTEGER, photo, tiny_network, write

import esdnet_cli
from esdnet_cli.checkpoint.store import open_checkpoint, save
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
    arguments = [str(weights), "--data", str(tmp_path / "data"), "--tile", "24", "--overlap", "8"]
    run = CliRunner().invoke(score.main, [*arguments, "--stamp", str(stamped), "--version", "9"])
    assert run.exit_code == 0, run.output
    metadata = open_checkpoint(str(stamped)).metadata
    assert (metadata["version"], metadata["tile"], metadata["overlap"]) == ("9", "24", "8")
    assert "non-commercial" in metadata["license"]
    metrics = json.loads(metadata["metrics"])
    sets = {"rain100h_dev", "own_light_rain", "dry", "rain100l_dev", "sirr_dev", "nturain_dev"}
    assert set(metrics) == {*sets, "validation"}
    assert metrics["dry"] == metrics["rain100h_dev"]  # here input and target are the same
    assert metrics["own_light_rain"] != metrics["dry"]
    for name in sets:
        assert f"{metrics[name]['psnr_y']:.2f} / {metrics[name]['ssim_y']:.4f}" in run.output
    same = esdnet_cli.load(weights, device="cpu", precision="fp32", tile=24, overlap=8)
    again = esdnet_cli.load(stamped, device="cpu", precision="fp32")
    picture = photo(40, 48)
    # convolutions are stored in fp16, so that a spike may flip
    assert abs(same(picture).image.astype(int) - again(picture).image).mean() < 1
