"""Monte Carlo EM with Hamiltonian Monte Carlo, the third method of figure 3 of Kingma and Welling (2013).

It has no encoder. Each training datum has a Markov chain whose state z is kept between its visits. For each batch, the
E-step moves the chains of its data by one transition of HMC that leaves p(z | x) unchanged, and the M-step takes a few
steps of the optimiser on -log p(x | z), averaged over the batch, at the new states (appendix E of the paper; Wei and
Tanner 1990, doi:10.1080/01621459.1990.10474930).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaekit.data.batches import Order, Rows
from vaekit.data.core import Data
from vaekit.errors import RunError
from vaekit.estimators import Path as Density
from vaekit.estimators import Target, transition
from vaekit.models.vae import VAE
from vaekit.noise import Noise, StepKey
from vaekit.recipes import get_recipe
from vaekit.recipes.composition import DataSpec
from vaekit.training.optimisers import optimiser
from vaekit.training.prepare import prepare
from vaekit.utils.files import read_tensors, write_tensors
from vaekit.utils.isolation import seeded

LEAPFROGS, UPDATES, ACCEPTED = 10, 5, 0.9
"""Leapfrog steps per E-step, updates of the weights per M-step, and the acceptance that the step size is tuned to."""
FIRST_SIZE, GAIN = 0.05, 0.05
"""The first step size, and by how much its logarithm changes per E-step and difference in acceptance."""
REPORTED = 50  # E-steps between reports of the progress


class MonteCarloEM:
    """A model in training by Monte Carlo EM, with its state in one file.

    The weights start at those of `vaekit.fit` with the same recipe and seed, and batches, noise and optimiser are the
    same. The step size of HMC follows the acceptance during training: as the model changes, no size stays right.

    Arguments:
        data: the data; chains are those of its training split.
        file: where the state is kept; training resumes from it.
        recipe, choices: the model.
        lr, batch: learning rate of Adagrad, and data per batch.
        seed: of weights, batches and noise.

    Attributes:
        model: the model; its encoder is never used.
        steps: updates of the weights so far.
        seconds: time of training so far.
        accepted: mean acceptance since the last start.
    """

    def __init__(
        self, data: Data, file: Path, recipe: str, choices: Mapping[str, Any], *, lr: float, batch: int, seed: int = 0
    ):
        with seeded(seed):
            self.composition = get_recipe(recipe)(DataSpec.of(data), **choices)
        prepare(data, self.composition, seed)
        model = self.composition.model
        if not isinstance(model, VAE):
            raise TypeError(f"Monte Carlo EM needs a VAE with one latent layer, got {type(model).__name__}")
        self.model: VAE = model
        self.data, self.file, self.lr, self.seed = data, file, lr, seed
        self.order, self.rows = Order(len(data.train), batch, seed), Rows(data, data.train)
        self.weights = dict(model.likelihood.named_parameters())
        self.rule = optimiser("adagrad")
        self.memory = dict(zip(self.weights, self.rule.state(list(self.weights.values())), strict=True))
        everyone = Noise.of(seed, len(data.train), StepKey.TRAIN)
        self.chains = everyone.normal(model.prior().event_shape)  # N(0, I), the prior
        self.size, self.steps, self.seconds, self.accepted = FIRST_SIZE, 0, 0.0, float("nan")
        if file.exists():
            self._load()

    def advance(self, steps: int, report: Callable[[int], None] = lambda steps: None) -> None:
        """Train to this many updates in all, rounded up to whole M-steps, and write the state."""
        begun, before, chances = time.monotonic(), self.seconds, []
        while self.steps < steps:
            chances.append(self._both_steps())
            if len(chances) % REPORTED == 0:
                report(self.steps)
        self.seconds = before + time.monotonic() - begun
        if chances:
            self.accepted = float(torch.stack(chances).mean())
            self._save()

    def _both_steps(self) -> Tensor:
        """One E-step and one M-step; returns the mean acceptance."""
        number = self.steps // UPDATES
        rows = self.order.rows(number)
        observation = self.composition.observation
        x = observation(self.rows(rows), Noise.of(self.seed, len(rows), number, StepKey.OBSERVE))
        z, chance = self._moved(x, self.chains[rows], Noise.of(self.seed, len(rows), number, StepKey.TRAIN))
        self.chains[rows] = z
        mean = chance.mean().float()
        self.size *= float(torch.exp(GAIN * (mean - ACCEPTED)))
        rate = torch.tensor([self.lr])
        for _ in range(UPDATES):
            loss = -self.model.likelihood(z).log_prob(x).mean()
            gradients = torch.autograd.grad(loss, list(self.weights.values()))
            with torch.no_grad():
                for (name, weight), gradient in zip(self.weights.items(), gradients, strict=True):
                    self.rule.update(weight, gradient, self.memory[name], rate)
            self.steps += 1
        return mean

    def _moved(self, x: Tensor, z: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """The chains (B, D) of x after one transition that leaves p(z | x) unchanged, and its acceptance (1, B)."""
        density = Density(Target.of(self.model, x))
        sizes = torch.full((len(x),), self.size)
        end, chance = transition(density, density.at(z[None]), 1.0, sizes, torch.ones_like(z), noise, steps=LEAPFROGS)
        return end.z[0], chance

    def _tensors(self) -> dict[str, Tensor]:
        memory = {f"memory/{name}": total for name, (total,) in self.memory.items()}
        return {"chains": self.chains, **self.weights, **memory}

    def _save(self) -> None:
        for name, tensor in self._tensors().items():
            if not bool(torch.isfinite(tensor).all()):
                raise RunError(f"Monte Carlo EM diverged ({name} is not finite) before update {self.steps:,}")
        meta = {name: getattr(self, name) for name in ("size", "steps", "seconds", "accepted")}
        write_tensors(self.file, self._tensors(), meta)

    def _load(self) -> None:
        tensors, meta = read_tensors(self.file)
        mine = self._tensors()
        if {n: t.shape for n, t in mine.items()} != {n: t.shape for n, t in tensors.items()}:
            raise RunError(f"{self.file} does not hold the model that this study trains: remove it")
        with torch.no_grad():
            for name, tensor in mine.items():
                tensor.copy_(tensors[name])
        self.size, self.steps, self.seconds, self.accepted = (meta[n] for n in ("size", "steps", "seconds", "accepted"))
