"""An objective that matches the aggregate posterior to the prior with a critic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.densities import draw
from vaekit.errors import ChoiceError
from vaekit.models.vae import Model
from vaekit.utils.arguments import Knob

from .base import Batch, Losses, Tuning, frozen, objective
from .critic import Critic, accuracy, classification_loss
from .one_layer import OneLayer, learns_prior, scheduled
from .schedules import Schedule


@objective("aae", "Makhzani et al. 2016, arXiv:1511.05644", "The aggregate posterior of the codes")
class Adversarial(OneLayer):
    r"""loss = E_q[-log p(x|z)] + weight E_q(z)[-log sigmoid(critic(z))], for a deterministic or a random encoder.

    The adversarial autoencoder of Makhzani et al. (2016, arXiv:1511.05644), which is the WAE-GAN of Tolstikhin et al.
    (2018, arXiv:1711.01558). The critic classifies samples of the prior against codes z ~ q(z). It is a separate
    parameter group, trained as in WAE-GAN: its codes are detached, and the model's loss passes through a frozen critic.

    The stats are `distortion`, `critic_accuracy` (0.5 for a guessing critic), `fooling` (the model's second term
    without its weight, log 2 for a guessing critic), and the true `elbo` and `rate` if the encoder has a density.

    Arguments:
        latent: number of latents.
        weight: of the term that fools the critic, a number or a schedule of the step. A large weight (10, for 28 x 28
            images) makes the two networks oscillate, at the cost of reconstruction.
        hidden: widths of the critic's layers.
    """

    tuning: ClassVar[dict[str, Tuning]] = {"critic": Tuning("adam", 5e-4, {"beta1": 0.5})}

    def __init__(
        self,
        latent: int,
        weight: Annotated[float | Schedule, Knob("weight of the term that fools the critic", low=0)] = 1.0,
        hidden: Sequence[int] = (512,) * 4,
    ):
        super().__init__()
        self.weight = scheduled(weight)
        self.critic = Critic(latent, hidden)

    def needs_density(self) -> bool:
        return False

    def check(self, model: Model) -> None:
        super().check(model)
        if learns_prior(model):
            raise ChoiceError(
                "Adversarial matches the codes to a fixed prior, but this prior has learned weights, which the loss "
                "does not train: use the prior N(0, I), or the objective InfoVAE"
            )

    def parameter_groups(self, model: Model) -> dict[str, list[nn.Parameter]]:
        return {**super().parameter_groups(model), "critic": list(self.critic.parameters())}

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        latent, d, _, stats = self.one_pass(model, batch)
        fooling = F.softplus(-frozen(self.critic)(latent.z)).mean()
        drawn = self.critic(draw(latent.p, batch.noise).to(latent.z.dtype))
        codes = self.critic(latent.z.detach())
        stats["fooling"], stats["critic_accuracy"] = fooling, accuracy(drawn, codes)
        return Losses(
            {"model": d.mean() + self.weight(step) * fooling, "critic": classification_loss(drawn, codes)}, stats
        )
