"""The density of codes that a run has: which of the stored ones, and that density as a distribution with gradients."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaekit.densities import draw
from vaekit.errors import ChoiceError, RunError
from vaekit.models.priors import StandardNormal
from vaekit.models.probability_flow import Field, runge_kutta
from vaekit.models.vae import VAE
from vaekit.noise import Noise
from vaekit.runs.saved import SavedRun
from vaekit.utils.progress import say
from vaekit.utils.suggest import unknown

from .continuing import how_to_resume, is_unfinished
from .densities import DENSITIES, Density, FlowMatchingDensity, Gaussians, NormalisingFlow, OnProgress
from .records import of_codes, records, weights_of
from .resample import LatentDensity, fit_latents

if TYPE_CHECKING:
    from vaekit.data.condition import Labels

PRIOR, FITTED = "prior", "fitted"


def check_source(name: str) -> None:
    """Raise ChoiceError unless codes can be drawn from `name`: `prior`, or a density of codes."""
    if name not in (known := [PRIOR, *DENSITIES]):
        raise ChoiceError(unknown("`latents`", name, known, 0.3))


def stored_density(run: SavedRun) -> LatentDensity | None:
    """The density of the run's codes that samples are drawn from by default, or None for the prior.

    Of the densities that are stored for these weights, it is the one under which validation codes, given their labels
    if it is conditional, have the highest log-density, compared with that of the same codes under N(0, I). If that is
    the run's prior, densities below it do not count. Notes say which are passed over.
    """
    weights = weights_of(run)
    for name in (name for name, density in DENSITIES.items() if density.traits["kind"].of_posterior):
        try:
            if is_unfinished(run, name, weights):
                say(f"note: {name} is passed over, since its training was interrupted: {how_to_resume(run, name)}")
        except RunError as error:
            say(f"note: {name} is passed over: {error}")
    found = records(run) | {name: one.record for name, one in run.unstored.items() if isinstance(one, LatentDensity)}
    gains = {n: of_codes(r) - r["held_out"]["log_density_normal"] for n, r in found.items() if r["weights"] == weights}
    normal = isinstance(run.model, VAE) and isinstance(run.model.prior, StandardNormal)
    for name in sorted(gains, key=lambda name: -gains[name]):
        if normal and gains[name] < 0:
            say(
                f"note: {name} is passed over: the mean log-density of validation codes is {of_codes(found[name]):.2f} "
                f"nats, less than under the prior, {found[name]['held_out']['log_density_normal']:.2f}"
            )
            continue
        try:
            return fit_latents(run, name)
        except RunError as error:
            say(f"note: {name} is passed over: {error}")
    return None


def source_of(run: SavedRun, name: str | None, *, guidance: float = 1.0) -> str | None:
    """What codes are drawn from: the name of a density, or None for the prior.

    Arguments:
        name: prior (or None), a density of codes such as gmm, or fitted, the density of `stored_density`, or the prior
            without one.
        guidance: see `LatentDensity.sample`.

    Raises:
        ChoiceError: guidance for the prior.
    """
    if name == FITTED:
        stored = stored_density(run)
        name = None if stored is None else stored.name
    if name in (None, PRIOR) and guidance != 1:
        raise ChoiceError("`guidance` applies to densities of the codes: add `latents='flow-matching'`")
    return None if name == PRIOR else name


SMOOTH: tuple[type[Density], ...] = (Gaussians, NormalisingFlow, FlowMatchingDensity)
"""The densities that codes can be inferred under: by `CodeDensity`, and flow matching by `Transported`."""
SOLVER_STEPS = 4
"""The number of solver steps from noise to codes in the inference of codes under flow matching."""


def density_of(run: SavedRun, name: str | None, *, progress: OnProgress | None = None) -> LatentDensity | None:
    """A density of codes that inference can differentiate, or None for the prior.

    Arguments:
        name: prior (or None), gmm, flow or flow-matching; a density that is not stored with the run is fitted.
        progress: called during the fit with (name of the task, units done, total units).

    Raises:
        ChoiceError: it has no gradient, or the name is unknown.
    """
    if name in (None, PRIOR):
        return None
    check_source(name)
    if not issubclass(DENSITIES[name].traits["kind"], SMOOTH):
        raise ChoiceError(
            f"codes cannot be inferred under {name}, which has no gradient: choose gmm, flow, flow-matching or prior"
        )
    return fit_latents(run, name, on_progress=progress)


def _with_gradient(density: Density, u: Tensor) -> Tensor:
    """The log-density of standardised codes u (n, d), differentiable in u."""
    if isinstance(density, Gaussians):
        return density._log_prob(u)
    assert isinstance(density, NormalisingFlow)
    return density.prior().log_prob(u)


class CodeDensity(Distribution):
    """A fitted density of codes as a distribution over z (D,), for the inference of codes.

    Dimensions that do not vary among the codes of data have the density N(their value, 1).
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, latents: LatentDensity):
        self.latents = latents
        if isinstance(latents.density, NormalisingFlow):
            latents.density.prior.requires_grad_(False)
        super().__init__(torch.Size(), latents.scale.loc.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.real_vector

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z) of z (..., D), differentiable; computed on the CPU, where fitted densities are."""
        scale, z = self.latents.scale, value.reshape(-1, value.shape[-1]).cpu()
        constant = (z - scale.loc)[:, ~scale.varies]
        log_p = _with_gradient(self.latents.density, scale.standardise(z)).to(z.dtype) + scale.log_jacobian
        log_p = log_p - 0.5 * constant.square().sum(-1) - 0.5 * constant.shape[1] * math.log(2 * math.pi)
        return log_p.reshape(value.shape[:-1]).to(value.device)


class Transported:
    """Codes z (D,) as a function of the noise e ~ N(0, I) (d,) that flow matching moves to them.

    Under this density, p(z | data) is the distribution of z(e) for e of p(e | data), with N(0, I) as the prior of e. It
    takes no divergence of the velocity. Dimensions that do not vary among the codes of data have their value.

    Arguments:
        latents: flow matching.
        labels: those of the data, one per row or one for all, for a density that is conditional on labels or
            attributes. Without them, data have any label.
        n: the number of data, with labels.

    Raises:
        ChoiceError: no labels, and the density was trained with labels only.
    """

    def __init__(self, latents: LatentDensity, labels: Labels | None = None, n: int = 0):
        assert isinstance(latents.density, FlowMatchingDensity)
        self.latents, self.density = latents, latents.density
        self.dims = self.density.model.dims
        self.c: Tensor | None = None
        if labels is not None and latents.condition is not None:
            self.c = latents._conditional(labels, n)
        elif latents.condition is not None:
            self.density.check_drop("filling in data without labels")

    def _field(self, rows: Tensor, like: Tensor, copies: int) -> Field:
        """The velocity for `copies` of each row, in blocks."""
        c = None
        if self.latents.condition is not None:
            width = self.density.model.condition
            c = torch.zeros(len(rows), width) if self.c is None else self.c[rows.cpu()]
            c = c.repeat(copies, 1).to(like)
        return self.density.model.velocity.at(c)

    def codes(self, e: Tensor, rows: Tensor) -> Tensor:
        """z (K, B, D) of noise e (K, B, d) for data with these row numbers (B,), differentiable in e."""
        flat, scale = e.flatten(0, 1), self.latents.scale
        u = runge_kutta(self._field(rows, e, len(e)), flat, 0.0, 1.0, SOLVER_STEPS)
        return scale.restore(u.cpu()).to(e).reshape(*e.shape[:-1], -1)

    def noise(self, z: Tensor, rows: Tensor) -> Tensor:
        """The noise (K, B, d) of codes z (K, B, D), apart from the error of the solver."""
        u = self.latents.scale.standardise(z.flatten(0, 1).cpu()).to(z)
        e = runge_kutta(self._field(rows, z, len(z)), u, 1.0, 0.0, SOLVER_STEPS)
        return e.reshape(*z.shape[:-1], -1)


def drawn_codes(p: Distribution | Transported, n: int, seed: int, key: int, like: Tensor) -> Tensor:
    """n codes (n, D) of a prior or a fitted density, with the dtype and the device of `like`."""
    if isinstance(p, CodeDensity | Transported):
        return torch.from_numpy(p.latents.sample(n, seed=seed)).to(like)
    return draw(p, Noise.of(seed, n, key, device=like.device)).to(like.dtype)
