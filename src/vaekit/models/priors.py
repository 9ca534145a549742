"""Priors over the latents: conditionals given nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


class Mixture(nn.Module):
    """A mixture of diagonal Gaussians whose weights, means and scales are learned.

    Starts with equal weights, means from N(0, 1/4) and scales sqrt(3/4): the moments of N(0, I), from components apart.

    Arguments:
        event: (D,).
        components: C, how many.
    """

    def __init__(self, event: Sequence[int], components: int = 100):
        super().__init__()
        dims = vector_dims(event)
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
        self.of_flow = isinstance(getattr(posterior, "head", None), FlowHead)
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
        dims = vector_dims(event)
        if transforms < 1:
            raise ValueError(f"a flow has 1 transform or more, got {transforms}")
        self.event = tuple(event)
        self.steps = nn.ModuleList(Coupling(dims, 0, hidden, kind, turn) for turn in range(transforms))
        self.loc, self.log_scale = nn.Parameter(torch.zeros(dims)), nn.Parameter(torch.zeros(dims))
        self.register_buffer("zero", torch.zeros(dims), persistent=False)

    def forward(self, *given: Tensor) -> Flow:
        maps = [step.bind() for step in self.steps]  # type: ignore[operator]
        return Flow([*maps, affine_map(self.loc, self.log_scale)], (), self.zero)


class UniformSphere(nn.Module):
    """p(z) uniform on the unit sphere of R^D: the prior of spherical posteriors (Davidson et al. 2018).

    Arguments:
        event: (D,), D of 2 or more.
    """

    zero: Tensor

    def __init__(self, event: Sequence[int]):
        super().__init__()
        self.event = tuple(event)
        self.register_buffer("zero", torch.zeros(vector_dims(event, 2)), persistent=False)

    def forward(self, *given: Tensor) -> UniformOnSphere:
        return UniformOnSphere(self.zero)
