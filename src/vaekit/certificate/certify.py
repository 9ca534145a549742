"""The certificate of a run: how far each estimator of log p(x) can be off, and whether the densities are consistent."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vaekit.coding.compress import digest_of
from vaekit.data.condition import Labels
from vaekit.errors import ChoiceError
from vaekit.estimators import ENOUGH, reliable, why_not
from vaekit.metrics.measurement import Measurement
from vaekit.runs.likelihood import at_once
from vaekit.runs.new_data import DataLike
from vaekit.runs.saved import SavedRun
from vaekit.runs.trained import TrainedModel
from vaekit.utils.files import write_json
from vaekit.utils.isolation import in_full_precision
from vaekit.utils.waiting import adaptive_waiting

from . import bounds, checks
from .batches import Batch, measured, simulated
from .checks import Check
from .statistics import mean_of

N, SAMPLES, CHAINS, STEPS, TOLERANCE = 32, 1000, 8, 2000, 1.0
SMALL, OFF = 0.1, 1.0
"""Nats below which an error is called small, and above which an estimate hides differences between models."""
HEAVY = 0.1
"""The share of data with an unreliable k-hat above which the interval of an error is not trusted."""
STORED = "certificate.json"
"""The name of a certificate in the folder of its run."""


@dataclass(frozen=True)
class Verdict:
    """How far one estimator can be off.

    Attributes:
        estimate: its name, such as `IW-1000`.
        metric, K: the metric of `vaekit evaluate` that has this estimate with these settings, and its K; else None.
        passed: whether it can be trusted: True if its mean error is at most `OFF` nats for certain (for the ELBO, which
            is reported as a bound, if its densities are right), False if it is larger for certain or a log density that
            it rests on is wrong, None if neither is known or nothing is certified.
        low, high: an interval for its mean error on data simulated from the model, in nats: 95%, over data.
        gap: its mean distance from the reference on the measured data: exact log p(x), or the lower bound by annealing.
        gap_low, gap_high: a 95% interval of `gap`, by group where the data have groups.
        value: its mean on the measured data, in the data's own units.
        bound: whether it is below log p(x) in expectation.
        words: the verdict.
    """

    estimate: str
    metric: str | None
    K: int | None
    passed: bool | None
    low: float
    high: float
    gap: float
    gap_low: float
    gap_high: float
    value: float
    bound: bool
    words: str


@dataclass(frozen=True)
class Certificate:
    """The certificate of a run.

    Attributes:
        run: its name.
        step, weights: its training step, None for a model without a run, and the digest of its weights.
        method: how log p(x) of simulated data was bounded: `closed form`, `quadrature` or `bidirectional Monte Carlo`.
        exact_on_data: whether log p(x) of the measured data is exact as well.
        width: mean distance of the bounds on simulated data, in nats; 0 if exact.
        log_px, log_px_simulated: the mean reference of measured and of simulated data, in the data's own units.
        verdicts: one for each estimator.
        checks: of the run's consistency.
        k_hat: quantiles of k-hat over the measured data (5%, 50%, 95%), the `limit` up to which it is reliable with
            this many draws, and the share above it; None for both if they are too few to judge.
        protocol: data, number of data, seeds and sizes.
    """

    run: str
    step: int | None
    weights: str
    method: str
    exact_on_data: bool
    width: float
    log_px: float
    log_px_simulated: float
    verdicts: tuple[Verdict, ...]
    checks: tuple[Check, ...]
    k_hat: dict[str, float | None]
    protocol: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether no check has failed."""
        return all(check.passed is not False for check in self.checks)

    @property
    def certified(self) -> bool:
        """Whether log p(x) of simulated data is known sharply enough; if not, no estimate is known to be wrong."""
        return all(check.passed is not False for check in self.checks if check.name == "reference")

    @property
    def tails(self) -> str:
        """k-hat in words."""
        k = self.k_hat
        words = f"k-hat: median {k['50%']:.2f}"
        if k["limit"] is None:
            return f"{words}, not judged: {self.protocol['K']} draws are too few"
        return f"{words}, above {k['limit']:.2f} for {k['above limit']:.0%} of the examples"

    def as_json(self) -> dict[str, Any]:
        """The certificate as plain objects, with None for numbers that are not finite."""
        plain: dict[str, Any] = _plain({"passed": self.passed, "certified": self.certified, **asdict(self)})
        return plain

    def store(self, folder: Path) -> None:
        """Write certificate.json in the folder of a run, where `vaekit doctor` finds it."""
        write_json(folder / STORED, self.as_json())

    def __str__(self) -> str:
        lines = [f"{check.name}: {_STATE[check.passed]}: {check.words}" for check in self.checks]
        lines += [f"{one.estimate}: {one.words}" for one in self.verdicts]
        return "\n".join(lines)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_STATE = {True: "passed", False: "FAILED", None: "not judged"}


