"""What the studies say follows their numbers: opposite numbers, opposite sentences."""

import copy
import math

import numpy as np
import pytest

from vaekit.studies import (
    STUDIES,
    ae_vs_vae,
    beta,
    blur,
    collapse,
    complete,
    denoising,
    importance,
    interpolation,
    kingma2013,
    kl_weight,
)
from vaekit.studies.words import Estimate, choose, estimate, listed, number, paired, sign, trend


def test_estimates_and_signs():
    e = estimate([1.0, 2.0, 3.0])
    assert e.value == 2
    assert e.se == pytest.approx(1 / math.sqrt(3))
    assert sign(Estimate(2.0, 0.1), Estimate(1.0, 0.1)) == 1
    assert sign(Estimate(1.0, 0.1), Estimate(2.0, 0.1)) == -1
    assert sign(Estimate(1.1, 0.1), Estimate(1.0, 0.1)) == 0
    assert sign(Estimate(1.1), Estimate(1.0)) == 1  # errors unknown: as they stand
    assert paired([1, 2, 3], [0, 1, 2]) == Estimate(1.0, 0.0)
    assert choose(-1, "more", "less", "same") == "less"
    assert trend([4, 1, 2], [9, 1, 5]) == 1
    assert trend([1, 2, 3], [3, 2, 1]) == -1
    assert trend([1, 2, 3], [1, 3, 2]) == 0


def test_numbers_as_they_are_written():
    assert number(12345.6) == "12,346"
    assert number(-0.01234) == "−0.0123"
    assert Estimate(-12.345, 0.067).text() == "−12.345 ± 0.067"
    assert Estimate(1.5).text() == "1.50"
    assert listed(["a", "b", "c"]) == "a, b and c"


def weights():
    numbers = {
        name: {"elbo": [-100.0, -100.1, -99.9], "rate": [20.0] * 3, "distortion": [80.0] * 3, "active": [10] * 3,
               "spread": [1.0]}
        for name in ("fixed 0.25", "fixed 1", "fixed 4", kl_weight.LINEAR, kl_weight.CYCLIC)
    }  # fmt: skip
    numbers["fixed 4"] |= {"active": [2] * 3, "rate": [5.0] * 3}
    return numbers


def test_kl_weight_reads_warm_ups_both_ways():
    better, worse = weights(), weights()
    better[kl_weight.LINEAR] |= {"elbo": [-90.0, -90.1, -89.9], "spread": [0.5]}
    worse[kl_weight.LINEAR] |= {"elbo": [-110.0, -110.1, -109.9], "spread": [2.0]}
    up, down = kl_weight.read(better), kl_weight.read(worse)
    assert "`linear warm-up`, −90" in up[0]
    assert "above a weight fixed at 1" in up[1]
    assert "steadier" in up[1]
    assert "as is often claimed" in up[1]
    assert "below a weight fixed at 1" in down[1]
    assert "less steady" in down[1]
    assert "the opposite of what is often claimed" in down[1]
    assert "no better and no worse" in kl_weight.read(weights())[1]
    healthy = weights()
    healthy["fixed 4"]["active"] = [10] * 3
    assert "latents collapsed" in up[3]
    assert "no latent collapsed" in kl_weight.read(healthy)[3]


def models():
    base = {"knn": [1, 0] * 50, "probe": [1, 0] * 50, "probe_penultimate": [1, 0] * 50, "frechet": 1.0, "code_std": 4.0,
            "holes": 0.4}  # fmt: skip
    return {name: copy.deepcopy(base) for name in (ae_vs_vae.AE, ae_vs_vae.FREE, ae_vs_vae.VAE)} | {
        "data": {"frechet": 0.01}
    }


def test_ae_vs_vae_reads_holes_and_classes_both_ways():
    good, bad = models(), models()
    good["VAE"] |= {"holes": 0.1, "frechet": 0.1, "knn": [1] * 100, "code_std": 1.0}
    bad["VAE"] |= {"frechet": 3.0, "knn": [0] * 100, "code_std": 0.1, "probe_penultimate": [1] * 100}
    up, down = ae_vs_vae.read(good), ae_vs_vae.read(bad)
    assert "nearest to the data for the VAE" in up[0]
    assert "The KL made the better samples" in up[0]
    assert "closed most of them" in up[1]
    assert "did not close them" in down[1]
    for share, said in ((0.06, "closed them"), (0.25, "closed some of them"), (0.36, "did not close them")):
        good["VAE"]["holes"] = share
        assert said in ae_vs_vae.read(good)[1]
    for name in (ae_vs_vae.AE, ae_vs_vae.FREE):  # no holes but those of the VAE
        good[name]["holes"] = ae_vs_vae.CHANCE
    assert "did not close them" in ae_vs_vae.read(good)[1]
    assert "did not make better samples" in down[0]
    assert "tell little" in down[0]
    assert "easier to read off" in up[2]
    assert "cost some" in down[2]
    assert "passes on all" in up[4]
    assert "differ in what they pass on" in down[4]


