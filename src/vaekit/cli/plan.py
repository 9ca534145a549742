"""`vaekit fit --dry-run`: the choices, sizes and estimated time of a training; writes no files."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaekit.options import ADAMS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn
    from torch.utils.hooks import RemovableHandle

    from vaekit.data import Data
    from vaekit.options import Options
    from vaekit.recipes import Composition, Recipe
    from vaekit.training.loop import Trainer
    from vaekit.training.plan import Plan

STEPS = 5


def plan(data: Data, name: str, arguments: dict[str, Any], options: Options, out: Path, init_from: str | None) -> None:
    """Print the choices, shapes, sizes and memory, and the time estimated from a few real steps."""
    from vaekit.data.condition import set_apart
    from vaekit.recipes import DataSpec, get_recipe
    from vaekit.training.loop import Trainer
    from vaekit.training.plan import plan_new
    from vaekit.training.prepare import prepare
    from vaekit.training.start import describe, take_weights
    from vaekit.utils.isolation import seeded
    from vaekit.utils.progress import Silent

    data = set_apart(data, arguments.get("condition"))
    recipe = get_recipe(name)
    with seeded(options.seed):
        composition = recipe(DataSpec.of(data), **arguments)
    decided = plan_new(options, composition, data)
    config = describe(data, recipe.name, arguments, composition, decided)
    if init_from is not None:
        take_weights(composition, init_from)
    prepare(data, composition, decided.seed)
    shapes = _shapes(data, composition)
    eager = dataclasses.replace(decided, compile=False)  # for the few steps here
    trainer = Trainer(composition, data, eager, out, config, Silent())
    seconds = _step_seconds(trainer)
    for label, text in [
        *_choices(data, recipe, arguments, composition, decided, out, init_from),
        *_machine(decided),
        *shapes,
        *_sizes(trainer),
        *_time(trainer, decided, seconds),
    ]:
        print(f"{label:<12} {text}")
    print("dry run: nothing was written")


def _choices(
    data: Data,
    recipe: Recipe,
    arguments: dict[str, Any],
    composition: Composition,
    decided: Plan,
    out: str | Path | None,
    init_from: str | Path | None,
) -> Iterator[tuple[str, str]]:
    likelihood = getattr(composition.model.likelihood, "head", composition.model.likelihood)
    values = {a.name: arguments.get(a.name, a.default) for a in recipe.arguments}
    applied = {a.name: values[a.name] for a in recipe.arguments if a.name in arguments or a.applies(values)}
    yield (
        "data",
        (
            f"{data.name}: {data.kind} {data.shape}, {len(data.train):,} train, {len(data.valid):,} valid, "
            f"{len(data.test):,} test"
        ),
    )
    choices = ", ".join(f"{n} {_plain(v, 'auto')}" for n, v in applied.items())
    yield "recipe", f"{recipe.name}: {choices}"
    yield "observation", composition.observation.kind
    yield "likelihood", type(likelihood).__name__
    yield "objective", type(composition.objective).__name__
    yield (
        "optimiser",
        (
            f"{decided.optimiser}, lr {decided.lr:g} ({decided.schedule}), weight decay {decided.weight_decay:g}, "
            f"beta2 {decided.beta2 if decided.optimiser in ADAMS else 'none'}, clip {_plain(decided.clip)}, "
            f"averaging {_plain(decided.ema)}"
        ),
    )
    yield "seed", str(decided.seed)
    yield "out", f"{out}" + (f", weights from {init_from}" if init_from else "")


def _plain(value: Any, none: str = "none") -> str:
    if value is None:
        return none
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _machine(decided: Plan) -> Iterator[tuple[str, str]]:
    from vaekit.data.core import counted

    yield "device", f"{decided.device}, {decided.precision}, {counted(decided.threads, 'thread')}"
    yield "compile", f"{'yes' if decided.compile else 'no'}: {decided.compile_why}"


def _shapes(data: Data, composition: Composition) -> list[tuple[str, str]]:
    """The shapes of x and z, and of the input and output of every layer with weights."""
    import numpy as np
    import torch

    from vaekit.noise import Noise

    lines: list[tuple[str, str]] = []

    def note(name: str, module: nn.Module) -> RemovableHandle:
        count = sum(p.numel() for p in module.parameters())

        def hook(_: nn.Module, inputs: tuple[Any, ...], result: Any) -> None:
            if inputs and isinstance(inputs[0], torch.Tensor) and isinstance(result, torch.Tensor):
                ins, outs = tuple(inputs[0].shape[1:]), tuple(result.shape[1:])
                lines.append(("", f"{name}: {ins} -> {outs}, {count:,} parameters"))

        return module.register_forward_hook(hook)

    model = composition.model
    leaves = [(n, m) for n, m in model.named_modules() if not list(m.children()) and list(m.parameters())]
    hooks = [note(n, m) for n, m in leaves]
    raw = torch.from_numpy(np.ascontiguousarray(data.events(data.train[np.arange(2)])))
    with torch.no_grad():
        x = composition.observation(raw, Noise.of(0, len(raw)))
        c = composition.condition
        z = model.encode(x, torch.from_numpy(c.of(data.train.head(2))) if c else None)
        model.decode(z)
    for hook in hooks:
        hook.remove()
    return [("shapes", f"x {tuple(x.shape[1:])}, z {tuple(z.shape[1:])}"), *lines]


def _sizes(trainer: Trainer) -> Iterator[tuple[str, str]]:
    engine = trainer.engine
    weights = sum(p.nbytes for p in engine.parameters.values())
    memory = sum(t.nbytes for ts in engine.memory.values() for t in ts)
    average = sum(t.nbytes for t in engine.average.values())
    resident = trainer.rows.resident
    rows = resident.nbytes if resident is not None else 0
    yield "parameters", f"{trainer.plan.parameters:,}"
    yield (
        "memory",
        (
            f"weights {_bytes(weights)}, gradients {_bytes(weights)}, optimiser {_bytes(memory)}, averages "
            f"{_bytes(average)}, data {_bytes(rows)}{'' if rows else ' (read from disk as needed)'}, total "
            f"{_bytes(2 * weights + memory + average + rows)} without activations"
        ),
    )


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} GB"


def _step_seconds(trainer: Trainer) -> float:
    """Seconds per eager step on real rows: the median of a few steps after the first."""
    print(f"measuring {STEPS} steps ...", file=sys.stderr)
    trainer.engine.module.train()
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        trainer.one_step()
        float(trainer.pending[-1][1][0])  # waits for the device
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[(STEPS - 1) // 2]


def _time(trainer: Trainer, decided: Plan, seconds: float) -> Iterator[tuple[str, str]]:
    from vaekit.utils.progress import unit

    yield "batch", f"{decided.batch}, {decided.epoch_steps:.4g} steps per epoch"
    ms = 1000 * seconds
    speed = f"{decided.batch / seconds:,.0f} {unit(trainer.data.kind)}/s"
    per = f"at {f'{ms:.0f}' if ms >= 10 else f'{ms:.2g}'} ms per eager step, {speed}"
    if decided.minutes is not None:
        steps = int(60 * decided.minutes / seconds)
        yield "length", f"{decided.minutes:g} minutes, compilation included"
        yield "time", f"about {steps:,} steps, {steps / decided.epoch_steps:.3g} epochs {per} (an estimate)"
        return
    steps = decided.horizon
    total = steps * seconds
    early = f"; stops early after {decided.patience} validations without a better ELBO" if decided.patience else ""
    yield "length", f"{steps:,} steps, {steps / decided.epoch_steps:.4g} epochs{early}"
    note = "; compiled steps are shorter, and compiling takes up to a minute the first time" if decided.compile else ""
    yield "time", f"about {_duration(total)} {per} (an estimate{note})"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
