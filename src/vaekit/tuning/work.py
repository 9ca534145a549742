"""Running the trials of a sweep in one process: choosing settings, training, pruning, measuring."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaekit.data.core import Data
from vaekit.errors import ChoiceError, RunError, TrainingError, VaekitError
from vaekit.metrics import METRICS, Measurement
from vaekit.metrics.evaluation import entry, protocol_of, results
from vaekit.metrics.protocol import Protocol, check_comparable
from vaekit.options import Options, steps_over
from vaekit.run import Run, fit
from vaekit.runs.lock import only_trainer, only_writer
from vaekit.runs.stored import read_log
from vaekit.training.cost import choose_device
from vaekit.utils.progress import Figures, Progress

from .records import STORAGE, Judge, Settings, Trial, attribute, quietly, study_of, trials_of, write_scores
from .space import Space, built

if TYPE_CHECKING:
    import optuna

VALIDATIONS = 10
"""Validations per trial, unless the interval is given or the recipe stops early, which counts validations."""
SURE_TRIALS, SURE_VALIDATIONS = 5, 3
"""No trial is pruned before so many trials have finished, nor before its validation of this number."""
PRUNED_BY = {"elbo": "elbo", "log_px_iw": "elbo", "rate": "rate", "distortion": "distortion"}
"""The figure of a validation during training by which trials are pruned, for each metric that has one."""
BESIDE = ("elbo", "rate", "distortion")
"""Metrics that are measured beside those that judge the trials."""
HOPELESS = 3
"""A sweep ends with an error if its first so many trials fail."""
TICK = 10.0
"""Seconds between records of the time that a session has taken."""


@dataclass(frozen=True)
class Limits:
    """When a session ends: at a number of trials, or at a time in monotonic seconds."""

    trials: int | None = None
    ends: float = math.inf

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self.ends


class _Watch(Progress):
    """Reports the validations of one training to Optuna, and stops it if it is to be pruned or the time is over."""

    def __init__(
        self, trial: optuna.Trial, by: str | None, prune: bool, ends: Callable[[], bool], note: Callable[[str], None]
    ):
        self.trial, self.by, self.prune, self.ends, self.say = trial, by, prune, ends, note
        self.pruned = self.late = False
        self.seen: list[int] = []

    def report(self, step: int, figures: Mapping[str, Any]) -> None:
        """Report a validation at this step, once."""
        value = None if self.by is None else figures.get(self.by)
        if value is not None and step not in self.seen:
            self.seen.append(step)
            self.trial.report(float(value), len(self.seen))

    def update(self, step: int, horizon: int, epoch: float, train: Figures, valid: Figures, per_second: float) -> None:
        if valid:
            self.report(int(valid["step"]), valid)
        if self.prune and self.seen and step < horizon and self.trial.should_prune():
            self.pruned = self.stop = True
        elif self.ends():
            self.late = self.stop = True

    def note(self, text: str) -> None:
        self.say(text)


class Worker:
    """Runs trials of a sweep until a limit is reached.

    Arguments:
        folder: the sweep's directory, which has its sweep.json and its optuna.sqlite.
        space: the options that the sweep chooses.
        data: the data.
        limits: when it ends.
        number: its number among the processes of the session.
        on_trial: called after each trial.
        on_note: called with each note of a training that no earlier one had.
        tick: called every `TICK` seconds at most, during training.
        parent: the process that must run beside this one; the worker ends with it.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        space: Space,
        data: Data,
        limits: Limits,
        *,
        number: int = 0,
        on_trial: Callable[[Trial], None] | None = None,
        on_note: Callable[[str], None] | None = None,
        tick: Callable[[], None] | None = None,
        parent: int | None = None,
    ):
        self.folder, self.settings, self.space, self.data, self.limits = folder, settings, space, data, limits
        self.number, self.on_trial, self.tick, self.parent = number, on_trial, tick, parent
        self.on_note, self.notes = on_note, set[str]()
        self.ticked = time.monotonic()
        self.metrics: list[Judge] = settings["metrics"]
        self.study = study_of(folder, settings)
        self.study.pruner = pruner(settings)

    # --- the loop -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run trials.

        Raises:
            ChoiceError: the trials cannot be compared with each other, or a metric does not apply.
            VaekitError: the first trials all failed; the error of the last one.
            KeyboardInterrupt: training was interrupted; the trial is kept and resumed by the next session.
        """
        with quietly():
            while not self.ended() and (asked := self.ask()) is not None:
                self.run_trial(*asked)

    def ended(self) -> bool:
        """Whether this process must end: the time is over, or the session's first process is gone."""
        now = time.monotonic()
        if self.tick is not None and now - self.ticked > TICK:
            self.ticked = now
            self.tick()
        return self.limits.over or (self.parent is not None and os.getppid() != self.parent)

    def note(self, text: str) -> None:
        """Tell the caller about a note of a training, once."""
        if self.on_note is not None and text not in self.notes:
            self.on_note(text)
        self.notes.add(text)

    def ask(self) -> tuple[optuna.Trial, str, dict[str, Any]] | None:
        """The next trial with its name and settings: an unfinished one first; None if there are enough."""
        from optuna.trial import TrialState as State

        with only_writer(self.folder / STORAGE):
            begun = trials_of(self.folder, self.study)
            waiting = self.study.get_trials(deepcopy=False, states=(State.WAITING,))
            if not waiting and self.limits.trials is not None and len(begun) >= self.limits.trials:
                return None
            self.study.sampler = sampler(self.settings, self.space, len(begun), self.number)
            trial = self.study.ask()
            name = trial.user_attrs.get("run", f"trial-{len(begun):03d}")
            settings = self.space.choose(lambda one: one.suggested(trial))
            attribute(trial, run=name, settings=settings)
        return trial, name, settings

    def run_trial(self, trial: optuna.Trial, name: str, settings: dict[str, Any]) -> None:
        """Train and measure one trial, and store its result."""
        from optuna.trial import TrialState as State

        path = self.folder / name
        by = PRUNED_BY.get(self.metrics[0]["name"]) if len(self.metrics) == 1 else None
        watch = _Watch(trial, by, self.settings["prune"] and by is not None, self.ended, self.note)
        for record in read_log(path) if (path / "run.json").exists() else ():
            if record["kind"] == "valid":
                watch.report(record["step"], record)
        try:
            run = self.train(path, settings, watch)
            attribute(trial, steps=run.config.get("step", 0), seconds=run.config.get("seconds", 0.0))
            if run.state == "interrupted" and watch.late:
                return  # the next session resumes it
            if run.state == "interrupted" and watch.pruned:
                self.study.tell(trial, state=State.PRUNED)
            else:
                self.study.tell(trial, self.measure(run, trial, name))
        except (VaekitError, MemoryError, RuntimeError) as error:
            self.failed(trial, error)
        self.say(name)

    def train(self, path: Path, settings: dict[str, Any], watch: _Watch) -> Run:
        """The trained run of a trial."""
        arguments, training = self.space.split(settings)
        options = {**self.settings["training"], **training}
        arguments = {**self.space.fixed, **arguments}
        options.setdefault("validate_steps", validate_steps(self.space.recipe, self.data, arguments, options))
        return fit(
            self.data, self.space.recipe, out=path, exists="resume", progress=watch, on_interrupt="raise",
            **arguments, **{name: value for name, value in options.items() if value is not None},
        )  # fmt: skip

    def failed(self, trial: optuna.Trial, error: Exception) -> None:
        """Store a trial whose training failed; raise errors that say nothing about its settings."""
        from optuna.trial import TrialState as State

        memory = isinstance(error, MemoryError) or (not isinstance(error, VaekitError) and "memory" in str(error))
        if not (memory or isinstance(error, VaekitError)) or isinstance(error, RunError | _Incomparable):
            raise error
        attribute(trial, why="out of memory" if memory else str(error))
        self.study.tell(trial, state=State.PRUNED)
        begun = [one for one in trials_of(self.folder, self.study) if one.state != "unfinished"]
        if len(begun) >= HOPELESS and all(one.state == "failed" for one in begun) and not memory:
            if isinstance(error, TrainingError):
                raise TrainingError(f"the first {len(begun)} trials failed; the last one: {error}") from error
            raise error

    def say(self, name: str) -> None:
        """Tell the caller about a trial that has ended."""
        if self.on_trial is not None:
            self.on_trial(next(one for one in trials_of(self.folder, self.study) if one.name == name))

    # --- measuring ----------------------------------------------------------------------------------------------

    def measure(self, run: Run, trial: optuna.Trial, name: str) -> list[float]:
        """Measure a trained trial on validation data, store the numbers, and return those that judge it.

        Raises:
            TrainingError: a number is not finite.
            ChoiceError: a metric does not apply, or its number cannot be compared with that of an earlier trial.
        """
        found = scored(run, self.settings, "valid")
        names = [one["name"] for one in self.metrics]
        for metric in names:
            if not math.isfinite(found.values[metric]):
                raise TrainingError(f"{metric} of the trained model is {found.values[metric]}")
        self.check_protocol(name, found)
        write_scores(self.folder, name, "valid", found.per_datum)
        attribute(
            trial,
            values={metric: found.values[metric] for metric in names},
            se={metric: found.se[metric] for metric in names},
            beside={metric: value for metric, value in found.values.items() if metric not in names},
            protocol={metric: found.protocol[metric] for metric in names},
        )
        return [found.values[metric] for metric in names]

    def check_protocol(self, name: str, found: Scored) -> None:
        """Raises ChoiceError unless the numbers were measured like those of the trials before."""
        for other in self.study.get_trials(deepcopy=False):
            for metric, protocol in other.user_attrs.get("protocol", {}).items():
                one, before = (Protocol(**{"groups": None, **p}) for p in (found.protocol[metric], protocol))
                try:
                    check_comparable(one, before)
                except ChoiceError as error:
                    raise _Incomparable(
                        f"{metric} of {name} and of {other.user_attrs['run']} cannot be compared: {error}. Omit the "
                        "option from `over` that changes what is measured"
                    ) from None


