"""What a study works with: its data, its time, and models that are trained together and kept."""

from __future__ import annotations

import functools
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaekit.data.core import Data
from vaekit.data.observation import Binary, FrozenDraw
from vaekit.errors import RunError
from vaekit.metrics import PerDatum, per_datum
from vaekit.recipes import get_recipe
from vaekit.recipes.composition import DataSpec
from vaekit.runs.run import Observed, Run, open_run, read_config
from vaekit.training.cost import choose_device, work
from vaekit.training.fit import fit
from vaekit.utils.files import read_json, write_json
from vaekit.utils.progress import Progress

OnProgress = Callable[[str, int, int], None]
PILOT = 25  # steps, to learn how long one takes
COMPILED_PILOT = 150  # the same where the first takes as long as a thousand others
LEAST = 50  # steps that are worth a round of their own
LATE = 1.5  # times its estimate, after which a training is ended where it is
ROOM = 0.9  # of the time that is left, what a round may take by its estimate
QUICK, FULL = 0.5, 8.0  # minutes between which sizes grow
DEFAULTS: dict[str, Any] = {"schedule": "constant", "compile": "off"}
"""Of training: a study that is run again for longer goes on where it stopped, which only a constant rate allows."""


@dataclass(frozen=True)
class Plan:
    """A model to train: a recipe with its choices, and options of training."""

    recipe: str = "vae"
    choices: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pilot(self) -> int:
        """Steps that tell how long one takes."""
        return COMPILED_PILOT if self.training.get("compile") == "on" else PILOT

    @property
    def settings(self) -> str:
        """Recipe and settings as one would type them."""
        given = {**self.choices, **{k: v for k, v in self.training.items() if DEFAULTS.get(k) != v}}
        words = [f"--{k.replace('_', '-')} {_typed(v)}" for k, v in given.items()]
        return " ".join([self.recipe, *words])

    def cost(self, data: Data) -> float:
        """A rough time of a training step, from a count of its products."""
        composition = get_recipe(self.recipe)(DataSpec.of(data), **self.choices)
        samples = self.choices.get("samples") or 1
        batch = self.training.get("batch") or composition.defaults.batch
        return work(composition, data.shape).seconds(batch * samples)


