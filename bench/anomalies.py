"""Compare anomaly detectors on tables: python bench/anomalies.py [FOLDER]

FOLDER holds tables as NAME.npz with `X` (rows, columns) and `y` (1 for an anomaly), such as those of ADBench (Han et
al. 2022, arXiv:2206.09426); by default ../shared/data/adbench. Three tables that scikit-learn ships are added: breast
cancer (malignant tumours are the anomalies), digits (zeros) and wine (the first cultivar). Their anomalies are thinned
to a tenth of the table, the first ones in the order of the file.

Every detector gets the same rows, and its default settings. A seed splits each table into 70% training rows and 30%
test rows, stratified by y. Two protocols differ in the training rows:

- unsupervised (ADBench's): all of them, the anomalies among them, without y;
- normal rows: those with y = 0.

AUROC and average precision are measured on the test rows. Neighbours, local outlier factor, Gaussian mixtures and
principal components get standardised columns, as does PyOD's VAE by its own default; vaekit reads the raw columns.
vaekit is `VAEDetector(random_state=seed)`, which holds out 30% of its training rows for validation and the threshold,
so that its model is trained on fewer rows than the other detectors; its score is log p(x). Its second line is
`VAEEstimator(random_state=seed)`: the recipe vae, with all rows in training and columns mapped by their quantiles. For
normal rows, docs/guides/anomalies.md recommends `VAEDetector(settings={"trim": 0, "prior": "mixture"})`, which is
also measured on them. The Gaussian mixture has full covariances and the number of components (1 to 10) with the lowest
BIC on the training rows.

The peers need PyOD 3.6 in the environment of vaekit: pip install pyod==3.6. Resumable: results are kept in
bench/.runs/anomalies by table, detector, protocol and seed. Use OMP_NUM_THREADS to set the number of threads. Writes
docs/anomalies.json and docs/anomalies.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaekit.utils.files import write_json, write_text

HERE = Path(__file__).parent
RUNS, DOCS = HERE / ".runs" / "anomalies", HERE.parent / "docs"
TABLES = HERE.parent.parent / "shared" / "data" / "adbench"
PROTOCOLS = ("unsupervised", "normal rows")
SHARE = 0.1
"""The anomalies' share of the rows of a table of scikit-learn."""

Array = np.ndarray
Detector = Callable[[Array, Array, int], Array]
"""(training rows, test rows, seed) -> one score per test row, higher for anomalies."""


def vaekit(train: Array, test: Array, seed: int) -> Array:
    from vaekit.sklearn import VAEDetector

    return -VAEDetector(random_state=seed).fit(train).score_samples(test)


def vaekit_with(**settings: Any) -> Detector:
    """`VAEDetector` with these settings."""

    def detect(train: Array, test: Array, seed: int) -> Array:
        from vaekit.sklearn import VAEDetector

        return -VAEDetector(random_state=seed, settings=settings).fit(train).score_samples(test)

    return detect


def vaekit_recipe(train: Array, test: Array, seed: int) -> Array:
    from vaekit.sklearn import VAEEstimator

    return -VAEEstimator(random_state=seed).fit(train).score_samples(test)


def mixture(train: Array, test: Array, seed: int) -> Array:
    """A Gaussian mixture with full covariances, and the number of components with the lowest BIC."""
    from sklearn.mixture import GaussianMixture

    train, test = standardised(train, test)
    fits = [GaussianMixture(k, random_state=seed).fit(train) for k in range(1, min(10, len(train) - 1) + 1)]
    return -min(fits, key=lambda fit: fit.bic(train)).score_samples(test)


def pyod(module: str, name: str, scaled: bool = False, seeded: bool = False, **settings: Any) -> Detector:
    """A detector of PyOD with its defaults; `settings` only silence it."""

    def detect(train: Array, test: Array, seed: int) -> Array:
        import importlib

        build = getattr(importlib.import_module(f"pyod.models.{module}"), name)
        train, test = standardised(train, test) if scaled else (train, test)
        detector = build(**settings, **({"random_state": seed} if seeded else {}))
        detector.fit(train)
        return np.asarray(detector.decision_function(test))

    return detect


