"""A Gaussian mixture over codes."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from vaekit.errors import ChoiceError
from vaekit.noise import Key, Noise
from vaekit.utils.arguments import Knob

from .base import BLOCK, Density, OnProgress, latent_density


@latent_density("gmm", "Ghosh et al. 2020, arXiv:1903.12436", "a Gaussian mixture")
class Gaussians(Density):
    """A mixture of Gaussians, fitted by scikit-learn's expectation maximisation.

    Arguments:
        weights: (C,).
        means: (C, d).
        factors: Cholesky factors (C, d, d) of the covariances, or standard deviations (C, d) of diagonal ones.

    All are float64.
    """

    FULL = 64
    """Covariances are full up to this many dimensions, given 5 codes per dimension and component; else diagonal."""
    FLOOR = 1e-4
    """Added to each variance of the standardised codes, so that no component shrinks onto a single code."""
    STEPS, TOGETHER = 300, 5
    """The maximum number of steps of expectation maximisation, and the number between two progress reports."""

    def __init__(self, weights: Tensor, means: Tensor, factors: Tensor, steps: int = 0):
        self.weights, self.means, self.factors, self.steps = weights, means, factors, steps
        self.choices = {"components": len(weights), "covariance": "full" if factors.dim() == 3 else "diagonal"}

    @classmethod
    def fit(
        cls,
        u: Tensor,
        components: Annotated[int, Knob("number of Gaussians", low=1)] = 10,
        max_steps: int = STEPS,
        seed: int = 0,
        on_progress: OnProgress | None = None,
    ) -> Gaussians:
        """Fit a mixture to standardised codes u (N, D) by expectation maximisation, in at most `max_steps` steps.

        Raises:
            ChoiceError: more components than codes.
        """
        from sklearn.mixture import GaussianMixture

        n, dims = u.shape
        if components > n:
            raise ChoiceError(f"`components` must lie in 1..{n} (the number of codes), got {components}")
        full = dims <= cls.FULL and n >= 5 * components * dims
        together = min(cls.TOGETHER, max_steps)
        mixture = GaussianMixture(
            components,
            covariance_type="full" if full else "diag",
            reg_covar=cls.FLOOR,
            max_iter=together,
            random_state=seed % 2**32,
            warm_start=True,  # each fit continues the last one, so that progress can be reported in between
        )
        done, x = 0, u.double().numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the number of steps shows whether it has converged
            while done < max_steps:
                mixture.fit(x)
                done += mixture.n_iter_
                if on_progress:
                    on_progress("fitting gmm", max_steps if mixture.converged_ else min(done, max_steps), max_steps)
                if mixture.converged_:
                    break
        factors = np.linalg.cholesky(mixture.covariances_) if full else np.sqrt(mixture.covariances_)
        weights, means = torch.from_numpy(mixture.weights_), torch.from_numpy(mixture.means_)
        return cls(weights, means, torch.from_numpy(factors), done)

    def log_prob(self, u: Tensor) -> Tensor:
        return torch.cat([self._log_prob(part) for part in u.split(BLOCK)])

    def _log_prob(self, u: Tensor) -> Tensor:
        far, full = u.double()[:, None] - self.means, self.factors.dim() == 3  # (n, C, d)
        if full:
            white = torch.linalg.solve_triangular(self.factors, far.permute(1, 2, 0), upper=False).permute(2, 0, 1)
            log_det = torch.log(self.factors.diagonal(dim1=-2, dim2=-1)).sum(-1)
        else:
            white, log_det = far / self.factors, torch.log(self.factors).sum(-1)
        constant = 0.5 * u.shape[1] * math.log(2 * math.pi)
        return torch.logsumexp(torch.log(self.weights) - log_det - constant - 0.5 * white.square().sum(-1), -1)

    def draw(self, n: int, seed: int) -> Tensor:
        noise = Noise.of(seed, n, Key.CODES)
        below = torch.cumsum(self.weights, -1)[:-1]  # the component is drawn by inverting the CDF
        component = (noise.uniform((1,)) > below).sum(-1)
        e = noise.normal(self.means.shape[1:]).double()
        u = torch.empty_like(e)
        for c in range(len(self.means)):
            rows = component == c
            spread = e[rows] @ self.factors[c].T if self.factors.dim() == 3 else e[rows] * self.factors[c]
            u[rows] = self.means[c] + spread
        return u.float()

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {"weights": self.weights, "means": self.means, "factors": self.factors}

    @classmethod
    def open(cls, folder: Path, tensors: dict[str, Tensor], choices: dict[str, Any]) -> Gaussians:
        return cls(tensors["weights"], tensors["means"], tensors["factors"])

    @property
    def line(self) -> str:
        components = self.choices["components"]
        return f"{components} Gaussian{'s' * (components > 1)} ({self.choices['covariance']} covariances)"
