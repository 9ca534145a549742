"""Better samples from a trained run: a density fitted to its codes, to draw from in place of the prior.

A decoder knows the codes of data, and these follow the aggregate posterior q(z) = E_x q(z | x), which the prior need
not match. Here q(z) is fitted after training, from draws of q(z | x) over the training split (at most `MOST` codes),
by a Gaussian mixture, by a normalising flow, or by a second VAE (Dai and Wipf 2019, arXiv:1903.05789; Ghosh et al.
2020, arXiv:1903.12436). The fit is kept with the run and found again:

RUN/latents/NAME.json           how it was fitted, and the log-density of codes of the validation split
RUN/latents/NAME.safetensors    its numbers
RUN/latents/two-stage/          the second VAE, a run like any other
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import math
import shutil
import tempfile
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .distributions import Point, draw
from .errors import ChoiceError, RunError
from .files import read_json, read_tensors, write_json, write_tensors
from .metrics.likelihood import standard_error
from .noise import Noise, fold
from .options import Options
from .priors import FlowPrior
from .progress import Progress
from .quantize import Coded
from .run import NOISE_Z, Run, open_run

FORMAT = 1
MOST, MOST_HELD_OUT, MOST_NUMBERS = 50_000, 5_000, 50_000_000
"""Codes fitted to, codes held out, and numbers in either: of codes of over 1,000 dimensions fewer are taken."""
BLOCK = 2000
SHUFFLE, HELD_OUT, SECOND = 51, 52, 53
"""What keys are for: the rows chosen, the draws of held-out codes, the noise of a second stage."""

Told = Callable[[str, int, int], None]
"""Called with (what is being done, how much of it is done, of how much)."""


# --- codes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """Codes z to standardised ones u = (z - loc) / scale of the dimensions that vary, and back."""

    loc: Tensor  # (D,)
    scale: Tensor  # (D,), 0 where a code never varied

    @classmethod
    def of(cls, z: Tensor) -> Scale:
        spread = z.double().std(0, correction=0)
        return cls(z.double().mean(0).float(), torch.where(spread > 1e-6 * spread.max(), spread, 0.0).float())

    @property
    def varies(self) -> Tensor:
        return self.scale > 0

    def standardise(self, z: Tensor) -> Tensor:
        return ((z - self.loc) / self.scale)[:, self.varies]

    def restore(self, u: Tensor, temperature: float = 1.0) -> Tensor:
        """u (n, d) as codes (n, D), their deviations from the mean times `temperature`."""
        z = self.loc.expand(len(u), -1).clone()
        z[:, self.varies] += temperature * u * self.scale[self.varies]
        return z

    @property
    def log_jacobian(self) -> float:
        """log |du / dz|."""
        return -float(torch.log(self.scale[self.varies].double()).sum())


def _generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(fold(SHUFFLE, *key) & (2**64 - 1))


def _rows(n: int, most: int, seed: int) -> np.ndarray:
    """All of n rows, or so many of them."""
    return np.arange(n) if n <= most else np.sort(_generator(seed).choice(n, most, replace=False))


def codes(run: Run, split: str, most: int, seed: int, told: Told | None = None) -> Tensor:
    """One draw of q(z | x) for each of (at most `most`) data of a split: (n, D), without a conditional run's condition.

    Of a point posterior the codes themselves.
    """
    dims = run.encode(split, 1).shape[1]
    rows = _rows(run.observed(split).n, min(most, max(1000, MOST_NUMBERS // dims)), seed)
    found: list[np.ndarray] = []
    for a in range(0, len(rows), BLOCK):
        found.append(run.encode(split, sample=True, seed=seed, rows=rows[a : a + BLOCK]))
        if told:
            told(f"encoding the {split} split", min(a + BLOCK, len(rows)), len(rows))
    condition = run.composition.condition
    z = torch.from_numpy(np.concatenate(found))[:, : dims - (0 if condition is None else condition.size)]
    if not bool(torch.isfinite(z).all()):
        raise RunError(f"some codes of {run.path} are not finite: no density can be fitted to them")
    return z


def check_codes(run: Run, z: Tensor) -> None:
    """Refuse codes that have no density in R^D, with the reason.

    Raises:
        ChoiceError: they are discrete, lie on a sphere, or do not vary.
    """
    observed, few = run.observed("train"), np.arange(2)
    with torch.no_grad():
        x, c = observed(few).to(run.device), observed.condition(few, run.device)
        latents = run.model.trace(x, c, noise=Noise.of(0, 2, device=run.device)).latents
    first = 0
    for latent in latents:
        q = latent.q
        support = None if isinstance(q, Coded | Point) else q.support
        if isinstance(q, Coded) or (support is not None and support.is_discrete):
            raise ChoiceError(
                "some of this run's codes are discrete, so they have no density to fit: sample from its prior "
                "(without --latents)"
            )
        size = q.event_shape.numel()
        part = z[:, first : first + size].double()
        first += size
        norm = part.norm(dim=-1)
        if size > 1 and float(norm.std(correction=0)) < 1e-3 * float(norm.mean()):
            raise ChoiceError(
                "this run's codes lie on a sphere, so they have no density in all of space to fit: sample from its "
                "prior (without --latents)"
            )
    if not bool((z.double().std(0, correction=0) > 0).any()):
        raise ChoiceError("all codes of this run are one and the same: it has learned nothing to sample")


# --- densities of standardised codes ----------------------------------------------------------------------------


class Density(ABC):
    """A density over standardised codes u (n, d). Abstract.

    Attributes:
        STEPS: at most so many steps of its fit, unless others are asked for.
        bound: whether `log_prob` is a lower bound.
        choices: what it takes to make it again around its `tensors`.
        steps: how many steps its fit took.
    """

    STEPS: ClassVar[int]
    bound: ClassVar[bool] = False
    choices: dict[str, Any]
    steps: int

    @abstractmethod
    def log_prob(self, u: Tensor) -> Tensor:
        """Nats, (n,) float64."""

    @abstractmethod
    def draw(self, n: int, seed: int) -> Tensor:
        """(n, d) float32; row i is the same whatever n is."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Its numbers, by name."""
        return {}

    def save(self, folder: Path, name: str, more: dict[str, Tensor]) -> None:
        """Write it as `name` in a folder, with `more` numbers beside its own."""
        write_tensors(folder / f"{name}.safetensors", {**more, **self.tensors})

    @classmethod
    @abstractmethod
    def open(cls, folder: Path, tensors: dict[str, Tensor], choices: dict[str, Any]) -> Density:
        """What was saved."""

    @property
    @abstractmethod
    def line(self) -> str:
        """What it is, in a few words."""


