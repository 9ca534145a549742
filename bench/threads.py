"""Compare how OpenMP threads wait, alone and beside other programs: python bench/threads.py [NUMBER of the model]

Each setting trains the same model in its own processes. Signals stop and continue them, so that all settings are
measured within seconds of each other: alone, beside a second training with the same setting, beside a training with
OpenMP's default setting, and beside a busy process of one thread. Before each measurement, adaptive waiting gets time
to notice that another program has started or stopped. Writes docs/threads.json, one model at a time (the first takes
about five minutes), and docs/threads.md.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vaekit.utils.files import write_json, write_text

DOCS = Path(__file__).parent.parent / "docs"
ROUNDS = 2
SETTLE = 1.6  # seconds before each measurement, more than adaptive waiting takes to notice
SECONDS = 1.5  # of each measurement
WARM = 30  # untimed steps

FIXED = {"OMP_WAIT_POLICY": "active"}  # a policy in the environment turns adaptive waiting off
DEFAULT = {**FIXED, "GOMP_SPINCOUNT": "300000"}
SETTINGS: dict[str, dict[str, str]] = {
    "adaptive": {"GOMP_SPINCOUNT": "10000"},
    "adaptive, Python": {},
    "OpenMP default": DEFAULT,
    "10,000 spins": {**FIXED, "GOMP_SPINCOUNT": "10000"},
    "asleep": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
FEWER = ("adaptive", "10,000 spins", "one thread")
COMPANIONS = ("alone", "another", "OpenMP default", "busy")

DENSE = {"network": "dense", "latent": 200, "hidden": [500], "activation": "tanh", "batch": 100, "compile": "off"}
COMPILED = {**DENSE, "compile": "on"}
Model = tuple[str, tuple[str, ...], dict[str, Any]]  # what is timed, settings, choices
MODELS: dict[str, Model] = {
    "784-500-200-500-784, eager, fp32": ("step", tuple(SETTINGS), DENSE),
    "784-500-200-500-784, compiled, fp32": ("step", FEWER, {**COMPILED, "precision": "fp32"}),
    "784-500-200-500-784, compiled, bf16": ("step", FEWER, {**COMPILED, "precision": "bf16"}),
    "conv, eager, fp32": ("step", FEWER, {"network": "conv", "compile": "off"}),
    "784-500-200-500-784, scoring with 100 samples, not compiled": ("10 rows", FEWER, DENSE),
}


# --- processes that work --------------------------------------------------------------------------------------------


def work(file: str, unit: str, choices: dict[str, Any]) -> None:
    """Train or score without end, and count steps or rows in the file."""
    import vaekit as vk
    from vaekit import metrics
    from vaekit.training.loop import Trainer

    with open(file, "r+b") as f:
        counter = mmap.mmap(f.fileno(), 8)
    data, train_step = vk.load("fashion-mnist"), Trainer.one_step

    def add(n: int) -> None:
        struct.pack_into("q", counter, 0, struct.unpack("q", counter[:8])[0] + n)

    def counted(trainer: Trainer) -> None:
        train_step(trainer)
        add(1)

    choices = {k: tuple(v) if isinstance(v, list) else v for k, v in choices.items()}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        if unit == "step":
            Trainer.one_step = counted  # type: ignore[method-assign]
            vk.fit(data, "vae", out=run, steps=10**6, validate_steps=10**6, progress=False, **choices)
        trained = vk.fit(data, "vae", out=run, steps=10, progress=False, **choices)
        done = 0

        def progress(rows: int, _: int) -> None:
            nonlocal done
            add(rows - done)
            done = rows

        while True:
            done = 0
            metrics.per_datum(trained, trained.observed("test"), 100, n=1000, compile=False, progress=progress)


class Worker:
    """A process that works while it is not stopped."""

    def __init__(self, setting: dict[str, str], unit: str = "", choices: dict[str, Any] | None = None):
        self.file = tempfile.NamedTemporaryFile()  # noqa: SIM115
        self.file.write(bytes(8))
        self.file.flush()
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
        arguments = ["--busy"] if choices is None else ["--work", self.file.name, unit, json.dumps(choices)]
        self.process = subprocess.Popen(
            [sys.executable, __file__, *arguments], env={**clean, **setting}, start_new_session=True
        )
        self.unit = unit

    @property
    def count(self) -> int:
        """Steps taken or rows scored so far."""
        with open(self.file.name, "rb") as f:
            return int(struct.unpack("q", f.read(8))[0])

    def ready(self) -> Worker:
        """Wait until it has worked for a moment, and stop it."""
        while self.unit and self.count < WARM:
            if self.process.poll() is not None:
                raise SystemExit("a process ended before it was measured")
            time.sleep(0.05)
        self.process.send_signal(signal.SIGSTOP)
        return self

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Let it work inside this context."""
        self.process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def milliseconds(worker: Worker, others: Sequence[Worker]) -> float:
    """Milliseconds per step, or per 10 rows, while the others work too."""
    with contextlib.ExitStack() as stack:
        for each in (worker, *others):
            stack.enter_context(each.running())
        time.sleep(SETTLE)
        before, begun = worker.count, time.monotonic()
        time.sleep(SECONDS)
        done, seconds = worker.count - before, time.monotonic() - begun
    return 1000 * seconds / max(done, 0.5) * (1 if worker.unit == "step" else 10)


