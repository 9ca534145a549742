"""`train`, which users call as `vaekit.fit`: train a model and write a run directory.

All random numbers are a function of (seed, step), so that a run that is stopped and resumed ends with the same weights
as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vaekit.data.condition import set_apart
from vaekit.data.core import Data, listed
from vaekit.data.observation import Grey
from vaekit.densities.mixed import DIFFERS
from vaekit.errors import ChoiceError, RunError, TrainingError
from vaekit.heads import ContinuousBernoulliHead, LocationScale
from vaekit.heads.mixed import Masked
from vaekit.noise import Key, Noise
from vaekit.objectives import Batch
from vaekit.objectives.schedules import unfinished
from vaekit.options import Options
from vaekit.recipes import get_recipe
from vaekit.recipes.composition import Composition, DataSpec
from vaekit.runs.find import default_out
from vaekit.runs.lock import only_trainer
from vaekit.runs.observed import blurred
from vaekit.runs.resume import FINISHED, Asked, check_data, check_settings, leg, lengthen, schedule_note
from vaekit.runs.saved import SavedRun
from vaekit.runs.stored import (
    FORMAT,
    OWN,
    clear,
    data_options,
    load_weights,
    read_config,
    reader_record,
    rebuild,
    stored_splits,
    write_splits,
)
from vaekit.utils.files import checked_path, read_tensors, remove_parts, write_json
from vaekit.utils.isolation import seeded, undisturbed
from vaekit.utils.progress import Progress, Silent, is_interactive, progress_for, say, unit

from . import parallel
from .augment import Augment
from .cost import bf16_pays, choose_device, decide_compile, subnormals_as_zero, work
from .loop import Trainer, checkpoints
from .overfitting import small_set


def check_first_batch(
    composition: Composition, raw: Tensor, seed: int, c: Tensor | None = None, y: Tensor | None = None
) -> None:
    """Trace one small batch before anything is written: shapes, support and finite terms.

    Raises:
        ChoiceError: x lies outside the likelihood's support, or its shape does not fit the model.
        TrainingError: a term is not finite.
    """
    noise = Noise.of(seed, len(raw))
    with torch.no_grad():
        x = composition.observation(raw, noise)
        px = composition.model.decode(composition.model.encode(x, c))
        if tuple(px.event_shape) != tuple(x.shape[1:]):
            raise ChoiceError(
                f"p(x|z) is over events of shape {tuple(px.event_shape)} but x has {tuple(x.shape[1:])}: "
                "let the head's event be the data's shape"
            )
        inside = px.support.check(x) if px.support is not None else torch.tensor(True)
        if not bool(inside.all()):
            raise ChoiceError(
                f"x runs from {float(x.min()):g} to {float(x.max()):g}, outside the support of "
                f"{type(px).__name__} ({px.support}): scale the data into it (0..255 images: x / 255, or uint8 "
                "with the binary or grey observation), or choose a Gaussian likelihood"
            )
        terms = composition.objective(composition.model, Batch(x, noise, c, y), torch.tensor(0))
        for name, value in {**terms.losses, **terms.stats}.items():
            if not bool(torch.isfinite(value)):
                raise TrainingError(f"{name} is {float(value)} before the first step: check the data and `lr`")


def prepare(data: Data, composition: Composition, options: Options, initialise: bool = True) -> None:
    """Fit the observation, initialise the output at the mean of the data, and check one batch."""
    if options.augment:
        Augment.parse(options.augment, data.kind, data.shape)
    with seeded(options.seed):  # the model is in training mode: its dropout draws
        _prepare(data, composition, options, initialise)


def _prepare(data: Data, composition: Composition, options: Options, initialise: bool) -> None:
    n = len(data.train)

    def read(rows: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(data.events(data.train[rows])))

    if initialise:
        block = max(1, int(5e6) // max(1, math.prod(data.shape)))
        composition.observation.fit(lambda: (read(np.arange(a, min(a + block, n))) for a in range(0, n, block)))
        composition.objective.in_units(composition.observation.log_jacobian(data.shape))
        if composition.start is not None:
            sample = np.linspace(0, n - 1, min(n, 5000, block)).astype(np.int64)
            with torch.no_grad():
                x = composition.observation(read(sample), Noise.of(options.seed, len(sample), Key.START))
                composition.start(composition, x)
    few = np.linspace(0, n - 1, min(n, 8)).astype(np.int64)
    c, y = composition.condition, composition.targets
    check_first_batch(
        composition,
        read(few),
        options.seed,
        torch.from_numpy(c.of(data.train)[few]) if c else None,
        torch.from_numpy(y.of(data.train)[few]) if y else None,
    )


def constants(data: Data, composition: Composition) -> str | None:
    """A note about elements that are constant in the training data and fixed by the likelihood; None without any."""
    head = getattr(composition.model.likelihood, "head", None)
    held = head.held if isinstance(head, Masked) else None
    if held is None:
        return None
    places = np.flatnonzero(~torch.isnan(held).numpy().ravel())
    value = composition.observation.to_raw(torch.nan_to_num(held)).numpy().ravel()[places]
    rest = [data.events(split[:]).reshape(len(split), -1)[:, places] for split in (data.valid, data.test)]
    others = sum(int(((rows != value) & (rows == rows)).any(1).sum()) for rows in rest)
    names = [data.feature_names[i] if data.feature_names else str(i) for i in places]
    if len(places) == 1:
        what = f"column {names[0]!r} is {value[0]:g} in every training row: it is reproduced exactly and adds"
    else:
        what = f"{len(places):,} columns ({listed(names, 6)}) hold one value each in all training rows: they are "
        what += "reproduced exactly and add"
    differ = f" ({others:,} of {sum(map(len, rest)):,} validation and test rows differ)" if others else ""
    return f"{what} nothing to log p(x); each value that differs from it costs {DIFFERS:,.0f} nats{differ}"


def piled_up(data: Data, composition: Composition) -> str | None:
    """A note if many grey values lie exactly at an end of their range and the density can be sharp there; else None."""
    head, seen = getattr(composition.model.likelihood, "head", None), composition.observation
    head = head.head if isinstance(head, Masked) else head
    sharp = isinstance(head, LocationScale) and head.scale in ("learned", "each")
    if not isinstance(seen, Grey) or not (sharp or isinstance(head, ContinuousBernoulliHead)):
        return None
    rows = data.train[np.linspace(0, len(data.train) - 1, min(len(data.train), 500)).astype(np.int64)]
    share = float(((rows == seen.low) | (rows == seen.low + seen.span)).mean())
    if share < 0.01:
        return None
    return (
        f"{share:.0%} of the values are exactly the lowest or the highest: a density of learned sharpness rises there "
        f"to its limit (about {5 if sharp else 7} nats per value), so log p(x) grows as long as one trains; "
        "`observation='dequantised'` or `likelihood='discretised-logistic'` has no such limit to climb to"
    )


def _jsonable(choices: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in choices.items()}


def describe(
    data: Data, recipe: str | None, arguments: dict[str, Any], composition: Composition, options: Options
) -> dict[str, Any]:
    """The content of run.json before the first step: choices, decisions and versions."""
    import vaekit

    device = choose_device(options.device, composition.observation.in_double)
    spec = DataSpec.of(data)
    n = len(data.train)
    batch = min(options.batch or 100, n)
    steps = options.steps or (math.ceil(options.epochs * (n / batch)) if options.epochs else None)
    parameters = sum(p.numel() for p in composition.model.parameters())
    cost = work(composition, data.shape)
    guess = steps if steps is not None else 60 * (options.minutes or 0) / cost.seconds(batch)
    compile_it, why = decide_compile(options.compile, guess, cost, batch, device)
    precision = options.precision
    if precision == "auto":
        precision = "bf16" if compile_it and bf16_pays(device) else "fp32"
    return {
        "format": FORMAT,
        "recipe": recipe,
        "arguments": _jsonable(arguments),
        "defaults": _jsonable({} if recipe is None else get_recipe(recipe).defaults_for(spec, arguments)),
        **({"plugins": packages} if recipe and (packages := get_recipe(recipe).packages(arguments)) else {}),
        "data": {
            "name": data.name,
            "source": data.source if isinstance(data.source, str) and data.source else None,
            "options": {k: v for k, v in data.options.items() if k != "splits"},
            "digest": data.digest,
            "facts": spec.as_json(),
            "n": {"train": n, "valid": len(data.valid), "test": len(data.test)},
            "label_names": data.label_names,
            **({"grouped": True} if data.test.group is not None else {}),
            **({"reader": plugin} if (plugin := reader_record(data)) else {}),
            "feature_names": None if data.schema else data.feature_names,
        },
        "observation": composition.observation.kind,
        "training": dataclasses.asdict(options),
        "decided": {
            "device": str(device),
            "precision": precision,
            "compile": compile_it,
            "compile_why": why,
            "parameters": parameters,
            "threads": torch.get_num_threads(),
        },
        "versions": {"vaekit": vaekit.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "plan": {"horizon": max(1, math.ceil(guess))},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "legs": [leg(dataclasses.asdict(options), 0)],
        "state": "new",
    }


@undisturbed()
@subnormals_as_zero()
def train(
    data: Data | Any = None,
    recipe: str | Composition | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    extend: bool = False,
    exists: Literal["error", "resume", "replace"] = "error",
    init_from: str | Path | None = None,
    progress: bool | Progress = True,
    on_start: Callable[[dict[str, Any]], None] | None = None,
    on_interrupt: Literal["auto", "return", "raise"] = "auto",
    options: Options | None = None,
    **choices: Any,
) -> SavedRun:
    """Train a model, write a run directory and return the run.

    Arguments:
        data: `Data`, or an argument of `load` or `from_arrays`: a name, a path, an array, a torch Dataset. A resumed
            run loads its own data, unless they were arrays in memory.
        recipe: name of a recipe (by default "vae"), or a `Composition`.
        out: the run directory; by default runs/DATA-RECIPE.
        resume: resume the run in `out` from its last checkpoint, with its settings; a finished run is opened.
        extend: train the run in `out` longer, to `epochs`, `steps` or `minutes` counted from its start.
        exists: if `out` holds a run, raise an error, resume it, or replace it once the new one can start.
        init_from: a run with the same shapes, from whose weights to start.
        progress: whether to show progress; or a `Progress`.
        on_start: called with the configuration before the first step.
        on_interrupt: after Ctrl-C, SIGTERM or SIGHUP the run is saved, then returned, or KeyboardInterrupt is raised.
            `auto` returns it in notebooks and interactive sessions, and raises in scripts, which would continue
            otherwise. (If a `Progress` stops the training, the run is always returned.)
        options: training options; single options may also be given as keywords.
        choices: arguments of the recipe and training options by name.

    Raises:
        VaekitError: the data or a choice are not valid; raised before anything is written.
        KeyboardInterrupt: see `on_interrupt`; its argument is the path of the run.
    """
    started = time.monotonic()
    _check_ways(exists, on_interrupt, resume, extend)
    asked = _asked(recipe, options or Options(), choices)
    if out is None:
        data = data if isinstance(data, Data) else _loaded(data)
        out = default_out(data.name, "own" if isinstance(recipe, Composition) else recipe or "vae")
    path, own = checked_path(out), recipe if isinstance(recipe, Composition) else None
    goes_on = resume or extend or (exists == "resume" and (path / "run.json").exists())
    with contextlib.ExitStack() as held:
        if goes_on:
            start = _going_on(path, data, asked, extend, init_from, held)
        else:
            start = _new(path, data, asked, exists == "replace", init_from)
        config, composition, data = start.config, start.composition, start.data
        if not start.left:
            return SavedRun.open(path, model=own, data=data)
        assert composition is not None
        assert data is not None
        options = Options(**config["training"])
        fabric = parallel.launch(options.devices, config["decided"]["device"])
        rank, _ = parallel.rank_and_world(fabric)
        if rank == 0:
            if not goes_on:
                _make_directory(path)
                held.enter_context(only_trainer(path))
                _check_free(path, exists == "replace")  # another process may have come first
            start.write(path)
            if on_start:
                on_start(config)
        shown = _shown(progress, rank, data)
        trainer = Trainer(composition, data, options, path, config, shown, fabric, started)
        if start.begun:
            trainer.restore()
        for note in start.notes:
            shown.note(f"note: {note}")
        with shown:
            trainer.run()
    if rank != 0:
        raise SystemExit(0)
    if trainer.signalled:
        _after_interrupt(path, on_interrupt)
    return SavedRun.open(path, model=own, data=data)


def _asked(recipe: str | Composition | None, options: Options, named: dict[str, Any]) -> Asked:
    """What the caller asked for: options given by name replace those of `options`, the rest is for the recipe."""
    names = {f.name for f in dataclasses.fields(Options)} & set(named)
    changed = dataclasses.replace(options, **{name: named[name] for name in names}).checked()
    return Asked(recipe, {k: v for k, v in named.items() if k not in names}, changed, frozenset(names))


def _shown(progress: bool | Progress, rank: int, data: Data) -> Progress:
    """What shows the progress: the caller's own, or by default that of the first process."""
    if isinstance(progress, Progress):
        shown = progress
    else:
        shown = progress_for() if progress and rank == 0 else Silent()
    shown.unit = unit(data.kind)
    return shown


