"""One part of the bound is minimised while a learned multiplier holds the other at a target."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from vaekit.errors import ChoiceError
from vaekit.models.vae import Model
from vaekit.utils.arguments import Knob

from .base import Batch, Losses, Objective, Samples, Tuning, objective
from .parts import needs_density
from .terms import distortion, elbo_stats, rate

LOG_LIMIT = math.log(1e6)


@objective("constrained", "Rezende and Viola 2018, arXiv:1810.00597", "A KL that is held")
class Constrained(Objective):
    r"""min rate subject to distortion <= target, or min distortion subject to rate <= target.

    The model minimises  rate + lambda (distortion - target)  (or the other way round) with the multiplier
    lambda > 0 constant; the group `multiplier` minimises -log lambda C by gradient descent, where C = distortion -
    target is constant and clipped to one nat. That is the update lambda <- lambda exp(lr C) of GECO (Rezende and Viola
    2018, arXiv:1810.00597): lambda grows by a factor while the constraint is violated and shrinks while
    there is slack, by at most 1 % per step for `multiplier_lr` 0.01, so that a start far from the target does not wind
    it up. Within one nat of the target the step is proportional to C, which lets lambda settle. It stays within
    1e-6 .. 1e6, even if the target is out of reach.

    The stats are the true `elbo`, `rate` and `distortion`, `multiplier`, and `violation`, the difference from the
    target in nats. The target of a distortion is in the data's own units, like the recorded one: training passes the
    Jacobian of the observation to `in_units`.

    Arguments:
        hold: what is held to the target: `distortion` or `rate`.
        target: in nats per example; for a distortion, in the data's own units.
        multiplier_lr: learning rate of log lambda per nat; decrease it if lambda oscillates.
        multiplier: lambda at the start; 1 is the plain bound.
        samples: samples of z per example.
    """

    log_jacobian: Tensor

    def __init__(
        self,
        hold: Annotated[Literal["distortion", "rate"], Knob("what the constraint holds at its target")] = "rate",
        target: Annotated[
            float, Knob("nats per datum at which it is held, in the data's own units, as evaluate reports them")
        ] = 20.0,
        multiplier_lr: Annotated[
            float, Knob("how fast the multiplier's logarithm moves; less where it swings", above=0)
        ] = 0.01,
        multiplier: Annotated[float, Knob("of the constraint, at the start", above=0, high=1e6)] = 1.0,
        samples: Samples = 1,
    ):
        super().__init__()
        if hold == "rate" and target < 0:
            raise ChoiceError(f"`target` must be 0 nats or more for a rate, got {target:g}")
        self.hold, self.target, self.samples = hold, target, samples
        self.log_multiplier = nn.Parameter(torch.tensor(math.log(multiplier)))
        self.register_buffer(
            "log_jacobian", torch.zeros(()), persistent=False
        )  # checkpoints store it, runs do not need it
        self.tuning = {"multiplier": Tuning("sgd", multiplier_lr)}  # type: ignore[misc]

    def parameter_groups(self, model: Model) -> dict[str, list[nn.Parameter]]:
        return {**super().parameter_groups(model), "multiplier": [self.log_multiplier]}

    def check(self, model: Model) -> None:
        needs_density(self, model)

    def in_units(self, log_jacobian: float) -> None:
        self.log_jacobian.fill_(log_jacobian)

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        trace = self.trace(model, batch, None if self.samples == 1 else self.samples)
        d, r = distortion(trace, batch.x), rate(trace)
        free, held = (r, d - self.log_jacobian) if self.hold == "distortion" else (d, r)
        violation = held.mean() - self.target
        log_multiplier = self.log_multiplier.detach()
        multiplier = torch.exp(log_multiplier.clamp(-LOG_LIMIT, LOG_LIMIT))
        push = violation.detach().clamp(-1, 1)
        outwards = (log_multiplier.abs() >= LOG_LIMIT) & (log_multiplier * push > 0)
        push = torch.where(outwards, 0.0, push)
        losses = {"model": free.mean() + multiplier * violation, "multiplier": -self.log_multiplier * push}
        return Losses(losses, {**elbo_stats(d, r), "multiplier": multiplier, "violation": violation})
