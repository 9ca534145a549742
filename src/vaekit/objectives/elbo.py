"""The negative evidence lower bound."""

from __future__ import annotations

from torch import Tensor

from ..model import Model
from ..schedules import Constant, Schedule
from ..terms import distortion, rate
from .base import Batch, Objective, Terms


class ELBO(Objective):
    r"""loss = E_q[-log p(x|z)] + beta KL(q(z|x) || p(z)), averaged over the batch.

    Arguments:
        beta: the KL's weight, a number or a schedule of the step. The recorded `elbo` has weight 1 whatever it is.
        samples: L draws of z a datum for the expectation.
        analytic: use the closed form of the KL where torch has one (equation 10 of Kingma and Welling 2013) instead
            of log q - log p at the draws (their equation 8's first estimator).
    """

    def __init__(self, beta: float | Schedule = 1.0, samples: int = 1, analytic: bool = True):
        super().__init__()
        if samples < 1:
            raise ValueError(f"samples must be 1 or more, got {samples}")
        self.beta = beta if isinstance(beta, Schedule) else Constant(beta)
        self.samples, self.analytic = samples, analytic

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Terms:
        k = None if self.samples == 1 else self.samples
        trace = self.trace(model, batch, k)
        d, r = distortion(trace, batch.x), rate(trace, self.analytic)
        loss = (d + self.beta(step) * r).mean()
        return Terms({"model": loss}, {"elbo": -(d + r).mean(), "rate": r.mean(), "distortion": d.mean()})
