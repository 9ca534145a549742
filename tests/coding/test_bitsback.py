"""Archives of runs: lossless, as large as the negative ELBO, and decoded alike on any machine."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from core_helpers import QUIET, needs_compiler

import vaekit as vk
from vaekit.coding import archive, compress, decompress
from vaekit.coding.compress import disturbed, sizes_of_rounds
from vaekit.errors import ChoiceError, DataError, RunError
from vaekit.metrics import per_datum

N = 240


def levels(channels=1):
    """Images of 8 bits whose pixels depend on one number per image, over some noise."""
    rng = np.random.default_rng(channels)
    angle = rng.uniform(0, 6, (N, 1, 1, 1)) + np.arange(channels)[None, :, None, None]
    place = np.arange(6)[:, None] + 0.5 * np.arange(5)
    return np.clip(120 + 100 * np.sin(place + angle) + rng.normal(0, 6, (N, channels, 6, 5)), 0, 255).astype(np.uint8)


def bits():
    return (levels() > 120).astype(np.uint8)


def counts():
    rng = np.random.default_rng(2)
    return rng.poisson(np.exp(rng.normal(0, 0.5, (N, 1))) * np.array([0.3, 2, 20, 900.0, 7])).astype(np.float32)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of categories, counts, a constant, and cells without a value."""
    rng = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("table") / "table.csv"
    lines = ["kind,flag,events,month,unit"]
    for kind in rng.integers(3, size=N):
        flag = "" if rng.random() < 0.1 else ("no", "yes")[int((kind == 1) ^ (rng.random() < 0.1))]
        lines.append(f"{'xyz'[kind]},{flag},{rng.poisson(3 + 400 * kind)},m{rng.integers(12)},7")
    path.write_text("\n".join(lines))
    return vk.load(path, types={"events": "counts"}, missing="mask")


