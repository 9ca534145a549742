"""The registered metrics of disentanglement: scores of a run's codes, with intervals, per factor and per latent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vaekit.noise import Noise

from ..measurement import Measurement, latent_means, shared
from ..needs import FACTORS, FEW_VALUES, GAUSSIAN, REPEATED, SEVERAL_FACTORS, factors
from ..registry import Interval, Matrix, Part, Result, metric
from .explicitness import STEPS, explicitness, info_e
from .gaps import counted_by_chen, mig_chen, mig_lib
from .importance import DCI, PENALTY, Predictor, dci, med
from .information import BINS, NEIGHBOURS, Score, informative
from .intervals import LEVEL, Draws, bootstrap, repeated, spread, subsamples
from .modularity import in_use, info_c, info_m, info_matrix, modularity
from .parts import LEARNED, TESTED
from .separation import COST, sap_classifier, sap_regression
from .trees import BINS as TREE_BINS
from .trees import DEPTH, STAGES
from .votes import SIZE, TESTS, VOTES, beta_score, factor_score

Array = NDArray[Any]
OF_ENTROPY, OF_DATA, OF_ONE, OF_VOTES = "share of the factors' entropy", "share of data", "0 to 1", "share of votes"
FEWER = 5
"""Scores of draws take this many times fewer votes, whose chance is part of the errors."""
SEVERAL = (FACTORS, SEVERAL_FACTORS)
score_of = partial(metric, better="higher", per_datum=False)
"""`metric` for one number of all data of which a higher one is better."""


class Coded(NamedTuple):
    """Posterior means z (n, L), factors v (n, F), their names, and the groups of the data (n,) or None."""

    z: Array
    v: Array
    names: list[str]
    group: Array | None

    def of(self, rows: NDArray[np.int64]) -> Coded:
        """Those of these rows."""
        return Coded(self.z[rows], self.v[rows], self.names, None if self.group is None else self.group[rows])


@shared
def coded(m: Measurement) -> Coded:
    """The codes and factors of the measured data."""
    known = factors(m)
    assert known is not None
    return Coded(latent_means(m), *known, m.groups)


@shared
def few_coded(m: Measurement) -> Coded:
    """The codes and factors of at most 15,000 data at random, by whole groups, for scores that are learned."""
    c, most = coded(m), LEARNED + TESTED
    if len(c.z) <= most:
        return c
    key = np.arange(len(c.z)) if c.group is None else np.unique(np.asarray(c.group), return_inverse=True)[1].ravel()
    place = np.random.default_rng(m.seed).permutation(int(key.max()) + 1)
    return c.of(np.sort(np.argsort(place[key], kind="stable")[:most]))


@shared
def bootstrap_draws(m: Measurement) -> Draws:
    """Bootstrap draws, for scores that take milliseconds."""
    c = coded(m)
    return bootstrap(c.v, c.group)


@shared
def some_draws(m: Measurement) -> Draws:
    """Subsamples, for scores that are learned."""
    c = few_coded(m)
    return subsamples(c.v, c.group, seed=m.seed)


def _result(
    how: str,
    names: Sequence[str],
    score: Score,
    draws: Draws,
    found: Sequence[Score],
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Result:
    """A result with its interval, its value per factor, and the matrix of latents and factors."""
    known = spread(found, draws, score, bounds=bounds)
    unknown = np.full(len(names), np.nan)
    each_se, low, high = (unknown,) * 3 if known is None else (known.each_se, known.each_low, known.each_high)
    each = {
        name: Part(*(_number(x) for x in numbers))
        for name, *numbers in zip(names, score.each, each_se, low, high, strict=True)
    }
    interval = None if known is None else Interval(known.low, known.high, 1 - LEVEL, draws.kind)
    rows = [f"z{j}" for j in range(len(score.matrix))]
    matrix = Matrix(rows, list(names), np.round(score.matrix, 6).tolist())
    return Result(how, value=score.value, se=None if known is None else known.se, interval=interval, each=each,
                  matrix=matrix)  # fmt: skip


def _number(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None


def _of(names: Sequence[str]) -> str:
    return f"factors {', '.join(names)}"


def _cheap(m: Measurement, how: str, score: Callable[[Array, Array], Score]) -> Result:
    """A score of codes and factors that takes milliseconds, with bootstrap draws."""
    c, draws = coded(m), bootstrap_draws(m)
    return _result(how, c.names, score(c.z, c.v), draws, repeated(lambda rows: score(c.z[rows], c.v[rows]), draws))


def _learned(m: Measurement) -> str:
    """The description of the data that a score is learned from and tested on."""
    return f"two thirds of {_few(m)} to learn from, the others to test"


def _few(m: Measurement) -> str:
    """The number of `few_coded` data in words."""
    n = len(few_coded(m).z)
    return f"{n:,} data{' at random' if n < m.n else ''}"


@score_of("mig", OF_ENTROPY, needs=[FACTORS], label="MIG")
def mig(m: Measurement) -> Result:
    """Mutual information gap of binned posterior means (Locatello et al. 2019)."""
    drawn = len(bootstrap_draws(m).rows)
    how = f"{BINS} bins of posterior means; {_of(coded(m).names)}; standard error of {drawn} bootstrap draws"
    return _cheap(m, how, mig_lib)


@shared
@torch.no_grad()
def scales(m: Measurement) -> Array:
    """The standard deviation of q(z|x) of each latent of each datum, (n, L)."""
    blocks = []
    for _, x, c in m.observed.batches(None, m.n, m.run.device):
        (latent,) = m.run.model.trace(x, c, noise=Noise.of(0, len(x), device=x.device)).latents
        blocks.append(latent.q.stddev.flatten(1).cpu().numpy())
    return np.concatenate(blocks)


@score_of("mig_chen", OF_ENTROPY, needs=[FACTORS, GAUSSIAN], label="MIG (Chen)")
def mig_of_posterior(m: Measurement) -> Result:
    """Mutual information gap of draws from the posterior (Chen et al. 2018)."""
    c, s = coded(m), scales(m)
    counted = counted_by_chen(c.names, m.run.data_identity[0])
    names, v = [c.names[i] for i in counted], c.v[:, counted]
    draws = subsamples(v, c.group, seed=m.seed)
    found = repeated(lambda rows: mig_chen(c.z[rows], s[rows], v[rows]), draws)
    return _result(f"q(z) integrated; {_of(names)}", names, mig_chen(c.z, s, v), draws, found)


def _voted(m: Measurement, how: str, score: Callable[..., Score]) -> Result:
    """A score of votes, with subsamples that have fewer votes."""
    c = coded(m)
    draws = subsamples(c.v, c.group, seed=m.seed)
    few = {"votes": VOTES // FEWER, "tests": TESTS // FEWER, "seed": m.seed}
    found = repeated(lambda rows: score(c.z[rows], c.v[rows], **few), draws)
    how += f"; {_of(c.names)}; errors of subsamples with {VOTES // FEWER:,} and {TESTS // FEWER:,} votes"
    return _result(how, c.names, score(c.z, c.v, seed=m.seed), draws, found)


@score_of("factor_vae_score", OF_VOTES, needs=[*SEVERAL, REPEATED], label="FactorVAE score")
def factor_vae_score(m: Measurement) -> Result:
    """Accuracy of predicting which factor is held fixed from the latent that varies least (Kim and Mnih 2018)."""
    return _voted(m, f"{VOTES:,} votes to learn from, {TESTS:,} to test, of {SIZE} data each", factor_score)


@score_of("beta_vae_score", OF_VOTES, needs=[*SEVERAL, REPEATED], label="beta-VAE score")
def beta_vae_score(m: Measurement) -> Result:
    """Accuracy of predicting which factor is the same in pairs of data from all latents (Higgins et al. 2017)."""
    how = (
        f"logistic regression of {VOTES:,} examples of {SIZE} pairs, {TESTS:,} others to test; easily 1 for codes that "
        "are not disentangled"
    )
    return _voted(m, how, beta_score)


@score_of("med", OF_ONE, needs=SEVERAL, label="MED")
def med_of_means(m: Measurement) -> Result:
    """How few factors each latent has mutual information with (Cao et al. 2022)."""
    return _cheap(m, f"{BINS} bins of posterior means; {_of(coded(m).names)}", med)


@score_of("modularity", OF_ONE, needs=SEVERAL)
def modularity_of_means(m: Measurement) -> Result:
    """How exclusively each latent encodes one factor, by mutual information (Ridgeway and Mozer 2018)."""
    c = coded(m)
    kept = informative(c.z, c.v, c.group)
    how = (
        f"{BINS} bins of posterior means; {int(kept.sum())} of {len(kept)} latents counted, those with information "
        f"beyond chance; {_of(c.names)}"
    )
    return replace(_cheap(m, how, lambda z, v: modularity(z, v, kept=kept)), comparable=f"{BINS} bins; {_of(c.names)}")


@score_of("sap_regression", "share of variance", needs=[FACTORS], label="SAP (regression)")
def sap_of_regression(m: Measurement) -> Result:
    """Gap between the two latents that best explain each factor linearly (Kumar et al. 2018)."""
    return _cheap(m, f"R^2 of ranks of the factors' values; {_of(coded(m).names)}", sap_regression)


def _fitted(m: Measurement, how: str, score: Callable[..., Score], bounds: tuple[float, float] = (0.0, 1.0)) -> Result:
    """A score that is learned from a part of the data, with subsamples."""
    c, draws = few_coded(m), some_draws(m)

    def of(some: Coded) -> Score:
        return score(some.z, some.v, some.group, seed=m.seed)

    return _result(how, c.names, of(c), draws, repeated(lambda rows: of(c.of(rows)), draws), bounds)


@score_of("sap_classifier", OF_DATA, needs=[FACTORS, FEW_VALUES], label="SAP (classifier)")
def sap_of_classifier(m: Measurement) -> Result:
    """Gap between the two latents that best predict each factor, as in disentanglement_lib (Kumar et al. 2018)."""
    how = f"linear SVM of each latent, not standardised, C = {COST}, balanced classes; {_learned(m)}"
    how += f"; {_of(coded(m).names)}"
    return _fitted(m, how, sap_classifier)


@score_of("explicitness", "area under the ROC curve", needs=[FACTORS, FEW_VALUES])
def explicitness_of_means(m: Measurement) -> Result:
    """How well a linear classifier of the code separates the values of each factor (Ridgeway and Mozer 2018)."""
    return _fitted(m, f"logistic regression, L2 penalty 1; {_learned(m)}; {_of(coded(m).names)}", explicitness)


@score_of("info_e", "share of log K", needs=[FACTORS, FEW_VALUES], label="InfoE")
def info_e_of_means(m: Measurement) -> Result:
    """By what share of log K, for K values, a linear classifier of the code reduces the log loss (Hsu et al. 2023)."""
    how = (
        f"logistic regression without a penalty, at most {STEPS} steps, balanced classes; {_learned(m)}; "
        f"{_of(coded(m).names)}"
    )
    return _fitted(m, how, info_e, (-np.inf, 1.0))


@shared
def neighbours(m: Measurement) -> tuple[Array, list[Array], Draws]:
    """The matrix of information by nearest neighbours, those of subsamples, and the subsamples."""
    c, draws = few_coded(m), some_draws(m)
    found = repeated(lambda rows: info_matrix(c.z[rows], c.v[rows], seed=m.seed), draws)
    return info_matrix(c.z, c.v, seed=m.seed), found, draws


def _by_neighbours(m: Measurement, score: Callable[[Array, NDArray[np.bool_]], Score]) -> Result:
    """A score of the matrix of information by nearest neighbours."""
    c, (matrix, others, draws) = few_coded(m), neighbours(m)
    kept = in_use(c.z) & informative(c.z, c.v, c.group)
    how = (
        f"mutual information by {NEIGHBOURS} nearest neighbours (Ross 2014), {_few(m)}; {int(kept.sum())} of "
        f"{len(kept)} latents counted, those with more than a twentieth of the largest range and with information "
        f"beyond chance; {_of(c.names)}"
    )
    result = _result(how, c.names, score(matrix, kept), draws, [score(one, kept) for one in others])
    return replace(result, comparable=f"{NEIGHBOURS} nearest neighbours, {len(c.z):,} data; {_of(c.names)}")


@score_of("info_m", OF_ONE, needs=SEVERAL, label="InfoM")
def info_m_of_means(m: Measurement) -> Result:
    """How exclusively each latent's information is about one factor, by nearest neighbours (Hsu et al. 2023)."""
    return _by_neighbours(m, info_m)