def ways(detour, across, uneven=1.5):
    rng = np.random.default_rng(0)
    wobble = rng.normal(0, 0.01, 50)

    def way(mode, unevenness):
        return {"detour": (1.3 + wobble + (detour if mode == "slerp" else 0)).tolist(),
                "unevenness": (unevenness + wobble).tolist(), "middle norm": [0.7] * 50}  # fmt: skip

    def model(plus):
        return {f"{kind}, {mode}": way(mode, plus + (across if kind == interpolation.BETWEEN else 1.5))
                for kind in (interpolation.WITHIN, interpolation.BETWEEN) for mode in ("lerp", "slerp")}  # fmt: skip

    return {"VAE": model(0.0), "autoencoder": model(uneven)}


def test_interpolation_reads_ways_both_ways():
    up, down = interpolation.read(ways(0.2, 2.0, 1.0)), interpolation.read(ways(-0.2, 1.0, -0.5))
    assert "the straight line is the shorter way" in up[0]
    assert "in spite of its bend" in down[0]
    assert "one class gives way to the other" in up[1]
    assert "between classes the way is the more even one" in down[1]
    assert "less even than the VAE's" in up[2]
    assert "more even than the VAE's" in down[2]


def disentangled(migs, distortions, steps=1000):
    names = [*(f"beta {b}" for b in beta.BETAS), beta.TC, beta.COOLING]
    found = {
        name: {"mig_lib": m, "active": 5, "distortion": d, "carries": ["x", "y", "", "x"] if i == 3 else ["x"] * 4}
        for i, (name, m, d) in enumerate(zip(names, migs, distortions, strict=True))
    }  # fmt: skip
    return {"models": found, "factors": ["x", "y"], "steps": steps,
            "known": {"perfect": {"mig_lib": 0.9}, "rotated": {"mig_lib": 0.1}}}  # fmt: skip


def test_beta_reads_scores_both_ways():
    up = beta.read(disentangled([0.1, 0.2, 0.3, 0.4, 0.35, 0.39], [10, 11, 12, 13, 12, 12]))
    down = beta.read(disentangled([0.4, 0.3, 0.2, 0.1, 0.05, 0.1], [13, 12, 11, 10, 9, 9], steps=400_000))
    assert "that of `beta 8`" in up[0]
    assert "grew with beta" in up[0]
    assert "fell with beta" in down[0]
    assert "distortion rose" in up[1]
    assert "distortion fell" in down[1]
    assert "one at a time" in up[2]
    assert "has not helped" in down[2]
    assert "several latents share x" in up[3]
    assert "one latent alone tells most of y" in up[3]
    assert "no latent tells of y" in down[3]
    assert "the mechanism, not disentanglement" in up[4]
    assert "published" in down[4]
    same = beta.read(disentangled([0.1] * 6, [10] * 6))
    assert "no difference to speak of" in same[2]
    numbers = disentangled([0.1] * 6, [10] * 6) | {"factors": []}
    assert "no factors" in beta.read(numbers)[-1]


def test_collapse_reads_cures_both_ways():
    def numbers(ill, cured, elbo):
        base = {"elbo": [-100.0, -101.0], "rate": 10.0, "active": 20}
        found = {name: copy.deepcopy(base) | {"active": cured, "elbo": [elbo, elbo - 1]} for name in collapse.CURES}
        return found | {collapse.PLAIN: base, collapse.ILL: base | {"active": ill, "rate": 0.0}}

    up, down = collapse.read(numbers(0, 30, -90.0)), collapse.read(numbers(0, 30, -120.0))
    assert "the posterior has collapsed" in up[0]
    assert "pays even where nothing was ill" in up[2]
    assert "not yet a better model" in down[2]
    assert "not an end in themselves" in down[-1]
    none = collapse.read(numbers(20, 20, -100.0))
    assert "has not collapsed" in none[0]
    assert "None of the four cures" in none[1]


def bounds(aevb, sleep, train):
    def ends(value, plus=0.0):
        return {"train": {"elbo": [value + plus]}, "valid": {"elbo": [value]}}

    curves = {f"AEVB, {d}": ends(a, t) for d, a, t in zip(kingma2013.LATENTS, aevb, train, strict=True)}
    curves |= {f"wake-sleep, {d}": ends(s) for d, s in zip(kingma2013.LATENTS, sleep, strict=True)}
    return {"curves": curves, "floor": -80.0}


def test_the_bound_of_2013_reads_both_ways():
    up = kingma2013.read(bounds([-110, -105, -100, -99, -101], [-120] * 5, [1, 2, 3, 4, 5]))
    down = kingma2013.read(bounds([-130, -125, -122, -121, -160], [-120] * 5, [5, 4, 3, 2, 1]))
    assert "AEVB ends above wake-sleep at every" in up[0]
    assert "Wake-sleep ends above AEVB at every" in down[0]
    assert "as the paper says" in up[1]
    assert "did cost" in down[1]
    assert "overfit more." in up[2]
    assert "overfit less." in down[2]
    assert "19.0 nats below it" in up[3]


