"""The contract that every recipe fulfils, whatever its parts."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from core_helpers import QUIET, blobs, same, tensors

import vaekit as vk
from vaekit.errors import ChoiceError
from vaekit.latents.paths import interpolate
from vaekit.metrics.likelihood import per_datum
from vaekit.noise import Noise
from vaekit.objectives import Batch
from vaekit.recipes import RECIPES
from vaekit.run import fit

NAMES = sorted(RECIPES)
SMALL = {
    "latent": 2,
    "hidden": (8,),
    "decoder_hidden": (8,),
    "width": 8,
    "labelled": 12,
}
OWN = {
    "best": {"components": 4},
    "mixture": {"components": 4},
    "vamp": {"components": 4},
    "flow-prior": {"transforms": 1},
    "iaf": {"transforms": 1, "latent": 3},
    "nsf": {"transforms": 1, "latent": 3},
    "hyperspherical": {"latent": 3},
    "hierarchical": {"latent": 3},
    "iwae": {"samples": 3},
    "piwae": {"samples": 4, "groups": 2},
    "ciwae": {"samples": 3},
    "sparse": {"latent": 5},
    "conv": {"hidden": (4, 8)},
    "grid": {"hidden": (8,), "latent": 18},
    "vq": {"codes": 6, "dim": 2, "posterior": "nearest", "hidden": (4, 8)},
    "fsq": {"levels": (3, 2), "posterior": "nearest", "hidden": (4, 8)},
    "lfq": {"bits": 3},
    "simvq": {"codes": 6, "dim": 2},
    "residual-vq": {"codes": 4, "dim": 2},
    "ladder": {"layers": (1, 1)},
}
STEPS = 6


def choices(name):
    """Choices that make the recipe's net small, of those that it takes."""
    takes = RECIPES[name].parameters
    small = {k: v for k, v in SMALL.items() if k in takes}
    if isinstance(takes.get("hidden") and takes["hidden"].default, int):
        small["hidden"] = 8
    return small | OWN.get(name, {})


@pytest.fixture(scope="module")
def data():
    labels = np.arange(70) % 3
    return vk.from_arrays(blobs(70, 6, 5), label=labels, name="blobs")


@pytest.fixture(scope="module", params=NAMES)
def run(request, data, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param) / "run"
    made = fit(
        data,
        request.param,
        out=out,
        steps=STEPS,
        batch=16,
        seed=2,
        checkpoint_steps=3,
        **QUIET,
        **choices(request.param),
    )
    made.use_data(data)
    return made


def given(run, data):
    """Labels for arrays, where the run needs them."""
    return {"labels": data.test.label} if run.composition.condition else {}


def has_density(run) -> bool:
    return run.model.no_density is None


def in_training(run):
    """Copies of the run's model and objective in training mode, where codebooks and running means move."""
    both = torch.nn.ModuleList([run.composition.model, run.composition.objective])
    model, objective = copy.deepcopy(both).train()
    return model, objective


def batch_of(run, data, n, step=0):
    composition = run.composition
    rows = torch.arange(n)
    raw = torch.from_numpy(np.ascontiguousarray(data.events(data.train[np.arange(n)])))
    x = composition.observation(raw, Noise.of(0, rows, step, 1))
    c, y = composition.condition, composition.targets
    return Batch(
        x,
        Noise.of(0, rows, step, 2),
        torch.from_numpy(c.of(data.train)[:n]) if c else None,
        torch.from_numpy(y.of(data.train)[:n]) if y else None,
    )


def test_it_says_what_it_is():
    for recipe in RECIPES.values():
        assert 0 < len(recipe.summary) < 130
        assert any(ch.isdigit() for ch in recipe.paper) or "/" in recipe.paper
        assert all(a.help for a in recipe.arguments), recipe.name


def test_its_terms_are_finite_and_add_up(run):
    train = [r for r in run.log if r["kind"] == "train"]
    assert train
    for record in train:
        assert all(np.isfinite(v) for v in record.values() if isinstance(v, float))
        if has_density(run):
            assert record["elbo"] == pytest.approx(-(record["rate"] + record["distortion"]), rel=1e-4)
        else:
            assert "elbo" not in record


