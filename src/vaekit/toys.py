r"""Latent-variable models small enough to know everything about: the lessons' examples and the tests' oracle.

With one or two latents every integral over z is a sum over a grid, to ten digits: log p(x), the posterior p(z | x), and
the evidence lower bound with its gap. `Quadrature` does this for any model of vaekit with a continuous latent; `curve`
is a model whose data lie about a curve in the plane, `linear` one whose integrals have closed forms, too, and
`MixtureOfGaussians` has a discrete z and needs no grid.
The order of ideas follows Prince, Understanding Deep Learning (2023), chapter 17.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributions as D

from vaekit.densities import draw
from vaekit.errors import ChoiceError
from vaekit.heads import Conditional, Gaussian
from vaekit.models.priors import StandardNormal
from vaekit.models.vae import VAE, Model
from vaekit.networks import MLP
from vaekit.noise import Noise

BLOCK = 4_000_000
"""Numbers of log p(x | z) held at once."""


class MixtureOfGaussians:
    r"""p(x) = sum_z w_z N(x; loc_z, scale_z^2) on the line, z in 0..K-1: a marginal over a discrete latent.

    Arguments:
        weights: (K,), positive; brought to sum to 1.
        loc, scale: (K,) means and standard deviations.
    """

    def __init__(self, weights: Tensor, loc: Tensor, scale: Tensor):
        w, self.loc, self.scale = (torch.as_tensor(t, dtype=torch.float64) for t in (weights, loc, scale))
        if not (w.shape == self.loc.shape == self.scale.shape and w.dim() == 1):
            raise ChoiceError("a mixture takes one weight, mean and deviation a component: three lists of one length")
        if bool((w <= 0).any()) or bool((self.scale <= 0).any()):
            raise ChoiceError("weights and deviations of a mixture must be above 0")
        self.weights = w / w.sum()

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, z) = log w_z + log N(x; loc_z, scale_z^2) for x (N,): (N, K)."""
        x = torch.as_tensor(x, dtype=torch.float64)
        return torch.log(self.weights) + D.Normal(self.loc, self.scale).log_prob(x[..., None])

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), the sum over z taken: (N,)."""
        return torch.logsumexp(self.log_joint(x), -1)

    def posterior(self, x: Tensor) -> Tensor:
        """p(z | x) = p(x, z) / p(x), by Bayes' rule: (N, K)."""
        return torch.softmax(self.log_joint(x), -1)

    def bound(self, x: Tensor, q: Tensor, samples: int = 1) -> Tensor:
        r"""E[log 1/S sum_s p(x, z_s) / q(z_s)] over S = `samples` draws z_s ~ q, exact: (N,).

        With one sample it is the evidence lower bound E_q[log p(x, z) - log q(z)], with more the bound of Burda et al.
        (2016, arXiv:1509.00519). The value depends on how often each component was drawn alone, and all ways in which
        that can come out are summed over. Differentiable in q where q > 0.

        Arguments:
            q: (N, K) probabilities of the components, or (K,) for all x alike; where one is 0 it is never drawn.

        Raises:
            ChoiceError: more than 10^5 ways.
        """
        kinds = len(self.weights)
        ways = math.comb(samples + kinds - 1, kinds - 1) if samples >= 1 else 0
        if not 0 < ways <= 100_000:
            raise ChoiceError(f"{samples} draws of {kinds} components: their {ways} outcomes cannot be summed over")
        log_joint, q = torch.broadcast_tensors(self.log_joint(x), torch.as_tensor(q, dtype=torch.float64))
        # stars and bars: where the kinds - 1 bars stand among the samples says how often each component was drawn
        bars = torch.tensor(list(combinations(range(samples + kinds - 1), kinds - 1))).reshape(ways, kinds - 1)
        ends = torch.full((ways, 1), samples + kinds - 1)
        counts = (torch.diff(torch.cat([torch.full((ways, 1), -1), bars, ends], 1), dim=1) - 1).double()  # (M, K)
        chance = torch.exp(
            math.lgamma(samples + 1)
            - torch.lgamma(counts + 1).sum(-1)
            + torch.xlogy(counts, q[..., None, :]).sum(-1)  # (N, M)
        )
        log_weight = torch.where(q > 0, log_joint - torch.log(torch.where(q > 0, q, 1)), 0)
        value = torch.logsumexp(torch.log(counts) + log_weight[..., None, :], -1) - math.log(samples)
        return (chance * value).sum(-1)

    def sample(self, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """n ancestral draws: z (n,) from its weights, then x (n,) from the component that z names."""
        noise = Noise.of(seed, n)
        z = (noise.uniform((1,)).double() > torch.cumsum(self.weights, 0)[:-1]).sum(-1)
        return z, self.loc[z] + self.scale[z] * noise.normal(()).double()


def curve(sigma: float = 0.3, hidden: int = 8, seed: int = 3, observed: int = 2, latent: int = 1) -> VAE:
    r"""z ~ N(0, I), x | z ~ N(f(z), sigma^2 I): data about a curve in the plane, f a fixed network of one tanh layer.

    The weights of f are a function of `seed`; the posterior is a diagonal Gaussian by a small network, not yet trained.
    In float64. The nonlinear latent-variable model of Prince (2023), section 17.2.

    Arguments:
        observed: numbers a datum; 2 is the plane.
        latent: 1 for a curve, 2 for a surface, or where x is one number for a landscape over the two.
    """
    noise = Noise.of(seed, 1, 71)
    f = MLP((latent,), observed, (hidden,), "tanh")
    first, last = (m for m in f.modules() if isinstance(m, nn.Linear))
    with torch.no_grad():
        for weight, spread in ((first.weight, 1.5), (first.bias, 1.5), (last.weight, 1.2), (last.bias, 0.0)):
            weight.copy_(spread * noise.normal(weight.shape)[0])
    posterior = Conditional(MLP((observed,), 2 * latent, (32,), "tanh"), Gaussian((latent,)))
    likelihood = Conditional(f, Gaussian((observed,), "fixed", sigma))
    return VAE(StandardNormal((latent,)), posterior, likelihood).double()


def linear(weight: Tensor, sigma: float) -> VAE:
    r"""z ~ N(0, I), x | z ~ N(W z, sigma^2 I): all of it Gaussian, p(z | x) = N(P^-1 W^T x / sigma^2, P^-1).

    P = I + W^T W / sigma^2. Where the columns of W are not orthogonal, the latents depend on each other given x. The
    posterior is a diagonal Gaussian whose mean is linear in x and whose deviations are one for all x, not yet trained.
    In float64.

    Arguments:
        weight: W, (D, latents).
    """
    weight = torch.as_tensor(weight, dtype=torch.float64)
    observed, latent = weight.shape
    net = MLP((latent,), observed, ()).double()
    with torch.no_grad():
        net.out.weight.copy_(weight)
        net.out.bias.zero_()
    posterior = Conditional(MLP((observed,), latent, ()), Gaussian((latent,), "each"))
    model = VAE(StandardNormal((latent,)), posterior, Conditional(net, Gaussian((observed,), "fixed", sigma)))
    return model.double()


class _SideBySide(nn.Module):
    """One net on each of `times` equal parts of its input, what it puts out side by side."""

    def __init__(self, net: nn.Module, times: int):
        super().__init__()
        self.net, self.times = net, times

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z.unflatten(-1, (self.times, -1))).flatten(-2)