class _Incomparable(ChoiceError):
    """Two trials were measured differently."""


@dataclass(frozen=True)
class Scored:
    """Metrics of a model on one split, by name.

    Attributes:
        values, se: the value and its standard error over the data.
        per_datum: the number of each datum, (n,), of metrics that are means; `group` has the group of each datum.
        protocol: everything that the value depends on besides the model.
    """

    values: dict[str, float]
    se: dict[str, float | None]
    per_datum: dict[str, np.ndarray]
    protocol: dict[str, dict[str, Any]]


def scored(run: Run, settings: Settings, split: str) -> Scored:
    """The metrics that judge a sweep, with ELBO, rate and distortion, of a model on a split.

    Raises:
        ChoiceError: a metric does not apply to the model, or is not a single number.
    """
    names = [one["name"] for one in settings["metrics"]]
    device = choose_device(run.options.device, run.composition.observation.in_double)
    m = Measurement(run.to(device), split, n=settings["rows"], samples=settings["samples"], seed=settings["seed"],
                    compile=False)  # fmt: skip
    beside = [name for name in BESIDE if name not in names and METRICS[name].lacking(m) is None]
    asked = [METRICS[name] for name in names]
    values, se, per_datum, protocols, entries = {}, {}, {}, {}, []
    for metric, result in [*results(asked, m, asked=names), *results([METRICS[n] for n in beside], m, asked=beside)]:
        measured = entry(metric, m, result)
        if not isinstance(measured["value"], int | float):
            raise _Incomparable(f"{metric.name} is no single number, so it cannot judge trials: choose other `metrics`")
        values[metric.name] = float(measured["value"])
        se[metric.name] = measured["se"] if isinstance(measured["se"], float) else None
        same = result.estimator if result.comparable is None else result.comparable
        protocols[metric.name] = protocol_of(metric, m, result, estimator=same)
        if result.per_datum is not None and result.rows is None:
            per_datum[metric.name] = np.asarray(result.per_datum, np.float64)
        entries.append(measured)
    if m.groups is not None:
        per_datum["group"] = np.unique(m.groups, return_inverse=True)[1].ravel().astype(np.float64)
    if all(math.isfinite(value) for value in values.values()):
        run.add_metrics(entries)
    return Scored(values, se, per_datum, protocols)