def standardised(train: Array, test: Array) -> tuple[Array, Array]:
    """Both with columns of mean 0 and variance 1 in the training rows."""
    mean, std = train.mean(0), train.std(0)
    std = np.where(std > 0, std, 1.0)
    return (train - mean) / std, (test - mean) / std


DETECTORS: dict[str, Detector] = {
    "vaekit": vaekit,
    "vaekit, trim 0": vaekit_with(trim=0),
    "vaekit, trim 0, mixture": vaekit_with(trim=0, prior="mixture"),
    "vaekit, recipe vae": vaekit_recipe,
    "Gaussian mixture (BIC)": mixture,
    "PyOD VAE": pyod("vae", "VAE", seeded=True, verbose=0),
    "PyOD AutoEncoder": pyod("auto_encoder", "AutoEncoder", seeded=True, verbose=0),
    "isolation forest": pyod("iforest", "IForest", seeded=True),
    "ECOD": pyod("ecod", "ECOD"),
    "KNN": pyod("knn", "KNN", scaled=True),
    "PCA": pyod("pca", "PCA", scaled=True, seeded=True),
    "LOF": pyod("lof", "LOF", scaled=True),
}


ONLY_NORMAL = ("vaekit, trim 0", "vaekit, trim 0, mixture")
"""The detectors that are measured only with normal training rows; the last one is recommended for them."""
SHIPPED = ("breast cancer", "digits", "wine")


def shipped() -> dict[str, tuple[Array, Array]]:
    """The tables that scikit-learn ships, as (X, y)."""
    from sklearn.datasets import load_breast_cancer, load_digits, load_wine

    tables = {}
    for name, load in (("breast cancer", load_breast_cancer), ("digits", load_digits), ("wine", load_wine)):
        x, label = load(return_X_y=True)
        normal = np.flatnonzero(label != 0)
        odd = np.flatnonzero(label == 0)[: round(len(normal) * SHARE / (1 - SHARE))]
        tables[name] = x[np.sort([*normal, *odd])], (label == 0)[np.sort([*normal, *odd])].astype(int)
    return tables


def read(folder: Path, rows: int | None) -> dict[str, tuple[Array, Array]]:
    """The tables of a folder; with `rows`, larger ones are thinned to about so many, anomalies and others alike."""
    tables = {}
    for file in sorted(folder.glob("*.npz"), key=lambda file: file.stem.lower()):
        with np.load(file) as stored:
            x, y = stored["X"].astype(np.float64), stored["y"].astype(int)
        if rows is not None and len(x) > rows:
            kept = np.random.default_rng(0).permutation(len(x))
            parts = [kept[y[kept] == value] for value in (0, 1)]
            sizes = (round(len(part) * rows / len(x)) for part in parts)
            chosen = [part[: max(size, 20)] for part, size in zip(parts, sizes, strict=True)]  # leaves some anomalies
            x, y = (values[np.sort(np.concatenate(chosen))] for values in (x, y))
        tables[file.stem] = x, y
    return tables


def split(x: Array, y: Array, seed: int, protocol: str) -> tuple[Array, Array, Array]:
    """Training rows, test rows and y of the test rows."""
    from sklearn.model_selection import train_test_split

    train, test, y_train, y_test = train_test_split(x, y, test_size=0.3, random_state=seed, stratify=y)
    return train[y_train == 0] if protocol == "normal rows" else train, test, y_test


