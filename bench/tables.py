"""Compare synthetic tables with those of CTGAN, TVAE and a Gaussian copula: python bench/tables.py [--peers PYTHON]

Adult (../shared/data/adult/adult.csv, or --adult FILE) and three tables that scikit-learn ships. Every generator learns
from the same training rows and draws as many; vaekit also has the validation rows, by which it chooses its weights.
vaekit has its defaults, and draws from the prior, or from a Gaussian mixture fitted to the codes (`--latents gmm`);
*vaekit, autoregressive* has `--likelihood autoregressive`.
CTGAN and TVAE have the defaults of the package ctgan (300 epochs). The copula has normal scores, the empirical
distribution of each column, and randomised ranks for categories. Settings were chosen on others (docs/defaults.md).

In adult, "?" is a category for every generator. Rows of adult: 8,000 for training, 2,000 for validation, 8,000 for
testing; of the others 45, 10 and 45 %. A seed chooses the rows and seeds the generator. Measures are those of `vaekit
report RUN --synthetic`, from `vaekit.synthetic.compare_tables`.

Resumable: rows and results are kept in bench/.runs/tables; --anew ARM ... deletes those of these arms. Writes
docs/tables-bench.md and .json. Takes about 10 CPU minutes for each seed of adult, 2 for each seed of the others.

The peers need an environment of their own, whose Python --peers (or VAEKIT_PEERS) names; without it, their arms are
left out unless their rows are kept:

    python3 -m venv peers && peers/bin/pip install ctgan==0.12.1
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import ndtr, ndtri

import vaekit as vk
from vaekit.data.core import Column
from vaekit.synthetic import compare_tables
from vaekit.synthetic.features import is_number
from vaekit.utils.files import write_json, write_text

HERE = Path(__file__).parent
RUNS, DOCS = HERE / ".runs" / "tables", HERE.parent / "docs"
ADULT = HERE.parent.parent / "shared" / "data" / "adult" / "adult.csv"
SETS = {"adult": "income", "breast cancer": "target", "diabetes": "target", "wine": "target"}
SIZES = {"train": 8000, "valid": 2000, "test": 8000}
VAEKIT = ("vaekit", "vaekit, gmm")
CHAINED = "vaekit, autoregressive"
ARMS = (*VAEKIT, CHAINED, "TVAE", "CTGAN", "Gaussian copula")
SHOWN = {
    "KS": "KS of numbers",
    "categories": "distance of categories",
    "association": "association error",
    "pairs": "distance of pairs",
    "trees": "(boosted trees)",
    "linear": "(linear)",
    "detectable": "detectability",
    "nearer": "nearer to training",
    "member": "membership by distance",
    "log p": "membership by log p",
}
"""The columns of the tables: the end of the name of a measure."""
SIGNED = ("trees", "linear")


def data_of(name: str, seed: int, adult: Path) -> vk.Data:
    """A set with splits by this seed."""
    if name == "adult":
        kept = "workclass=categorical,occupation=categorical,native-country=categorical"
        whole = vk.load(adult, types=kept)
    else:
        whole = vk.from_arrays(scikit_learn(name), name=name)
    raw = whole.train.raw
    order = np.random.default_rng(seed).permutation(len(raw))
    n = SIZES if name == "adult" else {"train": int(0.45 * len(raw)), "valid": int(0.1 * len(raw)), "test": len(raw)}
    ends = np.cumsum([n["train"], n["valid"], n["test"]])
    rows = dict(zip(n, np.split(order, ends), strict=False))
    return vk.from_arrays(
        raw, schema=whole.schema, name=name, splits={part: np.sort(index) for part, index in rows.items()}
    )


def scikit_learn(name: str) -> Any:
    """A table that scikit-learn ships, with its target as the last column."""
    import pyarrow
    from sklearn import datasets

    load = {
        "breast cancer": datasets.load_breast_cancer,
        "diabetes": datasets.load_diabetes,
        "wine": datasets.load_wine,
    }
    found = load[name](**({"scaled": False} if name == "diabetes" else {}))
    target = found.target if name == "diabetes" else np.asarray(found.target_names)[found.target]
    columns = dict(zip(found.feature_names, found.data.T, strict=True))
    return pyarrow.table({**columns, "target": target})


def copula(x: np.ndarray, columns: tuple[Column, ...], seed: int) -> np.ndarray:
    """Rows of a Gaussian copula with the empirical distribution of each column."""
    rng = np.random.default_rng(seed)
    n = len(x)
    ordered = np.sort(x, 0)
    low, high = (np.stack([np.searchsorted(o, v, side) for o, v in zip(ordered.T, x.T, strict=True)], 1)
                 for side in ("left", "right"))  # fmt: skip
    scores = ndtri((low + (high - low) * rng.random(x.shape)).clip(0.5, n - 0.5) / n)
    drawn = rng.multivariate_normal(np.zeros(x.shape[1]), np.corrcoef(scores.T), n, method="eigh")
    place = (ndtr(drawn) * n).astype(int).clip(0, n - 1)
    return np.take_along_axis(ordered, place, 0)


def peer(
    model: str, x: np.ndarray, columns: tuple[Column, ...], seed: int, place: Path, python: str
) -> tuple[np.ndarray, float]:
    """Rows of a model of ctgan, and the CPU seconds of its training."""
    source, out = place.with_suffix(".in.npz"), place.with_suffix(".out.npz")
    discrete = np.array([not is_number(c) for c in columns])
    np.savez(source, x=x, discrete=discrete, whole=(x == np.round(x)).all(0))
    subprocess.run([python, HERE / "worker_ctgan.py", model, str(seed), source, out], check=True)
    with np.load(out) as file:
        rows, seconds = file["x"], float(file["seconds"])
    for file in (source, out):
        file.unlink()
    return rows, seconds


def trained(data: vk.Data, seed: int, likelihood: str = "auto") -> tuple[vk.Run, float]:
    """The run of a set with vaekit's defaults for a likelihood, and the CPU seconds of its training."""
    path = RUNS / f"{data.name.replace(' ', '-')}-{seed}{'' if likelihood == 'auto' else '-' + likelihood}-run"
    clock, start = path / "cpu-seconds.txt", time.process_time()
    run = vk.fit(data, out=path, seed=seed, likelihood=likelihood, exists="resume", progress=False)
    if not clock.exists():
        clock.write_text(f"{time.process_time() - start:.1f}")
    return run, float(clock.read_text())


