"""Speed and memory against the peer's own code and the machine's own limits: `make bench`.

Everything is timed in alternation within this one run, medians of at least five rounds; the figures are ratios, since
single times mean little on a shared machine. Pythae 0.1.2 gets an environment of its own in bench/.env.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ENV = HERE / ".env"
ROUNDS = 7
SCORED, SAMPLES = 1000, 1000
PEER_SCORED = 20  # the peer scores one image at a time; its cost is linear in them


class Worker:
    """A process that answers one number a line."""

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
    """The peer's environment, made on the first call."""
    python = ENV / "bin" / "python"
    stamp = ENV / "ready"
    if not stamp.exists():
        print("making the peer's environment (once) ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(ENV)], check=True)
        constraints = HERE.parent / "constraints.txt"
        pip = [str(python), "-m", "pip", "install", "-q"]
        subprocess.run([*pip, "-c", str(constraints), "torch", "pythae==0.1.2"], check=True)
        stamp.touch()
    return str(python)


def alternate(*asks) -> list[float]:
    """The median over the rounds of each question, asked in turn; one round to warm up."""
    found: list[list[float]] = [[] for _ in asks]
    for i in range(ROUNDS + 1):
        for values, (worker, command) in zip(found, asks, strict=True):
            value = worker.ask(command)
            if i:
                values.append(value)
    return [statistics.median(v) for v in found]


def main() -> None:
    import vaekit as vk

    images = HERE / ".env-images.npy"
    python = peer_python()
    data = vk.load("fashion-mnist")
    np.save(images, data.train[:20000])
    ours = Worker(sys.executable, str(HERE / "worker_vaekit.py"))
    peer = Worker(python, str(HERE / "worker_pythae.py"), str(images), str(ENV / "out"))

    train, limit, theirs = alternate((ours, "train"), (ours, "train-limit"), (peer, "train"))
    steps = 200
    print(f"train_step_ms: {1000 * train / steps:.3f}")
    print(f"train_limit_ms: {1000 * limit / steps:.3f}")
    print(
        "# limit: the step's products in bf16, each alone at its best layout, + 28 bytes a parameter at copy bandwidth"
    )
    print(f"train_peer_step_ms: {1000 * theirs / steps:.3f}")
    print(f"train_images_per_second: {100 * steps / train:.0f}")
    print(f"train_ratio_pythae: {theirs / train:.3f}")
    print(f"train_fraction_of_limit: {limit / train:.3f}", flush=True)

    n = 100  # of the 1,000 images: each round a tenth, so that the three alternate closely
    score, limit, theirs = alternate(
        (ours, f"score {n} {SAMPLES}"), (ours, f"score-limit {n} {SAMPLES}"), (peer, f"score {PEER_SCORED} {SAMPLES}")
    )
    theirs *= n / PEER_SCORED
    whole = ours.ask(f"score {SCORED} {SAMPLES}")
    print(f"score_seconds_1000x1000: {whole:.2f}")
    print("# limit: the decoder's fp32 products alone, at the best of several block sizes")
    print(f"score_fraction_of_limit: {limit / score:.3f}")
    print(f"score_ratio_pythae: {theirs / score:.3f}", flush=True)
    ours.close()
    peer.close()
    for k in (100, 5000):  # a fresh process each, so that the peak is this call's
        fresh = Worker(sys.executable, str(HERE / "worker_vaekit.py"))
        print(f"score_extra_mb_k{k}: {fresh.ask(f'memory 100 {k}'):.1f}", flush=True)
        fresh.close()
    images.unlink()


if __name__ == "__main__":
    main()
