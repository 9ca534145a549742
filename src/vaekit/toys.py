r"""Latent-variable models with exact log p(x), posteriors and bounds: examples for the lessons, oracles for the tests.

With one or two latents, any integral over z is a sum over a grid, accurate to ten digits: log p(x), the posterior
p(z | x), and the evidence lower bound with its gap. `Quadrature` computes them for any model with a continuous latent.
`curve` is a model of data around a curve in the plane, `linear` has closed forms as well, and `MixtureOfGaussians` has
a discrete z and needs no grid.
The order follows Prince, Understanding Deep Learning (2023), chapter 17.
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
"""Largest number of values of log p(x | z) in memory at once."""


class MixtureOfGaussians:
    r"""p(x) = sum_z w_z N(x; loc_z, scale_z^2) on the line, z in 0..K-1: a discrete latent.

    Arguments:
        weights: (K,), positive; normalised to sum 1.
        loc, scale: (K,) means and standard deviations.

    Raises:
        ChoiceError: the lengths differ, or a weight or deviation is not positive.
    """

    def __init__(self, weights: Tensor, loc: Tensor, scale: Tensor):
        w, self.loc, self.scale = (torch.as_tensor(t, dtype=torch.float64) for t in (weights, loc, scale))
        if not (w.shape == self.loc.shape == self.scale.shape and w.dim() == 1):
            raise ChoiceError(
                "a mixture needs one weight, mean and deviation per component: three lists of equal length"
            )
        if bool((w <= 0).any()) or bool((self.scale <= 0).any()):
            raise ChoiceError("weights and standard deviations of a mixture must be positive")
        self.weights = w / w.sum()

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, z) = log w_z + log N(x; loc_z, scale_z^2) for x (N,): (N, K)."""
        x = torch.as_tensor(x, dtype=torch.float64)
        return torch.log(self.weights) + D.Normal(self.loc, self.scale).log_prob(x[..., None])

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) for x (N,): (N,)."""
        return torch.logsumexp(self.log_joint(x), -1)

    def posterior(self, x: Tensor) -> Tensor:
        """p(z | x) = p(x, z) / p(x) for x (N,), by Bayes' rule: (N, K)."""
        return torch.softmax(self.log_joint(x), -1)

    def bound(self, x: Tensor, q: Tensor, samples: int = 1) -> Tensor:
        r"""E[log 1/S sum_s p(x, z_s) / q(z_s)] over S = `samples` samples z_s ~ q, exact: (N,).

        With one sample it is the evidence lower bound E_q[log p(x, z) - log q(z)]; with more, the bound of Burda et al.
        (2016, arXiv:1509.00519). The value depends only on how often each component is sampled, so it is a sum over all
        such outcomes. Differentiable in q where q > 0.

        Arguments:
            x: (N,).
            q: (N, K) probabilities of the components, or (K,) for all x.
            samples: S.

        Raises:
            ChoiceError: there are more than 10^5 outcomes.
        """
        kinds = len(self.weights)
        ways = math.comb(samples + kinds - 1, kinds - 1) if samples >= 1 else 0
        if not 0 < ways <= 100_000:
            raise ChoiceError(f"{samples} samples of {kinds} components: their {ways} outcomes cannot be summed over")
        log_joint, q = torch.broadcast_tensors(self.log_joint(x), torch.as_tensor(q, dtype=torch.float64))
        # stars and bars: the positions of kinds - 1 bars among the samples give the count of each component
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
        """n ancestral samples: z (n,) from the weights, then x (n,) from component z."""
        noise = Noise.of(seed, n)
        z = (noise.uniform((1,)).double() > torch.cumsum(self.weights, 0)[:-1]).sum(-1)
        return z, self.loc[z] + self.scale[z] * noise.normal(()).double()


