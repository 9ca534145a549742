"""What is trained (a model, an objective and an observation), and the data specification that recipes build from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.distributions import constraints

from vaekit.data.condition import FEW, Condition, Targets
from vaekit.data.core import Column, Computed, Data, blocks, row_dtype
from vaekit.data.observation import Dequantised, Observation, TableSupport
from vaekit.densities import OpenUnit
from vaekit.errors import ChoiceError
from vaekit.heads import Head
from vaekit.models.vae import Model
from vaekit.objectives import Objective
from vaekit.options import Defaults


@dataclass(frozen=True)
class DataSpec:
    """What a recipe may know of the data: enough to rebuild the model without them.

    `shape` is the event of x (C, H, W), (C, L) or (D,); `scale` the lowest and highest raw value; `integer` whether
    the raw data are whole numbers of a known range (uint8, bool, or 0 and 1 of any type); `n` the number of
    training data; `classes` the names of the labels' classes and `attributes` those of the two-valued attributes,
    where there are any; `categories` the values of the columns beside x that hold a few names or codes; `columns`
    what each column of a table is, with its categories; `missing` whether nan stands for a value that is missing;
    `double` whether float32 would blur the raw data; `row` how raw images and signals are shaped, so that flat rows
    can be taken for them; `constant` the elements of vectors and counts that are the same in every training row, by
    place, with their value; `class_counts` how many training rows each class has. `rules` is 1 of runs trained
    before heads over counts were scaled by the data, continuous Bernoullis saw dequantised values and wide inputs
    were scaled, 2 of all others.
    """

    kind: str
    shape: tuple[int, ...]
    n: int
    scale: tuple[float, float]
    integer: bool
    classes: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    missing: bool = False
    double: bool = False
    row: tuple[int, ...] = ()
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    constant: tuple[tuple[int, float], ...] = ()
    class_counts: tuple[int, ...] = ()
    rules: int = field(default=2, compare=False)

    @classmethod
    def of(cls, data: Data) -> DataSpec:
        # of rows as handed out: the same for maps
        """What a recipe needs to know of `data`."""
        integer = data.bits or row_dtype(data.train.raw.dtype).name == "uint8"
        low, high = (float(v) for v in data.scale)
        if not integer and low >= 0 and high <= 1:
            low, high = 0.0, 1.0  # floats in the unit interval are taken for intensities of that range
        return cls(
            data.kind,
            tuple(data.shape),
            len(data.train),
            (low, high),
            integer,
            classes=(classes := _classes(data)),
            class_counts=_class_counts(data, len(classes)),
            attributes=tuple(data.attribute_names),
            columns=tuple(data.schema),
            missing=data.missing,
            double=data.train.double,
            row=tuple(data.train.raw.shape[1:]) if data.kind in ("image", "signal") else (),
            categories=_categories(data),
            constant=_constant(data),
        )

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in self.__dict__.items()}
        return plain | {"columns": [column.as_json() for column in self.columns]}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> DataSpec:
        """The inverse of `as_json`."""
        missing = {"kind", "shape", "n", "scale", "integer"} - set(stored)
        if missing:
            raise KeyError(min(missing))
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
        columns = tuple(Column.from_json(c) for c in stored.get("columns", ()))
        categories = {name: tuple(values) for name, values in stored.get("categories", {}).items()}
        plain.setdefault("rules", 1)
        constant = tuple((int(place), float(value)) for place, value in stored.get("constant", ()))
        return cls(**plain | {"columns": columns, "categories": categories, "constant": constant})

    @property
    def dims(self) -> int:
        """The number of elements of one example."""
        return math.prod(self.shape)


def _classes(data: Data) -> tuple[str, ...]:
    """The names of the classes that the training labels belong to; none where there are no labels."""
    labels = data.train.label
    if labels is None or not (labels >= 0).any():
        return ()
    parts = [np.asarray(s.label) for s in (data.train, data.valid, data.test)]
    count = max(int(max(part.max(initial=-1) for part in parts)) + 1, 1)
    names = data.label_names
    return tuple(names) if names and len(names) >= count else tuple(f"class {i}" for i in range(count))


def _class_counts(data: Data, classes: int) -> tuple[int, ...]:
    """How many training rows have each class; rows without a label count nowhere."""
    if not classes:
        return ()
    labels = np.asarray(data.train.label)
    return tuple(np.bincount(labels[labels >= 0], minlength=classes).tolist())


def _categories(data: Data) -> dict[str, tuple[str, ...]]:
    """The values of each column of 2 to `FEW` distinct names or whole numbers, in order; attributes apart."""
    found = {}
    for name, column in data.train.columns.items():
        if name in data.attribute_names or np.asarray(column).dtype.kind not in "buiU":
            continue
        values = np.unique(np.concatenate([np.unique(s.columns[name]) for s in (data.train, data.valid, data.test)]))
        values = values[values != ""] if values.dtype.kind == "U" else values  # a missing one is no class
        if 2 <= len(values) <= FEW:
            found[name] = tuple(str(v) for v in values.tolist())
    return found


def _constant(data: Data) -> tuple[tuple[int, float], ...]:
    """The elements of vectors and counts that are the same in every training row, and the value of each."""
    raw = data.train.raw
    if data.kind not in ("vector", "counts") or isinstance(raw, Computed):
        return ()
    low, high = np.full(data.shape, np.nan), np.full(data.shape, np.nan)
    for _, block in blocks(raw, data.train.index, data.train.double):
        rows = data.events(block)
        low, high = np.fmin(low, np.fmin.reduce(rows)), np.fmax(high, np.fmax.reduce(rows))  # of what is not nan
        if (low < high).all():
            return ()
    places = np.flatnonzero(low == high)
    return tuple((int(place), float(low.flat[place])) for place in places)


@dataclass
class Composition:
    """Everything that `fit` trains: build one by a recipe or by hand.

    Arguments:
        model: the latent-variable model.
        objective: what is minimised.
        observation: how raw data become x.
        defaults: training defaults.
        start: called as start(composition, x) with a sample of training x (n, *event) before the first step.
        condition: what the model is given beside x, if it is conditional.
        targets: which labels the objective sees as y, if it uses any.
    """

    model: Model
    objective: Objective
    observation: Observation
    defaults: Defaults = field(default_factory=Defaults)
    start: Callable[[Composition, Tensor], None] | None = None
    condition: Condition | None = None
    targets: Targets | None = None

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The three parts whose tensors make up a saved run, by name."""
        return {"model": self.model, "objective": self.objective, "observation": self.observation}


