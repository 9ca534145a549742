"""The experiments of the literature on anybody's data: each trains a few models and writes a page that reads them."""

from __future__ import annotations

import time
from pathlib import Path

from vaekit.data import load
from vaekit.data.core import Data
from vaekit.errors import ChoiceError, RunError
from vaekit.utils.files import write_json

from . import ae_vs_vae, beta, blur, collapse, complete, denoising, importance, interpolation, kingma2013, kl_weight  # noqa: F401
from .bench import Bench, OnProgress, Plan
from .needs import check_sizes
from .page import write_page
from .registry import STUDIES, Findings, Study, get_study

MINUTES = 7.0
LEAST_MINUTES = 0.25
EARLY = 500
"""Training steps of the model that had fewest, below which a page makes no claim."""


def study(
    name: str,
    data: Data | str | Path | None = None,
    *,
    minutes: float = MINUTES,
    out: str | Path | None = None,
    progress: OnProgress | None = None,
) -> Path:
    """Run a study and write its page; the path of that.

    The models are kept in a folder beside the page (PAGE.runs) and used again: the same call for more minutes trains
    them on, after an interruption it goes on where it stopped.

    Arguments:
        name: of one of STUDIES.
        data: a name, a path or `Data`; the study's own when not given.
        minutes: for everything, training, measuring and drawing.
        out: the page; study-NAME-DATA.html here when not given.
        progress: called with (what, done, of).

    Raises:
        ChoiceError: no such study, data that it cannot use or that are too few, or too few minutes.
        RunError: the page cannot be written, or its kept models are of other data.
    """
    started = time.monotonic()
    chosen = get_study(name)
    minutes = checked_minutes(minutes)
    if not isinstance(data, Data):
        data = load(str(data) if data is not None else chosen.data)
    check_sizes(data, name)
    chosen.check(data)
    path = Path(out) if out is not None else Path(f"study-{name}-{data.name}.html")
    folder = path.with_suffix(".runs")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the directory {folder}: {error.strerror}; choose another `out`") from error
    bench = Bench(data, minutes, folder, progress, started)
    findings = chosen.work(bench)
    bench.stage("drawing")
    if bench.trained_steps < EARLY:
        findings.sentences = [
            f"It is too early to say anything: each model had {bench.trained_steps:,} training steps, and this page "
            f"makes no claim below {EARLY:,}. A longer run (`minutes`) trains the same models on."
        ]
    write_json(folder / "findings.json", {"sentences": findings.sentences, "numbers": findings.numbers})
    write_page(chosen, bench, findings, path)
    return path


def checked_minutes(minutes: float) -> float:
    """The same minutes, or a ChoiceError where a study cannot be done in so few."""
    if not LEAST_MINUTES <= minutes < float("inf"):
        raise ChoiceError(f"a study takes {LEAST_MINUTES:g} minutes or more (`minutes`), got {minutes:g}")
    return minutes


__all__ = ["EARLY", "STUDIES", "Bench", "Findings", "Plan", "Study", "checked_minutes", "get_study", "study"]
