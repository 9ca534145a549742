"""log p(x) by importance sampling, and its use as an out-of-distribution score."""

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
from vaekit.models.vae import VAE
from vaekit.noise import Noise
from vaekit.objectives.terms import log_weights
from vaekit.report.blocks import Block, Section, Strips, Table, Text, plot
from vaekit.runs.trained import TrainedModel
from vaekit.utils.uncertainty import area

from .bench import Bench, Plan
from .needs import check_kinds
from .page import strip
from .registry import Findings, study
from .words import LEVEL, choose, direction, estimate, listed, number, paired, ratio, side_of

LATENT, SHOWN = 16, 8
PLAIN, MIXTURE, LOGISTIC = "N(0, I) prior", "mixture prior", "another likelihood"
FROM_Q, FROM_P = "from q(z|x)", "from the prior"
NOISE = 83
OTHERS = ("fashion-mnist", "mnist")
CLAIMS = 3 + 3 * (3 + len(OTHERS))  # three for K and priors; three scores for each other data set
SCORES = {"log_px": "log p(x)", "typicality": "typicality", "ratio": "the ratio to independent pixels"}


@study(
    "importance",
    "Burda et al. 2016, arXiv:1509.00519; Nalisnick et al. 2019, arXiv:1810.09136, arXiv:1906.02994",
    check=lambda data: check_kinds(data, "importance"),
)
def importance(bench: Bench) -> Findings:
    """Estimates log p(x) by importance sampling, and uses it as an out-of-distribution score.

    The three models have a N(0, I) prior, a learned mixture prior, and another likelihood. For
    each, log p(x) of held-out data is estimated with K samples from q(z|x) and with K samples from the prior. Then the
    first model scores other data: altered test data, and for 28x28 grey pictures MNIST or Fashion-MNIST, whichever is
    not the training data, if available.
    """
    shape = {"latent": LATENT, "warmup": 0}
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
            "likelihood": other["likelihood"] if name == LOGISTIC else "the default",
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
        numbers["out"], notes = {}, ["Other data are scored only for images."]
    return Findings(read(numbers), sections, numbers, notes)


# --- log p(x) ---------------------------------------------------------------------------------------------------


def weights_of(bench: Bench, run: TrainedModel, n: int, k: int) -> np.ndarray:
    """log p(x, z) - log q(z|x) at k samples of q(z|x) for each of the first n test examples, (n, k)."""
    x = bench.observed(run)(np.arange(n)).to(run.device)
    return importance_weights(run, x, k)


