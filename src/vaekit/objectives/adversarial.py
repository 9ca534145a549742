"""Objectives that hold the aggregate posterior against the prior by a critic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from vaekit.densities import draw
from vaekit.errors import ChoiceError
from vaekit.models.vae import Model

from .base import Batch, Losses, Tuning, frozen
from .critic import Critic, accuracy, classification_loss
from .one_layer import OneLayer, learns_prior, scheduled
from .schedules import Schedule


class Adversarial(OneLayer):
    r"""loss = E_q[-log p(x|z)] + weight E_q(z)[-log sigmoid(critic(z))], of a deterministic or a random encoder.

    The adversarial autoencoder of Makhzani et al. (2016, arXiv:1511.05644), which is the WAE-GAN of Tolstikhin et al.
    (2018, arXiv:1711.01558). The critic's logit tells draws of the prior from codes z ~ q(z). It is a group of its
    own, with the training of WAE-GAN: the codes it learns from are detached, while the model's loss goes through a
    frozen critic and never reaches the critic.

    Recorded: `distortion`, `critic_accuracy` (0.5 where it cannot tell), `fooling` (the model's second term without its
    weight, log 2 where the critic guesses), and where the encoder has a density the true `elbo` and `rate`.

    Arguments:
        latent: latent dimensions.
        weight: of the term that fools the critic, a number or a schedule of the step. A large one (10, for 28 x 28
            images) lets the adversaries chase each other at the reconstruction's cost.
        hidden: widths of the critic's layers.
    """

    tuning: ClassVar[dict[str, Tuning]] = {"critic": Tuning("adam", 5e-4, {"beta1": 0.5})}

    def __init__(self, latent: int, weight: float | Schedule = 1.0, hidden: Sequence[int] = (512,) * 4):
        super().__init__()
        self.weight = scheduled("weight", weight)
        self.critic = Critic(latent, hidden)

    def needs_density(self) -> bool:
        return False

    def check(self, model: Model) -> None:
        super().check(model)
        if learns_prior(model):
            raise ChoiceError(
                "Adversarial brings the codes to a fixed prior, and this one has weights to learn, which nothing in "
                "the loss would train: use the prior N(0, I), or the objective InfoVAE"
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
