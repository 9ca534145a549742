"""Diseases of training: each is induced by the settings of a real run on digits, and a sound run gets a clean bill."""

import json

import numpy as np
import pytest
import torch
from core_helpers import QUIET
from sklearn.datasets import load_digits

import vaekit as vk
from vaekit.diagnosis import doctor
from vaekit.diagnosis.during import collapse, independent, kl_spikes, spikes
from vaekit.diagnosis.patient import Patient
from vaekit.objectives.schedules import Constant

STAGES = ["before", "during"]


def test_a_collapsed_posterior(collapsed):
    one = doctor(collapsed, stages=STAGES)["posterior-collapse"]
    assert one.severity == "serious"
    assert one.numbers["rate"] < 0.1
    assert "`beta=1` in place of 50" in one.remedy
    assert collapsed.doctor(stages=["during"]).serious


def test_nothing_to_tell_is_no_certain_collapse(trained):
    noise = vk.from_arrays(np.random.default_rng(0).normal(size=(600, 5)))
    run = trained("noise", noise, steps=100, beta=20, latent=2)
    one = doctor(run, stages=["during"])["posterior-collapse"]
    assert (one.severity, one.certain) == ("warning", False)
    assert independent(Patient.of_run(run))


def test_a_training_thrown_off_by_its_rate(trained):
    """Which number shows it first differs between machines: such a training is chaotic."""
    run = trained("thrown", steps=500, lr=0.3, schedule="constant", optimiser="adam", hidden=(64,), clip=1e9)
    names = {one.name for one in doctor(run, stages=["during"]).findings}
    assert names & {"exploding-scales", "kl-spikes"}


def test_exploded_scales(trained):
    run = trained("sound", steps=500)
    with torch.no_grad():
        for p in run.model.posterior.net.out.parameters():
            p.mul_(40)
    seen = doctor(run, stages=["during"])
    assert seen.serious
    assert "prior standard deviations" in seen["exploding-scales"].evidence
    assert seen["exploding-scales"].numbers["posterior_mean"] > 30


def test_a_trend_is_not_a_spike():
    falling = np.array([90.0, 60, 40, 25, 18, 12, 9, 7, 6, 5, 5, 5])
    assert spikes(falling) == []
    assert spikes(falling[::-1]) == []
    assert spikes(np.where(np.arange(12) == 6, 90, falling)) == [6]


def test_a_cycle_is_no_spike(trained):
    """The KL rises where its weight falls, at the start of each of four cycles."""
    patient = Patient.of_run(trained("cycles", steps=400, cycles=100))
    rates = np.tile([300.0, 60, 30, 25, 24], 4)
    patient.log = [{"kind": "train", "step": 20 * i + 20, "rate": rate} for i, rate in enumerate(rates)]
    assert len(spikes(rates)) > 3
    assert kl_spikes(patient) is None
    rates[13] = 300
    patient.log = [{"kind": "train", "step": 20 * i + 20, "rate": rate} for i, rate in enumerate(rates)]
    patient.model.objective.beta = Constant(1.0)
    assert kl_spikes(patient).numbers["spikes"] > 3


def test_a_condition_that_says_all(trained):
    """x is a mean of its class and independent noise: nothing is left for a code, and its rate may be 0 or below."""
    rng = np.random.default_rng(0)
    label = np.arange(600) % 3
    x = 3 * rng.normal(size=(3, 5))[label] + rng.normal(size=(600, 5))
    run = trained("told", vk.from_arrays(x, label=label), recipe="conditional", steps=50, beta=20, latent=2)
    patient = Patient.of_run(run)
    patient.log = [{"kind": "valid", "step": 50, "rate": -0.077, "elbo": -9.0}]
    one = collapse(patient)
    assert (one.severity, one.certain) == ("warning", False)
    assert "exp(0) = 1.00 examples" in one.evidence
    assert "Given the class" in one.evidence
    patient.composition.condition = None
    assert not independent(patient)


def test_frozen_and_unused_layers_are_not_dead(trained):
    run = trained("sound", steps=500)
    layer = run.model.posterior.net
    first = next(p for p in layer.parameters() if p.dim() > 1)
    run.model.spare = torch.nn.Linear(8, 8)
    first.requires_grad_(False)
    assert "dying-gradients" in doctor(run, stages=["during"]).healthy
    assert not first.requires_grad


def test_dead_units(trained):
    run = trained("dead", steps=100, lr=0.5, activation="relu")
    one = doctor(run, stages=["during"])["dying-gradients"]
    assert one.numbers["share_dead"] > 0.5
    assert "`activation='gated'`" in one.remedy


def test_a_number_that_is_not_finite(digits, tmp_path):
    with pytest.raises(vk.VaekitError):
        vk.fit(digits, out=tmp_path / "nan", latent=2, hidden=(8,), steps=60, lr=1e8, **QUIET)
    seen = doctor(tmp_path / "nan", stages=["during"])
    assert seen.serious
    assert "not finite at step" in seen["non-finite"].evidence
    assert seen.skipped["exploding-scales"] == "the run has no saved weights"


def test_overfitting(trained):
    few = vk.from_arrays(load_digits().images[:150].astype(np.float32) / 16, valid=0.4)
    run = trained("few", few, steps=700, hidden=(128,), latent=10, batch=30, likelihood="gaussian")
    one = doctor(run, stages=["during"])["over-fitting"]
    assert one.numbers["decrease"] > 3 * one.numbers["se"]
    assert "`patience=5`" in one.remedy


def test_dead_codes(trained):
    run = trained("codes", recipe="fsq", posterior="nearest", levels=(8, 8), hidden=(4, 4), steps=5)
    one = doctor(run, stages=["during"])["dead-codes"]
    assert one.numbers["codes"] == 64
    assert one.numbers["used"] < 0.8 * 64
    assert "levels" in one.remedy


def test_a_training_that_ended_too_early(trained):
    settings = {"steps": 150, "validate_steps": 25, "warmup": 0, "lr": 2e-3, "schedule": "constant"}
    one = doctor(trained("early", **settings), stages=["during"])
    assert one["unfinished"].severity == "note"
    assert one.clean
    assert "extend=True" in one["unfinished"].remedy


def test_a_diagnosis_is_json(collapsed):
    seen = doctor(collapsed, stages=STAGES).as_json()
    assert json.loads(json.dumps(seen)) == seen
    assert seen["serious"]
    assert {"name", "title", "stage", "severity", "certain", "evidence", "remedy", "numbers"} == set(
        seen["findings"][0]
    )
