"""Discrete latents: vector quantisation, finite scalar quantisation, and priors over sequences of codes.

A quantised VAE is an ordinary `VAE(prior, posterior, likelihood)`. The encoder's numbers are cut into `positions`
vectors, each replaced by the nearest of a few (its code); z is those vectors side by side, flat. The posterior is a
probability of a discrete choice, all of it on the codes chosen, so log q(z | x) = 0 and

    log p(x) >= log p(x | z) + sum_i log P(c_i | c_<i),

with no other gap than the encoder's refusal to say anything but one sequence of codes: K samples of it are one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from . import nets
from .conditional import Conditional, Head
from .distributions import _from_noise
from .model import VAE
from .noise import Noise

START_ROWS, START_VECTORS, START_SEED = 1000, 8192, 97
"""How many data, and how many of their vectors, a codebook starts from; the seed of its choice among them."""


# --- quantisers -------------------------------------------------------------------------------------------------


class Choice(NamedTuple):
    """What a quantiser made of vectors (..., dim)."""

    codes: Tensor  # (...) int64
    encoded: Tensor  # (..., dim): what the gradient of z goes to
    entries: Tensor  # (..., dim): the vectors of the codes


class Quantiser(nn.Module):
    """Vectors (..., dim) -> the nearest of `codes` vectors. Abstract.

    Attributes:
        codes: how many there are.
        dim: numbers a vector.
    """

    codes: int
    dim: int

    def forward(self, e: Tensor) -> Choice:
        """The codes of an encoder's vectors (..., dim)."""
        raise RuntimeError(f"{type(self).__name__} does not define forward")

    def nearest(self, v: Tensor) -> Tensor:
        """The codes (...) of vectors (..., dim) that are entries, or of the nearest entries. No gradient."""
        raise RuntimeError(f"{type(self).__name__} does not define nearest")

    def lookup(self, codes: Tensor) -> Tensor:
        """The entries (..., dim) of codes (...). No gradient."""
        raise RuntimeError(f"{type(self).__name__} does not define lookup")

    def penalties(self, q: Coded) -> tuple[Tensor, Tensor]:
        """What is minimised beside the distortion: for the encoder and for the codebook, each (B,). Here nothing."""
        nothing = q.encoded.new_zeros(len(q.codes))
        return nothing, nothing

    def learn(self, q: Coded, noise: Noise) -> None:
        """Learn from the choices of a training batch what is not learned by gradients. Here nothing."""

    def initialise(self, e: Tensor) -> None:
        """Start from an encoder's vectors (n, dim). Here nothing."""


def _exact(e: Tensor) -> Tensor:
    return e.float() if e.dtype in (torch.bfloat16, torch.float16) else e


