"""Compare models of single cells with scvi-tools: python bench/cells.py FILE.npz [--epochs N] [--peers PYTHON]

FILE holds the cells of Tian et al. (2019): `counts` (N, genes), `label` (cell lines), `batch`, `demuxlet_class` (cells
other than SNG are left out of the results on lines and batches). All models get the same training and test cells, the
batch as a covariate, 10 latents, one hidden layer of 128 ReLUs, batches of 128 and as many epochs, without early
stopping, from seed 0. scVI raises the weight of its KL over all epochs, as it does by default at 400 epochs. Each tool
is also trained for 400 epochs, scVI with its own defaults.

scvi-tools runs in its own environment, whose Python is `--peers` or `VAEKIT_PEERS`: python -m venv peers;
peers/bin/pip install scvi-tools. Without one, only vaekit is measured. Resumable: each part is kept in
bench/.runs/cells (--anew starts again); one thread. Writes docs/cells.json and docs/cells.md.

log p is estimated by importance sampling. With an observed library size it is log p(x | total), by each tool's own
estimator with 100 samples. With a latent one it is log p(x), for both tools by one estimator (`without_library`): 1,000
samples of z from the encoder, and for each of them a library size from a Gaussian at the maximum of p(x, library size |
z). The tools' own estimators draw the library size from the encoder, which is inaccurate early in training; the page
has their values too. Compare only equal kinds of log p. Cells per second are training cells per CPU second of the
training process, preparations included. Their ratio is measured separately: two processes, one per tool, train new
models in alternation, 50 epochs each time, preparations included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

HERE = Path(__file__).parent
KEPT, DOCS = HERE / ".runs" / "cells", HERE.parent / "docs"
SAMPLES, MANY, LATENT, BATCH, HIDDEN, NEIGHBOURS = 100, 1000, 10, 128, 128, 30
PARTS: dict[str, dict[str, Any]] = {
    "vaekit, observed": {"library": "observed"},
    "scVI, observed": {"use_observed_lib_size": True, "gene_likelihood": "nb"},
    "vaekit, latent": {"library": "latent"},
    "scVI, latent": {"use_observed_lib_size": False, "gene_likelihood": "nb"},
    "scVI defaults, 400 epochs": {},
    "vaekit, observed, 400 epochs": {"library": "observed"},
    "scVI, latent, 400 epochs": {"use_observed_lib_size": False, "gene_likelihood": "nb"},
    "vaekit, latent, 400 epochs": {"library": "latent"},
}
"""Models by name, in the order of measurement. scVI's defaults are zero-inflated with an observed library size."""
LONG = 400
PACE_EPOCHS, PACES = 50, 4
SHAPE, DENSITY = (3000, 20_000), 0.05


