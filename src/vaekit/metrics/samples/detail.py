"""Blur of samples, by the energy of images or signals at each spatial frequency.

The energy of an image at a frequency is the square of its cosine transform (DCT-II, which continues an image by its
mirror image, so that opposite edges do not make a jump that looks like detail). Filtering with a symmetric kernel
multiplies it by the square of the kernel's transfer function. Frequencies are radial, in cycles per pixel; those of one
octave are added, and the energies are averaged over the images:

    ratio = mean energy of samples / mean energy of data

is 1 for samples with as much detail as data, below 1 for blurred ones, and above 1 for noisy ones.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaekit.errors import ChoiceError

Array = NDArray[Any]
FINE = 0.25
"""Detail is at frequencies of at least this many cycles per pixel: a period of four pixels or fewer."""


def frequencies(size: tuple[int, ...]) -> Array:
    """The radial frequency of each coefficient of the cosine transform of images or signals, in cycles per pixel."""
    square = np.zeros(size)
    for axis, side in enumerate(size):
        shape = [1] * len(size)
        shape[axis] = side
        square = square + (np.arange(side) / (2 * side)).reshape(shape) ** 2
    return np.sqrt(square)


def octaves(size: tuple[int, ...]) -> dict[str, Array]:
    """The coefficients (bool, *size) of each octave of frequencies, finest first; the mean is in none."""
    f = frequencies(size)
    found, high = {}, math.inf
    low = FINE
    while low * max(size) >= 1:
        inside = (f >= low) & (f < high)
        if inside.any():
            name = f"{low:.3g} and more" if high == math.inf else f"{low:.3g} to {high:.3g}"
            found[f"{name} cycles per pixel"] = inside
        high, low = low, low / 2
    return found


def energies(x: ArrayLike) -> dict[str, Array]:
    """The energy of each image (N, C, H, W) or signal (N, C, L) per octave, (N,), by the octave's name.

    Raises:
        ChoiceError: the data are neither.
    """
    from scipy.fft import dctn

    x = np.asarray(x)
    if x.ndim not in (3, 4):
        raise ChoiceError(f"images (N, C, H, W) or signals (N, C, L) are needed, got an array of shape {x.shape}")
    size = x.shape[2:]
    masks = octaves(size)
    step = max(1, 4_000_000 // max(1, math.prod(x.shape[1:])))
    parts: dict[str, list[Array]] = {name: [] for name in masks}
    for a in range(0, len(x), step):
        power = dctn(np.asarray(x[a : a + step], np.float32), axes=range(2, x.ndim), norm="ortho") ** 2
        for name, mask in masks.items():
            parts[name].append(power[..., mask].astype(np.float64).sum((1, 2)))
    return {name: np.concatenate(found) for name, found in parts.items()}
