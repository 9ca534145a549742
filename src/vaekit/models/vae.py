"""The base class of models, the result of one pass, and the VAE with one latent layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit.densities import draw, draw_tempered, draw_with_density
from vaekit.noise import Noise


@dataclass
class Latent:
    """One latent layer in one pass.

    Attributes:
        z: the sample, (K?, B, *event).
        q, p: the posterior and the prior of z.
        known_log_q: log q(z | x) if sampling returned it: for a flow, computing it again is expensive.
    """

    z: Tensor
    q: Distribution
    p: Distribution
    known_log_q: Tensor | None = None

    @property
    def log_q(self) -> Tensor:
        """log q(z | x), (K?, B)."""
        return self.q.log_prob(self.z) if self.known_log_q is None else self.known_log_q

    @property
    def log_p(self) -> Tensor:
        """log p(z), (K?, B)."""
        return self.p.log_prob(self.z)


@dataclass
class Trace:
    """The result of one pass.

    Attributes:
        latents: the latent layers, top first; one for a VAE.
        px: p(x | z), batch shape (K?, B).
    """

    latents: tuple[Latent, ...]
    px: Distribution


class Model(nn.Module, ABC):
    """The abstract base class of latent-variable models with inference networks.

    Shapes: x is (B, *event). A code z is one flat vector per example, (B, D), for every model (a hierarchy concatenates
    its layers); `k` adds a leading sample axis, (K, B, D). `c` is the condition of a conditional model, (B, C); it is
    part of the code.

    Attributes:
        no_density: the reason why the model has no log p(x), or None if it has one.
        grid: the shape (C, *size) of codes that are small images or signals, which are flat in this order; None for
            codes without neighbourhoods.
    """

    likelihood: nn.Module
    no_density: str | None = None
    grid: tuple[int, ...] | None = None

    def _without_condition(self, c: Tensor | None) -> None:
        if c is not None:
            raise ValueError(f"{type(self).__name__} takes no condition c")

    @property
    def latent_dims(self) -> slice:
        """The part of a code that holds latents: all of it except a condition or class."""
        return slice(None)

    @abstractmethod
    def trace(self, x: Tensor, c: Tensor | None = None, k: int | None = None, noise: Noise | None = None) -> Trace:
        """Sample z from q(z | x); returns what objectives and estimators need.

        Arguments:
            x: (B, *event).
            c: the condition (B, C) of a conditional model.
            k: number of samples per example, as a leading axis; None for one sample without this axis.
            noise: the random numbers; fresh ones by default.
        """

    @abstractmethod
    def encode(self, x: Tensor, c: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        """The code of each example, (B, D): the posterior mean, or with `noise` a sample of the posterior."""

    @abstractmethod
    def decode(self, z: Tensor) -> Distribution:
        """p(x | z) for codes z (K?, B, D)."""

    @abstractmethod
    def sample(self, n: int, c: Tensor | None = None, noise: Noise | None = None, temperature: float = 1.0) -> Tensor:
        """n codes sampled from the prior, (n, D); `temperature` scales their deviations from its mean."""


class VAE(Model):
    """A prior p(z), a posterior q(z | x) and a likelihood p(x | z) (Kingma and Welling 2013, arXiv:1312.6114).

    With a `condition` of C numbers per example, the model is conditional (Sohn et al. 2015): posterior and likelihood
    also depend on c, the prior does not, and the code is [z, c], so that it determines the decoded distribution.

    Arguments:
        prior: module () -> p(z).
        posterior: module (x) or (x, c) -> q(z | x).
        likelihood: module (z) or (z, c) -> p(x | z).
        condition: C; 0 for an unconditional model.
    """

    def __init__(self, prior: nn.Module, posterior: nn.Module, likelihood: nn.Module, condition: int = 0):
        super().__init__()
        self.prior, self.posterior, self.likelihood, self.condition = prior, posterior, likelihood, condition
        self.no_density = getattr(posterior, "no_density", None)

    @property
    def latent_dims(self) -> slice:
        return slice(0, -self.condition or None)

    def _condition(self, c: Tensor | None) -> tuple[Tensor, ...]:
        if (c is None) != (self.condition == 0):
            raise ValueError(
                "this model is conditional and needs c" if c is None else "this model takes no condition c"
            )
        return () if c is None else (c,)

    def px(self, z: Tensor, x: Tensor, *condition: Tensor) -> Distribution:
        """p(x | z) of latents z (K?, B, D), given what the model knows of the data x (B, *event): here nothing.

        Objectives call this instead of `likelihood`, so that every kind of VAE knows what it needs.
        """
        found: Distribution = self.likelihood(z, *condition)
        return found

    def trace(
        self,
        x: Tensor,
        c: Tensor | None = None,
        k: int | None = None,
        noise: Noise | None = None,
        clean: Tensor | None = None,
    ) -> Trace:
        """As `Model.trace`; `clean` (B, *event) are the data without the corruption of x, by default x."""
        condition = self._condition(c)
        q = self.posterior(x, *condition)
        z, log_q = draw_with_density(q, noise or Noise.fresh(len(x), x.device), k)
        return Trace((Latent(z, q, self.prior(), log_q),), self.px(z, x if clean is None else clean, *condition))

    def encode(self, x: Tensor, c: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        condition = self._condition(c)
        q = self.posterior(x, *condition)
        return torch.cat([q.mean if noise is None else draw(q, noise), *condition], -1)

    def decode(self, z: Tensor) -> Distribution:
        if not self.condition:
            return self.likelihood(z)
        return self.likelihood(z[..., : -self.condition], z[..., -self.condition :])

    def sample(self, n: int, c: Tensor | None = None, noise: Noise | None = None, temperature: float = 1.0) -> Tensor:
        condition = self._condition(c)
        with torch.no_grad():
            return torch.cat([draw_tempered(self.prior(), noise or Noise.fresh(n), temperature), *condition], -1)
