"""What the studies say follows their numbers: opposite numbers, opposite sentences."""

import copy
import math

import numpy as np
import pytest
from scipy import stats

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
    kingma2013_marginal,
    kl_weight,
)
from vaekit.studies.words import (
    Estimate,
    choose,
    difference,
    direction,
    estimate,
    listed,
    number,
    paired,
    ratio,
    side_of,
    spread_ratio,
    trend,
)


def test_estimates_and_directions():
    e = estimate([1.0, 2.0, 3.0])
    assert e.value == 2
    assert e.se == pytest.approx(1 / math.sqrt(3))
    assert e.degrees == 2
    assert e.interval() == pytest.approx((2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)), abs=1e-3)
    assert direction(e) == 0  # two standard errors and more, but of three values
    assert direction(estimate([1.0, 1.1, 0.9])) == 1
    assert direction(estimate([-1.0, -1.1, -0.9])) == -1
    assert direction(Estimate(5.0)) == 0  # an error that is unknown
    assert direction(estimate([3.0])) == 0
    assert direction(paired([1, 2, 3], [0, 1, 2])) == 0  # three alike may be chance
    assert direction(paired([1, 2, 3] * 2, [0, 1, 2] * 2)) == 1
    copies = estimate(np.repeat([1.0, 2.0, 3.0], 9), np.repeat([0, 1, 2], 9))
    assert copies == pytest.approx(e)
    assert choose(-1, "more", "less", "same") == "less"


def test_counts_of_few_seeds_are_not_taken_for_exact():
    assert estimate([1, 1, 1], step=1.0).se == pytest.approx(1 / 3)
    assert direction(paired([11, 11, 11], [10, 10, 10], step=1.0)) == 0
    assert direction(paired([2, 2, 2], [10, 10, 10], step=1.0)) == -1


def test_differences_of_unlike_errors_have_welchs_degrees():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 5), rng.normal(1, 4, 9)
    d = difference(estimate(a), estimate(b))
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert d.interval() == pytest.approx((expected.low, expected.high))


def test_ratios_have_fiellers_interval():
    rng = np.random.default_rng(1)
    b = rng.normal(3, 1, 30)
    a = 0.5 * b + rng.normal(0, 0.3, 30)
    value, low, high = ratio(a, b)
    assert low < value < high
    for end in (low, high):  # the ends are the ratios that a t test just refuses
        t = stats.ttest_1samp(a - end * b, 0)
        assert t.pvalue == pytest.approx(0.05)
    assert ratio(a, b - b.mean())[1:] == (-math.inf, math.inf)
    assert side_of(low, high, 0.2) == 1
    assert side_of(low, high, 0.9) == -1
    assert side_of(low, high, 0.5) == 0


def test_ratios_of_spreads_have_fishers_interval():
    value, low, high = spread_ratio(1.0, 2.0, 3)
    assert value == 0.5
    assert (low, high) == pytest.approx((0.5 / math.sqrt(39), 0.5 * math.sqrt(39)))  # F(2, 2) exceeds 39 in 2.5%


def test_trends_need_every_step():
    up = Estimate(1.0, 0.1, 50)
    assert trend([up, up]) == 1
    assert trend([up, Estimate(0.1, 0.1, 50)]) == 0
    assert trend([Estimate(-1.0, 0.1, 50)]) == -1


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
    better[kl_weight.LINEAR] |= {"elbo": [-90.0, -90.1, -89.89], "spread": [0.05]}
    worse[kl_weight.LINEAR] |= {"elbo": [-110.0, -110.1, -109.89], "spread": [20.0]}
    up, down = kl_weight.read(better), kl_weight.read(worse)
    assert "`linear warm-up`, −89.997" in up[0]
    assert "above a fixed weight of 1. " in up[1]
    assert "was more stable" in up[1]
    assert "as is often claimed" in up[1]
    assert "below a fixed weight of 1. " in down[1]
    assert "less stable" in down[1]
    assert "contrary to what is often claimed" in down[1]
    same = kl_weight.read(weights())
    assert "of 1, which is not significant" in same[1]
    assert "stability is not significant" in same[1]
    healthy = weights()
    healthy["fixed 4"]["active"] = [10] * 3
    assert "latents collapsed" in up[3]
    assert "did not change significantly" in kl_weight.read(healthy)[3]


def test_three_seeds_claim_nothing_of_a_ratio_of_two():
    """Spreads of three seeds that differ by half are what chance gives: there is no verdict."""
    numbers = weights()
    numbers[kl_weight.CYCLIC]["spread"] = [0.5]
    assert "stability is not significant" in kl_weight.read(numbers)[2]


