"""Densities of standardised codes: a Gaussian mixture, a normalising flow, a second VAE."""

from __future__ import annotations

import copy
import math
import shutil
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from vaekit.densities import draw
from vaekit.errors import ChoiceError
from vaekit.models.priors import FlowPrior
from vaekit.noise import Key, Noise, fold
from vaekit.options import Options
from vaekit.runs.saved import SavedRun
from vaekit.utils.arguments import Knob
from vaekit.utils.files import part_of, write_tensors
from vaekit.utils.isolation import seeded
from vaekit.utils.progress import Figures, Progress
from vaekit.utils.register import Register

BLOCK = 2000
"""The number of codes processed at once."""

OnProgress = Callable[[str, int, int], None]
"""Called with (name of the task, units done, total units)."""


def generator(*key: int) -> np.random.Generator:
    """NumPy's generator for a seed of either sign."""
    return np.random.default_rng(fold(Key.SHUFFLE, *key) & (2**64 - 1))


class Density(ABC):
    """A density over standardised codes u (n, d). Abstract.

    Attributes:
        STEPS: the default maximum number of steps of its fit.
        is_run: whether it is stored as a run; opening a run checks its size itself.
        bound: whether `log_prob` is a lower bound.
        choices: the arguments that rebuild it around its `tensors`.
        steps: the number of steps of its fit.
        fit: returns the density fitted to codes; see `latent_density`.
    """

    STEPS: ClassVar[int]
    bound: ClassVar[bool] = False
    is_run: ClassVar[bool] = False
    choices: dict[str, Any]
    steps: int
    fit: ClassVar[Callable[..., Density]]

    @abstractmethod
    def log_prob(self, u: Tensor) -> Tensor:
        """The log-density in nats, (n,) float64."""

    @abstractmethod
    def draw(self, n: int, seed: int) -> Tensor:
        """Draws (n, d) float32; row i does not depend on n."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Its parameters, by name."""
        return {}

    def save(self, folder: Path, name: str, more: dict[str, Tensor]) -> None:
        """Write it as `name` in a folder, with `more` tensors beside its own."""
        write_tensors(folder / f"{name}.safetensors", {**more, **self.tensors})

    @classmethod
    @abstractmethod
    def open(cls, folder: Path, tensors: dict[str, Tensor], choices: dict[str, Any]) -> Density:
        """The density that was saved in `folder`, rebuilt from its `tensors` and `choices`."""

    @property
    @abstractmethod
    def line(self) -> str:
        """A short description of the density."""


DENSITIES = Register(
    "latent density",
    {
        "u": "standardised codes (N, d)",
        "max_steps": "maximum number of steps",
        "seed": "seed of the fit",
        "on_progress": "called with (task, units done, total units) during the fit",
        "device": "device to fit on",
        "folder": "folder of the run's densities, or None if it cannot be written",
    },
)
"""The densities of codes by name; each part is the function that fits one."""

Kind = TypeVar("Kind", bound=type[Density])


def latent_density(name: str, paper: str, called: str) -> Callable[[Kind], Kind]:
    """Register a `Density` as `name`; its classmethod `fit` returns one that is fitted to codes.

    The parameters of `fit` that are annotated with a `Knob` are its options. It may also take `u`, `max_steps`,
    `seed`, `on_progress`, `device` and `folder`.

    Arguments:
        name: its name on the command line.
        paper: its source.
        called: its description with an article, for captions: "a Gaussian mixture".
    """

    def register(kind: Kind) -> Kind:
        DENSITIES.add(name, paper, kind=kind, called=called)(kind.fit)
        return kind

    return register


