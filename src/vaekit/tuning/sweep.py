"""`tune`: choose options by training models with many settings; `Sweep`: what it has found."""

from __future__ import annotations

import contextlib
import datetime
import functools
import platform
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaekit.data.core import Data
from vaekit.data.loading import data_of
from vaekit.errors import ChoiceError, RunError
from vaekit.metrics import METRICS
from vaekit.options import Options
from vaekit.run import Run, fit, open_run
from vaekit.runs.lock import only_trainer
from vaekit.runs.stored import write_splits
from vaekit.studies.words import Estimate, estimate
from vaekit.utils.files import checked_path
from vaekit.utils.progress import say

from . import analysis
from .analysis import Importance, Lead
from .records import (
    FORMAT,
    PAGE,
    SETTINGS,
    SETTLED,
    STORAGE,
    Judge,
    Settings,
    Trial,
    judges,
    quietly,
    read_scores,
    read_settings,
    require,
    study_of,
    trials_of,
    write_scores,
    write_settings,
)
from .sessions import describe, stored_data, stored_space, together
from .space import Over, Space, check, space
from .work import Limits, Worker, recover, scored, validate_steps

if TYPE_CHECKING:
    import optuna

TRIALS = 20
"""The number of trials, if neither trials nor minutes are given."""
ROWS, SAMPLES = 5000, 10
"""The first validation rows that judge trials, and the draws of z for each."""
HELD_OUT = 3
"""The best trials that are also measured on test data."""


def tune(
    data: Data | Any = None,
    recipe: str = "vae",
    *,
    over: Over,
    metrics: str | Sequence[str] = "elbo",
    trials: int | None = None,
    minutes: float | None = None,
    jobs: int = 1,
    prune: bool = True,
    out: str | Path | None = None,
    seed: int = 0,
    progress: bool | Callable[[Trial], None] = True,
    **choices: Any,
) -> Sweep:
    """Choose options by Optuna: train many settings, stop hopeless ones early, and judge the others on validation data.

    Trials are judged by `metrics` of the validation split, by default the ELBO with a KL weight of 1, whatever `beta`
    they train with. The result is a directory (`Sweep`), which the same call continues after an interruption, or
    with more `trials` or `minutes`. Finished trials are kept.

    Arguments:
        data: `Data`, or an argument of `load` or `from_arrays`.
        recipe: name of a recipe.
        over: what to choose, as text such as `"latent=2..64:log,lr=1e-4..1e-2:log,activation=silu|relu"`, or as
            {"latent": "2..64:log", "activation": ["silu", "relu"]}. A range has the type of its option: whole numbers
            for `latent`. `:log` spaces numbers by their logarithm, `:8` by steps of 8.
        metrics: one metric, or several for their Pareto front, such as "rate,distortion"; `NAME:lower` gives a
            direction to a metric that has none.
        trials, minutes: the number of trials and the time, over all calls; the sweep ends with the first that is
            reached. By default 20 trials.
        jobs: processes that train at the same time, each with its share of the threads. The data must then have a name
            or a path.
        prune: stop a trial if its validation bound is below the median of the trials before, at the same share of the
            training. Applies to one metric that validations during training measure.
        out: the directory; by default sweeps/DATA-RECIPE.
        seed: seed of all trainings, which thus share initial weights and noise as far as their shapes agree, and of the
            choice of settings.
        progress: whether to print a line for each trial; or called with each.
        choices: arguments of the recipe and training options that all trials share.

    Raises:
        ChoiceError: an option is unknown, or its values are not valid, do not fit each other, or would make trials
            that cannot be compared; raised before anything is trained. Or Optuna is not installed.
        RunError: the directory holds another sweep, or another process runs this one.
        KeyboardInterrupt: the sweep was interrupted; the same call continues it.

    Example:
        sweep = vk.tune("digits", over="latent=2..32:log,lr=1e-4..1e-2:log", trials=20, steps=500)
        sweep.best.settings, sweep.best.values
        run = sweep.fit_best(out="runs/best", steps=5000)
    """
    require()
    begun = time.monotonic()
    _check_limits(trials, minutes, jobs)
    options, arguments = _split(choices, seed)
    found = space(over, recipe, arguments, options)
    judged = judges(metrics if isinstance(metrics, str) else list(metrics))
    data = _data(data, out)
    folder = checked_path(out) if out is not None else default_folder(data.name, recipe)
    if jobs > 1 and not isinstance(data.source, str):
        raise ChoiceError(
            "`jobs` above 1 needs data that other processes can read: save the arrays as a .npz file and pass its path"
        )
    check(found, data, options, [one["name"] for one in judged])
    settings = _settings(data, found, options, judged, prune, seed)
    with contextlib.ExitStack() as stack:
        settings = _begin(folder, data, settings, stack)
        spent = sum(one["seconds"] for one in settings["sessions"])
        ends = float("inf") if minutes is None else begun + max(60 * minutes - spent, 0.0)
        limits = Limits(TRIALS if trials is None and minutes is None else trials, ends)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        settings["sessions"].append({"started": now, "seconds": 0.0, "jobs": jobs})
        _session(folder, settings, found, data, limits, jobs, begun, progress)
    sweep = Sweep(folder, data=data)
    sweep.hold_out()
    sweep.report()
    return sweep


