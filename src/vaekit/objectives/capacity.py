"""A KL that is held at a capacity which grows during training."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from vaekit.models.vae import Model
from vaekit.utils.arguments import Knob

from .base import Batch, Losses, Objective, Samples, objective
from .parts import needs_density
from .schedules import Linear, Schedule
from .terms import distortion, elbo_stats, rate


@objective("capacity", "Burgess et al. 2018, arXiv:1804.03599", "A target for the KL or the distortion")
class Capacity(Objective):
    r"""loss = E_q[-log p(x|z)] + gamma |KL(q(z|x) || p(z)) - C(step)| (Burgess et al. 2018, arXiv:1804.03599).

    The KL is averaged over the batch before the absolute value is taken, as in disentanglement_lib, so the rates of
    single examples may differ from C. The stats are the true `elbo`, `rate` and `distortion`, and `capacity` in nats.

    Arguments:
        gamma: weight of the difference. It holds the KL at C if it exceeds the decrease in distortion per nat of KL
            (an exact penalty). A much larger weight dominates the gradient of the distortion: on Fashion-MNIST, 5
            gave a bound 13 nats above that of 100 after equal steps. The paper uses 1000.
        capacity: C in nats at the end of its rise, or a schedule of the step.
        capacity_steps: steps of the linear rise from 0, if `capacity` is a number.
        samples: samples of z per example.
    """

    def __init__(
        self,
        gamma: Annotated[float, Knob("weight of |KL - C|", low=0)] = 5.0,
        capacity: Annotated[float | Schedule, Knob("final value of the capacity C, in nats", low=0)] = 25.0,
        capacity_steps: Annotated[int, Knob("steps over which C rises from 0", low=1)] = 10_000,
        samples: Samples = 1,
    ):
        super().__init__()
        self.gamma, self.samples = gamma, samples
        self.capacity = capacity if isinstance(capacity, Schedule) else Linear(capacity, capacity_steps)

    def check(self, model: Model) -> None:
        needs_density(self, model)

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        trace = self.trace(model, batch, None if self.samples == 1 else self.samples)
        d, r = distortion(trace, batch.x), rate(trace)
        capacity = self.capacity(step)
        loss = d.mean() + self.gamma * (r.mean() - capacity).abs()
        stats = {**elbo_stats(d, r), "capacity": capacity}
        return Losses({"model": loss}, stats)
