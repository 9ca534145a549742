"""The default settings of every recipe are sound for small data that suit it."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

import vaekit as vk
from vaekit.diagnosis import doctor
from vaekit.errors import ChoiceError
from vaekit.recipes import RECIPES


@pytest.fixture(scope="module")
def small():
    """Digits with labels, a table, and counts of 200 rows."""
    rng = np.random.default_rng(0)
    x, y = load_digits(return_X_y=True)
    code = rng.normal(size=(200, 4))
    rates = np.exp(0.5 * rng.normal(size=(200, 3)) @ rng.normal(size=(3, 20)))
    return [
        vk.from_arrays(x[:200].reshape(-1, 8, 8).astype(np.float32) / 16, label=y[:200]),
        vk.from_arrays(code @ rng.normal(size=(4, 12)) + 0.3 * rng.normal(size=(200, 12))),
        vk.from_arrays(rng.poisson(3 * rates), kind="counts"),
    ]


@pytest.mark.parametrize("name", list(RECIPES))
def test_defaults_are_never_serious(name, small):
    accepted = 0
    for data in small:
        try:
            seen = doctor(data, name, stages=["before"])
        except ChoiceError:  # the recipe is for other data, or needs labels
            continue
        if "range" in seen:  # values without a known range
            assert data is not small[0]
            continue
        accepted += 1
        # the capacity of `annealed` rises for 10,000 steps, whatever the length of the training
        assert [str(one) for one in seen.findings if one.severity != "note" and name != "annealed"] == []
        assert not seen.serious
    assert accepted
