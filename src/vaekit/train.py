"""`fit`: one training loop for every model.

Everything random is a function of (seed, step), so a run that was stopped anywhere and resumed ends in the weights of
one that was not. Nothing in this file knows which model or objective it trains.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import parallel
from .data.batches import Order, Rows
from .data.core import Data
from .engine import Engine, Settings
from .errors import ChoiceError, RunError, TrainingError, VaekitError
from .files import read_tensors, write_json, write_tensors
from .noise import Noise
from .objectives import Batch
from .optimisers import OPTIMISERS, optimiser
from .progress import Progress, Silent, progress_for
from .recipes import Composition, Facts, get_recipe
from .run import FORMAT, Observed, Run, load_weights, read_config, rebuild
from .schedules import LEARNING_RATES, learning_rate
from .terms import distortion, rate

CHECKPOINT_SECONDS = 60.0
PLAN_SECONDS = 10.0
RECORD_STEPS = 50
VALID_ROWS = 2000


@dataclass(frozen=True)
class Options:
    """How to train. What is None comes from the recipe's defaults.

    Give at most one of `epochs`, `steps` and `minutes`; `minutes` bounds the whole call, compilation included.
    """

    epochs: float | None = None
    steps: int | None = None
    minutes: float | None = None
    seed: int = 0
    lr: float | None = None
    batch: int | None = None
    optimiser: str | None = None
    schedule: str | None = None
    weight_decay: float | None = None
    clip: float | None = None
    ema: float | None = None
    patience: int | None = None
    validate_steps: int | None = None
    checkpoint_steps: int | None = None
    device: str = "auto"
    devices: int = 1
    precision: str = "auto"
    compile: str = "auto"

    def checked(self) -> Options:
        """Self, or a ChoiceError that names the first wrong value."""
        if sum(v is not None for v in (self.epochs, self.steps, self.minutes)) > 1:
            raise ChoiceError("give one of --epochs, --steps and --minutes, not several")
        for name in ("epochs", "steps", "minutes", "lr", "batch", "clip", "patience", "validate_steps",
                     "checkpoint_steps", "devices"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ChoiceError(f"--{name.replace('_', '-')} must be above 0, got {value}")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ChoiceError(f"--ema must lie in [0, 1), got {self.ema}")
        if self.weight_decay is not None and self.weight_decay < 0:
            raise ChoiceError(f"--weight-decay must be 0 or more, got {self.weight_decay}")
        for name, known in (("optimiser", tuple(OPTIMISERS)), ("schedule", LEARNING_RATES),
                            ("precision", ("auto", "fp32", "bf16")), ("compile", ("auto", "on", "off"))):
            value = getattr(self, name)
            if value is not None and value.lower() not in known:
                raise ChoiceError(f"--{name} {value!r} is not one of {', '.join(known)}")
        return self

    def with_defaults(self, composition: Composition) -> Options:
        """The same with the recipe's defaults in the gaps."""
        defaults = composition.defaults
        filled = {
            f.name: getattr(self, f.name) if getattr(self, f.name) is not None else getattr(defaults, f.name)
            for f in dataclasses.fields(defaults)
            if f.name != "epochs"
        }
        epochs = self.epochs
        if epochs is None and self.steps is None and self.minutes is None:
            epochs = defaults.epochs
        filled["optimiser"] = filled["optimiser"].lower()
        return dataclasses.replace(self, epochs=epochs, **filled)


