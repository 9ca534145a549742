"""Compare speed and memory with Pythae and with the hardware limit: `make bench`.

All programs are timed in alternation within one run. The results are medians of ratios over several rounds, since
single times mean little on a shared machine. Pythae 0.1.2 runs in its own environment, bench/.env.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
ENV = HERE / ".env"
ROUNDS = 9
LOAD = os.getloadavg()[0]
SCORED, SAMPLES = 1000, 1000
PEER_SCORED = 20  # the peer scores one image at a time, so its cost is linear in their number


class Worker:
    """A process that answers each command with one number."""

    def __init__(self, *command: str):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=HERE
        )
        line = self._line()
        if line != "ready":
            raise SystemExit(f"{' '.join(command)} did not start: {line!r}")

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, command: str) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        line = self._line()
        if not line:
            raise SystemExit(f"the worker stopped during {command!r}")
        return float(line)

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


def alternate(*asks: tuple[Worker, str]) -> list[np.ndarray]:
    """Answers to each question, asked in turn once per round, after one warm-up round."""
    answers: list[list[float]] = [[] for _ in asks]
    for i in range(ROUNDS + 1):
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


def main() -> None:
    import vaekit as vk

    images = HERE / ".env-images.npy"
    python = peer_python()
    data = vk.load("fashion-mnist")
    np.save(images, data.train[:20000])
    ours = Worker(sys.executable, str(HERE / "worker_vaekit.py"))
    peer = Worker(python, str(HERE / "worker_pythae.py"), str(images), str(ENV / "out"))
    sheet = Sheet()

    arithmetic = "bf16" if ours.ask("precision") == 16 else "fp32"
    sheet.say("# training: 784-512-z16-512-784, batch 100, Adam; Pythae with its own trainer in fp32,")
    sheet.say(f"# vaekit compiled in {arithmetic}, the choice of `--precision auto` on this machine")
    train, limit, cached, theirs = alternate(
        (ours, "train"), (ours, "train-limit"), (ours, "train-limit-cached"), (peer, "train")
    )
    steps = 200
    sheet.value("train_step_ms", 1000 * float(np.median(train)) / steps)
    sheet.value("train_peer_step_ms", 1000 * float(np.median(theirs)) / steps)
    sheet.value("train_limit_ms", 1000 * float(np.median(limit)) / steps)
    sheet.say(f"# limit: the time of the step's matrix products in {arithmetic} with the fastest layouts, plus the")
    sheet.say("# time to move 28 bytes per parameter at the bandwidth of copying 256 MB (`cached`: at the bandwidth")
    sheet.say("# of copying an array as large as the parameters)")
    sheet.ratio("train_ratio_pythae", theirs, train)
    sheet.ratio("train_fraction_of_limit", limit, train)
    sheet.ratio("train_fraction_of_limit_cached", cached, train)
    sheet.ratio("train_limit_ratio_pythae", theirs, limit)

    n = 100  # a tenth of the 1,000 images per round, so that the three alternate quickly
    sheet.say("# scoring: IWAE with K=1000, fp32; the same decoder")
    score, limit, theirs = alternate(
        (ours, f"score {n} {SAMPLES}"), (ours, f"score-limit {n} {SAMPLES}"), (peer, f"score {PEER_SCORED} {SAMPLES}")
    )
    sheet.value("score_seconds_1000x1000", ours.ask(f"score {SCORED} {SAMPLES}"), 2)
    sheet.say("# limit: the decoder's fp32 matrix products alone, at the best of several block sizes and layouts")
    sheet.ratio("score_fraction_of_limit", limit, score)
    sheet.ratio("score_ratio_pythae", theirs * n / PEER_SCORED, score)
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
    cores = os.cpu_count()
    document.write_text(
        "# Speed\n\nMade by `make bench` on Fashion-MNIST.\n\n"
        "- `ratio_pythae`: Pythae's time divided by vaekit's. Above 1, vaekit is faster.\n"
        "- `fraction_of_limit`: the hardware limit divided by vaekit's time. 1 is the fastest possible.\n"
        "- `limit_ratio_pythae`: Pythae's time divided by the limit.\n\n"
        "Each ratio is the median over rounds in which the programs alternate.\n\n"
        f"{cores} cores, load before the run {LOAD:.2f}, torch {torch.__version__}, Pythae 0.1.2.\n\n```text\n"
        + "\n".join(sheet.lines)
        + "\n```\n",
        encoding="utf8",
    )


if __name__ == "__main__":
    main()
