"""Splits are disjoint, complete, deterministic, never empty, and keep groups whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaekit.data.splits import PARTS, assign, stored
from vaekit.errors import DataError

FIXED = settings(max_examples=150, derandomize=True, deadline=None)
FRACTIONS = st.tuples(st.floats(0, 0.6), st.floats(0, 0.39))


@FIXED
@given(n=st.integers(3, 300), fractions=FRACTIONS, seed=st.integers(0, 9))
def test_random_rows(n, fractions, seed):
    valid, test = fractions
    parts = assign(n, valid=valid, test=test, seed=seed)
    assert sorted(np.concatenate([parts[part] for part in PARTS])) == list(range(n))
    assert all(len(parts[part]) >= 1 and (np.diff(parts[part]) > 0).all() for part in PARTS)
    assert abs(len(parts["test"]) - test * n) <= 1
    again = assign(n, valid=valid, test=test, seed=seed)
    assert all(np.array_equal(parts[part], again[part]) for part in PARTS)


@FIXED
@given(groups=st.lists(st.integers(0, 9), min_size=3, max_size=120), fractions=FRACTIONS, seed=st.integers(0, 3))
def test_groups_stay_whole(groups, fractions, seed):
    group = np.array(groups)
    if len(set(groups)) < 3:
        with pytest.raises(DataError, match="expected at least 3: each split needs a whole group"):
            assign(len(group), group=group, seed=seed)
        return
    parts = assign(len(group), valid=fractions[0], test=fractions[1], group=group, seed=seed)
    assert sorted(np.concatenate([parts[part] for part in PARTS])) == list(range(len(group)))
    held = [set(group[parts[part]]) for part in PARTS]
    assert all(held)
    assert sum(map(len, held)) == len(set(groups))


def test_seeds_differ_and_fractions_hold_for_many_groups():
    assert not np.array_equal(assign(100, seed=0)["test"], assign(100, seed=1)["test"])
    parts = assign(6000, group=np.arange(6000) // 5)
    assert [len(parts[part]) for part in PARTS] == [4800, 600, 600]


@pytest.mark.parametrize(("n", "message"), [(1, "1 row for train"), (2, "2 rows for train")])
def test_too_few(n, message):
    with pytest.raises(DataError, match=f"{message}.*at least 3"):
        assign(n)


def test_impossible_fractions():
    with pytest.raises(DataError, match=r"valid must be a fraction in \[0, 1\), got 2"):
        assign(10, valid=2)
    with pytest.raises(DataError, match="valid \\+ test must be below 1"):
        assign(10, valid=0.5, test=0.5)


def test_given_parts_are_kept():
    given = {"train": np.arange(20), "test": np.arange(20, 25)}
    parts = assign(25, own=given)
    np.testing.assert_array_equal(parts["test"], given["test"])
    assert len(parts["valid"]) == 2
    assert sorted([*parts["train"], *parts["valid"]]) == list(range(20))
    whole = {"train": np.arange(8), "valid": np.arange(8, 9), "test": np.arange(9, 10)}
    assert all(np.array_equal(assign(10, own=whole, seed=5)[part], whole[part]) for part in PARTS)
    with pytest.raises(DataError, match="their own splits"):
        assign(10, own=whole, group=np.arange(10))


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": [0, 1], "valid": [2]}, "exactly the keys"),
        ({"train": [0, 1], "valid": [2], "test": [9]}, "contains row 9.*rows 0..4.*other data"),
        ({"train": [0, -1], "valid": [2], "test": [3]}, "contains row -1"),
        ({"train": [0, 1], "valid": [1], "test": [3]}, "row 1 more than once"),
        ({"train": [0, 1], "valid": [], "test": [3]}, "non-empty"),
        ({"train": [0.5, 1], "valid": [2], "test": [3]}, "row numbers"),
    ],
)
def test_stored_rows_that_do_not_fit(splits, message):
    with pytest.raises(DataError, match=message):
        stored(splits, 5)