def choose_device(name: str) -> torch.device:
    """CUDA, then MPS, then CPU for `auto`; otherwise the device of that name."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ChoiceError(f"--device {name!r} cannot be used here ({reason}): use auto, cpu, cuda or mps") from None
    return device


def _has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 products are faster than float32 here."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def decide_compile(asked: str, steps: float, parameters: int, batch: int, device: torch.device) -> tuple[bool, str]:
    """Whether to compile, and why: by the time it can save in this run, from a cost model and not from a clock.

    An eager step is put at 2 ms plus its matrix products at 100 GFLOP/s (a GPU: 2 ms), of which a graph saves two
    fifths; a compilation at 45 s. The decision is recorded, since compiled and eager weights differ in the last bits.
    """
    import shutil

    if asked == "off":
        return False, "asked for"
    if device.type == "cpu" and not any(shutil.which(c) for c in ("g++", "c++", "clang++")):
        if asked == "on":
            raise ChoiceError("--compile on needs a C++ compiler (g++); install one or write --compile auto")
        return False, "no C++ compiler here"
    if asked == "on":
        return True, "asked for"
    if device.type == "mps":
        return False, "not on MPS"
    flops = 6.0 * parameters * batch if device.type == "cpu" else 0.0
    saves = 0.4 * steps * (0.002 + flops / 1e11)
    if saves < 45:
        return False, f"it would save about {saves:.0f} s and cost 45 s"
    return True, f"it should save about {saves:.0f} s for the 45 s it costs"


class Stop(Exception):
    """Ctrl-C or SIGTERM arrived: finish the step, save, leave."""


class _Signals:
    """Turns the first SIGINT or SIGTERM into a flag; a second one gets through."""

    def __enter__(self) -> _Signals:
        self.asked: str | None = None
        self.old: dict[int, Any] = {}
        try:
            for s in (signal.SIGINT, signal.SIGTERM):
                self.old[s] = signal.signal(s, self._note)
        except ValueError:  # not in the main thread: whoever owns it decides
            self.old = {}
        return self

    def _note(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name

    def __exit__(self, *error: Any) -> None:
        for s, handler in self.old.items():
            signal.signal(s, handler)


def check_first_batch(composition: Composition, raw: Tensor, seed: int) -> None:
    """Trace one small batch before anything is written: shapes, support and finite terms.

    Raises:
        ChoiceError: x lies outside the likelihood's support, or the model does not take the data's shape.
    """
    noise = Noise.of(seed, len(raw))
    with torch.no_grad():
        x = composition.observation(raw, noise)
        px = composition.model.decode(*(q.mean for q in composition.model.infer(x)))
        if tuple(px.event_shape) != tuple(x.shape[1:]):
            raise ChoiceError(
                f"p(x|z) is over events of shape {tuple(px.event_shape)} but x has {tuple(x.shape[1:])}: "
                "let the head's event be the data's shape"
            )
        try:
            inside = px.support.check(x)
        except NotImplementedError:
            inside = torch.tensor(True)
        if not bool(inside.all()):
            raise ChoiceError(
                f"x runs from {float(x.min()):g} to {float(x.max()):g}, outside the support of "
                f"{type(px).__name__} ({px.support}): scale the data into it (0..255 images: x / 255, or uint8 "
                "with the binary or grey observation), or choose a Gaussian likelihood"
            )
        terms = composition.objective(composition.model, Batch(x, noise), torch.tensor(0))
        for name, value in {**terms.losses, **terms.stats}.items():
            if not bool(torch.isfinite(value)):
                raise TrainingError(f"{name} is {float(value)} before the first step: check the data and --lr")


@dataclass
class Plan:
    """How long the run is to be: a horizon in steps, estimated from the clock when minutes were asked for."""

    horizon: int
    minutes: float | None

    def revise(self, step: int, seconds: float, per_step: float) -> bool:
        """Set the horizon anew after `seconds` in all; whether it moved by more than a hundredth."""
        assert self.minutes is not None
        left = max(self.minutes * 60 - seconds, 0.0)
        horizon = step + int(left / max(per_step, 1e-9))
        moved = abs(horizon - self.horizon) > 0.01 * self.horizon
        if moved:
            self.horizon = horizon
        return moved


class Trainer:
    """One training run: owns the engine, the plan and the files. `fit` makes one and calls `run`."""

    def __init__(
        self, composition: Composition, data: Data, options: Options, path: Path, config: dict[str, Any],
        progress: Progress, fabric: Any = None,
    ):
        self.composition, self.data, self.options, self.path = composition, data, options, path
        self.config, self.progress, self.fabric = config, progress, fabric
        self.device = fabric.device if fabric is not None else choose_device(options.device)
        self.rank, self.world = parallel.rank_and_world(fabric)
        self.started = time.monotonic()
        self.spent = 0.0  # seconds of earlier sessions
        self.order = Order(len(data.train), options.batch or 100, options.seed)
        self.rows = Rows(data, data.train, self.device)
        n = len(data.train)
        self.epoch_steps = n / self.order.batch
        self.validate_steps = options.validate_steps or int(min(max(self.epoch_steps, 500), 2000))
        self.plan = Plan(self._asked_steps(), options.minutes)
        self.step = 0
        self.best = -math.inf
        self.best_step = 0
        self.since_best = 0
        self.best_weights: dict[str, Tensor] = {}
        self.valid: dict[str, float] = {}
        settings = Settings(
            optimiser=lambda: optimiser(options.optimiser or "adam", options.weight_decay or 0.0),
            lr=options.lr or 1e-3,
            clip=options.clip,
            ema=options.ema or None,
            precision=config["decided"]["precision"],
            compile=config["decided"]["compile"],
            seed=options.seed,
            device=self.device,
            reduce=parallel.reducer(fabric),
        )
        self.engine = Engine(composition, settings)
        self.pending: list[tuple[int, Tensor]] = []
        self.records: list[str] = []
        self.valid_x: list[tuple[Tensor, Tensor]] | None = None

    def _asked_steps(self) -> int:
        o = self.options
        if o.steps is not None:
            return o.steps
        if o.epochs is not None:
            return max(1, math.ceil(o.epochs * self.epoch_steps))
        return self.config.get("plan", {}).get("horizon", 1000)

    @property
    def seconds(self) -> float:
        return self.spent + time.monotonic() - self.started

    # --- the loop -----------------------------------------------------------------------------------------------

    def run(self) -> str:
        """Train to the horizon; how it ended: finished, stopped early, or interrupted."""
        self.engine.module.train()
        if self.config["decided"]["compile"]:
            self.progress.note("compiling the training step (once a run; 10 to 60 s) ...")
            self.engine.compiled()
        last_save = last_plan = time.monotonic()
        window = (self.step, time.monotonic())
        state = "finished"
        with _Signals() as signals:
            while self.step < self.plan.horizon:
                self._one_step()
                now = time.monotonic()
                if self.step == 1 or now - window[1] > 2 and self.step - window[0] > 20 and window[0] == 0:
                    window = (self.step, now)  # the clock of the plan starts after compilation
                if self.step % self.validate_steps == 0 or self.step == self.plan.horizon:
                    self._flush()
                    if self._validate() and self.options.patience and self.since_best >= self.options.patience:
                        state = "stopped early"
                        break
                elif self.step % RECORD_STEPS == 0:
                    self._flush()
                if self.plan.minutes is not None and self.step > 1:
                    if self.seconds >= self.plan.minutes * 60:
                        self.plan.horizon = self.step
                    elif (now - last_plan > PLAN_SECONDS or (window[0] <= 1 and self.step == 50)) and self.step > window[0]:
                        per_step = (now - window[1]) / (self.step - window[0])
                        if self.plan.revise(self.step, self.seconds, per_step):
                            self._record({"kind": "plan", "horizon": self.plan.horizon, "step_ms": 1000 * per_step})
                        window, last_plan = ((self.step, now), now) if now - window[1] > 60 else (window, now)
                due = self.options.checkpoint_steps and self.step % self.options.checkpoint_steps == 0
                if due or (self.world == 1 and now - last_save > CHECKPOINT_SECONDS):
                    self.save("running")
                    last_save = time.monotonic()
                if signals.asked:
                    state = "interrupted"
                    break
        self._flush()
        if state == "finished" and (not self.valid or self.valid.get("step") != self.step):
            self._validate()
        self.save(state)
        return state

    def _one_step(self) -> None:
        rows = self.order.rows(self.step)
        places = torch.arange(len(rows))
        if self.world > 1:
            rows, places = rows[self.rank :: self.world], places[self.rank :: self.world]
        progress = self.step / max(self.plan.horizon, 1)
        factor = learning_rate(self.options.schedule or "constant", progress)
        try:
            values = self.engine.step(self.rows(rows), self.step, factor, places.to(self.device), self.order.batch)
        except Exception as error:
            if not self._retreat(error):
                raise
            values = self.engine.step(self.rows(rows), self.step, factor, places.to(self.device), self.order.batch)
        self.pending.append((self.step, values))
        self.step += 1

    def _retreat(self, error: Exception) -> bool:
        """Before the first compiled step has run, go back to eager when compiling fails and was not insisted on."""
        if not self.config["decided"]["compile"] or self.options.compile == "on" or self.pending or self.step > 0:
            return False
        if not isinstance(error, torch._dynamo.exc.TorchDynamoException) and "Inductor" not in type(error).__name__:
            return False
        self.engine.eager()
        self.config["decided"] |= {"compile": False, "compile_why": f"compiling failed: {str(error).splitlines()[0]}"}
        self.progress.note("the step cannot be compiled; training eagerly")
        return True

    def _flush(self) -> None:
        """Look at the values since the last flush: stop on a non-finite one, else record their mean."""
        if not self.pending:
            return
        values = torch.stack([v for _, v in self.pending]).double().cpu()
        finite = torch.isfinite(values)
        if not bool(finite.all()):
            row, column = (int(i) for i in (~finite).nonzero()[0])
            step, term = self.pending[row][0], self.engine.stats[column]
            self._record({"kind": "non-finite", "step": step, "term": term})
            self._write_records()
            self._set_state("failed")
            good = newest_checkpoint(self.path)
            kept = f"the last good checkpoint is {good}" if good else "there is no earlier checkpoint"
            raise TrainingError(
                f"{term} became {float(values[row, column])} at step {step}; {kept}. "
                "Try a smaller --lr, --clip 100, or --precision fp32"
            )
        means = dict(zip(self.engine.stats, values.mean(0).tolist(), strict=True))
        self.pending.clear()
        rate_now = self.step * self.order.batch / max(self.seconds, 1e-9)
        self._record({"kind": "train", "seconds": round(self.seconds, 3), **means})
        self.progress.update(self.step, self.plan.horizon, self.step / self.epoch_steps, means, self.valid, rate_now)

    # --- validation ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _validate(self) -> bool:
        """The ELBO of (at most 2,000) validation data with the weights that would be used now."""
        if self.rank == 0 or self.world == 1 or self.options.patience:
            if self.valid_x is None:
                facts = Facts.of(self.data)
                observed = Observed(self.composition, facts, "valid", self.data, None)
                n = min(observed.n, VALID_ROWS)
                blocks = [np.arange(a, min(a + 500, n)) for a in range(0, n, 500)]
                self.valid_x = [(torch.from_numpy(b).to(self.device), observed(b).to(self.device)) for b in blocks]
            totals = torch.zeros(2, dtype=torch.float64)
            n = 0
            with self.engine.using():
                for rows, x in self.valid_x:
                    trace = self.composition.model.trace(x, noise=Noise.of(self.options.seed, rows, 21, device=x.device))
                    totals += torch.stack([distortion(trace, x).double().sum(), rate(trace).double().sum()]).cpu()
                    n += len(x)
            d, r = (totals / n).tolist()
            self.valid = {"step": self.step, "elbo": -(d + r), "rate": r, "distortion": d}
            self._record({"kind": "valid", "seconds": round(self.seconds, 3), **self.valid})
            if -(d + r) > self.best:
                self.best, self.best_step, self.since_best = -(d + r), self.step, 0
                if self.options.patience:
                    self.best_weights = {n: w.clone() for n, w in self.engine.weights_to_use().items()}
            else:
                self.since_best += 1
        return True

    # --- files --------------------------------------------------------------------------------------------------

    def _record(self, record: dict[str, Any]) -> None:
        clean = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in record.items()}
        self.records.append(json.dumps({"step": self.step, **clean}))

    def _write_records(self) -> None:
        if self.rank == 0 and self.records:
            with open(self.path / "log.jsonl", "a", encoding="utf8") as f:
                f.write("".join(line + "\n" for line in self.records))
            self.records.clear()

    def _set_state(self, state: str) -> None:
        if self.rank == 0:
            self.config |= {
                "state": state,
                "step": self.step,
                "seconds": round(self.seconds, 3),
                "plan": {"horizon": self.plan.horizon, "epochs": self.plan.horizon / self.epoch_steps},
                "valid": self.valid,
            }
            write_json(self.path / "run.json", self.config)

    def save(self, state: str) -> None:
        """Write the checkpoint, the weights to use and the log; only then forget the last checkpoint but one."""
        if self.rank != 0:
            return
        self._flush()
        tensors = self.engine.tensors() | {f"best/{n}": t for n, t in self.best_weights.items()}
        meta = {
            "step": self.step, "seconds": self.seconds, "horizon": self.plan.horizon, "best": _finite(self.best),
            "best_step": self.best_step, "since_best": self.since_best, "valid": self.valid, "state": state,
        }
        folder = self.path / "checkpoint"
        try:
            folder.mkdir(exist_ok=True)
            self._write_records()
        except OSError as error:
            raise RunError(f"cannot write in {self.path}: {error.strerror}; free some space or use another --out") from error
        write_tensors(folder / f"{self.step:09d}.safetensors", tensors, meta)
        for old in sorted(folder.glob("*.safetensors"))[:-2]:
            old.unlink()
        write_tensors(self.path / "model.safetensors", self.best_weights or self.engine.weights_to_use())
        self._set_state(state)

    def restore(self, file: Path) -> None:
        """Take up where a checkpoint left off, and forget what was logged after it."""
        tensors, meta = read_tensors(file)
        self.best_weights = {n.removeprefix("best/"): t for n, t in tensors.items() if n.startswith("best/")}
        self.engine.load({n: t for n, t in tensors.items() if not n.startswith("best/")})
        self.step, self.spent = meta["step"], meta["seconds"]
        self.best = -math.inf if meta["best"] is None else meta["best"]
        self.best_step, self.since_best, self.valid = meta["best_step"], meta["since_best"], meta["valid"]
        if self.options.minutes is not None:
            self.plan.horizon = max(meta["horizon"], self.step + 1)
        log = self.path / "log.jsonl"
        if self.rank == 0 and log.exists():
            lines = [line for line in log.read_text(encoding="utf8").splitlines() if line.endswith("}")]
            kept = [line for line in lines if json.loads(line)["step"] <= self.step]
            log.write_text("".join(line + "\n" for line in kept), encoding="utf8")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def newest_checkpoint(path: Path) -> Path | None:
    """The last checkpoint of a run directory."""
    found = sorted((path / "checkpoint").glob("*.safetensors"))
    return found[-1] if found else None


def prepare(data: Data, composition: Composition, options: Options, initialise: bool = True) -> None:
    """Fit the observation, start the output at the data's mean, and check one batch."""
    n = len(data.train)
    rows = np.linspace(0, n - 1, min(n, 20000)).astype(np.int64)
    if initialise:
        whole = np.arange(n) if data.train.raw[:1].nbytes * n < 1e9 else rows

        def read(which: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(data.events(data.train[which])))

        composition.observation.fit(lambda: read(whole))
        if composition.start is not None:
            some = rows[:: max(1, len(rows) // 5000)]
            with torch.no_grad():
                x = composition.observation(read(some), Noise.of(options.seed, len(some), 31))
                composition.start(composition, x)
    first = torch.from_numpy(np.ascontiguousarray(data.events(data.train[rows[: min(n, 8)]])))
    check_first_batch(composition, first, options.seed)


def describe(
    data: Data, recipe: str | None, arguments: dict[str, Any], composition: Composition, options: Options
) -> dict[str, Any]:
    """run.json before the first step: what was asked, what was decided, with which versions."""
    import vaekit

    device = choose_device(options.device)
    n = len(data.train)
    batch = min(options.batch or 100, n)
    steps = options.steps or (math.ceil(options.epochs * n / batch) if options.epochs else None)
    parameters = sum(p.numel() for p in composition.model.parameters())
    guess = steps if steps is not None else 60 * (options.minutes or 0) / (0.002 + 6e-11 * parameters * batch)
    compile_it, why = decide_compile(options.compile, guess, parameters, batch, device)
    precision = options.precision
    if precision == "auto":
        precision = "bf16" if compile_it and _has_bf16(device) else "fp32"
    return {
        "format": FORMAT,
        "recipe": recipe,
        "arguments": {k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items()},
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
            "device": str(device), "precision": precision, "compile": compile_it, "compile_why": why,
            "parameters": parameters, "threads": torch.get_num_threads(),
        },
        "versions": {"vaekit": vaekit.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "state": "new",
    }


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
    from .data import from_arrays, load

    names = {f.name for f in dataclasses.fields(Options)}
    given = {k: choices.pop(k) for k in list(choices) if k in names}
    options = dataclasses.replace(options or Options(), **given).checked()
    path = Path(out)
    if not isinstance(data, Data):
        data = load(str(data)) if isinstance(data, str | Path) else from_arrays(data)
    config: dict[str, Any] | None = None
    if resume:
        config = read_config(path)
        if config["state"] in ("finished", "stopped early"):
            return _opened(path, recipe, data)
        _same_settings(config, recipe, choices, options, data)
        options = Options(**config["training"])
        composition = rebuild(config, recipe if isinstance(recipe, Composition) else None)
        choices = config["arguments"]
    elif (path / "run.json").exists():
        raise RunError(f"{path} already holds a run: go on with --resume, or choose another --out")
    if config is None or newest_checkpoint(path) is None:
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)  # before the model is built, so that one seed is one run
            if isinstance(recipe, Composition):
                composition = recipe
            else:
                composition = get_recipe(recipe)(Facts.of(data), **_tuples(choices))
        if config is None:
            options = options.with_defaults(composition)
            config = describe(data, None if isinstance(recipe, Composition) else recipe, choices, composition, options)
    prepare(data, composition, options, initialise=newest_checkpoint(path) is None)
    if init_from is not None:
        tensors, _ = read_tensors(Path(init_from) / "model.safetensors")
        load_weights(composition, tensors, Path(init_from) / "model.safetensors")
        config["init_from"] = str(init_from)
    fabric = parallel.launch(options.devices, config["decided"]["device"])
    rank, _ = parallel.rank_and_world(fabric)
    if rank == 0:
        _make_directory(path, data, config)
        if on_start:
            on_start(config)
    if not isinstance(progress, Progress):
        progress = progress_for() if progress and rank == 0 else Silent()
    trainer = Trainer(composition, data, options, path, config, progress, fabric)
    checkpoint = newest_checkpoint(path) if resume else None
    if checkpoint is not None:
        trainer.restore(checkpoint)
    try:
        with progress:
            state = trainer.run()
    except VaekitError:
        raise
    if rank != 0:
        raise SystemExit(0)
    if state == "interrupted":
        raise KeyboardInterrupt(str(path))
    return _opened(path, recipe, data)


def _opened(path: Path, recipe: str | Composition, data: Data) -> Run:
    from .run import open_run

    return open_run(path, recipe if isinstance(recipe, Composition) else None, data)


def _tuples(choices: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in choices.items()}


def _same_settings(config, recipe, choices, options: Options, data: Data) -> None:
    """A resumed run keeps its settings: refuse others rather than mix two runs."""
    if data.digest != config["data"]["digest"]:
        raise RunError("the data differ from those the run was started on: give the same, or another --out")
    asked = {k: v for k, v in dataclasses.asdict(options).items() if v != getattr(Options(), k)}
    stored = config["training"]
    for name, value in asked.items():
        if stored.get(name) != value:
            raise RunError(
                f"the run was started with {name} {stored.get(name)}, not {value}: "
                "resume without it, or start another run with --out and --init-from"
            )
    for name, value in choices.items():
        kept = config["arguments"].get(name)
        if kept != (list(value) if isinstance(value, tuple) else value):
            raise RunError(f"the run was started with {name} {kept}, not {value}: resume without it")


def _make_directory(path: Path, data: Data, config: dict[str, Any]) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the directory {path}: {error.strerror}; choose another --out") from error
    splits = {n: torch.from_numpy(np.asarray(getattr(data, n).index)) for n in ("train", "valid", "test")}
    write_tensors(path / "splits.safetensors", splits)
    write_json(path / "run.json", config)
