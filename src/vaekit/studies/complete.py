"""Autoencoders with fewer and with more latents than data dimensions, with and without denoising."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from vaekit.data.core import Data
from vaekit.errors import ChoiceError
from vaekit.metrics.codes import knn_correct
from vaekit.noise import Noise
from vaekit.objectives.corruption import Masking
from vaekit.report.blocks import Block, Section, Strips, Table
from vaekit.runs.trained import TrainedModel

from .ae_vs_vae import labelled
from .bench import Bench, Plan
from .denoising import rebuilt
from .needs import check_whole
from .page import strip
from .registry import Findings, study
from .words import LEVEL, between, choose, direction, estimate, number, paired, ratio

UNDER, OVER, DENOISED = "under-complete", "over-complete", ", denoising"
MODELS = (UNDER, UNDER + DENOISED, OVER, OVER + DENOISED)
RATIO, FEWEST, MOST = 1.25, 4, 4096
MASKED = 0.3
SHOWN, LATENTS = 10, 12
COPY = 0.5
"""A model copies if its loss on shuffled examples is below this multiple of the under-complete model's."""
HARDLY = 0.8
"""A model does not copy if its loss on shuffled examples is above this multiple of the under-complete model's."""


def _check(data: Data) -> None:
    dims = int(np.prod(data.shape))
    if dims > MOST:
        raise ChoiceError(f"complete needs examples of at most {MOST:,} numbers, got {dims:,}: give smaller images")
    if dims < FEWEST:
        raise ChoiceError(f"complete needs examples of at least {FEWEST} numbers, but those of {data.name} have {dims}")
    check_whole(data, "complete")


@study("complete", "Vincent et al. 2010, Stacked denoising autoencoders, JMLR 11; Bengio et al. 2013, arXiv:1206.5538",
       check=_check)  # fmt: skip
