"""Large tensors: their memory is reused, so that the system does not fill new pages with zeros."""

import ctypes
import platform
import subprocess
import sys

import pytest

PAGES = """
import resource, numpy as np
from vaekit.utils.memory import reuse_large_blocks
{}
def filled():
    np.empty(40 * 2**17).fill(1.0)  # 40 MB
filled()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
filled()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_a_large_block_is_used_again_without_new_pages(monkeypatch):
    for name in ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    told = subprocess.run(
        [sys.executable, "-c", PAGES.format("reuse_large_blocks()")], capture_output=True, text=True, check=True
    )
    assert int(told.stdout) < 40 * 2**20 / 2**16  # a page has 4 to 64 KB


@pytest.mark.skipif(sys.platform != "linux", reason="settings of glibc")
@pytest.mark.parametrize(
    ("most", "set_"), [(2**30, [(-3, 2**28), (-1, 2**30)]), (2**25, [(-3, 2**25), (-1, 2**30)]), (0, [])]
)
def test_blocks_are_as_large_as_this_glibc_accepts_unless_the_environment_says_otherwise(monkeypatch, most, set_):
    from vaekit.utils.memory import reuse_large_blocks

    accepted = []

    class Library:
        def mallopt(self, setting, value):
            if setting == -3 and value > most:
                return 0
            accepted.append((setting, value))
            return 1

    for name in ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library())
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "10")
    reuse_large_blocks.__wrapped__()
    assert accepted == []
    monkeypatch.delenv("MALLOC_MMAP_MAX_")
    reuse_large_blocks.__wrapped__()
    assert accepted == set_
