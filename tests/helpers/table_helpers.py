"""Models whose posterior is a table: datum i is the one-hot vector e_i, and q(z | e_i) is whatever a test says."""

from __future__ import annotations

import copy

import torch
from core_helpers import soft_floored
from torch import distributions as D
from torch import nn

from vaekit import heads, networks
from vaekit.data.observation import Identity
from vaekit.densities import Point
from vaekit.heads import Conditional
from vaekit.models.hierarchy import top_down
from vaekit.models.priors import StandardNormal
from vaekit.models.vae import VAE, Model
from vaekit.noise import Noise
from vaekit.objectives import Batch, Objective
from vaekit.recipes import Composition
from vaekit.training.optimisers import optimiser
from vaekit.training.step import Engine, Settings

STEP = torch.tensor(0)


def table(mean: torch.Tensor, sigma: torch.Tensor, prior: nn.Module | None = None, seed: int = 0) -> VAE:
    """q(z | e_i) = N(mean_i, diag sigma_i^2), float64; a random linear decoder to N numbers of unit variance."""
    n, latent = mean.shape
    torch.manual_seed(seed)
    posterior = Conditional(networks.MLP((n,), 2 * latent, ()), heads.Gaussian((latent,)))
    likelihood = Conditional(networks.MLP((latent,), n, ()), heads.Gaussian((n,), "unit"))
    model = VAE(prior or StandardNormal((latent,)), posterior, likelihood).double()
    with torch.no_grad():
        raw = torch.cat([mean, soft_floored(torch.log(sigma.double().expand(mean.shape)))], 1)
        posterior.net.out.weight.copy_(raw.T)
        posterior.net.out.bias.zero_()
    return model


def random_table(n: int, latent: int, seed: int = 0, spread: float = 1.0) -> VAE:
    g = torch.Generator().manual_seed(seed)
    mean = spread * torch.randn(n, latent, generator=g, dtype=torch.float64)
    return table(mean, 0.2 + 0.8 * torch.rand(n, latent, generator=g, dtype=torch.float64))


def batch(n: int, rows=None, seed: int = 0) -> Batch:
    """The one-hot rows, all or some, with noise of their own."""
    x = torch.eye(n, dtype=torch.float64)
    x = x if rows is None else x[torch.as_tensor(rows)]
    return Batch(x, Noise.of(seed, len(x)))


class Deterministic(nn.Module):
    """A posterior without a density."""

    no_density = "its encoder is deterministic"

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x):
        return D.Independent(Point(self.net(x)), 1, validate_args=False)


def with_head(head: heads.Head, n: int, prior: nn.Module | None = None, seed: int = 0) -> VAE:
    """A posterior of another head, its encoder random."""
    model = random_table(n, head.event[0], seed)
    torch.manual_seed(seed)
    posterior = Conditional(networks.MLP((n,), head.features, ()), head)
    return VAE(prior or model.prior, posterior, model.likelihood).double()


def deterministic(n: int, latent: int, seed: int = 0) -> VAE:
    model = random_table(n, latent, seed)
    torch.manual_seed(seed)
    return VAE(model.prior, Deterministic(networks.MLP((n,), latent, ())), model.likelihood).double()


class Student(nn.Module):
    """A posterior torch has no closed-form KL for, drawn by its own sampler."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x):
        loc, scale = self.net(x).chunk(2, -1)
        return D.Independent(D.StudentT(5.0, loc, torch.exp(scale), validate_args=False), 1, validate_args=False)


def student(n: int, latent: int, seed: int = 0) -> VAE:
    model = random_table(n, latent, seed)
    return VAE(model.prior, Student(networks.MLP((n,), 2 * latent, ())), model.likelihood).double()


class Correlated(nn.Module):
    """A posterior whose dimensions depend on each other."""

    def __init__(self, net: nn.Module, latent: int):
        super().__init__()
        self.net, self.latent = net, latent

    def forward(self, x):
        raw = self.net(x)
        loc, lower = raw[:, : self.latent], raw[:, self.latent :].unflatten(1, (self.latent, self.latent))
        eye = torch.eye(self.latent, dtype=raw.dtype)
        return D.MultivariateNormal(loc, scale_tril=0.5 * lower.tril(-1) + 0.7 * eye, validate_args=False)


def correlated(n: int, latent: int, seed: int = 0) -> VAE:
    model = random_table(n, latent, seed)
    torch.manual_seed(seed)
    net = networks.MLP((n,), latent + latent * latent, ())
    return VAE(model.prior, Correlated(net, latent), model.likelihood).double()


def ladder(n: int, latent: int) -> Model:
    """A model of two latent layers."""
    return top_down((n,), heads.Gaussian((n,), "unit"), layers=(2,), width=8, latent=latent)


class LearnedNormal(nn.Module):
    """A prior with weights to train, and reparametrised draws."""

    def __init__(self, latent: int, loc: float = 1.0, scale: float = 0.5):
        super().__init__()
        self.loc = nn.Parameter(torch.full((latent,), loc))
        self.scale = scale

    def forward(self):
        normal = D.Normal(self.loc, torch.full_like(self.loc, self.scale), validate_args=False)
        return D.Independent(normal, 1, validate_args=False)


class LearnedMixture(nn.Module):
    """A prior with weights to train whose draws carry no gradient."""

    def __init__(self, latent: int, components: int = 3):
        super().__init__()
        self.loc = nn.Parameter(torch.randn(components, latent))

    def forward(self):
        of = D.Categorical(torch.ones(len(self.loc)), validate_args=False)
        normal = D.Independent(D.Normal(self.loc, torch.ones_like(self.loc), validate_args=False), 1)
        return D.MixtureSameFamily(of, normal, validate_args=False)


def gradients(loss: torch.Tensor, module: nn.Module) -> float:
    """The largest gradient of a loss among the parameters of a module; zero where it does not depend on them."""
    found = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, allow_unused=True)
    return max((float(g.abs().max()) for g in found if g is not None), default=0.0)


def assert_compiled_equals_eager(
    model: Model, objective: Objective, x: torch.Tensor, rule: str = "adam", steps: int = 3
) -> None:
    """The same steps, compiled and eager: the same values and weights but for the last bits."""

    class Same(Identity):
        def forward(self, raw, noise=None):
            return raw

    def engine(compiled):
        composition = Composition(copy.deepcopy(model), copy.deepcopy(objective), Same())
        made = Engine(composition, Settings(optimiser=lambda: optimiser(rule), lr=1e-3))
        if compiled:
            made.compiled()
        return made

    torch._dynamo.reset()
    eager, compiled = engine(False), engine(True)
    before = {n: v.clone() for n, v in eager.tensors().items()}
    for t in range(3):
        torch.testing.assert_close(eager.step(x, t, 1.0), compiled.step(x, t, 1.0), rtol=1e-4, atol=1e-4)
    assert compiled.stats == eager.stats
    for n, v in eager.tensors().items():
        torch.testing.assert_close(v, compiled.tensors()[n], rtol=1e-3, atol=2e-4, msg=lambda m, n=n: f"{n}: {m}")
    for names in eager.groups.values():
        assert any(not torch.equal(before[f"weight/{n}"], eager.parameters[n]) for n in names)