class VectorQuantiser(Quantiser):
    r"""A learned codebook (van den Oord et al. 2017, arXiv:1711.00937).

    With `decay` d, entry i is the running mean m_i / N_i of the vectors that chose it (their appendix A.1),

        N_i <- d N_i + (1 - d) n_i / n,    m_i <- d m_i + (1 - d) sum_{e chose i} e / n,

    n the vectors of the batch: shares instead of their counts, which leaves m_i / N_i as it is in batches of one size,
    and makes the statistics of several processes' rows a mean of theirs. Distances are sums of squared differences
    in float32 whatever the network ran in, so that a code never depends on which others stand beside it.

    An entry that fewer than `restart` of an even share chose is dead, and becomes a vector of the batch (Dhariwal et
    al. 2020): entry i is offered the datum at place (i + shift) mod `codes` of each batch, where there is one, at a
    position drawn; `shift` and position come from the keyed noise. An offer is taken when the codebook is next read.

    Arguments:
        codes: entries of the codebook.
        dim: numbers an entry.
        decay: of the running means; None learns the entries by the gradient of |sg(e) - entry|^2 instead (their
            equation 3), without restarts.
        commitment: beta of their equation 3. The penalty is beta |e - sg(entry)|^2, summed over the datum's positions
            and numbers, beside a distortion in nats a datum: beta is in nats a unit of squared distance.
        restart: the share of an even share below which an entry is dead; 0 restarts none.
    """

    usage: Tensor
    total: Tensor
    offer: Tensor
    offered: Tensor

    def __init__(
        self, codes: int, dim: int, decay: float | None = 0.99, commitment: float = 0.25, restart: float = 0.03
    ):
        super().__init__()
        if codes < 1 or dim < 1:
            raise ValueError(f"codes and dim must be 1 or more, got {codes} and {dim}")
        if decay is not None and not 0 <= decay < 1:
            raise ValueError(f"decay must be None or lie in [0, 1), got {decay}")
        if not commitment >= 0 or not 0 <= restart < 1:
            raise ValueError(f"commitment must be 0 or more and restart in [0, 1), got {commitment}, {restart}")
        self.codes, self.dim, self.decay, self.commitment, self.restart = codes, dim, decay, commitment, restart
        entries = torch.randn(codes, dim)
        if decay is None:
            self.entries = nn.Parameter(entries)
        else:
            self.register_buffer("usage", torch.full((codes,), 1 / codes))
            self.register_buffer("total", entries / codes)
            self.register_buffer("offer", torch.zeros(codes, dim))
            self.register_buffer("offered", torch.zeros(codes))

    def _settled(self) -> tuple[Tensor, Tensor]:
        """Usage and totals, offers taken: an entry restarted counts as one of an even share."""
        dead = (self.usage < self.restart / self.codes) & (self.offered > 0)
        # over several processes an offer is a sum weighted by their rows, and so is the mark that there is one
        fresh = self.offer / torch.where(self.offered > 0, self.offered, 1)[:, None]
        usage = torch.where(dead, 1 / self.codes, self.usage)
        return usage, torch.where(dead[:, None], fresh / self.codes, self.total)

    @property
    def codebook(self) -> Tensor:
        """The entries, (codes, dim)."""
        if self.decay is None:
            return self.entries
        usage, total = self._settled()
        return total / usage.clamp_min(torch.finfo(usage.dtype).tiny)[:, None]

    def nearest(self, v: Tensor) -> Tensor:
        codebook = self.codebook.detach()
        flat = v.detach().reshape(-1, self.dim).to(codebook.dtype)
        distance = torch.cdist(flat, codebook, compute_mode="donot_use_mm_for_euclid_dist")  # float32 in autocast too
        return distance.argmin(-1).reshape(v.shape[:-1])

    def lookup(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self.codebook.detach())

    def forward(self, e: Tensor) -> Choice:
        codes = self.nearest(e)
        return Choice(codes, _exact(e), F.embedding(codes, self.codebook))

    def penalties(self, q: Coded) -> tuple[Tensor, Tensor]:
        commitment = self.commitment * (q.encoded - q.entries.detach()).square().flatten(1).sum(1)
        if self.decay is not None:
            return commitment, torch.zeros_like(commitment)
        return commitment, (q.encoded.detach() - q.entries).square().flatten(1).sum(1)

    @torch.no_grad()
    def learn(self, q: Coded, noise: Noise) -> None:
        if self.decay is None:
            return
        with torch.autocast(q.encoded.device.type, enabled=False):
            usage, total = self._settled()
            vectors = q.encoded.detach().reshape(-1, self.dim).to(total.dtype)
            chosen = q.codes.reshape(-1, 1) == torch.arange(self.codes, device=q.codes.device)
            chosen = chosen.to(total.dtype) / len(vectors)
            self.usage.copy_(usage.lerp(chosen.sum(0), 1 - self.decay))
            self.total.copy_(total.lerp(chosen.T @ vectors, 1 - self.decay))
            self._offer(q.encoded.detach().to(total.dtype), noise)

    def _offer(self, e: Tensor, noise: Noise) -> None:
        """Note which vectors of e (B, positions, dim) the entries are offered."""
        shared = Noise(noise.base, torch.full((1,), -1, device=noise.rows.device))  # the same in every process
        shift = (shared.uniform((1,))[0, 0] * self.codes).long()
        position = (noise.uniform((1,)) * e.shape[1]).long().clamp(max=e.shape[1] - 1)  # (B, 1)
        vectors = torch.take_along_dim(e, position[..., None], 1)[:, 0]
        there = (noise.rows < self.codes).to(e.dtype)
        place = torch.remainder(noise.rows - shift, self.codes)
        self.offer.zero_().index_add_(0, place, vectors * there[:, None])
        self.offered.zero_().index_add_(0, place, there)

    @torch.no_grad()
    def initialise(self, e: Tensor) -> None:
        """Entries from vectors e (n, dim), far apart from each other: k-means++ (Arthur and Vassilvitskii 2007)."""
        some = _exact(e)[torch.linspace(0, len(e) - 1, min(len(e), START_VECTORS)).long()].to(self.codebook.dtype)
        u = Noise.of(START_SEED, 1, device=e.device).uniform((self.codes,))[0]
        found = [some[0]]
        distance = (some - found[0]).square().sum(-1)
        for i in range(1, self.codes):
            sums = distance.cumsum(0)
            place = torch.searchsorted(sums, u[i] * sums[-1], right=True).clamp(max=len(some) - 1)
            found.append(some[place])
            distance = torch.minimum(distance, (some - found[-1]).square().sum(-1))
        entries = torch.stack(found)
        if self.decay is None:
            self.entries.copy_(entries)
        else:
            self.usage.fill_(1 / self.codes)
            self.total.copy_(entries / self.codes)
            self.offered.zero_()


