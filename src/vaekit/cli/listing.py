"""`vaekit recipes` and `vaekit datasets`: what there is, one line each."""

from __future__ import annotations

import dataclasses
import json as jsons


def recipes(*, json: bool = False) -> None:
    """List the recipes and their options.

    Parameters
    ----------
    json
        Print a list of objects {name, summary, paper, arguments} instead.
    """
    from vaekit import catalogue

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
    width = max(len(r.name) for r in known)
    for r in known:
        made = " ".join(f"--{n.replace('_', '-')} {v}" for n, v in r.settings.items())
        print(f"{r.name:<{width}}  {r.summary}{f'  [{made}]' if made else ''}")
    print("\nin brackets: the settings of `vae` that a recipe is; vaekit fit DATA --recipe NAME --help explains each")


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
