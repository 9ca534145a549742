"""Posteriors: heads for an encoder that outputs `head.features` numbers, as `Conditional(encoder, head)`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributions as D

from vaekit.densities import Point
from vaekit.densities.drawing import Drawn
from vaekit.densities.flows import Autoregressive, Coupling, Flow, Map, affine_map, exact, vector_dims
from vaekit.densities.special import at_least_single
from vaekit.densities.sphere import PowerSpherical
from vaekit.errors import ChoiceError
from vaekit.noise import Noise
from vaekit.utils.arguments import Knob
from vaekit.utils.register import Builder, Register

from . import LOG_SCALE_FLOOR, Gaussian, Head, floored

CEILING = 12.0
"""The upper bound of a flow's log scale: above any useful value, but needed, as gradients grow with powers of z."""


POSTERIORS = Register(
    "posterior",
    {"event": "shape of the latents, (D,)", "slow": "whether scales above 1 should grow slower than exponentially"},
)
"""The posteriors q(z|x) by name."""


def posterior(name: str, paper: str, space: str = "real") -> Callable[[Builder], Builder]:
    """Register a `Head` over latents, or a function that returns one, as the posterior `name`.

    Its parameters annotated with a `Knob` are its options. It is called with `event`, the shape of the latents (D,).

    Arguments:
        name: its name on the command line.
        paper: the publication that introduced it.
        space: the space of its draws, `real` or `sphere`, which must be the prior's too.
    """
    return POSTERIORS.add(name, paper, space=space)


Transforms = Annotated[int, Knob("layers of the flow", low=1)]


@posterior("gaussian", "Kingma and Welling 2013, arXiv:1312.6114")
def gaussian(event: tuple[int, ...], slow: bool = False) -> Gaussian:
    """A diagonal Gaussian: given x, the latents are independent, each with its own mean and variance."""
    return Gaussian(event, "learned", slow=slow)


class VectorHead(Head):
    """A head over vectors (D,) whose raw numbers are split into parts of the given `sizes`. Abstract."""

    least = 1

    def __init__(self, event: Sequence[int], *sizes: int):
        super().__init__(tuple(event))
        self.dims = vector_dims(self.event, self.least)
        self.sizes = sizes

    @property
    def features(self) -> int:
        return sum(self.sizes)

    def split(self, raw: Tensor) -> tuple[Tensor, ...]:
        """(..., features) -> tensors (..., size), in float32 at least, whatever the precision of the network."""
        return at_least_single(raw).split(self.sizes, -1)


# --- full covariance --------------------------------------------------------------------------------------------


