"""Missing values filled in with what the model expects of them, given the values that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vaekit.densities.mixed import Marginal, Mixed
from vaekit.models.vae import Model
from vaekit.noise import Noise
from vaekit.objectives.terms import log_weights

if TYPE_CHECKING:
    from vaekit.data.condition import Labels
    from vaekit.runs.trained import TrainedModel

FILLING = 61
"""What the noise of filling in is for."""


def fill(
    model: Model, x: Tensor, c: Tensor | None = None, samples: int | None = None, noise: Noise | None = None
) -> Tensor:
    r"""x (B, *event) with its missing values, nan, filled in by E[x_missing | x_observed]; of categories the likeliest.

    Without `samples` the mean of p(x | z) at the code of the observed values. With K samples the self-normalised
    importance-weighted mean sum_k w_k E[x | z_k], w_k in proportion to p(x_observed, z_k) / q(z_k | x), which tends to
    the expectation as K grows (Mattei and Frellsen 2019, MIWAE).
    """
    with torch.no_grad():
        if samples is None:
            expected = model.decode(model.encode(x, c)).mean
        else:
            trace = model.trace(x, c, k=samples, noise=noise)
            weights = torch.softmax(log_weights(trace, x), 0)  # (K, B)
            whole = trace.px.whole if isinstance(trace.px, Marginal) else trace.px
            if isinstance(whole, Mixed):
                expected = whole.average(weights)
            else:
                lifted = weights.reshape(*weights.shape, *(1 for _ in whole.event_shape))
                expected = (lifted * whole.mean).sum(0)
            expected = trace.px.put(expected) if isinstance(trace.px, Marginal) else expected
        return torch.where(torch.isnan(x), expected, x)


def fill_rows(
    run: TrainedModel, raw: np.ndarray, labels: Labels | None = None, samples: int | None = None, seed: int = 0
) -> np.ndarray:
    """Raw rows with missing values, as (N, *event) floats in the data's own units with those filled in.

    Arguments:
        raw: rows in any layout that the run's data may have.
        labels: of a conditional run, as for `Run.encode`.
        samples, seed: as for `fill`; without `samples` nothing is drawn.
    """
    observed = run.observed(raw, labels)
    found = []
    block = max(1, 4_000_000 // max(1, run.spec.dims * (samples or 1)))
    for a in range(0, observed.n, block):
        rows = np.arange(a, min(a + block, observed.n))
        x, c = observed(rows).to(run.device), observed.condition(rows, run.device)
        noise = Noise.of(seed, torch.from_numpy(rows).to(run.device), FILLING)
        filled = run.composition.observation.to_raw(fill(run.model, x, c, samples, noise).cpu()).numpy()
        given = observed.raw(rows).astype(filled.dtype)
        found.append(np.where(np.isnan(given), filled, given))
    return np.concatenate(found)
