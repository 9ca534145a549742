"""Options of commands as parameters of functions, and names of Python arguments as flags."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import types
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from cyclopts import CoercionError, Group, Parameter, Token

SplitName = Literal["train", "valid", "test"]
N = Parameter(name=("-n", "--n"))
FLAG = Parameter(negative="")
Flag = Annotated[bool, FLAG]

# options of several commands, with their help
RunFolder = Annotated[str, Parameter(help="The run directory, or hf://user/name[@revision] of the Hugging Face hub.")]
NewSource = Annotated[
    str | None,
    Parameter(name="NEW", help="Name or path of new data, such as a file or one image; by default the run's own."),
]
OwnData = Annotated[str | None, Parameter(help="Name or path of the run's data, if they have moved.")]
Bare = Annotated[bool, FLAG, Parameter(help="Write only the pictures, without labels and not enlarged.")]
DrawX = Annotated[bool, FLAG, Parameter(help="Draw x from p(x|z) instead of using its mean.")]
DrawOrMean = Annotated[
    bool | None,
    Parameter(
        negative="--mean",
        help="Draw x from p(x|z), or use its mean; by default draws for tables and counts, means for images and "
        "signals.",
    ),
]
DrawZ = Annotated[bool, FLAG, Parameter(help="Draw z from q(z|x) instead of using its mean.")]
Seed = Annotated[int, Parameter(help="Seed of the draws.")]
Device = Annotated[str, Parameter(help="auto, cpu, cuda or mps.")]
Split = Annotated[
    SplitName | None,
    Parameter(help="Split to use; by default test for the run's own data, and all rows of other data."),
]
First = Annotated[int | None, N, Parameter(help="Use only the first N examples; by default all.")]
Labels = Annotated[
    str | None,
    Parameter(
        help="For a conditional run and new data, the column with their classes, or one class (or attributes a,b,c) "
        "for all. If class names are numbers, a number is a name; otherwise it is a class code 0, 1, ..."
    ),
]
Described = Annotated[
    str | None, Parameter(help=".csv or .parquet with a column `file` that describes a folder of new images.")
]


def option(
    name: str,
    hint: Any,
    default: Any,
    help: str,
    group: Group,
    *,
    show_default: bool | None = None,
    flag: str | None = None,
    show: bool = True,
) -> inspect.Parameter:
    """A keyword-only parameter for `--name` (or `flag`). A Literal ignores case; a tuple accepts several values."""
    plain = _not_none(hint)
    choices = {"help": help, "group": group, "show_default": show_default, "show": show}
    if flag is not None:
        choices["name"] = flag
    if plain is int:
        choices["converter"] = whole
    elif get_origin(plain) is Literal:
        choices["converter"] = _any_case
    elif get_origin(plain) is tuple:
        choices |= {"converter": _numbers, "consume_multiple": True, "n_tokens": 1}
    annotation = Annotated[hint, Parameter(**choices)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def exact(function: Callable[..., Any]) -> None:
    """Make the integer options of a command reject fractions, which cyclopts would round."""
    for name, hint in get_type_hints(function, include_extras=True).items():
        bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if _not_none(bare) is int:
            function.__annotations__[name] = Annotated[hint, Parameter(converter=whole)]


def described(function: Callable[..., Any], name: str, text: str) -> None:
    """Replace the help of a parameter of a command."""
    function.__annotations__[name] = Annotated[
        get_type_hints(function, include_extras=True)[name], Parameter(help=text)
    ]


def whole(hint: Any, tokens: Sequence[Token]) -> int:
    """The whole number in the first token. Raises ValueError for any other text."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"expected a whole number, got {tokens[0].value!r}") from None


def choice(names: Sequence[str]) -> Any:
    """A Literal of these names."""
    return Literal[tuple(names)]


