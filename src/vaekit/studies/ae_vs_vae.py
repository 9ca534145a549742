"""An autoencoder beside a VAE and a VAE without its KL."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from .. import figures
from ..errors import ChoiceError
from ..latent import nearest
from ..metrics.codes import cluster_agreement, knn_correct, probe_correct, silhouettes, tsne
from ..metrics.samples import Components, frechet
from ..report.blocks import Block, Section, Strips, Table, plot
from ..run import Run
from .bench import Bench, Plan
from .page import strip
from .registry import Findings, study
from .words import choose, direction, estimate, number, paired

AE, FREE, VAE = "autoencoder", "VAE without KL", "VAE"
LATENT, SHOWN, COMPONENTS = 16, 10, 32


@study("ae-vs-vae", "Kingma and Welling 2013, arXiv:1312.6114; van der Maaten and Hinton 2008")
def ae_vs_vae(bench: Bench) -> Findings:
    """An autoencoder, a VAE and a VAE without its KL: maps of their codes, what they know, what N(0, I) decodes to.

    The same networks three times: trained to reconstruct alone, with the KL, and with the noise of the posterior but
    no KL. What lies in the holes of an autoencoder's code shows when draws of N(0, I) are decoded.
    """
    label = bench.data.test.label
    if label is None or bench.data.train.label is None or len(np.unique(label[label >= 0])) < 2:
        raise ChoiceError("ae-vs-vae needs data with classes: give a folder of class folders, or --label")
    shared = {"latent": LATENT}
    runs = bench.train(
        {AE: Plan("ae", shared), FREE: Plan("vae", {**shared, "beta": 0.0}), VAE: Plan("vae", {**shared, "beta": 1.0})}
    )
    bench.stage("measuring")
    train, test = labelled(bench, "train", bench.sized(2000, 10_000)), labelled(bench, "test", bench.sized(500, 2000))
    n_train, n = len(train), len(test)
    numbers: dict[str, Any] = {}
    codes: dict[str, np.ndarray] = {}
    components = Components(bench.data.events(bench.data.train[train]), COMPONENTS)
    real = components(bench.data.events(bench.data.test[test]))
    samples, rebuilt = {}, {}
    for name, run in runs.items():
        known, known_features = encode(bench, run, "train", train)
        codes[name], features = encode(bench, run, "test", test)
        y, y_new = bench.data.train.label[train], label[test]
        z = np.random.default_rng(0).normal(size=(max(n, 500), LATENT)).astype(np.float32)
        drawn = run.decode(z)
        samples[name], rebuilt[name] = drawn[:SHOWN], run.decode(codes[name][:SHOWN])
        numbers[name] = {
            "knn": knn_correct(known, y, codes[name], y_new).tolist(),
            "probe": probe_correct(known, y, codes[name], y_new).tolist(),
            "probe_penultimate": probe_correct(known_features, y, features, y_new).tolist(),
            "silhouette": silhouettes(codes[name], y_new).tolist(),
            "rand": cluster_agreement(codes[name], y_new).tolist(),
            "frechet": frechet(components(drawn), real) / components.total,
            "code_std": float(codes[name].std(0).mean()),
            "holes": holes(run.encode("train", sample=True, rows=train), run.encode("test", sample=True, rows=test), z),
        }
    numbers["data"] = {
        "frechet": frechet(components(bench.data.events(bench.data.train[train])), real) / components.total
    }
    bench.stage("mapping")
    mapped = {name: tsne(z) for name, z in codes.items()}
    sections = [
        _maps(mapped, label[test], bench.data.label_names),
        *([_pictures(bench, test, samples, rebuilt)] if bench.data.kind == "image" else []),
        _table(numbers, n, n_train, components.k),
    ]
    return Findings(read(numbers), sections, numbers)


def labelled(bench: Bench, split: str, n: int) -> np.ndarray:
    """The first n rows of a split that have a class."""
    return np.flatnonzero(getattr(bench.data, split).label >= 0)[:n]


def encode(bench: Bench, run: Run, split: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes (N, D) of these data and the numbers that go into the last layer of the encoder, (N, F)."""
    bench.observed(run, split)
    seen: list[torch.Tensor] = []
    last = [m for m in run.model.posterior.modules() if isinstance(m, nn.Linear)][-1]
    hook = last.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach().cpu()))
    try:
        codes = run.encode(split, rows=rows)
    finally:
        hook.remove()
    return codes, torch.cat(seen).flatten(1).numpy()


CHANCE = 0.05
"""The share of new codes that are called far from all that are known."""


def holes(known: np.ndarray, codes: np.ndarray, z: np.ndarray) -> float:
    """The share of draws z that lie farther from every known code than 95% of new codes do, all drawn from q(z|x)."""
    usual = np.quantile(nearest(codes, known)[1], 1 - CHANCE)
    return float((nearest(z, known)[1] > usual).mean())


def _closed(lost: dict[str, float]) -> str:
    """What the KL did to the holes, by the shares that fall in them beyond the 5% that would without any."""
    if max(lost.values()) <= 2 * CHANCE:
        return "none of the three has holes to speak of."
    without, left = min(lost[AE], lost[FREE]) - CHANCE, lost[VAE] - CHANCE
    if left > 0.8 * without:
        return "the KL did not close them."
    much = "" if left < 0.1 * without else "most of " if left < 0.5 * without else "some of "
    return f"5% would without holes, so the KL closed {much}them."


