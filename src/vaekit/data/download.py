"""Downloads from several mirrors in turn, resumed, checked, and renamed only when complete."""

import contextlib
import gzip
import hashlib
import http.client
import os
import socket
import threading
import time
import urllib.error
import urllib.request
import weakref
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaekit.errors import UnavailableError

from . import cache as caches
from .core import Progress

TIMEOUT = 30.0
"""Seconds to wait for the headers or the next byte, and the period over which the speed is measured."""
SLOWEST = 1000
"""Bytes per second; a slower mirror is given up for the next one."""
CHUNK = 2**18
PACKED = 16  # maximum ratio of the unpacked to the packed size of a .gz file; for images and labels it is below 6

Clock = Callable[[], float]


@dataclass(frozen=True)
class File:
    """A file with a known checksum.

    Args:
        name: file name, on the mirrors and on disk.
        algorithm: "sha256" or "md5".
        checksum: the checksum in hexadecimal.
        unpacked: whether the checksum is of the unpacked content of a .gz file, because mirrors compress differently.
        most: maximum size of the download in bytes.
        seconds: maximum duration of the download from all mirrors together.
    """

    name: str
    algorithm: str
    checksum: str
    unpacked: bool = False
    most: int = 2**30
    seconds: float = 3600.0

    def problem(self, path: Path) -> str | None:
        """A description of what is wrong with the file at `path`, or None if it is correct."""
        hashed = hashlib.new(self.algorithm, usedforsecurity=False)
        try:
            allowed = PACKED * self.most if self.unpacked else self.most
            with gzip.open(path) if self.unpacked else path.open("rb") as file:
                while part := file.read(CHUNK):
                    hashed.update(part)
                    allowed -= len(part)
                    if allowed < 0:
                        return "larger than this file can be"
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            return f"damaged or cut short ({error})"
        if hashed.hexdigest() == self.checksum:
            return None
        return f"wrong {self.algorithm}, expected {self.checksum}, got {hashed.hexdigest()}"


def fetch(
    file: File,
    folder: Path,
    mirrors: Sequence[str],
    *,
    progress: Progress | None = None,
    timeout: float = TIMEOUT,
    clock: Clock = time.monotonic,
) -> Path:
    """Download a file into `folder` from the first mirror that has it, check it and return its path.

    A partial download in NAME.part is resumed if the mirror supports it; the file is renamed to its own name after
    its checksum is verified. The download may have `file.most` bytes and take `file.seconds` in all; a mirror that
    sends fewer than `SLOWEST` bytes per second is given up for the next.

    Args:
        file: the file.
        folder: where to put it.
        mirrors: addresses of folders.
        progress: called during the download.
        timeout: seconds to wait for a mirror, and the period over which its speed is measured.
        clock: returns the time in seconds.

    Raises:
        UnavailableError: no mirror provides the file; the message names the problem of each.
        DataError: the folder cannot be written.
    """
    path, part = folder / file.name, folder / f"{file.name}.part"
    tried = []
    deadline = clock() + file.seconds
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise caches.unwritable(folder, error) from error
    for mirror in mirrors:
        address = f"{mirror.rstrip('/')}/{file.name}"
        for resume in (True, False):
            continued = resume and part.exists() and part.stat().st_size > 0
            if resume and not continued:
                continue
            problem = _attempt(address, part, file, continued, progress, timeout, deadline, clock)
            if problem is None:
                part.replace(path)
                return path
            if not continued:
                tried.append(f"{address}: {problem}")
    raise UnavailableError(f"{file.name} could not be downloaded ({'; '.join(tried) or 'no mirrors'})")


def _attempt(
    address: str,
    part: Path,
    file: File,
    resume: bool,
    progress: Progress | None,
    timeout: float,
    deadline: float,
    clock: Clock,
) -> str | None:
    """Download to `part`, check it and remove it if the checksum is wrong; returns the problem, or None."""
    if clock() > deadline:
        return f"the time limit of {file.seconds:g} s for this file is exceeded"
    done = part.stat().st_size if resume else 0
    request = urllib.request.Request(address, headers={"User-Agent": "vaekit"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    problem: str | None = None
    guard = _Guard(min(timeout, deadline - clock()))
    try:
        with guard, _opener(guard).open(request, timeout=timeout) as answer:
            guard.put_off(deadline - clock())
            done = done if answer.status == 206 else 0
            length = answer.headers.get("Content-Length") or "0"
            if not (length.isascii() and length.isdigit()):
                return f"the server reports a size of {length!r} bytes"
            total = done + int(length) if int(length) else 0
            if total > file.most:
                return f"the server offers {total} bytes, but this file has at most {file.most}"
            try:
                out = part.open("ab" if done else "wb")
            except OSError as error:
                raise caches.unwritable(part, error) from error
            pace = Pace(timeout, clock)
            with out:
                while chunk := answer.read1(CHUNK):  # returns what has arrived, so that a slow server is noticed
                    done += len(chunk)
                    if done > file.most:
                        problem = f"the server sends more than {file.most} bytes, the maximum for this file"
                        break
                    out.write(chunk)
                    if clock() > deadline:
                        problem = f"not finished after {file.seconds:g} s"
                        break
                    if pace.is_too_slow(len(chunk)):
                        problem = f"the server sends fewer than {SLOWEST:,} bytes per second"
                        break
                    if progress is not None:
                        progress(f"downloading {file.name}", done, total)
                out.flush()
                os.fsync(out.fileno())
    except urllib.error.HTTPError as error:
        return f"the server answers {error.code} {error.reason}"
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {getattr(error, 'reason', None) or error}"
    if problem is not None:
        if done > file.most:
            part.unlink()
        return problem
    if total and done < total:
        return f"cut short, {done} of {total} bytes"
    if problem := file.problem(part):
        part.unlink()
        return problem
    return None


class Pace:
    """Measures the speed of a download over periods of `seconds`."""

    def __init__(self, seconds: float, clock: Clock):
        self.seconds, self.clock = seconds, clock
        self.since, self.bytes = clock(), 0

    def is_too_slow(self, more: int) -> bool:
        """Count `more` bytes; True if a period ends now that had fewer than `SLOWEST` bytes per second."""
        self.bytes += more
        now = self.clock()
        spent = now - self.since
        if spent < self.seconds:
            return False
        slow = self.bytes < SLOWEST * spent
        self.since, self.bytes = now, 0
        return slow


class _Guard:
    """Closes a connection `seconds` after it was made, whatever the server does, unless the deadline is moved."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.known: Callable[[], socket.socket | None] = lambda: None
        self.timer: threading.Timer | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: Any) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def watch(self, connected: socket.socket) -> None:
        """Start the timer for a connection."""
        self.known = weakref.ref(connected)
        self.put_off(self.seconds)

    def put_off(self, seconds: float) -> None:
        """Close the connection `seconds` from now instead."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = threading.Timer(max(0.0, seconds), self.cut)
        self.timer.daemon = True
        self.timer.start()

    def cut(self) -> None:
        """Close the connection, if there is one."""
        if (connected := self.known()) is not None:
            with contextlib.suppress(OSError):  # already closed
                connected.shutdown(socket.SHUT_RDWR)


def _opener(guard: _Guard) -> urllib.request.OpenerDirector:
    """An opener whose connections are watched by `guard`."""

    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            guard.watch(self.sock)

    class Secure(http.client.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            guard.watch(self.sock)

    class PlainHandler(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(Plain, request)

    class SecureHandler(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(Secure, request, context=self._context)  # type: ignore[attr-defined]

    return urllib.request.build_opener(PlainHandler, SecureHandler)
