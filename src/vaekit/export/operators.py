"""Operators that torch's exporter has no ONNX for, written in ONNX's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def table() -> dict[Callable[..., Any], Callable[..., Any]]:
    return {}
