"""Priors over the latents: conditionals given nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributions as D
from torch.distributions import constraints

from vaekit.densities import _from_noise, draw, standard_gamma
from vaekit.densities.flows import Coupling, Drawn, Flow, affine_map
from vaekit.densities.special import log_sum_exp
from vaekit.errors import ChoiceError
from vaekit.heads import floored
from vaekit.noise import Noise


class StandardNormal(nn.Module):
    """p(z) = N(0, I) over `event`."""

    zero: Tensor

    def __init__(self, event: tuple[int, ...]):
        super().__init__()
        self.event = tuple(event)
        self.register_buffer("zero", torch.zeros(self.event), persistent=False)

    def forward(self, *given: Tensor) -> D.Distribution:
        normal = D.Normal(self.zero, torch.ones_like(self.zero), validate_args=False)
        return D.Independent(normal, len(self.event), validate_args=False)


def _flat(event: Sequence[int], least: int = 1) -> int:
    """D of an event (D,)."""
    if len(event) != 1 or event[0] < least:
        raise ValueError(f"this density is over vectors of {least} or more dimensions, not over events {tuple(event)}")
    return event[0]


# --- mixtures ---------------------------------------------------------------------------------------------------


class GaussianMixture(D.Distribution):
    r"""sum_c w_c N(z; loc_c, diag scale_c^2) over (D,), batch shape ().

    log p(z) is the logarithm of sums of exponentials of one matrix product, [z^2, z] by the natural parameters. In
    float32 its large terms would cancel to some 1e-3 where scales are 0.05; in float64 it is exact and still faster
    than going by the distances. A draw is reparametrised within its component, but knows no gradient of the weights.

    Arguments:
        logits: (C,) log-weights up to a constant.
        loc, scale: (C, D).
    """

    arg_constraints: ClassVar = {}
    support = constraints.real_vector
    has_rsample = False

    def __init__(self, logits: Tensor, loc: Tensor, scale: Tensor):
        self.logits, self.loc, self.scale = torch.log_softmax(logits, -1), loc, scale
        super().__init__(torch.Size(), loc.shape[-1:], validate_args=False)

    def tempered(self, temperature: float) -> GaussianMixture:
        """Every component's spread times t, its weight to the power 1/t: at 0 the heaviest component's mean alone."""
        if temperature > 0:
            return GaussianMixture(self.logits / temperature, self.loc, self.scale * temperature)
        best = self.logits.argmax(-1, keepdim=True)
        return GaussianMixture(torch.zeros_like(self.logits[best]), self.loc[best], 0 * self.scale[best])

    @property
    def mean(self) -> Tensor:
        return (torch.exp(self.logits)[:, None] * self.loc).sum(0)

    @property
    def variance(self) -> Tensor:
        inner = self.scale.square() + (self.loc - self.mean).square()
        return (torch.exp(self.logits)[:, None] * inner).sum(0)

    def log_prob(self, value: Tensor) -> Tensor:
        dims = value.shape[-1]
        if value.device.type == "mps":  # which has no float64
            far = ((value[..., None, :] - self.loc) / self.scale).square().sum(-1)
            constant = torch.log(self.scale).sum(-1) + 0.5 * dims * math.log(2 * math.pi)
            return log_sum_exp(self.logits - constant - 0.5 * far, -1)
        z, loc, scale, logits = (t.double() for t in (value, self.loc, self.scale, self.logits))
        precision = scale.square().reciprocal()
        constant = (0.5 * loc.square() * precision + torch.log(scale)).sum(-1) + 0.5 * dims * math.log(2 * math.pi)
        # a column for what does not depend on z: its gradient, a sum over z, is then of the product as well. Added to
        # the product it is a sum that inductor fuses with an optimiser's update of loc, and fails at (torch 2.13)
        natural = torch.cat([-0.5 * precision, loc * precision, (logits - constant)[:, None]], -1)
        each = torch.cat([z.square(), z, torch.ones_like(z[..., :1])], -1) @ natural.T
        return log_sum_exp(each.to(self.loc.dtype), -1)

    def sample(self, sample_shape=torch.Size()) -> Tensor:  # noqa: B008
        shape = torch.Size(sample_shape)
        with torch.no_grad():
            return draw(self, Noise.fresh(shape.numel(), self.loc.device)).reshape(*shape, -1)


@_from_noise.register
def _(d: GaussianMixture, noise: Noise, event, k):
    below = torch.cumsum(torch.exp(d.logits), -1)[:-1]  # the component is how many steps u passes
    component = (noise.uniform((1,), k) > below).sum(-1)
    return d.loc[component] + d.scale[component] * noise.normal(event, k).to(d.loc.dtype)


class Mixture(nn.Module):
    """A mixture of diagonal Gaussians whose weights, means and scales are learned.

    Starts with equal weights, means from N(0, 1/4) and scales sqrt(3/4): the moments of N(0, I), from components apart.

    Arguments:
        event: (D,).
        components: C, how many.
    """

    def __init__(self, event: Sequence[int], components: int = 100):
        super().__init__()
        dims = _flat(event)
        if components < 1:
            raise ValueError(f"a mixture has 1 component or more, got {components}")
        self.event = tuple(event)
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(0.5 * torch.randn(components, dims))
        self.log_scale = nn.Parameter(torch.full((components, dims), 0.5 * math.log(0.75)))

    def forward(self, *given: Tensor) -> GaussianMixture:
        return GaussianMixture(self.logits, self.loc, torch.exp(floored(self.log_scale)))


class Vamp(nn.Module):
    r"""The variational mixture of posteriors: p(z) = sum_c w_c q(z | u_c) at learned pseudo-inputs u_c.

    Tomczak and Welling (2018). The posterior is the model's own, and trained through the prior as well; it must be
    given x alone. Of a full-covariance posterior the components have its mean and variances, of a flow they are the
    diagonal Gaussian before its steps: the flow itself would have to be inverted for each pseudo-input at every z.
    Call `start` with training data before training, as the paper advises.

    Arguments:
        posterior: the module q(z | x) that the model uses.
        event: of x.
        components: C, how many pseudo-inputs.
        low, high: the range of x, which the pseudo-inputs are clamped to (the paper's hardtanh); None for none.
        weighted: learn the weights w, which are 1 / C otherwise.
    """

    def __init__(
        self,
        posterior: nn.Module,
        event: Sequence[int],
        components: int = 100,
        low: float | None = None,
        high: float | None = None,
        weighted: bool = False,
    ):
        super().__init__()
        if components < 1:
            raise ValueError(f"a mixture has 1 component or more, got {components}")
        if (low is None) != (high is None) or (low is not None and high is not None and not low < high):
            raise ValueError(f"the range of x is given by low < high, or by neither, got {low} and {high}")
        self.low, self.high = low, high
        self._of_model = (posterior,)  # in a tuple, so that it is not registered
        self.of_flow = hasattr(getattr(posterior, "head", None), "gaussian")
        centre, reach = (0.0, 1.0) if low is None or high is None else ((low + high) / 2, (high - low) / 2)
        self.pseudo = nn.Parameter(centre + 0.1 * reach * torch.randn(components, *event))
        logits = torch.zeros(components)
        if weighted:
            self.logits = nn.Parameter(logits)
        else:
            self.register_buffer("logits", logits, persistent=False)

    @property
    def posterior(self) -> nn.Module:
        """The model's own. Registered here too, torch's `functional_call` would not put its parameters back."""
        return self._of_model[0]

    @property
    def inputs(self) -> Tensor:
        """The pseudo-inputs, (C, *event)."""
        return self.pseudo if self.low is None else self.pseudo.clamp(self.low, self.high)

    def start(self, x: Tensor, seed: int = 0) -> None:
        """Put the pseudo-inputs at data drawn from x (n, *event) without repetition while there are any, plus noise.

        The noise's deviation is 0.01 of the range of x (or of its deviation, where no range is known); pseudo-inputs
        start within the range, since a clamp has no gradient outside.
        """
        with torch.no_grad():
            c, event = len(self.pseudo), self.pseudo.shape[1:]
            order = Noise.of(seed, len(x), 1, device=x.device).uniform(()).argsort(stable=True)
            chosen = x[order[torch.arange(c, device=x.device) % len(x)]]
            unit = x.float().std(correction=0) if self.low is None or self.high is None else self.high - self.low
            noise = Noise.of(seed, c, 2, device=x.device).normal(event)
            start = chosen + 0.01 * unit * noise
            self.pseudo.copy_(start if self.low is None else start.clamp(self.low, self.high))

    def forward(self, *given: Tensor) -> GaussianMixture:
        if self.of_flow:
            q = self.posterior.head.gaussian(self.posterior.net(self.inputs))  # type: ignore[union-attr,operator]
        else:
            q = self.posterior(self.inputs)
            q = q if isinstance(q, D.Independent) else getattr(q, "diagonal", q)
        normal = q.base_dist if isinstance(q, D.Independent) else None
        if not isinstance(normal, D.Normal) or len(q.event_shape) != 1:
            raise ChoiceError(
                f"the vamp prior is a mixture of Gaussian posteriors, but this one is {type(q).__name__}: "
                "choose another prior, or a Gaussian or flow posterior"
            )
        return GaussianMixture(self.logits, normal.loc, normal.scale)


# --- flows ------------------------------------------------------------------------------------------------------


class FlowPrior(nn.Module):
    """A normalising flow of couplings, then a scale and a shift of each latent. Starts as N(0, I).

    Density and draws each take one pass.

    Arguments:
        event: (D,).
        transforms: how many couplings; four let every latent depend on every other both ways.
        hidden: widths of each coupling's network.
        kind: `affine` (Dinh et al. 2017) or `spline` (Durkan et al. 2019).
    """

    zero: Tensor

    def __init__(self, event: Sequence[int], transforms: int = 4, hidden: Sequence[int] = (128,), kind: str = "spline"):
        super().__init__()
        dims = _flat(event)
        if transforms < 1:
            raise ValueError(f"a flow has 1 transform or more, got {transforms}")
        self.event = tuple(event)
        self.steps = nn.ModuleList(Coupling(dims, 0, hidden, kind, turn) for turn in range(transforms))
        self.loc, self.log_scale = nn.Parameter(torch.zeros(dims)), nn.Parameter(torch.zeros(dims))
        self.register_buffer("zero", torch.zeros(dims), persistent=False)

    def forward(self, *given: Tensor) -> Flow:
        maps = [step.bind() for step in self.steps]  # type: ignore[operator]
        return Flow([*maps, affine_map(self.loc, self.log_scale)], (), self.zero)


# --- the sphere -------------------------------------------------------------------------------------------------


def _double(t: Tensor) -> Tensor:
    """In float64 where the device has it: differences of log-gammas cancel."""
    return t if t.device.type == "mps" else t.double()


class UniformOnSphere(Drawn):
    """Equal density everywhere on the unit sphere of R^D, D >= 2; densities are by its surface."""

    def __init__(self, zero: Tensor):
        self.zero = zero
        super().__init__((), zero.shape[-1])

    @property
    def log_density(self) -> float:
        """Minus the logarithm of the sphere's area, 2 pi^{D/2} / Gamma(D/2)."""
        half = self.event_shape[0] / 2
        return math.lgamma(half) - half * math.log(math.pi) - math.log(2)

    @property
    def mean(self) -> Tensor:
        """The origin, which lies off the sphere: the sphere has no centre of its own (see `tempered`)."""
        return self.zero

    def entropy(self) -> Tensor:
        return torch.full_like(self.zero[0], -self.log_density)

    def tempered(self, temperature: float) -> PowerSpherical:
        """Draws nearer to the first axis, a centre chosen for want of one: concentration (D - 1) (1 / t^2 - 1).

        At t = 1 that is the uniform density, at 0 all of it is at the axis but for 1e-7.
        """
        pole = torch.zeros_like(self.zero)
        pole[0] = 1
        excess = 1 / temperature**2 - 1 if temperature > 1e-8 else 1e16
        return PowerSpherical(pole, torch.full_like(pole[0], (len(pole) - 1) * max(excess, 0.0)))

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.full_like(value[..., 0], self.log_density)

    def _drawn(self, noise: Noise, k: int | None) -> tuple[Tensor, Tensor]:
        z = F.normalize(noise.normal(self.event_shape, k).to(self.zero.dtype), dim=-1)
        return z, self.log_prob(z)


class PowerSpherical(Drawn):
    r"""p(z) proportional to (1 + <z, loc>)^c on the unit sphere of R^D, D >= 2: De Cao and Aziz (2020).

    t = <z, loc> is 2 Z - 1 with Z from Beta((D - 1) / 2 + c, (D - 1) / 2), the rest of z is uniform around loc: a draw
    needs one gamma number and D - 1 normal ones, rejects nothing, and is reparametrised. Densities are by the
    sphere's surface, in float64 where the device has it: of float32 input exact to 1e-4 nats in up to 512 dimensions,
    and to 2e-7 c, since z is of length 1 to within 1e-7 only.

    `mean` is the mean on the sphere, loc, which is what is decoded; the mean in R^D lies inside, at loc times
    c / (c + D - 1).

    Arguments:
        loc: (..., D), of length 1.
        concentration: (...), 0 (the uniform density) or more.
    """

    def __init__(self, loc: Tensor, concentration: Tensor):
        self.loc, self.concentration = loc, concentration
        super().__init__(loc.shape[:-1], loc.shape[-1])

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def _parts(self) -> tuple[Tensor, float, Tensor]:
        """(alpha, beta, the logarithm of what (1 + t)^c integrates to), float64."""
        beta = (self.event_shape[0] - 1) / 2
        alpha = beta + _double(self.concentration)
        gammas = torch.lgamma(alpha) - torch.lgamma(alpha + beta)
        return alpha, beta, (alpha + beta) * math.log(2) + beta * math.log(math.pi) + gammas

    def entropy(self) -> Tensor:
        alpha, beta, log_integral = self._parts
        mean_log = math.log(2) + torch.digamma(alpha) - torch.digamma(alpha + beta)  # of 1 + t
        return (log_integral - (alpha - beta) * mean_log).to(self.loc.dtype)

    def _density(self, log_half: Tensor) -> Tensor:
        """log p where log((1 + t) / 2) is known."""
        c = _double(self.concentration)
        rest = c * math.log(2) - self._parts[2]
        return (c * _double(log_half) + rest).to(self.loc.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        # (1 + t) / 2 = |z + loc|^2 / 4 = 1 - |z - loc|^2 / 4: each exact at its own end
        near = (value - self.loc).square().sum(-1) / 4
        far = ((value + self.loc).square().sum(-1) / 4).clamp_min(torch.finfo(value.dtype).tiny)
        return self._density(torch.where(near < 0.5, torch.log1p(-near.clamp_max(0.5)), torch.log(far)))

    def _drawn(self, noise: Noise, k: int | None) -> tuple[Tensor, Tensor]:
        dtype, dims = self.loc.dtype, self.event_shape[0]
        g = standard_gamma(noise, self.concentration + (dims - 1) / 2, (), k)
        normal = noise.normal((dims - 1,), k).to(dtype)
        h = normal.square().sum(-1) / 2  # Gamma((D - 1) / 2), and independent of where `normal` points
        # Z = g / (g + h), and sqrt(1 - t^2) times the direction of `normal`
        around = normal * (torch.sqrt(2 * g) / (g + h))[..., None]
        z = torch.cat([((g - h) / (g + h))[..., None], around], -1)
        # a reflection that takes the first axis to -loc or loc, whichever is farther: no division by a small number
        first = torch.zeros(dims, dtype=dtype, device=z.device)
        first[0] = 1
        sign = torch.where(self.loc[..., :1] < 0, -1.0, 1.0).to(dtype)
        v = self.loc + sign * first
        z = -sign * (z - v * (z * v).sum(-1, keepdim=True) / (1 + self.loc[..., :1].abs()))
        return z, self._density(-torch.log1p(h / g))


@D.register_kl(PowerSpherical, UniformOnSphere)
def _(q: PowerSpherical, p: UniformOnSphere) -> Tensor:
    return -q.entropy() - p.log_density


class UniformSphere(nn.Module):
    """p(z) uniform on the unit sphere of R^D: the prior of spherical posteriors (Davidson et al. 2018).

    Arguments:
        event: (D,), D of 2 or more.
    """

    zero: Tensor

    def __init__(self, event: Sequence[int]):
        super().__init__()
        self.event = tuple(event)
        self.register_buffer("zero", torch.zeros(_flat(event, 2)), persistent=False)

    def forward(self, *given: Tensor) -> UniformOnSphere:
        return UniformOnSphere(self.zero)
