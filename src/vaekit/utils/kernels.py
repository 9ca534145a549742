"""Building the C++ kernels of a compiled graph quickly.

torch builds each kernel as a library of its own, after it has precompiled a header and compiled up to ten programs to
find out which vector instructions the compiler knows. Almost all of that time goes into the header, so here the
kernels are built together, and the compiler is only asked whether it knows the flags.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

_ALONE = threading.RLock()
"""Held while torch's parts are replaced: two threads would otherwise put back each other's replacements."""

CHARACTERS = 100_000  # of source per library; reading the header takes as long as compiling these

_KERNEL = re.compile(r'\s*#include <torch/csrc/inductor/cpp_prefix\.h>\s*extern "C"\s+void\s+kernel\((.*)', re.DOTALL)

_MODULE = """
#include <Python.h>
#include <cstdlib>
#include <exception>
#include <torch/csrc/inductor/cpp_prefix.h>
static void* (*data_of)(PyObject*);
{kernels}
static PyMethodDef methods[] = {{ {methods} {{nullptr, nullptr, 0, nullptr}} }};
static struct PyModuleDef module_of_kernels = {{PyModuleDef_HEAD_INIT, "kernel", nullptr, -1, methods}};
PyMODINIT_FUNC PyInit_kernel(void) {{
    const char* address = std::getenv("_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR");
    if (!address) {{
        PyErr_SetString(PyExc_RuntimeError, "_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR must be set");
        return nullptr;
    }}
    data_of = reinterpret_cast<decltype(data_of)>(std::strtoull(address, nullptr, 10));
    return PyModule_Create(&module_of_kernels);
}}
"""

_FUNCTION = """
namespace kernel{i} {{
void kernel({source}
static PyObject* call(PyObject*, PyObject* const* arguments, Py_ssize_t n) {{
    if (n != {n}) {{
        PyErr_SetString(PyExc_TypeError, "this kernel takes {n} arguments");
        return nullptr;
    }}
    try {{
        kernel({arguments});
    }} catch (std::exception const& e) {{
        PyErr_SetString(PyExc_RuntimeError, e.what());
        return nullptr;
    }}
    Py_RETURN_NONE;
}}
}}
"""


@contextlib.contextmanager
def built_together() -> Iterator[None]:
    """Graphs that torch compiles for the CPU inside this context have their kernels built together.

    Nothing changes if this version of torch names its parts differently.
    """
    if sys.platform == "win32":
        yield
        return
    with _ALONE:
        try:
            from torch._inductor import config
            from torch._inductor.async_compile import AsyncCompile
            from torch._inductor.codecache import CppPythonBindingsCodeCache
            from torch._inductor.cpu_vec_isa import VecISA

            alone, _ = AsyncCompile.cpp_pybinding, VecISA.check_build
            threads = config.compile_threads or 1
            libraries = _Libraries(CppPythonBindingsCodeCache.load, threads)
        except (ImportError, AttributeError):
            yield
            return
        with (
            config.patch(compile_threads=max(2, threads)),  # with one thread, torch would not wait for libraries
            mock.patch.object(AsyncCompile, "cpp_pybinding", functools.partialmethod(_binding, libraries, alone)),
            mock.patch.object(VecISA, "check_build", lambda isa, code: _knows(isa.build_arch_flags())),
        ):
            yield


@functools.cache
def _knows(flags: str) -> bool:
    """Whether the compiler knows these flags; whether the processor has the instructions, torch asks itself."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    command = [get_cpp_compiler(), *flags.split(), "-fsyntax-only", "-x", "c++", "-"]
    return subprocess.run(command, input=b"", capture_output=True, check=False).returncode == 0


def _binding(compiler: Any, libraries: _Libraries, alone: Callable[..., Any], types: list[str], source: str) -> Any:
    """What `AsyncCompile.cpp_pybinding` returns: a future of a function of tensors."""
    from torch._inductor.codecache import LambdaFuture

    code = _KERNEL.fullmatch(source)
    if code is None or "#include" in code[1] or not all(t.endswith("*") for t in types):
        return alone(compiler, types, source)
    return LambdaFuture(libraries.add(types, code[1]))


class _Libraries:
    """Kernels that are built when the first of them is asked for."""

    def __init__(self, load: Callable[[str], Any], threads: int):
        self.load, self.threads = load, threads
        self.waiting: list[tuple[list[str], str]] = []
        self.built: list[Any] = []

    def add(self, types: list[str], source: str) -> Callable[[], Any]:
        place = len(self.built) + len(self.waiting)
        self.waiting.append((types, source))

        def function() -> Any:
            if self.waiting:
                self.build()
            return self.built[place]

        return function

    def build(self) -> None:
        """Build what waits, in libraries of about equal size, at most one per thread."""
        from concurrent.futures import ThreadPoolExecutor

        from torch._inductor import config

        total = sum(len(source) for _, source in self.waiting)
        workers = min(self.threads, 1 + total // CHARACTERS)
        groups: list[list[tuple[list[str], str]]] = [[] for _ in range(workers)]
        reached = itertools.accumulate(len(source) for _, source in self.waiting)
        for kernel, end in zip(self.waiting, reached, strict=True):
            groups[min(workers - 1, (end - 1) * workers // total)].append(kernel)
        groups = [group for group in groups if group]
        with config.patch(cpp_cache_precompile_headers=False), ThreadPoolExecutor(workers) as pool:
            # torch's settings are set per thread
            building = [pool.submit(contextvars.copy_context().run, self.load, _module(group)) for group in groups]
            modules = [b.result() for b in building]
        for module, group in zip(modules, groups, strict=True):
            self.built += [getattr(module, f"kernel{i}") for i in range(len(group))]
        self.waiting.clear()


def _module(kernels: list[tuple[list[str], str]]) -> str:
    """The source of a Python module with the functions `kernel0`, `kernel1`, ..."""
    functions, methods = [], []
    for i, (types, source) in enumerate(kernels):
        arguments = [f"static_cast<{t}>(data_of(arguments[{j}]))" for j, t in enumerate(types)]
        functions.append(_FUNCTION.format(i=i, source=source, n=len(types), arguments=", ".join(arguments)))
        call = f"reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(kernel{i}::call))"
        methods.append(f'{{"kernel{i}", {call}, METH_FASTCALL, nullptr}},')
    return _MODULE.format(kernels="".join(functions), methods="".join(methods))
