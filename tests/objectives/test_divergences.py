"""Moments, maximum mean discrepancies and critics between q(z) and p(z), and the objectives made of them."""

import math

import numpy as np
import pytest
import torch
from core_helpers import captured
from table_helpers import (
    STEP,
    LearnedMixture,
    LearnedNormal,
    assert_compiled_equals_eager,
    batch,
    correlated,
    deterministic,
    gradients,
    ladder,
    random_table,
    student,
    table,
    with_head,
)
from torch import distributions as D

from vaekit.densities import draw
from vaekit.errors import ChoiceError
from vaekit.heads.posteriors import IAF, FullCovariance, Sphere
from vaekit.models.priors import FlowPrior, Mixture, UniformSphere
from vaekit.objectives import DIP, ELBO, WAE, Adversarial, FactorVAE, InfoVAE, TotalCorrelation
from vaekit.objectives.aggregate import (
    KERNELS,
    SCALES,
    covariance,
    gaussian,
    inverse_multiquadratic,
    mmd,
    posterior_covariance,
    posterior_mean,
)
from vaekit.objectives.critic import Critic
from vaekit.objectives.schedules import Linear
from vaekit.objectives.terms import distortion

N, LATENT = 8, 3


def samples(n, dims, seed, shift=0.0, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(n, dims, generator=g, dtype=torch.float64)


def full(n, latent, seed=0):
    return with_head(FullCovariance((latent,)), n, seed=seed)


def small_adversarial(weight=10.0, seed=1) -> Adversarial:
    torch.manual_seed(seed)
    return Adversarial(LATENT, weight, (16, 16)).double()


OBJECTIVES = {
    "dip-i": lambda: DIP("i"),
    "dip-ii": lambda: DIP("ii"),
    "info": lambda: InfoVAE(0.3, 50.0),
    "info-gaussian": lambda: InfoVAE(1.0, 50.0, "gaussian"),
    "wae": lambda: WAE(50.0),
    "adversarial": small_adversarial,
}
DRAWS_ONLY = ("info-gaussian", "wae", "adversarial")


# --- the maximum mean discrepancy -------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", list(KERNELS))
def test_mmd_equals_a_double_loop(kernel):
    a, b = samples(5, 3, 0), samples(7, 3, 1, 0.7)

    def k(x, y):
        square, total = float(((x - y) ** 2).sum()), 0.0
        for s in (0.1, 0.2, 0.5, 1, 2, 5, 10):
            c = 2 * 3 * s
            total += c / (c + square) if kernel == "imq" else math.exp(-square / c)
        return total / 7

    inside = [np.mean([k(x, y) for i, x in enumerate(z) for j, y in enumerate(z) if i != j]) for z in (a, b)]
    across = np.mean([k(x, y) for x in a for y in b])
    assert float(mmd(a, b, KERNELS[kernel])) == pytest.approx(inside[0] + inside[1] - 2 * across, abs=1e-14)
    assert SCALES == (0.1, 0.2, 0.5, 1, 2, 5, 10)


@pytest.mark.parametrize("kernel", list(KERNELS.values()))
@pytest.mark.parametrize("n", [2, 5])
def test_mmd_of_equal_distributions_is_zero_on_average_for_any_batch(kernel, n):
    """With the diagonal left in it would be 2 (1 - E k) / n, far above."""
    times = 4000
    a, b = samples(times * n, 2, 0).split(n), samples(times * n, 2, 1).split(n)
    found = torch.stack([mmd(x, y, kernel) for x, y in zip(a, b, strict=True)])
    error = float(found.std()) / math.sqrt(times)
    assert abs(float(found.mean())) < 4 * error
    assert error < 0.01
    assert float((found < 0).double().mean()) > 0.2  # unbiased, so often below zero


def test_mmd_is_unbiased_where_the_distributions_differ():
    """E exp(-|d|^2 / C) for a difference d ~ N(m, v I): (1 + 2 v / C)^{-D/2} exp(-|m|^2 / (C + 2 v))."""
    dims, shift, scale, n, times = 3, 0.8, 0.6, 4, 4000

    def expected(variance, square):
        each = [
            (1 + 2 * variance / c) ** (-dims / 2) * math.exp(-square / (c + 2 * variance))
            for c in (2 * dims * s for s in SCALES)
        ]
        return sum(each) / len(each)

    exact = expected(2 * scale**2, 0) + expected(2.0, 0) - 2 * expected(scale**2 + 1, dims * shift**2)
    a, b = samples(times * n, dims, 0, shift, scale).split(n), samples(times * n, dims, 1).split(n)
    found = torch.stack([mmd(x, y, gaussian) for x, y in zip(a, b, strict=True)])
    assert abs(float(found.mean()) - exact) < 4 * float(found.std()) / math.sqrt(times)
    assert exact > 8 * float(found.std()) / math.sqrt(times)


@pytest.mark.parametrize("kernel", list(KERNELS.values()))
def test_mmd_of_one_row_is_finite_and_pulls_towards_the_other_sample(kernel):
    a = torch.full((1, 2), 3.0, dtype=torch.float64, requires_grad=True)
    value = mmd(a, samples(1, 2, 0), kernel)
    (gradient,) = torch.autograd.grad(value, a)
    assert bool(torch.isfinite(value))
    assert bool((gradient > 0).all())
    assert float(mmd(samples(1, 2, 0), samples(1, 2, 0), kernel)) == pytest.approx(0, abs=1e-12)


def test_kernels_are_one_at_no_distance_and_fall():
    square = torch.linspace(0, 50, 100, dtype=torch.float64)
    for kernel in KERNELS.values():
        values = kernel(square, 4.0)
        assert float(values[0]) == 1
        assert bool((values.diff() < 0).all())
    assert float(inverse_multiquadratic(torch.tensor(4.0), 4.0)) == 0.5


# --- moments ----------------------------------------------------------------------------------------------------


def test_the_covariance_equals_numpy_s():
    x = samples(9, 4, 0)
    torch.testing.assert_close(covariance(x), torch.from_numpy(np.cov(x.numpy().T)))
    assert torch.equal(covariance(x[:1]), torch.zeros(4, 4).double())


def test_the_aggregate_covariance_is_that_of_its_draws():
    """Cov_q(z) = Cov_x[mu] + E_x[Cov q(z|x)] (1/N in the first: the aggregate posterior is enumerated)."""
    for model in (random_table(5, LATENT, spread=2.0), correlated(5, LATENT), full(5, LATENT)):
        b = batch(5)
        with torch.no_grad():
            q = model.posterior(b.x)
            exact = covariance(q.mean) * 4 / 5 + posterior_covariance(q)
            torch.manual_seed(0)
            z = draw(q, b.noise, 3000).flatten(0, 1)
        found = covariance(z)
        variances = exact.diagonal()
        error = torch.sqrt((variances[:, None] * variances + exact**2) / len(z))
        assert bool(((found - exact).abs() < 5 * error).all())
        assert float((error / variances.mean()).max()) < 0.05


@pytest.mark.parametrize("kind", ["i", "ii"])
def test_dip_by_hand(kind):
    model, b = random_table(N, LATENT), batch(N)
    q = model.posterior(b.x)
    c = np.cov(q.mean.detach().numpy().T)
    if kind == "ii":
        c = c + np.diag(q.variance.detach().numpy().mean(0))
    apart = sum(c[i, j] ** 2 for i in range(LATENT) for j in range(LATENT) if i != j)
    aside = sum((c[i, i] - 1) ** 2 for i in range(LATENT))
    losses, stats = DIP(kind, 7.0, 3.0)(model, b, STEP)
    assert float(stats["off_diagonal"].detach()) == pytest.approx(apart)
    assert float(stats["diagonal"].detach()) == pytest.approx(aside)
    assert float((losses["model"] + stats["elbo"]).detach()) == pytest.approx(7 * apart + 3 * aside)
    losses, stats = DIP(kind, Linear(4.0, 10))(model, batch(N), torch.tensor(5))
    assert float((losses["model"] + stats["elbo"]).detach()) == pytest.approx(2 * apart + 10 * aside)


def test_dip_ii_has_no_penalty_where_the_aggregate_posterior_is_white():
    """Means at the corners of a square and sigma so that C = I; the batch of all data has Cov with 1 / (N - 1)."""
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64) * 0.6
    own = 1 - float(covariance(corners)[0, 0])
    stats = DIP("ii")(table(corners, torch.full((1, 1), math.sqrt(own))), batch(4), STEP).stats
    for name in ("off_diagonal", "diagonal"):
        assert float(stats[name].detach()) == pytest.approx(0, abs=1e-12)
    stats = DIP("i")(table(corners, torch.full((1, 1), math.sqrt(own))), batch(4), STEP).stats
    assert float(stats["diagonal"].detach()) == pytest.approx(2 * own**2)


