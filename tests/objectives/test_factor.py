"""FactorVAE: the gradients of each group, the shuffle, and a critic that estimates a known total correlation."""

import math

import pytest
import torch
from core_helpers import captured, needs_compiler, weekly
from table_helpers import (
    STEP,
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

from vaekit.errors import ChoiceError
from vaekit.heads.posteriors import IAF, FullCovariance, Sphere
from vaekit.models.priors import UniformSphere
from vaekit.models.vae import VAE
from vaekit.noise import Noise
from vaekit.objectives import ELBO, FactorVAE
from vaekit.objectives.critic import Critic, accuracy, classification_loss
from vaekit.objectives.factor import permute_dimensions
from vaekit.objectives.schedules import Linear
from vaekit.recipes import Composition
from vaekit.training.optimisers import Adam, optimiser
from vaekit.training.step import Engine, Settings

N, LATENT = 8, 3


def small(gamma=10.0, hidden=(16, 16), seed=1) -> FactorVAE:
    torch.manual_seed(seed)
    return FactorVAE(LATENT, gamma, hidden).double()


def test_the_critic_s_loss_never_reaches_the_encoder_and_the_model_s_never_the_critic():
    model, objective = random_table(N, LATENT), small()
    losses = objective(model, batch(N), STEP).losses
    assert set(losses) == {"model", "critic"} == set(objective.parameter_groups(model))
    assert gradients(losses["critic"], model) == 0
    assert gradients(losses["critic"], objective.critic) > 0
    assert gradients(losses["model"], objective.critic) == 0
    assert gradients(losses["model"], model.posterior) > 0
    assert gradients(losses["model"], model.likelihood) > 0


def test_the_total_correlation_reaches_the_encoder_through_the_frozen_critic():
    """Its gradient is that of the critic's mean logit at the codes, taken by hand, and not zero."""
    model, objective = random_table(N, LATENT), small()
    stats = objective(model, batch(N), STEP).stats
    found = torch.autograd.grad(stats["correlation"], model.posterior.net.out.weight)[0]
    b = batch(N)
    z = model.trace(b.x, noise=b.noise).latents[0].z
    by_hand = torch.autograd.grad(objective.critic(z).mean(), model.posterior.net.out.weight)[0]
    torch.testing.assert_close(found, by_hand)
    assert float(found.abs().max()) > 1e-6
    with_tc, without = (small(g)(model, batch(N), STEP).losses["model"] for g in (5.0, 0.0))
    difference = torch.autograd.grad(with_tc - without, model.posterior.net.out.weight)[0]
    torch.testing.assert_close(difference, 5 * by_hand)


def test_an_engine_s_step_moves_each_player_by_its_own_loss():
    """The critic's weights after one step are the same whatever gamma is, and the decoder's whatever the critic is."""
    moved = {}
    for gamma, seed in ((0.0, 1), (50.0, 1), (0.0, 2)):
        objective = small(gamma, seed=seed)
        model = random_table(N, LATENT)
        settings = Settings(optimiser=lambda: optimiser("sgd"), lr=0.1)
        engine = Engine(Composition(model, objective, Same()), settings)
        assert engine.stats == []
        engine.step(batch(N).x, 0, 1.0)
        moved[gamma, seed] = {n: p.clone() for n, p in engine.parameters.items()}
    critics = [n for n in moved[0.0, 1] if "critic" in n]
    models = [n for n in moved[0.0, 1] if n.startswith("model.")]
    encoder = "model.posterior.net.out.weight"
    for n in critics:
        assert torch.equal(moved[0.0, 1][n], moved[50.0, 1][n])
    for n in models:
        assert torch.equal(moved[0.0, 1][n], moved[0.0, 2][n])  # gamma = 0: the critic has no say
    assert not torch.equal(moved[0.0, 1][encoder], moved[50.0, 1][encoder])


class Same(torch.nn.Module):
    """Raw rows as they are, in float64."""

    stochastic = False

    def forward(self, raw, noise=None):
        return raw


def test_the_loss_and_what_is_recorded():
    model, objective = random_table(N, LATENT), small(Linear(4.0, 10))
    losses, stats = objective(model, batch(N), torch.tensor(5))
    assert set(stats) == {"elbo", "rate", "distortion", "correlation", "critic_accuracy"}
    torch.testing.assert_close(losses["model"], -stats["elbo"] + 2 * stats["correlation"])
    for name, value in ELBO()(model, batch(N), STEP).stats.items():
        torch.testing.assert_close(stats[name], value)
    b = batch(N)
    z = model.trace(b.x, noise=b.noise).latents[0].z
    first, second = objective.critic(z), objective.critic(permute_dimensions(z, b.noise))
    wanted = -0.5 * (torch.log(torch.sigmoid(first)).mean() + torch.log(1 - torch.sigmoid(second)).mean())
    torch.testing.assert_close(losses["critic"], wanted)
    assert float(stats["critic_accuracy"]) == pytest.approx(
        0.5 * float((first > 0).double().mean() + (second < 0).double().mean())
    )


def test_the_paper_s_critic_and_its_training():
    objective = FactorVAE(10)
    widths = [tuple(m.weight.shape) for m in objective.critic.modules() if isinstance(m, torch.nn.Linear)]
    assert widths == [(1000, 10), *[(1000, 1000)] * 5, (1, 1000)]
    assert {m.negative_slope for m in objective.critic.modules() if isinstance(m, torch.nn.LeakyReLU)} == {0.2}
    settings = Settings(optimiser=lambda: optimiser("sgd"), lr=0.1)
    engine = Engine(Composition(random_table(N, 10).float(), FactorVAE(10), Same()), settings)
    rule = engine.rules["critic"]
    assert type(rule) is Adam
    assert (rule.beta1, rule.beta2, engine.tuning["critic"].lr) == (0.5, 0.9, 1e-4)


# --- the shuffle ------------------------------------------------------------------------------------------------


def test_every_dimension_is_shuffled_by_itself_and_keeps_its_numbers():
    z = torch.arange(4000).reshape(1000, 4).double()
    shuffled = permute_dimensions(z, Noise.of(0, 1000))
    for d in range(4):
        assert torch.equal(shuffled[:, d].sort().values, z[:, d])
    rows = shuffled // 4  # where each number came from
    assert float(torch.corrcoef(rows.T).fill_diagonal_(0).abs().max()) < 4 / math.sqrt(1000)
    assert float((rows == torch.arange(1000)[:, None]).double().mean()) < 0.01


def test_all_orders_are_equally_likely():
    """Three rows have six orders: each comes up a sixth of the time, in either dimension, for pairs 1/36."""
    n = 20_000
    noise = Noise.of(3, 3)
    z = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    code = torch.stack([permute_dimensions(z, noise) for _ in range(n)])  # each call is the next draw
    number = (code * torch.tensor([9.0, 3.0, 1.0])[:, None]).sum(1)  # an order's name
    pair = (100 * number[:, 0] + number[:, 1]).unique(return_counts=True)[1]
    assert len(pair) == 36
    assert float((pair / n - 1 / 36).abs().max()) < 4.5 * math.sqrt(1 / 36 / n)


def test_the_shuffle_follows_from_the_noise_not_from_torch_s_generator():
    z = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    one = permute_dimensions(z, Noise.of(5, 50, 1))
    torch.manual_seed(2)
    assert torch.equal(one, permute_dimensions(z, Noise.of(5, 50, 1)))
    assert not torch.equal(one, permute_dimensions(z, Noise.of(5, 50, 2)))


def test_latents_of_more_than_one_axis_are_shuffled_number_by_number():
    z = torch.arange(600).reshape(100, 2, 3).double()
    shuffled = permute_dimensions(z, Noise.of(0, 100))
    torch.testing.assert_close(shuffled.sort(0).values, z)
    assert torch.equal(shuffled.flatten(1), permute_dimensions(z.flatten(1), Noise.of(0, 100)))


def test_a_batch_of_one_is_its_own_shuffle_and_finite():
    z = torch.randn(1, 4)
    assert torch.equal(permute_dimensions(z, Noise.of(0, 1)), z)
    terms = small()(random_table(N, LATENT), batch(N, [3]), STEP)
    assert all(bool(torch.isfinite(v)) for v in (*terms.losses.values(), *terms.stats.values()))


# --- what the critic finds --------------------------------------------------------------------------------------


def trained(model: VAE, steps: int = 400, rows: int = 400) -> float:
    """The total correlation as a critic trained on this fixed model has it, on fresh codes."""
    latent = model.prior.event[0]
    torch.manual_seed(0)
    objective = FactorVAE(latent, 1.0, (64, 64)).double()
    rule = torch.optim.Adam(objective.critic.parameters(), 5e-3)
    fading = torch.optim.lr_scheduler.LinearLR(rule, 1.0, 0.0, steps)
    n = model.posterior.net.out.in_features
    for t in range(steps):
        rule.zero_grad()
        objective(model, batch(n, torch.arange(rows) % n, seed=t), STEP).losses["critic"].backward()
        rule.step()
        fading.step()
    with torch.no_grad():
        drawn = objective(model, batch(n, torch.arange(20_000) % n, seed=steps), STEP)
    return float(drawn.stats["correlation"])


def test_a_trained_critic_finds_the_total_correlation():
    """q(z) of two clusters at (m, m) and (-m, -m), with total correlation by quadrature; and of one cluster, with none.

    20,000 codes leave an error of 0.01 in the mean logit; the rest of the tolerance is for what is not learned yet.
    """
    model = table(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]).double(), torch.full((1, 1), 0.5))
    axis = torch.linspace(-5, 5, 801, dtype=torch.float64)
    up, down = (torch.distributions.Normal(m, 0.5).log_prob(axis).exp() for m in (1.0, -1.0))
    q = 0.5 * (up[:, None] * up[None] + down[:, None] * down[None])
    marginal = 0.5 * (up + down)
    exact = float((q * torch.log(q / (marginal[:, None] * marginal[None]))).sum()) * float(axis[1] - axis[0]) ** 2
    assert exact > 0.4
    assert trained(model) == pytest.approx(exact, abs=0.05)
    alone = table(torch.tensor([[0.3, -0.5]]).double(), torch.full((1, 1), 0.5))
    assert trained(alone, steps=200) == pytest.approx(0, abs=0.05)


