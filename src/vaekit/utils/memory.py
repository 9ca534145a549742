"""Reusing the memory of large tensors, instead of returning it to the system after each operation."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys

LARGEST = 256 * 2**20, 32 * 2**20
"""Bytes of the largest block that is reused, and the most that glibc accepts in older versions."""
MOST_FREE = 2**30
"""Bytes of free memory at the end of the heap that are kept at most. Free memory between used blocks is kept, too."""
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's malloc.h


@functools.cache
def reuse_large_blocks() -> None:
    """Let glibc reuse freed blocks of up to 256 MB, for the rest of the process.

    By default it maps each block above 32 MB anew. The system then fills its pages with zeros at their first use, which
    takes two to three times as long as an addition. Settings in the environment are respected.
    """
    names = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")
    asked = "malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(name in os.environ for name in names)
    if sys.platform != "linux" or asked:
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL(None)
        # alone, the second setting would disable glibc's own adjustment of the first, which starts at 128 KB
        if any(library.mallopt(_MMAP_THRESHOLD, size) for size in LARGEST):
            library.mallopt(_TRIM_THRESHOLD, MOST_FREE)
