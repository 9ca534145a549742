"""Quantisers: learned codebooks, and levels of each number."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.densities.special import at_least_single
from vaekit.noise import Noise

from .coded import Choice, Coded

START_VECTORS, START_SEED = 8192, 97
"""Number of vectors that initialise a codebook, and the seed of the choice."""
USAGE_DECAY = 0.99
"""Decay of the running usage of entries by which a codebook that learns by gradients detects dead entries."""


class Quantiser(nn.Module, ABC):
    """Replaces vectors (..., T, dim) by the nearest of `codes` entries, in one stage or in several. Abstract.

    With several stages, each stage has a code for what those before leave of a vector, and there are P = T * stages
    codes, stage by stage within a vector; with one stage, P = T.

    Attributes:
        codes: number of values of a code.
        dim: size of a vector.
        stages: codes per vector.
    """

    codes: int
    dim: int
    stages: int = 1

    @abstractmethod
    def forward(self, e: Tensor) -> Choice:
        """The codes (..., P) of the encoder's vectors (..., T, dim)."""

    @abstractmethod
    def nearest(self, v: Tensor) -> Tensor:
        """The codes (..., P) of the entries nearest to vectors (..., P, dim), without gradient."""

    @abstractmethod
    def lookup(self, codes: Tensor) -> Tensor:
        """The entries (..., P, dim) of codes (..., P), without gradient."""

    @abstractmethod
    def tables(self) -> list[Tensor]:
        """The entries of each stage, (codes, dim), with their gradient."""

    def placed(self, e: Tensor) -> Tensor:
        """The encoder's vectors where they are compared with the entries: by default unchanged."""
        return e

    @property
    def metric(self) -> Tensor:
        """The weight of each dimension (dim,) in the squared distances of a stochastic posterior: by default 1."""
        return torch.ones(self.dim, device=self.tables()[0].device)

    @property
    def first_scale(self) -> float:
        """The s of a stochastic posterior at the start; by default, the entries are standard normal."""
        return math.sqrt(self.dim)

    def penalties(self, q: Coded) -> tuple[Tensor, Tensor]:
        """Penalties for the encoder and for the codebook, each (B,); by default 0."""
        nothing = q.encoded.new_zeros(len(q.codes))
        return nothing, nothing

    def learn(self, q: Coded, noise: Noise) -> None:
        """Update what is not learned by gradients from a training batch; by default nothing."""

    def initialise(self, e: Tensor) -> None:
        """Initialise from an encoder's vectors (n, dim); by default nothing."""


def nearest_entries(v: Tensor, codebook: Tensor) -> Tensor:
    """The indices (...) of the entries of a codebook (K, dim) that are nearest to vectors (..., dim)."""
    codebook = codebook.detach()
    flat = v.detach().reshape(-1, v.shape[-1]).to(codebook.dtype)
    distance = torch.cdist(flat, codebook, compute_mode="donot_use_mm_for_euclid_dist")  # float32 in autocast too
    return distance.argmin(-1).reshape(v.shape[:-1])