def test_denoising_reads_both_ways():
    def numbers(auto):
        psnr = {
            "noisy": [10.0, 11.0],
            "autoencoder": [auto, auto + 1],
            "median filter": [15.0, 16.0],
            "PCA": [14.0, 15.0],
        }
        return {"masked pixels": {"psnr": psnr, "ssim": psnr}}

    up, down = denoising.read(numbers(20.0)), denoising.read(numbers(12.0))
    assert "beats both simple methods on every" in up[0]
    assert "the autoencoder is ahead by 5.00 dB" in up[1]
    assert "hold against the learned network" in down[0]
    assert "the median filter is ahead by 3.00 dB" in down[1]


def test_complete_reads_copying_both_ways():
    def numbers(over, denoised):
        flat = {"data": [0.1] * 20, "masked": [0.3] * 20, "knn": [1, 0] * 10}
        found = {name: flat | {"shuffled": [0.9] * 20} for name in complete.MODELS}
        found[complete.OVER] = flat | {"shuffled": over, "knn": [0] * 20}
        found[complete.OVER + complete.DENOISED] = flat | {"shuffled": denoised, "masked": [0.1] * 20, "knn": [1] * 20}
        return {"dims": 64, "under": 8, "over": 80, "models": found}

    up = complete.read(numbers([0.1, 0.12] * 10, [0.6, 0.61] * 10))
    down = complete.read(numbers([0.8, 0.82] * 10, [0.3, 0.31] * 10))
    assert "copy more than to know" in up[0]
    assert "has not learned to copy" in down[0]
    assert "copies less" in up[1]
    assert "copy more, not less" in down[1]
    assert "it fills holes." in up[2]
    assert "know more of the classes" in up[3]


def test_blur_reads_both_ways():
    def numbers(unit, few, many, drawn):
        found = {}
        for name in blur.LIKELIHOODS:
            for latent in blur.LATENTS:
                kept = unit if name == "unit Gaussian" else few if latent == blur.LATENTS[0] else many
                found[f"{name}, {latent} latents"] = {"kept": {"mean": [kept, kept + 0.01], "drawn": [drawn] * 2}}
        return {"models": found}

    up, down = blur.read(numbers(0.2, 0.3, 0.6, 1.1)), blur.read(numbers(0.9, 0.8, 0.5, 0.1))
    assert "Every model's mean reconstruction loses" in up[0]
    assert "no room for" in up[1]
    assert "less sharp" in down[1]
    assert "weighs the KL too heavily" in up[2]
    assert "blurs more here" in down[2]
    assert "as grain, not as detail" in up[3]
    assert "puts none of it back" in down[3]
    assert "No model's" in blur.read(numbers(1.1, 1.1, 1.1, 1.2))[0]


def test_importance_reads_both_ways():
    def numbers(prior, ess, mixture, outside):
        def model(first):
            return {"first": [first, first - 0.1], "gap": {"from the prior": [prior, prior + 0.1]},
                    "ess": {"from q(z|x)": [50.0] * 2, "from the prior": [ess] * 2}}  # fmt: skip

        models = {importance.PLAIN: model(-5.0), importance.MIXTURE: model(mixture)}
        return {"counts": [1, 256], "models": models, "out": {"test data": {}, "others": outside}}

    up = importance.read(numbers(-30.0, 1.0, -3.0, {"log_px": 0.1, "typicality": 0.9, "ratio": 0.7}))
    down = importance.read(numbers(3.0, 40.0, -9.0, {"log_px": 0.9, "typicality": 0.9}))
    assert "still lie" in up[0]
    assert "nats more" in down[0]
    assert "earns its keep" in up[1]
    assert "blind guesses" in down[1]
    assert "the tighter one" in up[2]
    assert "the looser one" in down[2]
    assert "higher than that of test data for others" in up[3]
    assert "as one would hope" in down[3]
    assert "typicality brings it from 0.100 to 0.900, which tells them apart" in up[4]
    none = importance.read(numbers(-30.0, 1.0, -3.0, {"log_px": 0.1, "typicality": 0.5}))
    assert "no cure" in none[4]


def test_estimates_from_weights_against_a_closed_form():
    """Log-normal weights: the mean of exp(w) is known, one draw gives its logarithm's mean, and areas count pairs."""
    rng = np.random.default_rng(0)
    w = rng.normal(0, 0.5, (400, 256))
    assert importance.bounds(w, 1) == pytest.approx(w.mean(1))
    assert importance.bounds(w, 256).mean() == pytest.approx(0.125, abs=0.01)
    assert importance.bounds(w, 4).mean() < importance.bounds(w, 64).mean()
    assert importance.effective(np.zeros((2, 7))) == pytest.approx([7, 7])
    inside, out = rng.normal(size=30), np.round(rng.normal(size=40), 1)
    inside[:5] = out[:5]
    pairs = (inside[:, None] > out).mean() + 0.5 * (inside[:, None] == out).mean()
    assert importance.area(inside, out) == pytest.approx(pairs)


def test_every_study_has_a_line_and_a_paper():
    for name, study in STUDIES.items():
        assert study.name == name
        assert study.summary.endswith(".")
        assert "\n" not in study.summary
        assert study.paper
        assert study.description
