"""Diseases of data and settings: each is induced on small real data, and sound settings get a clean bill."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

import vaekit as vk
from vaekit.diagnosis import DISEASES, doctor, neighbours
from vaekit.diagnosis.before import near_duplicates
from vaekit.diagnosis.neighbours import RATIO, copies, share_at_least
from vaekit.diagnosis.patient import Patient
from vaekit.errors import ChoiceError
from vaekit.options import Options

BEFORE = ["before"]


@pytest.fixture(scope="module")
def digits():
    return load_digits().images.astype(np.float32) / 16


def found(data, recipe="vae", **choices):
    """The findings by name."""
    return {one.name: one for one in doctor(data, recipe, stages=BEFORE, **choices).findings}


def test_sound_settings_get_a_clean_bill(digits):
    for data in (vk.from_arrays(digits), vk.load("digits"), vk.from_arrays(load_breast_cancer().data)):
        seen = doctor(data, stages=BEFORE)
        assert seen.findings == ()
        assert not seen.skipped
        assert set(seen.healthy) == {one.name for one in DISEASES.values() if one.stage == "before"}
        assert "nothing found" in str(seen)


def test_values_outside_the_support(digits):
    one = found(vk.from_arrays(digits * 16, kind="image"), likelihood="bernoulli")["range"]
    assert one.severity == "serious"
    assert one.numbers == {"lowest": 0, "highest": 16}
    assert "0 to 16" in one.evidence
    assert "scale them to [0, 1]" in one.remedy


def test_values_in_a_small_part_of_their_range():
    data = vk.from_arrays(load_digits().images.astype(np.uint8))
    one = found(data)["range"]
    assert "0 to 16, 6% of the range 0 to 255" in one.evidence
    assert one.severity == "serious"
    assert found(data, likelihood="gaussian")["range"].severity == "warning"  # its scale is learned
    assert "range" not in found(data, likelihood="gaussian", observation="standardised")


def test_extreme_values():
    x = load_diabetes().data.copy()
    x[7, 2] = 1e5
    train = np.flatnonzero(np.arange(len(x)) % 5 != 0)
    rest = np.arange(0, len(x), 5)
    data = vk.from_arrays(x, splits={"train": train, "valid": rest[::2], "test": rest[1::2]})
    one = found(data, observation="standardised")["extreme-values"]
    assert "column 2" in one.evidence.lower()
    assert "logarithms" in one.remedy
    assert "extreme-values" not in found(data)  # by default columns are mapped by their quantiles


def test_a_sharp_density(digits):
    one = found(vk.from_arrays(digits), likelihood="gaussian", sigma="learned", observation="grey")["sharp-density"]
    assert "exactly the lowest or the highest" in one.evidence
    assert "dequantised" in one.remedy


def test_constant_columns():
    x = np.concatenate([load_breast_cancer().data, np.full((569, 1), 3.0)], 1)
    one = found(vk.from_arrays(x))["constant-columns"]
    assert one.severity == "note"
    assert one.numbers["columns"] == 1
    x[5, -1] = 4.0
    rest = np.setdiff1d(np.arange(569), [5])
    data = vk.from_arrays(x, splits={"train": rest[100:], "valid": rest[:100], "test": np.array([5])})
    one = found(data)["constant-columns"]
    assert one.severity == "warning"
    assert "1 of 101 validation and test rows differ" in one.evidence


def test_copies_in_two_splits(digits):
    one = found(vk.from_arrays(np.concatenate([digits, digits[:200]])))["duplicates"]
    assert (one.severity, one.certain) == ("serious", True)
    assert 0.02 < one.numbers["share"] < 0.3


def test_versions_in_two_splits(digits):
    shift = np.random.default_rng(0).uniform(-0.01, 0.01, digits.shape).astype(np.float32)
    one = found(vk.from_arrays(np.concatenate([digits, np.clip(digits + shift, 0, 1)])))["near-duplicates"]
    assert one.numbers["rows"] > 0.6 * one.numbers["of"]
    assert one.certain


def test_near_copies_by_chance_follow_the_dimension():
    """Uniform points in d dimensions have as many near neighbours as the formula says, and are not called copies."""
    rng = np.random.default_rng(0)
    for dims in (2, 4):
        x, y = rng.uniform(size=(1000, dims)), rng.uniform(0.2, 0.8, (1000, dims))
        distance = np.sort(np.sqrt(((y[:, None] - x) ** 2).sum(-1)), 1)[:, :10]
        seen = copies(distance)
        assert seen.dimension == pytest.approx(dims, rel=0.15)
        exact = 1 - (1 - RATIO**-dims) ** 9
        assert seen.near / seen.of == pytest.approx(exact, abs=4 * np.sqrt(exact / 1000) + 0.005)
        assert not seen.more_than_chance


def test_a_share_is_above_its_limit_only_beyond_chance():
    assert share_at_least(30, 1000, 0.01)
    assert not share_at_least(14, 1000, 0.01)  # the exact interval of 1.4% reaches below 1%
    assert not share_at_least(0, 1000, 0.01)


def test_the_size_of_the_code(digits):
    one = found(vk.from_arrays(digits), latent=4)["too-few-latents"]
    assert (one.severity, one.certain) == ("warning", False)
    assert one.numbers["share_of_variance"] < 0.5
    assert found(vk.from_arrays(digits), latent=2)["too-few-latents"].severity == "note"  # for a map
    one = found(vk.from_arrays(load_diabetes().data), latent=30)["too-many-latents"]
    assert one.numbers["directions"] == 10
    assert "`latent=" in one.remedy


def test_noise_needs_no_latents():
    """120 genes that follow three factors: all other components of the standardised counts are Poisson noise."""
    rng = np.random.default_rng(0)
    rates = np.exp(0.5 * rng.normal(size=(600, 3)) @ rng.normal(size=(3, 120)) / np.sqrt(3))
    genes = vk.from_arrays(rng.poisson(rates), kind="counts")
    assert doctor(genes, stages=BEFORE).clean
    assert "too-few-latents" not in doctor(genes, stages=BEFORE, latent=3)
    assert doctor(genes, stages=BEFORE, latent=1)["too-few-latents"].numbers["components_needed"] == 3


def test_more_latents_than_rows_are_not_too_many():
    rows = vk.from_arrays(np.random.default_rng(0).normal(size=(60, 80)))
    assert "too-many-latents" in doctor(rows, stages=BEFORE, latent=70).skipped


def test_leaks_into_a_test_split_are_found_among_all_training_rows(monkeypatch):
    """200 of 2,000 test rows are near copies of training rows, which a seventh of 17,000 rows would not show."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 250, (20_000, 3072), dtype=np.uint8)
    x[18_000:18_200] = x[rng.permutation(17_000)[:200]] + rng.integers(0, 4, (200, 3072), dtype=np.uint8)
    splits = {"train": np.arange(17_000), "valid": np.arange(17_000, 18_000), "test": np.arange(18_000, 20_000)}
    data = vk.from_arrays(x.reshape(-1, 3, 32, 32), splits=splits)
    patient = Patient(data, None, choices={}, training=Options().over(), steps=1)
    assert near_duplicates(patient).numbers["rows"] >= 30
    monkeypatch.setattr(neighbours, "READ", 3072 * 1700)
    assert "of which 10% were compared" in near_duplicates(patient).evidence  # the limit is a tenth as well


