"""The evidence lower bound with a total correlation that a critic estimates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit.densities.sphere import PowerSpherical
from vaekit.errors import ChoiceError
from vaekit.models.vae import Model
from vaekit.noise import Noise
from vaekit.utils.arguments import Knob

from .base import Batch, Losses, Tuning, frozen, objective
from .critic import Critic, accuracy, classification_loss
from .one_layer import OneLayer, scheduled
from .schedules import Schedule


def permute_dimensions(z: Tensor, noise: Noise) -> Tensor:
    """Codes (B, *event) with each dimension shuffled over the rows: approximate samples of prod_j q(z_j).

    The order comes from keyed bits, so that compiled and eager steps shuffle equally.
    """
    return z.gather(0, noise.bits(z.shape[1:]).argsort(0))


@objective("factor", "Kim and Mnih 2018, arXiv:1802.05983", "The aggregate posterior of the codes")
class FactorVAE(OneLayer):
    r"""loss = E_q[-log p(x|z)] + KL(q(z|x) || p(z)) + gamma TC(q(z)), with TC = E_q(z)[critic(z)].

    Kim and Mnih (2018, arXiv:1802.05983). The critic classifies codes z ~ q(z) against codes whose dimensions are
    shuffled over the batch, so its logit approaches log q(z) - sum_j log q(z_j). It is a separate parameter group,
    trained as in the paper: its codes are detached, so its loss does not train the encoder, and the model's loss passes
    through a frozen critic.

    The paper shuffles a second batch; here the batch itself is shuffled. This does not change the expected gradients,
    because both terms of the classification loss are separate expectations, and shuffling all rows is closer to
    independence than shuffling half of them. A batch of one example stays as it is.

    The stats are the true `elbo`, `rate` and `distortion`, `correlation`, the critic's estimate, and
    `critic_accuracy`, 0.5 for a guessing critic.

    Arguments:
        latent: number of latents.
        gamma: weight of the total correlation, a number or a schedule of the step.
        hidden: widths of the critic's layers.
    """

    tuning: ClassVar[dict[str, Tuning]] = {"critic": Tuning("adam", 1e-4, {"beta1": 0.5, "beta2": 0.9})}

    def __init__(
        self,
        latent: int,
        gamma: Annotated[float | Schedule, Knob("weight of the total correlation", low=0)] = 10.0,
        hidden: Sequence[int] = (1000,) * 6,
    ):
        super().__init__()
        self.gamma = scheduled(gamma)
        self.critic = Critic(latent, hidden)

    def check_posterior(self, q: Distribution) -> None:
        if isinstance(q, PowerSpherical):
            raise ChoiceError(
                "FactorVAE makes the latent dimensions independent, which is impossible on a sphere (their squares "
                "sum to one): use another posterior, or another objective (ELBO, WAE)"
            )

    def parameter_groups(self, model: Model) -> dict[str, list[nn.Parameter]]:
        return {**super().parameter_groups(model), "critic": list(self.critic.parameters())}

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        latent, d, r, stats = self.one_pass(model, batch)
        assert r is not None
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