def boot(value, wide=0.01):
    rng = np.random.default_rng(0)
    return {"value": value, "draws": (value + wide * rng.normal(size=50)).tolist()}


def models():
    base = {"knn": [1, 0] * 50, "probe": [1, 0] * 50, "probe_penultimate": [1, 0] * 50, "frechet": boot(1.0),
            "code_std": 4.0, "holes": boot(0.4)}  # fmt: skip
    return {name: copy.deepcopy(base) for name in (ae_vs_vae.AE, ae_vs_vae.FREE, ae_vs_vae.VAE)} | {
        "data": {"frechet": 0.01, "group": None}
    }


def unlike(value, seed, wide=0.01):
    """The same with draws of its own."""
    return {"value": value, "draws": (value + wide * np.random.default_rng(seed).normal(size=50)).tolist()}


def test_ae_vs_vae_reads_holes_and_classes_both_ways():
    good, bad = models(), models()
    good["VAE"] |= {"holes": unlike(0.1, 1), "frechet": unlike(0.1, 1), "knn": [1] * 100, "code_std": 1.0}
    bad["VAE"] |= {"holes": unlike(0.4, 1), "frechet": unlike(3.0, 1), "knn": [0] * 100, "code_std": 0.1}
    bad["VAE"]["probe_penultimate"] = [1] * 100
    up, down = ae_vs_vae.read(good), ae_vs_vae.read(bad)
    assert "nearest to the data for the VAE" in up[0]
    assert "The KL improves samples." in up[0]
    assert "closed most of the holes" in up[1]
    assert "did not close the holes" in down[1]
    for share, said in (
        (0.055, "closed the holes"),
        (0.25, "closed some of the holes"),
        (0.39, "did not close the holes"),
    ):
        good["VAE"]["holes"] = unlike(share, 1, 0.002)
        assert said in ae_vs_vae.read(good)[1]
    good["VAE"]["holes"] = unlike(0.33, 1, 0.05)
    assert "is uncertain" in ae_vs_vae.read(good)[1]
    assert "does not improve samples here" in down[0]
    assert "contain little information" in down[0]
    assert "contain more information about the classes" in up[2]
    assert "contain less information about the classes" in down[2]
    assert "none of these differences is significant" in up[4]
    assert "only some of these" in down[4]
    near = models()
    near["VAE"]["frechet"] = unlike(0.99, 1, 0.1)
    assert "does not improve samples significantly" in ae_vs_vae.read(near)[0]


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
    assert "is the longer path" in up[0]
    assert "is the shorter path" in down[0]
    assert "one class turns into the other" in up[1]
    assert "between classes the path is more even" in down[1]
    assert "less even than the VAE's" in up[2]
    assert "more even than the VAE's" in down[2]


def disentangled(migs, distortions, steps=1000):
    names = [*(f"beta {b}" for b in beta.BETAS), beta.TC, beta.COOLING]
    rng = np.random.default_rng(0)
    found = {
        name: {"mig_lib": m, "active": 5, "distortion": (d + 0.1 * rng.normal(size=40)).tolist(),
               "draws": (m + 0.002 * rng.normal(size=beta.DRAWS)).tolist(),
               "carries": ["x", "y", "", "x"] if i == 3 else ["x"] * 4}
        for i, (name, m, d) in enumerate(zip(names, migs, distortions, strict=True))
    }  # fmt: skip
    return {"models": found, "factors": ["x", "y"], "steps": steps, "degrees": 1999, "ceiling": 0.9024,
            "known": {"perfect": {"mig_lib": 0.9}, "rotated": {"mig_lib": 0.1}}}  # fmt: skip


def test_beta_reads_scores_both_ways():
    up = beta.read(disentangled([0.1, 0.2, 0.3, 0.4, 0.35, 0.39], [10, 11, 12, 13, 12, 12]))
    down = beta.read(disentangled([0.4, 0.3, 0.2, 0.1, 0.05, 0.1], [13, 12, 11, 10, 9, 9], steps=400_000))
    assert "that of `beta 8`" in up[0]
    assert "a perfect code of these factors has 0.902 (0.900 on these data)" in up[0]
    assert "rises with beta at every step" in up[0]
    assert "falls with beta at every step" in down[0]
    assert "distortion rose" in up[1]
    assert "distortion fell" in down[1]
    assert "one at a time scored higher here" in up[2]
    assert "did not help" in down[2]
    assert "Each is one seed. On dSprites, over 5 seeds of " in down[2]
    assert "95% interval over seeds" in down[2]
    assert "several latents carry information about x" in up[3]
    assert "one latent alone carries most of the information about y" in up[3]
    assert "no latent carries information about y" in down[3]
    assert "the mechanism, not disentanglement" in up[4]
    assert "published" in down[4]
    assert "each model here is one seed" in up[4]
    same = beta.read(disentangled([0.1] * 6, [10] * 6))
    assert "not significant" in same[2]
    assert "neither rises nor falls steadily" in same[0]
    assert "not significantly in one direction" in same[1]
    assert "not significantly above that of" in same[0]
    numbers = disentangled([0.1] * 6, [10] * 6) | {"factors": []}
    assert "no factors" in beta.read(numbers)[-1]


