"""The negative evidence lower bound."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from vaekit.errors import ChoiceError
from vaekit.models.vae import Model
from vaekit.utils.arguments import Knob

from .base import Batch, Gradient, Losses, Objective, Samples, objective
from .parts import example, needs_density, needs_density_anywhere, one_layer
from .schedules import Constant, Linear, Schedule, kl_weight
from .terms import distortion, elbo_stats, free_rate, latent_rate, rate
from .weighted import Separated, carrying

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

    With `gradient="stl"`, sticking the landing (Roeder, Wu and Duvenaud 2017, arXiv:1703.09194), the KL in the loss is
    log q(z|x) - log p(z) at the samples, and the encoder's parameters phi are held constant in log q:

        (d / dz [-log p(x|z) + beta (log q(z|x) - log p(z))]) (dz / d phi).

    What is left out, the expectation of d log q(z|x) / d phi at fixed z, is 0, so the mean of the gradient is the same.
    Where q is the posterior and beta = 1, the bracket does not depend on z, and the encoder's gradient is 0 for every
    draw.

    Arguments:
        beta: the KL's weight, a number or a schedule of the step: `Linear` warms up (Bowman et al. 2016), `Cyclic`
            repeats the warm-up (Fu et al. 2019). The recorded `elbo` always has weight 1.
        samples: L, samples of z per example for the expectation.
        analytic: use the closed form of the KL where torch has one (equation 10 of Kingma and Welling 2013) instead
            of log q - log p at the samples (the first estimator of their equation 8).
        free_bits: f, in nats. The recorded `elbo` and `rate` are the true ones.
        gradient: of the encoder, `plain` or `stl`; the latter needs a VAE with one latent layer, a posterior that is
            not a flow, and no free bits.
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
        gradient: Gradient = "plain",
        mixed: bool = False,
        images: bool = False,
    ):
        super().__init__()
        if gradient == "dreg":
            raise ChoiceError(
                "`gradient='dreg'` is for importance-weighted bounds (the objectives iwae and piwae). For elbo, with "
                "one sample per weight, the doubly reparametrised gradient is `gradient='stl'`"
            )
        if gradient == "stl" and free_bits > 0:
            raise ChoiceError(
                "free bits limit the closed-form KL of a latent, and `gradient='stl'` uses the KL at the samples: "
                "write `gradient='plain'`, or `free_bits=0`"
            )
        self.beta = beta if isinstance(beta, Schedule) else kl_weight(beta, warmup or 0, cycles, beta_from)
        rises = isinstance(self.beta, Constant) and self.beta.value > 0
        self.planned = (mixed or images) and warmup is None and rises
        self.images = images
        self.samples, self.analytic, self.free_bits, self.gradient = samples, analytic, free_bits, gradient

    def plan(self, steps: int) -> None:
        if self.planned and isinstance(self.beta, Constant):
            rise = int(IMAGES * steps) if self.images else min(LONGEST, int(WARMUP * steps))
            self.beta = Linear(self.beta.value, rise)

    def check(self, model: Model) -> None:
        needs_density(self, model)
        if self.gradient == "stl":
            posterior = one_layer(self, model).posterior
            needs_density_anywhere(self, example(posterior), "write gradient='plain'")

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        k = None if self.samples == 1 else self.samples
        if self.gradient == "stl":
            return self._landing(model, batch, step, k)
        trace = self.trace(model, batch, k)
        d, r = distortion(trace, batch.x), rate(trace, self.analytic)
        penalised = r if self.free_bits == 0 else free_rate(trace, self.free_bits, self.analytic)
        loss = (d + self.beta(step) * penalised).mean()
        return Losses({"model": loss}, elbo_stats(d, r))

    def _landing(self, model: Model, batch: Batch, step: Tensor, k: int | None) -> Losses:
        separated = Separated.of(self, model, batch, k)
        needs_density_anywhere(self, separated.latent.q, "write gradient='plain'")
        beta = self.beta(step)
        value = separated.log_px + beta * (separated.log_p - separated.copy.log_q)
        carrier = separated.landing(beta) if torch.is_grad_enabled() else value
        stats = elbo_stats(-separated.log_px, latent_rate(separated.latent, self.analytic))
        return Losses({"model": -carrying(value, carrier).mean()}, stats)
