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


def test_settings_of_the_environment_are_kept(monkeypatch):
    from vaekit.utils.memory import reuse_large_blocks

    monkeypatch.setenv("MALLOC_MMAP_MAX_", "10")
    monkeypatch.setattr(ctypes, "CDLL", None)  # an error if it were called
    reuse_large_blocks.__wrapped__()
