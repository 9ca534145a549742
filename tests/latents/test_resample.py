"""Densities fitted to the codes of a run: the codes, the values, what is stored and what is refused.

The runs here have posteriors of a known form, so that their codes are known: data on a ring, encoded as they are.
"""

import errno
import json
import math
import shutil

import numpy as np
import pytest
import torch
from core_helpers import QUIET, blobs
from scipy import stats
from sklearn.mixture import GaussianMixture

import vaekit as vk
from vaekit import heads, networks
from vaekit.data.condition import Condition
from vaekit.data.observation import Identity
from vaekit.densities import Point
from vaekit.errors import ChoiceError, RunError
from vaekit.heads import Conditional, Head
from vaekit.latents import resample
from vaekit.latents.densities import Gaussians, NormalisingFlow, SecondStage
from vaekit.latents.resample import Scale, codes
from vaekit.models.m2 import m2
from vaekit.models.priors import StandardNormal
from vaekit.models.vae import VAE
from vaekit.noise import Key, fold
from vaekit.objectives import ELBO, Losses, Objective, SemiSupervised
from vaekit.objectives.terms import distortion
from vaekit.recipes import RECIPES
from vaekit.runs import example
from vaekit.utils.files import read_tensors, unwritable, write_tensors

SIGMA = 0.1
LOC, SPREAD = np.array([3.0, -1.0]), np.array([2.0, 0.5])  # of the codes, so that a forgotten Jacobian shows
FEW = {"gmm": 20, "flow": 40, "two-stage": 40}


def ring(n: int = 600, seed: int = 0) -> np.ndarray:
    """Points on an ellipse about LOC, deviations SPREAD: far from N(0, I), which puts most of its mass inside."""
    angle = np.random.default_rng(seed).uniform(0, 2 * math.pi, n)
    return (LOC + SPREAD * math.sqrt(2) * np.stack([np.cos(angle), np.sin(angle)], 1)).astype(np.float32)


class PointHead(Head):
    def forward(self, raw):
        return self.independent(Point(*self.split(raw)))


class OnCircle(Head):
    """Directions: codes of length one."""

    def forward(self, raw):
        (z,) = self.split(raw)
        return self.independent(Point(torch.nn.functional.normalize(z, dim=-1)))


class Distance(Objective):
    """What an autoencoder minimises."""

    def forward(self, model, batch, step):
        d = distortion(model.trace(batch.x, noise=batch.noise), batch.x).mean()
        return Losses({"model": d}, {"distortion": d})


def as_they_are(posterior: Head | None = None, dims: int = 2) -> vk.Composition:
    """q(z | x) about x itself: N(x, SIGMA^2 I), or what `posterior` makes of x."""
    encoder = networks.MLP((dims,), dims, ())
    with torch.no_grad():
        encoder.out.weight.copy_(torch.eye(dims))
        encoder.out.bias.zero_()
    q = Conditional(encoder, posterior or heads.Gaussian((dims,), "fixed", SIGMA))
    px = Conditional(networks.MLP((dims,), dims, ()), heads.Gaussian((dims,), "unit"))
    model = VAE(StandardNormal((dims,)), q, px)
    if posterior is not None:
        model.no_density = "its posterior is a point"
    return vk.Composition(model, ELBO() if posterior is None else Distance(), Identity())


def run_of(tmp_path, x, composition=None, name="run", **choices) -> vk.Run:
    """A run with the weights of the composition: it is trained for one step with a learning rate near 0."""
    return vk.fit(x, composition or as_they_are(), out=tmp_path / name, steps=1, lr=1e-12, **choices, **QUIET)


@pytest.fixture
def run(tmp_path) -> vk.Run:
    return run_of(tmp_path, ring())


# --- codes ------------------------------------------------------------------------------------------------------


def test_codes_are_draws_of_the_posterior_of_the_training_data(run):
    z, means = codes(run, "train", 1000, 0).numpy(), run.encode("train")
    assert z.shape == means.shape == (480, 2)
    away = (z - means) / SIGMA
    assert away.std() == pytest.approx(1, abs=5 / math.sqrt(2 * 960))
    assert abs(away.mean()) < 5 / math.sqrt(960)
    assert np.array_equal(z, codes(run, "train", 1000, 0).numpy())
    assert not np.array_equal(z, codes(run, "train", 1000, 1).numpy())


