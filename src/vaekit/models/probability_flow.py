r"""A model that moves noise to data along an ordinary differential equation: flow matching, rectified flow.

A point of noise e ~ N(0, I) at time 0 and a datum x at time 1 are joined by the line x_t = (1 - t) e + t x. The model
learns the mean velocity v(x_t, t) = E[x - e | x_t] of all lines through x_t. The equation dx/dt = v(x, t) then moves
N(0, I) to the distribution of the data (Lipman et al. 2023, arXiv:2210.02747; Liu et al. 2023, arXiv:2209.03003).

The velocity of data that follow N(0, I) is (2 t - 1) / s^2 x_t with s^2 = t^2 + (1 - t)^2, the variance of x_t. The
network learns the rest, v(x, t) = (2 t - 1) / s^2 x + 1/s net(x / s, t), so that an untrained model is N(0, I).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaekit.densities import Point
from vaekit.noise import Noise

from .vae import Model, Trace

Field = Callable[[Tensor, Tensor], Tensor]
"""A velocity (x (B, D), t ()) -> (B, D)."""
MEASURED = 4
"""The number of times per datum in evaluation."""


def runge_kutta(field: Callable[[Tensor, Tensor], Tensor], x: Tensor, start: float, end: float, steps: int) -> Tensor:
    """The solution at `end` of dx/dt = field(x, t) from x at `start`: the classical method of order 4, equal steps."""
    h = (end - start) / steps
    for i in range(steps):
        t = torch.tensor(start + i * h, dtype=x.dtype, device=x.device)
        k1 = field(x, t)
        k2 = field(x + h / 2 * k1, t + h / 2)
        k3 = field(x + h / 2 * k2, t + h / 2)
        k4 = field(x + h * k3, t + h)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


class Velocity(nn.Module):
    """v(x, t | c) with a network for its difference from the velocity of N(0, I).

    Arguments:
        net: (x (B, D), t (B,), c (B, C) or None) -> (B, D).
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """The velocity (B, D) at x (B, D) and times t (B,) or ()."""
        t = t.expand(len(x))
        variance = (t.square() + (1 - t).square())[:, None]
        scale = variance.rsqrt()
        return (2 * t[:, None] - 1) / variance * x + scale * self.net(x * scale, t, c).to(x.dtype)

    def at(self, c: Tensor | None, guidance: float = 1.0) -> Field:
        """The velocity given c (B, C), moved away from the velocity without a condition by classifier-free guidance.

        v(x | 0) + guidance (v(x | c) - v(x | 0)), Ho and Salimans (2022, arXiv:2207.12598); 1 is v(x | c) itself.
        """
        if c is None or guidance == 1:
            return lambda x, t: self(x, t, c)

        def guided(x: Tensor, t: Tensor) -> Tensor:
            without, given = self(x, t, torch.zeros_like(c)), self(x, t, c)
            return without + guidance * (given - without)

        return guided


class Transport(nn.Module):
    """p(x | z): all probability at the end of the path from the noise z.

    Arguments:
        velocity: the velocity.
        steps: number of steps of the solver, of four evaluations each.
    """

    def __init__(self, velocity: Velocity, steps: int):
        super().__init__()
        self.velocity, self.steps = velocity, steps

    def forward(self, z: Tensor, c: Tensor | None = None, guidance: float = 1.0) -> Distribution:
        return Independent(Point(runge_kutta(self.velocity.at(c, guidance), z, 0.0, 1.0, self.steps)), 1)


class ProbabilityFlow(Model):
    """Noise and data of D dimensions, joined by the equation dx/dt = v(x, t | c).

    The code of a datum is its noise, followed by the condition. A condition of C numbers is known if the last one,
    which `Given` adds, is 1; c = 0 is an unknown condition.

    Arguments:
        net: (x (B, D), t (B,), c (B, C) or None) -> (B, D), see `vaekit.networks.velocity`.
        dims: D.
        condition: C; 0 for an unconditional model.
        spread: standard deviation of logit t for the times t of training; they are logit-normal (Esser et al. 2024,
            arXiv:2403.03206).
        steps: number of steps of the solver.
    """

    no_density = "its log-density is an integral along a path: use vaekit.estimators.probability_flow"

    def __init__(self, net: nn.Module, dims: int, condition: int = 0, spread: float = 1.0, steps: int = 8):
        super().__init__()
        self.likelihood: Transport = Transport(Velocity(net), steps)
        self.dims, self.condition, self.spread = dims, condition, spread

    @property
    def velocity(self) -> Velocity:
        """The velocity."""
        return self.likelihood.velocity

    @property
    def latent_dims(self) -> slice:
        return slice(0, -self.condition or None)

    def between(self, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
        """A point x_t (B, D) on the line from noise to each datum x (B, D), its time t (B,), and the noise (B, D)."""
        t = torch.sigmoid(self.spread * noise.normal((1,)))[:, 0]
        e = noise.normal((self.dims,))
        return torch.lerp(e, x, t[:, None]), t, e

    def trace(self, x: Tensor, c: Tensor | None = None, k: int | None = None, noise: Noise | None = None) -> Trace:
        """p(x | x_t) = N(x_t + (1 - t) v(x_t, t), (1 - t)^2 I) at k (by default `MEASURED`) times per datum.

        -log p(x | x_t) is half the squared error of the velocity plus numbers that do not depend on the model.
        """
        noise = noise or Noise.fresh(len(x), x.device)
        locs, scales = [], []
        for _ in range(k or MEASURED):
            point, t, _ = self.between(x, noise)
            left = (1 - t)[:, None]
            locs.append(point + left * self.velocity(point, t, c))
            scales.append(left.expand_as(x))
        return Trace((), Independent(Normal(torch.stack(locs), torch.stack(scales)), 1))

    def _code(self, z: Tensor, c: Tensor | None) -> Tensor:
        return z if c is None else torch.cat([z, c], -1)

    def encode(self, x: Tensor, c: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        return self._code(runge_kutta(self.velocity.at(c), x, 1.0, 0.0, self.likelihood.steps), c)

    def decode(self, z: Tensor) -> Distribution:
        flat = z.reshape(-1, z.shape[-1])
        c = flat[:, self.dims :] if self.condition else None
        end = self.likelihood(flat[:, : self.dims], c).mean
        return Independent(Point(end.reshape(*z.shape[:-1], self.dims)), 1)

    def sample(self, n: int, c: Tensor | None = None, noise: Noise | None = None, temperature: float = 1.0) -> Tensor:
        noise = noise or Noise.fresh(n)
        if c is None and self.condition:
            c = torch.zeros(n, self.condition, device=noise.rows.device)
        return self._code(temperature * noise.normal((self.dims,)), c)
