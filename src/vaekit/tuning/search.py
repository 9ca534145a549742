"""`tune`: choose options by training models with many settings."""

from __future__ import annotations

import contextlib
import datetime
import math
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vaekit.data.core import Data
from vaekit.data.loading import data_of
from vaekit.errors import ChoiceError, RunError
from vaekit.options import Options
from vaekit.runs.lock import only_trainer
from vaekit.runs.stored import check_splits, write_splits
from vaekit.utils.files import checked_path
from vaekit.utils.progress import say

from . import analysis
from .records import (
    FORMAT,
    SETTINGS,
    SETTLED,
    STORAGE,
    Judge,
    Settings,
    Trial,
    judges,
    quietly,
    read_settings,
    require,
    study_of,
    trials_of,
    write_settings,
)
from .sessions import describe, stored_data, together
from .space import Over, Space, check, space
from .sweep import Sweep
from .work import Limits, Worker, recover

TRIALS = 20
"""The number of trials, if neither trials nor minutes are given."""
ROWS, SAMPLES = 5000, 10
"""The first validation rows that judge trials, and the draws of z for each."""


def tune(
    data: Data | Any = None,
    recipe: str | None = None,
    *,
    over: Over | None = None,
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
        data: `Data`, or an argument of `load` or `from_arrays`. A continued sweep loads its own data, unless they were
            arrays in memory.
        recipe: name of a recipe (by default "vae").
        over: what to choose, as text such as `"latent=2..64:log,lr=1e-4..1e-2:log,activation=silu|relu"`, or as
            {"latent": "2..64:log", "activation": ["silu", "relu"]}. A range has the type of its option: whole numbers
            for `latent`. `:log` spaces numbers by their logarithm, `:8` by steps of 8. Without it, the sweep in `out`
            is continued with its settings.
        metrics: one metric, or several for their Pareto front, such as "rate,distortion"; `NAME:lower` gives a
            direction to a metric that has none.
        trials, minutes: limits of the number of trials and of the time, over all calls; by default 20 trials.
        jobs: processes that train at the same time, each with its share of the threads; they load the data themselves.
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
        run = sweep.fit_best(out="runs/best", steps=5000)
    """
    require()
    begun = time.monotonic()
    _check_limits(trials, minutes, jobs)
    if over is None:
        stored = _stored(out, [*choices, *_changed(metrics, prune, seed)])
        over, metrics, prune, seed = stored["over"], _written(stored["metrics"]), stored["prune"], stored["seed"]
        recipe, choices = recipe or stored["recipe"], _tuples(stored["choices"]) | stored["training"]
    recipe = recipe or "vae"
    options, arguments = _split(choices, seed)
    found = space(over, recipe, arguments, options)
    judged = judges(metrics if isinstance(metrics, str) else list(metrics))
    data = _data(data, out, jobs)
    folder = checked_path(out) if out is not None else default_folder(data.name, recipe)
    check(found, data, options, [one["name"] for one in judged])
    settings = _settings(data, found, options, judged, prune, seed)
    with contextlib.ExitStack() as stack:
        settings = _begin(folder, data, settings, stack)
        limits = _limits(settings, trials, minutes, begun)
        _session(folder, settings, found, data, limits, jobs, begun, progress)
    return _finished(folder, data)


def _changed(metrics: Any, prune: bool, seed: int) -> list[str]:
    """The names of those settings that are not the default, which a continued sweep does not take."""
    given = {"metrics": metrics != "elbo", "prune": not prune, "seed": seed != 0}
    return [name for name, changed in given.items() if changed]


def _finished(folder: Path, data: Data) -> Sweep:
    """The sweep in a directory, measured on test data, with its page."""
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
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    settings["sessions"].append({"started": now, "seconds": 0.0, "jobs": jobs})

    def tick() -> None:
        settings["sessions"][-1]["seconds"] = round(time.monotonic() - begun, 3)
        _summarise(settings, trials_of(folder, study))
        write_settings(folder, settings)

    def told(trial: Trial) -> None:
        tick()
        if callable(progress):
            progress(trial)
        elif progress:
            say(analysis.line(trial, settings["metrics"]))

    with quietly():
        recover(folder, study)
        tick()
        try:
            if jobs == 1:
                noted = say if progress is True else None
                Worker(folder, settings, found, data, limits, on_trial=told, on_note=noted, tick=tick).run()
            else:
                together(folder, settings, limits, jobs, on_trial=told, tick=tick, notes=progress is True)
        finally:
            tick()


# --- before training --------------------------------------------------------------------------------------------


def _check_limits(trials: int | None, minutes: float | None, jobs: int) -> None:
    for name, value in (("trials", trials), ("minutes", minutes), ("jobs", jobs)):
        if value is not None and not value > 0:
            raise ChoiceError(f"`{name}` must be above 0, got {value}")


def _limits(settings: Settings, trials: int | None, minutes: float | None, begun: float) -> Limits:
    """When a session that began at this time ends, in view of the sessions before."""
    spent = sum(one["seconds"] for one in settings["sessions"])
    ends = math.inf if minutes is None else begun + max(60 * minutes - spent, 0.0)
    return Limits(TRIALS if trials is None and minutes is None else trials, ends)


def _written(metrics: Sequence[Judge]) -> list[str]:
    return [f"{one['name']}:{one['better']}" for one in metrics]


def _tuples(choices: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in choices.items()}


def _stored(out: str | Path | None, changed: Sequence[str]) -> Settings:
    """The settings of the sweep to continue; `changed` are the names of settings that the caller gives."""
    if out is None or not (checked_path(out) / SETTINGS).is_file():
        raise ChoiceError("a sweep needs `over`, such as `over='latent=2..64:log'`")
    if changed:
        raise ChoiceError(f"a sweep is continued with its own settings: omit `{changed[0]}`")
    return read_settings(checked_path(out))


def _split(choices: Mapping[str, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of training, checked, and arguments of the recipe."""
    names = set(Options.__dataclass_fields__)
    options = {k: v for k, v in choices.items() if k in names and v is not None} | {"seed": seed}
    checked = Options(**options).checked()
    options = {name: getattr(checked, name) for name in options}
    if options.get("devices", 1) != 1:
        raise ChoiceError(
            "a trial trains on one device: use `jobs` to train several trials at once, and omit `devices`"
        )
    return options, {k: v for k, v in choices.items() if k not in names}


def default_folder(data: str, recipe: str) -> Path:
    """The default directory of a sweep: sweeps/DATA-RECIPE."""
    name = re.sub(r"[^\w.-]+", "-", data).strip("-.") or "data"
    return Path("sweeps") / f"{name}-{recipe}"


def _data(data: Any, out: str | Path | None, jobs: int) -> Data:
    """The data of the sweep, loaded if they are a name or a path, or those of the sweep to continue."""
    folder = None if out is None else checked_path(out)
    if data is None and (folder is None or not (folder / SETTINGS).is_file()):
        raise ChoiceError("a sweep needs data: a name, a path, arrays or a frame")
    loaded = stored_data(folder, read_settings(folder)) if data is None and folder is not None else data_of(data)
    if jobs > 1 and describe(loaded)["source"] is None:
        raise ChoiceError(
            "`jobs` above 1 needs data that other processes can read: save the arrays as a .npz file and pass its path"
        )
    return loaded


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
    if not data.is_same(stored["data"]["digest"]):
        raise RunError(f"the sweep in {folder} was started with other data: choose another `out`")
    check_splits(data, folder)
    for name in SETTLED:
        before, now = stored[name], settings[name]  # type: ignore[literal-required]
        if before != now:
            raise RunError(
                f"the sweep in {folder} has {_differing(name, before, now)}: omit the change to continue it, or choose "
                "another `out`"
            )
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
