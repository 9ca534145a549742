"""The base class of loggers: which figures and pictures of a training are sent, and when."""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from vaekit.callbacks.base import Callback, Terms, Training
from vaekit.errors import ChoiceError, VaekitError
from vaekit.figures.pictures import channels_last, image_grid
from vaekit.figures.plots import latent_scatter
from vaekit.figures.style import figure_png, theme
from vaekit.runs.configuration import Configuration, State
from vaekit.runs.trained import TrainedModel
from vaekit.utils.register import Builder, Register

LOGGERS = Register("logger", {"where": "the part after the colon in NAME:WHERE, or None"})
"""The loggers by name."""
RECONSTRUCTED, SAMPLES, CODES = 16, 64, 1000
"""Images in a picture of reconstructions and of samples, and codes in a latent map."""
SPACING = 1.3
"""Pictures are made at a validation if the step has grown by this factor since the last ones, and at the end."""


def logger(name: str) -> Callable[[Builder], Builder]:
    """Register a `Logger` under this name for `log`. It is built with `where`."""
    return LOGGERS.add(name, "")


def settings_of(config: Configuration) -> dict[str, Any]:
    """The hyper-parameters of a run in one flat dictionary: recipe, data, choices and training options."""
    data, decided = config["data"], config["decided"]
    found: dict[str, Any] = {
        "recipe": config["recipe"] or "own",
        "data": data["name"],
        "parameters": decided["parameters"],
    }
    chosen = {**config["defaults"], **config["arguments"]}
    found |= {n: v for n, v in chosen.items() if v is not None}
    found |= {n: v for n, v in config["training"].items() if v is not None}
    found |= {n: decided[n] for n in ("device", "precision", "compile") if n in decided}
    return {n: v if isinstance(v, str | int | float | bool) else str(v) for n, v in found.items()}


def identity(config: Configuration, name: str) -> str:
    """A name for the run that is the same when it is resumed, and differs from that of any other run."""
    return hashlib.sha256(f"{name} {config['created']} {config['data']['digest']}".encode()).hexdigest()[:16]


class Logger(Callback, ABC):
    """Sends the figures of a training to another tool; abstract.

    Curves are the means over about 50 steps (`train/elbo`, `train/rate`, ...) and the validations (`valid/elbo`, ...),
    in the units of log.jsonl. Pictures are reconstructions of validation images with the originals, samples, and a map
    of the codes of validation data.
    """

    def __init__(self) -> None:
        self._pictured = 0

    @abstractmethod
    def open(self, training: Training, settings: dict[str, Any]) -> None:
        """Start a new log, or continue that of the same run after step `training.first`, from which it resumes."""

    @abstractmethod
    def scalars(self, step: int, figures: dict[str, float]) -> None:
        """Add figures of a step."""

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Add a picture, uint8 (H, W, 3); by default it is ignored."""

    @abstractmethod
    def close(self, state: State) -> None:
        """End the log with the state of the run."""

    @property
    def pictures(self) -> bool:
        """Whether the tool takes pictures."""
        return type(self).picture is not Logger.picture

    def on_start(self, training: Training) -> None:
        """Open the log."""
        self._pictured = training.first
        self.open(training, settings_of(training.config))

    def on_record(self, training: Training, means: Terms) -> None:
        """Send the means of the last steps."""
        figures = {f"train/{name}": value for name, value in means.items()}
        pace = {"epoch": training.epoch, "seconds": training.seconds, "examples_per_second": training.per_second}
        self.scalars(training.step, figures | pace)

    def on_validation(self, training: Training) -> None:
        """Send the figures of the validation, and pictures if they are due."""
        self.scalars(training.step, {f"valid/{n}": v for n, v in training.valid.items() if n != "step"})
        last = training.step == training.horizon
        if self.pictures and (last or training.step >= SPACING * self._pictured):
            self._pictured = training.step
            with training.trained() as model:
                for name, image in pictures_of(model):
                    self.picture(training.step, name, image)

    def on_end(self, training: Training, state: State) -> None:
        """Close the log."""
        self.close(state)


def pictures_of(model: TrainedModel) -> list[tuple[str, np.ndarray]]:
    """Names and pictures, uint8 (H, W, 3), of what a model does with validation data; without what it cannot do."""
    makers: list[tuple[str, Callable[[TrainedModel], np.ndarray]]] = [("latent map", _map)]
    if model.spec.kind == "image":
        makers = [("reconstructions", _reconstructions), ("samples", _samples), *makers]
    found = []
    for name, make in makers:
        try:
            found.append((name, make(model)))
        except VaekitError:  # for example, an autoencoder has no samples
            continue
    return found


def _grid(model: TrainedModel, images: np.ndarray, columns: int) -> np.ndarray:
    return image_grid(channels_last(images), columns=columns, scale=model.spec.scale)


def _reconstructions(model: TrainedModel) -> np.ndarray:
    """Pairs of rows: originals, and below them their reconstructions."""
    n = min(RECONSTRUCTED, len(model.data.valid))
    columns = min(8, n)
    n -= n % columns
    x, again = model.events(model.data.valid[:n]), model.reconstruct("valid", n=n)
    rows = [part[a : a + columns] for a in range(0, n, columns) for part in (x, again)]
    return _grid(model, np.concatenate(rows), columns)


def _samples(model: TrainedModel) -> np.ndarray:
    return _grid(model, model.sample(SAMPLES, seed=0), 8)


def _map(model: TrainedModel) -> np.ndarray:
    """Codes of validation data in the plane, with the colours of their classes."""
    n = min(CODES, len(model.data.valid))
    z, label = model.encode("valid", n=n), model.data.valid.label
    with theme():
        figure = latent_scatter(z, None if label is None else label[:n], model.data.label_names)
        image = figure_png(figure, dpi=80)
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))


def loggers_of(log: str | Logger | Sequence[str | Logger]) -> list[Logger]:
    """The loggers for `fit(log=...)`.

    Arguments:
        log: a `Logger`, or NAME or NAME:WHERE, such as `tensorboard:logs/first`; or several of them, in a sequence or
            with commas between them.

    Raises:
        ChoiceError: there is no such logger, or its package is not installed.
    """
    given = [log] if isinstance(log, str | Logger) else list(log)
    made: list[Logger] = []
    for one in given:
        if isinstance(one, Logger):
            made.append(one)
        elif isinstance(one, str):
            made += [_named(part.strip()) for part in one.split(",")]
        else:
            raise ChoiceError(f"`log` must be names of loggers or `Logger` objects, got {one!r}")
    return made


def _named(text: str) -> Logger:
    name, _, where = text.partition(":")
    built: Logger = LOGGERS[name].build(where or None)
    return built
