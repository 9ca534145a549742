"""Better samples from a trained run: a density fitted to its codes, to sample from instead of the prior.

A decoder is trained on the codes of data, which follow the aggregate posterior q(z) = E_x q(z | x). The prior need not
match it. This module fits a density to q(z) after training, from draws of q(z | x) over the training split (at most
`MOST` codes): a Gaussian mixture, a normalising flow, or a second VAE (Dai and Wipf 2019, arXiv:1903.05789; Ghosh et
al. 2020, arXiv:1903.12436). The fit is stored with the run and reused:

RUN/latents/NAME.json           how it was fitted, and the log-density of codes of the validation split
RUN/latents/NAME.safetensors    its parameters
RUN/latents/two-stage/          the second VAE, a run like any other
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from vaekit.densities import Point
from vaekit.errors import ChoiceError, RunError
from vaekit.models.quantised import Coded
from vaekit.noise import Key, Noise, fold
from vaekit.runs.example import PLACE
from vaekit.runs.saved import SavedRun
from vaekit.utils.allocation import Bounded
from vaekit.utils.files import is_writable, read_json, read_tensors, remove_parts, write_json
from vaekit.utils.formerly import formerly
from vaekit.utils.progress import say
from vaekit.utils.register import Chosen
from vaekit.utils.suggest import unknown
from vaekit.utils.typed import mismatch
from vaekit.utils.uncertainty import standard_error

from .densities import BLOCK, DENSITIES, Density, OnProgress, generator

FORMAT = 1
MOST, MOST_HELD_OUT, MOST_NUMBERS = 50_000, 5_000, 50_000_000
"""The maximum number of codes to fit, of codes held out, and of values in either.

The last one reduces the number of codes of more than 1,000 dimensions.
"""


# --- codes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """Standardises codes z to u = (z - loc) / scale, in the dimensions that vary, and maps them back."""

    loc: Tensor  # (D,)
    scale: Tensor  # (D,), 0 for dimensions that do not vary

    @classmethod
    def of(cls, z: Tensor) -> Scale:
        """The scale of codes z (N, D)."""
        spread = z.double().std(0, correction=0)
        return cls(z.double().mean(0).float(), torch.where(spread > 1e-6 * spread.max(), spread, 0.0).float())

    @property
    def varies(self) -> Tensor:
        """Which dimensions vary, bool (D,)."""
        return self.scale > 0

    def standardise(self, z: Tensor) -> Tensor:
        """The standardised codes of z (N, D), in the dimensions that vary."""
        return ((z - self.loc) / self.scale)[:, self.varies]

    def restore(self, u: Tensor, temperature: float = 1.0) -> Tensor:
        """The codes (n, D) of u (n, d), with their deviations from the mean scaled by `temperature`."""
        z = self.loc.expand(len(u), -1).clone()
        z[:, self.varies] += temperature * u * self.scale[self.varies]
        return z

    @property
    def log_jacobian(self) -> float:
        """log |du / dz|."""
        return -float(torch.log(self.scale[self.varies].double()).sum())


def _rows(n: int, most: int, seed: int) -> np.ndarray:
    """The indices of all n rows, or of at most `most` of them."""
    return np.arange(n) if n <= most else np.sort(generator(seed).choice(n, most, replace=False))


def codes(run: SavedRun, split: str, most: int, seed: int, on_progress: OnProgress | None = None) -> Tensor:
    """One draw of q(z | x) per datum of a split, for at most `most` data: (n, D).

    Codes of a conditional run come without the condition. A point posterior gives the codes themselves.
    """
    dims = run.encode(split, n=1).shape[1]
    rows = _rows(run.observed(split).n, min(most, max(1000, MOST_NUMBERS // dims)), seed)
    draws: list[np.ndarray] = []
    for a in range(0, len(rows), BLOCK):
        draws.append(run.encode(split, sample=True, seed=seed, rows=rows[a : a + BLOCK]))
        if on_progress:
            on_progress(f"encoding the {split} split", min(a + BLOCK, len(rows)), len(rows))
    condition = run.composition.condition
    z = torch.from_numpy(np.concatenate(draws))[:, : dims - (0 if condition is None else condition.size)]
    if not bool(torch.isfinite(z).all()):
        raise RunError(f"some codes of {run.path} are not finite: no density can be fitted to them")
    return z


def check_codes(run: SavedRun, z: Tensor) -> None:
    """Check that the codes can have a density in R^D.

    Raises:
        ChoiceError: the codes are discrete, lie on a sphere, or do not vary.
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
                "(without `latents`)"
            )
        size = q.event_shape.numel()
        part = z[:, first : first + size].double()
        first += size
        norm = part.norm(dim=-1)
        if size > 1 and float(norm.std(correction=0)) < 1e-3 * float(norm.mean()):
            raise ChoiceError(
                "this run's codes lie on a sphere, so they have no density in R^D to fit: sample from its prior "
                "(without `latents`)"
            )
    if not bool((z.double().std(0, correction=0) > 0).any()):
        raise ChoiceError("all codes of this run are equal, so there is no density to fit: it has learned nothing")


