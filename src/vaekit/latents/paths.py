"""Paths through a latent space: lines, grids and traversals. NumPy arrays in, NumPy arrays out.

These functions are independent of any model: pass the latents that they return to `Run.decode`.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaekit.errors import ChoiceError
from vaekit.utils.formerly import formerly

Array = NDArray[Any]
Mode = Literal["auto", "lerp", "slerp"]
LERP_DIMS = 16
"""Up to this many latents, a straight line stays where the prior has mass; with more, it crosses empty space."""
BLOCK = 32 * 2**20  # the maximum size of one block of `nearest`, in bytes
PARALLEL = 1e-6  # radians; below this angle the great circle and the chord agree up to rounding


def lerp(z1: ArrayLike, z2: ArrayLike, t: ArrayLike) -> Array:
    """The straight line (1 - t) z1 + t z2.

    Arguments:
        z1, z2: (..., D) end points.
        t: positions on the line, broadcast against the leading axes of z1 and z2; (T,) gives (T, D) for (D,) ends.
    """
    a, b, s = _floats(z1), _floats(z2), np.asarray(t, dtype=float)[..., None]
    return (1 - s) * a + s * b


def slerp(z1: ArrayLike, z2: ArrayLike, t: ArrayLike) -> Array:
    """Spherical interpolation: the direction follows the great circle from z1 to z2, the norm changes linearly.

    With w the angle between them and a, b the unit vectors of z1, z2,

        z(t) = ((1 - t) |z1| + t |z2|) (sin((1 - t) w) a + sin(t w) b) / sin w.

    Opposite points have no unique great circle: the path passes through the coordinate axis farthest from z1's
    direction, the same at every call. If one end is 0 (or D is 1), the direction is undefined and the path is straight.
    Shoemake (1985); White (2016), arXiv:1609.04468, for latent spaces.

    Arguments:
        z1, z2: (..., D) end points.
        t: positions on the path, as for `lerp`.
    """
    a, b = np.broadcast_arrays(_floats(z1), _floats(z2))
    s = np.asarray(t, dtype=float)[..., None]
    norm_a, norm_b = (np.linalg.norm(v, axis=-1, keepdims=True) for v in (a, b))
    straight = (norm_a == 0) | (norm_b == 0) | (a.shape[-1] == 1)
    unit_a, unit_b = a / np.where(norm_a == 0, 1, norm_a), b / np.where(norm_b == 0, 1, norm_b)
    chord = np.linalg.norm(unit_a - unit_b, axis=-1, keepdims=True)
    angle = 2 * np.arctan2(chord, np.linalg.norm(unit_a + unit_b, axis=-1, keepdims=True))
    # with an orthonormal basis of the plane, cos and sin of one angle suffice, without a division by a vanishing sin w
    across = unit_b - np.sum(unit_a * unit_b, axis=-1, keepdims=True) * unit_a
    opposite = np.pi - angle < PARALLEL
    across = np.where(opposite, _perpendicular(unit_a), across)
    size = np.linalg.norm(across, axis=-1, keepdims=True)
    across = across / np.where(size == 0, 1, size)
    direction = np.cos(s * angle) * unit_a + np.sin(s * angle) * across
    arc = ((1 - s) * norm_a + s * norm_b) * direction
    return np.where(straight | (angle < PARALLEL), (1 - s) * a + s * b, arc)


def _perpendicular(unit: Array) -> Array:
    """For each unit vector (..., D), the axis of its smallest component, made orthogonal to it (not normalised)."""
    axis = np.zeros_like(unit)
    np.put_along_axis(axis, np.abs(unit).argmin(-1)[..., None], 1.0, -1)
    return axis - np.sum(axis * unit, axis=-1, keepdims=True) * unit


@formerly("steps", "mode")
def interpolate(z1: ArrayLike, z2: ArrayLike, *, steps: int = 11, mode: Mode = "auto") -> Array:
    """`steps` evenly spaced points from z1 to z2, including both ends exactly: (steps, D).

    Arguments:
        z1, z2: (D,) end points.
        steps: number of points, 2 or more.
        mode: "lerp", "slerp", or "auto": lerp for up to 16 latents, else slerp.

    Raises:
        ChoiceError: fewer than 2 steps, an unknown mode, or end points of different shapes.
    """
    a, b = _floats(z1), _floats(z2)
    if steps < 2:
        raise ChoiceError(f"an interpolation takes 2 or more steps, both end points included, got {steps}")
    if a.ndim != 1 or a.shape != b.shape:
        raise ChoiceError(f"end points must be two vectors of the same length (D,), got {a.shape} and {b.shape}")
    line = _path(mode, len(a))(a, b, np.linspace(0, 1, steps))
    line[0], line[-1] = a, b
    return line


@formerly("mode")
def midpoint(z1: ArrayLike, z2: ArrayLike, *, mode: Mode = "auto") -> Array:
    """The midpoint of the path from z1 to z2 (..., D); `mode` as for `interpolate`."""
    a = _floats(z1)
    return _path(mode, a.shape[-1])(a, _floats(z2), np.asarray(0.5))


def chosen_mode(mode: Mode, dims: int) -> Literal["lerp", "slerp"]:
    """The mode that `auto` selects for this many latents; lerp and slerp are returned unchanged.

    Raises:
        ChoiceError: an unknown mode.
    """
    if mode not in ("auto", "lerp", "slerp"):
        raise ChoiceError(f"mode must be auto, lerp or slerp, got {mode!r}")
    if mode == "auto":
        return "lerp" if dims <= LERP_DIMS else "slerp"
    return mode


def _path(mode: Mode, dims: int) -> Any:
    return lerp if chosen_mode(mode, dims) == "lerp" else slerp


@formerly("low", "high")
def manifold_grid(n: int, *, low: float = 0.05, high: float = 0.95) -> Array:
    """An n x n grid of 2-D latents, evenly spaced in the probability of a standard normal prior: (n * n, 2).

    The points are ordered row by row from the top: the first coordinate grows to the right, the second upwards, as in a
    scatter plot of the same latents. Kingma and Welling (2013), figure 4.

    Arguments:
        n: points per side.
        low, high: cumulative probabilities of the first and the last point.

    Raises:
        ChoiceError: n below 1, or not 0 < low < high < 1.
    """
    if n < 1:
        raise ChoiceError(f"a grid has 1 or more points per side, got {n}")
    if not 0 < low < high < 1:
        raise ChoiceError(f"low and high are probabilities with 0 < low < high < 1, got {low:g} and {high:g}")
    probabilities = np.linspace(low, high, n) if n > 1 else np.array([(low + high) / 2])
    values = np.array([NormalDist().inv_cdf(p) for p in probabilities])
    right, up = np.meshgrid(values, values[::-1])
    return np.stack([right.ravel(), up.ravel()], -1)


def traverse(z: ArrayLike, dims: Sequence[int] | Array, values: ArrayLike) -> Array:
    """Copies of one code, with one dimension at a time set to each of the given values: (len(dims), V, D).

    Arguments:
        z: (D,) the code to start from, such as the posterior mean of a datum.
        dims: the dimensions to vary, one row each.
        values: (V,) for all dimensions, or (len(dims), V) with one row per dimension, such as rows of
            `traversal_values`.

    Raises:
        ChoiceError: a dimension that does not exist, or values of another shape.
    """
    start, varied, to = _floats(z), np.asarray(dims, dtype=int), _floats(values)
    if start.ndim != 1:
        raise ChoiceError(f"a traversal starts at one code of shape (D,), got {start.shape}")
    if len(varied) and (varied.min() < -len(start) or varied.max() >= len(start)):
        raise ChoiceError(f"dimensions must lie in 0..{len(start) - 1}, got {varied.tolist()}")
    if to.ndim not in (1, 2) or (to.ndim == 2 and len(to) != len(varied)):
        raise ChoiceError(f"values must have shape (V,) or ({len(varied)}, V), got {to.shape}")
    codes = np.tile(start, (len(varied), to.shape[-1], 1))
    codes[np.arange(len(varied))[:, None], np.arange(to.shape[-1]), varied[:, None]] = to
    return codes


@formerly("n", "quantile")
def traversal_values(means: ArrayLike, *, n: int = 9, quantile: float = 0.01) -> Array:
    """n evenly spaced values per dimension, over the range of the codes of data: (D, n).

    Arguments:
        means: (N, D) posterior means of data.
        n: values per dimension, 2 or more.
        quantile: share of the data left out at each end.

    Raises:
        ChoiceError: n below 2, or a quantile outside [0, 0.5).
    """
    if n < 2:
        raise ChoiceError(f"a traversal takes 2 or more values, got {n}")
    if not 0 <= quantile < 0.5:
        raise ChoiceError(f"quantile must lie in [0, 0.5), got {quantile:g}")
    low, high = np.quantile(_floats(means), [quantile, 1 - quantile], axis=0)
    return np.linspace(low, high, n, axis=-1)


def order_by_kl(kl: ArrayLike) -> NDArray[np.int64]:
    """The indices of the dimensions, largest KL first: (D,) -> (D,); ties keep their order."""
    return np.argsort(-_floats(kl), kind="stable")


@formerly("others", "groups")
def attribute_direction(
    codes: ArrayLike, has: ArrayLike, *, others: ArrayLike | None = None, groups: ArrayLike | None = None
) -> Array:
    r"""The latent direction from data without an attribute to data with it, other attributes being equal: (D,).

    It is the coefficient of the attribute in the least-squares regression of the codes on it and on `others`. Without
    `others`, that is the difference of the two means. With them it is balanced: the effect of other attributes that
    correlate with this one is removed (White 2016, arXiv:1609.04468, balances by resampling). With `groups`, only
    differences within a group count, such as those between two versions of one drawing.

    Arguments:
        codes: (N, D) posterior means.
        has: (N,) 0 or 1, or any number: the direction is then the change per unit.
        others: (N, M) other attributes, as numbers.
        groups: (N,) integers; data are compared only with data of the same number.

    Raises:
        ChoiceError: the attribute does not vary (in any group), or the others determine it.
    """
    z, a = np.asarray(codes, float), np.asarray(has, float)
    if z.ndim != 2 or a.shape != z.shape[:1]:
        raise ChoiceError(f"codes (N, D) and an attribute (N,) are needed, got {z.shape} and {a.shape}")
    rest = np.zeros((len(a), 0)) if others is None else np.asarray(others, float).reshape(len(a), -1)
    inside = np.zeros(len(a), int) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].ravel()
    z, a, rest = _centred(z, inside), _centred(a[:, None], inside)[:, 0], _centred(rest, inside)
    spread = a @ a
    if not spread > 1e-9 * len(a):
        where = "within any group" if groups is not None else "in these data"
        raise ChoiceError(f"the attribute does not vary {where}, so it has no direction")
    alone = a - rest @ np.linalg.lstsq(rest, a, rcond=None)[0]
    if not alone @ alone > 1e-6 * spread:
        raise ChoiceError(
            "the other attributes determine this one, so it has no direction of its own: leave the balancing out"
        )
    return alone @ z / (alone @ alone)


def _centred(values: Array, groups: Array) -> Array:
    """Rows (N, M) minus the mean of their group."""
    sums = np.zeros((int(groups.max(initial=0)) + 1, values.shape[1]))
    np.add.at(sums, groups, values)
    return values - (sums / np.maximum(np.bincount(groups, minlength=len(sums)), 1)[:, None])[groups]


@formerly("k")
def nearest(x: Array, candidates: Array, *, k: int = 1) -> tuple[NDArray[np.int64], Array]:
    """The k candidates nearest to each datum in squared Euclidean distance.

    A missing value (nan) is treated as a random draw from the candidates' values of that element, and the distance is
    the expectation over such draws (Eirola et al. 2013, Information Sciences 240): gaps do not make a datum nearer.

    Candidates are processed in blocks, so memory does not grow with their number and no memory map is loaded whole.

    Arguments:
        x: (N, *event).
        candidates: (M, *event), of any numeric type.
        k: number of neighbours, at most M.

    Returns:
        index (N, k) and squared distance (N, k), nearest first; ties are ordered by index.

    Raises:
        ChoiceError: events of different shapes, or k outside 1..M.
    """
    if x.shape[1:] != candidates.shape[1:]:
        raise ChoiceError(f"data of shape {x.shape[1:]} cannot be compared with candidates of {candidates.shape[1:]}")
    if not 1 <= k <= len(candidates):
        raise ChoiceError(f"k must lie in 1..{len(candidates)} (the number of candidates), got {k}")
    dims = max(1, int(np.prod(x.shape[1:])))
    rows = max(1, min(len(candidates), BLOCK // (8 * dims)))
    queries = max(1, BLOCK // (8 * (rows + k)))
    index = np.empty((len(x), k), dtype=np.int64)
    distance = np.empty((len(x), k))
    gaps = any(part.dtype.kind == "f" and bool(np.isnan(part).any()) for part in (x, candidates))
    moments = _moments(candidates, dims, rows) if gaps else None
    for a in range(0, len(x), queries):
        query = np.asarray(x[a : a + queries], dtype=float).reshape(-1, dims)
        best = np.full((len(query), 0), np.inf)
        where = np.zeros((len(query), 0), dtype=np.int64)
        for b in range(0, len(candidates), rows):
            block = np.asarray(candidates[b : b + rows], dtype=float).reshape(-1, dims)
            square = _squares(query, block, moments)
            best = np.concatenate([best, np.maximum(square, 0)], 1)
            where = np.concatenate([where, np.tile(np.arange(b, b + len(block)), (len(query), 1))], 1)
            keep = np.argsort(best, axis=1, kind="stable")[:, :k]
            best, where = np.take_along_axis(best, keep, 1), np.take_along_axis(where, keep, 1)
        index[a : a + queries], distance[a : a + queries] = where, best
    return index, distance


Moments = tuple[Array, Array]


def _moments(candidates: Array, dims: int, rows: int) -> Moments:
    """Mean and variance of each element over the candidates in which it is not missing, (D,) each; 0 if none has it."""
    n, total, squares = np.zeros(dims), np.zeros(dims), np.zeros(dims)
    blocks = range(0, len(candidates), rows)
    for b in blocks:
        block = np.asarray(candidates[b : b + rows], dtype=float).reshape(-1, dims)
        n, total = n + (~np.isnan(block)).sum(0), total + np.nansum(block, 0)
    mean = total / np.maximum(n, 1)
    for b in blocks:
        block = np.asarray(candidates[b : b + rows], dtype=float).reshape(-1, dims)
        squares = squares + np.nansum((block - mean) ** 2, 0)
    return mean, squares / np.maximum(n, 1)


def _squares(a: Array, b: Array, moments: Moments | None) -> Array:
    """Squared distances of rows (N, D) and (M, D), in expectation over missing values: (N, M)."""
    more: Array | float = 0.0
    if moments is not None:
        mean, variance = moments
        more = (np.isnan(a) @ variance)[:, None] + np.isnan(b) @ variance
        a, b = np.where(np.isnan(a), mean, a), np.where(np.isnan(b), mean, b)
    return np.sum(a**2, 1)[:, None] - 2 * a @ b.T + np.sum(b**2, 1) + more


def _floats(z: ArrayLike) -> Array:
    """An array of floats; float32 stays float32."""
    array = np.asarray(z)
    return array if array.dtype in (np.float32, np.float64) else array.astype(float)