@latent_density("gmm", "Ghosh et al. 2020, arXiv:1903.12436", "a Gaussian mixture")
class Gaussians(Density):
    """A mixture of Gaussians, fitted by scikit-learn's expectation maximisation.

    Arguments:
        weights: (C,).
        means: (C, d).
        factors: Cholesky factors (C, d, d) of the covariances, or standard deviations (C, d) of diagonal ones.

    All are float64.
    """

    FULL = 64
    """Covariances are full up to this many dimensions, given 5 codes per dimension and component; else diagonal."""
    FLOOR = 1e-4
    """Added to each variance of the standardised codes, so that no component shrinks onto a single code."""
    STEPS, TOGETHER = 300, 5
    """The maximum number of steps of expectation maximisation, and the number between two progress reports."""

    def __init__(self, weights: Tensor, means: Tensor, factors: Tensor, steps: int = 0):
        self.weights, self.means, self.factors, self.steps = weights, means, factors, steps
        self.choices = {"components": len(weights), "covariance": "full" if factors.dim() == 3 else "diagonal"}

    @classmethod
    def fit(
        cls,
        u: Tensor,
        components: Annotated[int, Knob("number of Gaussians", low=1)] = 10,
        max_steps: int = STEPS,
        seed: int = 0,
        on_progress: OnProgress | None = None,
    ) -> Gaussians:
        """Fit a mixture to standardised codes u (N, D) by expectation maximisation, in at most `max_steps` steps.

        Raises:
            ChoiceError: more components than codes.
        """
        from sklearn.mixture import GaussianMixture

        n, dims = u.shape
        if components > n:
            raise ChoiceError(f"`components` must lie in 1..{n} (the number of codes), got {components}")
        full = dims <= cls.FULL and n >= 5 * components * dims
        together = min(cls.TOGETHER, max_steps)
        mixture = GaussianMixture(
            components,
            covariance_type="full" if full else "diag",
            reg_covar=cls.FLOOR,
            max_iter=together,
            random_state=seed % 2**32,
            warm_start=True,  # each fit continues the last one, so that progress can be reported in between
        )
        done, x = 0, u.double().numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the number of steps shows whether it has converged
            while done < max_steps:
                mixture.fit(x)
                done += mixture.n_iter_
                if on_progress:
                    on_progress("fitting gmm", max_steps if mixture.converged_ else min(done, max_steps), max_steps)
                if mixture.converged_:
                    break
        factors = np.linalg.cholesky(mixture.covariances_) if full else np.sqrt(mixture.covariances_)
        weights, means = torch.from_numpy(mixture.weights_), torch.from_numpy(mixture.means_)
        return cls(weights, means, torch.from_numpy(factors), done)

    def log_prob(self, u: Tensor) -> Tensor:
        return torch.cat([self._log_prob(part) for part in u.split(BLOCK)])

    def _log_prob(self, u: Tensor) -> Tensor:
        far, full = u.double()[:, None] - self.means, self.factors.dim() == 3  # (n, C, d)
        if full:
            white = torch.linalg.solve_triangular(self.factors, far.permute(1, 2, 0), upper=False).permute(2, 0, 1)
            log_det = torch.log(self.factors.diagonal(dim1=-2, dim2=-1)).sum(-1)
        else:
            white, log_det = far / self.factors, torch.log(self.factors).sum(-1)
        constant = 0.5 * u.shape[1] * math.log(2 * math.pi)
        return torch.logsumexp(torch.log(self.weights) - log_det - constant - 0.5 * white.square().sum(-1), -1)

    def draw(self, n: int, seed: int) -> Tensor:
        noise = Noise.of(seed, n, Key.CODES)
        below = torch.cumsum(self.weights, -1)[:-1]  # the component is drawn by inverting the CDF
        component = (noise.uniform((1,)) > below).sum(-1)
        e = noise.normal(self.means.shape[1:]).double()
        u = torch.empty_like(e)
        for c in range(len(self.means)):
            rows = component == c
            spread = e[rows] @ self.factors[c].T if self.factors.dim() == 3 else e[rows] * self.factors[c]
            u[rows] = self.means[c] + spread
        return u.float()

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {"weights": self.weights, "means": self.means, "factors": self.factors}

    @classmethod
    def open(cls, folder: Path, tensors: dict[str, Tensor], choices: dict[str, Any]) -> Gaussians:
        return cls(tensors["weights"], tensors["means"], tensors["factors"])

    @property
    def line(self) -> str:
        components = self.choices["components"]
        return f"{components} Gaussian{'s' * (components > 1)} ({self.choices['covariance']} covariances)"


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


