"""float64 and wide integers keep the digits that tell rows apart, from the file to log p and back."""

import numpy as np
import pytest
import torch

from vaekit import fit
from vaekit.data import from_arrays, load, load_rows
from vaekit.data.core import digest
from vaekit.data.observation import Centred, Standardised, moments
from vaekit.errors import ChoiceError, DataError
from vaekit.recipes import get_recipe
from vaekit.recipes.composition import DataSpec
from vaekit.runs.observed import events
from vaekit.training.cost import choose_device

CLOCK = 1.7e9
SMALL = {"latent": 1, "hidden": (4,), "steps": 3, "batch": 50, "validate_steps": 3, "progress": False}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def x():
    return 100 * np.random.default_rng(0).normal(size=(200, 2))


def standardised(data):
    """What a Gaussian model sees of the training rows, and its observation."""
    observation = get_recipe("vae")(DataSpec.of(data), likelihood="gaussian", latent=1, hidden=(4,)).observation
    raw = torch.from_numpy(data.events(data.train[:]))
    observation.fit(lambda: iter([raw]))
    return observation(raw).numpy(), observation


def test_a_shift_of_the_data_changes_no_density(tmp_path, x):
    runs = [fit(from_arrays(x + shift), out=tmp_path / f"{shift}", **SMALL) for shift in (0.0, CLOCK)]
    assert [run.spec.double for run in runs] == [False, True]
    plain, shifted = (run.score("test", samples=5) for run in runs)
    np.testing.assert_allclose(shifted, plain, atol=2e-4)  # nats; x agrees to float32's last bits
    new = 100 * np.random.default_rng(1).normal(size=(9, 2))
    np.testing.assert_allclose(runs[1].score(new + CLOCK, samples=5), runs[0].score(new, samples=5), atol=2e-4)
    made = runs[1].sample(20, noise=True)
    assert made.dtype == np.float64
    np.testing.assert_allclose(made - CLOCK, runs[0].sample(20, noise=True), atol=0.01)
    assert len(np.unique(made[:, 0])) == 20
    again = fit(from_arrays(x + CLOCK), out=tmp_path / "again", **{**SMALL, "steps": 2, "validate_steps": 2})
    assert again.composition.observation.mean.dtype == torch.float64


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x + CLOCK,
        lambda x: np.round(1e6 * x).astype(np.int64) + 2**60,
        lambda x: np.round(1e6 * x).astype(np.int64).astype(np.uint64) + np.uint64(2**63),
        lambda x: (np.round(x) + 2**31 - 2000).astype(np.uint32),
        lambda x: (x + CLOCK).astype(np.longdouble),
        lambda x: (x + CLOCK).astype(">f8"),
        lambda x: 1e60 * x,
        lambda x: 1e-60 * x,
        lambda x: 1e6 + 1e-5 * x,
    ],
)
@pytest.mark.parametrize("mapped", [False, True])
def test_what_a_model_sees_is_standardised_in_float64(tmp_path, x, change, mapped):
    raw = change(x)
    if mapped and raw.dtype != np.longdouble:
        np.save(tmp_path / "a.npy", raw)
        data = load(tmp_path / "a.npy", kind="vector")
    else:
        data = from_arrays(raw, kind="vector")
    seen, observation = standardised(data)
    train = raw[data.train.index]
    unit = 1 if train.dtype.kind == "f" else train.min()  # so that numpy's own arithmetic is exact enough
    train = (train - unit).astype(np.float64) if train.dtype.kind in "iu" else train.astype(np.float64)
    np.testing.assert_allclose(seen, (train - train.mean(0)) / train.std(0), atol=3e-5)
    assert observation.log_jacobian(data.shape) == pytest.approx(-np.log(train.std(0)).sum(), rel=1e-5)
    back = observation.to_raw(torch.from_numpy(seen)).numpy()
    np.testing.assert_allclose(back, data.train[:].astype(float), rtol=1e-15, atol=1e-5 * train.std())


def test_what_float32_holds_stays_float32(x):
    for raw in (x, x + 1000, 2000 + np.round(x / 30), np.round(x).astype(np.int64) + 2020, x.astype(np.float16)):
        data = from_arrays(raw, kind="vector")
        assert not data.train.double
        assert data.train[:].dtype in (np.float32, np.int64)


def test_a_column_that_never_changes_is_exactly_nothing(x):
    raw = np.column_stack([x, np.full(len(x), 0.1), np.full(len(x), CLOCK + 0.3)])
    seen, observation = standardised(from_arrays(raw))
    assert not seen[:, 2:].any()
    np.testing.assert_array_equal(observation.unit[2:], 1)
    np.testing.assert_array_equal(observation.to_raw(torch.from_numpy(seen))[:, 2:], raw[: len(seen), 2:])


