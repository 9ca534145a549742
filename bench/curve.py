"""Compare vaekit's default training with Pythae's, by the quality that each reaches in a given time: `make bench-time`.

Time runs from the shell's command, start-up and compiling included. vaekit is `vaekit fit fashion-mnist --minutes M`,
a run of its own for each M, because the learning rate follows the time given. Pythae is its default VAE (784-512, 16
latents, Adam at 1e-3, batches of 100, grey images as targets), trained by its own trainer and scored at each of these
times. The measure is IW-100 on the first 2,000 test images of the reference draw. Takes half an hour per seed on an
idle machine; resumable, results are kept in bench/.runs/curve. Writes docs/time.json and docs/time.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vaekit as vk
from bench import HERE, peer_python
from vaekit.metrics import per_datum
from vaekit.utils.files import write_json, write_text

RUNS, DOCS = HERE / ".runs" / "curve", HERE.parent / "docs"
MINUTES = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
SEEDS = (0, 1, 2)
IMAGES, SAMPLES = 2000, 100
Point = dict[str, Any]


def ours(minutes: float, seed: int, cold: bool) -> Point:
    """Train for so many minutes, in a process of its own, and score the model."""
    out = RUNS / f"vaekit-{seed}-{minutes:g}"
    shutil.rmtree(out, ignore_errors=True)
    cache = RUNS / "compiled"
    if cold:
        shutil.rmtree(cache, ignore_errors=True)
    command = ["fit", "fashion-mnist", "--minutes", f"{minutes:g}", "--seed", str(seed), "--out", str(out)]
    started = time.time()
    subprocess.run(
        [str(Path(sys.executable).with_name("vaekit")), *command],
        check=True,
        capture_output=True,
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache)},
    )
    seconds = time.time() - started
    run = vk.open(out)
    scored = per_datum(run, run.observed("test"), SAMPLES, n=IMAGES)
    point = {"seconds": seconds, "steps": run.config["step"], "elbo": float(scored.elbo.mean())}
    return point | {"bound": float(scored.log_px.mean())}


def theirs(times: list[float], seed: int, images: Path, draw: Path) -> list[Point]:
    """Train Pythae's VAE and score it at these times, in seconds."""
    command = [peer_python(), str(HERE / "worker_curve.py"), str(images), str(draw), str(time.time())]
    asked = [",".join(f"{t:g}" for t in times), str(RUNS / "pythae"), str(seed)]
    told = subprocess.run([*command, *asked], check=True, capture_output=True, text=True, cwd=HERE)
    return [json.loads(line) for line in told.stdout.splitlines()]


def reached(points: list[Point], bound: float) -> float:
    """The seconds at which a curve reaches a bound, linear in log time between its points; inf if it does not."""
    times, values = np.log([p["seconds"] for p in points]), np.maximum.accumulate([p["bound"] for p in points])
    if values[-1] < bound:
        return float("inf")
    return float(np.exp(np.interp(bound, values, times)))


def measure(seeds: list[int], minutes: list[float], peer: list[float]) -> list[dict[str, Any]]:
    RUNS.mkdir(parents=True, exist_ok=True)
    data = vk.load("fashion-mnist")
    images, draw = RUNS / "images.npy", RUNS / "draw.npy"
    np.save(images, np.asarray(data.train[:]))
    observed = data_draw()
    np.save(draw, observed)
    results = []
    for seed in seeds:
        kept = RUNS / f"{seed}.json"
        held: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {"seed": seed, "vaekit": {}}
        for m in minutes:  # the first is cold: nothing is compiled yet
            if f"{m:g}" not in held["vaekit"]:
                held["vaekit"][f"{m:g}"] = ours(m, seed, cold=True)
                print(seed, "vaekit", m, held["vaekit"][f"{m:g}"], flush=True)
                write_json(kept, held)
        if "pythae" not in held:
            held["pythae"] = theirs([60 * m for m in peer], seed, images, draw)
            print(seed, "pythae", held["pythae"], flush=True)
            write_json(kept, held)
        results.append(held)
    return results