class VectorQuantiser(Quantiser):
    r"""A learned codebook (van den Oord et al. 2017, arXiv:1711.00937).

    With `decay` d, entry i is the running mean m_i / N_i of the vectors that chose it (their appendix A.1),

        N_i <- d N_i + (1 - d) n_i / n,    m_i <- d m_i + (1 - d) sum_{e chose i} e / n,

    where n is the number of vectors in the batch. Shares n_i / n instead of counts give the same m_i / N_i for batches
    of one size, and can be averaged over processes. Distances are sums of squared differences in float32, so that a
    code does not depend on the rest of the batch.

    An entry whose usage falls below `restart` times the even share is dead and is replaced by a vector of the batch
    (Dhariwal et al. 2020). In each batch, entry i is offered one vector of the example in row (i + shift) mod `codes`,
    if there is one, at a random position; `shift` and the position come from the keyed noise. A dead entry takes its
    offer when the codebook is next read. If entries learn by gradients, a restart is stored in the buffer `moved`,
    which is added to the parameter, so that parameters change by gradients only.

    Arguments:
        codes: number of entries.
        dim: size of an entry.
        decay: of the running means; None learns the entries by the gradient of |sg(e) - entry|^2 instead (equation 3
            of the paper).
        commitment: beta of equation 3. The penalty is beta |e - sg(entry)|^2, summed over an example's positions and
            dimensions; beta is in nats per unit of squared distance.
        restart: entries with a usage below this multiple of the even share are dead; 0 for no restarts.
    """

    usage: Tensor
    total: Tensor
    moved: Tensor
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
            self.register_buffer("moved", torch.zeros(codes, dim))
        else:
            self.register_buffer("total", entries / codes)
        self.register_buffer("usage", torch.full((codes,), 1 / codes))
        self.register_buffer("offer", torch.zeros(codes, dim))
        self.register_buffer("offered", torch.zeros(codes))

    def _settled(self) -> tuple[Tensor, Tensor]:
        """Usage and `total` (or `moved`) after taking offers; a restarted entry has the even share."""
        dead = (self.usage < self.restart / self.codes) & (self.offered > 0)
        # over several processes, the offer and its mark are sums weighted by their rows
        fresh = self.offer / torch.where(self.offered > 0, self.offered, 1)[:, None]
        usage = torch.where(dead, 1 / self.codes, self.usage)
        if self.decay is None:
            return usage, torch.where(dead[:, None], fresh - self.entries.detach(), self.moved)
        return usage, torch.where(dead[:, None], fresh / self.codes, self.total)

    @property
    def codebook(self) -> Tensor:
        """The entries, (codes, dim)."""
        usage, total = self._settled()
        if self.decay is None:
            return self.entries + total
        return total / usage.clamp_min(torch.finfo(usage.dtype).tiny)[:, None]

    def tables(self) -> list[Tensor]:
        return [self.codebook]

    def nearest(self, v: Tensor) -> Tensor:
        return nearest_entries(v, self.codebook)

    def lookup(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self.codebook.detach())

    def forward(self, e: Tensor) -> Choice:
        codes = self.nearest(e)
        return Choice(codes, at_least_single(e), F.embedding(codes, self.codebook))

    def penalties(self, q: Coded) -> tuple[Tensor, Tensor]:
        commitment = self.commitment * (q.encoded - q.entries.detach()).square().flatten(1).sum(1)
        if self.decay is not None:
            return commitment, torch.zeros_like(commitment)
        return commitment, (q.encoded.detach() - q.entries).square().flatten(1).sum(1)

    @torch.no_grad()
    def learn(self, q: Coded, noise: Noise) -> None:
        decay = USAGE_DECAY if self.decay is None else self.decay
        with torch.autocast(q.encoded.device.type, enabled=False):
            usage, total = self._settled()
            vectors = q.encoded.detach().reshape(-1, self.dim).to(total.dtype)
            chosen = vectors.new_zeros(len(vectors), self.codes)
            chosen.scatter_(1, q.codes.reshape(-1, 1), 1 / len(vectors))
            self.usage.copy_(usage.lerp(chosen.sum(0), 1 - decay))
            if self.decay is None:
                self.moved.copy_(total)
            else:
                self.total.copy_(total.lerp(chosen.T @ vectors, 1 - decay))
            self._offer(q.encoded.detach().to(total.dtype), noise)

    def _offer(self, e: Tensor, noise: Noise) -> None:
        """Store the vectors of e (B, positions, dim) that are offered to the entries."""
        shared = Noise(noise.base, torch.full((1,), -1, device=noise.rows.device))  # the same in every process
        shift = (shared.uniform((1,))[0, 0] * self.codes).long()
        position = (noise.uniform((1,)) * e.shape[1]).long().clamp(max=e.shape[1] - 1)  # (B, 1)
        vectors = torch.take_along_dim(e, position[..., None], 1)[:, 0]
        has_entry = (noise.rows < self.codes).to(e.dtype)
        entry = torch.remainder(noise.rows - shift, self.codes)
        self.offer.zero_().index_add_(0, entry, vectors * has_entry[:, None])
        self.offered.zero_().index_add_(0, entry, has_entry)

    @torch.no_grad()
    def initialise(self, e: Tensor) -> None:
        """Choose distant entries from vectors e (n, dim) by k-means++ (Arthur and Vassilvitskii 2007)."""
        vectors = at_least_single(e)[torch.linspace(0, len(e) - 1, min(len(e), START_VECTORS)).long()].to(
            self.codebook.dtype
        )
        u = Noise.of(START_SEED, 1, device=e.device).uniform((self.codes,))[0]
        chosen = [vectors[0]]
        distance = (vectors - chosen[0]).square().sum(-1)
        for i in range(1, self.codes):
            sums = distance.cumsum(0)
            index = torch.searchsorted(sums, u[i] * sums[-1], right=True).clamp(max=len(vectors) - 1)
            chosen.append(vectors[index])
            distance = torch.minimum(distance, (vectors - chosen[-1]).square().sum(-1))
        entries = torch.stack(chosen)
        if self.decay is None:
            self.entries.copy_(entries)
            self.moved.zero_()
        else:
            self.total.copy_(entries / self.codes)
        self.usage.fill_(1 / self.codes)
        self.offered.zero_()


