"""The least that -log p(x) of binarised data can be, and the estimator of log p(x) of each datum."""

from __future__ import annotations

import numpy as np

from vaekit.data.observation import Binary
from vaekit.errors import ChoiceError
from vaekit.runs.likelihood import PerDatum, closed_form_rates, per_datum
from vaekit.runs.observed import Observed
from vaekit.runs.trained import TrainedModel
from vaekit.utils.uncertainty import standard_error

__all__ = ["PerDatum", "closed_form_rates", "entropy_floor", "floors", "per_datum"]


def entropy_floor(run: TrainedModel, observed: Observed, n: int) -> tuple[float, float | None]:
    """Mean and standard error of the `floors` of the first n data, in nats per datum."""
    values = floors(run, observed, n)
    return float(values.mean()), standard_error(values, observed.groups(n))


def floors(run: TrainedModel, observed: Observed, n: int) -> np.ndarray:
    """The negative log-likelihood of the first n binary draws under the chances they were drawn with, nats, (n,).

    Each binary pixel was drawn with its own probability r. In expectation over draws no model's -log p(x) lies below
    -sum_i log Bernoulli(x_i; r_i); on given draws the mean may, by chance, by a few standard errors of the difference.
    """
    observation = run.composition.observation
    if not isinstance(observation, Binary):
        raise ChoiceError("the entropy floor needs binarised data")
    found = []
    for a in range(0, n, 1000):
        rows = np.arange(a, min(a + 1000, n))
        chance = observation.chance(observed.raw(rows))
        x = observed(rows).numpy() > 0.5
        found.append(-np.nansum(np.log(np.where(x, chance, 1 - chance)).reshape(len(rows), -1), 1))  # nan is missing
    return np.concatenate(found)
