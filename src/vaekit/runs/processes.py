"""Work on rows that is shared among the processes that torchrun or srun started."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist

Result = TypeVar("Result")
_TOGETHER: ContextVar[bool] = ContextVar("together", default=False)


def place() -> tuple[int, int]:
    """The rank of this process and the number of processes, from the environment; (0, 1) for a single one."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def processes_here() -> tuple[int, int]:
    """The number of processes on this machine, and the number of machines, from the environment."""
    _, world = place()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
    return here, max(1, world // max(here, 1))


def is_first() -> bool:
    """Whether this process is the only one, or the one that writes and prints."""
    return place()[0] == 0


def writes() -> bool:
    """Whether this process writes results: all do, except inside `together`, where the first one does."""
    return not _TOGETHER.get() or is_first()


@contextlib.contextmanager
def together() -> Iterator[bool]:
    """A context in which encoding and scoring are shared among the processes; its value is `is_first()`.

    Every process must do the same things inside. Each gets all results.
    """
    _, world = place()
    if world == 1:
        yield True
        return
    if not dist.is_initialized():
        dist.init_process_group("gloo")
        atexit.register(dist.destroy_process_group)  # not before: it cannot be made twice with one address
    before = _TOGETHER.set(True)
    try:
        yield is_first()
        dist.barrier()  # a process that has ended would break the exchange of the others
    finally:
        _TOGETHER.reset(before)


def shared(
    rows: np.ndarray, find: Callable[[np.ndarray], Result], split: Callable[[Result], Sequence[np.ndarray]],
    join: Callable[[list[np.ndarray]], Result],
) -> Result:  # fmt: skip
    """`find(rows)`, inside `together` with a part of the rows in each process.

    Arguments:
        rows: (n,) numbers of the rows.
        find: the result for some rows.
        split: its arrays, whose first axis is that of the rows.
        join: the result from the arrays for all rows.
    """
    rank, world = place()
    if not _TOGETHER.get() or len(rows) < world:
        return find(rows)
    part = np.array_split(rows, world)[rank]
    return join([_exchanged(array) for array in split(find(part))])


def _exchanged(array: np.ndarray) -> np.ndarray:
    """The arrays (n, ...) of all processes, one after the other."""
    mine = torch.from_numpy(np.ascontiguousarray(array))
    world = dist.get_world_size()
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world)]
    dist.all_gather(sizes, torch.tensor([len(mine)]))
    most = max(int(size) for size in sizes)
    padded = torch.cat([mine, mine.new_zeros((most - len(mine), *mine.shape[1:]))])
    parts = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(size)] for part, size in zip(parts, sizes, strict=True)]).numpy()
