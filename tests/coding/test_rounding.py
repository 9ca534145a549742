"""Rounding that another machine repeats: exact for any difference up to the tolerance, at a known cost."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vaekit.coding.ans import Stack
from vaekit.coding.rounded import Rounded
from vaekit.coding.rounding import SHARE, SHIFTS, Grid, Shifts, exponents_of, next_shift
from vaekit.coding.tables import Flat, Step
from vaekit.errors import ChoiceError


def shifts_of(grid, raw):
    shift = np.zeros(len(raw), np.int64)
    while not (clear := grid.clear(raw, shift)).all():
        shift = next_shift(shift, clear, "numbers")
    return shift


@given(st.integers(0, 2**32 - 1), st.sampled_from([2.0**-30, 2.0**-20, 2.0**-12]), st.integers(-6, 2))
def test_differences_up_to_the_tolerance_never_change_a_rounded_number(seed, tolerance, exponent):
    rng = np.random.default_rng(seed)
    step = 2.0**exponent
    raw = rng.normal(size=(30, 6)) * 3
    raw[::2] = np.round(raw[::2] / step) * step + rng.uniform(-2, 2, (15, 6)) * tolerance  # at boundaries of shift 0
    raw = torch.from_numpy(raw)
    grid = Grid(np.full(6, exponent), tolerance)
    shift = shifts_of(grid, raw)
    assert shift[::2].max() > 0
    rounded = grid(raw, shift)
    assert bool(((rounded - raw).abs() <= step / 2 + 1e-12).all())
    for _ in range(5):
        sign = torch.from_numpy(rng.choice([-1.0, 1.0], raw.shape) * rng.choice([1.0, 0.3], raw.shape))
        torch.testing.assert_close(grid(raw + sign * tolerance * (1 + raw.abs()), shift), rounded, rtol=0, atol=0)


def test_plain_rounding_would_flip():
    """The reason for the shifts: at a boundary the smallest difference changes the rounded number."""
    grid, raw, none = Grid(np.array([-4])), torch.tensor([[0.25]], dtype=torch.float64), np.zeros(1, np.int64)
    assert grid(raw - 1e-15, none) != grid(raw + 1e-15, none)
    assert not grid.clear(raw, none).any()


def test_a_tolerance_that_no_shift_can_meet_is_refused():
    raw = torch.linspace(-3, 3, 5000, dtype=torch.float64)[None]
    with pytest.raises(ChoiceError, match="smaller `tolerance`"):
        shifts_of(Grid(np.full(5000, -6), 2.0**-9), raw)


def test_the_grid_costs_its_budget_to_second_order():
    """The mean KL of a Bernoulli from its rounded logit, summed over the data's logits."""
    logit = torch.from_numpy(np.random.default_rng(1).normal(size=(4000, 5)))
    p = torch.sigmoid(logit)
    exponents = exponents_of((p * (1 - p)).mean(0).numpy(), np.array([0, 0, 0, 1, 1]), 0.02)
    assert len(set(exponents[:3])) == len(set(exponents[3:])) == 1
    rounded = Grid(exponents)(logit, np.arange(4000) % SHIFTS)
    log = torch.nn.functional.logsigmoid
    kl = p * (log(logit) - log(rounded)) + (1 - p) * (log(-logit) - log(-rounded))
    assert 0.02 / 16 < float(kl.sum(1).mean()) < 0.021  # steps are powers of two: at most a factor of 4 in cost each


@pytest.mark.parametrize("rate", [0, 16, 300, 20_000, 65_536])
def test_shifts_come_back_and_cost_what_their_rate_says(rate):
    table = Shifts(rate)
    assert table.frequency.sum() == 1 << SHARE
    assert table.frequency.min() >= 1
    shift, stack = np.array([0] * 5000 + [1] * 40 + [7, 255]), Stack(1)
    table.push(stack, shift)
    assert stack.bits - 64 <= (16 - np.log2(table.frequency[shift])).sum() + 33
    np.testing.assert_array_equal(table.pop(stack, len(shift)), shift)


class Unclear(Flat):
    """Symbols of two values, of which a tenth are not clear."""

    rng = np.random.default_rng(0)

    def step(self, i, known):
        return Step(lambda k, at: np.full(len(k), 0.5), 2, self.rows)

    def clear(self, x):
        return self.rng.random(self.rows) > 0.1


def test_draws_that_are_often_unclear_are_made_in_parts():
    network = Rounded("posterior", lambda raw: raw, lambda raw: raw, np.zeros(2, np.int64), exponents=[-4])
    network.set_up()
    assert network.together > 2000
    raw = torch.from_numpy(np.random.default_rng(1).normal(size=(64, 2)))
    tries, stack = [], Stack(4)

    def tables(density, shift):
        tries.append(len(density))
        return Unclear(len(density))

    network.draw(Stack(4), raw[:8], tables)
    network.moves, network.coded = 10, 90
    network.tune_shifts()
    assert network.together == 6  # with probability 0.9^6 = 0.53 all are clear
    tries.clear()
    values = network.draw(stack, raw, tables)
    assert len(tries) < 40  # all 64 at once would take 0.9^-64 = 850
    network.undraw(stack, raw, values, tables)
    assert stack.settled()
