"""Flow matching: regression of the velocity along lines from noise to data."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from vaekit.errors import ChoiceError
from vaekit.models.probability_flow import ProbabilityFlow
from vaekit.models.vae import Model

from .base import Batch, Losses, Objective


class FlowMatching(Objective):
    r"""loss = E |v(x_t, t | c) - (x - e)|^2 / D, x_t = (1 - t) e + t x, e ~ N(0, I), t logit-normal.

    Its minimum is the mean velocity E[x - e | x_t] (Lipman et al. 2023, arXiv:2210.02747). The stat `velocity_error`
    is the loss; its least value is above 0, because many lines pass through a point. `distortion` is -log p(x | x_t) of
    `ProbabilityFlow.trace`.

    Arguments:
        drop: share of the data whose condition is hidden, for classifier-free guidance (Ho and Salimans 2022,
            arXiv:2207.12598).
    """

    densities: ClassVar[dict[str, int]] = {}

    def __init__(self, drop: float = 0.1):
        super().__init__()
        self.drop = drop

    def check(self, model: Model) -> None:
        if not isinstance(model, ProbabilityFlow):
            raise ChoiceError(f"FlowMatching trains a ProbabilityFlow, not a {type(model).__name__}")

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        assert isinstance(model, ProbabilityFlow)
        point, t, e = model.between(batch.x, batch.noise)
        c = batch.c
        if c is not None:
            c = torch.where(batch.noise.uniform((1,)) < self.drop, 0.0, c)
        error = (model.velocity(point, t, c) - (batch.x - e)).square().sum(-1)
        loss = error.mean() / model.dims
        left = model.dims * (torch.log(1 - t) + 0.5 * math.log(2 * math.pi))  # as in the trace of the model
        return Losses({"model": loss}, {"velocity_error": loss, "distortion": (0.5 * error + left).mean()})
