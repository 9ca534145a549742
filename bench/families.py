"""Time an eager training step of every recipe, and the hardware limit of its products: `make bench-families`.

Each recipe is timed at its default settings with one thread on Fashion-MNIST, some also on a table or on counts. The
limit is that of bench.py: the time of the step's matrix products and convolutions alone, in their fastest layouts, plus
the time to move 28 bytes per parameter.

    python bench/families.py [--against SRC] [--adult adult.csv] [--rounds 25] [NAME ...]

With --against, the `src` folder of an earlier version is timed too, in alternation, as the column `before`; without it,
that column keeps the stored times. Writes docs/families.json after each recipe, and docs/families.md from it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
SECONDS = 0.08  # of training steps per round: short, so that other load affects both versions alike
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vae, Adult": ("adult", "vae", {}),
    "vae, Adult, --likelihood autoregressive": ("adult", "vae", {"likelihood": "autoregressive"}),
    "robust, Adult": ("adult", "robust", {}),
    "vae, counts": ("counts", "vae", {}),
    "vae, counts, --likelihood zero-inflated": ("counts", "vae", {"likelihood": "zero-inflated"}),
    "vae, --likelihood discretised-logistic": ("fashion-mnist", "vae", {"likelihood": "discretised-logistic"}),
    "vae, --likelihood logistic-mixture": ("fashion-mnist", "vae", {"likelihood": "logistic-mixture"}),
    "nsf, --prior flow": ("fashion-mnist", "nsf", {"prior": "flow"}),
}
"""Further cases: data, recipe, options."""
BEFORE = ("before, ms", "fraction before", "times faster")
"""The columns of an earlier version."""


def worker() -> None:
    """Answers commands from standard input, one JSON value each: `open CASE`, `step`, `limit`, `count`."""
    import numpy as np
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from worker_vaekit import product, seconds

    import vaekit as vk
    from vaekit.training.loop import Trainer
    from vaekit.training.plan import plan_new
    from vaekit.training.prepare import prepare
    from vaekit.training.start import describe
    from vaekit.utils.isolation import seeded
    from vaekit.utils.progress import Silent

    aten = torch.ops.aten
    loaded: dict[str, Any] = {}

    def data_of(name: str, adult: str) -> Any:
        if name not in loaded:
            if name == "counts":
                rng = np.random.default_rng(0)
                rate = rng.gamma(0.5, 2.0, (1, 2000)) * rng.gamma(5.0, 0.2, (5000, 1))
                loaded[name] = vk.from_arrays(rng.poisson(rng.gamma(2.0, rate / 2)).astype(np.int64), kind="counts")
            else:
                loaded[name] = vk.load(adult, missing="mask") if name == "adult" else vk.load(name)
        return loaded[name]

    class Products(TorchDispatchMode):
        """Collects the products of a step: matrix products by shape, convolutions with their arguments."""

        def __init__(self) -> None:
            super().__init__()
            self.matrix: Counter[tuple[Any, ...]] = Counter()
            self.convolutions: list[tuple[Any, tuple[Any, ...]]] = []
            self.operations = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
            self.operations += 1
            packet = func._overloadpacket
            if packet in (aten.mm, aten.bmm, aten.addmm, aten.baddbmm):
                a, b = args[-2:]
                self.matrix[(*a.shape, b.shape[-1], a.dtype)] += 1
            elif packet in (aten.convolution, aten.convolution_backward):
                self.convolutions.append((func, args))
            return func(*args, **(kwargs or {}))

    def trainer(case: dict[str, Any]) -> Any:
        data = data_of(case["data"], case["adult"])
        with seeded(0):
            composition = vk.get_recipe(case["recipe"])(vk.DataSpec.of(data), **case["options"])
        default = plan_new(vk.Options(), composition, data)
        plan = plan_new(vk.Options(steps=10**6, compile="off", validate_steps=10**6), composition, data)
        composition.objective.plan(plan.horizon)
        config = describe(data, case["recipe"], {}, composition, plan)
        prepare(data, composition, plan.seed)
        built = Trainer(composition, data, plan, folder, config, Silent())
        built.engine.module.train()
        return built, default

    def batched(shape: tuple[int, ...], dtype: Any) -> float:
        n, m, k, o = shape
        found = []
        for a in (torch.randn(n, m, k, dtype=dtype), torch.randn(n, k, m, dtype=dtype).mT):
            for b in (torch.randn(n, k, o, dtype=dtype), torch.randn(n, o, k, dtype=dtype).mT):
                found.append(seconds([lambda a=a, b=b: torch.bmm(a, b)], 5, 10))
        return min(found)

    def convolved(func: Any, args: tuple[Any, ...]) -> float:
        found = []
        for layout in (torch.contiguous_format, torch.channels_last):

            def as_(t: Any, layout: Any = layout) -> Any:
                if not isinstance(t, torch.Tensor) or t.dim() != 4:
                    return t
                return t.detach().contiguous(memory_format=layout)

            given = [as_(a) for a in args]
            found.append(seconds([lambda given=given: func(*given)], 3, 5))
        return min(found)

    def limit(built: Any) -> dict[str, float]:
        with Products() as count:
            built.one_step()
        total = 0.0
        for (*shape, dtype), times in count.matrix.items():
            alone = batched(tuple(shape), dtype) if len(shape) == 4 else seconds([product(*shape, dtype)], 5, 10)
            total += times * alone
        total += sum(convolved(func, args) for func, args in count.convolutions)
        source, target = torch.ones(64 << 20), torch.ones(64 << 20)
        copy = seconds([lambda: target.copy_(source)], 5, 3)
        moved = 28 * sum(p.numel() for p in built.composition.model.parameters()) * copy / (8 * source.numel())
        return {"limit_ms": 1000 * (total + moved), "operations": count.operations}

    torch.set_flush_denormal(True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(json.dumps("ready"), flush=True)
        for line in sys.stdin:
            command, _, rest = line.strip().partition(" ")
            if command == "open":
                built, default = trainer(json.loads(rest))
                for _ in range(3):
                    built.one_step()
                facts = {"compiled": default.compile, "why": default.compile_why, "batch": built.plan.batch}
                facts["parameters"] = sum(p.numel() for p in built.composition.model.parameters())
                print(json.dumps(facts), flush=True)
            elif command == "limit":
                print(json.dumps(limit(built)), flush=True)
            else:
                steps, start = 0, time.perf_counter()
                while steps < 1 or time.perf_counter() - start < SECONDS:
                    built.one_step()
                    steps += 1
                took = time.perf_counter() - start
                built.pending.clear()
                print(json.dumps(1000 * took / steps), flush=True)


class Worker:
    """A process that times the version of vaekit in the folder `source`."""

    def __init__(self, source: Path):
        environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment,
        )  # fmt: skip
        assert self._answer() == "ready"

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a worker stopped; its error is above")
        return json.loads(line)

    def ask(self, command: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        return self._answer()


def measured(workers: dict[str, Worker], case: dict[str, Any], rounds: int) -> dict[str, Any]:
    """A row of docs/families.json: times per step of every version, in alternation, and the limit."""
    import numpy as np

    facts = {version: w.ask("open " + json.dumps(case)) for version, w in workers.items()}
    row: dict[str, Any] = {}
    for version, w in workers.items():
        row[version] = facts[version] | w.ask("limit")
    times: dict[str, list[float]] = {version: [] for version in workers}
    for _ in range(rounds):
        for version, w in workers.items():
            times[version].append(w.ask("step"))
    for version, found in times.items():
        low, middle, high = np.quantile(found, [0.25, 0.5, 0.75])
        row[version] |= {"step_ms": middle, "low_ms": low, "high_ms": high, "rounds": rounds}
    if "before" in row:
        row["speedup"] = list(np.quantile(np.array(times["before"]) / times["after"], [0.5, 0.25, 0.75]))
    return row


def page(rows: dict[str, Any]) -> str:
    """docs/families.md; the columns of an earlier version only where a row has one."""
    against = any("before" in row for row in rows.values())
    lines = [
        "# Speed of the recipes",
        "",
        "Made by `make bench-families`. The table gives the time of one *eager* (not compiled) training step in fp32",
        "with one thread, at the defaults of each [recipe](glossary.md#recipe), on Fashion-MNIST unless another data",
        "set is named; *counts* are synthetic, with 2,000 genes. [Speed](speed.md) has the compiled step of the",
        "default recipe.",
        "",
        "- *ms*: median over rounds of milliseconds per step, and the interquartile range.",
        "- *limit*: the time of the step's matrix products and convolutions alone, each in its fastest layout, plus",
        "  the time to move 28 bytes per parameter. *Fraction*: the limit divided by the time; 1 is the best possible.",
    ]
    if against:
        lines += [
            "- *before*: the same for an earlier version; *times faster* is the median ratio of rounds in which both",
            "  versions alternated, and its interquartile range. The limit is the smaller one of the two versions.",
        ]
    lines += [
        "- *operations*: tensor operations per step.",
        "- *compiled*: whether a training of default length compiles its step on this machine.",
        "",
    ]
    heads = ["recipe", "ms", "limit", "fraction", *(BEFORE if against else []), "operations", "compiled"]
    lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, row in rows.items():
        now, old = row["after"], row.get("before")
        ms = f"{now['step_ms']:.2f} ({now['low_ms']:.2f} to {now['high_ms']:.2f})"
        limit = min(version["limit_ms"] for version in (now, old) if version)  # other load can only increase it
        cells = [f"`{name}`", ms, f"{limit:.2f}", f"{limit / now['step_ms']:.2f}"]
        if old:
            middle, low, high = row["speedup"]
            cells += [f"{old['step_ms']:.2f}", f"{limit / old['step_ms']:.2f}"]
            cells += [f"{middle:.2f} ({low:.2f} to {high:.2f})"]
        elif against:
            cells += ["-"] * len(BEFORE)
        operations = f"{now['operations']:,}" + (f" (before: {old['operations']:,})" if old else "")
        lines.append("| " + " | ".join([*cells, operations, "yes" if now["compiled"] else "no"]) + " |")
    rounds = sorted({row["after"]["rounds"] for row in rows.values()})
    machines = sorted({f"{row['processor']}, torch {row['torch']}" for row in rows.values()})
    lines += [
        "",
        f"{'; '.join(machines)}; one thread, {' or '.join(map(str, rounds))} rounds.",
        "Other programs may have used the other cores.",
        "",
    ]
    return "\n".join(lines)


def processor() -> str:
    """The processor's name and the vector instructions that torch uses."""
    import torch

    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    amx = " with AMX" if torch.cpu._is_amx_tile_supported() else ""
    return f"{name} ({torch.backends.cpu.get_cpu_capability()}{amx})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="recipes or cases to measure; default: all that are not stored")
    parser.add_argument("--against", type=Path, help="the src folder of an earlier version")
    parser.add_argument("--adult", type=Path, help="the Adult table; without it, its cases are skipped")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--again", action="store_true", help="measure stored cases again")
    parser.add_argument("--out", type=Path, default=DOCS, help="the folder of families.json and families.md")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        worker()
        return
    import torch

    from vaekit.recipes import RECIPES
    from vaekit.utils.files import write_json, write_text

    cases = {name: ("fashion-mnist", name, {}) for name in RECIPES} | CASES
    chosen = {n: c for n, c in cases.items() if not asked.names or n in asked.names}
    file = asked.out / "families.json"
    stored: dict[str, Any] = json.loads(file.read_text(encoding="utf8")) if file.exists() else {"rows": {}}
    rows = stored["rows"]
    about = {"processor": processor(), "torch": torch.__version__}
    workers = {"before": Worker(asked.against)} if asked.against else {}
    workers["after"] = Worker(HERE.parent / "src")
    for name, (data, recipe, options) in chosen.items():
        if (name in rows and not asked.names and not asked.again) or (data == "adult" and asked.adult is None):
            continue
        case = {"data": data, "recipe": recipe, "options": options, "adult": str(asked.adult)}
        row = rows[name] = measured(workers, case, asked.rounds) | about
        now = row["after"]
        against = f", {row['speedup'][0]:.2f} times faster" if "speedup" in row else ""
        fraction = now["limit_ms"] / now["step_ms"]
        print(f"{name}: {now['step_ms']:.2f} ms, {fraction:.2f} of the limit{against}", flush=True)
        write_json(file, stored)
        write_text(asked.out / "families.md", page({n: rows[n] for n in cases if n in rows}))


if __name__ == "__main__":
    main()
