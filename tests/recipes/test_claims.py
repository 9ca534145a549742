"""Each recipe does what its description says."""

import dataclasses
import inspect
import math

import numpy as np
import pytest
import torch
from core_helpers import blobs

import vaekit as vk
from vaekit import objectives
from vaekit.densities.mixture import GaussianMixture
from vaekit.densities.sphere import UniformOnSphere
from vaekit.errors import ChoiceError
from vaekit.heads import posteriors
from vaekit.models import priors
from vaekit.models import quantised as quantize
from vaekit.noise import Noise
from vaekit.objectives import Batch
from vaekit.recipes import RECIPES, DataSpec, get_recipe
from vaekit.runs.stored import rebuild
from vaekit.training.optimisers import optimiser
from vaekit.training.step import Engine, Settings

N, EVENT = 60, (1, 6, 5)
FACTS = DataSpec("image", EVENT, N, (0.0, 255.0), True, classes=("a", "b", "c"), class_counts=(30, 20, 10))
RAW = torch.from_numpy(blobs(N))[:, None]
SMALL = {"latent": 4, "hidden": (12,)}
STEP = torch.tensor(7)


def composed(name, **more):
    takes = get_recipe(name).parameters
    torch.manual_seed(0)
    shape = SMALL | {"kingma2013": {"hidden": 12}, "grid": {"latent": 9}}.get(name, {})
    made = get_recipe(name)(FACTS, **{k: v for k, v in shape.items() if k in takes} | more)
    made.observation.fit(lambda: [RAW.float()])
    return made


def batch(made, n=20):
    x = made.observation(RAW[:n], Noise.of(0, n))
    c = torch.eye(3)[torch.arange(n) % 3] if made.condition is not None else None
    return Batch(x, Noise.of(1, n), c, torch.arange(n) % 3 if made.targets is not None else None)


def terms(name, step=STEP, **more):
    made = composed(name, **more)
    losses, stats = made.objective(made.model.train(), batch(made), step)
    return losses, {k: v.detach() for k, v in stats.items()}


def trained(name, steps=120, **more):
    """A recipe's model after some steps on all data."""
    made = composed(name, **more)
    with torch.no_grad():
        made.start(made, made.observation(RAW, Noise.of(5, N)))
    engine = Engine(made, Settings(lambda: optimiser("adam"), lr=1e-2))
    for step in range(steps):
        values = engine.step(RAW, step, 1.0)
    return made, dict(zip(engine.stats, values.tolist(), strict=True))


LOSSES = {
    "vae": lambda s: s["distortion"] + s["rate"],
    "conv": lambda s: s["distortion"] + s["rate"],
    "grid": lambda s: s["distortion"] + 0.1 * s["rate"],
    "beta": lambda s: s["distortion"] + 4 * s["rate"],
    "annealed": lambda s: s["distortion"] + 5 * (s["rate"] - s["capacity"]).abs(),
    "constrained": lambda s: s["distortion"] + s["multiplier"] * (s["rate"] - 20),
    "tc": lambda s: s["distortion"] + s["information"] + 6 * s["correlation"] + s["dimension_kl"],
    "factor": lambda s: s["distortion"] + s["rate"] + 10 * s["correlation"],
    "dip": lambda s: -s["elbo"] + 10 * s["off_diagonal"] + 10 * s["diagonal"],
    "info": lambda s: s["distortion"] + s["rate"] + 99 * s["mmd"],
    "wae": lambda s: s["distortion"] + 100 * s["mmd"],
    "aae": lambda s: s["distortion"] + s["fooling"],
    "iwae": lambda s: -s["iwae"],
    "ciwae": lambda s: -(0.05 * s["elbo"] + 0.95 * s["iwae"]),
    "ae": lambda s: s["distortion"],
    "denoising": lambda s: s["distortion"],
    "sparse": lambda s: s["distortion"] + s["penalty"],
    "rae-l2": lambda s: s["distortion"] + s["penalty"],
    "rae-gp": lambda s: s["distortion"] + s["penalty"],
    "best": lambda s: -s["elbo"],
    "mixture": lambda s: -s["elbo"],
    "vamp": lambda s: -s["elbo"],
    "flow-prior": lambda s: -s["elbo"],
    "hierarchical": lambda s: -s["elbo"],
    "full-covariance": lambda s: -s["elbo"],
    "iaf": lambda s: -s["elbo"],
    "nsf": lambda s: -s["elbo"],
    "hyperspherical": lambda s: -s["elbo"],
    "conditional": lambda s: -s["elbo"],
    "kingma2013": lambda s: -s["elbo"],
    "unit-gaussian": lambda s: -s["elbo"],
    "linear": lambda s: -s["elbo"],
    "ladder": lambda s: -s["elbo"],
}


