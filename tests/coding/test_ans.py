"""The stack of asymmetric numeral systems: exact inverses, and sizes that equal the entropy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaekit.coding.ans import Desynchronised, Stack, pop_uniform, push_uniform


def table(rng, size, precision, sharp):
    """Frequencies of `size` symbols, each at least 1, that sum to 2^precision."""
    share = rng.dirichlet(np.full(size, sharp))
    frequency = 1 + np.floor(share * (2**precision - size)).astype(np.int64)
    frequency[frequency.argmax()] += 2**precision - frequency.sum()
    return frequency, np.cumsum(frequency) - frequency


def finder(frequency, start):
    def find(slot, at):
        symbol = np.searchsorted(start, slot, "right") - 1
        return symbol, start[symbol], frequency[symbol]

    return find


@pytest.mark.parametrize(
    ("lanes", "size", "precision", "sharp"),
    [
        (1, 2, 12, 1.0),
        (64, 2, 20, 0.2),
        (64, 256, 20, 0.05),
        (8, 1000, 24, 1.0),
        (300, 17, 16, 3.0),
        (64, 1000, 28, 1.0),
    ],
)
def test_what_was_pushed_is_popped_and_its_size_is_the_entropy(lanes, size, precision, sharp):
    rng = np.random.default_rng(size)
    frequency, start = table(rng, size, precision, sharp)
    x = rng.choice(size, 20_000 if lanes == 1 else 100_000, p=frequency / 2**precision)
    stack = Stack(lanes)
    stack.push(start[x], frequency[x], precision)
    exact = float((precision - np.log2(frequency[x])).sum())
    # states between 2^31 and 2^63 are rounded, which costs a thirtieth of its bound 2^(precision - 31) on average
    slack = len(x) * 2.0 ** (precision - 31) / 30 + 1
    # the constant: the states hold up to 32 bits each
    assert exact - slack - 32 * lanes <= stack.bits - 64 * lanes <= exact + slack + 32 * lanes
    held = stack.bits - 64 * lanes + stack.held
    assert held == pytest.approx(exact, abs=slack)
    np.testing.assert_array_equal(stack.pop(len(x), precision, finder(frequency, start)), x)
    assert stack.settled()
    assert stack.missing == 0


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 9),
    st.lists(st.tuples(st.booleans(), st.integers(1, 31), st.integers(0, 40)), max_size=8),
)
def test_any_sequence_of_pushes_and_pops_is_undone_exactly(seed, lanes, steps):
    rng, stack = np.random.default_rng(seed), Stack(lanes)
    undo = []
    for pushes, precision, count in steps:
        size = min(2 ** (precision - 1), 5) if precision > 1 else 2
        frequency, start = table(rng, size, precision, 0.5)
        if pushes:
            x = rng.integers(size, size=count)
            stack.push(start[x], frequency[x], precision)
        else:
            x = stack.pop(count, precision, finder(frequency, start))
        undo.append((pushes, precision, frequency, start, x))
    for pushes, precision, frequency, start, x in reversed(undo):
        if pushes:
            np.testing.assert_array_equal(stack.pop(len(x), precision, finder(frequency, start)), x)
        else:
            stack.push(start[x], frequency[x], precision)
    assert stack.settled()


def test_a_certain_symbol_costs_nothing_and_a_uniform_one_its_bits():
    stack = Stack(4)
    x = np.arange(1000) * 1049 % 2**20
    push_uniform(stack, x, 20)
    states, words = stack.states.copy(), stack.words
    stack.push(np.zeros(50, np.int64), np.full(50, 2**31), 31)
    np.testing.assert_array_equal(stack.states, states)
    np.testing.assert_array_equal(stack.words, words)
    held = stack.bits - 64 * 4 + stack.held
    assert held == pytest.approx(20 * 1000, rel=1e-4)
    np.testing.assert_array_equal(pop_uniform(stack, 1000, 20), x)


def test_draws_from_an_empty_stack_follow_the_table():
    """Borrowed bits are pseudo-random: the symbols that are popped have the table's frequencies."""
    rng, stack = np.random.default_rng(3), Stack(16)
    frequency, start = table(rng, 8, 16, 2.0)
    x = stack.pop(40_000, 16, finder(frequency, start))
    share, expected = np.bincount(x, minlength=8) / len(x), frequency / 2**16
    assert np.abs(share - expected).max() < 4 * math.sqrt(0.25 / len(x))
    assert stack.missing * 32 == pytest.approx((16 - np.log2(frequency[x])).sum(), rel=0.01)


@pytest.mark.parametrize(("start", "frequency"), [(5, 0), (-1, 3), (2**12 - 1, 2)])
def test_symbols_without_an_interval_are_refused_at_once(start, frequency):
    with pytest.raises(Desynchronised, match="tolerance"):
        Stack(2).push(np.array([3, start]), np.array([1, frequency]), 12)
    with pytest.raises(Desynchronised):
        Stack(2).pop(2, 12, lambda slot, at: (slot, slot, 0 * slot))


def test_the_stack_of_an_archive_lends_no_bits():
    stack = Stack.of(Stack(2).states, np.zeros(3, np.uint32), 10**15, whole=True)
    with pytest.raises(Desynchronised):
        pop_uniform(stack, 20, 30)


def test_pops_are_undone_by_going_back():
    stack = Stack(3)
    push_uniform(stack, np.arange(50), 20)
    states, words, mark = stack.states.copy(), stack.words, stack.mark()
    for _ in range(2):
        pop_uniform(stack, 200, 20)
        assert stack.missing > 0
        stack.back(mark)
    np.testing.assert_array_equal(stack.states, states)
    np.testing.assert_array_equal(stack.words, words)
    assert stack.missing == 0
