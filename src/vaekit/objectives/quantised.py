"""The objective of models with discrete latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vaekit.errors import ChoiceError
from vaekit.models.quantised import Coded, CodePrior, CodeSequence, QuantisedEncoder, Quantiser
from vaekit.models.vae import VAE, Model

from .base import Batch, Losses, Objective
from .elbo import Beta, Warmup
from .schedules import Schedule, kl_weight
from .terms import distortion, elbo_stats


class Quantised(Objective):
    r"""Two parameter groups, for a VAE with `QuantisedEncoder` and `CodePrior` (van den Oord et al. 2017, equation 3).

    model: -log p(x|z) + commitment |e - sg(entry)|^2 (+ |sg(e) - entry|^2 where the codebook learns by gradients)
    prior: -log P(codes), with fixed codes

    Each is summed over an example's dimensions, in nats, and averaged over the batch: the loss of an example does not
    depend on other examples. Running means of a codebook are updated after the pass, in training only.

    In the stats, `rate` is -log P(codes) and `elbo` = -(distortion + rate), a bound on log p(x); `commitment` is the
    penalty with its weight; `perplexity` is the exponential of the entropy of the codes in the batch, which is between
    1 and the size of the codebook; `used` is the share of the codebook that occurs in the batch.
    """

    def check(self, model: Model) -> None:
        posterior, _ = _parts(model)
        if posterior.stochastic:
            raise ChoiceError("this objective is for codes that are the nearest entries: train drawn codes by CodeELBO")

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
            **codebook_use(q.codes, posterior.quantiser),
        }
        return Losses(losses, stats)


class CodeELBO(Objective):
    r"""The ELBO of a VAE that draws its codes: the encoder is charged for the rate.

    loss = E_q[-log p(x|c)] + beta E_q[sum_i KL(q(c_i | c_<i, x) || P(c_i | c_<i))],

    averaged over the batch, from one sequence of codes per example. Each KL is summed over all values of a code, given
    the drawn codes before it. The gradient of the draws is that of `straight_through`; with `through_prior`, it also
    passes through the codes before in P(c_i | c_<i).

    Arguments:
        beta, warmup: weight of the KL, and steps over which it rises from 0.
        through_prior: whether the encoder also gets the gradient of log P by the codes that it is conditioned on.

    In the stats, `rate` and `elbo` have beta = 1; `perplexity` and `used` are as of `Quantised`, for the drawn codes.
    """

    def __init__(self, beta: Beta = 1.0, warmup: Warmup = 0, through_prior: bool = True):
        super().__init__()
        self.beta = beta if isinstance(beta, Schedule) else kl_weight(beta, warmup, 0, 0.0)
        self.through_prior = through_prior

    def check(self, model: Model) -> None:
        posterior, _ = _parts(model)
        if not posterior.stochastic:
            raise ChoiceError("CodeELBO is for codes that are drawn: train nearest entries by Quantised")

    def forward(self, model: Model, batch: Batch, step: Tensor) -> Losses:
        posterior, _ = _parts(model)
        assert isinstance(model, VAE)
        q, p = posterior(self.seen(batch.x, batch.noise), *batch.given), model.prior()
        drawn = q.draws(batch.noise)
        d = -model.px(drawn.z, batch.x, *batch.given).log_prob(batch.x)
        log_p = p.log_p_after(drawn.chosen if self.through_prior else drawn.chosen.detach())
        r = (drawn.log_q.exp() * (drawn.log_q - log_p)).sum((-2, -1))
        stats = {**elbo_stats(d, r), **codebook_use(drawn.codes, posterior.quantiser)}
        return Losses({"model": (d + self.beta(step) * r).mean()}, stats)


def codebook_use(codes: Tensor, quantiser: Quantiser) -> dict[str, Tensor]:
    """The stats `perplexity` and `used`, the share of a codebook's entries that codes (..., P) take at least once."""
    used = code_shares(codes, quantiser.codes, quantiser.stages) > 0
    return {"perplexity": perplexity(codes, quantiser.codes, quantiser.stages), "used": used.float().mean()}


def code_shares(codes: Tensor, among: int, stages: int = 1) -> Tensor:
    """The frequencies (stages, among) of the values of codes (..., P), each row of which sums to 1."""
    numbers = codes.reshape(-1, stages) + among * torch.arange(stages, device=codes.device)
    ones = torch.ones(1, device=codes.device).expand(numbers.numel())
    counts = torch.zeros(stages * among, device=codes.device).scatter_add(0, numbers.flatten(), ones)
    return counts.reshape(stages, among) / len(numbers)


def perplexity(codes: Tensor, among: int, stages: int = 1) -> Tensor:
    """The exponential of the entropy of the frequencies of codes 0 .. among-1, between 1 and `among`.

    It is averaged over the stages, each of which has its own codebook.
    """
    shares = code_shares(codes, among, stages)
    return torch.exp(-torch.xlogy(shares, shares).sum(-1)).mean()


def _parts(model: Model) -> tuple[QuantisedEncoder, CodePrior]:
    """The posterior and the prior of a quantised VAE.

    Raises:
        ChoiceError: the model is another one.
    """
    posterior, prior = getattr(model, "posterior", None), getattr(model, "prior", None)
    if not isinstance(posterior, QuantisedEncoder) or not isinstance(prior, CodePrior):
        raise ChoiceError("the quantised objective needs discrete latents: a QuantisedEncoder and a CodePrior")
    return posterior, prior
