"""Objectives: losses and gradients against closed forms, each other and definitions; the gradients of each group."""

import math

import numpy as np
import pytest
import torch
from core_helpers import QUIET, LinearGaussian, captured
from torch import distributions as D
from torch import nn

import vaekit as vk
from vaekit import heads, networks
from vaekit.data.observation import Identity
from vaekit.densities import draw
from vaekit.errors import ChoiceError
from vaekit.heads import Conditional
from vaekit.heads.posteriors import IAF, FullCovariance, PointHead
from vaekit.models.priors import StandardNormal
from vaekit.models.vae import VAE, Latent, Model, Trace
from vaekit.noise import Noise
from vaekit.objectives import (
    CIWAE,
    ELBO,
    IWAE,
    PIWAE,
    Autoencoder,
    Batch,
    Capacity,
    Constrained,
    Objective,
    ReweightedWakeSleep,
    Trimmed,
    WakeSleep,
)
from vaekit.objectives.autoencoder import activity_kl
from vaekit.objectives.corruption import CORRUPTIONS as BY_NAME
from vaekit.objectives.corruption import GaussianNoise, Masking, SaltAndPepper
from vaekit.objectives.schedules import Linear
from vaekit.objectives.terms import (
    distortion,
    free_rate,
    grouped_bound,
    log_mean_weight,
    log_weights,
    rate,
    rate_groups,
    rate_per_dim,
)
from vaekit.recipes.composition import Composition, Defaults
from vaekit.training.optimisers import optimiser
from vaekit.training.step import Engine, Settings
from vaekit.utils.register import Chosen

STEP = torch.tensor(0)
DIMS, LATENT = 5, 2


class Doubles(Identity):
    """Raw rows as they are, in float64."""

    def forward(self, raw, noise=None):
        return raw


def perturbed(**how) -> LinearGaussian:
    world = LinearGaussian()
    world.spoil(**how)
    return world


def points(latent=LATENT, dims=DIMS, seed=0, hidden=(7,)) -> VAE:
    """An autoencoder in float64."""
    torch.manual_seed(seed)
    encoder = Conditional(networks.MLP((dims,), latent, hidden, "tanh"), PointHead((latent,)))
    decoder = Conditional(networks.MLP((latent,), dims, hidden, "tanh"), heads.Gaussian((dims,), "fixed", 0.5))
    return VAE(StandardNormal((latent,)), encoder, decoder).double()


def with_head(head) -> VAE:
    torch.manual_seed(0)
    encoder = Conditional(networks.MLP((DIMS,), head.features, (7,), "tanh"), head)
    return VAE(StandardNormal((LATENT,)), encoder, LinearGaussian().model.likelihood).double()


BOUNDS = {
    "elbo": lambda: ELBO(samples=2),
    "free bits": lambda: ELBO(free_bits=0.1),
    "stl": lambda: ELBO(samples=2, gradient="stl"),
    "trimmed": lambda: Trimmed(0.3, samples=2),
    "capacity": lambda: Capacity(10.0, 3.0, 5),
    "constrained": lambda: Constrained("rate", 1.0),
    "iwae": lambda: IWAE(6, groups=2),
    "dreg": lambda: IWAE(6, "dreg", groups=2),
    "ciwae": lambda: CIWAE(6, 0.2),
    "piwae": lambda: PIWAE(6, 2),
    "piwae dreg": lambda: PIWAE(6, 2, "dreg"),
    "wake-sleep": lambda: WakeSleep(),
    "reweighted": lambda: ReweightedWakeSleep(4),
    "reweighted, wake only": lambda: ReweightedWakeSleep(4, 0.0),
}
AUTOENCODER = {"autoencoder": lambda: Autoencoder(0.5, 0.2, 0.1, 3.0, 0.1)}


def case(name: str) -> tuple[Objective, VAE]:
    """An objective and a model it trains."""
    if name in AUTOENCODER:
        return AUTOENCODER[name](), points()
    return BOUNDS[name](), perturbed().model


every_objective = pytest.mark.parametrize("name", [*BOUNDS, *AUTOENCODER])


def gradients(loss, parameters):
    return torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)


def flat(found):
    return torch.cat([g.flatten() for g in found])


# --- what holds for all of them ---------------------------------------------------------------------------------


@every_objective
def test_every_player_is_reached_by_its_own_loss_only(name):
    objective, model = case(name)
    objective.check(model)
    x = LinearGaussian().data(6)
    terms = objective(model, Batch(x, Noise.of(0, 6)), STEP)
    parameter_groups = objective.parameter_groups(model)
    assert list(terms.losses) == list(parameter_groups) or set(terms.losses) == set(parameter_groups)
    owned = {id(p) for ps in parameter_groups.values() for p in ps}
    assert owned == {id(p) for p in [*model.parameters(), *objective.parameters()]}
    for player, loss in terms.losses.items():
        assert loss.shape == ()
        for other, parameters in parameter_groups.items():
            found = gradients(loss, parameters)
            if other == player:
                assert all(g is not None and bool(torch.isfinite(g).all()) for g in found)
                assert bool((flat(found) != 0).any())
            else:
                assert all(g is None for g in found), f"the loss of {player} reaches {other}"
    assert all(v.shape == () and bool(torch.isfinite(v)) for v in terms.stats.values())
    assert set(objective.densities) <= set(terms.stats)


@every_objective
def test_one_row_is_a_batch(name):
    objective, model = case(name)
    terms = objective(model, Batch(LinearGaussian().data(1), Noise.of(0, 1)), STEP)
    assert all(bool(torch.isfinite(v)) for v in [*terms.losses.values(), *terms.stats.values()])


@every_objective
def test_losses_have_the_same_values_where_nothing_is_differentiated(name):
    objective, model = case(name)
    x = LinearGaussian().data(6)
    with_graph = objective(model, Batch(x, Noise.of(0, 6)), STEP)
    with torch.no_grad():
        without = objective(model, Batch(x, Noise.of(0, 6)), STEP)
    torch.testing.assert_close({**with_graph.losses, **with_graph.stats}, {**without.losses, **without.stats})


@pytest.mark.parametrize("name", ["free bits", "constrained", "dreg", "piwae", "reweighted", "autoencoder"])
def test_a_whole_step_is_one_graph(name, monkeypatch):
    """Includes losses that contain gradients, and gradient penalties."""
    captured(monkeypatch)
    torch._dynamo.reset()
    x = LinearGaussian().data(6)
    found = []
    for compiled in (False, True):
        objective, model = case(name)
        objective.corruption = Masking(0.2)
        engine = Engine(Composition(model, objective, Doubles()), Settings(lambda: optimiser("sgd"), 0.01))
        if compiled:
            engine.compiled()
        values = [engine.step(x, t, 1.0) for t in range(2)]
        found.append((torch.stack(values), {n: p.clone() for n, p in engine.parameters.items()}))
    torch.testing.assert_close(found[0], found[1])


