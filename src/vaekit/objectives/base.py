"""The base class of objectives, and the inputs and outputs of a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit.models.vae import VAE, Model, Trace
from vaekit.noise import Noise
from vaekit.utils.arguments import Knob
from vaekit.utils.functional import call, places
from vaekit.utils.register import Builder, Register

OBJECTIVES = Register(
    "objective",
    {
        "n": "number of training data",
        "latent": "number of latent dimensions",
        "mixed": "whether the data are a table whose columns differ in kind",
        "images": "whether the data are images",
        "event": "shape of x",
        "real": "whether each element of x is a real number",
        "missing": "whether the data have missing values",
    },
)
"""The objectives by name."""

Samples = Annotated[int, Knob("draws of z per datum in training", low=1)]
Gradient = Annotated[
    Literal["plain", "stl", "dreg"],
    Knob(
        "gradient of the encoder: plain; for elbo sticking the landing (stl), for iwae and piwae doubly "
        "reparametrised (dreg), which have less variance"
    ),
]


def objective(name: str, paper: str, heading: str = "", *, tails: bool = False) -> Callable[[Builder], Builder]:
    """Register an `Objective` class, or a function that returns one, as the objective `name`.

    Its parameters annotated with a `Knob` are its options. It may also take `n`, the number of training data,
    `latent`, the number of latent dimensions, `mixed` and `images`, whether the data are a table whose columns differ
    in kind or images, `event`, the shape of x, `real`, which of its elements are real numbers, and `missing`, whether
    the data have missing values (nan).

    Arguments:
        name: its name on the command line.
        paper: its source.
        heading: the heading of its options in the command line's help.
        tails: whether extreme values must stay extreme: by default, columns are then not mapped by their quantiles.
    """
    return OBJECTIVES.add(name, paper, heading=heading or f"Objective {name}", tails=tails)


@dataclass
class Batch:
    """One batch as observed by the model: x (B, *event), its noise, and optionally c (B, ...) and labels y (B,)."""

    x: Tensor
    noise: Noise
    c: Tensor | None = None
    y: Tensor | None = None

    @property
    def given(self) -> tuple[Tensor, ...]:
        """The condition as further arguments of a posterior or likelihood."""
        return () if self.c is None else (self.c,)


class Losses(NamedTuple):
    """`losses`: scalars to minimise, by parameter group. `stats`: scalars to record, in nats per example by default."""

    losses: dict[str, Tensor]
    stats: dict[str, Tensor]


class Tuning(NamedTuple):
    """The optimiser of a parameter group that does not use the run's optimiser."""

    optimiser: str = "adam"
    lr: float = 1e-3
    options: Mapping[str, float] | None = None


class Objective(nn.Module, ABC):
    """A training objective, which may own parameters such as a critic or a multiplier. Abstract.

    `parameter_groups` names disjoint sets of parameters; `forward` returns one loss per group, whose gradient is taken
    with respect to that group only. All gradients are computed at the same parameters, then all groups step.

    Attributes:
        densities: the stats that contain log p(x), with its sign; they are reported in the data's own units.
        tuning: optimisers of parameter groups that do not use the run's optimiser and learning rate.
        planned: whether a schedule takes a share of the training; see `plan`.
        most_lr: the default learning rate is at most this; None for that of the networks.
        trims: whether the loss leaves out unlikely rows; see `kept` and `bounded`.
    """

    trims: ClassVar[bool] = False
    planned: bool = False
    most_lr: ClassVar[float | None] = None
    densities: ClassVar[dict[str, int]] = {"elbo": 1, "distortion": -1}
    tuning: ClassVar[dict[str, Tuning]] = {}

    corruption: nn.Module | None
    """A module that corrupts x before it is encoded in training: corruption(x, noise). The target stays clean."""

    def __init__(self) -> None:
        super().__init__()
        self.corruption = None

    def seen(self, x: Tensor, noise: Noise) -> Tensor:
        """The encoder's input for x: corrupted, if the objective has a corruption."""
        return x if self.corruption is None else self.corruption(x, noise)

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "players" in vars(cls):
            raise TypeError(f"{cls.__name__}.players is no longer used: rename it to parameter_groups")

    def parameter_groups(self, model: Model) -> dict[str, list[nn.Parameter]]:
        """The parameters of each group, by name: here all of the model."""
        return {"model": [p for p in model.parameters() if p.requires_grad]}

    def check(self, model: Model) -> None:
        """Check that this objective can train this model.

        Raises:
            ChoiceError: the objective cannot; the message gives the reason and a suggestion.
        """

    def plan(self, steps: int) -> None:
        """Called before training, and before it is resumed, with the number of steps planned at its beginning.

        If `planned`, a run that is limited by minutes counts steps as if it took this number in all.
        """

    def in_units(self, log_jacobian: float) -> None:
        """Called once before training with log |dx / d raw| in nats, which converts log p(x) to the data's units."""

    def kept(self, figures: Tensor, x: Tensor) -> Tensor:
        """Which of the rows x (n, *event) with these ELBOs (n,) the loss keeps, bool (n,): all unless it `trims`.

        The start as factor analysis leaves out rows by the same rule.
        """
        return torch.ones_like(figures, dtype=torch.bool)

    def bounded(self, figures: Tensor, x: Tensor) -> Tensor:
        """The ELBOs (n,) of the rows x for early stopping: those of rows not kept are raised to the lowest one kept.

        The log of a run has the mean ELBO of all rows, unchanged.
        """
        return figures.clamp_min(figures[self.kept(figures, x)].min())

    def beside(self, px: Distribution, x: Tensor, noise: Noise) -> Tensor | None:
        """log p of what the objective models besides x, given a draw of z, (B,): early stopping adds it to the ELBO."""
        return None

    def trace(self, model: Model, batch: Batch, k: int | None = None) -> Trace:
        """A pass through the model, with the corruption of the objective, if any."""
        x = self.seen(batch.x, batch.noise)
        if isinstance(model, VAE) and self.corruption is not None:
            return model.trace(x, batch.c, k=k, noise=batch.noise, clean=batch.x)
        return model.trace(x, batch.c, k=k, noise=batch.noise)

    @abstractmethod
    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        """The losses of one batch at training step `step` (a scalar tensor), and the stats to record."""


def frozen(module: nn.Module) -> Callable[..., Any]:
    """The module as a function whose parameters get no gradient; its inputs still do."""
    tensors = {name: t.detach() for name, t in places(module).items()}
    return lambda *given, **named: call(module, tensors, *given, **named)
