"""The trials of a sweep read from its directory: how sure the best one is, and what to do with it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaekit.data.core import Data
from vaekit.data.loading import data_of
from vaekit.errors import ChoiceError, RunError
from vaekit.metrics import METRICS
from vaekit.run import Run, fit, open_run
from vaekit.studies.words import Estimate, estimate, number
from vaekit.utils.files import checked_path
from vaekit.utils.progress import say

from . import analysis
from .analysis import Importance, Lead
from .commands import fitting
from .records import (
    Judge,
    Trial,
    quietly,
    read_scores,
    read_settings,
    require,
    study_of,
    trials_of,
    write_scores,
)
from .sessions import stored_data, stored_space
from .work import scored, validate_steps

if TYPE_CHECKING:
    import optuna

CONFIRMED = "confirmed"
"""The folder of the runs with other seeds."""
HELD_OUT = 3
"""The best trials that are also measured on test data."""


class StoredSweep:
    """The trials of a sweep, read from its directory.

    Attributes:
        path: the directory.
        settings: the content of sweep.json.
        trials: all trials, in the order in which they began.

    Arguments:
        path: the directory.
        data: the data, if they were arrays in memory or have moved.
    """

    def __init__(self, path: str | Path, *, data: Any = None):
        require()
        self.path = checked_path(path)
        self.settings = read_settings(self.path)
        self._data = None if data is None else data_of(data)
        with quietly():
            self.trials = trials_of(self.path, self.study)

    def __repr__(self) -> str:
        """The state of the sweep in one line."""
        states = [one.state for one in self.trials]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "none"
        return f"sweep of {self.settings['recipe']} over {', '.join(self.settings['over'])}: trials: {counts}"

    @functools.cached_property
    def study(self) -> optuna.Study:
        """The Optuna study, for its visualisations and other tools."""
        return study_of(self.path, self.settings)

    @property
    def data(self) -> Data:
        """The data, in the splits of the sweep."""
        if self._data is None:
            self._data = stored_data(self.path, self.settings)
        return self._data

    @property
    def metrics(self) -> list[Judge]:
        """The metrics that judge trials, with their better directions."""
        return self.settings["metrics"]

    @property
    def front(self) -> list[Trial]:
        """The Pareto front: the finished trials that no other one surpasses in all metrics."""
        return analysis.front(self.trials, self.metrics)

    @property
    def ranked(self) -> list[Trial]:
        """The finished trials, the best by the first metric first."""
        return analysis.ranked(self.trials, self.metrics[0])

    @property
    def best(self) -> Trial:
        """The best trial.

        Raises:
            ChoiceError: several metrics judge the trials: choose one of `front`.
            RunError: no trial has finished.
        """
        if len(self.metrics) > 1:
            names = ", ".join(one.name for one in self.front)
            raise ChoiceError(f"several metrics have no single best trial: choose one of `front` ({names})")
        if not self.ranked:
            raise RunError(
                f"no trial of {self.path} has finished: continue the sweep with more `minutes`, or start another with "
                "shorter trials, such as `steps=1000`"
            )
        return self.ranked[0]

    def run(self, trial: Trial | str) -> Run:
        """The run of a trial, opened."""
        return open_run(self.path / (trial if isinstance(trial, str) else trial.name), data=self.data)

    def table(self) -> list[dict[str, Any]]:
        """One record for each trial, for `pandas.DataFrame(sweep.table())`."""
        return [
            {"trial": one.name, "state": one.state, **one.settings, **one.beside, **one.values, "steps": one.steps,
             "seconds": one.seconds}
            for one in self.trials
        ]  # fmt: skip

    # --- how sure is the best? ----------------------------------------------------------------------------------

    def scores(self, split: str = "valid") -> dict[str, dict[str, np.ndarray]]:
        """The numbers of each datum of a split by finished trial and metric, each (n,)."""
        found = {one.name: read_scores(self.path, one.name, split) for one in self.trials if one.state == "finished"}
        return {name: scores for name, scores in found.items() if scores}

    def hold_out(self, *, n: int = HELD_OUT) -> None:
        """Measure the n best trials (or those of the Pareto front) on test data, which had no part in the choice."""
        for one in (self.ranked if len(self.metrics) == 1 else self.front)[:n]:
            if not read_scores(self.path, one.name, "test"):
                found = scored(self.run(one), self.settings, "test")
                write_scores(self.path, one.name, "test", found.per_datum)

    @property
    def lead(self) -> Lead | None:
        """The lead of the best trial over the second; None if there is none, or the metric is not a mean over data."""
        if len(self.metrics) > 1 or len(self.ranked) < 2:
            return None
        first, second = (one.name for one in self.ranked[:2])
        return analysis.lead(self.metrics[0], first, second, self.scores("valid"), self.scores("test"))

    @property
    def chances(self) -> dict[str, float]:
        """The share of bootstrap samples of the validation data in which each trial is the best, by name."""
        return analysis.chances(self.metrics[0], self.scores("valid"), seed=self.settings["seed"])

    def importance(self, metric: str | None = None) -> dict[str, Importance]:
        """How much of the variance of a metric each option explains; empty with few finished trials.

        Options that only some trials have are left out.
        """
        names = [one["name"] for one in self.metrics]
        if metric is not None and metric not in names:
            raise ChoiceError(f"the metric {metric!r} does not judge this sweep; choose from {', '.join(names)}")
        where = 0 if metric is None else names.index(metric)
        return analysis.importance(self.study, where, seed=self.settings["seed"])

    def confirm(self, *, n: int = 2, seeds: int = 3, progress: bool = True) -> dict[str, dict[int, float]]:
        """Train the n best trials again with other seeds, and measure them on test data.

        The runs are kept in `confirmed/`, and calling it again continues.

        Returns:
            the first metric on test data, by trial and seed.
        """
        name: str = self.metrics[0]["name"]
        values: dict[str, dict[int, float]] = {}
        for one in self.ranked[:n]:
            for seed in range(self.settings["seed"] + 1, self.settings["seed"] + 1 + seeds):
                out = self.path / CONFIRMED / f"{one.name}-seed-{seed}"
                run = self._train(one, {"out": out, "exists": "resume", "seed": seed, "progress": False})
                found = scored(run, self.settings, "test").values[name]
                values.setdefault(one.name, {})[seed] = found
                if progress:
                    say(f"{one.name}, seed {seed}: {METRICS[name].label} {number(found)} on test data")
        return values

    def confirmed(self) -> dict[str, dict[int, float]]:
        """The results of `confirm` so far, without training; empty if it was not called."""
        name = self.metrics[0]["name"]
        found: dict[str, dict[int, float]] = {}
        for one in self.ranked:
            for file in (self.path / CONFIRMED).glob(f"{one.name}-seed-*/metrics.json"):
                run = open_run(file.parent)
                values = [m["value"] for m in run.metrics if m["name"] == name and m["protocol"]["split"] == "test"]
                if values:
                    found.setdefault(one.name, {})[run.options.seed] = values[-1]
        return found

    # --- using the best -----------------------------------------------------------------------------------------

    def arguments(self, trial: Trial | None = None) -> dict[str, Any]:
        """The arguments of `vk.fit`, besides the data, that train a trial (by default the best) again."""
        one = self.best if trial is None else trial
        found = stored_space(self.settings)
        arguments, training = found.split(one.settings)
        options = {**self.settings["training"], **training}
        chosen = {**found.fixed, **arguments}
        every = validate_steps(found.recipe, self.data, chosen, options)
        options.setdefault("validate_steps", every)
        return {**chosen, **{name: value for name, value in options.items() if value is not None}}

    def command(self, trial: Trial | None = None, *, out: str | None = None) -> str:
        """The `vaekit fit` command that trains a trial (by default the best) again, to the same weights."""
        one = self.best if trial is None else trial
        return fitting(self.settings, self.arguments(one), out or f"runs/{self.path.name}-best")

    def fit_best(self, *, out: str | Path | None = None, **changes: Any) -> Run:
        """Train a new run with the settings of the best trial, such as for longer.

        Arguments:
            out: the run directory; by default `best` in the sweep's directory.
            changes: arguments of `vk.fit` that replace those of the trial, such as `steps=20_000` or `exists="resume"`.
        """
        return self._train(self.best, {"out": self.path / "best" if out is None else out, **changes})

    def _train(self, trial: Trial, changes: Mapping[str, Any]) -> Run:
        arguments = self.arguments(trial)
        if {"epochs", "steps", "minutes"} & set(changes):  # another length, with validations at its usual interval
            for name in (
                "epochs",
                "steps",
                *(["validate_steps"] if "validate_steps" not in self.settings["training"] else []),
            ):
                arguments.pop(name, None)
        return fit(self.data, self.settings["recipe"], **{**arguments, **changes})


def across_seeds(values: Mapping[str, Mapping[int, float]], first: str, second: str) -> Estimate | None:
    """The mean difference of two confirmed trials, paired by seed, with its error over seeds."""
    one, other = values.get(first, {}), values.get(second, {})
    shared = sorted(set(one) & set(other))
    return estimate(np.array([one[seed] - other[seed] for seed in shared])) if len(shared) > 1 else None
