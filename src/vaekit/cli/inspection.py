"""`vaekit audit`: find faults of anybody's VAE in torch by experiments on its methods."""

from __future__ import annotations

import ast
import json as jsons
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from vaekit.errors import ChoiceError
from vaekit.utils.wording import worded

from .parameters import Flag


def audit(
    file: Annotated[str, Parameter(help="FILE.py:Class, a torch module; its file is run.")],
    /,
    *,
    shape: str | None = None,
    arg: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    data: str | None = None,
    encode: str = "encode",
    decode: str = "decode",
    loss: str = "loss",
    score: str = "",
    key: str = "",
    spread: Literal["log_variance", "std", "variance", "log_std"] | None = None,
    weight: float = 1.0,
    json: Flag = False,
) -> int:
    """Find faults of a VAE of any author by experiments on its methods.

    This runs the code of FILE.py, because you ask for it; no other command of vaekit imports a file.
    The module is made, its methods are called, and nothing is trained. Exit status 1 if a fault is found.

    Parameters
    ----------
    shape
        Shape of one datum, such as 1,28,28.
    arg
        Arguments of the class, such as latent_dim=10.
    data
        Name or path of data; by default random numbers in [0, 1].
    encode
        Its method or submodule that returns mean and spread, as a pair or by name.
    decode
        Its method or submodule that returns the mean or logits of x.
    loss
        Its method that takes x and returns the loss, alone or with its parts. `forward` is a method, too.
    score
        Its method that returns log p(x); names with nll or neg are its negative.
    key
        Key of the dict that the loss takes in place of x, such as data; pair for a pair of x and a label.
    spread
        What encode returns beside the mean; by default by its name, else the logarithm of the variance.
    weight
        The weight of the KL that is meant; one that the module holds as `beta` is right, too.
    json
        Print an object of JSON instead of lines.
    """
    from vaekit.auditing import audit as audited
    from vaekit.auditing import from_file

    x, sizes = None, None
    if data is not None:
        import numpy as np

        from .fit import load

        loaded = load(data)
        x = np.ascontiguousarray(loaded.events(loaded.train[:16]), np.float32)
        x = (x - loaded.scale[0]) / max(loaded.scale[1] - loaded.scale[0], 1e-12) if loaded.kind == "image" else x
    if shape is not None:
        try:
            sizes = tuple(int(part) for part in shape.split(","))
        except ValueError:
            raise ChoiceError(f"--shape must be whole numbers such as 1,28,28, got {shape!r}") from None
        x = None if x is None else x.reshape(len(x), *sizes)
    found = audited(
        from_file(file, dict(_argument(one) for one in arg)), x, shape=sizes, encode=encode, decode=decode, loss=loss,
        score=score, key=key, spread=spread, beta=weight,
    )  # fmt: skip
    print(jsons.dumps(found.as_json(), indent=1, ensure_ascii=False) if json else worded(str(found)))
    return 1 if found.faults else 0


def _argument(text: str) -> tuple[str, Any]:
    """NAME=VALUE, with a value of Python or a text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ChoiceError(f"--arg must be NAME=VALUE, such as latent_dim=10, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