LEVELS = {"likelihood": "discretised-logistic"}
CASES = {
    "binary": (bits, {}),
    "levels": (levels, LEVELS),
    "categorical": (lambda: levels() // 16, {"likelihood": "categorical"}),
    "logistic mixture": (lambda: levels(3), {"likelihood": "logistic-mixture"}),
    "full covariance": (levels, {**LEVELS, "posterior": "full"}),
    "mixture prior": (levels, {**LEVELS, "prior": "mixture", "components": 4}),
    "VampPrior": (levels, {**LEVELS, "prior": "vamp", "components": 4}),
    "two layers": (levels, {**LEVELS, "prior": "hierarchical"}),
    "top-down": (levels, {**LEVELS, "recipe": "ladder", "width": 8, "latent": 1}),
    "conditional": (levels, {**LEVELS, "recipe": "conditional"}),
    "counts": (counts, {"likelihood": "negative-binomial"}),
    "zero-inflated": (counts, {"likelihood": "zero-inflated"}),
    "known total": (counts, {"likelihood": "negative-binomial", "library": "observed"}),
    "table": (None, {}),
    "autoregressive": (None, {"likelihood": "autoregressive"}),
}


def fitted(case, folder, table=None):
    make, settings = CASES[case]
    settings = dict(settings)
    recipe = settings.pop("recipe", "vae")
    if make is None:
        data = table
    else:
        x = make()
        data = vk.from_arrays(x, label=np.arange(N) % 3, **({"kind": "counts"} if x.ndim == 2 else {}))
    small = {} if recipe == "ladder" else {"latent": 3, "hidden": (16,)}
    run = vk.fit(data, recipe, out=folder, steps=30, batch=40, **small, **settings, **QUIET)
    run.use_data(data)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fitted("binary", tmp_path_factory.mktemp("coding") / "run")


@pytest.fixture(scope="module")
def packed(run):
    made = compress(run, "test", path=run.path.parent / "test.vk")
    return made.path, run.observed("test").raw(np.arange(made.n))


@pytest.mark.parametrize("case", CASES)
def test_data_come_back_and_cost_their_negative_elbo(case, tmp_path, table):
    run = fitted(case, tmp_path / "run", table)
    made = compress(run, "train", path=tmp_path / "train.vk")
    raw = run.observed("train").raw(np.arange(made.n))
    back = decompress(run, made.path)
    assert back.dtype == raw.dtype
    np.testing.assert_array_equal(back, raw)
    assert made.size == made.path.stat().st_size
    assert made.start_up < 2500
    # one draw of z per datum was coded: its mean differs from the ELBO by the deviation of such draws
    few = [per_datum(run, run.observed("train"), 1, seed=seed).elbo for seed in range(6)]
    error = 3 * np.std(few, 0, ddof=1).mean() * np.sqrt(made.n * (1 + 1 / 6)) / np.log(2) / 8
    exact = -np.mean(few, 0).sum() / np.log(2) / 8
    assert made.coded == pytest.approx(exact, abs=0.01 * exact + error + 8)
    assert made.expected == pytest.approx(exact, abs=error)
    assert (made.known > 0) == (case in ("conditional", "known total", "table", "autoregressive"))


def test_the_packaged_run_codes_fashion_mnist(fashion_mnist, tmp_path):
    run = vk.open("example")
    made = compress(run, "test", path=tmp_path / "test.vk", n=1000, observed=True)
    x = decompress(run, made.path)
    np.testing.assert_array_equal(x, run.observed("test")(np.arange(1000)).numpy())
    elbo = per_datum(run, run.observed("test"), 10, n=1000).elbo.sum()
    assert made.coded == pytest.approx(-elbo / np.log(2) / 8, rel=0.01)
    assert made.start_up < 1500


def test_data_that_x_does_not_determine_are_refused(fashion_mnist, tmp_path):
    with pytest.raises(DataError, match="observed=True"):
        compress(vk.open("example"), "test", path=tmp_path / "test.vk", n=5)
    assert not list(tmp_path.iterdir())


# --- other machines ---------------------------------------------------------------------------------------------


def test_networks_that_differ_by_the_tolerance_decode_alike(run, packed):
    path, raw = packed

    def prepare(network):
        network.net = disturbed(network.net, network.tolerance, "another seed")

    np.testing.assert_array_equal(decompress(run, path, prepare=prepare), raw)


def test_single_precision_decodes_what_allows_for_it_and_is_refused_otherwise(run, packed, tmp_path):
    path, raw = packed
    wide = compress(run, "test", path=tmp_path / "wide.vk", tolerance=2.0**-16)
    np.testing.assert_array_equal(decompress(run, wide.path, dtype=torch.float32), raw)
    np.testing.assert_array_equal(decompress(run, wide.path), raw)
    assert wide.coded < 1.05 * wide.expected

    def prepare(network):  # far beyond the tolerance
        network.net = disturbed(network.net, 1e-3, "far")

    with pytest.raises(DataError, match="differ here by more than the tolerance"):
        decompress(run, path, prepare=prepare)


@needs_compiler
def test_compiled_networks_decode_what_eager_ones_encoded(run, packed):
    path, raw = packed

    def prepare(network):
        if network.what == "likelihood":
            network.net = torch.compile(network.net, dynamic=True)

    np.testing.assert_array_equal(decompress(run, path, prepare=prepare), raw)


def test_other_threads_and_instructions_decode_alike(run, packed):
    """In a process with two threads and without the vector instructions of this one."""
    path, raw = packed
    code = (
        "import sys, numpy as np, torch, vaekit as vk\n"
        "from vaekit.coding import decompress\n"
        "torch.set_num_threads(2)\n"
        "np.save(sys.argv[3], decompress(vk.open(sys.argv[1]), sys.argv[2]))"
    )
    out = path.with_suffix(".npy")
    plain = {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "NPY_DISABLE_CPU_FEATURES": "AVX2"}
    done = subprocess.run(
        [sys.executable, "-c", code, run.path, path, out], env=os.environ | plain, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(out), raw)


# --- archives ---------------------------------------------------------------------------------------------------


def test_an_archive_of_another_run_is_refused(run, packed, tmp_path):
    other = fitted("levels", tmp_path / "other")
    with pytest.raises(DataError, match="made with another run"):
        decompress(other, packed[0])


@pytest.mark.parametrize("place", [0, 9, 14, 60, -9, -2])
def test_damage_is_noticed(run, packed, tmp_path, place):
    content = bytearray(packed[0].read_bytes())
    content[place] ^= 16
    (tmp_path / "damaged.vk").write_bytes(content)
    with pytest.raises(DataError, match=r"damaged|not an archive"):
        decompress(run, tmp_path / "damaged.vk")


def test_headers_that_cannot_be_are_refused(run, packed, tmp_path):
    whole = archive.read(packed[0])
    for changed in (
        {"n": 0}, {"n": 2**60}, {"shape": []}, {"shape": [1, 6, 4]}, {"dtype": "O"}, {"version": 2}, {"at_once": "x"},
        {"scheme": {}}, {"scheme": whole.header["scheme"] | {"top": -1}}, {"tolerance": None}, {"n": whole.n - 1},
    ):  # fmt: skip
        path = tmp_path / "changed.vk"
        archive.write(path, archive.Archive(whole.header | changed, whole.stack, whole.known).to_bytes()[0])
        with pytest.raises(DataError):
            decompress(run, path)
    with pytest.raises(RunError, match="cannot read"):
        decompress(run, tmp_path / "none.vk")


def test_no_data_and_no_tolerance_are_refused(run, tmp_path):
    with pytest.raises(ChoiceError, match="must be 1 or more"):
        compress(run, "test", path=tmp_path / "a.vk", n=0)
    with pytest.raises(ChoiceError, match="`tolerance` must be"):
        compress(run, "test", path=tmp_path / "a.vk", tolerance=0.5)


@pytest.mark.parametrize(
    ("recipe", "settings", "said"),
    [
        ("vae", {"likelihood": "gaussian"}, "discretised-logistic"),
        ("iaf", LEVELS, "posterior='gaussian'"),
        ("flow-prior", LEVELS, "prior='mixture'"),
        ("vq", LEVELS, "cannot be coded"),
        ("semi-supervised", LEVELS, "hierarchical"),
    ],
)
def test_runs_that_cannot_be_coded_say_what_can(recipe, settings, said, tmp_path):
    data = vk.from_arrays(levels()[:60], label=np.arange(60) % 2)
    small = {} if recipe == "vq" else {"latent": 3}
    run = vk.fit(data, recipe, out=tmp_path / "run", steps=1, **small, hidden=(8,), **settings, **QUIET)
    with pytest.raises(ChoiceError, match=said):
        compress(run, levels()[:5], path=tmp_path / "a.vk", labels=[0] * 5 if run.composition.condition else None)


def test_real_columns_are_named(tmp_path):
    (tmp_path / "t.csv").write_text("kind,height\n" + "\n".join(f"{'ab'[i % 2]},{i / 7:.3f}" for i in range(60)))
    run = vk.fit(vk.load(tmp_path / "t.csv"), out=tmp_path / "run", steps=1, latent=2, hidden=(8,), **QUIET)
    with pytest.raises(ChoiceError, match=r"'height'.*types="):
        compress(run, "test", path=tmp_path / "a.vk")


def test_rounds_grow_from_one_datum():
    sizes = list(sizes_of_rounds(1000, 64, 4))
    assert sum(sizes) == 1000
    assert sizes[:6] == [1] * 6
    assert max(sizes) == 64
    assert all(size <= max(1, sum(sizes[:i]) // 4) for i, size in enumerate(sizes))
