"""Two runs on the same data: paired differences with their standard error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vaekit.data.condition import Labels
from vaekit.errors import ChoiceError
from vaekit.runs.run import Run
from vaekit.utils.uncertainty import standard_error

from .evaluation import applicable, entry, groups_of
from .measurement import Measurement
from .protocol import check_comparable
from .registry import Metric, Result, chosen


def compare(
    a: Run, b: Run, split: str = "test", samples: int = 100, n: int | None = None, seed: int = 0,
    metric: str = "log_px_iw",
) -> dict[str, Any]:  # fmt: skip
    """A metric of run a minus that of run b on the same data: the mean paired difference, with its standard error.

    Over 10,000 images an unpaired standard error of log p(x) is near a nat; paired by datum it is a few hundredths. By
    group where the data were split by group.

    Returns {name, value, se, unit, protocol, a, b, better}: `a` and `b` are the values of the runs, `better` which
    direction is better ("higher", "lower" or None). `se` is None for metrics that are no mean over data.

    Raises:
        ChoiceError: the two runs do not model the same x (other data, rows, observation or draw), or one of them does
            not have this metric.
    """
    return compare_all(a, b, split, samples, n, seed, [metric])[0]


def compare_all(
    a: Run,
    b: Run,
    split: str | np.ndarray = "test",
    samples: int = 100,
    n: int | None = None,
    seed: int = 0,
    names: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    labels: Labels | None = None,
    source: str | None = None,
) -> list[dict[str, Any]]:
    """`compare` for several metrics at once; without `names` for those measured by default that describe the model."""
    chosen(names)  # unknown names before any data are loaded
    first, second = (Measurement(run, split, samples, n, seed, progress, labels, source) for run in (a, b))
    return differences(first, second, names)


def differences(a: Measurement, b: Measurement, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The same of two measurements that may hold shared results already."""
    check_same_data(a, b)
    metrics = chosen(names)
    both = [m for m in applicable(metrics, a, bool(names)) if m in applicable(metrics, b, bool(names))]
    found = []
    for metric in both if names else [m for m in both if m.of == "model"]:
        results = metric.measure(a), metric.measure(b)
        values = [entry(metric, m, r)["value"] for m, r in zip((a, b), results, strict=True)]
        if names or not any(isinstance(value, list) for value in values):
            found.append(_difference(metric, (a, b), results, values))
    return found


def check_same_data(a: Measurement, b: Measurement) -> None:
    """Raises ChoiceError, naming what differs, unless both measure the same x of the same rows."""
    check_comparable(a.protocol.of("", a.samples), b.protocol.of("", b.samples))
    if a.observed.array is None and not np.array_equal(a.indices, b.indices):
        raise ChoiceError(
            f"the {a.observed.split} rows of the two runs are not the same: train both with the same `valid`, `test`, "
            "`split_seed` and `group`"
        )


def _difference(
    metric: Metric, pair: tuple[Measurement, Measurement], results: tuple[Result, Result], values: Sequence[Any]
) -> dict[str, Any]:
    (a, b), (of_a, of_b) = pair, results
    how = [r.estimator if r.comparable is None else r.comparable for r in results]
    check_comparable(a.protocol.of(how[0], None), b.protocol.of(how[1], None))
    if any(isinstance(value, list) for value in values):
        raise ChoiceError(f"{metric.name} has one number per latent, and latents of two runs do not correspond")
    value, se = values[0] - values[1], None
    if of_a.per_datum is not None and of_b.per_datum is not None:
        group = next((g for g in (groups_of(a, of_a), groups_of(b, of_b)) if g is not None), None)
        paired = of_a.per_datum - of_b.per_datum
        value, se = float(np.mean(paired, dtype=np.float64)), standard_error(paired, group)
    return {
        "name": f"{metric.name} difference",
        "value": value,
        "se": se,
        "unit": metric.unit,
        "protocol": a.protocol.of(how[0], of_a.K).as_json(),
        "a": values[0],
        "b": values[1],
        "better": metric.better,
    }
