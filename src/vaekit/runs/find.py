"""Find the directory of a run, or explain what the path holds instead."""

from __future__ import annotations

import re
from pathlib import Path

from vaekit.errors import RunError
from vaekit.utils.files import checked_path
from vaekit.utils.hub import is_address, origin
from vaekit.utils.suggest import meant

from .example import place


def is_run(path: str | Path | None) -> bool:
    """Whether the directory holds a run; an address of the Hugging Face hub is taken for one."""
    return path is not None and (is_address(path) or (checked_path(path) / "run.json").is_file())


def default_out(data: str, recipe: str) -> Path:
    """The default directory of a new run: runs/DATA-RECIPE."""
    name = re.sub(r"[^\w.-]+", "-", data).strip("-.") or "data"
    return Path("runs") / f"{name}-{recipe}"


def find_run(path: str | Path) -> Path:
    """The directory of a run; `example` is the packaged one, and hf://user/name is downloaded from the hub.

    Raises:
        RunError: there is no run; the message says what was found, or suggests a run.
    """
    folder = place(path)
    if (folder / "run.json").is_file():
        return folder
    if (source := origin(folder)) is not None:
        raise RunError(f"{source} is not a run: the repository has no run.json, which `vaekit push` writes")
    raise RunError(_no_run(folder))


def _no_run(path: Path) -> str:
    """The message for a path without a run: what is there instead, and what to do."""
    train, on_it = f"train one with `vk.fit(DATA, out={str(path)!r})`", f"`vk.fit({str(path)!r})` trains"
    if path.is_file():
        return f"{path} is a file, not a run: {on_it} a run on it if it holds data"
    if path.is_dir():
        if inside := runs_in(path):
            return f"{path} is not a run, but it contains runs; give one of them: {', '.join(map(str, inside[:5]))}"
        return f"{path / 'run.json'} is missing: {path} is not a vaekit run; {on_it} one on its data"
    if str(path) in _data_sets():
        return f"{path} is a data set, not a run: {on_it} a run on it"
    siblings = [str(p) for p in runs_in(path.parent)]
    near = meant(str(path), siblings, 0.7)
    return f"no run at {path}: did you mean {near}? Otherwise {train}" if near else f"no run at {path}: {train}"


def _data_sets() -> list[str]:
    from vaekit.data.named import SETS

    return list(SETS)


def runs_in(folder: Path) -> list[Path]:
    """The directories of runs directly in a folder, sorted."""
    try:
        return sorted(p for p in folder.iterdir() if (p / "run.json").is_file())
    except OSError:
        return []