@pytest.mark.parametrize("build", [correlated, full])
def test_dip_of_a_full_covariance_takes_what_stands_off_its_diagonal(build):
    model, b = build(N, LATENT), batch(N)
    q = model.posterior(b.x)
    c = (covariance(q.mean) + q.covariance_matrix.mean(0)).detach()
    stats = DIP("ii")(model, b, STEP).stats
    torch.testing.assert_close(stats["off_diagonal"].detach(), (c - torch.diag(c.diagonal())).square().sum())
    assert float((c - covariance(q.mean).detach()).fill_diagonal_(0).abs().max()) > 0.01


@pytest.mark.parametrize("kind", ["i", "ii"])
def test_dip_refuses_a_posterior_that_does_not_know_its_moments(kind):
    """A flow's `mean` is the image of its base's, a sphere's lies on the sphere: neither is the mean."""

    class Warped(torch.nn.Module):
        def __init__(self, posterior):
            super().__init__()
            self.posterior = posterior

        def forward(self, x):
            return D.TransformedDistribution(self.posterior(x), [D.TanhTransform()], validate_args=False)

    warped = random_table(N, LATENT)
    warped.posterior = Warped(warped.posterior)
    round_codes = with_head(Sphere((LATENT,)), N, UniformSphere((LATENT,)))
    flow = with_head(IAF((LATENT,), hidden=(8,), context=4), N)
    for model in (warped, round_codes, flow):
        with pytest.raises(
            ChoiceError, match=rf"DIP needs the {'mean' if kind == 'i' else 'mean|covariance'}.*FactorVAE"
        ):
            DIP(kind)(model, batch(N), STEP)
        with pytest.raises(ValueError):
            posterior_mean(model.posterior(batch(N).x))
    for model in (round_codes, flow):
        with pytest.raises(ChoiceError, match="DIP needs"):
            DIP(kind).check(model)