def test_collapse_reads_cures_both_ways():
    wobble = np.random.default_rng(0).normal(size=40)

    def numbers(ill, cured, elbo):
        base = {"elbo": (-100 + wobble).tolist(), "rate": 10.0, "active": 20, "bounds": (20, 20)}
        more = {"active": cured, "bounds": (cured, cured), "elbo": (elbo + wobble[::-1]).tolist()}
        found = dict.fromkeys(collapse.REMEDIES, base | more)
        bad = base | {"active": ill, "bounds": (ill, ill), "rate": 0.0}
        return {"models": found | {collapse.PLAIN: base, collapse.COLLAPSED: bad}}

    up, down = collapse.read(numbers(0, 30, -90.0)), collapse.read(numbers(0, 30, -120.0))
    assert "the posterior has collapsed" in up[0]
    assert "helps even without collapse" in up[2]
    assert "alone do not make a better model" in down[2]
    assert "not better in themselves" in down[-1]
    none = collapse.read(numbers(20, 20, -100.0))
    assert "has not collapsed" in none[0]
    assert "None of the four remedies" in none[1]
    unsure = numbers(0, 30, -90.0)
    unsure["models"][collapse.COLLAPSED]["bounds"] = (0, 30)  # near the threshold all of them
    assert "whether the posterior has collapsed is uncertain" in collapse.read(unsure)[0]
    assert "None of the four remedies" in collapse.read(unsure)[1]


def bounds(aevb, sleep, train):
    rng = np.random.default_rng(0)
    wobble = rng.normal(size=50)

    def ends(value, plus=0.0):
        return {part: (value + more + wobble + 0.01 * rng.normal(size=50)).tolist()
                for part, more in (("train", plus), ("valid", 0.0))}  # fmt: skip

    elbo = {f"AEVB, {d}": ends(a, t) for d, a, t in zip(kingma2013.LATENTS, aevb, train, strict=True)}
    elbo |= {f"wake-sleep, {d}": ends(s) for d, s in zip(kingma2013.LATENTS, sleep, strict=True)}
    return {"elbo": elbo, "floor": (80 - wobble).tolist()}


def test_the_bound_of_2013_reads_both_ways():
    up = kingma2013.read(bounds([-110, -105, -100, -99, -101], [-120] * 5, [1, 2, 3, 4, 5]))
    down = kingma2013.read(bounds([-130, -125, -122, -121, -160], [-120] * 5, [5, 4, 3, 2, 1]))
    assert "AEVB ends above wake-sleep for every" in up[0]
    assert "Wake-sleep ends above AEVB for every" in down[0]
    assert "as the paper says" in up[1]
    assert "reduce the bound" in down[1]
    assert "overfit more." in up[2]
    assert "overfit less." in down[2]
    assert "In expectation no bound" in up[3]
    assert "is 18.99" in up[3]
    same = kingma2013.read(bounds([-100] * 5, [-100] * 5, [1] * 5))
    assert "do not differ significantly" in same[0]
    assert "not significantly better than" in same[1]
    assert "no significant trend" in same[2]


def marginal(sleep, em, over):
    """Numbers of figure 3 where AEVB has a mean log p(x) of -100 on test data."""
    rng, wobble = np.random.default_rng(0), np.random.default_rng(1).normal(size=(2, 50))
    log_px, curves, size = {}, {}, ("1,000", "50,000")
    for n, more in zip(size, over, strict=True):
        for name, value in zip(kingma2013_marginal.METHODS, (-100.0, sleep, em), strict=True):
            parts = (("train", value + more, wobble[0]), ("test", value, wobble[1]))
            log_px[f"{name}, {n}"] = {p: (v + w + 0.01 * rng.normal(size=50)).tolist() for p, v, w in parts}
            curves[f"{name}, {n}"] = {"samples": [100.0, 200.0], "train": [-150.0, value], "test": [-111.0, value]}
    exact = {name: {"mean": 1e-4, "largest": 1e-3} for name in log_px}
    return {
        "sizes": list(size), "steps": 1000, "batch": 100, "log_px": log_px, "curves": curves, "error": exact,
        "elbo": {name: (np.array(v["test"]) - 2).tolist() for name, v in log_px.items()},
        "edge": dict.fromkeys(log_px, 1e-6), "seconds": dict.fromkeys(log_px, 5.0),
    }  # fmt: skip


