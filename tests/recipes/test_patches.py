"""The start of models with small images as codes: probabilistic PCA of patches, against NumPy."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from core_helpers import QUIET, blobs

import vaekit as vk
from vaekit.recipes import DataSpec, get_recipe
from vaekit.recipes.patches import patch_factors
from vaekit.utils.files import read_json

BETA = 0.1
CHOICES = {"hidden": (4, 4), "code_channels": 3}

CASES = [
    ("image", (3, 16, 12), {}),
    ("image", (3, 13, 10), {}),
    ("image", (3, 13, 10), {"likelihood": "logistic-mixture"}),
    ("image", (2, 13, 10), {"likelihood": "gaussian", "sigma": "optimal"}),
    ("image", (2, 9, 10), {"likelihood": "laplace", "sigma": "learned"}),
    ("image", (2, 9, 10), {"recipe": "ae", "network": "grid", "likelihood": "gaussian"}),
    ("signal", (2, 37), {}),
    ("signal", (2, 37), {"likelihood": "student-t", "sigma": "each"}),
]


def data_of(kind, shape, n=150):
    """Correlated neighbours, in the range of the kind; the last 50 are held out."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, *shape)).cumsum(-1) + rng.normal(size=(n, *(1 for _ in shape)))
    x = np.round(255 / (1 + np.exp(-x))) if kind == "image" else x
    return torch.from_numpy(x[:-50]).float(), torch.from_numpy(x[-50:]).float()


def started(kind, shape, x, recipe="grid", **choices):
    integer = kind == "image" and not {"gaussian", "laplace"} & set(choices.values())
    spec = DataSpec(kind, shape, 100, (0.0, 255.0) if integer else (-3.0, 300.0), integer)
    torch.manual_seed(0)
    made = get_recipe(recipe)(spec, **CHOICES, **choices)
    made.start(made, x)
    return made.model.eval()


def patch_pca(x, held, step, latent, beta):
    """Reconstructions and code means of `held`, sigma^2 and posterior variances, patch by patch."""
    x, held = np.asarray(x, float), np.asarray(held, float)
    mean, size = x.mean(0), x.shape[2:]
    places = list(itertools.product(*(range(0, side, step) for side in size)))

    def patch(one, place):
        full = np.zeros((len(mean), *(step for _ in size)))
        part = (one - mean)[(slice(None), *(slice(a, a + step) for a in place))]
        full[tuple(slice(side) for side in part.shape)] = part
        return full.ravel()

    rows = np.stack([patch(one, place) for one in x for place in places])
    u, s, _ = np.linalg.svd(rows.T @ rows / len(rows))
    noise = s[latent:].sum() / (len(s) - beta * latent)
    u, s = u[:, :latent], s[:latent]
    made, codes = np.zeros_like(held), np.zeros((len(held), latent, len(places)))
    for i, one in enumerate(held):
        for j, place in enumerate(places):
            along = u.T @ patch(one, place)
            codes[i, :, j] = along * np.sqrt(s - beta * noise) / s
            again = (u @ (along * (s - beta * noise) / s)).reshape(-1, *(step for _ in size))
            where = (slice(None), *(slice(a, a + step) for a in place))
            inside = tuple(slice(side) for side in made[i][where].shape)
            made[i][where] = again[inside]
    return made + mean, codes, noise, beta * noise / s


@pytest.mark.parametrize(("kind", "shape", "choices"), CASES)
def test_before_the_first_step_a_model_is_patch_pca(kind, shape, choices):
    x, held = data_of(kind, shape)
    model = started(kind, shape, x, **choices)
    beta = 0.0 if "recipe" in choices else BETA
    made, codes, _, variances = patch_pca(x, held, 4, 3, beta)
    with torch.no_grad():
        q = model.posterior(held)
        z = q.mean.reshape(codes.shape).double().numpy()
        raw = model.likelihood.net(q.mean)
        loc = model.likelihood.head.split(raw)[0].double().numpy()
    signs = np.sign((z * codes).sum((0, 2)))[None, :, None]
    np.testing.assert_allclose(z, codes * signs, atol=1e-3)
    if kind == "image" and ("likelihood" not in choices or choices["likelihood"] == "logistic-mixture"):
        if choices:  # the mean over the components
            loc = model.likelihood.head.parts(raw)[:, :5].double().mean(1).numpy()
        loc = (loc + 1) * 127.5
    np.testing.assert_allclose(loc, made, atol=2e-3 * made.std())
    if beta:
        spread = q.variance.reshape(codes.shape)
        np.testing.assert_allclose(spread, np.broadcast_to(variances[:, None], codes.shape), rtol=1e-3, atol=4e-4)


def test_codes_drawn_for_the_training_data_have_variance_1_and_errors_the_scale_of_the_likelihood():
    x, _ = data_of("image", (2, 16, 12))
    model = started("image", (2, 16, 12), x, likelihood="gaussian", sigma="optimal")
    with torch.no_grad():
        torch.manual_seed(0)
        q = model.posterior(x)
        z = q.sample()
        codes = z.reshape(100, 3, -1).transpose(0, 1).flatten(1)
        torch.testing.assert_close(codes.square().mean(1), torch.ones(3), rtol=0.05, atol=0)  # 1,200 draws each
        error = (x - model.decode(z).mean).square().mean()
        assert float(model.decode(z).variance.mean()) == pytest.approx(float(error), rel=0.02)
        found = patch_pca(x, x, 4, 3, BETA)
        assert float(error) == pytest.approx(found[2], rel=0.02)


