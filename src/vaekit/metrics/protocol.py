"""The protocol of a measured number: two numbers are comparable only if their protocols agree."""

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
        split, n: the split, and the number of its first data that were used.
        observation: how raw data become x; `draw` is the hash of the fixed draw of a random observation.
        estimator, K: how the number was computed, and the number of importance samples.
        dims: dimensions of one datum.
        seed, precision: seed and precision of the evaluation.
        units: the unit of x.
        groups: the number of groups, if the data were split by group; standard errors are then by group.
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
        """This protocol with another estimator and K."""
        return dataclasses.replace(self, estimator=estimator, K=k)

    def as_json(self) -> dict[str, Any]:
        """The protocol as it is stored in metrics.json."""
        plain = dataclasses.asdict(self)
        if self.groups is None:  # the format of files from before standard errors were by group
            del plain["groups"]
        return plain

    def differences(self, other: Protocol) -> list[str]:
        """The names of the entries in which two protocols differ; empty if their numbers are comparable."""
        return [f.name for f in dataclasses.fields(self) if getattr(self, f.name) != getattr(other, f.name)]


def check_comparable(a: Protocol, b: Protocol) -> None:
    """Raises ChoiceError, naming the differences, unless numbers of these protocols are comparable."""
    if differ := a.differences(b):
        listed = "; ".join(f"{n}: {getattr(a, n)!r} against {getattr(b, n)!r}" for n in differ)
        raise ChoiceError(f"these numbers were measured differently ({listed}): evaluate both runs in the same way")