# --- corruption -------------------------------------------------------------------------------------------------


class Watched(nn.Module):
    """A posterior that keeps what it was shown."""

    def __init__(self, posterior: nn.Module):
        super().__init__()
        self.posterior = posterior
        self.shown: list[torch.Tensor] = []

    def forward(self, x):
        self.shown.append(x)
        return self.posterior(x)


@every_objective
def test_the_encoder_sees_the_corrupted_x_and_the_target_stays_clean(name):
    """Set after it is made, as recipes do: the class attribute of the same name must not hide it."""
    x = LinearGaussian().data(6)
    objective, model = case(name)
    model.posterior = Watched(model.posterior)
    assert objective.corruption is None
    objective.corruption = Masking(1.0, 7.0)
    assert isinstance(objective.corruption, Masking)
    stats = objective(model, Batch(x, Noise.of(0, 6)), STEP).stats
    assert model.posterior.shown
    assert all(bool((seen == 7).all()) for seen in model.posterior.shown)
    far = objective(model, Batch(x + 100, Noise.of(0, 6)), STEP).stats
    assert float(far["distortion"]) > float(stats["distortion"]) + 1000  # the same codes, another target
    objective.corruption = None
    model.posterior.shown.clear()
    objective(model, Batch(x, Noise.of(0, 6)), STEP)
    assert objective.corruption is None
    assert torch.equal(model.posterior.shown[0], x)


CORRUPTIONS = [GaussianNoise(0.7), Masking(0.3, -2.0), SaltAndPepper(0.4, -1.0, 3.0)]


