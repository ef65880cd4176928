"""Synthetic rain: seeded, additive, grey, as heavy as asked for."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from conftest import photo

from esdnet_cli.training import rain
from esdnet_cli.training.rain import camera_rain, jpeg, light, nearer, photograph, streak_layers


def random(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_same_seed_gives_the_same_rain() -> None:
    one, two, other = (streak_layers(2, 48, 60, "mixed", random(seed)) for seed in (1, 1, 2))
    assert one.shape == (2, 1, 48, 60)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_heavier_rain_is_brighter_and_covers_more() -> None:
    light, medium, heavy = (streak_layers(24, 96, 96, strength, random()) for strength in ("light", "medium", "heavy"))
    assert 0 < light.mean() < medium.mean() < heavy.mean()
    assert (light > 0.1).float().mean() < 0.5 * (heavy > 0.1).float().mean()
    assert light.min() > -1e-5, "rain only adds light"


def test_streaks_run_downwards() -> None:
    rain = streak_layers(32, 96, 96, "heavy", random())
    along = (rain[..., 2:, :] - rain[..., :-2, :]).abs().mean()
    across = (rain[..., :, 2:] - rain[..., :, :-2]).abs().mean()
    assert across > 1.5 * along


@pytest.mark.parametrize("kind", ["streaks", "camera"])
def test_larger_pictures_can_have_larger_streaks(kind: str) -> None:
    def sharpness(scale: float) -> float:
        if kind == "camera":
            rain = camera_rain(16, 128, 128, random(), scale)
        else:
            rain = streak_layers(8, 128, 128, "heavy", random(), scale)
        return float((rain[..., 1:] - rain[..., :-1]).abs().mean() / rain.mean())

    assert sharpness(4) < 0.5 * sharpness(1)


def test_rain_of_photographs_has_all_widths() -> None:
    rain = camera_rain(32, 96, 96, random())
    assert torch.equal(rain, camera_rain(32, 96, 96, random()))
    assert rain.min() > -1e-4, "rain only adds light"
    sharpness = (rain[..., 1:] - rain[..., :-1]).abs().mean((1, 2, 3)) / rain.mean((1, 2, 3)).clamp(min=1e-3)
    assert sharpness.max() > 5 * sharpness.min()


def test_drops_of_a_kind_are_more_or_less_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = {"thickness": (0.45, 5.0), "length": (1.5, 64.0), "cover": (0.01, 0.5)}
    drawn = dict(zip(usual.values(), (1.5, 12.0, 0.01)))  # both kinds alike, so that the sorts alone differ
    monkeypatch.setattr(rain, "_log_uniform", lambda random, *shape, between: torch.full(shape, drawn[between]))
    uniform = rain._uniform

    def spread(variety: float) -> float:
        """Of the drops' areas, on a logarithmic scale."""
        with monkeypatch.context() as patch:
            patch.setattr(
                rain,
                "_uniform",
                lambda random, *shape, between: (
                    torch.full(shape, variety) if between == (-0.3, 1.0) else uniform(random, *shape, between=between)
                ),
            )
            layers = camera_rain(4, 160, 160, random())
        areas = [
            cv2.connectedComponentsWithStats((layer > 0.3 * layer.max()).astype(np.uint8))[2][1:, cv2.CC_STAT_AREA]
            for layer in layers[:, 0].numpy()
        ]
        return float(np.std(np.log(np.concatenate(areas))))

    assert spread(0.9) > 1.25 * spread(0.0)


def test_nearer_rain_is_larger() -> None:
    fine = torch.zeros(64, 1, 48, 48)
    fine[..., 4::8] = 1.0  # a stripe every 8 pixels
    assert torch.equal(nearer(fine, 0.0, 3.0, random()), fine)
    rain = nearer(fine, 0.5, 3.0, random())
    assert torch.equal(rain, nearer(fine, 0.5, 3.0, random()))
    assert rain.min() >= 0 and rain.max() <= 1
    as_they_were = (rain - fine).abs().amax((1, 2, 3)) < 1e-4
    assert 0.3 < as_they_were.float().mean() < 0.7
    stripes = ((rain[..., 24, 1:] > 0.5) & (rain[..., 24, :-1] <= 0.5)).sum(-1).flatten()
    assert (stripes[~as_they_were] <= 6).all() and stripes[~as_they_were].min() <= 3, "2 to 6 of 6, each as much wider"
    assert len({row.argmax().item() for row in rain[~as_they_were, 0, 24]}) > 4, "anywhere in the layer"


def test_drops_gather_the_light_of_the_scene() -> None:
    night = torch.full((64, 3, 32, 32), 0.02)
    night[:, :, 4:12, 4:12] = torch.tensor([1.0, 0.6, 0.1]).view(3, 1, 1)  # an orange lamp
    colours = light(night, random())
    assert colours.min() >= 0 and colours.max() <= 1
    red, _, blue = colours.mean((2, 3)).unbind(1)
    assert (red == blue).any(), "some rain is lit by grey light"
    assert (red > 1.5 * blue).sum() > 10
    near, far = colours[:, 0, 8, 8], colours[:, 0, 31, 31]
    assert (near > 2 * far).sum() > 10, "some rain by what is around it"


def test_pictures_of_a_pair_differ_by_rain_alone() -> None:
    clean = torch.linspace(0.2, 0.7, 40).expand(4, 3, 32, 40)
    nothing = torch.zeros(4, 1, 32, 40)
    rainy, dry = photograph(clean, nothing, torch.zeros(4), random())
    assert torch.equal(rainy, dry), "a dry scene comes back as it is, with its noise"
    assert 0 < (dry - clean).abs().mean() < 0.02
    rain = streak_layers(4, 32, 40, "heavy", random())
    rainy, dry = photograph(clean, rain, torch.zeros(4), random())
    assert rainy.min() >= 0 and rainy.max() <= 1
    assert ((rainy - dry).mean((1, 2, 3)) > 0.01).all()


def test_veil_draws_towards_grey() -> None:
    black = torch.zeros(8, 3, 32, 32)
    rainy, _ = photograph(black, torch.zeros(8, 1, 32, 32), torch.full((8,), 0.2), random())
    assert ((rainy.mean((1, 2, 3)) > 0.02) & (rainy.mean((1, 2, 3)) < 0.2)).all()


@pytest.mark.parametrize("quality", [30, 60, 90])
def test_jpeg_is_what_a_codec_does(quality: int) -> None:
    """Against libjpeg on a grey picture, where colour tables play no part; 20x27 is no multiple of the block."""
    grey = photo(20, 27)[..., 0]
    picture = np.repeat(grey[..., None], 3, axis=2)
    _, data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])
    theirs = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE).astype(float)
    ours = jpeg(torch.from_numpy(picture).movedim(-1, 0)[None].float() / 255, torch.tensor([float(quality)]))
    difference = np.abs(ours[0, 0].numpy() * 255 - theirs)
    assert difference[:16, :24].mean() < 0.6, "whole blocks agree up to rounding"
    assert np.abs(theirs - grey).mean() > 0.5, "the codec did something"
