"""Reading and atomic writing of files: a reader sees the old content or the new, never a part of it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from vaekit.errors import RunError

from .hub import is_address

if TYPE_CHECKING:
    from torch import Tensor  # reading data must not wait for torch to import

A_DAY = 24 * 3600.0
_numbers = itertools.count()
_PART = re.compile(r"\.vaekit-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-\d+\.part|\..+\.part")


def cache_folder(cache: str | Path | None = None) -> Path:
    """The cache folder: `cache` if given, else `VAEKIT_CACHE`, else the platform's (on Linux ~/.cache/vaekit)."""
    if cache is not None:
        return Path(cache).expanduser()
    if chosen := os.environ.get("VAEKIT_CACHE"):
        return Path(chosen).expanduser()
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen) / "vaekit"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "vaekit"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "vaekit" / "cache"
    return Path.home() / ".cache" / "vaekit"


def part_of(path: Path) -> Path:
    """An unused path beside `path` for its unfinished content, unique to this call in all threads and processes."""
    return path.with_name(f".vaekit-{_host()}-{os.getpid()}-{next(_numbers)}.part")


def is_part(name: str) -> bool:
    """Whether a file of this name holds the unfinished content of another file."""
    return _PART.fullmatch(name) is not None


def remove_parts(folder: Path) -> None:
    """Remove the unfinished files that killed processes left in `folder`; keep those that may still be written."""
    for part in folder.glob(".*.part"):
        named = _PART.fullmatch(part.name)
        if named is None:
            continue
        try:
            if named["host"] == _host():
                abandoned = not is_running(int(named["pid"]))
            else:  # written by another machine on a shared disk, or by an earlier version
                abandoned = time.time() - part.stat().st_mtime > A_DAY
            if abandoned and part.is_dir():
                shutil.rmtree(part)
            elif abandoned:
                part.unlink()
        except OSError:  # removed by another process, or owned by another user
            continue


def is_running(pid: int) -> bool:
    """Whether this machine runs a process with this number; True if the system does not say."""
    if os.name == "nt":  # on Windows, signal 0 is Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _host() -> str:
    """Eight hexadecimal digits that identify the machine, because process numbers are valid on one machine only."""
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def checked_path(name: str | Path) -> Path:
    """`name` as a path, with ~ expanded.

    Raises:
        RunError: `name` is empty, too long, not UTF-8, holds a null character or is an address of the hub.
    """
    text = os.fspath(name)
    if is_address(text):
        raise RunError(f"{text} is an address of the Hugging Face hub, expected a path; `vaekit push` sends runs there")
    try:
        text.encode()
        os.lstat(text)
    except UnicodeEncodeError:
        raise RunError(f"the name {os.fsencode(text)!r} is not UTF-8: choose another `out`") from None
    except ValueError:
        raise RunError(f"the name {text!r} holds a null character: choose another `out`") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise RunError(
                f"the name {text[:40]}... is too long ({len(text)} characters): choose another `out`"
            ) from None
        if not text:
            raise RunError(
                "the name of the file or directory is empty: give `out` a name, such as runs/first"
            ) from None
    return Path(text).expanduser()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk, then rename it; the umask sets its mode.

    Raises:
        RunError: the disk is full or `path` cannot be written; an existing file is unchanged.
    """
    if path.exists() and not path.is_file():
        raise RunError(f"cannot write {path}: it is a folder or a device, not a file; choose another name")
    part = part_of(path)
    try:
        with open(part, "xb") as file:
            mode = os.fstat(file.fileno()).st_mode
        write(part)
        with contextlib.suppress(OSError):  # some file systems have no modes
            os.chmod(part, mode)  # safetensors creates files that only their owner can read
        with open(part, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(part, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    except SafetensorError as error:  # safetensors wraps errors of the system
        raise RunError(f"cannot write {path}: {error}; free some space or choose another place") from error
    finally:
        with contextlib.suppress(OSError):  # already renamed, or the disk is read-only
            part.unlink()


def unwritable(path: Path, error: OSError) -> RunError:
    """The error to raise if `path` cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "free some space, or choose another place" if full else "choose another place"
    return RunError(f"cannot write {path}: {error.strerror or error}; {remedy}")


def is_writable(folder: Path) -> bool:
    """Whether files can be created in `folder`; creates one, because permissions do not show a read-only disk."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _flush_folder(folder: Path) -> None:
    """Make a rename survive a power cut, if the system supports flushing folders."""
    try:
        fd = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError:
        pass
    finally:
        os.close(fd)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically. Raises RunError when `path` cannot be written."""
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        wrong = text[max(0, error.start - 20) : error.end + 20].encode("ascii", "backslashreplace").decode()
        raise RunError(f"cannot write {path}: a name in it is not Unicode text (... {wrong} ...): rename it") from None
    write_atomically(path, lambda part: part.write_bytes(data))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. Raises ValueError for NaN and infinities, which JSON lacks."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


LONGEST = 2**28
"""Maximum size of a JSON file in bytes; run.json has a few thousand, a log a few million."""


def read_text(path: Path) -> str:
    """The text of a file of a run.

    Raises:
        RunError: the file is missing, a folder or device, too large or not UTF-8.
    """
    try:
        if path.exists() and not path.is_file():
            raise RunError(f"{path} is a folder or a device, expected a file: restore it or train again")
        if path.stat().st_size > LONGEST:
            raise RunError(f"{path} is larger than {LONGEST:,} bytes: restore it or train again")
        return path.read_text(encoding="utf8")
    except FileNotFoundError:
        raise RunError(f"{path} is missing: {path.parent} is not a vaekit run") from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RunError(f"{path} is damaged ({error}): restore it or train again") from None


def parse_json(text: str, path: Path | str) -> Any:
    """The value of a JSON text by RFC 8259: without NaN, infinities and unpaired surrogates.

    Raises:
        RunError: `text`, which was read from `path`, is not valid.
    """

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    try:
        value = json.loads(text, parse_constant=refuse)
        if "\\u" in text:  # an escape may be an unpaired surrogate, which cannot be written again
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except RecursionError:
        raise RunError(f"{path} is damaged (nested too deeply): restore it or train again") from None
    except ValueError as error:  # a syntax error, a number of thousands of digits or an unpaired surrogate
        raise RunError(f"{path} is damaged ({error}): restore it or train again") from None


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises RunError when the file is missing or is not JSON."""
    return parse_json(read_text(path), path)


def write_tensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any] | None = None) -> None:
    """Write tensors as safetensors, atomically, with `meta` as JSON in the header."""
    from safetensors.torch import save_file

    flat = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
    header = {"vaekit": json.dumps(meta or {}, allow_nan=False)}
    write_atomically(path, lambda part: save_file(flat, str(part), metadata=header))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and `meta` that `write_tensors` wrote. Raises RunError when the file is missing or damaged."""
    if not path.is_file():
        raise RunError(f"{path} is missing: the run stopped before its first checkpoint, or is damaged")
    try:
        with safe_open(str(path), framework="pt") as f:
            meta = parse_json((f.metadata() or {}).get("vaekit", "{}"), path)
            return {n: f.get_tensor(n) for n in f.keys()}, meta  # noqa: SIM118
    except RunError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{path} is not a whole safetensors file ({error}): restore it or train again") from None
