"""Measure what each default of tables is worth: python bench/defaults.py FOLDER

FOLDER holds tables as NAME.npz with `X` (rows, columns) and `y` (1 for an anomaly). The published page used 23 tables
of ADBench (Han et al. 2022, arXiv:2206.09426) that bench/anomalies.py does not use, and that come from other sources
than those: ALOI, campaign, cover, donors, fault, Hepatitis, http, Lymphography, magic.gamma, mammography, mnist, musk,
PageBlocks, shuttle, skin, smtp, SpamBase, Stamps, vertebral, Waveform, Wilt, WPBC and yeast.

Each variant differs from the defaults in one setting and is trained and measured as in bench/anomalies.py, without
labels, on tables thinned to ROWS rows. Columns of the page: AUROC, average precision, and the mean log p(x) of the
normal test rows in nats. Resumable: results are kept in bench/.runs/anomalies/defaults.jsonl. Writes
docs/defaults-measured.json, and the last section of docs/defaults.md, whose other sections are written by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from anomalies import DOCS, RUNS, Array, Kept, measured, read, split

from vaekit.utils.files import write_json, write_text

ROWS, PROTOCOL = 1000, "unsupervised"
HEADING = "## Measured with vaekit itself"
"""The heading of the section of docs/defaults.md that this program writes."""

VARIANTS: dict[str, tuple[str, Callable[[int, int], dict[str, Any]]]] = {
    "defaults": ("", lambda n, dims: {}),
    "latent = columns // 4": ("number of latents", lambda n, dims: {"latent": max(1, min(16, dims // 4))}),
    "latent = columns": ("number of latents", lambda n, dims: {"latent": dims}),
    "sigma shared": ("sigma", lambda n, dims: {"sigma": "shared"}),
    "sigma each": ("sigma", lambda n, dims: {"sigma": "each"}),
    "sigma learned": ("sigma", lambda n, dims: {"sigma": "learned"}),
    "student-t": ("likelihood", lambda n, dims: {"likelihood": "student-t"}),
    "student-t, sigma learned": ("likelihood", lambda n, dims: {"likelihood": "student-t", "sigma": "learned"}),
    "50 epochs": ("length", lambda n, dims: {"epochs": 50}),
    "no early stopping": ("length", lambda n, dims: {"patience": 0}),
    "random start": ("start", lambda n, dims: {}),
    "hidden = 300 300": ("networks", lambda n, dims: {"hidden": (300, 300)}),
    "standardised": ("observation", lambda n, dims: {"observation": "standardised"}),
    "recipe robust": ("recipe", lambda n, dims: {"recipe": "robust"}),
    "recipe robust, trim = 0": ("recipe", lambda n, dims: {"recipe": "robust", "trim": 0.0}),
    "mixture prior": ("prior", lambda n, dims: {"prior": "mixture", "components": 10}),
}
"""The variants by name: what they vary, and their settings for n training rows of `dims` columns."""


@contextlib.contextmanager
def started(name: str) -> Iterator[None]:
    """Leaves out the start as factor analysis for the variant without it."""
    if name != "random start":
        yield
    else:
        with mock.patch("vaekit.recipes.parts.start_as_factors"):
            yield


def result(name: str, x: Array, y: Array, seed: int) -> dict[str, Any]:
    """The figures of one variant on one split."""
    from vaekit.sklearn import VAEEstimator

    seen: dict[str, Any] = {}

    def detect(train: Array, test: Array, seed: int) -> Array:
        settings = VARIANTS[name][1](len(train), train.shape[1])
        own = {key: settings.pop(key) for key in ("recipe", "latent", "epochs") if key in settings}
        with started(name):
            fitted = VAEEstimator(random_state=seed, settings=settings, **own).fit(train)
        scores = fitted.score_samples(test)
        normal = split(x, y, seed, PROTOCOL)[2] == 0
        seen.update(logp=float(np.mean(scores[normal])), steps=fitted.run_.config["step"])
        return -scores

    return measured(detect, x, y, seed, PROTOCOL) | seen


def line(name: str, rows: dict[str, dict[str, list[float]]], base: dict[str, dict[str, list[float]]]) -> str:
    """A row of the page: the difference from the defaults on each figure, paired by table."""
    cells = []
    for figure in ("auroc", "ap", "logp"):
        gaps = np.array([np.mean(rows[t][figure]) - np.mean(base[t][figure]) for t in rows])
        digits = 2 if figure == "logp" else 3
        cells.append(f"{gaps.mean():+.{digits}f} ± {gaps.std(ddof=1) / np.sqrt(len(gaps)):.{digits}f}")
    cpu = float(np.mean([np.mean(r["cpu"]) for r in rows.values()]))
    return f"| {name} | {VARIANTS[name][0]} | {' | '.join(cells)} | {cpu:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", action="append", help="one of these variants; may be repeated")
    parser.add_argument("--no-docs", action="store_true", help="print the page, and do not write it")
    parser.add_argument("--kept", type=Path, default=RUNS / "defaults.jsonl", help="the file of results")
    asked = parser.parse_args()
    tables, kept = read(asked.folder, ROWS), Kept(asked.kept)
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for name in [v for v in VARIANTS if not asked.only or v in asked.only or v == "defaults"]:
        for seed in range(asked.seeds):
            for table, (x, y) in tables.items():
                key = {"table": table, "detector": name, "protocol": PROTOCOL, "seed": seed}
                row = kept.get(key, lambda name=name, x=x, y=y, seed=seed: result(name, x, y, seed))
                figures = found.setdefault(name, {}).setdefault(table, {})
                for figure in ("auroc", "ap", "logp", "cpu"):
                    figures.setdefault(figure, []).append(row[figure])
    base = found["defaults"]
    level = {f: float(np.mean([np.mean(r[f]) for r in base.values()])) for f in ("auroc", "ap", "logp", "cpu")}
    seeds = "1 seed" if asked.seeds == 1 else f"{asked.seeds} seeds"
    out = [
        HEADING,
        "",
        f"Made by `python bench/defaults.py FOLDER`: {len(tables)} tables of ADBench, thinned to about {ROWS:,} rows,",
        f"{seeds}, trained without labels on 70% of the rows, anomalies among them. *AUROC* and *AP* (average",
        "precision) say how well log p(x) finds the anomalies in the other 30%; *log p* is that of the normal rows",
        "among these, in [nats](glossary.md#nats). With the defaults they are "
        f"{level['auroc']:.3f}, {level['ap']:.3f} and",
        f"{level['logp']:.2f}, in {level['cpu']:.1f} CPU seconds per table.",
        "Each line changes one setting; differences are paired by table, with their",
        "[standard error](glossary.md#standard-error). None of these tables is among those of",
        "[anomalies](anomalies.md).",
        "",
        "| instead of the default | of | AUROC | AP | log p | CPU s per table |",
        "|---|---|---|---|---|---|",
        *(line(name, rows, base) for name, rows in found.items() if name != "defaults"),
        "",
        f"torch {torch.__version__}, Python {platform.python_version()}, {torch.get_num_threads()} threads.",
        "",
    ]
    print("\n".join(out))
    if not asked.no_docs:
        write_json(DOCS / "defaults-measured.json", list(kept.rows.values()))
        page = (DOCS / "defaults.md").read_text(encoding="utf8").split(HEADING)[0].rstrip()
        write_text(DOCS / "defaults.md", "\n".join([page, "", *out]))


if __name__ == "__main__":
    main()