@pytest.mark.parametrize("name", LOSSES)
def test_its_loss_is_the_one_in_its_text(name):
    losses, stats = terms(name)
    torch.testing.assert_close(losses["model"].detach(), LOSSES[name](stats), rtol=1e-4, atol=1e-3)


def test_every_recipe_has_its_loss_tested():
    elsewhere = {
        "free-bits",
        "piwae",
        "wake-sleep",
        "reweighted-wake-sleep",
        "robust",
        "semi-supervised",
        "vq",
        "fsq",
        "lfq",
        "simvq",
        "residual-vq",
    }  # below, or in their own files
    assert set(LOSSES) | elsewhere == set(RECIPES)


def test_penalties_of_autoencoders_are_those_in_their_text():
    for name in ("sparse", "rae-l2"):
        made = composed(name)
        b = batch(made)
        z = made.model.encode(b.x)
        weights = [w for w in made.model.likelihood.net.parameters() if w.dim() > 1]
        told = {
            "sparse": 0.5 * z.abs().sum(1).mean(),
            "rae-l2": 0.5 * z.square().sum(1).mean() + 0.05 * sum(w.square().sum() for w in weights),
        }
        found = made.objective(made.model, b, STEP).stats["penalty"]
        torch.testing.assert_close(found, told[name])
    made = composed("rae-gp")
    b, total = batch(made, 5), 0.0
    z = made.model.encode(b.x).detach()
    for row in z:
        jacobian = torch.autograd.functional.jacobian(lambda v: made.model.decode(v[None]).mean.flatten(), row)
        total += float(0.1 * jacobian.square().sum() + 0.5 * row.square().sum()) / len(z)
    drawn = [
        made.objective(made.model, Batch(b.x, Noise.of(s, len(z))), STEP).stats["penalty"].item() for s in range(300)
    ]
    assert np.mean(drawn) == pytest.approx(total, abs=5 * np.std(drawn) / 300**0.5)


def decoder_norm(made):
    return math.sqrt(
        sum(float(w.detach().square().sum()) for w in made.model.likelihood.net.parameters() if w.dim() > 1)
    )


def slope(made):
    """Mean squared Frobenius norm of the decoder's Jacobian at codes of the data."""
    z = made.model.eval().encode(batch(made).x).detach()
    jacobians = [torch.autograd.functional.jacobian(lambda v: made.model.decode(v[None]).mean.flatten(), r) for r in z]
    return float(torch.stack(jacobians).square().sum((1, 2)).mean())


def test_regularised_autoencoders_have_smaller_weights_and_slopes():
    plain = trained("rae-l2", decoder_decay=0.0)[0]
    decayed, penalised = trained("rae-l2")[0], trained("rae-gp")[0]
    assert decoder_norm(decayed) < 0.8 * decoder_norm(plain)
    assert slope(decayed) < 0.8 * slope(plain)
    assert slope(penalised) < 0.9 * slope(plain)
    free = trained("ae")[0]
    size = [made.model.encode(batch(made).x).square().sum(1).mean().item() for made in (plain, free)]
    assert size[0] < 0.5 * size[1]


def test_few_entries_of_a_sparse_code_are_large():
    assert get_recipe("sparse").defaults["latent"] == 256
    shares = []
    for name in ("sparse", "ae"):
        made = trained(name, steps=200, latent=40)[0]
        z = made.model.eval().encode(batch(made).x).abs()
        shares.append((z > 0.1 * z.amax(1, keepdim=True)).float().mean().item())
    assert shares[0] < 0.5
    assert shares[0] < 0.6 * shares[1]