def test_the_classification_loss_is_log_two_by_guessing():
    zeros = torch.zeros(5)
    assert float(classification_loss(zeros, zeros)) == pytest.approx(math.log(2))
    assert float(classification_loss(zeros + 50, zeros - 50)) == pytest.approx(0, abs=1e-12)
    assert float(classification_loss(zeros - 1e4, zeros + 1e4)) == pytest.approx(1e4)  # and never infinite
    assert float(accuracy(zeros + 1, zeros - 1)) == 1
    assert float(accuracy(zeros + 1, zeros + 1)) == 0.5


# --- which models -----------------------------------------------------------------------------------------------


def full(n, latent):
    return with_head(FullCovariance((latent,)), n)


def flow(n, latent):
    return with_head(IAF((latent,), hidden=(8,), context=4), n)


@pytest.mark.parametrize("build", [correlated, student, full, flow])
def test_any_posterior_with_a_density_will_do(build):
    torch.manual_seed(0)
    model, objective = build(N, LATENT), small()
    objective.check(model)
    losses, stats = objective(model, batch(N), STEP)
    assert all(bool(torch.isfinite(v)) for v in (*losses.values(), *stats.values()))
    assert gradients(losses["model"], model.posterior) > 0
    assert gradients(losses["critic"], model) == 0


