"""Similarity of data: squared error, PSNR, SSIM, power spectra."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import ChoiceError
from vaekit.utils.formerly import formerly

from .measurement import Measurement, reconstructions
from .needs import COMPLETE, IMAGES, NUMERIC
from .registry import Result, metric

Array = NDArray[Any]
WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03
BEST = 100.0
"""The PSNR of a picture that is reconstructed without error, in dB."""


def _pair(a: Array, b: Array) -> tuple[Array, Array]:
    if a.shape != b.shape or a.ndim != 4:
        raise ChoiceError(f"two arrays (N, C, H, W) of the same shape are needed, got {a.shape} and {b.shape}")
    return np.asarray(a, float), np.asarray(b, float)


def psnr(clean: Array, other: Array, span: float) -> Array:
    """Peak signal-to-noise ratio 10 log10(span^2 / mean squared error) in dB, (N,); infinite for identical images.

    Arguments:
        span: the difference between white and black, in the units of the images.
    """
    a, b = _pair(clean, other)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(span**2 / ((a - b) ** 2).mean((1, 2, 3)))


def ssim(clean: Array, other: Array, span: float) -> Array:
    """Structural similarity (Wang et al. 2004), (N,): 1 for identical images.

    It is the mean over pixels and channels. Gaussian windows have 11 pixels, or the largest odd size that fits into a
    smaller image, and standard deviation 1.5; they lie entirely inside the image.

    Arguments:
        clean, other: (N, C, H, W).
        span: the difference between white and black, in the units of the images.
    """
    a, b = _pair(clean, other)
    side = min(WINDOW, *(s - 1 + s % 2 for s in a.shape[2:]))
    weights = np.exp(-0.5 * ((np.arange(side) - side // 2) / SIGMA) ** 2)
    weights /= weights.sum()

    def blurred(x: Array) -> Array:
        for axis in (2, 3):
            x = np.lib.stride_tricks.sliding_window_view(x, side, axis) @ weights
        return x

    c1, c2 = (K1 * span) ** 2, (K2 * span) ** 2
    mean_a, mean_b = blurred(a), blurred(b)
    var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    both = blurred(a * b) - mean_a * mean_b
    similarity = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return similarity.mean((1, 2, 3))


@formerly("side")
def median_filter(images: Array, *, side: int = 3) -> Array:
    """Replace each pixel by the median of the square around it, with edges repeated: (N, C, H, W) -> (N, C, H, W).

    Raises:
        ChoiceError: `side`, in pixels, is not an odd number.
    """
    if side < 1 or side % 2 == 0:
        raise ChoiceError(f"the side of a median filter is an odd number of pixels, got {side}")
    padded = np.pad(images, ((0, 0), (0, 0), (side // 2,) * 2, (side // 2,) * 2), "edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, (side, side), (2, 3)), (4, 5))


def radial_power(images: Array) -> tuple[Array, Array]:
    """Spatial frequencies (F,) in cycles per pixel, and the power (N, F) at each, averaged over direction and channels.

    Power is |FFT|^2 / (H W)^2 of an image minus its mean, so that its sum over all frequencies of the plane is the
    variance. Rings are as wide as one frequency step of the shorter side, up to half a cycle per pixel.
    """
    x = np.asarray(images, float)
    if x.ndim != 4:
        raise ChoiceError(f"images (N, C, H, W) are needed, got {x.shape}")
    height, width = x.shape[2:]
    power = np.abs(np.fft.fft2(x - x.mean((2, 3), keepdims=True)) / (height * width)) ** 2
    across, down = np.fft.fftfreq(width), np.fft.fftfreq(height)
    radius = np.hypot(across, down[:, None])
    side = min(height, width)
    ring = np.round(radius * side).astype(int)
    rings = np.arange(1, side // 2 + 1)
    return rings / side, np.stack([power[:, :, ring == r].mean((1, 2)) for r in rings], 1)


def _span(m: Measurement) -> float:
    """The difference between white and black, in raw units."""
    low, high = m.run.spec.scale
    return float(high - low)


def _of_pairs(m: Measurement, compare: Callable[[Array, Array], Array]) -> Array:
    """One number per datum from the datum and its reconstruction, (n,)."""
    return np.concatenate([compare(raw, rebuilt) for raw, rebuilt in reconstructions(m)])


REBUILT = "raw data and means of p(x|z) at the posterior mean"


@metric("mse", "squared units of the data", needs=[NUMERIC], better="lower", label="Mean squared error")
def mse(m: Measurement) -> Result:
    """Squared error of reconstructions, averaged over the elements of a datum; images are scaled to 0..1."""
    image = m.run.spec.kind == "image"
    scale = _span(m) if image else 1.0

    def error(raw: Array, rebuilt: Array) -> Array:
        square = ((np.asarray(raw, float) - rebuilt) / scale) ** 2
        return np.nanmean(square.reshape(len(square), -1), 1)

    unit = "squared, of the range" if image else "squared units of the data"
    return Result(REBUILT, per_datum=_of_pairs(m, error), unit=unit)


@metric("psnr", "dB", needs=[IMAGES, COMPLETE], better="higher", label="PSNR")
def reconstruction_psnr(m: Measurement) -> Result:
    """Peak signal-to-noise ratio of reconstructions, at most 100 dB per image."""
    values = _of_pairs(m, lambda raw, rebuilt: np.minimum(psnr(raw, rebuilt, _span(m)), BEST))
    return Result(f"{REBUILT}, peak {_span(m):g}", per_datum=values)


@metric("ssim", "of 1", needs=[IMAGES, COMPLETE], better="higher", label="SSIM")
def reconstruction_ssim(m: Measurement) -> Result:
    """Structural similarity of reconstructions (Wang et al. 2004)."""
    side = min(WINDOW, *(s - 1 + s % 2 for s in m.run.spec.shape[1:]))
    values = _of_pairs(m, lambda raw, rebuilt: ssim(raw, rebuilt, _span(m)))
    return Result(f"{REBUILT}, Gaussian windows of {side} pixels", per_datum=values)
