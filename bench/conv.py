"""Compare the training steps of convolutional models with Pythae's and with the hardware limit: `make bench-conv`.

Trains the default convolutional model with default settings on 64 x 64 colour images (`--colour`, an .npz or .npy file
of (N, 64, 64, 3) uint8; generated images otherwise) and on Fashion-MNIST. The programs alternate within one process
group; times are medians over rounds. Pythae 0.1.2 (in bench/.env, created by bench.py) trains with its own trainer, in
fp32 and batches of 64: vaekit's network written in plain PyTorch, and its own convolutional networks for the size. A
step of the latter takes seconds, so two steps are timed at the end.

The limit is the time of the step's convolutions (forward, gradient of the input, gradient of the weights) and matrix
products alone, each in its fastest memory format, plus 28 bytes per parameter at the bandwidth of copying 256 MB.

OMP_NUM_THREADS sets the number of threads. Each compiled step takes up to a minute to compile the first time.
Resumable: each size is kept in bench/.runs/conv. Writes docs/conv-speed.json and docs/conv-speed.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from curve import processor
from torch.utils._python_dispatch import TorchDispatchMode
from worker_vaekit import product, seconds

import vaekit as vk
from bench import ENV, HERE, Worker, peer_python
from vaekit.data.core import counted
from vaekit.training.loop import Trainer
from vaekit.training.plan import plan_new
from vaekit.training.prepare import prepare
from vaekit.training.start import describe
from vaekit.utils.memory import reuse_large_blocks
from vaekit.utils.progress import Silent

RUNS, DOCS = HERE / ".runs" / "conv", HERE.parent / "docs"
MODES = ("off-fp32", "off-bf16", "on-fp32", "on-bf16")
SIZES = {"colour": "64 x 64 x 3", "fashion-mnist": "28 x 28 x 1"}
STEPS, ROUNDS, NARROW = 3, 9, 16
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def images(size: str, colour: str | None) -> np.ndarray:
    """The first 3,000 images, uint8 (N, H, W, C)."""
    if size == "fashion-mnist":
        return np.asarray(vk.load(size).train[:3000]).reshape(-1, 28, 28, 1)
    if colour is None:
        return np.random.default_rng(0).integers(0, 256, (3000, 64, 64, 3), dtype=np.uint8)
    held = np.load(colour)
    array = held["x"] if isinstance(held, np.lib.npyio.NpzFile) else held
    return np.asarray(array[:3000])


def trainer(data: Any, mode: str, folder: Path) -> Trainer:
    compile_, precision = mode.split("-")
    torch.manual_seed(0)
    composition = vk.get_recipe("vae")(vk.DataSpec.of(data), network="conv")
    options = vk.Options(steps=10**6, compile=compile_, precision=precision, validate_steps=10**6)
    plan = plan_new(options, composition, data)
    prepare(data, composition, plan.seed)
    config = describe(data, "vae", {"network": "conv"}, composition, plan)
    built = Trainer(composition, data, plan, folder, config, Silent())
    built.engine.module.train()
    if plan.compile:
        built.engine.compiled()
    return built


class _Recorded(TorchDispatchMode):
    """Keeps the shapes of the convolutions and the matrix products that run inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions: list[tuple[str, tuple[int, ...], tuple[int, ...], tuple[Any, ...]]] = []
        self.products: list[tuple[int, int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._overloadpacket.__name__
        if name == "convolution":
            x, w, _, *rest = args
            self.convolutions.append(("forward", tuple(x.shape), tuple(w.shape), tuple(rest)))
        elif name == "convolution_backward":
            _, x, w, _, *rest, mask = args
            for part, wanted in zip(("input", "weight"), mask, strict=False):
                if wanted:
                    self.convolutions.append((part, tuple(x.shape), tuple(w.shape), tuple(rest)))
        elif name in ("mm", "addmm"):
            a, b = args[-2:]
            self.products.append((a.shape[0], a.shape[1], b.shape[1]))
        return func(*args, **(kwargs or {}))


def convolution(part: str, x: Any, w: Any, rest: Any, dtype: torch.dtype) -> Callable[[], Any]:
    """One convolution, or one of its gradients, in its fastest memory format, which is chosen once."""
    candidates = []
    for layout in (torch.contiguous_format, torch.channels_last):
        a, b = (torch.randn(s).to(dtype).contiguous(memory_format=layout) for s in (x, w))
        y = torch.ops.aten.convolution(a, b, None, *rest)
        g = torch.randn_like(y)
        mask = [part == "input", part == "weight", False]
        if part == "forward":
            candidates.append(lambda a=a, b=b: torch.ops.aten.convolution(a, b, None, *rest))
        else:
            candidates.append(
                lambda a=a, b=b, g=g, mask=mask: torch.ops.aten.convolution_backward(g, a, b, None, *rest, mask)
            )
    return min(candidates, key=lambda f: seconds([f], 5, 2))


def narrow_product(m: int, k: int, n: int) -> Callable[[], Any]:
    """A float32 product with few rows or columns."""
    a, b = torch.randn(m, k), torch.randn(k, n)
    return lambda: a @ b


class Limit:
    """The bare operations of a step; `seconds()` times them."""

    def __init__(self, one: Trainer, dtype: torch.dtype):
        with _Recorded() as recorded:
            one.one_step()
        self.functions = [convolution(*c, dtype) for c in recorded.convolutions]
        for shape in recorded.products:  # bfloat16 does not help those with few rows or columns
            self.functions.append(product(*shape, dtype) if min(shape) >= NARROW else narrow_product(*shape))
        self.bytes = 28 * sum(p.numel() for p in one.engine.parameters.values())
        self.source, self.target = torch.ones(64 << 20), torch.ones(64 << 20)

    def seconds(self) -> float:
        copy = seconds([lambda: self.target.copy_(self.source)], 3, 1)
        return seconds(self.functions, 3, 1) + self.bytes * copy / (8 * self.source.numel())


def steps(one: Trainer) -> float:
    start = time.perf_counter()
    for _ in range(STEPS):
        one.one_step()
    value = (time.perf_counter() - start) / STEPS
    one.flush()
    one.records.clear()
    return value


def measure(size: str, modes: list[str], rounds: int, colour: str | None, own: bool) -> dict[str, Any]:
    """Times in seconds per step, by program, one per round."""
    x = images(size, colour)
    RUNS.mkdir(parents=True, exist_ok=True)
    given = RUNS / f"{size}.npy"
    np.save(given, x[:192].transpose(0, 3, 1, 2).astype(np.float32) / 255)
    with tempfile.TemporaryDirectory() as folder:
        data = vk.from_arrays(x) if size == "colour" else vk.load(size)
        ours = {m: trainer(data, m, Path(folder)) for m in modes}
        limits = {p: Limit(ours[f"off-{p}"], DTYPES[p]) for p in DTYPES if f"off-{p}" in modes}
        peer = Worker(peer_python(), str(HERE / "worker_conv.py"), str(given), str(ENV / "out"))
        asks: dict[str, Callable[[], float]] = {}
        for m, one in ours.items():
            asks[m] = lambda one=one: steps(one)  # type: ignore[misc]
        for p, limit in limits.items():
            asks[f"limit-{p}"] = limit.seconds
        asks["pythae-same"] = lambda: peer.ask("same")
        times: dict[str, list[float]] = {name: [] for name in asks}
        for i in range(rounds + 1):  # the first one warms up
            for name, ask in asks.items():
                value = ask()
                if i:
                    times[name].append(value)
        if own:
            times["pythae-own"] = [peer.ask("own") for _ in range(3)][1:]
        peer.close()
        parameters = sum(p.numel() for p in next(iter(ours.values())).engine.parameters.values())
    return {
        "times": times,
        "parameters": parameters,
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "images": "generated" if size == "colour" and colour is None else "given" if size == "colour" else size,
    }


def middle(values: Any, scale: float = 1.0, digits: int = 0) -> str:
    """The median and, in brackets, the quartiles."""
    low, median, high = np.quantile(np.asarray(values) * scale, [0.25, 0.5, 0.75])
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


NAMES = {
    "off-fp32": "vaekit, eager, fp32",
    "off-bf16": "vaekit, eager, bf16",
    "on-fp32": "vaekit, compiled, fp32",
    "on-bf16": "vaekit, compiled, bf16",
    "pythae-same": "Pythae's trainer, vaekit's network in plain PyTorch, fp32",
    "pythae-own": "Pythae, its own (much larger) networks, fp32",
    "limit-fp32": "limit, fp32",
    "limit-bf16": "limit, bf16",
}


def report(results: dict[str, dict[str, Any]]) -> str:
    lines = [
        "# Speed of convolutional models",
        "",
        "Made by `make bench-conv`; the header of bench/conv.py describes the protocol. The tables give milliseconds",
        "per [step](glossary.md#step) of 64 images: the median over rounds in which the programs alternate, with",
        "quartiles in brackets. `conv_fraction_of_limit` is the limit in the same precision divided by the time: 1 is",
        "the fastest possible. The ratio is the time of Pythae's trainer with the same network divided by the time of",
        "the row: above 1, the row is faster. Rows that are missing were not measured. [Speed](speed.md) has dense",
        "models.",
        "",
    ]
    for size, held in results.items():
        t = {name: np.array(v) for name, v in held["times"].items()}
        lines += [
            f"## {SIZES[size]}, {held['parameters']:,} parameters, {counted(held['threads'], 'thread')}",
            "",
            "| program | ms per step | conv_fraction_of_limit | ratio to Pythae, same network |",
            "|---|---|---|---|",
        ]
        for name in (n for n in NAMES if n in t):
            limit = t.get(f"limit-{name.split('-')[-1]}") if name in MODES else None
            of_limit = "–" if limit is None else middle(limit / t[name], 1, 2)
            same = middle(t["pythae-same"] / t[name], 1, 2) if name in MODES or name.startswith("limit") else "–"
            lines.append(f"| {NAMES[name]} | {middle(t[name], 1000, 1)} | {of_limit} | {same} |")
        rounds, source = len(t["pythae-same"]), held["images"]
        lines += [
            "",
            f"Images: {'from a file' if source == 'given' else source}; {rounds} rounds; {held['processor']}.",
            "",
        ]
    lines.append(
        f"{os.cpu_count()} cores, torch {torch.__version__}, Python {platform.python_version()}, Pythae 0.1.2."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--colour", help="file of 64 x 64 colour images")
    parser.add_argument("--without-own", action="store_true", help="keep the times of Pythae's own networks, if any")
    parser.add_argument("--again", action="store_true", help="measure sizes that are kept, too")
    asked = parser.parse_args()
    reuse_large_blocks()  # as `fit` does
    for size in asked.sizes:
        kept = RUNS / f"{size}.json"
        if asked.again or not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            before = json.loads(kept.read_text())["times"] if kept.exists() else {}
            held = measure(size, asked.modes, asked.rounds, asked.colour, not asked.without_own)
            if asked.without_own and "pythae-own" in before:
                held["times"]["pythae-own"] = before["pythae-own"]
            kept.write_text(json.dumps(held))
            print(size, {n: middle(v, 1000, 1) for n, v in json.loads(kept.read_text())["times"].items()}, flush=True)
    results = {s: json.loads((RUNS / f"{s}.json").read_text()) for s in SIZES if (RUNS / f"{s}.json").exists()}
    (DOCS / "conv-speed.json").write_text(json.dumps(results, indent=1) + "\n")
    page = report(results)
    (DOCS / "conv-speed.md").write_text(page, encoding="utf8")
    print(page)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
