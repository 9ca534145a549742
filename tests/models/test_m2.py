"""M2 with one style latent, so that p(x | y) is known by quadrature; its objective; the choice of labelled rows."""

import math

import numpy as np
import pytest
import torch
from core_helpers import QUIET

import vaekit as vk
from vaekit import heads
from vaekit.data.condition import Targets
from vaekit.data.observation import Identity
from vaekit.data.splits import labelled_rows
from vaekit.errors import ChoiceError
from vaekit.models.m2 import M2, m2
from vaekit.noise import Noise
from vaekit.objectives import Batch, SemiSupervised
from vaekit.objectives.terms import log_mean_weight, log_weights

C = 3
SHARES = (0.5, 0.3, 0.2)


@pytest.fixture
def tiny() -> M2:
    """Float64, 5 binary pixels, 3 classes of unequal frequency, one style latent; random weights of order 1."""
    torch.manual_seed(0)
    model = m2((1, 5), C, 1, (6,), "tanh", heads.Bernoulli((1, 5)), SHARES).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
        out = model.posterior.net.net.out  # about N(0, 1.2^2) whatever x is, so that no weight is far above the rest
        out.weight.mul_(0.2)
        out.bias.copy_(torch.tensor([0.0, 0.2]))
    return model


def data(n: int = 12) -> torch.Tensor:
    return (torch.rand(n, 1, 5, generator=torch.Generator().manual_seed(1)) < 0.5).double()


def log_joint(model: M2, x: torch.Tensor) -> torch.Tensor:
    """log p(x, y) of each class, (B, C), by the trapezium rule over z in -9..9."""
    z = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    log_prior = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
    columns = []
    for y in torch.eye(C, dtype=torch.float64):
        px = model.likelihood(z[:, None, None], y.expand(len(z), 1, C))
        terms = px.log_prob(x) + log_prior[:, None] + math.log(18 / 2000)
        columns.append(torch.logsumexp(terms, 0))
    return torch.stack(columns, 1) + torch.log(torch.tensor(SHARES, dtype=torch.float64))


def terms(model, x, y=None, noise=None, **choices):
    y = None if y is None else torch.as_tensor(y)
    return SemiSupervised(**choices)(model, Batch(x, noise or Noise.of(0, len(x)), y=y), torch.tensor(0))


# --- the model --------------------------------------------------------------------------------------------------


def test_shapes(tiny):
    x, y = data(), torch.eye(C, dtype=torch.float64)[torch.arange(12) % C]
    label, style = tiny.trace(x, k=7, noise=Noise.of(0, 12)).latents
    assert label.z.shape == (7, 12, C)
    assert style.z.shape == (7, 12, 1)
    assert label.log_q.shape == label.log_p.shape == style.log_q.shape == style.log_p.shape == (7, 12)
    assert torch.equal(label.z.sum(-1), torch.ones(7, 12))
    for k, c, lead in ((None, None, (12,)), (None, y, (12,)), (4, y, (4, 12)), (None, tiny.each_class(x, 2), (6, 12))):
        trace = tiny.trace(x, c, k, Noise.of(0, 12))
        assert trace.latents[-1].z.shape == (*lead, 1)
        assert len(trace.latents) == (2 if c is None else 1)
        assert trace.px.log_prob(x).shape == lead
    assert tiny.encode(x).shape == (12, C + 1)
    assert tiny.decode(tiny.encode(x)).mean.shape == (12, 1, 5)
    assert tiny.decode(torch.zeros(3, 12, C + 1).double()).batch_shape == (3, 12)


