"""Diseases of trained models: each is induced by the settings of a real run on digits; sound runs get a clean bill."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import vaekit as vk
from vaekit.diagnosis import DISEASES, doctor
from vaekit.diagnosis.after import BINS, gap, holes, kl_at_least
from vaekit.utils.files import read_json, write_json

AFTER = ["after"]


def test_sound_runs_get_a_clean_bill(sound):
    for run in sound:
        seen = doctor(run)
        assert [str(one) for one in seen.findings] == []
        assert "dead-codes" in seen.skipped
        assert len(seen.healthy) + len(seen.skipped) == len(DISEASES)
        assert not seen.serious
        assert seen.clean


def test_unused_latents(trained, collapsed):
    one = doctor(trained("wide", latent=40, steps=150, warmup=0), stages=AFTER)["unused-latents"]
    unused = one.numbers["unused"]
    assert one.severity == ("warning" if unused > 20 else "note")
    assert unused > 5
    assert f"`latent={40 - unused}`" in one.remedy
    one = doctor(collapsed, stages=AFTER)["unused-latents"]
    assert one.severity == "serious"
    assert "all data have one code" in one.evidence


def test_a_prior_that_does_not_fit_the_codes(trained):
    seen = doctor(trained("sharp", latent=20, beta=0, steps=200), stages=AFTER)
    assert seen["posterior-prior-gap"].numbers["low"] > 0.9
    assert seen["posterior-prior-gap"].numbers["kl_at_least"] > 0.1
    assert seen["prior-holes"].numbers["share_in_holes"] > 0.2
    assert "`latents='gmm'`" in seen["prior-holes"].remedy


def test_weights_without_effective_samples(trained):
    """The encoder is broken: its standard deviations are e^4 times too large."""
    run = trained("sound", steps=500)
    with torch.no_grad():
        run.model.posterior.net.out.bias[6:] += 4
    one = doctor(run, stages=AFTER)["few-effective-samples"]
    assert one.numbers["median_ess"] < 2
    assert "k-hat above 0.57, the limit for 200 draws" in one.evidence
    assert "`samples=1000`" in one.remedy


def test_a_certificate_that_failed(trained, monkeypatch):
    """`vaekit certify` of a run whose encoder is spoilt, and how the doctor reads what else it may store."""
    only = {"failed-certificate": DISEASES["failed-certificate"]}
    monkeypatch.setattr("vaekit.diagnosis.examination.DISEASES", only)
    run = trained("certified", steps=60, latent=1)
    assert "vaekit certify" in doctor(run).skipped["failed-certificate"]
    run.model.posterior.net.out.bias.data[:1] += 6
    run.certify(n=4, samples=50, chains=2, steps=60).store(run.path)
    stored = read_json(run.path / "certificate.json")
    run.evaluate(n=20, samples=20, metrics=["log_px_iw"])
    assert "failed-certificate" in doctor(run).healthy  # nothing was measured with the K of the certificate
    run.evaluate(n=20, samples=50, metrics=["log_px_iw"])
    one = doctor(run)["failed-certificate"]
    assert (one.severity, one.numbers["metrics"]) == ("warning", ["log_px_iw"])
    assert "log_px_iw (IW-50): too low by" in one.evidence

    def after(**passed):
        checks = [one | {"passed": passed.get(one["name"], True)} for one in stored["checks"]]
        verdicts = [one | {"passed": None} for one in stored["verdicts"]]
        write_json(run.path / "certificate.json", stored | {"checks": checks, "verdicts": verdicts})
        return doctor(run)

    assert after(bounds=False)["failed-certificate"].severity == "serious"
    assert after(encoder=False)["failed-certificate"].severity == "warning"
    assert "failed-certificate" in after(encoder=None).healthy
    assert "not certified" in after(reference=False).skipped["failed-certificate"]
    run.model.posterior.net.out.bias.data[:1] -= 6
    assert "other weights" in doctor(run).skipped["failed-certificate"]


def test_what_cannot_be_judged_is_not_healthy(trained):
    """12 rows are too few for the prior, copies, and the blur; a run of 20 steps has too few records."""
    few = vk.from_arrays(load_digits().images[:12].astype(np.float32) / 16)
    seen = doctor(trained("few-rows", few, steps=20))
    assert {"prior-holes", "posterior-prior-gap", "near-duplicates", "kl-spikes", "unfinished"} <= set(seen.skipped)
    assert "memorised-samples" in seen.skipped
    assert "it needs 100 test and validation examples, and there are 2" in str(seen)


def test_a_run_that_certify_refuses_is_not_sent_there(trained):
    why = doctor(trained("layers", recipe="hierarchical", steps=20), stages=AFTER).skipped["failed-certificate"]
    assert "vaekit certify" not in why


def test_holes_are_counted_as_the_mass_outside():
    """Codes on a ring: a standard normal prior has mass exp(-r^2 / 2) beyond r and the rest inside the hole."""
    rng = np.random.default_rng(0)
    angle, radius = rng.uniform(0, 2 * np.pi, 2000), 2 + rng.uniform(-0.1, 0.1, 2000)
    ring = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    prior = rng.normal(size=(2000, 2))
    count, limit = holes(ring[:1000], ring[1000:], prior)
    inside = 1 - math.exp(-((1.9 - limit) ** 2) / 2)
    outside = math.exp(-((2.1 + limit) ** 2) / 2)
    assert count / 2000 == pytest.approx(inside + outside, abs=0.04)
    assert holes(ring[:1000], ring[1000:], ring[::3])[0] / 667 < 0.02


def test_the_gap_of_shifted_normals_is_known():
    """Of unit normals d apart, the area is Phi(d / sqrt 2), the KL d^2 / 2, and that of the bins below it."""
    rng = np.random.default_rng(1)
    held, prior = rng.normal(size=(3000, 3)) + np.eye(3)[0], rng.normal(size=(3000, 3))
    seen = gap(held, prior)
    assert seen.low < 0.7602 < seen.high
    from scipy.stats import norm

    edges = norm.ppf(np.linspace(0, 1, BINS + 1))
    q = np.diff(norm.cdf(edges - 1))
    binned = float((q * np.log(q * BINS)).sum())
    assert 0.4 < binned < 0.5
    assert kl_at_least(held, prior, factorises=True) == pytest.approx(binned, abs=0.04)
    assert kl_at_least(prior[:1500], prior[1500:], factorises=True) < 0.02
    same = gap(rng.normal(size=(3000, 3)), prior)
    assert same.low < 0.5 < same.high


def test_halves_of_a_gap_are_of_whole_groups():
    """Codes that repeat 50 times are not learned in one half and met again in the other."""
    rng = np.random.default_rng(2)
    held = np.repeat(rng.normal(size=(40, 8)), 50, 0)
    grouped = gap(held, rng.normal(size=(2000, 8)), np.repeat(np.arange(40), 50))
    assert grouped.low < 0.75


def test_blurred_reconstructions(collapsed):
    one = doctor(collapsed, stages=AFTER)["blur"]
    assert one.numbers["high"] < 0.5
    assert "energy of the data" in one.evidence


def test_memorised_samples(sound, monkeypatch):
    run = sound[0]
    assert "memorised-samples" in doctor(run, stages=AFTER).healthy
    copies = run.observed("train").raw(np.arange(500))
    monkeypatch.setattr("vaekit.diagnosis.samples.drawn_by", lambda *a, **k: copies)
    one = doctor(run, stages=AFTER)["memorised-samples"]
    assert one.severity == "serious"
    assert one.numbers["preference"] > 0.9
