"""Measure the memory of training on a .npy file that does not fit into memory: `make bench-large`.

The file is sparse: it takes little of the disk, because only some of its rows are written and the others are zeros.
Reading it takes as many pages of the system's cache as reading a full one. Each training runs in a process of its own,
with one thread. Private memory is that of the process itself; pages of the mapped file, which the system takes back
when it needs them, are counted apart. The smallest file of images is also trained on with freed memory returned to the
system instead of kept for reuse. Writes docs/large.md.

    python bench/large.py [--gb 0.5 2 20] [--kinds images table] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "large.md"
SHAPES: dict[str, tuple[tuple[int, ...], str]] = {"images": ((64, 64, 3), "|u1"), "table": ((1000,), "<f4")}
"""Shape and dtype of a row, by kind."""
CHOICES: dict[str, dict[str, Any]] = {
    "images": {"recipe": "vae", "hidden": (32,), "latent": 4},
    "table": {"recipe": "vae", "hidden": (32,), "latent": 4},
}
STEPS, WRITTEN = 50, 2000
RETURN = {"MALLOC_TRIM_THRESHOLD_": "131072"}
"""The setting of the environment by which glibc returns freed memory; `vaekit.utils.memory` respects it."""


def sparse_file(path: Path, kind: str, gb: float) -> int:
    """Write a .npy of `gb` billion bytes of which `WRITTEN` evenly spaced rows are not zero; returns the rows."""
    row, dtype = SHAPES[kind]
    n = int(gb * 1e9 / (np.dtype(dtype).itemsize * np.prod(row)))
    rng = np.random.default_rng(0)
    out = np.lib.format.open_memmap(path, "w+", dtype, (n, *row))
    for i in np.linspace(0, n - 1, min(n, WRITTEN)).astype(int):
        out[i] = rng.integers(0, 256, row) if kind == "images" else rng.standard_normal(row)
    out.flush()
    return n


def memory() -> dict[str, float]:
    """MB of this process: its own (`private`), and pages of mapped files (`file`)."""
    told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(told[key].split()[0]) / 1000 for name, key in (("private", "RssAnon"), ("file", "RssFile"))}


class Peak(threading.Thread):
    """The highest `memory` of this process, measured 20 times per second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before, self.most, self.over = memory(), memory(), threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            self.most = {name: max(mb, self.most[name]) for name, mb in memory().items()}


def train(path: Path, kind: str) -> dict[str, float]:
    """Train in this process and measure it."""
    import torch

    import vaekit as vk

    torch.set_num_threads(1)
    peak = Peak()
    peak.start()
    begun = time.perf_counter()
    data = vk.load(path)
    loaded = time.perf_counter()
    vk.fit(
        data, out=path.with_suffix(""), steps=STEPS, compile="off", progress=False, exists="replace", **CHOICES[kind]
    )
    peak.over.set()
    peak.join()
    return {
        "load_seconds": loaded - begun,
        "fit_seconds": time.perf_counter() - loaded,
        "before_mb": peak.before["private"],
        "private_mb": peak.most["private"],
        "file_mb": peak.most["file"],
    }


def page(results: list[dict[str, Any]]) -> str:
    """The page with all results."""
    import torch

    returned = [
        f"With the environment variable `{'='.join(*RETURN.items())}`, which returns freed memory to the\n"
        f"system at once, training on {r['gb']:g} GB of {r['kind']} takes at most {r['returned_mb']:,.0f} MB."
        for r in results
        if "returned_mb" in r
    ]
    lines = [
        "# Data larger than memory",
        "",
        "`.npy` files are mapped: a batch is read from the file when it is needed, and the statistics of the data are",
        "measured in blocks. This table shows the memory of loading a file and training on it. Private memory belongs",
        "to the process; before loading, it holds the program. Mapped pages of the file belong to the system's cache,",
        "which gives them up when memory is needed. If private memory does not grow with the file, files larger than",
        f"memory can be trained on. Training takes {STEPS} steps. Made by `make bench-large`; the files are generated",
        "and sparse, so that they take little space on the disk.",
        "",
        "Training keeps freed memory to use it again, which is faster than mapping it anew. Private memory therefore",
        "differs from run to run by a gigabyte or more, and a small file may take more than a large one.",
        *returned,
        "",
        "| data | file, GB | rows | private memory before, MB | at most, MB | mapped pages, MB |",
        "|---|---|---|---|---|---|",
    ]
    for r in sorted(results, key=lambda r: (r["kind"], r["gb"])):
        shape, dtype = SHAPES[r["kind"]]
        name = f"{r['kind']}, {' x '.join(map(str, shape))} {np.dtype(dtype)}"
        lines.append(
            f"| {name} | {r['gb']:g} | {r['rows']:,} | {r['before_mb']:,.0f} | {r['private_mb']:,.0f} | "
            f"{r['file_mb']:,.0f} |"
        )
    return "\n".join([*lines, "", f"One core, torch {torch.__version__}, Python {platform.python_version()}.", ""])


def measured(path: Path, kind: str, **environment: str) -> dict[str, float]:
    """`train` in a process of its own."""
    command = [sys.executable, __file__, "--point", kind, os.fspath(path)]
    told = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    if told.returncode:
        raise SystemExit(told.stderr[-3000:])
    point: dict[str, float] = json.loads(told.stdout.splitlines()[-1])
    return point


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", nargs="+", type=float, default=[0.5, 2, 20], help="sizes of the files")
    parser.add_argument("--kinds", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--folder", type=Path, help="where to write the files; by default a temporary folder")
    parser.add_argument("--no-page", action="store_true", help="print the results only")
    parser.add_argument("--point", nargs=2, metavar=("KIND", "FILE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.point:
        print(json.dumps(train(Path(asked.point[1]), asked.point[0])))
        return
    results = []
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        for kind in asked.kinds:
            for gb in asked.gb:
                path = Path(folder, "x.npy")
                rows = sparse_file(path, kind, gb)
                point = measured(path, kind)
                if (kind, gb) == ("images", min(asked.gb)):
                    point["returned_mb"] = measured(path, kind, **RETURN)["private_mb"]
                results.append({"kind": kind, "gb": gb, "rows": rows, **point})
                print(results[-1], flush=True)
    if not asked.no_page:
        PAGE.write_text(page(results), encoding="utf8")


if __name__ == "__main__":
    main()
