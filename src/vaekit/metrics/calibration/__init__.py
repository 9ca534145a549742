r"""Calibration: whether q(z|x) is the posterior of the model, and whether the model's data are like held-out data.

*Simulation-based calibration* needs no data. If z ~ p(z), x ~ p(x|z), and L draws of q(z|x) are draws of p(z|x), then
the rank of the true z among the draws is uniform on 0..L, for each latent (Talts et al. 2018, arXiv:1804.06788).
`sbc_p` tests this, `sbc_bias` and `sbc_spread` say in which direction q is wrong, and `sbc_coverage` is how often
intervals of q hold the true z. All are about data of the model itself: on real data q may be worse.

*Predictive checks* compare statistics of held-out data with those of draws of the model (Gelman, Meng and Stern 1996),
which have the conditions of the data if the model is conditional: `ppc_p`, `ppc_difference` and `ppc_dimensions`. They
need no posterior, only draws.
"""

from __future__ import annotations

from .checks import Check, compare_rows, holm
from .ranks import coverage, deviations, rank_of, uniformity

__all__ = ["Check", "compare_rows", "coverage", "deviations", "holm", "rank_of", "uniformity"]
