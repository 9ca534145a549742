"""The learning rates of the study `kingma2013-marginal`: python bench/figure3.py

As in the paper, the rate of each method is the one of 0.01, 0.02 and 0.1 with which training is furthest early on: the
highest mean log p(x) of training data after 1,500 updates, here by quadrature, on MNIST with 50,000 training data. No
test data are used. Takes about 5 minutes on one core; finished trials are kept in bench/.runs/figure3. Writes
docs/figure3.json and prints the rates, which stand in `RATES` of the study.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaekit.studies import kingma2013_marginal as figure3
from vaekit.studies import study
from vaekit.utils.files import read_json, write_json

HERE = Path(__file__).parent
RUNS, DOCS = HERE / ".runs" / "figure3", HERE.parent / "docs"
CANDIDATES, UPDATES, MINUTES = (0.01, 0.02, 0.1), 1500, 4.0


def tried(rate: float) -> dict[str, dict[str, float]]:
    """log p(x) of training data, {size: {method: mean}}, of all methods with one rate."""
    page = RUNS / f"{rate:g}.html"
    found = page.with_suffix(".runs") / "findings.json"
    if not found.exists():
        RUNS.mkdir(parents=True, exist_ok=True)
        figure3.RATES = dict.fromkeys(figure3.METHODS, rate)
        study("kingma2013-marginal", minutes=MINUTES, steps=UPDATES, out=page)
    numbers = read_json(found)["numbers"]
    return {
        size: {m: float(np.mean(numbers["log_px"][f"{m}, {size}"]["train"])) for m in figure3.METHODS}
        for size in numbers["sizes"]
    }


def main() -> None:
    trials = {rate: tried(rate) for rate in CANDIDATES}
    sizes = list(trials[CANDIDATES[0]])
    best = {m: max(CANDIDATES, key=lambda rate: trials[rate][sizes[-1]][m]) for m in figure3.METHODS}
    for size in sizes:
        for method in figure3.METHODS:
            each = ", ".join(f"{trials[rate][size][method]:.2f} ({rate:g})" for rate in CANDIDATES)
            print(f"{method}, {size} training data: {each}")
    print("chosen:", best)
    found: dict[str, Any] = {
        "updates": UPDATES,
        "trials": [{"rate": rate, "log_px_of_training_data": each} for rate, each in trials.items()],
        "chosen": best,
        "machine": f"Python {platform.python_version()}, torch {torch.__version__}",
    }
    write_json(DOCS / "figure3.json", found)


if __name__ == "__main__":
    main()
