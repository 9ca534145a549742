"""Plug-ins: modules of other packages that register parts, metrics or studies when they are imported.

A package names such a module in its pyproject.toml, under any name:

    [project.entry-points."vaekit.parts"]
    mine = "my_package.parts"
"""

from __future__ import annotations

import functools
import warnings
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points

GROUP = "vaekit.parts"


@functools.cache
def installed() -> tuple[EntryPoint, ...]:
    """The entry points of all installed plug-ins, which are not imported."""
    return tuple(entry_points(group=GROUP))


class PluginWarning(UserWarning):
    """A plug-in is left out because it cannot be imported."""


def load_plugins() -> None:
    """Import every installed plug-in, once. One that cannot be imported is left out with a warning that names it.

    A register calls this before it is read; a plug-in may read registers while it is imported.
    """
    for entry in installed():
        if entry in _begun:
            continue
        _begun.add(entry)
        try:
            entry.load()
        except Exception as error:  # another package may raise anything when it is imported
            _failed[_package(entry)] = f"{type(error).__name__}: {error}"
            warnings.warn(
                f"the plug-in {entry.value} of the package {_package(entry)} is left out, because it could not be "
                f"imported: {type(error).__name__}: {error}",
                PluginWarning,
                stacklevel=2,
            )


_begun: set[EntryPoint] = set()
_failed: dict[str, str] = {}


def package_of(module: str) -> str | None:
    """The installed package whose plug-in a module belongs to; None for modules of vaekit and of the user."""
    root = module.partition(".")[0]
    return next((_package(entry) for entry in installed() if entry.module.partition(".")[0] == root), None)


def why_absent(package: str) -> str | None:
    """Why the parts that a package registers are unavailable, and a remedy; None if its plug-in is loaded."""
    load_plugins()
    if package in _failed:
        return f"the package {package} could not be imported ({_failed[package]}): repair or reinstall it"
    try:
        distribution(package)
    except PackageNotFoundError:
        return f"the package {package} is not installed: `pip install {package}`"
    return None


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.module.partition(".")[0]