def _session(
    folder: Path, settings: Settings, found: Space, data: Data, limits: Limits, jobs: int, begun: float,
    progress: bool | Callable[[Trial], None],
) -> None:  # fmt: skip
    """Run trials until a limit is reached, and record the time that it takes."""
    study = study_of(folder, settings)

    def tick() -> None:
        settings["sessions"][-1]["seconds"] = round(time.monotonic() - begun, 3)
        _summarise(settings, trials_of(folder, study))
        write_settings(folder, settings)

    def told(trial: Trial) -> None:
        tick()
        if callable(progress):
            progress(trial)
        elif progress:
            say(line(trial, settings["metrics"]))

    with quietly():
        recover(folder, study)
        tick()
        try:
            if jobs == 1:
                Worker(folder, settings, found, data, limits, on_trial=told, tick=tick).run()
            else:
                together(folder, settings, limits, jobs, on_trial=told, tick=tick)
        finally:
            tick()


def line(trial: Trial, metrics: Sequence[Judge]) -> str:
    """A trial in one line."""
    chosen = ", ".join(f"{name} {_written(value)}" for name, value in trial.settings.items())
    if trial.state == "finished":
        said = ", ".join(
            f"{METRICS[one['name']].label} {Estimate(trial.values[one['name']], trial.se.get(one['name']) or np.nan).text()}"
            for one in metrics
        )
    else:
        said = f"failed: {trial.why}" if trial.why else f"{trial.state} at step {trial.steps:,}"
    return f"{trial.name}: {said} ({chosen})"


# --- before training --------------------------------------------------------------------------------------------


def _check_limits(trials: int | None, minutes: float | None, jobs: int) -> None:
    for name, value in (("trials", trials), ("minutes", minutes), ("jobs", jobs)):
        if value is not None and not value > 0:
            raise ChoiceError(f"`{name}` must be above 0, got {value}")


