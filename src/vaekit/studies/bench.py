"""The workbench of a study: its data, its time budget, and models that are trained for equal steps and kept."""

from __future__ import annotations

import functools
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from vaekit.data.core import Data
from vaekit.data.observation import Binary, FrozenDraw
from vaekit.errors import RunError
from vaekit.metrics import PerDatum, per_datum
from vaekit.options import ADAMS
from vaekit.recipes import get_recipe
from vaekit.recipes.composition import DataSpec
from vaekit.run import Run, fit, open_run
from vaekit.runs.configuration import Configuration, options_of
from vaekit.runs.observed import Observed
from vaekit.runs.stored import read_config
from vaekit.runs.trained import TrainedModel
from vaekit.training.cost import choose_device, work
from vaekit.utils.files import read_json, write_json
from vaekit.utils.progress import Figures, Progress

OnProgress = Callable[[str, int, int], None]
PILOT = 25  # steps that measure the time per step
COMPILED_PILOT = 150  # the same for compiled models, whose first step takes as long as a thousand others
LEAST = 50  # minimum number of steps of a training round
LATE = 1.5  # a training is stopped when it has taken this many times its estimated time
ROOM = 0.9  # share of the remaining time that a round is planned to take
QUICK, FULL = 0.5, 8.0  # minutes of a quick and of a full study; sizes grow between them
DEFAULTS: dict[str, Any] = {"schedule": "constant", "compile": "off"}
"""Training options. The learning rate is constant, because a study may be resumed for any number of steps."""


@dataclass(frozen=True)
class Plan:
    """A model to train.

    Attributes:
        recipe: the name of its recipe.
        choices: arguments of the recipe.
        training: options of training (`vaekit.Options`).
    """

    recipe: str = "vae"
    choices: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pilot(self) -> int:
        """Number of steps that measure the time per step."""
        return COMPILED_PILOT if self.training.get("compile") == "on" else PILOT

    @property
    def settings(self) -> str:
        """The recipe and its settings as one would type them on the command line."""
        settings = {**self.choices, **{k: v for k, v in self.training.items() if DEFAULTS.get(k) != v}}
        words = [f"--{k.replace('_', '-')} {_typed(v)}" for k, v in settings.items()]
        return " ".join([self.recipe, *words])

    def cost(self, data: Data) -> float:
        """A rough time per training step in seconds, from the number of multiplications."""
        composition = get_recipe(self.recipe)(DataSpec.of(data), **self.choices)
        samples = self.choices.get("samples") or 1
        batch = self.training.get("batch") or composition.defaults.batch
        return work(composition, data.shape).seconds(batch * samples)


