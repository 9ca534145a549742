"""Experiments from the literature that run on any data: each trains a few models and writes a page."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from vaekit.data.loading import data_of
from vaekit.errors import ChoiceError, RunError
from vaekit.utils.files import write_json

from . import (  # noqa: F401
    ae_vs_vae,
    beta,
    blur,
    collapse,
    complete,
    denoising,
    importance,
    interpolation,
    kingma2013,
    kingma2013_marginal,
    kl_weight,
)
from .bench import Bench, OnProgress, Plan
from .needs import check_sizes
from .page import write_page
from .registry import STUDIES, Findings, Study, get_study

MINUTES = 7.0
LEAST_MINUTES = 0.25
EARLY = 500
"""If any model had fewer training steps than this, the page makes no claims."""


def study(
    name: str,
    data: Any = None,
    *,
    minutes: float = MINUTES,
    steps: int | None = None,
    out: str | Path | None = None,
    progress: OnProgress | None = None,
) -> Path:
    """Run a study and write its page; returns the path of the page.

    The models are kept in a folder beside the page (PAGE.runs). Calling `study` again with more minutes trains them
    further, and calling it again after an interruption resumes.

    Arguments:
        name: one of `STUDIES`.
        data: a data set's name, a path, arrays, a frame or `Data`; by default the data set of the study.
        minutes: the time for the whole study: training, measuring and drawing.
        steps: training steps of each model, instead of as many as `minutes` allows; the results then do not depend on
            the speed of the machine. `minutes` still sets how many examples are measured.
        out: the path of the page; by default study-NAME-DATA.html in the current directory.
        progress: called with (stage, done, total); done and total are 0 outside training.

    Raises:
        ChoiceError: the study is unknown, cannot use these data, has too few of them, or has too few minutes.
        RunError: the page cannot be written, or the kept models were trained on other data.
    """
    started = time.monotonic()
    chosen = get_study(name)
    minutes = checked_minutes(minutes)
    if steps is not None and steps < 1:
        raise ChoiceError(f"`steps` must be 1 or more, got {steps}")
    data = data_of(chosen.data if data is None else data)
    check_sizes(data, name)
    chosen.check(data)
    path = Path(out) if out is not None else Path(f"study-{name}-{data.name}.html")
    folder = path.with_suffix(".runs")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the directory {folder}: {error.strerror}; choose another `out`") from error
    bench = Bench(data, minutes, folder, progress, started, steps)
    findings = chosen.work(bench)
    bench.stage("drawing")
    if bench.trained_steps < EARLY:
        findings.sentences = [
            f"Too early for results: at least one model had only {bench.trained_steps:,} training steps, and this page "
            f"makes no claims below {EARLY:,}. Running the study for longer (`{bench.limit}`) "
            "continues the training."
        ]
    write_json(folder / "findings.json", {"sentences": findings.sentences, "numbers": findings.numbers})
    write_page(chosen, bench, findings, path)
    return path


def checked_minutes(minutes: float) -> float:
    """Return `minutes`, if a study can be run in that time.

    Raises:
        ChoiceError: the number is below `LEAST_MINUTES` or not finite.
    """
    if not LEAST_MINUTES <= minutes < float("inf"):
        raise ChoiceError(f"a study needs at least {LEAST_MINUTES:g} minutes (`minutes`), got {minutes:g}")
    return minutes


__all__ = ["EARLY", "STUDIES", "Bench", "Findings", "Plan", "Study", "checked_minutes", "get_study", "study"]
