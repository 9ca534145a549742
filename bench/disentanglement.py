"""Scores of disentanglement of 10,000 codes of dSprites: values, times and memory, beside slow implementations.

A dense VAE with 10 latents is trained on dSprites for 2,000 steps. `evaluate` then measures the family
`disentanglement` on the first 10,000 test data, with intervals, in a process of its own: the time of each metric (the
first of several with a common part bears it) and the peak memory of the process. The slow implementations
(tests/helpers/slow_disentanglement.py, with scikit-learn: one pair, vote and class at a time, as in
disentanglement_lib) compute the same scores of the same codes, without intervals; beside them the functions of vaekit,
without intervals too, are timed before and after, and the longer time counts. The votes of the slow FactorVAE and
beta-VAE scores are a hundredth of the usual number, and their times are multiplied by 100.

Writes docs/disentanglement.json and docs/disentanglement.md. About 8 minutes on one core, most of it for the slow
boosted trees. `--suite RUN` measures the family on a run and prints the times.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch

import vaekit as vk
from vaekit.data.core import listed
from vaekit.metrics import METRICS, Measurement
from vaekit.metrics import disentanglement as d
from vaekit.metrics.disentanglement.parts import Parts, parts
from vaekit.metrics.evaluation import entry
from vaekit.report.numbers import label
from vaekit.utils.files import write_json, write_text

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
sys.path.insert(0, str(HERE.parent / "tests" / "helpers"))
N, STEPS, LATENT, VOTES = 10_000, 2000, 10, 100


def suite(path: str, n: int) -> dict[str, Any]:
    """The family measured on a run: value, interval and seconds of each metric, and the peak memory in MB."""
    run = vk.open(path)
    m, found = Measurement(run, n=n), {}
    begun = time.perf_counter()
    for metric in METRICS.values():
        if metric.family == "disentanglement" and metric.lacking(m) is None:
            start = time.perf_counter()
            measured = entry(metric, m, metric.measure(m))
            interval = measured.get("interval", {})
            found[metric.name] = {
                "value": measured["value"],
                "low": interval.get("low"),
                "high": interval.get("high"),
                "seconds": time.perf_counter() - start,
            }
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"metrics": found, "seconds": time.perf_counter() - begun, "memory": memory}


def fast(z: np.ndarray, v: np.ndarray) -> dict[str, Callable[[], Any]]:
    """The scores of vaekit, without intervals."""

    def info() -> tuple[float, float]:
        matrix, kept = d.info_matrix(z, v), np.ones(z.shape[1], bool)
        return d.info_m(matrix, kept).value, d.info_c(matrix, kept).value

    def dci(predictor: Any) -> tuple[float, ...]:
        found = d.dci(z, v, predictor=predictor)
        assert found.disentanglement is not None
        return found.disentanglement.value, found.completeness.value, found.informativeness.value

    return {
        "mig": lambda: d.mig_lib(z, v).value,
        "med": lambda: d.med(z, v).value,
        "modularity": lambda: d.modularity(z, v, kept=np.ones(z.shape[1], bool)).value,
        "sap_regression": lambda: d.sap_regression(z, v).value,
        "sap_classifier": lambda: d.sap_classifier(z, v).value,
        "explicitness": lambda: d.explicitness(z, v).value,
        "info_e": lambda: d.info_e(z, v).value,
        "info_m, info_c": info,
        "factor_vae_score": lambda: d.factor_score(z, v).value,
        "beta_vae_score": lambda: d.beta_score(z, v).value,
        "dci_lasso": lambda: dci("lasso"),
        "dci": lambda: dci("trees"),
    }


def slow(z: np.ndarray, v: np.ndarray, data: Parts, raw: Parts) -> dict[str, Callable[[], Any]]:
    """The same scores by the slow implementations, of standardised codes and of `raw` ones."""
    import slow_disentanglement as reference

    def info() -> tuple[float, float]:
        matrix = reference.info_matrix(z, v)
        return reference.info_m(matrix), reference.info_c(matrix)

    few = {"votes": d.VOTES // VOTES, "tests": d.TESTS // VOTES, "size": d.SIZE}
    return {
        "mig": lambda: reference.mig(z, v),
        "med": lambda: reference.med(z, v),
        "modularity": lambda: reference.modularity(z, v),
        "sap_regression": lambda: reference.sap_regression(z, v),
        "sap_classifier": lambda: reference.sap_classifier(raw),
        "explicitness": lambda: reference.explicitness(data),
        "info_e": lambda: reference.info_e(data),
        "info_m, info_c": info,
        "factor_vae_score": lambda: reference.factor_score(z, v, **few),
        "beta_vae_score": lambda: reference.beta_score(z, v, **few),
        "dci_lasso": lambda: reference.dci_lasso(data),
        "dci": lambda: reference.dci(data),
    }


def timed(scores: dict[str, Callable[[], Any]]) -> dict[str, dict[str, Any]]:
    """The values of scores as lists, and their seconds."""
    found = {}
    for name, score in scores.items():
        start = time.perf_counter()
        value = score()
        found[name] = {
            "value": [float(x) for x in (value if isinstance(value, tuple) else (value,))],
            "seconds": time.perf_counter() - start,
        }
        print(name, found[name], flush=True)
    return found


def measure(n: int, steps: int) -> dict[str, Any]:
    """Everything that the page states."""
    with tempfile.TemporaryDirectory() as folder:
        run = vk.fit(
            "dsprites", "vae", out=f"{folder}/run", latent=LATENT, network="dense", hidden=(256, 256), steps=steps,
            progress=False, compile="off", device="cpu",
        )  # fmt: skip
        command = [sys.executable, __file__, "--suite", f"{folder}/run", "-n", str(n)]
        whole = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        z, test = run.encode("test", n=n).astype(float), run.data.test
        v = np.stack([test.columns[name][:n] for name in run.data.factor_names], 1)
    v = np.stack([np.unique(column, return_inverse=True)[1] for column in v.T], 1)
    few, raw = parts(z, v), parts(z, v, standardise=False)
    before, reference, after = timed(fast(z, v)), timed(slow(z, v, few, raw)), timed(fast(z, v))
    for name, one in before.items():
        one["seconds"] = max(one["seconds"], after[name]["seconds"])
    for name in ("factor_vae_score", "beta_vae_score"):
        reference[name]["seconds"] *= VOTES
    threads = len(os.sched_getaffinity(0))
    versions = {"python": platform.python_version(), "torch": torch.__version__, "scikit-learn": sklearn.__version__}
    return {"n": n, "steps": steps, "cores": threads, "load": os.getloadavg()[2], "versions": versions,
            "suite": whole, "fast": before, "slow": reference}  # fmt: skip


def page(found: dict[str, Any]) -> str:
    """The page with the tables."""
    whole = found["suite"]
    total = {kind: sum(one["seconds"] for one in found[kind].values()) for kind in ("fast", "slow")}
    ratios = {name: found["slow"][name]["seconds"] / one["seconds"] for name, one in found["fast"].items()}
    least = min(ratios, key=ratios.__getitem__)
    slower = [f"`{name}`" for name, ratio in ratios.items() if ratio < 1]
    cores = "one core" if found["cores"] == 1 else f"{found['cores']} cores"
    out = [
        "# Scores of disentanglement",
        "",
        "`vaekit evaluate RUN --metrics disentanglement` measures all scores whose needs are met, with intervals and",
        f"for each factor. This page has their values, times and memory for {found['n']:,} codes of dSprites, of a",
        f"dense VAE with {LATENT} latents after {found['steps']:,} steps of training (too few for disentanglement).",
        "`python bench/disentanglement.py` makes it; its header describes the protocol.",
        "",
        f"On {cores}, the family takes {whole['seconds']:.0f} s with all intervals, and the process at most",
        f"{whole['memory'] / 1024:.1f} GB of memory. Metrics with a common part are computed together, and the first",
        "of them bears the time.",
        "",
        "| metric | value | 95% interval | seconds |",
        "|---|---|---|---|",
    ]
    for name, one in whole["metrics"].items():
        interval = "–" if one["low"] is None else f"{one['low']:.3f} to {one['high']:.3f}"
        out.append(f"| {label(name)} | {one['value']:.3f} | {interval} | {one['seconds']:.2f} |")
    out += [
        "",
        "## Beside slow implementations",
        "",
        "The same scores of the same codes, all latents counted, without intervals. The slow implementations use",
        "scikit-learn for one pair of a latent and a factor, one vote or one factor at a time, as disentanglement_lib",
        f"does. In all, they take {total['slow']:.0f} s and the fast ones {total['fast']:.1f} s, "
        f"{total['slow'] / total['fast']:.0f} times less:",
        "DCI by trees and the scores of votes make the difference. The smallest ratio of one score is",
        f"{ratios[least]:.1f}, that of `{least}`; "
        + (
            f"slower than the slow implementation: {listed(slower)}."
            if slower
            else "none is slower than the slow implementation."
        ),
        "The FactorVAE and beta-VAE scores depend on random votes, of which the slow ones have",
        f"{d.VOTES // VOTES} to learn from and {d.TESTS // VOTES} to test. DCI has three scores:",
        "disentanglement, completeness and informativeness; its fast trees are those of codes in 64 bins.",
        "",
        "| score | fast | slow | largest difference | fast, s | slow, s | times faster |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in found["fast"].items():
        other = found["slow"][name]
        gap = max(abs(a - b) for a, b in zip(one["value"], other["value"], strict=True))
        values = [", ".join(f"{x:.3f}" for x in each["value"]) for each in (one, other)]
        ratio = ratios[name]
        out.append(
            f"| `{name}` | {values[0]} | {values[1]} | {gap:.1g} | {one['seconds']:.3f} | {other['seconds']:.2f} | "
            f"{ratio:.{0 if ratio >= 10 else 1}f} |"
        )
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    load = f"The load average of the machine in the last quarter of an hour was {found['load']:.1f}."
    return "\n".join([*out, "", f"{versions[0].upper()}{versions[1:]}. {load}", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", metavar="RUN")
    parser.add_argument("-n", type=int, default=N)
    parser.add_argument("--steps", type=int, default=STEPS)
    asked = parser.parse_args()
    if asked.suite is not None:
        print(json.dumps(suite(asked.suite, asked.n)))
        return
    found = measure(asked.n, asked.steps)
    write_json(DOCS / "disentanglement.json", found)
    text = page(found)
    write_text(DOCS / "disentanglement.md", text)
    print(next(line for line in text.splitlines() if "smallest ratio" in line))


if __name__ == "__main__":
    main()
