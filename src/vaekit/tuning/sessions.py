"""One session of a sweep: in this process, or in several that share optuna.sqlite and the cores."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch

from vaekit.data.core import Data
from vaekit.data.loading import load
from vaekit.errors import RunError, VaekitError
from vaekit.recipes.composition import DataSpec
from vaekit.runs.configuration import Configuration
from vaekit.runs.stored import data_options, stored_splits
from vaekit.utils.progress import say

from .records import Settings, Trial, quietly, read_settings, study_of, trials_of
from .space import Space, space
from .work import Limits, Worker

POLL = 0.5
"""Seconds between looks at the processes and their trials."""
PROGRAM = "import json, sys; from vaekit.tuning.sessions import main; sys.exit(main(json.loads(sys.argv[1])))"
"""What each of several processes runs."""


def stored_space(settings: Settings) -> Space:
    """The search space of a sweep that is continued."""
    choices = {k: tuple(v) if isinstance(v, list) else v for k, v in settings["choices"].items()}
    return space(settings["over"], settings["recipe"], choices, settings["training"])


def stored_data(folder: Path, settings: Settings) -> Data:
    """The data of a sweep, read as before, with the same rows in the same splits.

    Raises:
        RunError: they were arrays in memory.
        DataError: they cannot be read, or have changed.
    """
    part = settings["data"]
    if part["source"] is None:
        raise RunError(f"{folder} is a sweep on arrays in memory, which it does not store: pass `data` again")
    config = cast(Configuration, {"data": {"facts": part["facts"], "options": part["options"]}})
    return load(part["source"], splits=stored_splits(folder), **data_options(config))


def describe(data: Data) -> dict[str, Any]:
    """The data as sweep.json has them."""
    return {
        "name": data.name,
        "source": data.source if isinstance(data.source, str) and data.source else None,
        "options": {name: value for name, value in data.options.items() if name != "splits"},
        "digest": data.digest,
        "facts": DataSpec.of(data).as_json(),
    }


def together(
    folder: Path, settings: Settings, limits: Limits, jobs: int, *, on_trial: Callable[[Trial], None],
    tick: Callable[[], None], notes: bool,
) -> None:  # fmt: skip
    """Run trials in `jobs` processes, each with its share of the threads.

    Raises:
        VaekitError: a process failed; the others are stopped first.
        KeyboardInterrupt: the session was interrupted; the processes have saved their trials.
    """
    threads = max(1, torch.get_num_threads() // jobs)
    ends = None if limits.ends == math.inf else time.time() + limits.ends - time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    pool = []
    for number in range(jobs):
        asked = {"folder": str(folder), "number": number, "threads": threads, "ends": ends,
                 "trials": limits.trials, "parent": os.getpid(), "notes": notes and number == 0}  # fmt: skip
        # its own session: Ctrl-C reaches this process only, which asks the others to save, once
        pool.append(
            subprocess.Popen([sys.executable, "-c", PROGRAM, json.dumps(asked)], stdout=subprocess.PIPE,
                             stdin=subprocess.DEVNULL, text=True, env=environment, start_new_session=True)
        )  # fmt: skip
    study = study_of(folder, settings)
    told = {one.name for one in _ended(folder, study)}
    try:
        running = True
        while running:
            running = any(process.poll() is None for process in pool)
            if failed := [process for process in pool if process.returncode not in (None, 0)]:
                _stop(pool)
                raise VaekitError(_reason(failed[0]))
            with quietly():
                ended = _ended(folder, study)
            for one in ended:
                if one.name not in told:
                    told.add(one.name)
                    on_trial(one)
            tick()
            if running:
                time.sleep(POLL)
    finally:
        _stop(pool)


def _ended(folder: Path, study: Any) -> list[Trial]:
    return [one for one in trials_of(folder, study) if one.state != "unfinished"]


def _stop(pool: list[subprocess.Popen[str]]) -> None:
    """Ask the processes to save and end, and wait for them."""
    for process in pool:
        if process.poll() is None:
            process.terminate()
    try:
        for process in pool:
            process.wait()
    except KeyboardInterrupt:  # a second Ctrl-C
        for process in pool:
            process.kill()
        raise


def _reason(process: subprocess.Popen[str]) -> str:
    """The error that a process printed as its last line."""
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    return lines[-1] if lines else f"a process of the sweep ended with status {process.returncode}"


def main(asked: dict[str, Any]) -> int:
    """Run trials in a process that `together` started; prints an error as its last line."""
    torch.set_num_threads(asked["threads"])
    folder = Path(asked["folder"])
    ends = math.inf if asked["ends"] is None else time.monotonic() + asked["ends"] - time.time()
    try:
        settings = read_settings(folder)
        worker = Worker(
            folder, settings, stored_space(settings), stored_data(folder, settings), Limits(asked["trials"], ends),
            number=asked["number"], parent=asked["parent"], on_note=say if asked["notes"] else None,
        )  # fmt: skip
        worker.run()
    except VaekitError as error:
        print(" ".join(str(error).split()))
        return 2
    except KeyboardInterrupt:
        return 0
    return 0
