"""`fit`: train a model and leave a run directory.

Everything random is a function of (seed, step), so a run that was stopped anywhere and resumed ends in the weights of
one that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import parallel
from .augment import Augment
from .composition import Composition, Facts
from .data.core import Data
from .errors import ChoiceError, RunError, TrainingError
from .files import read_tensors, remove_parts, write_json
from .hardware import bf16_pays, choose_device, decide_compile, subnormals_as_zero, work
from .lock import only_trainer
from .noise import Noise
from .objectives import Batch
from .options import Options
from .progress import Progress, Silent, progress_for, unit
from .recipes import get_recipe
from .run import Run, open_run
from .stored import FORMAT, check_splits, data_options, load_weights, read_config, rebuild, stored_splits, write_splits
from .trainer import Trainer, checkpoints


def check_first_batch(
    composition: Composition, raw: Tensor, seed: int, c: Tensor | None = None, y: Tensor | None = None
) -> None:
    """Trace one small batch before anything is written: shapes, support and finite terms.

    Raises:
        ChoiceError: x lies outside the likelihood's support, or the model does not take the data's shape.
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
                raise TrainingError(f"{name} is {float(value)} before the first step: check the data and --lr")


def prepare(data: Data, composition: Composition, options: Options, initialise: bool = True) -> None:
    """Fit the observation, start the output at the data's mean, and check one batch."""
    n = len(data.train)
    if options.augment:
        Augment.parse(options.augment, data.kind, data.shape)

    def read(rows: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(data.events(data.train[rows])))

    if initialise:
        block = max(1, int(5e6) // max(1, math.prod(data.shape)))
        composition.observation.fit(lambda: (read(np.arange(a, min(a + block, n))) for a in range(0, n, block)))
        composition.objective.in_units(composition.observation.log_jacobian(data.shape))
        if composition.start is not None:
            some = np.linspace(0, n - 1, min(n, 5000, block)).astype(np.int64)
            with torch.no_grad():
                x = composition.observation(read(some), Noise.of(options.seed, len(some), 31))
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


FINISHED = ("finished", "stopped early")
"""States of a run in which nothing is left to train."""
FEW = 2000
"""Training images fewer than this, and than the numbers of one image, are few."""


def small_set(data: Data, options: Options) -> str | None:
    """What so few images can and cannot give, and what helps; None where there are enough or no images."""
    n = len(data.train)
    if data.kind != "image" or n >= min(FEW, math.prod(data.shape)):
        return None
    helps = {"augment": "--augment flip,shift", "patience": "--patience 10 (keeps the best weights)"}
    missing = [text for name, text in helps.items() if getattr(options, name) is None]
    return (
        f"{n:,} training images are few: such a model gives maps, scores and clean copies of images much like these, "
        "but it blurs or misses what is new in others (the validation ELBO tells) and its samples look like blends of "
        f"training images. What helps: {', '.join([*missing, 'a smaller --latent', 'more images'])}"
    )


def _jsonable(choices: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in choices.items()}


def describe(
    data: Data, recipe: str | None, arguments: dict[str, Any], composition: Composition, options: Options
) -> dict[str, Any]:
    """run.json before the first step: what was asked, what was decided, with which versions."""
    import vaekit

    device = choose_device(options.device, composition.observation.in_double)
    n = len(data.train)
    batch = min(options.batch or 100, n)
    steps = options.steps or (math.ceil(options.epochs * n / batch) if options.epochs else None)
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
        "defaults": _jsonable({} if recipe is None else get_recipe(recipe).defaults),
        "data": {
            "name": data.name,
            "source": data.source if isinstance(data.source, str) and data.source else None,
            "options": {k: v for k, v in data.options.items() if k != "splits"},
            "digest": data.digest,
            "facts": Facts.of(data).as_json(),
            "n": {"train": n, "valid": len(data.valid), "test": len(data.test)},
            "label_names": data.label_names,
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
        "state": "new",
    }


def past_its_best(run: Run) -> str | None:
    """What to say of a run whose validation ELBO ended well below its best; None where it did not.

    Well below: by more than a nat and more than a twentieth of all that it rose since the first validation. Runs whose
    KL has another weight than 1 train on something else, and those with patience keep their best weights.
    """
    config, options = run.config, run.config["training"]
    elbo = [(r["elbo"], r["step"]) for r in run.log if r["kind"] == "valid" and r.get("elbo") is not None]
    chosen = {**config.get("defaults", {}), **config["arguments"]}
    plain = chosen.get("objective", "elbo") == "elbo" and chosen.get("beta") in (None, 1)
    if options["patience"] or not plain or not elbo:
        return None
    best, step = max(elbo)
    fallen = best - elbo[-1][0]
    if fallen <= max(1.0, 0.05 * (best - elbo[0][0])):
        return None
    helps = ["--patience 5 keeps the best weights"]
    if config["data"]["facts"]["kind"] == "image" and not options["augment"]:
        helps.append("--augment flip,shift puts it off")
    return (
        f"the validation ELBO was best at step {step:,} ({best:.2f} nats) and has fallen by {fallen:.2f} since: the "
        f"training data are being learned by heart. {'; '.join([*helps, 'so do more data, or a smaller --latent'])}"
    )


@subnormals_as_zero()
def fit(
    data: Data | Any,
    recipe: str | Composition = "vae",
    *,
    out: str | Path,
    resume: bool = False,
    init_from: str | Path | None = None,
    progress: bool | Progress = True,
    on_start: Callable[[dict[str, Any]], None] | None = None,
    options: Options | None = None,
    **choices: Any,
) -> Run:
    """Train a model and leave a run directory.

    Arguments:
        data: `Data`, or what `load` or `from_arrays` take: a name, a path, an array, a torch Dataset.
        recipe: a recipe's name, or a `Composition` built by hand.
        out: the run directory; must not hold a run unless `resume`.
        resume: go on from the last checkpoint in `out` with the same settings.
        init_from: a run whose weights to start from (same shapes).
        progress: show progress; or a `Progress` of one's own.
        on_start: called with the configuration before the first step.
        options: training options; single ones may be given as keywords too.
        choices: the recipe's choices and training options by name.

    Raises:
        VaekitError: whatever cannot work, before anything is written.
    """
    started = time.monotonic()
    names = {f.name for f in dataclasses.fields(Options)}
    given = {k: choices.pop(k) for k in list(choices) if k in names}
    options = dataclasses.replace(options or Options(), **given).checked()
    path = Path(out)
    with contextlib.ExitStack() as locked:
        config = read_config(path) if resume else None
        if config is not None and config["state"] not in FINISHED and parallel.is_first():
            locked.enter_context(only_trainer(path))
            config = read_config(path)  # as the one before left it
        if not isinstance(data, Data):
            data = _loaded(data, path, config)
        if config is not None:
            if config["state"] in FINISHED:
                return _opened(path, recipe, data)
            _same_settings(config, recipe, choices, options, set(given), data)
            check_splits(data, path)
            init_from = config.get("init_from")
            config["data"]["source"] = data.source or None  # where they are now
            recipe = config["recipe"] or recipe
            options = Options(**config["training"])
            composition = rebuild(config, recipe if isinstance(recipe, Composition) else None)
            choices = config["arguments"]
        else:
            _no_run_at(path)
        begun = bool(resume and checkpoints(path))
        if not begun:
            with torch.random.fork_rng():
                torch.manual_seed(options.seed)  # before the model is built, so that one seed is one run
                if isinstance(recipe, Composition):
                    composition = recipe
                else:
                    composition = get_recipe(recipe)(Facts.of(data), **_tuples(choices))
            if config is None:
                options = options.with_defaults(composition)
                config = describe(
                    data, None if isinstance(recipe, Composition) else recipe, choices, composition, options
                )
        assert config is not None
        prepare(data, composition, options, initialise=not begun)
        if init_from is not None and not begun:
            tensors, _ = read_tensors(Path(init_from) / "model.safetensors")
            load_weights(composition, tensors, Path(init_from) / "model.safetensors")
            config["init_from"] = str(init_from)
        fabric = parallel.launch(options.devices, config["decided"]["device"])
        rank, _ = parallel.rank_and_world(fabric)
        if rank == 0:
            if not resume:
                _make_directory(path)
                locked.enter_context(only_trainer(path))
                _no_run_at(path)  # made since by another process
            remove_parts(path)
            remove_parts(path / "checkpoint")
            if not begun:
                _begin(path, data, config)
            if on_start:
                on_start(config)
        if not isinstance(progress, Progress):
            progress = progress_for() if progress and rank == 0 else Silent()
        progress.unit = unit(data.kind)
        trainer = Trainer(composition, data, options, path, config, progress, fabric, started)
        if begun:
            trainer.restore()
        elif (few := small_set(data, options)) is not None:
            progress.note(f"note: {few}")
        with progress:
            state = trainer.run()
    if rank != 0:
        raise SystemExit(0)
    if state == "interrupted":
        raise KeyboardInterrupt(str(path))
    return _opened(path, recipe, data)


def _no_run_at(path: Path) -> None:
    if (path / "run.json").exists():
        raise RunError(f"{path} already holds a run: go on with --resume, or choose another --out")


def _loaded(source: Any, path: Path, config: dict[str, Any] | None) -> Data:
    """The data of a new run, or of one to go on with: then with its own options and in its own splits."""
    from .data import from_arrays, load

    if not isinstance(source, str | Path):
        return from_arrays(source)
    if config is None:
        return load(source)
    return load(source, splits=stored_splits(path), **data_options(config))


def _opened(path: Path, recipe: str | Composition, data: Data) -> Run:
    return open_run(path, recipe if isinstance(recipe, Composition) else None, data)


def _tuples(choices: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in choices.items()}


def _same_settings(config, recipe, choices, options: Options, given: set[str], data: Data) -> None:
    """A resumed run keeps its settings: refuse others rather than mix two runs."""
    own = isinstance(recipe, Composition)
    if own != (config["recipe"] is None) or (not own and recipe not in ("vae", config["recipe"])):
        started = f"recipe {config['recipe']}" if config["recipe"] else "a composition of its own"
        raise RunError(f"the run was started with {started}, not {'another' if own else recipe}: resume with the same")
    if not data.is_same(config["data"]["digest"]):
        raise RunError("the data differ from those the run was started on: give the same, or another --out")
    asked = {k: v for k, v in dataclasses.asdict(options).items() if k in given or v != getattr(Options(), k)}
    stored = config["training"]
    for name, value in asked.items():
        if stored.get(name) != (value.lower() if isinstance(value, str) else value):
            raise RunError(
                f"the run was started with {name} {stored.get(name)}, not {value}: "
                "resume without it, or start another run with --out and --init-from"
            )
    for name, value in choices.items():
        kept = config["arguments"].get(name)
        if kept != (list(value) if isinstance(value, tuple) else value):
            raise RunError(f"the run was started with {name} {kept}, not {value}: resume without it")


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the directory {path}: {error.strerror}; choose another out") from error


def _begin(path: Path, data: Data, config: dict[str, Any]) -> None:
    """The files of a run before its first step, run.json last: without it there is no run."""
    (path / "log.jsonl").unlink(missing_ok=True)  # of a start that left no checkpoint
    write_splits(path, {part: getattr(data, part).index for part in ("train", "valid", "test")})
    write_json(path / "run.json", config)