def measure(model: str) -> dict[str, dict[str, list[float]]]:
    """The times of each setting alone and beside each companion."""
    unit, settings, choices = MODELS[model]
    found: dict[str, dict[str, list[float]]] = {s: {c: [] for c in COMPANIONS} for s in settings}
    with contextlib.ExitStack() as stack:

        def start(*arguments: Any) -> Worker:
            worker = Worker(*arguments)
            stack.callback(worker.close)
            return worker

        busy, default = start({}), start(DEFAULT, "step", DENSE)
        pairs = {s: [start(SETTINGS[s], unit, choices) for _ in range(2)] for s in settings}
        for worker in (busy, default, *(w for pair in pairs.values() for w in pair)):
            worker.ready()
        for _ in range(ROUNDS):
            for setting, (worker, second) in pairs.items():
                beside = {"alone": [], "another": [second], "OpenMP default": [default], "busy": [busy]}
                for name, others in beside.items():
                    found[setting][name].append(round(milliseconds(worker, others), 2))
                print(f"{model}; {setting}: {found[setting]}", flush=True)
    return found


# --- the page -------------------------------------------------------------------------------------------------------

HEAD = """# Threads

torch computes with several OpenMP threads, which wait for each other many times in a training
[step](glossary.md#step). A waiting thread can spin, which is fast while the cores are free, or sleep, which is better
while another program uses them. On Linux with torch's own wheels, `vk.fit`, scoring and every command choose between
the two. Five times per second, vaekit measures the share of the time in which its threads waited for a free core,
summed over the threads. Once the share exceeds a quarter, waiting threads sleep. Once its mean over a second is
smaller, they spin again. This does not change results. In particular, the number of threads stays the same, because
the last bits of matrix products and sums depend on it. If the environment sets OMP_WAIT_POLICY, that policy is kept.

Each table gives milliseconds, first alone and then beside another program on the same cores: a second training with the
same setting, a training with OpenMP's default setting, and a busy program of one thread. An ideal scheduler would
double the time beside another training. "Adaptive" is the setting of the command line, which also limits how often a
thread spins before it sleeps, to 10,000 times (GOMP_SPINCOUNT). "Adaptive, Python" is the setting of `vk.fit`, without
this limit. The other settings keep one way of waiting. A single thread never waits for others.
"""


def page(stored: dict[str, Any]) -> str:
    """docs/threads.md."""
    out = [HEAD]
    out += [
        f"Made by `python bench/threads.py` on Fashion-MNIST, {os.cpu_count()} cores: {ROUNDS} rounds in which the",
        f"settings alternate, {SECONDS:g} s for each time. Both rounds are shown; the ratio is that of their means.",
    ]
    for model, found in stored.items():
        out += ["", f"## {model}", "", f"Milliseconds per {MODELS[model][0]}.", ""]
        out += [
            "| setting | alone | beside another training | ratio | beside a default training | beside a busy program |"
        ]
        out += ["|---|---|---|---|---|---|"]
        for setting, times in found.items():
            alone, another, default, busy = (", ".join(f"{ms:.1f}" for ms in times[c]) for c in COMPANIONS)
            ratio = statistics.mean(times["another"]) / statistics.mean(times["alone"])
            out += [f"| {setting} | {alone} | {another} | {ratio:.1f} | {default} | {busy} |"]
    return "\n".join([*out, ""])


def main(chosen: Sequence[str]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stopped processes are ended too
    kept = DOCS / "threads.json"
    stored = json.loads(kept.read_text(encoding="utf8")) if kept.exists() else {}
    for model in [list(MODELS)[int(number) - 1] for number in chosen] or MODELS:
        stored[model] = measure(model)
        stored = {name: stored[name] for name in MODELS if name in stored}
        write_json(kept, stored)
        write_text(DOCS / "threads.md", page(stored))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], sys.argv[3], json.loads(sys.argv[4]))
    elif sys.argv[1:2] == ["--busy"]:
        while True:
            pass
    else:
        main(sys.argv[1:])
