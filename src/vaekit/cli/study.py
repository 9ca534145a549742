"""`vaekit study`: an experiment of the literature as a page."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from vaekit.cli.output import Doing, check_file


def study(
    name: str | None = None,
    source: Annotated[str | None, Parameter(name="DATA")] = None,
    /,
    *,
    minutes: float | None = None,
    out: str | None = None,
) -> int:
    """An experiment of the literature on DATA as a page; without a name, which there are.

    Parameters
    ----------
    name
        Which; `vaekit study` lists them.
    source
        A name or a path; the study's own data when not given.
    minutes
        For everything: training, measuring, drawing (7). Run again for longer, it goes on with the models it kept.
    out
        The page (study-NAME-DATA.html); its models are kept beside it in PAGE.runs.
    """
    from vaekit import studies
    from vaekit.cli.fit import load

    if name is None:
        width = max(map(len, studies.STUDIES))
        for _, one in sorted(studies.STUDIES.items()):
            print(f"{one.name:<{width}}  {one.summary}  [{one.paper}]")
        print("\nvaekit study NAME [DATA] [--minutes M] [--out PAGE.html]")
        return 0
    chosen = studies.get_study(name)
    minutes = studies.checked_minutes(studies.MINUTES if minutes is None else minutes)
    path = None if out is None else check_file(out, (".html",))
    data = load(source if source is not None else chosen.data)
    try:
        with Doing() as doing:
            print(studies.study(name, data, minutes=minutes, out=path, progress=doing))
    except KeyboardInterrupt:
        print("interrupted: what was trained is kept; the same command goes on from there", file=sys.stderr)
        return 130
    return 0
