"""The certificate of a run: how far each estimator of log p(x) can be off, and whether the densities are consistent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vaekit.data.condition import Labels
from vaekit.errors import ChoiceError
from vaekit.estimators import RELIABLE, why_not
from vaekit.metrics.measurement import Measurement
from vaekit.runs.likelihood import at_once
from vaekit.runs.new_data import DataLike
from vaekit.runs.saved import SavedRun
from vaekit.runs.trained import TrainedModel
from vaekit.utils.isolation import in_full_precision
from vaekit.utils.waiting import adaptive_waiting

from . import bounds, checks
from .batches import Batch, measured, simulated
from .checks import Check
from .statistics import mean_of

N, SAMPLES, CHAINS, STEPS, TOLERANCE = 32, 1000, 8, 2000, 1.0
SMALL = 0.1
"""Nats below which an error is called small."""


@dataclass(frozen=True)
class Verdict:
    """How far one estimator can be off.

    Attributes:
        name: the estimator.
        low, high: an interval for its mean error on data simulated from the model, in nats: 95%, over data.
        gap: its mean distance from the reference on the measured data: exact log p(x), or the lower bound by annealing.
        gap_low, gap_high: a 95% interval of `gap`, by group where the data have groups.
        value: its mean on the measured data, in the data's own units.
        bound: whether it is below log p(x) in expectation.
        words: the verdict.
    """

    name: str
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
        method: how log p(x) of simulated data was bounded: `closed form`, `quadrature` or `bidirectional Monte Carlo`.
        exact_on_data: whether log p(x) of the measured data is exact as well.
        width: mean distance of the bounds on simulated data, in nats; 0 if exact.
        log_px, log_px_simulated: the mean reference of measured and of simulated data, in the data's own units.
        verdicts: one for each estimator.
        checks: of the run's consistency.
        k_hat: quantiles of k-hat over the measured data (5%, 50%, 95%), and the share above 0.7.
        protocol: data, number of data, seeds and sizes.
    """

    run: str
    method: str
    exact_on_data: bool
    width: float
    log_px: float
    log_px_simulated: float
    verdicts: tuple[Verdict, ...]
    checks: tuple[Check, ...]
    k_hat: dict[str, float]
    protocol: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether no check has failed."""
        return all(check.passed is not False for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """The certificate as plain objects."""
        return {"passed": self.passed, **asdict(self)}

    def __str__(self) -> str:
        lines = [f"{check.name}: {_STATE[check.passed]}: {check.reason}" for check in self.checks]
        lines += [f"{one.name}: {one.words}" for one in self.verdicts]
        return "\n".join(lines)


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
        steps: the most steps of annealing; fewer are used if the bounds are sharp before.
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
    tick = _ticks(steps, progress)
    drawn, real = simulated(run, m.observed, n, seed), measured(run, m.observed, n)
    forth_and_back = bounds.sandwiched(drawn, seed, steps, chains, tick)
    forth = bounds.annealed(real, None, seed, forth_and_back.steps, chains, tick)
    of_both = {"simulated": (drawn, forth_and_back), "measured": (real, forth)}
    known = bounds.exact(drawn)
    on_data = None if known is None else bounds.exact(real)
    truth = {"simulated": known or forth_and_back.truth, "measured": on_data or forth.truth}
    codes = at_once(run, m.observed)
    found = {where: bounds.estimates(*both, samples, seed, codes) for where, both in of_both.items()}
    made, valid = _checks(of_both, truth, found, samples, tolerance, seed)
    names = found["measured"].values
    if progress:
        progress(1, 1)
    upper, lower = truth["simulated"].upper, truth["simulated"].lower
    assert upper is not None
    tails = found["measured"].k_hat
    quantiles = zip(("5%", "50%", "95%"), np.quantile(tails, [0.05, 0.5, 0.95]), strict=True)
    return Certificate(
        run=run.name if isinstance(run, SavedRun) else "the model",
        method=truth["simulated"].method,
        exact_on_data=on_data is not None,
        width=float(np.mean(upper - lower)),
        log_px=float(np.mean(truth["measured"].lower + real.units)),
        log_px_simulated=float(np.mean(lower + drawn.units)),
        verdicts=tuple(_verdict(name, truth, found, real, valid=valid) for name in names),
        checks=made,
        k_hat={name: float(v) for name, v in quantiles} | {"above 0.7": float(np.mean(tails > RELIABLE))},
        protocol=m.protocol.of(f"certificate, {chains} chains of {forth.steps} steps", samples).as_json(),
    )


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


def _ticks(steps: int, progress: Callable[[int, int], None] | None) -> Callable[[], None]:
    """A callback per transition; the total is that of the longest run, and short ones end early."""
    done, longest = 0, 2 * 280 + 5 * steps

    def tick() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(min(done, longest - 1), longest)

    return tick


def _verdict(
    name: str, truth: dict[str, bounds.Truth], found: dict[str, bounds.Estimates], real: Batch, *, valid: bool
) -> Verdict:
    """The verdict on one estimator."""
    drawn, value = truth["simulated"], found["simulated"].values[name]
    assert drawn.upper is not None
    low, high = mean_of(value - drawn.upper).low, mean_of(value - drawn.lower).high
    ours = found["measured"].values[name]
    gap = mean_of(ours - truth["measured"].lower, real.groups)
    words = _words(low, high, gap.high, truth["measured"].exact)
    if not valid and name in found["measured"].of_q:
        words = "not valid: a log density is wrong"
    bound = name in found["measured"].bounds
    mean = float(np.mean(ours + real.units))
    words = words if bound else f"{words} (not a lower bound)"
    return Verdict(name, low, high, gap.value, gap.low, gap.high, mean, bound, words)


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
