r"""Bits-back coding: a datum costs its negative ELBO, because choosing its latents returns bits.

Encoding pops z from q(z | x), pushes x with p(x | z), and pushes z with p(z); decoding undoes this in the opposite
order (Townsend et al. 2019, arXiv:1901.04866). The stack grows by -log p(x | z) - log p(z) + log q(z | x), whose mean
over z is -ELBO. A chain of latent layers is coded layer by layer, so that each returns its bits before the next is
drawn, and the first datum needs those of one layer only (Bit-Swap; Kingma, Abbeel and Ho 2019, arXiv:1905.06845).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaekit.densities.mixture import GaussianMixture
from vaekit.errors import ChoiceError
from vaekit.heads import Conditional, Gaussian
from vaekit.heads.posteriors import FullCovariance, FullNormal
from vaekit.models.hierarchy import Chain, TopDownPass
from vaekit.models.library import SizedVAE
from vaekit.models.priors import Mixture, StandardNormal, Vamp
from vaekit.models.quantised import CodePrior
from vaekit.models.vae import VAE, Model

from . import latents
from .ans import Integers, Stack
from .codes import quantised_scheme
from .latents import Uniform, Weighted
from .rounded import Rounded, Tables
from .rounding import SHIFTS, TOLERANCE
from .scheme import Batch, Scheme, bins_from_json, bins_to_json, check_discrete, shown
from .tables import Tabled

DRAWS = 1000
"""Draws from the prior that the bins of latents are fitted to."""


# --- one latent layer -------------------------------------------------------------------------------------------


class OneLayer(Scheme):
    """A VAE with a Gaussian posterior, and N(0, I) or a mixture of Gaussians as prior."""

    def __init__(self, model: VAE, exact: VAE, tolerance: float = TOLERANCE):
        super().__init__(model, exact, tolerance)
        self.qz = self.add("posterior", model.posterior, exact.posterior)
        assert isinstance(exact.posterior, Conditional)
        head, prior = exact.posterior.head, exact.prior
        if not (isinstance(head, FullCovariance) or (isinstance(head, Gaussian) and head.squash == "none")):
            raise ChoiceError(
                f"bits-back coding draws latents from a Gaussian posterior, but this run has the posterior "
                f"{type(head).__name__}: train one with `posterior='gaussian'` or `posterior='full'`"
            )
        if not isinstance(prior, StandardNormal | Mixture | Vamp):
            raise ChoiceError(
                f"latents with the prior {type(prior).__name__} cannot be coded: train a run with `prior='normal'`, "
                "`prior='mixture'`, `prior='vamp'` or `prior='hierarchical'`"
            )
        self.prior: Distribution = prior()
        self.components: Integers | None = None  # the shifts of the grids of a VampPrior's posteriors
        self.bins = latents.standard_bins(math.prod(head.event))

    @property
    def drawn(self) -> int:
        return self.bins.dims

    def fit(self, x: Tensor, batch: Batch) -> None:
        if isinstance(self.prior, GaussianMixture):
            q = self.qz.head(self.qz.raw(*self.given(x, batch.c)))
            z = torch.cat([shown(q, len(x)), shown(self.prior, DRAWS)])
            self.bins = latents.fitted_bins(z.numpy())

    def tune(self, x: Tensor, batch: Batch) -> None:
        super().tune(x, batch)
        if isinstance(self.exact.prior, Vamp):
            raw = self.qz.raw(*self.given(self.exact.prior.inputs))
            self.components = self.qz.settled(raw, np.zeros(len(raw), np.int64))
            self._round_prior()

    def _round_prior(self) -> None:
        """Make a VampPrior from posteriors that are rounded like those of data."""
        assert self.components is not None
        q = self.qz.density(self.qz.raw(*self.given(self.exact.prior.inputs)), self.components)
        q = q.diagonal if isinstance(q, FullNormal) else q
        assert isinstance(q, Independent)
        self.prior = GaussianMixture(self.exact.prior.logits, q.base_dist.loc, q.base_dist.scale)

    def to_json(self) -> dict[str, Any]:
        mixed = isinstance(self.prior, GaussianMixture)
        stored = super().to_json() | ({"bins": bins_to_json(self.bins)} if mixed else {})
        return stored if self.components is None else stored | {"components": self.components.tolist()}

    def from_json(self, stored: dict[str, Any]) -> None:
        super().from_json(stored)
        if isinstance(self.prior, GaussianMixture):
            self.bins = bins_from_json(stored["bins"], self.bins.dims)
        if isinstance(self.exact.prior, Vamp):
            self.components = np.array([int(s) for s in stored["components"]])
            inside = bool(((self.components >= 0) & (self.components < SHIFTS)).all())
            if len(self.components) != len(self.exact.prior.pseudo) or not inside:
                raise ValueError("the shifts of the prior are those of another model")
            self._round_prior()

    def _p(self, rows: int) -> Uniform | Weighted:
        if isinstance(self.prior, GaussianMixture):
            return Weighted(self.prior, rows, self.bins)
        return Uniform(self.bins, rows)

    def _q(self, q: Distribution, shift: Integers) -> Tabled:
        return latents.posterior(q, self.bins)

    def _posterior(self, x: Tensor, batch: Batch) -> Tensor:
        return self.qz.raw(*self.given(x, batch.c))

    def _likelihood(self, z: Tensor, batch: Batch) -> Tensor:
        if batch.total is not None:
            z = self.model.with_total(z.to(self.dtype), batch.total.to(self.dtype))
        return self.px.raw(*self.given(z, batch.c))

    def observed(self, x: Tensor, batch: Batch) -> Iterator[tuple[Rounded, Tensor, Tensor]]:
        raw = self._posterior(x, batch)
        z = shown(self.qz.head(raw), len(x))
        yield self.qz, raw, z
        yield self.px, self._likelihood(z, batch), x

    def encode(self, stack: Stack, x: Tensor, values: Integers, batch: Batch) -> None:
        z = self.qz.draw(stack, self._posterior(x, batch), self._q, lambda z: self._p(len(z)).clear(z))
        self.px.put(stack, self._likelihood(self.bins.centres(z), batch), values, self.tables(batch))
        self._p(len(x)).push(stack, z)

    def decode(self, stack: Stack, batch: Batch) -> Integers:
        z = self._p(len(batch)).pop(stack)
        values = self.px.take(stack, self._likelihood(self.bins.centres(z), batch), self.tables(batch))
        self.qz.undraw(stack, self._posterior(self.x_of(values, batch), batch), z, self._q)
        return values


# --- a chain of latent layers -----------------------------------------------------------------------------------


class Swapped(Scheme):
    """A `Chain` by Bit-Swap: z_1 is drawn and x pushed, then z_2 is drawn and z_1 pushed, and so on."""

    def __init__(self, model: Chain, exact: Chain, tolerance: float = TOLERANCE):
        super().__init__(model, exact, tolerance)
        self.layers = len(exact.posteriors)
        self.q = [
            self.add(f"posterior {i + 1}", *pair)
            for i, pair in enumerate(zip(model.posteriors, exact.posteriors, strict=True))
        ]
        downward = list(zip(model.generators, exact.generators, strict=True))[::-1]  # p(z_1 | z_2) first
        self.p = [self.add(f"prior {i + 1}", *pair) for i, pair in enumerate(downward)]
        heads = []
        for part in (*exact.posteriors, *exact.generators):
            assert isinstance(part, Conditional)
            if not (isinstance(part.head, Gaussian) and part.head.squash == "none"):
                raise ChoiceError(
                    f"Bit-Swap draws latents from Gaussian posteriors, but this run has a {type(part.head).__name__}: "
                    "train one with `posterior='gaussian'`"
                )
            heads.append(part.head)
        if not isinstance(exact.prior, StandardNormal):
            raise ChoiceError(
                f"the top latents of this chain have the prior {type(exact.prior).__name__}, but only N(0, I) can be "
                "coded"
            )
        self.bins = [latents.standard_bins(math.prod(head.event)) for head in heads[: self.layers]]

    def observed(self, x: Tensor, batch: Batch) -> Iterator[tuple[Rounded, Tensor, Tensor]]:
        below = x
        for i, network in enumerate(self.q):
            raw = network.raw(*self.given(below))
            z = shown(network.head(raw), len(x))
            yield network, raw, z
            down = self.px if i == 0 else self.p[i - 1]
            yield down, down.raw(*self.given(z)), below
            below = z

    @property
    def drawn(self) -> int:
        return max(bins.dims for bins in self.bins)

    def fit(self, x: Tensor, batch: Batch) -> None:
        prior = shown(self.exact.prior(), DRAWS)
        drawn: list[Tensor] = []
        for i in reversed(range(self.layers - 1)):
            prior = shown(self.exact.generators[self.layers - 2 - i](prior), DRAWS)
            drawn.insert(0, prior)
        below = x
        for i, network in enumerate(self.q[:-1]):
            below = shown(network.head(network.raw(*self.given(below))), len(x))
            self.bins[i] = latents.fitted_bins(torch.cat([below, drawn[i]]).numpy())

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"bins": [bins_to_json(bins) for bins in self.bins[:-1]]}

    def from_json(self, stored: dict[str, Any]) -> None:
        super().from_json(stored)
        for i in range(self.layers - 1):
            self.bins[i] = bins_from_json(stored["bins"][i], self.bins[i].dims)

    def _of_posterior(self, i: int) -> Tables:
        return lambda q, shift: latents.posterior(q, self.bins[i])

    def _below(self, i: int, batch: Batch) -> tuple[Rounded, Tables]:
        """The network and the tables of what layer i generates."""
        if i == 0:
            return self.px, self.tables(batch)
        return self.p[i - 1], lambda p, shift: latents.conditional_prior(p, self.bins[i - 1])

    def encode(self, stack: Stack, x: Tensor, values: Integers, batch: Batch) -> None:
        below, coded = x, values
        for i, posterior in enumerate(self.q):
            z = posterior.draw(stack, posterior.raw(*self.given(below)), self._of_posterior(i))
            network, tables = self._below(i, batch)
            centres = self.bins[i].centres(z)
            network.put(stack, network.raw(*self.given(centres)), coded, tables)
            below, coded = centres, z
        Uniform(self.bins[-1], len(x)).push(stack, coded)

    def decode(self, stack: Stack, batch: Batch) -> Integers:
        z = Uniform(self.bins[-1], len(batch)).pop(stack)
        for i in reversed(range(self.layers)):
            network, tables = self._below(i, batch)
            coded = network.take(stack, network.raw(*self.given(self.bins[i].centres(z))), tables)
            below = self.x_of(coded, batch) if i == 0 else self.bins[i - 1].centres(coded)
            self.q[i].undraw(stack, self.q[i].raw(*self.given(below)), z, self._of_posterior(i))
            z = coded
        return z


# --- a top-down model -------------------------------------------------------------------------------------------


class Descending(Scheme):
    """A top-down model: its layers are drawn from the top, each given x and those above, then x and all are pushed.

    Their posteriors depend on x, so that no layer can return its bits before all are drawn.
    """

    def __init__(self, model: TopDownPass, exact: TopDownPass, tolerance: float = TOLERANCE):
        super().__init__(model, exact, tolerance)
        self.sizes = list(exact.sizes)
        self.bins = [latents.standard_bins(size) for size in self.sizes]
        for i, size in enumerate(self.sizes):
            group = np.repeat([0, 1], size)
            name = f"posterior {i + 1}"
            self.networks[name] = Rounded(name, lambda raw: raw, _normal_of, group, self.tolerance)

    @property
    def drawn(self) -> int:
        return sum(self.sizes)

    def fit(self, x: Tensor, batch: Batch) -> None:
        """The latents are standardised, so that their bins are given."""

    def _walk(self, rows: int, features: list[Tensor] | None, choose: Callable[[int, Tensor | None], Tensor]) -> Tensor:
        """The input of the likelihood after the top-down pass.

        Arguments:
            features: those of x, or None to leave the posteriors out.
            choose: choose(layer, raw numbers of its posterior) -> z (rows, size).
        """
        at = iter(range(len(self.sizes)))

        def pick(number: int, layer: Any, h: Tensor) -> Tensor:
            i, raw = next(at), None
            if features is not None:
                both = [v.flatten(1) for v in layer.posterior(h, features[number])]
                raw = self.networks[f"posterior {i + 1}"].raw(torch.cat(both, 1))
            return choose(i, raw).to(self.dtype).unflatten(1, layer.prior.event)

        return self.model.walk((rows,), pick)

    def observed(self, x: Tensor, batch: Batch) -> Iterator[tuple[Rounded, Tensor, Tensor]]:
        found: list[tuple[Rounded, Tensor, Tensor]] = []

        def choose(i: int, raw: Tensor | None) -> Tensor:
            assert raw is not None
            network = self.networks[f"posterior {i + 1}"]
            z = shown(network.head(raw), len(x))
            found.append((network, raw, z))
            return z

        last = self._walk(len(x), self.model.features(x.to(self.dtype)), choose)
        yield from found
        yield self.px, self.px.raw(last), x

    def _of(self, i: int) -> Tables:
        return lambda q, shift: latents.posterior(q, self.bins[i])

    def encode(self, stack: Stack, x: Tensor, values: Integers, batch: Batch) -> None:
        drawn: list[Integers] = []

        def choose(i: int, raw: Tensor | None) -> Tensor:
            assert raw is not None
            drawn.append(self.networks[f"posterior {i + 1}"].draw(stack, raw, self._of(i)))
            return self.bins[i].centres(drawn[-1])

        last = self._walk(len(x), self.model.features(x.to(self.dtype)), choose)
        self.px.put(stack, self.px.raw(last), values, self.tables(batch))
        for i, z in enumerate(drawn):
            Uniform(self.bins[i], len(x)).push(stack, z)

    def decode(self, stack: Stack, batch: Batch) -> Integers:
        z = [Uniform(bins, len(batch)).pop(stack) for bins in self.bins[::-1]][::-1]
        centres = [bins.centres(one) for bins, one in zip(self.bins, z, strict=True)]
        last = self._walk(len(batch), None, lambda i, _: centres[i])
        values = self.px.take(stack, self.px.raw(last), self.tables(batch))
        raws: list[Tensor] = []

        def choose(i: int, raw: Tensor | None) -> Tensor:
            assert raw is not None
            raws.append(raw)
            return centres[i]

        features = self.model.features(self.x_of(values, batch).to(self.dtype))
        self._walk(len(batch), features, choose)
        for i in reversed(range(len(z))):
            self.networks[f"posterior {i + 1}"].undraw(stack, raws[i], z[i], self._of(i))
        return values


def _normal_of(raw: Tensor) -> Distribution:
    """The density of the latents of a layer from their means and log scales, (B, 2 D)."""
    mean, log_scale = raw.chunk(2, -1)
    return Independent(Normal(mean, torch.exp(log_scale), validate_args=False), 1, validate_args=False)


# --- from models to schemes -------------------------------------------------------------------------------------


def scheme_of(model: Model, tolerance: float = TOLERANCE, dtype: torch.dtype = torch.float64) -> Scheme:
    """How the data of a model are coded.

    Arguments:
        model: a trained model.
        tolerance: see `rounding`.
        dtype: the precision in which the networks are evaluated.

    Raises:
        ChoiceError: the likelihood is not discrete, or the model cannot be coded.
    """
    check_discrete(getattr(model.likelihood, "head", None), type(model.likelihood).__name__)
    exact, used = copy.deepcopy(model).cpu().double().eval(), copy.deepcopy(model).cpu().to(dtype).eval()
    if isinstance(exact, VAE) and isinstance(exact.prior, CodePrior):
        return quantised_scheme(used, exact, tolerance)  # type: ignore[arg-type]
    if type(model) in (VAE, SizedVAE):
        return OneLayer(used, exact, tolerance)  # type: ignore[arg-type]
    if isinstance(model, Chain):
        return Swapped(used, exact, tolerance)  # type: ignore[arg-type]
    if isinstance(model, TopDownPass):
        return Descending(used, exact, tolerance)  # type: ignore[arg-type]
    raise ChoiceError(
        f"the data of runs of the model {type(model).__name__} cannot be coded: train a run with `recipe='vae'`, "
        "`recipe='mixture'`, `recipe='vamp'`, `recipe='hierarchical'`, `recipe='ladder'`, "
        "`recipe='vq'` or `recipe='fsq'`"
    )
