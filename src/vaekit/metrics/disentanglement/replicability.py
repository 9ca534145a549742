"""UDR: disentanglement without known factors, as agreement of the latents of runs with different seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.errors import ChoiceError

Array = NDArray[Any]
PENALTY = 0.1
"""The penalty of the lasso, on standardised codes."""


class Replicability(NamedTuple):
    """The score of each of M models, (M,), and of each pair, (M, M) with nan on the diagonal.

    A pair [i, j] is that of model j, whose latents are predicted from those of model i.
    """

    each: Array
    pairs: Array


def udr(
    codes: Sequence[Array],
    *,
    used: Sequence[NDArray[np.bool_]] | None = None,
    similarity: Literal["lasso", "spearman"] = "lasso",
) -> Replicability:
    r"""The unsupervised disentanglement ranking of Duan et al. (2020).

    Of two models, R_ab is the similarity of latent a of one and latent b of the other, for latents in use. The score
    of the pair is the mean over the latents of both of r^2 / sum R, with r the largest similarity of the latent and
    sum R that of all: 1 if each latent agrees with exactly one of the other model. The score of a model is the
    median over the others, from which its latents are predicted. Models that agree are not always disentangled, but
    disentangled ones agree.

    Arguments:
        codes: posterior means of the same data for each model, (N, D) each.
        used: the latents in use of each model, (D,) each; the paper counts those with a KL above 0.01 nats.
        similarity: `"lasso"`, the absolute coefficients of a linear prediction of each latent from those of the other
            model, with a penalty of 0.1 on standardised codes; or `"spearman"`, the absolute rank correlation.

    Raises:
        ChoiceError: fewer than two models, or codes of different data.
    """
    if len(codes) < 2 or len({len(z) for z in codes}) > 1:
        raise ChoiceError(
            f"codes of two models or more are needed, all of the same data, got {[len(z) for z in codes]}"
        )
    if similarity not in ("lasso", "spearman"):
        raise ChoiceError(f"similarity must be lasso or spearman, got {similarity!r}")
    masks = [np.ones(z.shape[1], bool) for z in codes] if used is None else used
    kept = [_standard(np.asarray(z, float)[:, mask], similarity) for z, mask in zip(codes, masks, strict=True)]
    pairs = np.full((len(codes), len(codes)), np.nan)
    for i, a in enumerate(kept):
        for j, b in enumerate(kept):
            if i != j:
                pairs[i, j] = _agreement(a, b, similarity)
    return Replicability(np.nanmedian(pairs, 0), pairs)


def median_interval(values: Array, *, level: float = 0.05) -> tuple[float, float] | None:
    """An interval of the median of the population from its order statistics; None for too few values (5 or fewer).

    The number of values below the median is binomial with probability 1/2, so that the k-th smallest and the k-th
    largest of n values miss it with probability 2 P(Bin(n, 1/2) < k), at most `level`.
    """
    from scipy.stats import binom

    ordered = np.sort(values)
    k = int((2 * binom.cdf(np.arange(len(ordered)), len(ordered), 0.5) <= level).sum())
    return (float(ordered[k - 1]), float(ordered[-k])) if k else None


def _standard(z: Array, similarity: str) -> Array:
    """Codes with mean 0 and variance 1, for Spearman of their ranks."""
    if similarity == "spearman":
        from scipy.stats import rankdata

        z = rankdata(z, axis=0)
    spread = z.std(0)
    return (z - z.mean(0)) / np.where(spread > 0, spread, 1.0)


def _agreement(a: Array, b: Array, similarity: str) -> float:
    """The score of a pair of models, from standardised codes (N, D) of latents in use; 0 if one uses none."""
    if not a.shape[1] or not b.shape[1]:
        return 0.0
    if similarity == "spearman":
        r = np.abs(a.T @ b) / len(a)
    else:
        from sklearn.linear_model import Lasso

        r = np.abs(np.atleast_2d(Lasso(PENALTY).fit(a, b).coef_)).T
    strengths = []
    for axis in (0, 1):
        total = r.sum(axis)
        strengths.append(np.divide(r.max(axis) ** 2, total, out=np.zeros_like(total), where=total > 0))
    return float(np.concatenate(strengths).mean())