def test_what_cannot_work_is_refused_with_what_to_write():
    with pytest.raises(ChoiceError, match=r"one latent layer.*TopDown"):
        small().check(ladder(6, 2))
    with pytest.raises(ChoiceError, match=r"deterministic.*WAE or Adversarial"):
        small().check(deterministic(N, LATENT))
    round_codes = with_head(Sphere((LATENT,)), N, UniformSphere((LATENT,)))
    with pytest.raises(ChoiceError, match=r"impossible on a sphere.*another posterior"):
        small().check(round_codes)
    with pytest.raises(ChoiceError, match="on a sphere"):
        small()(round_codes, batch(N), STEP)
    with pytest.raises(ChoiceError, match=r"is for codes of 3 numbers, and the model's have 5: write latent=5"):
        small()(random_table(N, 5), batch(N), STEP)
    with pytest.raises(ValueError, match="gamma` must be 0 or more"):
        FactorVAE(3, -1.0)
    with pytest.raises(ValueError, match="sizes must be 1 or more"):
        Critic(3, (10, 0))


# --- compiled ---------------------------------------------------------------------------------------------------


def test_the_step_is_one_graph(monkeypatch):
    captured(monkeypatch)
    assert_compiled_equals_eager(random_table(N, LATENT).float(), small(hidden=(4,)).float(), torch.eye(N))


@weekly
@needs_compiler
def test_compiled_steps_equal_eager_ones():
    assert_compiled_equals_eager(random_table(N, LATENT).float(), small(hidden=()).float(), torch.eye(N), "sgd")
