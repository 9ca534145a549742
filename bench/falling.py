"""A weight of the KL that falls to 4 against a constant 4, on dSprites over several seeds: disentanglement.

The models of the study `beta` (`vaekit study beta`): dense networks with 10 latents, batches of 64, a constant learning
rate. In one, the weight of the KL falls geometrically from a starting value to 4 over three fifths of the training;
in the other it is 4 throughout. The seed sets the initial weights, the order of the data and the noise, and both models
of a seed share it. First, the starting value with the highest mean MIG (lib) over the seeds 100 and 101 is chosen;
these runs are used for nothing else. Then both models, and the one of the study, which starts at 40, are trained with
the seeds 10, 11, ..., and their scores on the first 10,000 test data are compared by pairs: mean difference and 95%
interval of Student's t over seeds.

    python bench/falling.py [--steps 4000] [--seeds 5] [--starts 10 40 160 640] [--most RUNS]

Resumable: each finished run is a row of bench/.runs/falling.json, and runs with a row are not repeated. Writes
docs/falling.json, which lesson 12 reads, docs/falling.md, and the sentence that the study `beta` adds to its own,
src/vaekit/studies/falling.json. The defaults are 23 runs of about 80 seconds each on one core, or 18 if 40 is chosen.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vaekit as vk
from vaekit.metrics.disentanglement import counted_by_chen, dci, factor_score, mig_chen, mig_lib
from vaekit.utils.files import read_json, write_json, write_text
from vaekit.utils.uncertainty import standard_error, t_quantile

HERE = Path(__file__).parent
RUNS, DOCS = HERE / ".runs" / "falling.json", HERE.parent / "docs"
STUDY = DOCS.parent / "src" / "vaekit" / "studies" / "falling.json"
WEIGHT, COOLS, LATENT, N = 4.0, 0.6, 10, 10_000
CHOICE = (100, 101)
"""The seeds with which the starting weight is chosen."""
STUDIED = 40.0
"""The starting weight of the study."""
STARTS = (10.0, 40.0, 160.0, 640.0)
FIRST = 10
"""The first seed that is reported; earlier ones were seen while the starting weights to choose from were extended."""
SCORES = {
    "mig_lib": "MIG (lib)",
    "mig_chen": "MIG (Chen)",
    "factor_vae": "FactorVAE score",
    "dci": "DCI disentanglement",
    "distortion": "distortion, nats",
    "rate": "rate, nats",
}


def trained(seed: int, start: float, steps: int) -> dict[str, Any]:
    """The scores of one model: `start` is the weight at the beginning, WEIGHT for a constant one."""
    begun = time.perf_counter()
    falls = {"warmup": 0} if start == WEIGHT else {"beta_from": start, "warmup": int(COOLS * steps)}
    with tempfile.TemporaryDirectory() as folder:
        run = vk.fit(
            "dsprites", "vae", out=f"{folder}/run", latent=LATENT, network="dense", hidden=(256, 256), beta=WEIGHT,
            batch=64, schedule="constant", steps=steps, seed=seed, compile="on", device="cpu", progress=False, **falls,
        )  # fmt: skip
        scored = {m["name"]: m["value"] for m in run.evaluate(n=1000, metrics=["distortion", "rate"])}
        test = run.data.test
        n = min(N, len(test))
        blocks = [slice(a, min(a + 1000, n)) for a in range(0, n, 1000)]
        with torch.no_grad():
            posteriors = [run.model.posterior(run.observed("test")(np.arange(n)[rows])) for rows in blocks]
        z = torch.cat([q.mean for q in posteriors]).double().numpy()
        s = torch.cat([q.stddev for q in posteriors]).double().numpy()
        names = run.data.factor_names
        v = np.stack([test.columns[name][:n] for name in names], 1)
    lib, counted = mig_lib(z, v), counted_by_chen(names, "dsprites")
    found = dci(z, v).disentanglement
    assert found is not None
    return {
        "seed": seed,
        "start": start,
        "steps": steps,
        "mig_lib": lib.value,
        "mig_chen": mig_chen(z, s, v[:, counted]).value,
        "factor_vae": factor_score(z, v).value,
        "dci": found.value,
        "distortion": scored["distortion"],
        "rate": scored["rate"],
        "each": dict(zip(names, lib.each.tolist(), strict=True)),
        "seconds": time.perf_counter() - begun,
    }


class Rows:
    """Finished runs are read from the file of rows; others are trained, at most `most` of them, and added to it."""

    def __init__(self, path: Path, steps: int, most: int | None):
        self.path, self.steps, self.left = path, steps, most
        self.all: list[dict[str, Any]] = read_json(path) if path.exists() else []

    def __call__(self, seed: int, start: float) -> dict[str, Any]:
        wanted = (seed, start, self.steps)
        for row in self.all:
            if (row["seed"], row["start"], row["steps"]) == wanted:
                return row
        if self.left is not None:
            if self.left == 0:
                sys.exit("further runs are left: repeat the command")
            self.left -= 1
        row = trained(*wanted)
        self.all.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.all)
        print(f"seed {seed}, weight from {start:g}: MIG {row['mig_lib']:.3f}, {row['seconds']:.0f} s", flush=True)
        return row


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean and 95% interval of Student's t of independent values."""
    se = standard_error(values)
    assert se is not None
    mean, reach = float(np.mean(values)), t_quantile(0.05, len(values) - 1) * se
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def compared(rows: Rows, seeds: int, starts: Sequence[float]) -> dict[str, Any]:
    """The chosen starting weight, and the scores with it, with that of the study and with a constant weight."""
    choice = {start: [rows(seed, start)["mig_lib"] for seed in CHOICE] for start in starts}
    chosen = max(choice, key=lambda start: np.mean(choice[start]))
    arms = dict.fromkeys((WEIGHT, chosen, STUDIED))
    runs = {start: [rows(seed, start) for seed in range(FIRST, FIRST + seeds)] for start in arms}
    models = []
    for start, found in runs.items():
        scores = {key: interval([row[key] for row in found]) for key in SCORES}
        model: dict[str, Any] = {"start": start, "scores": scores}
        if start != WEIGHT:
            pairs = list(zip(found, runs[WEIGHT], strict=True))
            model["difference"] = {key: interval([a[key] - b[key] for a, b in pairs]) for key in SCORES}
            model["better"] = sum(a["mig_lib"] > b["mig_lib"] for a, b in pairs)
        models.append(model)
    found = {
        "steps": rows.steps,
        "seeds": seeds,
        "choice": [{"start": start, "seeds": list(CHOICE), "mig_lib": each} for start, each in choice.items()],
        "chosen": chosen,
        "models": models,
    }
    return found | {"sentence": sentence(found)}


