"""Training: what a step learns from, exact resumption, what a run leaves behind."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LEAST, TINY, photo, tiny_network, write
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from esdnet_cli.checkpoint.store import load_network, open_checkpoint
from esdnet_cli.errors import EsdnetError
from esdnet_cli.metrics import quality, ssim
from esdnet_cli.model.inference import LOWERED, is_fast
from esdnet_cli.training import loop
from esdnet_cli.training.data import (
    DARK,
    SOFT,
    Folder,
    MaskedRain,
    Mixed,
    OwnRain,
    Paired,
    Pictures,
    Taught,
    load_batches,
    read_pairs,
    reduced,
    scenes,
    shares,
)
from esdnet_cli.training.loop import Recipe, TrainingRun, restoration_loss
from esdnet_cli.training.recorded import Ahead
from esdnet_cli.training.start import autocast_precision
from esdnet_cli.training.state import BEST, LAST, LOG, STATE

CPU = torch.device("cpu")
RECIPE = Recipe(
    LEAST, steps=6, minutes=None, batch=2, crop=16, lr=1e-3, seed=5, precision="fp32", cooldown=0.25, warmup=2
)


def random() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def batches(device: torch.device = CPU) -> OwnRain:
    return OwnRain(Pictures([photo(40, 30), photo(24, 60)], device))


def new_run(folder: Path, recipe: Recipe = RECIPE, device: torch.device = CPU, **options: object) -> TrainingRun:
    folder.mkdir(exist_ok=True)
    pairs = [("a", photo(20, 24, 1), photo(20, 24, 2))]
    return TrainingRun(recipe, batches(device), pairs, folder, device, **options)  # type: ignore[arg-type]


def test_crops_are_cut_from_the_pictures() -> None:
    """Each pixel of the pictures says where it stands, so a crop shows where it came from."""
    y, x = np.mgrid[:20, :50].astype(np.uint8)
    picture = np.stack((y, x, np.full_like(x, 9)), axis=2)
    crops = Pictures([picture[:18, :30], picture], CPU).crops(50, 8, random(), turn=False) * 255
    rows, columns = crops[:, 0].round(), crops[:, 1].round()
    assert (rows[:, 1:] - rows[:, :-1] == 1).all(), "never upside down"
    steps = columns[..., 1:] - columns[..., :-1]
    assert set(steps.unique().tolist()) == {-1.0, 1.0}, "mirrored or not"
    assert (crops[:, 2].round() == 9).all()
    assert columns.max() > 30, "from the second picture, too"


def test_turned_crops_come_in_all_eight_ways() -> None:
    y, x = np.mgrid[:30, :30].astype(np.uint8)
    crops = Pictures([np.stack((y, x), axis=2)], CPU).crops(200, 8, random(), turn=True) * 255
    ways = {
        tuple((crop[:, 1, 0] - crop[:, 0, 0]).round().tolist() + (crop[:, 0, 1] - crop[:, 0, 0]).round().tolist())
        for crop in crops
    }
    assert len(ways) == 8


def test_photographs_are_shown_reduced_too(tmp_path: Path) -> None:
    picture = photo(64, 90)
    whole, smaller, half = reduced(picture, 30)
    assert whole is picture and [copy.shape for copy in (smaller, half)] == [(45, 64, 3), (32, 45, 3)]
    assert np.abs(half.astype(int) - picture.reshape(32, 2, 45, 2, 3).mean((1, 3))).max() < 1
    assert [len(reduced(picture, least)) for least in (64, 46, 45, 32)] == [1, 1, 2, 3]
    write(tmp_path / "a.png", picture)
    (source, _), *_ = load_batches([tmp_path], [], [], 32, CPU).sources
    assert isinstance(source, OwnRain) and source.clean.count == 3


def test_some_crops_are_dry_and_come_back_as_they_are() -> None:
    rainy, target = batches()(200, 16, random())
    dry = (rainy == target).flatten(1).all(1)
    assert 0.08 < dry.float().mean() < 0.3
    assert ((rainy - target)[~dry].mean((1, 2, 3)) > -0.05).all()


def test_masks_are_added_to_the_scene() -> None:
    mask = np.zeros((40, 40, 1), np.uint8)
    mask[:, ::4] = 200
    masked = MaskedRain(Pictures([np.full((40, 40, 3), 20, np.uint8)], CPU), Pictures([mask], CPU))
    rainy, target = masked(100, 16, random())
    stripes = (rainy - target).amax((1, 2, 3)) > 0.6  # the others are dimmed or dry
    assert 0.2 < stripes.float().mean() < 0.9


def test_some_scenes_are_dark_and_some_out_of_focus() -> None:
    picture = photo(64, 64)
    clean = torch.from_numpy(picture).permute(2, 0, 1).float().div(255).expand(800, -1, -1, -1)
    shown, dim = scenes(clean, random())
    unlike = (shown != clean).flatten(1).any(1)
    darker = shown.mean((1, 2, 3)) < 0.98 * clean[0].mean()
    detail = (shown[..., 1:] - shown[..., :-1]).abs().mean((1, 2, 3))
    soft = ~darker & (detail < 0.9 * (clean[0, ..., 1:] - clean[0, ..., :-1]).abs().mean())
    assert DARK - 0.05 < darker.float().mean() < DARK + 0.05
    assert 0.5 * SOFT < soft.float().mean() < 1.2 * SOFT
    assert DARK < unlike.float().mean() < DARK + 1.2 * SOFT
    assert ((dim < 1).flatten() <= darker).all() and (dim.flatten()[darker] < 1).all() and dim.min() > 0.1
    assert shown.min() >= 0 and shown.max() <= 1


def test_rain_is_dimmer_in_the_dark() -> None:
    grey, mask = np.full((40, 40, 3), 90, np.uint8), np.full((40, 40, 1), 255, np.uint8)
    rainy, target = MaskedRain(Pictures([grey], CPU), Pictures([mask], CPU))(400, 16, random())
    dark = target.mean((1, 2, 3)) < 80 / 255
    added = (rainy - target).mean((1, 2, 3))
    assert 40 < dark.sum() < 120
    assert added[dark].mean() < 0.75 * added[~dark].mean()


def test_masks_of_just_a_crops_size_do(tmp_path: Path) -> None:
    write(tmp_path / "clean" / "a.png", photo(32, 40))
    write(tmp_path / "masks" / "a.png", np.zeros((32, 33, 3), np.uint8))
    rainy, target = load_batches([tmp_path / "clean"], [Folder(tmp_path / "masks", 1.0)], [], 32, CPU)(20, 32, random())
    assert rainy.shape == target.shape == (20, 3, 32, 32)
    write(tmp_path / "masks" / "a.png", np.zeros((31, 33, 3), np.uint8))
    with pytest.raises(EsdnetError, match=r"a.png: is 33x31, smaller than 32 pixels"):
        load_batches([tmp_path / "clean"], [Folder(tmp_path / "masks", 1.0)], [], 32, CPU)


def test_sources_are_drawn_by_their_shares() -> None:
    def flat(value: float) -> Paired:
        return Paired(Pictures([np.full((20, 20, 6), round(255 * value), np.uint8)], CPU))

    mixed = Mixed([(flat(0), 0.2), (flat(1), 0.8)])
    generator = random()
    rainy = torch.cat([mixed(10, 16, generator)[0] for _ in range(50)])
    assert rainy.shape == (500, 3, 16, 16)
    assert 0.7 < rainy.mean() < 0.9


def test_folders_without_a_share_divide_what_is_left() -> None:
    a, b, half = Folder(Path("a")), Folder(Path("b")), Folder(Path("c"), 0.5)
    assert shares([a, b], own=False) == [0.5, 0.5]
    assert shares([a, half], own=False) == [0.5, 0.5]
    assert shares([a, b], own=True) == [0.375, 0.375]  # a quarter is left for rain of our own
    assert shares([a, half], own=True) == [0.25, 0.5]
    assert shares([half], own=True) == [0.5]
    for given, own in (([half], False), ([half, half, half], True), ([half, half, a], False)):
        with pytest.raises(EsdnetError, match="share"):
            shares(given, own)


def test_frozen_batch_norm_keeps_its_statistics_and_learns(tmp_path: Path) -> None:
    start = {name: tensor.clone() for name, tensor in tiny_network(LEAST).state_dict().items()}
    run = new_run(tmp_path / "run", replace(RECIPE, frozen_norm=True), initial=start)
    steps = list(run.train())
    ended, averaged = run.network.state_dict(), run.average.state_dict()
    statistics = [name for name in start if "running_" in name or "num_batches" in name]
    assert statistics and all(torch.equal(start[name], ended[name]) for name in statistics)
    assert all(torch.equal(start[name], averaged[name]) for name in statistics)
    assert not torch.equal(start["encoder_level1.0.residual.1.weight"], ended["encoder_level1.0.residual.1.weight"])
    assert len(steps) == 6
    with pytest.raises(EsdnetError, match="was started with frozen_norm True, not None"):
        new_run(tmp_path / "run", resume=True)


def test_a_teacher_is_shown_the_rainy_crops() -> None:
    shown: list[torch.Tensor] = []

    def teacher(crops: torch.Tensor) -> torch.Tensor:
        shown.append(crops)
        return 3 * crops - 1

    rainy, target, taught = Taught(batches(), teacher, at_once=2)(5, 16, random())
    assert [len(crops) for crops in shown] == [2, 2, 1]
    assert torch.equal(torch.cat(shown), rainy)
    assert torch.equal(taught, (3 * rainy - 1).clamp(0, 1))
    assert all(map(torch.equal, (rainy, target), batches()(5, 16, random()))), "the crops of a run without it"


def test_a_teacher_has_its_share_of_the_loss(tmp_path: Path) -> None:
    def losses(name: str, taught: Callable[[torch.Tensor], torch.Tensor] | None) -> list[float]:
        def crops(count: int, size: int, random: torch.Generator) -> tuple[torch.Tensor, ...]:
            rainy, target = batches()(count, size, random)
            return (rainy, target) if taught is None else (rainy, target, taught(target))

        (tmp_path / name).mkdir()
        return [event.loss for event in TrainingRun(RECIPE, crops, [], tmp_path / name, CPU).train()]

    alone = losses("alone", None)
    assert losses("by the truth", lambda target: target) == pytest.approx(alone, rel=1e-3)
    upside_down = losses("upside down", lambda target: 1 - target)
    assert all(loss > 1.2 * before for loss, before in zip(upside_down, alone))


@pytest.mark.parametrize("cooldown, last", [(0.25, 0.25), (0.0, 1.0), (1.0, 0.0625)])
def test_the_rate_stays_and_then_falls(cooldown: float, last: float, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", replace(RECIPE, steps=16, cooldown=cooldown, warmup=1))
    rates = [event.lr / RECIPE.lr for event in run.train()]
    assert rates[-1] == pytest.approx(last)
    steady = [rate for rate in rates if rate == 1]
    assert len(steady) == pytest.approx(16 * (1 - cooldown), abs=1)
    assert rates[-4:] == sorted(rates[-4:], reverse=True)


@pytest.mark.parametrize("halt", range(1, 18))
def test_batches_of_one_draw_go_on_wherever_a_run_stopped(halt: int) -> None:
    def ahead(seed: int) -> Ahead:
        numbers = Ahead(draw, 2, torch.Generator().manual_seed(seed))
        numbers._several = 8  # as on a CUDA device
        return numbers

    def draw(count: int, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        crops = torch.rand(count, generator=random)
        return crops, -crops

    def take(batches: Ahead, steps: int) -> list[list[float]]:
        taken = []
        for _ in range(steps):
            rainy, target = batches.take()
            assert torch.equal(rainy, -target)
            taken.append(rainy.tolist())
            batches.begin()
        return taken

    whole = take(ahead(1), 20)
    assert len({number for batch in whole for number in batch}) == 40
    halted = ahead(1)
    take(halted, halt)
    resumed = ahead(2)
    resumed.restore(halted.state, halt)
    assert torch.equal(resumed.state, halted.state)
    assert take(resumed, 20 - halt) == whole[halt:]


def test_pairs_are_cut_at_the_same_place() -> None:
    rainy = photo(30, 40)
    rainy, target = Paired(Pictures([np.dstack((rainy, 255 - rainy))], CPU))(20, 16, random())
    torch.testing.assert_close(rainy, 1 - target)


def test_what_pairs_may_not_be(tmp_path: Path) -> None:
    write(tmp_path / "input" / "a.png", photo(40, 30))
    (tmp_path / "target").mkdir()
    with pytest.raises(EsdnetError, match=r"input/a.png: has no target of that name"):
        read_pairs(tmp_path, 16)
    write(tmp_path / "target" / "a.png", photo(40, 32))
    with pytest.raises(EsdnetError, match=r"a.png is 30x40, .*a.png 32x40; both must be of one size"):
        read_pairs(tmp_path, 16)
    with pytest.raises(EsdnetError, match=r"is 30x40, smaller than 64 pixels; .*--crop"):
        read_pairs(tmp_path, 64)


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(EsdnetError, match=r"contains no pictures"):
        load_batches([tmp_path], [], [], 16, CPU)


def test_loss_is_zero_at_the_target_and_grows_away_from_it() -> None:
    target = torch.rand(2, 3, 16, 16)
    assert restoration_loss(target, target).abs() < 1e-6
    assert restoration_loss(target + 0.3, target) > restoration_loss(target + 0.05, target) > 0.04


def test_loss_minds_a_wrong_tone_more_than_as_much_noise() -> None:
    target = torch.rand(2, 3, 32, 32)
    noise = 0.05 * torch.ones(32, 32)
    noise[::2, ::2] = noise[1::2, 1::2] = -0.05

    def beyond_ssim(wrong: torch.Tensor) -> torch.Tensor:
        return restoration_loss(wrong, target) - (1 - ssim(wrong, target, 1.0))

    torch.testing.assert_close(beyond_ssim(target + noise), torch.tensor(2 * 0.05))
    torch.testing.assert_close(beyond_ssim(target - 0.05), torch.tensor(2 * 0.05 + 4 * 0.05))


def test_a_run_learns_and_leaves_checkpoints_that_load(tmp_path: Path) -> None:
    run = new_run(
        tmp_path / "run", replace(RECIPE, config=TINY, steps=40, lr=4e-3, batch=8), origin={"trained_on": "photo()"}
    )
    losses = [event.loss for event in run.train()]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    lines = [json.loads(line) for line in (run.folder / LOG).read_text().splitlines()]
    validated = [line for line in lines if "validation" in line]
    assert len(validated) == 10
    assert validated[-1]["step"] == 40 and validated[-1]["lr"] == pytest.approx(
        4e-3 / 10
    )  # the last tenth of a quarter
    for precision in LOWERED:
        changes = [line["validation"][f"{precision}_psnr_y_change"] for line in validated]
        assert all((change is None) != is_fast(precision, CPU) for change in changes)
    best = max(line["validation"]["psnr_y"] for line in validated)
    checkpoint = open_checkpoint(str(run.folder / BEST))
    assert json.loads(checkpoint.metadata["metrics"])["validation"]["psnr_y"] == pytest.approx(best, abs=1e-4)
    assert checkpoint.metadata["trained_on"] == "photo()"
    network = load_network(open_checkpoint(str(run.folder / LAST)))
    averaged = run.average.state_dict()
    assert all(torch.allclose(value, averaged[key], atol=1e-3) for key, value in network.state_dict().items())


def test_a_pair_that_comes_back_exactly_spoils_no_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = quality(photo(), photo())
    assert figures.psnr_y == math.inf
    monkeypatch.setattr(loop, "quality", lambda *_: figures)
    run = new_run(tmp_path / "run")
    list(run.train())

    def refused(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    for text in (run.folder / LOG).read_text().splitlines():
        json.loads(text, parse_constant=refused)
    metrics = json.loads(open_checkpoint(str(run.folder / BEST)).metadata["metrics"], parse_constant=refused)
    assert metrics["validation"]["psnr_y"] == run.best == 100


def test_a_stopped_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole = new_run(tmp_path / "whole")
    uninterrupted = [(event.loss, event.validation) for event in whole.train()]
    halted = new_run(tmp_path / "halted")
    steps = halted.train()
    for _ in range(3):  # a validation after each of so few steps, and so a state
        next(steps)
    steps.close()
    resumed = new_run(tmp_path / "halted", resume=True)
    assert resumed.step == 3
    assert [(event.loss, event.validation) for event in resumed.train()] == uninterrupted[3:]
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[key]), key
    for key, value in whole.average.state_dict().items():
        assert torch.equal(value, resumed.average.state_dict()[key]), key
    best, other = (load_file(tmp_path / folder / BEST) for folder in ("whole", "halted"))
    assert all(torch.equal(best[key], other[key]) for key in best)
    steps_logged = [json.loads(line)["step"] for line in (tmp_path / "halted" / LOG).read_text().splitlines()]
    assert steps_logged == [1, 2, 3, 4, 5, 6]


def test_what_was_logged_after_the_state_is_forgotten(tmp_path: Path) -> None:
    list(new_run(tmp_path / "run", replace(RECIPE, steps=2)).train())
    with (tmp_path / "run" / LOG).open("ab") as file:
        file.write(b'\0\0\xff{"step": 2}\n[]\n{}\n{"step": "2"}\n')  # a crash of the machine left this
        file.write(b'{"step": 3, "loss": 1}\n{"step": 4, "lo')  # killed here
    new_run(tmp_path / "run", replace(RECIPE, steps=2), resume=True)
    assert [json.loads(line)["step"] for line in (tmp_path / "run" / LOG).read_text().splitlines()] == [1, 2]


def test_resuming_otherwise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EsdnetError, match="nothing to resume"):
        new_run(tmp_path / "run", resume=True)
    list(new_run(tmp_path / "run", replace(RECIPE, steps=1)).train())
    with pytest.raises(EsdnetError, match=r"was started with lr 0.001, not 0.5"):
        new_run(tmp_path / "run", replace(RECIPE, steps=1, lr=0.5), resume=True)
    new_run(tmp_path / "run", replace(RECIPE, steps=1, data="1 pairs"), resume=True)  # as of older states
    (tmp_path / "run" / STATE).write_bytes(b"nonsense")
    with pytest.raises(EsdnetError, match="is not a training state"):
        new_run(tmp_path / "run", replace(RECIPE, steps=1), resume=True)


@pytest.mark.parametrize("name", ["network.output.0.bias", "average.output.0.bias", "optimiser.output.0.bias.exp_avg"])
def test_a_state_of_other_tensors_is_refused(name: str, tmp_path: Path) -> None:
    list(new_run(tmp_path, replace(RECIPE, steps=1)).train())
    with safe_open(tmp_path / STATE, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(tmp_path / STATE)
    del tensors[name]
    save_file(tensors, tmp_path / STATE, metadata)
    with pytest.raises(EsdnetError, match=r"has not the tensors of this .*output\.0\.bias.*; start a new run"):
        new_run(tmp_path, replace(RECIPE, steps=1), resume=True)


def test_minutes_end_a_run(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", replace(RECIPE, steps=None, minutes=0.02))
    events = list(run.train())
    assert events[-1].progress == 1 and 1.2 <= run.seconds < 30
    assert [event.step for event in events] == list(range(1, len(events) + 1))


def test_a_loss_that_is_no_number_stops_with_a_line(tmp_path: Path) -> None:
    with pytest.raises(EsdnetError, match=r"the loss became \w+ at step \d+; use a smaller --lr"):
        run = new_run(tmp_path / "run", replace(RECIPE, steps=60, lr=1e30, warmup=1, clip=1e30))
        list(run.train())


def test_bf16_autocast_trains_too(tmp_path: Path) -> None:
    events = list(new_run(tmp_path / "run", replace(RECIPE, steps=3, precision="bf16")).train())
    assert all(0 < event.loss < 3 for event in events)
    assert autocast_precision("fp32", CPU) == "fp32"


def test_a_step_compiled_for_a_cpu_is_in_fp32() -> None:
    assert autocast_precision("auto", CPU, compiled=True) == "fp32"
    with pytest.raises(EsdnetError, match="--compile: gets gradients in bf16 wrong on a CPU; use --precision fp32"):
        autocast_precision("bf16", CPU, compiled=True)


def test_a_run_goes_on_on_the_kind_of_device_that_it_began_on(tmp_path: Path) -> None:
    list(new_run(tmp_path, replace(RECIPE, steps=1)).train())
    state = tmp_path / STATE
    with safe_open(state, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(state)
    tensors["random.0"] = torch.zeros(16, dtype=torch.uint8)  # as of a CUDA generator
    save_file(tensors, state, metadata)
    with pytest.raises(EsdnetError, match="was started on another kind of device"):
        new_run(tmp_path, replace(RECIPE, steps=1), resume=True)


def test_out_of_memory_is_one_line(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", replace(RECIPE, batch=10**10))
    with pytest.raises(EsdnetError, match="out of memory in a training step; use a smaller --batch or --crop"):
        next(run.train())