def test_codes_are_a_class_and_a_style(tiny):
    x = data()
    code = tiny.encode(x)
    best = tiny.classifier(x).probs.argmax(-1)
    assert torch.equal(code[:, :C].argmax(-1), best)
    torch.testing.assert_close(code[:, C:], tiny.posterior(x, code[:, :C]).mean)
    given = torch.eye(C, dtype=torch.float64)[torch.zeros(12, dtype=torch.long)]
    assert torch.equal(tiny.encode(x, given)[:, :C], given)
    drawn = tiny.encode(x.repeat(2000, 1, 1), noise=Noise.of(0, 24000)).unflatten(0, (2000, 12))
    # a share of 2,000 draws has a standard error below 0.5 / sqrt(2000)
    torch.testing.assert_close(drawn[..., :C].mean(0), tiny.classifier(x).probs, atol=5 * 0.5 / 2000**0.5, rtol=0)
    style = tiny.likelihood(code[:, C:], code[:, :C]).mean
    torch.testing.assert_close(tiny.decode(code).mean, style)


def test_samples_follow_the_prior_or_the_class_given(tiny):
    code = tiny.sample(20000, noise=Noise.of(0, 20000))
    assert code.shape == (20000, C + 1)
    torch.testing.assert_close(code[:, :C].mean(0).tolist(), list(SHARES), atol=5 * 0.5 / 20000**0.5, rtol=0)
    assert float(code[:, C].mean()) == pytest.approx(0, abs=5 / 20000**0.5)
    assert float(code[:, C].var()) == pytest.approx(1, abs=5 * (2 / 20000) ** 0.5)
    wanted = torch.eye(C)[torch.arange(9) % C]
    cold = tiny.sample(9, wanted, Noise.of(0, 9), temperature=0.0)
    assert torch.equal(cold, torch.cat([wanted, torch.zeros(9, 1)], -1))


def test_draws_of_a_class_do_not_depend_on_the_batch(tiny):
    x = data()
    whole = tiny.encode(x, noise=Noise.of(5, 12))
    part = tiny.encode(x[7:9], noise=Noise.of(5, torch.tensor([7, 8])))
    torch.testing.assert_close(part, whole[7:9])


def test_importance_weights_with_the_class_drawn_and_with_it_enumerated_give_log_p(tiny):
    x = data()
    exact = torch.logsumexp(log_joint(tiny, x), -1)
    with torch.no_grad():
        drawn = log_weights(tiny.trace(x, k=20000, noise=Noise.of(0, 12)), x)
        classes = tiny.each_class(x, 5000)
        given = log_weights(tiny.trace(x, classes, noise=Noise.of(1, 12)), x).unflatten(0, (5000, C))
        enumerated = torch.logsumexp(given + tiny.class_prior.logits[:, None], 1)
    for weights in (drawn, enumerated):
        relative = torch.exp(weights - weights.max(0).values)
        error = relative.std(0) / relative.mean(0) / len(weights) ** 0.5  # of the mean weight's logarithm
        assert (error < 0.05).all()
        assert ((log_mean_weight(weights) - exact).abs() < 5 * error).all()


@pytest.mark.parametrize("frequencies", [(1.0, 2.0), (1.0, 0.0, 1.0), (1.0, float("nan"), 1.0)])
def test_wrong_frequencies(frequencies):
    with pytest.raises(ValueError, match="frequencies must be 3 numbers above 0"):
        m2((4,), C, 2, (5,), "relu", heads.Bernoulli((4,)), frequencies)


# --- the objective ----------------------------------------------------------------------------------------------


def test_the_enumerated_bound_is_the_expectation_over_drawn_classes_and_below_log_p(tiny):
    x, n = data(), 20000
    with torch.no_grad():
        found = terms(tiny, x, samples=n).stats
        weights = log_weights(tiny.trace(x, k=n, noise=Noise.of(1, 12)), x)
        exact = torch.logsumexp(log_joint(tiny, x), -1).mean()
    # both are means over n draws; the drawn one varies with the class as well, and so by more
    error = float(weights.std(0).square().sum().sqrt()) / 12 / n**0.5
    assert float(found["elbo"]) == pytest.approx(float(weights.mean()), abs=8 * error)
    assert float(found["elbo"]) < float(exact)
    torch.testing.assert_close(found["elbo"], -(found["rate"] + found["distortion"]))


