"""A top-down model with several layers of latents and dense gated networks, for small images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit import networks
from vaekit.densities.special import at_least_single
from vaekit.errors import ChoiceError
from vaekit.heads import Conditional, Head

from .hierarchy import TopDownPass, soft
from .priors import StandardNormal


class _Top(nn.Module):
    """The first layer: q(z_1 | x) from the features, and the first state."""

    def __init__(self, width: int, latent: int):
        super().__init__()
        self.out = nn.Linear(width, 2 * latent)
        self.enter = networks.Gated(latent, width)
        self.prior = StandardNormal((latent,))

    def posterior(self, h: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log scale of q(z | x), repeated for the K samples of the state h (K * B, 1)."""
        mean, log_scale = at_least_single(self.out(f)).chunk(2, -1)
        k = len(h) // len(f)
        return mean.repeat(k, 1), soft(log_scale).repeat(k, 1)

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        return self.enter(z)


class _Below(nn.Module):
    """A layer below the first: q(z | x, h) and p(z) = N(0, I), which enters the state with a scale s(h)."""

    def __init__(self, width: int, latent: int):
        super().__init__()
        middle = max(width // 2, 1)
        self.seen, self.above = nn.Linear(width, 2 * middle), nn.Linear(width, 2 * middle, bias=False)
        self.out = nn.Linear(middle, 2 * latent)
        self.scale = nn.Linear(width, latent)
        nn.init.zeros_(self.scale.weight)
        nn.init.zeros_(self.scale.bias)
        self.enter, self.state = nn.Linear(latent, 2 * width), nn.Linear(width, 2 * width, bias=False)
        self.prior = StandardNormal((latent,))

    def posterior(self, h: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log scale of q(z | x, layers above), for the state h (K * B, W) and the features f (B, W)."""
        inner = self.above(h).unflatten(0, (-1, len(f))) + self.seen(f)  # f is processed once for all K samples
        mean, log_scale = at_least_single(self.out(F.glu(inner.flatten(0, 1), -1))).chunk(2, -1)
        return mean, soft(log_scale)

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        return F.glu(self.enter(torch.exp(soft(self.scale(h))) * z) + self.state(h), -1)


class _Column(nn.Module):
    """The layers, which all have the same width."""

    def __init__(self, width: int, latents: Sequence[int]):
        super().__init__()
        below = (_Below(width, latent) for latent in latents[1:])
        self.layers = nn.ModuleList([_Top(width, latents[0]), *below])

    def entered(self, h: Tensor) -> Tensor:
        return h


class _Features(nn.Module):
    """x (B, *event) -> [f], f (B, W) by gated layers; wide inputs are scaled as by `vaekit.networks.MLP`."""

    def __init__(self, event: Sequence[int], width: int, blocks: int):
        super().__init__()
        widths = [math.prod(event), *[width] * (1 + blocks)]
        self.share = min(1.0, networks.WIDE / widths[0])
        self.net = nn.Sequential(*(networks.Gated(a, b) for a, b in itertools.pairwise(widths)))
        with torch.no_grad():
            next(self.net.parameters()).div_(self.share)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = x.flatten(1)
        return [self.net(x * self.share if self.share < 1 else x)]


class DenseTopDown(TopDownPass):
    r"""A hierarchy of latent vectors with a top-down pass that generation and inference share, of gated dense layers.

    p(z_1, ..., z_L) and prod_l q(z_l | x, z_<l) as for `vaekit.models.hierarchy.TopDown` (Sonderby et al. 2016,
    arXiv:1602.02282; Child 2021, arXiv:2011.10650), with the gated layers g(a, b) = a sigmoid(b) of Dauphin et al.
    (2017, arXiv:1612.08083) instead of residual blocks:

        f = g(g(x)),  h_1 = g(z_1),  h_l = g(U_l (s_l(h_{l-1}) * z_l) + V_l h_{l-1}),  p(x | z) = p(x | h_L)

    with z_l ~ N(0, I), or z_1 ~ q(z_1 | x) = N(m_1(f), e^{2 l_1(f)}) and z_l ~ q(z_l | x, z_<l), whose mean and log
    scale are affine in g(A_l h_{l-1} + B_l f). Each g has an affine map of its own. V_l h_{l-1} and s_l(h_{l-1}) are
    the mean and the scale of p(u_l | z_<l) for u_l = s_l z_l, so the latents are standardised. If U_2 to U_L are zero,
    the model is a `vaekit.models.vae.VAE` with gated networks.

    Arguments:
        event: shape of x.
        head: of the likelihood.
        width: W, the width of the state and the features; that of the posteriors' hidden layer is W / 2.
        latents: the number of latents of each layer, top first.
        blocks: gated layers of the bottom-up pass after the first.
        values: lowest and highest x, if x is to be rescaled to -1..1, such as (0, 255); else None.
    """

    def __init__(
        self,
        event: Sequence[int],
        head: Head,
        width: int = 300,
        latents: Sequence[int] = (40, 20),
        blocks: int = 1,
        values: tuple[float, float] | None = None,
    ):
        super().__init__()
        if not latents or min(width, *latents) < 1:
            raise ChoiceError(f"a dense hierarchy needs at least one layer, with latents, got {tuple(latents)}")
        features: nn.Module = _Features(event, width, blocks)
        self.features = networks.Rescaled(features, *values) if values is not None else features
        self.start: Tensor
        self.register_buffer("start", torch.zeros(1), persistent=False)
        self.stages = nn.ModuleList([_Column(width, latents)])
        self.likelihood = Conditional(nn.Linear(width, head.features), head)
        self.sizes = list(latents)
        self.shapes = [(size,) for size in latents]

    def begin(self, lead: Sequence[int]) -> Tensor:
        return self.start.expand(*lead, -1).reshape(-1, 1)