def _typed(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


class Speed(NamedTuple):
    """Seconds a step, and seconds that a training takes besides its steps."""

    step: float
    fixed: float


class _Watch(Progress):
    """Tells the steps of one training as part of all, times those up to the last record, and ends it in time."""

    def __init__(self, tell: Callable[[int], None], until: float):
        self.tell, self.until = tell, until
        self.begun, self.first = time.monotonic(), 0
        self.marks: list[tuple[int, float]] = []

    def start(self, config: dict[str, Any]) -> None:
        self.begun, self.first = time.monotonic(), config.get("step", 0)

    def update(self, step, horizon, epoch, train, valid, per_second) -> None:
        self.marks.append((step, time.monotonic()))
        self.stop = time.monotonic() > self.until
        self.tell(step)

    def note(self, text: str) -> None:
        return None

    @property
    def per_step(self) -> float:
        """Seconds a step between records, since the first steps are slow; from the beginning if there was but one."""
        if not self.marks:
            return 0.0
        (a, begun), (b, ended) = self.marks[0], self.marks[-1]
        if a == b:
            a, begun = self.first, self.begun
        return (ended - begun) / max(b - a, 1)


class Bench:
    """A study's data, time and models.

    Attributes:
        data: what it runs on.
        minutes: for the whole study, in all its sessions.
        folder: where the models are kept.
        plans, runs: the models by name, in the order they were asked for.
    """

    def __init__(
        self,
        data: Data,
        minutes: float,
        folder: Path,
        on_progress: OnProgress | None = None,
        started: float | None = None,
    ):
        self.data, self.minutes, self.folder = data, minutes, folder
        self.on_progress = on_progress or (lambda what, done, of: None)
        self.started = time.monotonic() if started is None else started
        self.plans: dict[str, Plan] = {}
        self.runs: dict[str, Run] = {}
        self._draws: dict[Any, tuple[FrozenDraw, int]] = {}

    # --- time ---------------------------------------------------------------------------------------------------

    @property
    def left(self) -> float:
        """Seconds left of this session."""
        return 60 * self.minutes - (time.monotonic() - self.started)

    def sized(self, quick: int, full: int) -> int:
        """A size between that of a quick look (half a minute) and that of a full study (8 minutes or more).

        It depends on the minutes asked for alone, not on the machine: the same command measures the same data.
        """
        share = math.log(self.minutes / QUICK) / math.log(FULL / QUICK)
        return round(quick * (full / quick) ** min(max(share, 0.0), 1.0))

    @property
    def share(self) -> float:
        """How much of the time is for training: measuring takes more of a quick look than of a full study."""
        return self.sized(60, 76) / 100

    def stage(self, what: str) -> None:
        """Tell what is being done."""
        self.on_progress(what, 0, 0)

    def decided(self, name: str, decide: Callable[[], Any]) -> Any:
        """A choice made once and kept beside the models, so that a longer study goes on with the same models."""
        file = self.folder / "study.json"
        kept = read_json(file) if file.exists() else {}
        if name not in kept:
            kept[name] = decide()
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(file, kept)
        return kept[name]

    def steps_within(self, plan: Plan, models: int) -> int:
        """About how many steps each of so many models like this one can be trained: `plan` is tried for a few."""
        path = self.folder / "pilot"
        speed = self._advance(path, plan, _stored(path, plan)[0] + plan.pilot, lambda step: None)
        return max(LEAST, int((60 * self.share * self.minutes / models - speed.fixed) / speed.step))

    # --- models -------------------------------------------------------------------------------------------------

    def train(self, plans: Mapping[str, Plan]) -> dict[str, Run]:
        """Train these models, all for the same number of steps, in their share of the study's time; kept ones go on.

        The dearest model is tried for a few steps, which tells how many all can take. What earlier sessions spent
        counts, so that a study run again for as long trains no more, and for longer trains on.

        Raises:
            RunError: a kept model is of other data or settings.
            KeyboardInterrupt: training was interrupted; what was trained is kept.
        """
        self.plans |= plans
        paths = {name: self.folder / slug(name) for name in plans}
        stored = {name: _stored(paths[name], plan) for name, plan in plans.items()}
        steps = {name: done for name, (done, _) in stored.items()}
        wanted = 60 * self.share * self.minutes
        spent, begun = sum(seconds for _, seconds in stored.values()), time.monotonic()
        end = begun + min(wanted - spent, self.left - 60 * self.minutes * (1 - self.share))

        def advance(names: Sequence[str], target: int, of: int, until: float = math.inf) -> Speed | None:
            """Train these to `target` or `until`, telling of all as part of `of` steps each; the last one's speed."""
            speed = None
            for name in names:
                if steps[name] < target:
                    others = sum(steps.values()) - steps[name]
                    tell = functools.partial(self._tell_steps, others, of * len(plans))
                    speed = self._advance(paths[name], plans[name], target, tell, until)
                    steps[name] = _stored(paths[name], plans[name])[0]
            return speed

        first, *rest = sorted(plans, key=lambda name: plans[name].cost(self.data), reverse=True)
        advance([first, *rest], max(steps.values()), max(steps.values()))
        misses = whole = 0
        while misses < 2 and (steps[first] == 0 or end - time.monotonic() > 0.15 * wanted):
            tried = steps[first] + plans[first].pilot
            speed = advance([first], tried, max(tried, whole))
            assert speed is not None
            left = end - time.monotonic()
            # a machine that others come to use is noticed after half of the time, where stopping to look costs little
            careful = left > 0.3 * wanted and len(plans) * speed.fixed < 0.1 * left
            mine = (0.5 if careful else ROOM) * left / len(plans)
            more = int((mine - speed.fixed) / speed.step)
            whole = steps[first] + int(max(ROOM * left / len(plans) - speed.fixed, 0) / speed.step)  # a guess, to tell
            enough = more >= LEAST  # a first try on a cold or busy machine may tell far too little
            misses = 0 if enough else misses + 1
            target = steps[first] + (more if enough else 0)
            # or at once: the others go as far as the first came, and all end in time, even if not all come so far
            advance([first], target, max(target, whole), time.monotonic() + LATE * mine)
            advance(rest, steps[first], max(steps[first], whole), end + 0.1 * wanted)
        found = {name: open_run(paths[name], data=self.data).to(choose_device("auto")) for name in plans}
        self.runs |= found
        return found

    def _tell_steps(self, before: int, of: int, step: int) -> None:
        self.on_progress("training", min(before + step, of), of)

    def _advance(
        self, path: Path, plan: Plan, steps: int, tell: Callable[[int], None], until: float = math.inf
    ) -> Speed:
        """Train one model until it has had so many steps, or to the first record after `until` (monotonic seconds)."""
        begun = time.monotonic()
        started_at, _ = _stored(path, plan)
        watch = _Watch(tell, until)
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
                **{**DEFAULTS, **plan.training},
                **plan.choices,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(str(self.folder)) from None
        trained = watch.marks[-1][0] - started_at if watch.marks else 0
        return Speed(watch.per_step, max(time.monotonic() - begun - watch.per_step * trained, 0.0))

    def observed(self, run: Run, split: str = "test") -> Observed:
        """The x of a split as this run's model sees it; models that see binary pixels share one draw."""
        mine = run.observed(split)
        if isinstance(mine.observation, Binary):
            key = (split, mine.observation.low, mine.observation.high)
            if key in self._draws:
                mine._frozen, mine.part = self._draws[key]
            elif mine.frozen is not None:
                self._draws[key] = (mine.frozen, mine.part)
        return mine

    def score(self, run: Run, n: int, samples: int = 1, split: str = "test", seed: int = 0) -> PerDatum:
        """ELBO, rate, distortion, log p(x) and codes of the first n data of a split (`vaekit.metrics`)."""
        return per_datum(run, self.observed(run, split), samples, n=n, seed=seed, compile=False)

    def groups(self, rows: np.ndarray | int, split: str = "test") -> list[int] | None:
        """The group of each of these data (or of the first so many); None where data were not split by group."""
        group = getattr(self.data, split).group
        if group is None:
            return None
        return group[np.arange(rows) if isinstance(rows, int) else rows].tolist()

    @property
    def trained_steps(self) -> int:
        """How many steps each model has had, the fewest if they differ."""
        return min((run.config.get("step", 0) for run in self.runs.values()), default=0)


def _stored(path: Path, plan: Plan) -> tuple[int, float]:
    """Steps and seconds that a kept model has been trained.

    Raises:
        RunError: what is kept there is another model.
    """
    if not (path / "run.json").exists():
        return 0, 0.0
    config = read_config(path)
    choices = {k: list(v) if isinstance(v, tuple) else v for k, v in plan.choices.items()}
    training = {**DEFAULTS, **plan.training}
    same = all(config["training"].get(k) == v for k, v in training.items())
    if config["recipe"] != plan.recipe or config["arguments"] != choices or not same:
        raise RunError(
            f"{path} holds another model than this study trains: remove {path.parent}, or take another `out`"
        )
    return config.get("step", 0), config.get("seconds", 0.0)


def slug(name: str) -> str:
    """A name as a folder's."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "model"