def validate_steps(recipe: str, data: Data, arguments: Mapping[str, Any], training: Mapping[str, Any]) -> int | None:
    """Steps between the validations of a trial: a tenth of its length, whatever its batch size.

    None, which leaves it to training, if early stopping counts the validations.
    """
    options = Options(**training).with_defaults(built(recipe, data, arguments).defaults)
    if options.patience:
        return None
    steps = steps_over(len(data.train), options.over().batch, steps=options.steps, epochs=options.epochs)
    return None if steps is None else math.ceil(steps / VALIDATIONS)


# --- Optuna -----------------------------------------------------------------------------------------------------


def sampler(settings: Settings, space: Space, begun: int, number: int) -> optuna.samplers.BaseSampler:
    """The sampler of one trial: TPE (Bergstra et al. 2011), multivariate for one metric.

    Its seed is a function of the sweep's seed, the number of trials begun and the process, so that a sweep of one
    process that was interrupted chooses the same settings as one that was not.
    """
    import optuna

    one = len(settings["metrics"]) == 1
    seed = int(np.random.SeedSequence([abs(settings["seed"]), begun, number]).generate_state(1)[0])
    return optuna.samplers.TPESampler(seed=seed, multivariate=one, group=one and space.conditional, constant_liar=True)


def pruner(settings: Settings) -> optuna.pruners.BasePruner:
    """The pruner: a trial ends if its best validation so far is worse than the median of the others' at that point."""
    import optuna

    if not settings["prune"] or len(settings["metrics"]) > 1:
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=SURE_TRIALS, n_warmup_steps=SURE_VALIDATIONS)


def recover(folder: Path, study: optuna.Study) -> None:
    """Queue the trials that an earlier session left unfinished, so that they are resumed first.

    Raises:
        RunError: a process of an earlier session still trains one of them.
    """
    from optuna.trial import TrialState as State

    queued = {one.user_attrs.get("run") for one in study.get_trials(deepcopy=False, states=(State.WAITING,))}
    for one in study.get_trials(deepcopy=False, states=(State.RUNNING,)):
        run = one.user_attrs.get("run")
        if run is not None and (folder / run).is_dir():
            _wait_for(folder / run)
        if run is not None and run not in queued:  # before `tell`, so that a stop in between does not lose it
            study.enqueue_trial(one.params, user_attrs=one.user_attrs)
        study.tell(one.number, state=State.FAIL)


PATIENCE = 60.0
"""Seconds to wait for a process of an earlier session that ends with its parent."""


def _wait_for(path: Path) -> None:
    """Wait until nobody trains the run at `path`."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with only_trainer(path):
                return
        except RunError:
            if time.monotonic() > until:
                raise
        time.sleep(0.2)