class HeldOut(TypedDict):
    """How well a density fits held-out codes: mean log-densities in nats."""

    n: int
    log_density: float
    log_density_normal: float
    bound: bool


class Record(TypedDict):
    """The content of latents/NAME.json."""

    format: int
    name: str
    n: int
    seed: int
    steps: int
    choices: dict[str, Any]
    asked: dict[str, Any]
    weights: str
    held_out: HeldOut


# --- densities stored with a run --------------------------------------------------------------------------------


class LatentDensity:
    """A density fitted to the codes of a run.

    Attributes:
        name: gmm, flow or two-stage.
        record: how it was fitted, as stored in its JSON file.
    """

    def __init__(self, density: Density, scale: Scale, record: dict[str, Any]):
        self.density, self.scale, self.record = density, scale, record
        self.name: str = record["name"]

    @formerly("temperature", "seed")
    def sample(self, n: int = 64, *, temperature: float = 1.0, seed: int = 0) -> np.ndarray:
        """Draw n codes (n, D), with their deviations from the mean of the codes scaled by `temperature`."""
        return self.scale.restore(self.density.draw(n, seed), temperature).numpy()

    def log_prob(self, z: np.ndarray) -> np.ndarray:
        """The log-density of codes (n, D) over the dimensions that vary, in nats, (n,); a lower bound for two-stage."""
        u = self.scale.standardise(torch.as_tensor(z, dtype=torch.float32))
        return self.density.log_prob(u).numpy() + self.scale.log_jacobian

    def __str__(self) -> str:
        r = self.record
        least = "at least " if r["held_out"]["bound"] else ""
        return (
            f"{self.name}: {self.density.line}, fitted to {r['n']:,} codes of the training split (seed {r['seed']}, "
            f"{r['steps']:,} steps); mean log-density of {r['held_out']['n']:,} validation codes: {least}"
            f"{r['held_out']['log_density']:.2f} nats, under N(0, I) {r['held_out']['log_density_normal']:.2f}"
        )


def check_name(name: str) -> None:
    """Raises ChoiceError for an unknown name, suggesting the nearest."""
    if name not in DENSITIES:
        raise ChoiceError(unknown("`latents`", name, DENSITIES, 0.3))


