"""What every observation has, and the observation that leaves raw data unchanged."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from vaekit.noise import Noise


def moments(blocks: Callable[[], Iterable[Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and variance of each element over all rows, float64 (*event), in two passes over the blocks.

    Missing values (nan) are ignored; an element without values has mean 0 and variance 0.
    """
    n, total = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    base: Tensor | None = None  # subtracted to keep sums small, and exactly zero for constant elements
    for block in blocks():
        present = ~torch.isnan(block)
        if base is None:
            least = torch.where(present, block.double(), math.inf).amin(0)
            base = torch.where(torch.isfinite(least), least, 0)
        n, total = n + present.sum(0), total + torch.where(present, block.double() - base, 0).sum(0)
    mean = total / n.clamp_min(1) + (0 if base is None else base)
    squares = torch.zeros_like(mean)
    for block in blocks():
        squares = squares + torch.where(torch.isnan(block), 0, block.double() - mean).square().sum(0)
    return mean, squares / n.clamp_min(1)


class Observation(nn.Module, ABC):
    """Maps raw rows (B, *event) to x (B, *event), float32. Abstract.

    Attributes:
        kind: name of the observation in protocols.
        support: the support of x, a torch constraint.
        stochastic: whether x is random given the raw datum; training draws it at each step, evaluation once.
        bounded: whether raw values must lie in the range of the training data.
        uneven: whether log |d x / d raw| depends on x.
        network_range: the lowest and the highest x if a network must be given x rescaled; None if x is of order 1.
        seen: with missing values, the fraction of the training rows that have each element, (*event).
    """

    kind: str = ""
    support: constraints.Constraint = constraints.real
    stochastic: bool = False
    bounded: bool = False
    uneven: bool = False
    network_range: tuple[float, float] | None = None
    seen: Tensor

    @property
    def x_range(self) -> tuple[float, float] | None:
        """The lowest and the highest x, if they are known."""
        return self.network_range or ((0.0, 1.0) if self.bounded else None)

    @property
    def in_double(self) -> bool:
        """Whether raw data are processed in float64, because float32 cannot resolve their differences."""
        return any(buffer.dtype == torch.float64 for buffer in self.buffers())

    def for_export(self) -> Observation:
        """This observation in float32, the precision of exported graphs, without parts that these data do not use."""
        return copy.deepcopy(self).float() if self.in_double else self

    def masked(self, event: tuple[int, ...]) -> Observation:
        """Prepare for data with missing values and return self; `fit` then also measures `seen`."""
        self.register_buffer("seen", torch.ones(event))
        return self

    def hold(self, constant: Sequence[tuple[int, float]]) -> dict[int, float]:
        """Record the elements that are constant in the training rows, as (position, raw value).

        Returns:
            The value of x, by position, of the elements that the likelihood must fix at it. Only observations with
            one scale per element need this, because a constant element has none; the others return nothing.
        """
        return {}

    def fit(self, blocks: Callable[[], Iterable[Tensor]]) -> None:
        """Measure the statistics that the observation needs on the raw training rows, which come in blocks."""
        if "seen" in self._buffers:
            n, present = 0, torch.zeros(self.seen.shape, dtype=torch.float64)
            for block in blocks():
                n, present = n + len(block), present + (~torch.isnan(block)).sum(0)
            self.seen.copy_(present / n)

    @abstractmethod
    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        """The x (B, *event) of raw rows (B, *event), float32; `noise` is needed if the observation is `stochastic`."""

    def expected(self, raw: Tensor) -> Tensor:
        """x as a function of the raw row alone: of a random observation, its expectation (or one fixed draw)."""
        if not self.stochastic:
            return self(raw)
        return self(raw, Noise.of(0, torch.zeros(len(raw), dtype=torch.int64, device=raw.device)))

    def check(self, raw: np.ndarray) -> None:
        """Check that raw rows (N, *event) hold valid values of their kind; missing values pass.

        Raises:
            DataError: a value is not valid; the message names the first one.
        """

    @property
    def sound(self) -> bool:
        """Whether the statistics, measured or loaded, have possible values."""
        return "seen" not in self._buffers or bool(((self.seen >= 0) & (self.seen <= 1)).all())

    @abstractmethod
    def to_raw(self, x: Tensor) -> Tensor:
        """x, or a mean of x, in the units of the data: float32, or float64 if the data need it."""

    def mean_in_units(self, px: Distribution) -> Tensor:
        """The mean of p(x|z) in the units of the data, (..., *event), on the device of the observation.

        Elements without a mean, such as categories, have their most probable value.
        """
        buffer = next(self.buffers(), None)
        return self.to_raw(px.mean if buffer is None else px.mean.to(buffer.device))

    def log_units(self, event: tuple[int, ...]) -> Tensor:
        """log |d x / d raw| of each element, float64 (*event) on the CPU; if it is `uneven`, the mean over training."""
        return torch.zeros(event, dtype=torch.float64)

    def log_units_of(self, x: Tensor) -> Tensor:
        """log |d x / d raw| of each element of x (B, *event), 0 where it is missing, in the dtype of x."""
        units = self.log_units(tuple(x.shape[1:])).to(x.device, x.dtype)
        return torch.where(torch.isnan(x), 0.0, units)

    def log_jacobian(self, event: tuple[int, ...]) -> float:
        """log |d x / d raw| per datum in nats: log p(x) plus this constant is the log density in the data's units.

        With missing values, or if it is `uneven`, the average over the training data; `log_jacobian_of` returns it for
        each datum.
        """
        units = self.log_units(event)
        return float((units * self.seen.cpu() if "seen" in self._buffers else units).sum())

    def log_jacobian_of(self, x: Tensor) -> Tensor:
        """log |d x / d raw| of each datum x (B, *event), summed over its observed elements, float64 (B,) on the CPU."""
        if self.uneven:
            return self.log_units_of(x).cpu().double().flatten(1).sum(1)
        units = self.log_units(tuple(x.shape[1:]))
        return torch.where(torch.isnan(x).cpu(), 0.0, units).flatten(1).sum(1)

    def _needs(self, noise: Noise | None) -> Noise:
        if noise is None:
            raise ValueError(f"the {self.kind!r} observation is random: pass `noise`")
        return noise


class Identity(Observation):
    """x = raw."""

    kind = "raw"

    def forward(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        return raw.float()

    def to_raw(self, x: Tensor) -> Tensor:
        return x.float()
