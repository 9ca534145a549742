"""The use of a codebook: how many of its entries the codes of the data take, and how evenly."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vaekit.models.quantised import QuantisedEncoder
from vaekit.models.vae import VAE
from vaekit.noise import Key, Noise
from vaekit.objectives.quantised import code_shares, perplexity

from .measurement import Measurement, shared
from .needs import CODES
from .registry import Result, metric


@shared
def drawn_codes(m: Measurement) -> Tensor:
    """The codes of each datum, (n, P): drawn once from a stochastic posterior, else the nearest entries."""
    model, start, parts = m.run.model, 0, []
    assert isinstance(model, VAE) and isinstance(model.posterior, QuantisedEncoder)  # noqa: PT018
    with torch.no_grad():
        for _, x, c in m.observed.batches(None, m.n, m.run.device):
            rows = torch.arange(start, start + len(x), device=x.device)
            q = model.posterior(*((x,) if c is None else (x, c)))
            parts.append(q.drawn_codes(Noise.of(m.seed, rows, Key.CODES, device=x.device)).cpu())
            start += len(x)
    return torch.cat(parts)


def _of(m: Measurement) -> tuple[Tensor, int, int, str]:
    posterior = m.run.model.posterior
    assert isinstance(posterior, QuantisedEncoder)
    quantiser = posterior.quantiser
    how = "codes drawn from q(c|x), once per datum" if posterior.stochastic else "nearest entries"
    return drawn_codes(m), quantiser.codes, quantiser.stages, how


@metric("code_perplexity", "codes", needs=[CODES], label="Perplexity of the codes", default=True, per_datum=False)
def code_perplexity(m: Measurement) -> Result:
    """The exponential of the entropy of the codes' frequencies over data and positions: the codes used in effect."""
    codes, among, stages, how = _of(m)
    return Result(how, value=float(perplexity(codes, among, stages)), unit=f"of {among} codes")


@metric("codes_used", "share", needs=[CODES], label="Share of codes in use", default=True, per_datum=False)
def codes_used(m: Measurement) -> Result:
    """The share of the codebook's entries that occur at least once in the codes of the data."""
    codes, among, stages, how = _of(m)
    used = (code_shares(codes, among, stages) > 0).double().numpy()
    return Result(how, value=float(np.mean(used)), unit=f"share of {among} codes")
