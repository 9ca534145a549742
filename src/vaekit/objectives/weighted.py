"""Gradients through weighted samples: terms that objectives of importance weights and path derivatives share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaekit.densities import draw_with_density
from vaekit.densities.special import drop_negligible
from vaekit.models.vae import Latent, Model

from .base import Batch, Objective
from .parts import one_layer


def bound_stats(weights: Tensor, log_px: Tensor, bound: Tensor) -> dict[str, Tensor]:
    """The stats from log-weights and log p(x | z), (K, B): the ELBO over all samples, its parts, and the bound."""
    return {
        "elbo": weights.mean(),
        "rate": (log_px - weights).mean(),
        "distortion": -log_px.mean(),
        "iwae": bound.mean(),
    }


def carrying(value: Tensor, carrier: Tensor) -> Tensor:
    """The value of one tensor with the gradient of another."""
    return value.detach() + (carrier - carrier.detach())


class Separated(NamedTuple):
    """K samples per example, and the densities at a copy of them, which separates the graphs of the two networks."""

    latent: Latent  # the samples (K?, B, *event), connected to the encoder
    copy: Latent  # the same samples as a leaf, so that its gradient can be weighted before it is passed on
    log_px: Tensor  # log p(x | z), (K?, B), at the copy
    log_p: Tensor  # log p(z), (K?, B), at the copy

    @property
    def joint(self) -> Tensor:
        """log p(x, z), (K?, B), at the copy."""
        return self.log_px + self.log_p

    @classmethod
    def of(cls, objective: Objective, model: Model, batch: Batch, samples: int | None) -> Separated:
        """K = `samples` draws for each example of a batch; None for one draw without the axis K."""
        vae = one_layer(objective, model)
        q, p = vae.posterior(objective.seen(batch.x, batch.noise), *batch.given), vae.prior()
        z, log_q = draw_with_density(q, batch.noise, samples)
        copy = Latent(z.detach().requires_grad_(), q, p)
        log_px = vae.px(copy.z, batch.x, *batch.given).log_prob(batch.x)
        return cls(Latent(z, q, p, log_q), copy, log_px, copy.log_p)

    def slope(self, total: Tensor) -> Tensor:
        """The detached derivative of a scalar with respect to every sample: (K?, B, *event)."""
        (slope,) = torch.autograd.grad(total, self.copy.z, retain_graph=True)
        return slope.detach()

    def through(self, slope: Tensor) -> Tensor:
        """A term (K?, B) whose derivative with respect to the samples is `slope`; it trains the encoder."""
        return (slope * self.latent.z).flatten(self.log_px.dim()).sum(-1)

    def doubly(self, share: Tensor, groups: int) -> Tensor:
        """A term (K, B) with the doubly reparametrised gradient of the bound for the encoder; its value has no meaning.

        `share` has the weights normalised over all groups, (K, B). Taking only the derivative with respect to z holds
        q's parameters fixed without a second pass through its network.
        """
        slope = self.slope((share * (self.joint - self.copy.log_q)).sum())
        return self.through(_over(share * groups, slope) * slope)

    def landing(self, beta: Tensor | float) -> Tensor:
        """A term (K?, B) with the gradient of log p(x | z) + beta (log p(z) - log q(z | x)), q's parameters held.

        Its value has no meaning. See `doubly`, of which it is the case of one sample per group if beta is 1.
        """
        generative = self.log_px + beta * self.log_p
        return generative + self.through(self.slope((generative - beta * self.copy.log_q).sum()))


def _over(weights: Tensor, like: Tensor) -> Tensor:
    """Add trailing axes of size 1: (K, B) -> (K, B, 1, ...)."""
    return weights.reshape(*weights.shape, *(1,) * (like.dim() - 2))


def shares(weights: Tensor, groups: int) -> Tensor:
    """The detached derivative of the grouped bound with respect to each log-weight: (K, B), with sum 1 over K."""
    parts = torch.softmax(drop_negligible(weights.detach().unflatten(0, (groups, -1)), 1), 1)
    return parts.flatten(0, 1) / groups