def test_a_denoising_encoder_sees_three_tenths_masked_and_the_target_is_clean():
    made = composed("denoising")
    x = torch.ones(400, *EVENT)
    seen = made.objective.seen(x, Noise.of(0, 400))
    assert (seen == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    b = batch(made)
    trace = made.model.trace(made.objective.seen(b.x, b.noise), noise=b.noise)
    told = made.objective(made.model, batch(made), STEP).losses["model"]
    torch.testing.assert_close(told, -trace.px.log_prob(b.x).mean())


def test_an_autoencoder_is_under_complete_where_data_have_two_dimensions_or_more():
    for shape in ((2,), (3,), (9,), (70,), (300,), (5000,)):
        spec = DataSpec("vector", shape, 50, (-3.0, 3.0), False)
        model = get_recipe("ae")(spec, hidden=(3,)).model
        assert model.encode(torch.zeros(1, *shape)).shape[1] < shape[0]
        assert model.no_density


def test_capacity_rises_from_nothing_over_its_steps():
    for step, nats in ((0, 0.0), (5000, 12.5), (10_000, 25.0), (90_000, 25.0)):
        assert terms("annealed", torch.tensor(step))[1]["capacity"].item() == pytest.approx(nats)


def test_a_constraint_is_reached():
    _, stats = trained("constrained", steps=200, target=2.0, multiplier_lr=0.05)
    assert stats["rate"] == pytest.approx(2.0, abs=0.4)


def test_the_robust_loss_is_that_of_the_rows_of_highest_elbo():
    losses, _ = terms("robust")
    made = composed("robust")
    b = batch(made)
    trace = made.model.trace(b.x, noise=b.noise)
    q = trace.latents[0].q.base_dist
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    told = -(trace.px.log_prob(b.x) - kl).sort().values[2:].mean()  # of 20 rows
    torch.testing.assert_close(losses["model"].detach(), told.detach())


def test_free_bits_cost_as_much_as_they_are():
    losses, stats = terms("free-bits")
    made = composed("free-bits")
    b = batch(made)
    q = made.model.trace(b.x, noise=b.noise).latents[0].q.base_dist
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(0)
    told = stats["distortion"] + kl.clamp_min(0.1).sum()
    torch.testing.assert_close(losses["model"].detach(), told.detach())


@pytest.mark.parametrize(("kind", "same"), [("i", False), ("ii", True)])
def test_dip_i_and_ii_differ_by_the_posteriors_own_variance(kind, same):
    found = terms("dip", dip=kind)[1]["diagonal"]
    assert (found == terms("dip")[1]["diagonal"]).item() is same


@pytest.mark.parametrize("name", ["iwae", "ciwae", "piwae"])
def test_importance_weighted_recipes_draw_what_they_say(name):
    objective = composed(name).objective
    assert objective.samples == 20
    if name == "piwae":
        assert objective.groups == 4
        losses, stats = terms(name)
        torch.testing.assert_close(losses["decoder"].detach(), -stats["iwae"])
        assert set(losses) == {"encoder", "decoder"}


@pytest.mark.parametrize("name", ["best", "mixture", "vamp", "vae"])
def test_gradients_and_scales_of_images_have_limits(name):
    clips = [composed(name, likelihood=kind).defaults.clip for kind in ("bernoulli", "discretised-logistic")]
    assert clips == [200, 2000]
    assert composed(name).model.posterior.head.slow
    slow = {
        rules: get_recipe(name)(dataclasses.replace(FACTS, rules=rules)).model.posterior.head.slow for rules in (8, 9)
    }
    assert slow == {8: False, 9: name != "vae"}
    vectors = DataSpec.of(vk.from_arrays(RAW.flatten(1).numpy()))
    assert get_recipe(name)(vectors).defaults.clip is None
    larger = dataclasses.replace(FACTS, shape=(1, 56, 56))
    assert get_recipe(name)(larger, network="dense", likelihood="bernoulli").defaults.clip == 800


def test_wake_sleep_learns_at_a_rate_at_which_it_does_not_diverge():
    rates = {name: composed(name).defaults.lr for name in ("vae", "wake-sleep", "reweighted-wake-sleep")}
    assert rates == {"vae": 2e-3, "wake-sleep": 1e-3, "reweighted-wake-sleep": 2e-3}


@pytest.mark.parametrize(("name", "choices"), [("ae", {}), ("kingma2013", {}), ("vae", {"warmup": 0})])
def test_gradients_have_no_limit_where_beta_does_not_rise(name, choices):
    assert composed(name, **choices).defaults.clip is None


def test_ladders_of_images_limit_gradients():
    assert composed("ladder").defaults.clip == 200


@pytest.mark.parametrize(
    ("name", "choices", "decay"),
    [
        ("vae", {}, 0.03),
        ("best", {}, 0.03),
        ("ladder", {}, 0.03),
        ("vae", {"network": "conv"}, 1e-4),
        ("vae", {"warmup": 0}, 1e-4),
        ("ae", {}, 1e-4),
    ],
)
def test_dense_networks_decay_more_while_beta_rises(name, choices, decay):
    assert composed(name, **choices).defaults.weight_decay == decay


def test_priors_and_posteriors_are_those_of_the_text():
    made = composed("vamp")
    p, z = made.model.prior(), torch.randn(5, 4)
    q = made.model.posterior(made.model.prior.inputs).base_dist
    each = torch.distributions.Independent(torch.distributions.Normal(q.loc, q.scale), 1).log_prob(z[:, None])
    torch.testing.assert_close(p.log_prob(z), torch.logsumexp(each, 1) - math.log(100), rtol=1e-4, atol=1e-4)
    mixture = composed("mixture").model.prior()
    assert isinstance(mixture, GaussianMixture)
    assert mixture.loc.shape == (100, 4)
    best = composed("best")
    assert best.model.prior().loc.shape == (500, 4)
    assert best.objective.gradient == "stl"
    sphere = composed("hyperspherical").model
    assert isinstance(sphere.prior(), UniformOnSphere)
    norms = sphere.trace(batch(composed("vae")).x).latents[0].z.norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones(20))
    assert isinstance(composed("flow-prior").model.prior, priors.FlowPrior)
    assert len(composed("hierarchical").model.trace(batch(composed("vae")).x).latents) == 2
    for name, head in (("full-covariance", "FullCovariance"), ("iaf", "IAF"), ("nsf", "CouplingFlow")):
        assert isinstance(composed(name).model.posterior.head, getattr(posteriors, head))


