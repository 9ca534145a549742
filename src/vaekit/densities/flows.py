"""Normalising flows: invertible maps of N(0, I), their steps, and their densities.

A step is a module; `bind(h)` returns its map, with its current weights and a context h (..., H) if it has one. A
density therefore keeps the weights it was made with: the density of a frozen copy of a module stays frozen.

Flows are computed in float32 at least, also under autocast: draw and density must be inverse to each other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vaekit.noise import Noise

from .drawing import Drawn, Tempered

KINDS = ("affine", "spline")
BINS, BOUND = 8, 6.0
"""The number of bins of a spline on [-BOUND, BOUND]; outside that interval it is the identity."""
REACH = 2.0
"""The largest |log| of a coupling's parameters: scales, relative widths and heights of bins, slopes at knots."""


def exact(like: Tensor) -> torch.autocast:
    """A context that turns autocast off on the device of `like`."""
    return torch.autocast(like.device.type, enabled=False)


class Map(NamedTuple):
    """An invertible map z = f(e): both directions return the image (..., D) and log |det df/de| (...)."""

    forward: Callable[[Tensor], tuple[Tensor, Tensor]]
    inverse: Callable[[Tensor], tuple[Tensor, Tensor]]


class Flow(Drawn, Tempered):
    """The density of z = f_T(... f_1(e)), e ~ N(0, t^2 I); t is 1 except for tempered draws.

    `mean` is the flow's centre f(0), the image of the base's mean; the true mean has no closed form.
    """

    def __init__(self, maps: Sequence[Map], batch: Sequence[int], zero: Tensor, temperature: float = 1.0):
        self.maps, self.zero, self.temperature = tuple(maps), zero, temperature
        super().__init__(batch, zero.shape[-1])

    def tempered(self, temperature: float) -> Flow:
        """The flow with the deviations of its base times `temperature`: at 0 a point at the centre."""
        return Flow(self.maps, self.batch_shape, self.zero, temperature)

    def _base(self, e: Tensor) -> Tensor:
        """log N(t e; 0, t^2 I) for e already divided by t."""
        return -0.5 * e.square().sum(-1) - e.shape[-1] * (0.5 * math.log(2 * math.pi) + self._log_temperature)

    @property
    def _log_temperature(self) -> float:
        return math.log(self.temperature) if self.temperature > 0 else -math.inf

    def _forward(self, e: Tensor) -> tuple[Tensor, Tensor]:
        total = torch.zeros_like(e[..., 0])
        with exact(e):
            for f in self.maps:
                e, log_det = f.forward(e)
                total = total + log_det
        return e, total

    @property
    def mean(self) -> Tensor:
        return self._forward(self.zero.expand(*self.batch_shape, -1))[0]

    def log_prob(self, value: Tensor) -> Tensor:
        e, total = value.to(self.zero.dtype), torch.zeros_like(value[..., 0])
        with exact(value):
            for f in reversed(self.maps):
                e, log_det = f.inverse(e)
                total = total + log_det
        return self._base(e / self.temperature) - total

    def _drawn(self, noise: Noise, k: int | None) -> tuple[Tensor, Tensor]:
        e = noise.normal(self.event_shape, k).to(self.zero.dtype)
        z, total = self._forward(e * self.temperature)
        return z, self._base(e) - total


def affine_map(loc: Tensor, log_scale: Tensor) -> Map:
    """z = loc + e^{log_scale} e, elementwise."""

    def forward(e: Tensor) -> tuple[Tensor, Tensor]:
        return loc + torch.exp(log_scale) * e, log_scale.sum(-1)

    def inverse(z: Tensor) -> tuple[Tensor, Tensor]:
        return (z - loc) * torch.exp(-log_scale), log_scale.sum(-1)

    return Map(forward, inverse)


