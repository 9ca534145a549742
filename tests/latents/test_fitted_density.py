"""The fitted density of codes: which one a run has, its gradients, and inference and samples under it."""

import json
import math

import numpy as np
import pytest
import torch
from core_helpers import QUIET, LinearGaussian
from torch.distributions import MultivariateNormal

import vaekit as vk
from vaekit.cli import main
from vaekit.errors import ChoiceError
from vaekit.latents.densities import Gaussians
from vaekit.latents.fill import infer_visible
from vaekit.latents.fitted import CodeDensity, check_source, stored_density
from vaekit.latents.resample import LatentDensity, Scale
from vaekit.utils.files import read_json, write_json

LOC, SPREAD = torch.tensor([1.0, -0.5]), torch.tensor([2.0, 0.5])


@pytest.fixture(scope="module")
def mixture():
    """Two Gaussians over standardised codes, with correlations, and their means and covariances over codes."""
    g = torch.Generator().manual_seed(0)
    a = torch.randn(2, 2, 2, generator=g, dtype=torch.float64)
    covariances = 0.1 * a @ a.mT + 0.05 * torch.eye(2, dtype=torch.float64)
    weights, means = torch.tensor([0.3, 0.7]).double(), torch.tensor([[-2.0, 0.5], [2.0, -1.0]]).double()
    density = Gaussians(weights, means, torch.linalg.cholesky(covariances))
    scale = torch.diag(SPREAD.double())
    exact = [(w, LOC + scale @ m, scale @ s @ scale) for w, m, s in zip(weights, means, covariances, strict=True)]
    return LatentDensity(density, Scale(LOC, SPREAD), {"name": "gmm"}), exact


def test_the_density_over_codes_and_its_gradient(mixture):
    latents, exact = mixture
    z = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(1), requires_grad=True)
    found = CodeDensity(latents).log_prob(z)
    want = torch.stack([torch.log(w) + MultivariateNormal(m, s).log_prob(z.double()) for w, m, s in exact]).logsumexp(0)
    torch.testing.assert_close(found, want.float())
    ours, theirs = (torch.autograd.grad(of.sum(), z, retain_graph=True)[0] for of in (found, want))
    torch.testing.assert_close(ours, theirs)
    np.testing.assert_allclose(found.detach().numpy()[0], latents.log_prob(z.detach()[0].numpy()), rtol=1e-5)


def test_codes_that_do_not_vary_stay_near_their_value(mixture):
    density = mixture[0].density
    scale = Scale(torch.cat([LOC, torch.tensor([3.0])]), torch.cat([SPREAD, torch.zeros(1)]))
    z = torch.tensor([[0.0, 0.0, 3.0], [0.0, 0.0, 5.0]], requires_grad=True)
    log_p = CodeDensity(LatentDensity(density, scale, {"name": "gmm"})).log_prob(z)
    (gradient,) = torch.autograd.grad(log_p.sum(), z)
    torch.testing.assert_close(gradient[:, 2], torch.tensor([0.0, -2.0]))
    (without,) = torch.autograd.grad(CodeDensity(mixture[0]).log_prob(flat := z[:, :2]).sum(), flat)
    torch.testing.assert_close(gradient[:, :2], without)
    log_p = log_p.detach()
    assert float(log_p[0] - log_p[1]) == pytest.approx(2.0)
    assert float(log_p[0]) == pytest.approx(
        float(CodeDensity(mixture[0]).log_prob(z[0, :2])) - 0.5 * math.log(2 * math.pi)
    )


