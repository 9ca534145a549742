"""Figures and pictures of a training in Weights & Biases."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from vaekit.callbacks.base import Training
from vaekit.errors import ChoiceError
from vaekit.runs.configuration import State

from .base import Logger, identity, logger


@logger("wandb")
class WandbLogger(Logger):
    """Curves, pictures and hyper-parameters in Weights & Biases.

    `wandb login` decides where they are sent. With the environment variable WANDB_MODE=offline, they stay in the folder
    `wandb` of the run directory, from where `wandb sync` sends them. Nothing else is sent: no code, no state of the
    repository, no description of the machine.

    Arguments:
        where: the project; by default `vaekit`.

    Raises:
        ChoiceError: wandb is not installed.
    """

    def __init__(self, where: str | None = None):
        super().__init__()
        self.project = where or "vaekit"
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            import wandb
        except ImportError:
            raise ChoiceError("`log='wandb'` needs wandb: pip install 'vaekit[wandb]'") from None
        self._wandb = wandb
        self.run: Any = None

    def open(self, training: Training, settings: dict[str, Any]) -> None:
        """Start a run, or continue the same one."""
        self.run = self._wandb.init(
            project=self.project,
            id=identity(training.config, training.path.name),
            name=training.path.name,
            config=settings,
            dir=str(training.path),
            resume="allow",
            save_code=False,
            settings=self._wandb.Settings(
                console="off", disable_code=True, disable_git=True, x_disable_meta=True, x_disable_stats=True
            ),
        )
        self.run.define_metric("*", step_metric="step")

    def scalars(self, step: int, figures: dict[str, float]) -> None:
        """Add a point to each curve."""
        self.run.log({"step": step, **figures})

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Add a picture."""
        self.run.log({"step": step, name: self._wandb.Image(image)})

    def close(self, state: State) -> None:
        """End the run; it is marked as failed if the training failed."""
        if self.run is not None:
            self.run.summary["state"] = state
            self.run.finish(exit_code=int(state == "failed"))
