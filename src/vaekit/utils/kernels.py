"""Building the C++ kernels of a compiled graph quickly, and keeping them in the cache folder.

torch builds each kernel as a library of its own, after it has precompiled a header and compiled up to ten programs to
find out which vector instructions the compiler knows. Almost all of that time goes into the header, so here the
kernels are built together, and the compiler is only asked whether it knows the flags.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from vaekit.utils.files import cache_folder, part_of, remove_parts
from vaekit.utils.quick import ALONE, quick_code

QUARTER = 90 * 24 * 3600.0  # seconds
CHARACTERS = 100_000  # of source per library; reading the header takes as long as compiling these
FEWER = 40_000  # if the header is compiled in advance

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


@functools.cache
def machine() -> str:
    """What compiled code depends on besides its source: versions, and the instructions of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    parts = (
        torch.__version__,
        sys.version,
        sys.platform,
        platform.machine(),
        flags,
        os.environ.get("ATEN_CPU_CAPABILITY"),
    )
    return "\n".join(map(str, parts))


def kept(name: str) -> Path:
    """The path of a kept file: in the folder that TORCHINDUCTOR_CACHE_DIR names, else in vaekit's cache folder.

    Unlike torch's default folder, the cache folder survives a restart of the machine.
    """
    chosen = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    return (Path(chosen) / "vaekit" if chosen else cache_folder() / "compiled") / name


def trusted(path: Path) -> bool:
    """Whether the file exists, is complete and belongs to this user, as does its folder, which others may not write.

    Code of other users is not run. Loading an incomplete library would end the process.
    """
    try:
        folder = path.parent.stat()
        private = folder.st_uid == os.getuid() and not folder.st_mode & 0o022
        return private and path.lstat().st_uid == os.getuid() and _sum_of(path).read_text() == _digest(path)
    except OSError:
        return False


def _sum_of(path: Path) -> Path:
    """The file with the checksum of a kept file."""
    return path.with_name(f"{path.name}.sha256")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tidy() -> None:
    """Remove kept files that have not been used for a quarter of a year."""
    with contextlib.suppress(OSError):
        remove_parts(kept(""))
        for file in kept("").iterdir():
            if time.time() - max(file.stat().st_atime, file.stat().st_mtime) > QUARTER:
                file.unlink()


