"""Better samples from a trained run: a density fitted to its codes, to sample from instead of the prior.

A decoder is trained on the codes of data, which follow the aggregate posterior q(z) = E_x q(z | x). The prior need not
match it. This module fits a density to q(z) after training, from draws of q(z | x) over the training split (at most
`MOST` codes): a Gaussian mixture, a normalising flow, or a second VAE (Dai and Wipf 2019, arXiv:1903.05789; Ghosh et
al. 2020, arXiv:1903.12436). The fit is stored with the run and reused:

RUN/latents/NAME.json           how it was fitted, and the log-density of codes of the validation split
RUN/latents/NAME.safetensors    its parameters
RUN/latents/two-stage/          the second VAE, a run like any other
RUN/latents/flow-matching/      the training of flow matching, a run too
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaekit.data.condition import Condition, Labels
from vaekit.densities import Point
from vaekit.errors import ChoiceError, RunError
from vaekit.models.quantised import Coded, StochasticCodes
from vaekit.noise import Key, Noise, fold
from vaekit.runs.example import why_fixed
from vaekit.runs.saved import SavedRun
from vaekit.utils.allocation import Bounded
from vaekit.utils.files import is_writable, read_json, read_tensors, remove_parts, write_json
from vaekit.utils.formerly import formerly
from vaekit.utils.progress import say
from vaekit.utils.register import Chosen
from vaekit.utils.suggest import unknown
from vaekit.utils.typed import mismatch
from vaekit.utils.uncertainty import standard_error

from .continuing import asked_before, begun, identity_of
from .densities import BLOCK, DENSITIES, Density, OnProgress, Posteriors, Training, generator
from .posterior import ROWS, condition_of, posteriors
from .records import Record, of_codes, weights_of
from .scale import Scale

FORMAT = 1
MOST, MOST_HELD_OUT, MOST_NUMBERS = 50_000, 5_000, 50_000_000
"""The maximum number of codes to fit, of codes held out, and of values in either.

