"""What one pass through a model yields, and the model with one latent layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from .distributions import draw
from .noise import Noise


@dataclass
class Latent:
    """One latent layer of one pass: its draw `z` (K?, B, *event), posterior `q` and prior `p`."""

    z: Tensor
    q: Distribution
    p: Distribution

    @property
    def log_q(self) -> Tensor:
        """log q(z | x), (K?, B)."""
        return self.q.log_prob(self.z)

    @property
    def log_p(self) -> Tensor:
        """log p(z), (K?, B)."""
        return self.p.log_prob(self.z)


@dataclass
class Trace:
    """One pass: the latents, top first, and the distribution over x. A plain VAE is the length-one case."""

    latents: tuple[Latent, ...]
    px: Distribution


class Model(nn.Module):
    """A latent-variable model with its inference network. Abstract.

    Shapes: x (B, *event); latents (B, D), or (K, B, D) with `k` samples; `c` is an optional condition (B, ...).
    """

    likelihood: nn.Module

    def trace(self, x: Tensor, c: Tensor | None = None, k: int | None = None, noise: Noise | None = None) -> Trace:
        """Draw z from q(z | x) and hold what every objective and estimator needs."""
        raise RuntimeError(f"{type(self).__name__} does not define trace")

    def infer(self, x: Tensor, c: Tensor | None = None) -> tuple[Distribution, ...]:
        """The posterior over each latent layer."""
        raise RuntimeError(f"{type(self).__name__} does not define infer")

    def decode(self, z: Tensor, c: Tensor | None = None) -> Distribution:
        """p(x | z)."""
        raise RuntimeError(f"{type(self).__name__} does not define decode")

    def sample(self, n: int, c: Tensor | None = None, noise: Noise | None = None, temperature: float = 1.0) -> Tensor:
        """n draws of z from the prior, (n, D), spread by `temperature` about the prior's centre."""
        raise RuntimeError(f"{type(self).__name__} does not define sample")


class VAE(Model):
    """Prior p(z), posterior q(z | x), likelihood p(x | z): Kingma and Welling (2013), whatever the three are."""

    def __init__(self, prior: nn.Module, posterior: nn.Module, likelihood: nn.Module):
        super().__init__()
        self.prior, self.posterior, self.likelihood = prior, posterior, likelihood

    def trace(self, x: Tensor, c: Tensor | None = None, k: int | None = None, noise: Noise | None = None) -> Trace:
        given = () if c is None else (c,)
        q = self.posterior(x, *given)
        z = draw(q, noise or Noise.fresh(len(x), x.device), k)
        return Trace((Latent(z, q, self.prior(*given)),), self.likelihood(z, *given))

    def infer(self, x: Tensor, c: Tensor | None = None) -> tuple[Distribution, ...]:
        return (self.posterior(x, *(() if c is None else (c,))),)

    def decode(self, z: Tensor, c: Tensor | None = None) -> Distribution:
        return self.likelihood(z, *(() if c is None else (c,)))

    def sample(self, n: int, c: Tensor | None = None, noise: Noise | None = None, temperature: float = 1.0) -> Tensor:
        p = self.prior(*(() if c is None else (c,)))
        with torch.no_grad():
            z = draw(p, noise or Noise.fresh(n, p.mean.device))
            return z if temperature == 1.0 else p.mean + temperature * (z - p.mean)