def test_the_codes_of_a_point_posterior_are_its_points(tmp_path):
    run = run_of(tmp_path, ring(), as_they_are(PointHead((2,))))
    np.testing.assert_array_equal(codes(run, "train", 1000, 0).numpy(), run.encode("train"))


def test_at_most_so_many_codes(run, monkeypatch):
    some = codes(run, "train", 50, 0).numpy()
    whole = codes(run, "train", 1000, 0).numpy()
    assert len(some) == 50
    assert set(map(tuple, some)) <= set(map(tuple, whole))  # the same draws of other data
    monkeypatch.setattr(resample, "MOST", 60)
    monkeypatch.setattr(resample, "MOST_HELD_OUT", 20)
    record = run.fit_latents("gmm", components=2, seed=-1).record
    assert (record["n"], record["held_out"]["n"]) == (60, 20)


def test_what_does_not_vary_stays_what_it_is(tmp_path):
    still = np.full((600, 1), 7.0, np.float32)
    still[::2] = np.nextafter(still[::2], 8)  # but for rounding
    x = np.concatenate([ring(), still], 1)
    run = run_of(tmp_path, x, as_they_are(PointHead((3,)), 3))
    for name in ("gmm", "flow", "two-stage"):
        fitted = run.fit_latents(name, steps=5)
        z = fitted.sample(20)
        np.testing.assert_allclose(z[:, 2], 7, atol=1e-6)
        assert fitted.record["constant"] == [2]
        assert np.isfinite(fitted.log_prob(z)).all()


def test_scale_and_back():
    z = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 0.0]) + 2
    scale = Scale.of(z)
    u = scale.standardise(z)
    assert u.shape == (100, 2)
    torch.testing.assert_close(u.std(0, correction=0), torch.ones(2))
    torch.testing.assert_close(scale.restore(u), z)
    torch.testing.assert_close(scale.restore(u, 0.5) - z.mean(0), 0.5 * (z - z.mean(0)))
    assert scale.log_jacobian == pytest.approx(-float(torch.log(z[:, :2].std(0, correction=0)).sum()))


# --- the densities ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [True, False])
def test_a_mixture_is_sampled_as_it_was_fitted(full, monkeypatch):
    monkeypatch.setattr(Gaussians, "FULL", 64 if full else 0)
    rng = np.random.default_rng(0)
    turned = np.array([[0.3, 0.0, 0.0], [0.8, 0.6, 0.0], [-0.4, 0.3, 0.2]])  # so that directions go together
    u = torch.from_numpy(rng.normal(size=(900, 3)) @ turned.T + rng.choice([-1.5, 1.0], (900, 1))).float()
    found = Gaussians.fit(u, 3, 100)
    assert found.choices["covariance"] == ("full" if full else "diagonal")
    w, m, f = found.weights, found.means, found.factors
    covariances = f @ f.mT if full else torch.diag_embed(f**2)
    mean = w @ m
    second = (w[:, None, None] * (covariances + m[:, :, None] * m[:, None])).sum(0)
    covariance = second - mean[:, None] * mean
    n = 200_000
    drawn = found.draw(n, 3).double()
    assert ((drawn.mean(0) - mean).abs() < 5 * (covariance.diagonal() / n).sqrt()).all()
    # a covariance's standard error is at most sqrt(E d_i^2 d_j^2 / n), itself taken from the draws
    away = drawn - mean
    error = torch.sqrt((away[:, :, None] * away[:, None]).square().mean(0) / n)
    assert ((torch.cov(drawn.T) - covariance).abs() < 5 * error).all()
    # the fitted mixture has the mean of its data exactly, which temperature goes about
    torch.testing.assert_close(mean, u.double().mean(0), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.draw(7, 3), drawn[:7].float())


@pytest.mark.parametrize("full", [True, False])
def test_the_mixture_is_that_of_scikit_learn(full, monkeypatch):
    monkeypatch.setattr(Gaussians, "FULL", 64 if full else 0)
    u = torch.from_numpy(stats.multivariate_normal([0, 1], [[1, 0.6], [0.6, 2]], seed=0).rvs(500)).float()
    found = Gaussians.fit(u, 4, 300, 7)
    other = GaussianMixture(
        4, covariance_type="full" if full else "diag", reg_covar=Gaussians.FLOOR, max_iter=300, random_state=7
    ).fit(u.double().numpy())
    np.testing.assert_allclose(found.log_prob(u).numpy(), other.score_samples(u.double().numpy()), atol=1e-9)
    assert 0 < found.steps <= 300


