"""The page of a certificate: the checks of a run, and how far each estimator of log p(x) can be off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vaekit import figures
from vaekit.certificate import Certificate
from vaekit.errors import RunError
from vaekit.runs.saved import SavedRun
from vaekit.utils.files import checked_path, write_text

from . import numbers
from .blocks import Block, Chapter, Section, Table, Text, plot
from .page import render

STATE = {True: "passed", False: "failed", None: "not judged"}
ABOUT = {
    "reference": "log p(x) of simulated data is known sharply enough",
    "log q": "log q(z|x) is the density of q's own draws",
    "bounds": "no lower bound is above the upper one",
    "encoder": "q reaches the posterior",
    "decoder scale": "residuals of the data are as large as p(x|z) says",
}


def write_certificate(run: SavedRun, certificate: Certificate, path: str | Path | None = None) -> Path:
    """Write the page of a certificate and return its path.

    Arguments:
        path: the path of the page; by default certificate.html in the run's directory.

    Raises:
        RunError: the page cannot be written.
    """
    target = run.place_of("certificate.html") if path is None else checked_path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the directory {target.parent}: {error.strerror}; choose another `path`") from error
    c = certificate
    failed = [f"{check.name}: {check.words}" for check in c.checks if check.passed is False]
    failures = {check.name for check in c.checks if check.passed is False}
    state = "not certified" if failures == {"reference"} else "failed" if failures else "passed"
    facts = [c.method, f"{c.protocol['n']:,} examples of each kind", state]
    sections = [_checks(c), _estimators(c), _tails(c), _method(c)]
    chapter = Chapter("certificate", f"Certificate of {c.run}", facts, "", failed, sections)
    write_text(target, render(f"Certificate of {c.run}", [], [chapter], kicker="vaekit certify"))
    return target


def _checks(c: Certificate) -> Section:
    rows = [[ABOUT[check.name], STATE[check.passed], check.words] for check in c.checks]
    other = any(check.passed is False for check in c.checks if check.name != "reference")
    text = "No check failed."
    if other:
        text = "At least one check failed: do not use the numbers that it concerns."
    elif not c.certified:
        text = "Nothing is certified, and no number is known to be wrong: the bounds on log p(x) are too far apart."
    return Section("checks", "Checks", [Text(text), Table(["what is checked", "", "evidence"], rows, wide=(2,))])


def _estimators(c: Certificate) -> Section:
    exactly = "is known exactly" if c.width == 0 else f"has bounds that are {c.width:.2g} nats apart"
    head = ["estimator", "error on simulated data", "against the reference", "mean on the data", "verdict"]
    rows = [
        [v.estimate, _span(v.low, v.high), numbers.number(v.gap), numbers.number(v.value), v.words] for v in c.verdicts
    ]
    reference = "exact log p(x)" if c.exact_on_data else "the lower bound by annealing, which does not use the encoder"
    caption = (
        "Nats per example. The error is a 95% interval for the mean over data like those that the model generates, for "
        f"which log p(x) {exactly}. On the measured data, the estimator is compared with {reference}."
    )
    spans = {v.estimate: (v.low, v.high) for v in c.verdicts}
    picture = plot(
        "certificate-errors", lambda: figures.error_spans(spans, "error on simulated data, nats"),
        "An interval for the error of each estimator",
        "95% intervals of the mean error on simulated data. Beyond 1 nat, the axis is logarithmic.",
    )  # fmt: skip
    return Section("estimators", "Estimators", [picture, Table(head, rows, caption, numeric=(1, 2, 3), wide=(4,))])


def _span(low: float, high: float) -> str:
    return f"{numbers.number(low)} to {numbers.number(high)}"


def _tails(c: Certificate) -> Section:
    k = c.k_hat
    text = (
        f"The tail of the weights of q has a k-hat of {k['50%']:.2f} for the median example, and {k['5%']:.2f} and "
        f"{k['95%']:.2f} at the 5% and 95% quantiles. "
    )
    if k["limit"] is None:
        text += f"It is not judged, as {c.protocol['K']} draws are too few."
    else:
        text += (
            f"It is above {k['limit']:.2f} for {k['above limit']:.0%} of the examples: with this many draws, the mean "
            "of the weights of these examples is not reliable."
        )
    return Section("tails", "Tails of the weights", [Text(text)])


def _method(c: Certificate) -> Section:
    blocks: list[Block] = [
        Text(
            "Data are simulated from the model, so that an exact draw of each posterior is known. Annealed importance "
            "sampling from the prior is a lower bound on log p(x) in expectation; started at the exact draw and run "
            "backwards, it is an upper bound (Grosse, Ghahramani and Adams 2015). Both use Hamiltonian Monte Carlo "
            "with step sizes that were tuned in a pilot run and then frozen. The bounds hold for the mean over data "
            "like those that the model generates; where the measured data differ from these, they are a guide."
        ),
        Table([], _rows(c.protocol)),
    ]
    return Section("method", "How this was measured", blocks)


def _rows(protocol: dict[str, Any]) -> list[list[str]]:
    return [[name, str(value)] for name, value in protocol.items() if value is not None]
