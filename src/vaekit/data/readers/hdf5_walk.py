"""Reads all attributes and texts of an HDF5 file in a process of its own, where a damaged file can do no harm.

On a damaged heap the HDF5 library itself may loop, crash or fill the memory. This file is run by its text
(`python -c`), without vaekit and PyTorch, by `hdf5.examine`.
"""

import contextlib
import os
import sys
from typing import Any

import h5py

TOO_LARGE = 3
"""Exit code: the memory is not enough."""


def limit(seconds: int, memory: int) -> None:
    """Limit this process to this much CPU time, and to this many bytes beyond what it holds; not on Windows."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm") as file:  # only Linux has this file
        most = int(file.read().split()[0]) * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def read(found: Any, seen: set[int]) -> None:
    """Read the attributes of a member, and its texts; the index of other arrays.

    Arguments:
        found: a group or an array.
        seen: addresses of the groups and arrays already read; a group may contain itself.
    """
    address = h5py.h5o.get_info(found.id).addr
    if address in seen:
        return
    seen.add(address)
    for name in list(found.attrs):
        attempt(lambda name=name: found.attrs[name])
    if isinstance(found, h5py.Dataset):
        attempt(found.id.get_storage_size)
        if found.dtype.hasobject and not found.is_virtual:
            attempt(lambda: found[()])
    elif isinstance(found, h5py.Group):
        for name in list(found):
            if isinstance(found.get(name, getlink=True), h5py.HardLink):  # other links are not followed
                attempt(lambda name=name: read(found[name], seen))


def attempt(use: Any) -> None:
    """Call `use`; whoever reads the file later sees its error, unless it is one of memory, which ends the process."""
    try:
        use()
    except Exception as error:
        if isinstance(error, MemoryError) or "memory allocation" in str(error):
            os._exit(TOO_LARGE)


def walk(path: str, seconds: int, memory: int) -> int:
    """Read a file under these limits; returns the exit code."""
    limit(seconds, memory)
    with h5py.File(path, "r") as file:
        read(file, set())
    return 0


if __name__ == "__main__":
    sys.exit(walk(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
