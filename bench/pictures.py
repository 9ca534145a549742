"""Pictures drawn by every sampler, beside real ones: python bench/pictures.py [--sprites FILE] [--emoji FOLDER]

Data sets: Fashion-MNIST and CIFAR-10 by name, FILE.npz of sprites with `x` (n, 64, 64, 3), and FOLDER with images/ and
attributes.csv (see bench/colour.py), whose drawings stay in one split. A data set that is unavailable is skipped, and
the page says why.

MINUTES on two cores are divided among the data sets that can be read: each of N has 2 MINUTES / N of one core (20 of
three), and two are measured at a time, so that the last of an odd number runs alone, and an even number ends after
MINUTES. By shares of this time (bench/pictures_measure.py): the default VAE of the data, densities of its codes, a VAE
whose codes are small images with flow matching over them, and for grey images discrete codes with their prior. 100
samples are kept as they come: the first 100 of seed 0.

To choose settings, --choose measures on the validation split with seed 1, --only some data sets, and --rows some
samplers; with --choose or --rows, the table is printed and no page is written. The time of a data set depends neither
on --only nor on --rows.

Resumable, also within a training: runs are kept in bench/.runs/pictures/KIND/DATA, where KIND is `measured`, or
`chosen` for --choose, and a row that was measured is reused; one with other settings is refused until its files are
removed. Writes docs/pictures.json, docs/pictures.md and docs/images/pictures* (bench/pictures_page.py).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pictures_measure import SAMPLERS, SETS, Plan, measure, read  # bench/pictures_measure.py
from pictures_page import AT_ONCE, MINUTES, page, pictures, table  # bench/pictures_page.py

from vaekit.utils.files import read_json, write_json, write_text

HERE = Path(__file__).parent
RUNS, DOCS = HERE / ".runs" / "pictures", HERE.parent / "docs"


def machine() -> str:
    """The versions and the number of cores."""
    return f"{os.cpu_count()} cores, torch {torch.__version__}, Python {platform.python_version()}."


def folder_of(name: str, choose: bool) -> Path:
    """Where the runs and rows of a data set are kept."""
    return RUNS / ("chosen" if choose else "measured") / name


def path_of(name: str, asked: argparse.Namespace) -> Path | None:
    """The path that was given for a data set."""
    option = SETS[name].option
    return None if option is None else getattr(asked, option)


def share(minutes: float, sets: int) -> float:
    """The minutes of one core that each of the data sets has, of `minutes` on AT_ONCE cores."""
    return minutes * AT_ONCE / max(1, sets)


def started(name: str, minutes: float, asked: argparse.Namespace) -> dict[str, Any]:
    """The rows of a data set, measured in so many minutes by a process of one thread."""
    command = [sys.executable, __file__, f"--one={name}", f"--minutes={minutes}"]
    if (path := path_of(name, asked)) is not None:
        command.append(f"--{SETS[name].option}={path}")
    command += ["--choose"] if asked.choose else []
    command += ["--rows", *asked.rows] if asked.rows else []
    subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    return read_json(folder_of(name, asked.choose) / "result.json")


def measured(name: str, asked: argparse.Namespace) -> None:
    """Measure the rows of a data set in `minutes` of one core, and store them."""
    data, folder = read(name, path_of(name, asked)), folder_of(name, asked.choose)
    if isinstance(data, str):
        raise SystemExit(f"{name} is unavailable: {data}")
    plan = Plan(asked.minutes, int(asked.choose), asked.choose, folder)
    write_json(folder / "result.json", measure(name, data, plan, asked.rows or ()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sprites", type=Path, help="the sprites' .npz file")
    parser.add_argument("--emoji", type=Path, help="the folder of emoji")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="time of all data sets on two cores")
    parser.add_argument("--only", action="append", choices=SETS, help="one of these data sets; may be repeated")
    parser.add_argument("--rows", nargs="+", choices=SAMPLERS, help="only these samplers; print the table, no page")
    parser.add_argument("--choose", action="store_true", help="measure on validation data with seed 1, write no page")
    parser.add_argument("--page", action="store_true", help="write the page again from docs/pictures.json")
    parser.add_argument("--one", choices=SETS, help=argparse.SUPPRESS)  # in this process; --minutes are its own
    asked = parser.parse_args()
    if asked.page:
        write_text(DOCS / "pictures.md", page(json.loads((DOCS / "pictures.json").read_text(encoding="utf8"))))
        return
    if asked.one:
        measured(asked.one, asked)
        return
    unread = {name: data for name in SETS if isinstance(data := read(name, path_of(name, asked)), str)}
    minutes, names = share(asked.minutes, len(SETS) - len(unread)), asked.only or list(SETS)
    some = [name for name in names if name not in unread]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        rows = dict(zip(some, pool.map(lambda name: started(name, minutes, asked), some), strict=True))
    found = {name: rows.get(name, {"skipped": unread.get(name)}) for name in names}
    if asked.choose or asked.rows:
        for name, one in found.items():
            print("\n".join([f"{name}: {one['skipped']}"] if "skipped" in one else [name, *table(one)]))
        return
    kept = {"minutes": asked.minutes, "seed": 0, "sets": found, "machine": machine()}
    write_json(DOCS / "pictures.json", kept)
    write_text(DOCS / "pictures.md", page(kept))
    shown = {name: first_of(folder_of(name, False) / "rows", found[name]["rows"]) for name in some}
    pictures(shown, DOCS / "images")


def first_of(folder: Path, keys: Any) -> dict[str, np.ndarray]:
    """The first pictures of the real data and of each row."""
    return {key: np.load(folder / f"{key}.npz")["x"] for key in ("real", *keys)}


if __name__ == "__main__":
    main()
