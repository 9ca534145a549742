"""Minimise one part of the bound while a learned multiplier holds the other at a target."""

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


@objective("constrained", "Rezende and Viola 2018, arXiv:1810.00597", "A target for the KL or the distortion")
class Constrained(Objective):
    r"""min rate subject to distortion <= target, or min distortion subject to rate <= target.

    The model minimises  rate + lambda (distortion - target)  (or the other way round), without a gradient for the
    multiplier lambda > 0. The group `multiplier` minimises -C log lambda by gradient descent, where C = distortion -
    target has no gradient and is clipped to [-1, 1] nats. This is the update lambda <- lambda exp(lr C) of GECO
    (Rezende and Viola 2018, arXiv:1810.00597): lambda grows while the constraint is violated and shrinks while it is
    satisfied, by at most 1 % per step for `multiplier_lr` 0.01, so that it does not become huge while the target is
    far. Within one nat of the target the update is proportional to C, which lets lambda converge. It stays within
    1e-6 .. 1e6, even if the target cannot be reached.

    The stats are the true `elbo`, `rate` and `distortion`, `multiplier`, and `violation`, the difference from the
    target in nats. The target of a distortion is in the data's own units, like the recorded one: training passes the
    Jacobian of the observation to `in_units`.

    Arguments:
        hold: the constrained part: `distortion` or `rate`.
        target: in nats per example; for a distortion, in the data's own units.
        multiplier_lr: learning rate of log lambda per nat; decrease it if lambda oscillates.
        multiplier: lambda at the start; 1 is the plain bound.
        samples: samples of z per example.
    """

    log_jacobian: Tensor

    def __init__(
        self,
        hold: Annotated[Literal["distortion", "rate"], Knob("part of the bound that is held at the target")] = "rate",
        target: Annotated[
            float, Knob("target in nats per datum, in the data's own units, as evaluate reports them")
        ] = 20.0,
        multiplier_lr: Annotated[
            float, Knob("learning rate of the multiplier's logarithm; lower it if the multiplier oscillates", above=0)
        ] = 0.01,
        multiplier: Annotated[float, Knob("initial multiplier of the constraint", above=0, high=1e6)] = 1.0,
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
