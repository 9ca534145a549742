"""The strongest hierarchical model that 8 minutes of one GPU give, on Fashion-MNIST: `make bench-frontier-gpu`.

Each phase is a process with a time limit of its own, so that a slow one does not cost the results of the others:

    train      a recipe `ladder` for --minutes, compiled, in bf16; if no step is done within COMPILE seconds, or
               compiling fails, it starts again uncompiled. The weights with the best validation ELBO are kept
    pictures   at the same time, because compiling leaves the GPU idle: `grid` on 64 x 64 colour images (--pictures: the
               sprites' .npz file, or the folder of emoji), and flow matching over its codes (`vaekit prior`), for
               --picture-minutes each; the first 100 samples of seed 0 become samples.png
    score      the weights are rounded to 16 bits and written to the release folder, a run that `vk.open` reads. What is
               scored is this run, in fp32 without TF32: IW-500 of the 10,000 test images (reference draw), then IW-5000
               in blocks of 500 until the time is over

Resumable: the same command with the same --out trains no finished run again and scores the blocks that are left. Writes
docs/frontier-gpu.json, docs/frontier-gpu.md and docs/images/frontier-gpu.png, unless --quick is given. Fashion-MNIST
must be cached (VAEKIT_CACHE) where it cannot be downloaded.

    python bench/frontier_gpu.py [--setting grids] [--minutes 4.5] [--pictures FILE] [--out FOLDER] [--quick]

`--quick` takes a few steps of everything on a CPU, in about a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from frontier import averaged, scored, trained
from gpu import colour

import vaekit as vk
from vaekit.figures import channels_last, image_grid
from vaekit.figures.pictures import save_png
from vaekit.latents.densities import Training
from vaekit.metrics import standard_error
from vaekit.options import Options
from vaekit.utils.files import read_json, read_tensors, write_json, write_tensors, write_text
from vaekit.utils.progress import Silent

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
TOTAL = 470.0
"""Seconds of everything: the last phase gets what the others leave."""
START, GRACE = 25.0, 15.0
"""Seconds that a process may need besides its work: to import, to load and to save; and to stop once it is told to."""
FIRST = "first-steps.json"
COMPILE = 120.0
"""Seconds until the first 50 compiled steps must be done."""
MOST_BYTES = 10_000_000
GOAL = 224.0
RISE = {"on": 5000, "off": 1000}
"""Steps over which beta rises: about a tenth of those expected of a compiled and of an uncompiled training."""
KEEP_BEST = {"patience": 10**6, "validate_steps": 2000}
"""No early stop, but the weights with the best validation ELBO: hundreds of epochs may overfit."""
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "grids": (
        "ladder",
        {
            "layers": (1, 2, 6, 2), "width": 64, "latent": 4, "blocks": 2, "batch": 256, "lr": 1e-3, "ema": 0.9995,
            "weight_decay": 0.01, "precision": "bf16", **KEEP_BEST,
        },
    ),
    "dense": ("ladder", {"layers": (3,), "width": 512, "batch": 256, "weight_decay": 0.01, **KEEP_BEST}),
    "tiny": ("ladder", {"layers": (1, 1, 1), "width": 8, "latent": 1, "batch": 20, "precision": "bf16"}),
}  # fmt: skip
"""Recipe and options by name. `grids` has 11 layers on grids of 1, 4 x 4, 7 x 7 and 14 x 14 places and 3.8 million
parameters (7.6 MB in 16 bits); `dense` is cheaper to compile and to score, for a GPU on which `grids` fails.

