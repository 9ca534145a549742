"""ONNX translations of operators for which torch's exporter has none, or a wrong one for some numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

SHIFT = 8
"""Smaller arguments are increased by this number, so that Stirling's series is exact in float32."""

LARGEST = 3.4e38
"""Maxima beyond are replaced by it, so that infinite terms are not subtracted from each other."""


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

    def log_sigmoid(x: Any) -> Any:
        """log s(x) = min(x, 0) - log(1 + e^-|x|); the exporter's log(s(x)) is -inf below about -88."""
        zero = op.CastLike(op.Constant(value_float=0.0), x)
        one = op.CastLike(op.Constant(value_float=1.0), x)
        return op.Sub(op.Min(x, zero), op.Log(op.Add(one, op.Exp(op.Neg(op.Abs(x))))))

    def expm1(x: Any) -> Any:
        """e^x - 1 = tanh(x / 2) (e^x + 1), without cancellation near 0."""
        half = op.CastLike(op.Constant(value_float=0.5), x)
        one = op.CastLike(op.Constant(value_float=1.0), x)
        return op.Mul(op.Tanh(op.Mul(x, half)), op.Add(op.Exp(x), one))

    def logsumexp(x: Any, dim: Any, keepdim: bool = False) -> Any:
        """max + log sum exp(x - max); onnxruntime's own is -inf if the first of very negative terms is -inf."""
        top = op.ReduceMax(x, dim, keepdims=True)
        low, high = (op.CastLike(op.Constant(value_float=sign * LARGEST), x) for sign in (-1, 1))
        top = op.Max(op.Min(top, high), low)
        rest = op.Log(op.ReduceSum(op.Exp(op.Sub(x, top)), dim, keepdims=keepdim))
        return op.Add(rest, top if keepdim else op.Squeeze(top, dim))

    return {
        torch.ops.aten.lgamma.default: lgamma,
        torch.ops.aten._cdist_forward.default: distances,
        torch.ops.aten.log_sigmoid.default: log_sigmoid,
        torch.ops.aten.expm1.default: expm1,
        torch.ops.aten.logsumexp.default: logsumexp,
    }
