"""Recipes, studies and metrics with their options, available without importing torch.

`python tools/catalogue.py` writes catalogue.json from the registers, and a test checks that both agree. Lists, help and
errors about unknown names then need no slow imports. If plug-ins are installed, the registers themselves are read.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vaekit.errors import ChoiceError
from vaekit.utils.arguments import Argument
from vaekit.utils.plugins import installed
from vaekit.utils.suggest import unknown

FILE = Path(__file__).with_name("catalogue.json")


@dataclass(frozen=True)
class Described:
    """A recipe, described without its code.

    Attributes:
        name: the name on the command line.
        function: name of the function that makes the model.
        paper: the paper to cite.
        settings: the defaults of the function that the recipe changes.
        description: a summary in the first line, then details with the equation.
        groups: the arguments by heading; "" for those before the first heading.
    """

    name: str
    function: str
    paper: str
    settings: Mapping[str, Any]
    description: str
    groups: Mapping[str, list[Argument]]

    @property
    def summary(self) -> str:
        """The first line of the description."""
        return self.description.split("\n")[0].rstrip(".")

    @property
    def arguments(self) -> list[Argument]:
        """The arguments of all groups."""
        return [argument for group in self.groups.values() for argument in group]


@dataclass(frozen=True)
class Experiment:
    """A study, described without its code: its name, its paper and its default data."""

    name: str
    paper: str
    data: str
    summary: str


@dataclass(frozen=True)
class Measure:
    """A metric, described without its code: see `vaekit.metrics.Metric`; `needs` are names."""

    name: str
    unit: str
    better: str | None
    label: str
    help: str
    default: bool
    needs: list[str]
    family: str | None = None


# --- the file ---------------------------------------------------------------------------------------------------


def written(recipes: Iterable[Any], studies: Iterable[Any], metrics: Iterable[Any]) -> dict[str, Any]:
    """The content of catalogue.json, from the registers of `vaekit.recipes`, `vaekit.studies` and `vaekit.metrics`."""
    from vaekit.data.loading import data_options as options_by_format

    data = _plain({kind: group for kind, (group, package) in options_by_format().items() if package is None})
    functions: dict[str, Any] = {}
    entries = []
    for recipe in recipes:
        function = recipe.function.__name__
        functions[function] = _plain(recipe.groups)
        entries.append(
            {
                "name": recipe.name,
                "function": function,
                "paper": recipe.paper,
                "settings": dict(recipe.settings),
                "description": recipe.description,
            }
        )
    experiments = [{"name": s.name, "paper": s.paper, "data": s.data, "summary": s.summary} for s in studies]
    measures = [_described(one) for one in metrics]
    return {"functions": functions, "recipes": entries, "studies": experiments, "metrics": measures, "data": data}


def _plain(groups: Mapping[str, Iterable[Argument]]) -> dict[str, list[dict[str, Any]]]:
    return {heading: [asdict(argument) for argument in group] for heading, group in groups.items()}


def _described(metric: Any) -> dict[str, Any]:
    plain = {name: getattr(metric, name) for name in ("name", "unit", "better", "label", "help", "default", "family")}
    return {**plain, "needs": [need.name for need in metric.needs]}


@functools.cache
def _read() -> dict[str, Any]:
    if FILE.exists() and not installed():
        return json.loads(FILE.read_text(encoding="utf8"))
    from vaekit.metrics import METRICS
    from vaekit.recipes import RECIPES
    from vaekit.studies import STUDIES

    return written(RECIPES.values(), STUDIES.values(), METRICS.values())


@functools.cache
def recipes() -> dict[str, Described]:
    """The recipes by name."""
    stored = _read()
    described = {}
    for entry in stored["recipes"]:
        settings = entry["settings"]
        groups = {
            heading: [Argument(**{**a, "default": _tuple(settings.get(a["name"], a["default"]))}) for a in group]
            for heading, group in stored["functions"][entry["function"]].items()
        }
        described[entry["name"]] = Described(**entry, groups=groups)
    return described


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@functools.cache
def studies() -> dict[str, Experiment]:
    """The studies by name."""
    return {entry["name"]: Experiment(**entry) for entry in _read()["studies"]}


@functools.cache
def metrics() -> dict[str, Measure]:
    """The metrics by name. If plug-ins are installed, they are imported and their metrics are included."""
    if installed():
        from vaekit.metrics import METRICS

        return {one.name: Measure(**_described(one)) for one in METRICS.values()}
    return {entry["name"]: Measure(**entry) for entry in _read()["metrics"]}


@functools.cache
def data_options() -> dict[str, tuple[list[Argument], str | None]]:
    """The options of reading data by format, such as "a .npz file"; the key "" holds those for all data.

    Each value also has the package whose plug-in reads that format, or None. Installed plug-ins are imported.
    """
    if installed():
        from vaekit.data.loading import data_options as registered

        return registered()
    return {kind: ([Argument(**one) for one in group], None) for kind, group in _read()["data"].items()}


def recipe(name: str) -> Described:
    """The recipe with this name.

    Raises:
        ChoiceError: there is no such recipe.
    """
    if name not in recipes():
        raise ChoiceError(unknown("recipe", name, sorted(recipes()), 0.4))
    return recipes()[name]


def study(name: str) -> Experiment:
    """The study with this name.

    Raises:
        ChoiceError: there is no such study.
    """
    if name not in studies():
        raise ChoiceError(unknown("study", name, studies(), 0.4))
    return studies()[name]