The last one reduces the number of codes of more than 1,000 dimensions.
"""
SPLITS = (("train", ROWS), ("valid", MOST_HELD_OUT))
"""The splits whose posteriors a density is fitted to, and the maximum number of data of each."""


# --- codes ------------------------------------------------------------------------------------------------------


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
        support = None if isinstance(q, Coded | StochasticCodes | Point) else q.support
        if isinstance(q, Coded | StochasticCodes) or (support is not None and support.is_discrete):
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


# --- densities stored with a run --------------------------------------------------------------------------------


class LatentDensity:
    """A density fitted to the codes of a run.

    Attributes:
        name: gmm, flow, two-stage or flow-matching.
        record: how it was fitted, as stored in its JSON file.
    """

    def __init__(self, density: Density, scale: Scale, record: dict[str, Any]):
        self.density, self.scale, self.record = density, scale, record
        self.name: str = record["name"]

    @property
    def condition(self) -> Condition | None:
        """The labels or attributes that it is conditional on, or None."""
        return self.density.condition

    @formerly("temperature", "seed")
    def sample(
        self,
        n: int = 64,
        *,
        labels: Labels | None = None,
        guidance: float = 1.0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> np.ndarray:
        """Draw n codes (n, D), with their deviations from the mean of the codes scaled by `temperature`.

        Arguments:
            labels: of a conditional density: one per code or one for all, by name or by code 0, 1, ...; attributes
                (n, size). By default, those of training rows.
            guidance: above 1, codes are more typical of their labels and less varied (Ho and Salimans 2022,
                arXiv:2207.12598); 0 ignores the labels.

        Raises:
            ChoiceError: labels or guidance for a density that is not conditional, or guidance without labels.
        """
        c = None if labels is None else self._conditional(labels, n)
        if guidance != 1 and self.condition is None:
            raise ChoiceError(f"this {self.name} is not conditional, so it takes no `guidance`: {self._remedy}")
        if guidance != 1 and c is None:
            raise ChoiceError("`guidance` moves codes towards `labels`: give them")
        drawn = self.density.draw(n, seed) if c is None else self.density.draw_given(n, seed, c, guidance)
        return self.scale.restore(drawn, temperature).numpy()

    def log_prob(self, z: np.ndarray, *, labels: Labels | None = None) -> np.ndarray:
        """The log-density of codes (n, D) over the dimensions that vary, in nats, (n,); a lower bound for two-stage.

        With the `labels` of the codes, that of a conditional density given these.
        """
        u = self.scale.standardise(torch.as_tensor(z, dtype=torch.float32))
        c = None if labels is None else self._conditional(labels, len(u))
        found = self.density.log_prob(u) if c is None else self.density.log_prob_given(u, c)
        return found.numpy() + self.scale.log_jacobian

    @property
    def _remedy(self) -> str:
        """How to get a conditional density in place of this one, which is not."""
        if self.density.of_posterior:
            return "fit it again with `condition='label'` and `refit=True`"
        return "`latents='flow-matching'` does for data with labels"

    def _conditional(self, labels: Labels, n: int) -> Tensor:
        """The condition of labels as a density takes it, (n, C + 1): followed by 1."""
        if self.condition is None:
            raise ChoiceError(f"this {self.name} is not conditional, so it takes no labels: {self._remedy}")
        c = torch.from_numpy(self.condition.encoded(labels, n))
        return torch.cat([c, torch.ones(len(c), 1)], -1)

    def __str__(self) -> str:
        r = self.record
        least = "at least " if r["held_out"]["bound"] else ""
        given = f" ({of_codes(r):.2f} given their labels)" if "log_density_given" in r["held_out"] else ""
        return (
            f"{self.name}: {self.density.line}, fitted to {r['n']:,} codes of the training split (seed {r['seed']}, "
            f"{r['steps']:,} steps); mean log-density of {r['held_out']['n']:,} validation codes: {least}"
            f"{r['held_out']['log_density']:.2f} nats{given}, under N(0, I) {r['held_out']['log_density_normal']:.2f}"
        )


def draw_codes(
    run: SavedRun,
    fitted: LatentDensity,
    n: int,
    *,
    labels: Labels | None = None,
    guidance: float = 1.0,
    temperature: float = 1.0,
    seed: int = 0,
) -> np.ndarray:
    """n codes of a run (n, D) from a density of its codes; those of a conditional run end in the condition.

    For a conditional run, they have these labels, or by default those of each class in turn. For others, `labels` and
    `guidance` are those of the density (`LatentDensity.sample`).
    """
    own = run.composition.condition
    c = run._conditions(n, temperature, None if own is None else labels)
    if own is not None and c is not None:
        labels = None if fitted.condition is None else own.decoded(c.cpu().numpy())
    z = fitted.sample(n, labels=labels, guidance=guidance, temperature=temperature, seed=seed)
    return z if c is None else np.concatenate([z, c.cpu().numpy()], 1)


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
    training: Training | None = None,
    **choices: Any,
) -> LatentDensity:
    """The density `name` of a run's codes: loaded if it is stored with the run, else fitted and stored.

    A stored density is used only if the run's weights have not changed since the fit. If the run directory cannot be
    written, a note says so and only this `Run` object keeps the density.

    Arguments:
        name: gmm, flow, two-stage or flow-matching.
        components: number of Gaussians of a gmm (default 10).
        steps: maximum number of steps, of expectation maximisation or of an optimiser.
        seed: seed of the codes drawn and of the fit (default 0).
        refit: fit again even if a density is stored.
        on_progress: called during the fit with (name of the task, units done, total units).
        training: how to train flow-matching: training options, and whether to resume or extend its training.
        choices: other options of the density, such as `width` of flow-matching.

    Raises:
        ChoiceError: an unknown density; an option that it does not have; codes that have no density; or the stored
            density was fitted with other choices than those requested.
        RunError: the training of the density was interrupted, so that it must be resumed or fitted again.
    """
    check_name(name)
    part = DENSITIES[name]
    requested = {k: v for k, v in {"components": components, **choices}.items() if v is not None}
    for option in requested:
        if option not in part.knobs:
            owners = [other.name for other in DENSITIES.values() if option in other.knobs]
            raise ChoiceError(
                f"`{option}` is for {', '.join(owners)}, not for {name}"
                if owners
                else unknown(f"option of {name}", option, part.knobs)
            )
    for option, value in (("components", components), ("steps", steps)):
        if value is not None and value < 1:
            raise ChoiceError(f"`{option}` must be 1 or more, got {value}")
    own = {knob: argument.default for knob, argument in part.knobs.items()}
    defaults = {"steps": part.traits["kind"].STEPS, "seed": 0, **own}
    requested |= {k: v for k, v in {"steps": steps, "seed": seed}.items() if v is not None}
    weights = weights_of(run)
    if part.traits["kind"].of_posterior:
        training = begun(run, name, weights, refit, training)
    elif training is not None:
        raise ChoiceError(f"{name} is not trained as a run: it takes `steps` and `seed` only, or choose flow-matching")
    if training is not None and (training.options.minutes, training.options.epochs) != (None, None):
        defaults["steps"] = None
    if training is not None and training.mode != "new":
        defaults |= asked_before(run, name, defaults, requested)
        if training.mode == "extend":
            defaults["steps"] = None  # the former length is none to extend to
    elif not refit:
        stored = run.unstored.get(name) or _stored(run, name, weights)
        if stored is not None and stored.record["weights"] == weights:
            _check_asked(run, stored, requested)
            return stored
    return _fitted(run, name, {**defaults, **requested}, weights, on_progress, training)


def _check_asked(run: SavedRun, stored: LatentDensity, requested: dict[str, Any]) -> None:
    """Raises ChoiceError if the stored density was fitted with other choices than those requested."""
    for option, value in requested.items():
        if value != stored.record["asked"][option]:
            raise ChoiceError(
                f"the {stored.name} stored with {run.path} was fitted with {option} {stored.record['asked'][option]}, "
                f"not {value}: leave `{option}` out, or fit again with `refit=True`"
            )


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
        density.to(run.device)
        latents = LatentDensity(density, scale, record)
        _check_stored(run, latents)
        return latents
    except (OSError, LookupError, TypeError, ValueError, RuntimeError) as error:  # missing, or of the wrong content
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
    run: SavedRun,
    name: str,
    asked: dict[str, Any],
    weights: str,
    on_progress: OnProgress | None,
    training: Training | None,
) -> LatentDensity:
    started, seed, part = time.monotonic(), asked["seed"], DENSITIES[name]
    given: Condition | None = None
    c: Tensor | None = None
    both: tuple[Posteriors, Posteriors] | None = None
    if part.traits["kind"].of_posterior:
        given = condition_of(run, asked["condition"])
        train, valid = (_posteriors(run, split, most, seed, given, on_progress) for split, most in SPLITS)
        z, held, c = train.drawn(seed), valid.drawn(fold(seed, Key.HELD_OUT)), valid.c
        check_codes(run, z)
        scale = Scale.of(z)
        both = scale.of_posteriors(train), scale.of_posteriors(valid)
    else:
        z = codes(run, "train", MOST, seed, on_progress)
        check_codes(run, z)
        held = codes(run, "valid", MOST_HELD_OUT, fold(seed, Key.HELD_OUT), on_progress)
        scale = Scale.of(z)
    folder, u = run.path / "latents", scale.standardise(z)
    unwritable = _unwritable(run, folder)  # checked before minutes of work
    density: Density = Chosen(part, {knob: asked[knob] for knob in part.knobs}).make(
        u=u,
        max_steps=asked["steps"],
        seed=seed,
        on_progress=on_progress,
        device=run.device,
        folder=None if unwritable else folder,
        codes=both,
        given=given,
        shape=scale.grid(run.model.grid),
        identity=identity_of(weights, asked),
        training=training,
    )
    density.to(run.device)
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
    few = slice(density.held_out)
    groups = run.observed("valid").groups(len(held))
    record["held_out"] = _held_out(
        latents, held[few], None if groups is None else groups[few], None if c is None else c[few]
    )
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
    if why := why_fixed(run.path):
        return why
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


def _held_out(
    latents: LatentDensity, z: Tensor, group: np.ndarray | None = None, c: Tensor | None = None
) -> dict[str, Any]:
    """Mean log-density of held-out codes, and that under N(0, I): nats per code, with standard errors.

    Arguments:
        c: the conditions of the codes, if the density is conditional. `log_density_given` is then the log-density given
            the condition. p(z) is the mean of p(z | c') over the conditions c' of training rows, so `log_density` is a
            lower bound: log p(z | c') + log share of c', for the c' nearest to c, which is c itself if training rows
            have it. Real-valued attributes of held-out data are mostly new, and their bound is loose.
    """
    u, density = latents.scale.standardise(z), latents.density
    given = density.log_prob(u) if c is None else density.log_prob_given(u, c)
    least = given.clone()
    if c is not None:
        known, share = density.nearest(c)
        new = (known != c).any(-1)
        if bool(new.any()):
            least[new] = density.log_prob_given(u[new], known[new])
        least += share
    log_density = least.numpy() + latents.scale.log_jacobian
    varying = z[:, latents.scale.varies].double()
    normal = (-0.5 * varying.square().sum(-1) - 0.5 * varying.shape[1] * math.log(2 * math.pi)).numpy()
    found = {
        "split": "valid",
        "n": len(z),
        "log_density": float(log_density.mean()),
        "se": standard_error(log_density, group),
        "log_density_normal": float(normal.mean()),
        "se_normal": standard_error(normal, group),
        "se_difference": standard_error(log_density - normal, group),
        "bound": density.bound or c is not None,
        "unit": "nats per code",
    }
    return found if c is None else {**found, "log_density_given": float(given.mean()) + latents.scale.log_jacobian}


def _posteriors(
    run: SavedRun, split: str, most: int, seed: int, given: Condition | None, on_progress: OnProgress | None
) -> Posteriors:
    """The posteriors of a split, for at most `most` data."""
    dims = run.encode(split, n=1).shape[1]
    rows = _rows(run.observed(split).n, min(most, max(1000, MOST_NUMBERS // dims)), seed)
    return posteriors(run, split, rows, seed, given, MOST_NUMBERS, on_progress)
