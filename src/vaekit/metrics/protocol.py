"""What a number means: two numbers are comparable only when their protocols agree."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from vaekit.errors import ChoiceError


@dataclass(frozen=True)
class Protocol:
    """Everything that a reported number depends on besides the model.

    Attributes:
        data, digest: the data set's name and content hash.
        split, n: which part of it, and how many of its first data.
        observation: how raw data become x; `draw` is the hash of the frozen draw where they are drawn.
        estimator, K: how the number was computed, with how many importance samples.
        dims: dimensions of one datum.
        seed, precision: of the evaluation.
        units: what one unit of x is.
        groups: in how many groups the data lie, where they were split by group and standard errors are by group.
    """

    data: str
    digest: str
    split: str
    n: int
    observation: str
    draw: str | None
    dims: int
    seed: int
    precision: str
    units: str
    estimator: str = ""
    K: int | None = None
    groups: int | None = None

    def of(self, estimator: str, k: int | None) -> Protocol:
        """The same for one estimator."""
        return dataclasses.replace(self, estimator=estimator, K=k)

    def as_json(self) -> dict[str, Any]:
        """The protocol as it is stored in metrics.json."""
        plain = dataclasses.asdict(self)
        if self.groups is None:  # as it was before there were errors by group
            del plain["groups"]
        return plain

    def differences(self, other: Protocol) -> list[str]:
        """The names of the entries in which two protocols differ; empty when their numbers may be compared."""
        return [f.name for f in dataclasses.fields(self) if getattr(self, f.name) != getattr(other, f.name)]


def check_comparable(a: Protocol, b: Protocol) -> None:
    """Raises ChoiceError naming what differs, when numbers of these protocols must not be compared."""
    if differ := a.differences(b):
        listed = "; ".join(f"{n}: {getattr(a, n)!r} against {getattr(b, n)!r}" for n in differ)
        raise ChoiceError(f"these numbers were not measured alike ({listed}): evaluate both runs in the same way")
