"""PSNR and SSIM against the formulas, written down a second time."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from conftest import photo
from numpy.typing import NDArray

from esdnet_cli.metrics import mean_quality, quality, ssim


def _luma(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    return rgb.astype(float) @ np.array([65.481, 128.553, 24.966]) / 255 + 16


def _psnr(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(20 * np.log10(255 / np.sqrt(np.mean((a - b) ** 2))))


def _ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The usual scorer of deraining papers, through OpenCV."""
    kernel = cv2.getGaussianKernel(11, 1.5)
    window = np.outer(kernel, kernel)

    def blur(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return cv2.filter2D(x, -1, window)[5:-5, 5:-5]

    mu_a, mu_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mu_a**2, blur(b * b) - mu_b**2, blur(a * b) - mu_a * mu_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(np.mean((2 * mu_a * mu_b + c1) * (2 * cov + c2) / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2))))


@pytest.fixture
def pair() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    target = photo(300, 290)  # wider than one block of the scorer
    noise = np.random.default_rng(1).normal(0, 12, target.shape)
    return np.clip(target + noise, 0, 255).astype(np.uint8), target


def test_figures_are_those_of_the_formulas(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    image, target = pair
    found = quality(image, target)
    y, y_target = _luma(image), _luma(target)
    assert found.psnr_y == pytest.approx(_psnr(y.round(), y_target.round()), abs=1e-5)
    assert found.ssim_y == pytest.approx(_ssim(y.round(), y_target.round()), abs=1e-5)
    cropped = (slice(4, -4), slice(4, -4))
    assert found.psnr_y_published == pytest.approx(_psnr(y[cropped], y_target[cropped]), abs=1e-5)
    assert found.ssim_y_published == pytest.approx(_ssim(y[cropped], y_target[cropped]), abs=1e-5)
    assert found.psnr_rgb == pytest.approx(_psnr(image.astype(float), target.astype(float)), abs=1e-5)
    channels = [_ssim(image[..., c].astype(float), target[..., c].astype(float)) for c in range(3)]
    assert found.ssim_rgb == pytest.approx(np.mean(channels), abs=1e-5)
    assert 20 < found.psnr_y < 35 and 0.2 < found.ssim_y < 0.99


def test_a_known_difference() -> None:
    grey = np.full((32, 40, 3), 100, np.uint8)
    assert quality(grey + 10, grey).psnr_rgb == pytest.approx(20 * np.log10(25.5))


def test_equal_pictures_have_no_error() -> None:
    picture = photo(30, 30)
    assert quality(picture, picture).psnr_y == float("inf")
    assert quality(picture, picture).ssim_y == pytest.approx(1)


def test_sizes_must_agree_and_suffice_for_the_window() -> None:
    with pytest.raises(ValueError, match=r"is 40x30, its target 30x40"):
        quality(photo(30, 40), photo(40, 30))
    with pytest.raises(ValueError, match="smaller than 11 pixels"):
        quality(photo(10, 40), photo(10, 40))


@pytest.mark.parametrize("height, cropped", [(11, 0), (12, 0), (16, 2), (19, 4), (40, 4)])
def test_the_published_crop_leaves_what_the_window_needs(height: int, cropped: int) -> None:
    target = photo(height, 40)
    ring = target.copy()
    ring[:cropped], ring[height - cropped :], ring[:, :4], ring[:, 36:] = 0, 0, 0, 0
    assert quality(ring, target).psnr_y_published == float("inf")
    ring[cropped] ^= 255
    assert quality(ring, target).psnr_y_published < 40
    assert 0 < quality(ring, target).ssim_y < 1


def test_mean_is_that_of_each_figure() -> None:
    target = np.full((20, 20, 3), 100, np.uint8)
    one, two = quality(target + 1, target), quality(target + 10, target)
    mean = mean_quality([one, two])
    assert mean is not None
    assert mean.psnr_y == pytest.approx((one.psnr_y + two.psnr_y) / 2)
    assert mean_quality([]) is None


def test_ssim_has_a_gradient() -> None:
    image = torch.rand(2, 3, 16, 20, dtype=torch.float64, requires_grad=True)
    target = torch.rand(2, 3, 16, 20, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: ssim(x, target, 1.0), (image,))