def test_a_batch_as_large_as_the_data(digits):
    one = found(vk.from_arrays(digits[:150]), batch=200)["batch-size"]
    assert "every step sees the same rows" in one.evidence
    one = found(vk.from_arrays(digits[:150]), batch=100)["batch-size"]
    assert one.numbers["remainder"] == 20


def test_too_few_steps(digits):
    data = vk.from_arrays(digits)
    assert "passes" in found(data, steps=5)["too-few-steps"].evidence
    one = found(data, steps=30, lr=1e-3)["too-few-steps"]
    assert one.severity == "serious"
    assert "0.03 in all" in one.evidence
    one = found(data, steps=300, warmup=1000)["too-few-steps"]
    assert one.severity == "warning"
    assert "1,000 steps" in one.evidence


def test_few_rows(digits):
    one = found(vk.from_arrays(np.kron(digits[:300], np.ones((3, 3), np.float32))))["few-rows"]
    assert one.severity == "note"
    assert "augment" in one.remedy


def test_what_is_refused(digits):
    with pytest.raises(vk.VaekitError, match="unknown recipe"):
        doctor(vk.from_arrays(digits), "no-such")
    for mistake in ({"latnt": 3}, {"latent": 0}, {"likelihood": "no-such"}, {"augment": "no-such"}):
        with pytest.raises(ChoiceError):
            doctor(vk.from_arrays(digits), stages=BEFORE, **mistake)
    with pytest.raises(ChoiceError, match="images or signals"):
        doctor(vk.from_arrays(load_diabetes().data), "conv")
    with pytest.raises(vk.VaekitError, match="unknown stage"):
        doctor(vk.from_arrays(digits), stages=["later"])
    with pytest.raises(vk.VaekitError, match="own settings"):
        doctor("example", latent=3)
