"""Counts of genes in cells, likelihood against likelihood: python bench/counts.py FILE.npz

For the single cells of Tian et al. (2019): `counts` (N, genes), `label` with the cell lines, `batch`, `demuxlet_class`
(cells that are not SNG are left out of what is said about lines). Trains each model once, about a minute each on
2 cores; resumable (runs are kept in bench/.runs/counts). Writes docs/counts.md.

All likelihoods are compared as probabilities of the very counts. A Gaussian is given the mass of its bin,
P(k) = F(k + 1/2) - F(k - 1/2) with the lowest bin open below, on the counts and on log(1 + counts).
"""

from __future__ import annotations

import argparse
import platform
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vaekit as vk
from vaekit.files import write_json, write_text
from vaekit.metrics import per_datum, standard_error
from vaekit.metrics.codes import cluster_agreement, knn_correct, silhouettes
from vaekit.noise import Noise
from vaekit.terms import log_mean_weight, rate

HERE = Path(__file__).parent
RUNS, DOCS = HERE / ".runs" / "counts", HERE.parent / "docs"
SAMPLES, LATENT, EPOCHS, PATIENCE = 100, 10, 300, 30
MODELS: dict[str, dict[str, Any]] = {
    "negative binomial": {"likelihood": "negative-binomial"},
    "negative binomial, told the batch": {"likelihood": "negative-binomial", "condition": "batch"},
    "zero-inflated": {"likelihood": "zero-inflated"},
    "Poisson": {"likelihood": "poisson"},
    "Gaussian": {"likelihood": "gaussian", "sigma": "learned"},
    "Gaussian on log(1 + count)": {"likelihood": "gaussian", "sigma": "learned"},
}
LOG = "Gaussian on log(1 + count)"


def bins(run: vk.Run, raw: np.ndarray, log: bool, k: int) -> np.ndarray:
    """log P(x) of counts (N, genes) under a Gaussian's masses of bins, by K importance samples: (N,)."""
    low, high = raw - 0.5, raw + 0.5
    if log:
        low, high = np.log1p(np.maximum(low, -0.5)), np.log1p(high)
    found = []
    with torch.no_grad():
        for a in range(0, len(raw), 50):
            some = slice(a, a + 50)
            x, x_low, x_high = (
                run.composition.observation(torch.from_numpy(np.asarray(v[some], np.float32)))
                for v in (np.log1p(raw) if log else raw, low, high)
            )
            trace = run.model.trace(x, k=k, noise=Noise.of(0, len(x), a))
            (latent,) = trace.latents
            normal = trace.px.base_dist
            masses = log_mass(normal.loc, normal.scale, x_low, x_high, torch.from_numpy(raw[some] == 0))
            weights = masses.sum(-1) + latent.log_p - latent.log_q
            found.append(log_mean_weight(weights))
    return torch.cat(found).double().numpy()


def log_mass(loc: Tensor, scale: Tensor, low: Tensor, high: Tensor, lowest: Tensor) -> Tensor:
    """log of a normal's mass between low and high, by the smaller of its tails; from below where `lowest`."""
    a, b = (low - loc) / scale, (high - loc) / scale
    right = a > 0  # by symmetry: both ends moved to the left half, where differences keep their digits
    a, b = torch.where(right, -b, a).double(), torch.where(right, -a, b).double()
    log_b, log_a = torch.special.log_ndtr(b), torch.special.log_ndtr(a)
    inside = log_b + torch.log(-torch.expm1((log_a - log_b).clamp(max=-1e-12)))
    return torch.where(lowest, torch.special.log_ndtr(((high - loc) / scale).double()), inside)


