"""Measure the CPU time of commands that only print text: `python bench/startup.py [--times N]`.

Each command runs in a process of its own in an empty folder. Prints the median of user plus system time.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile

COMMANDS = (
    "--help", "recipes", "datasets", "study", "fit --help", "fit --recipe tc --help", "sample --help",
    "fit nowhere.csv", "fit digits --recipe covn", "fit digits --learning-rate 1", "sample nowhere",
    "sample example -n 4",
)  # fmt: skip


def seconds(program: list[str], folder: str) -> float:
    """CPU time of a program, whatever its exit status."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(program, cwd=folder, env=environment, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    programs = {f"vaekit {line}": [sys.executable, "-m", "vaekit", *line.split()] for line in COMMANDS}
    programs["python -c 'import torch'"] = [sys.executable, "-c", "import torch"]
    with tempfile.TemporaryDirectory() as folder:
        for name, program in programs.items():
            seconds(program, folder)  # warm-up: reads files from disk
            times_taken = [seconds(program, folder) for _ in range(times)]
            print(f"{name:<40} {statistics.median(times_taken):.2f} s of CPU time", flush=True)


if __name__ == "__main__":
    main()
