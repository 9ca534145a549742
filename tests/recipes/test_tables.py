"""Defaults of tables: latents by the spectrum, sigma per column, the start as factor analysis, length and stopping."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import vaekit as vk
from vaekit import heads, networks
from vaekit.data.core import Column
from vaekit.errors import ChoiceError
from vaekit.heads.mixed import MixedHead
from vaekit.noise import Noise
from vaekit.objectives import Trimmed, elbo
from vaekit.objectives.terms import log_mean_weight
from vaekit.options import Options
from vaekit.recipes import DataSpec, get_recipe, spectrum
from vaekit.recipes.factors import factors, kept_factors, log_density, start_as_factors
from vaekit.recipes.spectrum import rank_of
from vaekit.training.plan import plan_new
from vaekit.utils.files import read_tensors

TABLE = DataSpec("vector", (9,), 150, (-3.0, 3.0), False, rank=6)
COLUMNS = (Column("a", "real"), Column("b", "real"), Column("c", "categorical", ("x", "y", "z")))


def linear_rows(n, dims=5, latent=2, sigma=0.3):
    """Rows of a linear Gaussian model, standardised."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, latent)) @ rng.normal(size=(latent, dims)) + sigma * rng.normal(size=(n, dims))
    return torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)


# --- the number of latents ----------------------------------------------------------------------------------------


def test_the_rank_counts_the_directions_that_hold_95_percent_of_the_variance():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4000, 3))
    copies = np.concatenate([z, 100 * z + 7, -z], 1) + 1e-3 * rng.normal(size=(4000, 9))  # whatever their units
    assert rank_of(vk.from_arrays(copies)) == 3
    assert rank_of(vk.from_arrays(rng.normal(size=(4000, 20)))) == 19  # 20 equal directions: 19 hold 95 %
    assert rank_of(vk.from_arrays(rng.normal(size=(40, 300)))) < 40  # no more than rows
    assert rank_of(vk.from_arrays(rng.integers(0, 255, (20, 6, 6), dtype=np.uint8))) == 0  # images


def test_the_rank_of_a_mixed_table_counts_a_category_as_one_column_and_ignores_holes(monkeypatch):
    rng = np.random.default_rng(1)
    code = rng.integers(0, 3, 3000).astype(np.float64)
    x = np.stack([rng.normal(size=3000), rng.normal(size=3000), code], 1)
    data = vk.from_arrays(x, schema=COLUMNS)
    assert rank_of(data) == 4  # variances 1, 1, 1/2, 1/2
    x[rng.random(3000) < 0.2, 0] = np.nan
    assert rank_of(vk.from_arrays(x, schema=COLUMNS, missing="mask")) == 4
    seen = []
    monkeypatch.setattr(
        spectrum, "encoded", lambda column, values: seen.append(len(values)) or np.ones((len(values), 1))
    )
    monkeypatch.setattr(spectrum, "NUMBERS", 1000)
    rank_of(data)
    assert seen == [1000 // (1 + 1 + 3)] * 3  # memory holds the categories


def test_the_latents_of_a_table_are_its_rank_and_runs_of_earlier_rules_keep_theirs():
    small = {"hidden": (4,)}
    assert get_recipe("vae")(TABLE, **small).model.posterior.head.event == (6,)
    for spec in (replace(TABLE, rules=2), replace(TABLE, rank=0)):
        assert get_recipe("vae")(spec, **small).model.posterior.head.event == (2,)
    old = get_recipe("vae")(replace(TABLE, rules=2))
    assert old.model.posterior.net.direct is None
    assert old.model.posterior.net.out.in_features == 300
    assert old.defaults.patience is None


def test_beta_rises_at_the_start_of_mixed_tables_in_proportion_to_their_length():
    spec = replace(TABLE, shape=(3,), columns=COLUMNS, rank=3)

    def weights(steps, spec=spec, at=(0, 100, 200, 400), **choices):
        objective = get_recipe("vae")(spec, hidden=(4,), **choices).objective
        objective.plan(steps)
        return [float(objective.beta(step)) for step in at]

    assert weights(2000) == [0, 0.5, 1, 1]
    assert weights(100_000, beta=4.0) == [0, 1, 2, 4]
    assert weights(5) == weights(2000, TABLE) == weights(2000, warmup=0) == [1] * 4
    assert weights(2000, warmup=400) == [0, 0.25, 0.5, 1]
    assert weights(2000, warmup=400, beta_from=16.0) == pytest.approx([16, 8, 4, 1])
    mixed, plain = (get_recipe("vae")(s, hidden=(4,)).defaults for s in (spec, replace(TABLE, shape=(3,))))
    assert (mixed.lr, plain.lr) == (3e-3, 1e-3)
    assert (mixed.epochs * 1.5, plain.epochs * 1.5) == (pytest.approx(4000, abs=2), pytest.approx(2000, abs=2))


def test_a_mixed_table_that_is_resumed_as_its_beta_rises_ends_in_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(elbo, "WARMUP", 1.0)
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(size=90), rng.normal(size=90), rng.integers(0, 3, 90)], 1)
    data, out = vk.from_arrays(x, schema=COLUMNS), tmp_path / "run"
    run = vk.fit(data, out=out, steps=20, hidden=(4,), batch=10, checkpoint_steps=10, compile="off", progress=False)
    assert run.config["decided"]["steps"] == 20
    ended = read_tensors(out / "model.safetensors")[0]
    (out / "checkpoint" / "000000020.safetensors").unlink()
    (out / "run.json").write_text(json.dumps(run.config | {"state": "running", "plan": {"horizon": 20}}))
    vk.fit(data, out=out, resume=True, progress=False)
    again = read_tensors(out / "model.safetensors")[0]
    assert all(torch.equal(ended[name], again[name]) for name in ended)


