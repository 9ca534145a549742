"""The posteriors q(z | x) of the data of a run, from which codes can be drawn anew at every step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaekit.data.condition import FEW, Condition
from vaekit.data.core import Split
from vaekit.densities import Point
from vaekit.errors import ChoiceError, RunError
from vaekit.models.vae import VAE
from vaekit.noise import Key, Noise
from vaekit.recipes.composition import DataSpec
from vaekit.runs.saved import SavedRun
from vaekit.training.augment import Augment

from .densities.base import OnProgress
from .densities.posteriors import Posteriors

VERSIONS, ROWS = 16, 200_000
"""The maximum number of versions of a datum, and of posteriors in all when there are several versions.

Versions are wanted where one pass through the encoder does not give q(z) near a datum: training images that are
augmented or binarised at random, and posteriors that are not Gaussian, of which draws are stored.
"""


def condition_of(run: SavedRun, name: str) -> Condition | None:
    """What a density of the codes of a run is conditional on.

    Arguments:
        name: label, attributes, none, or auto: the run's own condition, else labels or attributes if the data have any.

    Raises:
        ChoiceError: the data have no such labels.
    """
    own, spec = run.composition.condition, run.spec
    if name == "none":
        return None
    if own is not None:
        if name not in ("auto", own.kind):
            raise ChoiceError(f"the run is conditional on its {own.kind}: omit `condition`, or `condition='none'`")
        return own
    found = _conditions(spec)
    if name == "auto":
        return next(iter(found.values()), None)
    if name not in found:
        raise ChoiceError(f"these data have no {name} to be conditional on: omit `condition`")
    return found[name]


def _conditions(spec: DataSpec) -> dict[str, Condition]:
    """The conditions that data offer, by kind."""
    found = {}
    if 2 <= len(spec.classes) <= FEW:
        found["label"] = Condition("label", tuple(spec.classes))
    if spec.attributes:
        found["attributes"] = Condition("attributes", tuple(spec.attributes))
    return found


def _given(condition: Condition, split: Split, rows: np.ndarray, names: list[str] | None) -> np.ndarray:
    """The condition of these rows, and whether it is known: (n, C + 1) float32, 0 for unknown ones."""
    chosen, known = split.take(rows), np.full(len(rows), True)
    if condition.kind == "label" and condition.column is None:
        known = ~known if chosen.label is None else chosen.label >= 0
    elif condition.kind == "attributes":
        columns = [np.asarray(chosen.columns[name], np.float64) for name in condition.names if name in chosen.columns]
        known = known & np.isfinite(np.array(columns)).all(0)
    c = np.zeros((len(rows), condition.size + 1), np.float32)
    c[known, :-1] = condition.of(chosen.take(known), names)
    c[known, -1] = 1
    return c


def _spread(q: Distribution | None) -> Tensor | None:
    """The standard deviations (B, D) of a posterior that is a Gaussian with independent elements; else None."""
    return q.base_dist.scale if isinstance(q, Independent) and isinstance(q.base_dist, Normal) else None


@torch.no_grad()
def _encoded(run: SavedRun, x: Tensor, c: Tensor | None, noise: Noise) -> tuple[Tensor, Tensor, bool]:
    """Mean and spread of the codes of x, (B, D) each, without the condition; and whether they are the posterior."""
    model, size = run.model, 0 if c is None else c.shape[1]
    q = (model.posterior(x) if c is None else model.posterior(x, c)) if isinstance(model, VAE) else None
    scale = _spread(q)
    whole = scale is not None or (isinstance(q, Independent) and isinstance(q.base_dist, Point))
    mean = model.encode(x, c, None if whole else noise)
    mean = mean[:, : mean.shape[1] - size]
    spread = torch.zeros_like(mean)
    if scale is not None:  # what follows the latents in a code, such as a total of counts, has no spread
        spread[:, : scale.shape[1]] = scale
    return mean, spread, whole


def posteriors(
    run: SavedRun,
    split: str,
    rows: np.ndarray,
    seed: int,
    condition: Condition | None = None,
    most_numbers: int = 50_000_000,
    on_progress: OnProgress | None = None,
) -> Posteriors:
    """The posteriors of the rows of a split; of training data in several versions, if these differ (`VERSIONS`).

    Arguments:
        most_numbers: the maximum number of values in the means.
    """
    observed, spec, seen = run.observed(split), run.spec, run.composition.observation
    training = split == "train"
    asked = run.options.augment
    augment = Augment.parse(asked, spec.kind, spec.shape) if training and asked else None
    means: list[Tensor] = []
    spreads: list[Tensor] = []
    block, version, versions = 500, 0, 1
    while version < versions:
        for a in range(0, len(rows), block):
            part = rows[a : a + block]
            key = Noise.of(seed, torch.from_numpy(part), Key.POSTERIORS, version)
            if training and (augment is not None or seen.stochastic):
                raw = torch.from_numpy(observed.raw(part))
                raw = raw if augment is None else augment(raw, key)
                x = seen(raw, key)
            else:
                x = observed(part)
            noise = Noise.of(seed, torch.from_numpy(part).to(run.device), Key.CODES, version)
            mean, spread, whole = _encoded(run, x.to(run.device), observed.condition(part, run.device), noise)
            means.append(mean.cpu())
            spreads.append(spread.cpu())
            if version == 0 and a == 0 and training and not (whole and augment is None and not seen.stochastic):
                most = min(ROWS, most_numbers // mean.shape[1]) // len(rows)
                versions = min(VERSIONS, max(1, most))
            if on_progress:
                done = version * len(rows) + min(a + block, len(rows))
                on_progress(f"encoding the {split} split", done, versions * len(rows))
        version += 1
    mean, spread = torch.cat(means), torch.cat(spreads)
    if not bool(torch.isfinite(mean).all() and torch.isfinite(spread).all()):
        raise RunError(f"some codes of {run.path} are not finite: no density can be fitted to them")
    c = None
    if condition is not None:
        c = torch.from_numpy(_given(condition, getattr(run.data, split), rows, run.data.label_names))
        c = c.repeat(versions, 1)
    return Posteriors(mean, spread, c)