def _typed(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


class Speed(NamedTuple):
    """The cost of one training.

    Attributes:
        step: seconds per step.
        fixed: seconds for everything else.
    """

    step: float
    fixed: float


class _Watch(Progress):
    """Progress of one training: reports its steps, measures the time per step, and stops it at a deadline."""

    def __init__(self, report: Callable[[int], None], deadline: float):
        self.report, self.deadline = report, deadline
        self.begun, self.first = time.monotonic(), 0
        self.marks: list[tuple[int, float]] = []

    def start(self, config: Configuration) -> None:
        self.begun, self.first = time.monotonic(), config.get("step", 0)

    def update(self, step: int, horizon: int, epoch: float, train: Figures, valid: Figures, per_second: float) -> None:
        self.marks.append((step, time.monotonic()))
        self.stop = time.monotonic() > self.deadline
        self.report(step)

    def note(self, text: str) -> None:
        return None

    @property
    def per_step(self) -> float:
        """Seconds per step between the first and the last record; from the start if there is only one record."""
        if not self.marks:
            return 0.0
        (a, begun), (b, ended) = self.marks[0], self.marks[-1]
        if a == b:
            a, begun = self.first, self.begun
        return (ended - begun) / max(b - a, 1)


class Bench:
    """The data, time and models of a study.

    Arguments:
        data: the data set.
        minutes: the time budget of the whole study, over all its sessions.
        folder: the directory of the models.
        on_progress: called with (stage, done, total).
        started: the start of this session, in monotonic seconds; by default now.
        steps: training steps of each model. None for as many as the time budget allows; otherwise the budget only
            sets the sizes of the measurements.

    Attributes:
        plans, runs: the plans and trained models by name, in the order of `train`.
    """

    def __init__(
        self,
        data: Data,
        minutes: float,
        folder: Path,
        on_progress: OnProgress | None = None,
        started: float | None = None,
        steps: int | None = None,
    ):
        self.data, self.minutes, self.folder, self.steps = data, minutes, folder, steps
        self.spec = DataSpec.of(data)
        self.on_progress = on_progress or (lambda stage, done, total: None)
        self.started = time.monotonic() if started is None else started
        self.plans: dict[str, Plan] = {}
        self.runs: dict[str, Run] = {}
        self._draws: dict[Any, tuple[FrozenDraw, int]] = {}

    @property
    def limit(self) -> str:
        """The name of the argument that limits the training: `steps` or `minutes`."""
        return "minutes" if self.steps is None else "steps"

    # --- time ---------------------------------------------------------------------------------------------------

    @property
    def left(self) -> float:
        """Seconds left in this session."""
        return 60 * self.minutes - (time.monotonic() - self.started)

    def sized(self, quick: int, full: int) -> int:
        """A size that grows from `quick` (half a minute) to `full` (8 minutes or more) with the time budget.

        It depends on the budget only, not on the machine, so that the same command measures the same data.
        """
        share = math.log(self.minutes / QUICK) / math.log(FULL / QUICK)
        return round(quick * (full / quick) ** min(max(share, 0.0), 1.0))

    @property
    def share(self) -> float:
        """The share of the time for training; measuring takes a larger share of a quick study than of a full one."""
        return self.sized(60, 76) / 100

    def stage(self, name: str) -> None:
        """Report the current stage of the study, such as "measuring"."""
        self.on_progress(name, 0, 0)

    def decided(self, name: str, decide: Callable[[], Any]) -> Any:
        """A choice that is made once and stored beside the models, so that a resumed study keeps it."""
        file = self.folder / "study.json"
        kept = read_json(file) if file.exists() else {}
        if name not in kept:
            kept[name] = decide()
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(file, kept)
        return kept[name]

    def steps_within(self, plan: Plan, models: int) -> int:
        """The approximate number of steps per model if `models` models like `plan` share the training time.

        Trains this model for a few steps to measure its speed, unless the number of steps is given.
        """
        if self.steps is not None:
            return self.steps
        path = self.folder / "pilot"
        speed = self._advance(path, plan, _stored(path, plan)[0] + plan.pilot, lambda step: None)
        return max(LEAST, int((60 * self.share * self.minutes / models - speed.fixed) / speed.step))

    # --- models -------------------------------------------------------------------------------------------------

    def train(self, plans: Mapping[str, Plan]) -> dict[str, Run]:
        """Train these models for the same number of steps; kept models are resumed.

        The number of steps is the given one, or what fits into the training time. The time of earlier sessions counts:
        running a study again with the same budget trains no further.

        Arguments:
            plans: the models by name.

        Raises:
            RunError: a kept model has other data or settings, or more steps than the given number.
            KeyboardInterrupt: training was interrupted; the models trained so far are kept.
        """
        self.plans |= plans
        paths = {name: self.folder / slug(name) for name in plans}
        stored = {name: _stored(paths[name], plan) for name, plan in plans.items()}
        steps = {name: done for name, (done, _) in stored.items()}

        def advance(names: Sequence[str], target: int, planned: int, deadline: float = math.inf) -> Speed | None:
            """Train these models to `target` of `planned` steps, or to `deadline`; returns the speed of the last."""
            speed = None
            for name in names:
                if steps[name] < target:
                    others = sum(steps.values()) - steps[name]
                    report = functools.partial(self._report_steps, others, planned * len(plans))
                    speed = self._advance(paths[name], plans[name], target, report, deadline)
                    steps[name] = _stored(paths[name], plans[name])[0]
            return speed

        if self.steps is None:
            self._train_within(plans, steps, sum(seconds for _, seconds in stored.values()), advance)
        elif max(steps.values()) > self.steps:
            raise RunError(
                f"a model in {self.folder} has {max(steps.values()):,} training steps, more than steps={self.steps}: "
                "remove the directory, or choose another `out`"
            )
        else:
            advance(list(plans), self.steps, self.steps)
        trained = {name: open_run(paths[name], data=self.data).to(choose_device("auto")) for name in plans}
        self.runs |= trained
        return trained

    def _train_within(
        self, plans: Mapping[str, Plan], steps: Mapping[str, int], spent: float, advance: Callable[..., Speed | None]
    ) -> None:
        """Train the models for the same number of steps within the training time.

        The most expensive model is trained for a few steps first, to estimate how many steps fit into the time.

        Arguments:
            plans: the models by name.
            steps: the steps that each model has been trained for, which `advance` updates.
            spent: seconds of training in earlier sessions.
            advance: trains models to a number of steps; see `train`.
        """
        wanted = 60 * self.share * self.minutes
        end = time.monotonic() + min(wanted - spent, self.left - 60 * self.minutes * (1 - self.share))
        first, *rest = sorted(plans, key=lambda name: plans[name].cost(self.data), reverse=True)
        advance([first, *rest], max(steps.values()), max(steps.values()))
        misses = planned_steps = 0
        while misses < 2 and (steps[first] == 0 or end - time.monotonic() > 0.15 * wanted):
            pilot = steps[first] + plans[first].pilot
            speed = advance([first], pilot, max(pilot, planned_steps))
            assert speed is not None
            left = end - time.monotonic()
            # re-plan after half of the time, in case the machine becomes busy, unless resuming costs too much
            careful = left > 0.3 * wanted and len(plans) * speed.fixed < 0.1 * left
            budget = (0.5 if careful else ROOM) * left / len(plans)
            more = int((budget - speed.fixed) / speed.step)
            affordable = max(ROOM * left / len(plans) - speed.fixed, 0) / speed.step
            planned_steps = steps[first] + int(affordable)  # for progress only
            enough = more >= LEAST  # the first estimate can be far too low, on a cold or busy machine
            misses = 0 if enough else misses + 1
            target = steps[first] + (more if enough else 0)
            # the others train as far as the first, unless the time is over
            advance([first], target, max(target, planned_steps), time.monotonic() + LATE * budget)
            advance(rest, steps[first], max(steps[first], planned_steps), end + 0.1 * wanted)

    def _report_steps(self, before: int, total: int, step: int) -> None:
        self.on_progress("training", min(before + step, total), total)

    def _advance(
        self, path: Path, plan: Plan, steps: int, report: Callable[[int], None], deadline: float = math.inf
    ) -> Speed:
        """Train one model to `steps` steps, or to the first record after `deadline` (monotonic seconds)."""
        begun = time.monotonic()
        started_at, _ = _stored(path, plan)
        watch = _Watch(report, deadline)
        try:
            fit(
                self.data,
                plan.recipe,
                out=path,
                extend=(path / "run.json").exists(),
                progress=watch,
                on_start=watch.start,
                on_interrupt="raise",
                steps=steps,
                **{**DEFAULTS, **self._rates(plan), **plan.training},
                **self._choices(plan),
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(str(self.folder)) from None
        trained = watch.marks[-1][0] - started_at if watch.marks else 0
        return Speed(watch.per_step, max(time.monotonic() - begun - watch.per_step * trained, 0.0))

    def observed(self, run: TrainedModel, split: str = "test") -> Observed:
        """The x of a split as this run's model observes it; all models with binary pixels share one draw."""
        observed = run.observed(split)
        if isinstance(observed.observation, Binary):
            key = (split, observed.observation.low, observed.observation.high)
            if key in self._draws:
                observed._frozen, observed.part = self._draws[key]
            elif observed.frozen is not None:
                self._draws[key] = (observed.frozen, observed.part)
        return observed

    def score(self, run: TrainedModel, n: int, samples: int = 1, split: str = "test", seed: int = 0) -> PerDatum:
        """ELBO, rate, distortion, log p(x) and codes of the first n examples of a split (`vaekit.metrics`)."""
        return per_datum(run, self.observed(run, split), samples, n=n, seed=seed, compile=False)

    def groups(self, rows: np.ndarray | int, split: str = "test") -> list[int] | None:
        """The groups of these rows, or of the first `rows` examples; None if the data are not split by group."""
        group = getattr(self.data, split).group
        if group is None:
            return None
        return group[np.arange(rows) if isinstance(rows, int) else rows].tolist()

    def _rates(self, plan: Plan) -> dict[str, Any]:
        """The learning rate and beta2 of a recipe in this study, which stay if a later version has other defaults."""
        if {"optimiser", "lr"} & set(plan.training):
            return {}

        def decide() -> dict[str, Any]:
            for name, other in self.plans.items():  # models that an earlier version trained
                path = self.folder / slug(name)
                same = other.recipe == plan.recipe and not {"optimiser", "lr"} & set(other.training)
                if same and (path / "run.json").exists():
                    kept = options_of(read_config(path))
                    return {"lr": kept.lr, "beta2": kept.beta2}
            own = get_recipe(plan.recipe)(self.spec, **plan.choices).defaults
            return {"lr": own.lr, "beta2": own.beta2 if own.optimiser in ADAMS else None}

        return cast(dict[str, Any], self.decided(f"training of {plan.recipe}", decide))

    def _choices(self, plan: Plan) -> dict[str, Any]:
        """The recipe's arguments; a warm-up that would follow the length of the first round of training is left out."""
        recipe = get_recipe(plan.recipe)
        knobs = recipe.signature.defaults(self.spec, {**recipe.settings, **plan.choices})
        return {**({"warmup": 0} if knobs.get("warmup", 0) is None else {}), **plan.choices}

    @property
    def trained_steps(self) -> int:
        """The number of training steps of each model: the smallest, if they differ."""
        return min((run.config.get("step", 0) for run in self.runs.values()), default=0)


def _stored(path: Path, plan: Plan) -> tuple[int, float]:
    """Training steps and seconds of a kept model; 0 if there is none.

    Raises:
        RunError: the directory holds another model.
    """
    if not (path / "run.json").exists():
        return 0, 0.0
    config = read_config(path)
    choices = {k: list(v) if isinstance(v, tuple) else v for k, v in plan.choices.items()}
    choices, stored = ({"warmup": 0, **given} for given in (choices, config["arguments"]))  # earlier ones did not say
    training = {**DEFAULTS, **plan.training}
    same = all(getattr(options_of(config), k) == v for k, v in training.items())
    if config["recipe"] != plan.recipe or stored != choices or not same:
        raise RunError(
            f"{path} does not hold the model that this study trains: remove {path.parent}, or choose another `out`"
        )
    return config.get("step", 0), config.get("seconds", 0.0)


def slug(name: str) -> str:
    """A text as the name of a directory."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "model"
