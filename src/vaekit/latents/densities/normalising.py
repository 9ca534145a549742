"""A normalising flow over codes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaekit.densities import draw
from vaekit.models.priors import FlowPrior
from vaekit.noise import Key, Noise
from vaekit.utils.isolation import seeded

from .base import BLOCK, Density, OnProgress, generator, latent_density


@latent_density("flow", "Dinh et al. 2017, arXiv:1605.08803", "a normalising flow")
class NormalisingFlow(Density):
    """A flow fitted by maximum likelihood; a tenth of the codes is held out for early stopping."""

    STEPS, BATCH, RATE, PATIENCE = 6000, 500, 1e-3, 8

    def __init__(self, choices: dict[str, Any]):
        self.choices, self.steps = choices, 0
        self.prior = FlowPrior((choices["dims"],), choices["transforms"], tuple(choices["hidden"]), choices["kind"])

    @classmethod
    def fit(
        cls,
        u: Tensor,
        max_steps: int,
        seed: int,
        on_progress: OnProgress | None = None,
        device: torch.device | str = "cpu",
        transforms: int = 6,
        hidden: tuple[int, ...] = (128, 128),
        kind: str = "affine",
    ) -> NormalisingFlow:
        """Fit a flow to standardised codes u (N, D) by maximum likelihood, in at most `max_steps` steps of Adam."""
        rng = generator(seed, 1)
        order = torch.from_numpy(rng.permutation(len(u)))
        n_held_out = max(1, len(u) // 10)
        held_out, fitted = u[order[:n_held_out]].to(device), u[order[n_held_out:]].to(device)
        with seeded(seed):
            flow = cls({"dims": u.shape[1], "transforms": transforms, "hidden": list(hidden), "kind": kind})
        prior = flow.prior.to(device)
        batch = min(cls.BATCH, len(fitted))
        every = int(min(max(len(fitted) // batch, 50), 250, max_steps))
        optimiser = torch.optim.Adam(prior.parameters(), lr=cls.RATE)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max_steps)
        best, weights = float(flow.log_prob(held_out).mean()), copy.deepcopy(prior.state_dict())
        for step in range(1, max_steps + 1):
            rows = torch.from_numpy(rng.integers(0, len(fitted), batch)).to(device)
            loss = -prior().log_prob(fitted[rows]).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(prior.parameters(), 10.0)
            optimiser.step()
            rate.step()
            if step % every == 0 or step == max_steps:
                now = float(flow.log_prob(held_out).mean())
                if now > best:  # false for a NaN
                    best, flow.steps, weights = now, step, copy.deepcopy(prior.state_dict())
                done = step - flow.steps >= cls.PATIENCE * every
                if on_progress:
                    on_progress("fitting flow", max_steps if done else step, max_steps)
                if done:
                    break
        prior.load_state_dict(weights)
        prior.cpu()
        return flow

    @torch.no_grad()
    def log_prob(self, u: Tensor) -> Tensor:
        density = self.prior()
        return torch.cat([density.log_prob(part) for part in u.split(BLOCK)]).cpu().double()

    @torch.no_grad()
    def draw(self, n: int, seed: int) -> Tensor:
        return draw(self.prior(), Noise.of(seed, n, Key.CODES))

    @property
    def tensors(self) -> dict[str, Tensor]:
        return self.prior.state_dict()

    @classmethod
    def open(cls, folder: Path, tensors: dict[str, Tensor], choices: dict[str, Any]) -> NormalisingFlow:
        flow = cls(choices)
        flow.prior.load_state_dict(tensors)
        return flow

    @property
    def line(self) -> str:
        return f"a flow of {self.choices['transforms']} {self.choices['kind']} couplings"
