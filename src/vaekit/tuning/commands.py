"""The commands that continue a sweep, and that train one of its trials again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vaekit.metrics import METRICS
from vaekit.report.about import shown_path

from .records import Settings


def fitting(settings: Settings, arguments: Mapping[str, Any], out: str) -> str:
    """The `vaekit fit` command with these arguments, on the data of a sweep."""
    named = {"recipe": settings["recipe"], **settings["data"]["options"], **arguments, "out": out}
    return _command("fit", settings, named)


def continuing(settings: Settings, path: Path, trials: int) -> str:
    """The `vaekit tune` command that continues a sweep up to a number of trials."""
    over = ",".join(f"{name}={text}" for name, text in settings["over"].items())
    judged = [
        f"{one['name']}:{one['better']}" if METRICS[one["name"]].better is None else one["name"]
        for one in settings["metrics"]
    ]
    named = {"recipe": settings["recipe"], "over": over, **settings["data"]["options"], **settings["choices"],
             **settings["training"], "metrics": judged, "prune": None if settings["prune"] else False,
             "trials": trials, "out": shown_path(path)}  # fmt: skip
    return _command("tune", settings, named)


def _command(name: str, settings: Settings, named: Mapping[str, Any]) -> str:
    words = ["vaekit", name, shlex.quote(str(settings["data"]["source"] or "DATA"))]
    for option, value in named.items():
        words += _flag(option, value)
    return " ".join(words)


def _flag(name: str, value: Any) -> Iterator[str]:
    """An argument as the words of a command."""
    flag = name.replace("_", "-")
    if value is None:
        return
    if isinstance(value, bool):
        yield f"--{'' if value else 'no-'}{flag}"
        return
    if isinstance(value, Mapping):
        value = ",".join(f"{key}={one}" for key, one in value.items())
    yield f"--{flag}"
    for part in value if isinstance(value, list | tuple) else [value]:
        yield shlex.quote(repr(part) if isinstance(part, float) else str(part))
