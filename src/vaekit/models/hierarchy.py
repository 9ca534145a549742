"""Models with several latent layers: a chain with bottom-up inference, and top-down models of any depth.

The dense top-down model for small images is in `vaekit.models.dense_hierarchy`. A `Trace` of a model with several
layers has one `Latent` per layer, top first.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaekit import networks
from vaekit.densities import draw, draw_tempered, draw_with_density
from vaekit.densities.special import at_least_single
from vaekit.errors import ChoiceError
from vaekit.heads import Conditional, Gaussian, Head
from vaekit.noise import Noise

from .priors import StandardNormal, prior
from .vae import Latent, Model, Trace

SOFT_RANGE = 5.0
"""Bound of |log scale|: a deviation is between e^-5 and e^5 (Vahdat and Kautz 2020, section 3.2)."""

# --- a chain, inferred from the bottom up -----------------------------------------------------------------------


class AtDraws(Distribution):
    """A density whose KL must be estimated at the samples, because a closed form would be wrong.

    In a chain, p(z_1 | z_2) depends on z_2, which was sampled given z_1. So the mean of log q(z_1 | x) - log p(z_1 |
    z_2) is not the KL between two given densities.
    """

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, density: Distribution):
        self.density = density
        super().__init__(density.batch_shape, density.event_shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.density.log_prob(value)


class Chain(Model):
    r"""p(z_L) p(z_{L-1} | z_L) ... p(x | z_1) with q(z_1 | x) q(z_2 | z_1) ... q(z_L | z_{L-1}).

    Burda, Grosse and Salakhutdinov (2016, arXiv:1509.00519), figure 1 with L = 2. The code is z_1, on which alone
    p(x | z_1) depends. A chain takes no condition c.

    Arguments:
        prior: p(z_L).
        generators: p(z_l | z_{l+1}), top first, one fewer than posteriors.
        posteriors: q(z_1 | x), q(z_2 | z_1), ..., bottom first.
        likelihood: p(x | z_1).
    """

    def __init__(
        self,
        prior: nn.Module,
        generators: Sequence[nn.Module],
        posteriors: Sequence[nn.Module],
        likelihood: nn.Module,
    ):
        super().__init__()
        if len(posteriors) != len(generators) + 1:
            raise ValueError(
                "a chain needs a generator p(z_l | z_l+1) for every latent layer but the top: "
                f"{len(posteriors) - 1} for {len(posteriors)} posteriors, got {len(generators)}"
            )
        self.prior, self.likelihood = prior, likelihood
        self.generators, self.posteriors = nn.ModuleList(generators), nn.ModuleList(posteriors)
        self.no_density = next((r for q in posteriors if (r := getattr(q, "no_density", None)) is not None), None)

    def trace(self, x: Tensor, c: Tensor | None = None, k: int | None = None, noise: Noise | None = None) -> Trace:
        self._without_condition(c)
        noise = noise or Noise.fresh(len(x), x.device)
        below, inferred = x, []
        for layer, posterior in enumerate(self.posteriors):
            q = posterior(below)
            below, log_q = draw_with_density(
                q, noise, k if layer == 0 else None
            )  # later layers inherit the sample axis
            inferred.append((below, q, log_q))
        p, latents = self.prior(), []
        for layer in reversed(range(len(inferred))):
            z, q, log_q = inferred[layer]
            latents.append(Latent(z, q, p, log_q))
            if layer:
                p = AtDraws(self.generators[-layer](z))
        return Trace(tuple(latents), self.likelihood(z))

    def encode(self, x: Tensor, c: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        self._without_condition(c)
        q = self.posteriors[0](x)
        return q.mean if noise is None else draw(q, noise)

    def decode(self, z: Tensor) -> Distribution:
        return self.likelihood(z)

    def sample(self, n: int, c: Tensor | None = None, noise: Noise | None = None, temperature: float = 1.0) -> Tensor:
        self._without_condition(c)
        noise = noise or Noise.fresh(n)
        with torch.no_grad():
            z = draw_tempered(self.prior(), noise, temperature)
            for generator in self.generators:
                z = draw_tempered(generator(z), noise, temperature)
        return z


@prior("hierarchical", "Burda et al. 2016; Tomczak and Welling 2018, section 3", conditional=False, density=True)
def hierarchical(
    event: Sequence[int], posterior: nn.Module, likelihood: nn.Module, width: int, activation: str
) -> Chain:
    """p(z1) = integral p(z1 | z2) N(z2; 0, I) dz2 with q(z2 | z1); z2 has half as many dimensions as z1.

    Arguments:
        event: shape of z1, (D,).
        posterior: q(z1 | x).
        likelihood: p(x | z1).
        width, activation: of the hidden layer of each network between z1 and z2.
    """
    latent = math.prod(event)
    top = max(1, latent // 2)
    down = Conditional(networks.MLP((top,), 2 * latent, (width,), activation), Gaussian((latent,), "learned"))
    up = Conditional(networks.MLP((latent,), 2 * top, (width,), activation), Gaussian((top,), "learned"))
    return Chain(StandardNormal((top,)), [down], [posterior, up], likelihood)


# --- top-down models --------------------------------------------------------------------------------------------


class TopDownPass(Model):
    """Models whose generation and inference share one pass from the top layer down. Abstract.

    The code, all z flattened and concatenated from the top (B, sum_l D_l), is N(0, I) under the prior. So
    interpolation, temperature and densities of codes work as for one layer, and a change at the top also changes the
    layers below.

    Attributes:
        features: the bottom-up pass, x -> one tensor per stage, coarsest first.
        stages: modules with `entered(h)`, the state on the stage's grid, and `layers`, each with `prior`, the density
            of its z, `posterior(h, f)`, the mean and log scale of q(z | x, layers above), and `forward(h, z)`, the next
            state.
        shapes, sizes: shape and number of the latents of each layer, top first.
    """

    features: nn.Module
    stages: nn.ModuleList
    shapes: list[tuple[int, ...]]
    sizes: list[int]

    @abstractmethod
    def begin(self, lead: Sequence[int]) -> Tensor:
        """The state above the first layer for K B samples, (K B, W); `lead` is (K?, B)."""

    def walk(self, lead: Sequence[int], pick: Callable[[int, Any, Tensor], Tensor]) -> Tensor:
        """The state (*lead, W, ...) after the top-down pass, which the likelihood is given.

        Arguments:
            lead: (K?, B).
            pick: pick(stage, layer, h) -> z (N, *shape), for the state h of all N = K B samples.
        """
        h = self.begin(lead)
        for number, stage in enumerate(self.stages):
            h = stage.entered(h)  # type: ignore[operator]
            for layer in stage.layers:  # type: ignore[union-attr]
                h = layer(h, pick(number, layer, h))
        return h.unflatten(0, tuple(lead))

    def trace(self, x: Tensor, c: Tensor | None = None, k: int | None = None, noise: Noise | None = None) -> Trace:
        self._without_condition(c)
        noise = noise or Noise.fresh(len(x), x.device)
        features, latents = self.features(x), []
        lead = (len(x),) if k is None else (k, len(x))

        def pick(number: int, layer: Any, h: Tensor) -> Tensor:
            mean, log_scale = (v.unflatten(0, lead) for v in layer.posterior(h, features[number]))
            normal = Normal(mean, torch.exp(log_scale), validate_args=False)
            q = Independent(normal, mean.dim() - len(lead), validate_args=False)
            z = draw(q, noise)
            latents.append(Latent(z, q, layer.prior()))
            return z.flatten(0, len(lead) - 1)

        px: Distribution = self.likelihood(self.walk(lead, pick))  # collects the latents
        return Trace(tuple(latents), px)

    def encode(self, x: Tensor, c: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        self._without_condition(c)
        features, codes = self.features(x), []

        def pick(number: int, layer: Any, h: Tensor) -> Tensor:
            z, log_scale = layer.posterior(h, features[number])
            if noise is not None:
                z = z + torch.exp(log_scale) * noise.normal(z.shape[1:]).to(z.dtype)
            codes.append(z.flatten(1))
            return z

        self.walk((len(x),), pick)
        return torch.cat(codes, -1)

    def decode(self, z: Tensor) -> Distribution:
        flat = z.flatten(0, -2).split(self.sizes, -1)
        shaped = iter([part.unflatten(-1, shape) for part, shape in zip(flat, self.shapes, strict=True)])
        return self.likelihood(self.walk(z.shape[:-1], lambda *_: next(shaped)))

    def sample(self, n: int, c: Tensor | None = None, noise: Noise | None = None, temperature: float = 1.0) -> Tensor:
        self._without_condition(c)
        like = next(self.likelihood.parameters())
        noise = noise or Noise.fresh(n, like.device)
        with torch.no_grad():
            return temperature * noise.normal((sum(self.sizes),)).to(like.dtype)


def _affine(a: int, b: int, dims: int, kernel: int = 1) -> nn.Linear | nn.Conv1d | nn.Conv2d:
    """A dense layer without a grid (dims = 0), else a convolution that keeps the grid."""
    if dims == 0:
        return nn.Linear(a, b)
    return networks.convolution(dims)(a, b, kernel, padding=kernel // 2)


def _shrunk(layer: nn.Linear | nn.Conv1d | nn.Conv2d, by: float) -> nn.Module:
    """The layer with initial weights multiplied by `by` and bias 0; `by` = 0 makes it start as zero."""
    with torch.no_grad():
        layer.weight.mul_(by)
        layer.bias.zero_()  # type: ignore[union-attr]  # _affine gives it one
    return layer


def soft(raw: Tensor) -> Tensor:
    """A log scale from a raw number: nearly the identity for small numbers, bounded by +-SOFT_RANGE."""
    return SOFT_RANGE * torch.tanh(raw / SOFT_RANGE)


class _Block(nn.Module):
    """h + wide(act(3-wide(act(narrow(act(h)))))): a bottleneck, whose last layer starts small; dense without a grid."""

    def __init__(self, width: int, dims: int, start: float):
        super().__init__()
        middle = width if dims == 0 else max(width // 4, 4)
        self.narrow = _affine(width, middle, dims)
        self.mix = _affine(middle, middle, dims, 3) if dims else nn.Identity()
        self.wide = _shrunk(_affine(middle, width, dims), start)

    def forward(self, h: Tensor) -> Tensor:
        inner = self.narrow(F.silu(h))
        if not isinstance(self.mix, nn.Identity):
            inner = self.mix(F.silu(inner))
        return h + self.wide(F.silu(inner))


class _Layer(nn.Module):
    """One stochastic layer of the top-down pass, on a grid; `depth` is the number of layers of the whole model."""

    def __init__(self, width: int, latent: int, grid: tuple[int, ...], depth: int):
        super().__init__()
        dims = len(grid)
        middle = width if dims == 0 else max(width // 4, 4)
        self.seen, self.above = _affine(width, middle, dims), _affine(width, middle, dims)
        self.mix = _affine(middle, middle, dims, 3)
        self.out = _shrunk(_affine(middle, 2 * latent, dims), 0.0)
        self.scale = _shrunk(_affine(width, latent, dims), 0.0)
        self.project = _shrunk(_affine(latent, width, dims), depth**-0.5)
        self.block = _Block(width, dims, depth**-0.5)
        self.prior = StandardNormal((latent, *grid))

    def posterior(self, h: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log scale of q(z | x, layers above): state h (K * B, W, ...), features f (B, W, ...)."""
        inner = self.above(F.silu(h)).unflatten(0, (-1, len(f))) + self.seen(
            F.silu(f)
        )  # f is processed once for all K samples
        raw = self.out(F.silu(self.mix(F.silu(inner.flatten(0, 1)))))
        mean, log_scale = at_least_single(raw).chunk(2, 1)
        return mean, soft(log_scale)

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        """The next state: z enters with a scale that depends on the layers above."""
        return self.block(h + self.project(torch.exp(soft(self.scale(h))) * z))


