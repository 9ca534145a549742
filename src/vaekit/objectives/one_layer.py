"""The base class of objectives with a term of the aggregate posterior of one latent layer."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.distributions import Distribution

from vaekit.errors import ChoiceError
from vaekit.models.vae import VAE, Latent, Model

from .base import Batch, Objective
from .parts import example
from .schedules import Constant, Schedule
from .terms import distortion, elbo_stats, rate


class Pass(NamedTuple):
    """One pass through a model with one latent layer."""

    latent: Latent
    distortion: Tensor  # (B,)
    rate: Tensor | None  # (B,), or None if the model has no density
    stats: dict[str, Tensor]  # the true elbo, rate and distortion; only the distortion if the model has no density


class OneLayer(Objective):
    """An objective of distortion, rate and a term of q(z) = 1/N sum_i q(z | x_i), for one latent layer. Abstract."""

    def needs_density(self) -> bool:
        """Whether the loss contains log q(z | x)."""
        return True

    def check_posterior(self, q: Distribution) -> None:
        """Check that the loss can be computed for this q(z | x).

        Raises:
            ChoiceError: it cannot.
        """

    def check(self, model: Model) -> None:
        self._check_layers(model)
        if isinstance(model, VAE) and (q := example(model.posterior)) is not None:
            self.check_posterior(q)

    def _check_layers(self, model: Model) -> None:
        """Raise ChoiceError for a model of several layers, or without the density that the loss contains."""
        name = type(self).__name__
        if not isinstance(model, VAE):
            raise ChoiceError(
                f"{name} compares the aggregate posterior of one latent layer with its prior, and "
                f"{type(model).__name__} is not a VAE of one layer: use the objective ELBO, with beta to weight the KL "
                "of all layers, or a recipe with one layer"
            )
        if self.needs_density() and model.no_density is not None:
            raise ChoiceError(
                f"{name} needs log q(z | x), and this model has none ({model.no_density}): give it a Gaussian "
                "posterior, or use an objective that needs samples only, WAE or Adversarial"
            )

    def one_pass(self, model: Model, batch: Batch) -> Pass:
        """A pass through the model, with the parts of the bound."""
        self._check_layers(model)
        trace = self.trace(model, batch)
        self.check_posterior(trace.latents[0].q)
        d = distortion(trace, batch.x)
        if model.no_density is not None:
            return Pass(trace.latents[0], d, None, {"distortion": d.mean()})
        r = rate(trace)
        stats = elbo_stats(d, r)
        return Pass(trace.latents[0], d, r, stats)


def learns_prior(model: Model) -> bool:
    """Whether the prior has weights to train."""
    return isinstance(model, VAE) and any(p.requires_grad for p in model.prior.parameters())


def scheduled(value: float | Schedule) -> Schedule:
    """A weight as a schedule."""
    return value if isinstance(value, Schedule) else Constant(value)
