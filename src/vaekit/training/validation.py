"""Validation during training: ELBO, rate and distortion of some validation rows, with the weights to use."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaekit.data.core import Data
from vaekit.heads import Head
from vaekit.models.vae import Trace
from vaekit.noise import Key, Noise
from vaekit.objectives.terms import distortion, rate
from vaekit.recipes.composition import Composition, DataSpec
from vaekit.runs.observed import Observed

from .step import Engine

VALID_ROWS, ROWS, VALUES = 2000, 500, 500 * 64 * 64 * 3
"""Rows that are measured at most, and rows and values of x that are measured at once."""
HELD = 2**28
"""Bytes of x up to which they are kept from one validation to the next; more are read again each time."""
Block = tuple[Tensor, Tensor, Tensor | None]
"""The numbers of rows, their x, and their condition."""


class Validation:
    """Measures up to 2,000 validation rows, the same at each validation, with the same noise.

    Arguments:
        composition: model, objective and observation.
        data: the data.
        engine: holds the weights.
        seed: of the noise.
        device: where the model is.
        fabric: of several processes, else None.
    """

    def __init__(
        self, composition: Composition, data: Data, engine: Engine, seed: int, device: torch.device, fabric: Any
    ):
        self.composition, self.data, self.engine = composition, data, engine
        self.seed, self.device, self.fabric = seed, device, fabric
        self._observed: Observed | None = None
        self._blocks: list[Block] | None = None

    @property
    def blocks(self) -> Iterable[Block]:
        """The rows that are measured, in blocks."""
        if self._blocks is not None:
            return self._blocks
        if self._observed is None:
            self._observed = Observed(self.composition, DataSpec.of(self.data), "valid", self.data)
        observed, on, dims = self._observed, self.device, math.prod(self.data.shape)
        n, step = min(observed.n, VALID_ROWS), max(1, min(ROWS, VALUES // dims))
        rows = (np.arange(a, min(a + step, n)) for a in range(0, n, step))
        read = ((torch.from_numpy(b).to(on), observed(b).to(on), observed.condition(b, on)) for b in rows)
        if 4 * n * dims > HELD:
            return read
        self._blocks = list(read)
        return self._blocks

    @torch.no_grad()
    def measure(self, step: int) -> tuple[dict[str, float], Tensor]:
        """The means by name, and -(distortion + rate) of each row, (n,). All processes must call it or `follow`.

        A model without a density has only a distortion.
        """
        model, objective = self.composition.model, self.composition.objective
        observation = self.composition.observation
        parts: list[Tensor] = []
        tried: list[list[Tensor]] = []
        n, jacobians, beside = 0, 0.0, 0.0
        codes: list[Tensor] = []  # if they are small images
        differs = self.data.missing or observation.uneven
        with self.engine.using():
            for rows, x, c in self.blocks:
                noise = Noise.of(self.seed, rows, Key.VALIDATE, device=x.device)
                trace = model.trace(x, c, noise=noise)
                more = objective.beside(trace.px, x, noise)
                beside += 0.0 if more is None else float(more.sum())
                d = distortion(trace, x)
                tried.append(self._tried(trace, x))
                r = rate(trace) if model.no_density is None else torch.zeros_like(d)
                parts.append(torch.stack([d, r]).cpu().double())
                if model.grid is not None:
                    codes.append(trace.latents[0].z.cpu())
                if differs:
                    jacobians += float(observation.log_jacobian_of(x).sum())
                n += len(x)
                del trace  # before the next one
        self._choose(tried, parts)
        figures = torch.cat([-part.sum(0) for part in parts])
        totals = sum((part.sum(1) for part in parts), torch.zeros(2, dtype=torch.float64))
        d, r = (totals / n).tolist()
        jacobian = jacobians / n if differs else observation.log_jacobian(self.data.shape)
        valid: dict[str, float] = {"step": step, "distortion": d - jacobian}
        if model.no_density is None:
            valid |= {"elbo": jacobian - (d + r), "rate": r}
        if codes:
            valid["code_std"] = float(torch.cat(codes).double().std(correction=0))
        if beside:
            valid["joint"] = jacobian - (d + r) + beside / n
        if objective.trims and math.isfinite(d + r):
            bounded = objective.bounded(figures, torch.cat([x for _, x, _ in self.blocks]).cpu())
            valid["bounded"] = jacobian + float(bounded.mean())
        return valid, figures

    def follow(self) -> None:
        """Take the choice of the first process, in one that does not measure."""
        self._choose([], [])

    @property
    def _choosing(self) -> Head | None:
        """The likelihood's head, if validation data choose one of its numbers."""
        head = getattr(self.composition.model.likelihood, "head", None)
        return head if isinstance(head, Head) and head.chooses else None

    def _tried(self, trace: Trace, x: Tensor) -> list[Tensor]:
        """The distortion of each datum, (B,), with each candidate of the head; see `Head.candidates`."""
        head = self._choosing
        if head is None:
            return []
        return [distortion(replace(trace, px=px), x).cpu().double() for px in head.candidates(trace.px)]

    def _choose(self, tried: list[list[Tensor]], parts: list[Tensor]) -> None:
        """Let the head take the best candidate, and put its distortions into `parts`; all processes must call it."""
        head = self._choosing
        if head is None:
            return
        totals = [float(sum(block.sum() for block in blocks)) for blocks in zip(*tried, strict=True)]
        best = int(np.argmin(totals)) if totals else None
        if self.fabric is not None:
            best = self.fabric.broadcast(best, src=0)
        if best is None:  # the density is not one of the head, as for a model built by hand
            return
        head.choose(best)
        for part, blocks in zip(parts, tried, strict=True):
            part[0] = blocks[best]


def figure(valid: dict[str, float]) -> float:
    """The number that early stopping maximises: the ELBO, or the negative distortion of a model without it.

    If the objective models more than x, it is the bound of both. If it leaves out unlikely rows, each of them counts as
    the least likely row that it keeps.
    """
    return valid.get("joint", valid.get("bounded", valid.get("elbo", -valid["distortion"])))
