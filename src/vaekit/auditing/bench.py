"""What the experiments of an audit share: the subject with data, its units and likelihood, and the result."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vaekit.errors import ChoiceError
from vaekit.utils.isolation import seeded

from .subject import Subject

CLOSE = 0.05
"""Two ratios that differ by less than 5% are equal: the experiments have no noise, the rest is rounding."""


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
        latent: L.
    """

    def __init__(self, subject: Subject, x: Tensor, beta: float, score: str = ""):
        self.subject, self.x, self.beta, self.score = subject, x, beta, score
        subject.module.eval()
        self.dims, self.why = math.prod(x.shape[1:]), ""
        try:
            with torch.no_grad(), seeded(0):
                mean, _ = subject.read(x)
                self.output = subject.decoded(mean)
                self.latent = mean.shape[-1]
        except ChoiceError as error:  # discrete codes, for example: some experiments need no posterior
            self.why = str(error)

    def at(
        self, mean: float = 0.0, deviation: float = 1.0, output: float = 0.3, x: Tensor | None = None
    ) -> dict[str, float]:
        """The terms of the loss with this posterior in every latent and this output of decode in every element.

        Raises:
            ChoiceError: encode does not return mean and spread.
        """
        if self.why:
            raise ChoiceError(self.why)
        x = self.x if x is None else x
        shape = (len(x), self.latent)
        spread = torch.full(shape, self.subject.spread_of(deviation))
        out = torch.full((len(x), *self.output.shape[1:]), output)
        return self.subject.measured(x, mean=torch.full(shape, mean), spread=spread, output=out)[0]

    def kl_unit(self, x: Tensor | None = None) -> float:
        """The number by which the loss multiplies the sum over latents of the KL of one datum."""
        return (self.at(mean=1.0, x=x)["total"] - self.at(x=x)["total"]) / (0.5 * self.latent)

    def unit(self, x: Tensor | None = None) -> tuple[str, float]:
        """The likelihood, and the number by which the loss multiplies -log p(x|z) of the mean datum.

        The likelihood is the one for which the number is the same for three pairs of outputs.

        Raises:
            ChoiceError: none is.
        """
        x = self.x if x is None else x
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
        if best[1] > CLOSE:
            raise ChoiceError("the reconstruction is not a Bernoulli or Gaussian likelihood of the output of decode")
        return best[0], best[2]


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