def test_tables_keep_their_digits_too(tmp_path, x):
    rows = "".join(f"{CLOCK + a:.3f},{b:.3f}\n" for a, b in x)
    (tmp_path / "t.csv").write_text("time,value\n" + rows)
    data = load(tmp_path / "t.csv")
    np.testing.assert_allclose(data.train[:][:, 0] - CLOCK, x[data.train.index, 0], atol=1e-3)
    np.testing.assert_allclose(load_rows(tmp_path / "t.csv", schema=data.schema)[0][:, 0] - CLOCK, x[:, 0], atol=1e-3)
    seen, _ = standardised(data)
    assert len(np.unique(seen[:, 0])) == len(seen)


def test_images_far_from_zero(x):
    raw = CLOCK + x.reshape(25, 4, 4)
    seen, observation = standardised(from_arrays(raw))
    assert isinstance(observation, Centred)
    assert np.sqrt((seen**2).mean()) == pytest.approx(1, rel=1e-5)
    assert not from_arrays(np.pad(x.reshape(25, 4, 4), ((0, 0), (1, 1), (1, 1)), constant_values=0.1)).train.double


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (
            np.full((9, 2), 1e200) * np.arange(9)[:, None],
            r"row 1, column 0 is 1e\+200; the squares of numbers beyond 1e\+150",
        ),
        (1e-200 * np.arange(18.0).reshape(9, 2), "the values of an element differ by less than 1e-150"),
        (np.arange(2**41, 2**41 + 18).reshape(9, 2), None),
    ],
)
def test_the_true_reason_of_a_refusal(raw, says):
    if (
        says is None
    ):  # so large that no likelihood of counts reaches them: numbers, or refused when counts are asked for
        assert from_arrays(raw).kind == "vector"
        raw, says = raw, r"counts are at most 1e\+12"
        with pytest.raises(DataError, match=says):
            from_arrays(raw, kind="counts")
    else:
        with pytest.raises(DataError, match=says):
            from_arrays(raw)


def test_new_rows_for_a_run_that_has_float32(x):
    data = from_arrays(x)
    spec, (_, observation) = DataSpec.of(data), standardised(data)
    assert events(x, spec, observation).dtype == np.float32
    far = x.copy()
    far[3, 1] = 1e60
    with pytest.raises(DataError, match=r"row 3, at \(1,\), is 1e\+60, which float32 cannot hold and is far beyond"):
        events(far, spec, observation)


def test_a_run_of_float32_takes_float64_as_it_always_did(x):
    old, raw = Standardised((2,)), torch.from_numpy(x + 3e4)
    old.fit(lambda: iter([raw.float()]))
    torch.testing.assert_close(old(raw), old(raw.float()), rtol=0, atol=0)
    torch.testing.assert_close(old(raw), (raw.float() - old.mean) / old.std, rtol=0, atol=0)


def test_the_digest_of_an_earlier_version_is_known(tmp_path, x):
    data = from_arrays(x + CLOCK)
    assert data.is_same(digest((x + CLOCK).astype(np.float32)))
    assert data.is_same(data.digest)
    assert not data.is_same(digest((x + 2 * CLOCK).astype(np.float32)))
    assert from_arrays(x).digest == digest(x.astype(np.float32))


def test_moments_lose_nothing_over_many_rows():
    values = torch.full((20000, 1), CLOCK, dtype=torch.float64)
    values[::2] += 1e-3
    mean, variance = moments(lambda: iter(values.split(700)))
    assert float(mean) == pytest.approx(CLOCK + 5e-4, abs=1e-6)
    assert float(variance) == pytest.approx(2.5e-7, rel=1e-3)


def test_a_device_without_float64():
    with pytest.raises(ChoiceError, match=r"need float64, which `device='mps'` lacks"):
        choose_device("mps", double=True)


def test_an_observation_in_float32_of_data_that_need_more_is_told(tmp_path, capsys):
    """Pixels in [0, 1] that differ by 1e-8: a likelihood of grey values sees them as one, the default would not."""
    x = 0.5 + 1e-8 * np.random.default_rng(0).normal(size=(60, 4))
    assert from_arrays(x).train.double
    shown = {**SMALL, "progress": True, "compile": "off", "device": "cpu"}
    fit(from_arrays(x), out=tmp_path / "standardised", likelihood="gaussian", **shown)
    assert "float32 blurs" not in capsys.readouterr().err
    fit(from_arrays(x), out=tmp_path / "grey", likelihood="gaussian", observation="grey", **shown)
    noted = capsys.readouterr().err
    assert "float32 is too coarse for the differences between these data, but the observation 'grey'" in noted
