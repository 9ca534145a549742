"""Compare ways of filling in missing values: python bench/filling.py adult.csv

Sets: the first 8,000 complete rows of Adult (https://doi.org/10.24432/C5XW20, `--rows`), and breast cancer, diabetes
and wine as scikit-learn ships them. 30 % of the cells of 20 % of the rows are hidden at random; the models learn from
the other rows, complete, or with 30 % of their cells hidden as well. vaekit trains with its default settings and fills
with `run.fill` (means for numbers, the most likely category). The peers see numbers standardised:

    mean        mean, or most frequent category
    knn         scikit-learn's KNNImputer, 10 neighbours, categories one-hot
    ridge       scikit-learn's IterativeImputer with Bayesian ridge, categories one-hot; its categories are not
                compared, because one-hot columns sum to 1, which ties their imputations to the frequencies
    missforest  a random forest per column (regression or classification), 3 rounds (Stekhoven and Buehlmann 2012)
    hyperimpute HyperImpute 0.1 with its defaults, if it is installed: only seed 0 of diabetes and wine, because it
                takes minutes per table

Peers in an environment of their own: python3 -m venv peers; a .pth file in its site-packages with the path of the
project's site-packages, so that torch is shared; peers/bin/pip install --no-deps hyperimpute and its imports
(catboost, xgboost-cpu, optuna, geomloss, pandas below 3 ...). HyperImpute 0.1.17 fails with scikit-learn 1.9, so it
needs an older one. Every (set, seed, training, method) is stored in bench/.runs/filling.json, so a stopped bench is
resumed. Writes docs/filling.json and docs/filling.md.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import platform
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sklearn
import torch

import vaekit as vk
from vaekit.metrics import standard_error
from vaekit.utils.files import write_json, write_text

HERE = Path(__file__).parent
RUNS, DOCS = HERE / ".runs" / "filling", HERE.parent / "docs"
SHARE, TEST = 0.3, 0.2
SMALL = ("breast_cancer", "diabetes", "wine")
TREES, ROUNDS = 30, 3
SLOW = {"hyperimpute": ("diabetes/0", "wine/0")}
"""The sets and seeds of methods that take minutes."""
TRAININGS = ("complete", "holed")
ROW_STEP = 1_000_000
"""Separates the row numbers of two seeds."""


class Table(NamedTuple):
    """Cells by column: numbers, or texts of a category."""

    names: list[str]
    cells: list[list[str]]
    numeric: np.ndarray
    codes: np.ndarray  # (N, D) numbers, and codes of categories in alphabetical order

    @classmethod
    def of(cls, names: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
        columns = [[cell.strip() for cell in column] for column in zip(*rows, strict=True)]
        numeric = np.array([all(_is_number(cell) for cell in column) for column in columns])
        codes = [
            np.array(column, float) if is_number else np.unique(column, return_inverse=True)[1].astype(float)
            for column, is_number in zip(columns, numeric, strict=True)
        ]
        return cls([*names], [list(row) for row in zip(*columns, strict=True)], numeric, np.stack(codes, 1))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def read(name: str, adult: Path | None, most: int) -> Table:
    if name in SMALL:
        from sklearn import datasets

        found = getattr(datasets, f"load_{name}")()
        return Table.of(found.feature_names, [[repr(float(v)) for v in row] for row in found.data])
    assert adult is not None
    with adult.open(newline="") as file:
        names, *rows = csv.reader(file)
    return Table.of(
        names, [row for row in rows if len(row) == len(names) and not any("?" in cell for cell in row)][:most]
    )


class Problem(NamedTuple):
    """Codes with nan in hidden cells: rows to learn from, and rows to fill, whose truth is known."""

    table: Table
    train: np.ndarray
    test: np.ndarray
    truth: np.ndarray
    folder: Path


def problem(name: str, table: Table, seed: int, holed: bool) -> Problem:
    rng = np.random.default_rng(seed)
    n = len(table.codes)
    order = rng.permutation(n)
    hidden = rng.random(table.codes.shape) < SHARE
    hidden[np.arange(n), rng.integers(0, table.codes.shape[1], n)] = False  # every row keeps a value
    test, train = order[: int(TEST * n)], order[int(TEST * n) :]
    gaps = np.where(hidden, np.nan, table.codes)
    folder = RUNS / f"{name}-{seed}-{TRAININGS[holed]}"
    return Problem(table, (gaps if holed else table.codes)[train], gaps[test], table.codes[test], folder)


# --- the methods: (N, D) filled codes of the test rows -----------------------------------------------------------


def by_vaekit(p: Problem, seed: int) -> dict[str, Any]:
    shutil.rmtree(p.folder, ignore_errors=True)
    p.folder.mkdir(parents=True)
    kinds = [np.unique([row[j] for row in p.table.cells]) for j in range(len(p.table.names))]

    def write(path: Path, codes: np.ndarray) -> None:
        def cell(j: int, value: float) -> str:
            return "" if value != value else repr(float(value)) if p.table.numeric[j] else str(kinds[j][int(value)])

        with path.open("w", newline="") as file:
            csv.writer(file).writerows([p.table.names, *([cell(j, v) for j, v in enumerate(row)] for row in codes)])

    write(p.folder / "train.csv", p.train)
    write(p.folder / "test.csv", p.test)
    missing = {"missing": "mask"} if np.isnan(p.train).any() else {}
    text = {name: "categorical" for name, number in zip(p.table.names, p.table.numeric, strict=True) if not number}
    data = vk.load(p.folder / "train.csv", test=0.02, types=text, **missing)
    run = vk.fit(data, seed=seed, out=p.folder / "run", progress=False)
    start = time.process_time()
    new = run.read(p.folder / "test.csv", unseen=True).x.astype(float)  # unseen categories count as missing
    found = run.fill(new, np.isnan(new), draws=0, interval=0.95)
    seconds = time.process_time() - start
    assert found.low is not None
    assert found.high is not None
    assert found.effective is not None
    columns = [column.name for column in run.columns]
    filled, low, high = (np.full(p.test.shape, np.nan) for _ in range(3))
    for j, name in enumerate(p.table.names):
        at = columns.index(name)
        answer = found.filled[:, at].astype(float)
        if not p.table.numeric[j]:
            own = run.columns[at].categories
            answer = np.searchsorted(kinds[j], np.array(own)[answer.astype(int)]).astype(float)
        filled[:, j], low[:, j], high[:, j] = answer, found.low[:, at], found.high[:, at]
    cells = np.isnan(p.test) & p.table.numeric
    slack = 1e-6 * (np.abs(p.truth) + np.abs(high - low))
    inside = (low - slack <= p.truth) & (p.truth <= high + slack)
    return {
        "filled": filled, "covered": float(inside[cells].mean()), "numbers": int(cells.sum()), "fill_seconds": seconds,
        "steps": run.config["step"], "effective": float(np.median(found.effective)),
    }  # fmt: skip


class Coded(NamedTuple):
    """Standardised numbers and one-hot categories, and how to read them back."""

    mean: np.ndarray
    std: np.ndarray
    sizes: list[int]

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        parts = []
        for j, size in enumerate(self.sizes):
            column = codes[:, j : j + 1]
            if size == 1:
                parts.append((column - self.mean[j]) / self.std[j])
            else:
                hot = (column == np.arange(size)).astype(float)
                parts.append(np.where(np.isnan(column), np.nan, hot))
        return np.concatenate(parts, 1)

    def back(self, x: np.ndarray) -> np.ndarray:
        columns, at = [], 0
        for j, size in enumerate(self.sizes):
            part = x[:, at : at + size]
            columns.append(part[:, 0] * self.std[j] + self.mean[j] if size == 1 else part.argmax(1).astype(float))
            at += size
        return np.stack(columns, 1)


def coded(p: Problem) -> Coded:
    mean, std = np.nanmean(p.train, 0), np.nanstd(p.train, 0)
    sizes = [1 if number else int(p.table.codes[:, j].max()) + 1 for j, number in enumerate(p.table.numeric)]
    return Coded(mean, np.where(std > 0, std, 1), sizes)


def by_sklearn(p: Problem, imputer: Any) -> dict[str, Any]:
    code = coded(p)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        filled = code.back(imputer.fit(code(p.train)).transform(code(p.test)))
    return {"filled": np.where(np.isnan(p.test), filled, p.test)}


def by_mean(p: Problem, seed: int) -> dict[str, Any]:
    centre = np.nanmean(p.train, 0)
    for j in np.flatnonzero(~p.table.numeric):
        known = p.train[:, j][~np.isnan(p.train[:, j])].astype(int)
        centre[j] = np.bincount(known).argmax()
    return {"filled": np.where(np.isnan(p.test), centre, p.test)}


def by_knn(p: Problem, seed: int) -> dict[str, Any]:
    from sklearn.impute import KNNImputer

    return by_sklearn(p, KNNImputer(n_neighbors=10, keep_empty_features=True))


def by_ridge(p: Problem, seed: int) -> dict[str, Any]:
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    return by_sklearn(p, IterativeImputer(max_iter=10, random_state=seed, keep_empty_features=True))


def by_missforest(p: Problem, seed: int) -> dict[str, Any]:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    codes = np.concatenate([p.train, p.test])
    gaps, learned = np.isnan(codes), np.arange(len(codes)) < len(p.train)
    start = by_mean(p, seed)["filled"]
    filled = np.concatenate([by_mean(p._replace(test=p.train), seed)["filled"], start])
    forests: dict[int, Any] = {}
    for _ in range(ROUNDS):
        for j in np.argsort(gaps.sum(0)):
            others = np.delete(filled, j, 1)
            if gaps[learned].any() or j not in forests:  # complete rows do not change: learn once
                kind = RandomForestRegressor if p.table.numeric[j] else RandomForestClassifier
                forest = kind(TREES, min_samples_leaf=3, max_features=0.5, random_state=seed)
                known = learned & ~gaps[:, j]
                forests[j] = forest.fit(others[known], codes[known, j])
            if gaps[:, j].any():
                filled[gaps[:, j], j] = forests[j].predict(others[gaps[:, j]])
    return {"filled": filled[~learned]}


def by_hyperimpute(p: Problem, seed: int) -> dict[str, Any]:
    import pandas as pd
    from hyperimpute.plugins.imputers import Imputers

    imputer = Imputers().get("hyperimpute", random_state=seed)
    rows = pd.DataFrame(np.concatenate([p.train, p.test]))
    filled = np.asarray(imputer.fit_transform(rows))[len(p.train) :]
    return {"filled": np.where(np.isnan(p.test), filled, p.test)}


METHODS: dict[str, Callable[[Problem, int], dict[str, Any]]] = {
    "vaekit": by_vaekit,
    "mean": by_mean,
    "knn": by_knn,
    "ridge": by_ridge,
    "missforest": by_missforest,
    **({"hyperimpute": by_hyperimpute} if importlib.util.find_spec("hyperimpute") else {}),
}


def measured(p: Problem, method: str, seed: int) -> dict[str, Any]:
    """NRMSE of each column of numbers, in standard deviations of the training rows; accuracy of each category."""
    start = time.process_time()
    found = METHODS[method](p, seed)
    filled, std = found.pop("filled"), coded(p).std
    nrmse, accuracy, right, rows = [], [], "", []
    for j, number in enumerate(p.table.numeric):
        cells = np.isnan(p.test[:, j])
        error = filled[cells, j] - p.truth[cells, j]
        if number:
            nrmse.append(float(np.sqrt((error**2).mean())) / std[j])
        else:
            accuracy.append(float((error.round() == 0).mean()))
            right += "".join("01"[int(hit)] for hit in error.round() == 0)
            rows += np.flatnonzero(cells).tolist()
    seconds = time.process_time() - start
    compared = accuracy and method != "ridge"
    more = {"right": right, "rows": rows}
    return {"nrmse": float(np.mean(nrmse)), "accuracy": float(np.mean(accuracy)) if compared else None,
            "seconds": seconds, **(more if compared else {}), **found}  # fmt: skip


def paired(rows: dict[str, Any], other: str, value: str, training: str) -> str:
    """The mean difference vaekit - other over the sets (each the mean of its seeds), and its standard error.

    For one set, the standard error is that of its cells, paired by cell and clustered by row.
    """
    gaps: dict[str, list[float]] = {}
    cells: list[tuple[np.ndarray, np.ndarray]] = []
    for key, row in rows.items():
        name, seed, trained, method = key.split("/")
        if method == "vaekit" and trained == training and row[value] is not None:
            peer = rows.get(f"{name}/{seed}/{trained}/{other}")
            if peer and peer[value] is not None:
                gaps.setdefault(name, []).append(row[value] - peer[value])
                if value == "accuracy" and "right" in row and "right" in peer:
                    difference = np.array([*map(int, row["right"])]) - np.array([*map(int, peer["right"])])
                    cells.append((difference, np.array(row["rows"]) + len(cells) * ROW_STEP))
    each = np.array([np.mean(gap) for gap in gaps.values()])
    if not len(each):
        return "-"
    if len(each) > 1:
        return f"{each.mean():+.3f} ± {each.std(ddof=1) / np.sqrt(len(each)):.3f}"
    if not cells:
        return f"{each.mean():+.3f}"
    differences, rows_of = (np.concatenate(part) for part in zip(*cells, strict=True))
    return f"{each.mean():+.3f} ± {standard_error(differences, rows_of):.3f}"


def page(rows: dict[str, Any], names: Sequence[str], seeds: int, adult: int) -> str:
    methods = [m for m in METHODS if any(key.endswith(f"/{m}") for key in rows)]
    out = [
        "# Filling in missing values", "",
        "Made by `python bench/filling.py adult.csv`; its header describes data sets, methods and protocol. 30% of the",
        f"cells of held-out rows are hidden at random. {seeds} seed{'s' * (seeds != 1)}; {adult:,} rows of Adult.",
        "",
        "- *error*: root mean square error of the filled numbers, in standard deviations of the training rows, mean",
        "  over columns; lower is better.",
        "- *right*: share of hidden categories that are filled correctly, mean over columns (Adult only).",
        "- *error, minus* and *right, minus*: vaekit minus the other method. *error, minus* is a mean over data sets",
        "  with its standard error over them; that of *right, minus* is over the hidden cells, paired by cell.",
        "  vaekit is better where *error, minus* is below 0 and *right, minus* above 0.", "",
        "The sampler's numbers of codes and chains were chosen by its Monte Carlo error on other tables (customers of",
        "a telephone company and of a bank). In an earlier version they were chosen on held-out rows of Adult.", "",
    ]  # fmt: skip
    for training in TRAININGS:
        title = "complete rows" if training == "complete" else "rows with 30% of their cells hidden"
        sets = " | ".join(f"{name}, error" for name in names)
        out += [f"## Trained on {title}", "", f"| method | {sets} | right | error, minus | right, minus |",
                f"|---|{'---|' * (len(names) + 3)}"]  # fmt: skip
        for method in methods:
            cells = []
            for name in names:
                found = [rows.get(f"{name}/{s}/{training}/{method}") for s in range(seeds)]
                known = [row["nrmse"] for row in found if row]
                cells.append(f"{np.mean(known):.3f}" if known else "-")
            rights = [row["accuracy"] for key, row in rows.items()
                      if key.endswith(f"/{training}/{method}") and row["accuracy"] is not None]  # fmt: skip
            own = method == "vaekit"
            gaps = ["0" if own else paired(rows, method, v, training) for v in ("nrmse", "accuracy")]
            right = f"{np.mean(rights):.3f}" if rights else "-"
            out.append(f"| {method} | {' | '.join(cells)} | {right} | {gaps[0]} | {gaps[1]} |")
        own_rows: dict[str, list[Any]] = {key.split("/")[0]: [] for key in rows}
        for key, row in rows.items():
            if key.endswith(f"/{training}/vaekit"):
                own_rows[key.split("/")[0]].append(row)
        shares = (f"{name} {100 * np.mean([row['covered'] for row in found]):.1f}%" for name, found in own_rows.items())
        out += ["", f"Share of the hidden numbers that vaekit's 95% intervals hold: {', '.join(shares)}.", ""]
    filling = [row["fill_seconds"] for key, row in rows.items() if key.startswith("adult/") and "fill_seconds" in row]
    if filling:
        out += [f"vaekit took {np.mean(filling):.1f} CPU seconds to fill the {int(TEST * adult):,} rows of Adult with "
                "intervals, including the validation rows that calibrate the intervals.", ""]  # fmt: skip
    absent = (
        ""
        if "hyperimpute" in METHODS
        else (
            " HyperImpute was not measured: version 0.1.17 can be installed but fails with this scikit-learn, whose "
            "LogisticRegression no longer has the argument `multi_class`."
        )
    )
    out += [f"torch {torch.__version__}, scikit-learn {sklearn.__version__}, Python {platform.python_version()}, "
            f"{torch.get_num_threads()} thread(s).{absent}", ""]  # fmt: skip
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adult", type=Path, nargs="?", help="adult.csv; without it, only the sets of scikit-learn")
    parser.add_argument("--rows", type=int, default=8000, help="rows of adult")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--anew", action="store_true", help="measure everything again")
    asked = parser.parse_args()
    store = RUNS.with_suffix(".json")
    rows: dict[str, Any] = json.loads(store.read_text()) if store.exists() and not asked.anew else {}
    names = [*SMALL, *(["adult"] if asked.adult else [])]
    for name in names:
        table = read(name, asked.adult, asked.rows)
        for seed in range(asked.seeds):
            for training in TRAININGS:
                p = problem(name, table, seed, training == "holed")
                for method in METHODS:
                    key = f"{name}/{seed}/{training}/{method}"
                    if key not in rows and f"{name}/{seed}" in SLOW.get(method, (f"{name}/{seed}",)):
                        rows[key] = measured(p, method, seed)
                        print(key, rows[key], flush=True)
                        store.parent.mkdir(parents=True, exist_ok=True)
                        write_json(store, rows)
    shown = {key: {k: v for k, v in row.items() if k not in ("right", "rows")} for key, row in rows.items()}
    write_json(DOCS / "filling.json", shown)
    text = page(rows, names, asked.seeds, asked.rows)
    write_text(DOCS / "filling.md", text)
    print(text)


if __name__ == "__main__":
    main()
