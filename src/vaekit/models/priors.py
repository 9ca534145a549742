"""Priors over the latents: modules that return p(z)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch import distributions as D

from vaekit.densities.flows import Coupling, Flow, affine_map, vector_dims
from vaekit.densities.mixture import GaussianMixture
from vaekit.densities.sphere import UniformOnSphere
from vaekit.errors import ChoiceError
from vaekit.heads import floored
from vaekit.heads.posteriors import FlowHead
from vaekit.noise import Key, Noise
from vaekit.utils.arguments import Knob
from vaekit.utils.register import Builder, Register

PRIORS = Register(
    "prior",
    {
        "event": "shape of the latents, (D,)",
        "posterior": "the module q(z|x)",
        "likelihood": "the module p(x|z)",
        "shape": "shape of x",
        "low": "the smallest x, or None",
        "high": "the largest x, or None",
        "width": "width of a hidden layer",
        "activation": "nonlinearity of the dense layers",
    },
)
"""The priors p(z) by name."""


def prior(
    name: str, paper: str, space: str = "real", conditional: bool = True, density: bool = False, rows: bool = False
) -> Callable[[Builder], Builder]:
    """Register a module that returns p(z), or a function that returns one or a whole model, as the prior `name`.

    Its parameters annotated with a `Knob` are its options. It is called with `event`, the shape of the latents, and
    with those of `posterior`, `likelihood`, `shape`, `low`, `high`, `width` and `activation` that it has as parameters.

    Arguments:
        name: its name on the command line.
        paper: the publication that introduced it.
        space: the space of its draws, `real` or `sphere`, which must be the posterior's too.
        conditional: whether it works in a conditional model.
        density: whether it needs a posterior with a density.
        rows: whether its parameters are rows of data, which excludes data with categories or missing values.
    """
    return PRIORS.add(name, paper, space=space, conditional=conditional, density=density, rows=rows)


@prior("normal", "Kingma and Welling 2013, arXiv:1312.6114")
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


@prior("mixture", "Dilokthanakul et al. 2016, arXiv:1611.02648")
class Mixture(nn.Module):
    """A mixture of diagonal Gaussians with learned weights, means and scales.

    It starts with equal weights, means from N(0, 1/4) and scales sqrt(3/4), which gives the moments of N(0, I).

    Arguments:
        event: (D,).
        components: C, the number of Gaussians.
    """

    def __init__(self, event: Sequence[int], components: Annotated[int, Knob("number of Gaussians", low=1)] = 100):
        super().__init__()
        dims = vector_dims(event)
        self.event = tuple(event)
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(0.5 * torch.randn(components, dims))
        self.log_scale = nn.Parameter(torch.full((components, dims), 0.5 * math.log(0.75)))

    def forward(self, *given: Tensor) -> GaussianMixture:
        return GaussianMixture(self.logits, self.loc, torch.exp(floored(self.log_scale)))


@prior("vamp", "Tomczak and Welling 2018, arXiv:1705.07120", conditional=False, density=True, rows=True)
class Vamp(nn.Module):
    r"""The variational mixture of posteriors (VampPrior): p(z) = 1/C sum_c q(z | u_c) at learned pseudo-inputs u_c.

    Tomczak and Welling (2018, arXiv:1705.07120). The posterior is the model's own, which is also trained through the
    prior; it must depend on x alone. For a full-covariance posterior, the components have its mean and variances. For a
    flow, they are its base Gaussians, because otherwise the flow would have to be inverted for every pair of z and
    pseudo-input. Call `start` with training data before training, as the paper recommends.

    Arguments:
        posterior: the model's module q(z | x).
        shape: of one x.
        components: C, the number of pseudo-inputs.
        low, high: the range of x, to which pseudo-inputs are clamped (hardtanh in the paper); None for no clamp.
    """

    logits: Tensor

    def __init__(
        self,
        posterior: nn.Module,
        shape: Sequence[int],
        components: Annotated[
            int,
            Knob("number of pseudo-inputs; the paper uses 500, at four times the cost per step on a CPU", low=1),
        ] = 100,
        low: float | None = None,
        high: float | None = None,
    ):
        super().__init__()
        if (low is None) != (high is None) or (low is not None and high is not None and not low < high):
            raise ValueError(f"the range of x is given by low < high, or by neither, got {low} and {high}")
        self.low, self.high = low, high
        self._of_model = (posterior,)  # in a tuple, so that it is not registered
        self.of_flow = isinstance(getattr(posterior, "head", None), FlowHead)
        centre, reach = (0.0, 1.0) if low is None or high is None else ((low + high) / 2, (high - low) / 2)
        self.pseudo = nn.Parameter(centre + 0.1 * reach * torch.randn(components, *shape))
        self.register_buffer("logits", torch.zeros(components), persistent=False)

    @property
    def posterior(self) -> nn.Module:
        """The model's posterior, not registered here: `functional_call` would not restore parameters with two names."""
        return self._of_model[0]

    @property
    def inputs(self) -> Tensor:
        """The pseudo-inputs, (C, *event)."""
        return self.pseudo if self.low is None else self.pseudo.clamp(self.low, self.high)

    def start(self, x: Tensor, seed: int = 0) -> None:
        """Initialise the pseudo-inputs with random examples of x (n, *event), distinct if possible, plus noise.

        The noise has a standard deviation of 0.01 times the range of x (or its deviation, if no range is given).
        Pseudo-inputs start within the range, because a clamp has no gradient outside.
        """
        with torch.no_grad():
            c, event = len(self.pseudo), self.pseudo.shape[1:]
            order = Noise.of(seed, len(x), Key.PSEUDO_INPUTS, device=x.device).uniform(()).argsort(stable=True)
            chosen = x[order[torch.arange(c, device=x.device) % len(x)]]
            unit = x.float().std(correction=0) if self.low is None or self.high is None else self.high - self.low
            noise = Noise.of(seed, c, Key.PSEUDO_SPREAD, device=x.device).normal(event)
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