The pass from the top down takes 19 million multiply-adds per draw, that of the features 8 million per image. A step of
256 images thus has 40 GFLOP, and IW-5000 of 10,000 images 1.9 PFLOP. An H100 does the former in under 1 ms, so that
launches decide: about 1,000 fused kernels in a CUDA graph are 3 to 5 ms, which gives 30,000 to 60,000 steps in 4.5
minutes with a minute of compilation. At 20 to 30 TFLOP/s in fp32, IW-5000 takes 60 to 100 s. These are estimates:
nobody has measured them."""
GRID: dict[str, Any] = {"likelihood": "gaussian", "sigma": "optimal", "batch": 64}
"""With larger batches than by default, because launches, not products, decide how many steps a GPU does."""
TINY_GRID: dict[str, Any] = {"hidden": (4, 4, 4), "code_channels": 1, "batch": 10}
SHOWN, ROW = 100, 10


@dataclass(frozen=True)
class Plan:
    """What is measured, and for how long.

    Attributes:
        folder: where runs and results are kept.
        setting: of SETTINGS.
        minutes, picture_minutes: of the training; of each of the two trainings of the pictures.
        pictures: file or folder of the 64 x 64 images; generated ones if it is "generated", none if it is None.
        data: the data set of the hierarchical model.
        device: of everything.
        compile: whether training steps are compiled.
        few, samples: importance samples of all images, and of as many as the time allows.
        score_seconds: time of the scores, the least of which is 30.
        n: the number of test images; None for all.
        steps: of every training, in the place of the minutes; of flow matching as well.
        seed: of trainings and samples.
    """

    folder: str
    setting: str = "grids"
    minutes: float = 4.5
    picture_minutes: float = 1.0
    pictures: str | None = None
    data: str = "fashion-mnist"
    device: str = "cuda"
    compile: str = "on"
    few: int = 500
    samples: int = 5000
    score_seconds: float = 120.0
    n: int | None = None
    steps: int | None = None
    seed: int = 0

    @property
    def path(self) -> Path:
        """`folder` as a path."""
        return Path(self.folder)

    def length(self, minutes: float) -> dict[str, Any]:
        """The option for the length of a training."""
        return {"minutes": minutes} if self.steps is None else {"steps": self.steps}


QUICK: dict[str, Any] = {
    "setting": "tiny", "device": "cpu", "compile": "off", "few": 5, "samples": 20, "n": 100, "steps": 20,
    "pictures": "generated",
}  # fmt: skip


# --- the phases -------------------------------------------------------------------------------------------------


class FirstSteps(Silent):
    """Notes when the first steps were done, so that a compilation that takes too long is noticed."""

    def __init__(self, file: Path):
        self.file = file

    def update(self, step: int, *rest: Any) -> None:
        """Write the time once."""
        if not self.file.exists():
            write_json(self.file, {"step": step, "time": time.time()})


def train(plan: Plan) -> dict[str, Any]:
    """Train the hierarchical model."""
    recipe, options = SETTINGS[plan.setting]
    rise = RISE[plan.compile] if plan.steps is None else plan.steps // 2
    known: dict[str, Any] = {"warmup": rise, "compile": plan.compile, "device": plan.device, "seed": plan.seed}
    known |= {"data": plan.data, "progress": FirstSteps(plan.path / FIRST), **plan.length(plan.minutes)}
    run = trained(plan.path / "run", recipe, **options, **known)
    return {"state": run.state}


def released(run: vk.Run, folder: Path) -> vk.Run:
    """The run with the weights of its model in 16 bits, in a folder without checkpoints, opened again.

    They are stored as float16, or as bfloat16, which is coarser, if one of them is too large.
    """
    tensors, meta = read_tensors(run.path / "model.safetensors")
    wide = {name: t for name, t in tensors.items() if name.startswith("model.") and t.dtype == torch.float32}
    fits = all(bool(torch.isfinite(t.half()).all()) for t in wide.values())
    kept = {name: t.to(torch.float16 if fits else torch.bfloat16) for name, t in wide.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", tensors | kept, meta)
    for name in ("log.jsonl", "splits.safetensors", "run.json"):
        shutil.copyfile(run.path / name, folder / name)
    return vk.open(folder)


def score(plan: Plan) -> dict[str, Any]:
    """Round the weights, write the release folder and score what it holds."""
    until = time.monotonic() + plan.score_seconds
    folder = plan.path / "release"
    run = vk.open(folder) if (folder / "run.json").exists() else released(vk.open(plan.path / "run"), folder)
    run.to(plan.device)
    size = (folder / "model.safetensors").stat().st_size
    config = run.config
    row: dict[str, Any] = {"bytes": size, "steps": config["step"], "train_seconds": config["seconds"]}
    row |= {k: config["decided"][k] for k in ("parameters", "precision", "compile", "compile_why")}
    row |= {"state": run.state, "valid": config["valid"], "best": config["best"], "few": plan.few}
    row |= {"samples": plan.samples, "test": min(run.observed("test").n, plan.n or run.observed("test").n)}
    few = scored(run, plan.few, plan.path / f"scores-{plan.few}", plan.n, until, compile=False)
    if few:
        row["of_few"] = averaged(few) | {"images": len(few["bound"])}
        row["draw"] = run.observed("test").draw_hash(len(few["bound"]))
        write_json(plan.path / "score.json", row)  # in case the next scores take too long
    many = scored(run, plan.samples, plan.path / f"scores-{plan.samples}", plan.n, until)
    if many:
        row["of_many"] = averaged(many) | {"images": len(many["bound"])}
        if few:
            row["estimate"], row["estimate_se"] = estimated(few["bound"], many["bound"])
    return row


def estimated(few: np.ndarray, many: np.ndarray) -> tuple[float, float]:
    """The mean of `many` over the images of `few`, estimated from the first ones, and the standard error of that.

    It is the mean of `few` plus that of the paired differences: neighbouring images differ far more than both bounds of
    one image. The error is that of the estimate of this mean: 0 if all images have both.
    """
    difference = many - few[: len(many)]
    left = 1 - len(many) / len(few)
    return float(few.mean() + difference.mean()), standard_error(difference) * left**0.5


def pictures(plan: Plan) -> dict[str, Any]:
    """Train codes that are small images and flow matching over them, and draw the first samples."""
    assert plan.pictures is not None
    if plan.pictures == "generated":
        data = vk.from_arrays(colour(60))
    elif Path(plan.pictures).is_dir():
        data = vk.load(plan.pictures, table="attributes.csv", group="name")
    else:
        data = vk.load(plan.pictures)
    tiny = plan.steps is not None
    known: dict[str, Any] = {"device": plan.device, "compile": "off", **plan.length(plan.picture_minutes)}
    run = trained(plan.path / "pictures", "grid", data, seed=plan.seed, **(TINY_GRID if tiny else GRID), **known)
    run.to(plan.device)
    small: dict[str, Any] = {"width": 8, "layers": 1, "solver_steps": 2, "steps": plan.steps} if tiny else {}
    how = Training(Options(batch=256, patience=0, **({"device": plan.device} if tiny else known)))
    density = run.fit_latents("flow-matching", condition="none", seed=plan.seed, training=how, refit=True, **small)
    x = run.sample(SHOWN, latents="flow-matching", noise=False, seed=plan.seed)
    sheet = image_grid(channels_last(x), ROW, scale=run.spec.scale, zoom=1)
    save_png(plan.path / "samples.png", sheet)
    found = {"data": data.name, "shape": list(run.spec.shape), "steps": run.config["step"]}
    found |= {"valid": run.config["valid"], "prior_steps": density.record["steps"]}
    return found | {"held_out": density.record["held_out"], "prior_seconds": density.record["seconds"]}


PHASES: dict[str, Callable[[Plan], dict[str, Any]]] = {"train": train, "pictures": pictures, "score": score}


def phase(name: str, plan: Plan) -> None:
    """Run a phase in this process and keep its result."""
    began = time.monotonic()
    found = PHASES[name](plan)
    card = torch.cuda.get_device_name() if plan.device.startswith("cuda") else platform.processor() or "CPU"
    write_json(plan.path / f"{name}.json", {**found, "card": card, "seconds": round(time.monotonic() - began, 1)})


# --- their processes --------------------------------------------------------------------------------------------


def command(name: str, plan: Plan) -> list[str]:
    """The command that runs a phase."""
    return [sys.executable, __file__, "--phase", name, "--plan", json.dumps(dataclasses.asdict(plan))]


@dataclass
class Started:
    """A phase in a process of its own, with its limit in seconds."""

    name: str
    plan: Plan
    limit: float

    def __post_init__(self) -> None:
        self.file = self.plan.path / f"{self.name}.json"
        self.file.unlink(missing_ok=True)
        self.began = time.monotonic()
        self.process = subprocess.Popen(command(self.name, self.plan), start_new_session=True)

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *error: Any) -> None:
        self.stopped()

    def ended(self, seconds: float) -> bool:
        """Whether it ends within this time from now."""
        try:
            self.process.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            return False
        return True

    def stopped(self, grace: float = GRACE) -> None:
        """Ask it to stop, and end it after `grace` seconds: also the processes that it started, such as compilers."""
        for asked, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, GRACE)):
            if self.process.poll() is None:
                os.killpg(self.process.pid, asked)
                self.ended(wait)

    def result(self) -> dict[str, Any]:
        """What it found, once it has ended or its limit has passed, with the seconds that it took and how it ended."""
        in_time = self.ended(self.limit - (time.monotonic() - self.began))
        self.stopped()
        found = read_json(self.file) if self.file.exists() else {}
        status = self.process.returncode
        ended = "finished" if in_time and status == 0 else f"failed ({status})" if in_time else "stopped at its limit"
        return {**found, "ended": ended, "process_seconds": round(time.monotonic() - self.began, 1)}


def training(plan: Plan, stack: contextlib.ExitStack) -> dict[str, Any]:
    """The result of the training, which starts again uncompiled if compiling fails or takes too long."""
    began, first, config = time.monotonic(), plan.path / FIRST, plan.path / "run" / "run.json"
    if config.exists():  # resumed with its own settings
        options = read_json(config)["training"]
        plan = dataclasses.replace(plan, compile=options["compile"], minutes=options["minutes"] or plan.minutes)
        first.touch()
    else:
        first.unlink(missing_ok=True)
    process = stack.enter_context(Started("train", plan, 60 * plan.minutes + START))
    while not first.exists() and process.process.poll() is None and time.monotonic() - began < COMPILE:
        process.ended(0.5)
    if plan.compile == "off" or first.exists():
        return process.result()
    why = "compiling took too long" if process.process.poll() is None else "compiling failed"
    process.stopped(1.0)  # nothing is lost
    print(f"{why}: training starts again uncompiled", flush=True)
    shutil.rmtree(plan.path / "run", ignore_errors=True)
    left = plan.minutes - (time.monotonic() - began) / 60
    again = dataclasses.replace(plan, compile="off", minutes=max(left, 0.2))
    return {**stack.enter_context(Started("train", again, 60 * again.minutes + START)).result(), "again": why}


def finished(plan: Plan, name: str) -> dict[str, Any] | None:
    """What an earlier call found in a phase that it finished; None if there is none."""
    file = plan.path / f"{name}.json"
    return {**read_json(file), "ended": "finished before", "process_seconds": 0.0} if file.exists() else None


def measured(plan: Plan) -> dict[str, Any]:
    """The results of all phases."""
    began = time.monotonic()
    plan.path.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"plan": {k: v for k, v in dataclasses.asdict(plan).items() if k != "folder"}}
    found["options"] = {"recipe": SETTINGS[plan.setting][0], **SETTINGS[plan.setting][1]}
    with contextlib.ExitStack() as stack:
        found |= {name: earlier for name in ("train", "pictures") if (earlier := finished(plan, name))}
        beside = None
        if plan.pictures is not None and "pictures" not in found:
            limit = 120 * plan.picture_minutes + 2 * START
            beside = stack.enter_context(Started("pictures", plan, limit))
        if "train" not in found:
            found["train"] = training(plan, stack)
        if beside is not None:
            found["pictures"] = beside.result()
        if (plan.path / "run" / "model.safetensors").exists():
            left = TOTAL - (time.monotonic() - began) - START - GRACE
            last = dataclasses.replace(plan, score_seconds=max(left, 30.0))
            found["score"] = stack.enter_context(Started("score", last, last.score_seconds + START)).result()
    found["seconds"] = round(time.monotonic() - began, 1)
    found["machine"] = f"torch {torch.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores"
    return found


# --- the page ---------------------------------------------------------------------------------------------------


def number(row: dict[str, Any], name: str) -> str:
    """A mean with its standard error."""
    return f"{row[name]:.2f} ± {row[f'{name}_se']:.2f}"


def score_lines(row: dict[str, Any]) -> list[str]:
    """The scores of the release, as far as they were measured."""
    lines = ["| IW samples | images | log p(x) | ELBO | rate | lowest image | k-hat above 0.7 |", "|---" * 7 + "|"]
    for key, samples in (("of_few", row["few"]), ("of_many", row["samples"])):
        if one := row.get(key):
            cells = [f"{samples:,}", f"{one['images']:,}", *(number(one, k) for k in ("bound", "elbo", "rate"))]
            lines.append(f"| {' | '.join(cells)} | {one['worst']:.0f} | {one['high_k_hat']:.1%} |")
    if "estimate" in row:
        all_scored = row["of_many"]["images"] == row["test"]
        reached = "reached" if -row["estimate"] <= GOAL else "missed"
        how, error = ("of", "")
        if not all_scored:
            how = f"of {row['of_few']['images']:,} images, estimated from the paired differences of the first of"
            error = f" ± {row['estimate_se']:.2f} (the error of the estimate)"
        lines += [
            "",
            f"IW-{row['samples']:,} {how} the test images: **{row['estimate']:.2f}**{error}; the goal of",
            f"-{GOAL:.0f} is {reached}.",
        ]
    return [*lines, ""]


def page(found: dict[str, Any]) -> str:
    """docs/frontier-gpu.md."""
    plan, row = found["plan"], found.get("score", {})
    options = ", ".join(f"{k} {v}" for k, v in found["options"].items())
    card = found["train"].get("card") or row.get("card", "an unknown device")
    lines = [
        "# The frontier on a GPU",
        "",
        f"Made by `make bench-frontier-gpu` on {card} ({found['machine']}); the header of bench/frontier_gpu.py",
        "describes the protocol. Values are in [nats](glossary.md#nats) per image; ± is one",
        "[standard error](glossary.md#standard-error).",
        "",
        f"`{plan['setting']}`, seed {plan['seed']}: {options}.",
        "",
    ]
    if "of_few" in row or "of_many" in row:
        lines += [
            "## Test images, binarised",
            "",
            f"{row['test']:,} test images with one fixed [draw](glossary.md#draw) (SHA-256 begins {row['draw'][:16]}),"
            if "draw" in row
            else f"The first of {row['test']:,} test images,",
            f"scored in fp32 with the weights of the release: {row['parameters']:,} parameters in 16 bits, "
            f"{row['bytes'] / 1e6:.2f} MB{'' if row['bytes'] < MOST_BYTES else ', more than the limit of 10 MB'}. "
            f"{row['steps']:,} steps in {row['train_seconds']:.0f} s, {row['precision']}, "
            f"{'compiled' if row['compile'] else 'not compiled'}.",
            "",
            *score_lines(row),
        ]
    if one := found.get("pictures"):
        lines += ["## Samples", ""]
        if "prior_steps" in one:
            lines += [
                f"`grid` on {one['data']} ({' x '.join(map(str, one['shape']))}), {one['steps']:,} steps, and flow",
                f"matching over its codes, {one['prior_steps']:,} steps: the first {SHOWN} samples of seed",
                f"{plan['seed']}, means of p(x|z). Both were trained beside the hierarchical model, on the same GPU.",
                "",
                "![The first samples](images/frontier-gpu.png)",
                "",
            ]
    lines += ["## Time", "", "| phase | ended | seconds |", "|---|---|---|"]
    for name in PHASES:
        if one := found.get(name):
            again = f", after {one['again']}" if "again" in one else ""
            lines.append(f"| {name} | {one['ended']}{again} | {one['process_seconds']:.0f} |")
    return "\n".join([*lines, f"| all | | {found['seconds']:.0f} |", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=SETTINGS, default="grids")
    parser.add_argument("--minutes", type=float, default=Plan.minutes, help="of the hierarchical model")
    parser.add_argument("--picture-minutes", type=float, default=Plan.picture_minutes, help="of grid, and of its prior")
    parser.add_argument("--pictures", help="an .npz file of 64 x 64 images, or the folder of emoji")
    parser.add_argument("--out", default=str(HERE / ".runs" / "frontier-gpu"), help="folder of runs and results")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--no-compile", action="store_true", help="train uncompiled from the start")
    parser.add_argument("--quick", action="store_true", help="a few steps of everything on a CPU; writes no page")
    parser.add_argument("--phase", choices=PHASES, help=argparse.SUPPRESS)
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.phase:
        phase(asked.phase, Plan(**json.loads(asked.plan)))
        return
    given = {"setting": asked.setting, "minutes": asked.minutes, "picture_minutes": asked.picture_minutes}
    given |= {"pictures": asked.pictures, "device": asked.device, "compile": "off" if asked.no_compile else "on"}
    plan = Plan(asked.out, **(QUICK if asked.quick else given))
    found = measured(plan)
    write_json(plan.path / "result.json", found)
    print(page(found))
    if asked.quick:
        return
    write_json(DOCS / "frontier-gpu.json", found)
    write_text(DOCS / "frontier-gpu.md", page(found))
    if (plan.path / "samples.png").exists():
        shutil.copyfile(plan.path / "samples.png", DOCS / "images" / "frontier-gpu.png")


if __name__ == "__main__":
    main()
