"""The protocol of a measured number: two numbers are comparable only if their protocols agree."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
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


KNOWN = ("data", "split", "n", "observation", "draw", "estimator", "K", "dims", "seed", "precision", "units", "digest",
         "groups")  # fmt: skip


def unlike(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """The protocol keys that are not the same for all these metrics."""
    keys = dict.fromkeys(k for m in metrics for k in m["protocol"])
    return [k for k in keys if len({json.dumps(m["protocol"].get(k), sort_keys=True) for m in metrics}) > 1]


def protocol_text(protocol: Mapping[str, Any], *, leave_out: Sequence[str] = ()) -> str:
    """A protocol as one line: data, split, n, observation, draw, estimator, seed, precision and units."""
    p = {k: v for k, v in protocol.items() if k not in leave_out and v is not None}
    parts = []
    where = " ".join(str(p[k]) for k in ("data", "split") if k in p)
    if where:
        parts.append(where)
    if "n" in p:
        parts.append(f"n = {p['n']:,}")
    if "observation" in p:
        parts.append(f"{p['observation']} data")
    if "draw" in p:
        parts.append(f"frozen draw {str(p['draw'])[:8]}")
    if "estimator" in p:
        parts.append(str(p["estimator"]))
    if "K" in p and str(p["K"]) not in str(p.get("estimator", "")):
        parts.append(f"K = {p['K']}")
    for key, form in (("dims", "{} dimensions"), ("seed", "seed {}"), ("precision", "{}"), ("units", "{}")):
        if key in p:
            parts.append(form.format(p[key]))
    if "groups" in p:
        parts.append(f"standard errors over {p['groups']:,} group{'s' if p['groups'] != 1 else ''}")
    if "digest" in p:
        parts.append(f"data digest {str(p['digest'])[:8]}")
    parts += [f"{k} {v}" for k, v in p.items() if k not in KNOWN]
    return ", ".join(parts)