def test_inference_under_a_mixture_is_the_conditional_of_a_linear_gaussian_model(mixture):
    latents, exact = mixture
    linear = LinearGaussian(dtype=torch.float32)
    n, visible = 30, torch.tensor([True, True, False, False, True])
    g = torch.Generator().manual_seed(2)
    z = torch.from_numpy(latents.sample(n, seed=3)).double()
    x = z @ linear.W.T + linear.b + linear.sigma * torch.randn(n, 5, generator=g, dtype=torch.float64)
    w, off = linear.W[visible], x[:, visible] - linear.b[visible]
    log_p, means, precisions = [], [], []
    for weight, mean, covariance in exact:
        marginal = MultivariateNormal(w @ mean, w @ covariance @ w.T + linear.sigma**2 * torch.eye(3))
        log_p.append(torch.log(weight) + marginal.log_prob(off))
        precisions.append(torch.linalg.inv(covariance) + w.T @ w / linear.sigma**2)
        right = torch.linalg.inv(covariance) @ mean + off @ w / linear.sigma**2
        means.append(torch.linalg.solve(precisions[-1], right.T).T)
    share = torch.softmax(torch.stack(log_p), 0)  # p(component | x_visible), (2, n)
    clear = share.max(0).values > 0.9999  # there the posterior is one Gaussian
    assert clear.sum() > 20
    of = share.argmax(0)
    q, bound = infer_visible(
        linear.model, x.float(), visible.expand(n, 5), prior=CodeDensity(latents), pairs=32, steps=300
    )
    want = torch.stack(means)[of, torch.arange(n)].float()
    torch.testing.assert_close(q.mean[clear], want[clear], atol=0.02, rtol=0)
    diagonal = torch.stack(precisions).diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(q.stddev[clear], diagonal[of].float()[clear] ** -0.5, rtol=0.1, atol=0)
    gap = 0.5 * (diagonal.log().sum(-1) - torch.stack(precisions).logdet())[of]  # of the best diagonal Gaussian
    exact_bound = torch.logsumexp(torch.stack(log_p), 0) - gap
    # the bound of 64 draws is known to 1/8 nat each
    assert float((bound - exact_bound)[clear].mean()) == pytest.approx(0, abs=0.1)


# --- of a run ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32) @ np.ones((3, 4), np.float32)
    out = tmp_path_factory.mktemp("runs") / "run"
    data = tmp_path_factory.mktemp("data") / "x.npy"
    np.save(data, x)
    return vk.fit(str(data), out=out, steps=20, latent=2, hidden=(8,), **QUIET)


