"""The start of a new or resumed training, decided and checked before anything is written."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vaekit.data.condition import set_apart
from vaekit.data.core import Data
from vaekit.data.loading import data_of
from vaekit.errors import ChoiceError, RunError
from vaekit.objectives.schedules import unfinished
from vaekit.recipes import get_recipe
from vaekit.recipes.composition import Composition, DataSpec
from vaekit.runs.configuration import Configuration, DataPart, options_of
from vaekit.runs.find import find_run
from vaekit.runs.lock import only_trainer
from vaekit.runs.observed import blurred
from vaekit.runs.resume import FINISHED, Asked, check_data, check_settings, extension_notes, leg, lengthen, thread_note
from vaekit.runs.stored import (
    FORMAT,
    OWN,
    clear,
    load_weights,
    read_again,
    read_config,
    reader_record,
    rebuild,
    write_splits,
)
from vaekit.utils.files import read_tensors, remove_parts, write_json
from vaekit.utils.isolation import seeded

from . import parallel
from .loop import checkpoints
from .overfitting import small_set
from .plan import Plan, plan_new, plan_stored
from .prepare import constants, extreme, few_rows, piled_up, prepare
from .torch_classes import stretched


@dataclass
class Start:
    """A training that is decided and checked, and of which nothing is written yet.

    Attributes:
        plan: the settings of the training; None if nothing is left to train.
        begun: whether it resumes from a checkpoint.
        changed: whether run.json must be written although it exists.
        notes: messages for the user.
    """

    config: Configuration
    data: Data | None
    composition: Composition | None = None
    plan: Plan | None = None
    begun: bool = False
    changed: bool = False
    notes: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write the files of a run before its next step; run.json comes last, because it makes the directory a run."""
        remove_parts(path)
        remove_parts(path / "checkpoint")
        if not self.begun:
            assert self.data is not None
            if (path / "run.json").exists():
                clear(path)
            write_splits(path, {part: getattr(self.data, part).index for part in ("train", "valid", "test")})
        if self.changed or not self.begun:
            write_json(path / "run.json", self.config)


