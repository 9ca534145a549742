"""The training loop, for any model and objective: steps, length of the run, validation, checkpoints."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from vaekit.callbacks import Callback, Callbacks, Terms, Training
from vaekit.data.batches import Order, Rows
from vaekit.data.core import Data
from vaekit.errors import RunError, TrainingError
from vaekit.objectives.schedules import learning_rate, unfinished
from vaekit.options import ADAMS
from vaekit.recipes.composition import Composition
from vaekit.runs.configuration import FAILED, Configuration, State, Valid, check_checkpoint
from vaekit.runs.lock import only_writer
from vaekit.runs.stored import read_log
from vaekit.utils.compiled import is_compile_error
from vaekit.utils.cuda import sent
from vaekit.utils.files import read_tensors, unwritable, write_json, write_tensors, write_text
from vaekit.utils.progress import Progress
from vaekit.utils.uncertainty import standard_error, units

from . import parallel
from .length import Clock, Length
from .optimisers import overshot
from .plan import Plan
from .signals import Signals
from .step import Engine, Settings
from .torch_classes import rule_of, schedule_of
from .validation import Validation, figure

CHECKPOINT_SECONDS = 60.0
RECORD_STEPS = 50
AGREE_STEPS = 20
BEST_FIGURES = "best_figures"
"""Name of `Trainer.best_figures` in a checkpoint."""


class Shown(Callback):
    """Shows the progress of a training."""

    def __init__(self, progress: Progress):
        self.progress = progress

    def on_record(self, training: Training, means: Terms) -> None:
        """Update the progress."""
        now = training.step, training.horizon, training.epoch
        self.progress.update(*now, dict(means), training.valid, training.per_second)


class Trainer:
    """Trains one run by its plan: owns the engine and the files. `fit` creates it and calls `run`."""

    def __init__(
        self,
        composition: Composition,
        data: Data,
        plan: Plan,
        path: Path,
        config: Configuration,
        progress: Progress,
        fabric: Any = None,
        started: float | None = None,
        callbacks: Sequence[Callback] = (),
    ):
        self.composition, self.data, self.plan, self.path = composition, data, plan, path
        self.config, self.progress, self.fabric = config, progress, fabric
        self.device = plan.device if fabric is None else fabric.device
        self.rank, self.world = parallel.rank_and_world(fabric)
        self.started = time.monotonic() if started is None else started
        self.spent = 0.0  # seconds of earlier sessions
        self.flushed = time.monotonic()
        self.order = Order(len(data.train), plan.batch, plan.seed)
        self.rows = Rows(data, data.train, self.device)
        condition, targets = composition.condition, composition.targets
        self.c = torch.from_numpy(condition.of(data.train)).to(self.device) if condition else None
        self.y = torch.from_numpy(targets.of(data.train)).to(self.device) if targets else None
        self.length = Length(plan.horizon, plan.minutes)
        self.schedule = schedule_of(plan.schedule, plan.horizon if plan.minutes is None else None)
        self.compiled = plan.compile
        self.step = 0
        self.first = 0  # the step this session began with
        self.last_saved = 0  # the step of the weights in model.safetensors
        self.signalled = False  # whether this session received a signal to stop
        self.ended: State | None = None  # the state in which the steps of this session ended
        self.best: dict[str, float] = {}
        self.since_best = 0
        self.best_weights: dict[str, Tensor] = {}
        self.best_figures: Tensor | None = None  # `figure` of each validation datum at the best step, (n,)
        self.valid: dict[str, float] = {}
        self.per_second = math.nan  # examples per second
        self.callbacks = Callbacks([Shown(progress), *(callbacks if self.rank == 0 else [])], Training(self))
        self.tells_steps = self.callbacks.override("on_step")
        of_adam = {"beta2": plan.beta2} if plan.optimiser.lower() in ADAMS else {}
        settings = Settings(
            optimiser=lambda: rule_of(plan.optimiser, plan.weight_decay, **of_adam),
            lr=plan.lr,
            clip=plan.clip,
            ema=plan.ema,
            precision=plan.precision,
            augment=plan.augment,
            seed=plan.seed,
            device=self.device,
            reduce=parallel.reducer(fabric),
            watch=self._watch if self.callbacks.override("on_gradients") else None,
        )
        self.engine = Engine(composition, settings)
        self.validation = Validation(composition, data, self.engine, plan.seed, self.device, fabric)
        self.pending: list[tuple[int, Tensor]] = []
        self.records: list[str] = []

    @property
    def seconds(self) -> float:
        """Seconds of training so far, resumed parts included."""
        return self.spent + time.monotonic() - self.started

    @property
    def scheduled(self) -> int:
        """The step for the objective's schedules: planned ones follow the share of the first minutes that has passed.

        Further minutes do not count, so that a weight never falls when the run is extended.
        """
        first, steps = self.config["decided"].get("minutes"), self.config["decided"].get("steps")
        if self.plan.minutes is None or first is None or steps is None or not self.composition.objective.planned:
            return self.step
        share = self.step / max(self.length.horizon, 1)
        return round(share * self.plan.minutes / first * steps)

    # --- the loop -----------------------------------------------------------------------------------------------

    def run(self) -> State:
        """Train to the horizon; returns the final state: finished, stopped early, or interrupted."""
        try:
            self.callbacks("on_start")
            state = self._train()
        except BaseException as error:
            try:
                if self.callbacks.failed and self.step > self.first:
                    self.save(self.ended or "interrupted")
            finally:
                self.callbacks.end("failed", error)
            raise
        self.callbacks.end(state)
        return state

    def _train(self) -> State:
        """`run` without the first and the last event."""
        self.engine.module.train()
        if self.compiled:
            self.progress.note("compiling the training step (up to a minute the first time) ...")
            self.engine.compiled()
        last_save = time.monotonic()
        clock = Clock(self.step)
        state: State = "finished"
        with Signals() as signals:
            if self.plan.patience and self.since_best >= self.plan.patience:
                state = "stopped early"  # restored from the checkpoint of an early stop
            while state == "finished" and self.step < self.length.horizon:
                self.one_step()
                if self.step % self.plan.validate_steps == 0 or self.step == self.length.horizon:
                    self.flush()
                    self._validate()
                    if self.plan.patience and self.since_best >= self.plan.patience:
                        state = "stopped early"
                        break
                elif self.step % RECORD_STEPS == 0:
                    self.flush()
                # all processes must take the same number of steps, which the first one broadcasts regularly
                together = self.world == 1 or self.step % AGREE_STEPS == 0
                stop = together and (signals.asked is not None or self.progress.stop or self.callbacks.training.stopped)
                if self.plan.minutes is not None and together:
                    self._plan_length(clock)
                if self.world > 1 and together:
                    self.length.horizon, stop = self.fabric.broadcast((self.length.horizon, stop), src=0)
                now = time.monotonic()
                due = self.plan.checkpoint_steps and self.step % self.plan.checkpoint_steps == 0
                if due or now - last_save > CHECKPOINT_SECONDS:
                    self.save("running")
                    last_save = time.monotonic()
                if stop:
                    if self.step < self.length.horizon:  # at the last step nothing is left to resume
                        state = "interrupted"
                    if reason := self.callbacks.training.reason:
                        done = "stopped" if state == "interrupted" else "a stop was requested after the last step"
                        self.progress.note(f"{done}: {reason}")
                    break
            self.signalled = signals.asked is not None
        self.flush()
        if (
            state == "finished"
            and self.plan.minutes
            and (ends := unfinished(self.composition.objective, self.scheduled))
        ):
            self.progress.note(f"note: {ends}")  # runs of a known length say so before they start
        if state == "finished" and (not self.valid or self.valid.get("step") != self.step):
            self._validate()
        self.ended = state
        self.save(state)
        return state

    def _plan_length(self, clock: Clock) -> None:
        """Update the horizon of a run that is limited by minutes, and end the run when they are over."""
        assert self.plan.minutes is not None
        if self.seconds >= self.plan.minutes * 60:
            self.length.horizon = self.step
            self._record({"kind": "plan", "horizon": self.step, "step_ms": 1000 * self.seconds / self.step})
            return
        per_step = clock.per_step(self.step)
        if per_step is None and self.step >= self.length.horizon and not self.length.revised:
            per_step = self.seconds / self.step  # the first estimate, from the model's size, was far too short
        if per_step is not None and self.length.revise(self.step, self.seconds, per_step):
            self._record({"kind": "plan", "horizon": self.length.horizon, "step_ms": 1000 * per_step})

    def one_step(self) -> None:
        """Train on one batch."""
        rows = self.order.rows(self.step)
        places = torch.arange(len(rows))
        if self.world > 1:
            rows, places = rows[self.rank :: self.world], places[self.rank :: self.world]
        progress = self.step / max(self.length.horizon, 1)
        factor = learning_rate(self.plan.schedule, progress) if self.schedule is None else self.schedule(self.step)
        here = sent(rows, self.device)
        c = None if self.c is None else self.c.index_select(0, here)
        y = None if self.y is None else self.y.index_select(0, here)
        places = sent(places, self.device)
        batch = (self.rows(rows), self.step, factor, places, self.plan.batch, c, y, self.scheduled)
        try:
            values = self.engine.step(*batch)
        except Exception as error:
            if not self._retreat(error):
                raise
            values = self.engine.step(*batch)
        self.pending.append((self.step, values))
        self.step += 1
        if self.tells_steps:
            self.callbacks("on_step", self._own_units(self._named(values)))

    def _watch(self, gradients: dict[str, Tensor]) -> None:
        """Show the gradients to the callbacks."""
        self.callbacks("on_gradients", gradients)

    def _named(self, values: Tensor) -> dict[str, float]:
        """The statistics of a step by name."""
        return dict(zip(self.engine.stats, values.tolist(), strict=True))

    def _retreat(self, error: Exception) -> bool:
        """Switch to eager steps if compilation fails before the first step, unless `compile='on'`."""
        if not self.compiled or self.plan.must_compile or self.step > self.first:
            return False
        if not is_compile_error(error):
            return False
        if self.first:
            raise RunError(
                f"this run was compiled, but its step cannot be compiled here ({_reason(error)}): "
                "resume it on the machine where it started, or start another with `init_from` and `compile='off'`"
            ) from error
        self.engine.eager()
        self.compiled = False
        self.config["decided"] |= {"compile": False, "compile_why": f"{FAILED}: {_reason(error)}"}
        self.progress.note("the step cannot be compiled; training eagerly")
        return True

    def flush(self) -> None:
        """Record the mean of the values since the last flush, or stop if one of them is not finite."""
        if not self.pending:
            return
        values = torch.stack([v for _, v in self.pending]).cpu().double()
        finite = torch.isfinite(values)
        if not bool(finite.all()):
            row, column = (int(i) for i in (~finite).nonzero()[0])
            self._fail(self.engine.stats[column], float(values[row, column]), self.pending[row][0])
        if self.pending[0][0] == 0 and (said := overshot(self.engine.stats, values, self.plan.lr)):
            self.progress.note(f"note: {said}")
        means = self._own_units(self._named(values.mean(0)))
        self.per_second = len(self.pending) * self.plan.batch / max(time.monotonic() - self.flushed, 1e-9)
        self.flushed = time.monotonic()
        self.pending.clear()
        self._record({"kind": "train", "seconds": round(self.seconds, 3), **means})
        self.callbacks("on_record", means)

    def _own_units(self, stats: dict[str, float]) -> dict[str, float]:
        """The statistics with densities of x converted to densities in the units of the data."""
        jacobian = self.composition.observation.log_jacobian(self.data.shape)
        sign = self.composition.objective.densities
        return {n: v + sign.get(n, 0) * jacobian for n, v in stats.items()}

    def _fail(self, term: str, value: float, step: int) -> None:
        """Record the term that became non-finite, and raise TrainingError."""
        self._record({"kind": "non-finite", "step": step, "term": term})
        with contextlib.suppress(RunError):  # a full disk must not hide the original failure
            self._write_records()
            self._set_state("failed")
        good = checkpoints(self.path)
        kept = f"the last good checkpoint is {good[-1]}" if good else "there is no earlier checkpoint"
        raise TrainingError(
            f"{term} became {value} at step {step}; {kept}. Try a smaller `lr`, `clip=100`, or `precision='fp32'`"
        )

    def _check_weights(self) -> None:
        """Stop if a weight is not finite, so that it is not saved: a finite loss may have a non-finite gradient."""
        for name, weight in self.engine.parameters.items():
            if not bool(torch.isfinite(weight).all()):
                self._fail(f"the weight {name}", float(weight[~torch.isfinite(weight)][0]), self.step - 1)

    # --- validation ---------------------------------------------------------------------------------------------

    def _validate(self) -> None:
        """Measure the validation rows with `Engine.weights_to_use`, and keep the best weights for early stopping."""
        if self.rank != 0 and not self.plan.patience:
            self.validation.follow()
            return
        valid, figures = self.validation.measure(self.step)
        if not math.isfinite(valid["distortion"] + valid.get("rate", 0.0)):
            self._fail("the validation ELBO", valid.get("elbo", -valid["distortion"]), self.step)
        self.valid = valid
        is_best = not self.best or figure(self.valid) > figure(self.best)
        below = {} if is_best else self._below_best(figures)
        self._record({"kind": "valid", "seconds": round(self.seconds, 3), **self.valid, **below})
        if is_best:
            self.best, self.since_best, self.best_figures = self.valid, 0, figures
            if self.plan.patience:
                self.best_weights = {n: w.clone() for n, w in self.engine.weights_to_use().items()}
        elif unfinished(self.composition.objective, self.scheduled) is None:
            self.since_best += 1  # before, the ELBO may fall because the weight of the KL still rises
        self.callbacks("on_validation")

    def _below_best(self, figures: Tensor) -> dict[str, Any]:
        """The standard error of the decrease from the best validation, paired by datum, and its number of units."""
        if self.best_figures is None or self.best_figures.shape != figures.shape:  # from an older checkpoint
            return {}
        group = self.data.valid.group
        group = None if group is None else group[: len(figures)]
        decrease = (self.best_figures - figures).numpy()
        return {"se_below_best": standard_error(decrease, group), "units": units(len(figures), group)}

    # --- files --------------------------------------------------------------------------------------------------

    def _record(self, record: dict[str, Any]) -> None:
        clean = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in record.items()}
        self.records.append(json.dumps({"step": self.step, **clean}))

    def _write_records(self) -> None:
        if self.rank == 0 and self.records:
            log = self.path / "log.jsonl"
            try:
                with open(log, "a", encoding="utf8") as f:
                    f.write("".join(line + "\n" for line in self.records))
            except OSError as error:
                raise unwritable(log, error) from error
            self.records.clear()

    def _set_state(self, state: State) -> None:
        if self.rank == 0:
            if legs := self.config.get("legs"):
                legs[-1]["to"] = self.step
            self.config |= {
                "state": state,
                "step": self.step,
                "seconds": round(self.seconds, 3),
                "plan": {"horizon": self.length.horizon, "epochs": self.length.horizon / self.plan.epoch_steps},
                "valid": cast(Valid, self.valid),
                "best": cast(Valid, self.best),
            }
            write_json(self.path / "run.json", self.config)

    def save(self, state: State) -> None:
        """Write the checkpoint, the weights to use and the log; then remove all checkpoints but the last two."""
        self.flush()
        self._check_weights()
        if self.rank != 0:
            return
        tensors = self.engine.tensors() | {f"best/{n}": t for n, t in self.best_weights.items()}
        if self.best_figures is not None:
            tensors[BEST_FIGURES] = self.best_figures
        meta = {
            "step": self.step,
            "seconds": self.seconds,
            "horizon": self.length.horizon,
            "best": self.best,
            "since_best": self.since_best,
            "valid": self.valid,
            "state": state,
        }
        folder = self.path / "checkpoint"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error
        self._write_records()
        write_tensors(folder / f"{self.step:09d}.safetensors", tensors, meta)
        for old in sorted(folder.glob("*.safetensors"))[:-2]:
            old.unlink()
        self._set_aside_metrics()
        write_tensors(self.path / "model.safetensors", self.best_weights or self.engine.weights_to_use())
        self.last_saved = self.step
        self._set_state(state)
        self.callbacks("on_checkpoint")

    def _set_aside_metrics(self) -> None:
        """Rename metrics.json of earlier weights by their step, because it does not describe the new weights."""
        measured = self.path / "metrics.json"
        if self.step == self.last_saved or not measured.exists():
            return
        kept = self.path / f"metrics-{self.last_saved:09d}.json"
        with only_writer(measured):
            try:
                measured.replace(kept)
            except OSError as error:
                raise unwritable(measured, error) from error
        self.progress.note(f"note: {measured} was measured at step {self.last_saved:,}: kept as {kept.name}")

    def restore(self) -> None:
        """Resume from the last readable checkpoint, and remove later records from the log.

        Raises:
            RunError: there are checkpoints, but none can be read.
            TrainingError: none fits the model.
        """
        files = checkpoints(self.path)
        for file in reversed(files):
            try:
                tensors, meta = read_tensors(file)
                check_checkpoint(meta, file)
                self.best_figures = tensors.pop(BEST_FIGURES, None)  # checkpoints of earlier versions have none
                self.engine.load({n: t for n, t in tensors.items() if not n.startswith("best/")})
                break
            except (RunError, TrainingError) as error:
                if file == files[0]:
                    raise
                self.progress.note(f"{file.name}: {error}; resuming from the checkpoint before it")
        self.best_weights = {n.removeprefix("best/"): t for n, t in tensors.items() if n.startswith("best/")}
        self.step, self.spent = meta["step"], meta["seconds"]
        self.first = self.last_saved = self.step
        self.best, self.since_best, self.valid = meta["best"], meta["since_best"], meta["valid"]
        if self.plan.minutes is not None:
            self.length.horizon = max(meta["horizon"], self.length.horizon, self.step + 1)
        log = self.path / "log.jsonl"
        if self.rank == 0 and log.exists():
            kept = [json.dumps(record) for record in read_log(self.path) if record["step"] <= self.step]
            write_text(log, "".join(line + "\n" for line in kept))


def _reason(error: Exception) -> str:
    """The reason of a failed compilation in one line; the first line of the message may only name the compiler."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__


def checkpoints(path: Path) -> list[Path]:
    """The checkpoints of a run directory, in the order of their steps."""
    return sorted((path / "checkpoint").glob("*.safetensors"))
