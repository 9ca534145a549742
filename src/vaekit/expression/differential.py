"""Differential expression between two groups of rows, with the false discovery rate that permuted groups show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vaekit.errors import ChoiceError
from vaekit.utils.suggest import unknown

from .normalised import BLOCK, check_counts, shares

if TYPE_CHECKING:
    from vaekit.runs.trained import TrainedModel

OFFSET = 1e-6
"""Added to shares before their logarithm: a hundredth of a count in 10,000."""
LEAST = 3
"""Rows that each group needs."""


@dataclass(frozen=True)
class Differential:
    """The comparison of two groups; arrays are (D,), in the order of the features.

    Attributes:
        names: names of the features.
        fold: posterior mean of log2(share in a / share in b).
        low, high: its central 95 % interval.
        probability: posterior probability that |fold| is above `delta`.
        share_a, share_b: posterior means of the groups' mean shares.
        delta: the least fold change of interest, in log2.
        expected: the false discovery rate asked for.
        called: the features called differential at that expected rate.
        permuted: (permutations,) the number of features called after the groups were permuted.
        rows: number of rows of a and of b.
    """

    names: list[str]
    fold: np.ndarray
    low: np.ndarray
    high: np.ndarray
    probability: np.ndarray
    share_a: np.ndarray
    share_b: np.ndarray
    delta: float
    expected: float
    called: np.ndarray
    permuted: np.ndarray
    rows: tuple[int, int]

    @property
    def bayes_factor(self) -> np.ndarray:
        """log P(|fold| > delta) - log P(|fold| <= delta), natural logarithm, (D,)."""
        with np.errstate(divide="ignore"):
            return np.log(self.probability) - np.log1p(-self.probability)

    @property
    def false_discovery_rate(self) -> float:
        """Features called with permuted groups, on average, as a share of those called; 0 if none is called.

        Permuted groups do not differ, so each of their calls is false: this rate is measured, not the model's own.
        """
        called = int(self.called.sum())
        return min(1.0, float(self.permuted.mean()) / called) if called else 0.0

    def table(self) -> dict[str, Any]:
        """The results as columns by name, the features with the highest probability first."""
        order = np.lexsort((-np.abs(self.fold), -self.probability))
        columns = {
            "feature": np.array(self.names),
            "log2_fold": self.fold,
            "low": self.low,
            "high": self.high,
            "probability": self.probability,
            "bayes_factor": self.bayes_factor,
            "share_a": self.share_a,
            "share_b": self.share_b,
            "called": self.called,
        }
        return {name: values[order] for name, values in columns.items()}

    def __str__(self) -> str:
        return (
            f"{int(self.called.sum()):,} of {len(self.names):,} features differ by more than {self.delta:g} in log2 at "
            f"an expected false discovery rate of {self.expected:.0%}; with permuted groups "
            f"{self.permuted.mean():,.1f} are called: measured false discovery rate {self.false_discovery_rate:.1%}"
        )


def differential(
    model: TrainedModel,
    a: str,
    b: str | None = None,
    *,
    by: str | None = None,
    data: Any = None,
    delta: float = 0.25,
    fdr: float = 0.05,
    draws: int = 50,
    permutations: int = 20,
    most: int = 2000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Differential:
    """Compare the mean shares of features in the rows of group a with those of group b.

    Each posterior draw decodes z ~ q(z|x) of every row, and weighs the rows of a group by a Bayesian bootstrap: the
    spread over draws is that of the group's mean. In a conditional run all rows are decoded under conditions drawn from
    both groups alike, so that a difference between batches is no difference between groups. Features are called in the
    order of P(|fold| > delta) as long as the mean of 1 - P is at most `fdr` (Newton et al. 2004); the same draws with
    permuted groups, permuted within conditions, show how many of the calls are false.

    Arguments:
        a, b: the groups; b None for all other rows.
        by: the column with the groups; None for the labels.
        data: new data as for `encode`; None for all rows of the run's own data.
        delta: the least fold change of interest, in log2.
        fdr: the false discovery rate that is expected of the calls.
        draws: posterior draws.
        permutations: number of permutations of the groups.
        most: rows used per group, at random.
        seed: seed of draws, rows and permutations.
        progress: called as progress(done, of).

    Raises:
        ChoiceError: the run is not one of counts, or is conditional on the groups; there is no such column or group, or
            a group has fewer than 3 rows.
    """
    check_counts(model)
    condition = model.composition.condition
    if by is not None and condition is not None and by in (condition.column, *_covariates(condition)):
        raise ChoiceError(f"this run is conditional on {by!r}, so its codes do not hold the differences between groups")
    rng = np.random.default_rng(seed)
    parts = [_rows(model, one, by) for one in ("train", "valid", "test")] if data is None else [_rows(model, data, by)]
    groups = np.concatenate([values for _, values in parts])
    in_a, in_b = _members(groups, a, b, by)
    chosen = np.sort(np.concatenate([_few(np.flatnonzero(which), most, rng) for which in (in_a, in_b)]))
    member = in_a[chosen]
    size = 0 if condition is None else condition.size
    starts = np.cumsum([0, *(len(values) for _, values in parts)])
    memberships: Tensor | None = None
    folds, means, above = [], [], torch.zeros((1 + permutations, model.spec.dims), dtype=torch.float64)
    block = max(1, BLOCK // model.spec.dims)
    for draw in range(draws):
        z = np.concatenate([
            model.encode(rows, rows=chosen[(chosen >= start) & (chosen < end)] - start, sample=True, seed=seed + draw)
            for (rows, _), start, end in zip(parts, starts, starts[1:], strict=False)
            if ((chosen >= start) & (chosen < end)).any()
        ])  # fmt: skip
        if memberships is None:
            memberships = _memberships(member, z[:, z.shape[1] - size :], permutations, rng)
        if size:
            z[:, -size:] = z[rng.permutation(len(z)), -size:]
        weights = memberships * torch.from_numpy(rng.exponential(size=len(z)))
        weights = weights / weights.sum(-1, keepdim=True)
        share = torch.zeros((2, 1 + permutations, model.spec.dims), dtype=torch.float64)
        for first in range(0, len(z), block):
            share += weights[..., first : first + block] @ shares(model, z[first : first + block]).double()
        fold = torch.log2(share[0] + OFFSET) - torch.log2(share[1] + OFFSET)  # (1 + permutations, D)
        above += fold.abs() > delta
        folds.append(fold[0].clone())
        means.append(share[:, 0].clone())
        if progress:
            progress(draw + 1, draws)
    names = [column.name for column in model.columns] or [str(i) for i in range(model.spec.dims)]
    rows = int(member.sum()), int((~member).sum())
    means_of = torch.stack(means).mean(0).numpy()
    return _summary(torch.stack(folds).numpy(), above.numpy() / draws, means_of, names, rows, delta, fdr)


def _summary(
    fold: np.ndarray,
    above: np.ndarray,
    share: np.ndarray,
    names: list[str],
    rows: tuple[int, int],
    delta: float,
    fdr: float,
) -> Differential:
    """The result of folds (draws, D), P(|fold| > delta) of the groups and the permuted ones, and mean shares (2, D)."""
    low, high = np.quantile(fold, [0.025, 0.975], axis=0)
    return Differential(
        names=names,
        fold=fold.mean(0),
        low=low,
        high=high,
        probability=above[0],
        share_a=share[0],
        share_b=share[1],
        delta=delta,
        expected=fdr,
        called=calls(above[0], fdr),
        permuted=np.array([calls(one, fdr).sum() for one in above[1:]]),
        rows=rows,
    )


def calls(probability: np.ndarray, fdr: float) -> np.ndarray:
    """The features called, (D,), in the order of their probability while the mean of 1 - probability is <= `fdr`."""
    order = np.argsort(-probability, kind="stable")
    expected = np.cumsum(1 - probability[order]) / np.arange(1, len(order) + 1)
    called = np.zeros(len(order), bool)
    called[order[: np.searchsorted(expected, fdr, side="right")]] = True
    return called


def _covariates(condition: Any) -> tuple[str, ...]:
    from vaekit.data.covariates import Covariates

    return tuple(one.name for one in condition.covariates) if isinstance(condition, Covariates) else ()


def _rows(model: TrainedModel, data: Any, by: str | None) -> tuple[Any, np.ndarray]:
    """Rows for `encode`, and the group of each as text, (n,)."""
    rows: Any
    if isinstance(data, str) and data in ("train", "valid", "test"):
        part, names = getattr(model.data, data), model.data.label_names
        label, columns, rows = part.label, part.columns, data
        if label is not None and names is not None:
            label = np.array([*names, ""])[label]
    else:
        rows = new = model.read(data)
        label, columns = new.label, new.columns
    values = label if by is None else columns.get(by)
    if values is None:
        shown = ", ".join(columns) or "none"
        raise ChoiceError(
            f"these data have no labels: give the column with the groups as `by`; they have the columns {shown}"
            if by is None
            else f"by={by!r}: these data have no such column; they have {shown}"
        )
    return rows, np.asarray(values).astype(np.str_)


def _members(groups: np.ndarray, a: str, b: str | None, by: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the rows of a and of b."""
    known = sorted({group for group in groups.tolist() if group})
    for group in (a, b):
        if group is not None and group not in known:
            raise ChoiceError(unknown(f"group of {by or 'the labels'}", group, known))
    if a == b:
        raise ChoiceError(f"the groups are both {a!r}: choose two")
    in_a = groups == a
    in_b = (groups == b) if b is not None else ~in_a & (groups != "")
    if min(in_a.sum(), in_b.sum()) < LEAST:
        raise ChoiceError(f"each group needs at least {LEAST} rows, got {in_a.sum()} and {in_b.sum()}")
    return in_a, in_b


def _few(rows: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= most else rng.choice(rows, most, replace=False)


def _memberships(member: np.ndarray, c: np.ndarray, permutations: int, rng: np.random.Generator) -> Tensor:
    """Members of a and of b, (2, 1 + permutations, n): the groups, then the permuted ones.

    Members are permuted within rows of equal condition, unless conditions hardly repeat, as numbers do.
    """
    n = len(member)
    strata = np.unique(np.round(c, 4), axis=0, return_inverse=True)[1].ravel() if c.shape[1] else np.zeros(n, int)
    if strata.max() >= n / 10:
        strata = np.zeros(n, int)
    rows = [member]
    for _ in range(permutations):
        permuted = member.copy()
        for stratum in range(strata.max() + 1):
            places = np.flatnonzero(strata == stratum)
            permuted[places] = member[rng.permutation(places)]
        rows.append(permuted)
    inside = torch.from_numpy(np.stack(rows)).double()
    return torch.stack([inside, 1 - inside])
