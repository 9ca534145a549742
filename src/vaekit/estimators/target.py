"""The density log p(x, z) of a batch as a function of z: what the estimators of log p(x) integrate over z."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaekit.densities.sphere import UniformOnSphere
from vaekit.errors import ChoiceError
from vaekit.models.library import SizedVAE
from vaekit.models.quantised import CodePrior
from vaekit.models.vae import VAE, Model


def why_not(model: Model) -> str | None:
    """Why log p(x) of this model cannot be integrated over one layer of continuous latents; None if it can."""
    if model.no_density is not None:
        return model.no_density
    if not isinstance(model, VAE):
        return f"a {type(model).__name__} has several layers of latents, or discrete ones"
    if isinstance(model.prior, CodePrior):
        return "the latents are discrete codes"
    prior = model.prior()
    if isinstance(prior, UniformOnSphere):
        return "the latents lie on a sphere, on which these estimators cannot move"
    if len(prior.event_shape) != 1 or prior.support is None or prior.support.is_discrete:
        return "the latents are not one vector of real numbers"
    return None


@dataclass(frozen=True)
class Target:
    """log p(x, z) = log p(z) + log p(x | z) of a batch as a function of z, and q(z | x).

    Codes z are (K, B, D), densities (K, B).

    Attributes:
        model: a VAE with one layer of continuous latents (see `why_not`).
        x: (B, *event).
        c: (B, C) condition of a conditional model.
        u: (B, 1), the total of each row for a `SizedVAE`.
        q: q(z | x), batch shape (B,).
        prior: p(z).
    """

    model: VAE
    x: Tensor
    c: Tensor | None
    u: Tensor | None
    q: Distribution
    prior: Distribution

    @classmethod
    def of(cls, model: Model, x: Tensor, c: Tensor | None = None, u: Tensor | None = None) -> Target:
        """The target of data x (B, *event).

        Arguments:
            u: for a `SizedVAE`, the totals, by default those of x.

        Raises:
            ChoiceError: the model has no single layer of continuous latents.
        """
        if (why := why_not(model)) is not None or not isinstance(model, VAE):
            raise ChoiceError(f"this estimator needs one layer of continuous latents: {why}; use log_px_iw")
        if isinstance(model, SizedVAE) and u is None:
            u = model.total(x)
        with torch.no_grad():
            given = () if c is None else (c,)
            return cls(model, x, c, u, model.posterior(x, *given), model.prior())

    @property
    def dims(self) -> int:
        """The number of latents D."""
        return self.prior.event_shape.numel()

    def of_rows(self, rows: Tensor) -> Target:
        """The target of some of the data, by their positions (R,)."""
        c, u = (None if t is None else t[rows] for t in (self.c, self.u))
        return Target.of(self.model, self.x[rows], c, u)

    def decode(self, z: Tensor) -> Distribution:
        """p(x | z) for z (K?, B, D)."""
        given = () if self.c is None else (self.c,)
        if self.u is not None:
            z = torch.cat([z, self.u.expand(*z.shape[:-1], 1).to(z)], -1)
        decoded: Distribution = self.model.likelihood(z, *given)
        return decoded

    def log_px_given(self, z: Tensor) -> Tensor:
        """log p(x | z), (K, B)."""
        return self.decode(z).log_prob(self.x)

    def log_joint(self, z: Tensor) -> Tensor:
        """log p(x, z), (K, B)."""
        return self.prior.log_prob(z) + self.log_px_given(z)

    def moments(self, density: Distribution, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of a density over z, each (B, D): known ones, or those of draws (K, B, D)."""
        if isinstance(density, Independent) and isinstance(density.base_dist, Normal):
            shape = (len(self.x), self.dims)
            return density.base_dist.loc.expand(shape), density.base_dist.scale.expand(shape)
        return draws.mean(0), draws.std(0, correction=0).clamp_min(1e-6)


def log_mean_exp(values: Tensor) -> Tensor:
    """log 1/K sum_k exp(v_k) over the first axis, in float64: (K, ...) -> (...)."""
    return torch.logsumexp(values.double(), 0) - math.log(len(values))
