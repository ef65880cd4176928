"""PSNR and SSIM as deraining papers report them; SSIM doubles as the training loss.

Convention (`y`): both pictures in 8 bits, luma as MATLAB's rgb2ycbcr gives it for them, that is rounded to 8 bits,
whole picture. `y_published`: luma not rounded, 4 pixels cropped at each border, as the published code scores (fewer
where less than SSIM's window would be left).
SSIM: 11x11 Gaussian window, sigma 1.5, valid region (Wang et al., IEEE TIP 2004).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03
CROP = 4  # of the published code's convention
SMALLEST = WINDOW  # the least side that every figure is defined for
BLOCK = 256  # pixels of the valid region computed at once
_LUMA = (65.481, 128.553, 24.966)  # ITU-R BT.601, footroom 16


@dataclass(frozen=True)
class Quality:
    """How near a picture is to its target: PSNR in dB (infinite if equal), SSIM up to 1."""

    psnr_y: float
    ssim_y: float
    psnr_y_published: float
    ssim_y_published: float
    psnr_rgb: float
    ssim_rgb: float


def quality(image: NDArray[Any], target: NDArray[Any]) -> Quality:
    """Compare two RGB pictures, uint8 [H, W, 3].

    Raises ValueError if their sizes differ or a side is below SMALLEST.
    """
    if image.shape != target.shape:
        (h, w), (th, tw) = image.shape[:2], target.shape[:2]
        raise ValueError(f"is {w}x{h}, its target {tw}x{th}; both must be of one size")
    if min(image.shape[:2]) < SMALLEST:
        raise ValueError(f"is smaller than {SMALLEST} pixels; SSIM needs more")
    pair = torch.from_numpy(np.stack((image, target))).double().movedim(-1, 1)  # [2, 3, H, W]
    y = luma(pair)
    rows, columns = (min(CROP, (side - WINDOW) // 2) for side in y.shape[-2:])
    inner = y[..., rows : y.shape[-2] - rows, columns : y.shape[-1] - columns]
    return Quality(*_figures(y.round()), *_figures(inner), *_figures(pair))


@dataclass(frozen=True)
class SpikeRain:
    """Pearson's correlation of firing rates with the true rain over a picture's places: of the mean of all
    levels' rates, and of each level.

    None where it is not defined: no rain, or a level that fires alike everywhere or has no neurons.
    """

    spike_rain_r: float | None
    spike_rain_r_level1: float | None
    spike_rain_r_level2: float | None
    spike_rain_r_level3: float | None


def spike_rain(spike_map: NDArray[np.float16], rainy: NDArray[Any], target: NDArray[Any]) -> SpikeRain:
    """Hold firing rates [H, W, levels] against the rain: the mean over channels of rainy - target, uint8 [H, W, 3]."""
    rain = (rainy.astype(np.float32) - target).mean(2)
    rates = spike_map.astype(np.float32)
    by_level = [_correlation(level, rain) for level in np.moveaxis(rates, 2, 0)]
    absent = [None] * (len(fields(SpikeRain)) - 1 - len(by_level))
    return SpikeRain(_correlation(rates.mean(2), rain), *by_level, *absent)


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float | None:
    if a.min() == a.max() or b.min() == b.max():  # by its rounding a deviation of equal numbers may not be 0
        return None
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def mean_spike_rain(values: Sequence[SpikeRain]) -> SpikeRain | None:
    """Each figure's mean over the pictures that have it; None of none."""
    if not values:
        return None
    columns = ([value for value in column if value is not None] for column in zip(*map(astuple, values)))
    return SpikeRain(*(sum(column) / len(column) if column else None for column in columns))


def mean_quality(qualities: Sequence[Quality]) -> Quality | None:
    """Each figure's mean over pictures, as papers report it; None of none."""
    if not qualities:
        return None
    return Quality(*(sum(column) / len(qualities) for column in zip(*map(astuple, qualities))))


def luma(rgb: Tensor) -> Tensor:
    """Y of [N, 3, H, W] in 0..255 -> [N, 1, H, W] in 16..235, not rounded."""
    weights = torch.tensor(_LUMA, dtype=rgb.dtype, device=rgb.device) / 255
    return torch.einsum("nchw,c->nhw", rgb, weights)[:, None] + 16


def psnr(image: Tensor, target: Tensor, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal tensors."""
    mse = float((image - target).square().mean())
    return float("inf") if mse == 0 else float(10 * np.log10(peak**2 / mse))


def ssim(image: Tensor, target: Tensor, peak: float) -> Tensor:
    """Mean structural similarity of [N, C, H, W], over the window's valid region and all channels; differentiable.

    For crops and blocks: the blur is a product with a band matrix, far faster there than a convolution of one channel.
    """
    planes = torch.stack((image, target, image * image, target * target, image * target))
    mu_x, mu_y, xx, yy, xy = _band(image.shape[-2], image) @ planes @ _band(image.shape[-1], image).T
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    var_x, var_y, cov = xx - mu_x * mu_x, yy - mu_y * mu_y, xy - mu_x * mu_y
    similarity = (2 * mu_x * mu_y + c1) * (2 * cov + c2)
    return (similarity / ((mu_x * mu_x + mu_y * mu_y + c1) * (var_x + var_y + c2))).mean()


def _band(size: int, like: Tensor) -> Tensor:
    """[size - 10, size]: each row the Gaussian window, one step further."""
    offsets = torch.arange(size, dtype=like.dtype, device=like.device)[None] - torch.arange(
        WINDOW // 2, size - WINDOW // 2, dtype=like.dtype, device=like.device
    ).unsqueeze(1)
    gauss = torch.exp(-offsets.square() / (2 * SIGMA**2)) * (offsets.abs() <= WINDOW // 2)
    return gauss / gauss.sum(1, keepdim=True)


def _figures(pair: Tensor) -> tuple[float, float]:
    """PSNR and SSIM of pair[0] against pair[1], block by block: memory stays small whatever the picture."""
    height, width = (size - WINDOW + 1 for size in pair.shape[-2:])
    total = 0.0
    for top in range(0, height, BLOCK):
        for left in range(0, width, BLOCK):
            block = pair[..., top : top + BLOCK + WINDOW - 1, left : left + BLOCK + WINDOW - 1]
            valid = (block.shape[-2] - WINDOW + 1) * (block.shape[-1] - WINDOW + 1)
            total += float(ssim(block[:1], block[1:], 255.0)) * valid
    return psnr(pair[:1], pair[1:]), total / (height * width)
