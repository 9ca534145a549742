"""What an objective is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from ..model import Model
from ..noise import Noise


@dataclass
class Batch:
    """One batch as a model sees it: x (B, *event), an optional condition c (B, ...), labels y (B,), its noise."""

    x: Tensor
    noise: Noise
    c: Tensor | None = None
    y: Tensor | None = None


class Terms(NamedTuple):
    """`losses`: scalars to minimise, by player. `stats`: scalars to record, in nats a datum unless named otherwise."""

    losses: dict[str, Tensor]
    stats: dict[str, Tensor]


class Objective(nn.Module):
    """What is minimised. It stands outside the model and may own parameters (a critic, a multiplier). Abstract.

    `players` names disjoint sets of parameters; `forward` returns one loss for each, and a loss reaches its own
    player's parameters only. All gradients are taken at the same parameters, then all players step.

    Attributes:
        densities: the recorded stats that hold log p(x), with its sign: they are told in the data's own units.
    """

    densities: ClassVar[dict[str, int]] = {"elbo": 1, "distortion": -1}

    def players(self, model: Model) -> dict[str, list[nn.Parameter]]:
        return {"model": [p for p in model.parameters() if p.requires_grad]}

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Terms:
        raise RuntimeError(f"{type(self).__name__} does not define forward")
