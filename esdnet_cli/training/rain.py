"""Synthetic rain: what a camera sees of falling drops, drawn for a whole batch at once on its device.

Additive grey streaks (as in Rain100H; Yang et al., CVPR 2017): drops of random brightness, blurred along the direction
of fall, in layers from far (short, faint, many) to near (long, bright, few); then mist, sensor noise and JPEG.
Everything random comes from one torch.Generator: the same seed gives the same rain on the same kind of device.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Strength = Literal["light", "medium", "heavy", "mixed"]
_RANGES = {"light": (0.05, 0.3), "medium": (0.3, 0.6), "heavy": (0.6, 1.0), "mixed": (0.05, 1.0)}

_LAYERS = 4  # far to near
_SORTS = 5  # of drops of one kind
_LONGEST = 64  # pixels that a streak needs around a crop for its ends to lie outside
_LUMINANCE = [  # JPEG's example quantisation table (ITU-T T.81, annex K.1)
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
]  # fmt: skip
_TO_YCC = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]  # JFIF


def streak_layers(
    count: int, height: int, width: int, strength: Strength, random: torch.Generator, scale: float = 1.0
) -> Tensor:
    """Streaks for `count` pictures, float32 [count, 1, height, width] from 0, on the generator's device.

    scale: how much larger than a picture of some 400 pixels the streaks should be.
    """
    severity = _uniform(random, count, 1, between=_RANGES[strength])
    depth = torch.linspace(0, 1, _LAYERS, device=random.device)[None]  # 0: far, 1: near
    length = (6 + 14 * depth + _uniform(random, count, _LAYERS, between=(0, 60)) * severity * (0.3 + depth)) * scale
    thickness = (0.45 + 0.6 * depth * _uniform(random, count, _LAYERS, between=(0.3, 1.5))) * scale
    lean = torch.randn(count, 1, generator=random, device=random.device).clamp(-2.2, 2.2) * 14
    spread = _uniform(random, count, 1, between=(0.5, 7))  # degrees between the layers: gusts
    angle = torch.deg2rad(lean + spread * torch.randn(count, _LAYERS, generator=random, device=random.device))
    cover = severity**1.5 * _uniform(random, count, _LAYERS, between=(0.1, 1.0)) * (1.4 - depth)
    bright = (0.15 + 0.5 * depth) * _uniform(random, count, _LAYERS, between=(0.4, 1.3)) * (0.55 + 0.45 * severity)
    around = min(math.ceil(_LONGEST * scale), max(height, width))
    tall, wide = height + around, width + around
    rows, columns = (_centred(size, random.device) for size in (tall, wide))
    rain = torch.zeros(count, tall, wide, device=random.device)
    for layer in range(_LAYERS):  # one by one: a photograph of 12 megapixels is a large FFT
        long, thick, tilt = (values[:, layer, None, None] for values in (length, thickness, angle))
        along = rows[:, None] * torch.cos(tilt) + columns[None] * torch.sin(tilt)
        across = columns[None] * torch.cos(tilt) - rows[:, None] * torch.sin(tilt)
        streak = ((2 * long - 4 * along.abs()) / long).clamp(0, 1) * torch.exp(-across.square() / (2 * thick**2))
        share = (cover[:, layer] / (length[:, layer] * 2.5 * thickness[:, layer]))[:, None, None]
        falling = torch.rand(count, tall, wide, generator=random, device=random.device) < share
        drops = falling * torch.rand(count, tall, wide, generator=random, device=random.device).square().add(0.15)
        # the picture is a ring here: what leaves it at the foot comes in at the top
        fallen = torch.fft.irfft2(torch.fft.rfft2(drops) * torch.fft.rfft2(streak), s=(tall, wide))
        rain += fallen.clamp(0, 1.2) * bright[:, layer, None, None]
    return rain[:, None, :height, :width]


def camera_rain(count: int, height: int, width: int, random: torch.Generator, scale: float = 1.0) -> Tensor:
    """Streaks as photographs show them and no set of masks does; as `streak_layers`, [count, 1, height, width].

    Two kinds: anything from sharp dashes and specks to broad, pale drops out of focus near the lens, from a few to a
    sheet of them. Those of a kind are alike, or more or less different, as drops at all distances are: what learns from
    streaks that are all alike takes for rain only what is.
    """
    device = random.device
    tilt = torch.randn(count, 1, 1, generator=random, device=device).clamp(-2.2, 2.2) * 16
    variety = _uniform(random, count, 1, 1, between=(-0.3, 1.0)).clamp(min=0)
    around = min(math.ceil(_LONGEST * scale), max(height, width))
    tall, wide = height + around, width + around
    rows, columns = _centred(tall, device)[:, None], _centred(wide, device)
    rain = torch.zeros(count, tall, wide, device=device)
    for _ in range(2):
        usual_thickness = _log_uniform(random, count, 1, 1, between=(0.45, 5.0))
        usual_length = _log_uniform(random, count, 1, 1, between=(1.5, 64.0))
        usual_angle = tilt + 4 * torch.randn(count, 1, 1, generator=random, device=device)
        cover = _log_uniform(random, count, 1, 1, between=(0.01, 0.5)) / _SORTS
        brightest = _uniform(random, count, 1, 1, between=(0.15, 1.0))
        # light is spread over what a drop covers: what is out of focus is pale, unless a lamp or a flash is near
        paler = _uniform(random, count, 1, 1, between=(0.0, 0.9))
        for _ in range(_SORTS):
            longer, thicker, turned, brighter = (
                variety * torch.randn(count, 1, 1, generator=random, device=device) for _ in range(4)
            )
            thickness = (usual_thickness * (0.6 * thicker).exp()).clamp(0.4, 8)
            length = thickness + (usual_length * (0.6 * longer).exp()).clamp(1, _LONGEST)
            angle = torch.deg2rad(usual_angle + 8 * turned)
            bright = brightest * (0.4 * brighter).exp() * (1.2 / thickness).clamp(max=1) ** paler
            thickness, length = thickness * scale, length * scale
            softness = thickness * _uniform(random, count, 1, 1, between=(0.2, 0.8))
            along = rows * torch.cos(angle) + columns * torch.sin(angle)
            across = columns * torch.cos(angle) - rows * torch.sin(angle)
            # a disc of confusion drawn out along the fall: flat inside, soft at the edge
            ends = torch.sigmoid((length / 2 - along.abs()) / softness)
            streak = ends * torch.sigmoid((thickness / 2 - across.abs()) / (softness / 2))
            share = cover / streak.sum((1, 2), keepdim=True).clamp(min=1)
            falling = torch.rand(count, tall, wide, generator=random, device=device) < share
            drops = falling * (0.3 + torch.rand(count, tall, wide, generator=random, device=device))
            fallen = torch.fft.irfft2(torch.fft.rfft2(drops) * torch.fft.rfft2(streak), s=(tall, wide))
            rain += fallen.clamp(0, 1.2) * bright
    return rain[:, None, :height, :width]


def nearer(streaks: Tensor, share: float, most: float, random: torch.Generator) -> Tensor:
    """`streaks` [N, C, H, W] as they are, or, for `share` of them, a part of them enlarged up to `most` times.

    A photograph of more pixels, or rain close to the lens, has larger streaks than any set of masks.
    """
    count, device = streaks.shape[0], random.device
    times = _log_uniform(random, count, between=(1.0, most))
    near = torch.rand(count, generator=random, device=device) < share
    centre = _uniform(random, count, 2, between=(-1.0, 1.0)) * (1 - 1 / times)[:, None]
    affine = torch.diag_embed((1 / times)[:, None].expand(-1, 2))
    grid = F.affine_grid(torch.cat((affine, centre[..., None]), 2), list(streaks.shape), align_corners=False)
    # bilinear: what is near is soft
    larger = F.grid_sample(streaks, grid, align_corners=False, padding_mode="reflection")
    return torch.where(near.view(-1, 1, 1, 1), larger, streaks)


def light(clean: Tensor, random: torch.Generator) -> Tensor:
    """What falling drops look like before a dark ground, [N, 3, H, W]: they gather the light of the scene [N, 3, H, W].

    White or grey light, that of the scene's lamps and bright places, or that of what is around.
    """
    count, _, height, width = clean.shape
    brightness = clean.amax(1, keepdim=True) ** 4 + 1e-3
    lamps = (clean * brightness).mean((2, 3), keepdim=True)
    lamps = lamps / lamps.amax(1, keepdim=True).clamp(min=1e-6)
    colour = torch.rand(count, 1, 1, 1, generator=random, device=clean.device)
    level = _uniform(random, count, 1, 1, 1, between=(0.5, 1.0))
    overall = level * (1 + colour * (lamps - 1))
    around = F.interpolate(F.adaptive_avg_pool2d(clean, 4), (height, width), mode="bilinear", align_corners=False)
    around = (around * _uniform(random, count, 1, 1, 1, between=(1.0, 2.5)) + 0.15).clamp(max=1)
    kind = torch.rand(count, 1, 1, 1, generator=random, device=clean.device)
    return torch.where(kind < 0.35, level, torch.where(kind < 0.7, overall, around))


def mist(images: Tensor, severity: Tensor, random: torch.Generator) -> Tensor:
    """Veil [N, 3, H, W] in [0, 1] with uneven grey light, up to severity [N] of it."""
    count, _, height, width = images.shape
    clouds = torch.rand(count, 1, 4, 4, generator=random, device=random.device)
    clouds = F.interpolate(clouds, (height, width), mode="bilinear", align_corners=False) * severity.view(-1, 1, 1, 1)
    grey = _uniform(random, count, 1, 1, 1, between=(0.6, 0.95))
    return images + clouds * (grey - images)


def sensor_noise(like: Tensor, random: torch.Generator) -> Tensor:
    """Gaussian noise of a standard deviation up to 3 levels of 255, drawn for each picture of [N, 3, H, W]."""
    deviation = _uniform(random, like.shape[0], 1, 1, 1, between=(0, 3 / 255))
    return torch.randn(like.shape, generator=random, device=random.device) * deviation


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """What JPEG leaves of [N, 3, H, W] in [0, 1] at quality [N] of 1 to 100 (colour at full resolution)."""
    height, width = images.shape[-2:]
    padded = F.pad(images, (0, -width % 8, 0, -height % 8), mode="replicate")
    ycc = torch.einsum("nchw,dc->ndhw", padded * 255, images.new_tensor(_TO_YCC))
    ycc[:, 0] -= 128
    basis = _dct_basis(images)
    blocks = ycc.unfold(2, 8, 8).unfold(3, 8, 8)  # [N, 3, H/8, W/8, 8, 8]
    percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality).view(-1, 1, 1)
    table = (images.new_tensor(_LUMINANCE) * percent / 100).round().clamp(1, 255)[:, None, None, None]
    steps = basis @ blocks @ basis.T / table
    # ties away from zero, as codecs take them, and within what float32 may be off: not by the processor's rounding
    quantised = torch.copysign((steps.abs() + (0.5 + 1e-4)).floor(), steps)
    blocks = basis.T @ (quantised * table) @ basis
    ycc = blocks.transpose(3, 4).reshape(padded.shape)
    ycc[:, 0] += 128
    rgb = torch.einsum("nchw,dc->ndhw", ycc, torch.linalg.inv(images.new_tensor(_TO_YCC))) / 255
    return rgb[..., :height, :width].clamp(0, 1)


def photograph(clean: Tensor, streaks: Tensor, veil: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """(rainy, dry): one scene [N, 3, H, W] in [0, 1] taken twice by one camera, with and without the rain.

    streaks: what the rain adds, [N, 1 or 3, H, W], 0 for a dry scene; veil: [N], the most that mist may cover. Both
    pictures have the same noise and the same JPEG quality: they differ by rain alone, and a network learns to leave
    noise and texture be.
    """
    count = clean.shape[0]
    noise = sensor_noise(clean, random)
    rainy = (mist(clean, veil, random) + streaks + noise).clamp(0, 1)
    both = torch.cat((rainy, (clean + noise).clamp(0, 1)))
    compressed = _uniform(random, count, between=(0, 1)) < 0.3
    quality = _uniform(random, count, between=(55, 95)).round()
    chosen = torch.cat((compressed, compressed))
    if bool(compressed.any()):
        both = torch.where(chosen.view(-1, 1, 1, 1), jpeg(both, torch.cat((quality, quality))), both)
    return both[:count], both[count:]


def _uniform(random: torch.Generator, *shape: int, between: tuple[float, float]) -> Tensor:
    low, high = between
    return torch.rand(shape, generator=random, device=random.device) * (high - low) + low


def _log_uniform(random: torch.Generator, *shape: int, between: tuple[float, float]) -> Tensor:
    low, high = between
    return _uniform(random, *shape, between=(math.log(low), math.log(high))).exp()


def _centred(size: int, device: torch.device) -> Tensor:
    """0, 1, 2, ..., -2, -1: where FFT puts a kernel's coordinates."""
    return torch.fft.fftfreq(size, 1 / size, device=device)


def _dct_basis(like: Tensor) -> Tensor:
    """Orthonormal DCT-II of 8 points, [frequency, position]."""
    k = torch.arange(8, dtype=like.dtype, device=like.device)
    basis = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) / 2
    basis[0] /= 2**0.5
    return basis