class _Stage(nn.Module):
    """All layers on one grid, and the upsampling onto it: dense from a vector, else nearest-neighbour."""

    def __init__(
        self,
        grid: tuple[int, ...],
        width: int,
        latent: int,
        layers: int,
        depth: int,
        above: tuple[int, tuple[int, ...]] | None,
    ):
        super().__init__()
        self.grid, self.width = grid, width
        self.enter: nn.Module | None = None
        self.dense = above is not None and not above[1]
        if above is not None:
            size = width * math.prod(grid) if self.dense else width
            self.enter = _affine(above[0], size, len(above[1]))
        self.layers = nn.ModuleList(_Layer(width, latent, grid, depth) for _ in range(layers))

    def entered(self, h: Tensor) -> Tensor:
        if self.enter is None:
            return h
        h = self.enter(h)
        if self.dense:
            return networks.fastest_layout(h.unflatten(1, (self.width, *self.grid)))
        return F.interpolate(h, size=self.grid, mode="nearest")


class _Features(nn.Module):
    """The bottom-up pass: x (B, *event) -> features (B, W, *grid) of each grid, coarsest first."""

    def __init__(self, event: Sequence[int], grids: Sequence[tuple[int, ...]], widths: Sequence[int], blocks: int):
        super().__init__()
        self.flat = len(grids[-1]) == 0
        dims = len(event) - 1
        halve = networks.convolution(dims)
        ups: list[nn.Module] = []
        into: list[nn.Module] = []
        c, below = event[0], tuple(event[1:])
        for grid, width in reversed(list(zip(grids, widths, strict=True))):
            if self.flat:
                into.append(nn.Linear(math.prod(event), width))
            elif not grid:
                into.append(nn.Sequential(nn.SiLU(), nn.Flatten(), nn.Linear(c * math.prod(below), width)))
            elif not into:
                into.append(halve(c, width, 3, stride=2, padding=1))
            else:
                into.append(nn.Sequential(nn.SiLU(), halve(c, width, 3, stride=2, padding=1)))
            ups.append(nn.Sequential(*[_Block(width, len(grid), 1.0) for _ in range(blocks)]))
            c, below = width, grid
        self.into, self.ups = nn.ModuleList(into), nn.ModuleList(ups)

    def forward(self, x: Tensor) -> list[Tensor]:
        h = x.flatten(1) if self.flat else networks.fastest_layout(x)
        features = []
        for into, up in zip(self.into, self.ups, strict=True):
            h = up(into(h))
            features.append(h)
        return features[::-1]


