"""The command that trains a density of the codes of a run: prior."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from vaekit.errors import RunError
from vaekit.options import Options
from vaekit.utils.progress import say

from .opening import open_given
from .output import TaskProgress
from .parameters import FLAG, OwnData, RunFolder

if TYPE_CHECKING:
    from vaekit.run import Run

MINUTES = 10.0
"""The length of a training without another length."""


def _about(text: str) -> Parameter:
    return Parameter(help=text)


Network = Annotated[
    Literal["auto", "dense", "grid"] | None,
    _about("Residual dense layers, or a transformer over the grid of the codes; auto: the grid if there is one."),
]
Given = Annotated[
    Literal["auto", "label", "attributes", "none"] | None,
    _about(
        "What `vaekit sample --label` can ask for; auto: the run's own condition, else labels or attributes if the "
        "data have any."
    ),
]
Drop = Annotated[float | None, _about("Share of the data trained without their label, for --guidance (0.1).")]
Spread = Annotated[
    float | None,
    _about("Standard deviation of logit t, for the times t between noise (0) and data (1) in training (1)."),
]
Patience = Annotated[
    int | None,
    _about("Stop after this many validations without a lower loss, and keep the best weights (20); 0 for never."),
]
Steps = Annotated[int | None, _about("Steps of the solver that draws samples, of four evaluations each (8).")]


def prior(
    run: RunFolder,
    /,
    *,
    latents: Annotated[str, _about("The density: flow-matching, gmm, flow or two-stage.")] = "flow-matching",
    minutes: Annotated[float | None, _about("Wall-clock time of the training (10).")] = None,
    steps: Annotated[int | None, _about("Training steps, instead of --minutes.")] = None,
    condition: Given = None,
    network: Network = None,
    width: Annotated[int | None, _about("Width of the network; by default it depends on the codes.")] = None,
    layers: Annotated[int | None, _about("Number of residual blocks (4).")] = None,
    spread: Spread = None,
    drop: Drop = None,
    solver_steps: Steps = None,
    components: Annotated[int | None, _about("Number of components of a gmm (10).")] = None,
    lr: Annotated[float | None, _about("Learning rate (0.001).")] = None,
    batch: Annotated[int | None, _about("Codes per step (256).")] = None,
    ema: Annotated[float | None, _about("Decay of the running average of the weights (0.999); 0 for none.")] = None,
    patience: Patience = None,
    seed: Annotated[int | None, _about("Seed of the codes, the initial weights and the noise (0).")] = None,
    device: Annotated[str, _about("Device to train on: auto, cpu, cuda or mps.")] = "auto",
    resume: Annotated[bool, FLAG, _about("Resume the training where it was interrupted.")] = False,
    extend: Annotated[bool, FLAG, _about("Train longer, to --minutes or --steps counted from the start.")] = False,
    refit: Annotated[bool, FLAG, _about("Replace the density that the run has.")] = False,
    data: OwnData = None,
    quiet: Annotated[bool, FLAG, _about("Show no progress.")] = False,
) -> int:
    """Train a density of the codes of a run, to sample from instead of its prior (`vaekit sample RUN --latents ...`).

    Flow matching learns a velocity that moves noise to codes drawn from q(z|x) of training data. It is trained like a
    run, in RUN/latents/flow-matching: it keeps a log and checkpoints, stops when its loss on validation codes no
    longer falls, and can be interrupted and resumed. See docs/guides/prior.md.
    """
    from vaekit.latents.densities import DENSITIES
    from vaekit.latents.resample import check_name
    from vaekit.training.cost import choose_device

    latents = latents.lower()
    check_name(latents)
    trained: bool = DENSITIES[latents].traits["kind"].of_posterior
    mode: Any = "resume" if resume else "extend" if extend else "new"
    options = Options(minutes=minutes, lr=lr, batch=batch, ema=ema, patience=patience, device=device)
    options = dataclasses.replace(options, steps=steps).checked()
    given = mode != "new" or options != Options(steps=steps, device=device)
    if mode == "new" and minutes is None and steps is None and trained:
        options = dataclasses.replace(options, minutes=MINUTES)
    opened = open_given(run, data)
    opened.to(choose_device(device, opened.composition.observation.in_double))
    if mode == "new" and not refit and (opened.path / "latents" / f"{latents}.json").exists():
        longer = "add --extend to train it longer, or " if trained else ""
        raise RunError(f"{run} has a {latents} density: {longer}add --refit to replace it")
    choices: dict[str, Any] = {
        "condition": condition, "network": network, "width": width, "layers": layers, "spread": spread, "drop": drop,
        "solver_steps": solver_steps, "components": components, "steps": steps, "seed": seed, "refit": refit,
    }  # fmt: skip
    return _trained(opened, run, latents, (mode, options, not quiet) if trained or given else None, choices)


def _trained(
    opened: Run, run: str, latents: str, training: tuple[Any, Options, bool] | None, choices: dict[str, Any]
) -> int:
    """Train the density and print what it is and how to use it; the exit status."""
    from vaekit.latents.densities import Training
    from vaekit.latents.resample import fit_latents

    how = None if training is None else Training(training[1], training[0], training[2])
    try:
        with TaskProgress() as progress:
            fitted = fit_latents(opened, latents, training=how, on_progress=progress, **choices)
    except KeyboardInterrupt:
        if not (opened.path / "latents" / latents / "run.json").exists():
            raise
        say("interrupted; resume with")
        say(f"  vaekit prior {shlex.quote(run)} --resume")
        return 130
    print(fitted)
    print(f"saved in {opened.path / 'latents'}")
    label = f" --label {shlex.quote(fitted.condition.example)} --guidance 2" if fitted.condition else ""
    print(f"next: vaekit sample {shlex.quote(run)} --latents {latents}{label}")
    return 0