class FiniteScalarQuantiser(Quantiser):
    r"""Every number rounded to one of a few levels of its own (Mentzer et al. 2023, arXiv:2309.15505).

    With L levels, u = (L - 1) (1 + tanh e) / 2 and j = round(u) in 0 .. L-1; the entry is 2 j / (L - 1) - 1, evenly
    spaced on [-1, 1], and the gradient goes to e as if j were u. There is no codebook to learn and no penalty. For odd
    L this is the paper's; for even L theirs is moved by half a level to have one at 0, here the levels are symmetric.

    Arguments:
        levels: levels of each number, 2 or more; there are prod(levels) codes. A code counts its first number fastest.
    """

    sizes: Tensor
    strides: Tensor

    def __init__(self, levels: Sequence[int] = (8, 5, 5, 5)):
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError(f"every number needs 2 or more levels, got {tuple(levels)}")
        self.levels, self.codes, self.dim = tuple(levels), math.prod(levels), len(levels)
        strides = [1, *itertools.accumulate(levels[:-1], lambda a, b: a * b)]
        self.register_buffer("sizes", torch.tensor(self.levels), persistent=False)
        self.register_buffer("strides", torch.tensor(strides), persistent=False)

    def _index(self, places: Tensor) -> Tensor:
        """Codes of levels' numbers (..., dim), whole floats."""
        return (places.long() * self.strides).sum(-1)

    def nearest(self, v: Tensor) -> Tensor:
        top = (self.sizes - 1).to(v.dtype)
        places = ((v.detach() + 1) / 2 * top).round()
        return self._index(torch.minimum(places.clamp(min=0), top))

    def lookup(self, codes: Tensor) -> Tensor:
        places = torch.div(codes[..., None], self.strides, rounding_mode="floor") % self.sizes
        return self._values(places.to(torch.get_default_dtype()))

    def _values(self, places: Tensor) -> Tensor:
        return 2 * places / (self.sizes - 1).to(places.dtype) - 1

    def forward(self, e: Tensor) -> Choice:
        bounded = torch.tanh(_exact(e))
        top = (self.sizes - 1).to(bounded.dtype)
        places = ((bounded.detach() + 1) / 2 * top).round()
        return Choice(self._index(places), bounded, self._values(places))


# --- posterior --------------------------------------------------------------------------------------------------