def test_a_known_class_takes_the_bound_on_the_joint(tiny):
    x, n = data(), 20000
    y = torch.arange(12) % C
    with torch.no_grad():
        loss = float(terms(tiny, x, y, alpha=0.0, samples=n).losses["model"])
        given = torch.eye(C, dtype=torch.float64)[y]
        weights = log_weights(tiny.trace(x, given, k=n, noise=Noise.of(1, 12)), x) + tiny.class_prior.logits[y]
        exact = log_joint(tiny, x).gather(-1, y[:, None]).mean()
    error = float(weights.std(0).square().sum().sqrt()) / 12 / n**0.5
    assert -loss == pytest.approx(float(weights.mean()), abs=8 * error)
    assert -loss < float(exact)


def test_gradients_of_known_data(tiny):
    """L(x, y) does not reach the classifier; the cross-entropy's gradient at the logits is (q - y) / B."""
    x, y, bias = data(), torch.arange(12) % C, tiny.classifier.net.out.bias
    (of_bound,) = torch.autograd.grad(terms(tiny, x, y, alpha=0.0).losses["model"], [bias])
    assert torch.equal(of_bound, torch.zeros_like(bias))
    (of_all,) = torch.autograd.grad(terms(tiny, x, y, alpha=0.7, labelled=0.25).losses["model"], [bias])
    expected = 0.7 / 0.25 * (tiny.classifier(x).probs - torch.eye(C, dtype=torch.float64)[y]).mean(0)
    torch.testing.assert_close(of_all, expected)
    (unknown,) = torch.autograd.grad(terms(tiny, x).losses["model"], [bias])
    assert unknown.abs().min() > 0


def test_gradients_of_unknown_data_sum_over_the_classes(tiny):
    """dU / dlogits = q (f - sum_y q f) with f = L + log q, at the very losses of the pass."""
    x, bias = data(), tiny.classifier.net.out.bias
    found = torch.autograd.grad(terms(tiny, x, noise=Noise.of(3, 12)).losses["model"], [bias])[0]
    with torch.no_grad():
        trace = tiny.trace(x, tiny.each_class(x), noise=Noise.of(3, 12))
        kl = torch.distributions.kl_divergence(trace.latents[0].q, trace.latents[0].p)
        q = tiny.classifier(x)
        f = (kl - trace.px.log_prob(x)).T - tiny.class_prior.logits + q.logits
        expected = (q.probs * (f - (q.probs * f).sum(-1, keepdim=True))).mean(0)
    torch.testing.assert_close(found, expected)


def test_batches_without_a_label(tiny):
    x = data()
    none, unknown = terms(tiny, x), terms(tiny, x, [-1] * 12, labelled=1e-3)
    for found in (none, unknown):
        assert all(bool(torch.isfinite(v)) for v in (*found.losses.values(), *found.stats.values()))
        assert found.stats["accuracy"] == 0
        torch.testing.assert_close(found.losses["model"], -found.stats["elbo"])
    torch.testing.assert_close(none.losses, unknown.losses)


def test_a_batch_is_an_unbiased_part_of_the_whole(tiny):
    """The mean loss over batches of one is that of all data; its last term is alpha times a mean over labelled rows."""
    x, y = data(), torch.full((12,), -1)
    y[[2, 5, 11]] = torch.tensor([0, 2, 1])
    share = {"alpha": 0.9, "labelled": 3 / 12}
    whole = terms(tiny, x, y, **share)
    rows = [terms(tiny, x[i : i + 1], y[i : i + 1], Noise.of(0, torch.tensor([i])), **share) for i in range(12)]
    for key in ("elbo", "rate", "distortion", "accuracy"):
        torch.testing.assert_close(torch.stack([r.stats[key] for r in rows]).mean(), whole.stats[key])
    losses = torch.stack([r.losses["model"] for r in rows])
    torch.testing.assert_close(losses.mean(), whole.losses["model"])
    q = tiny.classifier(x[[2, 5, 11]])
    cross_entropy = -q.logits.gather(-1, torch.tensor([[0], [2], [1]])).mean()
    without = terms(tiny, x, y, alpha=0.0, labelled=3 / 12).losses["model"]
    torch.testing.assert_close(whole.losses["model"] - without, 0.9 * cross_entropy)
    right = (q.logits.argmax(-1) == torch.tensor([0, 2, 1])).double().mean()
    assert float(whole.stats["accuracy"]) == pytest.approx(float(right))


