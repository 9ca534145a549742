"""The semi-supervised bound, with a sum over the classes of unlabelled examples."""

from __future__ import annotations

from typing import Annotated, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import kl_divergence

from vaekit.errors import ChoiceError
from vaekit.models.m2 import M2
from vaekit.models.vae import Model
from vaekit.utils.arguments import Knob, in_range

from .base import Batch, Losses, Objective, Samples
from .terms import elbo_stats, latent_rate

Alpha = Annotated[float, Knob("weight of the classification loss, in nats per datum", low=0)]
ALPHA = 10.0


class SemiSupervised(Objective):
    r"""The objective of Kingma et al. (2014), arXiv:1406.5298, per datum, for an `M2`.

    With L(x, y) = E_{q(z|x,y)}[-log p(x|z,y)] + KL(q(z|x,y) || p(z)) - log p(y), a bound on -log p(x, y), and
    U(x) = sum_y q(y|x) (L(x, y) + log q(y|x)), a bound on -log p(x), both with the classes enumerated,

        loss = 1/B sum_i [ L(x_i, y_i) where y_i is known, else U(x_i) ]
               + alpha / (B labelled) sum_{i known} -log q(y_i | x_i).

    `labelled` is the share of the *training data* whose class is known, not of the batch. It is the probability that
    the class of a row of a random batch is known, so the expectation of the second sum is alpha times the mean
    cross-entropy of the labelled data, however few they are. Dividing by their number in the batch would be biased, and
    undefined for 0. The paper's alpha weights the same mean against sums over N data, so it is N times this one: an
    alpha of 0.1 is 0.1 N in the paper.

    The recorded `elbo` is the mean of -U over all rows, labelled or not. `accuracy` is the number of labelled rows that
    q(y|x) classifies correctly, divided by B labelled: its mean over steps is the accuracy, but a single step's value
    may exceed 1.

    Arguments:
        alpha: weight of the cross-entropy.
        labelled: share of the training data whose class is known, in (0, 1].
        samples: samples of z per example and class.
    """

    @in_range
    def __init__(
        self,
        alpha: Alpha = ALPHA,
        labelled: Annotated[float, Knob("share of the training data whose class is known", above=0, high=1)] = 1.0,
        samples: Samples = 1,
    ):
        super().__init__()
        self.alpha, self.labelled, self.samples = alpha, labelled, samples

    def check(self, model: Model) -> None:
        if not isinstance(model, M2):
            raise ChoiceError(
                f"SemiSupervised trains an M2, which has a class among its latents, not {type(model).__name__}: "
                "build one with vaekit.models.m2.m2, or choose another objective"
            )

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        """The losses of a batch; `batch.y` (B,) has class numbers, -1 if unknown, or is None if none is known."""
        m2 = cast(M2, model)
        x = batch.x
        encoder_x = self.seen(x, batch.noise)
        trace = m2.trace(encoder_x, m2.each_class(encoder_x, self.samples), noise=batch.noise)
        (style,) = trace.latents

        def by_class(values: Tensor) -> Tensor:
            return values.unflatten(0, (self.samples, m2.classes)).mean(0).T  # (B, C)

        d, r = by_class(-trace.px.log_prob(x)), by_class(latent_rate(style))
        q, p = m2.classifier(encoder_x), m2.class_prior()
        distortion = (q.probs * d).sum(-1)
        rate = (q.probs * r).sum(-1) + kl_divergence(q, p)
        y = batch.y if batch.y is not None else torch.full((len(x),), -1, device=x.device)
        known, label = y >= 0, y.clamp(min=0)

        def at_class(values: Tensor) -> Tensor:
            return values.gather(-1, label[:, None])[:, 0]

        labelled_bound = at_class(d + r - p.logits)
        cross_entropy = F.cross_entropy(q.logits, label, reduction="none")
        bound = torch.where(known, labelled_bound, distortion + rate)
        loss = (bound + self.alpha / self.labelled * torch.where(known, cross_entropy, 0.0)).mean()
        correct = known & (q.logits.argmax(-1) == label)
        return Losses(
            {"model": loss},
            {
                **elbo_stats(distortion, rate),
                "accuracy": correct.float().mean() / self.labelled,
            },
        )