def test_the_spec_of_a_run_keeps_its_rank_and_rules():
    assert DataSpec.from_json(TABLE.as_json()).rank == 6
    stored = TABLE.as_json()
    del stored["rank"]
    stored["rules"] = 2
    assert (DataSpec.from_json(stored).rank, DataSpec.from_json(stored).rules) == (0, 2)


# --- sigma --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gaussian", "laplace", "student-t"])
def test_sigma_is_learned_for_each_column_and_shared_by_the_elements_of_an_image(name):
    part = heads.LIKELIHOODS[name].build
    assert (part((4,)).scale, part((1, 4, 4)).scale, part((4,), "shared").scale) == ("each", "shared", "shared")
    assert part((1, 4, 4), "each").log_scale.shape == (1, 4, 4)


def test_the_sigma_of_a_mixed_table_is_that_of_its_real_columns():
    spec = replace(TABLE, shape=(3,), columns=COLUMNS)

    def scale(sigma, spec=spec):
        made = get_recipe("vae")(spec, sigma=sigma, latent=1, hidden=(4,), observation="mixed")
        return made.model.likelihood.head.groups["real"]

    assert [scale(s).scale for s in ("auto", "each", "unit", "learned")] == ["each", "each", "unit", "learned"]
    fixed = scale("0.5")
    assert (fixed.scale, float(fixed.log_scale)) == ("fixed", pytest.approx(math.log(0.5)))
    with pytest.raises(ChoiceError, match=r"`sigma` of a mixed likelihood must be unit, .* got 'optimal'"):
        scale("optimal")
    assert scale("shared", replace(spec, rules=2)).scale == "each"  # earlier versions stored a sigma and ignored it


def test_a_mixed_head_with_learned_sigma_has_a_number_more_per_real_column():
    assert MixedHead(COLUMNS, sigma="learned").features == MixedHead(COLUMNS).features + 2


# --- the start as factor analysis ---------------------------------------------------------------------------------


def test_principal_factors_recover_a_linear_gaussian_model():
    x = linear_rows(5000)
    found = factors(x, 2)
    covariance = found.loading @ found.loading.T + found.sigma.square().diag()
    assert torch.allclose(covariance, torch.cov(x.T.double(), correction=0), atol=0.02)
    exact = found.loading.T @ torch.linalg.inv(covariance)  # E[z | x] = W' C^-1 (x - mean)
    assert torch.allclose(found.inference, exact, atol=1e-10)


def test_a_model_of_a_table_starts_with_the_density_of_factor_analysis():
    x = linear_rows(400)
    spec = replace(TABLE, shape=(5,), rank=2)
    made = get_recipe("vae")(spec, hidden=(4,))
    start_as_factors(made.model, x)
    found = factors(x, 2)
    covariance = found.loading @ found.loading.T + found.sigma.square().diag()
    normal = torch.distributions.MultivariateNormal(found.mean, covariance)
    some = x[:40]
    with torch.no_grad():
        trace = made.model.eval().trace(some, k=500, noise=Noise.of(0, len(some)))
        (latent,) = trace.latents
        estimate = log_mean_weight(trace.px.log_prob(some) + latent.log_p - latent.log_q)
    # the posterior of this model factorises up to rounding, so the weights hardly vary
    assert torch.allclose(estimate.double(), normal.log_prob(some.double()), atol=0.05)


