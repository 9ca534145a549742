"""The negative evidence lower bound."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from vaekit.models.vae import Model
from vaekit.utils.arguments import Knob

from .base import Batch, Losses, Objective, Samples, objective
from .parts import needs_density
from .schedules import Constant, Linear, Schedule, kl_weight
from .terms import distortion, elbo_stats, free_rate, rate

Beta = Annotated[float | Schedule, Knob("weight of the KL", low=0)]
Warmup = Annotated[int, Knob("steps over which beta rises from 0, or moves from `beta_from`", low=0)]
WARMUP, LONGEST = 0.1, 400
"""The default warm-up for tables whose columns differ in kind: its share of the training, and its maximum of steps."""
IMAGES = 0.5
"""The default warm-up for images: its share of the training."""


@objective("elbo", "Kingma and Welling 2013, arXiv:1312.6114", "The weight of the KL")
class ELBO(Objective):
    r"""loss = E_q[-log p(x|z)] + beta KL(q(z|x) || p(z)), averaged over the batch.

    With free bits f > 0 the KL in the loss is sum_j max(f, KL_j), where KL_j is the batch mean for latent dimension j,
    so the first f nats of each are free (Kingma et al. 2016, arXiv:1606.04934). If the posterior does not factorise, or
    the model has several layers, j runs over layers.

    Arguments:
        beta: the KL's weight, a number or a schedule of the step: `Linear` warms up (Bowman et al. 2016), `Cyclic`
            repeats the warm-up (Fu et al. 2019). The recorded `elbo` always has weight 1.
        samples: L, samples of z per example for the expectation.
        analytic: use the closed form of the KL where torch has one (equation 10 of Kingma and Welling 2013) instead
            of log q - log p at the samples (the first estimator of their equation 8).
        free_bits: f, in nats. The recorded `elbo` and `rate` are the true ones.
        warmup, beta_from, cycles: the schedule if `beta` is a number, in steps; see `schedules.kl_weight`.
        mixed, images: whether the data are a table whose columns differ in kind, or images. By default, beta then
            rises over the first tenth of the training, at most 400 steps, or over its first half. Otherwise many
            latents would stay unused.
    """

    def __init__(
        self,
        beta: Beta = 1.0,
        samples: Samples = 1,
        analytic: bool = True,
        free_bits: Annotated[
            float, Knob("least KL of a latent in the loss, in nats; a smaller KL is not rewarded", low=0)
        ] = 0.0,
        warmup: Annotated[
            int | None,
            Knob(
                "steps over which beta rises from 0, or moves from `beta_from`; by default half of the training for "
                "images, a tenth, at most 400, for tables whose columns differ in kind, and 0 for other data",
                low=0,
            ),
        ] = None,
        beta_from: Annotated[
            float,
            Knob(
                "initial weight of the KL; if it is far above beta, latents come into use one at a time, which may "
                "disentangle them",
                low=0,
            ),
        ] = 0.0,
        cycles: Annotated[int, Knob("steps per cycle, if the rise of beta is to be repeated", low=0)] = 0,
        mixed: bool = False,
        images: bool = False,
    ):
        super().__init__()
        self.beta = beta if isinstance(beta, Schedule) else kl_weight(beta, warmup or 0, cycles, beta_from)
        rises = isinstance(self.beta, Constant) and self.beta.value > 0
        self.planned = (mixed or images) and warmup is None and rises
        self.images = images
        self.samples, self.analytic, self.free_bits = samples, analytic, free_bits

    def plan(self, steps: int) -> None:
        if self.planned and isinstance(self.beta, Constant):
            rise = int(IMAGES * steps) if self.images else min(LONGEST, int(WARMUP * steps))
            self.beta = Linear(self.beta.value, rise)

    def check(self, model: Model) -> None:
        needs_density(self, model)

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        k = None if self.samples == 1 else self.samples
        trace = self.trace(model, batch, k)
        d, r = distortion(trace, batch.x), rate(trace, self.analytic)
        penalised = r if self.free_bits == 0 else free_rate(trace, self.free_bits, self.analytic)
        loss = (d + self.beta(step) * penalised).mean()
        return Losses({"model": loss}, elbo_stats(d, r))
