"""log p(x) in closed form, for models whose decoder is linear and Gaussian: probabilistic PCA."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, LowRankMultivariateNormal, Normal

from .target import Target


def linear_gaussian(target: Target) -> Tensor | None:
    """log p(x), (B,) float64, if p(z) is a diagonal Gaussian and p(x | z) = N(W z + b, S) with a diagonal S; else None.

    Whether the decoder is linear and S constant is tested on pairs of codes far apart. p(x) = N(W m + b, W P W^T + S)
    for p(z) = N(m, P).
    """
    prior, n, dims = _normal(target.prior), len(target.x), target.dims
    if prior is None or bool(torch.isnan(target.x).any()):
        return None
    g = torch.Generator().manual_seed(0)
    dtype = next(target.model.parameters()).dtype
    far = 5 * torch.randn(6, dims, generator=g, dtype=torch.float64)
    units = torch.eye(dims, dtype=torch.float64)
    z = torch.cat([torch.zeros(1, dims, dtype=torch.float64), units, far]).to(target.x.device)
    with torch.no_grad():
        px = _normal(target.decode(z.to(dtype)[:, None].expand(len(z), n, dims)))
    if px is None:
        return None
    mean = px.loc.double().expand(len(z), n, *target.x.shape[1:]).flatten(2)
    scale = px.scale.double().expand(len(z), n, *target.x.shape[1:]).flatten(2)
    b, w = mean[0], (mean[1 : dims + 1] - mean[0]).movedim(0, -1)  # (B, E), (B, E, D)
    fitted = b + torch.einsum("bed,md->mbe", w, z[dims + 1 :])
    # an error of the mean matters relative to the scale: z^2 / 2 changes by up to z times the error in scales
    curved = ((fitted - mean[dims + 1 :]).abs() / scale[dims + 1 :]).max()
    uneven = (scale / scale[0] - 1).abs().max()
    if float(curved) > 1e-3 or float(uneven) > 1e-6:
        return None
    m, s = prior.loc.double(), prior.scale.double()
    px_ = LowRankMultivariateNormal(b + w @ m, w * s, scale[0].square(), validate_args=False)
    return px_.log_prob(target.x.double().flatten(1))


def _normal(d: Distribution) -> Normal | None:
    """The elementwise Normal of a diagonal Gaussian, or None."""
    base = d.base_dist if isinstance(d, Independent) else d
    return base if isinstance(base, Normal) else None
