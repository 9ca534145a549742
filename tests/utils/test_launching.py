"""Compiled graphs that reserve the memory of their intermediate tensors return what the others return."""

import threading
from types import SimpleNamespace

import pytest
import torch
from core_helpers import needs_compiler

from vaekit.utils import compiled, launching, lowering
from vaekit.utils.recording import record


class Step:
    """Products with intermediate tensors of one size, an update in place, and outputs that are views of each other."""

    def __init__(self):
        self.a, self.b = torch.linspace(-1, 1, 64).reshape(8, 8), torch.linspace(1, 2, 64).reshape(8, 8)

    def step(self, x):
        y = torch.tanh(torch.tanh(torch.tanh(x @ self.a) @ self.b) @ self.a.t()) @ self.b
        self.a.sub_(0.1 * (x.t() @ y))
        return y, y.t(), y.sum()


@pytest.fixture
def graph(tmp_path, monkeypatch):
    """A step, its recorded program and its graph, which allocates."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    step = Step()
    program = record(step.step, (torch.zeros(5, 8),))
    return step, program, lowering.graph_of(program, [torch.zeros(5, 8), *program.found])


def xs(n):
    return [torch.linspace(-1, 1 + i, 40).reshape(5, 8) for i in range(n)]


def counted(graph, name):
    """Counts the calls of a function among the globals of a graph."""
    scope, calls = graph.__globals__, []
    function = scope[name]
    scope[name] = lambda *arguments, **named: calls.append(arguments) or function(*arguments, **named)
    return calls


def check(step, run, n=4):
    plain, results = Step(), []
    for x in xs(n):
        wanted = plain.step(x)
        results.append((wanted, run([x])))
        torch.testing.assert_close(step.a, plain.a)
    for wanted, result in results:  # only now: a later call must not have overwritten an earlier result
        torch.testing.assert_close(tuple(result), wanted)


@needs_compiler
def test_memory_is_reserved_once_and_outputs_are_new(graph):
    step, program, plain = graph
    run = launching.bound(plain, program.found)
    allocations = counted(plain, "empty_strided_cpu")
    check(step, run)
    outputs = {shape for shape, *_ in allocations}
    assert outputs <= {(), (5, 8)}
    assert len(allocations) <= 2 * 4  # y and its sum
    before = len(allocations)
    plain([xs(1)[0], *program.found])
    assert len(allocations) - before > 2


@needs_compiler
def test_bound_and_plain_graphs_give_the_same_bits(graph):
    step, program, plain = graph
    run, start = launching.bound(plain, program.found), step.a.clone()
    for x in xs(3):
        step.a.copy_(start)
        wanted, a = [t.clone() for t in plain([x, *program.found])], step.a.clone()
        step.a.copy_(start)
        assert all(torch.equal(t, w) for t, w in zip(run([x]), wanted, strict=True))
        assert torch.equal(step.a, a)


@needs_compiler
@pytest.mark.parametrize("change", ["large", "other source", "unknown call"])
def test_a_graph_that_cannot_reserve_memory_allocates(graph, monkeypatch, change):
    step, program, plain = graph
    scope = plain.__globals__
    if change == "large":
        monkeypatch.setattr(launching, "MOST", 100)
    else:
        call = "\n    other(args)" if change == "unknown call" else " )"
        scope["source"] = scope["source"].replace("\n    args.clear()", f"\n    args.clear(){call}", 1)
    run = launching.bound(plain, program.found)
    assert "plain" in run.__qualname__
    check(step, run)


@needs_compiler
def test_a_tensor_that_gets_other_memory_is_seen(graph):
    step, program, plain = graph
    run, (x,) = launching.bound(plain, program.found), xs(1)
    run([x])
    step.a.data = step.b / 3
    start = step.a.clone()
    result = [t.clone() for t in run([x])]
    step.a.copy_(start)
    assert all(torch.equal(t, w) for t, w in zip(result, plain([x, *program.found]), strict=True))


@needs_compiler
def test_memory_reserved_in_inference_mode_is_used_outside(graph):
    step, program, plain = graph
    with torch.inference_mode():
        run = launching.bound(plain, program.found)
    assert "plain" not in run.__qualname__
    check(step, run)


@needs_compiler
def test_a_call_during_another_call_uses_other_memory(graph):
    step, program, plain = graph
    run, start = launching.bound(plain, program.found), step.a.clone()
    first, second = xs(2)
    wanted = [t.clone() for t in run([first])]
    inner = []

    def mm(a, b, out):
        torch.mm(a, b, out=out)
        if not inner:  # in the middle of the first call
            before = step.a.clone()
            inner.append(None)
            thread = threading.Thread(target=lambda: inner.append(run([second])))
            thread.start()
            thread.join()
            step.a.copy_(before)

    plain.__globals__["extern_kernels"] = SimpleNamespace(mm=mm)
    step.a.copy_(start)
    result = run([first])
    assert all(torch.equal(t, w) for t, w in zip(result, wanted, strict=True))
    plain_step = Step()
    torch.testing.assert_close(tuple(inner[1]), plain_step.step(second))


@needs_compiler
def test_a_whole_graph_knows_whether_it_draws(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    graph = compiled.whole_graph(Step().step)
    assert graph.draws  # until it is known
    graph(xs(1)[0])
    assert not graph.draws


@needs_compiler
def test_a_graph_that_draws_is_still_seeded(monkeypatch):
    class Drawn(Step):
        def step(self, x):
            return torch.nn.functional.dropout(x, 0.5) @ self.a

    monkeypatch.setattr(compiled, "_traced", lambda method: method)
    graph = compiled.whole_graph(Drawn().step)
    graph(xs(1)[0])
    assert graph.draws
