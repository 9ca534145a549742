"""`vaekit tune`: choose options by training many settings; its further options are those of `vaekit fit`."""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from vaekit.errors import ChoiceError
from vaekit.options import Options
from vaekit.utils.collecting import uncollected
from vaekit.utils.files import checked_path
from vaekit.utils.wording import worded

from . import catalogue, fit
from .output import at_least, check_source
from .parameters import option, split

if TYPE_CHECKING:
    from vaekit.tuning import Sweep

OWN = ("recipe", "over", "metrics", "trials", "minutes", "jobs", "prune", "confirm", "out")
EXAMPLE = 'vaekit tune digits --over "latent=2..64:log,lr=1e-4..1e-2:log" --steps 1000 --minutes 10 --out sweeps/digits'


def tune(
    data: Annotated[str | None, Parameter(help="A name or a path; not needed to continue --out.")] = None,
    /,
    *,
    recipe: str | None = None,
    over: tuple[str, ...] | None = None,
    metrics: tuple[str, ...] | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    jobs: int = 1,
    prune: bool = True,
    confirm: int = 0,
    out: str | None = None,
) -> int:
    """Choose options by training many settings on DATA, and write a directory with all of them and a page.

    Settings are chosen by Optuna, hopeless ones are stopped early, and the others are judged on validation data, by
    default by the ELBO with a KL weight of 1. The same command continues an interrupted sweep, or a finished one with
    more --trials or --minutes. The options of `vaekit fit` apply to all trials.
    """
    given = {"recipe": recipe, "over": over, "metrics": metrics, "trials": trials, "minutes": minutes, "jobs": jobs,
             "prune": prune, "confirm": confirm, "out": out}  # fmt: skip
    return _tune(data, recipe or "vae", given, {})


def command(argv: Sequence[str], show_all: bool = False) -> Callable[..., int]:
    """The command with the options of `vaekit fit` for the recipe in `argv`."""
    name = fit.peek(argv, "--recipe")
    recipe = catalogue.recipe(name or "vae")
    of_fit = [
        *fit.recipe_options(recipe, argv, show_all),
        *(one for one in fit.training_options(show_all) if one.name not in OWN),
    ]
    own = _own()
    taken = {one.name for one in [*own, *of_fit]}
    subject = inspect.Parameter(
        "data",
        inspect.Parameter.POSITIONAL_ONLY,
        default=None,
        annotation=Annotated[str | None, Parameter(help="a name or a path; not needed to continue --out")],
    )

    def search(data: str | None = None, /, **named: Any) -> int:
        of_tune, rest = split(named, OWN)
        return _tune(data, recipe.name, of_tune, rest)

    search.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [subject, *own, *of_fit, *fit.data_options(show_all, taken)]
    )
    search.__doc__ = f"{inspect.getdoc(tune)}\n\nExample: {EXAMPLE}"
    return search


def _own() -> list[inspect.Parameter]:
    """The options of the sweep itself."""
    group = Group("Sweep", sort_key=(0,))
    ranges = "what to choose: latent=2..64:log,lr=1e-4..1e-2:log,activation=silu|relu"
    judged = "metrics of validation data that judge trials (elbo); several for their Pareto front"
    return [
        option("recipe", str | None, None, "a name of `vaekit recipes` (vae)", group),
        option("over", tuple[str, ...] | None, None, ranges, group),
        option("metrics", tuple[str, ...] | None, None, judged, group),
        option("trials", int | None, None, "number of trials over all sessions (20, unless --minutes is given)", group),
        option("minutes", float | None, None, "total time over all sessions", group),
        option("jobs", int, 1, "processes that train at the same time, each with its share of the threads", group),
        option("prune", bool, True, "stop trials early whose validation bound is below the median", group),
        option("confirm", Annotated[int, Parameter()], 0,
               "train the two best trials again with this many other seeds, and compare them on test data", group),
        option("out", str | None, None, "the sweep's directory (sweeps/DATA-RECIPE)", group),
    ]  # fmt: skip


def _tune(source: str | None, recipe: str, own: dict[str, Any], named: dict[str, Any]) -> int:
    """Run the sweep; `named` are options of the recipe, of training and of reading data."""
    out = None if own.get("out") is None else checked_path(own["out"])
    continued = out is not None and (out / "sweep.json").is_file()
    if source is None and not continued:
        raise ChoiceError("tune needs DATA: a name (`vaekit datasets` lists them) or a path; or --out of a sweep")
    if not own.get("over") and not continued:
        raise ChoiceError(f"tune needs --over, such as: {EXAMPLE}")
    at_least(0, confirm=own.get("confirm"))
    names = [name for name in fit.data_names() if name not in {a.name for a in catalogue.recipe(recipe).arguments}]
    training, of_data, arguments = split(named, tuple(fit.TRAINING), names)
    Options(**training).checked()
    if source is not None:
        check_source(source)
    with uncollected(lasting=True):
        from vaekit.tuning import search  # imports torch
        from vaekit.tuning.space import space

    search.require()
    asked: dict[str, Any] = {name: own[name] for name in ("trials", "minutes", "jobs", "prune") if name in own}
    if own.get("metrics"):
        asked["metrics"] = ",".join(own["metrics"])
    if over := ",".join(own.get("over") or ()):
        space(over, recipe, arguments, training)  # before the data are read, which may take minutes
        asked |= {"recipe": recipe, "over": over}
    data = None if source is None else fit.load(source, **of_data)
    try:
        found = search.tune(data, out=out, **asked, **arguments, **training)
        if own.get("confirm"):
            found.confirm(seeds=own["confirm"])
            found.report()
    except KeyboardInterrupt:
        print("interrupted: the trials so far are kept; the same command continues the sweep", file=sys.stderr)
        return 130
    _tell(found)
    return 0


def _tell(found: Sweep) -> None:
    from vaekit.tuning.page import sentences

    for said in sentences(found):
        print(worded(said))
    if found.ranked:
        for one in found.front[:3]:
            print(f"train {one.name} again:\n  {found.command(one)}")
        if len(found.ranked) > 1:
            first, second = (shlex.quote(str(found.path / one.name)) for one in found.ranked[:2])
            print(f"compare the best two:\n  vaekit compare {first} {second}")
    print(Path(found.path) / "sweep.html")
