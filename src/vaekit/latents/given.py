"""The hidden values of rows given the visible ones: single best values, draws, intervals, and new rows.

All of them come from the weighted draws of `conditional.candidates`, in the units of the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaekit.data.core import Column, listed
from vaekit.data.observation import Binary, Centred, Observation, Standardised
from vaekit.data.readers.coding import code
from vaekit.densities import draw
from vaekit.errors import ChoiceError, DataError
from vaekit.models.library import SizedVAE
from vaekit.models.priors import UniformSphere
from vaekit.models.vae import VAE
from vaekit.noise import Key, Mirrored, Noise
from vaekit.objectives import NotMIWAE
from vaekit.runs.observed import decoded_size, laid_out
from vaekit.utils.isolation import in_full_precision
from vaekit.utils.suggest import unknown

from .conditional import averaged, candidates, draw_numbers, resampled

if TYPE_CHECKING:
    from vaekit.data.condition import Labels
    from vaekit.runs.trained import TrainedModel

Best = Literal["mean", "median"]
SAMPLES = 128
"""The default number of codes per row."""
NEW_SAMPLES = 512
"""The least number of codes from which new rows are drawn."""
CODES = 100_000
"""The number of codes drawn at once for new rows."""
KEPT = 64
"""The default number of codes per row that are resampled, and decoded for best values and intervals."""
VALUES = 600_000
"""The number of values drawn at once; more do not fit in the caches of a processor."""
FEW = 10
"""Below this effective sample size, the weighted draws of a row rest on few codes."""
MORE = 4
"""The factor of the number of codes for such rows."""
AXES = (0, 1, 0, 0, 0, 0)
"""The axis of the rows in the best values, draws, ends of intervals, bounds and effective sample sizes."""


class Infilled(NamedTuple):
    """Rows whose hidden elements were inferred, in the units of the data. Visible elements are unchanged throughout.

    `filled` (B, *event) has the best value of each hidden element: its mean or median, or the most likely category.
    `draws` (K, B, *event) has K alternatives. `bound` (B,) is a lower bound (in expectation) on log p of the visible
    part, in nats, with x as observed by the model; nan under flow matching, for which none is computed. `low` and
    `high` (B, *event) are the ends of an interval, nan for visible elements and categories. `effective` (B,) is the
    effective sample size of the importance weights.
    """

    filled: np.ndarray
    draws: np.ndarray
    bound: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    effective: np.ndarray | None = None


def check_codes(run: TrainedModel) -> VAE:
    """The model of a run whose code is one vector of real numbers.

    Raises:
        ChoiceError: it is another kind of model, or one that needs the total of a row.
    """
    model = run.model
    if not isinstance(model, VAE) or isinstance(model.prior, UniformSphere):
        raise ChoiceError(
            "fill needs a model whose code is one vector of real numbers: not a hierarchy, discrete codes or a sphere"
        )
    if isinstance(model, SizedVAE):
        raise ChoiceError(
            "this model needs the total count of a row, which hidden counts are part of: fit with "
            "`library='latent'` or `library='none'`"
        )
    return model


def model_with_density(run: TrainedModel) -> VAE:
    """As `check_codes`, of a model that also has a density.

    Raises:
        ChoiceError: it has none, or as for `check_codes`.
    """
    model = check_codes(run)
    if model.no_density is not None:
        raise ChoiceError(f"drawing hidden values needs a model with a density: {model.no_density}")
    return model


def draws_rows(run: TrainedModel) -> bool:
    """Whether rows are filled by `fill_rows`: those of numbers and tables, of a model with a density."""
    return run.spec.kind in ("vector", "counts") and run.model.no_density is None


def check_under(run: TrainedModel, latents: str | None) -> None:
    """Raise ChoiceError if the rows of a run are filled under its prior only, and `latents` is something else."""
    if draws_rows(run) and latents not in (None, "prior"):
        raise ChoiceError("rows of numbers and tables are filled under the prior: leave `latents` out")


def blanked(run: TrainedModel, raw: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Raw rows as events (N, *event), with hidden elements replaced by a number valid for any run, and the hidden mask.

    Raises:
        DataError: the rows have the wrong shape, or a visible value is invalid for this run.
    """
    events = laid_out(raw, run.spec)
    hidden = np.broadcast_to(np.asarray(hidden, bool), events.shape)
    # the original values must not influence any draw
    blank = np.asarray(run.spec.scale[0] if run.spec.kind == "image" else 0)
    observation = run.composition.observation
    if observation.in_double:
        blank = observation.to_raw(torch.zeros(events.shape[1:])).numpy()
    return run.events(np.where(hidden, blank.astype(events.dtype), events)), hidden


