"""`vaekit recipes`, `vaekit datasets` and `vaekit metrics`: lists with one line per entry."""

from __future__ import annotations

import dataclasses
import json as jsons
from typing import TYPE_CHECKING

from vaekit.utils.wording import worded

if TYPE_CHECKING:
    from .catalogue import Measure


def recipes(*, json: bool = False) -> None:
    """List the recipes by what they are for, and which one suits which data.

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
            made = " ".join(f"--{n.replace('_', '-')} {v}" for n, v in r.settings.items())
            print(f"  {name:<{width}}  {worded(r.summary)}{f'  [{made}]' if made else ''}")
        print()
    print(
        "In brackets: the options of `vae` that a recipe sets. `vaekit fit --recipe NAME --help` explains a recipe.\n"
    )
    print("Which recipe for your data:")
    width = max(len(have) for have, _ in FITTING)
    for have, command in FITTING:
        print(f"  {have:<{width}}  {command}")


def datasets(*, json: bool = False) -> None:
    """List the data sets known by name.

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
    print("\nYour own: a folder of images, .npz, .npy, IDX (plain or .gz), .csv, .parquet")


def metrics(*, json: bool = False) -> None:
    """List the metrics that `evaluate` and `compare` take by name: unit, better direction, and what each needs.

    Parameters
    ----------
    json
        Print a list of objects {name, unit, better, label, help, default, needs} instead.
    """
    from . import catalogue
    from .output import table

    known = sorted(catalogue.metrics().values(), key=lambda one: not one.default)
    if json:
        print(jsons.dumps([dataclasses.asdict(one) for one in known], indent=1, ensure_ascii=False))
        return
    for heading, default in (("Measured by default:", True), ("Measured with --metrics NAME:", False)):
        rows = [
            (f"  {one.name}", one.unit, one.better or "", _explained(one)) for one in known if one.default is default
        ]
        print(f"{heading}\n{table([('  metric', 'unit', 'better', 'meaning'), *rows])}\n")
    print("`vaekit evaluate RUN --metrics mse knn` measures some of them; `vaekit compare RUN RUN` compares two runs.")


def _explained(metric: Measure) -> str:
    return f"{metric.help} [{', '.join(metric.needs)}]" if metric.needs else metric.help