def test_few_codes_a_component_make_covariances_diagonal():
    u = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    assert Gaussians.fit(u, 3, 5, 0).factors.dim() == 3
    assert Gaussians.fit(u, 4, 5, 0).factors.dim() == 2  # 15 codes each, fewer than 5 a dimension
    with pytest.raises(ChoiceError, match=r"must lie in 1\.\.60"):
        Gaussians.fit(u, 61, 5, 0)


@pytest.mark.parametrize("name", ["gmm", "flow"])
def test_a_density_of_codes_integrates_to_one(run, name):
    fitted = run.fit_latents(name, steps=60)
    axes = [np.linspace(c - 9 * s, c + 9 * s, 301) for c, s in zip(LOC, SPREAD, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    p = np.exp(fitted.log_prob(grid)).reshape(301, 301)
    assert np.trapezoid(np.trapezoid(p, axes[1]), axes[0]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("name", "steps"), [("gmm", 100), ("flow", 300)])
def test_a_better_density_than_the_normal_is_found(run, name, steps):
    """Held-out codes of a ring: it beats N(0, I) and one Gaussian of the right moments, and leaves the middle empty."""
    held = codes(run, "valid", 1000, 5).numpy()
    fitted = run.fit_latents(name, steps=steps)
    found = fitted.record["held_out"]
    assert found["n"] == 60
    assert found["log_density"] > found["log_density_normal"] + 5 * found["se_difference"]
    better = fitted.log_prob(held) - stats.multivariate_normal(LOC, np.diag(SPREAD**2 + SIGMA**2)).logpdf(held)
    assert better.mean() > 2 * better.std() / math.sqrt(len(held))
    radius = np.sqrt((((fitted.sample(4000) - LOC) / SPREAD) ** 2).sum(1) / 2)  # 1 on the ring
    assert (radius < 0.5).mean() < 0.11  # that Gaussian has 1 - exp(-1/4) = 0.22 there
    scored = codes(run, "valid", 1000, fold(0, Key.HELD_OUT)).numpy()
    normal = stats.multivariate_normal([0, 0]).logpdf(scored)
    assert found["log_density_normal"] == pytest.approx(normal.mean(), abs=1e-4)


def test_a_second_stage_finds_two_heaps(tmp_path):
    """Codes near 4 and 6: a bound between that of one Gaussian and the density itself, and samples at both."""
    rng = np.random.default_rng(0)
    sides = rng.integers(0, 2, 500)
    x = (4 + 2 * sides + rng.normal(0, 0.15, 500)).astype(np.float32)[:, None]
    run = run_of(tmp_path, x, as_they_are(dims=1))
    fitted = run.fit_latents("two-stage", steps=300)
    held = codes(run, "valid", 1000, 5).numpy()
    spread = math.hypot(0.15, SIGMA)
    exact = np.logaddexp(*(stats.norm(side, spread).logpdf(held[:, 0]) for side in (4, 6))) - math.log(2)
    one = stats.norm(5, math.hypot(1, spread)).logpdf(held[:, 0])
    found = fitted.log_prob(held)
    # the two heaps gain a nat on one; at best two thirds of it here, and the bound's noise is far below that
    assert (found - one).mean() > 0.5
    assert (found - exact).mean() < 5 * (found - exact).std() / math.sqrt(len(held))
    z = fitted.sample(4000)[:, 0]
    assert (z > 5).mean() == pytest.approx(sides.mean(), abs=0.15)
    assert (np.abs(z - 5) < 0.5).mean() < 0.25  # one Gaussian has 0.38 there


@pytest.mark.parametrize("name", list(FEW))
def test_temperature_is_about_the_mean_of_the_codes(run, name):
    fitted = run.fit_latents(name, steps=FEW[name])
    mean = codes(run, "train", 1000, 0).numpy().mean(0)
    whole, half = fitted.sample(50, seed=4), fitted.sample(50, temperature=0.5, seed=4)
    np.testing.assert_allclose(half - mean, 0.5 * (whole - mean), atol=1e-5)
    np.testing.assert_allclose(fitted.sample(3, temperature=0.0), np.tile(mean, (3, 1)), atol=1e-5)
    np.testing.assert_allclose(fitted.sample(9, seed=4), whole[:9], atol=1e-5)  # products of other sizes
    assert not np.allclose(fitted.sample(50, seed=5), whole)


def test_the_noise_of_a_second_stage_is_not_that_of_the_data(run):
    fitted = run.fit_latents("two-stage", steps=5)
    assert isinstance(fitted.density, SecondStage)
    u = fitted.density.draw(2000, 0).numpy()
    z = run.sample_latents(2000, latents="two-stage")
    x = run.decode(z, noise=True) - run.decode(z)
    second = fitted.density.run
    inner = u - second.decode(second.sample_latents(2000, seed=fold(0, Key.SECOND_STAGE)))
    for a in inner.T:
        for b in x.T:
            assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(2000)


# --- what is kept -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(FEW))
def test_fitted_once_and_found_again(run, name):
    fitted = run.fit_latents(name, steps=FEW[name], seed=3)
    z, x = fitted.sample(20, seed=1), run.sample(20, seed=1, latents=name)
    folder = run.path / "latents"
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}
    assert {p.suffix for p in before} <= {".json", ".jsonl", ".safetensors"}
    assert not list(folder.glob(".*"))
    again = vk.open(run.path, model=as_they_are(), data=run.data)
    found = again.fit_latents(name)
    assert found.record == fitted.record == json.loads((folder / f"{name}.json").read_text())
    np.testing.assert_array_equal(found.sample(20, seed=1), z)
    np.testing.assert_array_equal(found.log_prob(z), fitted.log_prob(z))
    np.testing.assert_array_equal(again.sample(20, seed=1, latents=name), x)
    np.testing.assert_array_equal(again.sample_latents(20, seed=1, latents=name), z)
    assert before == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}
    anew = again.fit_latents(name, steps=FEW[name], seed=3, refit=True)  # a fit is a function of run and seed
    np.testing.assert_allclose(anew.sample(20, seed=1), z, atol=1e-5)
    assert (folder / f"{name}.json").stat().st_mtime_ns != before[folder / f"{name}.json"][0]


