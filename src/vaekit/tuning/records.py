"""What a sweep stores: sweep.json, its trials in optuna.sqlite, and the numbers of each datum.

sweep.json            the settings, the sessions, and a summary of the trials
optuna.sqlite         the trials, as Optuna stores them
splits.safetensors    the rows of the data's splits
trial-000/            the run of each trial
scores/               numbers of each datum: trial-000-valid.safetensors
sweep.html            the page
"""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict, cast

import numpy as np

from vaekit.errors import ChoiceError, RunError
from vaekit.metrics import METRICS
from vaekit.runs.configuration import check
from vaekit.utils.files import read_json, read_tensors, write_json, write_tensors
from vaekit.utils.suggest import unknown

if TYPE_CHECKING:
    import optuna

FORMAT = 1
SETTINGS, STORAGE, SCORES, PAGE = "sweep.json", "optuna.sqlite", "scores", "sweep.html"
NAME = "sweep"
"""The name of the study in optuna.sqlite."""
WAIT = 100.0
"""Seconds to wait for another process that writes to optuna.sqlite."""

_NAME = re.compile(r"trial-\d{3,9}")

TrialState = Literal["finished", "pruned", "failed", "unfinished"]
Better = Literal["higher", "lower"]
MINIMISED = ("rate", "distortion")
"""Metrics without a better direction that a sweep lowers, together or for a fixed other one."""


class Judge(TypedDict):
    """A metric that judges trials, and its better direction."""

    name: str
    better: Better


class Session(TypedDict):
    """One call of `tune`: when it started, how long it took, and with how many processes."""

    started: str
    seconds: float
    jobs: int


class Settings(TypedDict):
    """The content of sweep.json."""

    format: int
    recipe: str
    data: dict[str, Any]
    over: dict[str, str]
    choices: dict[str, Any]
    training: dict[str, Any]
    metrics: list[Judge]
    rows: int
    samples: int
    prune: bool
    seed: int
    created: str
    versions: dict[str, str]
    sessions: list[Session]
    best: NotRequired[str | None]
    trials: NotRequired[list[dict[str, Any]]]


SETTLED = ("recipe", "over", "choices", "training", "metrics", "rows", "samples", "prune", "seed")
"""The settings that a sweep keeps when it is continued."""