def measured(name: str, data: vk.Data, raw: np.ndarray, lines: dict[str, np.ndarray]) -> dict[str, Any]:
    path = RUNS / "".join(c if c.isalnum() else "-" for c in name)
    run = vk.fit(
        data, "vae", latent=LATENT, epochs=EPOCHS, patience=PATIENCE, out=path, resume=(path / "run.json").exists(),
        **MODELS[name],
    )  # fmt: skip
    if name.startswith("Gaussian"):
        log_px = bins(run, raw, name == LOG, SAMPLES)
    else:
        log_px = per_datum(run, run.observed("test"), SAMPLES).log_px
    parts = {"train": data.train, "test": data.test}
    single = {part: split.columns["demuxlet_class"] == "SNG" for part, split in parts.items()}
    # what comes after the latents of a conditional run was told, not found
    train, test = (run.encode(part)[single[part], :LATENT] for part in parts)
    line, batch = (
        [known[s.index][single[part]] for part, s in parts.items()] for known in (lines["line"], lines["batch"])
    )
    observed = run.observed("test")
    rows = np.arange(observed.n)
    with torch.no_grad():
        trace = run.model.trace(observed(rows), observed.condition(rows), noise=Noise.of(0, observed.n))
    return {
        "steps": run.config["step"],
        "log_px": log_px.tolist(),
        "rate": float(rate(trace).mean()),
        "line": float(knn_correct(train, line[0], test, line[1]).mean()),
        "ari": float(cluster_agreement(test, line[1]).mean()),
        "batch": float(knn_correct(train, batch[0], test, batch[1]).mean()),
        "batch_silhouette": float(silhouettes(test, batch[1]).mean()),
        "singlets": len(test),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--anew", action="store_true", help="forget the runs that are kept")
    asked = parser.parse_args()
    if asked.anew:
        shutil.rmtree(RUNS, ignore_errors=True)
    data = vk.load(asked.file, test=0.2)
    with np.load(asked.file) as file:
        counts, columns = file["counts"].astype(np.float32), {k: file[k] for k in ("label", "batch", "demuxlet_class")}
        lines = {"line": columns["label"], "batch": columns["batch"]}
    indices = {part: getattr(data, part).index for part in ("train", "valid", "test")}
    logs = vk.from_arrays(
        np.log1p(counts), label=columns["label"], columns=columns, kind="vector", splits=indices, name="log1p"
    )
    raw = counts[data.test.index]
    rows = {name: measured(name, logs if name == LOG else data, raw, lines) for name in MODELS}
    write_json(DOCS / "counts.json", rows)
    reference = np.array(rows["negative binomial"]["log_px"])
    singlets = rows["Poisson"]["singlets"]
    out = [
        "# Counts",
        "",
        f"Made by `python bench/counts.py FILE.npz`: {len(data.train):,} cells to train on, {len(data.test)} to test, "
        f"{counts.shape[1]:,} genes;",
        f"{LATENT} latents, at most {EPOCHS} epochs, stopped when {PATIENCE} epochs bring nothing. log P is the",
        f"importance-weighted bound of {SAMPLES} samples on the log-probability of a test cell's counts, in nats; the",
        "difference to the negative binomial is paired by cell, with its standard error. A Gaussian is given the mass",
        f"of each count's bin. Lines and batches by 10 nearest neighbours in the latents, {singlets} test cells that",
        "demultiplexing calls singlets; ARI is of k-means on them against the lines.",
        "",
        "| likelihood | steps | log P(x) | minus negative binomial | rate | cell line, kNN | ARI | batch, kNN |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        log_px = np.array(row["log_px"])
        gap = log_px - reference
        difference = "0" if name == "negative binomial" else f"{gap.mean():+.1f} ± {standard_error(gap):.1f}"
        out.append(
            f"| {name} | {row['steps']:,} | {log_px.mean():.1f} ± {standard_error(log_px):.1f} | {difference} | "
            f"{row['rate']:.1f} | {row['line']:.3f} | {row['ari']:.2f} | {row['batch']:.3f} |"
        )
    out += [
        "",
        f"torch {torch.__version__}, Python {platform.python_version()}, {torch.get_num_threads()} threads.",
        "",
    ]
    write_text(DOCS / "counts.md", "\n".join(out))
    print("\n".join(out))


if __name__ == "__main__":
    main()
