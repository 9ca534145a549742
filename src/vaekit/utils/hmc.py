r"""Hamiltonian Monte Carlo for many chains at once, with step sizes that are tuned in a pilot and then frozen.

A position z with log-density log p(z) gets a momentum r ~ N(0, I). Leapfrog steps approximate the dynamics of the
energy H(z, r) = -log p(z) + |r|^2 / 2, and the end is accepted with probability min(1, exp(H_start - H_end)): Duane et
al. (1987, doi:10.1016/0370-2693(87)91197-X), Neal (2011, arXiv:1206.1901). With a fixed step size this leaves p
unchanged. With one that follows the chain's own acceptance it does not, so `tuned` returns step sizes to be kept.

The log-density may be unnormalised. Random numbers are keyed by row, so that a chain does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vaekit.noise import Noise

LogDensity = Callable[[Tensor], Tensor]
"""log p up to a constant at positions (K?, B, *event), (K?, B): a chain's value depends on its own position only."""
TARGET = 0.8
"""The acceptance that step sizes are tuned to. The optimum is 0.65 for many dimensions and higher for few."""
JITTER = 0.2
"""Each transition multiplies the step size by a random factor of 1 ± this, so that no trajectory can be periodic."""


class Chain(NamedTuple):
    """The state of chains: positions z (K?, B, *event), with log p (K?, B) and its gradient there."""

    z: Tensor
    log_p: Tensor
    slope: Tensor

    @classmethod
    def at(cls, log_density: LogDensity, z: Tensor) -> Chain:
        """Chains at the positions z (K?, B, *event)."""
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            value = log_density(leaf)
            (slope,) = torch.autograd.grad(value.sum(), leaf)
        return cls(z.detach(), value.detach(), slope)


def leapfrog(
    log_density: LogDensity, start: Chain, momentum: Tensor, size: Tensor | float, steps: int
) -> tuple[Chain, Tensor]:
    """The chains and their momenta after this many leapfrog steps of `size`, which broadcasts to z.

    A size per dimension is that of a problem whose dimensions were rescaled. The map is reversible, by the negative
    momentum, and preserves volume.
    """
    chain = start
    momentum = momentum + 0.5 * size * chain.slope
    for step in range(steps):
        chain = Chain.at(log_density, chain.z + size * momentum)
        momentum = momentum + (0.5 if step == steps - 1 else 1.0) * size * chain.slope
    return chain, momentum


def _per_chain(values: Tensor, z: Tensor) -> Tensor:
    """Add trailing axes of size 1, so that values (K?, B) broadcast to z."""
    return values.reshape(*values.shape, *(1,) * (z.dim() - values.dim()))


def transition(
    log_density: LogDensity, start: Chain, noise: Noise, size: Tensor | float, steps: int = 10, jitter: float = JITTER
) -> tuple[Chain, Tensor]:
    """One transition: leapfrog steps from a fresh momentum, then a Metropolis test.

    Trajectories that diverge (the energy is not finite) are rejected.

    Arguments:
        log_density: of the distribution to leave unchanged.
        start: the chains.
        noise: for the rows B; two draws and, with `jitter`, a third.
        size: of the leapfrog steps; broadcasts to z.
        steps: leapfrog steps.
        jitter: see `JITTER`.

    Returns:
        the chains, and the probability with which each end was accepted, (K?, B).
    """
    z, dims = start.z, start.log_p.dim()
    k = z.shape[0] if dims == 2 else None
    momentum = noise.normal(z.shape[dims:], k).to(z.dtype)
    u = noise.uniform((), k)
    if jitter:
        factor = 1 + jitter * (2 * noise.uniform((), k).to(z.dtype) - 1)
        size = size * _per_chain(factor, z)
    end, final = leapfrog(log_density, start, momentum, size, steps)

    def energy(chain: Chain, r: Tensor) -> Tensor:
        return 0.5 * r.square().flatten(dims).sum(-1) - chain.log_p

    chance = torch.exp((energy(start, momentum) - energy(end, final)).clamp(max=0))
    chance = torch.where(torch.isfinite(chance), chance, 0)
    accepted = u < chance
    moved = [torch.where(_per_chain(accepted, a), a, b) for a, b in zip(end, start, strict=True)]
    return Chain(*moved), chance


def tuned(
    log_density: LogDensity,
    start: Chain,
    noise: Noise,
    size: Tensor | float = 0.1,
    steps: int = 10,
    transitions: int = 50,
    target: float = TARGET,
) -> tuple[Tensor, Chain]:
    """Step sizes with this acceptance, one per chain, and the chains after the pilot; keep the sizes fixed from then.

    log size rises by t^(-1/2) (acceptance - target) at the pilot's transition t, and is averaged over its second half
    (Robbins and Monro 1951; Andrieu and Thoms 2008, doi:10.1007/s11222-008-9110-y). The positions of the pilot are not
    draws of p: discard them, or continue from the last as from any start.

    Arguments:
        log_density, start, noise, steps: see `transition`.
        size: the first step size; broadcasts to z.
        transitions: length of the pilot.
        target: the acceptance.

    Returns:
        sizes (K?, B, 1, ...), or with a size per dimension (K?, B, *event); and the chains.
    """
    chain = start
    first = torch.as_tensor(size, dtype=chain.z.dtype, device=chain.z.device)
    log_factor, kept = torch.zeros_like(chain.log_p), torch.zeros_like(chain.log_p)
    late = transitions // 2
    for t in range(transitions):
        chain, chance = transition(log_density, chain, noise, first * _per_chain(torch.exp(log_factor), chain.z), steps)
        log_factor = log_factor + (chance - target) / (t + 1) ** 0.5
        if t >= late:
            kept = kept + log_factor / (transitions - late)
    return first * _per_chain(torch.exp(kept), chain.z), chain


def advance(
    log_density: LogDensity, start: Chain, noise: Noise, size: Tensor | float, steps: int = 10, transitions: int = 1
) -> tuple[Chain, Tensor]:
    """The chains after this many transitions of one step size, and their mean acceptance (K?, B)."""
    chain, total = start, torch.zeros_like(start.log_p)
    for _ in range(transitions):
        chain, chance = transition(log_density, chain, noise, size, steps)
        total = total + chance
    return chain, total / max(1, transitions)
