"""Autoencoders with fewer and with more latents than data dimensions, with and without denoising."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vaekit.data.core import Data
from vaekit.errors import ChoiceError
from vaekit.metrics.codes import knn_correct
from vaekit.noise import Noise
from vaekit.objectives.corruption import corruption
from vaekit.report.blocks import Block, Section, Strips, Table
from vaekit.runs.run import Run

from .ae_vs_vae import labelled
from .bench import Bench, Plan
from .denoising import denoise
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
"""Of what the under-complete model loses of shuffled pictures: who loses less than this share of it copies."""
HARDLY = 0.8
"""The same: who loses more than this share of it does not."""


def _check(data: Data) -> None:
    dims = int(np.prod(data.shape))
    if dims > MOST:
        raise ChoiceError(f"complete needs data of up to {MOST:,} numbers, got {dims:,}: give smaller images")
    if dims < FEWEST:
        raise ChoiceError(f"complete needs data of {FEWEST} numbers or more, and those of {data.name} have {dims}")
    check_whole(data, "complete")


@study("complete", "Vincent et al. 2010, Stacked denoising autoencoders, JMLR 11; Bengio et al. 2013, arXiv:1206.5538",
       check=_check)  # fmt: skip
def complete(bench: Bench) -> Findings:
    """Under- against over-complete autoencoders, with and without denoising: what the over-complete one learns.

    One hidden layer each, of as many units as the larger code. With more latents than data dimensions nothing forces an
    autoencoder to learn what data look like: it may copy. Whether it does shows on pictures with their pixels shuffled,
    which no training saw; what else it learned shows in its neighbours' classes and in what single latents draw.
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
    spoilt = corruption("masking", MASKED)(x, Noise.of(82, n))
    variance = ((x - x.mean(0)) ** 2).mean((*range(1, x.dim()),)).mean()
    pictures: dict[str, list[np.ndarray]] = {}
    for name, run in runs.items():
        made = [torch.from_numpy(rebuild(run, t)) for t in (x, shuffled, spoilt)]
        lost = [((m - t) ** 2).flatten(1).mean(1) / variance for m, t in zip(made, (x, shuffled, x), strict=True)]
        numbers["models"][name] = {
            key: values.tolist() for key, values in zip(("data", "shuffled", "masked"), lost, strict=True)
        } | {"knn": neighbours(bench, run, bench.sized(2000, 10_000), n)}
        pictures[name] = [m[:SHOWN].numpy() for m in made]
    sections = [_table(numbers, n)]
    if bench.data.kind == "image":
        inputs = [t[:SHOWN].numpy() for t in (x, shuffled, spoilt)]
        sections = [_pictures(bench, inputs, pictures), _latents(bench, runs), *sections]
    return Findings(read(numbers), sections, numbers)


def rebuild(run: Run, x: torch.Tensor) -> np.ndarray:
    """Encoded and decoded, as the model sees x."""
    if run.spec.kind == "image":
        return denoise(run, x.numpy()).astype(np.float32)
    with torch.no_grad():
        return run.model.decode(run.model.encode(x.to(run.device))).mean.cpu().numpy()


def neighbours(bench: Bench, run: Run, n_train: int, n: int) -> list[bool]:
    """Whether ten neighbours among the codes find the class of each test datum; nothing where there are no classes."""
    if bench.data.test.label is None or bench.data.train.label is None:
        return []
    train, test = labelled(bench, "train", n_train), labelled(bench, "test", n)
    if not len(train) or not len(test):
        return []
    known, new = run.encode("train", rows=train), run.encode("test", rows=test)
    return knn_correct(known, bench.data.train.label[train], new, bench.data.test.label[test]).tolist()


CLAIMS = 4  # copying, and what denoising does to it, to holes, and to classes


