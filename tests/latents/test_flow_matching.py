"""Flow matching over the codes of a run: the posteriors, the density, labels and guidance, and a training that stops.

The codes are those of two heaps, one per label, encoded as they are.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from core_helpers import QUIET, same

import vaekit as vk
from vaekit import heads, networks
from vaekit.data.observation import Identity
from vaekit.errors import ChoiceError, RunError
from vaekit.estimators.probability_flow import path_log_prob
from vaekit.heads import Conditional
from vaekit.latents.densities import FlowMatchingDensity, Training
from vaekit.latents.posterior import condition_of, posteriors
from vaekit.latents.resample import _held_out, fit_latents
from vaekit.latents.scale import Scale
from vaekit.models.priors import StandardNormal
from vaekit.models.vae import VAE
from vaekit.objectives import ELBO
from vaekit.options import Options
from vaekit.utils.progress import Progress

SIGMA = 0.2
SMALL = {"width": 32, "layers": 1}
CENTRES = np.array([[-2.0, 1.0], [2.0, 0.0]], np.float32)


def as_they_are() -> vk.Composition:
    """q(z | x) = N(x, SIGMA^2 I)."""
    encoder = networks.MLP((2,), 2, ())
    with torch.no_grad():
        encoder.out.weight.copy_(torch.eye(2))
        encoder.out.bias.zero_()
    px = Conditional(networks.MLP((2,), 2, ()), heads.Gaussian((2,), "unit"))
    return vk.Composition(
        VAE(StandardNormal((2,)), Conditional(encoder, heads.Gaussian((2,), "fixed", SIGMA)), px), ELBO(), Identity()
    )


def run_in(folder, label=None) -> vk.Run:
    rng = np.random.default_rng(0)
    heap = rng.integers(0, 2, 600)
    x = (CENTRES[heap] + 0.3 * rng.normal(size=(600, 2))).astype(np.float32)
    given = np.array(["left", "right"])[heap] if label is None else label
    data = vk.from_arrays(x, label=given)
    return vk.fit(data, as_they_are(), out=folder / "run", steps=1, lr=1e-12, **QUIET)


@pytest.fixture(scope="module")
def fitted_run(tmp_path_factory) -> vk.Run:
    run = run_in(tmp_path_factory.mktemp("flow"))
    run.fit_latents("flow-matching", steps=400, **SMALL)
    return run


@pytest.fixture
def fresh(tmp_path, coarse_paths) -> vk.Run:
    return run_in(tmp_path)


# --- posteriors -------------------------------------------------------------------------------------------------


def test_posteriors_are_means_and_spreads_with_labels(fitted_run):
    rows = np.array([3, 4, 7])
    condition = condition_of(fitted_run, "auto")
    found = posteriors(fitted_run, "train", rows, 0, condition)
    np.testing.assert_allclose(found.mean, fitted_run.encode("train", rows=rows))
    np.testing.assert_allclose(found.spread, SIGMA, rtol=1e-6)
    assert condition.names == ("left", "right")
    labels = fitted_run.data.train.label[rows]
    np.testing.assert_array_equal(found.c, np.c_[np.eye(2)[labels], np.ones(3)])
    assert condition_of(fitted_run, "none") is None
    with pytest.raises(ChoiceError, match="no attributes to be conditional on"):
        condition_of(fitted_run, "attributes")


def test_rows_without_a_label_have_an_unknown_condition(tmp_path):
    label = np.where(np.arange(600) % 3 == 0, "", np.where(np.arange(600) % 2 == 0, "a", "b"))
    run = run_in(tmp_path, label)
    found = posteriors(run, "train", np.arange(480), 0, condition_of(run, "auto"))
    unknown = run.data.train.label < 0
    assert 0 < unknown.sum() < 480
    np.testing.assert_array_equal(found.c[:, -1], ~unknown)
    assert float(found.c[torch.from_numpy(unknown)].abs().max()) == 0


def test_data_that_vary_have_several_versions(tmp_path):
    x = (np.random.default_rng(0).uniform(size=(40, 5)) * 255).astype(np.uint8)
    run = vk.fit(x, "vae", latent=2, hidden=(4,), observation="binary", out=tmp_path / "run", steps=1, **QUIET)
    n = len(run.data.train)
    found = posteriors(run, "train", np.arange(n), 0)
    assert len(found.mean) == 16 * n  # of the random binary draw
    assert not torch.equal(found.mean[:n], found.mean[n : 2 * n])
    assert len(posteriors(run, "valid", np.arange(2), 0).mean) == 2


# --- the density ------------------------------------------------------------------------------------------------


def test_the_density_integrates_to_one_and_has_both_heaps(fitted_run):
    fitted = fitted_run.fit_latents("flow-matching")
    axes = np.linspace(-5, 5, 31), np.linspace(-3, 4, 22)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    for labels in (None, ["right"]):
        p = np.exp(fitted.log_prob(grid, labels=labels)).reshape(31, 22)
        assert np.trapezoid(np.trapezoid(p, axes[1]), axes[0]) == pytest.approx(1, abs=0.02)
    held = fitted.record["held_out"]
    assert held["bound"]
    assert held["log_density"] < held["log_density_given"] - 0.6  # by log 2 for two classes of the same size
    assert held["log_density"] > held["log_density_normal"] + 5 * held["se_difference"]
    z = fitted.sample(1000)
    nearest = np.linalg.norm(z[:, None] - CENTRES, axis=-1)
    # the spread of a heap is 0.36 in each direction: 3 of them hold 99%
    assert (nearest.min(1) < 1.1).mean() > 0.9
    share = (fitted_run.data.train.label == 1).mean()
    assert (nearest.argmin(1) == 1).mean() == pytest.approx(share, abs=0.1)


def test_the_log_density_of_codes_with_new_attributes_is_a_lower_bound():
    class Moved(FlowMatchingDensity):
        """N(c, 1), for one attribute c of training rows that is a real number."""

        def __init__(self, of):
            self.labels = torch.stack([of, torch.ones(len(of))], 1)

        def log_prob_given(self, u, c):
            return torch.distributions.Normal(c[:, 0], 1.0).log_prob(u[:, 0]).double()

    of = torch.tensor([-1.5, 0.25, 0.25, 3.0])
    density = SimpleNamespace(density=Moved(of), scale=Scale(torch.zeros(1), torch.full((1,), 2.0)))
    z, c = torch.tensor([[0.5], [18.0], [-4.0]]), torch.tensor([[0.25, 1.0], [9.0, 1.0], [-2.0, 1.0]])
    held = _held_out(density, z, None, c)
    u = z / 2
    nearest = torch.tensor([0.25, 3.0, -1.5])
    normal = torch.distributions.Normal(0.0, 1.0)
    bound = normal.log_prob(u[:, 0] - nearest) + torch.log(torch.tensor([0.5, 0.25, 0.25])) - np.log(2)
    exact = torch.logsumexp(normal.log_prob(u - of), 1) - np.log(4) - np.log(2)
    assert bool((bound <= exact).all())
    assert held["log_density"] == pytest.approx(float(bound.mean()), rel=1e-6)
    assert held["log_density_given"] == pytest.approx(float(normal.log_prob(u - c[:, :1]).mean() - np.log(2)), rel=1e-6)


def test_draws_have_their_labels_and_guidance_moves_them_on(fitted_run):
    z = fitted_run.sample_latents(200, latents="flow-matching", labels="right")
    assert np.linalg.norm(z - CENTRES[1], axis=1).mean() < 0.8
    each = fitted_run.sample_latents(4, latents="flow-matching", labels=["left", "right", "right", "left"])
    assert (each[:, 0] > 0).tolist() == [False, True, True, False]
    none = fitted_run.sample_latents(200, latents="flow-matching", labels="right", guidance=0)
    far = fitted_run.sample_latents(200, latents="flow-matching", labels="right", guidance=3)
    assert none[:, 0].mean() < z[:, 0].mean() - 0.5
    assert far[:, 0].mean() > z[:, 0].mean()
    with pytest.raises(ChoiceError, match="moves codes towards"):
        fitted_run.sample_latents(3, latents="flow-matching", guidance=2)
    with pytest.raises(ChoiceError, match="add `latents='flow-matching'`"):
        fitted_run.sample(3, guidance=2)
    with pytest.raises(ChoiceError, match="this gmm is not conditional"):
        fitted_run.sample(3, latents="gmm", labels="right")


def test_stored_and_found_again_whatever_the_number_of_draws(fitted_run):
    fitted = fitted_run.fit_latents("flow-matching")
    z = fitted.sample(20, seed=1)
    np.testing.assert_allclose(fitted.sample(7, seed=1), z[:7], atol=1e-5)  # products of other sizes
    again = vk.open(fitted_run.path, model=as_they_are(), data=fitted_run.data).fit_latents("flow-matching")
    assert again.record == json.loads((fitted_run.path / "latents" / "flow-matching.json").read_text())
    np.testing.assert_array_equal(again.sample(20, seed=1), z)
    one = {"labels": ["left"]}
    np.testing.assert_array_equal(again.log_prob(z[:3], **one), fitted.log_prob(z[:3], **one))
    assert "a dense network of 1 blocks" in str(again)
    with pytest.raises(ChoiceError, match="fitted with width 32, not 8"):
        fitted_run.fit_latents("flow-matching", width=8)
    with pytest.raises(ChoiceError, match="`width` is for flow-matching, not for gmm"):
        fitted_run.fit_latents("gmm", width=8)


def test_codes_with_a_grid_have_a_transformer_if_asked_or_large(fresh):
    from vaekit.latents.densities import flow_matching

    asked = {"network": "auto", "width": None, "layers": 4, "spread": 1.0, "drop": 0.1, "solver_steps": 8}
    kinds = [flow_matching._choices(dims, (dims // 64, 8, 8), None, asked)["grid"] for dims in (512, 576)]
    assert kinds == [None, [9, 8, 8]]
    fresh.model.grid = (1, 2, 1)
    fitted = fresh.fit_latents("flow-matching", steps=3, condition="none", network="grid", **SMALL)
    assert "a transformer of 1 blocks" in str(fitted)
    assert np.isfinite(fitted.sample(3)).all()
    assert fitted.condition is None
    again = vk.open(fresh.path, model=as_they_are(), data=fresh.data)
    np.testing.assert_array_equal(again.fit_latents("flow-matching").sample(3), fitted.sample(3))
    with pytest.raises(ChoiceError, match=r"this flow-matching is not conditional.*condition='label'"):
        fresh.sample(2, latents="flow-matching", labels="left")


def test_two_directions_estimate_the_log_density_within_its_standard_error():
    """The mean over codes of more than `EXACT` dimensions, and its standard error, against the exact divergence."""
    from vaekit.latents.densities import flow_matching

    dims, g = 40, torch.Generator().manual_seed(0)
    asked = {"width": 24, "layers": 1, "spread": 1.0, "drop": 0.1, "solver_steps": 2, "network": "auto"}
    choices = flow_matching._choices(dims, None, None, asked)
    built = flow_matching.composed(choices)
    with torch.no_grad():
        for p in built.model.parameters():
            p.add_(0.08 * torch.randn(p.shape, generator=g))
    run = SimpleNamespace(model=built.model, config={"step": 1}, device=torch.device("cpu"))
    density = FlowMatchingDensity(run, choices, None)
    u = torch.randn(200, dims, generator=g)
    found, exact = density.path(u, None, steps=4), path_log_prob(built.model.velocity.at(None), u, steps=4)
    error = found.log_prob - exact.log_prob
    assert float(error.std()) > 0.01  # the divergence does depend on the direction
    assert abs(float(error.mean())) < 4 * float(error.std()) / 200**0.5
    # probe_se^2 is an unbiased estimate of the squared error of a code
    assert float(found.probe_se.square().mean() / error.square().mean()) == pytest.approx(1, abs=0.4)


def test_guidance_needs_a_density_that_was_also_trained_without_labels(fresh):
    fitted = fresh.fit_latents("flow-matching", steps=3, drop=0.0, **SMALL)
    assert len(fitted.sample(3, labels="left")) == 3
    for guidance in (0, 2):
        with pytest.raises(ChoiceError, match=r"this one has `drop=0`: fit it again without `drop`"):
            fitted.sample(3, labels="left", guidance=guidance)
    fresh.fit_latents("gmm", steps=2)
    with pytest.raises(ChoiceError, match=r"this gmm is not conditional, so it takes no `guidance`"):
        fresh.sample(3, latents="gmm", guidance=2)


# --- a training that stops --------------------------------------------------------------------------------------


class StopAt(Progress):
    """Stops the training at the first report."""

    def update(self, step, horizon, epoch, train, valid, per_second):
        self.stop = True

    def note(self, text):
        return None


def test_a_resumed_training_ends_with_equal_bytes(tmp_path, monkeypatch, capsys, coarse_paths):
    one, two = run_in(tmp_path / "one"), run_in(tmp_path / "two")
    one.fit_latents("flow-matching", steps=24, **SMALL)
    from vaekit.training import loop

    kept = loop.Trainer.save

    def killed(self, state):  # as by kill -9 after a checkpoint
        kept(self, state)
        raise SystemExit(9)

    training = Training(Options(checkpoint_steps=10))
    with monkeypatch.context() as m:
        m.setattr(loop.Trainer, "save", killed)
        with pytest.raises(SystemExit):
            fit_latents(two, "flow-matching", steps=24, training=training, **SMALL)
    with pytest.raises(RunError, match=r"interrupted at step 10: resume it with `vaekit prior .* --resume`"):
        two.sample(3, latents="flow-matching")
    two.sample_latents(3, latents="fitted")
    assert "flow-matching is passed over, since its training was interrupted" in capsys.readouterr().err
    resume = Training(mode="resume")
    with pytest.raises(ChoiceError, match="was begun with width 32, not 8"):
        fit_latents(two, "flow-matching", training=resume, width=8)
    fit_latents(two, "flow-matching", training=resume)
    folders = [run.path / "latents" / "flow-matching" for run in (one, two)]
    assert same(*folders)
    assert isinstance(two.fit_latents("flow-matching").density, FlowMatchingDensity)
    z = [run.sample_latents(5, latents="flow-matching") for run in (one, two)]
    np.testing.assert_array_equal(*z)


def test_a_training_that_ended_without_its_record_is_not_repeated(fresh):
    fitted = fresh.fit_latents("flow-matching", steps=3, **SMALL)
    folder = fresh.path / "latents"
    (folder / "flow-matching.json").unlink()
    before = (folder / "flow-matching" / "model.safetensors").stat().st_mtime_ns
    again = fresh.fit_latents("flow-matching")
    assert (folder / "flow-matching" / "model.safetensors").stat().st_mtime_ns == before
    np.testing.assert_array_equal(again.sample(3), fitted.sample(3))


def test_what_cannot_be_resumed(fresh):
    with pytest.raises(RunError, match="has no flow-matching to resume"):
        fit_latents(fresh, "flow-matching", training=Training(mode="resume"))
    with pytest.raises(ChoiceError, match="gmm is not trained as a run"):
        fit_latents(fresh, "gmm", training=Training(mode="resume"))
    with pytest.raises(ChoiceError, match="did you mean 'width'"):
        fresh.fit_latents("flow-matching", widht=3)
