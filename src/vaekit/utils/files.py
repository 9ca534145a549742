"""Files that are written atomically: whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import shutil
import socket
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from vaekit.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor  # whoever only reads data waits for no torch

A_DAY = 24 * 3600.0
_numbers = itertools.count()
_PART = re.compile(r"\.vaekit-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-\d+\.part|\..+\.part")


def part_of(path: Path) -> Path:
    """An unused name beside `path` for its unfinished content; no other thread or process is given the same."""
    return path.with_name(f".vaekit-{_host()}-{os.getpid()}-{next(_numbers)}.part")


def is_part(name: str) -> bool:
    """Whether a file of this name is the unfinished content of another."""
    return _PART.fullmatch(name) is not None


def remove_parts(folder: Path) -> None:
    """Remove what killed processes left unfinished in `folder`; what may still be written is kept."""
    for part in folder.glob(".*.part"):
        named = _PART.fullmatch(part.name)
        if named is None:
            continue
        try:
            if named["host"] == _host():
                left = not is_running(int(named["pid"]))
            else:  # of another machine on a shared disk, or of an earlier version
                left = time.time() - part.stat().st_mtime > A_DAY
            if left and part.is_dir():
                shutil.rmtree(part)
            elif left:
                part.unlink()
        except OSError:  # gone by now, or not ours to remove
            continue


def is_running(pid: int) -> bool:
    """Whether this machine has a process of this number; where it cannot tell, yes."""
    if os.name == "nt":  # there, signal 0 is Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _host() -> str:
    """Eight hex digits for the machine: process numbers of others mean nothing here."""
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def checked_path(name: str | Path) -> Path:
    """`name` as a path, ~ and all.

    Raises:
        RunError: no file can have such a name, or one that its owner could type or run.json could hold.
    """
    text = os.fspath(name)
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
    """Let `write` fill a neighbour of `path`, flush it to disk, then rename it into place, with the umask's mode.

    Raises:
        RunError: the disk is full or the place cannot be written; what stood at `path` is untouched.
    """
    if path.exists() and not path.is_file():
        raise RunError(f"cannot write {path}: it is a folder or a device, not a file; choose another name")
    part = part_of(path)
    try:
        with open(part, "xb") as made:
            mode = os.fstat(made.fileno()).st_mode
        write(part)
        with contextlib.suppress(OSError):  # not every disk has modes
            os.chmod(part, mode)  # safetensors makes files that only their owner reads
        with open(part, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(part, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    except SafetensorError as error:  # safetensors wraps the system's errors in its own
        raise RunError(f"cannot write {path}: {error}; free some space or choose another place") from error
    finally:
        with contextlib.suppress(OSError):  # gone, or on a disk that is mounted read-only
            part.unlink()


def unwritable(path: Path, error: OSError) -> RunError:
    """The error to raise where `path` cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "free some space, or choose another place" if full else "choose another place"
    return RunError(f"cannot write {path}: {error.strerror or error}; {what}")


def is_writable(folder: Path) -> bool:
    """Whether files can be made in `folder`: permissions alone do not tell of read-only file systems."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _flush_folder(folder: Path) -> None:
    """Let a rename survive a power cut, where the system can be asked for that."""
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
    write_atomically(path, lambda part: part.write_text(text, encoding="utf8"))


def write_json(path: Path, value: Any) -> None:
    """Indented JSON; NaN and infinities are refused rather than written."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


LONGEST = 2**28
"""Bytes of a JSON file; those of a run have a few thousand, its log a few million."""


def read_text(path: Path) -> str:
    """A file of a run as text.

    Raises:
        RunError: it is missing, no file, too long or not UTF-8.
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
    """JSON as RFC 8259 has it: no NaN, no infinity, no half of a character.

    Raises:
        RunError: `text`, read from `path`, is none.
    """

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON")

    try:
        value = json.loads(text, parse_constant=refuse)
        if "\\u" in text:  # an escape may stand for half of a character, which could not be written again
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except RecursionError:
        raise RunError(f"{path} is damaged (nested too deeply): restore it or train again") from None
    except ValueError as error:  # of JSON, of numbers of thousands of digits, of halves of characters
        raise RunError(f"{path} is damaged ({error}): restore it or train again") from None


def read_json(path: Path) -> Any:
    """Raises RunError when the file is missing or is not JSON."""
    return parse_json(read_text(path), path)


def write_tensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any] | None = None) -> None:
    """Tensors as safetensors with `meta` as JSON in the header."""
    from safetensors.torch import save_file

    flat = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
    header = {"vaekit": json.dumps(meta or {}, allow_nan=False)}
    write_atomically(path, lambda part: save_file(flat, str(part), metadata=header))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote. Raises RunError when the file is missing or is not what it claims."""
    if not path.is_file():
        raise RunError(f"{path} is missing: the run was stopped before anything was saved, or is damaged")
    try:
        with safe_open(str(path), framework="pt") as f:
            meta = parse_json((f.metadata() or {}).get("vaekit", "{}"), path)
            return {n: f.get_tensor(n) for n in f.keys()}, meta  # noqa: SIM118
    except RunError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{path} is not a whole safetensors file ({error}): restore it or train again") from None