def copies(model: VAE, times: int) -> VAE:
    r"""`times` independent copies of a `curve` or a `linear` as one model: z and x are theirs, side by side.

    log p(x) is the sum of theirs, so that it is known in any number of dimensions; somebody who did not know that the
    model falls apart would need a grid of points^times. The posterior is a network as in `curve`, not yet trained.
    """
    net, head = model.likelihood.net, model.likelihood.head
    if not isinstance(net, nn.Module) or not isinstance(head, Gaussian) or head.scale != "fixed":
        raise ChoiceError("copies are made of a model with one fixed deviation, a curve or a linear one")
    observed, latent = times * math.prod(head.event), times * model.prior().event_shape.numel()
    likelihood = Conditional(_SideBySide(net, times), Gaussian((observed,), "fixed", float(head.log_scale.exp())))
    posterior = Conditional(MLP((observed,), 2 * latent, (32,), "tanh"), Gaussian((latent,)))
    return VAE(StandardNormal((latent,)), posterior, likelihood).double()


@dataclass(frozen=True)
class Quadrature:
    """Integrals over a latent space of few dimensions as sums over a grid: the trapezoidal rule.

    Of functions that are smooth and die away at the ends its error falls faster than any power of the step (Trefethen
    and Weideman 2014, doi:10.1137/130932132); the number of points is points^dims, which is why it stops at few.

    Attributes:
        z: (M, D) float64.
        cell: the volume a point stands for.
    """

    z: Tensor
    cell: float

    @classmethod
    def over(cls, dims: int, points: int | None = None, reach: float = 8.0) -> Quadrature:
        """An even grid on [-reach, reach]^dims, by default of 4,001 points a side in one dimension, 401 in two.

        Raises:
            ChoiceError: more than 10^7 points.
        """
        points = points or {1: 4001, 2: 401, 3: 101}.get(dims, 41)
        if dims < 1 or points < 2 or points**dims > 10_000_000:
            raise ChoiceError(f"a grid of {points} points a side in {dims} dimensions cannot be summed over")
        side = torch.linspace(-reach, reach, points, dtype=torch.float64)
        z = torch.cartesian_prod(*[side] * dims).reshape(-1, dims)
        return cls(z, (2 * reach / (points - 1)) ** dims)

    def _blocks(self, x: Tensor) -> Iterator[Tensor]:
        yield from x.split(max(1, BLOCK // (len(self.z) * max(1, x[0].numel()))))

    def log_joint(self, model: Model, x: Tensor) -> Tensor:
        """log p(x, z) = log p(z) + log p(x | z) of x (N, *event) at every point: (N, M)."""
        if not isinstance(model, VAE) or model.condition:
            raise ChoiceError("quadrature takes a VAE with one latent layer and no condition")
        with torch.no_grad():
            z = self.z.to(next(model.parameters()).dtype)
            px, log_pz = model.decode(z), model.prior().log_prob(z)
            return torch.cat([log_pz + px.log_prob(some[:, None]) for some in self._blocks(x)])

    def log_px(self, model: Model, x: Tensor) -> Tensor:
        r"""log p(x) = log \int p(z) p(x | z) dz, (N,)."""
        parts = [torch.logsumexp(self.log_joint(model, some).double(), -1) for some in self._blocks(x)]
        return torch.cat(parts) + math.log(self.cell)

    def log_posterior(self, model: Model, x: Tensor) -> Tensor:
        """log p(z | x), densities at every point: (N, M)."""
        joint = self.log_joint(model, x).double()
        return joint - torch.logsumexp(joint, -1, keepdim=True) - math.log(self.cell)

    def kl(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        r"""KL(q || p) = \int q (log q - log p) dz of two log-densities (..., M), given at every point: (...)."""
        return (torch.exp(log_q) * (log_q - log_p)).sum(-1) * self.cell

    def gap(self, model: Model, x: Tensor, q: D.Distribution) -> Tensor:
        r"""KL(q || p(z | x)) = \int q (log q - log p(z | x)) dz, what the bound lacks: (N,).

        It uses nothing of the bound, so that log p(x) - gap is the bound found by another way.

        Arguments:
            q: densities over (D,), batch shape (N,).
        """
        return self.kl(q.log_prob(self.z[:, None]).T, self.log_posterior(model, x))


def bound(model: VAE, x: Tensor, loc: Tensor, scale: Tensor, points: int | None = None, joint: bool = False) -> Tensor:
    r"""The evidence lower bound of x (N, *event) for q = N(loc, scale scale^T), exact up to quadrature: (N,).

    By default E_q[log p(x | z)] - KL(q || p(z)); with `joint` E_q[log p(x, z)] + H(q), which is the same number. Both
    are differentiable in all that they depend on.

    Arguments:
        loc: (N, D).
        scale: (N, D) deviations of a diagonal q, or (N, D, D) a lower triangle for full covariance.
    """
    grid = Quadrature.over(loc.shape[-1], points)
    if scale.dim() == loc.dim():
        q: D.Distribution = D.Independent(D.Normal(loc, scale, validate_args=False), 1)
        z = loc + scale * grid.z[:, None]  # (M, N, D)
    else:
        q = D.MultivariateNormal(loc, scale_tril=scale, validate_args=False)
        z = loc + torch.einsum("nij,mj->mni", scale, grid.z)
    weights = grid.cell * torch.exp(-0.5 * grid.z.square().sum(-1)) / (2 * math.pi) ** (grid.z.shape[-1] / 2)
    log_px = (weights @ model.decode(z).log_prob(x)).to(loc.dtype)
    if joint:
        return log_px + weights @ model.prior().log_prob(z) + q.entropy()
    prior = model.prior()
    if isinstance(q, D.MultivariateNormal) and isinstance(prior, D.Independent):  # the pair torch knows
        base = prior.base_dist
        assert isinstance(base, D.Normal)
        prior = D.MultivariateNormal(base.loc, scale_tril=torch.diag_embed(base.scale))
    return log_px - D.kl_divergence(q, prior)


def best_gaussian(
    model: VAE, x: Tensor, full: bool = False, steps: int = 200, points: int | None = None
) -> tuple[Tensor, Tensor]:
    """The Gaussian q of each datum on its own that has the highest bound: (loc, scale) as `bound` takes them.

    What an encoder's bound lacks to this one is the amortisation gap (Cremer, Li and Duvenaud 2018, arXiv:1801.03558);
    what this one lacks to log p(x) is the price of the family. Of a posterior that has several modes, or is bent, the
    bound has several maxima in q; it is climbed from many places, and the highest found is kept.

    Arguments:
        full: a full covariance rather than a diagonal one.
        steps: of L-BFGS, from the mean and the spread of the exact posterior, from its modes and along its ridges.
        points: a side of the grid that the bound is taken on.
    """
    dims = model.prior().event_shape.numel()
    of, start, unit = _starts(model, x)
    if full:  # a full q is never worse than the best diagonal one
        loc, scale = best_gaussian(model, x, False, steps, points)
        of = torch.cat([of, torch.arange(len(x))])
        start, unit = torch.cat([start, loc]), torch.cat([unit, torch.diag_embed(scale)])
    else:
        unit = torch.diag_embed(unit.square().sum(-1).sqrt())
    # in units of the start's own spread the bound is about equally curved in all directions and for all data
    shift, log_scale = torch.zeros_like(start).requires_grad_(), torch.zeros_like(start).requires_grad_()
    below = torch.zeros_like(unit, requires_grad=full and dims > 1)

    def q() -> tuple[Tensor, Tensor]:
        factor = unit @ (torch.tril(below, -1) + torch.diag_embed(torch.exp(log_scale)))
        loc = start + (unit @ shift[..., None])[..., 0]
        return loc, factor if full else factor.diagonal(dim1=-2, dim2=-1)

    wanted = [shift, log_scale, *([below] if below.requires_grad else [])]
    rule = torch.optim.LBFGS(wanted, max_iter=steps, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        rule.zero_grad()
        value = -bound(model, x[of], *q(), points).sum()
        for t, g in zip(wanted, torch.autograd.grad(value, wanted), strict=True):
            t.grad = g
        return value

    rule.step(loss)
    with torch.no_grad():
        loc, scale = q()
        reached = bound(model, x[of], loc, scale, points)
        best = torch.stack([torch.where(of == n, reached, -torch.inf).argmax() for n in range(len(x))])
        return loc[best], scale[best]


def _starts(model: VAE, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where to look for the best q: data numbers (S,), means (S, D) and lower triangles (S, D, D).

    One start a datum is the mean and the covariance of its posterior. Up to three dimensions further ones are the modes
    of the posterior, if there are several, and in two and three dimensions places along its ridges: the bound of a
    diagonal q may have a maximum on either arm of a bent ridge.
    """
    dims = model.prior().event_shape.numel()
    grid = Quadrature.over(dims)
    log_p = grid.log_posterior(model, x)  # (N, M)
    mass = torch.exp(log_p) * grid.cell
    mean = mass @ grid.z
    second = (mass @ (grid.z[:, :, None] * grid.z[:, None]).flatten(1)).reshape(-1, dims, dims)
    covariance = second - mean[:, :, None] * mean[:, None]
    factor = torch.linalg.cholesky(covariance + 1e-8 * torch.eye(dims, dtype=mean.dtype))
    of = torch.arange(len(x))
    if dims > 3:
        return of, mean, factor
    side, step = round(len(grid.z) ** (1 / dims)), grid.cell ** (1 / dims)
    about = max(1, round(0.15 / step))  # how far a mode is the highest: on a narrow ridge a grid has false peaks
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[dims - 1]
    highest = pool(log_p.reshape(-1, 1, *[side] * dims), 2 * about + 1, 1, about).reshape(log_p.shape)
    top = log_p.max(-1, keepdim=True).values
    chosen = (log_p == highest) & (log_p > top - 8)
    chosen &= chosen.sum(-1, keepdim=True) > 1
    if dims > 1:
        free = log_p > top - 4
        for n in range(len(x)):
            away = torch.linalg.solve_triangular(factor[n], grid.z.T, upper=False)  # in units of the posterior's spread
            for _ in range(8):
                if not bool(free[n].any()):
                    break
                at = torch.where(free[n], log_p[n], -torch.inf).argmax()
                chosen[n, at] = True
                free[n] &= (away - away[:, at, None]).square().sum(0) > 0.5
    datum, place = torch.nonzero(chosen, as_tuple=True)
    curvature = []
    for axis in range(dims):
        stride = side ** (dims - 1 - axis)
        ends = [log_p[datum, (place + s * stride).clamp(0, len(grid.z) - 1)] for s in (-1, 1)]
        curvature.append((2 * log_p[datum, place] - ends[0] - ends[1]) / step**2)
    spread = factor[datum].square().sum(-1).sqrt()
    narrow = torch.diag_embed(torch.minimum(torch.stack(curvature, -1).clamp(min=1e-8).rsqrt(), spread))
    return torch.cat([of, datum]), torch.cat([mean, grid.z[place]]), torch.cat([factor, narrow])


def sample(model: VAE, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """n ancestral draws: z (n, D) from the prior, then x (n, *event) from p(x | z)."""
    with torch.no_grad():
        z = draw(model.prior(), Noise.of(seed, n, 1)).to(next(model.parameters()).dtype)
        return z, draw(model.decode(z), Noise.of(seed, n, 2)).to(z.dtype)
