"""Torch's code generator writes the same code with less work."""

import contextlib
import gc

import pytest
import torch
from core_helpers import needs_compiler

from vaekit.utils import collecting, kernels, lowering, quick
from vaekit.utils.recording import record


def adam(weight, state, x, bias):
    """Matrix products, sums over rows and columns, and updates in place, as in a training step."""
    h = torch.relu(x @ weight + bias)
    gradient = x.t() @ h
    state.mul_(0.9).add_(gradient, alpha=0.1)
    weight.sub_(state * 1e-3)
    bias.sub_(h.sum(0) * 1e-2 + torch.softmax(h, 1).sum(0))
    return (h - h.mean(1, keepdim=True)).square().sum(1), h.reshape(8, 5, 24).transpose(1, 2).exp().sum()


def noise(keys, x):
    """Integer operations, as of vaekit's random numbers."""
    bits = (keys[:, None] * 31) ^ (torch.arange(33)[None, :] >> 3)
    return x[:, ::2] + (bits & 1023).float()[:, :17], x.flip(1).cumsum(1)


PROGRAMS = {
    "adam": (adam, (torch.ones(16, 24), torch.ones(16, 24), torch.ones(40, 16), torch.ones(24))),
    "noise": (noise, (torch.arange(20), torch.ones(20, 33))),
}


def source(program, inputs):
    """The source of the graph; no kernel is built."""
    unbuilt = lowering._Kernels(kernels.Libraries(load=lambda code: None))
    return lowering.lowered(program, inputs, unbuilt)


@needs_compiler
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_code_is_the_same(name, monkeypatch):
    function, inputs = PROGRAMS[name]
    program = record(function, inputs)
    inputs = [*inputs, *program.found]
    tilings = (quick._tilings, quick._instructions)  # the first leaves out code for remainders that are empty
    monkeypatch.setattr(quick, "_PARTS", tilings)
    with quick.quick_code():
        plain = source(program, inputs)
    monkeypatch.undo()
    with quick.quick_code():
        assert source(program, inputs) == plain


def test_other_versions_of_torch_stay_as_they_are(monkeypatch):
    own = [(owner, name, vars(owner)[name]) for part in quick._PARTS for owner, name, _ in part()]
    monkeypatch.setattr(torch, "__version__", "2.11.0+cpu")
    with quick.quick_code():
        assert all(vars(owner)[name] is value for owner, name, value in own)


def test_every_part_applies_to_this_version_of_torch_and_is_taken_back():
    replaced = []
    for part in quick._PARTS:
        found = list(part())
        assert found, part.__name__
        replaced += [(owner, name, vars(owner)[name]) for owner, name, _ in found]
    with quick.quick_code():
        assert all(vars(owner)[name] is not plain for owner, name, plain in replaced)
    assert all(vars(owner)[name] is plain for owner, name, plain in replaced)


def test_strides_are_those_of_torch():
    import sympy
    from torch._inductor.codegen import cpp
    from torch.utils._sympy.functions import FloorDiv, ModularIndexing

    x, y = sympy.symbols("d0 d1", integer=True)
    indices = [x, y, 3 * x + 2 * y + 7, sympy.Integer(5), 20 * x - 10 * y, 2 * (x + 3 * y), x * y, 16 * FloorDiv(x, 16)]
    indices += [ModularIndexing(x, 1, 16) + y, FloorDiv(y, 4) + 8 * x]
    plain = cpp.stride_at_vec_range
    ((_, _, stride),) = quick._strides()
    for index in indices:
        for var in (x, y):
            for length in (None, 16):
                assert stride(index, var, length) == plain(index, var, length), (index, var, length)


def test_the_collector_is_back_after_an_import_that_fails():
    assert gc.isenabled()
    with contextlib.suppress(ImportError), collecting.uncollected():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with collecting.uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