def data_draw() -> np.ndarray:
    """The binary draw (2,000, 784) of the test images that every vaekit run on this data is scored on."""
    out = RUNS / "reference"
    run = vk.open(out) if (out / "run.json").exists() else vk.fit("fashion-mnist", steps=1, out=out, compile="off")
    return run.observed("test")(np.arange(IMAGES)).reshape(IMAGES, -1).numpy().astype(np.uint8)


def report(results: list[dict[str, Any]], minutes: list[float], peer: list[float]) -> str:
    """The page: the mean over seeds at each time, paired differences, and the ratio of times to Pythae's last bound."""
    n = len(results)
    ratios, of_best = [], []
    for held in results:
        own = [held["vaekit"][f"{m:g}"] for m in minutes]
        last, best = held["pythae"][-1], max(held["pythae"], key=lambda point: point["bound"])
        ratios.append(last["seconds"] / reached(own, last["bound"]))
        of_best.append(best["seconds"] / reached(own, best["bound"]))
    lines = [
        "# Quality against time",
        "",
        "Made by `make bench-time` on Fashion-MNIST; the header of bench/curve.py describes the protocol. Seconds run",
        "from the command in the shell, with start-up and compilation; nothing is compiled before. vaekit has default",
        f"settings, and each of its times is a run of its own. Means over {n} seed{'s' * (n > 1)}, in",
        "[nats](glossary.md#nats) per image, on the first 2,000 test images of the reference draw.",
        "",
        "| minutes | vaekit, s | ELBO | IW-100 | Pythae, s | ELBO | IW-100 | vaekit ahead by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for m in sorted({*minutes, *peer}):
        a = [held["vaekit"][f"{m:g}"] for held in results] if m in minutes else []
        b = [held["pythae"][peer.index(m)] for held in results] if m in peer else []
        ahead = np.array([x["bound"] - y["bound"] for x, y in zip(a, b, strict=False)])
        error = f" ± {ahead.std(ddof=1) / np.sqrt(n):.2f}" if len(ahead) > 1 else ""
        cells = [f"{np.mean([p[k] for p in points]):.{d}f}" if points else "–" for points in (a, b) for k, d in KEYS]
        lines.append(f"| {m:g} | {' | '.join(cells)} | {f'{ahead.mean():+.2f}{error}' if len(ahead) else '–'} |")
    lines += [
        "",
        "`time_to_pythae_ratio`, the time in which Pythae reaches its last IW-100 divided by that of vaekit:",
        f"{shown(ratios)}. The same for Pythae's best IW-100 in the table, which it can reach earlier:",
        f"{shown(of_best)}. ± is the standard error over seeds.",
        "",
        f"{processor()}, {os.cpu_count()} cores, torch {torch.__version__}, Python {platform.python_version()}, "
        "Pythae 0.1.2.",
        "",
    ]
    return "\n".join(lines)


def shown(ratios: list[float]) -> str:
    """The median of ratios, and each of them."""
    return f"{np.median(ratios):.2f} ({', '.join(f'{r:.2f}' for r in ratios)})"


KEYS = (("seconds", 0), ("elbo", 2), ("bound", 2))


def processor() -> str:
    """The vector instructions of this processor, which decide its speed more than its name."""
    capability = torch.backends.cpu.get_cpu_capability()
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return f"{capability}{' with AMX' * ('amx_tile' in flags)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--minutes", type=float, nargs="+", default=list(MINUTES), help="of vaekit")
    parser.add_argument("--peer-minutes", type=float, nargs="+", default=list(MINUTES), help="of Pythae")
    asked = parser.parse_args()
    results = measure(asked.seeds, asked.minutes, asked.peer_minutes)
    write_json(DOCS / "time.json", results)
    page = report(results, asked.minutes, asked.peer_minutes)
    write_text(DOCS / "time.md", page)
    print(page)


if __name__ == "__main__":
    main()
