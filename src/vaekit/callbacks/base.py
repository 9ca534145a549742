"""Callbacks: objects that are told of the events of a training, and may stop it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from torch import Tensor, nn

from vaekit.data.core import Data
from vaekit.errors import ChoiceError
from vaekit.recipes.composition import Composition, DataSpec
from vaekit.runs.configuration import Configuration, State
from vaekit.runs.trained import TrainedModel

Terms = Mapping[str, float]
"""Numbers of a step by name: `loss/model`, `elbo`, `rate`, `distortion` and the other terms of the objective."""


class Source(Protocol):
    """What `Training` reads from the object that trains."""

    path: Path
    step: int
    first: int
    config: Configuration
    composition: Composition
    data: Data
    valid: dict[str, float]
    best: dict[str, float]
    per_second: float
    device: Any
    engine: Any
    plan: Any
    length: Any

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""


class Training:
    """A training in progress, as callbacks see it.

    Attributes:
        stopped: whether a callback has asked for the end of the training.
        reason: its reason, for the user.
    """

    def __init__(self, source: Source):
        self._source = source
        self.stopped, self.reason = False, ""

    @property
    def path(self) -> Path:
        """The run directory."""
        return self._source.path

    @property
    def step(self) -> int:
        """The number of steps done, those before an interruption included."""
        return self._source.step

    @property
    def first(self) -> int:
        """The step with which this call of `fit` began: above 0 if it resumes or extends a run."""
        return self._source.first

    @property
    def horizon(self) -> int:
        """The step at which the training ends; an estimate if it is limited by minutes."""
        return int(self._source.length.horizon)

    @property
    def epoch(self) -> float:
        """Passes through the training data, as a fraction."""
        return float(self._source.step / self._source.plan.epoch_steps)

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those before an interruption included."""
        return self._source.seconds

    @property
    def per_second(self) -> float:
        """Training examples per second over the last 50 steps or so."""
        return self._source.per_second

    @property
    def config(self) -> Configuration:
        """A copy of the content of run.json: recipe, arguments, data, options and what was decided."""
        return cast(Configuration, copy.deepcopy(dict(self._source.config)))

    @property
    def valid(self) -> dict[str, float]:
        """The figures of the last validation by name, with its `step`; empty before the first one."""
        return dict(self._source.valid)

    @property
    def best(self) -> dict[str, float]:
        """Those of the best validation so far."""
        return dict(self._source.best)

    @property
    def model(self) -> nn.Module:
        """The model in training, with its present weights, which a callback must not change."""
        return self._source.composition.model

    @property
    def data(self) -> Data:
        """The data in their splits."""
        return self._source.data

    @contextlib.contextmanager
    def trained(self) -> Iterator[TrainedModel]:
        """The model as it would be saved now, which encodes, decodes and samples.

        Inside the context it is in evaluation mode, with the running averages of the weights where they are kept.
        """
        source = self._source
        with source.engine.using():
            model = TrainedModel(source.composition, DataSpec.of(source.data), source.data)
            model.device = source.device
            yield model

    def stop(self, reason: str = "") -> None:
        """End the training after the current step. The run is saved, marked `interrupted`, and returned by `fit`.

        After the last step the run is complete, and is marked `finished`.

        Arguments:
            reason: it is shown to the user.
        """
        self.stopped, self.reason = True, reason


class Callback:
    """Is told of the events of a training. Derive from it and override the methods that you need.

    The methods are called in the first process alone, in the order of the callbacks. A callback may stop the training
    (`training.stop()`) but does not change it: the noise of a step depends only on the seed, the step and the row, so
    the weights are the same with and without it, whatever random numbers it draws. If a method raises an error, the run
    is saved before `fit` raises it, and of the other callbacks only `on_end` is still called.

    >>> class Patience(Callback):
    ...     def on_validation(self, training):
    ...         if training.step - training.best["step"] > 5000:
    ...             training.stop("no better validation for 5,000 steps")
    """

    def on_start(self, training: Training) -> None:
        """Called before the first step of this call of `fit`."""

    def on_step(self, training: Training, terms: Terms) -> None:
        """Called after each step with the terms of its loss. On a GPU, reading them makes each step wait."""

    def on_gradients(self, training: Training, gradients: Mapping[str, Tensor]) -> None:
        """Called in each step before the update, with the gradient of each parameter by name; do not change them.

        A step with it is compiled in two parts, so the last bits of the weights may differ from those without it.
        """

    def on_record(self, training: Training, means: Terms) -> None:
        """Called about every 50 steps with the means of the terms since the last call, as in log.jsonl."""

    def on_validation(self, training: Training) -> None:
        """Called after each validation, whose figures are in `training.valid`."""

    def on_checkpoint(self, training: Training) -> None:
        """Called after each checkpoint; `training.path` then holds a run that can be opened."""

    def on_end(self, training: Training, state: State) -> None:
        """Called at the end, with the state: `finished`, `stopped early`, `interrupted` or `failed`."""


def checked(callbacks: Callback | Sequence[Callback]) -> list[Callback]:
    """The callbacks as a list.

    Raises:
        ChoiceError: one of them is not a `Callback`.
    """
    given: list[Callback] = [callbacks] if isinstance(callbacks, Callback) else list(callbacks)
    for one in given:
        if not isinstance(one, Callback):
            got = f"the class {one.__name__}: write {one.__name__}()" if isinstance(one, type) else repr(one)
            raise ChoiceError(f"`callbacks` must be `Callback` objects, got {got}")
    return given


class Callbacks:
    """Calls the callbacks of one training; after an error in one of them, the others are only told of the end."""

    def __init__(self, callbacks: Sequence[Callback], training: Training):
        self.callbacks, self.training, self.failed = list(callbacks), training, False
        self.begun: list[Callback] = []  # those whose `on_start` returned, and which have not raised an error

    def override(self, event: str) -> bool:
        """Whether a callback overrides this method of `Callback`."""
        return any(getattr(type(one), event) is not getattr(Callback, event) for one in self.callbacks)

    def __call__(self, event: str, *arguments: Any) -> None:
        """Call this method of every callback."""
        for one in [] if self.failed else self.callbacks:
            try:
                getattr(one, event)(self.training, *arguments)
            except Exception:
                self.failed = True
                self.begun = [other for other in self.begun if other is not one]
                raise
            if event == "on_start":
                self.begun.append(one)

    def end(self, state: State, error: BaseException | None = None) -> None:
        """Call `on_end` of every callback that began and has not failed, so that each can close what it opened.

        Arguments:
            error: that with which the training ends; errors of callbacks become notes of it. Without one, the first of
                them is raised.
        """
        first = error
        for one in self.begun:
            try:
                one.on_end(self.training, state)
            except Exception as failure:
                if first is None:
                    first = failure
                else:
                    first.add_note(f"{type(failure).__name__} in `on_end` of a callback: {failure}")
        if first is not error and first is not None:
            raise first
