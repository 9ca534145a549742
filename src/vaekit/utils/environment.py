"""What vaekit runs on: versions, processor, settings of torch and caches, without paths and names of this machine."""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from .files import cache_folder, is_writable
from .plugins import installed

Facts = dict[str, str]

COUNTED = 20_000
"""Files of a cache whose sizes are added up; a larger cache is reported as larger than their sum."""
PLAIN = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "ATEN_CPU_CAPABILITY",
    "CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF", "TORCH_COMPILE_DISABLE", "PYTHONUTF8",
)  # fmt: skip
"""Variables whose values are shown."""
HIDDEN = ("VAEKIT_CACHE", "TORCHINDUCTOR_CACHE_DIR", "XDG_CACHE_HOME", "PYTHONPATH")
"""Variables that hold paths: only that they are set is shown."""


@dataclass(frozen=True)
class Environment:
    """What vaekit runs on: `groups` of facts, each a name and a text. Printed, it is what a bug report needs."""

    groups: dict[str, Facts]

    def __str__(self) -> str:
        lines = []
        for group, facts in self.groups.items():
            wide = max(map(len, facts), default=0)
            lines += [group, *(f"  {name:<{wide}}  {text}" for name, text in facts.items())]
        return "\n".join(lines)


def environment() -> Environment:
    """The versions, the processor, the settings of torch and the caches that vaekit uses here.

    Nothing in it names a path, a user or a machine, and nothing is sent anywhere.

        >>> environment().groups["versions"]["vaekit"]  # doctest: +SKIP
        '0.2.0'
    """
    return Environment(
        {
            "versions": _versions(),
            "processor": _processor(),
            "accelerators": _accelerators(),
            "torch": _torch(),
            "caches": _caches(),
            "variables": _variables(),
        }
    )


def _versions() -> Facts:
    """Versions of vaekit, Python and the system, of every package that vaekit can use, and of its plug-ins."""
    from vaekit import __version__

    kind = f"{platform.python_implementation()}, {sys.maxsize.bit_length() + 1} bit"
    facts = {
        "vaekit": __version__,
        "Python": f"{platform.python_version()} ({kind})",
        "system": f"{platform.system()} {platform.release()}",
        **({"C library": " ".join(platform.libc_ver())} if any(platform.libc_ver()) else {}),
        **({"notebook": f"IPython {version('IPython')}"} if "IPython" in sys.modules else {}),
    }
    try:
        wanted = requires("vaekit") or []
    except PackageNotFoundError:  # used from its sources, without an installation
        wanted = ["torch", "numpy"]
    absent = []
    for name in dict.fromkeys(re.split(r"[^\w.-]", each, maxsplit=1)[0] for each in wanted):
        try:
            facts.setdefault(name, version(name))
        except PackageNotFoundError:
            absent.append(name)
    if absent:
        facts["not installed"] = ", ".join(absent)
    plugins = {entry.dist.name: entry.dist.version for entry in installed() if entry.dist is not None}
    if plugins:
        facts["plug-ins"] = ", ".join(f"{name} {number}" for name, number in plugins.items())
    return facts


def _processor() -> Facts:
    import torch

    return {
        "model": _model(),
        "architecture": platform.machine(),
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": f"{_usable()} usable of {os.cpu_count()}",
        **({"memory": f"{_memory() / 2**30:.1f} GiB"} if _memory() else {}),
    }


def _model() -> str:
    """The processor's name as the system gives it."""
    with contextlib.suppress(OSError):
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf8"), re.M)
        if names:
            return str(names[0]).strip()
    return platform.processor() or "unknown"


def _usable() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def _memory() -> int:
    """Bytes of memory; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _accelerators() -> Facts:
    import torch

    facts = {"CUDA": f"{torch.version.cuda or 'not in this build'}"}
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            of = torch.cuda.get_device_properties(i)
            facts[f"cuda:{i}"] = f"{of.name}, {of.total_memory / 2**30:.1f} GiB, capability {of.major}.{of.minor}"
    elif torch.version.cuda:
        facts["cuda"] = "no device is available"
    if sys.platform == "darwin":
        facts["MPS"] = "available" if torch.backends.mps.is_available() else "not available"
    return facts


def _torch() -> Facts:
    import torch

    within, between = torch.get_num_threads(), torch.get_num_interop_threads()
    return {
        "threads": f"{within} within an operation, {between} between operations",
        "default dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "oneDNN": "yes" if torch.backends.mkldnn.is_available() else "no",
        "OpenMP": "yes" if torch.backends.openmp.is_available() else "no",
        "float32 products": torch.get_float32_matmul_precision(),
        "deterministic": "yes" if torch.are_deterministic_algorithms_enabled() else "no",
        "C++ compiler": _compiler(),
    }


def _compiler() -> str:
    """The name and the version of the compiler that torch finds on a CPU."""
    from .compiled import COMPILERS

    for name in COMPILERS:
        if shutil.which(name):
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                ran = subprocess.run([name, "--version"], capture_output=True, text=True, timeout=20, check=True)
                return f"{name} {found[0]}" if (found := re.findall(r"\b\d+\.\d[\d.]*", ran.stdout)) else name
    return "none: training on a CPU is not compiled"


def _caches() -> Facts:
    data = cache_folder()
    chosen = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    return {
        "data": _cache(data, "VAEKIT_CACHE" if os.environ.get("VAEKIT_CACHE") else ""),
        "compiled code": _cache(
            Path(chosen) if chosen else data / "compiled", "TORCHINDUCTOR_CACHE_DIR" if chosen else ""
        ),
    }


def _cache(folder: Path, variable: str) -> str:
    """The size of a cache, whether it can be written, and which variable sets its place."""
    place = f"in the place that {variable} sets" if variable else "in the default place"
    if not folder.exists():
        return f"none yet, {place}"
    size, more = 0, ""
    for i, each in enumerate(itertools.islice(_files(folder), COUNTED + 1)):
        size, more = size + each, "more than " if i == COUNTED else ""
    return f"{more}{size / 1e6:,.1f} MB {place}, {'writable' if is_writable(folder) else 'not writable'}"


def _files(folder: Path) -> Iterator[int]:
    """The size of each file below a folder; files that vanish meanwhile are left out."""
    for at, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                yield (Path(at) / name).stat().st_size


def _variables() -> Facts:
    shown = {name: os.environ[name] for name in PLAIN if name in os.environ}
    return {**shown, **{name: "set" for name in HIDDEN if os.environ.get(name)}} or {"none": "of those that matter"}
