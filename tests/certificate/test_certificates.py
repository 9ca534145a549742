"""`certify`: intervals that hold the exact error, and one test per disease: each fails, with its own reason."""

import contextlib
import copy
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
from vaekit.certificate import certify
from vaekit.certificate.batches import measured
from vaekit.certificate.checks import log_q
from vaekit.cli import main
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
    names = [v.name for v in found.verdicts]
    assert names == ["ELBO", "IW-100", "IW-200", "defensive mixture-200", "AIS", "JVI-100", "SUMO", "appendix D"]
    by_name = {v.name: v for v in found.verdicts}
    assert by_name["ELBO"].high < by_name["IW-200"].high  # the bound rises
    assert "not a lower bound" in by_name["SUMO"].words
    assert json.loads(json.dumps(found.as_json()))["checks"][0]["name"] == "reference"


def test_an_encoder_that_misses_the_posterior_fails_for_that_reason(run):
    with spoilt(run) as model, torch.no_grad():
        out = model.posterior.net.out
        out.weight[:4] *= -1  # all means have the wrong sign
        out.bias[:4] *= -1
        found = certify(run, **SIZE)
    assert list(failed(found)) == ["encoder"]
    check = failed(found)["encoder"]
    assert check.reason.startswith("q misses the posterior: IW-200 is")
    assert check.numbers["low"] > 10
    assert check.numbers["k_hat_above"] == 1
    assert {v.name: v for v in found.verdicts}["IW-200"].high < -5
    assert {v.name: v for v in found.verdicts}["AIS"].low > -5  # does not use the encoder


@pytest.mark.parametrize("factor", [3.0, 1 / 3])
def test_a_decoder_with_a_wrong_scale_fails_for_that_reason(run, factor):
    with spoilt(run) as model, torch.no_grad():
        model.likelihood.head.log_scale += math.log(factor)
        found = certify(run, **SIZE | {"tolerance": 10.0})
    assert set(failed(found)) == {"decoder scale"}
    numbers = failed(found)["decoder scale"].numbers
    # z was chosen by the posterior of the spoilt model: residuals are not changed by exactly the factor
    assert numbers["ratio"] == pytest.approx(1 / factor, rel=0.35)
    assert "residuals of the data are" in failed(found)["decoder scale"].reason
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
    assert "not the log density of q's own draws" in check.reason
    assert re.search(reason, check.reason), check.reason


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
    assert "above its upper bound" in checks["bounds"].reason
    words = {v.name: v.words for v in found.verdicts}
    assert words["IW-200"] == "not valid: a log density is wrong"
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
    by_name = {v.name: v for v in found.verdicts}
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
    page = tmp_path / "page.html"
    assert main(["certify", str(run.path), *options, "--tolerance", "1e-9", "--out", str(page)]) == 1
    said = capsys.readouterr().out
    assert "FAILED     reference" in said
    assert "too wide to certify: use more --steps" in said
    assert "defensive mixture-100" in said
    assert str(page) in said
    assert "failed" in page.read_text(encoding="utf8")
