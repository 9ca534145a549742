"""What an objective is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from vaekit.models.vae import Model, Trace
from vaekit.noise import Noise
from vaekit.utils.functional import call, places


@dataclass
class Batch:
    """One batch as a model sees it: x (B, *event), an optional condition c (B, ...), labels y (B,), its noise."""

    x: Tensor
    noise: Noise
    c: Tensor | None = None
    y: Tensor | None = None


class Losses(NamedTuple):
    """`losses`: scalars to minimise, by parameter group. `stats`: scalars to record, in nats per datum by default."""

    losses: dict[str, Tensor]
    stats: dict[str, Tensor]


class Tuning(NamedTuple):
    """How a parameter group of the objective's own is trained, whatever the model's optimiser is."""

    optimiser: str = "adam"
    lr: float = 1e-3
    options: Mapping[str, float] | None = None


class Objective(nn.Module, ABC):
    """What is minimised. It stands outside the model and may own parameters (a critic, a multiplier). Abstract.

    `parameter_groups` names disjoint sets of parameters; `forward` returns one loss per group, and a loss reaches the
    parameters of its own group only. All gradients are taken at the same parameters, then all groups step.

    Attributes:
        densities: the recorded stats that hold log p(x), with its sign: they are told in the data's own units.
        tuning: the training of parameter groups that do not follow the run's optimiser and learning rate.
        corruption: what is done to x before it is encoded in training, called as corruption(x, noise); the target
            stays the clean x.
    """

    densities: ClassVar[dict[str, int]] = {"elbo": 1, "distortion": -1}
    tuning: ClassVar[dict[str, Tuning]] = {}

    @property
    def corruption(self) -> nn.Module | None:
        return self._modules.get("corruption")  # a plain class attribute would hide a module set on an instance

    @corruption.setter
    def corruption(self, value: nn.Module | None) -> None:  # reached for None only: Module registers the rest
        self._modules["corruption"] = value

    def seen(self, x: Tensor, noise: Noise) -> Tensor:
        """What the encoder sees of x."""
        return x if self.corruption is None else self.corruption(x, noise)

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "players" in vars(cls):
            raise TypeError(f"{cls.__name__}.players is not used any more: name it parameter_groups")

    def parameter_groups(self, model: Model) -> dict[str, list[nn.Parameter]]:
        return {"model": [p for p in model.parameters() if p.requires_grad]}

    def check(self, model: Model) -> None:
        """Raises ChoiceError where this objective cannot train this model, with the reason and what to write."""

    def in_units(self, log_jacobian: float) -> None:
        """Told before training: log |dx / draw| of a datum, nats; log p(x) and it are log p of the data's own units."""

    def trace(self, model: Model, batch: Batch, k: int | None = None) -> Trace:
        """A pass through the model, its input corrupted where that is asked for."""
        return model.trace(self.seen(batch.x, batch.noise), batch.c, k=k, noise=batch.noise)

    @abstractmethod
    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        """The losses of one batch at a training step, and the stats to record."""


def frozen(module: nn.Module) -> Callable[..., Any]:
    """The module as a function: its parameters get no gradient, what is put in still does."""
    tensors = {place: t.detach() for place, t in places(module).items()}
    return lambda *given, **named: call(module, tensors, *given, **named)
