"""Compiled graphs are kept in the cache folder."""

import os
import time

import pytest
import torch
from core_helpers import needs_compiler

from vaekit.noise import Noise
from vaekit.utils import compiled, kernels, lowering
from vaekit.utils.recording import record

SOURCE = """
from torch._inductor.codegen import nothing
from torch._inductor.async_compile import AsyncCompile
from torch._inductor.select_algorithm import extern_kernels
async_compile = AsyncCompile()
def call(args):
    (x,) = args
    args.clear()
    return (extern_kernels.mm(x, x),)
"""


@pytest.fixture
def lowered(tmp_path, monkeypatch):
    """Counts how often the code generator is asked, which stands for torch's; the cache folder is empty."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    asked = []
    monkeypatch.setattr(lowering, "lowered", lambda program, *_: asked.append(program) or SOURCE)
    return asked


def test_a_graph_is_generated_once_per_program(lowered):
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    for _ in range(2):
        graph = lowering.graph_of(record(lambda x: x @ x, (x,)), [x])
        assert torch.equal(graph([x])[0], x @ x)
    assert len(lowered) == 1
    lowering.graph_of(record(lambda x: (x + 1) @ x, (x,)), [x])
    assert len(lowered) == 2


def test_a_graph_that_another_user_left_in_a_shared_folder_is_not_run(lowered, monkeypatch):
    x = torch.eye(2)
    program = record(lambda x: x @ x, (x,))
    lowering.graph_of(program, [x])
    monkeypatch.setattr(os, "getuid", lambda: -2)
    lowering.graph_of(program, [x])
    assert len(lowered) == 2


def test_a_graph_in_a_folder_that_others_may_write_is_not_run(lowered, tmp_path):
    x = torch.eye(2)
    program = record(lambda x: x @ x, (x,))
    lowering.graph_of(program, [x])
    (tmp_path / "cache" / "vaekit").chmod(0o777)
    lowering.graph_of(program, [x])
    assert len(lowered) == 2


def test_a_graph_whose_file_is_cut_short_is_generated_again(lowered, tmp_path):
    x = torch.eye(2)
    program = record(lambda x: x @ x, (x,))
    for length in (None, 0, 100, len(SOURCE) - 10):
        for file in tmp_path.rglob("*.py"):
            file.write_bytes(file.read_bytes()[:length])
        assert torch.equal(lowering.graph_of(program, [x])([x])[0], x)
    assert len(lowered) == 4
    lowering.graph_of(program, [x])
    assert len(lowered) == 4


def test_a_graph_is_compiled_where_nothing_can_be_kept(lowered, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    x = torch.eye(2)
    graph = lowering.graph_of(record(lambda x: x @ x, (x,)), [x])
    assert torch.equal(graph([x])[0], x)


def test_a_file_that_was_not_finished_does_not_get_the_final_name(tmp_path):
    def fails(part):
        part.write_bytes(b"half of a libr")
        raise OSError("no space left on device")

    path = tmp_path / "new" / "library.so"
    with pytest.raises(OSError, match="no space"):
        kernels.write(path, fails)
    assert os.listdir(path.parent) == []


def test_what_was_not_used_for_a_quarter_of_a_year_is_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    kernels.tidy()  # there is no folder yet
    (tmp_path / "vaekit").mkdir()
    for name, age in (("old.so", 91), ("used.so", 89)):
        path = tmp_path / "vaekit" / name
        path.write_bytes(b"")
        os.utime(path, (time.time() - age * 86400, time.time() - 200 * 86400))
    kernels.tidy()
    assert os.listdir(tmp_path / "vaekit") == ["used.so"]


@needs_compiler
def test_a_kept_graph_equals_the_one_that_was_compiled(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))

    class Step:
        def __init__(self):
            self.weight = torch.linspace(-1, 1, 12).reshape(4, 3)

        def step(self, x):
            y = torch.tanh(x @ self.weight)
            self.weight.mul_(0.5)
            return {"y": y, "sum": [y.sum()]}

    x = torch.linspace(0, 1, 8).reshape(2, 4)
    plain, results = Step(), []
    wanted = plain.step(x)
    for turn in range(2):
        step = Step()
        graph = compiled.whole_graph(step.step)
        results.append(graph(x))
        torch.testing.assert_close(results[-1], wanted)
        assert torch.equal(step.weight, plain.weight)
        if turn == 0:
            monkeypatch.setattr(lowering, "lowered", lambda *_: pytest.fail("compiled again"))
            monkeypatch.setattr(kernels, "_build", lambda *_: pytest.fail("built again"))
    assert torch.equal(results[0]["y"], results[1]["y"])
    assert {f.suffix for f in tmp_path.rglob("vaekit/*")} == {".py", ".so", ".sha256"}


@needs_compiler
def test_random_bits_that_several_kernels_use_are_computed_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))

    def step(raw, base, rows, weight):
        x = Noise(base, rows).bernoulli_of_bytes(raw)
        return (x * (x.bfloat16() @ weight).float()).sum(1)

    raw = torch.arange(64 * 200).remainder(256).to(torch.uint8).reshape(64, 200)
    arguments = raw, torch.tensor(5), torch.arange(64), torch.eye(200, dtype=torch.bfloat16)
    sources, loaded = [], lowering.loaded
    monkeypatch.setattr(lowering, "loaded", lambda source, *rest: sources.append(source) or loaded(source, *rest))
    graph = compiled.whole_graph(step)
    torch.testing.assert_close(graph(*arguments), step(*arguments))
    kernels_with_bits = [kernel for kernel in sources[0].split("cpp_pybinding(")[1:] if "2146121005" in kernel]
    assert len(kernels_with_bits) == 1


@needs_compiler
def test_the_gradient_of_a_group_norm_keeps_the_type_of_its_input(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    generator = torch.Generator().manual_seed(0)
    x, g = (torch.randn(8, 32, 4, 4, generator=generator).bfloat16() for _ in range(2))
    scale, w = torch.rand(32, generator=generator) + 0.5, torch.randn(512, 4, generator=generator).bfloat16()

    def product(x, g, scale, w):  # as in the backward pass of a dense layer below the norm
        _, mean, rstd = torch.ops.aten.native_group_norm(x, scale, None, 8, 32, 16, 8, 1e-5)
        backward = torch.ops.aten.native_group_norm_backward
        of_x, of_scale, _ = backward(g, x, mean, rstd, scale, 8, 32, 16, 8, [True, True, True])
        return of_x, of_scale, of_x.flatten(1) @ w

    inputs = [x, g, scale, w]
    computed = lowering.graph_of(record(product, tuple(inputs)), inputs)(list(inputs))
    exact = product(x.double(), g.double(), scale.double(), w.double())
    assert [t.dtype for t in computed] == [t.dtype for t in product(*inputs)]
    for got, wanted in zip(computed, exact, strict=True):  # bfloat16 has 8 bits; products of 512 terms
        assert torch.allclose(got.double(), wanted, rtol=0.02, atol=0.01 * float(wanted.abs().max()))


@needs_compiler
def test_products_read_no_memory_that_nothing_writes(tmp_path, monkeypatch):
    """A product in bfloat16 may read what lies between rows, here NaN, as in the step of two hidden layers of 600."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(*shape, generator=generator).bfloat16() for shape in ((100, 1200), (1200, 40)))
    unwritten = []

    def empty(size, stride, dtype):
        memory = torch.full((1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True)),), torch.nan, dtype=dtype)
        tensor = memory.as_strided(size, stride)
        unwritten.append(memory.numel() - tensor.numel())
        return tensor

    graph = lowering.graph_of(record(lambda x, w: torch.tanh(x) @ w, (x, w)), [x, w])
    monkeypatch.setitem(graph.__globals__, "empty_strided_cpu", empty)
    (computed,) = graph([x, w])
    exact = torch.tanh(x.double()) @ w.double()
    assert torch.allclose(computed.double(), exact, rtol=0.02, atol=0.01 * float(exact.abs().max()))
    assert unwritten
    assert not any(unwritten)  # on processors whose products do not read it, too