def test_a_conditional_model_starts_with_the_effect_of_its_condition_outside_the_code():
    """log p(x | c) is that of the regression on c whose residuals have the factors."""
    k = torch.randint(0, 3, (600,), generator=torch.Generator().manual_seed(3))
    c = torch.nn.functional.one_hot(k, 3).float()
    x = linear_rows(600) + c @ torch.tensor([[9.0, 0, 0, 0, -4], [0, 5, 0, 0, 0], [0, 0, -7, 3, 0]])
    spec = replace(TABLE, shape=(5,), rank=2, classes=("a", "b", "c"))
    made = get_recipe("vae")(spec, hidden=(4,), condition="label")
    start_as_factors(made.model, x, c)
    found = factors(x, 2, c)
    means = found.mean + torch.eye(3, dtype=torch.float64) @ found.effect.T
    for j in range(3):  # with an intercept for every class, the regression is their means
        assert torch.allclose(means[j], x[k == j].double().mean(0), atol=1e-5)
    covariance = found.loading @ found.loading.T + found.sigma.square().diag()
    some, given = x[:40], c[:40]
    normal = torch.distributions.MultivariateNormal(means[k[:40]], covariance)
    with torch.no_grad():
        trace = made.model.eval().trace(some, given, k=500, noise=Noise.of(0, len(some)))
        (latent,) = trace.latents
        estimate = log_mean_weight(trace.px.log_prob(some) + latent.log_p - latent.log_q)
    assert torch.allclose(estimate.double(), normal.log_prob(some.double()), atol=0.05)


def test_factors_of_the_rows_that_an_objective_keeps_ignore_the_others():
    x = linear_rows(2000)
    clean = factors(x[200:], 2)
    covariance = clean.loading @ clean.loading.T + clean.sigma.square().diag()
    normal = torch.distributions.MultivariateNormal(clean.mean, covariance)
    torch.testing.assert_close(log_density(clean, x), normal.log_prob(x.double()))
    mixed = x.clone()
    mixed[:200] += 15 * torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    kept = kept_factors(mixed, 2, None, Trimmed(0.1).kept)
    found = kept.loading @ kept.loading.T + kept.sigma.square().diag()
    assert torch.allclose(found, covariance, atol=0.15)  # that of all rows is 23 larger
    assert float((factors(mixed, 2).sigma - clean.sigma).min()) > 1
    density = log_density(kept, mixed)
    assert float((density[:200] < density[200:].quantile(0.01)).double().mean()) > 0.95


def test_tables_are_not_mapped_by_quantiles_where_their_tails_count():
    observed = {name: get_recipe(name)(TABLE).observation for name in ("vae", "robust")}
    assert (observed["vae"].quantiles is None, observed["robust"].quantiles is None) == (False, True)


@pytest.mark.parametrize("choices", [{"sigma": "unit"}, {"posterior": "full"}, {"likelihood": "continuous-bernoulli"}])
def test_models_of_another_form_do_not_start_as_factor_analysis(choices):
    spec = replace(TABLE, shape=(5,), rank=2, scale=(0.0, 1.0))
    model = get_recipe("vae")(spec, hidden=(4,), **choices).model
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    start_as_factors(model, linear_rows(50))
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_direct_path_starts_at_zero():
    torch.manual_seed(0)
    net = networks.MLP((3,), 2, (4,), direct=True)
    x = torch.randn(5, 3)
    assert torch.equal(net(x), net.out(net.hidden(x)))


# --- length and early stopping ------------------------------------------------------------------------------------


def planned(n, **options):
    rng = np.random.default_rng(0)
    data = vk.from_arrays(rng.normal(size=(n, 4)).astype(np.float32), valid=1 / 10, test=1 / 10)
    made = get_recipe("vae")(DataSpec.of(data), hidden=(4,))
    return plan_new(Options(compile="off", **options), made, data)


def test_a_small_table_is_trained_for_at_least_2000_steps_and_stops_early():
    plan = planned(100)
    assert plan.batch == 80
    assert 2000 <= plan.horizon < 2000 + plan.epoch_steps + 1
    assert (plan.patience, plan.validate_steps) == (5, 100)


def test_a_length_or_patience_that_is_given_replaces_the_default():
    assert planned(100, steps=30).patience is None
    assert planned(100, epochs=3).patience is None
    assert planned(100, patience=0).patience is None
    assert planned(100, patience=2, steps=30).patience == 2


def test_a_large_table_is_trained_for_50_epochs_to_the_end():
    plan = planned(20_000)
    assert (plan.horizon, plan.patience) == (8000, None)
