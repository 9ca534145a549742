"""dSprites: 737,280 images of one white shape with six factors, computed when they are indexed.

Matthey, Higgins, Hassabis and Lerchner (2017) published the images. Here they are computed from the geometry of the
shapes, with the same factors in the same order; the pixels of each image are almost the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .core import Computed
from .source import Source

SIZE = 64
SHAPES = ("square", "ellipse", "heart")
SCALES = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
ORIENTATIONS = 2 * np.pi * np.arange(40) / 39  # the last equals the first, as in the original
POSITIONS = 16 + 32 * np.arange(32) / 31
COUNTS = (len(SHAPES), len(SCALES), len(ORIENTATIONS), len(POSITIONS), len(POSITIONS))
NAMES = ("shape", "scale", "orientation", "x", "y")
REACH = 15  # pixels; every shape lies within this distance of its centre
SPLIT_SEED, VALID, TEST = 0, 4_000, 10_000


def factors(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Shape, scale, orientation, x and y of the images `rows` (n,) as numbers from 0, (n, 5); y varies fastest."""
    return np.stack(np.unravel_index(rows, COUNTS), -1)


def inside(shape: NDArray[Any], u: NDArray[Any], v: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether points lie inside a shape of scale 1, bool (n, ...).

    Arguments:
        shape: (n,) numbers of SHAPES.
        u, v: (n, ...) coordinates in the axes of the shape, in pixels from its centre; v points down.
    """
    inner = np.empty(u.shape, bool)
    square, ellipse, heart = (shape == i for i in range(3))
    inner[square] = np.maximum(np.abs(u[square]), np.abs(v[square])) <= 9.6
    inner[ellipse] = (u[ellipse] / 12.76) ** 2 + (v[ellipse] / 7.22) ** 2 <= 1
    a, b = np.abs(u[heart]) / 9.6, v[heart]
    # u = 9.6 sin^3 t has two solutions for each u, t and pi - t: the upper and the lower point of the curve
    t = np.arcsin(np.cbrt(np.minimum(a, 1)))
    even = 5 * np.cos(2 * t) + np.cos(4 * t)  # equal at both points
    odd = 13 * np.cos(t) - 2 * np.cos(3 * t)  # of opposite sign at the two points
    centre, half = 0.663 * even - 1.434, 0.663 * odd
    inner[heart] = (a <= 1) & (np.abs(b - centre) <= np.abs(half))
    return inner


def draw(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The images with the numbers `rows` (n,), (n, 64, 64) of 0 and 1, without anti-aliasing.

    A pixel at (dx, dy) from the centre of a shape with angle a and scale s has the coordinates
    u = (cos a dx - sin a dy) / s, v = (sin a dx + cos a dy) / s. Only the square around the shape is computed.
    """
    shape, scale, turn, x, y = factors(np.asarray(rows, np.int64)).T
    images = np.zeros((len(shape), SIZE, SIZE), np.uint8)
    near = np.arange(-REACH, REACH + 1)
    columns = np.floor(POSITIONS[x]).astype(int)[:, None] + near  # (n, 31) pixels
    lines = np.floor(POSITIONS[y]).astype(int)[:, None] + near
    dx = (columns + 0.5 - POSITIONS[x][:, None])[:, None, :]
    dy = (lines + 0.5 - POSITIONS[y][:, None])[:, :, None]
    cos, sin = (f(ORIENTATIONS[turn])[:, None, None] for f in (np.cos, np.sin))
    s = SCALES[scale][:, None, None]
    white = inside(shape, (cos * dx - sin * dy) / s, (sin * dx + cos * dy) / s)
    images[np.arange(len(shape))[:, None, None], lines[:, :, None], columns[:, None, :]] = white
    return images


class Sprites(Computed):
    """All images as an array (737280, 64, 64) of uint8, whose rows are computed when indexed."""

    shape = (int(np.prod(COUNTS)), SIZE, SIZE)
    dtype = np.dtype(np.uint8)

    def rows(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images with these numbers, (n, 64, 64)."""
        return draw(index)


def source() -> Source:
    """dSprites with its factors; 10,000 random images form the test split and another 4,000 the validation split."""
    n = Sprites.shape[0]
    all_factors = factors(np.arange(n))
    order = np.random.default_rng(SPLIT_SEED).permutation(n)
    splits = {"test": order[:TEST], "valid": order[TEST : TEST + VALID], "train": np.sort(order[TEST + VALID :])}
    return Source(
        Sprites(),  # type: ignore[arg-type]
        all_factors[:, 0].copy(),
        list(SHAPES),
        columns={name: all_factors[:, i].copy() for i, name in enumerate(NAMES)},
        factor_names=list(NAMES),
        splits=splits,  # valid and test in random order, so that their first rows cover all factors
        kind="image",
        scale=(0.0, 1.0),
    )
