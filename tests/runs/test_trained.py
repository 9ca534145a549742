"""Models in memory: encode, decode, sample and score without a directory, as the run of the same model does."""

import inspect

import numpy as np
import pytest
import torch
from core_helpers import QUIET, LinearGaussian, blobs, model_of

import vaekit as vk
from vaekit.data.observation import Identity
from vaekit.errors import ChoiceError, DataError
from vaekit.metrics import compare, evaluate, per_datum
from vaekit.objectives import ELBO
from vaekit.recipes import Composition
from vaekit.runs import likelihood, trained
from vaekit.runs.saved import SavedRun
from vaekit.runs.trained import TrainedModel
from vaekit.training.fit import train


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> vk.Run:
    data = vk.from_arrays(blobs(60), label=np.arange(60) % 3, label_names=["a", "b", "c"], name="blobs")
    made = vk.fit(
        data, "vae", out=tmp_path_factory.mktemp("trained") / "run", steps=3, batch=16, latent=2, hidden=(8,), **QUIET
    )
    made.use_data(data)
    return made


@pytest.fixture(scope="module")
def model(run) -> TrainedModel:
    return TrainedModel(run.composition, run.spec, run.data)


def world_model() -> tuple[LinearGaussian, TrainedModel]:
    world = LinearGaussian(dtype=torch.float32)
    return world, model_of(Composition(world.model, ELBO(), Identity()), (5,))


def test_log_p_encode_and_decode_are_the_closed_forms():
    world, model = world_model()
    x = world.data(50)
    np.testing.assert_allclose(model.score(x.numpy(), samples=4), world.log_p(x).numpy(), atol=1e-3)
    z = model.encode(x.numpy())
    A = world.model.posterior.net.out.weight.detach().double()
    np.testing.assert_allclose(z, ((x - world.b) @ A.T).numpy(), atol=1e-4)
    np.testing.assert_allclose(model.decode(z), (torch.from_numpy(z).double() @ world.W.T + world.b).numpy(), atol=1e-4)
    np.testing.assert_allclose(model.reconstruct(x.numpy()), model.decode(z), atol=1e-5)


def test_samples_have_the_moments_of_p():
    world, model = world_model()
    x = model.sample(20_000, noise=True).astype(np.float64)
    covariance = world.W @ world.W.T + world.sigma**2 * torch.eye(5).double()
    variances = covariance.diagonal().numpy()
    assert (np.abs(x.mean(0) - world.b.numpy()) < 5 * np.sqrt(variances / 20_000)).all()
    np.testing.assert_allclose(np.cov(x.T), covariance.numpy(), atol=5 * variances.max() * np.sqrt(2 / 20_000))


def test_it_is_the_run_of_the_same_model(run, model):
    for split in ("train", "test"):
        np.testing.assert_allclose(model.encode(split), run.encode(split), atol=1e-6)
    np.testing.assert_allclose(model.score("test", samples=3), run.score("test", samples=3), rtol=1e-5)
    np.testing.assert_allclose(model.sample(4), run.sample(4), atol=1e-4)
    np.testing.assert_allclose(model.kl_per_latent(n=10), run.kl_per_latent(n=10), rtol=1e-5)
    assert model.data_identity == run.data_identity


def test_rows_are_scored_as_among_all(run):
    observed = run.observed("train")
    whole, rows = per_datum(run, observed, 7), np.array([31, 2, 17])
    some = per_datum(run, observed, 7, rows=rows)
    for name in ("log_px", "elbo", "rate", "distortion", "ess"):
        np.testing.assert_allclose(getattr(some, name), getattr(whole, name)[rows], rtol=1e-4)


def test_log_p_alone_is_that_of_all_results_and_holds_nothing_else(run, monkeypatch):
    observed = run.observed("train")
    whole = per_datum(run, observed, 7).log_px
    monkeypatch.setattr(likelihood, "closed_form_rates", None)  # not needed
    monkeypatch.setattr(likelihood, "CHUNK_NUMBERS", 200)  # several blocks
    told = []
    found = run.score("train", samples=7, progress=lambda done, of: told.append((done, of)))
    np.testing.assert_allclose(found, whole, rtol=1e-4)
    assert len(told) > 1
    assert told[-1] == (observed.n, observed.n)


