"""Runs side by side: differences, paired by example, in the metrics that all runs have stored."""

from __future__ import annotations

from collections.abc import Sequence

from vaekit.errors import ChoiceError
from vaekit.metrics import METRICS, Measurement, compare_measured

from . import numbers
from .blocks import Block, Table, Text
from .look import Look

PAIR_NUMBERS = 2e7
"""Number of values of x to decode per run; it limits the number of test data of the comparison."""
FEWEST = 100


def paired(looks: Sequence[Look], names: Sequence[str]) -> list[Block]:
    """The differences between the first run and each other run, with their standard errors.

    Arguments:
        names: names of the runs.
    """
    if any(look.data is None for look in looks):
        return [Text("Paired differences are not shown, because the data of a run cannot be read.", "note")]
    stored = [numbers.best_known(look.run.metrics) for look in looks]
    shared = [name for name, m in METRICS.items() if m.per_datum and m.of == "model" and all(name in s for s in stored)]
    if not shared:
        return []
    samples = next((s[name]["protocol"].get("K") for s in stored for name in shared if s[name]["protocol"].get("K")), 1)
    n = max(FEWEST, int(PAIR_NUMBERS / (samples * looks[0].spec.dims)))
    measured = [Measurement(look.run, "test", n=n, samples=samples, compile=False) for look in looks]
    reasons: list[str] = []
    others = list(zip(measured[1:], names[1:], strict=True))
    cells = [[_cell(name, measured[0], m, (names[0], other), reasons) for m, other in others] for name in shared]
    blocks: list[Block] = []
    rows = [[numbers.label(name), *row] for name, row in zip(shared, cells, strict=True) if any(c != "–" for c in row)]
    if rows:
        caption = (
            f"Differences paired by example, on the first {measured[0].n:,} test data with K = {samples}. ± is the "
            "standard error of the mean difference; a run is better if 0 lies outside the 95% interval. `vaekit "
            "compare` uses all test data."
        )
        head = ["difference", *(f"{names[0]} − {other}" for other in names[1:])]
        blocks.append(Table(head, rows, caption, numeric=range(1, len(head))))
    if reasons:
        blocks.append(Text(f"Differences that are not shown: {'; '.join(dict.fromkeys(reasons))}.", "note"))
    return blocks


def _cell(name: str, a: Measurement, b: Measurement, runs: tuple[str, str], reasons: list[str]) -> str:
    try:
        (difference,) = compare_measured(a, b, metrics=[name])
    except ChoiceError as error:
        reasons.append(str(error))
        return "–"
    return f"{numbers.number(difference['value'], difference['se'])}, {numbers.verdict(difference, runs)}"