def test_the_record_and_the_line(run):
    fitted = run.fit_latents("gmm", components=4, seed=2)
    record = fitted.record
    assert (record["n"], record["split"], record["seed"], record["choices"]["components"]) == (480, "train", 2, 4)
    assert record["held_out"]["unit"] == "nats per code"
    line = str(fitted)
    assert "\n" not in line
    for part in ("gmm: 4 Gaussians (full", "480 codes", "seed 2", "60 validation codes", "under N(0, I)"):
        assert part in line
    assert f"{record['held_out']['log_density']:.2f} nats" in line
    assert "at least" in str(run.fit_latents("two-stage", steps=5))


def test_a_second_stage_is_a_run_like_any_other(run):
    run.fit_latents("two-stage", steps=30)
    second = vk.open(run.path / "latents" / "two-stage")
    assert second.config["recipe"] == "vae"
    assert second.spec.shape == (2,)
    assert second.sample(3).shape == (3, 2)


def test_other_choices_than_those_kept_are_refused_unless_fitted_anew(run):
    run.fit_latents("gmm", components=3)
    assert run.fit_latents("gmm", components=3, seed=0).record["choices"]["components"] == 3
    for other in ({"components": 4}, {"seed": 1}, {"steps": 7}):
        with pytest.raises(ChoiceError, match=f"{next(iter(other))} .*`refit=True`"):
            run.fit_latents("gmm", **other)
    assert run.fit_latents("gmm", components=4, refit=True).record["choices"]["components"] == 4
    assert len(run.fit_latents("gmm").density.weights) == 4


def test_latents_of_other_weights_are_fitted_anew(run):
    first = run.fit_latents("gmm", components=2)
    file = run.path / "model.safetensors"
    tensors, meta = read_tensors(file)
    tensors["model.posterior.net.out.bias"] += 5
    write_tensors(file, tensors, meta)
    moved = vk.open(run.path, model=as_they_are(), data=run.data)
    found = moved.fit_latents("gmm", components=2)
    np.testing.assert_allclose(found.sample(500).mean(0) - first.sample(500).mean(0), 5, atol=1e-3)


