"""Recipes: every composition trains, or is refused before training with the reason and a remedy."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
import torch
from core_helpers import blobs

import vaekit as vk
from vaekit.errors import ChoiceError
from vaekit.heads import LIKELIHOODS
from vaekit.heads.posteriors import POSTERIORS
from vaekit.models.priors import PRIORS
from vaekit.noise import Noise
from vaekit.objectives import OBJECTIVES, Batch
from vaekit.objectives.terms import log_weights
from vaekit.recipes import RECIPES, DataSpec, get_recipe

FACTS = DataSpec("vector", (6,), 50, (0.0, 1.0), False, classes=("a", "b", "c"))
SMALL = {"latent": 3, "hidden": (5,), "activation": "tanh"}


def small(prior="auto", posterior="gaussian", objective="elbo", **more):
    parts = {"prior": prior, "posterior": posterior, "objective": objective}
    if prior in ("mixture", "vamp"):
        parts["components"] = 4
    if prior == "flow" or posterior in ("iaf", "nsf"):
        parts["transforms"] = 1
    if objective in ("iwae", "ciwae"):
        parts["samples"] = 3
    if objective == "piwae":
        parts |= {"samples": 4, "groups": 2}
    torch.manual_seed(0)
    return get_recipe("vae")(FACTS, **{**SMALL, **parts, **more})


def batch(composition, n=7):
    raw = torch.from_numpy(np.random.default_rng(0).uniform(size=(n, 6)).astype(np.float32))
    noise = Noise.of(0, n)
    return Batch(composition.observation(raw, noise), Noise.of(1, n))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_any_prior_and_posterior_train_with_it_or_are_refused_with_a_remedy(objective):
    worked, refusals = 0, []
    for prior, posterior in itertools.product(["auto", *PRIORS], POSTERIORS):
        try:
            composition = small(prior, posterior, objective)
        except ChoiceError as error:
            refusals.append(str(error))
            continue
        model = composition.model.train()
        terms = composition.objective(model, batch(composition), torch.tensor(2))
        parameter_groups = composition.objective.parameter_groups(model)
        for player, loss in terms.losses.items():
            grads = torch.autograd.grad(loss, parameter_groups[player], retain_graph=True, allow_unused=True)
            assert torch.isfinite(loss), (prior, posterior)
            assert any(g is not None and bool(g.any()) for g in grads), (prior, posterior, player)
            assert all(bool(torch.isfinite(g).all()) for g in grads if g is not None), (prior, posterior, player)
        worked += 1
    assert worked >= 3
    assert all(re.search("write|give|use|need", refusal) for refusal in refusals)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_every_likelihood_composes_with_data_that_fit_it(likelihood, tmp_path):
    rng = np.random.default_rng(0)
    if LIKELIHOODS[likelihood].traits["tables"]:
        lines = ["size,colour,kept,label"]
        lines += [f"{rng.normal():.3f},{('red', 'green', 'blue')[i % 3]},{i % 2},{i % 2}" for i in range(60)]
        path = tmp_path / "table.csv"
        path.write_text("\n".join(lines))
        data = vk.load(str(path))
    elif likelihood in ("poisson", "negative-binomial", "zero-inflated"):
        data = vk.from_arrays(rng.poisson(3.0, (60, 6)).astype(np.int64), kind="counts")
    else:
        data = vk.from_arrays(blobs(60, 6, 5))
    run = vk.fit(
        data, "vae", out=tmp_path / "run", likelihood=likelihood, latent=2, hidden=(6,), steps=3, batch=10,
        progress=False, compile="off",
    )  # fmt: skip
    scores = run.score("test", samples=3)
    assert scores.shape == (len(data.test),)
    assert np.isfinite(scores).all()
    assert run.sample(4).shape == (4, *data.shape)
    assert np.isfinite(run.sample(4, noise=True)).all()


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"objective": "iwae", "gamma": 3.0}, "takes no `gamma`"),
        ({"components": 4}, "`components` belongs"),
        ({"transforms": 4}, "`transforms` belongs"),
        (
            {"blocks": 2},
            "`blocks` belongs to network conv or grid, and network .dense. takes no .*choose `network=.conv.`, or omit",
        ),
        ({"posterior": "sphere", "prior": "normal"}, "sphere"),
        ({"posterior": "sphere", "latent": 1}, "`latent=2`"),
        ({"posterior": "point"}, "Gaussian posterior"),
        ({"objective": "autoencoder"}, "point"),
        ({"posterior": "point", "objective": "autoencoder", "prior": "vamp"}, "`prior='normal'`"),
        ({"objective": "tc", "prior": "hierarchical"}, "one"),
        ({"objective": "tc", "posterior": "full"}, "diagonal"),
        ({"posterior": "iaf", "objective": "iwae", "gradient": "dreg"}, "plain"),
        ({"condition": "attributes"}, "`table="),
        ({"condition": "batch"}, "no such column"),
        ({"condition": "label", "prior": "vamp"}, "`prior='mixture'`"),
        ({"network": "conv"}, "`network='dense'`"),
        ({"likelihood": "mixed"}, "tables"),
        ({"likelihood": "poisson"}, "`kind='counts'`"),
        ({"likelihood": "bernoulli", "observation": "grey"}, "`observation='binary'`"),
        ({"corruption_level": 0.2}, "choose `corruption=.gaussian.`, or omit `corruption_level`"),
        ({"corruption": "masking", "corruption_level": 1.5}, "above 0"),
        ({"beta": -1.0}, "`beta`"),
        ({"objective": "piwae", "samples": 5, "groups": 2}, "multiple of"),
        ({"objective": "ciwae", "mix": 2.0}, "`mix`"),
        ({"samples": 0}, "`samples`"),
        ({"latent": 0}, "`latent`"),
        ({"prior": "vampp"}, "did you mean 'vamp'"),
        ({"betta": 2.0}, "did you mean 'beta'"),
        ({"objective": "iwae", "samples": 5, "groups": 2}, "multiple of"),
        ({"objective": "constrained", "target": -1.0}, "`target`"),
        ({"objective": "constrained", "hold": "distortion", "target": float("nan")}, "target. is nan"),
        ({"objective": "constrained", "multiplier": 0.0}, "`multiplier`"),
        ({"objective": "constrained", "multiplier_lr": 0.0}, "`multiplier_lr`"),
        ({"objective": "info", "alpha": 1.5}, "`alpha`"),
        ({"posterior": "point", "objective": "autoencoder", "sparsity": -1.0}, "`sparsity`"),
        ({"posterior": "point", "objective": "autoencoder", "activity": 1.0}, "`activity`"),
    ],
)
def test_what_cannot_work_is_refused_before_training(choices, says):
    with pytest.raises(ChoiceError, match=says):
        get_recipe("vae")(FACTS, **{**SMALL, **choices})


def test_the_combination_that_the_documentation_shows_trains():
    composition = small("vamp", "iaf", "iwae", likelihood="gaussian")
    terms = composition.objective(composition.model.train(), batch(composition), torch.tensor(0))
    assert torch.isfinite(terms.losses["model"])
    assert set(terms.losses) == {"model"}


def test_choices_reach_their_objective():
    miwae = small(objective="iwae", samples=6, groups=3).objective
    assert (miwae.samples, miwae.groups, miwae.gradient) == (6, 3, "plain")
    piwae = small(objective="piwae", gradient="dreg").objective
    assert (piwae.samples, piwae.groups, piwae.gradient) == (4, 2, "dreg")
    held = small(objective="constrained", hold="distortion", target=-3.0, multiplier=2.0, multiplier_lr=0.05, samples=2)
    held = held.objective
    assert (held.hold, held.target, held.samples, held.tuning["multiplier"].lr) == ("distortion", -3.0, 2, 0.05)
    assert float(held.log_multiplier.detach()) == pytest.approx(np.log(2.0))
    assert small(objective="capacity", samples=4).objective.samples == 4
    assert small(posterior="point", objective="autoencoder", sparsity=2.0).objective.sparsity == 2.0
    assert small(posterior="point", objective="autoencoder", l1=2.0).objective.sparsity == 0


@pytest.mark.parametrize("hold", ["distortion", "rate"])
def test_a_constraint_is_told_in_the_units_that_are_reported(hold, tmp_path):
    """Data of a spread of 1000 are standardised: their distortion is 30 log 1000 nats above that of x."""
    raw = 1000 * np.random.default_rng(0).standard_normal((80, 30)).astype(np.float32)
    run = vk.fit(
        vk.from_arrays(raw), "constrained", out=tmp_path / "run", hold=hold, target=150.0, latent=2, hidden=(6,),
        steps=60, batch=20, progress=False, compile="off",
    )  # fmt: skip
    records = [r for r in run.log if r["kind"] == "train"]
    for record in records:
        assert record["violation"] == pytest.approx(record[hold] - 150.0, abs=1e-2)
    assert records[-1]["distortion"] == pytest.approx(30 * (np.log(1000) + 0.5 * np.log(2 * np.pi) + 0.5), abs=15)


def test_labels_are_needed_where_they_are_used():
    bare = DataSpec("vector", (6,), 50, (0.0, 1.0), False)
    for name in ("conditional", "semi-supervised"):
        with pytest.raises(ChoiceError, match="label"):
            get_recipe(name)(bare)


def test_a_column_of_a_few_classes_can_be_the_condition(tmp_path):
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 3, 120)
    x = rng.normal(size=(120, 5)) + 4 * batch[:, None]
    names = np.array(["p1", "p2", "p3"])
    np.savez(tmp_path / "a.npz", x=x, batch=batch, batch_names=names, label=rng.integers(0, 2, 120))
    data = vk.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(data.test.columns["batch"], names[batch[data.test.index]])
    run = vk.fit(data, "vae", condition="batch", latent=2, hidden=(8,), steps=20, out=tmp_path / "run")
    run = vk.open(tmp_path / "run")
    assert run.composition.condition.names == ("p1", "p2", "p3")
    c = run.observed("test").condition(np.arange(len(data.test)))
    np.testing.assert_array_equal(c.argmax(1), batch[data.test.index])
    # a new datum is told its batch by number
    again = run.encode(data.events(data.test[:4]), labels=batch[data.test.index[:4]])
    np.testing.assert_allclose(again, run.encode("test", n=4), atol=1e-6)
    with pytest.raises(ChoiceError, match=r"0\.\.2"):
        run.encode(data.events(data.test[:4]), labels=np.array([0, 1, 2, 3]))


def test_a_linear_recipe_refuses_more_latents_than_data_have_dimensions():
    with pytest.raises(ChoiceError, match="`latent` below 6"):
        get_recipe("linear")(FACTS, latent=6)


def test_named_recipes_are_settings_of_the_general_one():
    for recipe in RECIPES.values():
        assert set(recipe.settings) <= set(recipe.parameters)
        if recipe.settings:
            objective = recipe.settings.get("objective", "elbo")
            own = {n for n in recipe.settings if any(n in part.knobs for part in OBJECTIVES.values())}
            assert own <= set(OBJECTIVES[objective].knobs), recipe.name
    with_beta, plain = get_recipe("beta"), get_recipe("vae")
    torch.manual_seed(0)
    one = with_beta(FACTS, **SMALL)
    torch.manual_seed(0)
    two = plain(FACTS, **SMALL, beta=4.0)
    losses = [c.objective(c.model, batch(c), torch.tensor(0)).losses["model"] for c in (one, two)]
    assert torch.equal(*losses)


@pytest.mark.parametrize("prior", [p for p in PRIORS if p != "sphere"])
def test_importance_weights_never_use_a_closed_form(prior):
    """With KL(q || p) instead of log q - log p, all weights of one datum would contain the same term."""
    composition = small(prior)
    x = batch(composition).x
    trace = composition.model.trace(x, k=4, noise=Noise.of(3, len(x)))
    by_hand = trace.px.log_prob(x)
    for latent in trace.latents:
        by_hand = by_hand + latent.p.log_prob(latent.z) - latent.q.log_prob(latent.z)
    torch.testing.assert_close(log_weights(trace, x), by_hand, rtol=1e-4, atol=1e-4)
    inner = log_weights(trace, x) - trace.px.log_prob(x)
    assert (inner.std(0) > 1e-4).all()


def test_beta_rises_over_the_first_half_of_the_training_of_images():
    image = DataSpec("image", (1, 4, 4), 50, (0.0, 1.0), False)

    def weights(spec=image, **choices):
        objective = get_recipe("vae")(spec, **SMALL, **choices).objective
        objective.plan(800)
        return [float(objective.beta(step)) for step in (0, 100, 200, 400, 800)]

    assert weights() == weights(warmup=400) == [0, 0.25, 0.5, 1, 1]
    assert weights(beta=4.0) == [0, 1, 2, 4, 4]
    assert weights(warmup=0) == weights(FACTS) == [1] * 5
    assert weights(dataclasses.replace(image, rules=3)) == [1] * 5  # a run that began before beta rose by default