def test_a_conditional_model_goes_by_its_condition():
    made = composed("conditional")
    x = batch(made).x[:1]
    codes = [made.model.encode(x, torch.eye(3)[i : i + 1])[:, :4] for i in range(2)]
    assert not torch.equal(*codes)
    z = torch.zeros(1, 4)
    means = [made.model.decode(torch.cat([z, torch.eye(3)[i : i + 1]], 1)).mean for i in range(2)]
    assert not torch.equal(*means)


def test_kingma2013_is_the_papers_model():
    made = composed("kingma2013")
    numbers = torch.cat([p.detach().flatten() for p in made.model.parameters()])
    assert float(numbers.std()) == pytest.approx(0.01, rel=0.1)
    assert (made.defaults.optimiser, made.defaults.weight_decay) == ("adagrad", 1 / N)


def test_linear_models_are_linear_with_one_sigma():
    made = composed("linear")
    x = torch.randn(3, *EVENT)
    encode, decode = made.model.encode, lambda z: made.model.decode(z).mean
    for f, v in ((encode, x), (decode, torch.randn(3, 4))):
        torch.testing.assert_close(f(v[:1] + v[1:2]) + f(0 * v[:1]), f(v[:1]) + f(v[1:2]), rtol=1e-4, atol=1e-4)
    assert made.model.decode(torch.zeros(1, 4)).stddev.unique().numel() == 1


