"""The evidence lower bound with a weight on each part of its KL."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from torch.distributions import Distribution

from vaekit.errors import ChoiceError
from vaekit.models.vae import Model
from vaekit.utils.arguments import Knob

from .aggregate import factorises, split_rate
from .base import Batch, Losses, objective
from .one_layer import OneLayer, scheduled
from .schedules import Schedule


@objective("tc", "Chen et al. 2018, arXiv:1802.04942", "The aggregate posterior of the codes")
class TotalCorrelation(OneLayer):
    r"""loss = E_q[-log p(x|z)] + alpha I(x; z) + beta KL(q(z) || prod_j q(z_j)) + gamma sum_j KL(q(z_j) || p(z_j)).

    Chen et al. (2018, arXiv:1802.04942): with all weights 1 the parts are the KL of the bound. q(z) and q(z_j) are
    estimated from the batch by stratified weights (`aggregate.stratified_log_weights`). The densities are unbiased;
    their logarithms are a little too low, more so for small batches. With one row the estimate of q(z) is q(z|x), so
    information and correlation are 0, and the loss is that of a VAE with KL weight gamma.

    The stats are the true `elbo`, `rate` and `distortion`, and `information`, `correlation` and `dimension_kl`.

    The rows of a batch must be different examples. With several processes, each estimates from its own B rows, and the
    gradients of these smaller batches are averaged.

    Arguments:
        n: N, the number of training examples.
        alpha: weight of the mutual information between example and code, a number or a schedule of the step.
        beta: weight of the total correlation, likewise.
        gamma: weight of the dimension-wise KL, likewise.
    """

    def __init__(
        self,
        n: int,
        alpha: Annotated[float | Schedule, Knob("weight of the mutual information", low=0)] = 1.0,
        beta: Annotated[float | Schedule, Knob("weight of the total correlation", low=0)] = 6.0,
        gamma: Annotated[float | Schedule, Knob("weight of the dimension-wise KL", low=0)] = 1.0,
    ):
        super().__init__()
        if n < 1:
            raise ValueError(f"n, the number of training data, must be 1 or more, got {n}")
        self.n = n
        self.alpha, self.beta = scheduled(alpha), scheduled(beta)
        self.gamma = scheduled(gamma)

    def check_posterior(self, q: Distribution) -> None:
        if not factorises(q):
            raise ChoiceError(
                "TotalCorrelation needs the density q(z_j | x) of every latent dimension, which this posterior "
                f"({type(q).__name__}) does not give: use a Gaussian posterior with a diagonal covariance, or the "
                "objective FactorVAE, which estimates the total correlation from samples"
            )

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        latent, d, _, stats = self.one_pass(model, batch)
        parts = split_rate(latent, self.n)
        weighted = (
            self.alpha(step) * parts.information
            + self.beta(step) * parts.correlation
            + self.gamma(step) * parts.dimensions
        )
        stats["information"], stats["correlation"], stats["dimension_kl"] = (p.mean() for p in parts)
        return Losses({"model": (d + weighted).mean()}, stats)
