"""The evidence lower bound with the total correlation that a critic estimates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit.densities.sphere import PowerSpherical
from vaekit.errors import ChoiceError
from vaekit.models.vae import VAE, Model
from vaekit.noise import Noise

from .base import Batch, Losses, Tuning, frozen
from .critic import Critic, accuracy, classification_loss
from .one_layer import OneLayer, scheduled
from .parts import example
from .schedules import Schedule


def permute_dimensions(z: Tensor, noise: Noise) -> Tensor:
    """Codes (B, *event) with every dimension shuffled over the rows by itself: draws from prod_j q(z_j), nearly.

    The order is that of keyed bits, so a compiled step shuffles as an eager one does.
    """
    return z.gather(0, noise.bits(z.shape[1:]).argsort(0))


class FactorVAE(OneLayer):
    r"""loss = E_q[-log p(x|z)] + KL(q(z|x) || p(z)) + gamma TC(q(z)), with TC = E_q(z)[critic(z)].

    Kim and Mnih (2018, arXiv:1802.05983). The critic's logit tells draws z ~ q(z) from codes whose dimensions were
    shuffled over the batch, and so approaches log q(z) - sum_j log q(z_j). It is a group of its own, with the paper's
    training: the codes it learns from are detached, so its classification loss never reaches the encoder, while the
    model's loss goes through a frozen critic and never reaches the critic.

    The paper shuffles a second batch; here the batch itself is shuffled. Both terms of the classification loss are
    expectations by themselves, so that changes no gradient's expectation, and shuffling all rows comes nearer to
    independent dimensions than shuffling half of them. A batch of one is its own shuffle.

    Recorded beside the true `elbo`, `rate` and `distortion`: `correlation`, as the critic has it, and
    `critic_accuracy`, 0.5 where it cannot tell.

    Arguments:
        latent: latent dimensions.
        gamma: weight of the total correlation, a number or a schedule of the step.
        hidden: widths of the critic's layers.
    """

    tuning: ClassVar[dict[str, Tuning]] = {"critic": Tuning("adam", 1e-4, {"beta1": 0.5, "beta2": 0.9})}

    def __init__(self, latent: int, gamma: float | Schedule = 10.0, hidden: Sequence[int] = (1000,) * 6):
        super().__init__()
        self.gamma = scheduled("gamma", gamma)
        self.critic = Critic(latent, hidden)

    def check(self, model: Model) -> None:
        super().check(model)
        assert isinstance(model, VAE)
        self._check_posterior(example(model.posterior))

    def _check_posterior(self, q: Distribution | None) -> None:
        if isinstance(q, PowerSpherical):
            raise ChoiceError(
                "FactorVAE makes the latent dimensions independent, which on a sphere they cannot be (their squares "
                "sum to one): use another posterior, or another objective (ELBO, WAE)"
            )

    def parameter_groups(self, model: Model) -> dict[str, list[nn.Parameter]]:
        return {**super().parameter_groups(model), "critic": list(self.critic.parameters())}

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        latent, d, r, stats = self.one_pass(model, batch)
        assert r is not None
        self._check_posterior(latent.q)
        correlation = frozen(self.critic)(latent.z).mean()
        codes = latent.z.detach()
        drawn, shuffled = self.critic(codes), self.critic(permute_dimensions(codes, batch.noise))
        stats["correlation"], stats["critic_accuracy"] = correlation, accuracy(drawn, shuffled)
        return Losses(
            {
                "model": (d + r).mean() + self.gamma(step) * correlation,
                "critic": classification_loss(drawn, shuffled),
            },
            stats,
        )