class _Output(nn.Module):
    """The last state (..., W, *grid) -> raw parameters (..., features): a transposed convolution, or a dense layer."""

    def __init__(self, width: int, grid: tuple[int, ...], event: tuple[int, ...], params: int):
        super().__init__()
        self.dims, self.size = 1 + len(grid), event[1:]
        features = params * math.prod(event)
        if grid:
            self.net: nn.Module = networks.doubling(width, params * event[0], len(grid))
            self.bias: nn.Module = networks.Bias(features)
        else:
            self.net, self.bias = nn.Linear(width, features), nn.Identity()

    def forward(self, h: Tensor) -> Tensor:
        raw = self.net(F.silu(h.flatten(0, -self.dims - 1)))
        raw = networks.cropped(raw, self.size) if self.dims > 1 else raw
        return self.bias(raw.reshape(*h.shape[: -self.dims], -1))


class TopDown(TopDownPass):
    r"""A hierarchy with a top-down pass that generation and inference share, starting from a learned constant.

    p(z_1, ..., z_L) and prod_l q(z_l | x, z_<l): the posterior of each layer depends on bottom-up features f of x on
    its grid and on the state h from the layers above (Sonderby et al. 2016, arXiv:1602.02282; Vahdat and Kautz 2020,
    arXiv:2007.03898; Child 2021, arXiv:2011.10650):

        h <- block(h + W (s(h) * z)),    z ~ N(0, I) or z ~ q(z | x, h) = N(m(h, f), e^{2 l(h, f)})

    The latents z are standardised. With u = s(h) z and the shift that the previous block adds to h, this is the
    conditional Gaussian p(u | layers above) of those papers with the posterior relative to it, and the KL is equal.

    For stability, the last layer of each block and W start scaled by 1 / sqrt(L); s starts at 1 and q at the prior, so
    the rate starts at 0; log scales are softly clamped; there is no normalisation over batch or grid.

    Arguments:
        event: shape of x, (D,), (C, L) or (C, H, W).
        head: of the likelihood.
        layers: number of stochastic layers on each grid, coarsest first; 0 for a grid without latents. The first entry
            is for vectors (dense, no grid). The following grids double in size, and the last is half the size of x.
            For vector data there is only the first entry.
        widths: channels of the state and the features on each grid.
        latents: latent channels on each grid (number of latents for the first entry).
        blocks: residual blocks on each grid of the bottom-up pass.
        values: lowest and highest x, if the bottom-up pass needs it rescaled to -1..1, such as (0, 255); else None.
    """

    def __init__(
        self,
        event: Sequence[int],
        head: Head,
        layers: Sequence[int],
        widths: Sequence[int],
        latents: Sequence[int],
        blocks: int = 1,
        values: tuple[float, float] | None = None,
    ):
        super().__init__()
        event = tuple(event)
        if not len(layers) == len(widths) == len(latents):
            raise ValueError(
                "layers, widths and latents need one number per grid each, got "
                f"{len(layers)}, {len(widths)} and {len(latents)}"
            )
        if min(layers) < 0 or sum(layers) < 1 or min(*widths, *latents) < 1:
            raise ChoiceError(
                f"a model needs at least one layer, and every grid needs channels and latents: got {layers} layers"
            )
        if len(event) == 1 and len(layers) > 1:
            raise ChoiceError(f"vectors have no grids: give one number of layers, not {len(layers)}")
        if len(event) > 1 and len(layers) < 2:
            raise ChoiceError("images and signals have grids: give at least two numbers of layers, such as 2 2 1")
        grids = [(), *networks.grid_sizes(event[1:], len(layers) - 1)[:0:-1]] if len(event) > 1 else [()]
        depth = sum(layers)
        features: nn.Module = _Features(event, grids, widths, blocks)
        self.features = networks.Rescaled(features, *values) if values is not None else features
        self.start = nn.Parameter(torch.zeros(widths[0]))
        above: list[tuple[int, tuple[int, ...]] | None] = [None, *zip(widths, grids, strict=True)]
        self.stages = nn.ModuleList(
            _Stage(grid, width, latent, count, depth, over)
            for grid, width, latent, count, over in zip(grids, widths, latents, layers, above[:-1], strict=True)
        )
        self.likelihood = Conditional(_Output(widths[-1], grids[-1], event, head.params), head)
        self.shapes = [layer.prior.event for _, layer in self._layers()]
        self.sizes = [math.prod(shape) for shape in self.shapes]

    def _layers(self) -> Iterator[tuple[_Stage, _Layer]]:
        for stage in self.stages:
            assert isinstance(stage, _Stage)
            for layer in stage.layers:
                assert isinstance(layer, _Layer)
                yield stage, layer

    def begin(self, lead: Sequence[int]) -> Tensor:
        return self.start.expand(*lead, -1).reshape(-1, len(self.start))


