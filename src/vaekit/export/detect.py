"""The graph that scores rows and gives their p-values among the held-out rows of a run, without vaekit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vaekit.anomalies.conformal import FALSE_ALARMS, rows_needed
from vaekit.anomalies.reference import PENALTY, HeldOut, held_out
from vaekit.anomalies.scoring import SAMPLES, common_noise, observed_log_prob
from vaekit.data.observation import Observation
from vaekit.errors import ChoiceError, DataError, RunError
from vaekit.models.vae import Model
from vaekit.noise import Noise
from vaekit.objectives.terms import log_mean_weight, log_weights
from vaekit.runs.saved import SavedRun

RATES = (0.001, 0.01, 0.05, 0.1)
"""The false-alarm rates whose thresholds are written into the file, if the held-out rows support them."""


class _Kept(Noise):
    """The common noise of `anomalies.scoring`, which keeps every request for random numbers of one row."""

    def __init__(self, x: Tensor):
        plain = common_noise(x)
        super().__init__(plain.base, plain.rows)
        self.kept: list[Tensor] = []
        self.inner = False  # a normal draw asks for uniform ones itself

    def uniform(self, event: Sequence[int], k: int | None = None) -> Tensor:
        drawn = super().uniform(event, k)
        return drawn if self.inner else self._keep(drawn, k)

    def normal(self, event: Sequence[int], k: int | None = None) -> Tensor:
        self.inner = True
        drawn = super().normal(event, k)
        self.inner = False
        return self._keep(drawn, k)

    def _keep(self, drawn: Tensor, k: int | None) -> Tensor:
        self.kept.append(drawn[:1] if k is None else drawn[:, :1])
        return drawn


class _Repeated(Noise):
    """Kept random numbers, the same for every row of x."""

    def __init__(self, x: Tensor, kept: Sequence[Tensor]):
        super().__init__(torch.zeros((), dtype=torch.int64), torch.arange(x.shape[0]))
        self.n, self.tensors = x.shape[0], iter(kept)

    def bits(self, event: Sequence[int], k: int | None = None) -> Tensor:
        raise ChoiceError("its samples come from a special sampler, which cannot be exported")

    def uniform(self, event: Sequence[int], k: int | None = None) -> Tensor:
        drawn = next(self.tensors)
        lead = (self.n,) if k is None else (k, self.n)
        return drawn.expand(*lead, *drawn.shape[len(lead) :])

    normal = uniform


class Detect(nn.Module):
    """x (N, *event) and a condition, if any -> log p(x) in nats (N,) and the p-value (N,).

    The K draws of z are constants of the graph, as are the scores of the held-out rows: a row is flagged at a rate if
    its p-value is at most that rate. As in `anomalies.detect`, a category that the training rows lack, which any code
    beyond the known ones stands for, is left out of log p(x) and costs `PENALTY` nats.
    """

    seen: Tensor
    usual: Tensor
    scores: Tensor
    weight: Tensor
    total: Tensor
    units: Tensor

    def __init__(self, model: Model, observation: Observation, held: HeldOut, example: Tensor, c: Tensor | None):
        super().__init__()
        self.model, self.observation, self.k, self.pattern = model, observation, held.samples, held.pattern
        for name, value in {"scores": held.ranked, **_weights(held, c)}.items():
            self.register_buffer(name, torch.from_numpy(np.asarray(value)).float(), persistent=False)
        for name, table in zip(("seen", "usual"), _categories(held.seen, example[0].numel()), strict=True):
            self.register_buffer(name, table, persistent=False)
        self.coded, self.complete = sorted(held.seen), held.pattern is None
        self.register_buffer("units", observation.log_units(tuple(example.shape[1:])).float(), persistent=False)
        self.draws = 0
        if model.no_density is None:
            noise = _Kept(example)
            model.trace(observation.expected(example), c, k=self.k, noise=noise)
            self.draws = len(noise.kept)
            for i, kept in enumerate(noise.kept):
                self.register_buffer(f"draw{i}", kept.contiguous(), persistent=False)

    def _kept(self) -> Iterator[Tensor]:
        return (self.get_buffer(f"draw{i}") for i in range(self.draws))

    def _unseen(self, raw: Tensor) -> Tensor | None:
        """Which elements of rows (N, D) are categories that no training row has; None if no column has categories."""
        if not self.coded:
            return None
        columns, size = torch.arange(raw.shape[1]), self.seen.shape[1]
        code = torch.where(torch.isnan(raw), -1.0, raw)
        inside = (code >= 0) & (code < size)
        known = inside & self.seen.flatten()[code.clamp(0, size - 1).long() + columns * size]
        counts = torch.isin(columns, torch.tensor(self.coded)) & (self.complete | ~torch.isnan(raw))
        return counts & ~known

    def forward(self, raw: Tensor, *condition: Tensor) -> tuple[Tensor, Tensor]:
        unseen = self._unseen(raw)
        raw = raw if unseen is None else torch.where(unseen, self.usual, raw)
        x, c = self.observation.expected(raw), condition[0] if condition else None
        if self.model.no_density is not None:
            log_px = observed_log_prob(self.model.decode(self.model.encode(x, c)), x, unseen)
        else:
            trace = self.model.trace(x, c, k=self.k, noise=_Repeated(x, list(self._kept())))
            log_px = log_mean_weight(log_weights(trace, x, observed_log_prob(trace.px, x, unseen)))
        fixed = torch.where(torch.isnan(x), 0.0, self.units)
        log_px = log_px + (self.observation.log_units_of(x) if self.observation.uneven else fixed).flatten(1).sum(1)
        penalty = torch.zeros_like(log_px) if unseen is None else PENALTY * unseen.float().sum(1)
        score = log_px
        if self.pattern is not None:
            there = ~torch.isnan(raw) if unseen is None else ~torch.isnan(raw) & ~unseen
            present = there.float().flatten(1)
            effect, spread = (torch.from_numpy(a).float() for a in (self.pattern.effect, self.pattern.spread))
            variance = (spread[0] + spread[1] * present.sum(1)).clamp(min=self.pattern.floor)
            score = (log_px - effect[0] - present @ effect[1:]) / torch.sqrt(variance)
        log_px, score = log_px - penalty, score - penalty
        of_class = torch.ones_like(score)[:, None] if len(self.total) == 1 or c is None else c
        at_most = ((self.scores <= score[:, None]).float() * (of_class @ self.weight)).sum(1)
        return log_px, (1 + at_most) / (1 + of_class @ self.total)


def _categories(seen: Mapping[int, np.ndarray], dims: int) -> tuple[Tensor, Tensor]:
    """Which codes the training rows have, bool (D, C), and the first of them for each column, (D,)."""
    table = torch.zeros(dims, max((len(known) for known in seen.values()), default=1), dtype=torch.bool)
    for j, known in seen.items():
        table[j, : len(known)] = torch.from_numpy(known)
    return table, table.float().argmax(1).float()


def _weights(held: HeldOut, c: Tensor | None) -> dict[str, np.ndarray]:
    """The weight of each held-out row for a new row of each class (C, n), and their sums (C,).

    As in `anomalies.detect`, rows are compared with their own class if it has enough held-out rows.
    """
    plain = held.scores().weight
    if held.label is None or c is None:
        return {"weight": plain[None], "total": np.array([held.scores().n])}
    weights = np.where(held.label == np.arange(c.shape[1])[:, None], plain, 0.0)
    few = weights.sum(1) < rows_needed(FALSE_ALARMS)
    weights[few] = plain
    return {"weight": weights, "total": weights.sum(1)}


def reference(run: object) -> HeldOut:
    """The held-out rows of a run.

    Raises:
        ChoiceError: it is not a saved run, or neither they nor its data are found.
    """
    if not isinstance(run, SavedRun):
        raise ChoiceError("only a run with data of its own has held-out rows to compare with")
    try:
        return held_out(run, SAMPLES)
    except (DataError, RunError) as error:
        raise ChoiceError(str(error)) from None


def about(held: HeldOut) -> dict[str, str]:
    """The properties of the file: thresholds of log p(x) by false-alarm rate, and the number of held-out rows."""
    scores = held.scores()
    thresholds = {str(rate): scores.threshold(rate) for rate in RATES if scores.n >= rows_needed(rate)}
    told = {"held_out_rows": str(scores.n), "samples": str(held.samples), "splits": ", ".join(held.splits)}
    return told if held.pattern is not None else {"thresholds": json.dumps(thresholds), **told}