def test_unit_gaussian_is_the_scripts_model():
    made = composed("unit-gaussian")
    x = batch(made).x
    assert float(x.abs().max()) <= 0.5
    d = made.model.decode(10 * torch.randn(50, 4))
    assert bool((d.mean.abs() <= 1).all())
    assert bool((d.stddev == 1).all())


def test_warm_ups_rise_and_fall_as_asked():
    for step, weight in ((0, 0.0), (50, 0.5), (100, 1.0), (500, 1.0)):
        losses, stats = terms("vae", torch.tensor(step), warmup=100)
        torch.testing.assert_close(losses["model"].detach(), stats["distortion"] + weight * stats["rate"])
    losses, stats = terms("vae", torch.tensor(50), warmup=100, beta_from=16.0, beta=4.0)
    torch.testing.assert_close(losses["model"].detach(), stats["distortion"] + 8 * stats["rate"])


# --- defaults --------------------------------------------------------------------------------------------------

DEFAULTS = {
    "elbo": {"beta": 1.0, "warmup": None, "beta_from": 0.0, "cycles": 0, "samples": 1, "free_bits": 0.0,
             "gradient": "plain"},
    "capacity": {"gamma": 5.0, "capacity": 25.0, "capacity_steps": 10_000, "samples": 1},
    "constrained": {"hold": "rate", "target": 20.0, "multiplier": 1.0, "multiplier_lr": 0.01, "samples": 1},
    "tc": {"alpha": 1.0, "beta": 6.0, "gamma": 1.0},
    "factor": {"gamma": 10.0},
    "dip": {"dip": "ii", "off_diagonal": 10.0, "diagonal": 10.0},
    "info": {"alpha": 0.0, "weight": 100.0, "kernel": "imq"},
    "wae": {"weight": 100.0, "kernel": "imq"},
    "aae": {"weight": 1.0},
    "iwae": {"samples": 50, "gradient": "plain", "groups": 1},
    "piwae": {"samples": 48, "groups": 6, "gradient": "plain"},
    "ciwae": {"samples": 50, "mix": 0.05},
    "wake-sleep": {},
    "reweighted-wake-sleep": {"samples": 5, "sleep": 0.5},
    "autoencoder": {
        "l1": 0.0, "l2": 0.0, "gradient_penalty": 0.0, "sparsity": 0.0, "activity": 0.05, "decoder_decay": 0.0,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", DEFAULTS)
def test_an_objective_keeps_its_options_and_their_defaults(name):
    """Old runs, whose run.json does not name these choices, are rebuilt with them."""
    declared = {knob: argument.default for knob, argument in objectives.OBJECTIVES[name].knobs.items()}
    assert declared == DEFAULTS[name]


def defaults(function):
    return {
        n: p.default
        for n, p in inspect.signature(function).parameters.items()
        if p.default is not inspect.Parameter.empty
    }


def test_parts_that_compose_builds_have_its_defaults():
    vamp, mixture, flow = (composed(name).model.prior for name in ("vamp", "mixture", "flow-prior"))
    assert len(vamp.pseudo) == defaults(priors.Vamp)["components"]
    assert len(mixture.logits) == defaults(priors.Mixture)["components"]
    plain = priors.FlowPrior((4,))
    assert {k: v.shape for k, v in flow.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    one, other = defaults(get_recipe("semi-supervised").function), defaults(objectives.SemiSupervised)
    assert one["alpha"] == other["alpha"]
    for name, place in (("vq", quantize.VectorQuantiser), ("fsq", quantize.FiniteScalarQuantiser)):
        recipe = defaults(get_recipe(name).function)
        for choice in {"commitment"} & set(recipe) & set(defaults(place)):
            assert defaults(place)[choice] == recipe[choice], (name, choice)


# --- the class prior of M2 ----------------------------------------------------------------------------------------


def test_semi_supervised_takes_the_class_frequencies():
    assert composed("semi-supervised").model.class_prior().probs.tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 6])
    uniform = composed("semi-supervised", class_prior="uniform").model.class_prior()
    assert uniform.probs.tolist() == pytest.approx([1 / 3] * 3)
    given = composed("semi-supervised", frequencies=(8.0, 1.0, 1.0)).model.class_prior()
    assert given.probs.tolist() == pytest.approx([0.8, 0.1, 0.1])


def test_the_bound_of_a_semi_supervised_recipe_is_that_of_its_frequencies():
    """U(x) with the classes enumerated by hand, and p(y) written out."""
    made = composed("semi-supervised", likelihood="bernoulli")
    model, b = made.model, batch(made)
    q = torch.softmax(model.classifier(b.x).logits, -1)
    p = torch.tensor([1 / 2, 1 / 3, 1 / 6])
    every = model.each_class(b.x)
    trace = model.trace(b.x, every, noise=b.noise)
    normal = trace.latents[0].q.base_dist
    kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    bound = (trace.px.log_prob(b.x) - kl).T + torch.log(p) - torch.log(q)
    found = made.objective(model, batch(made), STEP).stats["elbo"]
    torch.testing.assert_close(found, (q * bound).sum(-1).mean(), rtol=1e-5, atol=1e-4)


def test_what_cannot_be_a_class_prior_is_refused():
    for wrong in ((1.0, 2.0), (1.0, 0.0, 1.0)):
        with pytest.raises(ChoiceError, match="3 numbers above 0, one for each of a, b, c"):
            composed("semi-supervised", frequencies=wrong)
    with pytest.raises(ChoiceError, match="60 training data that have a label"):
        composed("semi-supervised", labelled=61)


def test_labels_of_the_training_rows_are_counted():
    raw, labels = blobs(90), np.repeat([0, 1, 2], [60, 20, 10])
    labels[:5] = -1
    data = vk.from_arrays(raw, label=labels)
    spec = DataSpec.of(data)
    there = data.train.label[data.train.label >= 0]
    assert spec.class_counts == tuple(np.bincount(there, minlength=3))
    made = get_recipe("semi-supervised")(spec, latent=2, hidden=(4,))
    assert made.model.class_prior().probs.tolist() == pytest.approx((np.bincount(there) / len(there)).tolist())
    assert made.targets.count == len(there)  # rows without a label: those that have one are all it can learn from


# --- runs from before --------------------------------------------------------------------------------------------


def rebuilt(recipe, spec, **arguments):
    """The composition that a run.json from before `rules`, class counts and `decoder_decay` describes."""
    stored = spec.as_json()
    for later in ("rules", "class_counts"):
        del stored[later]
    known = {k: v for k, v in get_recipe(recipe).defaults.items() if k not in ("decoder_decay", "class_prior")}
    config = {"recipe": recipe, "arguments": arguments, "defaults": known, "data": {"facts": stored}}
    return rebuild(config), rebuild({k: v for k, v in config.items() if k != "defaults"})


def test_runs_from_before_keep_what_they_were_trained_with():
    for made in rebuilt("rae-l2", FACTS, **SMALL):
        assert made.objective.decoder_decay == 0.0
    for made in rebuilt("semi-supervised", FACTS, **SMALL):
        assert made.model.class_prior().probs.tolist() == pytest.approx([1 / 3] * 3)
    for made in rebuilt("vae", FACTS, likelihood="continuous-bernoulli", **SMALL):
        assert made.observation.kind == "grey"
    kept = {"recipe": "rae-l2", "arguments": SMALL, "defaults": get_recipe("rae-l2").defaults}
    assert rebuild({**kept, "data": {"facts": FACTS.as_json()}}).objective.decoder_decay == 0.1


def test_an_option_that_an_earlier_version_ignored_is_left_out_of_its_runs():
    kept = {"recipe": "vae", "arguments": {**SMALL, "likelihood": "bernoulli", "sigma": "0.5"}, "defaults": {}}
    made = rebuild({**kept, "data": {"facts": FACTS.as_json()}})
    assert type(made.model.likelihood.head).__name__ == "Bernoulli"
    with pytest.raises(ChoiceError, match="likelihood 'bernoulli' takes no `sigma`"):
        get_recipe("vae")(FACTS, likelihood="bernoulli", sigma="0.5")
    get_recipe("vae")(FACTS, likelihood="bernoulli", sigma="auto", **SMALL)  # its default, as runs store it
