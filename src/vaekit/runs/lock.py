"""Locks for one training per run directory and one writer per file of it; a lock ends with its process."""

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
"""Seconds to wait for another writer of a file; a change takes milliseconds."""
_BUSY = (errno.EAGAIN, errno.EACCES)


class _Taken(Exception):
    """Another process or thread holds the lock; `owner` is what the lock file says, or empty if it is unreadable."""

    def __init__(self, owner: dict[str, Any]):
        super().__init__(owner)
        self.owner = owner


@contextmanager
def only_trainer(folder: Path) -> Iterator[None]:
    """Prevents other processes and threads from training in `folder`, which must exist. Readers need no lock.

    The operating system's lock (flock) ends with its process. On a file system without one, the lock is held as long as
    the process named in the lock file runs; a process on another machine is assumed to be running.

    Raises:
        RunError: another process or thread trains in the folder, or it cannot be written.
    """
    path = folder / LOCK
    try:
        fd = _locked(path)
    except _Taken as taken:
        raise RunError(
            f"{folder} is being trained by {_lock_owner(taken.owner)}: wait until it ends, stop it, or choose another "
            f"`out` (if it no longer runs, remove {path})"
        ) from None
    with _released(fd, path):
        yield


@contextmanager
def only_writer(file: Path) -> Iterator[None]:
    """Waits for and then holds the lock for changing `file`, which need not exist.

    It excludes only processes and threads that use this lock.

    Raises:
        RunError: another process or thread holds it for longer than `PATIENCE`, or the folder cannot be written.
    """
    path, until = file.with_name(f".{file.name}{LOCK}"), time.monotonic() + PATIENCE
    while True:
        try:
            fd = _locked(path)
            break
        except _Taken as taken:
            if time.monotonic() > until:
                raise RunError(
                    f"{file} is being changed by {_lock_owner(taken.owner)} (if it no longer runs, remove {path})"
                ) from None
        time.sleep(0.01)
    with _released(fd, path):
        yield


@contextmanager
def _released(fd: int, path: Path) -> Iterator[None]:
    """Releases the lock afterwards."""
    try:
        yield
    finally:
        if fcntl is None:  # Windows cannot remove a file that a waiting process has open: an empty file is free
            with suppress(OSError):
                os.ftruncate(fd, 0)
            os.close(fd)
        with suppress(OSError):
            path.unlink()  # before the release, so as not to remove another owner's file
        if fcntl is not None:
            os.close(fd)


def _locked(path: Path) -> int:
    """An open and locked file at `path`.

    Raises:
        _Taken: another process or thread holds the lock.
        RunError: the file cannot be written.
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
        os.close(fd)  # the previous owner removed the file after we opened it: retry with a new one


def _flock(fd: int) -> bool | None:
    """Whether the system grants the lock; None if it does not support locks."""
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
    """The owner that the lock file names; empty if it names none."""
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
    return owner.get("begun") == _begun(owner["pid"])  # otherwise its process id was reused


def _boot() -> str | None:
    """An identifier that changes when the machine reboots."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _begun(pid: int) -> str | None:
    """The start time of a process, as the system reports it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _lock_owner(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process"
    if owner["pid"] == os.getpid():
        return f"this process ({owner['pid']})"
    return f"process {owner['pid']} on {owner.get('host')} (since {owner.get('since')})"
