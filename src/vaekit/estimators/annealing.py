r"""Annealed importance sampling, and bidirectional Monte Carlo, which bounds log p(x) from both sides.

A chain starts at z_0 ~ p_0 and moves along the path f_beta of `vaekit.estimators.hmc`. Its weight
w = prod_t f_{beta_t}(z_{t-1}) / f_{beta_{t-1}}(z_{t-1}) has the mean p(x) (Neal 2001), so that the log of a mean weight
is a lower bound in expectation. A chain that starts at an exact draw of the posterior and goes back has a weight of
mean 1 / p(x), so that minus the log of its mean is an upper bound (Grosse, Ghahramani and Adams 2015,
arXiv:1511.02543). Exact draws exist for data that are simulated from the model: (z, x) ~ p(z) p(x | z).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vaekit.noise import Noise

from .hmc import Path, Tuned, schedule, transition
from .target import log_mean_exp


@dataclass(frozen=True)
class Annealed:
    """The result of annealing.

    Attributes:
        log_w: (K, B) log weights of the chains, float64; the mean of w estimates p(x), or 1 / p(x) backwards.
        acceptance: (B,) mean chance of acceptance of the transitions.
        z: (K, B, D) the chains at the end of the path.
        log_px_given: (K, B) log p(x | z) there, for a path from the prior; else log p(x, z) - log q(z | x).
    """

    log_w: Tensor
    acceptance: Tensor
    z: Tensor
    log_px_given: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Annealed]) -> Annealed:
        """The results of blocks of data as one."""
        return cls(
            torch.cat([p.log_w for p in parts], 1),
            torch.cat([p.acceptance for p in parts]),
            torch.cat([p.z for p in parts], 1),
            torch.cat([p.log_px_given for p in parts], 1),
        )

    @property
    def lower(self) -> Tensor:
        """log p(x) estimated from below by chains that went forwards, (B,)."""
        return log_mean_exp(self.log_w)

    @property
    def upper(self) -> Tensor:
        """log p(x) estimated from above by chains that went backwards from exact draws, (B,)."""
        return -log_mean_exp(self.log_w)

    @property
    def ess(self) -> Tensor:
        """The effective number of chains, (sum w)^2 / sum w^2, (B,)."""
        return 1 / torch.softmax(self.log_w, 0).square().sum(0)


def anneal(
    path: Path,
    tuned: Tuned,
    noise: Noise,
    *,
    chains: int = 16,
    steps: int = 500,
    back_from: Tensor | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Annealed:
    """Anneal chains from the start of a path to the posterior, or back.

    Arguments:
        chains: chains per datum.
        steps: distributions on the path after the first.
        back_from: (B, D) exact draws of the posterior, from which all chains go back; by default they go forwards.
    """
    betas = [schedule(t / steps) for t in range(steps + 1)]
    back = back_from is not None
    state = path.at(path.draw_first(noise, chains) if back_from is None else back_from.expand(chains, *back_from.shape))
    log_w = torch.zeros(state.base.shape, dtype=torch.float64, device=state.z.device)
    accepted = torch.zeros_like(log_w)
    # forwards, the weight of step t is taken before the move at beta_t; backwards, after it
    for t in range(steps, 0, -1) if back else range(1, steps + 1):
        if not back:
            log_w += (betas[t] - betas[t - 1]) * state.rise.double()
        state, chance = transition(path, state, betas[t], tuned.step(t / steps), tuned.scale(betas[t]), noise)
        accepted += chance
        if back:
            log_w -= (betas[t] - betas[t - 1]) * state.rise.double()
        progress()
    return Annealed(log_w, accepted.mean(0) / steps, state.z, state.rise)
