"""The scale of codes: densities are fitted to standardised codes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .densities import Posteriors


@dataclass(frozen=True)
class Scale:
    """Standardises codes z to u = (z - loc) / scale, in the dimensions that vary, and maps them back."""

    loc: Tensor  # (D,)
    scale: Tensor  # (D,), 0 for dimensions that do not vary

    @classmethod
    def of(cls, z: Tensor) -> Scale:
        """The scale of codes z (N, D)."""
        spread = z.double().std(0, correction=0)
        return cls(z.double().mean(0).float(), torch.where(spread > 1e-6 * spread.max(), spread, 0.0).float())

    @property
    def varies(self) -> Tensor:
        """Which dimensions vary, bool (D,)."""
        return self.scale > 0

    def standardise(self, z: Tensor) -> Tensor:
        """The standardised codes of z (N, D), in the dimensions that vary."""
        return (z[:, self.varies] - self.loc[self.varies]) / self.scale[self.varies]  # no 0 / 0 in the gradient

    def of_posteriors(self, p: Posteriors) -> Posteriors:
        """The posteriors of standardised codes, in the dimensions that vary."""
        return Posteriors(self.standardise(p.mean), (p.spread / self.scale)[:, self.varies], p.c)

    def restore(self, u: Tensor, temperature: float = 1.0) -> Tensor:
        """The codes (n, D) of u (n, d), with their deviations from the mean scaled by `temperature`."""
        z = self.loc.expand(len(u), -1).clone()
        z[:, self.varies] += temperature * u * self.scale[self.varies]
        return z

    @property
    def log_jacobian(self) -> float:
        """log |du / dz|."""
        return -float(torch.log(self.scale[self.varies].double()).sum())

    def grid(self, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """The shape (C, *size) of standardised codes, if that of the codes is `shape` and all dimensions vary."""
        whole = shape is not None and bool(self.varies.all()) and math.prod(shape) == len(self.scale)
        return shape if whole else None
