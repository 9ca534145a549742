"""Objectives that match the aggregate posterior to the prior by the maximum mean discrepancy (MMD)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from vaekit.densities import draw
from vaekit.errors import ChoiceError
from vaekit.models.vae import Latent, Model
from vaekit.noise import Noise
from vaekit.utils.arguments import Knob

from .aggregate import KERNELS, mmd
from .base import Batch, Losses, objective
from .one_layer import OneLayer, learns_prior, scheduled
from .schedules import Schedule

Kernel = Callable[[Tensor, Tensor], Tensor]
KernelName = Annotated[str, Knob("kernel of the MMD: inverse multiquadratic (imq) or Gaussian", among=KERNELS)]
Weight = Annotated[float | Schedule, Knob("weight of the MMD", low=0)]


def _discrepancy(name: str, model: Model, latent: Latent, noise: Noise, kernel: Kernel, rate: bool) -> Tensor:
    """MMD(q(z), p(z)) between the batch's codes and samples of the prior; `rate`: whether the loss also has a KL."""
    prior = draw(latent.p, noise).to(latent.z.dtype)
    if not rate and torch.is_grad_enabled() and learns_prior(model) and not prior.requires_grad:
        raise ChoiceError(
            f"{name} trains a learned prior through its samples, and those of {type(latent.p).__name__} have no "
            "gradient, so it would not be trained: use the prior N(0, I), or InfoVAE with alpha below 1"
        )
    return mmd(latent.z.flatten(1), prior.flatten(1), kernel)


@objective("info", "Zhao et al. 2019, arXiv:1706.02262", "The aggregate posterior of the codes")
class InfoVAE(OneLayer):
    r"""loss = E_q[-log p(x|z)] + (1 - alpha) KL(q(z|x) || p(z)) + (alpha + weight - 1) MMD(q(z), p(z)).

    Zhao et al. (2019, arXiv:1706.02262), with `weight` for their lambda. alpha = 0 and weight = 1 is the plain bound;
    alpha = 1 has no KL and works for any encoder, even one without a density. The MMD is squared and unbiased (so it
    may be negative), with kernels between 0 and 1; it has no unit, so its weight is in nats per example. The weight
    also scales the noise of the estimate: if that exceeds the information in a code, the model ignores the codes (8 x 8
    digits work with 100, not with 1000). The MMD trains a learned prior through its reparametrised samples: the means
    and scales of a mixture, but not its weights, which only the KL trains.

    The stats are the true `elbo`, `rate` and `distortion` (without a density only `distortion`), and `mmd`.

    Arguments:
        alpha: the share of the KL that is left out, at most 1.
        weight: lambda, at least 1 - alpha: a number, or a schedule of the step (the weight of the MMD is at least 0).
        kernel: `imq` (inverse multiquadratic) or `gaussian`, each averaged over seven widths around 2 D.
    """

    def __init__(
        self,
        alpha: Annotated[float, Knob("share of the KL that is left out of the loss", high=1)] = 0.0,
        weight: Weight = 100.0,
        kernel: KernelName = "imq",
    ):
        super().__init__()
        if not isinstance(weight, Schedule) and weight < 1 - alpha:
            raise ChoiceError(f"`weight` must be 1 - `alpha` = {1 - alpha:g} or more, got {weight:g}")
        self.alpha, self.weight, self.kernel = alpha, scheduled(weight), KERNELS[kernel]

    def needs_density(self) -> bool:
        return self.alpha < 1

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        latent, d, r, stats = self.one_pass(model, batch)
        loss = d.mean()
        if self.alpha < 1:
            assert r is not None
            loss = loss + (1 - self.alpha) * r.mean()
        name = "InfoVAE with alpha = 1"
        stats["mmd"] = _discrepancy(name, model, latent, batch.noise, self.kernel, self.alpha < 1)
        return Losses({"model": loss + (self.alpha + self.weight(step) - 1).clamp(min=0) * stats["mmd"]}, stats)


@objective("wae", "Tolstikhin et al. 2018, arXiv:1711.01558", "The aggregate posterior of the codes")
class WAE(OneLayer):
    r"""loss = E_q[-log p(x|z)] + weight MMD(q(z), p(z)), for a deterministic or a random encoder.

    Tolstikhin et al. (2018, arXiv:1711.01558), WAE-MMD. The reconstruction cost is -log p(x|z) in nats. The paper uses
    the squared error; a Gaussian with fixed sigma gives it times 1 / (2 sigma^2). The kernel is the mean over the seven
    widths that the authors' code sums over. A learned prior is trained through its reparametrised samples.

    The stats are `distortion`, `mmd`, and the true `elbo` and `rate` if the encoder has a density.

    Arguments:
        weight: of the squared, unbiased MMD, a number or a schedule of the step.
        kernel: `imq` (inverse multiquadratic) or `gaussian`.
    """

    def __init__(self, weight: Weight = 100.0, kernel: KernelName = "imq"):
        super().__init__()
        self.weight, self.kernel = scheduled(weight), KERNELS[kernel]

    def needs_density(self) -> bool:
        return False

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        latent, d, _, stats = self.one_pass(model, batch)
        stats["mmd"] = _discrepancy("WAE", model, latent, batch.noise, self.kernel, False)
        return Losses({"model": d.mean() + self.weight(step) * stats["mmd"]}, stats)