def test_each_loss_reaches_its_own_players_parameters_only(run, data):
    model, objective = in_training(run)
    parameter_groups = objective.parameter_groups(model)
    losses = objective(model, batch_of(run, data, 12), torch.tensor(1)).losses
    assert set(losses) == set(parameter_groups)
    owner = {id(p): player for player, ps in parameter_groups.items() for p in ps}
    everything = list({id(p): p for p in [*model.parameters(), *objective.parameters()] if p.requires_grad}.values())
    for player, loss in losses.items():
        found = torch.autograd.grad(loss, everything, retain_graph=True, allow_unused=True)
        reached = {owner[id(p)] for p, g in zip(everything, found, strict=True) if g is not None and bool(g.any())}
        assert reached == {player}, f"the loss of {player} reaches {reached}"


def test_a_last_batch_of_one(run, data):
    model, objective = in_training(run)
    terms = objective(model, batch_of(run, data, 1), torch.tensor(1))
    parameter_groups = objective.parameter_groups(model)
    for player, loss in terms.losses.items():
        assert torch.isfinite(loss)
        grads = torch.autograd.grad(loss, parameter_groups[player], retain_graph=True, allow_unused=True)
        assert all(bool(torch.isfinite(g).all()) for g in grads if g is not None)
    assert run.encode(data.test[:1], **{k: v[:1] for k, v in given(run, data).items()}).shape[0] == 1


def test_it_opens_to_the_same_outputs(run, data):
    again = vk.open(run.path, data=data)
    x, labels = data.test[:], given(run, data)
    calls = [
        lambda r: r.encode(x, **labels),
        lambda r: r.reconstruct(x, **labels),
        lambda r: r.sample(5),
        lambda r: r.encode(x, sample=True, **labels),
        lambda r: r.sample(5, noise=True, seed=4),
    ]
    if has_density(run):
        calls.append(lambda r: r.score(x, samples=3, **labels))
    for f in calls:
        assert np.array_equal(f(run), f(again))
    assert again.config["recipe"] == run.config["recipe"]


def test_encoding_and_reconstructing_draw_nothing_unless_asked(run, data):
    x, labels = data.test[:], given(run, data)
    torch.manual_seed(0)
    a, b = run.encode(x, **labels), run.reconstruct(x, **labels)
    torch.manual_seed(1)
    assert np.array_equal(a, run.encode(x, **labels))
    assert np.array_equal(b, run.reconstruct(x, **labels))
    state = torch.get_rng_state()
    run.sample(3)
    if has_density(run):
        run.score(x, samples=2, **labels)
    assert torch.equal(state, torch.get_rng_state())
    drawn = run.encode(x, sample=True, **labels)
    if has_density(run) and run.config["recipe"] not in ("vq", "fsq"):  # here with the nearest codes
        assert not np.array_equal(drawn, a)
        assert not np.array_equal(drawn, run.encode(x, sample=True, seed=1, **labels))
    else:
        assert np.array_equal(drawn, a)  # the posterior is one place
    if not run.composition.observation.stochastic:  # else a datum's draw goes by its number
        one = {k: v[3:4] for k, v in labels.items()}
        assert np.allclose(run.encode(x[3:4], **one)[0], a[3], atol=1e-5)


def test_its_samples_are_data(run, data):
    for noise in (False, True):
        x = run.sample(7, noise=noise)
        assert x.shape == (7, *data.shape)
        assert np.isfinite(x).all()
        assert np.array_equal(x, run.sample(7, noise=noise))
        assert not np.array_equal(x, run.sample(7, noise=noise, seed=1))
    assert np.allclose(run.sample(7)[:3], run.sample(3), atol=1e-3)


