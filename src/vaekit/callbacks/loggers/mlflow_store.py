"""Figures and pictures of a training in MLflow."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from vaekit.callbacks.base import Training
from vaekit.errors import ChoiceError
from vaekit.runs.configuration import State

from .base import Logger, identity, logger

TAG = "vaekit.run"
MOST = 250
"""MLflow takes parameter values of so many characters."""


@logger("mlflow")
class MLflowLogger(Logger):
    """Curves, pictures and hyper-parameters in MLflow, in the experiment `vaekit`.

    Arguments:
        where: the tracking URI, such as sqlite:///mlflow.db or http://localhost:5000; by default that of the
            environment variable MLFLOW_TRACKING_URI, else the file mlflow.db in the working directory.

    Raises:
        ChoiceError: MLflow is not installed.
    """

    def __init__(self, where: str | None = None):
        super().__init__()
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        try:
            from mlflow import MlflowClient
        except ImportError:
            raise ChoiceError("`log='mlflow'` needs MLflow: pip install 'vaekit[mlflow]'") from None
        uri = where or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
        self.client: Any = MlflowClient(tracking_uri=uri)
        self.id = ""

    def open(self, training: Training, settings: dict[str, Any]) -> None:
        """Start a run, or continue the same one."""
        experiment = self.client.get_experiment_by_name("vaekit")
        place = experiment.experiment_id if experiment else self.client.create_experiment("vaekit")
        mine = identity(training.config, training.path.name)
        known = self.client.search_runs([place], f"tags.`{TAG}` = '{mine}'")
        if known:
            self.id = known[0].info.run_id
            self.client.set_terminated(self.id, "RUNNING")
            return
        self.id = self.client.create_run(place, tags={TAG: mine}, run_name=training.path.name).info.run_id
        for name, value in settings.items():
            self.client.log_param(self.id, name, str(value)[:MOST])

    def scalars(self, step: int, figures: dict[str, float]) -> None:
        """Add a point to each curve."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self.client.log_batch(self.id, [Metric(name, value, now, step) for name, value in figures.items()])

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Add a picture."""
        self.client.log_image(self.id, image, key=name, step=step)

    def close(self, state: State) -> None:
        """End the run with the state of the training."""
        if self.id:
            ends = {"interrupted": "KILLED", "failed": "FAILED"}
            self.client.set_terminated(self.id, ends.get(state, "FINISHED"))