class Gaussians(Density):
    """A mixture of Gaussians, by expectation maximisation (scikit-learn's).

    Arguments:
        weights: (C,).
        means: (C, d).
        factors: Cholesky factors (C, d, d) of the covariances, or deviations (C, d) of diagonal ones. All float64.
    """

    COMPONENTS = 10

    FULL = 64
    """Covariances are full up to so many dimensions and where a component has 5 codes a dimension, else diagonal."""
    FLOOR = 1e-4
    """Added to each variance, of codes that have variance 1: without it a component may shrink onto one code."""
    STEPS, TOGETHER = 300, 5

    def __init__(self, weights: Tensor, means: Tensor, factors: Tensor, steps: int = 0):
        self.weights, self.means, self.factors, self.steps = weights, means, factors, steps
        self.choices = {"components": len(weights), "covariance": "full" if factors.dim() == 3 else "diagonal"}

    @classmethod
    def fit(cls, u: Tensor, components: int, most: int, seed: int, told: Told | None = None) -> Gaussians:
        from sklearn.mixture import GaussianMixture

        n, dims = u.shape
        if not 1 <= components <= n:
            raise ChoiceError(f"--components must lie in 1..{n} (the codes there are), got {components}")
        full = dims <= cls.FULL and n >= 5 * components * dims
        together = min(cls.TOGETHER, most)
        mixture = GaussianMixture(
            components,
            covariance_type="full" if full else "diag",
            reg_covar=cls.FLOOR,
            max_iter=together,
            random_state=seed % 2**32,
            warm_start=True,  # each fit goes on where the last one ended, so that progress can be told between them
        )
        done, x = 0, u.double().numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged is told by the number of steps
            while done < most:
                mixture.fit(x)
                done += mixture.n_iter_
                if told:
                    told("fitting gmm", most if mixture.converged_ else min(done, most), most)
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
        noise = Noise.of(seed, n, NOISE_Z)
        below = torch.cumsum(self.weights, -1)[:-1]  # the component is how many steps of the sum a uniform passes
        component = (noise.uniform((1,)) > below).sum(-1)
        e = noise.normal(self.means.shape[1:]).double()
        u = torch.empty_like(e)
        for c in range(len(self.means)):
            mine = component == c
            spread = e[mine] @ self.factors[c].T if self.factors.dim() == 3 else e[mine] * self.factors[c]
            u[mine] = self.means[c] + spread
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


