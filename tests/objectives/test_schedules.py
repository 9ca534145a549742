"""Weights over time: their values, and that one graph serves every step."""

from typing import get_args

import pytest
import torch
from core_helpers import LinearGaussian

from vaekit.errors import ChoiceError
from vaekit.noise import Noise
from vaekit.objectives import ELBO, Batch, Capacity
from vaekit.objectives.schedules import Constant, Cyclic, Geometric, Linear, Schedule, learning_rate, unfinished
from vaekit.options import ScheduleName

ALL = [
    Constant(0.7), Linear(2.0, 10, 0.5), Linear(2.0, 0, 0.5), Cyclic(1.0, 8),
    Geometric(4.0, 10, 40.0),
]  # fmt: skip


def values(schedule, steps):
    return [float(schedule(torch.tensor(t))) for t in steps]


def test_the_values():
    assert values(Constant(0.7), (0, 5)) == pytest.approx([0.7, 0.7])
    assert values(Linear(2.0, 10, 0.5), (0, 4, 10, 99)) == pytest.approx([0.5, 1.1, 2.0, 2.0])
    assert values(Linear(3.0, 4, 7.0), (0, 2, 4)) == pytest.approx([7, 5, 3])  # down as well as up
    assert values(Geometric(4.0, 2, 64.0), (0, 1, 2, 9)) == pytest.approx([64, 16, 4, 4])
    rise = values(Cyclic(1.0, 8), range(8))
    assert rise == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 1, 1])
    assert values(Cyclic(1.0, 8), range(80, 88)) == pytest.approx(rise)  # the eleventh cycle is the first


@pytest.mark.parametrize("schedule", [Linear, Geometric])
def test_a_rise_over_no_steps_is_over_at_once(schedule):
    assert values(schedule(2.0, 0, 0.5), (0, 1)) == [2, 2]


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_a_number_or_a_tensor_of_any_kind_gives_the_same(schedule):
    for t in (0, 3, 7, 200):
        given = [schedule(t), *(schedule(torch.tensor(t, dtype=d)) for d in (torch.int64, torch.int32, torch.float64))]
        assert all(v.shape == () and v.dtype == torch.float32 for v in given)
        assert len({float(v) for v in given}) == 1


def test_one_graph_serves_every_step():
    torch._dynamo.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    run = torch.compile(lambda t: torch.stack([s(t) for s in ALL]), backend=backend, fullgraph=True, dynamic=False)
    for t in (0, 3, 9, 1000):
        torch.testing.assert_close(run(torch.tensor(t)), torch.stack([s(torch.tensor(t)) for s in ALL]))
    assert len(graphs) == 1


@pytest.mark.parametrize(
    "wrong",
    [lambda: Linear(1.0, -1), lambda: Cyclic(1.0, 0), lambda: Cyclic(1.0, 9, 0.0),
     lambda: Geometric(0.0, 9, 1.0), lambda: Cyclic(1.0, 9, 1.5)],
)  # fmt: skip
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        wrong()
    with pytest.raises(TypeError, match="forward"):
        Schedule()


def test_the_kl_follows_its_schedule():
    world = LinearGaussian()
    x = world.data(8)
    for beta in (Linear(4.0, 10), Cyclic(2.0, 6)):
        for t in (0, 2, 7, 30):
            losses, stats = ELBO(beta)(world.model, Batch(x, Noise.of(0, 8)), torch.tensor(t))
            expected = stats["distortion"] + beta(t) * stats["rate"]
            torch.testing.assert_close(losses["model"], expected)


def test_learning_rate_factors():
    assert [learning_rate("constant", p) for p in (0, 0.5, 1)] == [1, 1, 1]
    for name in ("linear", "cosine"):
        assert learning_rate(name, 0.0) > 0
        assert learning_rate(name, 0.005) == pytest.approx(0.5)  # half of the warm-up
        assert learning_rate(name, 0.01 + 0.99 / 2) == pytest.approx(0.5)
        for end in (1.0, 2.0):
            assert learning_rate(name, end) == pytest.approx(0, abs=1e-12)
    points = [0.005, 0.01, 0.4, 0.7, 0.85, 1.0, 2.0]
    assert [learning_rate("trapezoid", p) for p in points] == pytest.approx([0.5, 1, 1, 1, 0.5, 0, 0])
    assert {learning_rate(name, 0.005) for name in get_args(ScheduleName)} == {1.0, 0.5}  # each has a rule
    with pytest.raises(ChoiceError, match="choose from constant, linear, cosine, trapezoid"):
        learning_rate("steps", 0.5)


def test_a_run_that_ends_before_its_schedule_is_noted():
    note = unfinished(Capacity(), 2000)
    assert note is not None
    assert "capacity ends at 5 instead of 25" in note
    assert "`capacity_steps`" in note
    assert "beta ends at 0.5 instead of 1" in str(unfinished(ELBO(Linear(1.0, 100)), 50))
    assert unfinished(Capacity(), 10_000) is None
    assert unfinished(ELBO(Cyclic(1.0, 1000)), 10) is None