@in_full_precision()
@adaptive_waiting()
def certify(
    run: TrainedModel,
    data: DataLike = "test",
    *,
    n: int = N,
    labels: Labels | None = None,
    samples: int = SAMPLES,
    chains: int = CHAINS,
    steps: int = STEPS,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Certificate:
    """Bound the error of every estimator of log p(x) for this very model, and check that its densities are consistent.

    n data are simulated from the model, with their exact z. Their log p(x) is known in closed form (a linear Gaussian
    decoder), by quadrature (at most 3 latents), or else between the bounds of bidirectional Monte Carlo: annealing with
    Hamiltonian Monte Carlo from the prior, forwards and backwards. The same estimators are measured on the first n of
    the data. The checks are described in `vaekit.certificate.checks`. The bounds hold for the mean over data, and for
    the measured data as far as these are like simulated ones.

    Arguments:
        data: a split of the run's data, or raw rows.
        n: number of data of both kinds.
        labels: of raw rows, for a conditional run.
        samples: K, draws from q per datum.
        chains: annealed chains per datum.
        steps: the most steps of annealing; it stops with fewer when the bounds are close.
        tolerance: nats between the bounds beyond which nothing is certified.
        seed: seed of all draws.
        progress: called as progress(done, of).

    Raises:
        ChoiceError: the model has no single layer of continuous latents, or a number is too small.
    """
    if (why := why_not(run.model)) is not None:
        raise ChoiceError(f"`certify` needs one layer of continuous latents: {why}")
    for name, value, least in (("n", n, 4), ("samples", samples, 50), ("chains", chains, 2), ("steps", steps, 20)):
        if value < least:
            raise ChoiceError(f"`{name}` must be {least} or more for a certificate, got {value}")
    m = Measurement(run, data, n=n, labels=labels, samples=samples, seed=seed)
    n = m.n
    if n < 4:
        raise ChoiceError(f"a certificate needs 4 data or more, got {n}")
    size = bounds.Size(chains, samples, at_once(run, m.observed), seed)
    tick = _ticks(steps, math.ceil(n / size.rows), progress)
    drawn, real = simulated(run, m.observed, n, seed, size.codes), measured(run, m.observed, n)
    forth_and_back = bounds.sandwiched(drawn, size, steps, tick)
    forth = bounds.annealed(real, None, size, forth_and_back.steps, tick)
    known = bounds.exact(drawn, size.codes)
    on_data = None if known is None else bounds.exact(real, size.codes)
    truth = {"simulated": known or forth_and_back.truth, "measured": on_data or forth.truth}
    of_both = {"simulated": (drawn, forth_and_back), "measured": (real, forth)}
    found = {where: bounds.estimates(chains_, size) for where, (_, chains_) in of_both.items()}
    made, valid = _checks(of_both, truth, found, samples, tolerance, seed)
    if progress:
        progress(1, 1)
    judge = _Judge(truth, found, real, valid, made[0].passed is not False, samples)
    upper, lower = truth["simulated"].upper, truth["simulated"].lower
    assert upper is not None
    return Certificate(
        run=run.name if isinstance(run, SavedRun) else "the model",
        step=run.config["step"] if isinstance(run, SavedRun) else None,
        weights=digest_of(run),
        method=truth["simulated"].method,
        exact_on_data=on_data is not None,
        width=float(np.mean(upper - lower)),
        log_px=float(np.mean(truth["measured"].lower + real.units)),
        log_px_simulated=float(np.mean(lower + drawn.units)),
        verdicts=tuple(judge(name) for name in found["measured"].values),
        checks=made,
        k_hat=_tails(found["measured"].k_hat, samples),
        protocol=m.protocol.of(f"certificate, {chains} chains of {forth.steps} steps", samples).as_json(),
    )


def _tails(k_hat: np.ndarray, samples: int) -> dict[str, float | None]:
    """The `Certificate.k_hat`."""
    quantiles = zip(("5%", "50%", "95%"), np.quantile(k_hat, [0.05, 0.5, 0.95]), strict=True)
    judged, limit = samples >= ENOUGH, reliable(samples)
    above = float(np.mean(k_hat > limit))
    return {name: float(v) for name, v in quantiles} | {
        "limit": limit if judged else None,
        "above limit": above if judged else None,
    }


def _checks(
    of_both: dict[str, tuple[Batch, bounds.Chains]],
    truth: dict[str, bounds.Truth],
    found: dict[str, bounds.Estimates],
    samples: int,
    tolerance: float,
    seed: int,
) -> tuple[tuple[Check, ...], bool]:
    """All checks, and whether the log densities passed theirs."""
    (drawn, back), (real, forth) = of_both["simulated"], of_both["measured"]
    of_q = checks.log_q(real, samples, seed)
    order = checks.order([(where, truth[where], found[where], of_both[where][0].groups) for where in of_both])
    valid = of_q.passed is not False and order.passed is not False
    made = (
        checks.reference(truth["simulated"], back, tolerance),
        of_q,
        order,
        checks.encoder(real, truth["measured"], forth, found["measured"], samples, valid),
        checks.decoder_scale(real, forth, truth["simulated"].lower + drawn.units, seed),
    )
    return made, valid


def _ticks(steps: int, parts: int, progress: Callable[[int, int], None] | None) -> Callable[[], None]:
    """A callback per transition of each part; the total is that of the longest run, and short ones end early."""
    done, longest = 0, parts * (2 * 280 + 5 * steps)

    def tick() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(min(done, longest - 1), longest)

    return tick


@dataclass(frozen=True)
class _Judge:
    """Gives the verdict on each estimator.

    Attributes:
        truth, found: of simulated and measured data.
        real: the measured data.
        valid: whether the log densities passed their checks.
        certified: whether the bounds are close enough.
        samples: K.
    """

    truth: dict[str, bounds.Truth]
    found: dict[str, bounds.Estimates]
    real: Batch
    valid: bool
    certified: bool
    samples: int

    def __call__(self, name: str) -> Verdict:
        drawn, value, ours = self.truth["simulated"], self.found["simulated"], self.found["measured"]
        assert drawn.upper is not None
        low, high = mean_of(value.values[name] - drawn.upper).low, mean_of(value.values[name] - drawn.lower).high
        gap = mean_of(ours.values[name] - self.truth["measured"].lower, self.real.groups)
        bound, (metric, k) = name in ours.bounds, ours.metrics[name]
        wrong = not self.valid and name in ours.of_q
        words = _words(low, high, gap.high, self.truth["measured"].exact)
        heavy = self._heavy(name)
        if heavy:
            words += f"; its error may be larger, as k-hat is {heavy} of the simulated data"
        if wrong:
            words = "not valid: a log density is wrong"
        words = words if bound else f"{words} (not a lower bound)"
        passed: bool | None = None
        if wrong:
            passed = False
        elif metric == "elbo":
            passed = True
        elif self.certified and max(abs(low), abs(high)) <= OFF:
            passed = None if heavy else True
        elif self.certified and (low > OFF or high < -OFF):
            passed = False
        mean = float(np.mean(ours.values[name] + self.real.units))
        return Verdict(name, metric, k, passed, low, high, gap.value, gap.low, gap.high, mean, bound, words)

    def _heavy(self, name: str) -> str | None:
        """In words, that an interval of Student's t is too short for the errors of this mean of weights; else None."""
        found, limit = self.found["simulated"], reliable(self.samples)
        share = float(np.mean(found.k_hat > limit))
        if name not in found.of_weights or self.samples < ENOUGH or share <= HEAVY:
            return None
        return f"above {limit:.2f} for {share:.0%}"


def _words(low: float, high: float, on_data: float, exact: bool) -> str:
    """The verdict in words, from the interval of the error on simulated data, and the gap on the measured data."""
    worst = max(abs(low), abs(high))
    if worst <= SMALL:
        text = f"right to {SMALL:g} nats"
    elif high < 0:
        text = f"too low by {-high:.2g} to {-low:.2g} nats"
    elif low > 0:
        text = f"too high by {low:.2g} to {high:.2g} nats"
    else:
        text = f"off by at most {worst:.2g} nats"
    if on_data < min(low, 0) - SMALL:
        text += f", and on these data too low by {-on_data:.2g} nats {'or so' if exact else 'or more'}"
    return text
