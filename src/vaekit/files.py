"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import RunError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a neighbour of `path`, flush it to disk, then rename it into place.

    Raises:
        RunError: the disk is full or the place cannot be written; what stood at `path` is untouched.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        write(part)
        with open(part, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another --out"
        ) from error
    except SafetensorError as error:  # safetensors wraps the system's errors in its own
        part.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error}; free some space or choose another --out") from error


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda part: part.write_text(text, encoding="utf8"))


def write_json(path: Path, value: Any) -> None:
    """Indented JSON; NaN and infinities are refused rather than written."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises RunError when the file is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise RunError(f"{path} is missing: {path.parent} is not a vaekit run") from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunError(f"{path} is damaged ({error}): restore it or train again") from None


def write_tensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any] | None = None) -> None:
    """Tensors as safetensors with `meta` as JSON in the header."""
    flat = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
    header = {"vaekit": json.dumps(meta or {}, allow_nan=False)}
    write_atomically(path, lambda part: save_file(flat, str(part), metadata=header))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote. Raises RunError when the file is missing or is not what it claims."""
    if not path.is_file():
        raise RunError(f"{path} is missing: the run was stopped before anything was saved, or is damaged")
    try:
        with safe_open(str(path), framework="pt") as f:
            meta = json.loads((f.metadata() or {}).get("vaekit", "{}"))
            return {n: f.get_tensor(n) for n in f.keys()}, meta  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{path} is not a whole safetensors file ({error}): restore it or train again") from None
