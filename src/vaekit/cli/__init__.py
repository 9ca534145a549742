"""The command line: parse, call, print. `vaekit --help` answers without importing torch."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

import vaekit
from vaekit.cli import change, fit, listing, live, study, use
from vaekit.errors import UnavailableError, VaekitError

HELP = """Variational autoencoders on your own data: train, measure, look, use.

DATA is a name (`vaekit datasets`) or a path: a folder of images, .npz, .npy, IDX, .csv, .parquet.
RUN is the directory that `vaekit fit` leaves.

It ends with status 0, with 2 after an error, with 3 where a named data set is neither here nor to be downloaded.
Start with `vaekit fit digits --minutes 1`; `vaekit COMMAND --help` tells the options of a command.
"""


def build(argv: Sequence[str]) -> App:
    """The program, with the options of the recipe that `argv` asks for where it asks to fit."""
    app = App(
        name="vaekit",
        version=vaekit.__version__,
        help=HELP,
        help_format="plaintext",
        default_parameter=Parameter(negative_iterable=(), negative_none=()),
        suppress_keyboard_interrupt=False,
    )
    app.command(fit.command(argv) if argv[:1] == ["fit"] else fit.placeholder, name="fit")
    for function in (
        use.evaluate,
        use.sample,
        use.reconstruct,
        use.interpolate,
        use.traverse,
        change.edit,
        change.fill,
        use.encode,
        use.score,
        use.report,
        live.explore,
        live.export,
        study.study,
        listing.recipes,
        listing.datasets,
    ):
        app.command(function)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    The exit status: 0; 2 for what a user can put right; 3 where named data can be had nowhere; 130 when interrupted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    # the threads of torch wait for one another by spinning, without an end unless told before it is imported: beside
    # another program on the same cores a step then can take dozens of times as long (docs/threads.md)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    level = logging.root.manager.disable
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a library's warnings mean nothing to a user
            logging.disable(logging.WARNING)
            app = build(argv)
            result: Any = app(argv, exit_on_error=False, print_error=False, result_action="return_value")
            return result if isinstance(result, int) else 0
    except (VaekitError, CycloptsError) as error:
        return _refuse(error)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        print("error: out of memory: take a smaller --batch, model or -n", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `vaekit recipes | head`: who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    finally:
        logging.disable(level)


def _refuse(error: Exception) -> int:
    if isinstance(error, CycloptsError):
        error.verbose = False
    text = str(error)
    if isinstance(error, UnusedCliTokensError):
        text = f"unexpected {' '.join(error.unused_tokens or ())!r}: see --help for what the command takes"
    print(f"error: {' '.join(text.split())}", file=sys.stderr)
    return 3 if isinstance(error, UnavailableError) else 2
