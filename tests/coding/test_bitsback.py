"""Archives of runs: lossless, as large as the negative ELBO, and decoded alike on any machine."""

import contextlib
import os
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from core_helpers import QUIET, needs_compiler
from other_maths import other_maths

import vaekit as vk
from vaekit.coding import archive, compress, decompress
from vaekit.coding.compress import disturbance, starts_of_rounds
from vaekit.errors import ChoiceError, DataError, RunError
from vaekit.metrics import per_datum

N = 150


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
    "top-down, grids": (levels, {**LEVELS, "recipe": "ladder", "layers": (1, 1), "width": 4, "latent": 1}),
    "conditional": (levels, {**LEVELS, "recipe": "conditional"}),
    "counts": (counts, {"likelihood": "negative-binomial"}),
    "zero-inflated": (counts, {"likelihood": "zero-inflated"}),
    "known total": (counts, {"likelihood": "negative-binomial", "library": "observed"}),
    "table": (None, {}),
    "autoregressive": (None, {"likelihood": "autoregressive"}),
    "vq": (levels, {**LEVELS, "recipe": "vq"}),
    "fsq": (levels, {**LEVELS, "recipe": "fsq", "prior": "independent"}),
    "drawn codes": (levels, {**LEVELS, "recipe": "residual-vq", "codes": 6, "dim": 2, "posterior": "stochastic"}),
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
    small = {} if recipe in ("ladder", "vq", "fsq", "residual-vq") else {"latent": 3, "hidden": (16,)}
    run = vk.fit(data, recipe, out=folder, steps=10, batch=40, **small, **settings, **QUIET)
    run.use_data(data)
    return run


@pytest.fixture(scope="module")
def packed_case(tmp_path_factory, table):
    """packed_case(name) -> the run of a case, the archive of its training data, and these."""
    made = {}

    def of(case):
        if case not in made:
            folder = tmp_path_factory.mktemp("coding")
            run = fitted(case, folder / "run", table)
            packed = compress(run, "train", path=folder / "train.vk")
            made[case] = run, packed, run.observed("train").raw(np.arange(packed.n))
        return made[case]

    return of


@pytest.fixture(scope="module")
def run(packed_case):
    return packed_case("binary")[0]


@pytest.fixture(scope="module")
def packed(packed_case):
    _, made, raw = packed_case("binary")
    return made.path, raw


@pytest.mark.parametrize("case", CASES)
def test_data_come_back_and_cost_their_negative_elbo(case, packed_case):
    """Decoded with special functions that differ by some units in the last place."""
    run, made, raw = packed_case(case)
    with other_maths():
        back = decompress(run, made.path)
    assert back.dtype == raw.dtype
    np.testing.assert_array_equal(back, raw)
    assert made.size == made.path.stat().st_size
    assert made.start_up < 2500
    # one draw of z per datum was coded: its mean differs from the ELBO by the deviation of such draws
    few = [per_datum(run, run.observed("train"), 1, seed=seed).elbo for seed in range(4)]
    error = 3 * np.std(few, 0, ddof=1).mean() * np.sqrt(made.n * (1 + 1 / 4)) / np.log(2) / 8
    exact = -np.mean(few, 0).sum() / np.log(2) / 8
    assert made.coded == pytest.approx(exact, abs=0.01 * exact + error + 8)
    assert made.expected == pytest.approx(exact, abs=error)
    assert (made.known > 0) == (case in ("conditional", "known total", "table", "autoregressive"))


def test_the_packaged_run_codes_fashion_mnist(fashion_mnist, tmp_path):
    run = vk.open("example")
    made = compress(run, "test", path=tmp_path / "test.vk", n=500, observed=True)
    x = decompress(run, made.path)
    np.testing.assert_array_equal(x, run.observed("test")(np.arange(500)).numpy())
    elbo = per_datum(run, run.observed("test"), 10, n=500).elbo.sum()
    assert made.coded == pytest.approx(-elbo / np.log(2) / 8, rel=0.01)
    assert made.start_up < 1500


def test_data_that_x_does_not_determine_are_refused(fashion_mnist, tmp_path):
    with pytest.raises(DataError, match="observed=True"):
        compress(vk.open("example"), "test", path=tmp_path / "test.vk", n=5)
    assert not list(tmp_path.iterdir())