def test_other_models_are_refused(tiny):
    SemiSupervised().check(tiny)
    vae = vk.gaussian_vae(torch.nn.Linear(5, 2), torch.nn.Linear(1, 5), 1, heads.Bernoulli((5,)))
    with pytest.raises(ChoiceError, match="trains an M2"):
        SemiSupervised().check(vae)


@pytest.mark.parametrize("wrong", [{"alpha": -1.0}, {"labelled": 0.0}, {"labelled": 1.5}, {"samples": 0}])
def test_wrong_choices(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SemiSupervised(**wrong)


def test_a_few_labels_name_the_clusters(tmp_path):
    """Three clusters, 6 labels in 600: the classifier's error on test data is that of the clusters' overlap, none."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, C, 750)
    x = (np.array([[4, 0], [-4, 3], [-2, -5]])[y] + rng.normal(0, 0.6, (750, 2))).astype(np.float32)
    torch.manual_seed(0)
    made = vk.from_arrays(x, label=y)
    targets = Targets(C, 6, 0)
    share = 6 / len(made.train)
    model = m2((2,), C, 1, (32,), "relu", heads.Gaussian((2,), "shared"))
    composition = vk.Composition(model, SemiSupervised(1.0, share), Identity(), targets=targets)
    run = vk.fit(made, composition, out=tmp_path / "run", steps=800, batch=50, lr=5e-3, **QUIET)
    found = run.encode("test")[:, :C].argmax(1)
    assert (found == made.test.label).mean() > 0.95
    accuracy = [r["accuracy"] for r in run.log if r["kind"] == "train"]
    # 1 in the mean; the last 250 steps see 125 labelled rows, give or take 11 at most
    assert np.mean(accuracy[-5:]) == pytest.approx(1, abs=5 * 11 / 125)
    # evaluated as any model is: a bound below the importance-weighted one
    measured = {m["name"]: m["value"] for m in run.evaluate("test", samples=50)}
    assert measured["elbo"] < measured["log_px_iw"]


# --- which rows are labelled ------------------------------------------------------------------------------------


def test_labelled_rows_are_balanced_seeded_and_nested():
    labels = np.random.default_rng(0).choice([-1, 0, 1, 2, 3], 500, p=[0.1, 0.5, 0.2, 0.15, 0.05])
    few, more = labelled_rows(labels, 10, 0), labelled_rows(labels, 60, 0)
    assert few.dtype == np.int64
    assert (np.diff(few) > 0).all()
    assert (labels[more] >= 0).all()
    assert sorted(np.bincount(labels[few])) == [2, 2, 3, 3]
    assert np.bincount(labels[more]).tolist() == [15] * 4
    assert set(few) <= set(more)
    assert np.array_equal(few, labelled_rows(labels, 10, 0))
    # the seed chooses the rows of each class, and the classes that give one more
    assert not np.array_equal(labelled_rows(labels, 8, 0), labelled_rows(labels, 8, 1))
    more = {tuple(np.bincount(labels[labelled_rows(labels, 10, seed)])) for seed in range(20)}
    assert len(more) > 3  # of 6


def test_a_class_with_few_rows_gives_what_it_has():
    labels = np.array([0] * 50 + [1] * 3 + [2] * 50 + [-1] * 5)
    assert np.bincount(labels[labelled_rows(labels, 43, 0)]).tolist() == [20, 3, 20]
    assert np.array_equal(labelled_rows(labels, 103, 0), np.arange(103))


@pytest.mark.parametrize("count", [0, 2, 104])
def test_too_few_or_too_many_labels(count):
    labels = np.array([0] * 50 + [1] * 3 + [2] * 50 + [-1] * 5)
    with pytest.raises(ChoiceError, match=r"must lie in 3\.\.103"):
        labelled_rows(labels, count, 0)
