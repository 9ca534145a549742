"""The registered metrics of samples from a run's prior, beside real data in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaekit.runs.example import is_fixed
from vaekit.runs.saved import SavedRun
from vaekit.utils.files import is_writable
from vaekit.utils.uncertainty import Area, area, resampled, standard_error, t_quantile, units

from ..measurement import Measurement, like_data, samples, shared
from ..needs import COMPLETE, DENSITY, NUMERIC, SEVERAL, TRAINING, Need
from ..registry import Interval, Part, Result, metric
from .blocks import LEVEL, Estimate
from .learned import SIZE
from .moments import Components, frechet
from .neighbours import K
from .reference import FEATURES, LEARNED, MEASURES, ROWS, Quality, Reference

Array = NDArray[Any]
DRAWS = 100
"""Bootstrap draws for a standard error."""
MEMBERS = 2000
"""The maximum number of data of either kind whose log p(x) is compared."""
BLOCKWISE = "student's t interval, by blocks of data and of samples"


def _held_out(name: str, m: Measurement) -> str | None:
    if m.observed.array is None and m.observed.split == "train":
        return f"{name} compares samples and training data with held-out data: use the test or the validation split"
    return None


def _enough(name: str, m: Measurement) -> str | None:
    few = min(m.n, len(m.run.data.train), len(getattr(m.run.data, spare_of(m))))
    return None if few >= K + 2 else f"{name} needs {K + 2} training, validation and test data or more, got {few}"


def _rows_per_feature(name: str, m: Measurement) -> str | None:
    if m.n >= ROWS * SIZE:
        return None
    return f"{name} needs {ROWS * SIZE} data or more for {SIZE} features, got {m.n}: kernel_distance needs fewer"


def _spatial(name: str, m: Measurement) -> str | None:
    kind, shape = m.run.spec.kind, m.run.spec.shape
    if kind in ("image", "signal") and max(shape[1:]) > 1:
        return None
    return f"{name} needs images or signals, and this run models {kind} data"


HELD_OUT = Need("held-out data", _held_out)
ENOUGH = Need(f"{K + 2} data or more of each kind", _enough)
MOMENTS = Need(f"{ROWS} data per feature", _rows_per_feature)
SPATIAL = Need("images or signals", _spatial)
COMPARED = (SEVERAL, NUMERIC, COMPLETE, TRAINING, HELD_OUT, ENOUGH)


@shared
def features(m: Measurement) -> Components:
    """The principal components of the first training data."""
    data = m.run.data
    return Components(data.events(data.train[slice(0, LEARNED)]), FEATURES)


@metric(
    "frechet",
    "of the data's variance",
    needs=[SEVERAL, NUMERIC, COMPLETE, TRAINING],
    better="lower",
    label="Fréchet distance",
    per_datum=False,
)
def frechet_of_samples(m: Measurement) -> Result:
    """Squared Fréchet distance of samples from data, in principal components of the training data."""
    project, block = features(m), 500
    real = np.concatenate([project(m.observed.raw(np.arange(a, min(a + block, m.n)))) for a in range(0, m.n, block)])
    drawn = project(samples(m))
    of_drawn, of_real = (resampled(m.n, g, DRAWS, seed=seed) for g, seed in ((None, 0), (m.groups, 1)))
    bootstrap = [frechet(drawn[i], real[j]) / project.total for i, j in zip(of_drawn, of_real, strict=True)]
    how = (
        f"{_drawn(m)}; {project.k} principal components of "
        f"{min(LEARNED, len(m.run.data.train)):,} training data; standard error of {DRAWS} bootstrap draws"
    )
    return Result(how, value=frechet(drawn, real) / project.total, se=float(np.std(bootstrap, ddof=1)))


def _drawn(m: Measurement) -> str:
    what = "draws from" if m.run.draws_samples else "means of"
    return f"{m.n:,} {what} p(x|z) with z from the prior{like_data(m)}"


def folder_of(run: Any) -> Path | None:
    """The directory of a run in which the network of features is stored; None if it cannot be written."""
    return run.path if isinstance(run, SavedRun) and not is_fixed(run.path) and is_writable(run.path) else None


def spare_of(m: Measurement) -> Literal["valid", "test"]:
    """The split of held-out data that are not measured, which stand in for samples."""
    return "test" if m.observed.array is None and m.observed.split == "valid" else "valid"


@shared
def reference(m: Measurement) -> Reference:
    """The held-out data and the training data that samples are compared with."""
    real = m.observed.raw(np.arange(m.n))
    spare = getattr(m.run.data, spare_of(m))
    return Reference(m.run.data, real, m.groups, spare=spare, folder=folder_of(m.run), progress=m.progress)


@shared
def quality(m: Measurement) -> dict[str, Quality]:
    """The measures of samples by name."""
    return {one.name: one for one in reference(m).measure(samples(m))}


def part(estimate: Estimate) -> Part:
    """An estimate as a part of a result, without what is unknown."""
    return Part(*(float(x) if np.isfinite(x) else None for x in estimate))


def _result(m: Measurement, name: str, how: str) -> Result:
    one = quality(m)[name]
    value, se, low, high = one.estimate
    each = {octave: part(ratio) for octave, ratio in one.parts.items()} or None
    return Result(
        f"{_drawn(m)}; {how}", value=value, se=se, interval=Interval(low, high, 1 - LEVEL, BLOCKWISE),
        floor=part(one.floor), each=each,
    )  # fmt: skip


def _register(name: str, described: str, how: str, *more: Need) -> None:
    """Register one of `MEASURES`; `how` is its estimator, to which the features are added if it has some."""
    label, unit, better = MEASURES[name]

    def measure(m: Measurement) -> Result:
        return _result(m, name, how.format(features=reference(m).text, values=reference(m).values.text))

    measure.__doc__ = described
    measure.__name__ = measure.__qualname__ = name
    metric(name, unit, needs=[*COMPARED, *more], better=better, label=label, per_datum=False)(measure)


_register(
    "frechet_distance",
    "Squared Fréchet distance of samples from data in learned features, without the bias of few data",
    "{features}; bias and error by the jackknife",
    MOMENTS,
)
_register(
    "kernel_distance",
    "Kernel distance (KID) of samples from data in learned features: unbiased MMD of a cubic kernel",
    "{features}; error by the jackknife",
)
_register(
    "sample_precision",
    "Share of samples within the data's neighbourhoods, in learned features",
    "{features}; error by disjoint blocks",
)
_register(
    "sample_recall",
    "Share of data within the samples' neighbourhoods, in learned features",
    "{features}; error by disjoint blocks",
)
_register(
    "sample_density",
    "How densely samples fill the data's neighbourhoods, in learned features; real data have 1",
    "{features}; error by disjoint blocks",
)
_register(
    "sample_coverage",
    "Share of the data's neighbourhoods that hold a sample, in learned features",
    "{features}; error by disjoint blocks",
)
_register(
    "sharpness",
    "Energy of samples above a quarter of a cycle per pixel, over that of data: below 1 if blurred, above 1 if noisy",
    "cosine transform",
    SPATIAL,
)
_register(
    "memorisation",
    "Preference of samples for their nearest training over their nearest held-out datum, 1 for copies: see real data",
    "distances of {values}",
)


# --- membership by log p(x) ---------------------------------------------------------------------------------------


class Members(NamedTuple):
    """log p(x) of training, of held-out and of further held-out data, (n,) each, with their groups."""

    train: Array
    held_out: Array
    spare: Array
    groups: tuple[Array | None, Array | None, Array | None]


@shared
def members(m: Measurement) -> Members:
    """log p(x) of at most `MEMBERS` data of each kind."""
    rng = np.random.default_rng(0)
    found: list[Array] = []
    groups: list[Array | None] = []
    for source in ("train", m.observed, spare_of(m)):
        observed = m.run.observed(source)
        n = m.n if observed is m.observed else observed.n
        rows = np.arange(n) if n <= MEMBERS else np.sort(rng.choice(n, MEMBERS, replace=False))
        found.append(m.run.score(observed, rows=rows, samples=m.samples, seed=m.seed))
        group = observed.groups(n)
        groups.append(None if group is None else group[rows])
    return Members(found[0], found[1], found[2], (groups[0], groups[1], groups[2]))


def _how(m: Measurement) -> str:
    known = members(m)
    return f"IWAE-{m.samples} of {len(known.train):,} training and {len(known.held_out):,} held-out data"


def _difference(a: Array, b: Array, a_group: Array | None, b_group: Array | None) -> Estimate:
    """The difference of two means with its error, by group."""
    value, errors = float(a.mean() - b.mean()), (standard_error(a, a_group), standard_error(b, b_group))
    if errors[0] is None or errors[1] is None:
        return Estimate(value)
    se = float(np.hypot(errors[0], errors[1]))
    reach = t_quantile(LEVEL, min(units(len(a), a_group), units(len(b), b_group)) - 1) * se
    return Estimate(value, se, value - reach, value + reach)


@metric(
    "membership_gap", "nats", needs=[DENSITY, TRAINING, HELD_OUT, SEVERAL], better="lower", label="Membership gap",
    per_datum=False,
)  # fmt: skip
def membership_gap(m: Measurement) -> Result:
    """Mean log p(x) of training data minus that of held-out data: how much the model has overfitted."""
    known = members(m)
    of_train, of_held_out, of_spare = known.groups
    found = _difference(known.train, known.held_out, of_train, of_held_out)
    floor = _difference(known.spare, known.held_out, of_spare, of_held_out)
    interval = Interval(found.low, found.high, 1 - LEVEL, "student's t interval, over data")
    return Result(_how(m), m.samples, value=found.value, se=found.se, interval=interval, floor=part(floor))


@metric(
    "membership_auc", "0 to 1", needs=[DENSITY, TRAINING, HELD_OUT, SEVERAL], better="lower",
    label="Membership by log p(x)", per_datum=False,
)  # fmt: skip
def membership_auc(m: Measurement) -> Result:
    """How well log p(x) tells training data from held-out data: area under the ROC curve, 0.5 if not at all."""
    known = members(m)
    found, floor = (
        area(inside, known.held_out, *_shared_codes(group, known.groups[1]))
        for inside, group in ((known.train, known.groups[0]), (known.spare, known.groups[2]))
    )
    interval = Interval(found.low, found.high, 1 - LEVEL, "student's t interval of the log-odds, over data")
    return Result(_how(m), m.samples, value=found.value, se=found.se, interval=interval, floor=part(_estimate(floor)))


def _estimate(found: Area) -> Estimate:
    return Estimate(*found)


def _shared_codes(a: Array | None, b: Array | None) -> tuple[Array | None, Array | None]:
    """The groups of two splits, which have none in common, as codes that are not equal by chance."""
    if a is None or b is None:
        return None, None
    first, second = (np.unique(group, return_inverse=True)[1].ravel() for group in (a, b))
    return 2 * first, 2 * second + 1