def curve(sigma: float = 0.3, hidden: int = 8, seed: int = 3, observed: int = 2, latent: int = 1) -> VAE:
    r"""z ~ N(0, I), x | z ~ N(f(z), sigma^2 I): data around a curve in the plane, where f has one tanh layer.

    The weights of f are random and fixed by `seed`. The posterior is a diagonal Gaussian by a small network, untrained.
    Parameters are float64. This is the nonlinear latent-variable model of Prince (2023), section 17.2.

    Arguments:
        sigma: standard deviation of x | z.
        hidden: width of f.
        seed: of the weights of f.
        observed: dimensions of x; 2 for the plane.
        latent: dimensions of z; 1 for a curve, 2 for a surface.
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
    r"""z ~ N(0, I), x | z ~ N(W z, sigma^2 I), with the exact posterior p(z | x) = N(P^-1 W^T x / sigma^2, P^-1).

    P = I + W^T W / sigma^2. If the columns of W are not orthogonal, the latents are dependent given x. The model's
    posterior q is a diagonal Gaussian whose mean is linear in x and whose standard deviations do not depend on x,
    untrained. Parameters are float64.

    Arguments:
        weight: W, (D, latents).
        sigma: standard deviation of x | z.
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
    """Applies one network to each of `times` equal parts of its input and concatenates the outputs."""

    def __init__(self, net: nn.Module, times: int):
        super().__init__()
        self.net, self.times = net, times

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z.unflatten(-1, (self.times, -1))).flatten(-2)


def copies(model: VAE, times: int) -> VAE:
    r"""`times` independent copies of a `curve` or `linear` model as one model, their z and x concatenated.

    log p(x) is the sum over the copies, so it is known in any number of dimensions, where a grid would need
    points^times nodes. The posterior is a network as in `curve`, untrained.

    Raises:
        ChoiceError: the model's likelihood is not a Gaussian with one fixed standard deviation.
    """
    net, head = model.likelihood.net, model.likelihood.head
    if not isinstance(net, nn.Module) or not isinstance(head, Gaussian) or head.scale != "fixed":
        raise ChoiceError("copies need a model with one fixed standard deviation, such as a curve or a linear model")
    observed, latent = times * math.prod(head.event), times * model.prior().event_shape.numel()
    likelihood = Conditional(_SideBySide(net, times), Gaussian((observed,), "fixed", float(head.log_scale.exp())))
    posterior = Conditional(MLP((observed,), 2 * latent, (32,), "tanh"), Gaussian((latent,)))
    return VAE(StandardNormal((latent,)), posterior, likelihood).double()


