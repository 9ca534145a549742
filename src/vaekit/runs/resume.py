"""Resuming a run with its settings, and extending its training."""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaekit.data.core import Data, counted
from vaekit.errors import ChoiceError, RunError
from vaekit.objectives.schedules import learning_rate
from vaekit.options import Options, call_of, steps_over
from vaekit.recipes.composition import Composition

from .configuration import Configuration, Leg, options_of
from .stored import check_splits, read_otherwise

FINISHED = ("finished", "stopped early")
"""States of a run whose training is complete."""
LENGTHS = ("epochs", "steps", "minutes")


@dataclass
class Asked:
    """The settings requested by a call of `fit`; `named` are the training options that it passes by name."""

    recipe: str | Composition | None
    choices: dict[str, Any]
    options: Options
    named: frozenset[str]

    def training(self) -> dict[str, Any]:
        """The training options that were passed."""
        values = dataclasses.asdict(self.options)
        return {n: v for n, v in values.items() if n in self.named or v != getattr(Options(), n)}


def check_settings(config: Configuration, asked: Asked, *, extend: bool = False) -> None:
    """Check that a resumed run keeps its settings; with `extend`, its length and patience may change.

    Raises:
        RunError: a requested setting differs from the one that the run was started with.
    """
    recipe, own = asked.recipe, isinstance(asked.recipe, Composition)
    if recipe is not None and (own != (config["recipe"] is None) or (not own and recipe != config["recipe"])):
        started = f"recipe {config['recipe']}" if config["recipe"] else "a composition built by hand"
        raise RunError(f"the run was started with {started}, not {'another' if own else recipe}: omit `recipe`")
    free = (*LENGTHS, "patience") if extend else ()
    stored = {**config.get("defaults", {}), **config["arguments"]}
    kept_options = options_of(config)
    pairs = [(n, getattr(kept_options, n), v, True) for n, v in asked.training().items() if n not in free]
    pairs += [(n, stored.get(n), v, False) for n, v in asked.choices.items()]
    for name, kept, value, training in pairs:
        if _plain(kept) == _plain(value):
            continue
        if name in LENGTHS and any(leg["asked"].get(name) == value for leg in config.get("legs", [])[:-1]):
            continue  # a length from before an extension: a notebook cell may be run again
        was = f"without `{name}`" if kept is None else f"with `{name}={_plain(kept)!r}`"
        longer = "add `extend=True` to train longer, " if name in LENGTHS else ""
        other = " (`init_from` starts from this one's weights)" if training else ""
        raise RunError(
            f"the run was started {was}, not {_plain(value)!r}: {longer}omit `{name}` to resume the run, or start "
            f"another run for another `{name}`{other}"
        )


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value.lower() if isinstance(value, str) else value


def check_data(config: Configuration, data: Data, path: Path) -> None:
    """Raise RunError unless the data and their splits are those that the run at `path` was started with."""
    if not data.is_same(config["data"]["digest"]):
        raise RunError(
            "the data differ from those that the run was started with: pass the same data, or choose another `out`"
            + read_otherwise(data)
        )
    shape = config["data"]["facts"]["shape"]
    if list(shape) != list(data.shape):
        raise RunError(
            f"{path} is damaged: its run.json has data of shape {shape}, but the data have {list(data.shape)}"
        )
    check_splits(data, path)


def leg(asked: Options, step: int) -> Leg:
    """A leg of a run in run.json: the length requested, when it started, its first step and its last step so far."""
    lengths = {n: getattr(asked, n) for n in LENGTHS if getattr(asked, n) is not None}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"asked": lengths, "started": now, "from": step, "to": step}