class FiniteScalarQuantiser(Quantiser):
    r"""Rounds every number to one of its levels (Mentzer et al. 2023, arXiv:2309.15505).

    With L levels, u = (L - 1) (1 + tanh e) / 2 and j = round(u) in 0 .. L-1; the entry is 2 j / (L - 1) - 1, evenly
    spaced on [-1, 1], and the gradient goes to e as if j were u. There is no codebook to learn and no penalty. For odd
    L this is the paper's rule; for even L the paper shifts the levels so that one is 0, here they are symmetric.

    Arguments:
        levels: number of levels of each dimension, at least 2; there are prod(levels) codes, and the first dimension
            varies fastest.
    """

    sizes: Tensor
    strides: Tensor

    def __init__(self, levels: Sequence[int] = (8, 6, 5)):
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError(f"every dimension needs 2 or more levels, got {tuple(levels)}")
        self.levels, self.codes, self.dim = tuple(levels), math.prod(levels), len(levels)
        strides = [1, *itertools.accumulate(levels[:-1], lambda a, b: a * b)]
        self.register_buffer("sizes", torch.tensor(self.levels), persistent=False)
        self.register_buffer("strides", torch.tensor(strides), persistent=False)

    def _index(self, indices: Tensor) -> Tensor:
        """The codes of level indices (..., dim), given as floats."""
        return (indices.long() * self.strides).sum(-1)

    def tables(self) -> list[Tensor]:
        return [self.lookup(torch.arange(self.codes, device=self.sizes.device))]

    def placed(self, e: Tensor) -> Tensor:
        return torch.tanh(e)

    @property
    def metric(self) -> Tensor:
        return ((self.sizes - 1) / 2).square().float()  # the unit is the distance of neighbouring levels

    @property
    def first_scale(self) -> float:
        return 1.0

    def nearest(self, v: Tensor) -> Tensor:
        top = (self.sizes - 1).to(v.dtype)
        indices = ((v.detach() + 1) / 2 * top).round()
        return self._index(torch.minimum(indices.clamp(min=0), top))

    def lookup(self, codes: Tensor) -> Tensor:
        indices = torch.div(codes[..., None], self.strides, rounding_mode="floor") % self.sizes
        return self._values(indices.to(torch.get_default_dtype()))

    def _values(self, indices: Tensor) -> Tensor:
        return 2 * indices / (self.sizes - 1).to(indices.dtype) - 1

    def forward(self, e: Tensor) -> Choice:
        bounded = torch.tanh(at_least_single(e))
        top = (self.sizes - 1).to(bounded.dtype)
        indices = ((bounded.detach() + 1) / 2 * top).round()
        return Choice(self._index(indices), bounded, self._values(indices))
