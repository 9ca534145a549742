"""Opening the run that a command is given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vaekit.runs.find import find_run
from vaekit.utils.collecting import uncollected

from .output import check_source

if TYPE_CHECKING:
    from vaekit.run import Run


def is_data(given: str) -> bool:
    """Whether an argument is new data rather than a run: a named data set, a file, or a folder without runs."""
    from vaekit.data.named import SETS

    path = Path(given).expanduser()
    if path.is_dir():
        return not any(folder.joinpath("run.json").is_file() for folder in (path, *path.iterdir()))
    return path.is_file() or given in SETS


def open_given(run: str, data: str | None = None, device: str = "cpu") -> Run:
    """The run at a path or name, on a device; `data` is the place of its data, if they were moved."""
    folder = find_run(run)  # before torch is imported
    if data is not None:
        check_source(data)
    with uncollected(lasting=True):
        from vaekit.run import open_run
        from vaekit.training.cost import choose_device

    chosen = choose_device(device)
    if chosen.type == "cuda" and chosen.index is None and (own := os.environ.get("LOCAL_RANK")):
        chosen = choose_device(f"cuda:{own}")  # each process that torchrun started has its own
    return open_run(folder, data=data).to(chosen)