class Net(nn.Module):
    """Dense layers with ELUs over x (..., D) and a context (..., H), which enters at the first layer.

    The weights of the last layer start at zero, so that its bias alone sets how a flow starts. `masks` (0 or 1)
    multiply the weights between x and the output.
    """

    def __init__(
        self, dims: int, context: int, features: int, hidden: Sequence[int], masks: Sequence[Tensor] | None = None
    ):
        super().__init__()
        if not hidden:
            raise ValueError("the networks of a flow need at least one hidden layer")
        widths = [dims, *hidden, features]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.context = nn.Linear(context, hidden[0], bias=False) if context else None
        self.masked = masks is not None
        for i, mask in enumerate(masks or ()):
            self.register_buffer(f"mask{i}", mask, persistent=False)
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.layers[-1].bias)  # type: ignore[arg-type]

    def bind(self, h: Tensor | None) -> Callable[[Tensor], Tensor]:
        """The network as a function of x (..., D), with its current weights."""
        weights: list[tuple[Tensor, Tensor]] = []
        for i, layer in enumerate(self.layers):
            w, b = layer.weight, layer.bias
            weights.append((w * getattr(self, f"mask{i}") if self.masked else w, b))  # type: ignore[arg-type]
        context = None if self.context is None or h is None else F.linear(h, self.context.weight)

        def net(x: Tensor) -> Tensor:
            y = F.linear(x, *weights[0])
            if context is not None:
                y = y + context
            for w, b in weights[1:]:
                y = F.linear(F.elu(y), w, b)
            return y

        return net


# --- couplings --------------------------------------------------------------------------------------------------


def _bounded(raw: Tensor) -> Tensor:
    return REACH * torch.tanh(raw / REACH)


