"""The total count of a row: shares of a known total, or of a total with a posterior of its own."""

import math

import numpy as np
import pytest
import torch
from core_helpers import QUIET

import vaekit as vk
from vaekit.densities.count_pmf import poisson_log_pmf
from vaekit.errors import ChoiceError
from vaekit.heads import NegativeBinomialHead, PoissonHead
from vaekit.models.library import SizedVAE, Total

N, D = 80, 6
RNG = np.random.default_rng(0)
TOTALS = np.exp(RNG.normal(4, 0.6, (N, 1)))
SHARES = RNG.dirichlet(np.ones(D), 2)[np.arange(N) % 2]
COUNTS = RNG.poisson(TOTALS * SHARES).astype(np.int32)
TINY = {"latent": 2, "hidden": (8,), "batch": 20, **QUIET}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A short run of each kind."""
    out = tmp_path_factory.mktemp("library")
    data = vk.from_arrays(COUNTS, columns={"batch": np.array(["ab"[i % 2] for i in range(N)])})
    return {
        name: vk.fit(data, library=name, condition="batch", steps=40, out=out / name, **TINY)
        for name in ("observed", "latent")
    }


def test_means_are_shares_of_the_total():
    for head in (PoissonHead((D,), scaled=True, library="observed"), NegativeBinomialHead((D,), library="latent")):
        raw = torch.randn(3, head.features)
        assert head.features == head.outputs + 1
        np.testing.assert_allclose(head(raw).mean.sum(-1), raw[:, -1].exp(), rtol=1e-5)


def test_total_is_standard_on_the_rows_it_was_measured_on():
    total, x = Total(), torch.from_numpy(COUNTS).float()
    total.start(x)
    u = total(x)
    assert float(u.mean()) == pytest.approx(0, abs=1e-5)
    assert float(u.std(correction=0)) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(total.log_total(u).exp(), x.sum(-1, keepdim=True))
    assert float(total(torch.full((1, D), torch.nan))) == pytest.approx(float(-total.centre / total.spread))


def test_estimates_of_log_p_name_the_total_that_they_are_given(runs):
    for name, given in (("observed", True), ("latent", False)):
        found = runs[name].evaluate(n=2, samples=3, metrics=["log_px_mixture", "log_px_sumo"])
        assert all(("given the total of each row" in m["protocol"]["estimator"]) == given for m in found)


def test_codes_hold_the_total(runs):
    run = runs["observed"]
    assert isinstance(run.model, SizedVAE)
    z, x = run.encode("test"), run.data.test[:]
    assert z.shape[1] == 2 + 1 + 2
    np.testing.assert_allclose(run.decode(z).sum(1), x.sum(1), rtol=1e-4)
    np.testing.assert_allclose(run.reconstruct("test").sum(1), x.sum(1), rtol=1e-4)
    assert run.kl_per_latent().shape == (2,)
    totals = np.log(run.sample(400).sum(1))
    assert totals.mean() == pytest.approx(np.log(COUNTS.sum(1)).mean(), abs=0.2)
    run = runs["latent"]
    assert run.encode("test").shape[1] == 3 + 2
    assert run.kl_per_latent().shape == (3,)


def test_score_of_a_known_total_is_that_of_counts_given_it(runs):
    """Without information in z, log p(x | total) is the likelihood of shares of the total: no prior of it enters."""
    run = vk.open(runs["observed"].path, data=runs["observed"].data)
    for module in (run.model.posterior.net, run.model.likelihood.net.net):
        for p in module.parameters():
            p.data.zero_()
    x = torch.from_numpy(run.data.test[:]).float()
    z = torch.from_numpy(run.encode("test"))
    expected = run.model.decode(z).log_prob(x)
    np.testing.assert_allclose(run.score("test", samples=3), expected.detach(), atol=0.05)


def test_log_p_given_the_total_is_not_compared_with_log_p(runs):
    from vaekit.metrics import compare_all

    pair = [vk.open(run.path, data=run.data) for run in runs.values()]
    with pytest.raises(ChoiceError, match="same `library`"):
        compare_all(*pair, samples=2)
    with pytest.raises(ChoiceError, match="'IWAE-2, given the total of each row' and 'IWAE-2'"):
        compare_all(*pair, samples=2, metrics=["log_px_iw"])
    (rates,) = compare_all(*pair, samples=2, metrics=["rate"])
    assert np.isfinite(rates["value"])
    named = [d["name"] for d in compare_all(pair[0], pair[0], samples=2)]
    assert "log_px_iw difference" in named


def test_a_difference_says_what_each_density_is_given(runs, tmp_path):
    from vaekit.metrics import compare

    plain = vk.fit(runs["latent"].data, library="latent", steps=2, out=tmp_path / "plain", **TINY)
    same = compare(runs["latent"], runs["latent"], samples=2)
    other = compare(runs["latent"], plain, samples=2)
    assert "note" not in same
    assert other["note"] == "the first run is conditional on batch, the second is unconditional"


def test_score_of_a_latent_total_is_its_integral(tmp_path):
    """A Poisson model with one share: log p(x) = log of the integral of Poisson(x; l) LogNormal(l), by quadrature."""
    x = np.repeat(COUNTS.sum(1, keepdims=True), 2, 1) // np.array([2, 2], np.int32)
    data = vk.from_arrays(x.astype(np.int32))
    run = vk.fit(data, likelihood="poisson", library="latent", steps=60, out=tmp_path / "run", **TINY | {"latent": 1})
    for p in run.model.likelihood.net.net.parameters():
        p.data.zero_()  # both shares are those of the data, whatever z is
    total = run.model.likelihood.net.total
    rows = torch.from_numpy(run.data.test[:]).double()
    u = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    log_rate = total.log_total(u).double()[:, None, None] + torch.log_softmax(
        run.model.likelihood.head.centre.double(), -1
    )
    log_p = poisson_log_pmf(rows, log_rate).sum(-1) - u[:, None] ** 2 / 2 - math.log(2 * math.pi) / 2
    expected = torch.logsumexp(log_p, 0) + math.log(float(u[1] - u[0]))
    np.testing.assert_allclose(run.score("test", samples=4000), expected, atol=0.05)


def test_opened_runs_are_equal(runs):
    for run in runs.values():
        again = vk.open(run.path)
        np.testing.assert_array_equal(again.encode(COUNTS[:5], labels="a"), run.encode(COUNTS[:5], labels="a"))
        assert (
            vk.open(run.path, data=run.data).fit_latents("gmm", components=1, refit=True).sample(3).shape[1]
            == run.encode("test").shape[1] - 2
        )


def test_rows_are_detected_and_filled_where_the_total_allows_it(runs):
    new = COUNTS[:6].copy()
    new[0, 0] += 4000
    for run in runs.values():
        found = run.detect(new, labels="a", false_alarms=0.2, samples=5)
        assert found.flagged[0]
        assert found.reasons[0]
    hidden = np.arange(D) == 1
    filled = runs["latent"].fill(COUNTS[:2], hidden, labels="a", draws=1)
    assert (filled.filled[:, 1] >= 0).all()
    with pytest.raises(ChoiceError, match="needs the total count of a row"):
        runs["observed"].fill(COUNTS[:2], hidden, labels="a", draws=1)


def test_what_does_not_support_a_total_says_so(tmp_path):
    data = vk.from_arrays(COUNTS)
    for choices, message in [
        ({"library": "latent", "posterior": "full"}, "needs a Gaussian posterior"),
        ({"library": "observed", "prior": "hierarchical"}, "does not support the prior"),
        ({"library": "observed", "recipe": "vq"}, "recipe='vae'"),
    ]:
        with pytest.raises(ChoiceError, match=message):
            vk.fit(data, choices.pop("recipe", "vae"), steps=1, out=tmp_path / "run", **choices, **QUIET)
