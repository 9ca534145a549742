"""Compare likelihoods on gene counts of cells: python bench/counts.py FILE.npz

FILE holds the single cells of Tian et al. (2019): `counts` (N, genes), `label` (cell lines), `batch`, `demuxlet_class`
(cells other than SNG are left out of the results on lines and batches). Trains each model once, about a minute each on
2 cores. Resumable; runs are kept in bench/.runs/counts. Writes docs/counts.md.

All likelihoods are compared as probabilities of the counts. For a Gaussian this is the mass of the count's bin,
P(k) = F(k + 1/2) - F(k - 1/2), with the lowest bin open below; for log(1 + counts) the bin's ends are transformed, too.
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
from vaekit.metrics import per_datum, standard_error
from vaekit.metrics.codes import cluster_agreement, knn_correct, silhouettes
from vaekit.noise import Noise
from vaekit.objectives.terms import log_mean_weight, rate
from vaekit.utils.files import write_json, write_text

HERE = Path(__file__).parent
RUNS, DOCS = HERE / ".runs" / "counts", HERE.parent / "docs"
SAMPLES, LATENT, EPOCHS, PATIENCE = 100, 10, 300, 30
MODELS: dict[str, dict[str, Any]] = {
    "negative binomial": {"likelihood": "negative-binomial"},
    "negative binomial, conditioned on batch": {"likelihood": "negative-binomial", "condition": "batch"},
    "zero-inflated": {"likelihood": "zero-inflated"},
    "Poisson": {"likelihood": "poisson"},
    "Gaussian": {"likelihood": "gaussian", "sigma": "learned"},
    "Gaussian on log(1 + count)": {"likelihood": "gaussian", "sigma": "learned"},
}
LOG = "Gaussian on log(1 + count)"


def bins(run: vk.Run, raw: np.ndarray, log: bool, k: int) -> np.ndarray:
    """log P(x) of counts (N, genes) under a Gaussian's bin masses, from k importance samples: (N,)."""
    low, high = raw - 0.5, raw + 0.5
    if log:
        low, high = np.log1p(np.maximum(low, -0.5)), np.log1p(high)
    log_weights = []
    with torch.no_grad():
        for a in range(0, len(raw), 50):
            block = slice(a, a + 50)
            x, x_low, x_high = (
                run.composition.observation(torch.from_numpy(np.asarray(v[block], np.float32)))
                for v in (np.log1p(raw) if log else raw, low, high)
            )
            trace = run.model.trace(x, k=k, noise=Noise.of(0, len(x), a))
            (latent,) = trace.latents
            normal = trace.px.base_dist
            masses = log_mass(normal.loc, normal.scale, x_low, x_high, torch.from_numpy(raw[block] == 0))
            weights = masses.sum(-1) + latent.log_p - latent.log_q
            log_weights.append(log_mean_weight(weights))
    return torch.cat(log_weights).double().numpy()


def log_mass(loc: Tensor, scale: Tensor, low: Tensor, high: Tensor, lowest: Tensor) -> Tensor:
    """Log of a normal's mass between low and high, computed in the smaller tail; where `lowest`, low is -inf."""
    a, b = (low - loc) / scale, (high - loc) / scale
    right = a > 0  # use symmetry to move both ends to the left half, where differences keep their precision
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
    # a conditional run appends its condition to the latents: leave it out
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
    parser.add_argument("--anew", action="store_true", help="delete the kept runs and train again")
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
        f"Made by `python bench/counts.py FILE.npz`: {len(data.train):,} training cells, {len(data.test)} test cells, "
        f"{counts.shape[1]:,} genes.",
        f"Each model has {LATENT} [latents](glossary.md#latent) and trains for at most {EPOCHS} epochs; it stops after "
        f"{PATIENCE} epochs without improvement.",
        "",
        f"- *log P(x)*: the [importance-weighted bound](glossary.md#importance-weighted-bound) of {SAMPLES} samples on",
        "  the log-probability of a test cell's counts, in [nats](glossary.md#nats). For a Gaussian, the probability",
        "  of a count k is the mass between k - 1/2 and k + 1/2.",
        "- *minus negative binomial*: the mean difference of log P(x) from the first row, paired by cell, with its",
        "  [standard error](glossary.md#standard-error).",
        "- *rate*: the [KL term](glossary.md#rate).",
        "- *kNN*: how often the 10 nearest neighbours in latent space predict the cell line or batch of a test cell.",
        f"  Only the {singlets} test cells that demultiplexing marks as single cells are used.",
        "- *ARI*: the adjusted Rand index of k-means clusters of these cells against the cell lines.",
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
