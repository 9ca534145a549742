"""Flow matching over codes: a velocity that moves N(0, I) to the codes, trained as a run of its own."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from vaekit.data.condition import Condition
from vaekit.data.core import Split
from vaekit.errors import ChoiceError
from vaekit.estimators.probability_flow import EXACT, PathIntegral, path_log_prob
from vaekit.models.probability_flow import ProbabilityFlow, Transport
from vaekit.networks.velocity import DenseVelocity, GridVelocity
from vaekit.noise import Key, Noise
from vaekit.objectives.flow_matching import FlowMatching
from vaekit.options import Defaults, Options
from vaekit.recipes.composition import Composition
from vaekit.runs.saved import SavedRun
from vaekit.utils.allocation import Bounded
from vaekit.utils.arguments import Knob
from vaekit.utils.isolation import seeded

from .base import Density, Fitting, OnProgress, Training, latent_density
from .posteriors import PosteriorDraw, Posteriors

if TYPE_CHECKING:
    from vaekit.data.core import Data

FOLDER = "flow-matching"
"""The name of the run in the folder of the run's densities."""
DEFAULTS = Defaults("adamw", 1e-3, 256, "cosine", weight_decay=1e-4, clip=1.0, ema=0.999, patience=20)
VALIDATE_STEPS = 500
DENSE = 512
"""Codes of at most so many numbers have a dense network by default, also if they are small images."""
BLOCK = 1000
"""The number of codes that are drawn at once."""
MOST_MIXED, MOST_LABELS = 64, 10_000
"""The largest number of conditions over which `log_prob` sums, and of training rows whose conditions are kept."""

HELD_OUT = (500, 64)
"""Held-out codes whose log-density is measured after the fit: with the exact divergence, and with an estimate of it."""


@dataclasses.dataclass(frozen=True)
class Carried(Condition):
    """A condition whose values, and whether they are known, are columns of the data of the same names."""

    def of(self, split: Split, label_names: Any = None) -> np.ndarray:
        return np.stack([split.columns[name] for name in self.names], 1).astype(np.float32)

    @classmethod
    def width(cls, size: int) -> Carried:
        """The condition with columns for `size` numbers, the last of which is 1 where they are known."""
        return cls("attributes", tuple(f"c{i}" for i in range(size)))


def composition(
    dims: int,
    grid: tuple[int, ...] | None,
    condition: int,
    width: int,
    layers: int,
    spread: float,
    drop: float,
    solver_steps: int,
) -> Composition:
    """Model, objective and observation of a density of codes (D,), from raw rows [mean, spread]."""
    if grid is None:
        net: torch.nn.Module = DenseVelocity(dims, condition, width, layers)
    else:
        net = GridVelocity(grid, condition, width, layers)
    model = ProbabilityFlow(net, dims, condition, spread, solver_steps)
    given = Carried.width(condition) if condition else None
    return Composition(model, FlowMatching(drop), PosteriorDraw(), DEFAULTS, condition=given)