@dataclass(frozen=True)
class Quadrature:
    """Integrals over a low-dimensional latent space as sums over a grid (the trapezoidal rule).

    For smooth functions that vanish at the ends, the error falls faster than any power of the step (Trefethen and
    Weideman 2014, doi:10.1137/130932132). The number of nodes is points^dims, which limits it to few dimensions.

    Attributes:
        z: the nodes, (M, D) float64.
        cell: the volume per node.
    """

    z: Tensor
    cell: float

    @classmethod
    def over(cls, dims: int, points: int | None = None, reach: float = 8.0) -> Quadrature:
        """A regular grid on [-reach, reach]^dims; by default with 4,001 points per side in one dimension, 401 in two.

        Raises:
            ChoiceError: the grid has more than 10^7 nodes.
        """
        points = points or {1: 4001, 2: 401, 3: 101}.get(dims, 41)
        if dims < 1 or points < 2 or points**dims > 10_000_000:
            raise ChoiceError(f"a grid of {points} points per side in {dims} dimensions cannot be summed over")
        side = torch.linspace(-reach, reach, points, dtype=torch.float64)
        z = torch.cartesian_prod(*[side] * dims).reshape(-1, dims)
        return cls(z, (2 * reach / (points - 1)) ** dims)

    def _blocks(self, x: Tensor) -> Iterator[Tensor]:
        yield from x.split(max(1, BLOCK // (len(self.z) * max(1, x[0].numel()))))

    def log_joint(self, model: Model, x: Tensor) -> Tensor:
        """log p(x, z) = log p(z) + log p(x | z) for x (N, *event) at every node: (N, M).

        Raises:
            ChoiceError: the model is not an unconditional VAE with one latent layer.
        """
        if not isinstance(model, VAE) or model.condition:
            raise ChoiceError("quadrature needs a VAE with one latent layer and no condition")
        with torch.no_grad():
            z = self.z.to(next(model.parameters()).dtype)
            px, log_pz = model.decode(z), model.prior().log_prob(z)
            return torch.cat([log_pz + px.log_prob(block[:, None]) for block in self._blocks(x)])

    def log_px(self, model: Model, x: Tensor) -> Tensor:
        r"""log p(x) = log \int p(z) p(x | z) dz for x (N, *event): (N,)."""
        parts = [torch.logsumexp(self.log_joint(model, block).double(), -1) for block in self._blocks(x)]
        return torch.cat(parts) + math.log(self.cell)

    def log_posterior(self, model: Model, x: Tensor) -> Tensor:
        """log p(z | x) for x (N, *event) at every node: (N, M)."""
        joint = self.log_joint(model, x).double()
        return joint - torch.logsumexp(joint, -1, keepdim=True) - math.log(self.cell)

    def kl(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        r"""KL(q || p) = \int q (log q - log p) dz for log-densities (..., M) at the nodes: (...)."""
        return (torch.exp(log_q) * (log_q - log_p)).sum(-1) * self.cell

    def gap(self, model: Model, x: Tensor, q: D.Distribution) -> Tensor:
        r"""KL(q || p(z | x)) = \int q (log q - log p(z | x)) dz, the gap of the bound: (N,).

        It is computed without the bound, so log p(x) - gap is an independent value of the bound.

        Arguments:
            x: (N, *event).
            q: densities over (D,), batch shape (N,).
        """
        return self.kl(q.log_prob(self.z[:, None]).T, self.log_posterior(model, x))


def bound(model: VAE, x: Tensor, loc: Tensor, scale: Tensor, points: int | None = None, joint: bool = False) -> Tensor:
    r"""The evidence lower bound of x (N, *event) for q = N(loc, scale scale^T), exact up to quadrature: (N,).

    By default E_q[log p(x | z)] - KL(q || p(z)); with `joint`, E_q[log p(x, z)] + H(q), which is equal. Both are
    differentiable in loc, scale and the model's parameters.

    Arguments:
        x: (N, *event).
        loc: (N, D).
        scale: (N, D) standard deviations of a diagonal q, or (N, D, D) lower triangles for full covariances.
        points: per side of the grid; see `Quadrature.over`.
        joint: use the second form.
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
    if isinstance(q, D.MultivariateNormal) and isinstance(prior, D.Independent):  # torch has this KL in closed form
        base = prior.base_dist
        assert isinstance(base, D.Normal)
        prior = D.MultivariateNormal(base.loc, scale_tril=torch.diag_embed(base.scale))
    return log_px - D.kl_divergence(q, prior)


def best_gaussian(
    model: VAE, x: Tensor, full: bool = False, steps: int = 200, points: int | None = None
) -> tuple[Tensor, Tensor]:
    """The Gaussian q with the highest bound for each example: (loc, scale) as `bound` takes them.

    The bound of an encoder is lower by the amortisation gap (Cremer, Li and Duvenaud 2018, arXiv:1801.03558); this
    bound is lower than log p(x) by the approximation gap of the Gaussian family. For a multimodal or curved posterior
    the bound has several maxima in q; the optimiser starts from many places and keeps the highest.

    Arguments:
        x: (N, *event).
        full: use a full covariance instead of a diagonal one.
        steps: of L-BFGS, which starts at the mean and spread of the exact posterior, at its modes and along its ridges.
        points: per side of the grid on which the bound is computed.
    """
    dims = model.prior().event_shape.numel()
    of, start, unit = _starts(model, x)
    if full:  # start from the best diagonal q too, so that the full one is never worse
        loc, scale = best_gaussian(model, x, False, steps, points)
        of = torch.cat([of, torch.arange(len(x))])
        start, unit = torch.cat([start, loc]), torch.cat([unit, torch.diag_embed(scale)])
    else:
        unit = torch.diag_embed(unit.square().sum(-1).sqrt())
    # in units of the start's spread, the bound's curvature is similar in all directions and for all examples
    shift, log_scale = torch.zeros_like(start).requires_grad_(), torch.zeros_like(start).requires_grad_()
    below = torch.zeros_like(unit, requires_grad=full and dims > 1)

    def q() -> tuple[Tensor, Tensor]:
        factor = unit @ (torch.tril(below, -1) + torch.diag_embed(torch.exp(log_scale)))
        loc = start + (unit @ shift[..., None])[..., 0]
        return loc, factor if full else factor.diagonal(dim1=-2, dim2=-1)

    parameters = [shift, log_scale, *([below] if below.requires_grad else [])]
    optimiser = torch.optim.LBFGS(parameters, max_iter=steps, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = -bound(model, x[of], *q(), points).sum()
        for t, g in zip(parameters, torch.autograd.grad(value, parameters), strict=True):
            t.grad = g
        return value

    optimiser.step(loss)
    with torch.no_grad():
        loc, scale = q()
        reached = bound(model, x[of], loc, scale, points)
        best = torch.stack([torch.where(of == n, reached, -torch.inf).argmax() for n in range(len(x))])
        return loc[best], scale[best]


def _starts(model: VAE, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Starting points for the best q: indices of the examples (S,), means (S, D) and lower triangles (S, D, D).

    One start per example is the mean and covariance of its posterior. Up to three dimensions, the modes of the
    posterior are added if there are several; in two and three dimensions also points along its ridges, because the
    bound of a diagonal q can have a maximum on either arm of a curved ridge.
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
    radius = max(1, round(0.15 / step))  # of the neighbourhood of a mode: on a narrow ridge a grid has false peaks
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[dims - 1]
    highest = pool(log_p.reshape(-1, 1, *[side] * dims), 2 * radius + 1, 1, radius).reshape(log_p.shape)
    top = log_p.max(-1, keepdim=True).values
    chosen = (log_p == highest) & (log_p > top - 8)
    chosen &= chosen.sum(-1, keepdim=True) > 1
    if dims > 1:
        free = log_p > top - 4
        for n in range(len(x)):
            whitened = torch.linalg.solve_triangular(factor[n], grid.z.T, upper=False)
            for _ in range(8):
                if not bool(free[n].any()):
                    break
                at = torch.where(free[n], log_p[n], -torch.inf).argmax()
                chosen[n, at] = True
                free[n] &= (whitened - whitened[:, at, None]).square().sum(0) > 0.5
    example, node = torch.nonzero(chosen, as_tuple=True)
    curvature = []
    for axis in range(dims):
        stride = side ** (dims - 1 - axis)
        ends = [log_p[example, (node + s * stride).clamp(0, len(grid.z) - 1)] for s in (-1, 1)]
        curvature.append((2 * log_p[example, node] - ends[0] - ends[1]) / step**2)
    spread = factor[example].square().sum(-1).sqrt()
    narrow = torch.diag_embed(torch.minimum(torch.stack(curvature, -1).clamp(min=1e-8).rsqrt(), spread))
    return torch.cat([of, example]), torch.cat([mean, grid.z[node]]), torch.cat([factor, narrow])


def sample(model: VAE, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """n ancestral samples: z (n, D) from the prior, then x (n, *event) from p(x | z)."""
    with torch.no_grad():
        z = draw(model.prior(), Noise.of(seed, n, 1)).to(next(model.parameters()).dtype)
        return z, draw(model.decode(z), Noise.of(seed, n, 2)).to(z.dtype)
