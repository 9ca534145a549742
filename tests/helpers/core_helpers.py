"""Small data, models with closed forms and shorthands that several test files share."""

from __future__ import annotations

import math
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vaekit as vk
from vaekit import heads, networks
from vaekit.heads import LOG_SCALE_FLOOR, Conditional
from vaekit.models.priors import StandardNormal
from vaekit.models.vae import VAE
from vaekit.objectives import ELBO
from vaekit.recipes import Composition, DataSpec, Defaults
from vaekit.runs.observed import Observed
from vaekit.runs.trained import TrainedModel
from vaekit.utils.files import read_tensors

QUIET = {"progress": False, "compile": "off", "device": "cpu"}

ALL = bool(os.environ.get("VAEKIT_TEST_ALL"))
weekly = pytest.mark.skipif(not ALL, reason="takes long, and others are like it: set VAEKIT_TEST_ALL=1, as every week")
"""Tests of which a quicker one is run every time."""

needs_compiler = pytest.mark.usefixtures("compiler")
"""Skips a test where there is no C++ compiler, and has torch generate code faster."""


def captured(monkeypatch) -> None:
    """Compiled steps are captured whole, then run operation by operation: without the minutes of a C++ compiler.

    With the environment variable VAEKIT_TEST_ALL, they are compiled, as they are for users.
    """
    if ALL:
        return
    real = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda f, **more: real(f, backend="eager", fullgraph=True, options=more["options"])
    )
    monkeypatch.setattr("vaekit.utils.compiled.graph_of", lambda program, inputs: lambda given: program(*given))


def blobs(n: int = 60, *shape: int, seed: int = 0) -> np.ndarray:
    """uint8 arrays with structure: a bright patch whose place and strength vary over a little noise."""
    rng = np.random.default_rng(seed)
    shape = shape or (6, 5)
    flat = int(np.prod(shape))
    place = rng.integers(0, flat, n)[:, None]
    x = 220 * np.exp(-((np.arange(flat)[None] - place) ** 2) / (0.1 * flat) ** 2) + rng.uniform(0, 30, (n, flat))
    return x.astype(np.uint8).reshape(n, *shape)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return read_tensors(Path(path))[0]


def same(a: Path, b: Path, file: str = "model.safetensors") -> bool:
    """Whether two runs hold the very same weights, bit for bit."""
    one, two = tensors(a / file), tensors(b / file)
    assert set(one) == set(two)
    return all(torch.equal(one[n], two[n]) for n in one)


def model_of(composition: Composition, shape, kind="vector", scale=(0.0, 1.0), integer=False) -> TrainedModel:
    """A model in memory, for estimators that need one."""
    return TrainedModel(composition, DataSpec(kind, tuple(shape), 100, scale, integer))


def soft_floored(log_scale: torch.Tensor) -> torch.Tensor:
    """The raw number that a head turns into this log sigma."""
    above = log_scale - LOG_SCALE_FLOOR
    return LOG_SCALE_FLOOR + above + torch.log(-torch.expm1(-above))


