"""The base class of densities of standardised codes, and their register."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from vaekit.data.condition import Condition
from vaekit.errors import ChoiceError
from vaekit.noise import Key, fold
from vaekit.options import Options
from vaekit.utils.files import write_tensors
from vaekit.utils.progress import Figures, Progress
from vaekit.utils.register import Register

BLOCK = 2000
"""The number of codes processed at once."""

OnProgress = Callable[[str, int, int], None]
"""Called with (name of the task, units done, total units)."""


def generator(*key: int) -> np.random.Generator:
    """NumPy's generator for a seed of either sign."""
    return np.random.default_rng(fold(Key.SHUFFLE, *key) & (2**64 - 1))


@dataclass(frozen=True)
class Training:
    """How a density that is trained as a run is trained.

    Attributes:
        options: training options; those that are None have the density's defaults.
        mode: start anew, resume an interrupted training, or train longer.
        progress: as the argument of `train`; None to report to `on_progress` only.
    """

    options: Options = field(default_factory=Options)
    mode: Literal["new", "resume", "extend"] = "new"
    progress: bool | Progress | None = None


class Fitting(Progress):
    """Reports the progress of a training as that of the fit of the density `name`."""

    def __init__(self, name: str, on_progress: OnProgress | None):
        self.name, self.on_progress = name, on_progress

    def update(self, step: int, horizon: int, epoch: float, train: Figures, valid: Figures, per_second: float) -> None:
        if self.on_progress:
            self.on_progress(f"fitting {self.name}", step, horizon)

    def note(self, text: str) -> None:
        return None


class Density(ABC):
    """A density over standardised codes u (n, d). Abstract.

    Attributes:
        STEPS: the default maximum number of steps of its fit.
        is_run: whether it is stored as a run; opening a run checks its size itself.
        bound: whether `log_prob` is a lower bound.
        of_posterior: whether it is fitted to the posteriors of the data (`codes`) instead of one draw of each.
        held_out: the maximum number of held-out codes whose log-density is measured after the fit; None for all.
        condition: the labels or attributes that it is conditional on, or None.
        choices: the arguments that rebuild it around its `tensors`.
        steps: the number of steps of its fit.
        fit: returns the density fitted to codes; see `latent_density`.
    """

    STEPS: ClassVar[int]
    bound: ClassVar[bool] = False
    is_run: ClassVar[bool] = False
    of_posterior: ClassVar[bool] = False
    held_out: int | None = None
    condition: Condition | None = None
    choices: dict[str, Any]
    steps: int
    fit: ClassVar[Callable[..., Density]]

    @abstractmethod
    def log_prob(self, u: Tensor) -> Tensor:
        """The log-density in nats, (n,) float64."""

    @abstractmethod
    def draw(self, n: int, seed: int) -> Tensor:
        """Draws (n, d) float32; row i does not depend on n."""

    def draw_given(self, n: int, seed: int, c: Tensor, guidance: float) -> Tensor:
        """Draws (n, d) given the condition c (n, C + 1), which ends in 1 where it is known.

        Draws with a `guidance` above 1 are more typical of the condition.
        """
        raise ChoiceError("this density is not conditional: it is drawn without labels or guidance")

    def log_prob_given(self, u: Tensor, c: Tensor) -> Tensor:
        """The log-density of u (n, d) given the condition c (n, C + 1) in nats, (n,) float64."""
        raise ChoiceError("this density is not conditional: its log-density takes no labels")

    def nearest(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """The training condition nearest to c (n, C + 1), and the log of its share of training rows, (n,) float64."""
        raise ChoiceError("this density is not conditional")

    def to(self, device: str | torch.device) -> None:
        """Draw and measure on this device, if it is worth while: here not. Results are on the CPU."""
        return None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Its parameters, by name."""
        return {}

    def save(self, folder: Path, name: str, more: dict[str, Tensor]) -> None:
        """Write it as `name` in a folder, with `more` tensors beside its own."""
        write_tensors(folder / f"{name}.safetensors", {**more, **self.tensors})

    @classmethod
    @abstractmethod
    def open(cls, folder: Path, tensors: dict[str, Tensor], choices: dict[str, Any]) -> Density:
        """The density that was saved in `folder`, rebuilt from its `tensors` and `choices`."""

    @property
    @abstractmethod
    def line(self) -> str:
        """A short description of the density."""


DENSITIES = Register(
    "latent density",
    {
        "u": "standardised codes (N, d)",
        "max_steps": "maximum number of steps",
        "seed": "seed of the fit",
        "on_progress": "called with (task, units done, total units) during the fit",
        "device": "device to fit on",
        "folder": "folder of the run's densities, or None if it cannot be written",
        "codes": "posteriors of training and validation data (`of_posterior`)",
        "given": "condition of the posteriors",
        "shape": "shape (C, *size) of codes that are small images, or None",
        "identity": "what the codes are a function of",
        "training": "how to train a density that is a run (`Training`)",
    },
)
"""The densities of codes by name; each part is the function that fits one."""

Kind = TypeVar("Kind", bound=type[Density])


def latent_density(name: str, paper: str, called: str) -> Callable[[Kind], Kind]:
    """Register a `Density` as `name`; its classmethod `fit` returns one that is fitted to codes.

    The parameters of `fit` that are annotated with a `Knob` are its options. It may also take `u`, `max_steps`,
    `seed`, `on_progress`, `device`, `folder`, `codes`, `given`, `shape`, `identity` and
    `training`.

    Arguments:
        name: its name on the command line.
        paper: its source.
        called: its description with an article, for captions: "a Gaussian mixture".
    """

    def register(kind: Kind) -> Kind:
        DENSITIES.add(name, paper, kind=kind, called=called)(kind.fit)
        return kind

    return register
