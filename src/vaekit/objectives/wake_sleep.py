"""The wake-sleep algorithm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vaekit.densities import draw
from vaekit.models.vae import Latent, Model

from .base import Batch, Losses, Objective, objective
from .parts import example, needs_density, needs_density_anywhere, one_layer, two_groups
from .terms import elbo_stats, latent_rate


@objective("wake-sleep", "Hinton et al. 1995, doi:10.1126/science.7761831")
class WakeSleep(Objective):
    r"""Two phases, two parameter groups (Hinton, Dayan, Frey and Neal 1995, doi:10.1126/science.7761831).

    Wake: `decoder` (prior and likelihood) minimises E_{q(z|x)}[-log p(x, z)] on data. Sleep: `encoder` minimises
    E_{p(x, z)}[-log q(z|x)] on equally many samples of the model ("dreams"). No gradient passes through the samples.
    The sleep phase minimises KL(p(z|x) || q(z|x)), the reverse of the bound's KL, on samples of the model instead of
    data. It needs no reparametrised samples, and it does not ascend the ELBO.

    The stats are the true `elbo`, `rate` and `distortion` of the wake phase.
    """

    def parameter_groups(self, model: Model) -> dict[str, list[nn.Parameter]]:
        return two_groups(one_layer(self, model))

    def check(self, model: Model) -> None:
        needs_density(self, model)
        posterior = one_layer(self, model).posterior
        needs_density_anywhere(self, example(posterior), "use the objective ELBO")

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        vae = one_layer(self, model)
        with torch.no_grad():
            q = vae.posterior(self.seen(batch.x, batch.noise), *batch.given)
            z = draw(q, batch.noise)
            dream_z = draw(vae.prior(), batch.noise)
            dream_x = draw(vae.likelihood(dream_z, *batch.given), batch.noise)
        needs_density_anywhere(self, q, "use the objective ELBO")
        awake = Latent(z, q, vae.prior())
        d = -vae.likelihood(z, *batch.given).log_prob(batch.x)
        asleep = vae.posterior(self.seen(dream_x, batch.noise), *batch.given)
        losses = {"encoder": -asleep.log_prob(dream_z).mean(), "decoder": (d - awake.log_p).mean()}
        r = latent_rate(awake)
        return Losses(losses, elbo_stats(d, r))
