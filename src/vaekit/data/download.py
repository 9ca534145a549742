"""Files from the internet: from several mirrors in turn, checked, resumed, and never half there."""

import gzip
import hashlib
import http.client
import os
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vaekit.data import cache as caches
from vaekit.data.core import Progress
from vaekit.errors import UnavailableError

TIMEOUT = 30.0  # seconds without a single byte
CHUNK = 2**18


@dataclass(frozen=True)
class File:
    """A file with a known checksum.

    Args:
        name: file name, on the mirrors and on disk.
        algorithm: "sha256" or "md5".
        checksum: in hex.
        unpacked: whether the checksum is of the content of a .gz file: packing differs between mirrors.
    """

    name: str
    algorithm: str
    checksum: str
    unpacked: bool = False

    def problem(self, path: Path) -> str | None:
        """What is wrong with the file at `path`, or None if it is what it should be."""
        hashed = hashlib.new(self.algorithm, usedforsecurity=False)
        try:
            with gzip.open(path) if self.unpacked else path.open("rb") as file:
                while part := file.read(CHUNK):
                    hashed.update(part)
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
) -> Path:
    """The file, checked, in `folder`: from the first of the `mirrors` (addresses of folders) that yields it.

    What an earlier attempt left in NAME.part is continued where the mirror can; the file takes its name only once
    its checksum is right.

    Raises:
        UnavailableError: no mirror yields it; says what each did.
        DataError: the folder cannot be written.
    """
    path, part = folder / file.name, folder / f"{file.name}.part"
    tried = []
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
            problem = _attempt(address, part, file, continued, progress, timeout)
            if problem is None:
                part.replace(path)
                return path
            if not continued:
                tried.append(f"{address}: {problem}")
    raise UnavailableError(f"{file.name} could not be downloaded ({'; '.join(tried) or 'no mirrors'})")


def _attempt(
    address: str, part: Path, file: File, resume: bool, progress: Progress | None, timeout: float
) -> str | None:
    """Downloads to `part` and checks it; what went wrong, or None. What fails its checksum is removed."""
    done = part.stat().st_size if resume else 0
    request = urllib.request.Request(address, headers={"User-Agent": "vaekit"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            done = done if answer.status == 206 else 0
            length = answer.headers.get("Content-Length")
            total = done + int(length) if length else 0
            try:
                out = part.open("ab" if done else "wb")
            except OSError as error:
                raise caches.unwritable(part, error) from error
            with out:
                while chunk := answer.read(CHUNK):
                    out.write(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(f"downloading {file.name}", done, total)
                out.flush()
                os.fsync(out.fileno())
    except urllib.error.HTTPError as error:
        return f"the server answers {error.code} {error.reason}"
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {getattr(error, 'reason', None) or error}"
    if total and done < total:
        return f"cut short, {done} of {total} bytes"
    if problem := file.problem(part):
        part.unlink()
        return problem
    return None
