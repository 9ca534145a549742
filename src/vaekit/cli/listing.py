"""`vaekit recipes` and `vaekit datasets`: what there is, one line each."""

from __future__ import annotations

import dataclasses
import json as jsons
import textwrap
from typing import Any


def recipes(*, json: bool = False) -> None:
    """List the recipes and their options.

    Parameters
    ----------
    json
        Print a list of objects {name, summary, paper, arguments} instead.
    """
    from vaekit.recipes import RECIPES

    known = sorted(RECIPES.values(), key=lambda r: (r.name != "vae", r.name))
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
    _print(listed, [" ".join(f"--{a.name.replace('_', '-')}" for a in r.arguments) for r in known])
    print("\nvaekit fit DATA --recipe NAME --help explains a recipe's options")


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
    _print(listed, ["" for _ in listed])
    print("\nYour own: a folder of images, .npz, .npy, IDX (plain or .gz), .csv, .parquet")


def _print(listed: list[dict[str, Any]], options: list[str]) -> None:
    width = max(len(one["name"]) for one in listed)
    for one, more in zip(listed, options, strict=True):
        print(f"{one['name']:<{width}}  {one['summary']}")
        print(f"{'':<{width}}  {one['paper']}")
        for line in textwrap.wrap(more, 100, break_on_hyphens=False):
            print(f"{'':<{width}}  {line}")
