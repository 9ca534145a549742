"""Normalised expression: the mean counts that a model expects at one total for all rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vaekit.errors import ChoiceError
from vaekit.utils.isolation import in_full_precision

if TYPE_CHECKING:
    from vaekit.data.condition import Labels
    from vaekit.runs.trained import TrainedModel

BLOCK = 4_000_000
"""Values decoded at once."""


def check_counts(model: TrainedModel) -> None:
    """Raise ChoiceError unless the model is one of counts."""
    if model.spec.kind != "counts":
        raise ChoiceError(f"this needs a model of counts, but this run was trained on {model.spec.kind} data")


@torch.no_grad()
@in_full_precision()
def shares(model: TrainedModel, z: np.ndarray | Tensor) -> Tensor:
    """The share of each feature in the mean counts of p(x|z), which sum to 1, for codes z (N, D): (N, *event)."""
    codes = torch.as_tensor(z, dtype=torch.float32, device=model.device)
    step = max(1, BLOCK // model.spec.dims)
    parts = []
    for a in range(0, len(codes), step):
        mean = model.model.decode(codes[a : a + step]).mean
        parts.append((mean / mean.sum(-1, keepdim=True)).cpu())
    return torch.cat(parts)


def normalised(
    model: TrainedModel,
    data: Any = "test",
    *,
    labels: Labels | None = None,
    as_if: Labels | None = None,
    size: float = 10_000.0,
    draws: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """The mean counts that the model expects of each row if its total were `size`: (N, D) float32.

    Arguments:
        data, labels: rows and their conditions, as for `encode`.
        as_if: decode all rows under this condition instead of their own, such as one batch for all. Of several
            covariates, those that it lacks keep the value of each row.
        size: the common total.
        draws: average over so many draws from the posterior; None decodes its mean.
        seed: seed of the draws.

    Raises:
        ChoiceError: the run is not one of counts, or `as_if` is given for a run that is not conditional.
    """
    check_counts(model)
    condition = model.composition.condition
    if as_if is not None and condition is None:
        raise ChoiceError("`as_if` needs a conditional run, and this run is not conditional")
    total: Tensor | None = None
    for i in range(draws or 1):
        z = model.encode(data, labels=labels, sample=draws is not None, seed=seed + i)
        if as_if is not None and condition is not None:
            z[:, -condition.size :] = condition.changed(z[:, -condition.size :], as_if)
        drawn = shares(model, z)
        total = drawn if total is None else total + drawn
    assert total is not None
    return (total * (size / (draws or 1))).numpy()