@score_of("info_c", OF_ONE, needs=[FACTORS], label="InfoC")
def info_c_of_means(m: Measurement) -> Result:
    """How exclusively the information about each factor is in one latent, by nearest neighbours (Hsu et al. 2023)."""
    return _by_neighbours(m, info_c)


# --- DCI --------------------------------------------------------------------------------------------------------


class Repeated(NamedTuple):
    """The three scores of all data, those of draws, and the draws."""

    scores: DCI
    found: list[DCI]
    draws: Draws


def _repeated(m: Measurement, predictor: Predictor) -> Repeated:
    c, draws = few_coded(m), some_draws(m)

    def of(some: Coded) -> DCI:
        return dci(some.z, some.v, some.group, predictor=predictor, seed=m.seed)

    return Repeated(of(c), repeated(lambda rows: of(c.of(rows)), draws), draws)


@shared
def of_trees(m: Measurement) -> Repeated:
    """DCI by boosted trees of codes in bins."""
    return _repeated(m, "trees")


@shared
def of_lasso(m: Measurement) -> Repeated:
    """DCI by the lasso."""
    return _repeated(m, "lasso")


@shared
def of_lib(m: Measurement) -> Repeated:
    """DCI by scikit-learn's trees; they are too slow to repeat, so their errors are those of trees of codes in bins."""
    c, fast = few_coded(m), of_trees(m)
    draws = fast.draws._replace(kind=f"{fast.draws.kind}, by trees of codes in bins")
    return Repeated(dci(c.z, c.v, c.group, predictor="lib", seed=m.seed), fast.found, draws)


