r"""log p(x) from draws of the posterior alone: the estimator of appendix D of Kingma and Welling (arXiv:1312.6114).

For any density g, E_{p(z|x)} g(z) / p(x, z) = 1 / p(x). The estimate is minus the log of the mean over draws of
Hamiltonian Monte Carlo, where g is a Gaussian fitted to other draws. By Jensen's inequality it lies above log p(x) in
expectation if the chains have reached the posterior. It is for few latents, where such a g fits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from vaekit.noise import Noise

from .hmc import Path, Tuned, transition
from .target import log_mean_exp

MOST_LATENTS = 5
"""The largest number of latents for which the estimate is usable."""
NARROWER = 0.8
"""The covariance of g in units of that of the draws: a narrower g has a ratio that is bounded in the tails."""


class Draws(NamedTuple):
    """Draws of the posterior, (chains, draws, B, D), and the mean chance of acceptance of their moves, (B,)."""

    z: Tensor
    acceptance: Tensor


def posterior_draws(
    path: Path, tuned: Tuned, noise: Noise, draws: int, *, progress: Callable[[], None] = lambda: None
) -> Draws:
    """Draws of the posterior by the pilot's chains; each chain goes on from the pilot's end."""
    state, found, accepted = path.at(tuned.end), [], []
    for _ in range(draws):
        state, chance = transition(path, state, 1.0, tuned.step(1.0), tuned.scale(1.0), noise)
        found.append(state.z)
        accepted.append(chance.mean(0))
        progress()
    return Draws(torch.stack(found, 1), torch.stack(accepted).mean(0))


def log_px_from_posterior(path: Path, chains: Tensor, *, chunk: int | None = None) -> Tensor:
    """log p(x) from draws of the posterior (chains, draws, B, D), (B,); `chunk` draws per datum are decoded at once."""
    return -log_mean_exp(log_ratios(path, chains, chunk=chunk))


def log_ratios(path: Path, chains: Tensor, *, chunk: int | None = None) -> Tensor:
    """log g(z) - log p(x, z) of half of the chains (chains, draws, B, D), with g fitted to the other half: (M, B)."""
    half = len(chains) // 2
    fit, rest = chains[:half].flatten(0, 1).double(), chains[half:].flatten(0, 1)
    mean = fit.mean(0)
    centred = fit - mean
    covariance = NARROWER * torch.einsum("mbi,mbj->bij", centred, centred) / len(fit)
    jitter = 1e-10 * torch.eye(fit.shape[-1], dtype=torch.float64, device=fit.device)
    g = MultivariateNormal(mean, covariance + jitter, validate_args=False)
    with torch.no_grad():
        parts = [path.target.log_joint(part).double() for part in rest.split(chunk or len(rest))]
        return g.log_prob(rest.double()) - torch.cat(parts)