@latent_density("flow-matching", "Lipman et al. 2023, arXiv:2210.02747", "flow matching")
class FlowMatchingDensity(Density):
    """The distribution of N(0, I) moved along a learned velocity, given labels or attributes if the data have any.

    Codes that are small images (`Model.grid`) of more than 512 numbers have a transformer over their grid, all others a
    residual dense network, whose steps are faster. It is trained on new draws of the posteriors at every step
    (`latents.posterior`). Draws without a label have that of a training row each, at random.
    """

    is_run: ClassVar[bool] = True
    of_posterior: ClassVar[bool] = True
    STEPS, PROBES = 6000, 2
    """The number of steps by default, and of directions of the estimate of a divergence."""

    def __init__(self, run: SavedRun, choices: dict[str, Any], labels: Tensor | None):
        self.run, self.choices, self.steps = run, choices, run.config["step"]
        self.labels = labels  # the conditions of some training rows (n, C + 1)
        of = choices["condition"]
        self.condition = None if of is None else Condition(of["kind"], tuple(of["names"]), of["column"])
        self.held_out = HELD_OUT[choices["dims"] > EXACT]

    @classmethod
    def fit(
        cls,
        codes: tuple[Posteriors, Posteriors],
        given: Condition | None,
        shape: tuple[int, ...] | None,
        identity: str,
        folder: Path | None,
        max_steps: int | None,
        seed: int,
        training: Training,
        on_progress: OnProgress | None = None,
        device: str | torch.device = "cpu",
        condition: Annotated[
            Literal["auto", "label", "attributes", "none"],
            Knob("what the density is conditional on; auto: the run's condition, else labels or attributes if any"),
        ] = "auto",
        network: Annotated[
            Literal["auto", "dense", "grid"],
            Knob(
                "residual dense layers, or a transformer over the grid of the codes (grid); auto: the grid, if there "
                "is one and codes have more than 512 numbers"
            ),
        ] = "auto",
        width: Annotated[int | None, Knob("width of the network; by default it depends on the codes", low=1)] = None,
        layers: Annotated[int, Knob("number of residual blocks", low=1)] = 4,
        spread: Annotated[
            float,
            Knob("standard deviation of logit t, for times t between noise (0) and data (1) in training", above=0),
        ] = 1.0,
        drop: Annotated[
            float, Knob("share of the data trained without their label, for guidance", low=0, below=1)
        ] = 0.1,
        solver_steps: Annotated[int, Knob("steps of the solver that draws, of four evaluations each", low=1)] = 8,
    ) -> FlowMatchingDensity:
        """Train the velocity on posteriors (training, validation) of standardised codes.

        Arguments:
            given: the condition of the posteriors' `c`.
            shape: the grid of the codes, or None.
            identity: what the codes are a function of, as text.
            folder: it is trained in `folder`/flow-matching; None for a temporary directory.
        """
        from vaekit.training.fit import train

        asked: dict[str, Any] = {
            "condition": condition, "network": network, "width": width, "layers": layers, "spread": spread,
            "drop": drop, "solver_steps": solver_steps,
        }  # fmt: skip
        choices = _choices(codes[0].mean.shape[1], shape, given, asked)
        temporary = None
        if folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="vaekit-")
            folder = Path(temporary.name)
        record = folder / f"{FOLDER}.json"  # of the density whose training this one takes the place of
        options = _options(training, max_steps, seed, str(device))
        with seeded(seed):
            built = composed(choices)
        run = train(
            _as_data(codes, identity),
            built,
            out=folder / FOLDER,
            resume=training.mode == "resume",
            extend=training.mode == "extend",
            exists="replace" if training.mode == "new" else "error",
            progress=Fitting(FOLDER, on_progress) if training.progress is None else training.progress,
            on_start=lambda config: record.unlink(missing_ok=True),
            on_interrupt="raise",
            options=options,
            **asked,
        )
        run.folder = temporary
        return cls(run, choices, None if codes[0].c is None else _some(codes[0].c))

    @property
    def model(self) -> ProbabilityFlow:
        """The model, with trained weights."""
        model = self.run.model
        assert isinstance(model, ProbabilityFlow)
        return model

    def to(self, device: str | torch.device) -> None:
        self.run.to(device)

    # --- drawing ------------------------------------------------------------------------------------------------

    def draw(self, n: int, seed: int) -> Tensor:
        return self._draw(n, seed, None, 1.0)

    def draw_given(self, n: int, seed: int, c: Tensor, guidance: float) -> Tensor:
        if guidance != 1:
            self.check_drop("`guidance`")
        return self._draw(n, seed, c, guidance)

    def check_drop(self, what: str) -> None:
        """Raise ChoiceError if it is conditional and was never trained without labels, which `what` needs."""
        if self.choices["drop"] == 0 and self.labels is not None and bool(self.labels[:, -1].all()):
            raise ChoiceError(
                f"{what} needs a density that was also trained without labels, and this one has `drop=0`: fit it again "
                "without `drop` and with `refit=True`"
            )

    @torch.no_grad()
    def _draw(self, n: int, seed: int, c: Tensor | None, guidance: float) -> Tensor:
        on, parts = self.run.device, []
        for rows in torch.arange(n).split(BLOCK):
            given = self._conditions(rows, seed) if c is None else c[rows]
            e = Noise.of(seed, rows.to(on), Key.CODES).normal((self.model.dims,))
            transport: Transport = self.model.likelihood
            parts.append(transport(e, None if given is None else given.to(on), guidance).mean.cpu())
        return torch.cat(parts)

    def _conditions(self, rows: Tensor, seed: int) -> Tensor | None:
        """The condition of a random training row for each draw, (n, C + 1); None if the density has none."""
        if self.labels is None:
            return None
        u = Noise.of(seed, rows, Key.LABELS).uniform((1,))[:, 0]
        return self.labels[(u * len(self.labels)).long().clamp_max(len(self.labels) - 1)]

    # --- the density --------------------------------------------------------------------------------------------

    def log_prob(self, u: Tensor) -> Tensor:
        if self.labels is None:
            return self.path(u, None).log_prob
        distinct, counts = self.labels.unique(dim=0, return_counts=True)
        if len(distinct) > MOST_MIXED:
            raise ChoiceError(
                f"this density is a mixture over {len(distinct):,} combinations of attributes: give those of each code "
                "as `labels`, or fit it with `condition='none'`"
            )
        each = [self.path(u, c.expand(len(u), -1)).log_prob for c in distinct]
        weights = torch.log(counts.double() / counts.sum())
        return torch.logsumexp(torch.stack(each) + weights[:, None], 0)

    def log_prob_given(self, u: Tensor, c: Tensor) -> Tensor:
        return self.path(u, c).log_prob

    def nearest(self, c: Tensor) -> tuple[Tensor, Tensor]:
        assert self.labels is not None
        distinct, counts = self.labels.unique(dim=0, return_counts=True)
        apart = torch.cdist(c, distinct, compute_mode="donot_use_mm_for_euclid_dist")  # (n, K), 0 for equal ones
        at = apart.argmin(1)
        return distinct[at], torch.log(counts[at].double() / len(self.labels))

    def path(self, u: Tensor, c: Tensor | None, steps: int = 20, probes: int | None = None) -> PathIntegral:
        """log p(u | c) of standardised codes (n, d) with the errors of the solver and of the estimated divergence.

        Arguments:
            c: (n, C + 1), the last column of which is 1 where the condition is known.
            steps: number of steps of the solver, an even number.
            probes: number of random directions; by default none (exact) up to `EXACT` dimensions, else `PROBES`.
        """
        on, dims = self.run.device, u.shape[1]
        probes = (None if dims <= EXACT else self.PROBES) if probes is None else probes
        block = max(1, 2_000_000 // (dims * (dims if probes is None else probes) * 16))
        parts = []
        for rows in torch.arange(len(u)).split(block):
            field = self.model.velocity.at(None if c is None else c[rows].to(on))
            noise = Noise.of(0, rows.to(on), Key.PROBES)
            parts.append(path_log_prob(field, u[rows].to(on), steps=steps, probes=probes, noise=noise))
        return PathIntegral(*(torch.cat(part).cpu() for part in zip(*parts, strict=True)))

    # --- storing ------------------------------------------------------------------------------------------------

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {} if self.labels is None else {"labels": self.labels}

    def save(self, folder: Path, name: str, more: dict[str, Tensor]) -> None:
        assert self.run.path == folder / FOLDER  # where it was trained
        super().save(folder, name, more)

    @classmethod
    def open(cls, folder: Path, tensors: dict[str, Tensor], choices: dict[str, Any]) -> FlowMatchingDensity:
        held = (folder / FOLDER / "model.safetensors").stat().st_size
        why = f"{folder / FOLDER} describes a model far larger than its weights: fit again with `refit=True`"
        with Bounded(held, why):
            built = composed(choices)
        return cls(SavedRun.open(folder / FOLDER, model=built), choices, tensors.get("labels"))

    @property
    def line(self) -> str:
        kind = "a dense network" if self.choices["grid"] is None else "a transformer"
        of = self.condition
        given = "" if of is None else f", given {of.column or of.kind}"
        return f"{kind} of {self.choices['layers']} blocks of width {self.choices['width']}{given}"


def composed(choices: dict[str, Any]) -> Composition:
    """The composition that stored choices describe."""
    of, grid = choices["condition"], choices["grid"]
    return composition(
        choices["dims"],
        None if grid is None else tuple(grid),
        0 if of is None else len(of["names"]) + 1,
        choices["width"],
        choices["layers"],
        choices["spread"],
        choices["drop"],
        choices["solver_steps"],
    )


def _choices(
    dims: int, shape: tuple[int, ...] | None, given: Condition | None, asked: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of `composed`, from the options of the density."""
    if asked["network"] == "grid" and shape is None:
        raise ChoiceError("`network='grid'` needs codes that are small images, and these are vectors: omit it")
    dense = asked["network"] == "dense" or (asked["network"] == "auto" and dims <= DENSE)
    grid = None if dense else shape
    return {
        "dims": dims,
        "grid": None if grid is None else list(grid),
        "condition": given and {"kind": given.kind, "names": list(given.names), "column": given.column},
        "width": asked["width"] or (128 if grid is not None else 256 if dims <= EXACT else 512),
        **{name: asked[name] for name in ("layers", "spread", "drop", "solver_steps")},
    }


def _options(training: Training, max_steps: int | None, seed: int, device: str) -> Options:
    """The training options: those given, else the density's."""
    options, new = training.options, training.mode == "new"
    if options.epochs is None and options.minutes is None and training.mode != "resume":
        options = dataclasses.replace(options, steps=max_steps)
    return dataclasses.replace(
        options,
        seed=seed,
        device=device if options.device == "auto" and new else options.device,  # else that of its training
        patience=DEFAULTS.patience if options.patience is None and new else options.patience,
        validate_steps=options.validate_steps or VALIDATE_STEPS,
    )


def _some(labels: Tensor) -> Tensor:
    """The conditions of at most `MOST_LABELS` rows."""
    return labels[torch.linspace(0, len(labels) - 1, min(len(labels), MOST_LABELS), dtype=torch.float64).long()]


def _as_data(codes: tuple[Posteriors, Posteriors], identity: str) -> Data:
    """Posteriors of training and validation data as data; the test split, which is not used, is one of them again."""
    from vaekit.data import from_arrays

    train, valid = codes
    last = Posteriors(valid.mean[-1:], valid.spread[-1:], None if valid.c is None else valid.c[-1:])
    parts = [train, valid, last]
    x = torch.cat([torch.cat([part.mean, part.spread], -1) for part in parts]).numpy()
    ends = np.cumsum([len(part.mean) for part in parts])
    rows = [np.arange(b - len(part.mean), b) for b, part in zip(ends, parts, strict=True)]
    columns = {}
    if train.c is not None:
        c = torch.cat([part.c for part in parts if part.c is not None]).numpy()
        columns = {f"c{i}": column for i, column in enumerate(c.T)}
    splits = dict(zip(("train", "valid", "test"), rows, strict=True))
    data = from_arrays(x, name="codes", kind="vector", splits=splits, columns=columns)
    return dataclasses.replace(data, digest=identity)
