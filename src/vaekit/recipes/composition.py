"""The result of a recipe, a `Composition` that `fit` can train, and its input, the `DataSpec`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn
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

from .spectrum import rank_of


@dataclass(frozen=True)
class DataSpec:
    """The properties of the data that recipes use. They suffice to rebuild a model without the data.

    Attributes:
        kind: image, signal, vector or counts.
        shape: shape of one x: (C, H, W), (C, L) or (D,).
        n: number of training data.
        scale: lowest and highest raw value.
        integer: whether the raw data are whole numbers in a known range (uint8, bool, or 0 and 1 of any type).
        classes: names of the labels' classes.
        attributes: names of the two-valued attributes.
        columns: kind and categories of each column of a table.
        missing: whether the data have missing values (nan).
        double: whether the raw data are kept in float64, because float32 cannot resolve their differences.
        row: shape of one raw image or signal, so that flat rows can be reshaped to it.
        categories: values of each column beside x that holds a few names or codes.
        numbers: mean and standard deviation over the training rows of each column of numbers beside x.
        constant: flat index and value of each element that is the same in all training rows (vectors and counts).
        class_counts: number of training rows of each class.
        rank: principal components that hold 95% of the variance of the training rows of a table; 0 if not measured.
        rules: 1 for runs trained before heads over counts were scaled by the data, continuous Bernoullis got
            dequantised values and wide inputs were scaled; 2 for runs trained before columns of tables were mapped by
            their quantiles, `rank` was measured and mixed tables took `sigma`; 3 for runs trained before beta rose by
            default for images; 4 for runs trained before hierarchies of small images were dense; 5 for runs trained
            before the least scale of a discretised logistic was fitted; 6 for runs
            trained before the codes of binary data were drawn; 7 for runs trained before networks with small images as
            codes had a linear path; 8 for runs trained before scales of posteriors under a prior of many Gaussians grew
            slower above 1; 9 for runs trained before those of all models of images did; 10 for all others.
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
    numbers: dict[str, tuple[float, float]] = field(default_factory=dict)
    constant: tuple[tuple[int, float], ...] = ()
    class_counts: tuple[int, ...] = ()
    rank: int = field(default=0, compare=False)
    rules: int = field(default=10, compare=False)

    @classmethod
    def of(cls, data: Data) -> DataSpec:
        """The specification of `data`."""
        # row_dtype: of the rows as the model gets them, so that arrays in memory and memory maps agree
        integer = data.bits or row_dtype(data.train.raw.dtype).name == "uint8"
        low, high = (float(v) for v in data.scale)
        if not integer and low >= 0 and high <= 1:
            low, high = 0.0, 1.0  # floats in [0, 1] are treated as intensities of that range
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
            numbers=_numbers(data),
            constant=_constant(data),
            rank=rank_of(data),
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
        numbers = {name: (float(mean), float(std)) for name, (mean, std) in stored.get("numbers", {}).items()}
        constant = tuple((int(index), float(value)) for index, value in stored.get("constant", ()))
        return cls(**plain | {"columns": columns, "categories": categories, "numbers": numbers, "constant": constant})

    @property
    def dims(self) -> int:
        """The number of elements of one example."""
        return math.prod(self.shape)


def _classes(data: Data) -> tuple[str, ...]:
    """The names of the labels' classes; empty if no training row has a label."""
    labels = data.train.label
    if labels is None or not (labels >= 0).any():
        return ()
    parts = [np.asarray(s.label) for s in (data.train, data.valid, data.test)]
    count = max(int(max(part.max(initial=-1) for part in parts)) + 1, 1)
    names = data.label_names
    return tuple(names) if names and len(names) >= count else tuple(f"class {i}" for i in range(count))


def _class_counts(data: Data, classes: int) -> tuple[int, ...]:
    """The number of training rows of each class; rows without a label are not counted."""
    if not classes:
        return ()
    labels = np.asarray(data.train.label)
    return tuple(np.bincount(labels[labels >= 0], minlength=classes).tolist())


