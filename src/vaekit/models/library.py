"""The total count of a row, its library size, as a part of the code: known from the row, or one of the latents.

In the code it is u = (log total - centre) / spread with the mean and deviation of the training rows, so that u is
N(0, 1) a priori: the total is log-normal, as in scVI (Lopez et al. 2018, doi:10.1038/s41592-018-0229-2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit.densities import draw, draw_tempered
from vaekit.heads import Conditional, Counts, Head
from vaekit.heads.mixed import Masked
from vaekit.noise import Noise

from .vae import VAE


def library_of(head: Head) -> str:
    """How a likelihood knows the total of a row: "none", "observed" or "latent"."""
    head = head.head if isinstance(head, Masked) else head
    return head.library if isinstance(head, Counts) else "none"


class Total(nn.Module):
    """The log of a row's total as a number u of order 1, and back."""

    centre: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Measure the mean and the deviation of the log total on rows x (n, *event)."""
        logs = self.log(x).double()
        self.centre.copy_(logs.mean())
        self.spread.copy_(logs.std(correction=0).clamp_min(0.01))

    def log(self, x: Tensor) -> Tensor:
        """The log of the total of each row (..., D), missing values left out, (..., 1); at least log 1."""
        return torch.log(torch.nan_to_num(x, nan=0.0).sum(-1, keepdim=True).clamp_min(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return (self.log(x) - self.centre) / self.spread

    def log_total(self, u: Tensor) -> Tensor:
        """log total for u (..., 1)."""
        return self.centre + self.spread * u


class WithTotal(nn.Module):
    """A decoder of codes [z, u]: the outputs of `net` for z, and log total for u as the last raw number."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.total = net, Total()

    def forward(self, z: Tensor, *condition: Tensor) -> Tensor:
        return torch.cat([self.net(z[..., :-1], *condition), self.total.log_total(z[..., -1:])], -1)


class FromTotal(nn.Module):
    """An encoder whose last latent is u: its mean is that of the row's own total plus an output of `net`.

    Arguments:
        net: maps x to the raw numbers of a Gaussian, first the means.
        latents: number of latents, u included.
    """

    def __init__(self, net: nn.Module, latents: int):
        super().__init__()
        self.net, self.latents, self.total = net, latents, Total()

    def forward(self, x: Tensor, *condition: Tensor) -> Tensor:
        raw = self.net(x, *condition)
        last = self.latents - 1
        return torch.cat([raw[..., :last], raw[..., last : last + 1] + self.total(x), raw[..., last + 1 :]], -1)


class SizedVAE(VAE):
    """A VAE of p(x | z, total), the total of x being known, as in scVI by default: its bound is on log p(x | total).

    The code is [z, u, c]. New codes get a total from its distribution in the training data.
    """

    likelihood: Conditional

    @property
    def total(self) -> Total:
        """The total in the decoder."""
        assert isinstance(self.likelihood.net, WithTotal)
        return self.likelihood.net.total

    @property
    def latent_dims(self) -> slice:
        return slice(0, -1 - self.condition)

    def px(self, z: Tensor, x: Tensor, *condition: Tensor) -> Distribution:
        """p(x | z, total) of latents z (K?, B, D), with the totals of the data x (B, *event)."""
        return super().px(self.with_total(z, x), x, *condition)

    def with_total(self, z: Tensor, x: Tensor) -> Tensor:
        """[z, u] for latents z (K?, B, D) of rows x (B, *event)."""
        u = self.total(x)
        return torch.cat([z, u.expand(*z.shape[:-1], 1)], -1)

    def encode(self, x: Tensor, c: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        condition = self._condition(c)
        q = self.posterior(x, *condition)
        return torch.cat([self.with_total(q.mean if noise is None else draw(q, noise), x), *condition], -1)

    def sample(self, n: int, c: Tensor | None = None, noise: Noise | None = None, temperature: float = 1.0) -> Tensor:
        condition, noise = self._condition(c), noise or Noise.fresh(n)
        with torch.no_grad():
            z = draw_tempered(self.prior(), noise, temperature)
            u = noise.normal((1,)) * temperature
            return torch.cat([z, u.to(z), *condition], -1)