# --- other machines ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["binary", "autoregressive", "vq", "drawn codes"])
def test_networks_that_differ_by_the_tolerance_decode_alike_and_beyond_it_not(case, packed_case):
    run, made, raw = packed_case(case)

    def prepare(network):
        network.change = disturbance(network.tolerance * (1 if near else 2**20), "another seed")

    for near in (True, False):
        with contextlib.nullcontext() if near else pytest.raises(DataError, match="differ here by more than the tol"):
            np.testing.assert_array_equal(decompress(run, made.path, prepare=prepare), raw)


def test_the_columns_of_an_autoregressive_density_are_rounded_too(packed_case):
    run, made, _ = packed_case("autoregressive")

    def prepare(network):
        if network.what == "likelihood":
            first, change = [], disturbance(2.0**-12, "columns")  # changes columns, but not the network before them
            network.change = lambda raw: change(raw) if first or first.append(1) else raw

    with pytest.raises(DataError, match="differ here by more than the tolerance"):
        decompress(run, made.path, prepare=prepare)


@pytest.mark.parametrize("case", ["binary", "full covariance", "two layers", "counts"])
def test_single_precision_decodes_what_allows_for_it(case, packed_case, tmp_path):
    run, _, raw = packed_case(case)
    wide = compress(run, "train", path=tmp_path / "wide.vk", n=60, tolerance=2.0**-16)
    np.testing.assert_array_equal(decompress(run, wide.path, dtype=torch.float32), raw[:60])
    assert wide.coded < 1.05 * wide.expected


@needs_compiler
def test_compiled_networks_decode_what_eager_ones_encoded(run, packed):
    path, raw = packed

    def prepare(network):
        if network.what == "likelihood":
            network.net = torch.compile(network.net, dynamic=True)

    np.testing.assert_array_equal(decompress(run, path, prepare=prepare), raw)


ELSEWHERE = """
import sys, numpy as np, torch, vaekit as vk
from vaekit.coding import decompress
torch.set_num_threads(2)
for path in sys.argv[1:]:
    np.save(path + "/back.npy", decompress(vk.open(path + "/run"), path + "/train.vk"))
"""


def test_other_threads_and_instructions_decode_alike(packed_case):
    """In a process with two threads and without the vector instructions of this one."""
    cases = ("binary", "full covariance", "logistic mixture", "VampPrior", "two layers", "counts", "autoregressive")
    made = [packed_case(case) for case in cases]
    folders = [packed.path.parent for _, packed, _ in made]
    plain = {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "NPY_DISABLE_CPU_FEATURES": "AVX2",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA",
    }
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *folders], env=os.environ | plain, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for folder, (_, _, raw) in zip(folders, made, strict=True):
        np.testing.assert_array_equal(np.load(folder / "back.npy"), raw)


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


def forged(path, whole, header=None, known=None):
    archive.write(path, archive.Archive(whole.header | (header or {}), whole.stack, known or whole.known).to_bytes()[0])
    return path


def test_headers_that_cannot_be_are_refused(run, packed, tmp_path):
    whole = archive.read(packed[0])
    scheme = whole.header["scheme"]
    networks = scheme["networks"]
    for changed in (
        {"n": 0}, {"n": 2**60}, {"shape": []}, {"shape": [1, 6, 4]}, {"dtype": "O"}, {"version": 2}, {"at_once": "x"},
        {"scheme": {}}, {"scheme": scheme | {"top": -1}}, {"tolerance": None}, {"n": whole.n - 1}, {"tolerance": 0.9},
        {"version": "\ud800"}, {"observed": None, "data": 3},
        {"scheme": scheme | {"networks": networks | {"likelihood": [[-1000], 16]}}},
        {"scheme": scheme | {"networks": networks | {"likelihood": [[1000], 16]}}},
        {"scheme": scheme | {"networks": networks | {"posterior": [[-4, -4], -1]}}},
    ):  # fmt: skip
        with pytest.raises(DataError):
            decompress(run, forged(tmp_path / "changed.vk", whole, changed))
    whole.stack.missing = 10**30
    with pytest.raises(DataError, match="not possible"):
        decompress(run, forged(tmp_path / "changed.vk", whole))
    with pytest.raises(RunError, match="cannot read"):
        decompress(run, tmp_path / "none.vk")


