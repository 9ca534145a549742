"""`vaekit study`: an experiment of the literature as a page."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from vaekit.utils.wording import worded

from .output import Doing, at_least, check_file, check_source


def study(
    name: str | None = None,
    source: Annotated[str | None, Parameter(name="DATA")] = None,
    /,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    label: str | None = None,
    group: str | None = None,
    out: str | None = None,
) -> int:
    """Reproduce an experiment from the literature on DATA and write it as a page; without a name, list the studies.

    Parameters
    ----------
    name
        Which; `vaekit study` lists them.
    source
        A name or a path; the study's own data when not given.
    minutes
        Total time budget for training, measuring and drawing (7). Run again for longer, it trains the kept models on.
    steps
        Training steps of each model, instead of as many as the time allows: the results do not depend on the machine's
        speed. --minutes then only sets how many examples are measured.
    label
        Column to take classes from.
    group
        Column whose rows of one value stay in one split; errors are then by group.
    out
        The page (study-NAME-DATA.html); its models are kept beside it in PAGE.runs.
    """
    from . import catalogue
    from .fit import load

    if name is None:
        known = catalogue.studies()
        width = max(map(len, known))
        for _, one in sorted(known.items()):
            print(f"{one.name:<{width}}  {worded(one.summary)}  [{one.paper}]")
        print("\nvaekit study NAME [DATA] [--minutes M] [--out PAGE.html]")
        return 0
    chosen = catalogue.study(name)
    wanted = source if source is not None else chosen.data
    check_source(wanted)
    at_least(1, steps=steps)
    path = None if out is None else check_file(out, (".html",))
    from vaekit import studies  # torch is imported from here on

    minutes = studies.checked_minutes(studies.MINUTES if minutes is None else minutes)
    asked = {"label": label, "group": group}
    data = load(wanted, **{name: column for name, column in asked.items() if column is not None})
    try:
        with Doing() as doing:
            print(studies.study(name, data, minutes=minutes, steps=steps, out=path, progress=doing))
    except KeyboardInterrupt:
        print("interrupted: what was trained is kept; the same command goes on from there", file=sys.stderr)
        return 130
    return 0
