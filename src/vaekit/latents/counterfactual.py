"""A row with some values changed, and its other values changed with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, Normal

from vaekit.densities import Censored, OptimalNormal
from vaekit.densities.censored import intervals
from vaekit.densities.drawing import from_noise
from vaekit.densities.mixed import Categories, Marginal, Mixed
from vaekit.errors import ChoiceError
from vaekit.noise import Key, Noise
from vaekit.utils.isolation import in_full_precision

from .conditional import candidates, resampled
from .given import CODES, NEW_SAMPLES, Drawn, as_seen, blanked, given_row, labels_of, model_with_density

if TYPE_CHECKING:
    from vaekit.data.condition import Labels
    from vaekit.runs.trained import TrainedModel

MEAN_SAMPLES = 4096
"""The number of codes from which the mean code given the changed values is estimated."""
MOST_COUNT = 4096
"""The largest count that is moved by its quantile; others keep their distance from the mean in standard deviations."""


@torch.no_grad()
@in_full_precision()
def counterfactual_rows(
    run: TrainedModel,
    row: np.ndarray,
    given: Mapping[str, Any],
    n: int = 1,
    *,
    labels: Labels | None = None,
    beyond_range: bool = False,
    seed: int = 0,
) -> Drawn:
    r"""n versions of a row (1, D) in which some columns are changed, and the others follow.

    For each version, a code z is drawn from p(z | row), and the quantile of each value under p(x | z) is computed. The
    code is shifted by the change of the mean code, E[z | the new values] - E[z | the old values of these columns], and
    each of the other columns takes the value at its old quantile under p(x | shifted z). A category stays as it is
    with probability min(1, p_new / p_old) and is drawn anew otherwise. In a linear Gaussian model, the other columns
    thus change by their regression on the changed ones.

    The result shows how rows with the new values differ from rows with the old ones. This need not be what happens to
    this row if its values are changed, because such rows may also differ in causes that are not in the table.

    Arguments:
        row: in any layout that the run accepts; missing values (nan) are drawn.
        given: the new values, as for `sample_given`; of a conditional run, also the column of its condition.
        labels: the condition of the row, of a conditional run.
        seed: seed of the draws.

    Raises:
        ChoiceError: an unknown column, a model without a density, a code that is not a vector of real numbers, or a
            likelihood without quantiles.
        DataError: a column cannot hold its given value.
    """
    model = model_with_density(run)
    old = run.observed(row, labels=labels).condition(np.arange(1), run.device)
    given, changed = labels_of(run, given, None)
    new = old
    if changed is not None and run.composition.condition is not None:
        new = torch.from_numpy(run.composition.condition.encoded(changed, 1)).to(run.device)
    values, kept = given_row(run, given, some=changed is None)
    events, _ = blanked(run, row, np.isnan(np.asarray(row, float)).reshape(1, -1))
    visible = torch.from_numpy(~np.isnan(np.asarray(row, float)).reshape(1, -1)).to(run.device)
    x = as_seen(run, events).to(run.device)
    target = as_seen(run, blanked(run, np.where(kept, events, values), np.zeros(kept.shape, bool))[0]).to(run.device)
    of_given = torch.from_numpy(~kept).to(run.device)
    options: dict[str, Any] = {"holes": run.spec.missing}
    noise = Noise.of(seed, 1, Key.GIVEN, device=run.device)
    samples = min(max(NEW_SAMPLES, 8 * n), CODES)
    found = candidates(model, x, visible, old, samples=samples, noise=noise, **options)
    z = found.z[resampled(found.log_weight, n, noise)[:, 0], 0]  # (n, L)
    both = Noise(noise.base, noise.rows.new_zeros(2))  # the same noise: without a change, the difference is 0
    conditions = None if old is None or new is None else torch.cat([old, new])
    seen = torch.stack([of_given & visible[0], of_given])
    ends = candidates(model, torch.cat([x, target]), seen, conditions, samples=MEAN_SAMPLES, noise=both, **options)
    means = (ends.log_weight.exp()[..., None] * ends.z).sum(0)
    moved = z + (means[1] - means[0]).to(z)

    def decode(z: Tensor, c: Tensor | None) -> Distribution:
        return model.decode(z if c is None else torch.cat([z, c.expand(n, -1)], -1))

    rows = Noise.of(seed, n, Key.GIVEN, 2, device=run.device)
    drawn = _followed(decode(z, old), decode(moved, new), torch.where(visible, x, torch.nan).expand(n, -1), rows)
    raw = run.as_rows(run.composition.observation.to_raw(drawn.cpu()).numpy(), beyond_range=beyond_range)
    codes = moved if new is None else torch.cat([moved, new.expand(n, -1)], -1)
    return Drawn(np.where(kept, raw, values.astype(raw.dtype)), codes.cpu().numpy(), float(found.effective.min()))


def _followed(before: Distribution, after: Distribution, x: Tensor, noise: Noise) -> Tensor:
    """The values (n, D) of `after` that correspond to the values x (n, D) of `before`; missing ones are drawn."""
    if isinstance(before, Marginal) and isinstance(after, Marginal):
        return after.put(_followed(before.whole, after.whole, x, noise))
    if isinstance(before, Mixed) and isinstance(after, Mixed):
        parts = zip(before.parts, after.parts, strict=True)
        return after._whole([_moved(p, q, x.index_select(-1, which), noise) for (which, p), (_, q) in parts])
    if isinstance(before, Independent) and isinstance(after, Independent):
        return _moved(before.base_dist, after.base_dist, x, noise)
    return _moved(before, after, x, noise)


def _moved(p: Distribution, q: Distribution, x: Tensor, noise: Noise) -> Tensor:
    """Values (n, d) of q with the quantiles of the values x (n, d) of p; a draw of q where x is missing."""
    drawn, u = from_noise(q, noise, (x.shape[-1],), None), noise.uniform((x.shape[-1],))
    known, value = ~torch.isnan(x), torch.nan_to_num(x)
    if isinstance(p, Normal | OptimalNormal | Censored):
        t = (value - p.mean) / p.stddev
        if isinstance(p, Censored):  # an atom is any point of its interval
            low, high, atom = intervals(value, p.edges, p.atom)
            low, high = (low - p.mean) / p.stddev, (high - p.mean) / p.stddev
            below, above = (torch.special.ndtr(end.double()) for end in (low, high))
            within = torch.special.ndtri(below + u * (above - below)).to(t)
            t = torch.where(atom, torch.minimum(torch.maximum(within, low), high), t)
        return torch.where(known, q.mean + q.stddev * t, drawn)
    if isinstance(p, Bernoulli | Categories):
        ratio = q.log_prob(value) - p.log_prob(value)
        stays = torch.log(u) < ratio
        return torch.where(known, torch.where(stays, value, _gained(p, q, value, noise)), drawn)
    if getattr(p.support, "is_discrete", False):
        last = float(getattr(p.support, "upper_bound", math.inf))
        top = int(min(MOST_COUNT, last, float(torch.maximum(value.amax(), (q.mean + 10 * q.stddev).amax())))) + 1
        counts = torch.arange(top, dtype=x.dtype, device=x.device)[:, None, None]
        below, to = (_cumulative(d, counts) for d in (p, q))
        at = value.clamp_max(top - 1).long()[None]
        upper = below.gather(0, at)[0]
        lower = torch.where(value > 0, below.gather(0, (at - 1).clamp_min(0))[0], 0.0)
        level = lower + u * (upper - lower)
        moved = (to <= level).sum(0).to(x.dtype)
        far = (q.mean + q.stddev * (value - p.mean) / p.stddev).round().clamp(0, last)
        return torch.where(known, torch.where((value < top) & (moved < top), moved, far), drawn)
    raise ChoiceError(f"counterfactual rows need quantiles of p(x|z), which {type(p).__name__} does not have")


def _gained(p: Distribution, q: Distribution, value: Tensor, noise: Noise) -> Tensor:
    """Draws of the outcomes that are more probable under q than under p, in proportion to what they gain."""
    if isinstance(p, Categories) and isinstance(q, Categories):
        gain = (torch.softmax(q.logits, -1) - torch.softmax(p.logits, -1)).clamp_min(0)
        return from_noise(Categories(torch.log(gain + 1e-30)), noise, value.shape[-1:], None)
    return 1 - value


def _cumulative(d: Distribution, counts: Tensor) -> Tensor:
    """P(count <= k) for counts k (K, 1, 1): (K, n, d), float64."""
    return d.log_prob(counts).double().exp().cumsum(0)