def write(path: Path, make: Callable[[Path], object]) -> None:
    """Write a file under a temporary name, then rename it: a file with the final name is always complete."""
    path.parent.mkdir(0o700, parents=True, exist_ok=True)  # whatever the umask, for `trusted`
    part = part_of(path)
    try:
        make(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        digest = _digest(part)
        part.replace(path)
        _sum_of(path).write_text(digest)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def built_together() -> Iterator[None]:
    """Graphs that torch compiles for the CPU inside this context have their kernels built together.

    Nothing changes if this version of torch names its parts differently.
    """
    if sys.platform == "win32":
        yield
        return
    with quick_code():
        try:
            from torch._inductor import config
            from torch._inductor.async_compile import AsyncCompile

            alone, threads = AsyncCompile.cpp_pybinding, config.compile_threads or 1
        except (ImportError, AttributeError):
            yield
            return
        with (
            config.patch(compile_threads=max(2, threads)),  # with one thread, torch would not wait for libraries
            mock.patch.object(AsyncCompile, "cpp_pybinding", functools.partialmethod(_binding, Libraries(), alone)),
        ):
            yield


def _binding(compiler: Any, libraries: Libraries, alone: Callable[..., Any], types: list[str], source: str) -> Any:
    """What `AsyncCompile.cpp_pybinding` returns: a future of a function of tensors."""
    from torch._inductor.codecache import LambdaFuture

    code = together(types, source)
    return alone(compiler, types, source) if code is None else LambdaFuture(libraries.add(types, code))


def together(types: list[str], source: str) -> str | None:
    """The parameters and the body of a kernel that can share a library with others, else None."""
    code = _KERNEL.fullmatch(source)
    if code is None or "#include" in code[1] or not all(t.endswith("*") for t in types):
        return None
    return code[1]


class Libraries:
    """Kernels that are built in the background, each library as soon as it has `characters` of source.

    Which kernels share a library depends on their order alone, so that kept libraries are found again.
    """

    def __init__(self, load: Callable[[str], Any] | None = None, characters: int = CHARACTERS):
        self.load, self.characters = load or library, characters
        self.pool = ThreadPoolExecutor(cores())
        self.places: dict[tuple[str, str], tuple[int, int]] = {}  # library and number of each kernel
        self.waiting: list[tuple[list[str], str]] = []
        self.building: list[Future[Any]] = []

    def add(self, types: list[str], source: str) -> Callable[[], Any]:
        """A function that waits for the kernel and returns it; a kernel that is added again is not built again."""
        key = (" ".join(types), source)
        if key not in self.places:
            self.places[key] = len(self.building), len(self.waiting)
            self.waiting.append((types, source))
            if sum(len(source) for _, source in self.waiting) >= self.characters:
                self.build()

        def function() -> Any:
            place, number = self.places[key]
            if place == len(self.building):
                self.build()
            return getattr(self.building[place].result(), f"kernel{number}")

        return function

    def build(self) -> None:
        """Start to build what waits as one library."""
        code, self.waiting = _module(self.waiting), []
        # torch's settings are set per thread
        self.building.append(self.pool.submit(contextvars.copy_context().run, self.load, code))


def library(code: str) -> Any:
    """The Python module of this C++ source, from the cache folder if it is there; otherwise it is built."""
    key = hashlib.sha256(f"{machine()}\n{code}".encode()).hexdigest()[:32]
    path = kept(f"{key}.so")
    if trusted(path):
        with contextlib.suppress(ImportError):  # built on a system that shares the folder, but not its libraries
            return _loaded(path, key)
    try:
        write(path, lambda part: _build(code, part))
    except OSError:  # the cache folder cannot be written
        return _loaded_from_elsewhere(code, key)
    return _loaded(path, key) if trusted(path) else _loaded_from_elsewhere(code, key)


def _build(code: str, path: Path) -> None:
    """Compile C++ source into a library."""
    header = _header.result() if _header is not None else None
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(_compiled(code, "kernel.cpp", folder, header), path)


def _compiled(code: str, name: str, folder: str, header: str | None = None, **options: Any) -> str:
    """Compile this code as a file in a folder; returns the path of the result.

    Without warnings and line tables, which change no instruction but take a seventh of the compiler's time.
    """
    from torch._inductor.cpp_builder import CppBuilder, CppTorchDeviceOptions
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    source = Path(folder, name)
    source.write_text(code, encoding="utf8")
    flags = CppTorchDeviceOptions(
        vec_isa=pick_vec_isa(),
        device_type="cpu",
        include_pytorch=False,
        shared=True,
        extra_flags=("-w", "-g0"),
        **options,
    )
    flags.precompiled_header = header
    target = name if options else source.stem  # a compiled header is looked for beside the header
    builder = CppBuilder(name=target, sources=str(source), BuildOption=flags, output_dir=folder)
    builder.build()
    return builder.get_target_file_path()


_header: Future[str | None] | None = None
"""A compiled header that all libraries include, while there is one."""


@contextlib.contextmanager
def header_in_advance() -> Iterator[None]:
    """Compile the kernels' header in parallel with the work inside this context, if there is a second core."""
    global _header
    if cores() < 2:
        yield
        return
    with ALONE, tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
        # torch's settings are set per thread
        _header = pool.submit(contextvars.copy_context().run, _compiled_header, folder)
        try:
            yield
        finally:
            _header = None


def _compiled_header(folder: str) -> str | None:
    try:
        _compiled("#include <torch/csrc/inductor/cpp_prefix.h>\n", "kernels.h", folder, precompiling=True)
    except Exception:  # each library then reads the header itself
        return None
    return str(Path(folder, "kernels.h"))


def cores() -> int:
    """The number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


def _loaded(path: Path, key: str) -> Any:
    address = torch._C._dynamo.guards._torchinductor_pyobject_tensor_data_ptr  # type: ignore[attr-defined]
    os.environ["_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR"] = str(address)
    spec = importlib.util.spec_from_file_location(f"vaekit_{key}.kernel", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _loaded_from_elsewhere(code: str, key: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{key}.so"
        _build(code, path)
        return _loaded(path, key)


def _module(kernels: list[tuple[list[str], str]]) -> str:
    """The source of a Python module with the functions `kernel0`, `kernel1`, ..."""
    functions, methods = [], []
    for i, (types, source) in enumerate(kernels):
        arguments = [f"static_cast<{t}>(data_of(arguments[{j}]))" for j, t in enumerate(types)]
        functions.append(_FUNCTION.format(i=i, source=source, n=len(types), arguments=", ".join(arguments)))
        call = f"reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(kernel{i}::call))"
        methods.append(f'{{"kernel{i}", {call}, METH_FASTCALL, nullptr}},')
    return _MODULE.format(kernels="".join(functions), methods="".join(methods))
