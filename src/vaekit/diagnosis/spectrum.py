"""The spectrum of the training rows: in how many directions they vary, and in how many more than noise does."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from vaekit.recipes.spectrum import encoded, scaled

from .patient import Array, Patient
from .registry import NotJudged

ROWS = 1000
"""Training rows that are measured at most."""
MARGIN = 1.1
"""An eigenvalue is above the noise if it exceeds the edge by 10%: the largest one of noise varies around the edge."""


def noise_edge(n: int, variance: float) -> float:
    """The largest eigenvalue of the covariance of n rows of independent elements of variance 1 or less.

    With a total variance V it is about (1 + sqrt(V / n))^2; for D elements of variance 1, V = D (Marchenko and Pastur
    1967).
    """
    return (1 + math.sqrt(variance / n)) ** 2


def eigenvalues(x: Array) -> Array:
    """The eigenvalues of the covariance of centred rows (n, D), the largest first."""
    values = np.linalg.eigvalsh(x @ x.T if x.shape[1] > len(x) else x.T @ x)
    return values[::-1].clip(0) / len(x)


def independent(patient: Patient) -> bool:
    """Whether the elements of the training rows look independent, given the class if the model is conditional on one.

    They do if the largest eigenvalue of their correlations is at most that of noise.
    """
    x = patient.rows("train", ROWS)
    present = ~np.isnan(x)
    x = np.where(present, x - np.where(present, x, 0).sum(0) / present.sum(0).clip(1), 0)
    condition = patient.model.condition
    if condition is not None:
        c = condition.of(patient.known.train)[patient.chosen("train", ROWS)].astype(np.float64)
        c = np.concatenate([c, np.ones((len(c), 1))], 1)
        x = x - c @ np.linalg.lstsq(c, x, rcond=None)[0]
    x = x[:, x.std(0) > 1e-9]
    if not x.size:
        return True
    return float(eigenvalues(x / x.std(0))[0]) <= MARGIN * noise_edge(*x.shape)


class Kept(NamedTuple):
    """How much of the variance as many principal components as latents hold.

    Attributes:
        latent: the number of latents.
        share: the share of the variance that so many components hold; of the components above the noise, for rows of
            columns in units of their own.
        needed: the components that hold 95% of the variance, or that are above the noise.
        directions: the number of directions in which the rows vary; None if there are too few rows to tell.
        noise: whether components below the noise were left out.
    """

    latent: int
    share: float
    needed: int
    directions: int | None
    noise: bool


def kept(patient: Patient) -> Kept | NotJudged:
    """The principal components of the training rows, against the number of latents."""
    latent, pictures = patient.latent, patient.kind in ("image", "signal")
    if latent is None:
        return NotJudged("the code is not one vector of numbers")
    if pictures and patient.known.missing:
        return NotJudged("values are missing")
    x = patient.rows("train", ROWS)
    if len(x) < 2:
        return NotJudged("it needs 2 training rows")
    x = x - x.mean(0) if pictures else _standardised(patient, x)
    values = eigenvalues(x)
    if values[0] <= 0:
        return NotJudged("all training rows are equal")
    directions: int | None = int((values > 1e-9 * values[0]).sum())
    if directions is not None and directions >= len(x) - 1:
        directions = None  # n rows span at most n - 1 directions
    if pictures:
        needed, above = int(np.searchsorted(np.cumsum(values), 0.95 * values.sum())) + 1, len(values)
    else:
        needed = above = int((values > MARGIN * noise_edge(len(x), float(x.var(0).sum()))).sum())
    total = float(values[:above].sum())
    share = float(values[: min(latent, above)].sum()) / total if total > 0 else 1.0
    return Kept(latent, share, needed, directions, not pictures)


def _standardised(patient: Patient, x: Array) -> Array:
    """Rows of numbers of mean 0 and variance 1, of counts as logarithms of shares, and of categories as indicators."""
    schema = patient.known.schema
    if schema:
        return np.concatenate([encoded(column, values) for column, values in zip(schema, x.T, strict=True)], 1)
    if patient.kind == "counts":
        total = np.nansum(x, 1, keepdims=True)
        x = np.log1p(x / np.where(total > 0, total, 1) * np.median(total))
    return scaled(x)