class LinearGaussian:
    """z ~ N(0, I), x | z ~ N(W z + b, sigma^2 I): p(x) and p(z | x) in closed form.

    The columns of W are orthogonal, so that the exact posterior is a diagonal Gaussian and a VAE can hold it.
    """

    def __init__(self, dims: int = 5, latent: int = 2, sigma: float = 0.4, seed: int = 0, dtype=torch.float64):
        g = torch.Generator().manual_seed(seed)
        basis, _ = torch.linalg.qr(torch.randn(dims, latent, generator=g, dtype=torch.float64))
        self.W = basis * torch.linspace(0.7, 1.6, latent, dtype=torch.float64)
        self.b = torch.randn(dims, generator=g, dtype=torch.float64)
        self.dims, self.latent = dims, latent
        posterior = Conditional(networks.MLP((dims,), latent, ()), heads.Gaussian((latent,), "each"))
        likelihood = Conditional(networks.MLP((latent,), dims, ()), heads.Gaussian((dims,), "fixed", sigma))
        self.model = VAE(StandardNormal((latent,)), posterior, likelihood).to(dtype)
        self.sigma = float(torch.exp(self.model.likelihood.head.log_scale.double()))
        variance = 1 / (1 + (self.W**2).sum(0) / self.sigma**2)
        self.set_posterior(variance[:, None] * self.W.T / self.sigma**2, torch.sqrt(variance))
        with torch.no_grad():
            self.model.likelihood.net.out.weight.copy_(self.W)
            self.model.likelihood.net.out.bias.copy_(self.b)

    def set_posterior(self, A: torch.Tensor, sigma: torch.Tensor) -> None:
        """q(z | x) = N(A (x - b), diag sigma^2)."""
        with torch.no_grad():
            self.model.posterior.net.out.weight.copy_(A)
            self.model.posterior.net.out.bias.copy_(-A @ self.b)
            self.model.posterior.head.log_scale.copy_(soft_floored(torch.log(sigma)))

    def spoil(self, shift: float = 0.2, widen: float = 1.5) -> None:
        """Make q wrong: its mean shrunk, its deviation too large."""
        head = self.model.posterior.head
        with torch.no_grad():
            variance = 1 / (1 + (self.W**2).sum(0) / self.sigma**2)
            self.set_posterior((1 - shift) * variance[:, None] * self.W.T / self.sigma**2, widen * torch.sqrt(variance))
        assert head.log_scale.numel() == self.latent

    def log_p(self, x: torch.Tensor) -> torch.Tensor:
        covariance = self.W @ self.W.T + self.sigma**2 * torch.eye(self.dims, dtype=torch.float64)
        return torch.distributions.MultivariateNormal(self.b, covariance).log_prob(x.double())

    def data(self, n: int, seed: int = 1) -> torch.Tensor:
        g = torch.Generator().manual_seed(seed)
        z = torch.randn(n, self.latent, generator=g, dtype=torch.float64)
        noise = torch.randn(n, self.dims, generator=g, dtype=torch.float64)
        return z @ self.W.T + self.b + self.sigma * noise


def own_network(shape=(6, 5), dropout: float = 0.2, seed: int = 3) -> Composition:
    """A composition of a user's own: a net with dropout and batch normalisation that no recipe knows."""
    torch.manual_seed(seed)
    dims, event = math.prod(shape), (1, *shape)
    encoder = nn.Sequential(
        nn.Flatten(1), nn.Linear(dims, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(dropout), nn.Linear(12, 4)
    )
    decoder = nn.Sequential(nn.Linear(2, 12), nn.ReLU(), nn.Dropout(dropout), nn.Linear(12, dims))
    from vaekit.data.observation import Binary

    model = vk.gaussian_vae(encoder, decoder, 2, heads.Bernoulli(event))
    return Composition(model, ELBO(), Binary(), Defaults("adam", 3e-3, 16))


def environment() -> dict[str, str]:
    """The variables of another process: one thread, and these helpers importable."""
    places = os.pathsep.join(str(p) for p in (Path(__file__).parent, Path(vk.__file__).parents[1]))
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": places, "MKL_NUM_THREADS": "1"}
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        variables.pop(name, None)
    return variables


def python(script: str, *arguments: str, timeout: int = 1200) -> subprocess.CompletedProcess:
    """Run a script with this interpreter, one thread a process, with these helpers importable."""
    return subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, timeout=timeout, env=environment()
    )


def python_here(script: str, *arguments: str) -> None:
    """Run a script as `python` does, within this process: that saves the seconds in which another imports torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *arguments])
        runpy.run_path(script, run_name="__main__")


def observed_of(run: TrainedModel, raw: np.ndarray) -> Observed:
    """x of any raw rows (n, *event), also outside the range a run would accept from a user."""
    return Observed(run.composition, run.spec, "array", None, raw)
