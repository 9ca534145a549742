"""Does the false-alarm rate hold on new rows? python bench/calibration.py [FOLDER]

FOLDER (default ../shared/data/adbench) holds tables of ADBench as .npz files with X (N, D) and y (N,), 1 for anomalies.
Protocol, per table: the normal rows are divided at random into 60% for vaekit (which trains on two thirds of them and
holds out the others: 10% for validation, 90% for the threshold) and 40% new ones, five times (seeds 0 to 4). A model
of 60 steps is trained, and the new normal rows are flagged at rates of 1, 5 and 10%. Models are this small because
the guarantee does not depend on their quality. The anomalies are left out: the question is about false alarms.

The table states the share of new normal rows flagged. Given the m new rows and the n held-out rows, the number flagged
follows a beta-binomial distribution with parameters (m, k, n + 1 - k), k = floor(rate (n + 1)), whatever the table and
the model. Its 95% interval is wider than a binomial one, because the threshold is itself estimated from n rows. A share
inside the interval agrees with the guarantee; of 100 shares about 5 lie outside.

Writes docs/calibration.json and docs/calibration.md. About 4 minutes on 2 cores; seeds that are in the .json are not
measured again, so delete it to measure another version of vaekit.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import betabinom

import vaekit as vk
from vaekit.anomalies import held_out
from vaekit.anomalies.scoring import scores
from vaekit.utils.files import write_json, write_text

HERE = Path(__file__).parent
DOCS, TABLES = HERE.parent / "docs", HERE.parents[1] / "shared" / "data" / "adbench"
RATES, SEEDS, STEPS, SAMPLES, MOST = (0.01, 0.05, 0.10), (0, 1, 2, 3, 4), 60, 10, 3000


def flagged(x: np.ndarray, seed: int) -> dict[str, Any]:
    """The number of held-out and new rows, and how many of the new ones are flagged at each rate."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(x))[:MOST]
    known, new = rows[: int(0.6 * len(rows))], rows[int(0.6 * len(rows)) :]
    third = len(known) // 3
    splits = {"valid": known[: max(1, third // 10)], "test": known[max(1, third // 10) : third], "train": known[third:]}
    place = {part: np.searchsorted(np.sort(known), index) for part, index in splits.items()}
    data = vk.from_arrays(x[np.sort(known)], splits=place)
    with tempfile.TemporaryDirectory() as folder:
        run = vk.fit(data, out=f"{folder}/run", steps=STEPS, seed=seed, progress=False, compile="off", device="cpu")
        held = held_out(run, SAMPLES).scores()
        score = scores(run, run.observed(x[new]), SAMPLES)
    counts = [int((score < held.threshold(rate)).sum()) for rate in RATES]
    return {"held_out": held.n, "new": len(new), "flagged": counts}


def interval(m: int, n: int, rate: float) -> tuple[float, float]:
    """The 95% interval of the share of m new rows that are flagged at a rate by n held-out rows."""
    k = math.floor(rate * (n + 1) + 1e-9)
    if k == 0:
        return 0.0, 0.0
    low, high = betabinom.ppf([0.025, 0.975], m, k, n + 1 - k)
    return float(low) / m, float(high) / m


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=TABLES)
    folder: Path = parser.parse_args().folder
    file = DOCS / "calibration.json"
    found: dict[str, list[dict[str, Any]]] = json.loads(file.read_text()) if file.exists() else {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as arrays:
            normal = arrays["X"][arrays["y"] == 0]
        for seed in SEEDS[len(found.setdefault(path.stem, [])) :]:
            found[path.stem].append(flagged(normal, seed))
            write_json(file, found)
        print(path.stem, found[path.stem], flush=True)
    write_text(DOCS / "calibration.md", page(found))


def page(found: dict[str, list[dict[str, Any]]]) -> str:
    """The page with the table of shares."""
    heads = " | ".join(f"asked {100 * rate:g}%" for rate in RATES)
    out = [
        "# False alarms",
        "",
        "If a row is drawn like the held-out rows, `vaekit detect RUN NEW --false-alarms 0.01` flags it with a",
        "probability of at most 1%. This page tests that on tables of ADBench, with normal rows that were used neither",
        "in training nor for the threshold. `python bench/calibration.py` makes it; its header describes the protocol.",
        f"Each cell is the percentage of new rows flagged, for seeds {', '.join(map(str, SEEDS))}. A star marks a",
        "share outside its exact 95% interval.",
        "",
        f"| table | held-out rows | new rows | {heads} |",
        "|---|---|---|" + "---|" * len(RATES),
    ]
    outside, possible = 0, 0
    totals = np.zeros((len(RATES), 2))
    for name, runs in found.items():
        cells = []
        for i, rate in enumerate(RATES):
            shown = []
            for run in runs:
                m, n, count = run["new"], run["held_out"], run["flagged"][i]
                low, high = interval(m, n, rate)
                is_outside = not low - 1e-9 <= count / m <= high + 1e-9
                supported = rate * (n + 1) >= 1 - 1e-9
                outside, possible = outside + (is_outside and supported), possible + supported
                totals[i] += (count, math.floor(rate * (n + 1) + 1e-9) / (n + 1) * m)
                star = "\\*" if is_outside else ""
                shown.append(f"{100 * count / m:.1f}{star}" if supported else "too few rows")
            cells.append(", ".join(dict.fromkeys(shown) if "too few rows" in shown else shown))
        out.append(f"| {name} | {runs[0]['held_out']} | {runs[0]['new']} | {' | '.join(cells)} |")
    whole = "; ".join(
        f"at {100 * rate:g}%, {int(count):,} rows were flagged and {expected:,.0f} expected"
        for rate, (count, expected) in zip(RATES, totals, strict=True)
    )
    out += [
        "",
        f"{outside} of {possible} shares lie outside their 95% interval; about {0.05 * possible:.0f} are expected to.",
        "The three shares of a seed come from the same rows, so they are not independent.",
        f"In all: {whole}.",
        "",
        f"torch {torch.__version__}, Python {platform.python_version()}; {STEPS} steps, {SAMPLES} importance samples.",
        "",
    ]
    return "\n".join(out)


if __name__ == "__main__":
    main()
