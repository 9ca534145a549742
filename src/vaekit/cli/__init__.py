"""The command line: parse, call, print. `vaekit --help` answers without importing torch."""

from __future__ import annotations

import dataclasses
import errno
import inspect
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from cyclopts import App, CycloptsError, Parameter

import vaekit
from vaekit.errors import UnavailableError, VaekitError
from vaekit.options import Options
from vaekit.utils.plugins import PluginWarning
from vaekit.utils.progress import say
from vaekit.utils.waiting import adaptive_waiting
from vaekit.utils.wording import wording

from . import (
    catalogue,
    certify,
    change,
    compare,
    detect,
    doctor,
    expression,
    fit,
    inspection,
    listing,
    live,
    measure,
    pack,
    prior,
    push,
    report,
    samples,
    study,
    tune,
    use,
)
from .mistakes import check_command, explained
from .parameters import as_flags, described, exact

HELP = """Variational autoencoders on your own data: train, evaluate, inspect and use them.

DATA is a name (`vaekit datasets`) or a path: a folder of images, .npz, .npy, IDX, .csv, .parquet.
RUN is a run directory written by `vaekit fit`, or hf://user/name of the Hugging Face hub. Rows are numbered from 0;
the header of a table is not a row.

Start with `vaekit fit digits --minutes 1`. `vaekit COMMAND --help` shows the options of a command;
`vaekit recipes` lists the models and the data that each one suits.

Exit status: 0; 1 if `vaekit doctor` or `vaekit audit` finds something, or a check of `vaekit certify` fails;
2 after an error; 3 if a named data set is neither cached nor downloadable; 130 when interrupted.
"""

COMMANDS = (
    measure.evaluate,
    compare.compare,
    certify.certify,
    doctor.doctor,
    inspection.audit,
    prior.prior,
    use.sample,
    samples.samplers,
    use.reconstruct,
    use.interpolate,
    use.traverse,
    change.edit,
    change.fill,
    measure.encode,
    measure.score,
    detect.detect,
    expression.de,
    pack.compress,
    pack.decompress,
    report.report,
    live.explore,
    live.export,
    push.push,
    study.study,
    tune.tune,
    listing.recipes,
    listing.datasets,
    listing.metrics,
)
"""All commands except fit."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def build(argv: Sequence[str]) -> App:
    """Build the program for this command line; its `fit` has the options of the recipe in `argv`."""
    app = App(
        name="vaekit",
        version=vaekit.__version__,
        help=HELP,
        help_format="plaintext",
        default_parameter=Parameter(negative_iterable=(), negative_none=()),
        suppress_keyboard_interrupt=False,
    )
    show_all = "--help-all" in argv
    app.command(fit.command(argv, show_all) if argv[:1] == ["fit"] else fit.placeholder, name="fit")
    for function in COMMANDS:
        if function in (doctor.doctor, tune.tune) and argv[:1] == [function.__name__]:
            made = doctor.command if function is doctor.doctor else tune.command
            app.command(made(argv, show_all), name=function.__name__)
            continue
        if argv[:1] == [function.__name__]:
            exact(function)
            if function in (measure.evaluate, compare.compare):
                described(function, "metrics", measure.metric_help())
        app.command(function)
    return app


def arguments() -> set[str]:
    """The Python names of all arguments that are options of a command."""
    recipes = {a.name for recipe in catalogue.recipes().values() for a in recipe.arguments}
    commands = {name for function in COMMANDS for name in inspect.signature(function).parameters}
    return recipes | commands | {f.name for f in dataclasses.fields(Options)} | set(fit.data_names()) | fit.GENERAL


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status.

    The status is 0; 1 if the doctor finds something serious or a certificate fails; 2 after an error that the
    user can correct; 3 if a named data set is unavailable; 130 when interrupted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    # By default, torch's threads spin while they wait for each other. Beside another program, a step can then take
    # several times as long (docs/threads.md), until `adaptive_waiting` notices the other program. A limit on spinning
    # shortens these steps; it must be set before torch is imported.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    level = logging.root.manager.disable
    try:
        with warnings.catch_warnings(), wording(_as_flags), adaptive_waiting():
            warnings.simplefilter("ignore")  # users cannot act on warnings of the libraries that vaekit calls
            warnings.simplefilter("always", PluginWarning)
            warnings.showwarning = lambda message, *_: say(f"note: {message}")
            logging.disable(logging.WARNING)
            if argv and not argv[0].startswith("-"):
                check_command(argv[0], ["fit", *(function.__name__ for function in COMMANDS)])
            app = build(argv)
            argv = ["--help" if word == "--help-all" else word for word in argv]
            result: Any = app(argv, exit_on_error=False, print_error=False, result_action="return_value")
            sys.stdout.flush()
            return result if isinstance(result, int) else 0
    except (VaekitError, CycloptsError) as error:
        return _refuse(error)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        print("error: out of memory: use a smaller --batch, model or -n", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has closed the pipe, as in `vaekit recipes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in FULL:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"error: the output cannot be written: {error.strerror}; free some space", file=sys.stderr)
        return 2
    finally:
        logging.disable(level)


def _as_flags(text: str) -> str:
    return as_flags(text, arguments()) if "`" in text else text


def _refuse(error: Exception) -> int:
    text = explained(error) if isinstance(error, CycloptsError) else _as_flags(str(error))
    print(f"error: {' '.join(text.split())}", file=sys.stderr)
    return 3 if isinstance(error, UnavailableError) else 2
