"""Where neurons fire: maps against sums by hand, their PNGs, and what evaluate makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import INTEGER, Run, load_json, photo, read, tiny_network, write

import esdnet_cli
from esdnet_cli.checkpoint.store import save
from esdnet_cli.energy.spikemap import SpikeMapper
from esdnet_cli.metrics import mean_spike_rain, spike_rain
from esdnet_cli.model.config import LEVELS, ESDNetConfig
from esdnet_cli.model.layers import LIF
from esdnet_cli.model.network import ESDNet
from esdnet_cli.pipeline.observers import heat


def mapped(network: ESDNet, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode(), SpikeMapper(network, network) as mapper:
        return mapper(images)


def test_patches_have_coarser_maps_and_integers_rates_up_to_one() -> None:
    network, images = tiny_network(INTEGER), torch.rand(2, 3, 16, 24)
    seen: list[torch.Tensor] = []
    network.encoder_level1[0].residual[0].register_forward_hook(lambda _, __, spikes: seen.append(spikes))
    output = mapped(network, images)
    assert output.shape == (2, 3 + LEVELS, 16, 24) and seen[0].shape[3:] == (8, 12)
    assert output[:, 3:].min() > 0 and output[:, 3:].max() < 1


def test_rates_equal_the_spikes_of_each_resolution() -> None:
    network, images = tiny_network(), torch.rand(2, 3, 16, 24)
    seen: dict[int, list[torch.Tensor]] = {16: [], 8: [], 4: []}
    for module in network.modules():
        if isinstance(module, LIF):
            module.register_forward_hook(lambda _, __, spikes: seen[spikes.shape[3]].append(spikes))
    output = mapped(network, images)
    assert output.shape == (2, 3 + LEVELS, 16, 24)
    full = torch.cat([spikes.transpose(0, 1).flatten(1, 2) for spikes in seen[16]], dim=1)  # [N, T * C of all, H, W]
    torch.testing.assert_close(output[:, 3], full.mean(1))
    for level, height in ((1, 8), (2, 4)):
        coarse = torch.cat([spikes.transpose(0, 1).flatten(1, 2) for spikes in seen[height]], dim=1)
        # away from the border the mean over blocks survives the interpolation nearly
        assert output[:, 3 + level].mean() == pytest.approx(float(coarse.mean()), abs=0.03)
    with torch.inference_mode():
        torch.testing.assert_close(output[:, :3], network(images), rtol=0, atol=0)


@pytest.mark.parametrize("drive", [-1.0, 1.0])
def test_silent_and_saturated_networks(drive: float) -> None:
    network = tiny_network()
    for module in network.modules():
        if isinstance(module, LIF):
            module.register_forward_pre_hook(lambda _, args: (torch.full_like(args[0], drive),))
    assert (mapped(network, torch.rand(1, 3, 16, 16))[:, 3:] == (drive > 0)).all()
    assert not any(module._forward_hooks for module in network.modules() if isinstance(module, LIF))


def test_maps_of_tiles_are_blended_and_change_no_pixel(tiny: Path) -> None:
    derainer, picture = esdnet_cli.load(tiny, device="cpu"), photo(37, 50)
    plain, with_map = derainer(picture), derainer(picture, spike_map=True)
    np.testing.assert_array_equal(plain.image, with_map.image)
    assert plain.spike_map is None and plain.activity == with_map.activity
    assert with_map.spike_map is not None and with_map.spike_map.shape == (37, 50, LEVELS)
    assert 0 <= with_map.spike_map.min() < with_map.spike_map.max() <= 1


def test_colours_run_from_the_lowest_to_the_highest_rate() -> None:
    ramp = np.linspace(0.1, 0.5, 10000).reshape(100, 100)[..., None].repeat(LEVELS, 2).astype(np.float16)
    colours, scales = heat(ramp)
    assert [colour.shape for colour in colours] == [(100, 100, 3)] * LEVELS
    assert scales[0] == pytest.approx((0.104, 0.496), abs=1e-3)
    assert int(colours[0][0, 0].sum()) < int(colours[0][50, 50].sum()) < int(colours[0][99, 99].sum())


def test_three_pngs_for_each_picture(tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "in" / "a.png")
    write(tmp_path / "in" / "sub" / "b.jpg", photo(20, 50))
    maps = tmp_path / "maps"
    assert run("energy", tmp_path / "in", "-r", "--weights", tiny, "--spike-map", maps).exit_code == 0
    names = [str(path.relative_to(maps)) for path in sorted(maps.rglob("*.png"))]
    assert names == [f"{stem}.level{level}.png" for stem in ("a", "sub/b") for level in (1, 2, 3)]
    assert read(maps / "a.level3.png").shape == (24, 30, 3) and read(maps / "sub" / "b.level1.png").shape == (20, 50, 3)


def test_a_network_without_neurons_at_a_level(tmp_path: Path, run: Run) -> None:
    config = ESDNetConfig(dim=8, encoder_blocks=(1, 1, 0), decoder_blocks=(1, 1, 0))
    weights = tmp_path / "two-levels.safetensors"
    save(weights, tiny_network(config).state_dict(), config, {"tile": "16", "overlap": "4"})
    for folder, seed in (("in", 0), ("target", 1)):
        write(tmp_path / folder / "a.png", photo(30, 40, seed=seed))
    maps, report = tmp_path / "maps", tmp_path / "r.html"
    command = ("images", tmp_path / "in", "-o", tmp_path / "out", "--weights", weights)
    result = run(*command, "--spike-map", maps, "--report", report)
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in maps.glob("*.png")) == ["a.level1.png", "a.level2.png"]
    assert "1 skipped" in run(*command, "--spike-map", maps).stdout, "there is no third map to wait for"
    page = report.read_text()
    assert "at level 2" in page and "at level 3" not in page
    pairs = ("--input", tmp_path / "in", "--target", tmp_path / "target")
    result = run("evaluate", *pairs, "--weights", weights, "--report", tmp_path / "r.json")
    assert result.exit_code == 0, result.stderr
    scores = load_json(tmp_path / "r.json")["totals"]
    assert scores["spike_rain_r_level2"] is not None and scores["spike_rain_r_level3"] is None


@pytest.mark.parametrize("size", [200, 240, 255])
def test_maps_of_long_names(size: int, tiny: Path, tmp_path: Path, run: Run) -> None:
    name = "雨" * ((size - 4) // 3) + "x" * ((size - 4) % 3) + ".png"
    write(tmp_path / "a.png").rename(tmp_path / name)
    result = run("energy", tmp_path / name, "--weights", tiny, "--spike-map", tmp_path / "maps")
    assert result.exit_code == 0, result.stderr
    names = sorted(path.name for path in (tmp_path / "maps").glob("*.png"))
    assert len(names) == 3 and all(name.endswith(f".level{level}.png") for level, name in enumerate(names, 1))
    assert (names[0] == name.replace(".png", ".level1.png")) == (size < 248)


def test_maps_are_no_pictures_of_theirs_and_replace_nobody_else(tiny: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "in"
    write(folder / "a.png")
    command = ("energy", folder, "-r", "--weights", tiny, "--spike-map", folder / "maps")
    for _ in range(2):
        again = run(*command)
        assert again.exit_code == 0 and "1 done" in again.stdout, "a second run sees no map among its inputs"
    (folder / "maps" / "a.level2.png").write_bytes(b"a stranger's")
    refused = run(*command)
    assert (
        refused.exit_code == 1 and "a.level2.png already exists" in refused.stderr and "--spike-map" in refused.stderr
    )
    assert (folder / "maps" / "a.level2.png").read_bytes() == b"a stranger's"
    beside = run("energy", folder, "--weights", tiny, "--spike-map", folder)
    assert beside.exit_code == 2 and "both input and output folder" in beside.stderr


def test_two_pictures_of_one_stem_have_maps_of_their_own(tiny: Path, tmp_path: Path, run: Run) -> None:
    for name in ("a.png", "a.jpg", "b.png"):
        write(tmp_path / "in" / name)
    for shard in ("1/2", "2/2"):  # named alike whoever takes which
        command = ("energy", tmp_path / "in", "--weights", tiny, "--spike-map", tmp_path / "maps", "--shard", shard)
        assert run(*command).exit_code == 0
    names = {path.name for path in (tmp_path / "maps").glob("*.level1.png")}
    assert names == {"a.png.level1.png", "a.jpg.level1.png", "b.level1.png"}


def test_maps_are_never_written_over_inputs_outputs_or_each_other(tiny: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "in"
    write(folder / "a.png")
    beside = run("energy", folder / "a.png", "--weights", tiny, "--spike-map", folder)
    assert beside.exit_code == 0 and (folder / "a.level1.png").exists(), "the map of a.png is another file"
    both = ("images", folder, "--weights", tiny, "-o", tmp_path / "out", "--spike-map", tmp_path / "out", "--overwrite")
    for tried in (run(*both), run(*both, "--dry-run")):
        assert tried.exit_code == 2 and "a.level1.png would be written over the output" in tried.stderr
    again = run("energy", folder / "a.png", folder / "a.level1.png", "--weights", tiny, "--spike-map", folder)
    assert again.exit_code == 2 and "would be written over the input" in again.stderr
    assert not (tmp_path / "out").exists()
    write(tmp_path / "other" / "a.png")
    twice = run("energy", folder / "a.png", tmp_path / "other" / "a.png", "--weights", tiny, "--spike-map", tmp_path)
    assert twice.exit_code == 2 and "over the map of" in twice.stderr and "with -r" in twice.stderr


def test_a_picture_without_its_maps_is_not_done(tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "in" / "a.png")
    maps = tmp_path / "maps"
    command = ("images", tmp_path / "in", "-o", tmp_path / "out", "--weights", tiny)
    mapped = (*command, "--spike-map", maps)
    assert run(*command).exit_code == 0
    derained = (tmp_path / "out" / "a.png").stat()
    assert "derain " in run(*mapped, "--dry-run").stdout
    assert "1 done" in run(*mapped).stdout and len(list(maps.glob("*.png"))) == 3
    assert (tmp_path / "out" / "a.png").stat().st_ino == derained.st_ino, "what was there stays"
    assert "1 skipped" in run(*mapped).stdout
    for level in (1, 2, 3):
        (maps / f"a.level{level}.png").unlink()
        assert "1 done" in run(*mapped).stdout and len(list(maps.glob("*.png"))) == 3


def test_what_is_in_the_way_of_a_map_costs_no_work_and_leaves_no_half(tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "in" / "a.png")
    (tmp_path / "maps" / "a.level2.png").mkdir(parents=True)
    command = ("images", tmp_path / "in", "-o", tmp_path / "out", "--weights", tiny, "--spike-map", tmp_path / "maps")
    for _ in range(2):
        refused = run(*command)
        assert refused.exit_code == 1 and "a folder already has the name" in refused.stderr
        assert not (tmp_path / "out" / "a.png").exists() and not (tmp_path / "maps" / "a.level1.png").exists()
    (tmp_path / "maps" / "a.level2.png").rmdir()
    assert run(*command).exit_code == 0 and (tmp_path / "maps" / "a.level1.png").exists()


def test_correlation_with_the_true_rain() -> None:
    target = np.full((20, 20, 3), 100, np.uint8)
    rainy = target.copy()
    rainy[:, 5:9] += 80
    exact = (rainy - target)[..., :1].astype(np.float16) / 255
    found = spike_rain(np.concatenate((exact, 1 - exact, np.zeros_like(exact)), axis=2), rainy, target)
    assert (found.spike_rain_r_level1, found.spike_rain_r_level2) == pytest.approx((1, -1))
    assert found.spike_rain_r_level3 is None, "fires alike everywhere"
    dry = spike_rain(np.random.default_rng(0).random((20, 20, 3)).astype(np.float16), target, target)
    assert set(vars(dry).values()) == {None}
    mean = mean_spike_rain([found, dry])
    assert mean is not None and mean.spike_rain_r_level1 == pytest.approx(1), "a dry picture has no say"


@pytest.mark.parametrize("alike", ["rates", "rain"])
def test_no_correlation_where_all_is_alike_but_for_rounding(alike: str) -> None:
    # NumPy's deviation of so many times this float32 is not 0
    rates, target = np.full((123, 457, 1), 0.99, np.float16), np.full((123, 457, 3), 100, np.uint8)
    rainy = target + [7, 7, 8] if alike == "rain" else target + np.arange(457)[:, None] % 50
    rates = rates if alike == "rates" else np.random.default_rng(0).random(rates.shape).astype(np.float16)
    assert set(vars(spike_rain(rates, rainy.astype(np.uint8), target)).values()) == {None}


def test_evaluate_reports_it(tiny: Path, tmp_path: Path, run: Run) -> None:
    write(tmp_path / "input" / "a.png", photo(30, 40))
    write(tmp_path / "target" / "a.png", photo(30, 40, seed=1))
    pairs = ("--input", tmp_path / "input", "--target", tmp_path / "target", "--report", tmp_path / "r.json")
    assert "spikes and rain" in run("evaluate", *pairs, "--weights", tiny).stdout
    report = load_json(tmp_path / "r.json")
    assert -1 <= report["images"][0]["spike_rain_r_level2"] <= 1
    assert report["totals"]["spike_rain_r"] == report["images"][0]["spike_rain_r"]
    assert "spikes and rain" not in run("evaluate", *pairs, "--as-is").stdout
    result = run("evaluate", *pairs, "--as-is", "--spike-map", tmp_path / "maps")
    assert result.exit_code == 2 and "--spike-map needs the network" in result.stderr