def read(numbers: dict[str, Any]) -> list[str]:
    """What the numbers say: who copies, what denoising changes, what the codes know."""
    models, group, level = numbers["models"], numbers.get("group"), LEVEL / CLAIMS
    lost = {name: {k: float(np.mean(models[name][k])) for k in ("data", "shuffled", "masked")} for name in MODELS}
    _, low, high = ratio(models[OVER]["shuffled"], models[UNDER]["shuffled"], group, level)
    said = [
        f"With {numbers['over']} latents for {numbers['dims']} data dimensions the plain autoencoder loses "
        f"{lost[OVER]['data']:.1%} of the variance of test data (with {numbers['under']} latents "
        f"{lost[UNDER]['data']:.1%}), and of that of pictures with their pixels shuffled {lost[OVER]['shuffled']:.0%} "
        f"({lost[UNDER]['shuffled']:.0%}): "
        + (
            "it gives back even what no datum looks like, so it has learned to copy more than to know."
            if high < COPY
            else "what no datum looks like it gives back hardly better than the under-complete one, so in this much "
            "training it has not learned to copy."
            if low > HARDLY
            else "it gives back some of what no datum looks like: it has begun to copy."
            if high < HARDLY
            else "whether it has begun to copy these data do not tell "
            f"(it loses {between(low, high, level)} times as much)."
        )
    ]
    before, after = lost[OVER]["shuffled"], lost[OVER + DENOISED]["shuffled"]
    which = direction(paired(models[OVER + DENOISED]["shuffled"], models[OVER]["shuffled"], group), level)
    said.append(
        f"Trained to undo masks of {MASKED:.0%} of the elements, it loses {after:.0%} of shuffled pictures instead of "
        f"{before:.0%}: "
        + choose(
            which,
            "trained to denoise, it copies less.",
            "trained to denoise, it copies more, not less.",
            "a difference that these data cannot tell from none.",
        )
    )
    mend = direction(paired(models[OVER]["masked"], models[OVER + DENOISED]["masked"], group), level)
    said.append(
        f"Of masked test data the denoising one loses {lost[OVER + DENOISED]['masked']:.1%}, the plain one "
        f"{lost[OVER]['masked']:.1%}; "
        + choose(mend, "it fills holes.", "it fills holes less well.", "these data do not tell which is better at it.")
    )
    if models[OVER]["knn"]:
        share = {name: f"{np.mean(models[name]['knn']):.1%}" for name in MODELS}
        gain = paired(models[OVER + DENOISED]["knn"], models[OVER]["knn"], numbers.get("labelled"), step=1.0)
        said.append(
            f"Ten neighbours among its codes find the class of {share[OVER]} of test data, with denoising "
            f"{share[OVER + DENOISED]} (under-complete: {share[UNDER]} and {share[UNDER + DENOISED]}): "
            + choose(
                direction(gain, level),
                "the denoising code knows more of the classes.",
                "the denoising code knows less of the classes.",
                f"a difference of {number(abs(100 * gain.value))} points, which these data cannot tell from none.",
            )
        )
    return said


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
        blocks.append(Strips(f"rebuilt-{key}", rows, f"{title} and what each model gives back", f"{title}."))
    return Section("pictures", "What comes back", blocks)


def _latents(bench: Bench, runs: dict[str, Run]) -> Section:
    """What the latents that vary most draw: the mean code with one of them two deviations up, less the mean picture."""
    rows = []
    low, high = bench.data.scale
    for name, run in runs.items():
        codes = run.encode("test", min(1000, len(bench.data.test)))
        spread = codes.std(0)
        most = np.argsort(-spread)[:LATENTS]
        moved = np.tile(codes.mean(0), (len(most) + 1, 1))
        moved[np.arange(len(most)), most] += 2 * spread[most]
        x = run.decode(moved.astype(np.float32))
        change = x[:-1] - x[-1:]
        limit = max(float(np.abs(change).max()), 1e-6)
        rows.append(strip(bench, name, (low + high) / 2 + change / limit * (high - low) / 2))
    caption = (
        f"For each model the {LATENTS} latents that vary most: the mean code with one of them two standard deviations "
        "up, less the picture of the mean code; grey is no change, each row on its own scale."
    )
    return Section(
        "latents", "What single latents draw", [Strips("latents", rows, "Changes by single latents", caption)]
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
        f"{n:,} test data, mean ± standard error. Lost: mean squared error as a share of the data's variance; of "
        f"masked data against the whole ones. {numbers['under']} and {numbers['over']} latents for {numbers['dims']} "
        "data dimensions."
    )
    return Section("numbers", "In numbers", [Table(head, rows, caption, numeric=(1, 2, 3, 4))])