def test_no_temperature_is_one_place(run):
    discrete = "quantiser" in RECIPES[run.config["recipe"]].parameters
    if discrete or run.config["recipe"] in ("hyperspherical", "conditional", "semi-supervised"):
        pytest.skip("its codes are discrete, on a sphere, or go by class")
    still = run.sample(4, temperature=0.0)
    assert np.allclose(still, still[:1], atol=1e-4)


def test_a_score_does_not_depend_on_the_batch(run, data):
    if not has_density(run):
        with pytest.raises(ChoiceError, match="no log p"):
            run.score("test", samples=2)
        with pytest.raises(ChoiceError, match="no log p"):
            run.evaluate(metrics=["elbo"])
        return
    whole = per_datum(run, run.observed("test"), 20)
    for batch in (1, 7, 100):
        part = per_datum(run, run.observed("test"), 20, batch=batch)
        # sums over 30 pixels in float32, in an order that may go by the batch: some 1e-6 of a few hundred nats
        np.testing.assert_allclose(part.log_px, whole.log_px, rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(part.elbo, whole.elbo, rtol=1e-5, atol=1e-3)
    assert (whole.ess >= 1 - 1e-6).all()
    assert (whole.ess <= 20 + 1e-6).all()


def test_new_rows_get_p_values_and_maps(run, data):
    x, labels = data.test[:], given(run, data)
    found = run.detect(x, false_alarms=0.2, samples=3, **labels)
    n = found.held_out
    if not labels:  # else each row is compared with its class
        np.testing.assert_allclose(found.p_value * (n + 1), np.round(found.p_value * (n + 1)), atol=1e-6)
    assert (found.p_value > 1 / (n + 1)).all()  # the same rows are among the held-out ones, and ties count against
    assert np.isfinite(found.score).all()
    assert found.maps is None or found.maps.shape == (found.flagged.sum(), *data.shape)


def test_the_importance_weighted_bound_is_above_the_elbo(run, data):
    if not has_density(run):
        pytest.skip("it has neither")
    one = per_datum(run, run.observed("train"), 1)
    many = per_datum(run, run.observed("train"), 200)
    # on average over the draws; the ELBO's closed-form rate and 200 draws leave it a noise far below the gap's spread
    assert many.log_px.mean() >= many.elbo.mean() - 1e-4
    assert many.log_px.mean() > one.elbo.mean() - 3 * one.elbo.std() / np.sqrt(len(one.elbo))
    np.testing.assert_allclose(one.ess, 1)


def test_its_metrics_carry_their_protocol(run, data):
    found = {m["name"]: m for m in run.evaluate(samples=5)}
    if has_density(run):
        assert found["elbo"]["value"] == pytest.approx(-(found["rate"]["value"] + found["distortion"]["value"]))
    assert "distortion" in found
    if run.config["recipe"] in ("conditional", "semi-supervised"):  # their codes hold a class beside two latents
        assert found["active_units"]["unit"] == "of 2 latents"
    for metric in found.values():
        assert metric["protocol"]["n"] == len(data.test)
        assert metric["protocol"]["digest"] == data.digest
    assert {m["name"] for m in vk.open(run.path).metrics} == set(found)
    run.evaluate(samples=5)
    assert len(run.metrics) == len(found)


def test_the_ends_of_an_interpolation_are_the_reconstructions(run, data):
    z = run.encode("test", n=4)
    for mode in ("lerp", "slerp"):
        path = run.decode(interpolate(z[0], z[3], steps=5, mode=mode))
        assert path.shape == (5, *data.shape)
        np.testing.assert_allclose(path[[0, -1]], run.reconstruct("test", n=4)[[0, 3]], rtol=1e-5, atol=1e-3)


def test_stopped_half_way_and_resumed_it_is_the_same(run, data, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(run.path, out)
    (out / "run.json").write_text(json.dumps(run.config | {"state": "running"}))
    (out / "checkpoint" / f"{STEPS:09d}.safetensors").unlink()
    (out / "model.safetensors").unlink()
    fit(data, out=out, resume=True, progress=False)
    assert same(out, run.path)
    assert set(tensors(out / "model.safetensors")) == set(tensors(run.path / "model.safetensors"))
