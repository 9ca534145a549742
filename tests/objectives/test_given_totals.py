"""Objectives on counts: how each knows the total of a row, which `library='observed'` gives to the decoder."""

import numpy as np
import pytest
import torch
from torch.distributions import Normal

import vaekit as vk
from vaekit.data.core import Data
from vaekit.densities import draw_with_density
from vaekit.errors import ChoiceError
from vaekit.models.library import SizedVAE
from vaekit.models.vae import VAE
from vaekit.noise import Noise
from vaekit.objectives import ELBO, IWAE, OBJECTIVES, PIWAE, Batch, Objective, ReweightedWakeSleep
from vaekit.objectives.corruption import Masking
from vaekit.recipes.composition import Composition, DataSpec
from vaekit.recipes.registry import get_recipe
from vaekit.training.optimisers import optimiser
from vaekit.training.prepare import prepare
from vaekit.training.step import Engine, Settings

N, D, LATENT = 40, 5, 2
STEP = torch.tensor(0)
RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(np.exp(RNG.normal(4, 0.6, (N, 1))) * RNG.dirichlet(np.ones(D), N)).astype(np.int32)
CONDITION = {"batch": np.array(["ab"[i % 2] for i in range(N)])}

VARIANTS = {
    **{name: {"objective": name} for name in OBJECTIVES},
    "stl": {"objective": "elbo", "gradient": "stl", "samples": 2},
    "dreg": {"objective": "iwae", "gradient": "dreg"},
    "piwae dreg": {"objective": "piwae", "gradient": "dreg"},
    "wake only": {"objective": "reweighted-wake-sleep", "sleep": 0.0},
    "gradient penalty": {"objective": "autoencoder", "gradient_penalty": 0.1, "decoder_decay": 0.1},
    "corruption": {"objective": "elbo", "corruption": "masking"},
}
REFUSED = {("wake-sleep", "observed"), ("reweighted-wake-sleep", "observed")} | {
    (name, "latent") for name in ("autoencoder", "gradient penalty")
}
"""The dreams of wake-sleep have other totals than those given; the total is a latent with a Gaussian posterior."""


@pytest.fixture(scope="module")
def data() -> Data:
    return vk.from_arrays(COUNTS, columns=CONDITION)


def made(data: Data, library: str, **choices) -> Composition:
    """A tiny composition, prepared for training."""
    point = choices["objective"] == "autoencoder"
    recipe, posterior = get_recipe("vae"), {"posterior": "point"} if point else {}
    torch.manual_seed(0)
    composition = recipe.build(
        DataSpec.of(data), {"library": library, "latent": LATENT, "hidden": (6,), **posterior, **choices}
    )
    prepare(data, composition, 0)
    return composition


@pytest.mark.parametrize("library", ["none", "observed", "latent"])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_objective_trains_on_counts_or_refuses_before(data, name, library):
    if (name, library) in REFUSED:
        with pytest.raises(ChoiceError, match=r"write `.*library="):
            made(data, library, **VARIANTS[name])
        return
    composition = made(data, library, **VARIANTS[name])
    engine = Engine(composition, Settings(optimiser=lambda: optimiser("adam"), lr=1e-3))
    raw = torch.from_numpy(COUNTS[:8])
    for step in range(2):
        assert bool(torch.isfinite(engine.step(raw, step, 1.0)).all())
    with torch.no_grad():  # as on validation data
        losses = composition.objective(composition.model, Batch(raw.float(), Noise.of(0, 8)), STEP).losses
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())


# --- the densities of each objective are those given the totals -------------------------------------------------


@pytest.fixture(scope="module")
def sized(data) -> SizedVAE:
    """A model of shares of given totals, in float64."""
    model = made(data, "observed", objective="elbo", condition="batch").model
    assert isinstance(model, SizedVAE)
    return model.double()


def batch() -> Batch:
    """A batch, whose noise is the same for each."""
    c = torch.eye(2, dtype=torch.float64)[torch.arange(8) % 2]
    return Batch(torch.from_numpy(COUNTS[:8]).double(), Noise.of(0, 8), c)


def gradient(objective: Objective, model: VAE, group: str) -> torch.Tensor:
    """The gradient of the parameters of `group`, an attribute of the model, by all losses that reach it."""
    losses = objective(model, batch(), STEP).losses
    loss = losses.get({"likelihood": "decoder", "posterior": "encoder"}[group], losses.get("model"))
    found = torch.autograd.grad(loss, list(getattr(model, group).parameters()), allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


@pytest.mark.parametrize(
    ("separate", "together"),
    [
        (ELBO(samples=3, gradient="stl", analytic=False), ELBO(samples=3, analytic=False)),
        (IWAE(6, "dreg", groups=2), IWAE(6, groups=2)),
        (PIWAE(6, 2), IWAE(6)),
        (PIWAE(6, 2, "dreg"), IWAE(6)),
        (ReweightedWakeSleep(6, 0.0), IWAE(6)),
    ],
    ids=["stl", "dreg", "piwae", "piwae dreg", "wake only"],
)
def test_separate_densities_are_those_of_one_pass(sized, separate, together):
    """With the same noise, the bound and the decoder's gradient are those of the objective that uses `trace`."""
    ours, usual = (objective(sized, batch(), STEP) for objective in (separate, together))
    for name, value in usual.stats.items():
        torch.testing.assert_close(ours.stats[name], value)
    torch.testing.assert_close(*(gradient(objective, sized, "likelihood") for objective in (separate, together)))


def test_sticking_the_landing_holds_the_total_fixed(sized):
    """The encoder's gradient against the same by hand, with the code written out."""
    of = batch()
    q = sized.posterior(of.x, of.c)
    z, _ = draw_with_density(q, of.noise)
    total = (of.x.sum(-1, keepdim=True).log() - sized.total.centre) / sized.total.spread
    held = Normal(q.base_dist.loc.detach(), q.base_dist.scale.detach())
    log_px = sized.decode(torch.cat([z, total, of.c], -1)).log_prob(of.x)
    bound = log_px + sized.prior().log_prob(z) - held.log_prob(z).sum(-1)
    expected = torch.autograd.grad(-bound.mean(), list(sized.posterior.parameters()))
    found = gradient(ELBO(gradient="stl"), sized, "posterior")
    torch.testing.assert_close(found, torch.cat([g.flatten() for g in expected]))


def test_a_corruption_leaves_the_total(sized):
    """The decoder gets the total of the data, of which the encoder sees nothing here."""
    objective, of = ELBO(), batch()
    objective.corruption = Masking(1.0)
    px = objective.trace(sized, of, 3).px
    torch.testing.assert_close(px.mean.sum(-1), of.x.sum(-1).expand(3, -1), rtol=1e-5, atol=0)


def test_dreams_are_refused_even_without_the_check(sized):
    with pytest.raises(ChoiceError, match="write `sleep=0`, `library='latent'` or `library='none'`"):
        ReweightedWakeSleep(2, 0.5)(sized, batch(), STEP)
