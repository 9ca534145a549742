"""`vaekit fit`: its options are those of the chosen recipe, of training and of the data."""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from cyclopts import Group, Parameter

from vaekit.errors import ChoiceError, DataError, RunError, UnavailableError
from vaekit.options import Options, abouts
from vaekit.runs.find import default_out, find_run, is_run
from vaekit.utils.collecting import uncollected
from vaekit.utils.files import checked_path, read_json
from vaekit.utils.progress import say
from vaekit.utils.wording import worded

from . import catalogue
from .catalogue import Described
from .output import TaskProgress, check_directory, check_source
from .parameters import choice, option, split

if TYPE_CHECKING:
    from vaekit.data import Data
    from vaekit.run import Run
    from vaekit.runs.configuration import Configuration

SUMMARY = "Train a model on DATA and write a run directory."
FINISHED = ("finished", "stopped early")

GENERAL = {"recipe", "out", "resume", "extend", "exists", "moved", "init_from", "log", "dry_run"}
TRAINING = {name: about.help for name, about in abouts().items()}
OFTEN = {
    *("epochs", "minutes", "seed", "lr", "batch", "augment", "patience", "device"),
    *("size", "table", "label", "types", "drop", "missing", "valid", "test"),
}
"""The options of training and data that the short help shows."""


def placeholder() -> None:
    """A placeholder for `fit` in the list of commands."""


placeholder.__doc__ = SUMMARY


def command(argv: Sequence[str], show_all: bool = False) -> Callable[..., int]:
    """The fit function with the options of the recipe in `argv`, or of the run to resume.

    Its help shows the options that apply to the recipe and are often needed; with `show_all`, all of them.
    """
    out = peek(argv, "--out")
    name = peek(argv, "--recipe")
    resumes = "--resume" in argv or "--extend" in argv or (peek(argv, "--exists") == "resume" and is_run(out))
    if name is None and resumes and out is not None:
        name = read_json(find_run(out) / "run.json").get("recipe")
    recipe = catalogue.recipe(name or "vae")

    def fit(*positional: str, **named: Any) -> int:
        return _fit(positional[0] if positional else None, recipe, named)

    from_recipe = [*_general(), *recipe_options(recipe, argv, show_all), *training_options(show_all)]
    parameters = [
        inspect.Parameter(
            "data",
            inspect.Parameter.POSITIONAL_ONLY,
            default=None,
            annotation=Annotated[str | None, Parameter(help="a name or a path; not needed with --out RUN --resume")],
        ),
        *from_recipe,
        *data_options(show_all, {one.name for one in from_recipe}),
    ]
    fit.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    chosen = "" if recipe.name == "vae" else f" --recipe {recipe.name}"
    shown = (
        "This help shows all options."
        if show_all
        else "This help shows the options that this recipe uses and those often needed; --help-all shows all options."
    )
    fit.__doc__ = (
        f"{SUMMARY}\n\n"
        f"Example: vaekit fit digits{chosen} --minutes 1 --out runs/digits\n\n"
        f"Recipe {recipe.name}: {worded(recipe.description)}\n\n{recipe.paper}.\n\n"
        f"{shown} `vaekit recipes` lists the recipes; `vaekit fit --recipe NAME --help` explains one."
    )
    return fit


def peek(argv: Sequence[str], flag: str) -> str | None:
    """The value of a flag before the arguments are parsed."""
    value = None
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        if word == flag:
            value = following
        elif word.startswith(f"{flag}="):
            value = word.removeprefix(f"{flag}=")
    return value


def _general() -> list[inspect.Parameter]:
    group = Group("Run", sort_key=(0,))
    switch = Annotated[bool, Parameter(negative="")]

    def flag(name: str, help: str) -> inspect.Parameter:
        return option(name, switch, False, help, group, show_default=False)

    return [
        option("recipe", str | None, None, "a name of `vaekit recipes` (vae)", group),
        option("out", str | None, None, "the run directory (runs/DATA-RECIPE)", group),
        flag("resume", "resume the run in --out where it stopped, with its settings"),
        flag("extend", "train the run in --out longer: to --epochs, --steps or --minutes counted from its beginning"),
        option(
            "exists",
            choice(("error", "resume", "replace")) | None,
            None,
            "if --out holds a run: stop with an error, resume it, or replace it as soon as the new run can start",
            group,
        ),
        option(
            "moved",
            str | None,
            None,
            "with --resume or --extend: the name or path of the run's data, if they have moved",
            group,
            flag="--data",
        ),
        option(
            "init_from", str | None, None, "start from the weights of this run, which must have equal shapes", group
        ),
        option(
            "log",
            str | None,
            None,
            "send curves and pictures also to csv, tensorboard, wandb or mlflow, with a file, folder, project or "
            "tracking URI after a colon, as in tensorboard:logs/first; several with commas",
            group,
        ),
        flag("dry_run", "show the settings, sizes and estimated time of the training, and write nothing"),
    ]


