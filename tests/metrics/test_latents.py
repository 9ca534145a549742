"""Latents have the same numbers and the same count wherever they are shown."""

import numpy as np
import pytest

import vaekit as vk
from vaekit.cli import main
from vaekit.explorer import about
from vaekit.explorer.points import gather
from vaekit.metrics import evaluate, is_active, latent_names, survey
from vaekit.metrics.latents import variances
from vaekit.report.look import Look
from vaekit.report.sections import traversals


def pictures(path, n=80):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 60, (n, 6, 6))
    x[np.arange(n), np.arange(n) % 6] += 190
    np.savez(path, x=x.astype(np.uint8), label=np.array(["a", "b", "c"])[np.arange(n) % 3])
    return vk.load(path)


def test_the_threshold_is_on_the_unbiased_variance():
    steps = np.sqrt(np.array([0.036, 0.028]))  # unbiased variances 0.012 and 0.0093; biased ones 0.008 and 0.0062
    np.testing.assert_array_equal(is_active(np.stack([0 * steps, 0 * steps, steps])), [True, False])
    assert is_active(np.zeros((1, 3))).all()


def test_the_variance_of_many_large_codes_keeps_its_digits():
    z = (1000 + 0.09 * np.random.default_rng(0).normal(size=(20_000, 1))).astype(np.float32)
    assert variances(z)[0] == pytest.approx(z.astype(np.float64).var(ddof=1), rel=1e-9)


@pytest.fixture(scope="module", params=["vae", "semi-supervised", "conditional"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    data = pictures(folder / "pictures.npz")
    return vk.fit(
        data,
        request.param,
        out=folder / "run",
        steps=12,
        latent=4,
        hidden=(8,),
        progress=False,
        compile="off",
        device="cpu",
    )


def test_report_traversal_explorer_and_metric_agree(run, tmp_path):
    found = survey(run)
    width = run.encode("test", n=1).shape[1]
    names = latent_names(run, width)
    assert found.names == [names[i] for i in found.places] == ["z0", "z1", "z2", "z3"]
    assert [n for i, n in enumerate(names) if i not in found.places] == (["a", "b", "c"] if width > 4 else [])
    np.testing.assert_array_equal(found.active, is_active(run.encode("test"))[found.places])
    shown = [found.names[i] for i in found.order]

    (metric,) = evaluate(run, samples=1, metrics=["active_units"], store=False)
    assert metric["value"] == found.active.sum()

    page = about.latents(run, gather(run, 40, 4e6, lambda *_: None, samples=0))
    assert page["names"] == names
    assert [page["names"][i] for i in page["order"]][:4] == shown
    np.testing.assert_array_equal(np.array(page["dead"])[found.places], ~found.active)

    look = Look(run)
    rows = traversals(look)[0].rows
    active = [found.names[i] for i in found.order if found.active[i]]
    unused = [found.names[i] for i in found.order if not found.active[i]]
    assert [row.label for row in rows] == [*active, *unused[: len(rows) - len(active)]]
    assert look.latent_names == found.names

    assert main(["traverse", str(run.path), "--out", str(tmp_path / "t.npz")]) == 0
    traversed = np.load(tmp_path / "t.npz")
    assert traversed["names"].tolist() == shown
    np.testing.assert_array_equal(traversed["latents"], found.places[found.order])
