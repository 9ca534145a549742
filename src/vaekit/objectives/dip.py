"""The evidence lower bound with a penalty on the covariance of the codes."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor
from torch.distributions import Distribution

from vaekit.errors import ChoiceError
from vaekit.models.vae import Model
from vaekit.utils.arguments import Knob

from .aggregate import covariance, posterior_covariance, posterior_mean
from .base import Batch, Losses, objective
from .one_layer import OneLayer, scheduled
from .schedules import Schedule


@objective("dip", "Kumar et al. 2018, arXiv:1711.00848", "The aggregate posterior of the codes")
class DIP(OneLayer):
    r"""loss = -ELBO + off_diagonal sum_{i != j} C_ij^2 + diagonal sum_i (C_ii - 1)^2, C the covariance of the codes.

    Kumar et al. (2018, arXiv:1711.00848), for a prior N(0, I). Variant i uses the covariance of the posterior means,
    C = Cov_x[mu(x)]; variant ii that of the aggregate posterior, C = Cov_x[mu(x)] + E_x[Cov q(z|x)]. Covariances are
    unbiased estimates from the batch; for one row Cov_x[mu] is zero. Their squares are biased upwards by about 1/B.

    The stats are the true `elbo`, `rate` and `distortion`, and `off_diagonal` and `diagonal`, the two sums without
    weights (not in nats).

    Arguments:
        dip: the variant, `i` or `ii`.
        off_diagonal: weight of the squared covariances, a number or a schedule of the step.
        diagonal: weight of the squared differences of the variances from 1, a number or a schedule of the step. For
            variant i, the paper uses 10 times `off_diagonal`.
    """

    def __init__(
        self,
        dip: Annotated[
            Literal["i", "ii"], Knob("DIP-VAE i, on the covariance of the posterior means, or ii, on that of the draws")
        ] = "ii",
        off_diagonal: Annotated[float | Schedule, Knob("penalty on squared covariances", low=0)] = 10.0,
        diagonal: Annotated[float | Schedule, Knob("penalty on squared differences of variances from 1", low=0)] = 10.0,
    ):
        super().__init__()
        self.kind = dip
        self.off_diagonal, self.diagonal = scheduled(off_diagonal), scheduled(diagonal)

    def check_posterior(self, q: Distribution) -> None:
        self._covariance(q)

    def _covariance(self, q: Distribution) -> Tensor:
        """C, (D, D)."""
        try:
            total = covariance(posterior_mean(q))
            return total if self.kind == "i" else total + posterior_covariance(q)
        except ValueError:
            raise ChoiceError(
                f"DIP needs the {'mean' if self.kind == 'i' else 'covariance'} of q(z | x), which this posterior "
                f"({type(q).__name__}) does not give: use a Gaussian posterior, diagonal or full, or the objective "
                "FactorVAE, which needs samples only"
            ) from None

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        latent, d, r, stats = self.one_pass(model, batch)
        assert r is not None
        total = self._covariance(latent.q)
        diagonal = total.diagonal()
        covariances = total.square().sum() - diagonal.square().sum()
        variances = (diagonal - 1).square().sum()
        stats["off_diagonal"], stats["diagonal"] = covariances, variances
        penalty = self.off_diagonal(step) * covariances + self.diagonal(step) * variances
        return Losses({"model": (d + r).mean() + penalty}, stats)