class _Fitting(Progress):
    """Reports the progress of a training as that of the fit to the codes."""

    def __init__(self, on_progress: OnProgress | None):
        self.on_progress = on_progress

    def update(self, step: int, horizon: int, epoch: float, train: Figures, valid: Figures, per_second: float) -> None:
        if self.on_progress:
            self.on_progress("fitting two-stage", step, horizon)

    def note(self, text: str) -> None:
        return None


@latent_density("two-stage", "Dai and Wipf 2019, arXiv:1903.05789", "a second VAE")
class SecondStage(Density):
    """A small VAE trained on the codes, with as many latents as the codes have dimensions.

    Its decoder predicts a standard deviation per dimension and datum. The single shared one of Dai and Wipf (2019) is
    worse: the log-density of codes of a Fashion-MNIST autoencoder is a nat lower, and that of codes on a ring is no
    better than under one Gaussian.
    """

    bound = is_run = True
    STEPS, HIDDEN, SAMPLES = 6000, (256, 256), 50

    def __init__(self, run: SavedRun):
        self.run, self.steps = run, run.config["step"]
        self.choices = {"latent": run.config["arguments"]["latent"]}

    @classmethod
    def fit(
        cls,
        u: Tensor,
        folder: Path | None,
        max_steps: int,
        seed: int,
        on_progress: OnProgress | None = None,
        device: str | torch.device = "cpu",
    ) -> SecondStage:
        """Train the VAE on standardised codes u (N, D), for at most `max_steps` steps.

        Arguments:
            folder: where it will be saved; it is trained there under a temporary name. None for a temporary
                directory.
        """
        from vaekit.data import from_arrays
        from vaekit.training.fit import train

        temporary = None
        if folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="vaekit-")
            folder = Path(temporary.name)
        directory = part_of(folder / "two-stage")
        options = Options(
            steps=max_steps, batch=500, lr=2e-3, seed=seed, validate_steps=250, patience=8, device=str(device)
        )
        try:
            run = train(
                from_arrays(u.numpy(), name="codes", kind="vector", split_seed=seed % 2**32),
                "vae",
                out=directory,
                progress=_Fitting(on_progress),
                on_interrupt="raise",
                options=options,
                latent=u.shape[1],
                hidden=cls.HIDDEN,
                likelihood="gaussian",
                sigma="learned",
            )
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)  # a half-trained VAE is of no use
            raise
        run.folder = temporary
        return cls(run)

    def log_prob(self, u: Tensor) -> Tensor:
        return torch.from_numpy(self.run.score(u.cpu().numpy(), samples=self.SAMPLES))

    def draw(self, n: int, seed: int) -> Tensor:
        # with its own keys, or the codes would share their noise with the data decoded from them
        return torch.from_numpy(self.run.sample(n, noise=True, seed=fold(seed, Key.SECOND_STAGE)))

    def save(self, folder: Path, name: str, more: dict[str, Tensor]) -> None:
        shutil.rmtree(folder / "two-stage", ignore_errors=True)
        self.run.path.rename(folder / "two-stage")
        self.run.path = folder / "two-stage"
        super().save(folder, name, more)

    @classmethod
    def open(cls, folder: Path, tensors: dict[str, Tensor], choices: dict[str, Any]) -> SecondStage:
        return cls(SavedRun.open(folder / "two-stage"))

    @property
    def line(self) -> str:
        return f"a second VAE with {self.choices['latent']} latents"