def test_covariances_are_exact_under_autocast():
    """bf16 keeps 8 bits: a product of matrices would be off by some 1e-3."""
    x = samples(40, 5, 0, 3.0).float()
    q = with_head(FullCovariance((5,)), N).float().posterior(torch.eye(N))
    exact = covariance(x), posterior_covariance(q)
    with torch.autocast("cpu", torch.bfloat16):
        found = covariance(x), posterior_covariance(q)
    torch.testing.assert_close(found, exact, rtol=0, atol=0)


# --- InfoVAE and WAE --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", list(KERNELS))
def test_info_and_wae_by_hand(kernel):
    model, b = random_table(N, LATENT), batch(N, seed=3)
    trace = model.trace(b.x, noise=b.noise)
    prior = draw(model.prior(), b.noise).double()
    distance = mmd(trace.latents[0].z, prior, KERNELS[kernel])
    d = distortion(trace, b.x).mean()
    r = ELBO()(model, batch(N, seed=3), STEP).stats["rate"]
    for alpha, weight in ((0.0, 1.0), (0.3, 9.0), (-2.0, 4.0), (1.0, 5.0)):
        losses, stats = InfoVAE(alpha, weight, kernel)(model, batch(N, seed=3), STEP)
        torch.testing.assert_close(losses["model"], d + (1 - alpha) * r + (alpha + weight - 1) * distance)
        torch.testing.assert_close(stats["mmd"], distance)
        torch.testing.assert_close(stats["elbo"], -(d + r))
    losses, stats = WAE(5.0, kernel)(model, batch(N, seed=3), STEP)
    torch.testing.assert_close(losses["model"], d + 5 * distance)
    torch.testing.assert_close(stats["rate"], r)


