"""Conditions of metrics on the model and the data, each with the message if it is not met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.distributions import Independent, Normal

from vaekit.data.core import Data
from vaekit.data.observation import Binary
from vaekit.errors import DataError
from vaekit.estimators import LEAST_TAIL, tail_size, why_not
from vaekit.models.quantised import QuantisedEncoder
from vaekit.models.vae import VAE, Trace
from vaekit.noise import Noise
from vaekit.objectives.terms import has_closed_form, rate_per_dim
from vaekit.utils.wording import in_python

from .measurement import Array, Measurement, shared

MOST_VALUES = 256
"""The maximum number of values of a factor that is predicted as a class."""


@dataclass(frozen=True)
class Need:
    """A condition on model and data.

    Attributes:
        name: the condition in a few words, for lists.
        lacking: called with the name of a metric and a measurement; returns why the metric cannot be computed and what
            to do, or None.
    """

    name: str
    lacking: Callable[[str, Measurement], str | None]


@shared
def first_trace(m: Measurement) -> Trace:
    """The model's trace of the first datum."""
    one = np.arange(1)
    with torch.no_grad():
        x = m.observed(one).to(m.run.device)
        return m.run.model.trace(x, m.observed.condition(one, m.run.device), noise=Noise.of(0, 1, device=x.device))


@shared
def is_discrete(m: Measurement) -> bool:
    """Whether p(x|z) is a distribution of discrete values, so that bits per dimension are meaningful."""
    z = torch.from_numpy(m.run.encode(m.observed, n=1)).to(m.run.device)
    with torch.no_grad():
        support = m.run.model.decode(z).support
    return support is not None and bool(support.is_discrete)


@shared
def labels(m: Measurement) -> Array | None:
    """The class of each datum, (n,), -1 if unknown; None without classes, and for raw rows."""
    data = m.observed.data
    label = None if data is None else getattr(data, m.observed.split).label
    return None if label is None else label[: m.n]


def known_factors(data: Data, split: str, n: int) -> tuple[Array, list[str]] | None:
    """The factors that vary over the first n data, (n, F), and their names.

    They are the generative factors of the data, or else the class if all n data have one; None if nothing varies.
    """
    part = getattr(data, split)
    names = [name for name in data.factor_names if len(np.unique(part.columns[name][:n])) > 1]
    if names:
        return np.stack([part.columns[name][:n] for name in names], 1), names
    if part.label is None or len(np.unique(part.label[:n])) < 2 or (part.label[:n] < 0).any():
        return None
    return part.label[:n, None], ["class"]


@shared
def factors(m: Measurement) -> tuple[Array, list[str]] | None:
    """The `known_factors` of the measured data; None for raw rows."""
    return None if m.observed.data is None else known_factors(m.observed.data, m.observed.split, m.n)


def _density(name: str, m: Measurement) -> str | None:
    return None if m.has_density else f"{m.run.model.no_density}: it has no {name}"


def _discrete(name: str, m: Measurement) -> str | None:
    return None if is_discrete(m) else f"{name} needs a discrete likelihood, which this run does not have"


def _codes(name: str, m: Measurement) -> str | None:
    if isinstance(getattr(m.run.model, "posterior", None), QuantisedEncoder):
        return None
    return f"{name} needs discrete codes: train a run with `recipe='vq'`"


def _complete(name: str, m: Measurement) -> str | None:
    if not m.run.spec.missing:
        return None
    return f"{name} needs data without missing values, and some values of these data are missing"


def _enough_samples(name: str, m: Measurement) -> str | None:
    least = next(k for k in range(1, 100) if tail_size(k) >= LEAST_TAIL)
    return None if m.samples >= least else f"{name} needs `samples` of {least} or more, got {m.samples}"


def _two_samples(name: str, m: Measurement) -> str | None:
    return None if m.samples >= 2 else f"{name} needs `samples` of 2 or more, got {m.samples}"


def _one_layer(name: str, m: Measurement) -> str | None:
    why = why_not(m.run.model)
    return None if why is None else f"{name} needs one layer of continuous latents: {why}; use log_px_iw"


def _at_most(most: int) -> Callable[[str, Measurement], str | None]:
    def lacking(name: str, m: Measurement) -> str | None:
        model = m.run.model
        if not isinstance(model, VAE) or (dims := model.prior().event_shape.numel()) <= most:
            return None
        return f"{name} is for at most {most} latents, and this run has {dims}: use log_px_ais"

    return lacking


def _binary(name: str, m: Measurement) -> str | None:
    if isinstance(m.run.composition.observation, Binary) and is_discrete(m):
        return None
    return f"{name} needs binarised data and a Bernoulli likelihood"


@shared
def has_closed_form_rate(m: Measurement) -> bool:
    """Whether the KL from the prior has a closed form: the model has one layer, and torch implements the KL."""
    latents = first_trace(m).latents
    return len(latents) == 1 and has_closed_form(latents[0].q, latents[0].p)


def _factorised(name: str, m: Measurement) -> str | None:
    if has_closed_form_rate(m) and rate_per_dim(first_trace(m).latents[0]) is not None:
        return None
    return f"{name} needs one layer of latents whose posterior and prior factorise: use `rate`, the KL of all latents"