@prior("flow", "Chen et al. 2017, arXiv:1611.02731; Durkan et al. 2019, arXiv:1906.04032")
class FlowPrior(nn.Module):
    """A normalising flow: couplings, then a scale and shift per latent. Starts as N(0, I).

    Density and samples each take one pass.

    Arguments:
        event: (D,).
        transforms: number of couplings; four make every latent depend on every other in both directions.
        hidden: widths of each coupling's network.
        kind: `affine` (Dinh et al. 2017) or `spline` (Durkan et al. 2019).
    """

    zero: Tensor

    def __init__(
        self,
        event: Sequence[int],
        transforms: Annotated[int, Knob("layers of the flow", low=1)] = 4,
        hidden: Sequence[int] = (128,),
        kind: str = "spline",
    ):
        super().__init__()
        dims = vector_dims(event)
        self.event = tuple(event)
        self.steps = nn.ModuleList(Coupling(dims, 0, hidden, kind, turn) for turn in range(transforms))
        self.loc, self.log_scale = nn.Parameter(torch.zeros(dims)), nn.Parameter(torch.zeros(dims))
        self.register_buffer("zero", torch.zeros(dims), persistent=False)

    def forward(self, *given: Tensor) -> Flow:
        maps = [step.bind() for step in self.steps]  # type: ignore[operator]
        return Flow([*maps, affine_map(self.loc, self.log_scale)], (), self.zero)


@prior("sphere", "Davidson et al. 2018, arXiv:1804.00891", space="sphere")
class UniformSphere(nn.Module):
    """p(z) uniform on the unit sphere of R^D: the prior of spherical posteriors (Davidson et al. 2018).

    Arguments:
        event: (D,), D at least 2.
    """

    zero: Tensor

    def __init__(self, event: Sequence[int]):
        super().__init__()
        self.event = tuple(event)
        self.register_buffer("zero", torch.zeros(vector_dims(event, 2)), persistent=False)

    def forward(self, *given: Tensor) -> UniformOnSphere:
        return UniformOnSphere(self.zero)