def lengthen(config: Configuration, options: Options, done: int) -> bool:
    """Set the length and patience of `options` in the `config` of a run; False if the run has them already.

    Lengths count from the run's beginning. `done` is the number of steps in its last checkpoint. A run that stopped
    early is trained to the whole length, unless a larger patience is given.

    Raises:
        ChoiceError: no length is given, or the run has already reached it.
        RunError: the run stopped early and neither a length nor a larger patience is given, or there is no checkpoint
            to resume from.
    """
    before = options_of(config)
    lengths = {n: getattr(options, n) for n in LENGTHS}
    given = {n: v for n, v in lengths.items() if v is not None}
    if not given and options.patience is None:
        raise ChoiceError(
            "`extend` needs a length: give `epochs`, `steps` or `minutes`, counted from the run's beginning"
        )
    if done == 0 and config.get("step", 0) > 0:
        raise RunError("the run's checkpoint is missing, so it cannot be extended: start another run with `init_from`")
    more = _patience(config, options.patience)
    early = config["state"] == "stopped early" and not more
    if early and not given:
        raise RunError(
            f"the run stopped early at step {config['step']:,}, after {before.patience} validations without "
            "improvement: to train longer, give a length, such as `epochs`, or a larger patience, such as "
            f"`patience={2 * (before.patience or 1)}`"
        )
    given = given or {n: getattr(before, n) for n in LENGTHS if getattr(before, n) is not None}
    horizon = _horizon(config, given, done)
    if early and horizon is not None:
        more = {"patience": max(before.patience or 0, horizon)}  # validations are at least one step apart
    if horizon is None and not more:
        return False
    if "legs" not in config:  # written by an earlier version
        config["legs"] = [{**leg(before, 0), "started": config["created"], "to": done}]
    decided = config["decided"]
    if before.minutes and "minutes" in decided and "minutes" not in given:  # the steps of those minutes are known now
        reached = config.get("plan", {}).get("horizon", done)
        decided["steps"] = max(1, round(reached * decided.pop("minutes") / before.minutes))
    changed: dict[str, Any] = {**dict.fromkeys(LENGTHS), **given, **more}
    after = dataclasses.replace(before, **changed)
    config["training"] = dataclasses.asdict(after)
    config["plan"] = {"horizon": horizon or done}
    config["legs"].append(leg(after, done))
    config["state"] = "running"
    return True


def _patience(config: Configuration, patience: int | None) -> dict[str, int]:
    """The new patience if it is raised, else an empty dictionary."""
    before = options_of(config).patience or None
    if patience is not None and (patience or None) != before:
        if before is None:
            raise ChoiceError("the run had no `patience`, so its best weights were not kept: omit `patience`")
        if patience < before:
            raise ChoiceError(f"`extend` can raise the run's patience of {before}, but not lower it to {patience}")
        return {"patience": patience}
    return {}


def _horizon(config: Configuration, given: dict[str, Any], done: int) -> int | None:
    """The last step of a run of this length; None if the run has finished with this length."""
    finished = config["state"] in FINISHED
    if "minutes" in given:
        spent, wanted = config.get("seconds", 0.0), 60 * given["minutes"]
        if finished and options_of(config).minutes == given["minutes"]:
            return None
        if wanted <= spent:
            raise ChoiceError(
                f"the run has been trained for {spent / 60:.1f} minutes already, and `minutes={given['minutes']:g}` "
                "counts from its beginning: give a larger number"
            )
        return done + max(1, int((wanted - spent) * done / spent)) if spent and done else done + 1000
    n = config["data"]["n"]["train"]
    batch = min(options_of(config).over().batch, n)
    steps = steps_over(n, batch, **given)
    assert steps is not None
    if steps < done:
        ((name, value),) = given.items()
        raise ChoiceError(
            f"the run has taken {done:,} steps ({done * batch / n:.3g} epochs) already, and `{name}={value:g}` counts "
            "from its beginning: give a larger number"
        )
    return None if finished and steps == done else steps


def extension_notes(config: Configuration, state: str, before: int, done: int) -> list[str]:
    """Notes on the extension of a run that was in this state, with the horizon `before`."""
    notes = [note] if (note := _schedule_note(config, before, done)) else []
    if state == "stopped early" and config["plan"]["horizon"] <= (options_of(config).patience or 0):
        notes.append(
            f"the run had stopped early at step {done:,}: it now trains for the whole length, and keeps the weights "
            "with the best validation ELBO"
        )
    return notes


def _schedule_note(config: Configuration, before: int, done: int) -> str | None:
    """A note on how an extension changes the learning rate; None if the rate does not depend on the length."""
    name, horizon = options_of(config).over().schedule, config["plan"]["horizon"]
    if name == "constant" or call_of(name) is not None:
        return None
    was, now = (learning_rate(name, done / max(h, 1)) for h in (before, horizon))
    return (
        f"the {name} schedule is stretched to {horizon:,} steps: at step {done:,} the learning rate jumps from "
        f"{was:.2g} to {now:.2g} of its full value, so the result differs from that of one run of {horizon:,} steps"
    )


def thread_note(threads: int, now: int) -> str | None:
    """A note if a run that was started with `threads` threads is resumed with another number; else None."""
    if threads == now:
        return None
    return (
        f"the run was started with {counted(threads, 'thread')} and is resumed with {now}: the sums of matrix products "
        "are then split differently, so the result differs in the last bits from that of an uninterrupted run; set "
        f"OMP_NUM_THREADS={threads} in the environment to avoid this"
    )
