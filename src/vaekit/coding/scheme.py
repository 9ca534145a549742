"""What all ways of coding the data of a model share: its networks, what is known, and what an archive stores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit.densities import draw
from vaekit.errors import ChoiceError
from vaekit.heads import Conditional, Head
from vaekit.heads.autoregressive import AutoregressiveHead
from vaekit.heads.mixed import Masked, MixedHead
from vaekit.noise import Key, Noise

from . import likelihoods
from .ans import Integers, Stack
from .latents import OTHER_BITS, Bins
from .rounded import Rounded, Tables, groups_of, innermost
from .rounding import Bools


@dataclass
class Batch:
    """What is known of B data apart from x.

    Attributes:
        missing: (B, n) the elements that are missing.
        c: the condition (B, C), if the model is conditional.
        total: the total count of each row (B, 1), if the model takes it as known.
    """

    missing: Bools
    c: Tensor | None = None
    total: Tensor | None = None

    def __len__(self) -> int:
        return len(self.missing)


class Scheme(ABC):
    """A model as networks with rounded outputs, and the order in which its variables are coded. Abstract.

    Arguments:
        model: the model in the precision in which its networks are evaluated.
        exact: the same model in float64, whose heads turn rounded numbers into densities.
        tolerance: see `rounding`.

    Attributes:
        networks: by name.
        top: the largest count in the data.
    """

    def __init__(self, model: Any, exact: Any, tolerance: float):
        self.model, self.exact, self.tolerance = model, exact, tolerance
        self.dtype = next((p.dtype for p in model.parameters()), torch.float64)
        self.top = 0
        self.networks: dict[str, Rounded] = {}
        self.px = self.add("likelihood", model.likelihood, exact.likelihood)
        head = exact.likelihood.head
        held = head.held if isinstance(head, Masked | AutoregressiveHead) else None
        self.event = tuple(head.event)
        self.held = np.full(self.event, np.nan) if held is None else held.double().numpy()

    def add(self, name: str, module: nn.Module, exact: nn.Module) -> Rounded:
        """The network of a conditional density, with the head in float64."""
        if not (isinstance(module, Conditional) and isinstance(exact, Conditional)):
            raise ChoiceError(
                f"the {name} of this run is a {type(module).__name__}, which cannot be coded: train a run with "
                "`recipe='vae'`, `recipe='mixture'`, `recipe='vamp'`, `recipe='hierarchical'`, `recipe='ladder'`, "
                "`recipe='vq'` or `recipe='fsq'`"
            )
        self.networks[name] = Rounded(name, module.net, exact.head, groups_of(exact.head), self.tolerance)
        return self.networks[name]

    def given(self, *given: Tensor | None) -> list[Tensor]:
        """The inputs of a network in its precision, without those that are None."""
        return [g.to(self.dtype) for g in given if g is not None]

    def x_of(self, values: Integers, batch: Batch) -> Tensor:
        """x (B, *event), float64, of values (B, n): nan where it is missing, and the fixed elements at their value."""
        x = np.where(np.isnan(self.held.ravel()), values, self.held.ravel())
        return torch.from_numpy(np.where(batch.missing, np.nan, x)).reshape(len(values), *self.event)

    def tables(self, batch: Batch) -> Tables:
        """The tables of densities of x."""
        known = batch.missing, self.top
        return lambda px, shift: likelihoods.coded(px, *known, shift, self.tolerance, self.px.change)

    def tune(self, x: Tensor, batch: Batch) -> None:
        """Choose the grids by some data x (n, *event), float64."""
        for network, raw, value in self.observed(x, batch):
            network.tune(raw, value)

    def tune_shifts(self, x: Tensor, values: Integers, batch: Batch) -> None:
        """Choose the tables of shifts by coding some data."""
        self.encode(Stack(1), x, values, batch)
        for network in self.networks.values():
            network.tune_shifts()

    @abstractmethod
    def observed(self, x: Tensor, batch: Batch) -> Iterator[tuple[Rounded, Tensor, Tensor]]:
        """Yields each network with its raw numbers for the data x, and the values of its density."""

    @abstractmethod
    def fit(self, x: Tensor, batch: Batch) -> None:
        """Choose the bins of latents by some data, if they are not given."""

    @property
    @abstractmethod
    def drawn(self) -> int:
        """The number of latents of a datum that are drawn before bits come back."""

    @abstractmethod
    def encode(self, stack: Stack, x: Tensor, values: Integers, batch: Batch) -> None:
        """Push data: x (B, *event), and the same as whole numbers (B, n)."""

    @abstractmethod
    def decode(self, stack: Stack, batch: Batch) -> Integers:
        """Pop data (B, n), the inverse of `encode`."""

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {"networks": {name: network.to_json() for name, network in self.networks.items()}, "top": self.top}

    def from_json(self, stored: dict[str, Any]) -> None:
        """Set up everything as the encoder had it.

        Raises:
            KeyError, TypeError, ValueError: the stored numbers are not those of this model.
        """
        self.top = int(stored["top"])
        if not 0 <= self.top < 2**53:
            raise ValueError("the largest count is out of range")
        for name, network in self.networks.items():
            network.from_json(stored["networks"][name])


def bins_to_json(bins: Bins) -> list[list[float]]:
    """What `bins_from_json` takes."""
    return [bins.loc.tolist(), bins.scale.tolist()]


def bins_from_json(stored: Any, dims: int) -> Bins:
    """The bins of so many latents.

    Raises:
        TypeError, ValueError: the stored numbers are not those of such bins.
    """
    loc, scale = (np.array([float(v) for v in part]) for part in stored)
    if len(loc) != dims or len(scale) != dims or not (np.isfinite(loc).all() and (scale > 0).all()):
        raise ValueError("the bins are those of another model")
    return Bins(OTHER_BITS, loc, scale)


def shown(density: Distribution, n: int, key: Key = Key.CODES) -> Tensor:
    """One draw per datum, the same at each call."""
    return draw(density, Noise.of(0, n, key))


def check_discrete(head: nn.Module | None, name: str) -> None:
    """Raise ChoiceError if a likelihood is not discrete; real columns of a table may be constant."""
    if isinstance(head, Head) and head.discrete:
        return
    table = innermost(head) if isinstance(head, Head) else None
    if not isinstance(table, MixedHead | AutoregressiveHead):
        raise ChoiceError(
            f"the likelihood {type(head).__name__ if head else name} of this run is a density of real numbers, which "
            "have no size in bytes: train a run on whole numbers with a discrete likelihood, such as "
            "`likelihood='discretised-logistic'` for 8-bit images, `likelihood='bernoulli'` for binary ones, or "
            "`likelihood='negative-binomial'` for counts"
        )
    fixed = head.held if isinstance(head, Masked | AutoregressiveHead) else None
    held = np.full(len(table.columns), np.nan) if fixed is None else fixed.cpu().numpy()
    real = [c.name for c, value in zip(table.columns, held, strict=True) if c.kind == "real" and np.isnan(value)]
    if real:
        raise ChoiceError(
            f"the columns {', '.join(map(repr, real[:6]))}{' ...' * (len(real) > 6)} of this run hold real numbers, "
            f"which have no size in bytes: train a run without them (`drop={real[0]!r}`), or if they are whole "
            f"numbers, as counts (`types={{{real[0]!r}: 'counts'}}`)"
        )