def _affine(x: Tensor, raw: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """x (..., m) scaled and shifted elementwise by raw (..., 2, m), or the inverse; and the forward map's log slope."""
    shift, raw_scale = raw.unbind(-2)
    log_scale = _bounded(raw_scale)
    if inverse:
        return (x - shift) * torch.exp(-log_scale), log_scale
    return x * torch.exp(log_scale) + shift, log_scale


def _spline(x: Tensor, raw: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """Monotone rational-quadratic splines of each element, raw (..., 3 BINS - 1, m); the identity where raw is zero.

    Durkan et al. (2019), with identity tails; raw numbers are bounded, so that no bin is too steep for float32. The bin
    of each element is selected by a sum over all bins, because compilers fuse its few operations, unlike gathers.
    """
    result: tuple[Tensor, Tensor] = _Spline.apply(x, raw, inverse)
    return result


class _Spline(torch.autograd.Function):
    """`_spline`, with its gradient in closed form, in a third of the operations of automatic differentiation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, raw: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        bounded = _bounded(raw)
        sizes, slopes = torch.exp(bounded).split([2 * BINS, BINS - 1], -2)
        sizes = sizes.unflatten(-2, (2, BINS))
        sizes = sizes / sizes.sum(-2, keepdim=True)  # widths and heights; the bins fill the unit square
        corners = F.pad(sizes.cumsum(-2)[..., :-1, :], (0, 0, 1, 0))  # the lower left corners
        knots = F.pad(slopes, (0, 0, 1, 1), value=1.0).unsqueeze(-3)
        bins = torch.cat([corners, sizes, knots[..., :-1, :], knots[..., 1:, :]], -3)  # (..., 6, BINS, m)
        inside = (x.abs() < BOUND).to(x.dtype)
        u = (x.clamp(-BOUND, BOUND) + BOUND) / (2 * BOUND)
        past = u.unsqueeze(-2) >= corners[..., 1 if inverse else 0, 1:, :]  # past the ends of all bins but the last
        past = F.pad(F.pad(past.to(x.dtype), (0, 0, 1, 0), value=1.0), (0, 0, 0, 1))
        chosen, later = past[..., :-1, :] - past[..., 1:, :], past[..., 1:, :]
        # the bin that u is in: its lower left corner, its width and height, its slopes at both ends
        x0, y0, w, h, d0, d1 = (bins * chosen.unsqueeze(-3)).sum(-2).unbind(-2)
        s = h / w
        bend = d0 + d1 - 2 * s
        if inverse:
            v = ((u - y0) / h).clamp(0, 1)
            a, b = s - d0 + v * bend, d0 - v * bend
            root = torch.sqrt((b * b + 4 * a * s * v).clamp_min(1e-20))
            t = (2 * s * v / (b + root)).clamp(0, 1)  # the position in the bin, 0 at its left end
        else:
            t = ((u - x0) / w).clamp(0, 1)
        rest = 1 - t
        between = t * rest
        rise = d1 * t**2 + 2 * s * between + d0 * rest**2
        below = s + bend * between
        share = (s * t**2 + d0 * between) / below  # of the bin's height
        slope = rise * (s / below) ** 2
        image = 2 * BOUND * (x0 + w * t if inverse else y0 + h * share) - BOUND
        ctx.inverse, ctx.shapes = inverse, (x.shape, raw.shape)
        ctx.save_for_backward(
            bounded, sizes, slopes, chosen, later, inside, w, h, d0, d1, s, bend, t, rise, below, share, slope
        )
        return x.lerp(image, inside), torch.log(slope) * inside

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (bounded, sizes, slopes, chosen, later, inside, w, h, d0, d1, s, bend, t, rise, below, share, slope) = (
            ctx.saved_tensors
        )
        of_image, of_log = gradients[0] * inside, gradients[1] * inside
        tail = gradients[0] - of_image
        of_image = of_image * (2 * BOUND)  # the gradient of the image in the unit square
        rest, rise = 1 - t, 1 / rise
        between, turn = t * rest, 1 - 2 * t
        below = 1 / below
        bent, squares = between * below, (1 - 2 * between) * below
        # the derivatives of log slope with respect to t, s, d0 and d1
        log_t = 2 * ((d1 * t + s * turn - d0 * rest) * rise - bend * turn * below)
        log_s = 2 * (1 / s + between * rise - squares)
        log_0, log_1 = rest**2 * rise - 2 * bent, t**2 * rise - 2 * bent
        if ctx.inverse:  # t is the solution of y0 + h share(t) = u
            by_height = -(of_image * w + of_log * log_t) / (slope * w)
            by_u, by_x0, by_w = -by_height, of_image, of_image * t
        else:
            by_height = of_image
            by_u = of_image * slope + of_log * log_t / w
            by_x0, by_w = -by_u, -by_u * t
        scaled = by_height * h
        by_s = scaled * (t**2 * below - share * squares) + of_log * log_s
        by_0 = scaled * bent * (1 - share) + of_log * log_0
        by_1 = of_log * log_1 - scaled * bent * share
        by_h, by_w = by_height * share + by_s / w, by_w - by_s * s / w
        of_corners = torch.stack([by_x0, by_height], -2).unsqueeze(-2)
        of_sizes = torch.stack([by_w, by_h], -2).unsqueeze(-2)
        of_sizes = chosen.unsqueeze(-3) * of_sizes + later.unsqueeze(-3) * of_corners  # (..., 2, BINS, m)
        of_sizes = sizes * (of_sizes - (sizes * of_sizes).sum(-2, keepdim=True))
        of_slopes = slopes * (chosen[..., 1:, :] * by_0.unsqueeze(-2) + chosen[..., :-1, :] * by_1.unsqueeze(-2))
        of_raw = torch.cat([of_sizes.flatten(-3, -2), of_slopes], -2) * (1 - (bounded / REACH).square())
        shape, raw_shape = ctx.shapes
        return (tail + by_u / (2 * BOUND)).sum_to_size(shape), of_raw.sum_to_size(raw_shape), None


class Coupling(nn.Module):
    """Maps half of the dimensions elementwise, with parameters from a network of the other half and the context.

    `turn` modulo 4 selects the dimensions that are mapped: the second half, the first half, those of odd index, those
    of even index. Dinh et al. (2017) for `affine`, Durkan et al. (2019) for `spline`. Starts as the identity.
    """

    def __init__(self, dims: int, context: int, hidden: Sequence[int], kind: str, turn: int = 0):
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
        self.turn, self.kind = turn % 4 if dims > 1 else 0, kind
        self.params = 2 if kind == "affine" else 3 * BINS - 1
        kept, moved = (p.shape[-1] for p in self._split(torch.zeros(dims)))
        self.net = Net(max(kept, 1), context, self.params * moved, hidden)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The half that is kept and the half that is mapped."""
        half = x.shape[-1] // 2
        if self.turn < 2:
            a, b = x[..., :half], x[..., half:]
        else:
            a, b = x[..., 0::2], x[..., 1::2]
        return (b, a) if self.turn % 2 else (a, b)

    def _join(self, kept: Tensor, moved: Tensor) -> Tensor:
        a, b = (moved, kept) if self.turn % 2 else (kept, moved)
        if self.turn < 2:
            return torch.cat([a, b], -1)
        n = b.shape[-1]
        return torch.cat([torch.stack([a[..., :n], b], -1).flatten(-2), a[..., n:]], -1)

    def bind(self, h: Tensor | None = None) -> Map:
        """The map for a context h (..., H), with the current weights of its network."""
        net, elementwise = self.net.bind(h), _affine if self.kind == "affine" else _spline

        def run(x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
            kept, moved = self._split(x)
            raw = net(kept if kept.shape[-1] else torch.zeros_like(moved))  # with one dimension, nothing is kept
            raw = raw.unflatten(-1, (self.params, -1))
            image, log_slope = elementwise(moved, raw, inverse)
            if kept.shape[:-1] != image.shape[:-1]:
                kept = kept.expand(*image.shape[:-1], -1)  # the value may have fewer axes than the context
            return self._join(kept, image), log_slope.sum(-1)

        return Map(lambda e: run(e, False), lambda z: run(z, True))


# --- inverse autoregressive steps -------------------------------------------------------------------------------


class Autoregressive(nn.Module):
    r"""z_i = s_i e_i + (1 - s_i) m_i with s_i in (0, 1) and m_i functions of e_1 .. e_{i-1} and the context.

    Kingma et al. (2016), equation 14, with the masks of Germain et al. (2015). The forward map takes one pass of the
    network, its inverse one pass per dimension. `backwards` reverses the order of the dimensions. Starts with
    s = sigmoid(2).
    """

    def __init__(self, dims: int, context: int, hidden: Sequence[int], backwards: bool = False):
        super().__init__()
        order = torch.arange(1, dims + 1)
        self.dims, self.backwards = dims, backwards
        order = order.flip(0) if backwards else order
        # a hidden unit of degree d depends on the first d dimensions and the context; degree 0 on the context only
        degrees = [order, *(torch.arange(width) * dims // width for width in hidden)]
        masks = [(b[:, None] >= a).float() for a, b in itertools.pairwise(degrees)]
        masks.append((torch.cat([order, order])[:, None] > degrees[-1]).float())
        self.net = Net(dims, context, 2 * dims, hidden, masks)
        with torch.no_grad():
            self.net.layers[-1].bias[dims:].fill_(2.0)  # type: ignore[index]

    def bind(self, h: Tensor | None = None) -> Map:
        """The map for a context h (..., H), with the current weights of its network."""
        net = self.net.bind(h)
        order = range(self.dims - 1, -1, -1) if self.backwards else range(self.dims)

        def forward(e: Tensor) -> tuple[Tensor, Tensor]:
            m, gate = net(e).chunk(2, -1)
            return m + torch.sigmoid(gate) * (e - m), F.logsigmoid(gate).sum(-1)

        def inverse(z: Tensor) -> tuple[Tensor, Tensor]:
            e = torch.zeros_like(z)
            for i in order:
                m, gate = net(e).chunk(2, -1)
                values = m + (z - m) * (1 + torch.exp(-gate))
                current = (torch.arange(self.dims, device=z.device) == i).expand(values.shape)
                e = torch.where(current, values, e)
            return e, F.logsigmoid(net(e).chunk(2, -1)[1]).sum(-1)

        return Map(forward, inverse)


def vector_dims(event: Sequence[int], least: int = 1) -> int:
    """The number of dimensions D of an event (D,).

    Raises:
        ValueError: the event is not a vector, or D is below `least`.
    """
    if len(event) != 1 or event[0] < least:
        raise ValueError(f"this density is over vectors of {least} or more dimensions, not over events {tuple(event)}")
    return event[0]