def split(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of train, valid and test."""
    order = np.random.default_rng(0).permutation(n)
    return np.sort(order[: int(0.7 * n)]), np.sort(order[int(0.7 * n) : int(0.8 * n)]), np.sort(order[int(0.8 * n) :])


def epochs_of(name: str, epochs: int) -> int:
    """The epochs of a part."""
    return LONG if name.endswith(f"{LONG} epochs") else epochs


def train_vaekit(file: Path, choices: dict[str, Any], out: Path, epochs: int, compile: str) -> tuple[Any, float]:
    """Train a model of vaekit; returns the run and the CPU seconds."""
    import vaekit as vk

    with np.load(file) as stored:
        counts, batch = stored["counts"], stored["batch"]
    rows = dict(zip(("train", "valid", "test"), split(len(counts)), strict=True))
    data = vk.from_arrays(counts, kind="counts", columns={"batch": batch}, splits=rows)
    before = cpu_seconds()
    run = vk.fit(
        data, condition="batch", latent=LATENT, hidden=(HIDDEN,), activation="relu", batch=BATCH,
        steps=epochs * len(rows["train"]) // BATCH, out=out, exists="replace", device="cpu", compile=compile,
        progress=False, **choices,
    )  # fmt: skip
    return run, cpu_seconds() - before


def of_vaekit(file: Path, choices: dict[str, Any], out: Path, epochs: int, compile: str) -> dict[str, Any]:
    """Train and measure a model of vaekit."""
    run, seconds = train_vaekit(file, choices, out, epochs, compile)
    codes = {part: run.encode(part)[:, :LATENT] for part in ("train", "test")}
    log_p = run.score("test", samples=SAMPLES)
    speed = epochs * len(run.data.train) / seconds
    more = {"compiled": run.config["decided"]["compile"]}
    if choices["library"] == "latent":
        more |= {"own": float(log_p.mean())}
        log_p = integrated_vaekit(run)
    return measured(codes, log_p, speed, seconds) | more


def integrated_vaekit(run: Any) -> np.ndarray:
    """log p of the test cells of a run with a latent library size, by `without_library`."""
    import torch
    from torch.distributions import Normal

    model, cells = run.model, run.observed("test")
    total = model.likelihood.net.total
    log_p = []
    for rows in np.array_split(np.arange(cells.n), 9):
        x, c = cells(rows), cells.condition(rows)
        q = model.posterior(x, c).base_dist
        q, like = Normal(q.loc[:, :-1], q.scale[:, :-1]), torch.log(x.sum(-1, keepdim=True))

        def shares(z: Any, c: Any = c, like: Any = like) -> tuple[Any, Any]:
            px = model.likelihood(torch.cat([z, (like - total.centre) / total.spread], -1), c).base_dist
            return px.log_mean - like, px.log_inverse_dispersion[0]

        log_p.append(without_library(x, q, Normal(total.centre, total.spread), shares))
    return np.concatenate(log_p)


def without_library(x: Any, q: Any, prior: Any, shares: Any) -> np.ndarray:
    """log p(x) in nats (B,), of negative binomials whose means are shares of a total.

    Arguments:
        x: counts (B, genes).
        q: q(z | x), (B, D); its draws are the proposals of z.
        prior: p(log total), which broadcasts to (B, 1).
        shares: z (B, D) -> the logarithms of the shares (B, genes) and of the inverse dispersions (genes,).

    For each z the log total is drawn from a Gaussian at the maximum of p(x, log total | z) with 1.1 times the width
    that its curvature gives.
    """
    import torch
    from torch.distributions import Normal

    torch.manual_seed(0)
    weights, x = [], x.double()
    with torch.no_grad():
        for _ in range(MANY):
            z = q.sample()
            log_share, log_r = (t.double() for t in shares(z))
            r, share = log_r.exp(), log_share.exp()
            if not weights:
                constant = torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1) + r * log_r
                constant = constant.double().sum(-1)
            at = torch.log(x.sum(-1, keepdim=True))
            for _ in range(5):  # Newton's method
                mean = share * at.exp()
                s = mean / (mean + r)
                slope = (x - (x + r) * s).sum(-1, keepdim=True) - (at - prior.loc) / prior.scale**2
                bent = ((x + r) * s * (1 - s)).sum(-1, keepdim=True) + prior.scale**-2
                at = at + slope / bent
            proposal = Normal(at, 1.1 * bent.rsqrt())
            log_total = proposal.sample()
            log_mean = log_share + log_total
            log_px = (x * log_mean - (x + r) * torch.log(r + log_mean.exp())).double().sum(-1) + constant
            ratios = Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)
            library = prior.log_prob(log_total) - proposal.log_prob(log_total)
            weights.append(log_px + ratios.sum(-1) + library.sum(-1))
    found: np.ndarray = (torch.logsumexp(torch.stack(weights), 0) - np.log(MANY)).numpy()
    return found


def cpu_seconds() -> float:
    """CPU seconds of this process and of those that it has waited for, such as compilers."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def train_scvi(file: Path, choices: dict[str, Any], epochs: int, warm: bool) -> tuple[Any, Any, float]:
    """Train a model of scvi-tools; returns it, all cells and the CPU seconds. Needs the environment of the peers."""
    import anndata
    import pandas as pd
    import scvi
    import torch

    torch.set_num_threads(1)
    scvi.settings.seed = 0
    with np.load(file) as stored:
        counts, batch = stored["counts"].astype(np.float32), stored["batch"].astype(str)
    cells = anndata.AnnData(counts, obs=pd.DataFrame({"batch": pd.Categorical(batch)}))
    mine = cells[split(len(counts))[0]].copy()
    scvi.model.SCVI.setup_anndata(mine, batch_key="batch")
    before = cpu_seconds()
    model = scvi.model.SCVI(mine, **choices)
    model.train(
        max_epochs=epochs, batch_size=BATCH, train_size=1.0, accelerator="cpu", enable_progress_bar=False, logger=False,
        plan_kwargs={"n_epochs_kl_warmup": epochs} if warm else None,
    )  # fmt: skip
    return model, cells, cpu_seconds() - before


def of_scvi(file: Path, choices: dict[str, Any], epochs: int) -> dict[str, Any]:
    """Train and measure a model of scvi-tools."""
    model, cells, seconds = train_scvi(file, choices, epochs, warm=bool(choices))
    train, _, test = split(cells.n_obs)
    other = cells[test].copy()
    codes = {"train": model.get_latent_representation(), "test": model.get_latent_representation(other)}
    more: dict[str, Any] = {}
    log_p = np.asarray(model.get_marginal_ll(other, n_mc_samples=SAMPLES, return_mean=False, batch_size=32)).ravel()
    if choices.get("use_observed_lib_size") is False:
        more = {"own": float(log_p.mean())}
        log_p, more["library_error"], more["library_scale"] = integrated_scvi(model, other)
    return measured(codes, log_p, epochs * len(train) / seconds, seconds) | more


def integrated_scvi(model: Any, cells: Any) -> tuple[np.ndarray, float, float]:
    """As `integrated_vaekit`; also the root mean square error of the encoder's log library size, and its mean width."""
    import torch
    from torch.distributions import Normal

    module, log_p, errors, scales = model.module.eval(), [], [], []
    for tensors in model._make_data_loader(adata=cells, batch_size=32):
        x, batch = tensors["X"], tensors["batch"]
        with torch.no_grad():
            found = module.inference(**module._get_inference_input(tensors))
        mean, variance = module._compute_local_library_params(batch)
        log_total = torch.log(x.sum(-1, keepdim=True))
        errors += (found["ql"].loc - log_total).square().ravel().tolist()
        scales += found["ql"].scale.ravel().tolist()

        def shares(z: Any, batch: Any = batch, library: Any = log_total, y: Any = tensors["labels"]) -> tuple[Any, Any]:
            px = module.generative(z=z, library=library, batch_index=batch, y=y)["px"]
            return torch.log(px.scale), torch.log(px.theta).reshape(-1, px.scale.shape[-1])[0]

        log_p.append(without_library(x, found["qz"], Normal(mean, variance.sqrt()), shares))
    return np.concatenate(log_p), float(np.sqrt(np.mean(errors))), float(np.mean(scales))


def pace(name: str, file: Path, compile: str) -> None:
    """Train a new model for each line of the input, and print the CPU seconds."""
    for _ in sys.stdin:
        if name.startswith("vaekit"):
            seconds = train_vaekit(file, PARTS[name], KEPT / "pace", PACE_EPOCHS, compile)[1]
        else:
            seconds = train_scvi(file, PARTS[name], PACE_EPOCHS, warm=True)[2]
        print(f"seconds {seconds}", flush=True)


def paces(file: Path, pythons: dict[str, str], kind: str, compile: str) -> dict[str, list[float]]:
    """CPU seconds of both tools, trained in alternation; the first of each, which imports, is left out."""
    workers = {
        tool: subprocess.Popen(
            [python, __file__, str(file), "--pace", f"{tool}, {kind}", "--compile", compile],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for tool, python in pythons.items()
    }  # fmt: skip
    seconds: dict[str, list[float]] = {tool: [] for tool in workers}
    for _ in range(PACES + 1):
        for tool, worker in workers.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write("next\n")
            worker.stdin.flush()
            line = next(line for line in worker.stdout if line.startswith("seconds"))
            seconds[tool].append(float(line.split()[1]))
    for worker in workers.values():
        worker.communicate()
    return {tool: values[1:] for tool, values in seconds.items()}


def measured(codes: dict[str, np.ndarray], log_p: np.ndarray, speed: float, seconds: float) -> dict[str, Any]:
    """The results of one model as JSON."""
    return {
        "log_p": [float(value) for value in log_p],
        "cells_per_second": speed,
        "seconds": seconds,
        "codes": {part: np.round(z.astype(np.float64), 5).tolist() for part, z in codes.items()},
    }


def memory() -> dict[str, Any]:
    """Peak memory of training on a sparse matrix, beyond that of the process before it, in MB."""
    from scipy import sparse

    import vaekit as vk

    x = sparse.random(*SHAPE, DENSITY, format="csr", random_state=0, data_rvs=lambda n: np.ones(n, np.float32))
    x.data[:] = np.random.default_rng(0).poisson(2.0, x.nnz) + 1
    vk.fit(
        vk.from_arrays(np.eye(20, dtype=np.int32) + 1), steps=1, hidden=(4,), latent=1, progress=False, compile="off"
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    options: dict[str, Any] = {"steps": 5, "hidden": (HIDDEN,), "latent": LATENT, "batch": BATCH, "compile": "off"}
    options |= {"out": KEPT / "memory", "exists": "replace"}
    vk.fit(vk.from_arrays(sparse.csr_array(x), kind="counts"), progress=False, **options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    dense = SHAPE[0] * SHAPE[1] * 4 / 2**20
    return {"beyond": peak - before, "dense": dense, "sparse": x.nnz * 8 / 2**20}


def summary(file: Path, kept: dict[str, Any]) -> str:
    """The page with all results that exist."""
    from sklearn.neighbors import NearestNeighbors

    from vaekit.metrics import standard_error
    from vaekit.metrics.codes import cluster_agreement, knn_correct

    with np.load(file) as stored:
        label, batch, single = stored["label"], stored["batch"], stored["demuxlet_class"] == "SNG"
    train, _, test = split(len(label))
    lines = []
    for name in (name for name in PARTS if name in kept):
        result = kept[name]
        z = {part: np.array(result["codes"][part])[single[rows]] for part, rows in (("train", train), ("test", test))}
        known = {part: (label[rows][single[rows]], batch[rows][single[rows]]) for part, rows in
                 (("train", train), ("test", test))}  # fmt: skip
        near = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(z["train"]).kneighbors(z["test"], return_distance=False)
        groups = np.unique(known["train"][1])
        shares = np.stack([(known["train"][1][near] == group).mean(1) for group in groups], 1)
        entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum(1).mean()
        whole = np.array([(known["train"][1] == group).mean() for group in groups])
        mixing = entropy / -(whole * np.log(whole)).sum()
        log_p = np.array(result["log_p"])
        line = knn_correct(z["train"], known["train"][0], z["test"], known["test"][0]).mean()
        ari = cluster_agreement(z["test"], known["test"][0]).mean()
        lines.append(
            f"| {name.removesuffix(f', {LONG} epochs')} | {result['epochs']} | {log_p.mean():.1f} ± "
            f"{standard_error(log_p):.1f} | {mixing:.2f} | {line:.3f} | {ari:.2f} | "
            f"{result['cells_per_second']:,.0f} | {result['seconds']:,.0f} |"
        )
    pairs = []
    for kind in ("observed", "latent", f"latent, {LONG} epochs"):
        ours, theirs = (kept.get(f"{name}, {kind}") for name in ("vaekit", "scVI"))
        if ours and theirs:
            gap = np.array(ours["log_p"]) - np.array(theirs["log_p"])
            pairs.append(
                f"- Library size {kind.split(',')[0]}, {ours['epochs']} epochs: log p of vaekit minus that of scVI is "
                f"{gap.mean():+.1f} ± {standard_error(gap):.1f} nats per cell, paired by cell."
            )
            if "own" in theirs:
                pairs[-1] += (
                    f" The tools' own estimators ({SAMPLES} samples), which draw the library size from the encoder, "
                    f"give {theirs['own']:.1f} for scVI and {ours['own']:.1f} for vaekit. The mean of scVI's encoder "
                    f"differs from the log total by {theirs['library_error']:.2f} (root mean square), but its standard "
                    f"deviation is only {theirs['library_scale']:.2f}, so scVI's own estimate has not converged."
                )
        if speeds := kept.get(f"pace, {kind}"):
            ratios = np.array(speeds["scVI"]) / np.array(speeds["vaekit"])
            pairs.append(
                f"- Library size {kind}: vaekit trains on **{np.median(ratios):.2f} times** as many cells per CPU "
                f"second as scVI ({ratios.min():.2f} to {ratios.max():.2f}). This is the median of {len(ratios)} "
                f"ratios; for each, both tools in turn trained a new model for {PACE_EPOCHS} epochs, preparations "
                "included."
            )
    long = [kept.get(f"{name}, {LONG} epochs") for name in ("scVI defaults", "vaekit, observed")]
    if all(long):
        gap = np.array(long[1]["log_p"]) - np.array(long[0]["log_p"])
        pairs.append(
            f"- {LONG} epochs, scVI with its own defaults (zero-inflated, library size observed): log p of vaekit "
            f"minus that of scVI is {gap.mean():+.1f} ± {standard_error(gap):.1f} nats per cell, paired by cell."
        )
    if "memory" in kept:
        used = kept["memory"]
        pairs.append(
            f"- Training on a sparse matrix of {SHAPE[0]:,} x {SHAPE[1]:,} with {DENSITY:.0%} of entries above 0 adds "
            f"{used['beyond']:,.0f} MB to the memory of the process, including model, optimiser and batches. The "
            f"matrix takes {used['sparse']:,.0f} MB sparse and would take {used['dense']:,.0f} MB dense."
        )
    compiled = {kept[name]["compiled"] for name in PARTS if "compiled" in kept.get(name, {})}
    steps = "with and without" if len(compiled) == 2 else "with" if True in compiled else "without"
    made = (
        f"Made by `make bench-cells` on the cells of Tian et al. (2019), {len(train):,} for training and {len(test)} "
        f"for testing, one seed. Every model has one hidden layer of {HIDDEN} units and {LATENT} "
        "latents."
    )
    head = [
        "# Cells beside scVI",
        "",
        made,
        "",
        "- *log p*: in nats per test cell, with its standard error over cells. With library size *observed* it is log "
        "p of a cell given its total count, which each tool estimates for its own models, scVI by `get_marginal_ll`. "
        f"With *latent* it is log p of the cell, estimated for both tools in the same way: {MANY:,} draws of z from "
        "the encoder, and for each of them a library size from a Gaussian at the maximum of p(x, library size | z).",
        f"- *mixing*: entropy of the batches among the {NEIGHBOURS} nearest training cells, divided by that of all "
        "training cells; 1 if the batches are fully mixed.",
        "- *line*: share of test cells whose cell line is that of most of the 10 nearest training cells.",
        "- *ARI*: adjusted Rand index of k-means clusters of the codes and the cell lines.",
        f"- *cells/s*: training cells per CPU second, one thread; vaekit {steps} compiled training steps, as "
        "it decides by default. The models were trained at different times, while other programs ran on the machine: "
        "to compare speeds, use the ratio below.",
        "",
        "| model | epochs | log p | mixing | line | ARI | cells/s | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    made_on = f"Python {platform.python_version()}; {processor()}."
    return "\n".join([*head, *lines, "", *pairs, "", made_on, ""])


def processor() -> str:
    """The processor's vector instructions."""
    import torch

    matrix = " and AMX" if torch.cpu._is_amx_tile_supported() else ""
    return f"a processor with {torch.backends.cpu.get_cpu_capability()}{matrix}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--epochs", type=int, default=50, help="of the models at equal settings")
    parser.add_argument("--compile", default="auto", choices=("auto", "on", "off"), help="of vaekit")
    parser.add_argument("--anew", action="store_true", help="delete what is kept and measure again")
    parser.add_argument("--only", action="append", help="measure only this part; may be given several times")
    parser.add_argument("--peers", default=os.environ.get("VAEKIT_PEERS"), help="Python with scvi-tools")
    parser.add_argument("--worker", help="measure one part in this process")
    parser.add_argument("--pace", help="train one part over and over in this process")
    asked = parser.parse_args()
    if asked.pace:
        return pace(asked.pace, asked.file, asked.compile)
    KEPT.mkdir(parents=True, exist_ok=True)
    early = [name for name in PARTS if not epochs_of(name, 0)]
    parts = (*early, "pace, observed", "pace, latent", "memory", *(name for name in PARTS if name not in early))
    places = {name: KEPT / f"{''.join(c if c.isalnum() else '-' for c in name)}.json" for name in parts}
    if asked.worker:
        name, epochs = asked.worker, epochs_of(asked.worker, asked.epochs)
        if name == "memory":
            result: dict[str, Any] = memory()
        elif name.startswith("pace"):
            result = paces(asked.file, {"vaekit": sys.executable, "scVI": asked.peers}, name[6:], asked.compile)
        elif name.startswith("vaekit"):
            result = of_vaekit(asked.file, PARTS[name], places[name].with_suffix(""), epochs, asked.compile)
        else:
            result = of_scvi(asked.file, PARTS[name], epochs)
        places[name].write_text(json.dumps(result | {"epochs": epochs}))
        return None
    for place in places.values() if asked.anew else ():
        place.unlink(missing_ok=True)
    options = ["--epochs", str(asked.epochs), "--compile", asked.compile]
    options += ["--peers", asked.peers] if asked.peers else []
    for name, place in places.items():
        wanted = not asked.only or name in asked.only
        python = asked.peers if name.startswith("scVI") else sys.executable
        if wanted and not place.exists() and (asked.peers or not name.startswith(("scVI", "pace"))):
            print(f"measuring {name}", flush=True)
            subprocess.run([python, __file__, str(asked.file), "--worker", name, *options], check=True)
    kept = {name: json.loads(place.read_text()) for name, place in places.items() if place.exists()}
    page = summary(asked.file, kept)
    for result in kept.values():
        result.pop("codes", None)
    (DOCS / "cells.json").write_text(json.dumps(kept))
    (DOCS / "cells.md").write_text(page)
    print(page)
    return None


if __name__ == "__main__":
    main()
