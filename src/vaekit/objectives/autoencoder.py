"""Autoencoders: codes without a distribution, and penalties on them."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekit.errors import ChoiceError
from vaekit.models.vae import VAE, Model, Trace
from vaekit.utils.arguments import Knob

from .base import Batch, Losses, Objective, objective
from .parts import example, is_point, one_layer
from .terms import distortion


@objective("autoencoder", "Ghosh et al. 2020, arXiv:1903.12436", "Autoencoders")
class Autoencoder(Objective):
    r"""loss = -log p(x|z) + l2/2 |z|^2 + decay/2 |W|^2 + l1 sum_j |z_j| + g |dD/dz|^2 + w sum_j KL(rho || rho_j).

    z = f(x) is the one point of the posterior, D(z) the mean of p(x|z), W the weights of the likelihood's network (its
    matrices and kernels, not its biases). l2 with the decay, or with the gradient penalty g (on the squared Frobenius
    norm of the Jacobian), gives the regularised autoencoders of Ghosh et al. (2020, arXiv:1903.12436). l1 gives sparse
    codes (Ranzato et al. 2007). The last term, with weight w = `sparsity`, is the KL between Bernoulli variables: rho_j
    is the batch mean of sigmoid(z_j), the activity of a unit, and rho its target (Lee et al. 2008; Ng 2011).

    The Jacobian's norm is estimated without bias by one random projection per example and step, E_u |J^T u|^2 = |J|^2
    for random signs u over x. The gradient of the sum of all outputs (u = 1) is a different quantity.

    An autoencoder has no log p(x) and no bound. The stats are `distortion` and the sum of all penalties, `penalty`.

    Arguments:
        l2: weight of half the squared code.
        gradient_penalty: g, weight of the squared gradient of the decoder, whose outputs are in the units of x.
        l1: weight of the absolute value of the code.
        sparsity: w, weight of the difference of the units' activity from rho.
        activity: rho, the target activity of a unit, in (0, 1).
        decoder_decay: weight of half the squared decoder weights, in nats per datum. Unlike this, the `weight_decay`
            of AdamW is not part of the loss: it shrinks the weights by that share of the learning rate per step.
    """

    densities: ClassVar[dict[str, int]] = {"distortion": -1}

    def __init__(
        self,
        l2: Annotated[float, Knob("penalty on half the squared code", low=0)] = 0.0,
        gradient_penalty: Annotated[float, Knob("penalty on the squared gradient of the decoder", low=0)] = 0.0,
        l1: Annotated[float, Knob("penalty on the absolute value of the code, for sparse codes", low=0)] = 0.0,
        sparsity: Annotated[
            float, Knob("penalty on units of the code whose mean activity differs from `activity`", low=0)
        ] = 0.0,
        activity: Annotated[float, Knob("target of the mean activity of a unit of the code", above=0, below=1)] = 0.05,
        decoder_decay: Annotated[float, Knob("penalty on half the squared decoder weights", low=0)] = 0.0,
    ):
        super().__init__()
        self.l2, self.gradient_penalty, self.l1 = l2, gradient_penalty, l1
        self.sparsity, self.activity, self.decoder_decay = sparsity, activity, decoder_decay

    def check(self, model: Model) -> None:
        q = example(one_layer(self, model).posterior)
        if q is not None and not is_point(q):
            raise ChoiceError(
                f"Autoencoder needs a point posterior, not {type(q).__name__}: without a KL, a posterior with a spread "
                "would collapse to a point; or use the objective ELBO"
            )

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        trace = self.trace(model, batch)
        z = trace.latents[0].z
        d = distortion(trace, batch.x).mean()
        penalty = torch.zeros_like(d)
        if self.l2:
            penalty = penalty + self.l2 * 0.5 * z.square().flatten(1).sum(1).mean()
        if self.l1:
            penalty = penalty + self.l1 * z.abs().flatten(1).sum(1).mean()
        if self.gradient_penalty:
            penalty = penalty + self.gradient_penalty * _squared_slope(one_layer(self, model), trace, batch).mean()
        if self.decoder_decay:
            decoder = one_layer(self, model).likelihood
            for w in getattr(decoder, "net", decoder).parameters():  # not the scales or dispersions of the head
                if w.dim() > 1:
                    penalty = penalty + self.decoder_decay * 0.5 * w.square().sum()
        if self.sparsity:
            penalty = penalty + self.sparsity * activity_kl(z, self.activity)
        return Losses({"model": d + penalty}, {"distortion": d, "penalty": penalty})


def _squared_slope(model: VAE, trace: Trace, batch: Batch) -> Tensor:
    """|J^T u|^2 of J = dE[x|z]/dz at the code of each datum, for random signs u: (B,)."""
    z, mean = trace.latents[0].z, trace.px.mean
    with torch.enable_grad():
        if not z.requires_grad:  # the encoder is not trained
            z = z.detach().requires_grad_()
            mean = model.px(z, batch.x, *batch.given).mean
        signs = torch.where(batch.noise.bits(mean.shape[1:]) < 0, -1.0, 1.0).to(mean.dtype)
        (slope,) = torch.autograd.grad((mean * signs).sum(), z, create_graph=True)
    return slope.square().flatten(1).sum(1)


def activity_kl(z: Tensor, rho: float) -> Tensor:
    """sum_j KL(Bernoulli(rho) || Bernoulli(rho_j)), with rho_j the mean of sigmoid(z_j) over the rows of z (B, *event).

    log rho_j and log(1 - rho_j) are computed as log-mean-exp of log-sigmoids, which is finite for codes of any size.
    """
    flat, rows = z.flatten(1), math.log(len(z))
    log_on = torch.logsumexp(F.logsigmoid(flat), 0) - rows
    log_off = torch.logsumexp(F.logsigmoid(-flat), 0) - rows
    entropy = -rho * math.log(rho) - (1 - rho) * math.log(1 - rho)
    return (-rho * log_on - (1 - rho) * log_off - entropy).sum()