@pytest.mark.parametrize("spoil", CORRUPTIONS, ids=lambda c: type(c).__name__)
def test_corruptions_are_keyed_by_row_whatever_the_batch(spoil):
    x = torch.rand(30, 2, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    whole = spoil(x, Noise.of(1, 30))
    assert whole.shape == x.shape
    assert whole.dtype == x.dtype
    assert not torch.equal(whole, x)
    for rows in (torch.arange(3, 11), torch.tensor([29, 0])):
        assert torch.equal(spoil(x[rows], Noise.of(1, rows)), whole[rows])
    assert torch.equal(spoil(x, Noise.of(1, 30)), whole)
    assert not torch.equal(spoil(x, Noise.of(2, 30)), whole)
    noise = Noise.of(1, 30)
    assert not torch.equal(spoil(x, noise), spoil(x, noise))  # the next draw is another


def test_corruptions_change_as_much_as_they_say():
    n = 40_000
    x = torch.full((n // 8, 8), 0.5)
    noisy = GaussianNoise(0.7)(x, Noise.of(0, len(x))) - x
    assert float(noisy.mean()) == pytest.approx(0, abs=4 * 0.7 / math.sqrt(n))
    assert float(noisy.std()) == pytest.approx(0.7, abs=4 * 0.7 / math.sqrt(2 * n))
    error = 4 * math.sqrt(0.25 / n)
    masked = Masking(0.3)(x, Noise.of(0, len(x)))
    assert set(masked.unique().tolist()) == {0.0, 0.5}
    assert float((masked == 0).float().mean()) == pytest.approx(0.3, abs=error)
    spoilt = SaltAndPepper(0.4, -1.0, 3.0)(x, Noise.of(0, len(x)))
    assert set(spoilt.unique().tolist()) == {-1.0, 0.5, 3.0}
    for value in (-1.0, 3.0):
        assert float((spoilt == value).float().mean()) == pytest.approx(0.2, abs=error)
    for none in (GaussianNoise(0.0), Masking(0.0), SaltAndPepper(0.0)):
        assert torch.equal(none(x, Noise.of(0, len(x))), x)
    assert set(SaltAndPepper(1.0)(x, Noise.of(0, len(x))).unique().tolist()) == {0.0, 1.0}


def test_corruptions_by_name():
    built = {
        name: Chosen(part, {"corruption_level": 0.2} if part.knobs else {}).make(low=-1.0, high=255.0)
        for name, part in BY_NAME.items()
    }
    assert built["none"] is None
    assert built["gaussian"].sigma == 0.2
    assert (built["masking"].fraction, built["masking"].value) == (0.2, -1.0)
    pepper = built["salt-and-pepper"]
    assert (pepper.fraction, pepper.low, pepper.high) == (0.2, -1.0, 255.0)
    for name, level in (("gaussian", 0.0), ("gaussian", -0.1), ("masking", 1.1), ("salt-and-pepper", -0.1)):
        with pytest.raises(ChoiceError, match=r"`corruption_level` must be above 0"):
            BY_NAME[name].build(level)
    for wrong in (lambda: GaussianNoise(-0.1), lambda: Masking(1.1), lambda: SaltAndPepper(-0.1)):
        with pytest.raises(ValueError, match="must be"):
            wrong()
    with pytest.raises(ValueError, match="below high"):
        SaltAndPepper(0.1, 1.0, 1.0)


def test_validation_and_scores_never_see_corrupted_data(tmp_path):
    """Two runs that hardly train, one of them on an x that no encoder can use."""
    found, trained = {}, {}
    for name, spoil in (("clean", None), ("spoilt", GaussianNoise(100.0))):
        world = LinearGaussian(dtype=torch.float32)
        objective = ELBO()
        objective.corruption = spoil
        composition = Composition(world.model, objective, Identity(), Defaults("sgd", 1e-12, 50))
        data = vk.from_arrays(world.data(200).float().numpy())
        run = vk.fit(data, composition, out=tmp_path / name, steps=2, **QUIET)
        scored = run.evaluate("test", metrics=["elbo"], samples=2)[0]["value"]
        found[name] = [*(r["elbo"] for r in run.log if r["kind"] == "valid"), scored]
        trained[name] = [r["elbo"] for r in run.log if r["kind"] == "train"]
    assert len(found["clean"]) > 1
    assert found["spoilt"] == pytest.approx(found["clean"], abs=1e-3)
    assert trained["spoilt"][0] < trained["clean"][0] - 100


# --- ELBO: free bits --------------------------------------------------------------------------------------------


def test_a_trimmed_loss_is_that_of_the_other_rows():
    """The rows that are left out change neither the loss nor its gradient; without any, it is the negative ELBO."""
    world = perturbed()
    x = torch.cat([world.data(14), world.data(6) + 50])

    def terms(objective):
        return objective(world.model, Batch(x, Noise.of(0, 20)), STEP)

    losses, stats = terms(Trimmed(0.3))
    inner = ELBO()(world.model, Batch(x[:14], Noise.of(0, 14)), STEP).losses["model"]
    torch.testing.assert_close(losses["model"], inner)
    parameters = list(world.model.parameters())
    found, told = (flat(gradients(loss, parameters)) for loss in (losses["model"], inner))
    torch.testing.assert_close(found, told)
    plain = terms(ELBO())
    torch.testing.assert_close(stats["elbo"], plain.stats["elbo"])  # the record is that of all rows
    torch.testing.assert_close(terms(Trimmed(0.0)).losses["model"], plain.losses["model"])
    assert Trimmed(0.3).kept(torch.arange(10.0), x[:10]).tolist() == [False] * 3 + [True] * 7
    assert Trimmed(0.3).bounded(torch.arange(10.0), x[:10]).tolist() == [3, 3, 3, 3, 4, 5, 6, 7, 8, 9]
    assert Trimmed(0.3).kept(torch.zeros(10), x[:10]).all()
    with pytest.raises(ChoiceError, match=r"`trim` must be 0 or more and at most 0.5"):
        Trimmed(0.6)


def rows_with_gaps(n):
    """Correlated Gaussian rows with gaps, the exact log p of what is visible, and which are outliers (one in 20)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    x[:, 0] = 0.05 * x[:, 0]  # a precise column: 3 nats more than the others
    x[:, 1:3] += 2 * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    covariance = torch.eye(6, dtype=torch.float64)
    covariance[0, 0] = 0.05**2
    covariance[1:3, 1:3] += 4
    outlier = torch.rand(n, generator=generator) < 0.05
    x[outlier, 3:] += 8
    gap = torch.rand(n, 6, generator=generator) < torch.tensor([0.05, 0.2, 0.2, 0.2, 0.2, 0.0])
    log_p = torch.zeros(n, dtype=torch.float64)
    for pattern in gap.unique(dim=0):
        of, seen = (gap == pattern).all(1), ~pattern
        log_p[of] = D.MultivariateNormal(torch.zeros_like(x[0, seen]), covariance[seen][:, seen]).log_prob(
            x[of][:, seen]
        )
    return x.masked_fill(gap, torch.nan), gap, log_p, outlier


def test_gaps_do_not_change_the_share_of_rows_that_are_left_out():
    """In batches of 128, too: by the raw ELBO, a row that lacks the precise column is left out far more often."""
    x, gap, log_p, outlier = rows_with_gaps(128 * 100)

    def shares(objective):
        parts = zip(log_p.float().split(128), x.split(128), strict=True)
        out = ~torch.cat([objective.kept(figures, rows) for figures, rows in parts])
        assert out[outlier].double().mean() > 0.95
        usual = ~outlier
        return {name: float(out[usual & of].double().mean()) for name, of in kinds.items()}

    kinds = {"whole": ~gap.any(1), "precise": gap[:, 0], "correlated": gap[:, 1], "many": gap.sum(1) > 2}
    found, raw = shares(Trimmed(0.15, missing=True)), shares(Trimmed(0.15))
    assert raw["precise"] > raw["correlated"] + 0.15
    assert max(found.values()) - min(found.values()) < 0.04
    raised = Trimmed(0.15, missing=True).bounded(log_p, x)
    kept = Trimmed(0.15, missing=True).kept(log_p, x)
    torch.testing.assert_close(raised[kept], log_p[kept])
    assert (raised[~kept] > log_p[~kept]).all()


def test_each_of_several_processes_leaves_out_its_own_share():
    """The rows with the lowest ELBO of each part of the batch, which need not be the lowest of the whole batch."""
    world = perturbed()
    x = torch.cat([world.data(10), world.data(2) + 50])
    for rows in (torch.arange(0, 12, 2), torch.arange(1, 12, 2)):
        part, inner = (Batch(x[kept], Noise.of(0, kept)) for kept in (rows, rows[:-1]))
        found = Trimmed(0.25)(world.model, part, STEP).losses["model"]
        torch.testing.assert_close(found, ELBO()(world.model, inner, STEP).losses["model"])


@pytest.mark.parametrize("analytic", [True, False])
def test_free_bits_leave_the_kl_of_weak_dimensions_alone(analytic):
    world = perturbed()
    x = world.data(400)
    trace = world.model.trace(x, noise=Noise.of(0, 400), k=3)
    each = rate_groups(trace, analytic)
    assert each.shape == (LATENT,)
    torch.testing.assert_close(each.sum(), rate(trace, analytic).mean())
    if analytic:
        torch.testing.assert_close(each, rate_per_dim(trace.latents[0]).mean(0))
    free = float(each.mean())  # between the two
    assert float(each.min()) < free - 0.1 < free + 0.1 < float(each.max())
    weak = int(each.argmin())

    def terms(free_bits, beta=2.0):
        return ELBO(beta, 3, analytic, free_bits)(world.model, Batch(x, Noise.of(0, 400)), STEP)

    plain, freed = terms(0.0), terms(free)
    torch.testing.assert_close(freed.stats, plain.stats)  # what is recorded is the truth
    torch.testing.assert_close(freed.losses["model"], plain.losses["model"] + 2 * (free - each[weak]))
    torch.testing.assert_close(terms(1e-9).losses, plain.losses)
    # below, the KL of the weak dimension has no gradient: that of its log sigma comes from the distortion alone
    log_scale = [world.model.posterior.head.log_scale]
    (of_loss,) = gradients(freed.losses["model"], log_scale)
    (of_distortion,) = gradients(freed.stats["distortion"], log_scale)
    (of_plain,) = gradients(plain.losses["model"], log_scale)
    torch.testing.assert_close(of_loss[weak], of_distortion[weak])
    torch.testing.assert_close(of_loss[1 - weak], of_plain[1 - weak])
    assert float((of_plain - of_distortion)[weak].abs()) > 0.1


def test_free_bits_count_by_the_mean_of_the_batch_not_by_the_datum():
    """KLs of 0 and 2 nats average to one nat, so nothing is added; a maximum per datum would add half a nat."""
    p = D.Independent(D.Normal(torch.zeros(1), torch.ones(1)), 1)
    q = D.Independent(D.Normal(torch.tensor([[0.0], [2.0]]), torch.ones(2, 1)), 1)
    trace = Trace((Latent(draw(q, Noise.of(0, 2)), q, p),), q)
    assert float(free_rate(trace, 1.0)) == pytest.approx(1.0)
    assert float(free_rate(trace, 1.25)) == pytest.approx(1.25)


def test_free_bits_go_by_layers_where_there_are_several_or_nothing_factorises():
    p = D.Independent(D.Normal(torch.zeros(2), torch.ones(2)), 1)
    qs = [D.Independent(D.Normal(torch.full((3, 2), float(i)), torch.ones(3, 2)), 1) for i in (0, 1)]
    trace = Trace(tuple(Latent(draw(q, Noise.of(i, 3), 4), q, p) for i, q in enumerate(qs)), p)
    torch.testing.assert_close(rate_groups(trace), torch.tensor([0.0, 1.0]))
    assert float(free_rate(trace, 0.25)) == pytest.approx(1.25)
    full = with_head(FullCovariance((LATENT,)))
    x = LinearGaussian().data(9)
    for analytic in (True, False):
        trace = full.trace(x, noise=Noise.of(0, 9))
        assert rate_groups(trace, analytic).shape == (1,)
        torch.testing.assert_close(rate_groups(trace, analytic).sum(), rate(trace, analytic).mean())


# --- capacity and constraint ------------------------------------------------------------------------------------


def test_the_kl_is_drawn_to_the_capacity_of_the_step():
    world = perturbed()
    x = world.data(50)
    objective = Capacity(10.0, 8.0, capacity_steps=100)
    given = Capacity(10.0, Linear(8.0, 100))
    sigma = [world.model.posterior.head.log_scale]
    for t, c in ((0, 0.0), (50, 4.0), (100, 8.0), (5000, 8.0)):
        losses, stats = objective(world.model, Batch(x, Noise.of(0, 50)), torch.tensor(t))
        assert float(stats["capacity"]) == pytest.approx(c)
        wanted = stats["distortion"] + 10 * (stats["rate"] - c).abs()
        torch.testing.assert_close(losses["model"], wanted)
        torch.testing.assert_close(stats["elbo"], -(stats["distortion"] + stats["rate"]))
        torch.testing.assert_close(losses, given(world.model, Batch(x, Noise.of(0, 50)), torch.tensor(t)).losses)
        parts = (losses["model"], stats["distortion"], stats["rate"])
        (of_loss,), (of_d,), (of_r,) = (gradients(v, sigma) for v in parts)
        sign = 1 if float(stats["rate"]) > c else -1
        torch.testing.assert_close(of_loss, of_d + sign * 10 * of_r)
    assert float(stats["rate"]) < 8  # so both signs were seen


def train(model, objective, steps, x, lr=5e-3):
    """Means and deviations of the recorded values over the last fifth."""
    engine = Engine(Composition(model, objective, Doubles()), Settings(lambda: optimiser("adam"), lr))
    values = torch.stack([engine.step(x, t, 1.0) for t in range(steps)])
    last = values[-steps // 5 :]
    return [dict(zip(engine.stats, v.tolist(), strict=True)) for v in (last.mean(0), last.std(0))]


@pytest.mark.parametrize(("on", "share"), [("rate", 0.7), ("rate", 1.2), ("distortion", 0.8), ("distortion", 1.2)])
def test_the_constraint_is_met_at_convergence(on, share):
    """With a target tighter than the optimum the multiplier exceeds 1, else it is below; the target is reached."""
    world = LinearGaussian()
    for p in world.model.likelihood.parameters():
        p.requires_grad_(False)
    x = world.data(200)
    plain = ELBO(samples=4)(world.model, Batch(x, Noise.of(0, 200)), STEP).stats  # the exact posterior
    target = share * float(plain[on])
    found, swing = train(world.model, Constrained(on, target, samples=4), 1000, x)
    # the distortion's draws have a deviation of 0.034 a step, 0.0024 in a mean of 200; as much again for the following
    assert found[on] == pytest.approx(target, abs=0.02)
    assert found["violation"] == pytest.approx(0, abs=0.02)
    assert swing["violation"] < 0.1  # it comes to rest: a multiplier led by Adam swings on by twice that
    assert (found["multiplier"] > 1.02) == (share < 1)
    assert (found["multiplier"] < 0.98) == (share > 1)
    assert found["elbo"] < float(plain["elbo"]) + 0.02


def test_the_losses_of_a_constraint():
    world = perturbed()
    x = world.data(30)
    for on, free in (("rate", "distortion"), ("distortion", "rate")):
        objective = Constrained(on, 3.0, multiplier=2.5).double()
        assert objective.tuning["multiplier"].lr == 1e-2
        losses, stats = objective(world.model, Batch(x, Noise.of(0, 30)), STEP)
        torch.testing.assert_close(stats["violation"], stats[on] - 3)
        torch.testing.assert_close(losses["model"], stats[free] + 2.5 * stats["violation"], rtol=1e-6, atol=1e-6)
        (slope,) = gradients(losses["multiplier"], [objective.log_multiplier])
        # descent on it lifts log lambda by lr C, C at most a nat
        torch.testing.assert_close(slope, -stats["violation"].detach().clamp(-1, 1))
        near = Constrained(on, float(stats[on].detach()) - 0.25).double()
        (slope,) = gradients(near(world.model, Batch(x, Noise.of(0, 30)), STEP).losses["multiplier"], near.parameters())
        assert float(slope) == pytest.approx(-0.25)
        found = gradients(losses["model"], world.model.posterior.parameters())
        by_hand = gradients(stats[free] + 2.5 * stats[on], world.model.posterior.parameters())
        torch.testing.assert_close(found, by_hand, rtol=1e-6, atol=1e-8)
    assert "multiplier" not in ELBO.tuning


@pytest.mark.parametrize(("target", "end"), [(1e-9, 1e6), (1e9, 1e-6)])
def test_a_multiplier_with_no_answer_stays_within_its_limits(target, end):
    """A rate near 0 is out of reach for a model that hardly learns, and one of 1e9 is no constraint."""
    world = perturbed()
    x = world.data(20)
    objective = Constrained("rate", target, multiplier_lr=1.0)
    engine = Engine(Composition(world.model, objective, Doubles()), Settings(lambda: optimiser("sgd"), 1e-12))
    for t in range(30):
        values = engine.step(x, t, 1.0)
    found = dict(zip(engine.stats, values.tolist(), strict=True))
    assert found["multiplier"] == pytest.approx(end, rel=1e-3)
    assert abs(float(objective.log_multiplier.detach())) < math.log(1e6) + 1  # one step at most beyond


# --- importance weights -----------------------------------------------------------------------------------------


def test_the_bound_rises_with_the_samples_to_log_p():
    world = perturbed()
    x, exact = world.data(400), float(world.log_p(world.data(400)).mean())
    with torch.no_grad():
        found = {k: IWAE(k)(world.model, Batch(x, Noise.of(0, 400)), STEP) for k in (1, 4, 16, 64, 2048)}
    bounds = {k: float(t.stats["iwae"]) for k, t in found.items()}
    assert bounds[1] < bounds[4] < bounds[16] < bounds[64]
    assert bounds[64] < exact + 0.02
    assert bounds[2048] == pytest.approx(exact, abs=0.01)
    assert bounds[1] < exact - 0.1
    for k, terms in found.items():
        assert float(terms.losses["model"]) == -bounds[k]  # the recorded bound is what was minimised, its sign aside
        assert float(terms.stats["elbo"]) < exact
    # the ELBO is that of one sample, whatever K is, and never the bound
    assert float(found[2048].stats["elbo"]) == pytest.approx(bounds[1], abs=0.25)
    assert IWAE.densities == {"elbo": 1, "distortion": -1, "iwae": 1}


@pytest.mark.parametrize("make", [IWAE, lambda k: IWAE(k, "dreg"), CIWAE, lambda k: PIWAE(k, 1)])
def test_one_sample_is_the_elbo_on_the_same_noise(make):
    objective = make(1)
    world = perturbed()
    x = world.data(40)
    terms = objective(world.model, Batch(x, Noise.of(3, 40)), STEP)
    trace = world.model.trace(x, k=1, noise=Noise.of(3, 40))
    sampled = -(distortion(trace, x) + rate(trace, analytic=False)).mean()
    torch.testing.assert_close(terms.stats["elbo"], sampled)
    torch.testing.assert_close(terms.stats["iwae"], sampled)
    torch.testing.assert_close(terms.stats["rate"] + terms.stats["distortion"], -sampled)
    for loss in terms.losses.values():
        torch.testing.assert_close(loss, -sampled)


def test_the_recorded_parts_are_those_of_the_elbo_by_monte_carlo():
    world = perturbed()
    x = world.data(40)
    other = ELBO(samples=6, analytic=False)(world.model, Batch(x, Noise.of(3, 40)), STEP).stats
    for objective in (IWAE(6), IWAE(6, "dreg"), IWAE(6, groups=3), CIWAE(6, 0.5), PIWAE(6, 2), PIWAE(6, 3, "dreg")):
        stats = objective(world.model, Batch(x, Noise.of(3, 40)), STEP).stats
        torch.testing.assert_close({n: stats[n] for n in other}, other)
        assert float(stats["iwae"]) > float(stats["elbo"])


def test_groups_and_mixtures_of_bounds():
    world = perturbed()
    x = world.data(40)
    weights = log_weights(world.model.trace(x, k=6, noise=Noise.of(3, 40)), x)
    by_hand = (log_mean_weight(weights[:3]) + log_mean_weight(weights[3:])) / 2
    torch.testing.assert_close(grouped_bound(weights, 2), by_hand)
    torch.testing.assert_close(grouped_bound(weights), log_mean_weight(weights))

    def loss(objective):
        return objective(world.model, Batch(x, Noise.of(3, 40)), STEP).losses["model"]

    torch.testing.assert_close(loss(IWAE(6, groups=2)), -by_hand.mean())
    torch.testing.assert_close(loss(IWAE(6, "dreg", groups=2)), -by_hand.mean())
    torch.testing.assert_close(loss(IWAE(6, groups=6)), -weights.mean())
    mixed = 0.3 * weights.mean() + 0.7 * log_mean_weight(weights).mean()
    torch.testing.assert_close(loss(CIWAE(6, 0.3)), -mixed)
    torch.testing.assert_close(loss(CIWAE(6, 0.0)), loss(IWAE(6)))
    torch.testing.assert_close(loss(CIWAE(6, 1.0)), loss(IWAE(6, groups=6)))


@pytest.mark.parametrize("groups", [1, 2])
def test_the_doubly_reparametrised_gradient_is_the_one_of_the_paper(groups):
    """sum_k v_k^2 d log w_k / dz dz / dphi with q held, by a second copy of the encoder that gets no gradient."""
    from vaekit.objectives import frozen

    world = perturbed()
    m, x, k = world.model, world.data(7), 6
    loss = IWAE(k, "dreg", groups=groups)(m, Batch(x, Noise.of(3, 7)), STEP).losses["model"]
    trace = m.trace(x, k=k, noise=Noise.of(3, 7))
    (h,) = trace.latents
    held = trace.px.log_prob(x) + h.log_p - frozen(m.posterior)(x).log_prob(h.z)
    v = torch.softmax(held.detach().unflatten(0, (groups, -1)), 1).flatten(0, 1)
    encoder, decoder = list(m.posterior.parameters()), list(m.likelihood.parameters())
    by_hand = gradients(-(v**2 * held / groups).sum(0).mean(), encoder)
    torch.testing.assert_close(gradients(loss, encoder), by_hand)
    plain = IWAE(k, groups=groups)(m, Batch(x, Noise.of(3, 7)), STEP).losses["model"]
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(gradients(loss, decoder), gradients(plain, decoder))
    assert not torch.allclose(flat(gradients(loss, encoder)), flat(gradients(plain, encoder)))


@pytest.fixture(scope="module")
def encoder_gradients():
    """The encoder's gradients in 200 draws of the noise, (200, parameters), by objective: the same noise for all."""
    world = perturbed()
    x = world.data(20)
    encoder = list(world.model.posterior.parameters())
    objectives = {
        "plain": IWAE(16), "dreg": IWAE(16, "dreg"),
        "plain, groups": PIWAE(16, 4), "dreg, groups": PIWAE(16, 4, "dreg"),
        "plain, elbo": ELBO(2.0, 4, analytic=False), "dreg, elbo": ELBO(2.0, 4, gradient="stl"),
    }  # fmt: skip
    found = {n: [] for n in objectives}
    for seed in range(200):
        for n, objective in objectives.items():
            losses = objective(world.model, Batch(x, Noise.of(seed, 20)), STEP).losses
            found[n].append(flat(gradients(losses.get("encoder", losses.get("model")), encoder)))
    return {n: torch.stack(g).numpy() for n, g in found.items()}


@pytest.mark.parametrize("groups", ["", ", groups", ", elbo"])
def test_both_gradients_agree_in_expectation_and_the_doubly_reparametrised_varies_less(encoder_gradients, groups):
    plain, dreg = encoder_gradients["plain" + groups], encoder_gradients["dreg" + groups]
    difference = dreg - plain
    error = difference.std(0, ddof=1) / math.sqrt(len(difference))
    assert (np.abs(difference.mean(0)) < 4.5 * error).all()
    # a gradient of zero, or of half this size, would have been found out
    assert (np.abs(dreg.mean(0)) > 2 * 4.5 * error).any()
    assert dreg.var(0).sum() < 0.5 * plain.var(0).sum()


def test_sticking_the_landing_by_hand():
    """The derivative through z alone: q's parameters are held by a second copy of the encoder."""
    from vaekit.objectives import frozen

    world = perturbed()
    m, x = world.model, world.data(7)
    losses, stats = ELBO(1.5, 3, gradient="stl")(m, Batch(x, Noise.of(3, 7)), STEP)
    trace = m.trace(x, k=3, noise=Noise.of(3, 7))
    (h,) = trace.latents
    by_hand = -(trace.px.log_prob(x) + 1.5 * (h.log_p - frozen(m.posterior)(x).log_prob(h.z))).mean()
    parameters = list(m.parameters())
    torch.testing.assert_close(losses["model"], by_hand)
    torch.testing.assert_close(gradients(losses["model"], parameters), gradients(by_hand, parameters))
    plain, told = ELBO(1.5, 3)(m, Batch(x, Noise.of(3, 7)), STEP)
    decoder = list(m.likelihood.parameters())
    torch.testing.assert_close(gradients(losses["model"], decoder), gradients(plain["model"], decoder))
    torch.testing.assert_close(stats, told)  # with the closed form of the KL, as elsewhere


def test_for_one_sample_per_weight_the_doubly_reparametrised_gradient_sticks_the_landing():
    world = perturbed()
    x, parameters = world.data(7), list(world.model.parameters())
    stl, dreg = (
        objective(world.model, Batch(x, Noise.of(3, 7)), STEP).losses["model"]
        for objective in (ELBO(samples=4, gradient="stl"), IWAE(4, "dreg", groups=4))
    )
    torch.testing.assert_close(stl, dreg)
    torch.testing.assert_close(gradients(stl, parameters), gradients(dreg, parameters))


def test_where_q_is_the_posterior_every_draw_of_the_gradient_is_zero():
    world = LinearGaussian()
    x, encoder = world.data(9), list(world.model.posterior.parameters())

    def largest(objective):
        loss = objective(world.model, Batch(x, Noise.of(3, 9)), STEP).losses["model"]
        return float(flat(gradients(loss, encoder)).abs().max())

    for none in (ELBO(gradient="stl"), IWAE(5, "dreg")):
        assert largest(none) < 1e-12
    for some in (ELBO(), ELBO(analytic=False), IWAE(5), ELBO(2.0, gradient="stl")):
        assert largest(some) > 0.01


def test_each_gradient_belongs_to_its_bound():
    for wrong, instead in (
        (lambda: ELBO(gradient="dreg"), "gradient='stl'"),
        (lambda: ELBO(gradient="stl", free_bits=0.1), "gradient='plain'"),
        (lambda: IWAE(4, "stl"), "gradient='dreg'"),
        (lambda: PIWAE(4, 2, "stl"), "gradient='dreg'"),
    ):
        with pytest.raises(ChoiceError, match=instead):
            wrong()


def test_partial_importance_weighting_gives_each_network_its_own_bound():
    world = perturbed()
    m, x = world.model, world.data(30)
    encoder, decoder = list(m.posterior.parameters()), list(m.likelihood.parameters())
    batch = lambda: Batch(x, Noise.of(3, 30))  # noqa: E731
    both = PIWAE(6, 2)(m, batch(), STEP).losses
    whole, grouped = (IWAE(6, groups=n)(m, batch(), STEP).losses["model"] for n in (1, 2))
    torch.testing.assert_close(both["decoder"], whole)
    torch.testing.assert_close(both["encoder"], grouped)
    torch.testing.assert_close(gradients(both["decoder"], decoder), gradients(whole, decoder))
    torch.testing.assert_close(gradients(both["encoder"], encoder), gradients(grouped, encoder))
    doubly = PIWAE(6, 2, "dreg")(m, batch(), STEP).losses
    other = IWAE(6, "dreg", groups=2)(m, batch(), STEP).losses["model"]
    torch.testing.assert_close(gradients(doubly["encoder"], encoder), gradients(other, encoder))
    torch.testing.assert_close(gradients(doubly["decoder"], decoder), gradients(whole, decoder))


def test_a_flow_for_a_posterior_is_weighted_by_the_density_of_its_draws():
    flow = with_head(IAF((LATENT,), 2, hidden=(8,), context=4))
    x = LinearGaussian().data(9)
    for objective in (IWAE(4), PIWAE(4, 2)):
        objective.check(flow)
        terms = objective(flow, Batch(x, Noise.of(0, 9)), STEP)
        weights = log_weights(flow.trace(x, k=4, noise=Noise.of(0, 9)), x)
        torch.testing.assert_close(terms.stats["iwae"], log_mean_weight(weights).mean())
        encoder = list(flow.posterior.parameters())
        groups = 2 if isinstance(objective, PIWAE) else 1
        loss = terms.losses["encoder" if groups == 2 else "model"]
        by_hand = gradients(-grouped_bound(weights, groups).mean(), encoder)
        torch.testing.assert_close(gradients(loss, encoder), by_hand)


# --- wake-sleep -------------------------------------------------------------------------------------------------


def phase_gradients(objective, world, repeats=80, rows=250):
    """Gradients of each group's loss on fresh data and noise: (repeats, parameters) by parameter group."""
    m = world.model
    parameter_groups = objective.parameter_groups(m)
    found = {p: [] for p in parameter_groups}
    for r in range(repeats):
        losses = objective(m, Batch(world.data(rows, seed=100 + r), Noise.of(r, rows)), STEP).losses
        for p, parameters in parameter_groups.items():
            found[p].append(flat(gradients(losses[p], parameters)))
    return {p: torch.stack(g).numpy() for p, g in found.items()}


@pytest.mark.parametrize("objective", [WakeSleep(), ReweightedWakeSleep(3)], ids=["plain", "reweighted"])
def test_wake_sleep_rests_where_model_and_posterior_are_exact(objective):
    """With x from the model and q its posterior both phases have no gradient on average; with q wrong, both do."""

    def scores(world):
        return {
            p: np.abs(g.mean(0)) / (g.std(0, ddof=1) / math.sqrt(len(g)))
            for p, g in phase_gradients(objective, world).items()
        }

    assert all((s < 4.5).all() for s in scores(LinearGaussian()).values())
    assert all((s > 10).any() for s in scores(perturbed()).values())


def test_wake_sleep_by_hand():
    """Wake uses draws of q(z | x) for data; sleep uses z from the prior and x from the likelihood."""
    world = perturbed()
    m, x = world.model, world.data(12)
    losses, stats = WakeSleep()(m, Batch(x, Noise.of(4, 12)), STEP)
    noise = Noise.of(4, 12)
    z = draw(m.posterior(x), noise)
    dream_z = draw(m.prior(), noise)
    dream_x = draw(m.likelihood(dream_z), noise)
    torch.testing.assert_close(losses["decoder"], -(m.likelihood(z).log_prob(x) + m.prior().log_prob(z)).mean())
    torch.testing.assert_close(losses["encoder"], -m.posterior(dream_x).log_prob(dream_z).mean())
    elbo = ELBO()(m, Batch(x, Noise.of(4, 12)), STEP).stats
    torch.testing.assert_close(stats, elbo)
    assert not torch.allclose(dream_x, m.likelihood(dream_z).mean)  # x is drawn, not the mean


def test_reweighted_wake_sleep_by_hand():
    world = perturbed()
    m, x = world.model, world.data(12)
    encoder, decoder = list(m.posterior.parameters()), list(m.likelihood.parameters())
    phases = {
        share: ReweightedWakeSleep(6, share)(m, Batch(x, Noise.of(4, 12)), STEP).losses for share in (0.0, 0.25, 1.0)
    }
    q = m.posterior(x)
    z = draw(q, Noise.of(4, 12), 6).detach()
    joint = m.likelihood(z).log_prob(x) + m.prior().log_prob(z)
    v = torch.softmax((joint - q.log_prob(z)).detach(), 0)
    torch.testing.assert_close(phases[0.0]["encoder"], -(v * q.log_prob(z)).sum(0).mean())
    torch.testing.assert_close(
        gradients(phases[0.25]["decoder"], decoder), gradients(-(v * joint).sum(0).mean(), decoder)
    )
    bound = IWAE(6)(m, Batch(x, Noise.of(4, 12)), STEP)
    torch.testing.assert_close(phases[0.25]["decoder"], bound.losses["model"])
    torch.testing.assert_close(gradients(phases[0.25]["decoder"], decoder), gradients(bound.losses["model"], decoder))
    asleep = WakeSleep()(m, Batch(x, Noise.of(4, 12)), STEP).losses["encoder"]
    torch.testing.assert_close(phases[1.0]["encoder"], asleep)
    mixed = 0.75 * phases[0.0]["encoder"] + 0.25 * asleep
    torch.testing.assert_close(gradients(phases[0.25]["encoder"], encoder), gradients(mixed, encoder))


def test_the_reweighted_wake_phase_fits_q_to_the_posterior_of_the_data():
    """With many samples its gradient is that of the cross-entropy of q and the exact posterior, by its closed form."""
    world = perturbed()
    m, x = world.model, world.data(12)
    encoder = list(m.posterior.parameters())
    exact, q = LinearGaussian().model.posterior(x), m.posterior(x).base_dist
    p = D.Normal(exact.base_dist.loc.detach(), exact.base_dist.scale.detach())
    cross = ((p.scale**2 + (p.loc - q.loc) ** 2) / (2 * q.scale**2) + torch.log(q.scale)).sum(1).mean()
    expected = flat(gradients(cross, encoder))

    def distance(samples):
        loss = ReweightedWakeSleep(samples, 0.0)(m, Batch(x, Noise.of(4, 12)), STEP).losses["encoder"]
        return float((flat(gradients(loss, encoder)) - expected).norm() / expected.norm())

    assert distance(20_000) < 0.05
    assert distance(2) > 0.2


def test_wake_sleep_learns_the_posterior():
    world = perturbed(shift=0.5, widen=2.0)
    for p in world.model.likelihood.parameters():
        p.requires_grad_(False)
    x = world.data(300)
    parameter_groups = WakeSleep().parameter_groups(world.model)
    assert parameter_groups["decoder"] == []
    encoder = torch.optim.Adam(parameter_groups["encoder"], 0.02)
    for t in range(400):
        encoder.zero_grad()
        WakeSleep()(world.model, Batch(x, Noise.of(0, 300, t)), STEP).losses["encoder"].backward()
        encoder.step()
    elbo = float(ELBO(samples=20)(world.model, Batch(x, Noise.of(9, 300)), STEP).stats["elbo"])
    assert elbo == pytest.approx(float(world.log_p(x).mean()), abs=0.05)


# --- autoencoders -----------------------------------------------------------------------------------------------


def test_the_penalties_by_hand():
    m, x = points(), LinearGaussian().data(11)
    z = m.encode(x)
    d = -m.decode(z).log_prob(x).mean()
    parts = {
        (2.0, 0, 0): z.square().sum(1).mean(),  # l2 / 2
        (0, 0, 3.0): 3 * z.abs().sum(1).mean(),
        (0, 0, 0, 4.0, 0.1): 4 * activity_kl(z, 0.1),
        (0, 0, 0): torch.tensor(0.0).double(),
        (2.0, 0, 3.0, 4.0, 0.1): z.square().sum(1).mean() + 3 * z.abs().sum(1).mean() + 4 * activity_kl(z, 0.1),
    }
    for choices, penalty in parts.items():
        losses, stats = Autoencoder(*choices)(m, Batch(x, Noise.of(0, 11)), STEP)
        assert list(stats) == ["distortion", "penalty"]
        torch.testing.assert_close(stats["distortion"], d)
        torch.testing.assert_close(stats["penalty"], penalty)
        torch.testing.assert_close(losses["model"], d + penalty)
    assert Autoencoder.densities == {"distortion": -1}


def jacobians(m, x):
    """d mean / dz at the code of each datum, by torch: (B, dims, latent), differentiable."""
    slopes = torch.autograd.functional.jacobian(lambda z: m.decode(z).mean, m.encode(x), create_graph=True)
    return torch.stack([slopes[i, :, i] for i in range(len(x))])


def test_the_gradient_penalty_is_the_squared_norm_of_the_decoders_jacobian():
    m, x = points(), LinearGaussian().data(4)
    J = jacobians(m, x)
    exact = J.square().sum((1, 2)).mean()
    # with the signs that the noise gives, the projection and its gradient are exact
    signs = torch.where(Noise.of(5, 4).bits((DIMS,)) < 0, -1.0, 1.0).double()
    projected = torch.einsum("bdl,bd->bl", J, signs).square().sum(1).mean()
    losses, stats = Autoencoder(gradient_penalty=0.7)(m, Batch(x, Noise.of(5, 4)), STEP)
    torch.testing.assert_close(stats["penalty"], 0.7 * projected)
    every = [*m.posterior.parameters(), *m.likelihood.parameters()]
    found = gradients(losses["model"] - stats["distortion"], every)
    by_hand = gradients(0.7 * projected, every)
    for a, b in zip(found, by_hand, strict=True):
        torch.testing.assert_close(
            torch.zeros(()).double() if a is None else a, torch.zeros_like(a) if b is None else b
        )
    # and its mean over the signs is the norm
    objective, seeds = Autoencoder(gradient_penalty=1.0), 1500
    draws = [float(objective(m, Batch(x, Noise.of(s, 4)), STEP).stats["penalty"].detach()) for s in range(seeds)]
    error = np.std(draws) / math.sqrt(seeds)
    assert np.mean(draws) == pytest.approx(float(exact.detach()), abs=4.5 * error)
    assert error < 0.05 * float(exact.detach())
    sum_of_outputs = float(J.sum(1).square().sum(1).mean().detach())  # what some take for it
    assert abs(sum_of_outputs - float(exact.detach())) > 4.5 * error  # so the line above tells them apart


def test_a_gradient_penalty_flattens_the_decoder():
    x = LinearGaussian().data(100)
    slopes = {}
    for weight in (0.0, 5.0):
        m = points()
        train(m, Autoencoder(l2=0.1, gradient_penalty=weight), 300, x, lr=1e-2)
        slopes[weight] = float(jacobians(m, x[:20]).detach().square().sum((1, 2)).mean())
    assert slopes[5.0] < 0.5 * slopes[0.0]


def test_a_gradient_penalty_with_the_encoder_held():
    m, x = points(), LinearGaussian().data(4)
    for p in m.posterior.parameters():
        p.requires_grad_(False)
    losses, _ = Autoencoder(gradient_penalty=1.0)(m, Batch(x, Noise.of(5, 4)), STEP)
    torch.testing.assert_close(
        losses["model"], Autoencoder(gradient_penalty=1.0)(points(), Batch(x, Noise.of(5, 4)), STEP).losses["model"]
    )
    assert all(g is not None for g in gradients(losses["model"], m.likelihood.net.parameters()))


def test_the_activity_of_sparse_units():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(50, 3, generator=g).double()
    mean = torch.sigmoid(z).mean(0)
    by_torch = D.kl_divergence(D.Bernoulli(torch.tensor(0.1).double()), D.Bernoulli(mean)).sum()
    torch.testing.assert_close(activity_kl(z, 0.1), by_torch, rtol=1e-6, atol=0)
    at_rho = torch.full((4, 2), math.log(0.1 / 0.9)).double()
    assert float(activity_kl(at_rho, 0.1)) == pytest.approx(0, abs=1e-12)
    for size in (1e3, -1e3):  # sigmoids of exactly 0 or 1
        codes = torch.full((4, 2), size, requires_grad=True)
        value = activity_kl(codes, 0.1)
        (slope,) = torch.autograd.grad(value, codes)
        assert bool(torch.isfinite(value))
        assert bool(torch.isfinite(slope).all())


# --- what does not fit is refused -------------------------------------------------------------------------------


def test_a_model_without_a_density_is_refused_but_by_the_autoencoder():
    for name, make in BOUNDS.items():
        with pytest.raises(ChoiceError, match="autoencoder has no log p"):
            make().check(points())
        make().check(perturbed().model)
        assert name
    Autoencoder().check(points())
    with pytest.raises(ChoiceError, match="without a KL"):
        Autoencoder().check(perturbed().model)


def test_where_log_q_at_another_z_is_dear_it_is_refused_before_training():
    flow = with_head(IAF((LATENT,), 2, hidden=(8,), context=4))
    x = LinearGaussian().data(4)
    for objective in (IWAE(4, "dreg"), PIWAE(4, 2, "dreg"), ELBO(gradient="stl"), WakeSleep(), ReweightedWakeSleep(2)):
        with pytest.raises(ChoiceError, match="inverted"):
            objective.check(flow)
        with pytest.raises(ChoiceError, match="inverted"):
            objective(flow, Batch(x, Noise.of(0, 4)), STEP)
        full = with_head(FullCovariance((LATENT,)))
        objective.check(full)  # its draws come with a density too, which is as cheap anywhere
        assert math.isfinite(float(sum(objective(full, Batch(x, Noise.of(0, 4)), STEP).losses.values()).detach()))
    for objective in (IWAE(4), PIWAE(4, 2), ELBO(free_bits=0.1)):
        objective.check(flow)


def test_only_a_model_of_one_layer_can_be_taken_apart():
    class Other(Model):
        def trace(self, *given):
            raise AssertionError("only its type is looked at")

        encode = decode = sample = trace

    for objective in (
        IWAE(4, "dreg"),
        PIWAE(4, 2),
        ELBO(gradient="stl"),
        WakeSleep(),
        ReweightedWakeSleep(),
        Autoencoder(),
    ):
        with pytest.raises(ChoiceError, match="one latent layer"):
            objective.check(Other())
    IWAE(4).check(Other())
    CIWAE(4).check(Other())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ELBO(samples=0), lambda: ELBO(free_bits=-1.0), lambda: ELBO(free_bits=math.nan),
        lambda: Capacity(-1.0), lambda: Capacity(1.0, -1.0), lambda: Capacity(1.0, samples=0),
        lambda: Constrained("elbo", 1.0), lambda: Constrained("rate", -1.0),
        lambda: Constrained("rate", 1.0, multiplier_lr=0),
        lambda: Constrained("rate", math.inf), lambda: Constrained("rate", 1.0, multiplier=0),
        lambda: IWAE(0), lambda: IWAE(5, groups=2), lambda: IWAE(5, "best"), lambda: PIWAE(6, 4), lambda: PIWAE(6, 0),
        lambda: CIWAE(5, 1.5), lambda: CIWAE(0), lambda: ReweightedWakeSleep(0), lambda: ReweightedWakeSleep(5, 1.1),
        lambda: Autoencoder(l2=-1), lambda: Autoencoder(activity=0.0), lambda: Autoencoder(sparsity=-1.0),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must be|unknown"):
        wrong()


def test_the_old_name_of_parameter_groups_is_refused():
    with pytest.raises(TypeError, match="parameter_groups"):

        class Old(ELBO):
            def players(self, model):
                return {}