_INCLUDES = {
    "boolean": ("boolean",),
    "unit": ("boolean", "unit", "open-unit"),
    "open-unit": ("open-unit",),
    "real": ("boolean", "unit", "open-unit", "levels", "counts", "real"),
    "levels": ("boolean", "levels"),
    "counts": ("boolean", "levels", "counts"),
    "mixed": ("mixed",),
}


def _support_name(support: constraints.Constraint) -> str:
    if support is constraints.boolean:
        return "boolean"
    if support is constraints.unit_interval:
        return "unit"
    if isinstance(support, OpenUnit):
        return "open-unit"
    if isinstance(support, type(constraints.integer_interval(0, 1))):
        return "levels"
    if support is constraints.nonnegative_integer:
        return "counts"
    return "mixed" if isinstance(support, TableSupport) else "real"


def check_support(composition: Composition) -> None:
    """Refuse an observation whose x the likelihood has no density for, and say what to write instead."""
    head = getattr(composition.model.likelihood, "head", None)
    if not isinstance(head, Head):
        return  # somebody's own likelihood: held against its distribution's support on the first batch
    have, want = _support_name(composition.observation.support), _support_name(head.support)
    if isinstance(composition.observation, Dequantised):
        have = "open-unit"  # noise has moved every value off the ends
    if have not in _INCLUDES[want]:
        fits = {
            "boolean": "binary",
            "unit": "grey",
            "open-unit": "dequantised",
            "levels": "levels",
            "real": "standardised",
            "counts": "counts",
            "mixed": "mixed",
        }[want]
        raise ChoiceError(
            f"likelihood {type(head).__name__} has support {want!r} but the {composition.observation.kind!r} "
            f"observation gives {have!r} values: write `observation={fits!r}`, or choose another `likelihood`"
        )