class FullNormal(Drawn):
    r"""N(loc, L L^T) over (D,), where the Cholesky factor L (..., D, D) has a positive diagonal."""

    def __init__(self, loc: Tensor, factor: Tensor):
        self.loc, self.factor = loc, factor
        super().__init__(loc.shape[:-1], loc.shape[-1])

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.factor.square().sum(-1)

    @property
    def diagonal(self) -> D.Independent:
        """The Gaussian with the same mean and variances and independent latents."""
        scale = self.variance.sqrt()
        return D.Independent(D.Normal(self.loc, scale, validate_args=False), 1, validate_args=False)

    @property
    def covariance_matrix(self) -> Tensor:
        """The covariances, (..., D, D)."""
        return self.factor @ self.factor.mT

    @property
    def _log_det(self) -> Tensor:
        return torch.log(self.factor.diagonal(dim1=-2, dim2=-1)).sum(-1)

    def _density(self, e: Tensor) -> Tensor:
        """log p(loc + L e)."""
        return -0.5 * e.square().sum(-1) - self._log_det - 0.5 * e.shape[-1] * math.log(2 * math.pi)

    def entropy(self) -> Tensor:
        return self._log_det + 0.5 * self.event_shape[0] * (1 + math.log(2 * math.pi))

    def log_prob(self, value: Tensor) -> Tensor:
        with exact(value):
            eye = torch.eye(self.event_shape[0], dtype=self.loc.dtype, device=value.device)
            inverse = torch.linalg.solve_triangular(self.factor, eye.expand_as(self.factor), upper=False)
            return self._density(_times(inverse, value - self.loc))

    def _drawn(self, noise: Noise, k: int | None) -> tuple[Tensor, Tensor]:
        e = noise.normal(self.event_shape, k).to(self.loc.dtype)
        with exact(e):
            return self.loc + _times(self.factor, e), self._density(e)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrices (*batch, D, D) times vectors (*more, *batch, D): each matrix is broadcast over the `more` axes."""
    more = vector.dim() - matrix.dim() + 1
    if more < 1:
        return (matrix @ vector[..., None])[..., 0]
    lead = vector.shape[:more]
    return torch.einsum("...ij,k...j->k...i", matrix, vector.flatten(0, more - 1)).unflatten(0, lead)


@D.register_kl(FullNormal, D.Independent)
def _(q: FullNormal, p: D.Independent) -> Tensor:
    normal = p.base_dist
    if not isinstance(normal, D.Normal) or len(p.event_shape) != 1:
        raise NotImplementedError  # as torch's kl_divergence does for pairs without a closed form
    spread = (q.factor / normal.scale[..., None]).square().sum((-2, -1))
    away = ((q.loc - normal.loc) / normal.scale).square().sum(-1)
    return 0.5 * (spread + away - q.event_shape[0]) + torch.log(normal.scale).sum(-1) - q._log_det


@posterior("full", "Kingma and Welling 2019, arXiv:1906.02691, section 2.5")
class FullCovariance(VectorHead):
    r"""N(loc, L L^T): a Gaussian whose latents may depend on each other, given x.

    The diagonal of L is a softplus, about 1 at raw 0 and at least e^-6. The entries below it are raw numbers divided
    by sqrt(D), so that at the start they add little to the variance of any latent. Closed-form KL to N(0, I).

    Arguments:
        event: (D,). Features: D + D (D + 1) / 2.
    """

    def __init__(self, event: Sequence[int]):
        dims = math.prod(event)
        super().__init__(event, dims, dims * (dims + 1) // 2)

    def forward(self, raw: Tensor) -> FullNormal:
        loc, packed = self.split(raw)
        n = self.dims
        # the numbers after the first n, then all of them reversed, as (n, n): the lower triangle has each number once
        square = torch.cat([packed[..., n:], packed.flip(-1)], -1).unflatten(-1, (n, n))
        diagonal = F.softplus(square.diagonal(dim1=-2, dim2=-1) + math.log(math.expm1(1.0))) + math.exp(LOG_SCALE_FLOOR)
        return FullNormal(loc, torch.tril(square, -1) / math.sqrt(n) + torch.diag_embed(diagonal))


# --- flows ------------------------------------------------------------------------------------------------------


class FlowHead(VectorHead):
    """A mean, a log scale, and a context of H numbers for the steps of a flow; raw numbers: 2 D + H. Abstract."""

    steps: nn.ModuleList
    zero: Tensor

    def __init__(self, event: Sequence[int], transforms: int, context: int):
        dims = math.prod(event)
        if context < 0:
            raise ValueError(f"context must be 0 or more, got {context}")
        super().__init__(event, dims, dims, context)
        self.register_buffer("zero", torch.zeros(dims), persistent=False)

    def _elementwise(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, raw_scale, h = self.split(raw)
        return mean, floored(raw_scale).clamp_max(CEILING), h

    def gaussian(self, raw: Tensor) -> D.Independent:
        """The diagonal Gaussian that the flow equals when its steps are the identity."""
        mean, log_scale, _ = self._elementwise(raw)
        return D.Independent(D.Normal(mean, torch.exp(log_scale), validate_args=False), 1, validate_args=False)

    def maps(self, raw: Tensor) -> tuple[Map, list[Map], Tensor]:
        """The elementwise map by mean and scale, the maps of the steps, and zeros (D,) in the dtype of `raw`."""
        mean, log_scale, h = self._elementwise(raw)
        with exact(raw):
            steps = [step.bind(h if h.shape[-1] else None) for step in self.steps]  # type: ignore[operator]
        return affine_map(mean, log_scale), steps, self.zero.to(mean.dtype)


@posterior("iaf", "Kingma et al. 2016, arXiv:1606.04934")
class IAF(FlowHead):
    """Inverse autoregressive flow: a diagonal Gaussian, then gated steps; each reverses the order of the latents.

    Kingma et al. (2016). A draw and its density take one network pass per step. The density of any other z is exact
    too, but takes D passes per step: for objectives that need it (DReG) use `CouplingFlow`. Its `mean` is the flow's
    centre, the image of the Gaussian's mean.

    Arguments:
        event: (D,). Features: 2 D + context.
        transforms: the number of steps.
        hidden: widths of each step's network.
        context: how many numbers the encoder passes to every step.
    """

    def __init__(
        self, event: Sequence[int], transforms: Transforms = 2, hidden: Sequence[int] = (256,), context: int = 64
    ):
        super().__init__(event, transforms, context)
        self.steps = nn.ModuleList(Autoregressive(self.dims, context, hidden, t % 2 == 1) for t in range(transforms))

    def forward(self, raw: Tensor) -> Flow:
        first, steps, zero = self.maps(raw)
        return Flow([first, *steps], raw.shape[:-1], zero)


@posterior("nsf", "Rezende and Mohamed 2015, arXiv:1505.05770; Durkan et al. 2019, arXiv:1906.04032")
class CouplingFlow(FlowHead):
    """N(0, I) mapped by couplings, then by a mean and a scale; draws and the density of any z each take one pass.

    Rezende and Mohamed (2015), with the neural spline couplings of Durkan et al. (2019). Starts as the diagonal
    Gaussian. Its `mean` is the flow's centre, the image of zero.

    Arguments:
        event: (D,). Features: 2 D + context.
        transforms: the number of couplings; with four, every latent can depend on every other.
        hidden: widths of each coupling's network.
        context: how many numbers the encoder passes to every coupling.
    """

    def __init__(
        self, event: Sequence[int], transforms: Transforms = 2, hidden: Sequence[int] = (128,), context: int = 64
    ):
        super().__init__(event, transforms, context)
        self.steps = nn.ModuleList(Coupling(self.dims, context, hidden, "spline", turn) for turn in range(transforms))

    def forward(self, raw: Tensor) -> Flow:
        last, steps, zero = self.maps(raw)
        return Flow([*steps, last], raw.shape[:-1], zero)


# --- the sphere -------------------------------------------------------------------------------------------------


@posterior("sphere", "Davidson et al. 2018, arXiv:1804.00891; De Cao and Aziz 2020, arXiv:2006.04437", space="sphere")
class Sphere(VectorHead):
    """Power spherical density: codes on the unit sphere, spread around a direction. Prior: `priors.UniformSphere`.

    The classic choice is von Mises-Fisher (Davidson et al. 2018). De Cao and Aziz (2020) propose the power spherical
    density instead, which is used here: it has a similar shape, but its normaliser needs no Bessel function and its
    draws no rejection, so draws, entropy and KL are exact, stable in any dimension, and differentiable.

    Arguments:
        event: (D,), D of 2 or more. Features: D + 1. The concentration is 1 + softplus of its raw number.
    """

    least = 2

    def __init__(self, event: Sequence[int]):
        if math.prod(event) < self.least:
            raise ChoiceError("a sphere needs a vector of 2 or more dimensions: write `latent=2` or more")
        super().__init__(event, math.prod(event), 1)

    def forward(self, raw: Tensor) -> PowerSpherical:
        direction, concentration = self.split(raw)
        # a zero vector has no direction: the offset turns it into the first axis
        direction = direction + F.pad(torch.full_like(direction[..., :1], 1e-6), (0, self.dims - 1))
        return PowerSpherical(F.normalize(direction, dim=-1), 1 + F.softplus(concentration[..., 0]))


# --- points -----------------------------------------------------------------------------------------------------


@posterior("point", "Rumelhart, Hinton and Williams 1986, doi:10.1038/323533a0")
class PointHead(Head):
    """A point mass at the encoder's output, which is the code of a deterministic autoencoder; it has no density."""

    no_density: ClassVar[str | None] = "an autoencoder has no log p(x): its posterior is a point"

    def forward(self, raw: Tensor) -> D.Distribution:
        (loc,) = self.split(raw)
        return self.independent(Point(loc))