def test_the_marginal_likelihood_of_2013_reads_both_ways():
    up = kingma2013_marginal.read(marginal(-110.0, -120.0, (9.0, 0.0)))
    down = kingma2013_marginal.read(marginal(-90.0, -80.0, (0.0, 9.0)))
    assert "AEVB ends above wake-sleep and Monte Carlo EM" in up[0]
    assert "With 50,000 training data and after 100,000" in up[0]
    assert "that of wake-sleep by 200 points and that of Monte Carlo EM by 100 points" in up[0]
    assert "AEVB ends below wake-sleep and Monte Carlo EM" in down[0]
    assert "that of wake-sleep never and that of Monte Carlo EM never" in down[0]
    both = kingma2013_marginal.read(marginal(-110.0, -90.0, (0.0, 0.0)))
    assert "AEVB ends above wake-sleep and below Monte Carlo EM" in both[1]
    assert "all three methods overfit." in up[2]
    assert "no significant overfitting." in up[3]
    assert "all three methods overfit." in down[3]
    assert "is below log p(x) by 2" in up[4]
    assert "small beside the standard errors." in up[5]
    same = marginal(-100.0, -100.0, (0.0, 0.0))
    assert "not significantly apart from wake-sleep and Monte Carlo EM" in kingma2013_marginal.read(same)[0]
    same["error"] = {name: {"mean": 0.1, "largest": 1.0} for name in same["error"]}
    assert "not small beside the standard errors." in kingma2013_marginal.read(same)[5]


def test_curves_of_2013_are_compared_with_curves_and_unknown_errors_are_said():
    numbers = marginal(-110.0, -120.0, (0.0, 0.0))
    for m in kingma2013_marginal.METHODS:  # the curves are of other data: all are three nats higher
        curve = numbers["curves"][f"{m}, 50,000"]
        curve["test"] = [value + 3 for value in curve["test"]]
    assert (
        "that of wake-sleep by 200 points and that of Monte Carlo EM by 100 points"
        in (kingma2013_marginal.read(numbers)[0])
    )
    numbers["error"]["wake-sleep, 1,000"] = {"mean": float("nan"), "largest": float("nan")}
    truth = kingma2013_marginal.read(numbers)[5]
    assert "is unknown for wake-sleep, 1,000 training data" in truth


def test_denoising_reads_both_ways():
    wobble = np.random.default_rng(0).normal(size=40)

    def numbers(auto):
        psnr = {
            "noisy": (10 + wobble).tolist(),
            "autoencoder": (auto + wobble[::-1]).tolist(),
            "median filter": (15 + wobble).tolist(),
            "PCA": (14 + wobble).tolist(),
        }
        return {"noises": {"masked pixels": {"psnr": psnr, "ssim": psnr}}}

    up, down = denoising.read(numbers(20.0)), denoising.read(numbers(12.0))
    assert "better than both simple methods for every" in up[0]
    assert "the autoencoder is better by 5.00 dB" in up[1]
    assert "SSIM agrees" in up[1]
    assert "A simple method is better than the denoising autoencoder" in down[0]
    assert "the median filter is better by 3.00 dB" in down[1]
    near = denoising.read(numbers(15.05))
    assert "difference is not significant" in near[1]
    assert "for 0 of 1 kinds of noise" in near[0]


def test_complete_reads_copying_both_ways():
    def numbers(over, denoised):
        flat = {"data": [0.1] * 20, "masked": [0.3] * 20, "knn": [1, 0] * 10}
        found = {name: flat | {"shuffled": [0.9] * 20} for name in complete.MODELS}
        found[complete.OVER] = flat | {"shuffled": over, "knn": [0] * 20}
        found[complete.OVER + complete.DENOISED] = flat | {"shuffled": denoised, "masked": [0.1] * 20, "knn": [1] * 20}
        return {"dims": 64, "under": 8, "over": 80, "models": found}

    up = complete.read(numbers([0.1, 0.12] * 10, [0.6, 0.61] * 10))
    down = complete.read(numbers([0.8, 0.82] * 10, [0.3, 0.31] * 10))
    assert "copy its input rather than" in up[0]
    assert "has not learned to copy" in down[0]
    assert "copies less" in up[1]
    assert "copies more, not less" in down[1]
    assert "denoising improves filling in of masked elements" in up[2]
    assert "more information about the classes" in up[3]
    unsure = complete.read(numbers([0.1, 1.3] * 10, [0.1, 1.3] * 10))
    assert "is uncertain" in unsure[0]
    assert "not significant" in unsure[1]