def drawn(arm: str, data: vk.Data, seed: int, place: Path, python: str | None) -> dict[str, Any] | None:
    """Synthetic rows of one arm, the CPU seconds of its training, and log p(x) of real rows if it has a density."""
    x = data.train[:].astype(np.float64)
    if arm in (*VAEKIT, CHAINED):
        run, seconds = trained(data, seed, "autoregressive" if arm == CHAINED else "auto")
        rows = run.sample(len(x), noise=True, seed=seed, latents="gmm" if arm == VAEKIT[1] else None)
        few = {part: np.arange(min(1000, len(getattr(data, part)))) for part in ("train", "valid", "test")}
        log_px = {part: run.score(part, rows=numbers, samples=50) for part, numbers in few.items()}
        return {"rows": rows, "seconds": seconds, "log_px": log_px}
    start = time.process_time()
    if arm == ARMS[-1]:
        return {"rows": copula(x, data.schema, seed), "seconds": time.process_time() - start}
    if python is None:
        return None
    rows, seconds = peer(arm, x, data.schema, seed, place, python)
    return {"rows": rows, "seconds": seconds}


def place_of(name: str, arm: str, seed: int) -> Path:
    """The file with the kept result of one arm on one set."""
    return RUNS / f"{name} {seed} {arm}.json".replace(",", "").replace(" ", "-")


def kept(name: str, arm: str, seed: int) -> dict[str, Any] | None:
    """The kept result of one arm on one set, if there is one."""
    place = place_of(name, arm, seed)
    return json.loads(place.read_text()) if place.exists() else None


