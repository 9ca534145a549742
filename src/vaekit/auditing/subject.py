"""A VAE of any author behind one face: its posterior and its reconstruction can be set to chosen values.

The experiments call the loss while `encode` returns a chosen mean and spread, and `decode` a chosen output. The loss is
then a known function of them, whatever its code looks like.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from vaekit.errors import ChoiceError
from vaekit.utils.isolation import seeded

Spread = Literal["log_variance", "std", "variance", "log_std"]
MEANS = ("mu", "mean", "loc", "embedding", "z_mean")
SPREADS: dict[str, Spread] = {
    "logvar": "log_variance",
    "log_var": "log_variance",
    "log_variance": "log_variance",
    "log_covariance": "log_variance",
    "log_std": "log_std",
    "std": "std",
    "sigma": "std",
    "scale": "std",
    "var": "variance",
    "variance": "variance",
}
TOTALS = ("loss", "total_loss", "total", "elbo_loss")


def from_file(where: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Import FILE.py:Class, and call the class with the arguments. This runs the file's code.

    Raises:
        ChoiceError: there is no such file or class, or it cannot be made into a module.
    """
    name, colon, attribute = where.rpartition(":")
    path = Path(name).expanduser()
    if not colon or not path.is_file():
        raise ChoiceError(f"{where!r} is not FILE.py:Class with an existing file, such as model.py:VAE")
    spec = importlib.util.spec_from_file_location(f"audited_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    made = getattr(module, attribute, None)
    if made is None:
        raise ChoiceError(f"{path} has no {attribute!r}")
    try:
        made = made if isinstance(made, nn.Module) else made(**arguments)
    except TypeError as error:
        raise ChoiceError(f"{attribute} cannot be made: {error}; give its arguments with --arg NAME=VALUE") from None
    if not isinstance(made, nn.Module):
        raise ChoiceError(f"{where} is no torch module, but {type(made).__name__}")
    return made


class Subject:
    """The module under audit.

    Arguments:
        module: the module.
        encode, decode, loss: names of its methods or submodules; dots go into submodules.
        key: the key of a dict in which the loss expects x; "" if it takes x itself.
        spread: what encode returns beside the mean; by default by its name, else the logarithm of the variance.
    """

    def __init__(
        self, module: nn.Module, *, encode: str = "encode", decode: str = "decode", loss: str = "loss", key: str = "",
        spread: Spread | None = None,
    ):  # fmt: skip
        self.module, self.names, self.key, self.spread = module, (encode, decode, loss), key, spread
        self.encode, self.decode = self.find(encode), self.find(decode)
        self._loss = self.find(loss)

    def find(self, name: str) -> Callable[..., Any]:
        """The method or submodule of this name. Raises ChoiceError if there is none."""
        found: Any = self.module
        for part in name.split("."):
            found = getattr(found, part, None)
        if not callable(found):
            raise ChoiceError(f"the module has no method {name!r}: name its methods with `encode`, `decode` and `loss`")
        return cast(Callable[..., Any], found)

    def terms(self, x: Tensor) -> dict[str, Tensor]:
        """The loss as `total`, and its named or numbered parts, for a batch x."""
        out = self._loss({self.key: x} if self.key else x)
        if isinstance(out, Mapping):
            named = {str(k): v for k, v in out.items() if isinstance(v, Tensor) and v.dim() == 0}
        elif isinstance(out, tuple | list):
            named = {f"part {i}": v for i, v in enumerate(out) if isinstance(v, Tensor) and v.dim() == 0}
        elif isinstance(out, Tensor):
            named = {"loss": out.mean() if out.dim() else out}
        else:
            named = {k: v for k, v in vars(out).items() if isinstance(v, Tensor) and v.dim() == 0}
        total = next((named[name] for name in TOTALS if name in named), next(iter(named.values()), None))
        if total is None:
            raise ChoiceError(
                f"{self.names[2]} returns no number: it must return the loss, alone or in a dict or tuple"
            )
        return {"total": total, **{name: v for name, v in named.items() if v is not total}}

    def posterior(self, out: Any) -> tuple[Any, Any]:
        """The keys of mean and spread in the output of encode."""
        if isinstance(out, Mapping):
            mean = next((k for k in out if k in MEANS), None)
            spread = next((k for k in out if k in SPREADS), None)
            if spread is not None and self.spread is None:
                self.spread = SPREADS[spread]
        elif isinstance(out, tuple | list) and len(out) >= 2:
            mean, spread = len(out) - 2, len(out) - 1  # (mean, spread) or (z, mean, spread)
        else:
            mean = spread = None
        if mean is None or spread is None:
            raise ChoiceError(f"{self.names[0]} must return mean and spread: a pair, or a dict such as mu and logvar")
        self.spread = self.spread or "log_variance"
        return mean, spread

    def read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the posterior of x, (B, L) each."""
        out = self.encode(x)
        mean, spread = self.posterior(out)
        return out[mean], self.deviation(out[spread])

    def deviation(self, spread: Tensor) -> Tensor:
        """The standard deviation that this spread stands for."""
        kind = self.spread or "log_variance"
        return {"log_variance": lambda s: torch.exp(s / 2), "std": lambda s: s, "variance": torch.sqrt,
                "log_std": torch.exp}[kind](spread)  # fmt: skip

    def spread_of(self, deviation: float) -> float:
        """The spread that stands for a standard deviation."""
        kind = self.spread or "log_variance"
        return {"log_variance": 2 * math.log(deviation), "std": deviation, "variance": deviation**2,
                "log_std": math.log(deviation)}[kind]  # fmt: skip

    def decoded(self, z: Tensor) -> Tensor:
        """The output of decode for codes z, as a tensor."""
        out = self.decode(z)
        return out if isinstance(out, Tensor) else next(v for v in _values(out) if isinstance(v, Tensor))

    @contextlib.contextmanager
    def fixed(
        self, mean: Tensor | None = None, spread: Tensor | None = None, output: Tensor | None = None
    ) -> Iterator[list[Tensor]]:
        """Within this context encode and decode return these values; yields the codes that decode is called with."""
        seen: list[Tensor] = []

        def encoded(out: Any) -> Any:
            if mean is None or spread is None:
                return out
            at, of = self.posterior(out)
            return _replaced(_replaced(out, at, mean), of, spread)

        def decoded(out: Any, z: Tensor) -> Any:
            seen.append(z)
            if output is None:
                return out
            if isinstance(out, Tensor):
                return output + 0 * z.sum()
            key = next(k for k, v in _items(out) if isinstance(v, Tensor))
            return _replaced(out, key, output + 0 * z.sum())

        with contextlib.ExitStack() as undo:
            self._wrap(self.names[0], lambda call: lambda *a, **k: encoded(call(*a, **k)), undo)
            self._wrap(self.names[1], lambda call: lambda *a, **k: decoded(call(*a, **k), a[0]), undo)
            yield seen

    def _wrap(self, name: str, wrapper: Callable[[Any], Any], undo: contextlib.ExitStack) -> None:
        """Replace a method, or the forward of a submodule, until `undo` closes."""
        *path, last = name.split(".")
        owner: Any = self.module
        for part in path:
            owner = getattr(owner, part)
        found = getattr(owner, last)
        if isinstance(found, nn.Module):
            owner, last, found = found, "forward", found.forward
        before = owner.__dict__.get(last)
        owner.__dict__[last] = wrapper(found)

        def restore() -> None:
            if before is None:
                del owner.__dict__[last]
            else:
                owner.__dict__[last] = before

        undo.callback(restore)

    def measured(self, x: Tensor, *, seed: int = 0, **fixed: Tensor | None) -> tuple[dict[str, float], list[Tensor]]:
        """The terms of the loss of x as numbers, with these fixed values, and the codes that were decoded."""
        with self.fixed(**fixed) as seen, seeded(seed), torch.no_grad():
            terms = self.terms(x)
        return {name: float(value) for name, value in terms.items()}, seen


def _items(out: Any) -> Iterator[tuple[Any, Any]]:
    return iter(out.items() if isinstance(out, Mapping) else enumerate(out))


def _values(out: Any) -> Iterator[Any]:
    return (value for _, value in _items(out))


def _replaced(out: Any, key: Any, value: Tensor) -> Any:
    """The output of a method with one entry replaced, in the same kind of container."""
    if isinstance(out, tuple):
        return tuple(value if i == key else old for i, old in enumerate(out))
    if isinstance(out, list):
        return [value if i == key else old for i, old in enumerate(out)]
    changed = type(out)(out)
    changed[key] = value
    return changed