@pytest.mark.parametrize("name", list(FEW))
def test_a_fit_that_was_stopped_is_begun_again(run, monkeypatch, name):
    """If storing stops between two files, no partial fit is found, whether there was an earlier fit or not."""
    for before in (None, 3):
        if before:
            run.fit_latents(name, steps=before, refit=True)
        with monkeypatch.context() as m:
            m.setattr(resample, "write_json", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                run.fit_latents(name, steps=5, refit=True)
        assert not (run.path / "latents" / f"{name}.json").exists()
    assert run.fit_latents(name, steps=6).record["asked"]["steps"] == 6
    assert [p.name for p in (run.path / "latents").glob("*stage*") if p.is_dir()] == ["two-stage"] * (
        name == "two-stage"
    )


@pytest.mark.parametrize("name", ["gmm", "flow"])
def test_damaged_files(run, name):
    run.fit_latents(name, steps=2)
    file = run.path / "latents" / f"{name}.safetensors"
    whole = file.read_bytes()
    for content, reason in ((b"no", "not a whole safetensors file"), (None, "damaged")):
        if content is None:
            file.write_bytes(whole)
            tensors, _ = read_tensors(file)
            write_tensors(file, {n: t for n, t in tensors.items() if n.startswith("codes.")})
        else:
            file.write_bytes(content)
        with pytest.raises(RunError, match=reason):
            run.sample(3, latents=name)
    record = run.path / "latents" / f"{name}.json"
    record.write_text("[1]")
    with pytest.raises(RunError, match="`refit=True`"):
        run.fit_latents(name)
    assert run.fit_latents(name, steps=2, refit=True).sample(2).shape == (2, 2)
    stored = json.loads(record.read_text())
    record.write_text(json.dumps(stored | {"format": 99}))
    with pytest.raises(RunError, match="newer vaekit"):
        run.fit_latents(name)


@pytest.mark.parametrize("name", list(FEW))
def test_a_run_that_cannot_be_written_is_sampled_all_the_same(tmp_path, run, name, capsys):
    """A read-only run gives the same codes as a writable one; the density is fitted once per `Run` object."""
    steps = FEW[name]
    writable = shutil.copytree(run.path, tmp_path / "writable")
    wanted = vk.open(writable, model=as_they_are(), data=run.data).fit_latents(name, steps=steps).sample(5)
    (run.path / "latents").write_text("in the way")
    capsys.readouterr()
    fitted = run.fit_latents(name, steps=steps)
    said = capsys.readouterr().err
    assert "note: cannot write" in said
    assert f"the {name} is not stored with the run" in said
    np.testing.assert_allclose(fitted.sample(5), wanted, rtol=1e-5, atol=1e-5)
    assert run.fit_latents(name) is fitted
    np.testing.assert_array_equal(run.sample_latents(5, latents=name), fitted.sample(5))
    with pytest.raises(ChoiceError, match=f"fitted with steps {steps}, not 3"):
        run.fit_latents(name, steps=3)
    again = run.fit_latents(name, steps=3, refit=True)
    assert again.record["asked"]["steps"] == 3
    assert run.fit_latents(name) is again
    assert (run.path / "latents").read_text() == "in the way"


@pytest.mark.parametrize("name", list(FEW))
def test_a_disk_that_fills_up_loses_no_density(run, name, capsys, monkeypatch):
    def full(path, value):
        raise unwritable(path, OSError(errno.ENOSPC, "No space left on device"))

    monkeypatch.setattr(resample, "write_json", full)
    fitted = run.fit_latents(name, steps=3)
    assert "No space left on device" in capsys.readouterr().err
    assert fitted.sample(5).shape == (5, 2)
    assert run.fit_latents(name) is fitted


def test_densities_of_the_packaged_run_are_not_stored_in_the_package(capsys, monkeypatch, run):
    monkeypatch.setattr(example, "PLACE", run.path)
    run.fit_latents("gmm", components=2, steps=3)
    assert "the packaged run is never changed" in capsys.readouterr().err
    assert not (run.path / "latents").exists()


def test_an_interrupted_second_stage_leaves_nothing(run):
    def stop(what, done, of):
        if what == "fitting two-stage":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.fit_latents("two-stage", steps=60, progress=stop)
    assert list((run.path / "latents").iterdir()) == []


def test_progress_is_told(run):
    heard: list[tuple[str, int, int]] = []
    for name in FEW:
        run.fit_latents(name, steps=FEW[name], progress=lambda *a: heard.append(a))
    for what in ("encoding the train split", "fitting gmm", "fitting flow", "fitting two-stage"):
        told = [(done, of) for w, done, of in heard if w == what]
        assert told[-1][0] == told[-1][1], what


# --- other models -----------------------------------------------------------------------------------------------


def test_a_conditional_run_draws_the_latents_and_is_given_the_class(tmp_path):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 300)
    data = vk.from_arrays(ring(300), label=label)
    encoder, decoder = networks.MLP((5,), 4, (8,)), networks.MLP((5,), 2, (8,))

    class Both(torch.nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, *given):
            return self.net(torch.cat([g.expand(*given[0].shape[:-1], -1) for g in given], -1))

    model = VAE(
        StandardNormal((2,)),
        Conditional(Both(encoder), heads.Gaussian((2,), "learned")),
        Conditional(Both(decoder), heads.Gaussian((2,), "unit")),
        condition=3,
    )
    composition = vk.Composition(model, ELBO(), Identity(), condition=Condition("label", ("a", "b", "c")))
    run = run_of(tmp_path, data, composition)
    z = run.sample_latents(6, latents="gmm", labels=np.array([2, 2, 2, 0, 1, 2]))
    assert z.shape == (6, 5)
    assert z[:, 2:].argmax(1).tolist() == [2, 2, 2, 0, 1, 2]
    assert run.sample(6, latents="gmm").shape == (6, 2)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_every_recipe_has_latents_or_says_why_not(tmp_path, recipe):
    label = np.arange(60) % 2
    data = vk.from_arrays(blobs(60, 8, 8), label=label, columns={"big": label})
    choices = {"labelled": 10} if recipe == "semi-supervised" else {}
    run = vk.fit(data, recipe, out=tmp_path / "run", steps=2, **choices, **QUIET)
    reasons = {"semi-supervised": "discrete", "hyperspherical": "sphere"}
    reason = "discrete" if "quantiser" in RECIPES[recipe].parameters else reasons.get(recipe)
    if reason is not None:
        with pytest.raises(ChoiceError, match=reason):
            run.fit_latents("gmm")
        assert not list(run.path.glob("latents/*"))
        return
    fitted = run.fit_latents("gmm", components=2)
    x = run.sample(3, latents="gmm")
    assert x.shape == (3, 1, 8, 8)
    assert np.isfinite(x).all()
    assert math.isfinite(fitted.record["held_out"]["log_density"])