class NormalisingFlow(Density):
    """A flow fitted by maximum likelihood; a tenth of the codes says when to stop."""

    STEPS, BATCH, RATE, PATIENCE = 6000, 500, 1e-3, 8

    def __init__(self, choices: dict[str, Any]):
        self.choices, self.steps = choices, 0
        self.prior = FlowPrior((choices["dims"],), choices["transforms"], tuple(choices["hidden"]), choices["kind"])

    @classmethod
    def fit(
        cls,
        u: Tensor,
        most: int,
        seed: int,
        told: Told | None = None,
        device: torch.device | str = "cpu",
        transforms: int = 6,
        hidden: tuple[int, ...] = (128, 128),
        kind: str = "affine",
    ) -> NormalisingFlow:
        rng = _generator(seed, 1)
        order = torch.from_numpy(rng.permutation(len(u)))
        apart = max(1, len(u) // 10)
        watched, fitted = u[order[:apart]].to(device), u[order[apart:]].to(device)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            flow = cls({"dims": u.shape[1], "transforms": transforms, "hidden": list(hidden), "kind": kind})
        prior = flow.prior.to(device)
        batch = min(cls.BATCH, len(fitted))
        every = int(min(max(len(fitted) // batch, 50), 250, most))
        optimiser = torch.optim.Adam(prior.parameters(), lr=cls.RATE)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, most)
        best, weights = float(flow.log_prob(watched).mean()), copy.deepcopy(prior.state_dict())
        for step in range(1, most + 1):
            rows = torch.from_numpy(rng.integers(0, len(fitted), batch)).to(device)
            loss = -prior().log_prob(fitted[rows]).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(prior.parameters(), 10.0)
            optimiser.step()
            rate.step()
            if step % every == 0 or step == most:
                now = float(flow.log_prob(watched).mean())
                if now > best:  # never of a NaN
                    best, flow.steps, weights = now, step, copy.deepcopy(prior.state_dict())
                done = step - flow.steps >= cls.PATIENCE * every
                if told:
                    told("fitting flow", most if done else step, most)
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
        return draw(self.prior(), Noise.of(seed, n, NOISE_Z))

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
    """Tells a training as the fitting of codes."""

    def __init__(self, told: Told | None):
        self.told = told

    def update(self, step, horizon, epoch, train, valid, images_per_second) -> None:
        if self.told:
            self.told("fitting two-stage", step, horizon)

    def note(self, text: str) -> None:
        return None


class SecondStage(Density):
    """A small VAE of codes: as many latents as codes have dimensions.

    The decoder gives a deviation a dimension for each datum. With the one number for all of Dai and Wipf (2019), codes
    of an autoencoder of Fashion-MNIST have a nat less, and codes on a ring none more than under one Gaussian.
    """

    bound = True
    STEPS, HIDDEN, SAMPLES = 6000, (256, 256), 50

    def __init__(self, run: Run):
        self.run, self.steps = run, run.config["step"]
        self.choices = {"latent": run.config["arguments"]["latent"]}

    @classmethod
    def fit(
        cls, u: Tensor, folder: Path, most: int, seed: int, told: Told | None = None, device: str | torch.device = "cpu"
    ) -> SecondStage:
        """Trained in `folder`, which is made; what is there is removed."""
        from .data import from_arrays
        from .train import fit

        shutil.rmtree(folder, ignore_errors=True)
        options = Options(steps=most, batch=500, lr=2e-3, seed=seed, validate_steps=250, patience=8, device=str(device))
        try:
            run = fit(
                from_arrays(u.numpy(), name="codes", kind="vector", split_seed=seed % 2**32),
                "vae",
                out=folder,
                progress=_Fitting(told),
                options=options,
                latent=u.shape[1],
                hidden=cls.HIDDEN,
                likelihood="gaussian",
                sigma="learned",
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # of no use half-trained
            raise
        return cls(run)

    def log_prob(self, u: Tensor) -> Tensor:
        return torch.from_numpy(self.run.score(u.cpu().numpy(), self.SAMPLES))

    def draw(self, n: int, seed: int) -> Tensor:
        # under keys of its own: else the codes' noise were that of the data decoded from them
        return torch.from_numpy(self.run.sample(n, noise=True, seed=fold(seed, SECOND)))

    def save(self, folder: Path, name: str, more: dict[str, Tensor]) -> None:
        shutil.rmtree(folder / "two-stage", ignore_errors=True)
        self.run.path.rename(folder / "two-stage")
        self.run.path = folder / "two-stage"
        super().save(folder, name, more)

    @classmethod
    def open(cls, folder: Path, tensors: dict[str, Tensor], choices: dict[str, Any]) -> SecondStage:
        return cls(open_run(folder / "two-stage"))

    @property
    def line(self) -> str:
        return f"a second VAE of {self.choices['latent']} latents"


KINDS: dict[str, type[Gaussians] | type[NormalisingFlow] | type[SecondStage]] = {
    "gmm": Gaussians,
    "flow": NormalisingFlow,
    "two-stage": SecondStage,
}


# --- what a run keeps -------------------------------------------------------------------------------------------


class Latents:
    """A density fitted to the codes of a run.

    Attributes:
        name: gmm, flow or two-stage.
        record: how it was fitted, as its JSON file has it.
    """

    def __init__(self, density: Density, scale: Scale, record: dict[str, Any]):
        self.density, self.scale, self.record = density, scale, record
        self.name: str = record["name"]

    def sample(self, n: int, temperature: float = 1.0, seed: int = 0) -> np.ndarray:
        """n codes (n, D), their deviations from the mean of the codes times `temperature`."""
        return self.scale.restore(self.density.draw(n, seed), temperature).numpy()

    def log_prob(self, z: np.ndarray) -> np.ndarray:
        """The log-density of codes (n, D) over the dimensions that vary, nats, (n,); of two-stage a lower bound."""
        u = self.scale.standardise(torch.as_tensor(z, dtype=torch.float32))
        return self.density.log_prob(u).numpy() + self.scale.log_jacobian

    def __str__(self) -> str:
        r = self.record
        least = "at least " if r["held_out"]["bound"] else ""
        return (
            f"{self.name}: {self.density.line}, fitted to {r['n']:,} codes of the training split (seed {r['seed']}, "
            f"{r['steps']:,} steps); {r['held_out']['n']:,} validation codes have {least}"
            f"{r['held_out']['log_density']:.2f} nats, under N(0, I) {r['held_out']['log_density_normal']:.2f}"
        )


def check_name(name: str) -> None:
    """Raises ChoiceError for a name that is none, with the nearest."""
    if name not in KINDS:
        near = difflib.get_close_matches(name.lower(), KINDS, 1, 0.3)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        raise ChoiceError(f"no latents {name!r}{hint} there are {', '.join(KINDS)}")


def fit_latents(
    run: Run,
    name: str,
    *,
    components: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
    refit: bool = False,
    told: Told | None = None,
) -> Latents:
    """The density `name` of a run's codes: the one kept with the run, else fitted now and kept.

    A kept one counts only if the run's weights are still those it was fitted to.

    Arguments:
        name: gmm, flow or two-stage.
        components: Gaussians of a gmm (10).
        steps: at most so many, of expectation maximisation or of an optimiser.
        seed: of the codes drawn and of the fit (0).
        refit: fit anew what is there already.
        told: called with (what, done, of) as it goes on.

    Raises:
        ChoiceError: no such density; components for another than gmm; codes that have no density; or a kept one that
            was fitted with other choices than are asked for.
    """
    check_name(name)
    if components is not None and name != "gmm":
        raise ChoiceError(f"--components is for gmm: {name} has none")
    for what, value in (("components", components), ("steps", steps)):
        if value is not None and value < 1:
            raise ChoiceError(f"--{what} must be 1 or more, got {value}")
    defaults = {"steps": KINDS[name].STEPS, "seed": 0} | ({"components": Gaussians.COMPONENTS} if name == "gmm" else {})
    given = {k: v for k, v in {"components": components, "steps": steps, "seed": seed}.items() if v is not None}
    with open(run.path / "model.safetensors", "rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    kept = None if refit else _kept(run, name, weights)
    if kept is None:
        return _fitted(run, name, {**defaults, **given}, weights, told)
    for what, value in given.items():
        if value != kept.record["asked"][what]:
            raise ChoiceError(
                f"the {name} kept with {run.path} was fitted with {what} {kept.record['asked'][what]}, not {value}: "
                "leave it out, or fit anew with --refit"
            )
    return kept


def _kept(run: Run, name: str, weights: str) -> Latents | None:
    """The density that was fitted to the run's present weights, if any was."""
    folder = run.path / "latents"
    file = folder / f"{name}.json"
    if not file.exists():
        return None
    record = read_json(file)
    try:
        if record["format"] > FORMAT:
            raise RunError(f"{file} was written by a newer vaekit: fit anew with --refit")
        if record["weights"] != weights:
            return None
        tensors, _ = read_tensors(folder / f"{name}.safetensors")
        scale = Scale(tensors.pop("codes.loc"), tensors.pop("codes.scale"))
        return Latents(KINDS[name].open(folder, tensors, record["choices"]), scale, record)
    except (KeyError, TypeError, RuntimeError) as error:  # of a file that is whole, but not what it should be
        raise RunError(f"{file} or what it describes is damaged ({error}): fit anew with --refit") from error


def _fitted(run: Run, name: str, asked: dict[str, Any], weights: str, told: Told | None) -> Latents:
    started, seed, most = time.monotonic(), asked["seed"], asked["steps"]
    z = codes(run, "train", MOST, seed, told)
    check_codes(run, z)
    held = codes(run, "valid", MOST_HELD_OUT, fold(seed, HELD_OUT), told)
    scale, folder = Scale.of(z), run.path / "latents"
    u = scale.standardise(z)
    try:  # before the work of minutes
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RunError(f"cannot write in {folder}: {error.strerror}; copy the run to where one can") from None
    density: Density
    if name == "gmm":
        density = Gaussians.fit(u, asked["components"], most, seed, told)
    elif name == "flow":
        density = NormalisingFlow.fit(u, most, seed, told, run.device)
    else:
        density = SecondStage.fit(u, folder / ".two-stage.part", most, seed, told, run.device)
    record = {
        "format": FORMAT,
        "name": name,
        "split": "train",
        "n": len(z),
        "seed": seed,
        "steps": density.steps,
        "choices": density.choices,
        "asked": asked,
        "constant": (~scale.varies).nonzero()[:, 0].tolist(),
        "weights": weights,
    }
    found = Latents(density, scale, record)
    record["held_out"] = _held_out(found, held)
    record["seconds"] = round(time.monotonic() - started, 1)
    file = folder / f"{name}.json"
    file.unlink(missing_ok=True)  # written last: where it stands, all of the fit does
    density.save(folder, name, {"codes.loc": scale.loc, "codes.scale": scale.scale})
    write_json(file, record)
    return found


def _held_out(latents: Latents, z: Tensor) -> dict[str, Any]:
    """Mean log-density of codes that were not fitted, and under N(0, I): nats a code, with standard errors."""
    found = latents.log_prob(z.numpy())
    varying = z[:, latents.scale.varies].double()
    normal = (-0.5 * varying.square().sum(-1) - 0.5 * varying.shape[1] * math.log(2 * math.pi)).numpy()
    return {
        "split": "valid",
        "n": len(z),
        "log_density": float(found.mean()),
        "se": standard_error(found),
        "log_density_normal": float(normal.mean()),
        "se_normal": standard_error(normal),
        "se_difference": standard_error(found - normal),
        "bound": latents.density.bound,
        "unit": "nats a code",
    }