def complete(bench: Bench) -> Findings:
    """Compares under- and over-complete autoencoders, with and without denoising.

    Each has one hidden layer with as many units as the larger code. With more latents than data dimensions, nothing
    forces an autoencoder to learn the structure of the data: it may copy its input. Its loss on examples with shuffled
    elements, which are unlike the training data, shows whether it does. The classes of nearest neighbours and the
    effects of single latents show what else it learned.
    """
    dims = int(np.prod(bench.data.shape))
    over, under = int(np.ceil(RATIO * dims)), max(2, min(32, dims // 8))
    shape: dict[str, Any] = {"hidden": (over,), "network": "dense", "likelihood": "gaussian"}
    if bench.data.kind == "image":
        shape["observation"] = "grey"
    noisy = {"corruption": "masking", "corruption_level": MASKED}
    runs = bench.train(
        {
            UNDER: Plan("ae", {**shape, "latent": under}),
            UNDER + DENOISED: Plan("denoising", {**shape, **noisy, "latent": under}),
            OVER: Plan("ae", {**shape, "latent": over}),
            OVER + DENOISED: Plan("denoising", {**shape, **noisy, "latent": over}),
        }
    )
    bench.stage("measuring")
    n = min(bench.sized(300, 2000), len(bench.data.test))
    numbers: dict[str, Any] = {"dims": dims, "under": under, "over": over, "models": {}, "group": bench.groups(n)}
    if bench.data.test.label is not None:
        numbers["labelled"] = bench.groups(labelled(bench, "test", n))
    x = runs[UNDER].observed("test")(np.arange(n))
    shuffled = x.flatten(1)[:, torch.from_numpy(np.random.default_rng(0).permutation(dims))].reshape(x.shape)
    masked = Masking(MASKED)(x, Noise.of(82, n))
    variance = ((x - x.mean(0)) ** 2).mean((*range(1, x.dim()),)).mean()
    pictures: dict[str, list[np.ndarray]] = {}
    for name, run in runs.items():
        reconstructions = [torch.from_numpy(rebuild(run, t)) for t in (x, shuffled, masked)]
        lost = [
            ((m - t) ** 2).flatten(1).mean(1) / variance for m, t in zip(reconstructions, (x, shuffled, x), strict=True)
        ]
        numbers["models"][name] = {
            key: values.tolist() for key, values in zip(("data", "shuffled", "masked"), lost, strict=True)
        } | {"knn": neighbours(bench, run, bench.sized(2000, 10_000), n)}
        pictures[name] = [m[:SHOWN].numpy() for m in reconstructions]
    sections = [_table(numbers, n)]
    if bench.data.kind == "image":
        inputs = [t[:SHOWN].numpy() for t in (x, shuffled, masked)]
        sections = [_pictures(bench, inputs, pictures), _latents(bench, runs), *sections]
    return Findings(read(numbers), sections, numbers)


def rebuild(run: TrainedModel, x: torch.Tensor) -> np.ndarray:
    """The reconstruction of x, both as the model sees them."""
    x_rebuilt = rebuilt(run, x.numpy())
    return x_rebuilt.clip(0, 1) if run.spec.kind == "image" else x_rebuilt


def neighbours(bench: Bench, run: TrainedModel, n_train: int, n: int) -> list[bool]:
    """Whether ten nearest neighbours of its code predict the class of each test example; empty without classes."""
    if bench.data.test.label is None or bench.data.train.label is None:
        return []
    train, test = labelled(bench, "train", n_train), labelled(bench, "test", n)
    if not len(train) or not len(test):
        return []
    known, new = run.encode("train", rows=train), run.encode("test", rows=test)
    return knn_correct(known, bench.data.train.label[train], new, bench.data.test.label[test]).tolist()


CLAIMS = 4  # copying, and the effect of denoising on copying, on masked data, and on classes


def read(numbers: dict[str, Any]) -> list[str]:
    """The results for copying, for denoising, and for class information in the codes."""
    models, group, level = numbers["models"], numbers.get("group"), LEVEL / CLAIMS
    loss = {name: {k: float(np.mean(models[name][k])) for k in ("data", "shuffled", "masked")} for name in MODELS}
    _, low, high = ratio(models[OVER]["shuffled"], models[UNDER]["shuffled"], group, level)
    copies_less = direction(paired(models[OVER + DENOISED]["shuffled"], models[OVER]["shuffled"], group), level)
    fills_better = direction(paired(models[OVER]["masked"], models[OVER + DENOISED]["masked"], group), level)
    sentences = [
        f"With {numbers['over']} latents for {numbers['dims']} data dimensions, the plain autoencoder loses "
        f"{loss[OVER]['data']:.1%} of the variance of test data ({loss[UNDER]['data']:.1%} with {numbers['under']} "
        f"latents). Of examples with shuffled elements it loses {loss[OVER]['shuffled']:.0%} "
        f"({loss[UNDER]['shuffled']:.0%}): "
        + (
            "it reproduces even these, so it has learned to copy its input rather than the structure of the data."
            if high < COPY
            else "it reproduces them hardly better than the under-complete one, so with this amount of training it has "
            "not learned to copy its input."
            if low > HARDLY
            else "it reproduces them in part: it has begun to copy its input."
            if high < HARDLY
            else "whether it has begun to copy its input is uncertain (ratio of the losses: "
            f"{between(low, high, level)})."
        ),
        f"When it is trained to restore masked elements ({MASKED:.0%}), it loses "
        f"{loss[OVER + DENOISED]['shuffled']:.0%} of shuffled examples instead of {loss[OVER]['shuffled']:.0%}: "
        + choose(
            copies_less,
            "to denoise, it had to learn the structure of the data, so it copies less.",
            "it copies more, not less.",
            "the difference is not significant.",
        ),
        f"On masked test data the denoising model loses {loss[OVER + DENOISED]['masked']:.1%} and the plain model "
        f"{loss[OVER]['masked']:.1%}: "
        + choose(
            fills_better,
            "denoising improves filling in of masked elements.",
            "denoising worsens filling in of masked elements.",
            "the difference is not significant.",
        ),
    ]
    if models[OVER]["knn"]:
        share = {name: f"{np.mean(models[name]['knn']):.1%}" for name in MODELS}
        gain = paired(models[OVER + DENOISED]["knn"], models[OVER]["knn"], numbers.get("labelled"), step=1.0)
        sentences.append(
            f"Ten nearest neighbours of its codes predict the class of {share[OVER]} of test data, and "
            f"{share[OVER + DENOISED]} with denoising (under-complete: {share[UNDER]} and {share[UNDER + DENOISED]}). "
            + choose(
                direction(gain, level),
                "With denoising, the codes contain more information about the classes.",
                "With denoising, the codes contain less information about the classes.",
                f"The difference of {number(abs(100 * gain.value))} points is not significant.",
            )
        )
    return sentences


# --- figures ----------------------------------------------------------------------------------------------------


def _raw(bench: Bench, x: np.ndarray) -> np.ndarray:
    low, high = bench.data.scale
    return low + x * (high - low)


def _pictures(bench: Bench, inputs: list[np.ndarray], pictures: dict[str, list[np.ndarray]]) -> Section:
    titles = {"data": "Test data", "shuffled": "Pixels shuffled", "masked": f"{MASKED:.0%} of the pixels masked"}
    blocks: list[Block] = []
    for i, (key, title) in enumerate(titles.items()):
        rows = [strip(bench, "input", _raw(bench, inputs[i]))]
        rows += [strip(bench, name, _raw(bench, made[i])) for name, made in pictures.items()]
        blocks.append(Strips(f"rebuilt-{key}", rows, f"{title} and each model's reconstruction", f"{title}."))
    return Section("pictures", "Reconstructions", blocks)


def _latents(bench: Bench, runs: Mapping[str, TrainedModel]) -> Section:
    """The effect of the most variable latents: the mean code with one raised by two deviations, minus the mean code."""
    rows = []
    low, high = bench.data.scale
    for name, run in runs.items():
        codes = run.encode("test", n=min(1000, len(bench.data.test)))
        spread = codes.std(0)
        most = np.argsort(-spread)[:LATENTS]
        moved = np.tile(codes.mean(0), (len(most) + 1, 1))
        moved[np.arange(len(most)), most] += 2 * spread[most]
        x = run.decode(moved.astype(np.float32))
        change = x[:-1] - x[-1:]
        limit = max(float(np.abs(change).max()), 1e-6)
        rows.append(strip(bench, name, (low + high) / 2 + change / limit * (high - low) / 2))
    caption = (
        f"The {LATENTS} most variable latents of each model. Each picture is the decoded mean code with one latent "
        "raised by two standard deviations, minus the decoded mean code. Grey means no change; each row has its own "
        "scale."
    )
    return Section(
        "latents", "Effects of single latents", [Strips("latents", rows, "Changes caused by single latents", caption)]
    )


def _table(numbers: dict[str, Any], n: int) -> Section:
    rows = []
    for name in MODELS:
        m = numbers["models"][name]
        shares = [estimate(m[k], numbers.get("group")) for k in ("data", "shuffled", "masked")]
        knn = f"{np.mean(m['knn']):.1%}" if m["knn"] else "no classes"
        rows.append([name, *(f"{100 * e.value:.1f} ± {100 * e.se:.1f}" for e in shares), knn])
    head = ["model", "data, % lost", "shuffled, % lost", "masked, % lost", "10 neighbours"]
    caption = (
        f"{n:,} test examples, mean ± standard error. Lost: mean squared error as a share of the data's variance; for "
        f"masked data, relative to the unmasked data. {numbers['under']} and {numbers['over']} latents for "
        f"{numbers['dims']} data dimensions."
    )
    return Section("numbers", "In numbers", [Table(head, rows, caption, numeric=(1, 2, 3, 4))])