def measured(detect: Detector, x: Array, y: Array, seed: int, protocol: str) -> dict[str, Any]:
    """AUROC, average precision and seconds of one detector on one split."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    train, test, y_test = split(x, y, seed, protocol)
    started, cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        score = np.nan_to_num(detect(train, test, seed), nan=np.inf)
    score = np.clip(score, -1e300, 1e300)
    return {
        "auroc": float(roc_auc_score(y_test, score)),
        "ap": float(average_precision_score(y_test, score)),
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - cpu,
    }


class Kept:
    """Results by (table, detector, protocol, seed), added to a file of JSON lines."""

    def __init__(self, file: Path):
        file.parent.mkdir(parents=True, exist_ok=True)
        self.file, self.rows = file, {}
        if file.exists():
            for line in file.read_text(encoding="utf8").splitlines():
                row = json.loads(line)
                self.rows[self.key(row)] = row

    @staticmethod
    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in ("table", "detector", "protocol", "seed"))

    def get(self, key: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result under this key, measured now if there is none."""
        if self.key(key) not in self.rows:
            row = self.rows[self.key(key)] = {**key, **measure()}
            with open(self.file, "a", encoding="utf8") as file:
                file.write(json.dumps(row) + "\n")
            name = ", ".join(str(value) for value in self.key(key))
            print(f"{name}: AUROC {row['auroc']:.3f}, AP {row['ap']:.3f}, {row['seconds']:.1f} s", flush=True)
        return self.rows[self.key(key)]


def run(
    tables: dict[str, tuple[Array, Array]],
    detectors: dict[str, Detector],
    protocols: Sequence[str],
    seeds: int,
    kept: Kept,
    stored: bool = False,
) -> list[dict[str, Any]]:
    """All results, in the order of seeds, protocols, tables and detectors; only the kept ones if `stored`."""
    return [
        kept.get(key, lambda detect=detect, x=x, y=y, key=key: measured(detect, x, y, key["seed"], key["protocol"]))
        for seed in range(seeds)
        for protocol in protocols
        for table, (x, y) in tables.items()
        for name, detect in detectors.items()
        if name not in ONLY_NORMAL or protocol == "normal rows"
        for key in [{"table": table, "detector": name, "protocol": protocol, "seed": seed}]
        if not stored or kept.key(key) in kept.rows
    ]


