"""How torch's OpenMP threads wait for each other: spinning while the cores are free, asleep while others use them.

Spinning threads react at once, but beside another program each of them takes time from threads that have work to do.
Sleeping threads do not, but take long to wake up when the cores are free. The number of threads stays the same,
because results depend on it in their last bits: matrix products and sums over whole tensors are split among threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

INTERVAL = 0.2
"""Seconds between measurements."""
SHARED = 0.25
"""Threads sleep once they have waited for a core for this share of an interval, summed over the threads.

Asleep, on two cores, the share was 0.4 to 0.5 beside a training or a busy program, and 0.03 to 0.2 without.
"""
CALM = 5
"""They spin again once the mean share of this many intervals is smaller."""


class Policy:
    """Decides whether threads sleep, from the share of the time that they waited for a core."""

    def __init__(self) -> None:
        self.sleep = False
        self.shares: deque[float] = deque(maxlen=CALM)  # of the last intervals

    def update(self, share: float) -> bool:
        """Whether threads should sleep after another interval; `share` is summed over the threads."""
        self.shares.append(share)
        if not self.sleep and share > SHARED:
            self.sleep = True
            self.shares.clear()
        elif self.sleep and len(self.shares) == CALM:
            self.sleep = mean(self.shares) > SHARED
        return self.sleep


class Delay:
    """Measures how long the threads of this process, except the calling one, wait for a core that others use."""

    def __init__(self, tasks: Path = Path("/proc/self/task")):
        self.tasks = tasks
        self.before, self.time = self._totals(), time.monotonic()

    @property
    def known(self) -> bool:
        """Whether the kernel measures it."""
        return bool(self.before)

    def share(self) -> float:
        """The share of the time since the last call in which threads waited, summed over threads."""
        totals, now = self._totals(), time.monotonic()
        waited = sum(total - self.before.get(thread, 0) for thread, total in totals.items())
        seconds = now - self.time
        self.before, self.time = totals, now
        return waited / 1e9 / max(seconds, 1e-9)

    def _totals(self) -> dict[str, int]:
        """The nanoseconds of each thread's life in which it could run and waited for a core."""
        own, totals = str(threading.get_native_id()), {}
        for thread in os.listdir(self.tasks) if self.tasks.is_dir() else []:
            with contextlib.suppress(OSError, IndexError, ValueError):  # a thread may end meanwhile
                if thread != own:
                    totals[thread] = int((self.tasks / thread / "schedstat").read_bytes().split()[1])
        return totals


class Crowd:
    """An idle OpenMP team, which makes all waiting threads of this process sleep after a very short spin.

    GNU OpenMP does so while a process has more OpenMP threads than there are cores (see GOMP_SPINCOUNT in its manual).
    """

    def __init__(self, library: ctypes.CDLL):
        self.library = library
        self.left: threading.Event | None = None
        self.thread: threading.Thread | None = None

    def set(self, sleep: bool) -> None:
        """Let threads sleep while they wait, or spin."""
        if sleep and self.left is None:
            self.left = threading.Event()
            self.thread = threading.Thread(target=self._stay, args=(self.left,), daemon=True)
            self.thread.start()
        elif not sleep and self.left is not None and self.thread is not None:
            self.left.set()
            self.thread.join()
            self.left = self.thread = None

    def _stay(self, left: threading.Event) -> None:
        """Start a team in this thread, which ends with the thread."""
        import torch

        size = max(2, self.library.omp_get_num_procs() + 2 - torch.get_num_threads())
        nothing = ctypes.cast(self.library.free, ctypes.c_void_p)  # free(NULL) has no effect and needs no Python
        self.library.GOMP_parallel(nothing, None, ctypes.c_uint(size), ctypes.c_uint(0))
        left.wait()


def gnu_openmp() -> ctypes.CDLL | None:
    """GNU OpenMP as torch loaded it; None if torch is not imported, uses another library, or has one thread."""
    torch = sys.modules.get("torch")
    threads = None if torch is None else vars(torch).get("get_num_threads")  # None while torch is being imported
    if threads is None or threads() == 1:
        return None
    library = ctypes.CDLL(None)
    return library if _defines(library, "GOMP_parallel") and not _defines(library, "kmp_set_blocktime") else None


def _defines(library: ctypes.CDLL, symbol: str) -> bool:
    try:
        library[symbol]
    except AttributeError:
        return False
    return True


class _Watch:
    """The thread that measures and decides while `users` contexts are active."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.over = threading.Event()
        self.thread: threading.Thread | None = None

    def __enter__(self) -> None:
        with self.lock:
            self.users += 1
            if self.users == 1 and sys.platform == "linux" and "OMP_WAIT_POLICY" not in os.environ:
                self.over = threading.Event()
                self.thread = threading.Thread(target=self._watch, args=(self.over,), daemon=True)
                self.thread.start()

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0 and self.thread is not None:
                self.over.set()
                self.thread.join()
                self.thread = None

    def _watch(self, over: threading.Event) -> None:
        delay, policy, crowd = Delay(), Policy(), None
        while delay.known and not over.wait(INTERVAL):
            share = delay.share()
            if crowd is None and (library := gnu_openmp()) is not None:
                crowd = Crowd(library)
            if crowd is not None:
                crowd.set(policy.update(share))
        if crowd is not None:
            crowd.set(False)


_watch = _Watch()


@contextlib.contextmanager
def adaptive_waiting() -> Iterator[None]:
    """Inside this context, waiting threads of torch spin only while no other program uses their cores.

    It applies to GNU OpenMP on Linux, which torch's own wheels use, unless the environment sets OMP_WAIT_POLICY.
    """
    with _watch:
        yield
