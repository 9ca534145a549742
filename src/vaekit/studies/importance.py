"""log p(x) by importance sampling, and whether it tells what a model has not seen."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaekit import figures
from vaekit.data import named
from vaekit.data.observation import Binary
from vaekit.densities import draw
from vaekit.errors import DataError
from vaekit.figures import Line
from vaekit.noise import Noise
from vaekit.objectives.terms import log_weights
from vaekit.report.blocks import Block, Section, Strips, Table, Text, plot
from vaekit.runs.run import Run
from vaekit.utils.uncertainty import area

from .bench import Bench, Plan
from .needs import check_kinds
from .page import strip
from .registry import Findings, study
from .words import LEVEL, beside, choose, direction, estimate, listed, number, paired, ratio

LATENT, SHOWN = 16, 8
PLAIN, MIXTURE, LOGISTIC = "N(0, I) prior", "mixture prior", "another likelihood"
FROM_Q, FROM_P = "from q(z|x)", "from the prior"
NOISE = 83
OTHERS = ("fashion-mnist", "mnist")
CLAIMS = 3 + 3 * (3 + len(OTHERS))  # of K and priors three; three scores of each of the other data
SCORES = {"log_px": "log p(x)", "typicality": "typicality", "ratio": "ratio to pixels apart"}


@study(
    "importance",
    "Burda et al. 2016, arXiv:1509.00519; Nalisnick et al. 2019, arXiv:1810.09136, arXiv:1906.02994",
    check=lambda data: check_kinds(data, "importance"),
)
def importance(bench: Bench) -> Findings:
    """log p(x) by importance sampling against the number of samples, and as a score of what is out of distribution.

    Three models: one with a N(0, I) prior, one with a learned mixture for a prior, one with another likelihood. Of each
    log p(x) of held-out data is estimated with K draws from q(z|x), and with K draws from the prior. Then the first
    model scores other data: altered test data, and of 28x28 grey pictures the other of MNIST and Fashion-MNIST where it
    is at hand (run the study on that one for the reverse).
    """
    shape = {"latent": LATENT}
    grey = bench.data.kind == "image" and bench.data.shape[0] == 1
    other = {"likelihood": "continuous-bernoulli"} if grey else {"likelihood": "student-t"}
    if bench.data.kind == "counts":
        other = {"likelihood": "poisson"}
    runs = bench.train(
        {
            PLAIN: Plan("vae", shape),
            MIXTURE: Plan("mixture", {**shape, "components": 20}),
            LOGISTIC: Plan("vae", {**shape, **other}),
        }
    )
    bench.stage("measuring")
    n, k = min(bench.sized(50, 200), len(bench.data.test)), bench.sized(256, 4096)
    counts = [2**i for i in range(int(math.log2(k)) + 1)]
    numbers: dict[str, Any] = {"counts": counts, "n": n, "models": {}, "group": bench.groups(n)}
    for name, run in runs.items():
        weights = {FROM_Q: weights_of(bench, run, n, counts[-1]), FROM_P: prior_weights(bench, run, n, counts[-1])}
        best = bounds(weights[FROM_Q], counts[-1])
        numbers["models"][name] = {
            "likelihood": other["likelihood"] if name == LOGISTIC else "the default one",
            "curves": {kind: [float((bounds(w, c) - best).mean()) for c in counts] for kind, w in weights.items()},
            "gap": {kind: (bounds(w, counts[-1]) - best).tolist() for kind, w in weights.items()},
            "first": (bounds(weights[FROM_Q], 1) - best).tolist(),
            "ess": {kind: effective(w).tolist() for kind, w in weights.items()},
        }
    sections = [_curves(numbers), _table(numbers)]
    if bench.data.kind == "image":
        bench.stage("scoring other data")
        numbers["out"], pictures, notes = outside(bench, runs[PLAIN])
        sections.append(_outside(bench, numbers["out"], pictures))
    else:
        numbers["out"], notes = {}, ["Other data are scored for images only."]
    return Findings(read(numbers), sections, numbers, notes)


# --- log p(x) ---------------------------------------------------------------------------------------------------


def weights_of(bench: Bench, run: Run, n: int, k: int) -> np.ndarray:
    """log p(x, z) - log q(z|x) at k draws from q for each of the first n test data, (n, k)."""
    x = bench.observed(run)(np.arange(n)).to(run.device)
    return importance_weights(run, x, k)


def importance_weights(run: Run, x: Tensor, k: int) -> np.ndarray:
    """The same for given x (n, *event)."""
    found = []
    size = max(1, min(k, 4_000_000 // (len(x) * run.spec.dims)))
    noise = Noise.of(NOISE, len(x), device=run.device)
    with torch.no_grad():
        for first in range(0, k, size):
            some = Noise(noise.base, noise.rows, first)
            trace = run.model.trace(x, k=min(size, k - first), noise=some)
            found.append(log_weights(trace, x).cpu().double().numpy())
    return np.concatenate(found).T


def prior_weights(bench: Bench, run: Run, n: int, k: int) -> np.ndarray:
    """log p(x|z) at k draws from the prior, the same for all data, (n, k)."""
    x = bench.observed(run)(np.arange(n)).to(run.device)
    found = []
    size = max(1, 4_000_000 // (n * run.spec.dims))
    with torch.no_grad():
        z = draw(run.model.prior(), Noise.of(NOISE + 1, k, device=run.device))
        for a in range(0, k, size):
            px = run.model.decode(z[a : a + size])
            found.append(px.log_prob(x.unsqueeze(1)).cpu().double().numpy())
    return np.concatenate(found, 1)


def bounds(weights: np.ndarray, k: int) -> np.ndarray:
    """log 1/k sum exp w of each datum, averaged over the disjoint groups of k draws: (n, K) -> (n,)."""
    groups = weights[:, : weights.shape[1] // k * k].reshape(len(weights), -1, k)
    top = groups.max(-1, keepdims=True)
    return (np.log(np.exp(groups - top).mean(-1)) + top[..., 0]).mean(1)


def effective(weights: np.ndarray) -> np.ndarray:
    """Effective sample size (sum w)^2 / sum w^2 of each datum, (n,)."""
    w = np.exp(weights - weights.max(1, keepdims=True))
    return w.sum(1) ** 2 / (w**2).sum(1)


# --- out of distribution ----------------------------------------------------------------------------------------


def outside(bench: Bench, run: Run) -> tuple[dict[str, Any], dict[str, np.ndarray], list[str]]:
    """Scores of other data beside those of test data, with the areas under their ROC curves."""
    data, notes = bench.data, []
    n, k = min(bench.sized(200, 2000), len(data.test)), bench.sized(8, 64)
    low, high = data.scale
    test = np.ascontiguousarray(data.events(data.test[:n]))
    mixed = np.random.default_rng(0).permutation(run.spec.dims)
    sets = {
        "test data": test,
        "darkened to a quarter": (low + (test - low) * 0.25).astype(test.dtype),
        "inverted": (low + high - test.astype(float)).astype(test.dtype),
        "pixels shuffled": test.reshape(n, -1)[:, mixed].reshape(test.shape),
    }
    if data.shape == (1, 28, 28) and data.scale == (0.0, 255.0):
        for name in OTHERS:
            if name != data.name:
                try:
                    found = named.source(name, mirrors=())
                    assert found.splits is not None
                    sets[name] = np.ascontiguousarray(found.x[found.splits["test"][:n]])[:, None]
                except DataError:
                    notes.append(f"{name} is not at hand, so it was not scored; `vaekit fit {name}` fetches it.")
    own = np.arange(n) if (group := bench.groups(n)) is None else np.array(group)
    altered = ("test data", "darkened to a quarter", "inverted", "pixels shuffled")  # an image and its copies: one unit
    like = {name: own if name in altered else own.max() + 1 + np.arange(len(x)) for name, x in sets.items()}
    trained = np.ascontiguousarray(data.events(data.train[:n]))
    usual = float(scores(run, trained, k)[0].mean())
    background = np.clip((data.events(data.train[:5000]).astype(float) - low).mean(0) / (high - low), 1e-3, 1 - 1e-3)
    result: dict[str, Any] = {}
    inside: dict[str, np.ndarray] = {}
    for name, x in sets.items():
        log_px, seen = scores(run, x, k)
        found_scores = {"log_px": log_px, "typicality": -np.abs(log_px - usual)}
        if isinstance(run.composition.observation, Binary):
            apart = seen * np.log(background) + (1 - seen) * np.log(1 - background)
            found_scores["ratio"] = log_px - apart.reshape(len(x), -1).sum(1)
        inside = inside or found_scores
        result[name] = {"mean": float(log_px.mean())} | {
            key: area(inside[key], values, own, like[name], LEVEL / CLAIMS)._asdict()
            for key, values in found_scores.items()
        }
    return result, {name: x[:SHOWN] for name, x in sets.items()}, notes


def scores(run: Run, raw: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """log p(x) of raw data by importance sampling, (n,), and x as the model saw it."""
    observed = run.observed(raw)
    found, seen = [], []
    for a in range(0, len(raw), 200):
        x = observed(np.arange(a, min(a + 200, len(raw)))).to(run.device)
        found.append(bounds(importance_weights(run, x, k), k))
        seen.append(x.cpu().double().numpy())
    return np.concatenate(found), np.concatenate(seen)


# --- what it says -----------------------------------------------------------------------------------------------


def read(numbers: dict[str, Any]) -> list[str]:
    """What the numbers say of K, of draws from the prior, of priors, and of other data."""
    k, group, level = numbers["counts"][-1], numbers.get("group"), LEVEL / CLAIMS
    plain = numbers["models"][PLAIN]
    rise = estimate(-np.array(plain["first"]), group)
    short = estimate(plain["gap"][FROM_P], group)
    ess = {kind: estimate(plain["ess"][kind], group) for kind in (FROM_Q, FROM_P)}
    _, low, high = ratio(plain["ess"][FROM_Q], plain["ess"][FROM_P], group, level)
    said = [
        f"From one draw of q(z|x) to {k:,} the estimate of log p(x) rises by {rise.text()} nats: so much the ELBO "
        "lies below. "
        + choose(
            direction(short, level),
            f"As many draws from the prior give {number(short.value)} nats more: q misses where p(z|x) has its mass.",
            f"As many draws from the prior still lie {number(-short.value)} nats below: too few of them decode to "
            "anything like the datum.",
            "As many draws from the prior give the same, as far as these data tell.",
        ),
        f"Of {k:,} draws {number(ess[FROM_Q].value)} count in effect when they are from q(z|x) and "
        f"{number(ess[FROM_P].value)} when they are from the prior: "
        + choose(
            beside(low, high, 2.0),
            "the encoder makes more than twice as many count.",
            "the encoder is hardly better than blind guesses here.",
            "whether the encoder makes more than twice as many count these data do not tell.",
        ),
    ]
    loose = paired(numbers["models"][MIXTURE]["first"], plain["first"], group)
    rise = estimate(-np.array(numbers["models"][MIXTURE]["first"]), group)
    said.append(
        f"With a mixture for a prior the rise is {rise.text()} nats: "
        + choose(
            direction(loose, level),
            "its ELBO is the tighter one.",
            "its ELBO is the looser one.",
            "whether its ELBO is tighter or looser these data do not tell.",
        )
    )
    out = {name: found for name, found in numbers["out"].items() if name != "test data"}
    return [*said, *_read_outside(out)] if out else said


def _area(found: dict[str, float]) -> str:
    return f"{number(found['value'])} ({number(found['low'])} to {number(found['high'])})"


def _read_outside(out: dict[str, dict[str, Any]]) -> list[str]:
    """What the areas say: which data score above test data, and what mends that."""
    side = {name: beside(found["log_px"]["low"], found["log_px"]["high"], 0.5) for name, found in out.items()}
    fooled, hidden = ([name for name in out if side[name] == s] for s in (-1, 0))
    areas = f"(area {listed([_area(out[name]['log_px']) for name in fooled])}, where 0.5 is chance)"
    said = (
        f"log p(x) is higher than that of test data for {listed(fooled)} {areas}: it does not tell what the model has "
        "not seen."
        if fooled
        else "log p(x) is lower for all other data than for test data, as one would hope."
        if not hidden
        else "log p(x) is surely higher than that of test data for none of the other data."
    )
    if hidden:
        said += f" Of {listed(hidden)} it cannot be said whether it is higher or lower."
    sentences = [said]
    for name in fooled:
        mended = {key: out[name][key] for key in ("typicality", "ratio") if key in out[name]}
        best = max(mended, key=lambda key: mended[key]["value"])
        low, high = mended[best]["low"], mended[best]["high"]
        sentences.append(
            f"For {name} {SCORES[best]} brings it from {number(out[name]['log_px']['value'])} to {_area(mended[best])}"
            + (", which tells them apart." if low > 0.8 else ", which is no cure." if high < 0.6 else ".")
        )
    return sentences


# --- figures ----------------------------------------------------------------------------------------------------


def _curves(numbers: dict[str, Any]) -> Section:
    panels = {
        name: {kind: Line(numbers["counts"], found["curves"][kind]) for kind in (FROM_Q, FROM_P)}
        for name, found in numbers["models"].items()
    }
    k = numbers["counts"][-1]
    picture = plot(
        "samples",
        lambda: figures.curves(panels, "samples K", "log p(x) less the best estimate, nats", log_x=True),
        "Estimates of log p(x) against the number of samples",
        f"The mean over {numbers['n']} test data of the estimate with K draws, less the one with {k:,} draws from "
        "q(z|x). Every estimate is a lower bound on average; the higher line is the nearer one.",
    )  # fmt: skip
    return Section("samples", "log p(x) against the number of samples", [picture])


def _table(numbers: dict[str, Any]) -> Section:
    rows = [
        [name, found["likelihood"], estimate(-np.array(found["first"]), numbers["group"]).text(),
         estimate(found["gap"][FROM_P], numbers["group"]).text(),
         *(number(estimate(found["ess"][kind]).value) for kind in (FROM_Q, FROM_P))]
        for name, found in numbers["models"].items()
    ]  # fmt: skip
    k = numbers["counts"][-1]
    head = ["model", "likelihood", f"rise from K = 1 to {k:,}", "prior less q", "effective, q", "effective, prior"]
    caption = f"nats a datum, {numbers['n']} test data; effective sample sizes of {k:,} draws."
    return Section("numbers", "In numbers", [Table(head, rows, caption, numeric=(2, 3, 4, 5))])


def _outside(bench: Bench, out: dict[str, Any], pictures: dict[str, np.ndarray]) -> Section:
    keys = [key for key in SCORES if key in out["test data"]]
    rows = [
        [name, number(found["mean"]), *(_area(found[key]) if name != "test data" else "" for key in keys)]
        for name, found in out.items()
    ]
    caption = (
        "Mean log p(x) in nats, then for each score the area under the ROC curve of test data against these, with the "
        f"interval that holds all areas of this page but for a chance of {LEVEL:.0%}: 1 tells all apart, 0.5 none, "
        "below 0.5 the score prefers what it has not seen. Typicality: how near log p(x) is to its mean over training "
        "data. Ratio: log p(x) less that of a model of each pixel apart."
    )
    strips = Strips("others", [strip(bench, name, x) for name, x in pictures.items()], "The data that were scored",
                    "The data that were scored, as they are before any draw.")  # fmt: skip
    table = Table(
        ["data", "mean log p(x)", *(f"area, {SCORES[key]}" for key in keys)], rows, caption, numeric=(1, 2, 3, 4)
    )
    blocks: list[Block] = [Text("Scored by the model with the N(0, I) prior."), strips, table]
    return Section("outside", "What the model has not seen", blocks)
