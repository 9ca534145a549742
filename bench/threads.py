"""Compare how OpenMP threads wait, alone and beside another run: python bench/threads.py

By default OpenMP threads spin while they wait. This is fastest alone, and very slow when another program uses the same
cores. Each setting trains the same model in a process of its own, and the settings alternate; `beside` means that a
second process trains the same model with the same setting at the same time. Writes docs/threads.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from vaekit.utils.files import write_text

DOCS = Path(__file__).parent.parent / "docs"
ROUNDS = 2
SETTINGS: dict[str, dict[str, str]] = {
    "OpenMP default": {},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
DENSE = {"network": "dense", "latent": 200, "hidden": [500], "activation": "tanh", "batch": 100}
MODELS: dict[str, tuple[int, dict[str, Any]]] = {  # number of timed steps, choices
    "784-500-200-500-784, eager": (400, {**DENSE, "compile": "off"}),
    "the same, compiled": (400, {**DENSE, "compile": "on"}),
    "conv, eager": (50, {"network": "conv", "compile": "off"}),
}
WARM = 50  # untimed steps before them


def work(steps: int, choices: dict[str, Any]) -> None:
    """Train, and print the milliseconds per step."""
    import vaekit as vk
    from vaekit.utils.progress import Silent

    class Marks(Silent):
        """The time of each record."""

        def __init__(self) -> None:
            self.marks: list[tuple[int, float]] = []

        def update(self, step: int, *rest: Any) -> None:
            self.marks.append((step, time.monotonic()))
            if len(self.marks) == 1:
                print("ready", flush=True)

    marks = Marks()
    data = vk.load("fashion-mnist")
    choices = {k: tuple(v) if isinstance(v, list) else v for k, v in choices.items()}
    with tempfile.TemporaryDirectory() as folder:
        vk.fit(data, "vae", out=f"{folder}/run", steps=WARM + steps, validate_steps=10**6, progress=marks, **choices)
    (a, begun), (b, ended) = marks.marks[0], marks.marks[-1]
    print(1000 * (ended - begun) / (b - a), flush=True)


def start(setting: str, steps: int, choices: dict[str, Any]) -> subprocess.Popen[str]:
    """Start a training run with these thread settings, and wait until it has taken its first steps."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, __file__, "--work", json.dumps([steps, choices])]
    process = subprocess.Popen(command, env={**clean, **SETTINGS[setting]}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        raise SystemExit(f"{setting}: the training did not start")
    return process


def timed(setting: str, model: str, beside: bool) -> float:
    """Milliseconds per step, alone or beside another run with the same setting."""
    steps, choices = MODELS[model]
    other = start(setting, 10**6, choices) if beside else None
    try:
        process = start(setting, min(steps, 50) if beside else steps, choices)
        return float(process.communicate()[0].split()[-1])
    finally:
        if other is not None:
            other.kill()
            other.wait()


def main() -> None:
    load = os.getloadavg()[0]
    out = [
        "# Threads",
        "",
        "torch computes with OpenMP threads. How they wait for each other decides how fast a training",
        "[step](glossary.md#step) is when another program uses the same cores. Each table gives milliseconds per step,",
        "alone and beside a second training run with the same setting. Ideally a step takes twice as long beside",
        "another run. The command line sets GOMP_SPINCOUNT=10000 unless the environment variable is already set. In",
        "Python, set it before importing torch.",
        "",
        f"Made by `python bench/threads.py` on Fashion-MNIST: {ROUNDS} rounds in which the settings alternate,",
        f"{os.cpu_count()} cores, load before the run {load:.2f}.",
    ]
    for model in MODELS:
        found: dict[tuple[str, bool], list[float]] = {(s, b): [] for b in (False, True) for s in SETTINGS}
        for _ in range(ROUNDS):
            for (setting, beside), values in found.items():
                values.append(timed(setting, model, beside))
                print(f"{model}; {setting}; {'beside' if beside else 'alone'}: {values[-1]:.1f} ms", flush=True)
        out += ["", f"## {model}", "", "| setting | alone, ms | beside another, ms |", "|---|---|---|"]
        for setting in SETTINGS:
            rounds = (", ".join(f"{ms:.1f}" for ms in found[setting, beside]) for beside in (False, True))
            out.append(f"| {setting} | {' | '.join(rounds)} |")
        write_text(DOCS / "threads.md", "\n".join([*out, ""]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(*json.loads(sys.argv[2]))
    else:
        main()
