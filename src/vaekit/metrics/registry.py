"""The register of metrics: `@metric` on a function is all that a new one takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from vaekit.errors import ChoiceError
from vaekit.utils.plugins import load_plugins
from vaekit.utils.suggest import unknown

from .measurement import Array, Measurement
from .needs import Need

Better = Literal["higher", "lower"]
Subject = Literal["model", "data", "estimator"]


@dataclass(frozen=True)
class Result:
    """What a metric measured: one number per datum, of which mean and standard error are reported, or one number.

    Attributes:
        estimator: how it was computed, for the protocol: with the features, seeds and sizes that it depends on.
        K: importance samples, where they matter.
        per_datum: (n,), or of `rows` alone.
        rows: which of the n data these are; all when None.
        value, se: of a metric that is no mean over data; lists for one number per latent.
        unit: where it depends on the model or the data; else the registered one.
        comparable: what two runs must have in common for a difference; the estimator when None.
    """

    estimator: str
    K: int | None = None
    per_datum: Array | None = None
    rows: Array | None = None
    value: float | int | list[float] | None = None
    se: float | list[float | None] | None = None
    unit: str | None = None
    comparable: str | None = None


@dataclass(frozen=True)
class Metric:
    """A registered metric.

    Attributes:
        name: on the command line and in metrics.json.
        unit: of its value.
        measure: the function.
        needs: what must hold of model and data, in the order in which it is checked.
        better: which direction is an improvement, or None where neither is.
        label: what pages call it.
        help: what it is, in one sentence.
        default: whether it is measured when none is named.
        of: what the number describes: the model, the data alone, or the estimator.
        per_datum: whether it is the mean of one number per datum, so that two runs can be compared in pairs.
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

    @property
    def meaning(self) -> str:
        """Its help, and which direction is better."""
        return self.help + (f"; {self.better} is better" if self.better else "")

    def lacking(self, m: Measurement) -> str | None:
        """Why it cannot be measured here and what to do; None where it can."""
        return next((why for need in self.needs if (why := need.lacking(self.name, m)) is not None), None)


METRICS: dict[str, Metric] = {}
"""What `metric` has registered; to be read through `metrics`."""


def metrics() -> dict[str, Metric]:
    """All metrics by name, those of plug-ins included, in the order in which they are listed."""
    load_plugins()
    return METRICS


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
) -> Callable[[Callable[[Measurement], Result]], Callable[[Measurement], Result]]:
    """Register a function of a `Measurement` under this name; the first line of its docstring is its help.

    See `Metric` for the arguments.

    Raises:
        ChoiceError: another function has this name.
    """

    def register(function: Callable[[Measurement], Result]) -> Callable[[Measurement], Result]:
        held = METRICS.get(name)
        if held is not None and (held.measure.__module__, held.measure.__qualname__) != (
            function.__module__,
            function.__qualname__,
        ):
            raise ChoiceError(f"there is a metric {name!r} already, in {held.measure.__module__}: choose another name")
        described = (inspect.getdoc(function) or "").split("\n")[0].rstrip(".")
        called = label or name.replace("_", " ").capitalize()
        METRICS[name] = Metric(name, unit, function, tuple(needs), better, called, described, default, of, per_datum)
        return function

    return register


def chosen(names: Sequence[str] | None) -> list[Metric]:
    """The metrics of these names, in the order of the register; those measured by default when None.

    Raises:
        ChoiceError: an unknown name.
    """
    known = metrics()
    for name in names or ():
        if name not in known:
            raise ChoiceError(unknown("metric", name, known))
    return [m for m in known.values() if (m.default if not names else m.name in names)]
