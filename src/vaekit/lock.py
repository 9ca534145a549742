"""One training per run directory, by a lock that ends with its process."""

from __future__ import annotations

import datetime
import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import RunError
from .files import is_running, unwritable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_BUSY = (errno.EAGAIN, errno.EACCES)


@contextmanager
def only_trainer(folder: Path) -> Iterator[None]:
    """Meanwhile no other process or thread trains in `folder`, which exists. Who only reads needs no lock.

    The system's own lock (flock) ends with its process. Where a file system has none, the process that the lock file
    names is asked for: of this machine it must be running, of another it is taken to be.

    Raises:
        RunError: another process or thread trains there, or the folder cannot be written.
    """
    path = folder / LOCK
    fd = _locked(path)
    try:
        yield
    finally:
        if fcntl is None:  # Windows removes no open file
            os.close(fd)
        with suppress(OSError):
            path.unlink()  # before it is let go, so that nobody else's is removed
        if fcntl is not None:
            os.close(fd)


def _locked(path: Path) -> int:
    """An open and locked file at `path`."""
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
                    raise RunError(_busy(path, owner))
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


def _busy(path: Path, owner: dict[str, Any]) -> str:
    who = "another process"
    if owner:
        who = f"process {owner['pid']} on {owner.get('host')} (since {owner.get('since')})"
        who = f"this process ({owner['pid']})" if owner["pid"] == os.getpid() else who
    return (
        f"{path.parent} is being trained by {who}: wait until it ends, stop it, or choose another `out` "
        f"(if it no longer runs, remove {path})"
    )