def means(rows: list[dict[str, Any]], figure: str) -> dict[str, dict[str, float]]:
    """The mean of a figure over the seeds, by detector and table."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        found.setdefault(row["detector"], {}).setdefault(row["table"], []).append(row[figure])
    return {d: {t: float(np.mean(values)) for t, values in tables.items()} for d, tables in found.items()}


def paired(mine: dict[str, float], other: dict[str, float]) -> str:
    """The mean difference over the tables, with its standard error."""
    gaps = np.array([mine[table] - other[table] for table in mine])
    return f"{gaps.mean():+.3f} ± {gaps.std(ddof=1) / np.sqrt(len(gaps)):.3f}"


def summary(rows: list[dict[str, Any]], first: str) -> list[str]:
    """A table of the detectors: mean AUROC and AP, and what `first` is ahead by, paired by table."""
    auroc, ap, seconds = (means(rows, figure) for figure in ("auroc", "ap", "cpu"))
    lines = [
        f"| detector | AUROC | {first} ahead by | AP | {first} ahead by | CPU s per table |",
        "|---|---|---|---|---|---|",
    ]
    for name in auroc:
        gaps = ["", ""] if name == first else [paired(figure[first], figure[name]) for figure in (auroc, ap)]
        a, p, s = (float(np.mean(list(figure[name].values()))) for figure in (auroc, ap, seconds))
        used, most = (len({r["seed"] for r in rows if r["detector"] in names}) for names in ([name], auroc))
        fewer = "" if used == most else f" ({used} seed{'s' * (used > 1)})"
        lines.append(f"| {name}{fewer} | {a:.3f} | {gaps[0]} | {p:.3f} | {gaps[1]} | {s:.1f} |")
    return lines


def details(rows: list[dict[str, Any]]) -> list[str]:
    """AUROC / AP of each detector on each table."""
    auroc, ap = (means(rows, figure) for figure in ("auroc", "ap"))
    lines = [f"| table | {' | '.join(auroc)} |", "|---" * (len(auroc) + 1) + "|"]
    for table in next(iter(auroc.values())):
        lines.append(f"| {table} | " + " | ".join(f"{auroc[d][table]:.3f} / {ap[d][table]:.3f}" for d in auroc) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=TABLES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--protocol", choices=PROTOCOLS, action="append", help="by default both")
    parser.add_argument("--only", action="append", help="one of these detectors; may be repeated")
    parser.add_argument("--rows", type=int, help="thin larger tables to about this many rows")
    parser.add_argument("--kept", type=Path, default=RUNS / "results.jsonl", help="the file of results")
    parser.add_argument("--stored", action="store_true", help="measure nothing, and write pages of the kept results")
    parser.add_argument("--no-docs", action="store_true", help="print the summary, and write no pages")
    asked = parser.parse_args()
    tables = read(asked.folder, asked.rows)
    if asked.folder == TABLES:
        tables |= shipped()
    detectors = {name: d for name, d in DETECTORS.items() if not asked.only or name in asked.only}
    protocols = asked.protocol or PROTOCOLS
    rows = run(tables, detectors, protocols, asked.seeds, Kept(asked.kept), asked.stored)
    first = next(iter(detectors))
    out = [
        "# Anomalies",
        "",
        f"Made by `make bench-anomalies`: {len(tables)} tables, {asked.seeds} seed{'s' * (asked.seeds > 1)}, every "
        "detector with its defaults.",
        "Each seed splits a table into 70% training and 30% test rows. *AUROC* (area under the ROC curve) and *AP*",
        "(average precision) are measured on the test rows and averaged over seeds and tables; higher is better.",
        "*vaekit ahead by* is the mean of vaekit minus the other detector, paired by table, with its",
        "[standard error](glossary.md#standard-error).",
        "",
        "*vaekit* is `VAEDetector`, whose recipe is `robust`. It holds out 30% of its training rows for validation and",
        "the threshold, so its model is trained on fewer rows than the other detectors. *vaekit, recipe vae* is",
        "`VAEEstimator`, the default model of tables, which maps columns by their quantiles. The defaults of vaekit",
        "were chosen on other tables ([defaults](defaults.md)), with one exception: a model without the map was first",
        "tried because recipe `vae` had low results on thyroid and cardio. That it is better was then found on the",
        "other tables.",
        "",
        "In the tables of scikit-learn, the anomalies are one class (malignant tumours, the digit 0, the first",
        "cultivar of wine), thinned to a tenth of the rows.",
        "",
    ]
    titles = {
        "unsupervised": "Unsupervised: anomalies among the training rows",
        "normal rows": "Trained on normal rows only",
    }
    for protocol in protocols:
        among = [row for row in rows if row["protocol"] == protocol]
        used = len({row["seed"] for row in among})
        out += [f"## {titles[protocol]}", ""]
        if used < asked.seeds:
            out += [f"This section has {used} seed{'s' * (used > 1)}.", ""]
        compared = first
        if protocol == "normal rows" and ONLY_NORMAL[-1] in detectors:
            compared = ONLY_NORMAL[-1]
            out += [
                '*vaekit, trim 0, mixture* is `VAEDetector(settings={"trim": 0, "prior": "mixture"})`, which',
                "[the guide](guides/anomalies.md) recommends if the training rows are known to be normal. In this",
                "section, the other detectors are compared with it. *vaekit, trim 0* has the standard normal prior.",
                "The mixture was first tried because the Gaussian mixture was ahead of vaekit on these rows. That it",
                "is better was then found on other tables ([defaults](defaults.md#detection)).",
                "",
            ]
        out += [*summary(among, compared), ""]
        if asked.folder == TABLES:
            own = [row for row in among if row["table"] not in SHIPPED]
            out += ["Without the tables of scikit-learn, which are the last three in the list of tables below:", ""]
            out += [*summary(own, compared), ""]
        out += ["AUROC / AP by table:", "", *details(among), ""]
    out += [f"torch {torch.__version__}, Python {platform.python_version()}, {torch.get_num_threads()} thread(s).", ""]
    print("\n".join(out))
    if not asked.no_docs:
        write_json(DOCS / "anomalies.json", rows)
        write_text(DOCS / "anomalies.md", "\n".join(out))


if __name__ == "__main__":
    main()
