"""Measure how time and memory grow with the data, the model and the explorer's page: `make bench-growth`.

The data are generated, and there is one thread. Along each axis one size grows and the others stay small. Each action
at each size runs in a process of its own, which first imports vaekit and opens the run. Measured are CPU seconds and
the peak of the process's own memory (without mapped pages of files), minus its memory before the action. A size at
which an action would take over 140 s is left out. Exponents are slopes of logarithms over the upper half of the sizes:
1 is linear. Resumable: results are kept in bench/.runs/growth. Writes docs/growth.json and docs/growth.md.

    python bench/growth.py [--axes rows dims ...] [--sizes 10000 ...] [--anew]
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from curve import processor

import vaekit as vk
from vaekit.utils.files import write_json, write_text
from vaekit.utils.progress import Silent

HERE = Path(__file__).parent
RUNS, DOCS = HERE / ".runs" / "growth", HERE.parent / "docs"
LONGEST = 140.0  # CPU seconds of a point
Result = dict[str, Any]


def table(path: Path, n: int, dims: int) -> None:
    """Write a .npy of n rows of `dims` columns with three factors, in blocks."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, dims)).astype("f4")
    out = np.lib.format.open_memmap(path, "w+", "f4", (n, dims))
    block = max(1, 10_000_000 // dims)
    for a in range(0, n, block):
        b = min(a + block, n)
        out[a:b] = rng.standard_normal((b - a, 3), "f4") @ weights + 0.3 * rng.standard_normal((b - a, dims), "f4")
    out.flush()


def pictures(path: Path, n: int) -> None:
    """Write a .npy of n grey images of 8 x 8."""
    rng = np.random.default_rng(0)
    np.save(path, rng.integers(0, 256, (n, 4, 4), np.uint8).repeat(2, 1).repeat(2, 2))


@dataclass(frozen=True)
class Axis:
    """What grows, over which sizes, and what is done at each of them.

    Attributes:
        grows: what grows.
        rest: the sizes that stay.
        make: writes the data of a size to a path.
        fit: options of `fit` at a size.
        actions: what is measured, by name: a function of the run, the path of the data and the size.
        trains: whether the training depends on the size.
    """

    grows: str
    rest: str
    sizes: tuple[int, ...]
    make: Callable[[Path, int], None]
    fit: Callable[[int], dict[str, Any]]
    actions: dict[str, Callable[[Any, Path, int], Any]]
    trains: bool = True


FIT, STEPS = "fit: set-up", "fit: 1,000 steps"
NARROW = {"hidden": (64, 64), "latent": 4, "steps": 100, "compile": "off"}
READING: dict[str, Callable[[Any, Path, int], Any]] = {
    "evaluate, K = 2": lambda run, path, size: run.evaluate(samples=2),
    "encode": lambda run, path, size: run.encode(path),
    "score, K = 2": lambda run, path, size: run.score(path, samples=2),
    "detect": lambda run, path, size: run.detect(path, reasons=False, samples=2),
    "report": lambda run, path, size: run.report(path.parent / "report.html"),
}
AXES: dict[str, Axis] = {
    "rows": Axis(
        "rows of a table", "10 columns, 4 latents", (10_000, 100_000, 1_000_000, 10_000_000),
        lambda path, n: table(path, n, 10), lambda n: NARROW,
        READING | {"sample as many": lambda run, path, n: run.sample(n)},
    ),
    "dims": Axis(
        "columns of a table", "500 rows, 4 latents", (10, 100, 1000, 10_000, 100_000),
        lambda path, p: table(path, 500, p), lambda p: NARROW,
        READING | {"fill 10 rows": lambda run, path, p: run.fill(np.load(path, mmap_mode="r")[:10], half(p))},
    ),
    "samples": Axis(
        "K of the importance-weighted bound", "10 rows of 100 columns", (100, 1000, 10_000, 100_000, 1_000_000),
        lambda path, k: table(path, 1000, 100), lambda k: NARROW,
        {"score": lambda run, path, k: run.score(path, n=10, samples=k)}, trains=False,
    ),
    "latents": Axis(
        "latents", "1,000 rows of 100 columns", (2, 8, 32, 128, 512),
        lambda path, d: table(path, 1000, 100), lambda d: NARROW | {"latent": d},
        READING,
    ),
    "points": Axis(
        "points of the explorer's page", "images of 8 x 8, 4 latents", (1000, 10_000, 100_000),
        lambda path, n: pictures(path, 2 * n), lambda n: NARROW,
        {"explore": lambda run, path, n: run.explore(path.parent / "explorer.html", points=n)},
    ),
}  # fmt: skip


NOTES: dict[str, str] = {
    "rows": "The time of evaluating, encoding, scoring, detecting and sampling is about linear; at ten million rows, a "
    "row takes up to a fifth longer than at one million, probably because results no longer fit into the processor's "
    "cache. Memory for new rows is that of the results and of the row numbers; `detect` has several results per row. "
    "Of the run's own data, the numbers of the training rows and the order of an epoch are kept, and a copy of the "
    "rows if they are at most 256 MiB (when the table was measured: at most 2 GB).",
    "dims": "At most 256 columns are mapped by their quantiles at every step. `detect` tests each column; from 10,000 "
    "to 100,000 columns its time grows with an exponent of 1.3, for an unknown reason.",
    "samples": "At the last size, scoring is compiled first, which takes most of the memory.",
    "points": "The time grows slowly, because t-SNE maps at most 5,000 codes and log p(x) is computed for a limited "
    "number of points.",
}
"""Explanations of the figures of an axis, shown below its tables."""


def half(dims: int) -> np.ndarray:
    """A mask that hides the second half of the columns."""
    return np.arange(dims) >= dims // 2


class Memory(threading.Thread):
    """Samples this process's own memory in MB, 100 times per second: `most` is the peak since the start."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.over = self.now(), threading.Event()
        self.before = self.most

    @staticmethod
    def now() -> float:
        _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
        return (resident - shared) * resource.getpagesize() / 2**20

    def run(self) -> None:
        while not self.over.wait(0.01):
            self.most = max(self.most, self.now())

    def end(self) -> float:
        """The peak beyond the memory at the start."""
        self.over.set()
        self.join()
        return max(self.most, self.now()) - self.before


class Marks(Silent):
    """The CPU seconds at each record of a training."""

    def __init__(self) -> None:
        self.marks: list[tuple[int, float]] = []

    def update(self, step: int, *rest: Any) -> None:
        self.marks.append((step, time.process_time()))


def point(axis: str, size: int, action: str, folder: Path) -> list[Result]:
    """Measure one action in this process; `fit` gives two results, one of them without memory."""
    torch.set_num_threads(1)
    own, path, out, marks = AXES[axis], folder / "data.npy", folder / "run", Marks()
    run = None if action == FIT else vk.open(out)
    memory, begun = Memory(), time.process_time()
    memory.start()
    if run is None:
        vk.fit(path, out=out, progress=marks, **own.fit(size))
    else:
        own.actions[action](run, path, size)
    result: Result = {
        "axis": axis,
        "size": size,
        "action": action,
        "seconds": time.process_time() - begun,
        "mb": memory.end(),
    }
    if run is not None:
        return [result]
    (a, first), (b, last) = marks.marks[0], marks.marks[-1]
    step = (last - first) / (b - a)
    return [result | {"seconds": result["seconds"] - b * step},
            {"axis": axis, "size": size, "action": STEPS, "seconds": 1000 * step}]  # fmt: skip


def measured(axis: str, sizes: list[int] | None) -> list[Result]:
    """All points of an axis; those of an action end before the first that would take too long."""
    own, results = AXES[axis], []
    slow: set[str] = set()
    for place, size in enumerate(own.sizes):
        if sizes and size not in sizes:
            continue
        kept, folder = RUNS / f"{axis}-{size}.json", RUNS / f"folder-{axis}-{size}"
        held: list[Result] = json.loads(kept.read_text()) if kept.exists() else []
        wanted = [a for a in (FIT, *own.actions) if a not in slow and a not in {r["action"] for r in held}]
        if wanted:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            own.make(folder / "data.npy", size)
            for action in dict.fromkeys((FIT, *wanted)):
                command = [sys.executable, __file__, "--point", axis, str(size), action, str(folder)]
                told = subprocess.run(command, capture_output=True, text=True, check=False)
                if told.returncode:
                    raise SystemExit(f"{axis} {size} {action}: {told.stderr[-2000:]}")
                found = json.loads(told.stdout.splitlines()[-1])
                print(*found, sep="\n", flush=True)
                held = [*(r for r in held if r["action"] not in {f["action"] for f in found}), *found]
                write_json(kept, held)
            shutil.rmtree(folder)
        results += held
        if place + 1 < len(own.sizes):
            slow |= {a for a in (FIT, *own.actions) if expected(results, a, own.sizes[place + 1]) > LONGEST}
        if FIT in slow:
            break
    return results


def expected(results: list[Result], action: str, size: int) -> float:
    """The seconds of an action at the next size, by its growth so far; by the square root after the first size."""
    known = [r for r in results if r["action"] == action][-2:]
    if not known:
        return 0.0
    power, last = 0.5, known[-1]
    if len(known) == 2:
        power = math.log(last["seconds"] / known[0]["seconds"]) / math.log(last["size"] / known[0]["size"])
    return last["seconds"] * (size / last["size"]) ** power


def exponent(rows: list[Result], key: str) -> str:
    """The slope in logarithms over the upper half of the sizes."""
    if not rows:
        return "–"
    middle = math.sqrt(rows[0]["size"] * rows[-1]["size"])
    upper = [r for r in rows if r["size"] >= 0.99 * middle and r[key] > 0]
    if len(upper) < 2:
        return "–"
    return f"{np.polyfit(np.log([r['size'] for r in upper]), np.log([r[key] for r in upper]), 1)[0]:.2f}"


def page(results: list[Result]) -> str:
    lines = [
        "# Growth",
        "",
        "This page shows how CPU time and memory grow with the data, the model and the explorer's page. Made by",
        "`make bench-growth` with generated data and one thread; the header of bench/growth.py describes the protocol.",
        "The exponent is fitted to the upper half of the sizes: 1 means linear growth, and 0 that the size does not",
        "matter. Memory is the peak during the action minus the memory of the program with the opened run; mapped",
        "pages of files do not count.",
        "",
    ]
    for name, axis in AXES.items():
        here = [r for r in results if r["axis"] == name]
        if not here:
            continue
        sizes = sorted({r["size"] for r in here})
        heads = [f"{s:,}" for s in sizes]
        lines += [f"## {axis.grows[0].upper()}{axis.grows[1:]}", "", f"With {axis.rest}.", ""]
        for key, unit, form in (("seconds", "CPU seconds", ".2f"), ("mb", "memory, MB", ",.0f")):
            lines += [f"| {unit} | {' | '.join(heads)} | exponent |", f"|{'---|' * (len(heads) + 2)}"]
            for action in (*((FIT, STEPS) if axis.trains else ()), *axis.actions):
                rows = sorted((r for r in here if r["action"] == action and key in r), key=lambda r: r["size"])
                if not rows:
                    continue
                cells = {r["size"]: f"{r[key]:{form}}" for r in rows}
                row = [action, *(cells.get(s, "–") for s in sizes), exponent(rows, key)]
                lines.append(f"| {' | '.join(row)} |")
            lines.append("")
        if name in NOTES:
            lines += [NOTES[name], ""]
    lines += [
        f"A dash means not measured; sizes expected to take over {LONGEST:.0f} s are left out.",
        "",
        f"One core of {os.cpu_count()}, {processor()}, torch {torch.__version__}, Python {platform.python_version()}.",
        "",
    ]
    return "\n".join(lines)


def publish() -> None:
    """Write the page from the kept results."""
    results = [r for file in RUNS.glob("*.json") for r in json.loads(file.read_text())]
    write_json(DOCS / "growth.json", sorted(results, key=lambda r: (list(AXES).index(r["axis"]), r["size"])))
    write_text(DOCS / "growth.md", page(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--sizes", nargs="+", type=int, help="measure only these of the sizes")
    parser.add_argument("--anew", action="store_true", help="delete the kept results of these axes first")
    parser.add_argument("--point", nargs=4, metavar=("AXIS", "SIZE", "ACTION", "FOLDER"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.point:
        axis, size, action, folder = asked.point
        print(json.dumps(point(axis, int(size), action, Path(folder))))
        return
    RUNS.mkdir(parents=True, exist_ok=True)
    if asked.anew:
        for file in itertools.chain(*(RUNS.glob(f"{a}-*.json") for a in asked.axes)):
            file.unlink()
    for axis in asked.axes:
        measured(axis, asked.sizes)
    publish()


if __name__ == "__main__":
    main()