def _categories(data: Data) -> dict[str, tuple[str, ...]]:
    """The sorted values of each column of 2 to `FEW` distinct names or whole numbers, except attributes."""
    categories = {}
    for name, column in data.train.columns.items():
        if name in data.attribute_names or np.asarray(column).dtype.kind not in "buiU":
            continue
        values = np.unique(np.concatenate([np.unique(s.columns[name]) for s in (data.train, data.valid, data.test)]))
        values = values[values != ""] if values.dtype.kind == "U" else values  # a missing value is not a class
        if 2 <= len(values) <= FEW:
            categories[name] = tuple(str(v) for v in values.tolist())
    return categories


def _numbers(data: Data) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each column of numbers that varies over the training rows, except factors."""
    numbers = {}
    for name, column in data.train.columns.items():
        values = np.asarray(column)
        if name in data.factor_names or values.dtype.kind not in "buif":
            continue
        known = values[np.isfinite(values)].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            mean, std = (float(known.mean()), float(known.std())) if len(known) else (0.0, 0.0)
        if std > 0 and np.isfinite(mean) and np.isfinite(std):
            numbers[name] = mean, std
    return numbers


def _constant(data: Data) -> tuple[tuple[int, float], ...]:
    """(flat index, value) of each element of vectors and counts that is the same in all training rows."""
    raw = data.train.raw
    if data.kind not in ("vector", "counts") or isinstance(raw, Computed):
        return ()
    low, high = np.full(data.shape, np.nan), np.full(data.shape, np.nan)
    for _, block in blocks(raw, data.train.index, data.train.double):
        rows = data.events(block)
        low, high = np.fmin(low, np.fmin.reduce(rows)), np.fmax(high, np.fmax.reduce(rows))  # fmin and fmax ignore nan
        if (low < high).all():
            return ()
    return tuple((int(index), float(low.flat[index])) for index in np.flatnonzero(low == high))


USUAL = Defaults("adamw", 1e-3, 100, "cosine", weight_decay=1e-4, ema=0.999, epochs=50)
"""The training defaults of all recipes but those of published models."""
LEAST_STEPS = 500
"""Training takes at least so many steps by default. After the 80 steps that are 50 epochs of 160 digits, `vq` is 6 nats
below its ELBO after 500 steps, `conv` 5 and `ladder` 3."""


def long_enough(defaults: Defaults, n: int) -> Defaults:
    """These defaults, with epochs for `LEAST_STEPS` steps or more on n training data."""
    return replace(defaults, epochs=max(defaults.epochs, math.ceil(LEAST_STEPS / (n / min(defaults.batch, n)))))


@dataclass
class Composition:
    """Everything that `fit` needs to train a model; built by a recipe or directly.

    Arguments:
        model: the latent-variable model.
        objective: what is minimised.
        observation: how raw data become x.
        defaults: training defaults.
        start: called as start(composition, x) with a sample of training x (n, *event) before the first step; for a
            conditional model, as start(composition, x, c) with their conditions c (n, C).
        condition: the condition of a conditional model.
        targets: the labels that a semi-supervised objective uses as y.
    """

    model: Model
    objective: Objective
    observation: Observation
    defaults: Defaults = field(default_factory=Defaults)
    start: Callable[..., None] | None = None
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
    """Check that the observation's x lies in the support of the likelihood.

    Raises:
        ChoiceError: it does not; the message names an observation that does.
    """
    head = getattr(composition.model.likelihood, "head", None)
    if not isinstance(head, Head):
        return  # a custom likelihood: training checks the first batch against its distribution's support
    have, want = _support_name(composition.observation.support), _support_name(head.support)
    if isinstance(composition.observation, Dequantised):
        have = "open-unit"  # dequantisation noise keeps every value away from 0 and 1
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