def describe(
    data: Data, recipe: str | None, arguments: dict[str, Any], composition: Composition, plan: Plan
) -> Configuration:
    """The content of run.json before the first step: choices, decisions and versions."""
    import vaekit

    spec = DataSpec.of(data)
    source: DataPart = {
        "name": data.name,
        "source": data.source if isinstance(data.source, str) and data.source else None,
        "options": {k: v for k, v in data.options.items() if k != "splits"},
        "digest": data.digest,
        "facts": spec.as_json(),
        "n": {"train": len(data.train), "valid": len(data.valid), "test": len(data.test)},
        "label_names": data.label_names,
        "feature_names": None if data.schema else data.feature_names,
    }
    if data.test.group is not None:
        source["grouped"] = True
    if plugin := reader_record(data):
        source["reader"] = plugin
    config: Configuration = {
        "format": FORMAT,
        "recipe": recipe,
        "arguments": _jsonable(arguments),
        "defaults": _jsonable({} if recipe is None else get_recipe(recipe).defaults_for(spec, arguments)),
        "data": source,
        "observation": composition.observation.kind,
        "training": dataclasses.asdict(plan.options),
        "decided": plan.decided,
        "versions": {"vaekit": vaekit.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "plan": {"horizon": plan.horizon},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "legs": [leg(plan.options, 0)],
        "state": "new",
    }
    if recipe and (packages := get_recipe(recipe).packages(arguments)):
        config["plugins"] = packages
    return config


def _jsonable(choices: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in choices.items()}


def new(path: Path, data: Any, asked: Asked, *, replace: bool, init_from: str | Path | None) -> Start:
    """The start of a new run.

    Raises:
        VaekitError: the data or a choice are not valid, or the directory cannot take a new run.
    """
    check_free(path, replace)
    data = new_data(data)
    recipe = asked.recipe or "vae"
    data = set_apart(data, _condition_column(recipe, asked.choices))
    if isinstance(recipe, Composition):
        composition, name = recipe, None
        _check_own(composition)
    else:
        name = recipe
        with seeded(asked.options.seed):  # so that the seed determines the initial weights
            composition = get_recipe(name)(DataSpec.of(data), **_tuples(asked.choices))
    plan = plan_new(asked.options, composition, data)
    composition.objective.plan(plan.horizon)
    config = describe(data, name, asked.choices, composition, plan)
    prepare(data, composition, plan.seed)
    if init_from is not None:
        take_weights(composition, init_from)
        config["init_from"] = str(init_from)
    ends = None if plan.minutes is not None else unfinished(composition.objective, plan.horizon)
    warnings = (warning(data, composition) for warning in (constants, piled_up, extreme, blurred, few_rows))
    notes = [note for note in (small_set(data, plan.options), *warnings, ends) if note]
    return Start(config, data, composition, plan, notes=notes)


def resumed(path: Path, data: Any, asked: Asked, *, extend: bool, init_from: Any, locks: contextlib.ExitStack) -> Start:
    """The start of another leg of the run at `path`, which stays locked until `locks` is closed.

    Raises:
        VaekitError: there is no such run, or its data or settings differ.
    """
    config = read_config(path)
    check_settings(config, asked, extend=extend)
    if init_from is not None and str(init_from) != config.get("init_from"):
        raise RunError(f"the run was started from {config.get('init_from') or 'fresh weights'}, not from {init_from}")
    finished = config["state"] in FINISHED and not extend
    if not finished and parallel.is_first(options_of(config).devices):
        locks.enter_context(only_trainer(path))
        config = read_config(path)  # another process may have changed it before this one held the lock
        finished = config["state"] in FINISHED and not extend
    argument = "extend=True" if extend else "resume=True"
    own = asked.recipe if isinstance(asked.recipe, Composition) else None
    if config["recipe"] is None and own is None:
        raise RunError(
            f"{path} has a composition built by hand, which a run does not store: pass it again in Python, as in "
            f"vk.fit(data, composition, out={str(path)!r}, {argument})"
        )
    if not finished or data is not None:
        if not isinstance(data, Data):
            data = _loaded_again(data, path, config, argument)
        column = _condition_column(asked.recipe, config["arguments"])
        if not isinstance(column, str | None):
            wrong = f"condition is {column!r}, expected the name of a column"
            raise RunError(f"{path / 'run.json'} is damaged: {wrong}; restore it or train again")
        data = set_apart(data, column)
        check_data(config, data, path)
    saved = checkpoints(path)
    horizon, done = config.get("plan", {}).get("horizon", 0), int(saved[-1].stem) if saved else 0
    state = config["state"]
    if finished or (extend and not lengthen(config, asked.options, done)):
        return Start(config, data)
    config["data"]["source"] = data.source or None  # the data may have moved
    composition = rebuild(config, own, seed=options_of(config).seed)
    plan = plan_stored(config, composition, data)
    if "steps" in config["decided"]:  # earlier versions planned no schedules
        composition.objective.plan(config["decided"]["steps"])
    prepare(data, composition, plan.seed, initialise=not saved)
    if not saved and "init_from" in config:
        take_weights(composition, config["init_from"])
    notes = extension_notes(config, state, horizon, done) if extend else []
    if extend and (note := stretched(plan.schedule, horizon, config["plan"]["horizon"], done)):
        notes.append(note)
    if saved and plan.device.type == "cpu" and (note := thread_note(plan.threads, torch.get_num_threads())):
        notes.append(note)
    return Start(config, data, composition, plan, bool(saved), extend, notes)


CHOSEN = "model.likelihood.head.floor"
"""The tensor of the least scale that validation data choose; see `Head.chooses`."""


def take_weights(composition: Composition, run: str | Path) -> None:
    """Start from the weights of another run (`init_from`)."""
    folder = find_run(run)
    rules = read_config(folder)["data"]["facts"].get("rules", 1)
    if rules < 2 and any(getattr(module, "share", 1.0) < 1 for module in composition.model.modules()):
        raise RunError(f"{run} was made before vaekit scaled wide inputs, so its weights do not fit a new run")
    prior = getattr(composition.model, "class_prior", None)  # it describes these data, so it is kept
    logits = None if prior is None else prior.logits.clone()
    file = folder / "model.safetensors"
    tensors = read_tensors(file)[0]
    tensors.pop(CHOSEN, None)  # validation data choose it anew; heads without such a number have no such tensor
    if (number := dict(composition.model.named_buffers()).get(CHOSEN.removeprefix("model."))) is not None:
        tensors[CHOSEN] = number.clone()
    load_weights(composition, tensors, file)
    if prior is not None and logits is not None:
        prior.logits.copy_(logits)


def _check_own(composition: Composition) -> None:
    """Raise ChoiceError if a composition built by hand cannot be trained."""
    composition.objective.check(composition.model)
    for part, module in composition.modules.items():
        for name, p in module.named_parameters():
            if p.is_inference():
                raise ChoiceError(
                    f"{part}.{name} was created in torch.inference_mode: build the composition outside it"
                )
            if p.is_floating_point() and p.dtype != torch.float32:
                raise ChoiceError(f"{part}.{name} is {p.dtype}, but vaekit trains in float32: call .float() on it")


def check_free(path: Path, replace: bool) -> None:
    """Raise RunError if the directory holds a run that may not be replaced, or files of a run without run.json."""
    if (path / "run.json").exists():
        if not replace:
            raise RunError(
                f"{path} already holds a run: `exists='resume'` resumes it, `exists='replace'` replaces it; or choose "
                "another `out`"
            )
    elif file := next((name for name in OWN if (path / name).exists()), None):
        raise RunError(f"{path} holds {file} but no run.json: restore run.json, or choose another `out`")


def make_directory(path: Path) -> None:
    """Create the directory of a run. Raises RunError if it cannot be created."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the directory {path}: {error.strerror}; choose another `out`") from error


def _condition_column(recipe: str | Composition | None, choices: dict[str, Any]) -> str | None:
    """The column that the model is conditional on, which may be one of the columns of x; or None."""
    if isinstance(recipe, Composition):
        return None if recipe.condition is None else recipe.condition.column
    return choices.get("condition")


def new_data(source: Any) -> Data:
    """Load the data of a new run."""
    if source is None:
        raise ChoiceError("fit needs data: a name, a path, arrays or Data")
    return data_of(source)


def _loaded_again(source: Any, path: Path, config: Configuration, argument: str) -> Data:
    """Load the data of a run to resume, with its stored options and splits; `argument` is shown in the error."""
    if source is None:
        source = config["data"]["source"]
    if source is None:
        raise RunError(
            f"{path} was trained on arrays in memory, which a run does not store: pass the same arrays again, as in "
            f"vk.fit(x, out={str(path)!r}, {argument})"
        )
    return read_again(path, config, source)


def _tuples(choices: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in choices.items()}
