"""A VAE of any author behind one face: its posterior and its reconstruction can be set to chosen values.

The experiments call the loss while `encode` returns a chosen mean and spread, and `decode` a chosen output. The loss is
then a known function of them, whatever its code looks like.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from vaekit.errors import ChoiceError
from vaekit.utils.isolation import seeded

Spread = Literal["log_variance", "std", "variance", "log_std"]
Fixed = float | Tensor | None
"""One value for every latent, or a value of each latent."""
Output = float | Callable[[Tensor], Tensor] | None
"""One value for every element of x, or a function of the codes (B, L)."""
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
TOTALS = (
    "loss",
    "total_loss",
    "loss_total",
    "total",
    "objective",
    "train_loss",
    "nelbo",
    "neg_elbo",
    "elbo_loss",
    "elbo",
)


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
        raise ChoiceError(f"{attribute} cannot be made: {error}; give its arguments by `arg`") from None
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

    Attributes:
        guessed: whether the kind of spread is only a guess.
        encoded: how often the loss has called encode, the last time that it was called.
        sign: -1 if what the loss returns is to be maximised.
    """

    def __init__(
        self, module: nn.Module, *, encode: str = "encode", decode: str = "decode", loss: str = "loss", key: str = "",
        spread: Spread | None = None,
    ):  # fmt: skip
        self.module, self.names, self.key, self.spread = module, (encode, decode, loss), key, spread
        self.encode, self.decode = self.find(encode), self.find(decode)
        self.guessed, self.sign, self.encoded = False, 1.0, 0
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
        """The loss as `total`, to be minimised, and its named or numbered parts, for a batch x.

        Values of each datum (B,) are averaged.
        """
        out = self._loss(*self._arguments(x))
        if isinstance(out, Mapping):
            named = {str(k): v for k, v in out.items()}
        elif isinstance(out, tuple | list):
            named = {f"part {i}": v for i, v in enumerate(out)}
        elif isinstance(out, Tensor | int | float):
            named = {"loss": torch.as_tensor(out)}
        else:
            named = dict(vars(out))
        kept = {k: v for k, v in named.items() if isinstance(v, Tensor) and v.is_floating_point()}
        named = {k: v.mean() for k, v in kept.items() if v.dim() == 0 or v.shape in ((1,), (len(x),))}
        names = [name for name in TOTALS if name in named] or [name for name in named if name.startswith("part ")]
        if not names and len(named) != 1:
            raise ChoiceError(
                f"{self.names[2]} returns no number named {TOTALS[0]!r}, but {', '.join(map(repr, kept)) or 'none'}: "
                "it must return the loss, alone or first in a tuple or by this name in a dict"
            )
        of = (names or list(named))[0]
        return {"total": self.sign * named[of], **{name: v for name, v in named.items() if name != of}}

    def _arguments(self, x: Tensor) -> tuple[Any, ...]:
        """What the loss is called with: x, or a dict or pair with it, and the index of the batch if it takes one."""
        batch: Any = x if not self.key else {self.key: x}
        if self.key == "pair":
            batch = (x, torch.zeros(len(x), dtype=torch.long))
        loss = self._loss.forward if isinstance(self._loss, nn.Module) else self._loss
        given = list(inspect.signature(loss).parameters.values())
        arguments = (batch, 0) if len(given) > 1 and given[1].name in ("batch_idx", "batch_index") else (batch,)
        try:
            inspect.signature(loss).bind(*arguments)
        except TypeError as error:
            raise ChoiceError(
                f"{self.names[2]} must take a batch alone ({error}): write a method that does, and name it with `loss`"
            ) from None
        return arguments

    def posterior(self, out: Any) -> tuple[Any, Any]:
        """The keys of mean and spread in the output of encode."""
        if isinstance(out, Mapping):
            mean = next((k for k in out if k in MEANS), None)
            spread = next((k for k in out if k in SPREADS), None)
            if spread is not None and self.spread is None:
                self.spread = SPREADS[spread]
        elif isinstance(_normal(out), Normal):
            mean, spread, self.spread = "loc", "scale", "std"
        elif isinstance(out, tuple | list) and len(out) in (2, 3):
            mean, spread = len(out) - 2, len(out) - 1  # (mean, spread) or (z, mean, spread)
        else:
            mean = spread = None
        if mean is None or spread is None:
            raise ChoiceError(f"{self.names[0]} must return mean and spread: a pair, or a dict such as mu and logvar")
        self.guessed = self.guessed or self.spread is None
        self.spread = self.spread or "log_variance"
        return mean, spread

    def read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the posterior of x, (B, *latent) each."""
        out = self.encode(x)
        mean, spread = self.posterior(out)
        return _of(out, mean), self.deviation(_of(out, spread))

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
        """The output of decode for codes z, as a tensor.

        Raises:
            ChoiceError: decode returns no tensor, or several of one shape: their likelihood is not known.
        """
        out = self.decode(z)
        if isinstance(out, Tensor):
            return out
        if not isinstance(out, Mapping | tuple | list):
            raise ChoiceError(f"{self.names[1]} must return a tensor, not {type(out).__name__}")
        tensors = [v for _, v in _items(out) if isinstance(v, Tensor)]
        if not tensors or any(t.shape == tensors[0].shape for t in tensors[1:]):
            raise ChoiceError(f"{self.names[1]} returns {len(tensors)} tensors of the shape of x: one can be audited")
        return tensors[0]

    @contextlib.contextmanager
    def fixed(self, mean: Fixed = None, spread: Fixed = None, output: Output = None) -> Iterator[list[Tensor]]:
        """Within this context encode and decode return these values; yields the codes that decode is called with.

        Raises:
            ChoiceError: encode or decode was to return something, and was not called.
        """
        seen: list[Tensor] = []
        called: list[bool] = []

        def encoded(out: Any) -> Any:
            called.append(True)
            if mean is None or spread is None:
                return out
            at, of = self.posterior(out)
            like = _of(out, at)
            return _replaced(_replaced(out, at, _full(like, mean)), of, _full(like, spread))

        def decoded(out: Any, z: Tensor) -> Any:
            seen.append(z.detach())
            if output is None:
                return out
            key = None if isinstance(out, Tensor) else next(k for k, v in _items(out) if isinstance(v, Tensor))
            like = out if key is None else out[key]
            value = output(z.flatten(1)).reshape(like.shape) if callable(output) else torch.full_like(like, output)
            return value + 0 * z.sum() if key is None else _replaced(out, key, value + 0 * z.sum())

        with contextlib.ExitStack() as undo:
            self._wrap(self.names[0], lambda call: lambda *a, **k: encoded(call(*a, **k)), undo)
            self._wrap(self.names[1], lambda call: lambda *a, **k: decoded(call(*a, **k), (*a, *k.values())[0]), undo)
            yield seen
        self.encoded = len(called)
        for name, value, calls in ((self.names[0], mean, called), (self.names[1], output, seen)):
            if value is not None and not calls:
                raise ChoiceError(f"{self.names[2]} does not call {name}: name the method or submodule that it calls")

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

    def measured(
        self, x: Tensor, *, seed: int = 0, mean: Fixed = None, spread: Fixed = None, output: Output = None
    ) -> tuple[dict[str, float], list[Tensor]]:
        """The terms of the loss of x as numbers, with these fixed values, and the codes that were decoded."""
        with self.fixed(mean, spread, output) as seen, seeded(seed), torch.no_grad():
            terms = self.terms(x)
        return {name: float(value) for name, value in terms.items()}, seen


def _items(out: Any) -> Iterator[tuple[Any, Any]]:
    return iter(out.items() if isinstance(out, Mapping) else enumerate(out))


def _normal(out: Any) -> Any:
    """The normal distribution itself, without the marks of its event dimensions."""
    return out.base_dist if isinstance(out, Independent) else out


def _of(out: Any, key: Any) -> Tensor:
    return cast(Tensor, getattr(_normal(out), key) if isinstance(_normal(out), Normal) else out[key])


def _full(like: Tensor, value: float | Tensor) -> Tensor:
    return (
        torch.full_like(like, value)
        if isinstance(value, float | int)
        else value.reshape(like.shape[1:]).expand_as(like)
    )


def _replaced(out: Any, key: Any, value: Tensor) -> Any:
    """The output of a method with one entry replaced, in the same kind of container."""
    if isinstance(out, tuple):
        return tuple(value if i == key else old for i, old in enumerate(out))
    if isinstance(out, list):
        return [value if i == key else old for i, old in enumerate(out)]
    if isinstance(out, Independent):
        return Independent(_replaced(out.base_dist, key, value), out.reinterpreted_batch_ndims)
    if isinstance(out, Normal):
        return Normal(value, out.scale) if key == "loc" else Normal(out.loc, value)
    changed = copy.copy(out)
    changed[key] = value
    return changed