def _after_interrupt(path: Path, on_interrupt: str) -> None:
    """Raise KeyboardInterrupt, or say how to go on."""
    if on_interrupt == "raise" or (on_interrupt == "auto" and not is_interactive()):
        raise KeyboardInterrupt(str(path))
    say(f"interrupted: saved in {path}; resume with vk.fit(data, out={str(path)!r}, resume=True)")


def _check_ways(exists: str, on_interrupt: str, resume: bool, extend: bool) -> None:
    for name, value, known in (
        ("exists", exists, ("error", "resume", "replace")),
        ("on_interrupt", on_interrupt, ("auto", "return", "raise")),
    ):
        if value not in known:
            raise ChoiceError(f"`{name}` must be one of {', '.join(known)}, got {value!r}")
    if exists == "replace" and (resume or extend):
        raise ChoiceError(
            f"`{'resume' if resume else 'extend'}` needs the run that `exists='replace'` removes: give one of them"
        )


@dataclass
class _Start:
    """The start of a training, checked before anything is written."""

    config: dict[str, Any]
    data: Data | None
    composition: Composition | None = None
    left: bool = True  # to train
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


def _new(path: Path, data: Any, asked: Asked, replace: bool, init_from: str | Path | None) -> _Start:
    _check_free(path, replace)
    data = data if isinstance(data, Data) else _loaded(data)
    recipe = asked.recipe or "vae"
    data = set_apart(data, _condition_column(recipe, asked.choices))
    if isinstance(recipe, Composition):
        composition, name = recipe, None
        _check_own(composition)
    else:
        name = recipe
        with seeded(asked.options.seed):  # so that one seed is one run
            composition = get_recipe(name)(DataSpec.of(data), **_tuples(asked.choices))
    options = asked.options.with_defaults(composition.defaults)
    config = describe(data, name, asked.choices, composition, options)
    prepare(data, composition, options)
    if init_from is not None:
        take_weights(composition, init_from)
        config["init_from"] = str(init_from)
    ends = None if options.minutes is not None else unfinished(composition.objective, config["plan"]["horizon"])
    notes = [
        note
        for note in (small_set(data, options), *(of(data, composition) for of in (constants, piled_up, blurred)), ends)
        if note
    ]
    return _Start(config, data, composition, notes=notes)