PREDICTORS: dict[str, tuple[Callable[[Measurement], Repeated], str, str]] = {
    "dci": (of_trees, "", f"{STAGES} boosted trees of depth {DEPTH} per value, codes in {TREE_BINS} bins"),
    "dci_lasso": (of_lasso, ", lasso", f"lasso of ranks of the factors' values, L1 penalty {PENALTY}"),
    "dci_lib": (of_lib, ", disentanglement_lib", f"{STAGES} boosted trees of depth {DEPTH} per value, scikit-learn"),
}
"""The versions of DCI: how they are computed, their name, and their description."""


def _disentanglement(scores: DCI) -> Score:
    assert scores.disentanglement is not None  # the metric needs several factors
    return scores.disentanglement


def _completeness(scores: DCI) -> Score:
    return scores.completeness


def _informativeness(scores: DCI) -> Score:
    return scores.informativeness


def _of_dci(version: str, pick: Callable[[DCI], Score], unit: str, help: str, lowest: float = 0.0) -> None:
    """Register one of the three scores of a version of DCI."""
    compute, suffix, how = PREDICTORS[version]
    part = pick.__name__.removeprefix("_")

    def measured(m: Measurement) -> Result:
        c, known = few_coded(m), compute(m)
        text = f"{how}; {_learned(m)}; {_of(c.names)}"
        found = [pick(one) for one in known.found]
        return _result(text, c.names, pick(known.scores), known.draws, found, (lowest, 1.0))

    measured.__doc__ = f"{help} (Eastwood and Williams 2018{suffix})"
    needs = [*(SEVERAL if pick is _disentanglement else [FACTORS]), FEW_VALUES]
    label = f"DCI {part}{suffix.replace(', ', ' (') + ')' if suffix else ''}"
    score_of(f"{version}_{part}", unit, needs=needs, label=label, slow=version == "dci_lib")(measured)


for _version in PREDICTORS:
    _of_dci(_version, _disentanglement, OF_ONE, "How few factors each latent is important for")
    _of_dci(_version, _completeness, OF_ONE, "How few latents are important for each factor")
    if _version == "dci_lasso":
        _of_dci(_version, _informativeness, "share of variance", "How much of the factors the code explains", -np.inf)
    else:
        _of_dci(_version, _informativeness, OF_DATA, "How often the factors are predicted from the code")
