"""`vaekit study`: reproduce an experiment from the literature and write it as a page."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from vaekit.utils.collecting import uncollected
from vaekit.utils.wording import worded

from .output import TaskProgress, at_least, check_file, check_source


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
    """Reproduce an experiment from the literature on DATA and write a page; without a name, list the studies.

    Parameters
    ----------
    name
        Name of the study; `vaekit study` lists them.
    source
        Name or path of the data; by default the study's own.
    minutes
        Total time budget for training, measuring and drawing (7). A second run with more minutes trains the same models
        further.
    steps
        Number of training steps of each model, so that the results do not depend on the speed of the machine; --minutes
        then only sets the number of examples to measure. By default as many steps as the time allows.
    label
        Column with the classes.
    group
        Column with groups: rows of the same group stay in one split, and standard errors are computed by group.
    out
        Path of the page (study-NAME-DATA.html); its models are kept beside it in PAGE.runs.
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
    data_source = source if source is not None else chosen.data
    check_source(data_source)
    at_least(1, steps=steps)
    path = None if out is None else check_file(out, (".html",))
    with uncollected(lasting=True):
        from vaekit import studies  # imports torch

    minutes = studies.checked_minutes(studies.MINUTES if minutes is None else minutes)
    columns = {"label": label, "group": group}
    data = load(data_source, **{name: column for name, column in columns.items() if column is not None})
    try:
        with TaskProgress() as progress:
            print(studies.study(name, data, minutes=minutes, steps=steps, out=path, progress=progress))
    except KeyboardInterrupt:
        print("interrupted: the models trained so far are kept; the same command resumes the study", file=sys.stderr)
        return 130
    return 0
