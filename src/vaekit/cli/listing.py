"""`vaekit recipes`, `vaekit datasets` and `vaekit metrics`: lists with one line per entry."""

from __future__ import annotations

import dataclasses
import json as jsons
from typing import TYPE_CHECKING

from vaekit.utils.wording import worded

if TYPE_CHECKING:
    from .catalogue import Measure


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
    from .output import table

    known = sorted(catalogue.metrics().values(), key=lambda one: not one.default)
    if json:
        print(jsons.dumps([dataclasses.asdict(one) for one in known], indent=1, ensure_ascii=False))
        return
    families = ", ".join(dict.fromkeys(one.family for one in known if one.family is not None))
    for heading, default in (("Measured by default:", True), ("Measured with --metrics NAME:", False)):
        rows = [
            (f"  {one.name}", one.unit, one.better or "", _explained(one)) for one in known if one.default is default
        ]
        print(f"{heading}\n{table([('  metric', 'unit', 'better', 'meaning'), *rows])}\n")
    print(
        "Brackets show what a metric requires. `vaekit evaluate RUN --metrics mse knn` measures these two;\n"
        f"the name of a family ({families}) stands for those of its metrics that apply;\n"
        "`vaekit compare RUN RUN ...` compares runs."
    )


def _explained(metric: Measure) -> str:
    return f"{metric.help} [{', '.join(metric.needs)}]" if metric.needs else metric.help