def test_samples_do_not_depend_on_the_number_that_is_drawn_at_once(run, monkeypatch):
    whole = run.sample_latents(20, seed=3)
    monkeypatch.setattr(trained, "DRAWN", 7)
    np.testing.assert_allclose(run.sample_latents(20, seed=3), whole, rtol=1e-6)


def test_what_is_observed_already_is_encoded(run):
    observed, told = run.observed("train"), []
    rows = np.array([5, 1])
    z = run.encode(observed, rows=rows, progress=lambda done, of: told.append((done, of)))
    np.testing.assert_allclose(z, run.encode("train")[rows], atol=1e-6)
    assert told[-1] == (2, 2)


def test_it_is_measured_and_compared_without_a_directory(run, model):
    (mine,) = evaluate(model, "test", samples=3, metrics=["elbo"])
    (stored,) = evaluate(run, "test", samples=3, metrics=["elbo"])
    assert mine["protocol"] == stored["protocol"]
    assert mine["value"] == pytest.approx(stored["value"], rel=1e-5)
    assert compare(model, run, samples=3)["value"] == pytest.approx(0, abs=1e-3)


def test_without_data_splits_have_no_names():
    _, model = world_model()
    with pytest.raises(DataError, match="no data of its own"):
        model.encode("test")
    with pytest.raises(ChoiceError, match="1 or more"):
        model.sample(0)


def test_users_get_a_run_and_training_returns_what_lies_below_it(run, tmp_path):
    assert type(run) is vk.Run
    assert type(vk.open(run.path)) is vk.Run
    saved = train(blobs(40), "vae", out=tmp_path / "run", steps=1, batch=16, latent=2, hidden=(8,), **QUIET)
    assert type(saved) is SavedRun
    ours, below = inspect.signature(vk.fit), inspect.signature(train)
    assert ours.parameters == below.parameters
    assert ours.return_annotation == "Run"
    assert vk.fit.__name__ == "fit"


def test_earlier_calls_give_the_same_and_say_what_to_write(run):
    new = vk.from_arrays(blobs(60)).test[:4]
    for earlier, present, written in [
        (lambda: run.score("test", 3, 4), lambda: run.score("test", samples=3, n=4), "samples=3, n=4"),
        (
            lambda: run.encode("test", 2, True, 5),
            lambda: run.encode(n=2, sample=True, seed=5),
            "n=2, sample=True, seed=5",
        ),
        (lambda: run.encode(what=new), lambda: run.encode(data=new), r"data=\.\.\."),
        (lambda: run.sample(2, 0.5, False, 7), lambda: run.sample(2, temperature=0.5, seed=7), "temperature=0.5"),
        (lambda: run.kl_per_latent(10), lambda: run.kl_per_latent(n=10), "n=10"),
    ]:
        with pytest.warns(DeprecationWarning, match=f"give these arguments by name: .*{written}") as seen:
            found = earlier()
        assert seen[0].filename == __file__
        np.testing.assert_array_equal(found, present())


def test_rows_are_chosen_alike_everywhere(run):
    rows = [4, 0, 2]
    np.testing.assert_allclose(run.reconstruct("test", rows=rows), run.reconstruct("test")[rows], atol=1e-5)
    np.testing.assert_allclose(run.score("test", rows=rows, samples=5), run.score("test", samples=5)[rows], rtol=1e-4)
    for method in (run.encode, run.reconstruct, run.score):
        with pytest.raises(ChoiceError, match=r"rows must lie in 0\.\."):
            method("test", rows=[99])


def test_a_row_number_is_no_data_to_measure(run):
    for method in (run.evaluate, run.observed):
        with pytest.raises(ChoiceError, match=r"run.observed\('test'\).raw\(\[3\]\)"):
            method(3)
    assert len(run.evaluate(run.observed("test").raw([3]), samples=2)) > 3


def test_no_rows_are_refused(run):
    nothing = run.data.events(run.data.test[:0])
    for use in (run.encode, run.reconstruct, run.score):
        with pytest.raises(ChoiceError, match="must be 1 or more"):
            use(nothing)
