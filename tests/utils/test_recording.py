"""Recording the operations of a function."""

import random
import threading

import numpy as np
import pytest
import torch

from vaekit.utils.recording import NotRecordable, record, tensors_of

STATISTICS = torch.ones(2)


class Counter:
    """Adds to a total in place and returns a gradient, like a training step."""

    def __init__(self, n=3):
        self.weight = torch.arange(1.0, n + 1)
        self.total = torch.zeros(n)

    def step(self, x, scale):
        leaf = self.weight.detach().requires_grad_()
        loss = (scale["by"] * leaf.exp() * x).sum()
        (gradient,) = torch.autograd.grad(loss, [leaf])
        with torch.no_grad():
            self.weight.sub_(0.1 * gradient)
            self.total.add_(x)
        return loss.detach(), [gradient, 7]


class Forgetful:
    """Keeps its state in Python, which no operation of torch changes."""

    def __init__(self):
        self.calls, self.mean = 0, torch.zeros(())

    def counts(self, x):
        self.calls += 1
        return x * self.calls

    def averages(self, x):
        self.mean = 0.5 * self.mean + x.mean()
        return x - self.mean


def inputs(scale=2.0):
    return torch.tensor([0.5, -1.0, 2.0]), {"by": torch.tensor(scale)}


def test_a_recorded_function_computes_the_same_on_other_inputs_and_state():
    recorded, plain = Counter(), Counter()
    program = record(recorded.step, inputs())
    assert torch.equal(recorded.weight, plain.weight)  # recording changed nothing
    assert torch.equal(recorded.total, plain.total)
    for scale in (0.5, 3.0):
        tensors = program(*tensors_of(inputs(scale)), *program.found)
        loss, (gradient, seven) = program.result(tensors)
        wanted, (wanted_gradient, _) = plain.step(*inputs(scale))
        assert torch.equal(loss, wanted)
        assert torch.equal(gradient, wanted_gradient)
        assert seven == 7
        assert torch.equal(recorded.weight, plain.weight)
        assert torch.equal(recorded.total, plain.total)


def test_equal_functions_have_equal_texts():
    texts = [record(counter.step, inputs(scale)).text for counter, scale in ((Counter(), 2.0), (Counter(), 9.0))]
    assert texts[0] == texts[1]
    assert record(Counter(4).step, (torch.ones(4), {"by": torch.tensor(1.0)})).text != texts[0]
    assert record(lambda x: x * 2.0, (torch.ones(2),)).text != record(lambda x: x * 2.5, (torch.ones(2),)).text


def test_a_tensor_passed_twice_may_be_two_next_time():
    x = torch.ones(2)
    program = record(lambda a, b: a - b, (x, x))
    (difference,) = program(torch.tensor([5.0, 6.0]), torch.tensor([1.0, 3.0]))
    assert difference.tolist() == [4.0, 3.0]


def test_writes_are_undone_if_the_function_fails():
    total = torch.zeros(2)

    def fails(x):
        total.add_(x)
        raise KeyError("later")

    with pytest.raises(KeyError):
        record(fails, (torch.ones(2),))
    assert total.tolist() == [0.0, 0.0]


def _shares(whole):
    part = whole[1:]

    def writes(x):
        part.add_(x)
        return whole.sum()

    return writes


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x * 2 if x.sum() > 0 else x, "depends on the values"),
        (lambda x: x[x > 0], "depends on the values"),
        (lambda x: torch.nn.functional.dropout(x, 0.5), "draws from torch's generator"),
        (lambda x: torch.from_numpy(x.numpy() * 2), "depends on the values"),
        (lambda x: torch.from_numpy(np.asarray(x) * 2), "depends on the values"),
        (lambda x: x * sum(x.tolist()), "depends on the values"),
        (lambda x: torch.nn.functional.batch_norm(x.repeat(3, 1), STATISTICS, STATISTICS, training=True), "statistics"),
        (_shares(torch.zeros(3)), "shares memory"),
        (lambda x: x * random.random(), "called again"),
        (lambda x: x + torch.from_numpy(np.random.random(2)), "called again"),
        (Forgetful().counts, "called again"),
        (Forgetful().averages, "called again"),
    ],
)
def test_what_a_list_of_operations_cannot_express_is_refused(function, reason):
    with pytest.raises(NotRecordable, match=reason):
        record(function, (torch.ones(2),))
    assert STATISTICS.tolist() == [1.0, 1.0]
    assert torch.ones(2).tolist() == [1.0, 1.0]  # tensors have all their methods again


def test_threads_that_record_at_once_leave_torch_as_it_was():
    x, inside, values = torch.ones(2), threading.Event(), []

    def first(x):
        inside.set()
        second.join(0.2)  # as long as it needs to end, if nothing keeps it waiting
        return x * 2

    def other():
        inside.wait(10)
        values.append((x.numpy().tolist(), bool(torch.compiler.is_compiling())))  # as if nothing were recorded
        record(lambda x: x * 3, (x,))

    second = threading.Thread(target=other)
    second.start()
    record(first, (x,))
    second.join()
    assert values == [([1.0, 1.0], False)]
    assert x.numpy().tolist() == [1.0, 1.0]
    assert torch.compiler.is_compiling() is False
