"""Figures and pictures of a training as event files of TensorBoard."""

from __future__ import annotations

from typing import Any

import numpy as np

from vaekit.callbacks.base import Training
from vaekit.errors import ChoiceError
from vaekit.runs.configuration import State

from .base import Logger, logger


@logger("tensorboard")
class TensorBoardLogger(Logger):
    """Curves, pictures and hyper-parameters, which TensorBoard shows for the run directory.

    Arguments:
        where: the folder; by default `tensorboard` in the run directory.

    Raises:
        ChoiceError: TensorBoard is not installed.
    """

    def __init__(self, where: str | None = None):
        super().__init__()
        self.where = where
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ChoiceError("`log='tensorboard'` needs TensorBoard: pip install 'vaekit[tensorboard]'") from None
        self._writer = SummaryWriter
        self.writer: Any = None

    def open(self, training: Training, settings: dict[str, Any]) -> None:
        """Start an event file; events of the same run after the step from which it resumes are hidden."""
        from torch.utils.tensorboard.summary import hparams

        folder = self.where or str(training.path / "tensorboard")
        self.writer = self._writer(folder, purge_step=training.first + 1 if training.first else None)
        if not training.first:
            metric = "valid/elbo" if training.model.no_density is None else "valid/distortion"
            for summary in hparams(settings, {metric: 0.0}):
                self.writer.file_writer.add_summary(summary)

    def scalars(self, step: int, figures: dict[str, float]) -> None:
        """Add a point to each curve."""
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Add a picture."""
        self.writer.add_image(name, image, step, dataformats="HWC")

    def close(self, state: State) -> None:
        """Write what is left."""
        if self.writer is not None:
            self.writer.close()