def fit_latents(
    run: SavedRun,
    name: str,
    *,
    components: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
    refit: bool = False,
    on_progress: OnProgress | None = None,
) -> LatentDensity:
    """The density `name` of a run's codes: loaded if it is stored with the run, else fitted and stored.

    A stored density is used only if the run's weights have not changed since the fit. If the run directory cannot be
    written, a note says so and only this `Run` object keeps the density.

    Arguments:
        name: gmm, flow or two-stage.
        components: number of Gaussians of a gmm (default 10).
        steps: maximum number of steps, of expectation maximisation or of an optimiser.
        seed: seed of the codes drawn and of the fit (default 0).
        refit: fit again even if a density is stored.
        on_progress: called during the fit with (name of the task, units done, total units).

    Raises:
        ChoiceError: an unknown density; `components` for a density other than gmm; codes that have no density; or the
            stored density was fitted with other choices than those requested.
    """
    check_name(name)
    part = DENSITIES[name]
    if components is not None and "components" not in part.knobs:
        owners = [other.name for other in DENSITIES.values() if "components" in other.knobs]
        raise ChoiceError(f"`components` is for {', '.join(owners)}, not for {name}")
    for option, value in (("components", components), ("steps", steps)):
        if value is not None and value < 1:
            raise ChoiceError(f"`{option}` must be 1 or more, got {value}")
    own = {knob: argument.default for knob, argument in part.knobs.items()}
    defaults = {"steps": part.traits["kind"].STEPS, "seed": 0, **own}
    requested = {k: v for k, v in {"components": components, "steps": steps, "seed": seed}.items() if v is not None}
    with open(run.path / "model.safetensors", "rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    stored = None if refit else run.unstored.get(name) or _stored(run, name, weights)
    if stored is None or stored.record["weights"] != weights:
        return _fitted(run, name, {**defaults, **requested}, weights, on_progress)
    for option, value in requested.items():
        if value != stored.record["asked"][option]:
            raise ChoiceError(
                f"the {name} stored with {run.path} was fitted with {option} {stored.record['asked'][option]}, not "
                f"{value}: leave `{option}` out, or fit again with `refit=True`"
            )
    return stored


def _stored(run: SavedRun, name: str, weights: str) -> LatentDensity | None:
    """The stored density that was fitted to the run's current weights, if there is one."""
    folder = run.path / "latents"
    file = folder / f"{name}.json"
    if not file.exists():
        return None
    record = read_json(file)
    try:
        if record["format"] > FORMAT:
            raise RunError(f"{file} was written by a newer vaekit: fit again with `refit=True`")
        if record["weights"] != weights:
            return None
        tensors, _ = read_tensors(folder / f"{name}.safetensors")
        scale = Scale(tensors.pop("codes.loc"), tensors.pop("codes.scale"))
        size = (folder / f"{name}.safetensors").stat().st_size
        why = f"{file} describes a density far larger than its stored numbers: fit again with `refit=True`"
        kind = DENSITIES[name].traits["kind"]
        with contextlib.nullcontext() if kind.is_run else Bounded(size, why):  # opening a run checks its size itself
            density = kind.open(folder, tensors, record["choices"])
        latents = LatentDensity(density, scale, record)
        _check_stored(run, latents)
        return latents
    except (LookupError, TypeError, ValueError, RuntimeError) as error:  # a readable file with the wrong content
        if isinstance(error, RunError):
            raise
        raise RunError(f"{file} or its tensors are damaged ({error}): fit again with `refit=True`") from error


def _check_stored(run: SavedRun, latents: LatentDensity) -> None:
    """Raises ValueError unless a stored density has codes of the model's size and records how it was fitted."""
    if wrong := mismatch(latents.record, Record):
        raise ValueError(wrong)
    options = {"steps", "seed", *DENSITIES[latents.name].knobs}
    if lacking := sorted(options - set(latents.record["asked"])):
        raise ValueError(f"asked.{lacking[0]} is missing")
    condition = run.composition.condition
    dims = run.sample_latents(1).shape[1] - (0 if condition is None else condition.size)
    scale = latents.scale
    if scale.loc.shape != (dims,) or scale.scale.shape != (dims,):
        raise ValueError(
            f"it is for codes of shape {tuple(scale.loc.shape)}, but those of the run have {dims} dimensions"
        )
    if not np.isfinite(latents.sample(8)).all():
        raise ValueError("its samples are not finite")


def _fitted(
    run: SavedRun, name: str, asked: dict[str, Any], weights: str, on_progress: OnProgress | None
) -> LatentDensity:
    started, seed, max_steps = time.monotonic(), asked["seed"], asked["steps"]
    z = codes(run, "train", MOST, seed, on_progress)
    check_codes(run, z)
    held = codes(run, "valid", MOST_HELD_OUT, fold(seed, Key.HELD_OUT), on_progress)
    scale, folder = Scale.of(z), run.path / "latents"
    u = scale.standardise(z)
    unwritable = _unwritable(run, folder)  # checked before minutes of work
    part = DENSITIES[name]
    density: Density = Chosen(part, {knob: asked[knob] for knob in part.knobs}).make(
        u=u,
        max_steps=max_steps,
        seed=seed,
        on_progress=on_progress,
        device=run.device,
        folder=None if unwritable else folder,
    )
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
    latents = LatentDensity(density, scale, record)
    record["held_out"] = _held_out(latents, held, run.observed("valid").groups(len(held)))
    record["seconds"] = round(time.monotonic() - started, 1)
    run.unstored.pop(name, None)
    if not unwritable:
        try:
            _store(latents, folder)
        except (OSError, RunError) as error:  # such as a full disk: the fitted density is used all the same
            unwritable = str(error)
    if unwritable:
        say(f"note: {unwritable}; the {name} is not stored with the run and will be fitted again next time")
        run.unstored[name] = latents
    return latents


def _unwritable(run: SavedRun, folder: Path) -> str | None:
    """Why nothing can be stored in the run's `folder` of densities, which is created; None if it is writable."""
    if run.path == PLACE:
        return "the packaged run is never changed"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        return f"cannot write {folder}: {error.strerror}"
    if not is_writable(folder):
        return f"cannot write in {folder}"
    remove_parts(folder)
    return None


def _store(latents: LatentDensity, folder: Path) -> None:
    """Write a density and how it was fitted.

    Raises:
        OSError, RunError: the folder cannot be written, or its disk is full.
    """
    file = folder / f"{latents.name}.json"
    file.unlink(missing_ok=True)  # written last: if it exists, the fit is complete
    latents.density.save(folder, latents.name, {"codes.loc": latents.scale.loc, "codes.scale": latents.scale.scale})
    write_json(file, latents.record)


def _held_out(latents: LatentDensity, z: Tensor, group: np.ndarray | None = None) -> dict[str, Any]:
    """Mean log-density of held-out codes, and that under N(0, I): nats per code, with standard errors."""
    log_density = latents.log_prob(z.numpy())
    varying = z[:, latents.scale.varies].double()
    normal = (-0.5 * varying.square().sum(-1) - 0.5 * varying.shape[1] * math.log(2 * math.pi)).numpy()
    return {
        "split": "valid",
        "n": len(z),
        "log_density": float(log_density.mean()),
        "se": standard_error(log_density, group),
        "log_density_normal": float(normal.mean()),
        "se_normal": standard_error(normal, group),
        "se_difference": standard_error(log_density - normal, group),
        "bound": latents.density.bound,
        "unit": "nats per code",
    }