def _gaussian(name: str, m: Measurement) -> str | None:
    latents = first_trace(m).latents
    if len(latents) == 1 and isinstance(q := latents[0].q, Independent) and isinstance(q.base_dist, Normal):
        return None
    return f"{name} needs a diagonal Gaussian posterior, which this run does not have: use mig"


def _unsized(name: str, m: Measurement) -> str | None:
    if not m.given_total:
        return None
    return f"{name} simulates data, whose totals this model takes as given (`library='observed'`): use ppc_p"


def _several(name: str, m: Measurement) -> str | None:
    return None if m.n > 1 else f"{name} needs two data or more, got 1"


def _images(name: str, m: Measurement) -> str | None:
    kind = m.run.spec.kind
    return None if kind == "image" else f"{name} needs images, and this run models {kind} data: use mse"


def _numeric(name: str, m: Measurement) -> str | None:
    named = [column.name for column in m.run.spec.columns if column.kind == "categorical"]
    if not named:
        return None
    return f"{name} needs columns of numbers, and {named[0]!r} holds categories: use distortion"


def _training(name: str, m: Measurement) -> str | None:
    try:
        m.run.data  # noqa: B018 - loads the data
    except DataError as error:
        return f"{name} needs the training data: {error}"
    return None


def _classes(name: str, m: Measurement) -> str | None:
    if m.observed.data is None:
        return f"{name} needs classes, which are known for the run's own data only: use one of its splits"
    return _two_classes(name, m, labels(m), m.observed.split)


def _training_classes(name: str, m: Measurement) -> str | None:
    return _two_classes(name, m, m.run.data.train.label, "train")


def _two_classes(name: str, m: Measurement, y: Array | None, split: str) -> str | None:
    if y is not None and len(np.unique(y[y >= 0])) > 1:
        return None
    have = "none" if y is None else "fewer than two"
    return (
        f"{name} needs two classes or more in the {split} data, and those of {m.run.data_identity[0]} have {have}: "
        "train on data with classes (an array named label in an npz file, one folder per class, or a table with "
        f"`label=COLUMN`{in_python('; of arrays, vk.from_arrays(x, label=y)')})"
    )


def _factors(name: str, m: Measurement) -> str | None:
    if factors(m) is not None:
        return None
    if m.observed.data is None:
        return f"{name} needs factors, which are known for the run's own data only: use one of its splits"
    return (
        f"{name} needs known generative factors, or classes, with two values or more: train on "
        "`dsprites`, or pass `columns` and `factor_names` to vaekit.from_arrays"
    )


def _several_factors(name: str, m: Measurement) -> str | None:
    known = factors(m)
    if known is None or len(known[1]) > 1:
        return None
    return f"{name} needs two factors or more, and these data have one, {known[1][0]!r}: use mig"


def _few_values(name: str, m: Measurement) -> str | None:
    known = factors(m)
    counts = {} if known is None else {n: len(np.unique(v)) for n, v in zip(known[1], known[0].T, strict=True)}
    many = next((n for n, count in counts.items() if count > MOST_VALUES), None)
    if many is None:
        return None
    return (
        f"{name} predicts the values of factors as classes, at most {MOST_VALUES}, and {many!r} has {counts[many]:,}: "
        "give it in bins, or use mig"
    )


def _repeated(name: str, m: Measurement) -> str | None:
    known = factors(m)
    once = [] if known is None else [f for f, v in zip(known[1], known[0].T, strict=True) if len(np.unique(v)) == m.n]
    if not once:
        return None
    return (
        f"{name} holds a factor fixed, and every value of {once[0]!r} occurs once: give it in bins, leave it out, or "
        "use mig"
    )


DENSITY = Need("a density", _density)
DISCRETE = Need("a discrete likelihood", _discrete)
CODES = Need("discrete codes", _codes)
COMPLETE = Need("no missing values", _complete)
ENOUGH_SAMPLES = Need("enough samples for a tail", _enough_samples)
TWO_SAMPLES = Need("two samples or more", _two_samples)
ONE_LAYER = Need("one layer of continuous latents", _one_layer)
AT_MOST_3 = Need("at most 3 latents", _at_most(3))
AT_MOST_5 = Need("at most 5 latents", _at_most(5))
BINARY = Need("binarised data", _binary)
FACTORISED = Need("a factorised posterior and prior", _factorised)
GAUSSIAN = Need("a diagonal Gaussian posterior", _gaussian)
UNSIZED = Need("a model that generates totals", _unsized)
SEVERAL = Need("two data or more", _several)
IMAGES = Need("images", _images)
NUMERIC = Need("numeric columns", _numeric)
TRAINING = Need("the training data", _training)
CLASSES = Need("classes", _classes)
TRAINING_CLASSES = Need("classes of the training data", _training_classes)
FACTORS = Need("generative factors", _factors)
SEVERAL_FACTORS = Need("two factors or more", _several_factors)
REPEATED = Need("values of factors that occur twice", _repeated)
FEW_VALUES = Need(f"factors of at most {MOST_VALUES} values", _few_values)