def test_small_archives_cannot_ask_for_much_memory_or_time(run, packed, tmp_path):
    whole = archive.read(packed[0])
    bomb = zlib.compress(bytes(10**8), 9)
    most = 1000 * packed[0].stat().st_size
    tries = [{"header": {"at_once": 10**9}}, {"header": {"growth": 10**9}}, {"header": {"n": most, "at_once": 1}}]
    tries += [{"header": {"n": most}}, {"known": {"missing": bomb}}, {"known": {"condition": bomb, "total": bomb}}]
    tries += [{"header": {"n": 10, "shape": [10**9]}, "known": {"missing": bomb}}]
    tracemalloc.start()
    try:
        for number, changes in enumerate(tries):
            path = forged(tmp_path / f"{number}.vk", whole, **changes)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with pytest.raises(DataError) if "condition" not in changes.get("known", {}) else contextlib.nullcontext():
                decompress(run, path)
            assert tracemalloc.get_traced_memory()[1] - before < 3 * 10**7
    finally:
        tracemalloc.stop()
    for size in (0, 10):
        with pytest.raises(ValueError, match="more than"):
            archive.inflated(bomb, size)
    assert archive.inflated(archive.deflated(b"abc"), 3) == b"abc"


def test_other_versions_are_named_when_an_archive_cannot_be_decoded(run, packed, tmp_path):
    whole = archive.read(packed[0])
    assert set(whole.header["software"]) == {"torch", "numpy", "scipy"}
    changed = {"software": whole.header["software"] | {"scipy": "1.0.0"}, "data": "0" * 64}
    with pytest.raises(DataError, match=r"decode it with scipy '1\.0\.0'"):
        decompress(run, forged(tmp_path / "a.vk", whole, changed))


def test_an_unknown_category_is_refused_and_not_made_a_missing_value(packed_case, tmp_path):
    run = packed_case("table")[0]
    (tmp_path / "new.csv").write_text("kind,flag,events,month,unit\nx,no,3,m1,7\nx,perhaps,3,m1,7\n")
    with pytest.raises(DataError, match=r"row 1, column 'flag': 'perhaps'"):
        compress(run, tmp_path / "new.csv", path=tmp_path / "a.vk")
    assert not (tmp_path / "a.vk").exists()


def test_counts_that_float32_rounds_are_refused_with_the_reason(packed_case, tmp_path):
    for dtype in (np.float64, np.int64):
        x = counts()[:50].astype(dtype)
        x[3, 2] = 2**24 + 1
        with pytest.raises(DataError, match="16,777,216"):
            compress(packed_case("counts")[0], x, path=tmp_path / "a.vk")


def test_grids_are_chosen_by_data_from_everywhere(packed_case, tmp_path):
    """The first rows of sorted data may be alike, so that a grid chosen by them is too coarse for the others."""
    in_order = np.concatenate([np.full((70, 1, 6, 5), 120, np.uint8), levels()])
    grids = []
    for x in (in_order, in_order[np.random.default_rng(1).permutation(len(in_order))]):
        made = compress(packed_case("levels")[0], x, path=tmp_path / "a.vk")
        grids.append([grid for grid, _ in archive.read(made.path).header["scheme"]["networks"].values()])
    assert grids[0] == grids[1]


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
        ("nsf", LEVELS, "posterior='gaussian'"),
        ("hyperspherical", LEVELS, "posterior='gaussian'"),
        ("semi-supervised", LEVELS, "hierarchical"),
    ],
)
def test_runs_that_cannot_be_coded_say_what_can(recipe, settings, said, tmp_path):
    data = vk.from_arrays(levels()[:60], label=np.arange(60) % 2)
    run = vk.fit(data, recipe, out=tmp_path / "run", steps=1, latent=3, hidden=(8,), **settings, **QUIET)
    with pytest.raises(ChoiceError, match=said):
        compress(run, levels()[:5], path=tmp_path / "a.vk", labels=[0] * 5 if run.composition.condition else None)


def test_real_columns_are_named(tmp_path):
    (tmp_path / "t.csv").write_text("kind,height\n" + "\n".join(f"{'ab'[i % 2]},{i / 7:.3f}" for i in range(60)))
    run = vk.fit(vk.load(tmp_path / "t.csv"), out=tmp_path / "run", steps=1, latent=2, hidden=(8,), **QUIET)
    with pytest.raises(ChoiceError, match=r"'height'.*types="):
        compress(run, "test", path=tmp_path / "a.vk")


def test_rounds_grow_from_one_datum():
    ramp, rest = starts_of_rounds(1000, 64, 4)
    starts = [*ramp, *rest]
    sizes = np.diff([*starts, 1000])
    assert starts[:7] == [0, 1, 2, 3, 4, 5, 6]
    assert sizes.max() == 64
    assert (sizes <= np.maximum(1, np.array(starts) // 4)).all()
    assert len(starts_of_rounds(10**12, 64, 256)[0]) < 10_000  # the rounds are not listed