def sentence(found: dict[str, Any]) -> str:
    """The result in words."""
    constant, falling, *others = found["models"]
    seeds, gap, lost = found["seeds"], falling["difference"]["mig_lib"], falling["difference"]["distortion"]
    if gap["low"] > 0:
        result = "So a falling weight disentangles more than a constant one here, by MIG"
    elif gap["high"] < 0:
        result = "So a falling weight disentangles less than a constant one here, by MIG"
    else:
        result = "So these runs do not show that a falling weight disentangles more than a constant one"
    flip = -1 if lost["mean"] < 0 else 1
    ends = sorted((flip * lost["low"], flip * lost["high"]))
    change = f"{'lower' if flip < 0 else 'higher'} by {abs(lost['mean']):.1f} ({ends[0]:.1f} to {ends[1]:.1f})"
    means = [model["scores"]["mig_lib"]["mean"] for model in (falling, constant)]
    text = (
        f"On dSprites, over {seeds} seeds of {found['steps']:,} steps, the weight that falls from {falling['start']:g} "
        f"to {WEIGHT:g} ends with a MIG (lib) of {means[0]:.3f} on average and the constant weight {WEIGHT:g} with "
        f"{means[1]:.3f}: a difference of {gap['mean']:.3f} (95% interval over seeds {gap['low']:.3f} to "
        f"{gap['high']:.3f}), and the falling weight is above the constant one in {falling['better']} of {seeds} "
        f"seeds. By the FactorVAE score the difference is {_within(falling['difference']['factor_vae'], 3)}. The "
        f"distortion of the falling weight is {change} nats. {result}."
    )
    for other in others:
        gap = other["difference"]["mig_lib"]
        verdict = "" if gap["low"] > 0 or gap["high"] < 0 else ", which does not show an effect"
        text += (
            f" With {other['start']:g} as the starting weight, the difference is "
            f"{_within(gap, 3)}{verdict}; the falling weight is above in {other['better']} of {seeds} seeds."
        )
    return text


