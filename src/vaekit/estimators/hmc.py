r"""Hamiltonian Monte Carlo on the path from a starting density to the posterior, many chains of many data at once.

On the path, f_beta(z) = p_0(z)^(1 - beta) p(x, z)^beta, where p_0 is the prior or q(z | x). A step draws a momentum,
follows the leapfrog integrator for a number of steps, and accepts the end by the rule of Metropolis, so that f_beta
stays exactly invariant (Neal 2011, arXiv:1206.1901). The size of the steps of each datum along the path is tuned in a
pilot run and then frozen: a chain that tunes itself would not leave f_beta invariant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaekit.densities import draw
from vaekit.noise import Noise

from .target import Target

Start = Literal["prior", "q"]
LEAPFROGS = 5
"""Leapfrog steps per transition."""
GRADIENT = 4
"""The memory of a code that is decoded for a gradient, relative to that of one that is only decoded."""
ACCEPTED = 0.75
"""The mean acceptance that the pilot tunes to."""
PILOT_STEPS, PILOT_CHAINS, POSTERIOR_SHARE, RECENT = 100, 8, 0.4, 5
"""Steps of the pilot along the path, its chains per datum, its further transitions at the posterior per step, and the
moves that a frozen size of steps is averaged over."""


class State(NamedTuple):
    """Chains (K, B, D), with log p_0, log p(x, z) - log p_0 (K, B) and the gradients of both (K, B, D)."""

    z: Tensor
    base: Tensor
    rise: Tensor
    base_slope: Tensor
    rise_slope: Tensor

    def log_density(self, beta: float) -> Tensor:
        """log f_beta, unnormalised, (K, B)."""
        return self.base + beta * self.rise

    def where(self, chosen: Tensor, other: State) -> State:
        """This state in the chosen chains (K, B), else the other."""
        wide = chosen[..., None]
        return State(*(torch.where(wide if a.dim() == 3 else chosen, a, b) for a, b in zip(self, other, strict=True)))


class Path:
    """The path from the prior or from q to the posterior of a target."""

    def __init__(self, target: Target, start: Start = "prior"):
        self.target, self.start = target, start
        self.first: Distribution = target.prior if start == "prior" else target.q

    def draw_first(self, noise: Noise, k: int) -> Tensor:
        """k draws from the starting density per datum, (K, B, D)."""
        with torch.no_grad():
            return draw(self.first, noise, k)

    def at(self, z: Tensor) -> State:
        """The state of chains at z (K, B, D)."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            base = self.first.log_prob(z)
            rise = self.target.log_px_given(z)
            if self.start == "q":
                rise = rise + self.target.prior.log_prob(z) - base
            base_slope = _slope(base, z, keep=True)
            rise_slope = _slope(rise, z)
        return State(*(t.detach() for t in (z, base, rise, base_slope, rise_slope)))


def _slope(value: Tensor, z: Tensor, keep: bool = False) -> Tensor:
    if not value.requires_grad:  # a density that does not depend on z
        return torch.zeros_like(z)
    return torch.autograd.grad(value.sum(), z, retain_graph=keep)[0]


def leapfrog(path: Path, state: State, momentum: Tensor, beta: float, step: Tensor, steps: int) -> tuple[State, Tensor]:
    """The leapfrog integrator for `steps` steps of size `step` (K, B, D); returns the state and the momentum.

    It is reversible and keeps volume; over a fixed time, its energy error is of second order in the step.
    """
    for _ in range(steps):
        momentum = momentum + 0.5 * step * (state.base_slope + beta * state.rise_slope)
        state = path.at(state.z + step * momentum)
        momentum = momentum + 0.5 * step * (state.base_slope + beta * state.rise_slope)
    return state, momentum


def transition(
    path: Path, state: State, beta: float, step: Tensor, scale: Tensor, noise: Noise, *, steps: int = LEAPFROGS
) -> tuple[State, Tensor]:
    """One transition of Hamiltonian Monte Carlo that leaves f_beta invariant; returns the chance of acceptance (K, B).

    Arguments:
        step: (B,) sizes in units of `scale`; each transition multiplies them by a number drawn from (0.8, 1.2), against
            orbits that return to their start.
        scale: (B, D) lengths of the latents.
    """
    k = len(state.z)
    uniform = noise.uniform((2,), k)
    momentum = noise.normal((path.target.dims,), k).to(state.z)
    size = (step * (0.8 + 0.4 * uniform[..., 0]))[..., None].to(state.z) * scale
    end, last = leapfrog(path, state, momentum, beta, size, steps)
    kinetic = 0.5 * (momentum.double().square() - last.double().square()).sum(-1)
    change = end.log_density(beta).double() - state.log_density(beta).double() + kinetic
    chance = torch.exp(change.clamp_max(0)).nan_to_num(0.0)  # a chain that left the range of floats is rejected
    return end.where(uniform[..., 1] < chance, state), chance