@dataclass(frozen=True)
class Trial:
    """One trial of a sweep.

    Attributes:
        name: the name of its run directory.
        path: its run directory.
        state: finished, pruned, failed (its training failed) or unfinished (a continued sweep resumes it).
        settings: the values of the options that the sweep chose.
        values: the metrics that judge it, on validation data, by name; empty unless it is finished.
        se: their standard errors over the validation data, where they are known.
        beside: further numbers on validation data: the ELBO, the rate and the distortion.
        steps, seconds: the length of its training.
        why: why its training failed.
    """

    name: str
    path: Path
    state: TrialState
    settings: Mapping[str, Any]
    values: Mapping[str, float] = field(default_factory=dict)
    se: Mapping[str, float | None] = field(default_factory=dict)
    beside: Mapping[str, float] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    why: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The trial as sweep.json has it."""
        plain: dict[str, Any] = {"name": self.name, "state": self.state, "settings": dict(self.settings)}
        for name in ("values", "se", "beside"):
            if getattr(self, name):
                plain[name] = dict(getattr(self, name))
        plain |= {"steps": self.steps, "seconds": round(self.seconds, 3)}
        return plain if self.why is None else {**plain, "why": self.why}


def judges(metrics: str | list[str] | tuple[str, ...]) -> list[Judge]:
    """The metrics that judge trials; `NAME:lower` or `NAME:higher` gives a direction to one that has none.

    Raises:
        ChoiceError: a metric is unknown, given twice, has no better direction, or is not a single number.
    """
    words = [word for text in ([metrics] if isinstance(metrics, str) else metrics) for word in text.split(",") if word]
    found: list[Judge] = []
    for word in words or ["elbo"]:
        name, _, direction = word.strip().partition(":")
        if name not in METRICS:
            raise ChoiceError(unknown("metric", name, METRICS))
        better = direction or METRICS[name].better or ("lower" if name in MINIMISED else "")
        if better not in ("higher", "lower"):
            raise ChoiceError(
                f"the metric {name!r} has no better direction: write `metrics='{name}:higher'` or "
                f"`metrics='{name}:lower'`"
            )
        if METRICS[name].of == "data":
            raise ChoiceError(f"the metric {name!r} describes the data, not a model: choose another of `metrics`")
        if any(one["name"] == name for one in found):
            raise ChoiceError(f"`metrics` has {name!r} twice: give it once")
        found.append({"name": name, "better": cast(Better, better)})
    return found


def shown(value: Any) -> str:
    """A setting as text."""
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


# --- files ------------------------------------------------------------------------------------------------------


def read_settings(folder: Path) -> Settings:
    """The content of sweep.json, checked.

    Raises:
        RunError: there is no sweep in `folder`, it is damaged, or a newer vaekit wrote it.
    """
    file = folder / SETTINGS
    if not file.is_file():
        raise RunError(f"{folder} holds no sweep: start one with `vk.tune(DATA, over=..., out={str(folder)!r})`")
    stored = read_json(file)
    if isinstance(stored, dict) and isinstance(stored.get("format"), int) and stored["format"] > FORMAT:
        raise RunError(f"{folder} was written by a newer vaekit (format {stored['format']}, this one reads {FORMAT})")
    check(stored, Settings, file)
    return cast(Settings, stored)


def write_settings(folder: Path, settings: Settings) -> None:
    """Write sweep.json, atomically."""
    write_json(folder / SETTINGS, settings)


def write_scores(folder: Path, name: str, split: str, scores: Mapping[str, np.ndarray]) -> None:
    """Write the numbers of each datum of a split, each (n,), for the trial of this name."""
    import torch

    (folder / SCORES).mkdir(exist_ok=True)
    tensors = {metric: torch.from_numpy(np.asarray(values, np.float64)) for metric, values in scores.items()}
    write_tensors(folder / SCORES / f"{name}-{split}.safetensors", tensors)


def read_scores(folder: Path, name: str, split: str) -> dict[str, np.ndarray]:
    """The numbers of each datum that `write_scores` wrote; empty if there are none."""
    file = folder / SCORES / f"{name}-{split}.safetensors"
    return {metric: t.numpy() for metric, t in read_tensors(file)[0].items()} if file.exists() else {}


# --- Optuna -----------------------------------------------------------------------------------------------------


def require() -> None:
    """Check that Optuna is installed.

    Raises:
        ChoiceError: it is missing.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "IProgress not found")  # by tqdm, in a notebook without widgets
            import optuna  # noqa: F401
    except ImportError as error:
        raise ChoiceError(f"sweeps need {error.name}: install it with `pip install 'vaekit[tune]'`") from None


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without Optuna's log and its warnings about experimental features."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def study_of(folder: Path, settings: Settings, create: bool = False) -> optuna.Study:
    """The Optuna study of a sweep, with the pruner of vaekit."""
    import optuna

    url = f"sqlite:///{(folder / STORAGE).resolve()}"
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": WAIT}})
    if create:
        directions: list[Literal["maximize", "minimize"]] = [
            "maximize" if one["better"] == "higher" else "minimize" for one in settings["metrics"]
        ]
        return optuna.create_study(storage=storage, study_name=NAME, directions=directions, load_if_exists=True)
    return optuna.load_study(study_name=NAME, storage=storage)


def trials_of(folder: Path, study: optuna.Study) -> list[Trial]:
    """The trials of a sweep in the order in which they began; a resumed one has the place of its beginning.

    Optuna's state FAIL marks records that a later record of the same run replaces.
    """
    from optuna.trial import TrialState as State

    found: dict[str, Trial] = {}
    for one in study.get_trials(deepcopy=False):
        kept = one.user_attrs
        if "run" not in kept:
            continue
        if one.state == State.FAIL:
            found.setdefault(kept["run"], _trial(folder, kept, "unfinished"))
            continue
        state: TrialState = "unfinished"
        if one.state == State.COMPLETE:
            state = "finished"
        elif one.state == State.PRUNED:
            state = "failed" if "why" in kept else "pruned"
        found[kept["run"]] = _trial(folder, kept, state)
    return list(found.values())


def _trial(folder: Path, kept: Mapping[str, Any], state: TrialState) -> Trial:
    if not _NAME.fullmatch(str(kept["run"])):
        raise RunError(f"{folder / STORAGE} is damaged: {kept['run']!r} is no name of a trial")
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in kept.get("settings", {}).items()}
    done = state == "finished"
    numbers: dict[str, Any] = {name: kept.get(name, {}) if done else {} for name in ("values", "se", "beside")}
    length = {"steps": kept.get("steps", 0), "seconds": kept.get("seconds", 0.0)}
    return Trial(kept["run"], folder / kept["run"], state, settings, **numbers, **length, why=kept.get("why"))


def attribute(trial: optuna.Trial, **values: Any) -> None:
    """Store attributes of a trial; lists stand for tuples."""
    for name, value in values.items():
        trial.set_user_attr(name, json.loads(json.dumps(value)))