def test_a_rising_weight_never_pushes_the_posterior_from_the_prior():
    """lambda below 1 - alpha would give the discrepancy a negative weight."""
    model = random_table(N, LATENT)
    losses, stats = InfoVAE(0.0, Linear(100.0, 100))(model, batch(N), STEP)
    torch.testing.assert_close(losses["model"], stats["distortion"] + stats["rate"])
    losses, stats = InfoVAE(0.0, Linear(100.0, 100))(model, batch(N), torch.tensor(50))
    torch.testing.assert_close(losses["model"], stats["distortion"] + stats["rate"] + 49 * stats["mmd"])


def test_the_discrepancy_brings_the_aggregate_posterior_to_the_prior():
    model = table(torch.full((N, 2), 2.0).double(), torch.full((1, 1), 0.2))
    rule = torch.optim.Adam(model.posterior.parameters(), 0.03)
    for t in range(250):
        rule.zero_grad()
        WAE(1.0)(model, batch(N, torch.arange(64) % N, seed=t), STEP).stats["mmd"].backward()
        rule.step()
    with torch.no_grad():
        z = torch.cat([draw(model.posterior(batch(N).x), batch(N, seed=s).noise) for s in range(500)])
    assert float(z.mean(0).abs().max()) < 0.25
    assert bool(((z.std(0) > 0.75) & (z.std(0) < 1.25)).all())


@pytest.mark.parametrize("build", [lambda: WAE(3.0), lambda: InfoVAE(0.5, 3.0)])
def test_the_prior_that_is_drawn_from_is_the_model_s(build):
    """Codes spread like the prior N(4, 0.25) and not like N(0, 1) have no discrepancy."""
    model = table(torch.full((N, LATENT), 4.0).double(), torch.full((1, 1), 0.5))
    near = LearnedNormal(LATENT, 4.0, 0.5).double()
    far = [float(build()(model, batch(N, torch.arange(200) % N), STEP).stats["mmd"].detach())]
    model.prior = near
    far.append(float(build()(model, batch(N, torch.arange(200) % N), STEP).stats["mmd"].detach()))
    assert far[0] > 0.5
    assert abs(far[1]) < 0.02
    loss = build()(model, batch(N), STEP).losses["model"]
    assert gradients(loss, model.prior) > 0


def test_a_prior_that_would_never_learn_is_refused():
    """A mixture of torch's draws without a gradient; one of ours with a gradient for means and scales."""
    model = random_table(N, LATENT)
    model.prior = LearnedMixture(LATENT).double()
    for objective in (WAE(), InfoVAE(1.0)):
        with pytest.raises(ChoiceError, match=r"have no gradient.*alpha below 1"):
            objective(model, batch(N), STEP)
        with torch.no_grad():
            objective(model, batch(N), STEP)
    loss = InfoVAE(0.5)(model, batch(N), STEP).losses["model"]  # its KL, sampled, trains the prior
    assert gradients(loss, model.prior) > 0
    with pytest.raises(ChoiceError, match=r"fixed prior.*InfoVAE"):
        small_adversarial().check(model)
    for prior in (Mixture((LATENT,), 4), FlowPrior((LATENT,), 2, (8,))):
        model.prior = prior.double()
        assert gradients(WAE()(model, batch(N), STEP).losses["model"], model.prior) > 0