def test_the_start_has_the_best_scale_of_each_pixel():
    x, _ = data_of("image", (3, 13, 10))
    model = started("image", (3, 13, 10), x)
    with torch.no_grad():
        torch.manual_seed(0)
        z = model.posterior(x).sample((20,))
        d = model.decode(z).base_dist
        error = (x - d.loc).square().mean((0, 1)).sqrt()
        std = torch.exp(d.log_scale[0, 0]) * math.pi / math.sqrt(3)
    torch.testing.assert_close(std, error, rtol=0.08, atol=1.5)  # the smallest scale is 0.3 levels


def test_the_weight_of_the_kl_is_in_the_closed_form():
    """E_q[log N(x; W z, v I)] - w KL falls with every change of W, of the posterior, and of v."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 5))
    cov, weight = torch.from_numpy(x.T @ x / 400), 0.3
    found = patch_factors(torch.from_numpy(x), 2, weight)

    def value(loading, inference, scale, noise):
        gap = torch.eye(5).double() - loading @ inference
        error = (gap @ cov @ gap.T).trace() + (loading.square().sum(0) * scale.square()).sum()
        kl = ((inference @ cov @ inference.T).diagonal() + scale.square() - 1 - 2 * scale.log()).sum() / 2
        return float(-error / (2 * noise) - 2.5 * math.log(noise) - weight * kl)

    noise = float(torch.linalg.eigvalsh(cov)[:3].sum()) / (5 - weight * 2)
    best = value(*found, noise)
    for seed in range(20):
        torch.manual_seed(seed)
        moved = [part * (1 + 1e-2 * torch.randn_like(part)) for part in found]
        assert value(*moved, noise) < best
    assert max(value(*found, noise * 1.01), value(*found, noise / 1.01)) < best


def test_logits_of_binary_data_start_at_the_multiple_of_highest_likelihood():
    x = (data_of("image", (1, 12, 12))[0] > 127).float()
    spec = DataSpec("image", (1, 12, 12), 100, (0.0, 1.0), True)
    made = get_recipe("grid")(spec, hidden=(4, 4), code_channels=2)
    made.start(made, x)
    with torch.no_grad():
        model = made.model.eval()
        logits = model.likelihood.net(model.encode(x)).reshape(x.shape)
        offset = torch.logit(x.mean(0), eps=1e-3)
        change = logits - offset

        def fit(factor):
            return float(torch.nn.functional.binary_cross_entropy_with_logits(offset + factor * change, x))

        assert fit(1.0) < min(fit(0.97), fit(1.03))
        assert fit(1.0) < 0.8 * fit(0.0)


def test_a_condition_changes_nothing_at_the_start():
    x, held = data_of("image", (2, 9, 6))
    spec = DataSpec("image", (2, 9, 6), 100, (0.0, 255.0), True, classes=("a", "b"))
    made = get_recipe("grid")(spec, condition="label", **CHOICES)
    c = torch.eye(2)[torch.arange(100) % 2]
    made.start(made, x, c)
    plain = started("image", (2, 9, 6), x)
    with torch.no_grad():
        z = made.model.eval().encode(held, c[:50])
        torch.testing.assert_close(z[:, :-2], plain.encode(held))
        torch.testing.assert_close(made.model.decode(z).mean, plain.decode(z[:, :-2]).mean)


def test_no_linear_path_for_missing_values_long_patches_and_runs_of_earlier_rules():
    for more in ({"missing": True}, {"rules": 7}):
        spec = DataSpec("image", (2, 9, 6), 100, (0.0, 1.0), False, **more)
        assert get_recipe("grid")(spec, **CHOICES).model.likelihood.net.direct is None
    spec = DataSpec("signal", (2, 2048), 100, (-3.0, 3.0), False)
    assert get_recipe("grid")(spec, hidden=(4,) * 10).model.likelihood.net.direct is None
    assert get_recipe("grid")(spec, hidden=(4,) * 9).model.likelihood.net.direct is not None


def test_runs_of_earlier_rules_open(tmp_path):
    data = vk.from_arrays(blobs(40, 9, 6))
    made = vk.fit(data, "grid", out=tmp_path / "run", hidden=(4,), steps=2, batch=16, direct=False, **QUIET)
    z = np.zeros((1, made.model.grid[0] * 15), np.float32)
    stored = read_json(tmp_path / "run" / "run.json")
    stored["arguments"].pop("direct")
    stored["defaults"].pop("direct", None)
    stored["data"]["facts"]["rules"] = 7
    (tmp_path / "run" / "run.json").write_text(json.dumps(stored))
    np.testing.assert_array_equal(vk.open(tmp_path / "run").decode(z), made.decode(z))