def _within(one: dict[str, float], digits: int) -> str:
    return f"{one['mean']:.{digits}f} ({one['low']:.{digits}f} to {one['high']:.{digits}f})"


def _named(start: float) -> str:
    return f"constant {WEIGHT:g}" if start == WEIGHT else f"from {start:g}"


def page(found: dict[str, Any]) -> str:
    """The page with the tables."""
    out = [
        "# A weight of the KL that falls",
        "",
        textwrap.fill(found["sentence"], 120),
        "",
        "`python bench/falling.py` makes this page; its header describes the protocol.",
        "",
        f"The starting weight was chosen with other seeds ({', '.join(map(str, CHOICE))}), by the mean MIG (lib):",
        "",
        "| starting weight | MIG (lib) of each seed | mean |",
        "|---|---|---|",
    ]
    for one in found["choice"]:
        each = ", ".join(f"{x:.3f}" for x in one["mig_lib"])
        out.append(f"| {one['start']:g} | {each} | {np.mean(one['mig_lib']):.3f} |")
    heads = [_named(model["start"]) for model in found["models"]]
    heads += [f"{_named(model['start'])} minus constant" for model in found["models"][1:]]
    out += [
        "",
        f"With {found['seeds']} further seeds, mean and 95% interval of Student's t over seeds; differences are paired",
        "by seed:",
        "",
        f"| score | {' | '.join(heads)} |",
        "|---" * (len(heads) + 1) + "|",
    ]
    columns = [model["scores"] for model in found["models"]] + [m["difference"] for m in found["models"][1:]]
    for key, name in SCORES.items():
        digits = 1 if "nats" in name else 3
        cells = [_within(column[key], digits) for column in columns]
        out.append(f"| {name} | {' | '.join(cells)} |")
    runs = [row for row in found["runs"] if row["seed"] >= FIRST and row["seed"] not in CHOICE]
    names = list(runs[0]["each"])
    out += [
        "",
        "MIG (lib) of each run and factor, with rate and distortion in nats per example:",
        "",
        f"| seed | weight from | MIG (lib) | {' | '.join(names)} | rate | distortion |",
        "|---" * (len(names) + 5) + "|",
    ]
    for row in sorted(runs, key=lambda row: (row["seed"], row["start"])):
        each = " | ".join(f"{row['each'][name]:.3f}" for name in names)
        out.append(
            f"| {row['seed']} | {row['start']:g} | {row['mig_lib']:.3f} | {each} | {row['rate']:.1f} | "
            f"{row['distortion']:.1f} |"
        )
    minutes = sum(row["seconds"] for row in found["runs"]) / 60
    out += [
        "",
        f"The scores are of the first {N:,} test data, rate and distortion of the first 1,000. The literature trains "
        "for 300,000",
        f"steps. All runs together took {minutes:.0f} minutes. {found['machine']}.",
        "",
    ]
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--starts", type=float, nargs="+", default=list(STARTS))
    parser.add_argument("--most", type=int, help="train at most this many models now")
    asked = parser.parse_args()
    rows = Rows(RUNS, asked.steps, asked.most)
    found = compared(rows, asked.seeds, asked.starts)
    cores = len(os.sched_getaffinity(0))
    machine = f"{cores} core{'s' if cores > 1 else ''}, Python {platform.python_version()}, torch {torch.__version__}"
    found |= {"runs": [row for row in rows.all if row["steps"] == asked.steps and row["seed"] >= FIRST]}
    found["machine"] = machine
    write_json(DOCS / "falling.json", found)
    write_text(DOCS / "falling.md", page(found))
    write_json(STUDY, {"sentence": found["sentence"]})
    print(found["sentence"])


if __name__ == "__main__":
    main()
