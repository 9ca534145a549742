"""`vaekit recipes`, `vaekit datasets` and `vaekit metrics`: lists with one line per entry."""

from __future__ import annotations

import dataclasses
import json as jsons
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

from vaekit.utils.wording import worded

if TYPE_CHECKING:
    from .catalogue import Measure

FAMILIES = {
    "likelihood": "how likely the data are under the model, and what limits the estimate",
    "latents": "how many latents are used",
    "images": "how close reconstructions are to the data",
    "samples": "how close samples are to the data",
    "codes": "how well codes separate the classes",
    "disentanglement": "whether each latent encodes one factor; every score has a 95% interval",
}
"""What the metrics of each family measure."""


def recipes(*, json: bool = False) -> None:
    """List the recipes by purpose, and which recipe suits which data.

    Parameters
    ----------
    json
        Print a list of objects {name, summary, paper, arguments} instead.
    """
    from . import catalogue

    known = sorted(catalogue.recipes().values(), key=lambda r: (r.name != "vae", r.name))
    listed = [
        {
            "name": r.name,
            "summary": r.summary,
            "paper": r.paper,
            "arguments": [dataclasses.asdict(a) for a in r.arguments],
        }
        for r in known
    ]
    if json:
        print(jsons.dumps(listed, indent=1, ensure_ascii=False))
        return
    from .guide import FITTING, PURPOSES

    by_name = {r.name: r for r in known}
    width = max(map(len, by_name))
    listed_names = {name for names in PURPOSES.values() for name in names}
    more = tuple(name for name in by_name if name not in listed_names)
    for purpose, names in {**PURPOSES, **({"Of plug-ins": more} if more else {})}.items():
        print(purpose)
        for name in names:
            r = by_name[name]
            settings = " ".join(f"--{n.replace('_', '-')} {v}" for n, v in r.settings.items())
            print(f"  {name:<{width}}  {worded(r.summary)}{f'  [{settings}]' if settings else ''}")
        print()
    print(
        "Brackets show the options of `vae` that a recipe sets. `vaekit fit --recipe NAME --help` explains a recipe.\n"
    )
    print("Which recipe for your data:")
    width = max(len(situation) for situation, _ in FITTING)
    for situation, command in FITTING:
        print(f"  {situation:<{width}}  {command}")


def datasets(*, json: bool = False) -> None:
    """List the data sets that vaekit loads by name.

    Parameters
    ----------
    json
        Print a list of objects {name, summary, paper, arguments} instead.
    """
    from vaekit.data import datasets as known

    listed = known()
    if json:
        print(jsons.dumps(listed, indent=1, ensure_ascii=False))
        return
    width = max(len(one["name"]) for one in listed)
    for one in listed:
        print(f"{one['name']:<{width}}  {one['summary']}  [{one['paper']}]")
    print(
        "\nYour own data: the path of a folder of images, or of a .npz, .npy, IDX (plain or .gz), .csv or .parquet file"
    )


def metrics(*, json: bool = False) -> None:
    """List the metrics of `evaluate` and `compare`: unit, better direction, meaning and requirements.

    Parameters
    ----------
    json
        Print a list of objects {name, unit, better, label, help, default, needs, family}
        instead.
    """
    from . import catalogue

    known = sorted(catalogue.metrics().values(), key=lambda one: not one.default)
    if json:
        print(jsons.dumps([dataclasses.asdict(one) for one in known], indent=1, ensure_ascii=False))
        return
    families: dict[str | None, list[Measure]] = {}
    for one in catalogue.metrics().values():
        families.setdefault(one.family, []).append(one)
    for family, members in sorted(families.items(), key=lambda item: item[0] is None):
        print(f"{_family(family, members)}\n")
    print(
        "* is measured by default. `vaekit evaluate RUN --metrics mse knn` measures these two, `--metrics samples`\n"
        "the metrics of this family that apply. Brackets show what a metric or a family requires.\n"
        "`vaekit compare RUN RUN ...` compares runs."
    )


def _family(family: str | None, members: list[Measure]) -> str:
    """The metrics of a family under their heading; on a terminal, long lines are broken."""
    from .output import table

    shared = [need for need in members[0].needs if all(need in one.needs for one in members)]
    heading = f"{family}: {FAMILIES[family]}" if family in FAMILIES else family or "measured by their own names only"
    if shared and len(members) > 1:
        heading += f" [{', '.join(shared)}]"
    rows = [
        (f"{'*' if one.default else ' '} {one.name}", one.unit, one.better or "", _explained(one, shared))
        for one in members
    ]
    lines = table([("  metric", "unit", "better", "meaning"), *rows]).splitlines()
    if sys.stdout.isatty():
        indent = " " * lines[0].index("meaning")
        width = max(shutil.get_terminal_size().columns, len(indent) + 30)
        lines = [part for line in lines for part in textwrap.wrap(line, width, subsequent_indent=indent)]
    return "\n".join([heading, *lines])


def _explained(metric: Measure, shared: list[str]) -> str:
    """The meaning of a metric and what it requires besides what its whole family does."""
    own = [need for need in metric.needs if need not in shared]
    return f"{metric.help} [{', '.join(own)}]" if own else metric.help
