"""ONNX translations of operators for which torch's exporter has none."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

SHIFT = 8
"""Smaller arguments are increased by this number, so that Stirling's series is exact in float32."""


def table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The translations for torch.onnx, by operator of torch."""
    from onnxscript import opset18

    op: Any = opset18

    def lgamma(x: Any) -> Any:
        """log Gamma(x) for x > 0; for small x, log Gamma(y) - log(x (x + 1) .. (x + 7)) with y = x + 8.

        Stirling's series at y >= 8, up to y^-7: the next term is 6e-12.
        """

        def number(value: float) -> Any:
            return op.CastLike(op.Constant(value_float=value), x)

        def plus(a: Any, value: float) -> Any:
            return op.Add(a, number(value))

        small = op.Min(x, number(SHIFT))
        product = small
        for i in range(1, SHIFT):
            product = op.Mul(product, plus(small, i))
        is_small = op.Less(x, number(SHIFT))
        y = op.Where(is_small, plus(x, SHIFT), x)
        below = op.Where(is_small, op.Log(product), number(0.0))
        inverse = op.Reciprocal(y)
        square = op.Mul(inverse, inverse)
        series = number(-1 / 1680)
        for coefficient in (1 / 1260, -1 / 360, 1 / 12):
            series = plus(op.Mul(series, square), coefficient)
        bulk = op.Sub(op.Mul(plus(y, -0.5), op.Log(y)), y)
        whole = plus(op.Add(bulk, op.Mul(series, inverse)), math.log(2 * math.pi) / 2)
        return op.Sub(whole, below)

    def distances(a: Any, b: Any, p: float, mode: Any) -> Any:
        """Euclidean distances (..., n, m) of vectors (..., n, d) and (..., m, d), by their differences."""
        apart = op.Sub(op.Unsqueeze(a, [-2]), op.Unsqueeze(b, [-3]))
        return op.Sqrt(op.ReduceSum(op.Mul(apart, apart), [-1], keepdims=False))

    return {torch.ops.aten.lgamma.default: lgamma, torch.ops.aten._cdist_forward.default: distances}