def _going_on(path: Path, data: Any, asked: Asked, extend: bool, init_from: Any, held: contextlib.ExitStack) -> _Start:
    config = read_config(path)
    check_settings(config, asked, extend=extend)
    if init_from is not None and str(init_from) != config.get("init_from"):
        raise RunError(f"the run was started from {config.get('init_from') or 'fresh weights'}, not from {init_from}")
    over = config["state"] in FINISHED and not extend
    if not over and parallel.is_first(config["training"].get("devices") or 1):
        held.enter_context(only_trainer(path))
        config = read_config(path)  # as the one before left it
        over = config["state"] in FINISHED and not extend
    if not over or data is not None:
        data = data if isinstance(data, Data) else _loaded(data, path, config)
        data = set_apart(data, _condition_column(asked.recipe, config["arguments"]))
        check_data(config, data, path)
    saved = checkpoints(path)
    horizon, done = config.get("plan", {}).get("horizon", 0), int(saved[-1].stem) if saved else 0
    if over or (extend and not lengthen(config, asked.options, done)):
        return _Start(config, data, left=False)
    config["data"]["source"] = data.source or None  # where they are now
    options = Options(**config["training"])
    own = asked.recipe if isinstance(asked.recipe, Composition) else None
    composition = rebuild(config, own, seed=options.seed)
    prepare(data, composition, options, initialise=not saved)
    if not saved and "init_from" in config:
        take_weights(composition, config["init_from"])
    note = schedule_note(config, horizon, done) if extend else None
    return _Start(config, data, composition, True, bool(saved), extend, [note] if note else [])