def result(name: str, arm: str, seed: int, data: Callable[[], vk.Data], python: str | None) -> dict[str, Any] | None:
    """The measures of one arm on one set; None for a peer without an environment."""
    if (known := kept(name, arm, seed)) is not None:
        return known
    place = place_of(name, arm, seed)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.with_suffix(".npz").exists():
        with np.load(place.with_suffix(".npz")) as file:
            got = {"rows": file["rows"], "seconds": float(file["seconds"])}
            got["log_px"] = {part: file[part] for part in ("train", "valid", "test") if part in file} or None
    elif (drawn_now := drawn(arm, data(), seed, place, python)) is None:
        return None
    else:
        got = drawn_now
        np.savez(place.with_suffix(".npz"), rows=got["rows"], seconds=got["seconds"], **(got.get("log_px") or {}))
    train, valid, test = (getattr(data(), part)[:].astype(np.float64) for part in ("train", "valid", "test"))
    found = compare_tables(
        got["rows"].astype(np.float64), train, test, data().schema, valid=valid, log_px=got.get("log_px"),
        target=SETS[name], seed=seed,
    )  # fmt: skip
    result = {"set": name, "arm": arm, "seed": seed, "seconds": got["seconds"], **found.as_json()}
    write_json(place, result)
    print(place.stem, {k: round(value(result, k), 3) for k in SHOWN}, f"{got['seconds']:.0f} s", flush=True)
    return result


def value(result: dict[str, Any], short: str, of: str = "value") -> float:
    """A measure of a result, or its floor; nan if the table has no such column."""
    found = [m for m in result["measures"] if m["name"].endswith(SHOWN[short])]
    if not found or (of == "floor" and found[0]["floor"] is None):
        return float("nan")
    return found[0]["value"] if of == "value" else found[0]["floor"]["value"]


def shown(result: dict[str, Any]) -> dict[str, Any]:
    """A result with the measures of the page alone, without those of single columns."""
    kept = [{k: m[k] for k in ("name", "value", "se", "floor")} for m in result["measures"]
            if m["name"].endswith(tuple(SHOWN.values()))]  # fmt: skip
    return {**{k: result[k] for k in ("set", "arm", "seed", "seconds", "rows")}, "measures": kept}


def cells(values: list[float], signed: bool = False) -> str:
    """A mean over seeds with its standard error."""
    known = [v for v in values if v == v]
    if not known:
        return "–"
    form = f"{np.mean(known):{'+' if signed else ''}.3f}"
    return form if len(known) < 2 else f"{form} ± {np.std(known, ddof=1) / len(known) ** 0.5:.3f}"


