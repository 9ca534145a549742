"""Importance-weighted bounds on log p(x), and estimators of their gradients."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from vaekit.errors import ChoiceError
from vaekit.models.vae import Model
from vaekit.utils.arguments import Knob

from .base import Batch, Gradient, Losses, Objective, Samples, objective
from .parts import example, needs_density, needs_density_anywhere, one_layer, two_groups
from .terms import grouped_bound, log_weights
from .weighted import Separated, bound_stats, carrying, shares

Groups = Annotated[
    int,
    Knob("groups that the draws are divided into; iwae and piwae's encoder train on the mean of their bounds", low=1),
]


def _check(samples: int, groups: int, gradient: str) -> None:
    """Raise ChoiceError for numbers of samples and groups that do not fit, or a gradient that is for the ELBO."""
    if samples % groups:
        raise ChoiceError(f"`samples={samples}` must be a multiple of `groups={groups}`")
    if gradient == "stl":
        raise ChoiceError(
            "`gradient='stl'` (sticking the landing) is for the objective elbo. With importance weights it is biased, "
            "and its unbiased form is the doubly reparametrised gradient: write `gradient='dreg'`"
        )


@objective("iwae", "Burda et al. 2016, arXiv:1509.00519", "Importance-weighted bounds")
class IWAE(Objective):
    r"""loss = -log 1/K sum_k w_k, w_k = p(x, z_k) / q(z_k | x), z_k ~ q(z | x) (Burda et al. 2016, arXiv:1509.00519).

    With M `groups`, the K samples are divided into groups whose bounds are averaged: MIWAE of Rainforth et al. (2018,
    arXiv:1802.04537), and the ELBO by Monte Carlo for M = K. The weights do not use a closed-form KL, which would not
    give a bound.

    `dreg` replaces the encoder's gradient by the doubly reparametrised one of Tucker et al. (2019, arXiv:1810.04152),
    which has the same mean and, for many samples, a much smaller variance. With v_k = w_k / sum w over a group and the
    parameters of q held constant inside log w, it is

        sum_k v_k^2 (d log w_k / d z_k) (d z_k / d phi).

    Prior and likelihood keep their gradient, sum_k v_k d log p(x, z_k) / d theta.

    The stats are `iwae`, the bound, and Monte Carlo estimates of the true `elbo` (K = 1), `rate` and `distortion`.

    Arguments:
        samples: K, the number of samples per example, in all groups together.
        gradient: `plain` or `dreg`; the latter needs a VAE with one latent layer, and a posterior that is not a flow.
        groups: M, the number of groups, a divisor of K.
    """

    densities: ClassVar[dict[str, int]] = {**Objective.densities, "iwae": 1}

    def __init__(
        self,
        samples: Samples = 50,
        gradient: Gradient = "plain",
        groups: Groups = 1,
    ):
        super().__init__()
        _check(samples, groups, gradient)
        self.samples, self.gradient, self.groups = samples, gradient, groups

    def check(self, model: Model) -> None:
        needs_density(self, model)
        if self.gradient == "dreg":
            posterior = one_layer(self, model).posterior
            needs_density_anywhere(self, example(posterior), "write gradient='plain'")

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        if self.gradient == "dreg" and torch.is_grad_enabled():
            return self._doubly(model, batch)
        trace = self.trace(model, batch, self.samples)
        log_px = trace.px.log_prob(batch.x)
        weights = log_weights(trace, batch.x, log_px)
        bound = grouped_bound(weights, self.groups)
        return Losses({"model": -bound.mean()}, bound_stats(weights, log_px, bound))

    def _doubly(self, model: Model, batch: Batch) -> Losses:
        separated = Separated.of(self, model, batch, self.samples)
        needs_density_anywhere(self, separated.latent.q, "write gradient='plain'")
        weights = (separated.joint - separated.copy.log_q).detach()
        share, bound = shares(weights, self.groups), grouped_bound(weights, self.groups)
        carrier = (share * separated.joint + separated.doubly(share, self.groups)).sum(0)
        return Losses({"model": -carrying(bound, carrier).mean()}, bound_stats(weights, separated.log_px, bound))


@objective("ciwae", "Rainforth et al. 2018, arXiv:1802.04537", "Importance-weighted bounds")
class CIWAE(Objective):
    r"""loss = -(mix ELBO + (1 - mix) log 1/K sum_k w_k): Rainforth et al. (2018, arXiv:1802.04537).

    Both bounds use the same K samples and no closed-form KL. The stats are those of `IWAE`.

    Arguments:
        samples: K, the number of samples per example.
        mix: weight of the ELBO, in [0, 1]: 0 gives IWAE, 1 the ELBO.
    """

    densities: ClassVar[dict[str, int]] = IWAE.densities

    def __init__(
        self,
        samples: Samples = 50,
        mix: Annotated[
            float, Knob("weight of the ELBO; that of the importance-weighted bound is 1 - mix", low=0, high=1)
        ] = 0.05,
    ):
        super().__init__()
        self.samples, self.mix = samples, mix

    def check(self, model: Model) -> None:
        needs_density(self, model)

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        trace = self.trace(model, batch, self.samples)
        log_px = trace.px.log_prob(batch.x)
        weights = log_weights(trace, batch.x, log_px)
        bound = grouped_bound(weights)
        loss = -(self.mix * weights.mean(0) + (1 - self.mix) * bound).mean()
        return Losses({"model": loss}, bound_stats(weights, log_px, bound))


@objective("piwae", "Rainforth et al. 2018, arXiv:1802.04537", "Importance-weighted bounds")
class PIWAE(Objective):
    r"""Each network has its own loss: the bound of all K samples for the decoder, that of M groups for the encoder.

    decoder: -log 1/K sum_k w_k;  encoder: the mean over M groups of -log M/K sum_{k in group} w_k

    Rainforth et al. (2018, arXiv:1802.04537): a tighter bound helps the generative network, but the signal-to-noise
    ratio of the inference network's gradient decreases with K. There are two parameter groups: `decoder`, prior and
    likelihood, and `encoder`, the posterior. The stats are those of `IWAE`, with the decoder's bound as `iwae`.

    Arguments:
        samples: K, the number of samples per example, in all groups together.
        groups: M, the number of groups, a divisor of K.
        gradient: of the encoder, `plain` or `dreg`, as for `IWAE`.
    """

    densities: ClassVar[dict[str, int]] = IWAE.densities

    def __init__(
        self,
        samples: Samples = 48,
        groups: Groups = 6,
        gradient: Gradient = "plain",
    ):
        super().__init__()
        _check(samples, groups, gradient)
        self.samples, self.groups, self.gradient = samples, groups, gradient

    def parameter_groups(self, model: Model) -> dict[str, list[nn.Parameter]]:
        return two_groups(one_layer(self, model))

    def check(self, model: Model) -> None:
        needs_density(self, model)
        posterior = one_layer(self, model).posterior
        if self.gradient == "dreg":
            needs_density_anywhere(self, example(posterior), "write gradient='plain'")

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        separated = Separated.of(self, model, batch, self.samples)
        if self.gradient == "dreg":
            needs_density_anywhere(self, separated.latent.q, "write gradient='plain'")
        log_q = separated.latent.log_q
        weights = separated.joint - log_q.detach()  # reaches the decoder only
        bound, grouped = grouped_bound(weights), grouped_bound(weights, self.groups).detach()
        losses = {"encoder": -grouped.mean(), "decoder": -bound.mean()}
        if torch.is_grad_enabled():
            share = shares(weights, self.groups)
            if self.gradient == "dreg":
                carrier = separated.doubly(share, self.groups)
            else:
                carrier = separated.through(separated.slope((share * separated.joint).sum())) - share * log_q
            losses["encoder"] = -carrying(grouped, carrier.sum(0)).mean()
        return Losses(losses, bound_stats(weights, separated.log_px, bound))