def test_sample_draws_from_the_best_stored_density(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def drawn(*argv):
        assert main(["sample", str(run.path), "-n", "5", "--out", "x.npz", *argv]) == 0
        return np.load("x.npz")["z"], capsys.readouterr().err

    assert stored_density(run) is None
    assert np.array_equal(run.sample_latents(5, latents="fitted"), run.sample_latents(5))
    z, said = drawn()
    assert "codes from" not in said
    np.testing.assert_array_equal(z, run.sample_latents(5))
    best = {"gmm": 1.0, "flow": 2.0}
    for name, figure in best.items():
        run.fit_latents(name, steps=2)
        file = run.path / "latents" / f"{name}.json"
        record = read_json(file)
        record["held_out"]["log_density"] = figure
        write_json(file, record)
    assert stored_density(run).name == "flow"
    z, said = drawn()
    assert (
        said.count("codes from flow, fitted to the codes of this run; --latents prior draws them from the prior") == 1
    )
    np.testing.assert_array_equal(z, run.sample_latents(5, latents="flow"))
    np.testing.assert_array_equal(z, run.sample_latents(5, latents="fitted"))
    z, said = drawn("--latents", "Prior")
    assert "codes from" not in said
    np.testing.assert_array_equal(z, run.sample_latents(5, latents="prior"))
    np.testing.assert_array_equal(z, run.sample_latents(5))
    for name in best:  # as after more training
        file = run.path / "latents" / f"{name}.json"
        write_json(file, read_json(file) | {"weights": "other"})
    assert stored_density(run) is None
    assert main(["sample", str(run.path), "--latents", "prior", "--components", "3"]) == 2
    assert "add --latents gmm" in capsys.readouterr().err
    with pytest.raises(ChoiceError, match="did you mean 'prior'"):
        check_source("priro")


def test_the_default_compares_gains_over_the_prior_and_passes_over_what_is_worse_or_damaged(run, capsys):
    for name in ("gmm", "flow"):
        run.fit_latents(name, steps=2, refit=True)
    file = run.path / "latents" / "gmm.json"
    record = read_json(file)

    def chosen(**gmm):
        write_json(file, record | {"held_out": record["held_out"] | gmm})
        write_json(other, flow)
        stored = stored_density(run)
        return None if stored is None else stored.name, capsys.readouterr().err

    other = run.path / "latents" / "flow.json"
    flow = read_json(other)
    flow["held_out"] |= {"log_density": -1.0, "log_density_normal": -3.0}
    # measured on other codes, for which N(0, I) is better too
    assert chosen(log_density=0.0, log_density_normal=-1.0) == ("flow", "")
    # log p(z, label) = -1.5 is that of a code and its label; it competes by log p(z | label)
    assert chosen(log_density=-1.5, log_density_given=-0.5, log_density_normal=-3.0) == ("gmm", "")
    flow["held_out"]["log_density"] = -4.0
    assert chosen(log_density=-2.0, log_density_normal=-3.0) == ("gmm", "")
    found, said = chosen(log_density=-4.06, log_density_normal=-2.97)
    assert found is None
    assert "gmm is passed over" in said
    assert "-4.06 nats, less than under the prior, -2.97" in said
    flow["held_out"]["log_density"] = -2.0
    no_error = {**record, "held_out": {**record["held_out"], "se": "0.1"}}
    for text in ("{", "[]", json.dumps({"weights": record["weights"]}), json.dumps(no_error)):
        write_json(other, flow)
        file.write_text(text)
        assert stored_density(run).name == "flow"
        assert f"gmm is passed over, since {file} is damaged" in capsys.readouterr().err
    (run.path / "latents" / "flow.safetensors").write_bytes(b"no tensors")
    found, said = chosen(log_density=-2.5, log_density_normal=-3.0)
    assert found == "gmm"
    assert "flow is passed over" in said
    for name in ("gmm", "flow"):
        run.fit_latents(name, steps=2, refit=True)


def test_the_density_that_inference_uses_has_a_gradient(run):
    from vaekit.latents.fitted import density_of

    assert density_of(run, "prior") is None
    assert density_of(run, "gmm").name == "gmm"
    with pytest.raises(ChoiceError, match="two-stage, which has no gradient"):
        density_of(run, "two-stage")
    with pytest.raises(ChoiceError, match="leave `latents` out"):
        run.fill(0, "half", latents="gmm")


def test_autoencoders_of_rows_fill_under_a_density_in_python_and_on_the_command_line(run, tmp_path, capsys):
    x = np.random.default_rng(1).normal(size=(60, 2)).astype(np.float32) @ np.ones((2, 4), np.float32)
    np.save(tmp_path / "x.npy", x)
    own = vk.fit(str(tmp_path / "x.npy"), "ae", out=tmp_path / "ae", steps=20, latent=2, hidden=(8,), **QUIET)
    row = x[:1].copy()
    row[0, 1] = np.nan
    np.save(tmp_path / "row.npy", row)
    out = str(tmp_path / "f.npz")
    assert main(["fill", str(own.path), str(tmp_path / "row.npy"), "--latents", "gmm", "--out", out]) == 0
    with np.load(out) as held:
        np.testing.assert_allclose(held["filled"], own.fill(row, latents="gmm").filled, rtol=1e-5)
    capsys.readouterr()
    assert main(["fill", str(run.path), "0", "--latents", "gmm", "--out", out]) == 2
    assert "leave --latents out" in capsys.readouterr().err


def test_a_record_of_held_out_rows_is_no_density(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    run = vk.fit(vk.from_arrays(x), out=tmp_path / "run", steps=1, latent=2, hidden=(4,), **QUIET)
    run.use_data(vk.from_arrays(x))
    run.detect(samples=2, reasons=False)  # keeps the record with the run in memory
    assert stored_density(run) is None
    np.testing.assert_array_equal(run.sample(3, latents="fitted"), run.sample(3))
