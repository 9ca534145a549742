"""The least scale of colour images, fitted and fixed: python bench/scale.py [--shared FOLDER]

Trains `conv` on a few hundred of the emoji and of the sprites (FOLDER/data/emoji and FOLDER/data/lpc_sprites), where it
overfits within minutes on one core, with the default `least_scale` and with `least_scale=0`, the former default.
Images of 32x32 are means over 2x2 pixels. Validation images are 300 of the set's own validation split; test images are
not used. Resumable; runs are kept in bench/.runs/scale. Writes docs/scale.json, which bench/colour.py puts into
docs/colour.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import vaekit as vk
from vaekit.metrics import standard_error
from vaekit.utils.files import write_json

HERE = Path(__file__).parent
RUNS, FILE = HERE / ".runs" / "scale", HERE.parent / "docs" / "scale.json"
VALID, SPARE = 300, 20
SETS = {
    "emoji": ("data/emoji", {"table": "attributes.csv", "group": "name"}),
    "lpc_sprites": ("data/lpc_sprites/lpc_sprites64_12k.npz", {}),
}


class Plan(NamedTuple):
    """One training set and length."""

    name: str
    size: int
    n: int
    steps: int
    seed: int


PLANS = (Plan("emoji", 32, 800, 1200, 1), Plan("emoji", 64, 400, 800, 2), Plan("lpc_sprites", 32, 800, 1200, 1))
SCALES: dict[str, dict[str, Any]] = {"fitted": {}, "fixed_0": {"least_scale": 0.0}}


def images(data: vk.Data, split: str, size: int) -> np.ndarray:
    """The images of a split, (n, 3, size, size) uint8; halved by means over 2x2 pixels if `size` is 32."""
    part = getattr(data, split)
    x = np.asarray(data.events(part[np.arange(len(part))])).astype(np.uint8)
    if size == 64:
        return x
    n, c, h, w = x.shape
    halves = x.reshape(n, c, h // 2, 2, w // 2, 2).astype(np.float32).mean((3, 5))
    return np.round(halves).astype(np.uint8)


def reduced(data: vk.Data, plan: Plan) -> vk.Data:
    """`plan.n` training images, and validation images of the same set."""
    train, valid = images(data, "train", plan.size), images(data, "valid", plan.size)
    train = train[np.random.default_rng(7).permutation(len(train))[: plan.n]]
    x = np.concatenate([train, valid[: VALID + SPARE]]).transpose(0, 2, 3, 1)
    ends = plan.n, plan.n + VALID, plan.n + VALID + SPARE
    splits = {part: np.arange(a, b) for part, a, b in zip(("train", "valid", "test"), (0, *ends), ends, strict=False)}
    return vk.from_arrays(np.ascontiguousarray(x), name=plan.name, splits=splits)


def errors(run: vk.Run) -> np.ndarray:
    """Mean squared error of each validation image's reconstruction, in units of the range, clamped."""
    x = run.data.events(run.observed("valid").raw(np.arange(VALID))).reshape(VALID, -1) / 255.0
    back = np.clip(run.decode(run.encode("valid")).reshape(VALID, -1), 0, 255) / 255.0
    return ((back - x) ** 2).mean(1)


def measured(data: vk.Data, plan: Plan, scale: str) -> dict[str, Any]:
    """One run: its validation ELBOs, the least scale in levels, and its squared errors."""
    out = RUNS / f"{plan.name}-{plan.size}-{plan.n}-{plan.steps}-{plan.seed}-{scale}"
    run = vk.fit(
        data, "conv", out=out, resume=(out / "run.json").exists(), steps=plan.steps, seed=plan.seed, batch=64,
        validate_steps=max(50, plan.steps // 12), augment="flip", device="cpu", **SCALES[scale],
    )  # fmt: skip
    seen = [(r["elbo"], r["step"], r.get("se_below_best")) for r in run.log if r["kind"] == "valid"]
    e = errors(run)
    floor = float(np.exp(float(run.model.likelihood.head.floor)) * 127.5)
    return {
        "plan": plan._asdict(), "scale": scale, "best": max(seen)[:2], "last": seen[-1][0], "se": seen[-1][2],
        "floor": floor, "error": float(e.mean()), "error_se": float(standard_error(e)),
    }  # fmt: skip


def table(found: list[dict[str, Any]]) -> list[str]:
    """The lines of the table in docs/colour.md."""
    lines = [
        "| training images | least scale | best step | best ELBO | last ELBO | decrease | squared error |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        plan = one["plan"]
        what = f"{plan['n']} {plan['name'].replace('lpc_', '')}, {plan['size']}x{plan['size']}"
        scale = (
            f"fitted: {one['floor'] if one['floor'] > 0.4 else 0:.1f} levels"
            if one["scale"] == "fitted"
            else "0 (before)"
        )
        best, step = one["best"]
        fall = "0" if one["se"] is None else f"{best - one['last']:,.0f} ± {one['se']:,.0f}"
        lines.append(
            f"| {what} | {scale} | {step:,} of {plan['steps']:,} | {best:,.0f} | {one['last']:,.0f} | {fall} | "
            f"{one['error']:.5f} ± {one['error_se']:.5f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=HERE.parent.parent / "shared")
    asked = parser.parse_args()
    found = []
    for plan in PLANS:
        where, options = SETS[plan.name]
        data = reduced(vk.load(asked.shared / where, **options), plan)
        found += [measured(data, plan, scale) for scale in SCALES]
        write_json(FILE, found)
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
