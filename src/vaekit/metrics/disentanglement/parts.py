"""Data to learn from and others to test, for scores that are learned."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vaekit.errors import ChoiceError

from ..needs import MOST_VALUES
from .information import checked

Array = NDArray[Any]
LEARNED, TESTED = 10_000, 5_000
"""The maximum numbers of data to learn from and to test, as in disentanglement_lib."""


CONSTANT = 1e-6
"""A latent whose standard deviation is at most this share of its mean, or of the largest one, is taken as constant."""


class Parts(NamedTuple):
    """Codes (N, D) and factors (N, F) to learn from, and codes (M, D) and factors (M, F) to test."""

    z: Array
    v: NDArray[np.int64]
    z_test: Array
    v_test: NDArray[np.int64]


def parts(
    codes: Array, factors: Array, group: ArrayLike | None = None, *, seed: int = 0, standardise: bool = True
) -> Parts:
    """Two thirds of the data at random to learn from, at most 10,000, and at most 5,000 of the others to test.

    With `group`, the data of a group are all in one of the two.

    Arguments:
        codes, factors: (N, D) and (N, F).
        group: groups of data, (N,).
        seed: seed of the division.
        standardise: whether the codes get mean 0 and variance 1 in the data to learn from; constant ones become 0.

    Raises:
        ChoiceError: the shapes do not agree, a factor has too many values or a single one to learn from, or there is
            only one group.
    """
    z, v = checked(codes, factors)
    if (most := int(v.max()) + 1) > MOST_VALUES:
        raise ChoiceError(f"a factor has {most:,} values, and at most {MOST_VALUES} can be predicted: give it in bins")
    keys = np.arange(len(z)) if group is None else np.unique(np.asarray(group), return_inverse=True)[1].ravel()
    order = np.random.default_rng(seed).permutation(int(keys.max()) + 1)
    if len(order) < 2:
        raise ChoiceError("one part of the data is learned from and another is tested: two data or groups are needed")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    cut = min(len(order) - 1, max(1, round(2 * len(order) / 3)))
    by_place = np.argsort(place[keys], kind="stable")
    learned = by_place[place[keys[by_place]] < cut][:LEARNED]
    tested = by_place[place[keys[by_place]] >= cut][:TESTED]
    if (v[learned] == v[learned[0]]).all(0).any():
        raise ChoiceError("a factor has a single value in the data to learn from: more data are needed")
    if standardise:
        mean, spread = z[learned].mean(0), z[learned].std(0)
        varies = spread > CONSTANT * np.maximum(np.abs(mean), spread.max())
        z = np.where(varies, (z - mean) / np.where(varies, spread, 1.0), 0.0)
    return Parts(z[learned], v[learned], z[tested], v[tested])


def ranked(known: NDArray[np.int64], new: NDArray[np.int64]) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """The values of a factor in the data to learn from, (K,), and the classes 0 .. K - 1; -1 for values that are new.

    Returns:
        the values (K,), the classes (N,) of the known data and the classes (M,) of the others.
    """
    values, label = np.unique(known, return_inverse=True)
    place = np.minimum(np.searchsorted(values, new), len(values) - 1)
    return values, label.ravel(), np.where(values[place] == new, place, -1)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without scikit-learn's warnings that a fit stopped at its maximum number of steps, which protocols state, or that
    a class has few data."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", message="The number of unique classes")
        yield