def recipe_options(recipe: Described, argv: Sequence[str], show_all: bool) -> list[inspect.Parameter]:
    """The options of the recipe; the help shows those that apply with its settings and the choices in `argv`."""
    chosen = {a.name: peek(argv, f"--{a.name}") or a.default for a in recipe.arguments}
    parameters = []
    for position, (heading, arguments) in enumerate(recipe.groups.items()):
        group = Group(heading or f"Recipe {recipe.name}", sort_key=(1, position))
        for a in arguments:
            show = show_all or a.applies(chosen)
            parameters.append(option(a.name, a.hint, a.default, a.help, group, show=show))
    return parameters


def training_options(show_all: bool) -> list[inspect.Parameter]:
    """The training options; the short help shows those often needed."""
    group = Group("Training (by default the recipe's values)", sort_key=(2,))
    hints, unset = get_type_hints(Options), Options()
    return [
        option(n, hints[n], getattr(unset, n), TRAINING[n], group, show=show_all or n in OFTEN)
        for n in Options.__dataclass_fields__
    ]


def data_names() -> list[str]:
    """The options of reading data."""
    return [argument.name for group, _ in catalogue.data_options().values() for argument in group]


def data_options(show_all: bool, taken: Container[str]) -> list[inspect.Parameter]:
    """The options for all data and for each format; the short help shows those often needed and all of plug-ins.

    If the name of a plug-in's option is `taken` by another option of fit, the option is left out with a note.
    """
    parameters = []
    for position, (kind, (arguments, package)) in enumerate(catalogue.data_options().items()):
        group = Group(f"Data: {kind}" if kind else "Data", sort_key=(3, position))
        for a in arguments:
            if a.name in taken:
                say(f"note: `{a.name}` of {kind} ({package}) is for Python only: fit has another option of that name")
                continue
            hint = Annotated[a.hint, Parameter(negative="")] if a.type.startswith(("bool", "list")) else a.hint
            show = show_all or package is not None or a.name in OFTEN
            parameters.append(option(a.name, hint, a.default, a.help, group, show=show))
    return parameters


# --- running it -------------------------------------------------------------------------------------------------


def _fit(source: str | None, recipe: Described, named: dict[str, Any]) -> int:
    of_reading = [name for name in data_names() if name not in {a.name for a in recipe.arguments}]
    general, training, of_data, arguments = split(named, tuple(GENERAL), tuple(TRAINING), of_reading)
    dry, init_from, exists = (general.get(n) for n in ("dry_run", "init_from", "exists"))
    out = checked_path(general["out"]) if general.get("out") is not None else None
    Options(**training).checked()
    mode = next((f"--{n}" for n in ("resume", "extend") if general.get(n)), None)
    source = _source(source, general.get("moved"), mode, out)
    if mode and dry:
        raise ChoiceError(f"--dry-run describes a new run: omit {mode}")
    if init_from:
        find_run(init_from)
    if source is not None:
        check_source(source)
    data = None
    if source is not None and (out is None or not (mode or exists == "resume")):
        data = load(source, **of_data)
        out = out or default_out(data.name, recipe.name)
    assert out is not None
    has_run = (out / "run.json").exists()
    resumes = mode is not None or (exists == "resume" and has_run)
    if dry:
        return _dry(data or load(source or "", **of_data), recipe, arguments, training, out, init_from)
    check_directory(out, resumes, exists == "replace")
    if resumes:
        data = _stored_data(out, source, of_data, bool(general.get("extend")))
    elif data is None:
        data = load(source or "", **of_data)
    with uncollected(lasting=True):
        from vaekit.run import fit as train  # imports torch, so that the errors above are reported without delay

    started = _Started(out)
    try:
        run = train(
            data,
            general.get("recipe") if resumes else recipe.name,
            out=out,
            resume=bool(general.get("resume")),
            extend=bool(general.get("extend")),
            exists=exists or "error",
            init_from=init_from,
            log=general.get("log") or (),
            on_start=started,
            on_interrupt="raise",
            **arguments,
            **training,
        )
    except KeyboardInterrupt as stop:
        return _interrupted(stop, out, source)
    if started.trained:
        _finished(run, out)
    else:
        print(f"{out} is {run.state} after {run.config['step']:,} steps: nothing to train")
    _next(run, out)
    return 0


def _source(source: str | None, moved: str | None, mode: str | None, out: Path | None) -> str | None:
    """The name or path of the data, if the command line gives it."""
    if moved is not None and not mode:
        raise ChoiceError(
            "--data applies to --resume and --extend, for data that have moved: give the DATA of a new run before the "
            "options"
        )
    if moved is not None and source is not None:
        raise ChoiceError(f"both {source!r} and --data {moved!r} are given: {mode} needs one of them")
    if source is None and moved is None and not (mode and out):
        raise ChoiceError("fit needs DATA: a name (`vaekit datasets` lists them) or a path; or --out RUN --resume")
    return source if source is not None else moved


