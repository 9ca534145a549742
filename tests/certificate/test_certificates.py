"""`certify`: intervals that hold the exact error, and one test per disease: each fails, with its own reason."""

import contextlib
import copy
import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch
from core_helpers import QUIET, LinearGaussian, model_of
from torch import distributions as D

import vaekit as vk
from vaekit import toys
from vaekit.certificate import bounds, certify
from vaekit.certificate.batches import measured
from vaekit.certificate.checks import encoder, log_q
from vaekit.cli import main
from vaekit.coding.compress import digest_of
from vaekit.data.observation import Identity
from vaekit.errors import ChoiceError
from vaekit.objectives import ELBO
from vaekit.recipes import RECIPES, Composition, DataSpec
from vaekit.runs.trained import TrainedModel

SIZE = {"n": 10, "samples": 200, "chains": 4, "steps": 40, "tolerance": 4.0}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run with four latents, whose log p(x) is bounded by bidirectional Monte Carlo."""
    small = {"latent": 4, "hidden": (48,), "steps": 500, "likelihood": "gaussian"}
    return vk.fit("digits", "vae", out=tmp_path_factory.mktemp("certify") / "run", **small, **QUIET)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """Fewer draws of the posterior, which would be half of the work."""
    monkeypatch.setattr("vaekit.certificate.bounds.DRAWS", 12)


@contextlib.contextmanager
def spoilt(run):
    """Restores weights and posterior of the model afterwards."""
    state, posterior = copy.deepcopy(run.model.state_dict()), run.model.posterior
    try:
        yield run.model
    finally:
        run.model.posterior = posterior
        run.model.load_state_dict(state)


def failed(certificate):
    return {check.name: check for check in certificate.checks if check.passed is False}


def test_a_healthy_run_passes_and_states_its_protocol(run):
    found = certify(run, **SIZE)
    assert found.passed, str(found)
    assert found.method == "bidirectional Monte Carlo"
    assert 0 < found.width < 4
    assert (found.protocol["n"], found.protocol["K"]) == (10, 200)
    assert "4 chains of 40 steps" in found.protocol["estimator"]
    names = [v.estimate for v in found.verdicts]
    assert names == ["ELBO", "IW-100", "IW-200", "defensive mixture-200", "AIS", "JVI-100", "SUMO", "appendix D"]
    by_name = {v.estimate: v for v in found.verdicts}
    assert by_name["ELBO"].high < by_name["IW-200"].high  # the bound rises
    assert "not a lower bound" in by_name["SUMO"].words
    known = {(v.metric, v.K) for v in found.verdicts}
    assert {("elbo", 200), ("log_px_iw", 100), ("log_px_iw", 200), ("log_px_jvi", 100)} < known
    assert by_name["AIS"].metric is None  # the metric has other settings
    plain = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert plain["checks"][0].keys() == {"name", "passed", "words", "numbers"}
    assert plain["checks"][0]["name"] == "reference"
    assert (plain["step"], plain["weights"]) == (500, digest_of(run))
    assert (by_name["ELBO"].passed, plain["certified"]) == (True, True)
    assert found.k_hat["limit"] == pytest.approx(1 - 1 / math.log10(200))


def test_an_encoder_that_misses_the_posterior_fails_for_that_reason(run):
    with spoilt(run) as model, torch.no_grad():
        out = model.posterior.net.out
        out.weight[:4] *= -1  # all means have the wrong sign
        out.bias[:4] *= -1
        found = certify(run, **SIZE)
    assert list(failed(found)) == ["encoder"]
    check = failed(found)["encoder"]
    assert check.words.startswith("q misses the posterior: IW-200 is")
    assert check.numbers["low"] > 10
    assert check.numbers["k_hat_above"] == 1
    by_name = {v.estimate: v for v in found.verdicts}
    assert by_name["IW-200"].high < -5
    assert by_name["IW-200"].passed is False
    assert "its error may be larger, as k-hat is above 0.57 for" in by_name["IW-200"].words
    assert {v.estimate: v for v in found.verdicts}["AIS"].low > -5  # does not use the encoder


@pytest.mark.parametrize("factor", [3.0, 1 / 3])
def test_a_decoder_with_a_wrong_scale_fails_for_that_reason(run, factor):
    with spoilt(run) as model, torch.no_grad():
        model.likelihood.head.log_scale += math.log(factor)
        found = certify(run, **SIZE | {"tolerance": 10.0})
    assert set(failed(found)) == {"decoder scale"}
    numbers = failed(found)["decoder scale"].numbers
    # z was chosen by the posterior of the spoilt model: residuals are not changed by exactly the factor
    assert numbers["ratio"] == pytest.approx(1 / factor, rel=0.35)
    assert "residuals of the data are" in failed(found)["decoder scale"].words
    if factor < 1:  # too sure: the data are far less likely than what the model generates
        assert numbers["log_px"] < numbers["log_px_simulated"] - 100


class WrongLogQ(torch.nn.Module):
    """A posterior that draws from N(loc, scale^2) and reports another density."""

    no_density = None

    def __init__(self, posterior, wrong):
        super().__init__()
        self.posterior, self.wrong = posterior, wrong

    def forward(self, *given):
        q, wrong = self.posterior(*given).base_dist, self.wrong

        class Wrong(D.Normal):
            def log_prob(self, z):
                return wrong(self.loc, self.scale, z)

        return D.Independent(Wrong(q.loc, q.scale, validate_args=False), 1)


def normal(loc, scale, z):
    return D.Normal(loc, scale).log_prob(z)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda loc, scale, z: normal(loc, scale, z) - 0.9189, r"it is 3\.[5-9]\d* nats too low, because E_q"),
        (lambda loc, scale, z: normal(loc, 0.8 * scale, z), "nats too high, because E_q"),
        (lambda loc, scale, z: normal(loc, scale**2, z), "below the log density of a Gaussian"),
    ],
    ids=["constant twice", "scale", "variance for scale"],
)
def test_a_log_q_that_is_not_the_density_of_its_draws_is_found(run, wrong, reason):
    batch = measured(run, run.observed("test"), 24)
    assert log_q(batch, 400, seed=0).passed
    with spoilt(run) as model:
        model.posterior = WrongLogQ(model.posterior, wrong)
        check = log_q(measured(run, run.observed("test"), 24), 400, seed=0)
    assert check.passed is False
    assert "not the log density of q's own draws" in check.words
    assert re.search(reason, check.words), check.words


def test_a_wrong_log_q_fails_and_other_diseases_are_not_named(run):
    with spoilt(run) as model:
        model.posterior = WrongLogQ(model.posterior, lambda loc, scale, z: normal(loc, scale, z) - 2)
        found = certify(run, **SIZE)
    checks = {check.name: check for check in found.checks}
    assert [checks[name].passed for name in ("log q", "bounds", "encoder", "decoder scale")] == [
        False,
        False,
        None,
        True,
    ]
    assert "above its upper bound" in checks["bounds"].words
    words = {v.estimate: v.words for v in found.verdicts}
    assert words["IW-200"] == "not valid: a log density is wrong"
    passed = {v.estimate: v.passed for v in found.verdicts}
    assert (passed["IW-200"], passed["ELBO"], passed["SUMO"]) == (False, False, False)
    assert passed["AIS"] is not False
    assert "not valid" not in words["AIS"]


# --- exact references -------------------------------------------------------------------------------------------


def linear_run():
    world = LinearGaussian(dims=6, latent=3, dtype=torch.float32)
    return world, model_of(Composition(world.model, ELBO(), Identity()), (6,))


def test_a_closed_form_gives_the_exact_error():
    world, run = linear_run()
    world.spoil(0.0, 1.5)
    found = certify(run, world.data(10).numpy(), **SIZE)
    assert (found.method, found.width, found.exact_on_data) == ("closed form", 0, True)
    assert found.passed, str(found)
    # KL(q || posterior) = latents (1.5^2 - 1 - 2 log 1.5) / 2 for every datum
    kl = 1.5 * (1.5**2 - 1 - 2 * math.log(1.5))
    by_name = {v.estimate: v for v in found.verdicts}
    assert by_name["ELBO"].low < -kl < by_name["ELBO"].high
    assert by_name["ELBO"].gap == pytest.approx(-kl, abs=0.15)
    assert by_name["IW-200"].words == "right to 0.1 nats"
    assert found.k_hat["95%"] < 0.7
    assert found.log_px == pytest.approx(float(world.log_p(world.data(10)).mean()), abs=1e-3)


def test_quadrature_is_the_reference_with_few_latents_and_q_is_judged_on_the_data():
    model = toys.curve(sigma=0.3).float()
    run = model_of(Composition(model, ELBO(), Identity()), (2,))
    found = certify(run, toys.sample(model, 10, seed=5)[1].numpy(), **SIZE)
    assert (found.method, found.exact_on_data) == ("quadrature", True)
    known = toys.Quadrature.over(1).log_px(model.double(), toys.sample(model, 10, seed=5)[1].double())
    assert found.log_px == pytest.approx(float(known.mean()), abs=0.05)


def test_what_cannot_be_certified_is_refused():
    _, run = linear_run()
    with pytest.raises(ChoiceError, match="`chains` must be 2 or more for a certificate, got 1"):
        certify(run, np.zeros((5, 6), np.float32), chains=1)
    data = vk.from_arrays(np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32))
    spec = DataSpec.of(data)
    ladder = TrainedModel(RECIPES["hierarchical"](spec, latent=3, hidden=(4,)), spec, data)
    with pytest.raises(ChoiceError, match="several layers"):
        certify(ladder)


def test_the_command_prints_writes_the_page_and_exits_with_1_when_a_check_fails(run, capsys, tmp_path):
    options = ["-n", "5", "--samples", "100", "--chains", "2", "--steps", "20", "--seed", "3"]
    assert main(["certify", str(run.path), *options, "--tolerance", "1e-9"]) == 1
    said = capsys.readouterr().out
    assert "FAILED     reference: not certified: " in said
    assert "too wide: use more --steps" in said
    assert "defensive mixture-100" in said
    assert "not judged: 100 draws are too few" in said
    assert str(run.path / "certificate.html") in said
    page = (run.path / "certificate.html").read_text(encoding="utf8")
    assert "not certified" in page
    assert "no number is known to be wrong" in page
    stored = json.loads((run.path / "certificate.json").read_text(encoding="utf8"))
    assert (stored["step"], stored["weights"], stored["certified"]) == (500, digest_of(run), False)
    assert {v["metric"]: v["passed"] for v in stored["verdicts"]}["log_px_iw"] is None


def test_the_encoder_is_not_said_to_reach_the_posterior_when_the_gap_is_unknown(run):
    """A gap of 2 nats in the mean whose interval holds 0, and one that is small for certain."""
    batch = measured(run, run.observed("test"), 6)
    size = bounds.Size(chains=2, samples=200, codes=10_000, seed=0)
    chains = bounds.annealed(batch, None, size, 20, lambda: None)
    found = bounds.estimates(chains, size)
    for gaps, passed in ((np.array([12.0, 0, 0, 0, 0, 0]), None), (np.full(6, 0.1), True)):
        truth = bounds.Truth("bidirectional Monte Carlo", found.values["IW-200"] + gaps, None)
        check = encoder(batch, truth, chains, found, 200, valid=True)
        assert check.passed is passed, check.words
    heavy = dataclasses.replace(found, k_hat=np.ones(6))
    truth = bounds.Truth("bidirectional Monte Carlo", found.values["IW-200"] + 50, None)
    assert encoder(batch, truth, chains, heavy, 200, valid=True).passed is False
    few = encoder(batch, truth, chains, heavy, 199, valid=True)
    assert (few.passed, "199 draws are too few to judge k-hat" in few.words) == (None, True)


def test_memory_does_not_grow_with_the_number_of_data(run, monkeypatch):
    """The codes decoded at once, with a quarter of them for gradients, and the same certificate as in one block."""
    small = {"n": 6, "samples": 60, "chains": 2, "steps": 20, "tolerance": 100.0}
    whole, most, with_gradient = certify(run, **small), [], []

    def count(module, given):
        (with_gradient if given[0].requires_grad else most).append(given[0].shape[:-1].numel())

    monkeypatch.setattr("vaekit.runs.likelihood._decodes", lambda dims, device: 128)
    hook = run.model.likelihood.register_forward_pre_hook(count)
    parts = certify(run, **small)
    hook.remove()
    assert max(most) <= 128
    assert max(with_gradient) <= 32
    assert parts.log_px == pytest.approx(whole.log_px, abs=0.02)
    for one, other in zip(parts.verdicts, whole.verdicts, strict=True):
        assert one.value == pytest.approx(other.value, abs=0.05), one.estimate
    numbers = [next(c for c in found.checks if c.name == "decoder scale").numbers for found in (parts, whole)]
    assert numbers[0]["ratio"] == pytest.approx(numbers[1]["ratio"], abs=0.02)
