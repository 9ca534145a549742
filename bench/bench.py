"""Compare speed and memory with Pythae and with the hardware limit: `make bench`.

All programs are timed in alternation within one run. The results are medians of ratios over several rounds, since
single times mean little on a shared machine. Pythae 0.1.2 runs in its own environment, bench/.env, which the first
call creates. Every program gets one thread per core that the bench may use (`taskset -c 0 make bench` measures one).
Takes 3 to 5 minutes after the first call.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
ENV = HERE / ".env"
LOAD = os.getloadavg()[0]
SCORED, SAMPLES = 1000, 1000
PEER_SCORED = 20  # the peer scores one image at a time, so its cost is linear in their number
STEPS = 200
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Worker:
    """A process that answers each command with JSON, with one thread per core whatever the shell has set."""

    def __init__(self, *command: str):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_", "MKL_"))}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=HERE,
            env={**clean, "OMP_NUM_THREADS": str(CORES)},
        )
        line = self._line()
        if line.strip('"') != "ready":
            raise SystemExit(f"{' '.join(command)} did not start: {line!r}")

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, command: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        line = self._line()
        if not line:
            raise SystemExit(f"the worker stopped during {command!r}")
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait()


def peer_python() -> str:
    """Python of the peer's environment; creates it on the first call."""
    python = ENV / "bin" / "python"
    stamp = ENV / "ready"
    if not stamp.exists():
        print("creating the peer's environment (once) ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(ENV)], check=True)
        constraints = HERE.parent / "constraints.txt"
        pip = [str(python), "-m", "pip", "install", "-q"]
        subprocess.run([*pip, "-c", str(constraints), "torch", "pythae==0.1.2"], check=True)
        stamp.touch()
    return str(python)


def alternate(rounds: int, *asks: tuple[Worker, str]) -> list[np.ndarray]:
    """Answers to each question, asked in turn once per round, after one warm-up round."""
    answers: list[list[float]] = [[] for _ in asks]
    for i in range(rounds + 1):
        for values, (worker, command) in zip(answers, asks, strict=True):
            value = worker.ask(command)
            if i:
                values.append(value)
    return [np.array(v) for v in answers]


class Sheet:
    """`name: value` lines, printed at once and kept for docs/speed.md."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        print(line, flush=True)
        self.lines.append(line)

    def value(self, name: str, value: float, digits: int = 3) -> None:
        self.say(f"{name}: {value:.{digits}f}")

    def ratio(self, name: str, above: np.ndarray, below: np.ndarray) -> None:
        """The median over rounds of the ratio within a round, and its interquartile range."""
        ratios = above / below
        low, high = np.quantile(ratios, [0.25, 0.75])
        self.value(name, float(np.median(ratios)))
        self.say(f"# {name}: interquartile range of {len(ratios)} rounds {low:.3f} to {high:.3f}")

    def parts(self, title: str, worker: Worker, command: str, scale: float) -> None:
        """Where the time of a command goes, in milliseconds of its unit: the median of five calls for each part."""
        calls = [worker.ask(f"parts {command}") for _ in range(5)]
        self.say(f"# {title}, ms in each part (kernels: noise, activations, likelihood, Adam; the rest: Python, rows)")
        for name in sorted(calls[0], key=lambda name: -calls[0][name]):
            self.say(f"#   {scale * float(np.median([call[name] for call in calls])):7.3f}  {name}")


def processor() -> str:
    """The kind of the processor: its name and the vector instructions that torch uses."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    parts = [torch.backends.cpu.get_cpu_capability()]
    if torch.cpu._is_avx512_bf16_supported():
        parts.append("bf16")
    if torch.cpu._is_amx_tile_supported():
        parts.append("AMX")
    return f"{names[0] if names else 'unknown processor'} ({', '.join(parts)})"


def training(sheet: Sheet, ours: Worker, peer: Worker, rounds: int) -> None:
    """Training steps in the precisions that pay on this machine."""
    precisions = ["fp32", "bf16"] if ours.ask("bf16") else ["fp32"]
    asked = [(ours, f"{what} {p}") for p in precisions for what in ("train", "products")]
    theirs, far, near, *rest = alternate(rounds, (peer, "train"), (ours, "moving"), (ours, "moving cached"), *asked)
    sheet.say("# training: 784-512-z16-512-784, batch 100, Adam; Pythae with its own trainer in fp32, vaekit compiled;")
    sheet.say(f"# `--precision auto` chooses {precisions[-1]} on this machine")
    sheet.say(
        "# limit: the step's matrix products in their fastest layouts, plus the time to move 28 bytes per parameter"
    )
    sheet.say("# at the bandwidth of copying 256 MB (`cached`: of adding in place to arrays as large as Adam's)")
    sheet.value("train_peer_step_ms", 1000 * float(np.median(theirs)) / STEPS)
    for p, train, products in zip(precisions, rest[::2], rest[1::2], strict=True):
        sheet.value(f"train_step_ms_{p}", 1000 * float(np.median(train)) / STEPS)
        for name, move in (("", far), ("_cached", near)):
            limit = STEPS * (products + move)
            sheet.value(f"train_limit{name}_ms_{p}", 1000 * float(np.median(limit)) / STEPS)
            sheet.ratio(f"train_fraction_of_limit{name}_{p}", limit, train)
        sheet.ratio(f"train_ratio_pythae_{p}", theirs, train)
        sheet.parts(f"a training step in {p}", ours, f"train {p}", 1000 / STEPS)


def scoring(sheet: Sheet, ours: Worker, peer: Worker, rounds: int) -> None:
    """IWAE scoring with K=1000."""
    n = 100  # a tenth of the 1,000 images per round, so that the three alternate quickly
    sheet.say("# scoring: IWAE with K=1000, fp32; the same decoder")
    score, limit, theirs = alternate(
        rounds,
        (ours, f"score {n} {SAMPLES}"),
        (ours, f"score-limit {n} {SAMPLES}"),
        (peer, f"score {PEER_SCORED} {SAMPLES}"),
    )
    sheet.value("score_seconds_1000x1000", ours.ask(f"score {SCORED} {SAMPLES}"), 2)
    sheet.say("# limit: the decoder's fp32 matrix products alone, at the best of several block sizes and layouts")
    sheet.ratio("score_fraction_of_limit", limit, score)
    sheet.ratio("score_ratio_pythae", theirs * n / PEER_SCORED, score)
    sheet.parts("scoring one image", ours, f"score {n} {SAMPLES}", 1000 / n)


def main() -> None:
    import vaekit as vk

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each comparison")
    rounds = parser.parse_args().rounds
    images = HERE / ".env-images.npy"
    python = peer_python()
    data = vk.load("fashion-mnist")
    np.save(images, data.train[:20000])
    ours = Worker(sys.executable, str(HERE / "worker_vaekit.py"))
    peer = Worker(python, str(HERE / "worker_pythae.py"), str(images), str(ENV / "out"))
    sheet = Sheet()
    training(sheet, ours, peer, rounds)
    scoring(sheet, ours, peer, rounds)
    ours.close()
    peer.close()
    sheet.say("# extra memory: peak while scoring 100 images, beyond that of the loaded program")
    for k in (100, 5000):  # a new process for each, so that the peak is that of this call
        fresh = Worker(sys.executable, str(HERE / "worker_vaekit.py"))
        sheet.value(f"score_extra_mb_k{k}", fresh.ask(f"memory 100 {k}"), 1)
        fresh.close()
    images.unlink()
    document = HERE.parent / "docs" / "speed.md"
    document.parent.mkdir(exist_ok=True)
    document.write_text(
        "# Speed\n\nMade by `make bench` on Fashion-MNIST.\n\n"
        "- `ratio_pythae`: Pythae's time divided by vaekit's. Above 1, vaekit is faster.\n"
        "- `fraction_of_limit`: the hardware limit divided by vaekit's time. 1 is the fastest possible.\n\n"
        "Each ratio is the median over rounds in which the programs alternate.\n\n"
        "A step takes longer than the limit, because it also draws noise and binary targets, computes activations and\n"
        "the likelihood, and calls about 25 products and kernels from Python. Each layer's weights are used in two\n"
        "products, and only one of them can have the fastest layout.\n\n"
        f"{processor()}, {CORES} {'core' if CORES == 1 else 'cores'}, load before the run {LOAD:.2f}, "
        f"torch {torch.__version__}, Pythae 0.1.2.\n\n```text\n" + "\n".join(sheet.lines) + "\n```\n",
        encoding="utf8",
    )


if __name__ == "__main__":
    main()
