"""Building the kernels of a compiled graph together, without a compiler."""

import re
import threading
from types import SimpleNamespace

from vaekit.utils import kernels

SOURCE = '\n#include <torch/csrc/inductor/cpp_prefix.h>\nextern "C"  void  kernel({}* a)\n{{ *a = {}; }}\n'


class _Loader:
    """Stands for the compiler: the functions of a library are the numbers that its kernels write."""

    def __init__(self):
        self.codes = []

    def __call__(self, code):
        self.codes.append(code)
        written = re.findall(r"namespace kernel(\d+) .*?\*a = (\d+);", code, re.DOTALL)
        return SimpleNamespace(**{f"kernel{i}": int(n) for i, n in written})


def test_kernels_are_shared_out_over_libraries_and_found_again():
    load = _Loader()
    libraries = kernels.Libraries(load, characters=40)  # some two kernels
    sources = [SOURCE.format("float", n) for n in range(7)]
    found = [kernels._binding(None, libraries, None, ["float*"], source) for source in sources]
    assert len(libraries.building) == 3  # a full library is begun before its kernels are asked for
    assert [f.result() for f in found] == list(range(7))
    assert sorted(code.count("namespace") for code in load.codes) == [1, 2, 2, 2]
    assert kernels._binding(None, libraries, None, ["float*"], sources[3]).result() == 3
    assert len(load.codes) == 4


def test_kernels_of_another_form_are_built_alone():
    alone = lambda compiler, types, source: "alone"  # noqa: E731
    libraries = kernels.Libraries(_Loader())
    assert kernels._binding(None, libraries, alone, ["int64_t"], SOURCE.format("float", 1)) == "alone"
    more = SOURCE.format("float", 1) + "#include <map>"
    assert kernels._binding(None, libraries, alone, ["float*"], more) == "alone"
    assert kernels._binding(None, libraries, alone, ["float*"], "void other() {}") == "alone"
    assert not libraries.waiting


def test_two_threads_that_compile_at_once_leave_torch_as_it_was():
    from torch._inductor.async_compile import AsyncCompile

    plain, inside, leave = AsyncCompile.cpp_pybinding, [], threading.Event()

    def second():
        with kernels.built_together():
            inside.append(AsyncCompile.cpp_pybinding)
            leave.wait(10)

    other = threading.Thread(target=second)
    with kernels.built_together():
        other.start()
        other.join(0.2)  # as long as it needs to enter, if nothing keeps it out
        assert AsyncCompile.cpp_pybinding is not plain
    leave.set()
    other.join()
    assert len(inside) == 1
    assert AsyncCompile.cpp_pybinding is plain


def test_a_library_that_is_damaged_or_cannot_be_loaded_here_is_built_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    built, loads = [], []

    def loaded(path, key):
        loads.append(path.read_text())
        if len(loads) == 3:
            raise ImportError("version `GLIBC_2.99' not found")
        return path.read_text()

    monkeypatch.setattr(kernels, "_loaded", loaded)
    monkeypatch.setattr(kernels, "_build", lambda code, part: (built.append(code), part.write_text("whole")))
    assert kernels.library("code") == kernels.library("code") == "whole"
    assert len(built) == 1
    assert kernels.library("code") == "whole"
    assert len(built) == 2
    for kept in (tmp_path / "vaekit").glob("*.so"):
        kept.write_text("who")
    assert kernels.library("code") == "whole"
    assert len(built) == 3
    assert loads == ["whole"] * 5