@dataclass(frozen=True)
class Tuned:
    """Frozen settings of the chains of each datum, and what the pilot saw of the posterior.

    Attributes:
        log_step: (P, B) log sizes of steps at P equally spaced places of the path.
        first, last: (B, D) lengths of the latents at its start and end.
        end: the pilot's chains at the posterior, (K, B, D).
        mean, covariance: of the pilot's draws of the posterior, (B, D) and (B, D, D).
    """

    log_step: Tensor
    first: Tensor
    last: Tensor
    end: Tensor
    mean: Tensor
    covariance: Tensor

    def step(self, place: float) -> Tensor:
        """The sizes of steps (B,) at a place of the path from 0 to 1."""
        position = place * (len(self.log_step) - 1)
        low = min(int(position), len(self.log_step) - 2)
        return torch.exp(torch.lerp(self.log_step[low], self.log_step[low + 1], position - low))

    def scale(self, beta: float) -> Tensor:
        """The lengths of the latents (B, D): precisions are interpolated, as on a path between Gaussians."""
        return ((1 - beta) / self.first.square() + beta / self.last.square()).rsqrt()


def schedule(place: float, *, steepness: float = 4.0) -> float:
    """beta at a place of the path from 0 to 1: a sigmoid, slow at both ends (Wu et al. 2017, arXiv:1611.04273)."""
    low, value = (float(torch.sigmoid(torch.tensor(steepness * (2 * p - 1), dtype=torch.float64))) for p in (0, place))
    return (value - low) / (1 - 2 * low)


def tune(path: Path, noise: Noise, *, steps: int = PILOT_STEPS, progress: Callable[[], None] = lambda: None) -> Tuned:
    """Tune the size of steps by a pilot run along the path, twice: the first finds the lengths of the latents.

    Arguments:
        steps: of the pilot along the path.
    """
    z = path.draw_first(noise, 64)
    first = path.target.moments(path.first, z)[1].contiguous()
    last = path.target.moments(path.target.q, z)[1].contiguous() if path.start == "q" else first
    tuned = _pilot(path, noise, first, last, steps, progress)
    return _pilot(path, noise, first, tuned.covariance.diagonal(dim1=-2, dim2=-1).sqrt(), steps, progress)


def _pilot(path: Path, noise: Noise, first: Tensor, last: Tensor, steps: int, progress: Callable[[], None]) -> Tuned:
    """Chains that tune their steps, each datum with steps of its own.

    The log of a step rises by a constant rate times the acceptance above the wanted one. That of one move of a few
    chains is noisy, so that the frozen steps are means over the last `RECENT` moves, at the end over all that are kept.
    """
    state = path.at(path.draw_first(noise, PILOT_CHAINS))
    place = Tuned(torch.empty(0), first, last, state.z, first, first)
    log_step = torch.full((len(path.target.x),), -0.7, dtype=torch.float64, device=state.z.device)
    sizes, kept, last_sizes = [], [], []
    further = max(8, round(POSTERIOR_SHARE * steps))
    for t in range(steps + further):
        beta = schedule(min(1.0, (t + 1) / steps))
        state, chance = transition(path, state, beta, torch.exp(log_step), place.scale(beta), noise)
        rate = 0.6 if t < 10 else 0.3
        log_step = (log_step + rate * (chance.mean(0) - ACCEPTED)).clamp(-9, 0.6)
        if t < steps:
            sizes.append(log_step)
        elif t >= steps + further // 4:
            kept.append(state.z)
            last_sizes.append(log_step)
        progress()
    smooth = [torch.stack(sizes[max(0, t - RECENT + 1) : t + 1]).mean(0) for t in range(steps)]
    smooth[-1] = torch.stack(last_sizes).mean(0)  # tuned longest, at the posterior
    draws = torch.cat(kept).double()  # (M, B, D)
    mean = draws.mean(0)
    centred = draws - mean
    covariance = torch.einsum("mbi,mbj->bij", centred, centred) / len(draws)
    covariance = covariance + 1e-10 * torch.eye(path.target.dims, dtype=torch.float64, device=mean.device)
    scale = state.z.dtype
    return Tuned(torch.stack(smooth), first, last, state.z, mean.to(scale), covariance.to(scale))
