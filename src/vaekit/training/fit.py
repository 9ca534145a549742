"""`train`, which users call as `vaekit.fit`: train a model and write a run directory.

All random numbers are a function of (seed, step), so that a run that is stopped and resumed ends with the same weights
as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from vaekit.callbacks.base import Callback, checked
from vaekit.callbacks.loggers import Logger, loggers_of
from vaekit.data.core import Data
from vaekit.errors import ChoiceError
from vaekit.options import Options
from vaekit.recipes.composition import Composition
from vaekit.runs.configuration import Configuration, State
from vaekit.runs.find import default_out
from vaekit.runs.lock import only_trainer
from vaekit.runs.resume import Asked
from vaekit.runs.saved import SavedRun
from vaekit.utils.cell import progress_for
from vaekit.utils.files import checked_path
from vaekit.utils.isolation import undisturbed
from vaekit.utils.memory import reuse_large_blocks
from vaekit.utils.progress import Progress, Silent, is_interactive, say, unit
from vaekit.utils.waiting import adaptive_waiting

from . import parallel
from .cost import subnormals_as_zero
from .loop import Trainer
from .start import Start, check_free, make_directory, new, new_data, resumed


@undisturbed()
@subnormals_as_zero()
@adaptive_waiting()
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
    callbacks: Callback | Sequence[Callback] = (),
    log: str | Logger | Sequence[str | Logger] = (),
    on_start: Callable[[Configuration], None] | None = None,
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
        init_from: start from the weights of this run, which must have the same shapes.
        progress: whether to show progress; or a `Progress`.
        callbacks: `Callback` objects, which are told of every step, validation and checkpoint, and may stop training.
        log: where to send curves and pictures besides the run directory: `csv`, `tensorboard`, `wandb` or `mlflow`,
            with a file, folder, project or tracking URI after a colon, as in `tensorboard:logs/first`; or several.
        on_start: called with the configuration before the first step.
        on_interrupt: after Ctrl-C, SIGTERM or SIGHUP the run is saved, and then returned (`return`), or
            KeyboardInterrupt is raised (`raise`). `auto` returns it in notebooks and interactive sessions, and raises
            in scripts, which would otherwise continue. If a `Progress` stops the training, the run is always returned.
            After the last step the run is complete, and is saved as such.
        options: training options; any of them may instead be passed by name.
        choices: arguments of the recipe and training options by name.

    Raises:
        VaekitError: the data or a choice are not valid; raised before anything is written.
        KeyboardInterrupt: see `on_interrupt`; its argument is the path of the run.
    """
    started = time.monotonic()
    reuse_large_blocks()
    _check_choices(exists, on_interrupt, resume, extend)
    told = [*checked(callbacks), *loggers_of(log)]
    asked = _asked(recipe, options or Options(), choices)
    if out is None:
        data = new_data(data)
        out = default_out(data.name, "own" if isinstance(recipe, Composition) else recipe or "vae")
    path, own = checked_path(out), recipe if isinstance(recipe, Composition) else None
    resumes = resume or extend or (exists == "resume" and (path / "run.json").exists())
    with contextlib.ExitStack() as locks:
        if resumes:
            start = resumed(path, data, asked, extend=extend, init_from=init_from, locks=locks)
        else:
            start = new(path, data, asked, replace=exists == "replace", init_from=init_from)
        config, composition, data, plan = start.config, start.composition, start.data, start.plan
        if plan is None:
            return SavedRun.open(path, model=own, data=data)
        assert composition is not None
        assert data is not None
        fabric = parallel.launch(plan.devices, str(plan.device), plan.batch)
        rank, _ = parallel.rank_and_world(fabric)
        if rank == 0:
            if not resumes:
                _take(path, exists == "replace", locks)
            start.write(path)
            if on_start:
                on_start(config)
        shown = _shown(progress, rank, data)
        trainer = Trainer(composition, data, plan, path, config, shown, fabric, started, told)
        _run(trainer, start, shown)
    if rank != 0:
        raise SystemExit(0)
    if trainer.signalled:
        _after_interrupt(path, on_interrupt, own, trainer.ended)
    return SavedRun.open(path, model=own, data=data)


def _take(path: Path, replace: bool, locks: contextlib.ExitStack) -> None:
    """Create the directory of a new run, which stays locked until `locks` is closed."""
    make_directory(path)
    locks.enter_context(only_trainer(path))
    check_free(path, replace)  # another process may have created it meanwhile


def _run(trainer: Trainer, start: Start, shown: Progress) -> None:
    """Train from the start, or from the last checkpoint of a run that is resumed."""
    if start.begun:
        trainer.restore()
    for note in start.notes:
        shown.note(f"note: {note}")
    with shown:
        trainer.run()


def _asked(recipe: str | Composition | None, options: Options, named: dict[str, Any]) -> Asked:
    """The settings that the caller requests: options passed by name replace those of `options`; others are choices."""
    names = {f.name for f in dataclasses.fields(Options)} & set(named)
    changed = dataclasses.replace(options, **{name: named[name] for name in names}).checked()
    return Asked(recipe, {k: v for k, v in named.items() if k not in names}, changed, frozenset(names))


def _shown(progress: bool | Progress, rank: int, data: Data) -> Progress:
    """The receiver of the progress: the caller's own, or by default one that shows it in the first process."""
    if isinstance(progress, Progress):
        shown = progress
    else:
        shown = progress_for() if progress and rank == 0 else Silent()
    shown.unit = unit(data.kind)
    return shown


def _after_interrupt(path: Path, on_interrupt: str, own: Composition | None, state: State | None) -> None:
    """Raise KeyboardInterrupt, or print how to resume, if anything is left to do."""
    if on_interrupt == "raise" or (on_interrupt == "auto" and not is_interactive()):
        raise KeyboardInterrupt(str(path))
    if state != "interrupted":
        say(f"interrupted after the last step: the run in {path} is complete")
        return
    arguments = "data" if own is None else "data, composition"
    say(f"interrupted: saved in {path}; resume with vk.fit({arguments}, out={str(path)!r}, resume=True)")


def _check_choices(exists: str, on_interrupt: str, resume: bool, extend: bool) -> None:
    for name, value, known in (
        ("exists", exists, ("error", "resume", "replace")),
        ("on_interrupt", on_interrupt, ("auto", "return", "raise")),
    ):
        if value not in known:
            raise ChoiceError(f"`{name}` must be one of {', '.join(known)}, got {value!r}")
    if exists == "replace" and (resume or extend):
        raise ChoiceError(
            f"`{'resume' if resume else 'extend'}` needs the run that `exists='replace'` removes: use only one of them"
        )
