"""JSON held against type annotations: what fits, and the words for what does not."""

import dataclasses
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
import pytest
import torch

from vaekit.errors import RunError
from vaekit.utils.allocation import BYTES, Bounded
from vaekit.utils.typed import mismatch


@dataclasses.dataclass
class Inner:
    width: int
    height: int = 3


class Outer(TypedDict):
    name: str
    size: float | None
    inner: NotRequired[Inner]
    many: NotRequired[list[int]]
    pair: NotRequired[tuple[float, float]]
    kind: NotRequired[Literal["a", "b"]]


WHOLE = {"name": "n", "size": 2, "inner": {"width": 3}, "many": [1, 2], "pair": [0, 1.5], "kind": "a", "other": None}


def test_what_fits():
    assert mismatch(WHOLE, Outer) is None
    assert mismatch({"name": "n", "size": None}, Outer) is None
    assert mismatch(np.int64(3), int) is None
    assert mismatch((1, 2), tuple[int, ...]) is None
    assert mismatch(object(), Any) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": None}, "name is null, expected text"),
        ({"size": True}, "size is True, expected a finite number or null"),
        ({"size": float("nan")}, "size is nan"),
        ({"size": 10**400}, "size is a number too large"),
        ({"inner": {"width": 1.5}}, "inner.width is 1.5, expected a whole number"),
        ({"inner": {}}, "inner.width is missing"),
        ({"inner": {"width": 1, "depth": 2}}, "inner.depth is unknown, expected one of width, height"),
        ({"many": [1, "2"]}, r"many\[1\] is '2', expected a whole number"),
        ({"many": "12"}, "many is '12', expected a list of a whole number"),
        ({"pair": [0]}, r"pair is \[0\]"),
        ({"kind": "c"}, "kind is 'c', expected one of a, b"),
        ({"kind": []}, "kind is"),
    ],
)
def test_what_does_not(change, says):
    found = mismatch(WHOLE | change, Outer)
    assert found is not None
    with pytest.raises(ValueError, match=says):
        raise ValueError(found)


def test_a_bound_on_tensors_holds_before_they_are_made():
    with Bounded(1000, "too large"):
        small = torch.nn.Linear(10, 10)
        assert small.weight.isfinite().all()
        with pytest.raises(RunError, match="too large"):
            torch.empty(10**15)  # more than any machine has
    torch.empty(BYTES)  # outside, nothing is bounded
    with pytest.raises(RunError, match="too large"), Bounded(0, "too large"):
        _ = [torch.zeros(1) for _ in range(10**9)]