def take_weights(composition: Composition, run: str | Path) -> None:
    """Start from the weights of another run (`init_from`)."""
    rules = read_config(run)["data"]["facts"].get("rules", 1)
    if rules < 2 and any(getattr(module, "share", 1.0) < 1 for module in composition.model.modules()):
        raise RunError(f"{run} was trained before wide inputs were scaled: its weights do not fit a new run")
    prior = getattr(composition.model, "class_prior", None)  # of the classes of these data, not of the other run's
    logits = None if prior is None else prior.logits.clone()
    file = Path(run) / "model.safetensors"
    load_weights(composition, read_tensors(file)[0], file)
    if prior is not None and logits is not None:
        prior.logits.copy_(logits)


def _check_own(composition: Composition) -> None:
    """Raises ChoiceError where a composition built by hand cannot be trained."""
    for part, module in composition.modules.items():
        for name, p in module.named_parameters():
            if p.is_inference():
                raise ChoiceError(
                    f"{part}.{name} was created in torch.inference_mode: build the composition outside it"
                )
            if p.is_floating_point() and p.dtype != torch.float32:
                raise ChoiceError(f"{part}.{name} is {p.dtype}, and vaekit trains in float32: call .float() on it")


def _check_free(path: Path, replace: bool) -> None:
    """Raises RunError where a new run would mix with what is in its directory."""
    if (path / "run.json").exists():
        if not replace:
            raise RunError(
                f"{path} already holds a run: `exists='resume'` continues it, `exists='replace'` starts a new one; "
                "or choose another `out`"
            )
    elif found := next((name for name in OWN if (path / name).exists()), None):
        raise RunError(f"{path} holds {found} but no run.json: restore that, or choose another `out`")


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the directory {path}: {error.strerror}; choose another `out`") from error


def _condition_column(recipe: str | Composition | None, choices: dict[str, Any]) -> str | None:
    """The column that a model is to be conditional on, perhaps one of the table itself."""
    if isinstance(recipe, Composition):
        return None if recipe.condition is None else recipe.condition.column
    return choices.get("condition")


def _loaded(source: Any, path: Path | None = None, config: dict[str, Any] | None = None) -> Data:
    """The data of a new run, or of one to go on with: then with its own options and in its own splits."""
    from vaekit.data import from_arrays, load

    if source is None:
        if config is None:
            raise ChoiceError("fit needs data: a name, a path, arrays or Data")
        source = config["data"]["source"]
        if source is None:
            raise RunError(f"{path} was trained on arrays in memory: give the same data to go on with it")
    if not isinstance(source, str | Path):
        return from_arrays(source)
    if config is None or path is None:
        return load(source)
    return load(source, splits=stored_splits(path), **data_options(config))


def _tuples(choices: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in choices.items()}