def _dry(
    data: Data, recipe: Described, arguments: dict[str, Any], training: dict[str, Any], out: Path, init_from: str | None
) -> int:
    from vaekit.training.cost import subnormals_as_zero

    from .plan import plan

    with subnormals_as_zero():
        plan(data, recipe.name, arguments, Options(**training), out, init_from)
    return 0


def load(source: str, **options: Any) -> Data:
    """Load the data; notes about reading them are printed on standard error."""
    import vaekit.data

    first = os.environ.get("LOCAL_RANK", "0") == "0"
    with TaskProgress() as progress:
        data = vaekit.data.load(source, progress=progress if first else None, **options)
    if first:
        for note in data.notes:
            say(f"note: {note}")
    return data


class _Started:
    """Called before the first step; prints which model is trained, and how."""

    def __init__(self, out: Path):
        self.out, self.trained = out, False

    def __call__(self, config: Configuration) -> None:
        self.trained = True
        decided = config["decided"]
        compiled = "compiled" if decided["compile"] else "not compiled"
        say(
            f"{config['recipe']} on {config['data']['name']} to {self.out}: {decided['parameters']:,} parameters, "
            f"{decided['device']}, {decided['precision']}, {compiled} ({decided['compile_why']})"
        )
        patience, horizon = config["training"]["patience"], config["plan"]["horizon"]
        if patience and patience < horizon:
            say(
                f"at most {horizon:,} steps; training stops after {patience} validations in a row "
                "without a better ELBO and keeps the best weights (--patience 0 trains to the end)"
            )
        if len(legs := config.get("legs", [])) > 1:
            to = ", ".join(f"{value:g} {name}" for name, value in legs[-1]["asked"].items())
            say(f"extended from step {legs[-1]['from']:,} to {to} in total")


def _stored_data(out: Path, source: str | None, asked: dict[str, Any], extend: bool) -> Data | None:
    """The data of a run in its splits, from `source` if they have moved; None if they are not needed."""
    from vaekit.runs.stored import data_options, read_config, stored_splits

    config = read_config(out)
    stored = config["data"]
    defaults = {a.name: a.default for group, _ in catalogue.data_options().values() for a in group}
    for name, value in asked.items():
        if stored["options"].get(name, defaults[name]) != value:
            original = stored["options"].get(name, "the default")
            raise RunError(f"the run was started with {name} {original}, not {value}: omit this option")
    if config["state"] in FINISHED and not extend and source is None:
        return None
    where = source if source is not None else stored["source"]
    if where is None:
        way = "extend" if extend else "resume"
        raise RunError(
            f"{out} was trained on arrays in memory, which a run does not store: continue it in Python with vk.fit(x, "
            f"out={str(out)!r}, {way}=True), or save them as a .npy or .npz file and pass --data PATH"
        )
    rows = stored_splits(out)
    try:
        return load(where, splits=rows, **data_options(config))
    except UnavailableError:
        raise
    except DataError as error:
        raise DataError(f"{error} (the data of the run {out}; if they have moved, pass --data PATH)") from None


def _interrupted(stop: KeyboardInterrupt, out: Path, source: str | None) -> int:
    if not (out / "run.json").exists():
        say("interrupted before training began: nothing was written")
        return 130
    if stop.args and read_json(out / "run.json")["state"] in FINISHED:
        say(f"interrupted after the last step: the run in {out} is complete")
        return 130
    saved = f"saved in {stop.args[0]}" if stop.args else f"the last checkpoint is in {out}"
    data = f"{shlex.quote(source)} " if source is not None else ""
    say(f"interrupted: {saved}; resume with")
    say(f"  vaekit fit {data}--out {shlex.quote(str(out))} --resume")
    return 130


def _finished(run: Run, out: Path) -> None:
    from vaekit.training.overfitting import past_its_best

    config = run.config
    valid = config.get("best") if run.options.patience else None  # with patience, the best weights are saved
    valid = valid or config["valid"]
    minutes, seconds = divmod(round(config["seconds"]), 60)
    numbers = f"distortion {valid['distortion']:.2f}"
    if "elbo" in valid:
        numbers = f"ELBO {valid['elbo']:.2f} nats (rate {valid['rate']:.2f}, {numbers})"
    print(f"validation {numbers} after {config['step']:,} steps in {minutes}:{seconds:02d}")
    if warning := past_its_best(run):
        print(worded(f"note: {warning}"))
    print(f"saved in {out}")


def _next(run: Run, out: Path) -> None:
    from vaekit.report.commands import following

    print("next: " + "\n      ".join(following(run, str(out))))
