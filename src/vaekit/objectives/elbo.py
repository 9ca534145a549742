"""The negative evidence lower bound."""

from __future__ import annotations

from torch import Tensor

from vaekit.models.vae import Model

from .base import Batch, Losses, Objective
from .parts import needs_density
from .schedules import Constant, Schedule
from .terms import distortion, free_rate, rate


class ELBO(Objective):
    r"""loss = E_q[-log p(x|z)] + beta KL(q(z|x) || p(z)), averaged over the batch.

    With free bits f > 0 the KL in the loss is sum_j max(f, KL_j), where KL_j is the batch mean for latent dimension j:
    up to f nats each are free (Kingma et al. 2016, arXiv:1606.04934). Where the posterior does not
    factorise, or the model has several layers, j runs over layers.

    Arguments:
        beta: the KL's weight, a number or a schedule of the step: `Linear` warms up (Bowman et al. 2016), `Cyclic`
            repeats the warm-up (Fu et al. 2019). The recorded `elbo` always has weight 1.
        samples: L, samples of z per example for the expectation.
        analytic: use the closed form of the KL where torch has one (equation 10 of Kingma and Welling 2013) instead
            of log q - log p at the samples (the first estimator of their equation 8).
        free_bits: f, in nats. The recorded `elbo` and `rate` are the true ones.
    """

    def __init__(self, beta: float | Schedule = 1.0, samples: int = 1, analytic: bool = True, free_bits: float = 0.0):
        super().__init__()
        if samples < 1:
            raise ValueError(f"samples must be 1 or more, got {samples}")
        if not free_bits >= 0:
            raise ValueError(f"free_bits must be 0 or more, got {free_bits}")
        self.beta = beta if isinstance(beta, Schedule) else Constant(beta)
        self.samples, self.analytic, self.free_bits = samples, analytic, free_bits

    def check(self, model: Model) -> None:
        needs_density(self, model)

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        k = None if self.samples == 1 else self.samples
        trace = self.trace(model, batch, k)
        d, r = distortion(trace, batch.x), rate(trace, self.analytic)
        penalised = r if self.free_bits == 0 else free_rate(trace, self.free_bits, self.analytic)
        loss = (d + self.beta(step) * penalised).mean()
        return Losses({"model": loss}, {"elbo": -(d + r).mean(), "rate": r.mean(), "distortion": d.mean()})
