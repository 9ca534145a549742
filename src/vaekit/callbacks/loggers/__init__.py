"""Loggers: the figures and pictures of a training in other tools, by name."""

from .base import LOGGERS, Logger, logger, loggers_of
from .csv_file import CSVLogger
from .mlflow_store import MLflowLogger
from .tensorboard_events import TensorBoardLogger
from .weights_and_biases import WandbLogger

__all__ = [
    "LOGGERS",
    "CSVLogger",
    "Logger",
    "MLflowLogger",
    "TensorBoardLogger",
    "WandbLogger",
    "logger",
    "loggers_of",
]
