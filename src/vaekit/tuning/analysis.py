"""What the trials of a sweep tell: who leads by how much, how much of that is selection, and which options matter.

The best of several trials is the one with the highest sum of quality and luck, so its number on the data that chose it
is too good on average (the winner's curse). The lead on data that had no part in the choice has no such bias.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vaekit.metrics import METRICS
from vaekit.studies.words import Estimate, difference, paired
from vaekit.utils.uncertainty import resampled

from .records import Judge, Trial, quietly, shown

if TYPE_CHECKING:
    import optuna

Array = NDArray[Any]
RESAMPLES = 1000
"""Bootstrap samples of the validation data."""
HALVES, TREES = 24, 16
"""Half-samples of the trials, and trees of each forest, for the importance of options."""
ENOUGH = 8
"""With fewer finished trials, the importance of options is not estimated."""


@dataclass(frozen=True)
class Lead:
    """The lead of the best trial over the second best, above 0 if the best one is better; paired by example.

    Attributes:
        first, second: the names of the trials.
        valid: the lead on validation data, which chose the best trial.
        test: the lead on test data, which had no part in the choice; None if it was not measured.
    """

    first: str
    second: str
    valid: Estimate
    test: Estimate | None = None

    @property
    def selection(self) -> Estimate | None:
        """The part of the lead that is due to selection: the lead on validation data less that on test data."""
        return None if self.test is None else difference(self.valid, self.test)


@dataclass(frozen=True)
class Importance:
    """The share of the variance of a metric over the options' ranges that one option explains alone.

    Attributes:
        value: by functional analysis of variance (Hutter et al. 2014) of all finished trials.
        se: its spread over half-samples of the trials.
    """

    value: float
    se: float


def sign(judge: Judge) -> int:
    """1 if higher is better, -1 if lower is."""
    return 1 if judge["better"] == "higher" else -1


def estimated(trial: Trial, judge: Judge) -> Estimate:
    """The number that judges a finished trial, with its standard error."""
    se = trial.se.get(judge["name"])
    return Estimate(trial.values[judge["name"]], math.nan if se is None else se)


def line(trial: Trial, metrics: Sequence[Judge]) -> str:
    """A trial in one line."""
    chosen = ", ".join(f"{name} {shown(value)}" for name, value in trial.settings.items())
    if trial.state == "finished":
        said = ", ".join(f"{METRICS[one['name']].label} {estimated(trial, one).text()}" for one in metrics)
    else:
        said = f"failed: {trial.why}" if trial.why else f"{trial.state} at step {trial.steps:,}"
    return f"{trial.name}: {said} ({chosen})"


def ranked(trials: Sequence[Trial], judge: Judge) -> list[Trial]:
    """The finished trials, the best first."""
    done = [one for one in trials if one.state == "finished"]
    return sorted(done, key=lambda one: -sign(judge) * one.values[judge["name"]])


def front(trials: Sequence[Trial], judges: Sequence[Judge]) -> list[Trial]:
    """The finished trials that no other one equals or surpasses in all metrics (the Pareto front)."""
    done = [one for one in trials if one.state == "finished"]
    points = np.array([[sign(j) * one.values[j["name"]] for j in judges] for one in done]).reshape(-1, len(judges))
    kept = [
        one
        for one, p in zip(done, points, strict=True)
        if not any((other >= p).all() and (other > p).any() for other in points)
    ]
    return ranked(kept, judges[0])


def lead(
    judge: Judge, first: str, second: str, valid: Mapping[str, Mapping[str, Array]],
    test: Mapping[str, Mapping[str, Array]],
) -> Lead | None:  # fmt: skip
    """The lead of one trial over another; None if the metric is not a mean over data.

    Arguments:
        valid, test: the numbers of each datum by trial and metric, and by "group" the group of each.
    """
    metric, found = judge["name"], []
    for scores in (valid, test):
        one, other = scores.get(first, {}), scores.get(second, {})
        known = metric in one and metric in other
        gain = paired(sign(judge) * one[metric], sign(judge) * other[metric], one.get("group")) if known else None
        found.append(gain)
    return None if found[0] is None else Lead(first, second, found[0], found[1])


def chances(
    judge: Judge, scores: Mapping[str, Mapping[str, Array]], *, draws: int = RESAMPLES, seed: int = 0
) -> dict[str, float]:
    """The share of bootstrap samples of the data in which each trial is the best.

    Arguments:
        scores: the numbers of each datum by trial and metric; trials without the metric are left out.
    """
    names = [name for name, found in scores.items() if judge["name"] in found]
    if not names:
        return {}
    values = sign(judge) * np.stack([scores[name][judge["name"]] for name in names])  # (T, n)
    group = scores[names[0]].get("group")
    wins = np.zeros(len(names), int)
    for rows in resampled(values.shape[1], group, draws, seed=seed):
        counts = np.bincount(rows, minlength=values.shape[1])
        wins[int((values @ counts).argmax())] += 1
    return {name: int(n) / draws for name, n in zip(names, wins, strict=True)}


def importance(study: optuna.Study, judge: int, *, seed: int = 0) -> dict[str, Importance]:
    """How much of the variance of a metric each option explains, for options that all finished trials have.

    Empty with fewer than `ENOUGH` finished trials. The values are those of Optuna's fANOVA, normalised to a sum of 1;
    the standard errors are the standard deviations over random halves of the trials (the delete-half jackknife).

    Arguments:
        judge: the position of the metric.
        seed: seed of the forests and of the halves.
    """
    from optuna.trial import TrialState as State

    trials = study.get_trials(deepcopy=False, states=(State.COMPLETE,))
    if len(trials) < ENOUGH:
        return {}
    rng = np.random.default_rng(seed)
    halves = [rng.permutation(len(trials))[: max(4, len(trials) // 2)] for _ in range(HALVES)]
    with quietly():
        whole = _anova(study, trials, judge, seed)
        parts = [_anova(study, [trials[i] for i in half], judge, seed) for half in halves]
    return {
        name: Importance(float(value), float(np.std([part.get(name, 0.0) for part in parts], ddof=1)))
        for name, value in whole.items()
    }


def _anova(study: optuna.Study, trials: Sequence[optuna.trial.FrozenTrial], judge: int, seed: int) -> dict[str, float]:
    import optuna

    chosen = optuna.create_study(directions=study.directions)
    chosen.add_trials(trials)
    forest = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=seed)
    return optuna.importance.get_param_importances(chosen, evaluator=forest, target=lambda trial: trial.values[judge])