class Coded(Distribution):
    """All probability on one sequence of codes a datum: batch (B,), event (positions * dim,).

    Its draw is the codes' entries exactly, with the straight-through gradient (Bengio et al. 2013): the gradient at
    an entry goes to the encoder's vector unchanged.

    Attributes:
        codes: (B, positions).
        encoded, entries: (B, positions, dim), as in `Choice`.
        loc: the entries, flat: (B, positions * dim).
    """

    arg_constraints: ClassVar = {}
    has_rsample = True

    def __init__(self, choice: Choice):
        self.codes, self.encoded, self.entries = choice
        # e - sg(e) is 0 exactly, so z is an entry to the last bit; e + sg(entry - e) is not
        self.loc = (self.entries.detach() + (self.encoded - self.encoded.detach())).flatten(-2)
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.loc

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.loc.expand(*sample_shape, *self.loc.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """log of a probability: 0 at the codes, -inf anywhere else."""
        here = (value.detach() == self.loc.detach()).all(-1)
        return torch.where(here, 0.0, -math.inf).to(self.loc.dtype)


@_from_noise.register
def _(d: Coded, noise: Noise, event, k):
    return d.rsample(() if k is None else (k,))


class QuantisedEncoder(nn.Module):
    """q(z | x) of a quantised VAE: `net` puts out positions * dim numbers, one position after the other.

    Arguments:
        net: x (, c) -> (B, positions * dim).
        quantiser: of a position's vector.
        positions: codes a datum.
    """

    def __init__(self, net: nn.Module, quantiser: Quantiser, positions: int):
        super().__init__()
        self.net, self.quantiser, self.positions = net, quantiser, positions

    def vectors(self, *given: Tensor) -> Tensor:
        """What is to be quantised, (B, positions, dim)."""
        return self.net(*given).unflatten(-1, (self.positions, self.quantiser.dim))

    def forward(self, *given: Tensor) -> Coded:
        return Coded(self.quantiser(self.vectors(*given)))

    @torch.no_grad()
    def start(self, *given: Tensor) -> None:
        """Start the codebook from a sample of x (n, *event)."""
        n = min(len(given[0]), START_ROWS)
        rows = torch.linspace(0, len(given[0]) - 1, n, device=given[0].device).long()
        found = [self.vectors(*(g[block] for g in given)).flatten(0, 1) for block in rows.split(100)]
        self.quantiser.initialise(torch.cat(found))


# --- prior ------------------------------------------------------------------------------------------------------


class IndependentCodes(nn.Module):
    """P(codes) = prod_i P_i(c_i): a table of logits, even at the start."""

    def __init__(self, positions: int, codes: int):
        super().__init__()
        self.positions = positions
        self.logits = nn.Parameter(torch.zeros(positions, codes))

    def forward(self, codes: Tensor) -> Tensor:
        """Logits (N, positions, codes) of each code of (N, positions) given those before it."""
        return self.logits.expand(len(codes), *self.logits.shape)

    def generate(self, n: int, choose: Callable[[int, Tensor], Tensor]) -> Tensor:
        """n sequences (n, positions), code by code: choose(i, logits (n, codes)) -> (n,)."""
        return torch.stack([choose(i, row.expand(n, -1)) for i, row in enumerate(self.logits)], 1)


class _Block(nn.Module):
    """A causal transformer's block: attention and a dense layer, each after a layer norm and added to its input."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dense = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, past: list[Tensor] | None = None) -> Tensor:
        """h (N, T, width); with `past` it is the one position after those whose keys and values `past` holds."""
        q, k, v = self.qkv(self.norm1(h)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (N, heads, T, .)
        if past is not None:
            if past:
                k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
            past[:] = [k, v]
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=past is None)
        h = h + self.proj(seen.transpose(1, 2).flatten(2))
        return h + self.dense(self.norm2(h))


class AutoregressiveCodes(nn.Module):
    """P(codes) = prod_i P(c_i | c_<i) by a small causal transformer (Vaswani et al. 2017) with learned positions.

    One net serves sequences and grids (row by row: the learned positions know what is above), where a PixelCNN needs
    a grid and a masked dense net positions * codes inputs. All conditionals come out of one pass in training; in
    sampling, keys and values are kept, so that a code costs one position. Even at the start: -log P = positions log
    codes.

    Arguments:
        positions: codes a datum.
        codes: how many there are.
        width: of the transformer, a multiple of `heads`.
        layers: its blocks.
        heads: of the attention.
    """

    def __init__(self, positions: int, codes: int, width: int = 64, layers: int = 2, heads: int = 4):
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads ({heads}), got {width}")
        self.positions = positions
        self.token = nn.Embedding(codes, width)
        self.first = nn.Parameter(torch.zeros(width))
        self.place = nn.Parameter(0.02 * torch.randn(positions, width))
        self.blocks = nn.ModuleList([_Block(width, heads) for _ in range(layers)])
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, codes)
        nn.init.normal_(self.token.weight, std=0.02)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, codes: Tensor) -> Tensor:
        """Logits (N, positions, codes) of each code of (N, positions) given those before it."""
        before = self.token(codes[:, :-1])
        h = torch.cat([self.first.expand(len(codes), 1, -1), before], 1) + self.place
        for block in self.blocks:
            h = block(h)
        return self.out(self.norm(h))

    def generate(self, n: int, choose: Callable[[int, Tensor], Tensor]) -> Tensor:
        """n sequences (n, positions), code by code: choose(i, logits (n, codes)) -> (n,)."""
        past: list[list[Tensor]] = [[] for _ in self.blocks]
        before, found = self.first.expand(n, -1), []
        for i in range(self.positions):
            h = (before + self.place[i])[:, None]
            for block, kept in zip(self.blocks, past, strict=True):
                h = block(h, kept)
            found.append(choose(i, self.out(self.norm(h))[:, 0]))
            before = self.token(found[-1])
        return torch.stack(found, 1)


def _once(f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """f(z) for z (K?, B, D): once where the K are views of one, as the draws of a point mass are."""
    if z.dim() == 3 and len(z) > 1 and z.stride(0) == 0:
        found = f(z[0])
        return found.expand(len(z), *found.shape)
    return f(z)


class CodeSequence(Distribution):
    """A distribution over flat quantised vectors: batch (), event (positions * dim,).

    Arguments:
        net: logits of each code given those before it.
        quantiser: turns codes into vectors and back.
        temperature: divides the logits of every code given those before it; at 0 the likeliest one is certain.
    """

    arg_constraints: ClassVar = {}

    def __init__(self, net: IndependentCodes | AutoregressiveCodes, quantiser: Quantiser, temperature: float = 1.0):
        self.net, self.quantiser, self.temperature = net, quantiser, temperature
        super().__init__(torch.Size(), torch.Size((net.positions * quantiser.dim,)), validate_args=False)

    def tempered(self, temperature: float) -> CodeSequence:
        """The same with all logits divided by `temperature`."""
        return CodeSequence(self.net, self.quantiser, temperature)

    def _log_shares(self, logits: Tensor) -> Tensor:
        """log P of each code, (..., codes), in float32 at least."""
        logits = _exact(logits)
        if self.temperature == 0:
            likeliest = F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
            return torch.log(likeliest)
        return torch.log_softmax(logits / self.temperature, -1)

    def log_prob_of(self, codes: Tensor) -> Tensor:
        """log P of sequences (..., positions): (...)."""
        shares = self._log_shares(self.net(codes.reshape(-1, self.net.positions)))
        return shares.gather(-1, codes.reshape(-1, self.net.positions, 1)).sum((-2, -1)).reshape(codes.shape[:-1])

    def log_prob(self, value: Tensor) -> Tensor:
        """log P of the codes nearest to flat vectors (..., positions * dim). No gradient goes to them."""

        def of(z: Tensor) -> Tensor:
            return self.log_prob_of(self.quantiser.nearest(z.unflatten(-1, (self.net.positions, self.quantiser.dim))))

        return _once(of, value)

    @torch.no_grad()
    def sample_codes(self, u: Tensor) -> Tensor:
        """Sequences (n, positions) from uniform numbers of that shape, by inverting each code's distribution."""

        def choose(i: int, logits: Tensor) -> Tensor:
            if self.temperature == 0:
                return logits.argmax(-1)
            sums = self._log_shares(logits).exp().cumsum(-1)
            return (sums <= u[:, i, None] * sums[:, -1:]).sum(-1).clamp(max=logits.shape[-1] - 1)

        return self.net.generate(len(u), choose)


@_from_noise.register
def _(d: CodeSequence, noise: Noise, event, k):
    u = noise.uniform((d.net.positions,), k)
    codes = d.sample_codes(u.flatten(0, -2))
    return d.quantiser.lookup(codes).flatten(-2).reshape(*u.shape[:-1], -1)


class CodePrior(nn.Module):
    """p(z) of a quantised VAE: `net` says the codes' probabilities, the encoder's own `quantiser` their vectors.

    The quantiser is a part of the encoder, and here is only looked into: registered under two names its parameters
    would not be put back by torch's `functional_call`, which swaps them name by name.
    """

    def __init__(self, net: IndependentCodes | AutoregressiveCodes, quantiser: Quantiser):
        super().__init__()
        self.net = net
        self._of_encoder = (quantiser,)  # in a tuple, so that it is not registered

    @property
    def quantiser(self) -> Quantiser:
        return self._of_encoder[0]

    def forward(self, *given: Tensor) -> CodeSequence:
        return CodeSequence(self.net, self.quantiser)


# --- networks ---------------------------------------------------------------------------------------------------


def grid_of(event: Sequence[int], levels: int) -> tuple[int, ...]:
    """The grid of codes of images (C, H, W) or signals (C, L) after `levels` halvings, rounded up."""
    return nets._sizes(event[1:], levels)[-1]


class GridEncoder(nn.Module):
    """Strided convolutions and residual blocks: `dim` numbers a place of the grid, flat, row by row.

    Each of `channels` halves the grid (rounding up); `blocks` residual blocks follow at the last. Any C x H x W, C x L.
    """

    def __init__(self, event: Sequence[int], dim: int, channels: Sequence[int] = (32, 64), blocks: int = 1):
        super().__init__()
        c, *size = event
        self.dims = len(event)
        conv = nn.Conv1d if len(size) == 1 else nn.Conv2d
        layers: list[nn.Module] = []
        for width in channels:
            layers += [conv(c, width, 3, stride=2, padding=1), nn.GroupNorm(nets._groups(width), width), nn.SiLU()]
            c = width
        layers += [nets.Residual(c, len(size)) for _ in range(blocks)]
        self.convs = nn.Sequential(*layers, conv(c, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.convs(x.reshape(-1, *x.shape[-self.dims :]))
        return h.flatten(2).transpose(1, 2).reshape(*x.shape[: -self.dims], -1)


class Offset(nn.Linear):
    """A number added to each of `features`: a dense layer without weights, so `nets.set_output_bias` can set it."""

    def __init__(self, features: int):
        nn.Module.__init__(self)
        self.in_features, self.out_features = 0, features
        self.register_parameter("weight", None)
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class GridDecoder(nn.Module):
    """The way back from a flat grid of vectors: residual blocks, transposed convolutions, an offset an element.

    Arguments:
        event: shape of x, (C, H, W) or (C, L).
        dim: numbers a place of the grid.
        params: numbers put out for each of x.
        channels, blocks: as of `GridEncoder`.
    """

    def __init__(
        self, event: Sequence[int], dim: int, params: int = 1, channels: Sequence[int] = (32, 64), blocks: int = 1
    ):
        super().__init__()
        c, *size = event
        conv = nn.Conv1d if len(size) == 1 else nn.Conv2d
        self.grids = nets._sizes(size, len(channels))[::-1]
        widths = [*channels][::-1]
        self.inp = nn.Sequential(
            conv(dim, widths[0], 3, padding=1), *[nets.Residual(widths[0], len(size)) for _ in range(blocks)]
        )
        self.steps = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(nets._groups(a), a), nn.SiLU(), nets.doubling(a, b, len(size)))
            for a, b in itertools.pairwise([*widths, params * c])
        )
        self.offset = Offset(params * math.prod(event))

    def forward(self, z: Tensor) -> Tensor:
        places = math.prod(self.grids[0])
        h = z.reshape(-1, places, z.shape[-1] // places).transpose(1, 2).unflatten(-1, self.grids[0])
        h = self.inp(h)
        for step, grid in zip(self.steps, self.grids[1:], strict=True):
            h = nets.cropped(step(h), grid)
        return self.offset(h.reshape(*z.shape[:-1], -1))


class Once(nn.Module):
    """`net` on z (K?, B, D), run once where the K are one and the same."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, z: Tensor) -> Tensor:
        return _once(self.net, z)


# --- models -----------------------------------------------------------------------------------------------------

PriorNet = Callable[[int, int], IndependentCodes | AutoregressiveCodes]


def quantised_vae(
    encoder: nn.Module,
    decoder: nn.Module,
    head: Head,
    quantiser: Quantiser,
    positions: int,
    prior: PriorNet = AutoregressiveCodes,
) -> VAE:
    """A VAE with discrete latents from networks of one's own: x -> positions * quantiser.dim -> head.features.

    Train it with `objectives.Quantised`; `prior(positions, codes)` makes the net of the prior.
    """
    posterior = QuantisedEncoder(encoder, quantiser, positions)
    return VAE(CodePrior(prior(positions, quantiser.codes), quantiser), posterior, Conditional(Once(decoder), head))


def _vae(
    event: Sequence[int],
    head: Head,
    quantiser: Quantiser,
    channels: Sequence[int],
    blocks: int,
    positions: int | None,
    hidden: Sequence[int],
    prior: PriorNet,
    scale: tuple[float, float] | None,
) -> VAE:
    if positions is None:
        positions = math.prod(grid_of(event, len(channels)))
        params, rest = divmod(head.features, math.prod(event))
        if rest:
            raise ValueError(f"{type(head).__name__} has no whole number of parameters an element: give positions")
        encoder: nn.Module = GridEncoder(event, quantiser.dim, channels, blocks)
        decoder: nn.Module = GridDecoder(event, quantiser.dim, params, channels, blocks)
    else:
        encoder = nets.MLP(event, positions * quantiser.dim, hidden)
        decoder = nets.MLP((positions * quantiser.dim,), head.features, hidden[::-1])
    if scale is not None:
        encoder = nets.Rescaled(encoder, *scale)
    return quantised_vae(encoder, decoder, head, quantiser, positions, prior)


def vq_vae(
    event: Sequence[int],
    head: Head,
    *,
    codes: int = 128,
    dim: int = 16,
    decay: float | None = 0.99,
    commitment: float = 0.25,
    channels: Sequence[int] = (32, 64),
    blocks: int = 1,
    positions: int | None = None,
    hidden: Sequence[int] = (300, 300),
    prior: PriorNet = AutoregressiveCodes,
    scale: tuple[float, float] | None = None,
) -> VAE:
    """A VQ-VAE with a learned prior (van den Oord et al. 2017, arXiv:1711.00937).

    Arguments:
        event: shape of x: (C, H, W), (C, L) or, with `positions`, any.
        head: of the likelihood.
        codes, dim, decay, commitment: of the `VectorQuantiser`.
        channels: of the convolutions, finest first; each halves the grid, so 28 x 28 has 7 x 7 codes with two.
        blocks: residual blocks at the grid of codes, in encoder and decoder.
        positions: with it the networks are dense, for that many codes a datum.
        hidden: widths of dense networks.
        prior: makes the prior's net from (positions, codes).
        scale: lowest and highest x where they are far from -1 .. 1, such as (0, 255) of `Levels`.
    """
    quantiser = VectorQuantiser(codes, dim, decay, commitment)
    return _vae(event, head, quantiser, channels, blocks, positions, hidden, prior, scale)


def fsq_vae(
    event: Sequence[int],
    head: Head,
    *,
    levels: Sequence[int] = (8, 6, 5),
    channels: Sequence[int] = (32, 64),
    blocks: int = 1,
    positions: int | None = None,
    hidden: Sequence[int] = (300, 300),
    prior: PriorNet = AutoregressiveCodes,
    scale: tuple[float, float] | None = None,
) -> VAE:
    """The same with `FiniteScalarQuantiser(levels)` (Mentzer et al. 2023, arXiv:2309.15505): no codebook to learn."""
    return _vae(event, head, FiniteScalarQuantiser(levels), channels, blocks, positions, hidden, prior, scale)