def top_down(
    event: Sequence[int],
    head: Head,
    layers: Sequence[int] | None = None,
    width: int | None = None,
    latent: int | None = None,
    blocks: int = 1,
    values: tuple[float, float] | None = None,
) -> TopDown:
    """A `TopDown` model for data of any shape, small enough to train on two CPU cores.

    Arguments:
        layers: stochastic layers on each grid, coarsest first, as in `TopDown`. By default 3 for vectors; for images 2
            without a grid, 2 on the coarsest grid (7 x 7 for 28 x 28, 8 x 8 for 64 x 64) and 1 on each finer one.
        width: channels on the finest grid, doubled on each coarser one up to 4 times; for vectors, of all layers.
        latent: latent channels on each grid; 8 times as many latents without a grid. For vectors, latents per layer.
        event, head, blocks, values: as in `TopDown`.
    """
    if len(event) == 1:
        layers = (3,) if layers is None else layers
        width, latent = width or 256, latent or max(1, min(16, event[0] // 4))
        return TopDown(event, head, layers, (width,), (latent,), blocks, values)
    if layers is None:
        layers = (2, 2, *[1] * (networks.default_levels(event[1:], 8) - 1))
    width, latent = width or 32, latent or 4
    grids = len(layers) - 1
    widths = [min(2**i, 4) * width for i in range(grids)]
    return TopDown(
        event,
        head,
        layers,
        (min(2**grids, 4) * width, *widths[::-1]),
        (8 * latent, *[latent] * grids),
        blocks,
        values,
    )
