"""One training per run directory and one writer per file of it, by locks that end with their process."""

from __future__ import annotations

import datetime
import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vaekit.errors import RunError
from vaekit.utils.files import is_running, unwritable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
PATIENCE = 60.0
"""Seconds to wait for whoever changes a file; a change takes milliseconds."""
_BUSY = (errno.EAGAIN, errno.EACCES)


class _Taken(Exception):
    """Another process or thread has the lock: `owner` as its file says, empty where it does not."""

    def __init__(self, owner: dict[str, Any]):
        super().__init__(owner)
        self.owner = owner


@contextmanager
def only_trainer(folder: Path) -> Iterator[None]:
    """Meanwhile no other process or thread trains in `folder`, which exists. Who only reads needs no lock.

    The system's own lock (flock) ends with its process. Where a file system has none, the process that the lock file
    names is asked for: of this machine it must be running, of another it is taken to be.

    Raises:
        RunError: another process or thread trains there, or the folder cannot be written.
    """
    path = folder / LOCK
    try:
        fd = _locked(path)
    except _Taken as taken:
        raise RunError(
            f"{folder} is being trained by {_named(taken.owner)}: wait until it ends, stop it, or choose another `out` "
            f"(if it no longer runs, remove {path})"
        ) from None
    with _released(fd, path):
        yield


@contextmanager
def only_writer(file: Path) -> Iterator[None]:
    """Meanwhile no other process or thread that asks for it changes `file`, which need not exist; waits its turn.

    Raises:
        RunError: another one has it for longer than `PATIENCE`, or the folder cannot be written.
    """
    path, until = file.with_name(f".{file.name}{LOCK}"), time.monotonic() + PATIENCE
    while True:
        try:
            fd = _locked(path)
            break
        except _Taken as taken:
            if time.monotonic() > until:
                raise RunError(
                    f"{file} is being changed by {_named(taken.owner)} (if it no longer runs, remove {path})"
                ) from None
        time.sleep(0.01)
    with _released(fd, path):
        yield


@contextmanager
def _released(fd: int, path: Path) -> Iterator[None]:
    """The lock is let go afterwards."""
    try:
        yield
    finally:
        if fcntl is None:  # Windows removes no open file, and whoever waits may have it open: an empty one is free
            with suppress(OSError):
                os.ftruncate(fd, 0)
            os.close(fd)
        with suppress(OSError):
            path.unlink()  # before it is let go, so that nobody else's is removed
        if fcntl is not None:
            os.close(fd)


def _locked(path: Path) -> int:
    """An open and locked file at `path`.

    Raises:
        _Taken: somebody else has it.
        RunError: it cannot be written.
    """
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise unwritable(path, error) from error
        try:
            taken = _flock(fd)
            if not taken:
                owner = _owner(fd)
                if taken is False or (owner and _at_work(owner)):
                    raise _Taken(owner)
            if _is_at(fd, path):
                os.ftruncate(fd, 0)
                os.lseek(fd, 0, os.SEEK_SET)
                os.write(fd, json.dumps(_ourselves()).encode())
                return fd
        except OSError as error:
            os.close(fd)
            raise unwritable(path, error) from error
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # whoever had it removed the file as it was opened: try the new one


def _flock(fd: int) -> bool | None:
    """Whether the system lets us have the file; None where it cannot tell."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _BUSY else None
    return True


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _ourselves() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "boot": _boot(),
        "begun": _begun(os.getpid()),
        "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _owner(fd: int) -> dict[str, Any]:
    """Who wrote the lock file; empty where it does not say."""
    try:
        owner = json.loads(os.read(fd, 4096))
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) and isinstance(owner.get("pid"), int) else {}


def _at_work(owner: dict[str, Any]) -> bool:
    """Whether the process that wrote a lock may still be running."""
    if owner.get("host") != socket.gethostname():
        return True
    if owner.get("boot") != _boot() or not is_running(owner["pid"]):
        return False
    return owner.get("begun") == _begun(owner["pid"])  # else its number went to another process


def _boot() -> str | None:
    """What changes when this machine starts anew."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _begun(pid: int) -> str | None:
    """When a process began, in the system's own terms."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _named(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process"
    if owner["pid"] == os.getpid():
        return f"this process ({owner['pid']})"
    return f"process {owner['pid']} on {owner.get('host')} (since {owner.get('since')})"
