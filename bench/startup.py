"""Measure what starting costs: `python bench/startup.py [--times N]`; writes docs/startup.md and docs/startup.json.

Each command runs in a process of its own, in rounds of all commands, so that other programs on the machine disturb all
alike. The data set is already in the cache folder; compiled graphs are kept in a temporary folder. Results are
medians over the rounds.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import vaekit as vk
from vaekit.utils.files import write_json, write_text

DOCS = Path(__file__).resolve().parent.parent / "docs"
TEXT = (
    "--help", "recipes", "datasets", "study", "fit --help", "fit --recipe tc --help", "sample --help",
    "fit nowhere.csv", "fit digits --recipe covn", "fit digits --learning-rate 1", "sample nowhere",
)  # fmt: skip
FIT = "fit fashion-mnist --steps 1 --exists replace --out run --compile"
PRODUCT = "sample example -n 4 --out samples.png"
EAGER, COLD, WARM = f"{FIT} off", f"{FIT} on (first time)", f"{FIT} on (again)"
IMPORT = "python -c 'import torch'"


def measured(program: list[str], where: str, environment: dict[str, str]) -> tuple[float, float]:
    """Wall-clock and CPU seconds of a program, whatever its exit status."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(program, cwd=where, env=environment, capture_output=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def programs() -> dict[str, list[str]]:
    """The programs of a round by name, in order: the first compiled training fills the cache for the second."""
    lines = {line: line for line in (*TEXT, PRODUCT)} | {EAGER: EAGER, COLD: f"{FIT} on", WARM: f"{FIT} on"}
    made = {name: [sys.executable, "-m", "vaekit", *line.split()] for name, line in lines.items()}
    return made | {IMPORT: [sys.executable, "-c", "import torch"]}


def rounds(times: int) -> dict[str, list[tuple[float, float]]]:
    """Wall-clock and CPU seconds of every program in every round, after one round that reads files from disk."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in programs()}
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as where:
        compiled = Path(where, "compiled")
        environment |= {"TORCHINDUCTOR_CACHE_DIR": str(compiled)}
        for turn in range(times + 1):
            for name, program in programs().items():
                if name == COLD:
                    shutil.rmtree(compiled, ignore_errors=True)
                seconds = measured(program, where, environment)
                if turn:
                    taken[name].append(seconds)
                    print(f"{name:<70} {seconds[0]:6.2f} s, {seconds[1]:6.2f} s of CPU time", flush=True)
    return taken


def page(rows: dict[str, dict[str, float]], times: int) -> str:
    """docs/startup.md."""
    eager = rows[EAGER]["wall"]
    out = [
        "# Start-up and compiling",
        "",
        f"Made by `python bench/startup.py`: medians of {times} rounds. Every program runs once per round, in a",
        "process of its own. *Wall* is the time from the command in the shell to its end; *CPU* is the processor time",
        "of all its threads and of the C++ compiler. Both are in seconds.",
        "",
        "The training takes one step and validates. Compiling its step adds "
        f"**{rows[COLD]['wall'] - eager:.1f} s** the first time and **{rows[WARM]['wall'] - eager:.1f} s** afterwards,",
        "when the graph comes from the cache folder.",
        "",
        "| command | wall | CPU |",
        "|---|---|---|",
    ]
    for name, row in rows.items():
        shown = name if name == IMPORT else f"vaekit {name}"
        command, _, remark = shown.partition(" (")
        out.append(f"| `{command}`{' (' + remark if remark else ''} | {row['wall']:.2f} | {row['cpu']:.2f} |")
    machine = f"torch {torch.__version__}, Python {platform.python_version()}, {torch.get_num_threads()} threads"
    return "\n".join([*out, "", f"{machine}, {torch.backends.cpu.get_cpu_capability()}.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    vk.load("fashion-mnist")
    taken = rounds(times)
    rows = {
        name: {"wall": statistics.median(w for w, _ in pairs), "cpu": statistics.median(c for _, c in pairs)}
        for name, pairs in taken.items()
    }
    write_json(DOCS / "startup.json", {name: {**rows[name], "rounds": pairs} for name, pairs in taken.items()})
    write_text(DOCS / "startup.md", page(rows, times))
    print(page(rows, times))


if __name__ == "__main__":
    main()
