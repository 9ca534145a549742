"""Callbacks: what is told of a training's events, and loggers that send them to other tools."""

from .base import Callback, Callbacks, Terms, Training

__all__ = ["Callback", "Callbacks", "Terms", "Training"]