# --- Adversarial ------------------------------------------------------------------------------------------------


def test_the_adversaries_losses_never_reach_each_other():
    for model in (random_table(N, LATENT), deterministic(N, LATENT)):
        objective = small_adversarial()
        losses = objective(model, batch(N), STEP).losses
        assert set(losses) == {"model", "critic"} == set(objective.parameter_groups(model))
        assert gradients(losses["critic"], model) == 0
        assert gradients(losses["critic"], objective.critic) > 0
        assert gradients(losses["model"], objective.critic) == 0
        assert gradients(losses["model"], model.likelihood) > 0
        stats = objective(model, batch(N), STEP).stats
        assert gradients(stats["fooling"], model.posterior) > 1e-6
        assert gradients(stats["fooling"], model.likelihood) == 0


def test_adversarial_by_hand():
    model, objective, b = random_table(N, LATENT), small_adversarial(3.0), batch(N, seed=2)
    z = model.trace(b.x, noise=b.noise).latents[0].z
    prior = draw(model.prior(), b.noise).double()
    losses, stats = objective(model, batch(N, seed=2), STEP)
    probability = [torch.sigmoid(objective.critic(v)) for v in (prior, z)]
    torch.testing.assert_close(losses["model"], stats["distortion"] - 3 * torch.log(probability[1]).mean())
    by_hand = -0.5 * (torch.log(probability[0]).mean() + torch.log(1 - probability[1]).mean())
    torch.testing.assert_close(losses["critic"], by_hand)
    assert set(stats) == {"elbo", "rate", "distortion", "fooling", "critic_accuracy"}


def test_the_critic_brings_the_codes_to_the_prior():
    """Codes of a deterministic encoder that begin at 3 end about 0: the adversaries alternate by their own losses."""
    model = deterministic(N, 2)
    with torch.no_grad():
        model.posterior.net.out.bias.fill_(3.0)
    torch.manual_seed(0)
    objective = Adversarial(2, 1.0, (32, 32)).double()
    rules = [torch.optim.Adam(m.parameters(), 0.01, betas=(0.5, 0.9)) for m in (model.posterior, objective.critic)]
    for t in range(300):
        losses, stats = objective(model, batch(N, torch.arange(64) % N, seed=t), STEP)
        moves = [
            torch.autograd.grad(loss, list(m.parameters()), retain_graph=True)
            for loss, m in ((stats["fooling"], model.posterior), (losses["critic"], objective.critic))
        ]
        for rule, found in zip(rules, moves, strict=True):
            for group, g in zip(rule.param_groups[0]["params"], found, strict=True):
                group.grad = g
            rule.step()
    with torch.no_grad():
        z = model.encode(batch(N).x)
    assert float(z.mean(0).abs().max()) < 1.0


def test_the_critic_s_size_is_held_against_the_codes():
    with pytest.raises(ChoiceError, match="write latent=5"):
        small_adversarial()(random_table(N, 5), batch(N), STEP)
    assert isinstance(small_adversarial().critic, Critic)


def test_codes_and_prior_may_both_be_on_a_sphere():
    model = with_head(Sphere((LATENT,)), N, UniformSphere((LATENT,)))
    for name in DRAWS_ONLY:
        objective = OBJECTIVES[name]()
        objective.check(model)
        losses, _ = objective(model, batch(N), STEP)
        assert gradients(losses["model"], model.posterior) > 0
    few = with_head(Sphere((LATENT,)), 2, UniformSphere((LATENT,)))
    with torch.no_grad():
        value = float(WAE()(few, batch(2, torch.arange(400) % 2), STEP).stats["mmd"])
    assert value > 0.01  # two caps do not cover it