def importance_weights(run: TrainedModel, x: Tensor, k: int) -> np.ndarray:
    """log p(x, z) - log q(z|x) at k samples of q(z|x) for each x (n, *event), (n, k)."""
    weights = []
    size = max(1, min(k, 4_000_000 // (len(x) * run.spec.dims)))
    noise = Noise.of(NOISE, len(x), device=run.device)
    with torch.no_grad():
        for first in range(0, k, size):
            block = Noise(noise.base, noise.rows, first)
            trace = run.model.trace(x, k=min(size, k - first), noise=block)
            weights.append(log_weights(trace, x).cpu().double().numpy())
    return np.concatenate(weights).T


def prior_weights(bench: Bench, run: TrainedModel, n: int, k: int) -> np.ndarray:
    """log p(x|z) at k samples of the prior, the same for all examples, (n, k)."""
    model = run.model
    assert isinstance(model, VAE)
    x = bench.observed(run)(np.arange(n)).to(run.device)
    weights = []
    size = max(1, 4_000_000 // (n * run.spec.dims))
    with torch.no_grad():
        z = draw(model.prior(), Noise.of(NOISE + 1, k, device=run.device))
        for a in range(0, k, size):
            px = model.decode(z[a : a + size])
            weights.append(px.log_prob(x.unsqueeze(1)).cpu().double().numpy())
    return np.concatenate(weights, 1)


def bounds(weights: np.ndarray, k: int) -> np.ndarray:
    """The bound log (1/k) sum exp w per example, averaged over disjoint groups of k samples: (n, K) -> (n,)."""
    groups = weights[:, : weights.shape[1] // k * k].reshape(len(weights), -1, k)
    top = groups.max(-1, keepdims=True)
    return (np.log(np.exp(groups - top).mean(-1)) + top[..., 0]).mean(1)


def effective(weights: np.ndarray) -> np.ndarray:
    """The effective sample size (sum w)^2 / sum w^2 per example, (n,)."""
    w = np.exp(weights - weights.max(1, keepdims=True))
    return w.sum(1) ** 2 / (w**2).sum(1)


# --- out of distribution ----------------------------------------------------------------------------------------


def outside(bench: Bench, run: TrainedModel) -> tuple[dict[str, Any], dict[str, np.ndarray], list[str]]:
    """Scores of other data and of test data, with the areas under their ROC curves.

    Returns:
        the scores by data set, the first pictures of each data set, and notes for the page.
    """
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
                    source = named.source(name, mirrors=())
                    assert source.splits is not None
                    sets[name] = np.ascontiguousarray(source.x[source.splits["test"][:n]])[:, None]
                except DataError:
                    notes.append(
                        f"{name} was not scored because it is not downloaded; `vaekit fit {name}` downloads it."
                    )
    own = np.arange(n) if (group := bench.groups(n)) is None else np.array(group)
    altered = (
        "test data",
        "darkened to a quarter",
        "inverted",
        "pixels shuffled",
    )  # an image and its altered copies are one unit
    like = {name: own if name in altered else own.max() + 1 + np.arange(len(x)) for name, x in sets.items()}
    trained = np.ascontiguousarray(data.events(data.train[:n]))
    usual = float(scores(run, trained, k)[0].mean())
    background = np.clip((data.events(data.train[:5000]).astype(float) - low).mean(0) / (high - low), 1e-3, 1 - 1e-3)
    result: dict[str, Any] = {}
    inside: dict[str, np.ndarray] = {}
    for name, x in sets.items():
        log_px, seen = scores(run, x, k)
        by_score = {"log_px": log_px, "typicality": -np.abs(log_px - usual)}
        if isinstance(run.composition.observation, Binary):
            apart = seen * np.log(background) + (1 - seen) * np.log(1 - background)
            by_score["ratio"] = log_px - apart.reshape(len(x), -1).sum(1)
        inside = inside or by_score
        result[name] = {"mean": float(log_px.mean())} | {
            key: area(inside[key], values, own, like[name], level=LEVEL / CLAIMS)._asdict()
            for key, values in by_score.items()
        }
    return result, {name: x[:SHOWN] for name, x in sets.items()}, notes


def scores(run: TrainedModel, raw: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """log p(x) of raw data by importance sampling, (n,), and x as the model observes them."""
    observed = run.observed(raw)
    log_px, seen = [], []
    for a in range(0, len(raw), 200):
        x = observed(np.arange(a, min(a + 200, len(raw)))).to(run.device)
        log_px.append(bounds(importance_weights(run, x, k), k))
        seen.append(x.cpu().double().numpy())
    return np.concatenate(log_px), np.concatenate(seen)


# --- results ---------------------------------------------------------------------------------------------------


def read(numbers: dict[str, Any]) -> list[str]:
    """The results for the number of samples, for samples of the prior, for priors, and for other data."""
    k, group, level = numbers["counts"][-1], numbers.get("group"), LEVEL / CLAIMS
    plain, mixture = numbers["models"][PLAIN], numbers["models"][MIXTURE]
    rise = {name: estimate(-np.array(model["first"]), group) for name, model in ((PLAIN, plain), (MIXTURE, mixture))}
    prior_gap = estimate(plain["gap"][FROM_P], group)
    ess = {kind: estimate(plain["ess"][kind], group) for kind in (FROM_Q, FROM_P)}
    _, low, high = ratio(plain["ess"][FROM_Q], plain["ess"][FROM_P], group, level)
    sentences = [
        f"From 1 to {k:,} samples of q(z|x), the estimate of log p(x) rises by {rise[PLAIN].text()} nats: the ELBO is "
        f"lower by this amount. With {k:,} samples from the prior, the estimate is "
        + choose(
            direction(prior_gap, level),
            f"{number(prior_gap.value)} nats higher, because q(z|x) misses part of the mass of p(z|x).",
            f"still {number(-prior_gap.value)} nats lower, because too few of these samples decode to something like "
            "the example.",
            "not significantly different.",
        ),
        f"The effective sample size of {k:,} samples is {number(ess[FROM_Q].value)} for samples from q(z|x) and "
        f"{number(ess[FROM_P].value)} for samples from the prior. "
        + choose(
            side_of(low, high, 2.0),
            "The encoder more than doubles it.",
            "The encoder does not double it: it is hardly better than the prior here.",
            "Whether the encoder more than doubles it is uncertain.",
        ),
        f"With a mixture prior the rise is {rise[MIXTURE].text()} nats: "
        + choose(
            direction(paired(mixture["first"], plain["first"], group), level),
            "its ELBO is tighter.",
            "its ELBO is looser.",
            "its ELBO is not significantly tighter or looser.",
        ),
    ]
    out = {name: areas for name, areas in numbers["out"].items() if name != "test data"}
    return [*sentences, *_read_outside(out)] if out else sentences


def _area(area: dict[str, float]) -> str:
    return f"{number(area['value'])} ({number(area['low'])} to {number(area['high'])})"


def _read_outside(out: dict[str, dict[str, Any]]) -> list[str]:
    """Which data score above test data, and whether another score corrects that."""
    side = {name: side_of(areas["log_px"]["low"], areas["log_px"]["high"], 0.5) for name, areas in out.items()}
    higher, unclear = ([name for name in out if side[name] == s] for s in (-1, 0))
    text = (
        f"log p(x) is higher for {_quoted(higher)} than for test data (area under the ROC curve "
        f"{listed([_area(out[name]['log_px']) for name in higher])}, where 0.5 is chance). It does not detect data "
        "unlike the training data."
        if higher
        else "log p(x) is lower for all other data than for test data, as it should be."
        if not unclear
        else "log p(x) is not significantly higher for any of the other data than for test data."
    )
    if unclear:
        text += f" For {_quoted(unclear)} the difference is not significant."
    sentences = [text]
    for name in higher:
        others = {key: out[name][key] for key in ("typicality", "ratio") if key in out[name]}
        best = max(others, key=lambda key: others[key]["value"])
        low, high = others[best]["low"], others[best]["high"]
        sentences.append(
            f"For {_quoted([name])}, {SCORES[best]} changes the area from {number(out[name]['log_px']['value'])} to "
            f"{_area(others[best])}"
            + (
                ", which detects these data."
                if low > 0.8
                else ", which does not solve the problem."
                if high < 0.6
                else "."
            )
        )
    return sentences


def _quoted(names: list[str]) -> str:
    """The names of data sets as they are, those of altered data in quotation marks."""
    return listed([name if name in OTHERS else f'"{name}"' for name in names])


# --- figures ----------------------------------------------------------------------------------------------------


def _curves(numbers: dict[str, Any]) -> Section:
    panels = {
        name: {kind: Line(numbers["counts"], model["curves"][kind]) for kind in (FROM_Q, FROM_P)}
        for name, model in numbers["models"].items()
    }
    k = numbers["counts"][-1]
    picture = plot(
        "samples",
        lambda: figures.curves(panels, "samples K", "log p(x) minus the best estimate, nats", log_x=True),
        "Estimates of log p(x) against the number of samples",
        f"The estimate with K samples minus the estimate with {k:,} samples from q(z|x), averaged over {numbers['n']} "
        "test examples. Every estimate is a lower bound on average, so a higher line is better.",
    )  # fmt: skip
    return Section("samples", "log p(x) against the number of samples", [picture])


def _table(numbers: dict[str, Any]) -> Section:
    rows = [
        [name, model["likelihood"], estimate(-np.array(model["first"]), numbers["group"]).text(),
         estimate(model["gap"][FROM_P], numbers["group"]).text(),
         *(number(estimate(model["ess"][kind]).value) for kind in (FROM_Q, FROM_P))]
        for name, model in numbers["models"].items()
    ]  # fmt: skip
    k = numbers["counts"][-1]
    head = ["model", "likelihood", f"rise from K = 1 to {k:,}", "prior minus q", "ESS, q", "ESS, prior"]
    caption = f"Nats per example, {numbers['n']} test examples. ESS: effective sample size of {k:,} samples."
    return Section("numbers", "In numbers", [Table(head, rows, caption, numeric=(2, 3, 4, 5))])


def _outside(bench: Bench, out: dict[str, Any], pictures: dict[str, np.ndarray]) -> Section:
    keys = [key for key in SCORES if key in out["test data"]]
    rows = [
        [name, number(areas["mean"]), *(_area(areas[key]) if name != "test data" else "" for key in keys)]
        for name, areas in out.items()
    ]
    caption = (
        "Mean log p(x) in nats, and for each score the area under the ROC curve of test data against the other data: 1 "
        "is perfect detection, 0.5 is chance, and below 0.5 the score prefers the other data. With a probability of "
        f"{1 - LEVEL:.0%}, all intervals of this page contain the true areas. Typicality: how close log p(x) is to its "
        "mean over training data. Ratio: log p(x) minus the log p(x) of a model of independent pixels."
    )
    strips = Strips("others", [strip(bench, name, x) for name, x in pictures.items()], "The scored data",
                    "The scored data, before binarisation.")  # fmt: skip
    table = Table(
        ["data", "mean log p(x)", *(f"area, {SCORES[key]}" for key in keys)], rows, caption, numeric=(1, 2, 3, 4)
    )
    blocks: list[Block] = [Text("Scored by the model with the N(0, I) prior."), strips, table]
    return Section("outside", "Data unlike the training data", blocks)
