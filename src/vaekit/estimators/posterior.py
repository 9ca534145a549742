r"""log p(x) from draws of the posterior alone: the estimator of appendix D of Kingma and Welling (arXiv:1312.6114).

For any density g, E_{p(z|x)} g(z) / p(x, z) = 1 / p(x). The estimate is minus the log of the mean over draws of
Hamiltonian Monte Carlo, where g is a Gaussian fitted to other draws. By Jensen's inequality it lies above log p(x) in
expectation if the chains have reached the posterior. It is for few latents, where such a g fits.
"""

from __future__ import annotations

from collections.abc import Callable

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


def posterior_draws(
    path: Path, tuned: Tuned, noise: Noise, draws: int, *, progress: Callable[[], None] = lambda: None
) -> Tensor:
    """Draws of the posterior by the pilot's chains, (chains, draws, B, D); each chain goes on from the pilot's end."""
    state, found = path.at(tuned.end), []
    for _ in range(draws):
        state, _ = transition(path, state, 1.0, tuned.step(1.0), tuned.scale(1.0), noise)
        found.append(state.z)
        progress()
    return torch.stack(found, 1)


def log_px_from_posterior(path: Path, chains: Tensor) -> Tensor:
    """log p(x) from draws of the posterior (chains, draws, B, D): half of the chains for g, half for the mean; (B,)."""
    half = len(chains) // 2
    fit, rest = chains[:half].flatten(0, 1).double(), chains[half:].flatten(0, 1)
    mean = fit.mean(0)
    centred = fit - mean
    covariance = NARROWER * torch.einsum("mbi,mbj->bij", centred, centred) / len(fit)
    jitter = 1e-10 * torch.eye(fit.shape[-1], dtype=torch.float64, device=fit.device)
    g = MultivariateNormal(mean, covariance + jitter, validate_args=False)
    with torch.no_grad():
        return -log_mean_exp(g.log_prob(rest.double()) - path.target.log_joint(rest).double())