# --- all of them ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("build", [random_table, correlated, full, student])
def test_true_numbers_are_recorded_for_any_posterior_with_a_density(name, build):
    model = build(N, LATENT)
    objective = OBJECTIVES[name]()
    objective.check(model)
    losses, stats = objective(model, batch(N), STEP)
    assert all(bool(torch.isfinite(v)) for v in (*losses.values(), *stats.values()))
    torch.testing.assert_close(stats["elbo"], -(stats["rate"] + stats["distortion"]))
    plain = ELBO()(model, batch(N), STEP).stats
    torch.testing.assert_close({n: stats[n] for n in plain}, plain)
    assert set(objective.densities) <= set(stats)
    assert gradients(losses["model"], model.posterior) > 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_model_without_a_density_records_its_distortion_only_or_is_refused(name):
    model, objective = deterministic(N, LATENT), OBJECTIVES[name]()
    if name in DRAWS_ONLY:
        objective.check(model)
        losses, stats = objective(model, batch(N), STEP)
        assert {"distortion"} == set(stats) - {"mmd", "fooling", "critic_accuracy"}
        assert gradients(losses["model"], model.posterior) > 0
    else:
        with pytest.raises(ChoiceError, match=r"deterministic.*WAE or Adversarial"):
            objective.check(model)
        with pytest.raises(ChoiceError, match="deterministic"):
            objective(model, batch(N), STEP)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_batch_of_one_is_finite_in_value_and_gradient(name):
    for model in (random_table(N, LATENT), *([deterministic(N, LATENT)] if name in DRAWS_ONLY else [])):
        losses, stats = OBJECTIVES[name]()(model, batch(N, [2]), STEP)
        found = torch.autograd.grad(losses["model"], list(model.parameters()), allow_unused=True)
        assert all(bool(torch.isfinite(v)) for v in (*losses.values(), *stats.values()))
        assert all(bool(torch.isfinite(g).all()) for g in found if g is not None)


@pytest.mark.parametrize("name", [*OBJECTIVES, "tc", "factor"])
def test_the_encoder_sees_the_corrupted_input(name):
    """Black input: the codes are those of a zero, the target is not."""

    class Black(torch.nn.Module):
        def forward(self, x, noise):
            return torch.zeros_like(x)

    more = {"tc": lambda: TotalCorrelation(N), "factor": lambda: FactorVAE(LATENT, hidden=(4,)).double()}
    model = random_table(N, LATENT)
    objective = (OBJECTIVES | more)[name]()
    clean = objective(model, batch(N), STEP).stats
    objective.corruption = Black()
    stats = objective(model, batch(N), STEP).stats
    b = batch(N)
    trace = model.trace(torch.zeros_like(b.x), noise=b.noise)
    torch.testing.assert_close(stats["distortion"], distortion(trace, b.x).mean())
    assert abs(float((stats["distortion"] - clean["distortion"]).detach())) > 1e-3


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_model_of_several_layers_is_refused(name):
    with pytest.raises(ChoiceError, match=r"one latent layer.*TopDown.*ELBO, with beta"):
        OBJECTIVES[name]().check(ladder(6, 2))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_step_is_one_graph(name, monkeypatch):
    captured(monkeypatch)
    model = deterministic(N, LATENT) if name == "wae" else random_table(N, LATENT)
    assert_compiled_equals_eager(model.float(), OBJECTIVES[name]().float(), torch.eye(N))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DIP("iii"), "unknown `dip` 'iii'"),
        (lambda: DIP("i", -1.0), "off_diagonal` must be 0 or more"),
        (lambda: DIP("i", 1.0, -1.0), "diagonal` must be 0 or more"),
        (lambda: InfoVAE(1.5), "alpha` must be at most 1"),
        (lambda: InfoVAE(0.0, 0.5), "weight` must be 1 - `alpha` = 1 or more"),
        (lambda: InfoVAE(kernel="rbf"), "unknown `kernel` 'rbf'; choose from imq, gaussian"),
        (lambda: WAE(-1.0), "weight` must be 0 or more"),
        (lambda: WAE(kernel="rbf"), "kernel"),
        (lambda: Adversarial(3, -1.0), "weight` must be 0 or more"),
        (lambda: Adversarial(0), "sizes must be 1 or more"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
