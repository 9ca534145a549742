"""The register of metrics: decorating a function with `@metric` adds one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vaekit.errors import ChoiceError
from vaekit.utils.register import Named, origin_of
from vaekit.utils.suggest import unknown

from .measurement import Array, Measurement
from .needs import Need

Better = Literal["higher", "lower"]
Subject = Literal["model", "data", "estimator"]


@dataclass(frozen=True)
class Interval:
    """An interval that contains a value with probability `level`; `of` describes the draws that it is computed from."""

    low: float
    high: float
    level: float
    of: str


@dataclass(frozen=True)
class Part:
    """The value for one part of a result, such as one factor; with standard error and 95% interval if known."""

    value: float | None
    se: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Matrix:
    """Numbers that relate latents (rows) to factors, or to bins or levels (columns), by their names."""

    rows: list[str]
    columns: list[str]
    values: list[list[float]]


@dataclass(frozen=True)
class Result:
    """The result of a metric: one number per datum, reported as mean and standard error, or a single number.

    Attributes:
        estimator: how it was computed, for the protocol, including the features, seeds and sizes it depends on.
        K: number of importance samples, if it matters.
        per_datum: (n,), or (len(rows),) for the data in `rows` only.
        rows: indices of these among the n data; all if None.
        value, se: value and standard error of a metric that is not a mean over data; lists for one number per latent.
        unit: its unit, if that depends on the model or the data; else the registered one.
        comparable: a key that two runs must share for a difference to be defined; the estimator if None.
        interval: an interval of `value`.
        floor: the same measure of real data in the place of what the model makes.
        each: parts of `value` by name, such as the score of each factor.
        matrix: the numbers that it was computed from, for a heat map.
    """

    estimator: str
    K: int | None = None
    per_datum: Array | None = None
    rows: Array | None = None
    value: float | int | list[float] | None = None
    se: float | list[float | None] | None = None
    unit: str | None = None
    comparable: str | None = None
    interval: Interval | None = None
    floor: Part | None = None
    each: Mapping[str, Part] | None = None
    matrix: Matrix | None = None


@dataclass(frozen=True)
class Metric:
    """A registered metric.

    Attributes:
        name: its name on the command line and in metrics.json.
        unit: the unit of its value.
        measure: the function that measures it.
        needs: conditions on the model and the data, in the order in which they are checked.
        better: the direction of improvement, or None.
        label: its name on pages.
        help: its description in one sentence.
        default: whether it is measured by default.
        of: the subject of the number: the model, the data alone, or the estimator.
        per_datum: whether it is the mean of one number per datum, so that two runs can be compared datum by datum.
        family: the metrics that it is measured with by a common name, such as `disentanglement`; None for no family.
    """

    name: str
    unit: str
    measure: Callable[[Measurement], Result]
    needs: tuple[Need, ...]
    better: Better | None
    label: str
    help: str
    default: bool
    of: Subject
    per_datum: bool
    family: str | None = None
    slow: bool = False

    @property
    def meaning(self) -> str:
        """Its help, and the direction of improvement."""
        return self.help + (f"; {self.better} is better" if self.better else "")

    def lacking(self, m: Measurement) -> str | None:
        """Why it cannot be measured here and what to do; None if it can be measured."""
        return next((why for need in self.needs if (why := need.lacking(self.name, m)) is not None), None)


METRICS = Named[Metric]("metric")
"""All metrics by name, in the order in which they are listed."""


def metric(
    name: str,
    unit: str,
    *,
    needs: Sequence[Need] = (),
    better: Better | None = None,
    label: str | None = None,
    default: bool = False,
    of: Subject = "model",
    per_datum: bool = True,
    slow: bool = False,
) -> Callable[[Callable[[Measurement], Result]], Callable[[Measurement], Result]]:
    """Register a function of a `Measurement` under this name; the first line of its docstring is its help.

    See `Metric` for the arguments. Metrics of vaekit form a family with those of the same module or package; a `slow`
    one, which takes minutes, is measured by its own name only.

    Raises:
        ChoiceError: another function is registered under this name.
    """

    def register(function: Callable[[Measurement], Result]) -> Callable[[Measurement], Result]:
        described = (inspect.getdoc(function) or "").split("\n")[0].rstrip(".")
        called = label or name.replace("_", " ").capitalize()
        family = None if slow else _family(function.__module__)
        entry = Metric(name, unit, function, tuple(needs), better, called, described, default, of, per_datum, family,
                       slow)  # fmt: skip
        METRICS.put(name, entry, origin_of(function))
        return function

    return register


def _family(module: str) -> str | None:
    """The family of the metrics of a module of `vaekit.metrics`."""
    inside = module.removeprefix(f"{__package__}.")
    return None if inside == module else inside.split(".")[0]


def families() -> list[str]:
    """The names of the families, in the order of the register."""
    return list(dict.fromkeys(m.family for m in METRICS.values() if m.family is not None))


def chosen(names: Sequence[str] | None) -> list[Metric]:
    """The metrics with these names or of these families, in the order of the register; if None, the default ones.

    Raises:
        ChoiceError: an unknown name.
    """
    known = [*METRICS, *families()]
    for name in names or ():
        if name not in known:
            raise ChoiceError(unknown("metric", name, known))
    return [m for m in METRICS.values() if (m.default if not names else m.name in names or m.family in names)]
