"""A posterior that puts all its probability on one sequence of codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from vaekit.densities.drawing import Keyed
from vaekit.noise import Noise


class Choice(NamedTuple):
    """The output of a quantiser for vectors (..., dim)."""

    codes: Tensor  # (...) int64
    encoded: Tensor  # (..., dim): the encoder's vectors, which receive the gradient of z
    entries: Tensor  # (..., dim): the vectors of the codes


class Coded(Keyed):
    """All probability on one sequence of codes per example: batch (B,), event (positions * dim,).

    A sample consists of exactly the codes' entries. Its gradient is straight-through (Bengio et al. 2013): the gradient
    at an entry is passed unchanged to the encoder's vector.

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

    def drawn_codes(self, noise: Noise) -> Tensor:
        """The codes, whatever the noise: (B, P)."""
        return self.codes

    def log_prob(self, value: Tensor) -> Tensor:
        """The log probability: 0 at the codes, -inf elsewhere."""
        matches = (value.detach() == self.loc.detach()).all(-1)
        return torch.where(matches, 0.0, -math.inf).to(self.loc.dtype)

    def keyed_draw(self, noise: Noise, event: Sequence[int], k: int | None) -> Tensor:
        return self.rsample(() if k is None else (k,))


def once(f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """f(z) for z (K?, B, D); computed only once if the K samples are views of one sample, as for a point mass."""
    if z.dim() == 3 and len(z) > 1 and z.stride(0) == 0:
        value = f(z[0])
        return value.expand(len(z), *value.shape)
    return f(z)
