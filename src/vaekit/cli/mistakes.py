"""Messages for wrong command lines: one line that says what to write."""

from __future__ import annotations

from collections.abc import Iterable

from cyclopts import CoercionError, CycloptsError, MissingArgumentError, UnknownOptionError, UnusedCliTokensError

from vaekit.errors import ChoiceError
from vaekit.runs.example import place
from vaekit.utils.hub import is_address
from vaekit.utils.suggest import meant, unknown

from . import catalogue

COMMANDS = {
    "anomaly": "score",
    "archive": "compress",
    "data": "datasets",
    "decode": "sample",
    "detect": "score",
    "diff": "compare",
    "edit-image": "edit",
    "embed": "encode",
    "eval": "evaluate",
    "experiment": "study",
    "generate": "sample",
    "hpo": "tune",
    "hyperparameters": "tune",
    "impute": "fill",
    "inpaint": "fill",
    "likelihood": "score",
    "list": "recipes",
    "measure": "evaluate",
    "models": "recipes",
    "morph": "interpolate",
    "onnx": "export",
    "optimise": "tune",
    "optimize": "tune",
    "optuna": "tune",
    "pack": "compress",
    "plot": "report",
    "predict": "encode",
    "recon": "reconstruct",
    "resume": "fit",
    "run": "fit",
    "save": "export",
    "search": "tune",
    "serve": "explore",
    "show": "report",
    "studies": "study",
    "sweep": "tune",
    "test": "evaluate",
    "train": "fit",
    "transform": "encode",
    "uncompress": "decompress",
    "unpack": "decompress",
    "validate": "evaluate",
    "view": "explore",
    "visualise": "explore",
    "visualize": "explore",
}
"""Commands of other programs, and the commands of vaekit that do the same."""
NEEDS = {
    "RUN": "RUN, a run directory written by `vaekit fit`",
    "ARCHIVE": "ARCHIVE, a file written by `vaekit compress`",
    "IMAGE": "IMAGE, an index of the test set or a file",
    "A": "two examples, A and B: an index of the test set or a file each",
    "B": "two examples, A and B: an index of the test set or a file each",
}


def check_command(word: str, known: Iterable[str]) -> None:
    """Raise ChoiceError for an unknown command, with a suggestion."""
    known = list(known)
    if word in known:
        return
    if synonym := COMMANDS.get(word.lower()):
        raise ChoiceError(f"unknown command {word!r}: did you mean {synonym!r}? See `vaekit {synonym} --help`")
    from vaekit.data.named import SETS

    if is_address(word) or word in SETS or place(word).exists():
        use = "report" if is_address(word) or (place(word) / "run.json").exists() else "fit"
        raise ChoiceError(f"{word!r} is not a command: use `vaekit {use} {word}`, or choose from {', '.join(known)}")
    raise ChoiceError(unknown("command", word, ["--help", *known]))


def explained(error: CycloptsError) -> str:
    """The message for a parsing error."""
    error.verbose = False
    command = " ".join(error.command_chain or ())
    if isinstance(error, UnknownOptionError):
        return _option(error, command)
    if isinstance(error, UnusedCliTokensError):
        extra = " ".join(error.unused_tokens or ())
        return f"unexpected {extra!r}: `vaekit {command} --help` shows the arguments"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.keyword or error.argument.name
        if name.startswith("-"):
            flag = "a value" if error.keyword else name
            return f"{name} needs {flag}" if error.keyword else f"{command} needs {flag}: see `vaekit {command} --help`"
        return f"{command} needs {NEEDS.get(name, name)}: see `vaekit {command} --help`"
    text = str(error)
    return text if isinstance(error, CoercionError) else text.replace('Did you mean "', 'did you mean "')


def _option(error: UnknownOptionError, command: str) -> str:
    """The message for an unknown option, with the recipes that have it or a suggestion."""
    flag = (error.token.keyword or error.token.value or "").partition("=")[0]
    known = sorted(name for argument in error.argument_collection for name in argument.names if name.startswith("-"))
    bare = {
        name.lstrip("-"): name for name in (*known, "--help", *(["--help-all"] if command in ("fit", "tune") else []))
    }
    plain = flag.lstrip("-").replace("-", "_")
    if command in ("fit", "tune"):
        others = [r.name for r in catalogue.recipes().values() if plain in (a.name for a in r.arguments)]
        if others:
            return f"{flag} belongs to other recipes: add --recipe {' or '.join(others[:4])}, or omit {flag}"
    near = meant(flag.lstrip("-"), bare)
    hint = f"did you mean {bare[near]}?" if near else f"`vaekit {command} --help` shows the options"
    return f"unknown option {flag}: {hint}"