def _not_none(hint: Any) -> Any:
    """T of `T | None`."""
    if get_origin(hint) in (Union, types.UnionType):
        left = [a for a in get_args(hint) if a is not type(None)]
        return left[0] if len(left) == 1 else hint
    return hint


def _any_case(hint: Any, tokens: Sequence[Token]) -> Any:
    hint = _not_none(hint)
    for known in get_args(hint):
        if str(known).lower() == tokens[0].value.lower():
            return known
    raise CoercionError(token=tokens[0], target_type=hint)


def _numbers(hint: Any, tokens: Sequence[Token]) -> tuple[Any, ...]:
    """A tuple of numbers, from `300 300` or `300,300`."""
    kind = get_args(_not_none(hint))[0]
    words = [word for token in tokens for word in token.value.split(",") if word]
    try:
        return tuple(kind(word) for word in words)
    except ValueError:
        wanted = "whole numbers" if kind is int else "numbers" if kind is float else f"values of type {kind.__name__}"
        raise ValueError(
            f"expected {wanted} such as 300 300 or 300,300, got {' '.join(words)!r}; write DATA before the options"
        ) from None


def split(named: Mapping[str, Any], *names: Sequence[str]) -> list[dict[str, Any]]:
    """`named`, split by these groups of names; the last group holds the rest."""
    groups = [{n: named[n] for n in group if n in named} for group in names]
    grouped = {n for group in groups for n in group}
    return [*groups, {n: v for n, v in named.items() if n not in grouped}]


ARGUMENT = re.compile(r"`([a-z][a-z0-9_]*)(?:=([^`]*))?`")
"""An argument in a message of the library: `beta`, or with a value `likelihood='gaussian'`."""
CALL = re.compile(r"`(vk\.\w+\([^`]*\))`")
"""A call in a message of the library: `vk.fit('wine.csv')`."""


def as_flags(text: str, known: Container[str]) -> str:
    """Replace the Python arguments in a message of the library by flags, if their names are in `known`, and calls.

    `beta` becomes --beta, `likelihood='gaussian'` --likelihood gaussian, `hidden=[300, 300]` --hidden 300 300,
    `skip_bad=True` --skip-bad, `direct=False` --no-direct and `types={'age': 'counts'}` --types age=counts. The call
    `vk.fit(DATA, out='runs/a')` becomes the command `vaekit fit DATA --out runs/a`.
    """

    def flag(match: re.Match[str]) -> str:
        name, value = match.groups()
        if name not in known:
            return match.group()
        return _dashed(name) if value is None else _with_value(_dashed(name), value)

    return ARGUMENT.sub(flag, CALL.sub(_as_command, text))


def _as_command(match: re.Match[str]) -> str:
    """The command for a call in Python with values and placeholders such as DATA; a call with variables is left."""
    call = ast.parse(match[1], mode="eval").body
    assert isinstance(call, ast.Call)
    if any(isinstance(a, ast.Name) and not a.id.isupper() for a in call.args):
        return match.group()
    words = ["vaekit", ast.unparse(call.func).removeprefix("vk.")]
    words += [a.id if isinstance(a, ast.Name) else shlex.quote(str(ast.literal_eval(a))) for a in call.args]
    words += [_with_value(_dashed(str(k.arg)), ast.unparse(k.value)) for k in call.keywords]
    return f"`{' '.join(words)}`"


def _dashed(name: str) -> str:
    """The flag of an argument."""
    return f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"


def _with_value(flag: str, written: str) -> str:
    try:
        value = ast.literal_eval(written)
    except (ValueError, SyntaxError):
        return f"{flag} {written}"  # a placeholder such as PATH
    if isinstance(value, bool):
        return flag if value else f"--no-{flag.removeprefix('--')}"
    if isinstance(value, dict):
        value = ",".join(f"{key}={one}" for key, one in value.items())
    parts = value if isinstance(value, list | tuple) else [value]
    return " ".join([flag, *(shlex.quote(str(part)) for part in parts)])
