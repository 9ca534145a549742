"""The wake-sleep algorithm, and its reweighted form with importance weights."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaekit.densities import draw
from vaekit.errors import ChoiceError
from vaekit.models.library import SizedVAE
from vaekit.models.vae import VAE, Latent, Model
from vaekit.utils.arguments import Knob

from .base import Batch, Losses, Objective, Samples, objective
from .parts import example, needs_density, needs_density_anywhere, one_layer, two_groups
from .terms import elbo_stats, grouped_bound, latent_rate
from .weighted import bound_stats, shares


class TwoPhases(Objective):
    """An objective with a loss for the generative network and another for the posterior. Abstract.

    No gradient passes through samples, so that the posterior need not have reparametrised ones.

    Attributes:
        sleeps: whether q is also trained on data drawn from the model.
        awake: what to write so that it is not, with a comma; "" if that is impossible.
    """

    sleeps: bool = True
    awake: ClassVar[str] = ""

    def parameter_groups(self, model: Model) -> dict[str, list[nn.Parameter]]:
        return two_groups(one_layer(self, model))

    def check(self, model: Model) -> None:
        needs_density(self, model)
        self._check_posterior(example(one_layer(self, model).posterior))
        self._check_totals(model)

    def _check_posterior(self, q: Distribution | None) -> None:
        needs_density_anywhere(self, q, "use the objective ELBO")

    def _check_totals(self, model: Model) -> None:
        """Raise ChoiceError if data drawn from the model would not have the totals that it takes as given."""
        if self.sleeps and isinstance(model, SizedVAE):
            raise ChoiceError(
                f"{type(self).__name__} trains q(z | x) on data drawn from the model, whose totals differ from those "
                f"that it takes as given (`library='observed'`): write {self.awake}`library='latent'` or "
                "`library='none'`"
            )

    def asleep(self, vae: VAE, batch: Batch) -> Tensor:
        """-log q(z | x), (B,), for z and x drawn from the model ("dreams"); two draws of the noise."""
        self._check_totals(vae)
        with torch.no_grad():
            z = draw(vae.prior(), batch.noise)
            x = draw(vae.likelihood(z, *batch.given), batch.noise)
        return -vae.posterior(self.seen(x, batch.noise), *batch.given).log_prob(z)


@objective("wake-sleep", "Hinton et al. 1995, doi:10.1126/science.7761831")
class WakeSleep(TwoPhases):
    r"""Two phases, two parameter groups (Hinton, Dayan, Frey and Neal 1995, doi:10.1126/science.7761831).

    Wake: `decoder` (prior and likelihood) minimises E_{q(z|x)}[-log p(x, z)] on data. Sleep: `encoder` minimises
    E_{p(x, z)}[-log q(z|x)] on equally many samples of the model ("dreams"). No gradient passes through the samples.
    The sleep phase minimises KL(p(z|x) || q(z|x)), the reverse of the bound's KL, on samples of the model instead of
    data. It needs no reparametrised samples, and it does not ascend the ELBO.

    The stats are the true `elbo`, `rate` and `distortion` of the wake phase.

    On Fashion-MNIST, with a learning rate of 0.002, the rate rose to 100 nats at the end of 15,000 steps. With 0.001 it
    stayed at 9. The default is therefore at most 0.001.
    """

    most_lr = 1e-3

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        vae = one_layer(self, model)
        with torch.no_grad():
            q = vae.posterior(self.seen(batch.x, batch.noise), *batch.given)
            z = draw(q, batch.noise)
        self._check_posterior(q)
        asleep = self.asleep(vae, batch)
        awake = Latent(z, q, vae.prior())
        d = -vae.px(z, batch.x, *batch.given).log_prob(batch.x)
        r = latent_rate(awake)
        return Losses({"encoder": asleep.mean(), "decoder": (d - awake.log_p).mean()}, elbo_stats(d, r))


@objective("reweighted-wake-sleep", "Bornschein and Bengio 2015, arXiv:1406.2751")
class ReweightedWakeSleep(TwoPhases):
    r"""Wake-sleep with K importance weights (Bornschein and Bengio 2015, arXiv:1406.2751).

    With z_k ~ q(z | x) for data x, w_k = p(x, z_k) / q(z_k | x) and v_k = w_k / sum w:

        decoder (prior and likelihood): -sum_k v_k log p(x, z_k)
        encoder, wake phase:            -sum_k v_k log q(z_k | x)
        encoder, sleep phase:           E_{p(x, z)}[-log q(z | x)]

    The decoder's gradient is that of the importance-weighted bound of K samples, which the reported loss of the decoder
    is. The wake phase of the encoder minimises KL(p(z|x) || q(z|x)) on data by self-normalised weights, whose bias
    vanishes as K grows; the sleep phase minimises it on samples of the model, without bias. No gradient passes through
    the samples. Both are KLs of the posterior from q, which, unlike the bound's, grow where q misses a part of it.

    The stats are those of `IWAE`, with the bound as `iwae`.

    Arguments:
        samples: K, the number of samples per example.
        sleep: weight of the sleep phase in the encoder's loss; that of the wake phase is 1 - sleep.
    """

    densities: ClassVar[dict[str, int]] = {**Objective.densities, "iwae": 1}
    awake = "`sleep=0`, "

    def __init__(
        self,
        samples: Samples = 5,
        sleep: Annotated[
            float,
            Knob("weight of the sleep phase in the encoder's loss; that of the wake phase is 1 - sleep", low=0, high=1),
        ] = 0.5,
    ):
        super().__init__()
        self.samples, self.share, self.sleeps = samples, sleep, sleep > 0

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        vae = one_layer(self, model)
        q = vae.posterior(self.seen(batch.x, batch.noise), *batch.given)
        self._check_posterior(q)
        with torch.no_grad():
            z = draw(q, batch.noise, self.samples)
        log_q = q.log_prob(z)
        log_px = vae.px(z, batch.x, *batch.given).log_prob(batch.x)
        weights = log_px + vae.prior().log_prob(z) - log_q.detach()  # reaches the decoder only
        bound = grouped_bound(weights)
        encoder = torch.zeros_like(bound)
        if self.share < 1:
            encoder = encoder - (1 - self.share) * (shares(weights, 1) * log_q).sum(0)
        if self.sleeps:
            encoder = encoder + self.share * self.asleep(vae, batch)
        return Losses({"encoder": encoder.mean(), "decoder": -bound.mean()}, bound_stats(weights, log_px, bound))
