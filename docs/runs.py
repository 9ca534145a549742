"""Train the small models that the lessons open: `make docs-runs`, resumable.

Each is a run directory in docs/runs without checkpoints and with weights below 3 MB. Lessons open them with `vk.open`
and compute their numbers from them. The settings that matter are stated here, so that a run does not depend on vaekit's
defaults. A run whose settings differ from those here is trained again.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import vaekit as vk
from vaekit.utils.files import read_json

HERE = Path(__file__).parent
RUNS, WORK = HERE / "runs", HERE / "_build" / "runs"
KEPT = ("run.json", "log.jsonl", "model.safetensors", "splits.safetensors")
LIMIT = 3e6  # bytes of weights

FASHION: dict[str, Any] = {"data": "fashion-mnist", "steps": 6000, "lr": 1e-3, "hidden": (128,), "latent": 16}
WARM: dict[str, Any] = {**FASHION, "warmup": 1500}
SPRITES: dict[str, Any] = {"data": "dsprites", "steps": 3000, "hidden": (16, 32, 32, 64), "latent": 10, "direct": False}

PLANS: dict[str, dict[str, Any]] = {
    # lessons 8, 11, 13, 15
    "vae": {"recipe": "vae", **WARM},
    "vae-2d": {"recipe": "vae", **WARM, "latent": 2},
    "ae": {"recipe": "ae", **FASHION},
    "ae-2d": {"recipe": "ae", **FASHION, "latent": 2},
    "denoising": {"recipe": "denoising", **FASHION},
    # lesson 12
    **{f"weight-{beta:g}": {"recipe": "vae", **WARM, "beta": beta} for beta in (0.1, 0.3, 3.0, 10.0, 30.0)},
    "no-warm-up": {"recipe": "vae", **FASHION, "warmup": 0},
    "held-rate": {"recipe": "constrained", **FASHION, "hold": "rate", "target": 10.0},
    "sprites-1": {"recipe": "vae", **SPRITES, "beta": 1.0, "warmup": 0},
    "sprites-4": {"recipe": "vae", **SPRITES, "beta": 4.0, "warmup": 0},
    "sprites-tc": {"recipe": "tc", **SPRITES, "beta": 6.0},
    # lesson 14
    "mixture": {"recipe": "mixture", **WARM, "components": 50},
    "vamp": {"recipe": "vamp", **WARM, "components": 50},
    "flow-prior": {"recipe": "flow-prior", **WARM},
    "iaf": {"recipe": "iaf", **WARM},
    "hierarchical": {"recipe": "hierarchical", **WARM},
    "ladder": {
        "recipe": "ladder",
        "data": "fashion-mnist",
        "steps": 2000,
        "layers": (2, 2, 1),
        "width": 24,
        "warmup": 500,
    },
}


def is_of(path: Path, plan: dict[str, Any]) -> bool:
    """Whether `path` is a run with these settings."""
    if not (path / "run.json").exists():
        return False
    config = read_json(path / "run.json")
    held = {
        "warmup": 0,
        "layers": [2, 2, 1],
        **config["arguments"],
        **config["training"],
        "recipe": config["recipe"],
        "data": config["data"]["source"],
    }
    return all(held.get(k) == (list(v) if isinstance(v, tuple) else v) for k, v in plan.items())


def train(name: str, plan: dict[str, Any]) -> None:
    path, held, choices = WORK / name, RUNS / name, dict(plan)
    data, recipe = choices.pop("data"), choices.pop("recipe")
    resume = is_of(path, plan)
    if not resume:
        shutil.rmtree(path, ignore_errors=True)
    run = vk.fit(data, recipe, out=path, resume=resume, **choices)
    if (size := (run.path / "model.safetensors").stat().st_size) > LIMIT:
        raise SystemExit(f"{name}: the weights take {size / 1e6:.1f} MB; the limit is {LIMIT / 1e6:g} MB")
    shutil.rmtree(held, ignore_errors=True)
    held.mkdir(parents=True)
    for file in KEPT:
        shutil.copyfile(run.path / file, held / file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="runs to train if missing or changed; default: all")
    names = parser.parse_args().names or list(PLANS)
    for name in names:
        if not is_of(RUNS / name, PLANS[name]):
            print(f"{name}: {PLANS[name]}", flush=True)
            train(name, PLANS[name])


if __name__ == "__main__":
    main()
