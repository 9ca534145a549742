"""The objective of models with discrete latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vaekit.errors import ChoiceError
from vaekit.models.quantised import Coded, CodePrior, CodeSequence, QuantisedEncoder
from vaekit.models.vae import VAE, Model

from .base import Batch, Losses, Objective
from .terms import distortion, elbo_stats


class Quantised(Objective):
    r"""Two parameter groups, for a VAE with `QuantisedEncoder` and `CodePrior` (van den Oord et al. 2017, equation 3).

    model: -log p(x|z) + commitment |e - sg(entry)|^2 (+ |sg(e) - entry|^2 where the codebook learns by gradients)
    prior: -log P(codes), with fixed codes

    Each is summed over an example's dimensions, in nats, and averaged over the batch: the loss of an example does not
    depend on other examples. Running means of a codebook are updated after the pass, in training only.

    In the stats, `rate` is -log P(codes) and `elbo` = -(distortion + rate), a bound on log p(x); `commitment` is the
    penalty with its weight; `perplexity` is the exponential of the entropy of the codes in the batch, which is between
    1 and the size of the codebook.
    """

    def check(self, model: Model) -> None:
        if not isinstance(getattr(model, "posterior", None), QuantisedEncoder) or not isinstance(
            getattr(model, "prior", None), CodePrior
        ):
            raise ChoiceError("the quantised objective needs discrete latents: a QuantisedEncoder and a CodePrior")

    def parameter_groups(self, model: Model) -> dict[str, list[nn.Parameter]]:
        _, prior = _parts(model)
        of_prior = [p for p in prior.net.parameters() if p.requires_grad]
        known = {id(p) for p in of_prior}
        parameter_groups = {"model": [p for p in model.parameters() if p.requires_grad and id(p) not in known]}
        return {**parameter_groups, "prior": of_prior} if of_prior else parameter_groups

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        posterior, prior = _parts(model)
        trace = self.trace(model, batch)
        (latent,) = trace.latents
        q, p = latent.q, latent.p
        assert isinstance(q, Coded) and isinstance(p, CodeSequence)  # noqa: PT018
        commitment, codebook = posterior.quantiser.penalties(q)
        d, r = distortion(trace, batch.x), -p.log_prob_of(q.codes)
        if model.training and torch.is_grad_enabled():
            posterior.quantiser.learn(q, batch.noise)
        losses = {"model": (d + commitment + codebook).mean()}
        if any(p.requires_grad for p in prior.net.parameters()):
            losses["prior"] = r.mean()
        stats = {
            **elbo_stats(d, r),
            "commitment": commitment.mean(),
            "perplexity": perplexity(q.codes, posterior.quantiser.codes),
        }
        return Losses(losses, stats)


def perplexity(codes: Tensor, among: int) -> Tensor:
    """The exponential of the entropy of the frequencies of codes 0 .. among-1 in a tensor, between 1 and `among`."""
    flat = codes.reshape(-1)
    counts = torch.zeros(among, device=codes.device).scatter_add(
        0, flat, torch.ones(1, device=codes.device).expand(len(flat))
    )
    shares = counts / len(flat)
    return torch.exp(-torch.xlogy(shares, shares).sum())


def _parts(model: Model) -> tuple[QuantisedEncoder, CodePrior]:
    assert isinstance(model, VAE)
    posterior, prior = model.posterior, model.prior
    assert isinstance(posterior, QuantisedEncoder) and isinstance(prior, CodePrior)  # noqa: PT018
    return posterior, prior