def test_codes_without_a_density_are_refused_with_the_reason(tmp_path):
    torch.manual_seed(0)
    semi = vk.Composition(m2((2,), 3, 1, (8,), "relu", heads.Gaussian((2,), "unit")), SemiSupervised(), Identity())
    for name, composition, reason in (
        ("semi", semi, "discrete"),
        ("circle", as_they_are(OnCircle((2,))), "sphere"),
    ):
        run = run_of(tmp_path, ring(60), composition, name)
        with pytest.raises(ChoiceError, match=reason):
            run.fit_latents("gmm")
        assert not list(run.path.glob("latents/*"))


@pytest.mark.parametrize(("name", "near"), [("gm", "gmm"), ("twostage", "two-stage"), ("floe", "flow")])
def test_unknown_names(run, name, near):
    with pytest.raises(ChoiceError, match=f"unknown .latents. '{name}': did you mean '{near}'"):
        run.sample(3, latents=name)


def test_wrong_choices(run):
    with pytest.raises(ChoiceError, match="`components` is for gmm"):
        run.fit_latents("flow", components=3)
    with pytest.raises(ChoiceError, match="`components` must be 1 or more"):
        run.fit_latents("gmm", components=0)
    with pytest.raises(ChoiceError, match=r"must lie in 1\.\.480"):
        run.fit_latents("gmm", components=481)
    with pytest.raises(ChoiceError, match="`steps` must be 1 or more"):
        run.fit_latents("flow", steps=0)


def test_a_flow_stops_before_it_learns_the_codes_by_heart(monkeypatch):
    """N(0, I) is the best density of normal codes; of 60 of them alone a flow would make spikes."""
    monkeypatch.setattr(NormalisingFlow, "RATE", 5e-3)
    u = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    found = NormalisingFlow.fit(u, 500, 0)
    fresh = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(1))
    normal = -0.5 * fresh.square().sum(-1) - 2 * math.log(2 * math.pi)
    assert float((found.log_prob(fresh) - normal).mean()) > -0.3
    monkeypatch.setattr(NormalisingFlow, "PATIENCE", 10**9)
    assert NormalisingFlow.fit(u, 500, 0).steps == found.steps < 500  # the best is kept, however long it goes on
