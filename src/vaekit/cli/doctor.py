"""`vaekit doctor`: examine a run, or data with the settings of a recipe; these options are those of `vaekit fit`.

Without a subject: what vaekit runs on, for reports of bugs.
"""

from __future__ import annotations

import inspect
import json as jsons
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from vaekit.errors import ChoiceError
from vaekit.options import Options
from vaekit.runs.find import find_run, is_run
from vaekit.utils.wording import worded

from . import catalogue, fit
from .output import check_source
from .parameters import FLAG, Flag, OwnData, option, split

if TYPE_CHECKING:
    from vaekit.diagnosis import Diagnosis

Subject = Annotated[str | None, Parameter(help="A run directory, or the name or path of data.")]


def doctor(
    run_or_data: Subject = None,
    /,
    *,
    recipe: Annotated[str | None, Parameter(help="For data: the recipe to train them with (vae).")] = None,
    thorough: Annotated[bool, FLAG, Parameter(help="Also make checks that take longer than seconds.")] = False,
    data: OwnData = None,
    json: Flag = False,
) -> int:
    """Name the diseases of a run, or of data before training, with evidence and remedy.

    A run is examined with its data, its log and its weights; data with the recipe and the options that
    `vaekit fit` would get. Nothing is trained or changed. Exit status 1 if something serious was found.
    Without RUN or DATA: versions, processor, settings and caches, as a bug report needs them.

    Parameters
    ----------
    json
        Print {of, serious, findings, healthy, skipped} instead of lines; without RUN or DATA, {group: {name: text}}.
    """
    return _doctor(
        run_or_data, recipe or "vae", {"thorough": thorough, "data": data, "json": json}, recipe is not None, {}
    )


def command(argv: Sequence[str], show_all: bool = False) -> Callable[..., int]:
    """The doctor with the options of `vaekit fit` for the recipe in `argv`."""
    name = fit.peek(argv, "--recipe")
    recipe = catalogue.recipe(name or "vae")
    general = Group("Doctor", sort_key=(0,))
    own = [
        option("recipe", str | None, None, "for data: a name of `vaekit recipes` (vae)", general),
        option("thorough", Annotated[bool, FLAG], False, "also make checks that take longer than seconds", general),
        option("data", str | None, None, "name or path of the run's data, if they have moved", general),
        option("json", Annotated[bool, FLAG], False, "print an object of JSON instead of lines", general),
    ]
    of_fit = [*fit.recipe_options(recipe, argv, show_all), *fit.training_options(show_all)]
    reading = fit.data_options(show_all, {one.name for one in [*own, *of_fit]})
    subject = inspect.Parameter("run_or_data", inspect.Parameter.POSITIONAL_ONLY, default=None, annotation=Subject)

    def examine(run_or_data: str | None = None, /, **named: Any) -> int:
        of_doctor, rest = split(named, ("recipe", "thorough", "data", "json"))
        return _doctor(run_or_data, recipe.name, of_doctor, name is not None, rest)

    examine.__signature__ = inspect.Signature([subject, *own, *of_fit, *reading])  # type: ignore[attr-defined]
    examine.__doc__ = doctor.__doc__ and doctor.__doc__.split("Parameters\n")[0]
    return examine


def _doctor(subject: str | None, recipe: str, own: dict[str, Any], given: bool, named: dict[str, Any]) -> int:
    """Examine and print; `named` are options of the recipe, of training and of reading data."""
    thorough, data = bool(own.get("thorough")), own.get("data")
    if subject is None:
        if given or named or thorough or data is not None:
            raise ChoiceError(
                "name what to examine: `vaekit doctor RUN` or `vaekit doctor DATA`, with these options; alone, or with "
                "--json, `vaekit doctor` shows what vaekit runs on"
            )
        return _environment(bool(own.get("json")))
    if subject == "example" or is_run(subject):
        if given or named:
            flag = next((f"--{name.replace('_', '-')}" for name in named), "--recipe")
            raise ChoiceError(f"a run has its own settings: omit {flag}, or give data in place of the run")
        from vaekit.diagnosis import doctor as examined
        from vaekit.diagnosis import opened

        run = opened(find_run(subject))
        if data is not None:
            run.use_data(data)
        return _show(examined(run, thorough=thorough), bool(own.get("json")))
    if data is not None:
        raise ChoiceError("--data says where the data of a run have moved, and this is not a run: give RUN")
    check_source(subject)
    names = [name for name in fit.data_names() if name not in {a.name for a in catalogue.recipe(recipe).arguments}]
    training, of_data, arguments = split(named, tuple(fit.TRAINING), names)
    options = Options(**training).checked()
    loaded = fit.load(subject, **of_data)
    from vaekit.diagnosis import doctor as examined

    found = examined(loaded, recipe, thorough=thorough, options=options, **arguments)
    return _show(found, bool(own.get("json")))


def _environment(json: bool) -> int:
    from vaekit.utils.environment import environment

    found = environment()
    print(jsons.dumps(found.groups, indent=1, ensure_ascii=False) if json else found)
    return 0


def _show(found: Diagnosis, json: bool) -> int:
    print(jsons.dumps(found.as_json(), indent=1, ensure_ascii=False) if json else worded(str(found)))
    return 1 if found.serious else 0