def as_seen(run: TrainedModel, events: np.ndarray) -> Tensor:
    """x (N, *event) of raw events, on the CPU; hidden elements hold any valid value."""
    observation = run.composition.observation
    # log p of binary x is linear in x, so the probabilities of x in place of a draw give its mean over all draws
    if isinstance(observation, Binary):
        return torch.from_numpy(observation.chance(events)).float()
    return run.observed(events)(np.arange(len(events)))


@torch.no_grad()
@in_full_precision()
def fill_rows(
    run: TrainedModel,
    raw: np.ndarray,
    hidden: np.ndarray,
    *,
    labels: Labels | None = None,
    draws: int = 0,
    best: Best = "mean",
    interval: float | None = None,
    samples: int = SAMPLES,
    beyond_range: bool = False,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Infilled:
    """Fill in the hidden elements of rows from draws of p(x_hidden | x_visible).

    Arguments:
        raw: rows in any layout that the run accepts; hidden elements are ignored.
        hidden: bool (*event), or one mask per row.
        labels: for a conditional run, as for `Run.encode`.
        draws: K, the number of completed rows that are drawn from p(x_hidden | x_visible), with the noise of p(x | z).
        best: the single value of a number; categories and yes/no columns get the most likely value.
        interval: the probability of the interval from `low` to `high`, whose tails are equal; None for no interval.
            See `coverage.calibrated` for intervals that hold this share of held-out values.
        samples: importance samples of the code per row.
        beyond_range: allow values of a table outside the range of their columns.
        seed: seed of the draws.
        progress: called as progress(done, of).

    Raises:
        ChoiceError: the model's code is not a vector of real numbers, it has no density, or nothing is hidden.
        DataError: the rows have the wrong shape, or a visible value is invalid.
    """
    model = model_with_density(run)
    if interval is not None and not 0 < interval < 1:
        raise ChoiceError(f"interval must be between 0 and 1, got {interval:g}")
    events, hidden = blanked(run, raw, hidden)
    if not hidden.any():
        raise ChoiceError("nothing is hidden: the rows have no missing values, and the mask hides none")
    x = as_seen(run, events).to(run.device)
    visible = torch.from_numpy(~hidden & (events == events)).to(run.device)  # other missing values are left alone
    c = run.observed(events, labels=labels).condition(np.arange(len(events)), run.device)
    samples, kept = max(samples, 2 * draws), max(KEPT, draws)
    mask = run.composition.objective
    absent = torch.from_numpy(np.isnan(laid_out(raw, run.spec).astype(float)) & hidden).to(run.device)

    def filled_in(chosen: Tensor, samples: int, round_: int) -> list[np.ndarray]:
        """Best values, draws, ends of the intervals, bound and effective sample size of these rows."""
        parts = []
        for rows in chosen.split(max(1, VALUES // (samples * decoded_size(run.spec)))):
            noise, condition = Noise.of(seed, rows, Key.GIVEN, round_), None if c is None else c[rows]
            z, log_px, count = _codes(run, model, x[rows], visible[rows], condition, samples, kept, noise)
            px = model.decode(z if condition is None else torch.cat([z, condition.expand(kept, *condition.shape)], -1))
            partner, at = Mirrored(noise), rows.cpu().numpy()
            drawn = draw if draws else draw_numbers
            pairs = torch.stack([drawn(px, noise), drawn(px, partner)])
            if isinstance(mask, NotMIWAE):
                px, pairs = _given_mask(mask, model, z, condition, pairs, absent[rows], noise)
            told = _summary(run, px, pairs, events[at], hidden[at], draws, best, interval, beyond_range)
            parts.append((*told, log_px.cpu().numpy(), count.cpu().numpy()))
            if progress and not round_:
                progress(int(at[-1]) + 1, len(events))
        return [np.concatenate(part, axis) for part, axis in zip(zip(*parts, strict=True), AXES, strict=True)]

    results = filled_in(torch.arange(len(events), device=run.device), samples, 0)
    few = np.flatnonzero(results[-1] < FEW)  # these rows rest on few codes: draw more of them
    if len(few):
        again = filled_in(torch.from_numpy(few).to(run.device), MORE * samples, 1)
        for result, better, axis in zip(results, again, AXES, strict=True):
            np.moveaxis(result, axis, 0)[few] = np.moveaxis(better, axis, 0)
    filled, alternatives, low, high, bound, effective = results
    if interval is None:
        return Infilled(filled, alternatives, bound, effective=effective)
    return Infilled(filled, alternatives, bound, low, high, effective)


def _given_mask(
    mask: NotMIWAE,
    model: VAE,
    z: Tensor,
    c: Tensor | None,
    x: Tensor,
    absent: Tensor,
    noise: Noise,
) -> tuple[Distribution, Tensor]:
    """p(x | z) and draws (1, 2 M, B, D), of 2 M codes given also that these values are missing (B, D), not at random.

    Arguments:
        z, x: codes (M, B, L) given the visible values, and pairs of draws (2, M, B, D).
    """
    x = x.flatten(0, 1)
    log_weight = torch.where(absent, mask.each(x, absent), 0.0).flatten(2).sum(-1)
    index = resampled(log_weight.log_softmax(0), len(x), noise)
    z = z.repeat(2, 1, 1).take_along_dim(index[..., None], 0)
    px = model.decode(z if c is None else torch.cat([z, c.expand(len(z), *c.shape)], -1))
    return px, x.take_along_dim(index[..., None], 0)[None]


def _codes(
    run: TrainedModel,
    model: VAE,
    x: Tensor,
    visible: Tensor,
    c: Tensor | None,
    samples: int,
    kept: int,
    noise: Noise,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws of p(z | x_visible) (kept, B, L), the estimate of log p(x_visible) and the effective sample size, (B,)."""
    found = candidates(model, x, visible, c, holes=run.spec.missing, samples=samples, noise=noise)
    index = resampled(found.log_weight, kept, noise)
    return found.z.take_along_dim(index[..., None], 0), found.log_px, found.effective


def _of_features(observation: Observation, features: Tensor) -> Observation:
    """An observation whose `to_raw` takes rows (H,) of these elements (H,) of flattened x, which may repeat."""
    double = observation.in_double
    if isinstance(observation, Standardised):
        part = Standardised((len(features),), double)
        part.mean, part.std = observation.mean.flatten()[features], observation.std.flatten()[features]
        part.quantiles = None if observation.quantiles is None else observation.quantiles.of_features(features)
        return part
    if isinstance(observation, Centred):
        centred = Centred((len(features),), double)
        centred.mean, centred.scale = observation.mean.flatten()[features], observation.scale
        return centred
    return observation


def _summary(
    run: TrainedModel,
    px: Distribution,
    x: Tensor,
    events: np.ndarray,
    hidden: np.ndarray,
    draws: int,
    best: Best,
    interval: float | None,
    beyond_range: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Best values, draws and ends of the intervals for a block of rows, from draws x (2, M, B, *event) of px."""
    observation = run.composition.observation
    cells = np.nonzero(hidden)
    features = np.ravel_multi_index(cells[1:], events.shape[1:])
    at = torch.from_numpy(np.ravel_multi_index(cells, events.shape))
    hidden_x = x.flatten(2).flatten(0, 1).cpu().index_select(1, at)  # (2 M, H)
    found = _of_features(observation, torch.from_numpy(features)).to_raw(hidden_x).numpy()
    background = events.astype(found.dtype)

    def placed(answer: np.ndarray) -> np.ndarray:
        """Rows with these answers (H,) in their hidden cells, fitted to the columns."""
        full = background.copy()
        full[cells] = answer
        return np.where(hidden, run.as_rows(full, beyond_range=beyond_range), background)

    ordered = found if interval is None and best == "mean" else np.sort(found, 0)

    def quantile(level: float) -> np.ndarray:
        return ordered[min(int(level * len(ordered)), len(ordered) - 1)]

    answer = ordered.mean(0) if best == "mean" else quantile(0.5)
    discrete = np.zeros(len(answer), bool)
    if run.spec.columns:
        kinds = np.array([column.kind in ("binary", "categorical") for column in run.spec.columns])
        discrete = kinds[cells[1]]
    if discrete.any():
        likely = observation.to_raw(averaged(px).cpu()).numpy()[cells].round()
        answer = np.where(discrete, likely, answer)
    if interval is None:
        low = high = np.full(events.shape, np.nan)
    else:
        low, high = (
            np.where(hidden, placed(np.where(discrete, np.nan, quantile(level))), np.nan)
            for level in ((1 - interval) / 2, (1 + interval) / 2)
        )
    alternatives = [placed(one) for one in found[:draws]]
    stacked = np.stack(alternatives) if draws else np.empty((0, *events.shape), found.dtype)
    return placed(answer), stacked, low, high


# --- new rows with given values ---------------------------------------------------------------------------------


def given_row(run: TrainedModel, given: Mapping[str, Any], some: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """A raw row (1, D) with the given values by column, 0 elsewhere, and the mask (D,) of its other elements.

    Arguments:
        given: numbers, and categories by name; texts are read like the cells of a table.
        some: whether `given` must name a column.

    Raises:
        ChoiceError: the data are not a table or rows of numbers, or have no such column.
        DataError: a column cannot hold the value.
    """
    if run.spec.kind not in ("vector", "counts"):
        raise ChoiceError(f"`given` names columns, which {run.spec.kind} data do not have: use `fill` with a mask")
    columns = run.columns or tuple(Column(f"x{i}", "real") for i in range(run.spec.dims))
    names = [column.name for column in columns]
    row, hidden = np.zeros((1, len(names))), np.ones(len(names), bool)
    if some and not given:
        raise ChoiceError("`given` names no column")
    for name, value in given.items():
        if name not in names:
            raise ChoiceError(f"given: {unknown('column', str(name), names)}")
        j = names.index(name)
        column = columns[j]
        row[0, j], hidden[j] = _cell(column, value), False
    if not hidden.any():
        raise ChoiceError("`given` has a value for every column: nothing is left to draw")
    return row, hidden


def _cell(column: Column, value: Any) -> float:
    """A value as the number that stands for it in a column.

    Raises:
        DataError: the column cannot hold it.
    """
    cell = np.array([str(value).lower() if isinstance(value, bool | np.bool_) else value])
    try:
        number = float(code(column, cell, "given")[0])
        fits = not (np.isnan(number) or column.outside(np.array([number]))[0])
    except DataError:
        fits = False
    if not fits:
        expected = f"one of {listed(column.categories)}" if column.categories else column.allowed
        raise DataError(f"given: column {column.name!r} is {value!r}, expected {expected}")
    return number


class Drawn(NamedTuple):
    """New rows with some values given: `x` (n, D) in the units of the data, and their codes `z` (n, L)."""

    x: np.ndarray
    z: np.ndarray
    effective: float


@torch.no_grad()
@in_full_precision()
def sample_given(
    run: TrainedModel,
    n: int,
    given: Mapping[str, Any],
    *,
    labels: Labels | None = None,
    noise: bool | None = None,
    beyond_range: bool = False,
    seed: int = 0,
) -> Drawn:
    """n rows drawn from p(x | the given values); the arguments are those of `Run.sample`.

    Raises:
        ChoiceError: an unknown column, a model without a density, or a code that is not a vector of real numbers.
        DataError: a column cannot hold its given value.
    """
    model = model_with_density(run)
    given, labels = labels_of(run, given, labels)
    conditions = run._conditions(n, 1.0, labels)
    row, hidden = given_row(run, given)
    events, _ = blanked(run, row, hidden)
    if conditions is None:
        distinct, of = None, np.zeros(n, np.int64)
    else:
        unique, of = np.unique(conditions.cpu().numpy(), axis=0, return_inverse=True)
        distinct, of = torch.from_numpy(unique).to(run.device), of.reshape(-1)
    rows = 1 if distinct is None else len(distinct)
    x = as_seen(run, events).to(run.device).expand(rows, -1)
    visible = torch.from_numpy(~hidden).to(run.device).expand(rows, -1)
    counts = np.bincount(of, minlength=rows)
    most = int(counts.max())
    samples = min(max(NEW_SAMPLES, 8 * most), CODES)
    codes, effective = [], math.inf
    for part in torch.arange(rows, device=run.device).split(max(1, CODES // samples)):
        c, keyed = None if distinct is None else distinct[part], Noise.of(seed, part, Key.GIVEN)
        found = candidates(model, x[part], visible[part], c, holes=run.spec.missing, samples=samples, noise=keyed)
        index = resampled(found.log_weight, most, keyed)
        drawn = found.z.take_along_dim(index[..., None], 0).cpu().numpy()  # (most, part, L)
        codes += [drawn[: counts[row], i] for i, row in enumerate(part.tolist())]
        effective = min(effective, float(found.effective.min()))
    z = np.concatenate(codes)[np.argsort(of, kind="stable").argsort()]
    z = z if conditions is None else np.concatenate([z, conditions.cpu().numpy()], 1)
    new = run.new_rows(z, noise=noise, beyond_range=beyond_range, seed=seed)
    return Drawn(np.where(hidden, new, events.astype(new.dtype)), z, effective)


def labels_of(
    run: TrainedModel, given: Mapping[str, Any], labels: Labels | None
) -> tuple[Mapping[str, Any], Labels | None]:
    """`given` without the column that a conditional run is conditional on, whose value becomes its `labels`."""
    condition = run.composition.condition
    if condition is None or condition.kind != "label":
        return given, labels
    name = condition.column or run.read_options.get("label", "label")
    if name not in given:
        return given, labels
    if labels is not None:
        raise ChoiceError(f"the condition {name!r} is in `given` and in `labels`: give it once")
    return {k: v for k, v in given.items() if k != name}, condition.read(str(given[name]))