def read(numbers: dict[str, Any]) -> list[str]:
    """What the numbers say of holes, of classes in the codes, and of the layer before."""
    far = {name: numbers[name]["frechet"] for name in (AE, FREE, VAE)}
    best = min(far, key=far.__getitem__)
    lost = {name: numbers[name]["holes"] for name in (AE, FREE, VAE)}
    said = [
        f"Decoded draws of N(0, I) lie nearest to the data for the {best} (Fréchet distance {number(far[best])}, "
        f"training data {number(numbers['data']['frechet'])}): "
        + ", ".join(f"{number(far[name])} for the {name}" for name in far if name != best)
        + ". "
        + (
            "The KL made the better samples."
            if best == VAE
            else "So here the KL did not make better samples."
            + (
                f" The codes of the VAE have a standard deviation of {number(numbers[VAE]['code_std'])} only: they "
                "tell little of a datum yet, and draws of N(0, I) decode to much the same."
                if numbers[VAE]["code_std"] < 0.3
                else ""
            )
        ),
        f"Of these draws {lost[AE]:.0%} ({AE}), {lost[FREE]:.0%} ({FREE}) and {lost[VAE]:.0%} ({VAE}) fall in holes, "
        "farther from every drawn code of training data than those of 95% of test data are; " + _closed(lost),
    ]
    for key, what in (
        ("knn", "Ten nearest neighbours on the codes find"),
        ("probe", "A linear probe on the codes finds"),
    ):
        difference = paired(numbers[VAE][key], numbers[AE][key])
        share = {name: f"{np.mean(numbers[name][key]):.1%}" for name in (AE, FREE, VAE)}
        said.append(
            f"{what} the class of {share[AE]} of test data ({AE}), {share[FREE]} ({FREE}) and "
            f"{share[VAE]} ({VAE}): "
            + choose(
                direction(difference),
                "the KL made the classes easier to read off.",
                "the KL cost some of what the codes tell of the classes.",
                "the KL made no difference that these data could show.",
            )
        )
    gain = {name: paired(numbers[name]["probe_penultimate"], numbers[name]["probe"]) for name in (AE, FREE, VAE)}
    signs = {direction(g) for g in gain.values()}
    points = ", ".join(f"{100 * g.value:+.1f} points ({name})".replace("-", "−") for name, g in gain.items())
    said.append(
        f"On the layer before the code the accuracy of the probe differs by {points}: "
        + (
            choose(
                signs.pop(),
                "the encoder knows more of the class than it passes on.",
                "the code is the better place to read the class.",
                "as far as these data tell, the code passes on all of what the encoder knows of the class.",
            )
            if len(signs) == 1
            else "the models differ in what they pass on."
        )
    )
    return said


# --- figures ----------------------------------------------------------------------------------------------------


def _maps(mapped: dict[str, np.ndarray], label: np.ndarray, names: list[str] | None) -> Section:
    picture = plot(
        "maps", lambda: figures.maps(mapped, label, names), "t-SNE maps of the codes of the three models, by class",
        f"t-SNE maps of the codes of {len(label):,} test data (perplexity 30, from the principal components, seed 0). "
        "Distances between far groups and the sizes of groups mean nothing in such a map.",
    )  # fmt: skip
    return Section("maps", "Maps of the codes", [picture])


def _pictures(bench: Bench, test: np.ndarray, samples: dict, rebuilt: dict) -> Section:
    data = bench.data.events(bench.data.test[test[:SHOWN]])
    names = list(samples)
    blocks: list[Block] = [
        Strips("samples", [strip(bench, name, samples[name]) for name in names],
               "Rows of images decoded from draws of N(0, I), a row a model",
               "The same draws z of N(0, I) decoded by each model (means of p(x|z)); not chosen by hand."),
        Strips("reconstructions", [strip(bench, "data", data), *(strip(bench, name, rebuilt[name]) for name in names)],
               "Test images and their reconstructions by each model",
               "The first test data and what each model makes of their codes."),
    ]  # fmt: skip
    return Section("pictures", "What N(0, I) decodes to", blocks)


def _table(numbers: dict[str, Any], n: int, n_train: int, k: int) -> Section:
    rows = []
    for name in (AE, FREE, VAE):
        m = numbers[name]
        shares = [f"{np.mean(m[key]):.1%}" for key in ("knn", "probe", "probe_penultimate")]
        rows.append(
            [name, *shares, estimate(m["silhouette"]).text(3), estimate(m["rand"]).text(2), number(m["frechet"])]
        )
    head = [
        "model",
        "10 neighbours",
        "linear probe",
        "probe on the layer before",
        "silhouette",
        "Rand index",
        "Fréchet",
    ]
    caption = (
        f"{n:,} test data; neighbours and probe learn from {n_train:,} training data. Rand index: of k-means with as "
        f"many clusters as classes, adjusted for chance, three seeds. Fréchet: the squared distance of decoded draws "
        f"of N(0, I) from test data in the first {k} principal components of the data, in units of their variance; of "
        f"training data it is {number(numbers['data']['frechet'])}."
    )
    return Section("numbers", "In numbers", [Table(head, rows, caption, numeric=(1, 2, 3, 4, 5, 6))])
