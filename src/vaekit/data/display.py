"""What a notebook shows of data: facts, and the first training rows as pictures, lines or a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from vaekit.errors import VaekitError
from vaekit.utils.display import SPARK, TILES, cells, facts, spark, thumbnails

from .readers.dates import written

ROWS, COLUMNS = 5, 10
"""Rows and columns of the table of a data set's first values."""


def data_html(data: Any) -> str:
    """Facts about a `Data` and its first training rows, as HTML; without the rows if they cannot be read any more."""
    low, high = data.scale
    sizes = {name: len(split) for name, split in (("train", data.train), ("valid", data.valid), ("test", data.test))}
    found = {
        "kind": f"{data.kind} data of {' x '.join(map(str, data.shape))}, {data.train.raw.dtype}",
        "values": f"{low:g} to {high:g}{', some missing' if data.missing else ''}",
        "rows": ", ".join(f"{n:,} {name}" for name, n in sizes.items()),
    }
    for what, names in (("classes", data.label_names), ("factors", data.factor_names), ("notes", data.notes)):
        if names:
            found[what] = _few(names)
    if data.attribute_names:
        found["attributes"] = _few(data.attribute_names)
    try:
        first = _first(data)
    except (VaekitError, OSError):
        first = "<p><small>The rows cannot be read any more.</small></p>"
    return facts(data.name, found, first)


def _few(names: Sequence[str], most: int = 12) -> str:
    texts = [name if len(name) <= 60 else f"{name[:60]}…" for name in names[:most]]
    return ", ".join(texts) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _first(data: Any) -> str:
    raw = data.train[:TILES]
    if data.kind == "image":
        return thumbnails(data.image(data.events(raw)), data.scale, f"The first {len(raw)} training images")
    if data.kind == "signal":
        signals = data.events(raw)
        width = 2 * SPARK[0]
        return "<br>".join(spark(x[0], f"Training signal {i}", width) for i, x in enumerate(signals[:ROWS]))
    x = data.events(raw[:ROWS])
    names = [column.name for column in data.schema] or data.feature_names or [f"{j}" for j in range(x.shape[1])]
    columns = [*data.schema] or [None] * x.shape[1]
    shown = range(min(COLUMNS, x.shape[1]))
    rows = [[_text(row[j], columns[j]) for j in shown] for row in x]
    head = [names[j] if len(names[j]) <= 30 else f"{names[j][:30]}…" for j in shown]
    if x.shape[1] > COLUMNS:
        head, rows = [*head, f"{x.shape[1] - COLUMNS:,} more"], [[*row, "…"] for row in rows]
    numbers = [j for j in shown if columns[j] is None or not columns[j].categories]
    return f"<p><small>The first training rows:</small></p>{cells(rows, head, numbers)}"


def _text(value: Any, column: Any) -> str:
    """A value as in the file, but numbers with at most six digits and texts with at most 30 letters."""
    if math.isnan(value):
        return "missing"
    if column is not None and column.categories:
        text = column.categories[int(value)]
        return text if len(text) <= 30 else f"{text[:30]}…"
    return written([value], column.format)[0] if column is not None and column.format else f"{value:.6g}"