def page(results: list[dict[str, Any]]) -> str:
    """The tables of all results."""
    sets = [name for name in SETS if any(r["set"] == name for r in results)]
    out = [
        "# Synthetic tables",
        "",
        "Made by `python bench/tables.py`; its header describes the protocol. Each generator learns from the training",
        "rows of a table and draws as many rows, which `vaekit.synthetic.compare_tables` compares with test rows",
        "([what the measures are](guides/tables.md#compare-synthetic-rows-with-real-ones)). *vaekit* draws codes from",
        "the prior, *vaekit, gmm* from a Gaussian mixture fitted to the codes (`vaekit sample --latents gmm`).",
        "*vaekit, autoregressive* draws from the prior of a run with `--likelihood autoregressive`. The",
        "line *real rows* is for comparison: it has as many training rows in place of synthetic ones, and validation",
        "rows for *nearer* and *member*. ± is the standard error over seeds.",
        "",
        "- *KS*, *categories*: mean distance of the columns of numbers and of categories. *association*, *pairs*: mean",
        "  distance of the pairs of columns. Lower is better.",
        "- *trees*, *linear*: AUC (diabetes: R2) of a model trained on synthetic rows, minus that of one trained on",
        "  real rows. Higher is better.",
        "- *detectable*: AUC of a classifier that tells synthetic from test rows; lower is better.",
        "- *nearer*: share of rows that are nearer to a training row than to a test row. *member*: AUC of an attacker",
        "  who tells training rows from test rows by the nearest synthetic row. *log p*: that of an attacker who has",
        "  the model itself, and ranks rows by log p(x). All are best at 0.5.",
        "",
    ]
    for name in sets:
        of_set = [r for r in results if r["set"] == name]
        seeds, n = sorted({r["seed"] for r in of_set}), of_set[0]["rows"]
        out += [f"## {name}", ""]
        out += [f"{n['train']:,} training rows, {n['test']:,} test rows, seeds {', '.join(map(str, seeds))}.", ""]
        out += ["| " + " | ".join(["generator", *SHOWN, "CPU s"]) + " |", "|---" * (2 + len(SHOWN)) + "|"]
        arms = {arm: [r for r in of_set if r["arm"] == arm] for arm in ARMS}
        first = next(got for got in arms.values() if got)
        floors = [cells([value(r, k, "floor") for r in first], k in SIGNED) for k in SHOWN]
        out.append("| " + " | ".join(["real rows", *floors, ""]) + " |")
        for arm, got in arms.items():
            if got:
                measured = [cells([value(r, k) for r in got], k in SIGNED) for k in SHOWN]
                seconds = np.mean([r["seconds"] for r in got])
                fewer = "" if len(got) == len(seeds) else f" (seed {', '.join(str(r['seed']) for r in got)})"
                out.append("| " + " | ".join([arm + fewer, *measured, f"{seconds:.0f}"]) + " |")
        out.append("")
    out += [
        "## vaekit minus the others",
        "",
        "Differences paired by table; each is a mean over the seeds that both generators have. ± is the standard error",
        "over tables. Every table has the same weight, Adult with 8,000 training rows as much as wine with 80. The",
        "autoregressive likelihood is for tables with thousands of rows, so see the table of Adult for it.",
        "",
    ]
    out += ["| " + " | ".join(["vaekit minus", *SHOWN]) + " |", "|---" * (1 + len(SHOWN)) + "|"]
    for other in ARMS[1:]:
        gaps = {k: [_gap(results, name, other, k) for name in sets] for k in SHOWN}
        if any(v == v for v in gaps["KS"]):
            out.append("| " + " | ".join([other, *(cells(gaps[k], True) for k in SHOWN)]) + " |")
    lacking = [f"{arm} on {name}" for name in SETS for arm in ARMS
               if not any(r["set"] == name and r["arm"] == arm for r in results)]  # fmt: skip
    if lacking:
        out += ["", f"Not yet measured: {', '.join(lacking)}. `make bench-tables` measures what is missing."]
    versions = f"torch {torch.__version__}, Python {platform.python_version()}, one thread."
    return "\n".join([*out, "", versions, ""])


def _gap(results: list[dict[str, Any]], name: str, other: str, short: str) -> float:
    """The mean difference of a measure between vaekit and another arm, over the seeds that both have."""
    own, others = ({r["seed"]: value(r, short) for r in results if r["set"] == name and r["arm"] == arm}
                   for arm in (ARMS[0], other))  # fmt: skip
    both = [own[seed] - others[seed] for seed in own if seed in others]
    return float(np.mean(both)) if both else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adult", type=Path, default=ADULT)
    parser.add_argument("--peers", default=os.environ.get("VAEKIT_PEERS"), help="Python of an environment with ctgan")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--adult-seeds", type=int, default=1)
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--anew", nargs="*", default=[], help="arms whose kept results are deleted first")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for file in RUNS.glob("*.json"):
        kept_one = json.loads(file.read_text())
        if kept_one["arm"] in asked.anew and kept_one["set"] in asked.sets:
            file.unlink()
            file.with_suffix(".npz").unlink(missing_ok=True)
    for folder in (f for name in asked.sets for f in RUNS.glob(f"{name.replace(' ', '-')}-*-run")):
        if set(asked.anew) & ({CHAINED} if folder.name.endswith("-autoregressive-run") else set(VAEKIT)):
            shutil.rmtree(folder)
    results = []
    for name in SETS:
        for seed in range(asked.adult_seeds if name == "adult" else asked.seeds):
            data = functools.cache(lambda name=name, seed=seed: data_of(name, seed, asked.adult))
            for arm in ARMS:
                chosen = arm in asked.arms and name in asked.sets
                found = result(name, arm, seed, data, asked.peers) if chosen else kept(name, arm, seed)
                if found is not None:
                    results.append(found)
    write_json(DOCS / "tables-bench.json", [shown(r) for r in results])
    write_text(DOCS / "tables-bench.md", page(results))
    print(page(results))


if __name__ == "__main__":
    main()