def test_blur_reads_both_ways():
    rng = np.random.default_rng(0)

    def numbers(unit, few, many, drawn):
        found = {}
        for name in blur.LIKELIHOODS:
            for latent in blur.LATENTS:
                kept = unit if name == "unit Gaussian" else few if latent == blur.LATENTS[0] else many
                found[f"{name}, {latent} latents"] = {
                    "kept": {
                        k: (v + 0.01 * rng.normal(size=40)).tolist() for k, v in (("mean", kept), ("drawn", drawn))
                    }
                }
        return {"models": found, "fine": (1 + 0.01 * rng.normal(size=40)).tolist()}

    up, down = blur.read(numbers(0.2, 0.3, 0.6, 1.1)), blur.read(numbers(0.9, 0.8, 0.5, 0.1))
    assert "Every model's mean reconstruction loses" in up[0]
    assert "comes from the small code" in up[1]
    assert "less sharp" in down[1]
    assert "gives the KL too much weight" in up[2]
    assert "blurs more here" in down[2]
    assert "with grain, not with detail" in up[3]
    assert "does not restore" in down[3]
    assert "No model's" in blur.read(numbers(1.1, 1.1, 1.1, 1.2))[0]
    same = blur.read(numbers(0.5, 0.5, 0.5, 0.5))
    assert all("not significant" in said or "uncertain" in said for said in same[1:])


def test_importance_reads_both_ways():
    wobble = np.random.default_rng(0).normal(size=40)

    def about(value, off=0.05):
        return {"value": value, "low": value - off, "high": value + off}

    def numbers(prior, ess, mixture, outside):
        def model(first):
            return {
                "first": (first + wobble).tolist(),
                "gap": {"from the prior": (prior + wobble).tolist()},
                "ess": {"from q(z|x)": (50 + wobble).tolist(), "from the prior": (ess + 0.1 * wobble).tolist()},
            }

        models = {importance.PLAIN: model(-5.0), importance.MIXTURE: model(mixture)}
        models[importance.MIXTURE]["first"] = (mixture + wobble[::-1]).tolist()
        return {"counts": [1, 256], "models": models, "out": {"test data": {}, "others": outside}}

    up = importance.read(
        numbers(-30.0, 1.0, -3.0, {"log_px": about(0.1), "typicality": about(0.9), "ratio": about(0.7)})
    )
    down = importance.read(numbers(3.0, 40.0, -9.0, {"log_px": about(0.9), "typicality": about(0.9)}))
    assert "still" in up[0]
    assert "nats higher" in down[0]
    assert "encoder more than doubles it" in up[1]
    assert "does not double it" in down[1]
    assert "is tighter" in up[2]
    assert "is looser" in down[2]
    assert 'higher for "others" than for test data' in up[3]
    assert "as it should be" in down[3]
    assert "typicality changes the area from 0.100 to 0.900 (0.850 to 0.950), which detects" in up[4]
    none = importance.read(numbers(-30.0, 1.0, -3.0, {"log_px": about(0.1), "typicality": about(0.5)}))
    assert "does not solve the problem" in none[4]
    unsure = importance.read(numbers(0.1, 25.0, -5.05, {"log_px": about(0.48), "typicality": about(0.5)}))
    assert "not significantly different" in unsure[0]
    assert "is uncertain" in unsure[1]
    assert "not significantly tighter or looser" in unsure[2]
    assert "the difference is not significant" in unsure[3]


def test_estimates_from_weights_against_a_closed_form():
    """Log-normal weights: the mean of exp(w) is known, and one draw gives its logarithm's mean."""
    rng = np.random.default_rng(0)
    w = rng.normal(0, 0.5, (400, 256))
    assert importance.bounds(w, 1) == pytest.approx(w.mean(1))
    assert importance.bounds(w, 256).mean() == pytest.approx(0.125, abs=0.01)
    assert importance.bounds(w, 4).mean() < importance.bounds(w, 64).mean()
    assert importance.effective(np.zeros((2, 7))) == pytest.approx([7, 7])


def test_every_study_has_a_line_and_a_paper():
    for name, study in STUDIES.items():
        assert study.name == name
        assert study.summary.endswith(".")
        assert "\n" not in study.summary
        assert study.paper
        assert study.description
