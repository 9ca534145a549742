"""Preparation before the first step: fit the observation, initialise the output, and check one batch."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vaekit.data.core import Data, blocks, listed
from vaekit.data.observation import Grey, Standardised
from vaekit.densities.mixed import DIFFERS
from vaekit.errors import ChoiceError, SupportError, TrainingError
from vaekit.heads import ContinuousBernoulliHead, Head, LocationScale
from vaekit.heads.autoregressive import AutoregressiveHead
from vaekit.heads.mixed import Masked
from vaekit.noise import Key, Noise
from vaekit.objectives import Batch
from vaekit.recipes.composition import Composition
from vaekit.utils.isolation import seeded


def check_first_batch(
    composition: Composition, raw: Tensor, seed: int, c: Tensor | None = None, y: Tensor | None = None
) -> None:
    """Check shapes, support and finite terms on one small batch, before anything is written.

    Raises:
        SupportError: x lies outside the likelihood's support.
        ChoiceError: its shape does not fit the model.
        TrainingError: a term is not finite.
    """
    noise = Noise.of(seed, len(raw))
    with torch.no_grad():
        x = composition.observation(raw, noise)
        px = composition.model.decode(composition.model.encode(x, c))
        if tuple(px.event_shape) != tuple(x.shape[1:]):
            raise ChoiceError(
                f"p(x|z) is over events of shape {tuple(px.event_shape)} but x has {tuple(x.shape[1:])}: "
                "give the head the shape of the data as its event shape"
            )
        inside = px.support.check(x) if px.support is not None else torch.tensor(True)
        if not bool(inside.all()):
            raise SupportError(
                f"x ranges from {float(x.min()):g} to {float(x.max()):g}, outside the support of "
                f"{type(px).__name__} ({px.support}): scale the data into it (0..255 images: x / 255, or uint8 "
                "with the binary or grey observation), or choose a Gaussian likelihood"
            )
        terms = composition.objective(composition.model, Batch(x, noise, c, y), torch.tensor(0))
        for name, value in {**terms.losses, **terms.stats}.items():
            if not bool(torch.isfinite(value)):
                raise TrainingError(f"{name} is {float(value)} before the first step: check the data and `lr`")


def prepare(data: Data, composition: Composition, seed: int, *, initialise: bool = True) -> None:
    """Fit the observation, initialise the output at the mean of the data, and check one batch."""
    with seeded(seed):  # the model is in training mode, so its dropout draws random numbers
        _prepare(data, composition, seed, initialise)


def _prepare(data: Data, composition: Composition, seed: int, initialise: bool) -> None:
    n, c, y = len(data.train), composition.condition, composition.targets

    def read(rows: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(data.events(data.train[rows])))

    if initialise:
        block = max(1, int(5e6) // max(1, math.prod(data.shape)))
        composition.observation.fit(lambda: (read(np.arange(a, min(a + block, n))) for a in range(0, n, block)))
        head = getattr(composition.model.likelihood, "head", None)
        if isinstance(head, Head):
            head.observe(composition.observation)
        composition.objective.in_units(composition.observation.log_jacobian(data.shape))
        if composition.start is not None:
            sample = np.linspace(0, n - 1, min(n, 5000, block)).astype(np.int64)
            with torch.no_grad():
                x = composition.observation(read(sample), Noise.of(seed, len(sample), Key.START))
                conditions = [torch.from_numpy(c.of(data.train)[sample])] if c else []
                composition.start(composition, x, *conditions)
    rows = np.linspace(0, n - 1, min(n, 8)).astype(np.int64)
    check_first_batch(
        composition,
        read(rows),
        seed,
        torch.from_numpy(c.of(data.train)[rows]) if c else None,
        torch.from_numpy(y.of(data.train)[rows]) if y else None,
    )


def constants(data: Data, composition: Composition) -> str | None:
    """A note about elements that are constant in the training data and that the likelihood fixes; None without any."""
    head = getattr(composition.model.likelihood, "head", None)
    fixed = head.held if isinstance(head, Masked | AutoregressiveHead) else None
    if fixed is None:
        return None
    positions = np.flatnonzero(~torch.isnan(fixed).numpy().ravel())
    value = composition.observation.to_raw(torch.nan_to_num(fixed)).numpy().ravel()[positions]
    differing = 0
    for split in (data.valid, data.test):
        for _, block in blocks(split.raw, split.index, split.double):
            rows = data.events(block).reshape(len(block), -1)[:, positions]
            differing += int(((rows != value) & (rows == rows)).any(1).sum())
    names = [data.feature_names[i] if data.feature_names else str(i) for i in positions]
    constant = f"column {names[0]!r} is {value[0]:g} in every training row: it is reproduced exactly and adds"
    if len(positions) > 1:
        constant = f"{len(positions):,} columns ({listed(names, 6)}) are constant in the training rows: they are "
        constant += "reproduced exactly and add"
    n = len(data.valid) + len(data.test)
    count = f" ({differing:,} of {n:,} validation and test rows differ)" if differing else ""
    return f"{constant} nothing to log p(x); each value that differs costs {DIFFERS:,.0f} nats{count}"


FEW = 1000
"""With fewer training rows, those that the autoregressive likelihood draws were less realistic than those of mixed."""


def few_rows(data: Data, composition: Composition) -> str | None:
    """A note if the training rows are too few for the autoregressive likelihood; else None."""
    head, n = getattr(composition.model.likelihood, "head", None), len(data.train)
    if not isinstance(head, AutoregressiveHead) or n >= FEW:
        return None
    return (
        f"the autoregressive likelihood overfits small tables, and this one has {n:,} training rows: "
        "`likelihood='mixed'` may give more realistic rows; a report on synthetic rows compares both"
    )


def piled_up(data: Data, composition: Composition) -> str | None:
    """A note if many grey values lie at an end of their range, where the density can become sharp; else None."""
    head, observation = getattr(composition.model.likelihood, "head", None), composition.observation
    head = head.head if isinstance(head, Masked) else head
    sharp = isinstance(head, LocationScale) and head.scale in ("learned", "each")
    if not isinstance(observation, Grey) or not (sharp or isinstance(head, ContinuousBernoulliHead)):
        return None
    rows = data.train[np.linspace(0, len(data.train) - 1, min(len(data.train), 500)).astype(np.int64)]
    share = float(((rows == observation.low) | (rows == observation.low + observation.span)).mean())
    if share < 0.01:
        return None
    return (
        f"{share:.0%} of the values are exactly the lowest or the highest. The density of this likelihood can grow "
        f"there, up to about {5 if sharp else 7} nats per value, so log p(x) rises as long as training continues; "
        "`observation='dequantised'` or `likelihood='discretised-logistic'` avoids this"
    )


EXTREME = 100
"""A standard deviation of so many times the range of the middle half of a column comes from a few extreme values."""


def extreme(data: Data, composition: Composition) -> str | None:
    """A note on the column whose extreme values leave the others nearly equal once it is standardised; else None."""
    seen = composition.observation
    if not isinstance(seen, Standardised):
        return None
    n = max(2, min(len(data.train), 1000, 10**7 // math.prod(data.shape)))
    rows = data.events(data.train[np.linspace(0, len(data.train) - 1, n).astype(np.int64)]).reshape(n, -1)
    low, high = np.nanpercentile(np.where(np.isnan(rows).all(0), 0, rows), (25, 75), axis=0)
    std = seen.std.numpy().ravel()
    if seen.quantiles is not None:
        std = np.where(seen.quantiles.mapped, 0, std)
    ratio = np.divide(std, high - low, out=np.zeros(len(std)), where=high > low)
    if ratio.max() < EXTREME:
        return None
    worst, more = int(ratio.argmax()), int((ratio >= EXTREME).sum()) - 1
    name = repr(data.feature_names[worst]) if data.feature_names else str(worst)
    return (
        f"column {name}{f' and {more} more' if more else ''}: a few values are so extreme that the middle half of the "
        f"others lies within 1/{ratio[worst]:.0f} of a standard deviation, and looks constant to the model; check the "
        "extreme values, or take logarithms"
    )
