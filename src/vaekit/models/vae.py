"""What one pass through a model yields, and the model with one latent layer."""

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
    """One latent layer of one pass: its draw `z` (K?, B, *event), posterior `q` and prior `p`.

    `known_log_q` is log q(z | x) where drawing gave it (a flow, whose density is dear at a z from elsewhere).
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
    """One pass: the latents, top first, and the distribution over x. A plain VAE is the length-one case."""

    latents: tuple[Latent, ...]
    px: Distribution


class Model(nn.Module, ABC):
    """A latent-variable model with its inference network. Abstract.

    Shapes: x (B, *event); a code z is one flat vector a datum, (B, D), whatever the latents are (a hierarchy lays its
    layers side by side); `k` puts a sample axis before: (K, B, D). `c` is the condition of a conditional model (B, C),
    which becomes part of the code.

    Attributes:
        no_density: why the model has no log p(x), or None where it has one.
    """

    likelihood: nn.Module
    no_density: str | None = None

    @property
    def latent_dims(self) -> slice:
        """The places of a code whose numbers vary freely: not those of a condition or of a class."""
        return slice(None)

    @abstractmethod
    def trace(self, x: Tensor, c: Tensor | None = None, k: int | None = None, noise: Noise | None = None) -> Trace:
        """Draw z from q(z | x) and hold what every objective and estimator needs."""

    @abstractmethod
    def encode(self, x: Tensor, c: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        """The code of each datum, (B, D): the posterior's centre, or with `noise` a draw from the posterior."""

    @abstractmethod
    def decode(self, z: Tensor) -> Distribution:
        """p(x | z) for codes (K?, B, D)."""

    @abstractmethod
    def sample(self, n: int, c: Tensor | None = None, noise: Noise | None = None, temperature: float = 1.0) -> Tensor:
        """n codes drawn from the prior, (n, D), spread by `temperature` about the prior's centre."""


class VAE(Model):
    """Prior p(z), posterior q(z | x), likelihood p(x | z): Kingma and Welling (2013), whatever the three are.

    With `condition` numbers c a datum it is conditional: posterior and likelihood are given c after x or z (Sohn et
    al. 2015), the prior stays p(z), and the code of a datum is [z, c], so that a code still says all that is decoded.
    """

    def __init__(self, prior: nn.Module, posterior: nn.Module, likelihood: nn.Module, condition: int = 0):
        super().__init__()
        self.prior, self.posterior, self.likelihood, self.condition = prior, posterior, likelihood, condition
        self.no_density = getattr(posterior, "no_density", None)

    @property
    def latent_dims(self) -> slice:
        return slice(0, -self.condition or None)

    def _given(self, c: Tensor | None) -> tuple[Tensor, ...]:
        if (c is None) != (self.condition == 0):
            raise ValueError("this model is conditional: give c" if c is None else "this model takes no condition c")
        return () if c is None else (c,)

    def trace(self, x: Tensor, c: Tensor | None = None, k: int | None = None, noise: Noise | None = None) -> Trace:
        given = self._given(c)
        q = self.posterior(x, *given)
        z, log_q = draw_with_density(q, noise or Noise.fresh(len(x), x.device), k)
        return Trace((Latent(z, q, self.prior(), log_q),), self.likelihood(z, *given))

    def encode(self, x: Tensor, c: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        given = self._given(c)
        q = self.posterior(x, *given)
        return torch.cat([q.mean if noise is None else draw(q, noise), *given], -1)

    def decode(self, z: Tensor) -> Distribution:
        if not self.condition:
            return self.likelihood(z)
        return self.likelihood(z[..., : -self.condition], z[..., -self.condition :])

    def sample(self, n: int, c: Tensor | None = None, noise: Noise | None = None, temperature: float = 1.0) -> Tensor:
        given = self._given(c)
        with torch.no_grad():
            return torch.cat([draw_tempered(self.prior(), noise or Noise.fresh(n), temperature), *given], -1)