def _split(choices: Mapping[str, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of training, checked, and arguments of the recipe."""
    names = set(Options.__dataclass_fields__)
    options = {k: v for k, v in choices.items() if k in names and v is not None} | {"seed": seed}
    Options(**options).checked()
    if options.get("devices", 1) != 1:
        raise ChoiceError("a trial trains on one device: use `jobs` to train several trials at once, and omit `devices`")
    return options, {k: v for k, v in choices.items() if k not in names}


def default_folder(data: str, recipe: str) -> Path:
    """The default directory of a sweep: sweeps/DATA-RECIPE."""
    name = re.sub(r"[^\w.-]+", "-", data).strip("-.") or "data"
    return Path("sweeps") / f"{name}-{recipe}"


def _data(data: Any, out: str | Path | None) -> Data:
    if data is not None:
        return data_of(data)
    if out is None or not (checked_path(out) / SETTINGS).is_file():
        raise ChoiceError("a sweep needs data: a name, a path, arrays or a frame")
    folder = checked_path(out)
    return stored_data(folder, read_settings(folder))


def _settings(
    data: Data, found: Space, options: Mapping[str, Any], judged: list[Judge], prune: bool, seed: int
) -> Settings:
    """The content of sweep.json before the first trial."""
    import optuna
    import torch

    import vaekit

    versions = {"vaekit": vaekit.__version__, "optuna": optuna.__version__, "torch": torch.__version__}
    return {
        "format": FORMAT,
        "recipe": found.recipe,
        "data": describe(data),
        "over": found.text,
        "choices": {k: list(v) if isinstance(v, tuple) else v for k, v in found.fixed.items()},
        "training": dict(options),
        "metrics": judged,
        "rows": min(ROWS, len(data.valid)),
        "samples": SAMPLES,
        "prune": prune,
        "seed": seed,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {**versions, "python": platform.python_version()},
        "sessions": [],
    }


def _begin(folder: Path, data: Data, settings: Settings, stack: contextlib.ExitStack) -> Settings:
    """Lock the sweep's directory; make it, or check that it holds the same sweep, whose settings are returned.

    Raises:
        RunError: it holds something else, or a sweep with other settings or data.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file: choose another `out` for the sweep")
    if not (folder / SETTINGS).exists():
        ours = (STORAGE, "splits.safetensors")
        if folder.is_dir() and any(not (p.name in ours or p.name.startswith(".")) for p in folder.iterdir()):
            raise RunError(f"{folder} holds other files: choose another `out` for the sweep")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make {folder}: {error.strerror}; choose another `out`") from error
        stack.enter_context(only_trainer(folder))
        with quietly():
            study_of(folder, settings, create=True)
        write_splits(folder, {part: getattr(data, part).index for part in ("train", "valid", "test")})
        write_settings(folder, settings)
        return settings
    stack.enter_context(only_trainer(folder))
    stored = read_settings(folder)
    for name in SETTLED:
        before, now = stored[name], settings[name]  # type: ignore[literal-required]
        if before != now:
            raise RunError(
                f"the sweep in {folder} has {_differing(name, before, now)}: omit the change to continue it, or choose "
                "another `out`"
            )
    if not data.is_same(stored["data"]["digest"]):
        raise RunError(f"the sweep in {folder} was started with other data: choose another `out`")
    return stored


def _differing(name: str, before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        key = next(k for k in {**before, **now} if before.get(k) != now.get(k))
        return f"`{key}` {before.get(key, 'not given')}, not {now.get(key, 'without it')}"
    if name == "metrics":
        before, now = (",".join(one["name"] for one in judged) for judged in (before, now))
    return f"`{name}` {before}, not {now}"


def _summarise(settings: Settings, trials: Sequence[Trial]) -> None:
    best = analysis.front(trials, settings["metrics"])
    settings["best"] = best[0].name if best and len(settings["metrics"]) == 1 else None
    settings["trials"] = [one.as_json() for one in trials]


# --- the result -------------------------------------------------------------------------------------------------


class Sweep:
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

    def confirm(self, *, n: int = 2, seeds: int = 3, progress: bool = True) -> dict[str, list[float]]:
        """Train the n best trials again with other seeds, and measure them on test data.

        The runs are kept in `confirmed/`, and calling it again continues. With the same seeds for all trials, the
        differences are paired by seed.

        Returns:
            by trial, the first metric of each seed on test data.
        """
        values: dict[str, list[float]] = {}
        for one in self.ranked[:n]:
            for seed in range(self.settings["seed"] + 1, self.settings["seed"] + 1 + seeds):
                out = self.path / "confirmed" / f"{one.name}-seed-{seed}"
                run = self._train(one, {"out": out, "exists": "resume", "seed": seed, "progress": False})
                found = scored(run, self.settings, "test").values[self.metrics[0]["name"]]
                values.setdefault(one.name, []).append(found)
                if progress:
                    say(f"{one.name}, seed {seed}: {METRICS[self.metrics[0]['name']].label} {found:,.4g} on test data")
        return values

    def confirmed(self) -> dict[str, list[float]]:
        """The results of `confirm` so far, without training; empty if it was not called."""
        name, found = self.metrics[0]["name"], {}
        for one in self.ranked:
            runs = sorted((self.path / "confirmed").glob(f"{one.name}-seed-*/metrics.json"))
            stored = [[m for m in open_run(file.parent).metrics if m["name"] == name] for file in runs]
            values = [ms[-1]["value"] for ms in stored if ms]
            if values:
                found[one.name] = values
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

    def command(self, trial: Trial | None = None, out: str | None = None) -> str:
        """The `vaekit fit` command that trains a trial (by default the best) again, to the same weights."""
        one = self.best if trial is None else trial
        data = self.settings["data"]
        words = ["vaekit", "fit", shlex.quote(str(data["source"] or "DATA")), "--recipe", self.settings["recipe"]]
        named = {**data["options"], **self.arguments(one), "out": out or f"runs/{self.path.name}-best"}
        for name, value in named.items():
            words += _flag(name, value)
        return " ".join(words)

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
            for name in ("epochs", "steps", *(["validate_steps"] if "validate_steps" not in self._asked else [])):
                arguments.pop(name, None)
        return fit(self.data, self.settings["recipe"], **{**arguments, **changes})

    @property
    def _asked(self) -> dict[str, Any]:
        return self.settings["training"]

    def report(self, path: str | Path | None = None) -> Path:
        """Write the page about the sweep, and return its path; by default sweep.html in its directory."""
        from .page import write_sweep

        return write_sweep(self, self.path / PAGE if path is None else checked_path(path))


def _flag(name: str, value: Any) -> Iterator[str]:
    """An argument as the words of a command."""
    flag = name.replace("_", "-")
    if value is None:
        return
    if isinstance(value, bool):
        yield f"--{flag}" if value else f"--no-{flag}"
        return
    if isinstance(value, Mapping):
        value = ",".join(f"{key}={one}" for key, one in value.items())
    yield f"--{flag}"
    for part in value if isinstance(value, list | tuple) else [value]:
        yield shlex.quote(repr(part) if isinstance(part, float) else str(part))


def _written(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def across_seeds(values: Mapping[str, Sequence[float]], first: str, second: str) -> Estimate | None:
    """The mean difference of two confirmed trials, paired by seed, with its error over seeds."""
    one, other = values.get(first, []), values.get(second, [])
    shared = min(len(one), len(other))
    return estimate(np.subtract(one[:shared], other[:shared])) if shared > 1 else None


