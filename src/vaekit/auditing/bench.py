"""What the experiments of an audit share: the subject with data, its units and likelihood, and the result."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekit.errors import ChoiceError
from vaekit.utils.isolation import seeded

from .subject import Output, Spread, Subject

CLOSE = 0.05
"""Two ratios that differ by less than 5% are equal: the experiments have no noise, the rest is rounding."""

BROKEN = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError)
"""What a module may raise that was not made for an experiment."""


@dataclass(frozen=True)
class Fault:
    """A fault: its name, what was measured, and what to change."""

    name: str
    evidence: str
    remedy: str
    numbers: dict[str, float]


@dataclass(frozen=True)
class Audit:
    """The faults that were found, the names of the experiments that found none, and why others were not made."""

    of: str
    faults: tuple[Fault, ...]
    passed: tuple[str, ...]
    skipped: dict[str, str]

    def __contains__(self, name: object) -> bool:
        return any(fault.name == name for fault in self.faults)

    def as_json(self) -> dict[str, Any]:
        """The audit as JSON values."""
        faults, passed = [asdict(fault) for fault in self.faults], list(self.passed)
        return {"of": self.of, "faults": faults, "passed": passed, "skipped": dict(self.skipped)}

    def __str__(self) -> str:
        """One line with the counts, then each fault with evidence and remedy."""
        counts = f"{len(self.passed)} experiments passed, {len(self.skipped)} skipped"
        lines = [f"{self.of}: {len(self.faults)} faults; {counts}"]
        lines += [f"fault: {one.name}\n  {one.evidence}\n  Remedy: {one.remedy}" for one in self.faults]
        return "\n".join([*lines, *(f"skipped: {name} ({why})" for name, why in self.skipped.items())])


class Bench:
    """The subject with data, and what the experiments share.

    Attributes:
        x: data (B, *event).
        latent: number of latents L.
        codes: number of axes of a batch of codes.
        why: why encode and decode cannot be used, or "".
    """

    def __init__(self, subject: Subject, x: Tensor, beta: float, score: str = ""):
        self.subject, self.x, self.beta, self.score = subject, x, beta, score
        subject.module.eval()
        self.dims, self.why, self.unclear = math.prod(x.shape[1:]), "", ""
        self.latent, self.codes = 1, 2
        self._buffers = {name: value.clone() for name, value in subject.module.named_buffers()}
        try:
            with torch.no_grad(), seeded(0):
                mean, _ = subject.read(x)
                self.latent, self.codes = mean[0].numel(), mean.dim()
        except (ChoiceError, *BROKEN) as error:  # discrete codes, for example: some experiments need no posterior
            self.why = str(error)
            return
        if subject.guessed:
            self._learn_the_spread()
        with contextlib.suppress(ChoiceError, *BROKEN):
            subject.sign = -1.0 if self.unit()[1] < 0 else 1.0  # a bound, not a loss

    def restore(self) -> None:
        """Evaluation mode, and the buffers as they were."""
        self.subject.module.eval()
        with torch.no_grad():
            for name, value in self.subject.module.named_buffers():
                if name in self._buffers and value.shape == self._buffers[name].shape:
                    value.copy_(self._buffers[name])

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Training mode; afterwards evaluation mode, and buffers as they were."""
        self.subject.module.train()
        try:
            yield
        finally:
            self.restore()
            self.subject.module.zero_grad(set_to_none=True)

    def _learn_the_spread(self) -> None:
        """Tell the kind of spread by which the loss is the KL of a normal; encode does not name it.

        The KL of a latent with mean 0 and standard deviation s is (s^2 - 1) / 2 - log s.
        """
        x = self.x[:1].expand(self.rows, *self.x.shape[1:])
        grid, errors = (0.6, 1.0, 1.4, 2.0), {}

        def total(mean: float, spread: float) -> float:
            return self.subject.measured(x, mean=mean, spread=spread, output=0.3)[0]["total"]

        try:
            unit = (total(1.0, 1.0) + total(-1.0, 1.0) - 2 * total(0.0, 1.0)) / self.latent
            found = [total(0.0, s) / unit for s in grid]
        except (ChoiceError, *BROKEN) as error:
            self.unclear = str(error)
            return
        for kind in get_args(Spread):
            self.subject.spread = kind
            at = [float(self.subject.deviation(torch.tensor(s))) for s in grid]
            want = [self.latent * ((s**2 - 1) / 2 - math.log(s)) for s in at]
            gaps = [abs((f - found[1]) - (w - want[1])) for f, w in zip(found, want, strict=True)]
            errors[kind] = max(gaps) / max(abs(w - want[1]) for w in want)
        self.subject.spread = min(errors, key=lambda kind: errors[kind])
        if min(errors.values()) > 0.2:
            self.subject.spread = "log_variance"
            self.unclear = "the loss does not tell what encode returns beside the mean: name it with `spread`"

    @property
    def rows(self) -> int:
        """Rows of a batch that holds 1,536 draws of a latent, so that their spread is known to 2%."""
        return max(8, -(-1536 // self.latent))

    def at(self, mean: float = 0.0, deviation: float = 1.0, output: Output = 0.3, x: Tensor | None = None,
           seed: int = 0) -> dict[str, float]:  # fmt: skip
        """The terms of the loss with this posterior in every latent and this output of decode in every element.

        Raises:
            ChoiceError: encode does not return mean and spread, or the loss does not call encode and decode.
        """
        if self.why:
            raise ChoiceError(self.why)
        spread = self.subject.spread_of(deviation)
        x = self.x if x is None else x
        terms = self.subject.measured(x, seed=seed, mean=mean, spread=spread, output=output)[0]
        if not math.isfinite(terms["total"]):
            raise ChoiceError(f"the loss is {terms['total']} for a posterior with standard deviation {deviation:g}")
        return terms

    def draws(self, x: Tensor) -> Tensor:
        """The codes that the loss decodes for a posterior with mean 0 and standard deviation 2.

        Raises:
            ChoiceError: they do not move with the mean one for one, so that they are not its draws, but, say, a flow's.
        """
        if self.why:
            raise ChoiceError(self.why)
        spread, seen = self.subject.spread_of(2.0), []
        for mean in (0.0, 1.0):
            codes = self.subject.measured(x, mean=mean, spread=spread)[1]
            if not codes:
                raise ChoiceError("the loss does not call decode: name the method with `decode`")
            seen.append(codes[-1])
        if seen[0].shape != seen[1].shape or float((seen[1] - seen[0] - 1).abs().max()) > 1e-3:
            raise ChoiceError("the codes that are decoded are not draws from what encode returns, or change after it")
        return seen[0]

    def kl_weight(self, unit: float) -> float:
        """The weight of the KL beside a reconstruction with this unit.

        Raises:
            ChoiceError: the loss is not one with the KL of the codes to a standard normal prior.
        """
        kl = self.kl_unit()
        try:
            self.draws(self.x)
        except ChoiceError:  # encode draws the codes itself: then only a KL in closed form is known
            if abs(self.kl_unit(deviation=1.0) - kl) > CLOSE * abs(kl) or self._follows():
                raise
        return kl / unit

    def _follows(self) -> bool:
        """Whether the decoded codes depend on the mean and spread that are set."""
        seen = [self.subject.measured(self.x, mean=m, spread=self.subject.spread_of(2.0))[1][-1] for m in (0.0, 1.0)]
        return not torch.equal(*seen)

    def kl_unit(self, x: Tensor | None = None, deviation: float = 0.01) -> float:
        """The number by which the loss multiplies the sum over latents of the KL of one datum.

        The KL to a standard normal prior rises by m^2 / 2 for a mean m. Means m and -m with the same noise take the
        noise of a KL of one draw away, and narrow posteriors that of several draws.

        Raises:
            ChoiceError: the loss does not rise so.
        """
        none = self.at(deviation=0.01, x=x)["total"]
        rises = {
            m: (self.at(m, deviation, x=x)["total"] + self.at(-m, deviation, x=x)["total"]) / 2 - none
            for m in (1.0, 2.0, 10.0)
        }
        if abs(rises[10.0]) < 1e-6 * (1 + abs(none)):
            return 0.0
        unit = rises[2.0] / 4
        if any(abs(rise / m**2 - unit) > CLOSE * abs(unit) for m, rise in rises.items()):
            raise ChoiceError("the loss is not one with the KL to a standard normal prior")
        return 2 * unit / self.latent

    def unit(self, x: Tensor | None = None) -> tuple[str, float]:
        """The likelihood, and the number by which the loss multiplies -log p(x|z) of the mean datum.

        The likelihood is the one for which the number is the same for three pairs of outputs.

        Raises:
            ChoiceError: none is.
        """
        x = self.x if x is None else x
        with torch.no_grad(), seeded(0):
            self.subject.decoded(self.subject.read(self.x[:2])[0])  # it must return one tensor
        found = {o: self.at(output=o, x=x)["total"] for o in (0.2, 0.4, 0.6, 0.8)}
        best = ("", math.inf, 0.0)
        for name, function in LIKELIHOODS.items():
            want = {o: float(function(x, torch.full_like(x, o)).mean()) for o in found}
            pairs = [(a, b) for a, b in ((0.2, 0.4), (0.2, 0.6), (0.2, 0.8))]
            ratios = [(found[a] - found[b]) / d for a, b in pairs if abs(d := want[a] - want[b]) > 1e-9]
            middle = sum(ratios) / max(len(ratios), 1)
            worst = max((abs(r - middle) for r in ratios), default=math.inf) / max(abs(middle), 1e-12)
            if worst < best[1]:
                best = (name, worst, middle)
        if best[1] > CLOSE or abs(best[2]) < 1e-12:
            raise ChoiceError("the reconstruction is not a Bernoulli or Gaussian likelihood of the output of decode")
        return best[0], best[2]

    def constant(self, name: str, unit: float, x: Tensor | None = None) -> float:
        """What the loss adds to -log p(x|z) without constants, in nats per datum."""
        x = self.x if x is None else x
        return self.at(x=x)["total"] / unit - float(LIKELIHOODS[name](x, torch.full_like(x, 0.3)).mean())


def _sum(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)


LIKELIHOODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bernoulli": lambda x, o: _sum(F.binary_cross_entropy(o.clamp(1e-6, 1 - 1e-6), x.clamp(0, 1), reduction="none")),
    "logits": lambda x, o: _sum(F.binary_cross_entropy_with_logits(o, x, reduction="none")),
    "gaussian": lambda x, o: _sum((x - o) ** 2) / 2,
}
"""-log p(x|z) of each datum for the output of decode, without constants."""

Experiment = Callable[[Bench], Fault | None]
EXPERIMENTS: dict[str, Experiment] = {}


def experiment(name: str) -> Callable[[Experiment], Experiment]:
    """Register an experiment by the name of the fault that it finds."""

    def register(function: Experiment) -> Experiment:
        EXPERIMENTS[name] = function
        return function

    return register
