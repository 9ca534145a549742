"""The register of diseases: decorating a function with `@disease` adds one to `vaekit doctor`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vaekit.utils.register import Named, origin_of

from .patient import Patient

Stage = Literal["before", "during", "after"]
Severity = Literal["serious", "warning", "note"]


@dataclass(frozen=True)
class Need:
    """A condition on the patient; `lacking` returns why it is not met, or None."""

    name: str
    lacking: Callable[[Patient], str | None]


@dataclass(frozen=True)
class Symptom:
    """What a check found.

    Attributes:
        evidence: one sentence with the measured numbers and the threshold that they cross.
        remedy: one sentence with the option or command that helps.
        numbers: the measured numbers by name.
        severity: replaces the registered severity.
        certain: False if chance or an assumption may explain the evidence.
    """

    evidence: str
    remedy: str
    numbers: Mapping[str, Any]
    severity: Severity | None = None
    certain: bool = True


@dataclass(frozen=True)
class NotJudged:
    """A check that could not be made: too few data or records, or a case that it does not cover."""

    why: str


@dataclass(frozen=True)
class Disease:
    """A registered disease.

    Attributes:
        name: its name.
        title: what is wrong, in a few words.
        stage: whether it is found before, during or after training.
        severity: serious (results cannot be used as they are), warning (results are worse than they could be) or note.
        needs: conditions on the patient, in the order in which they are checked.
        check: returns the symptom, None if the patient does not have the disease, or why it cannot tell.
        help: what it is, in one sentence.
        thorough: whether the check takes longer than seconds, so that it is made only if asked for.
    """

    name: str
    title: str
    stage: Stage
    severity: Severity
    needs: tuple[Need, ...]
    check: Callable[[Patient], Symptom | NotJudged | None]
    help: str
    thorough: bool = False

    def lacking(self, patient: Patient) -> str | None:
        """Why it cannot be checked here; None if it can."""
        return next((why for need in self.needs if (why := need.lacking(patient)) is not None), None)


DISEASES = Named[Disease]("disease")
"""All diseases by name, in the order in which they are checked."""

Check = Callable[[Patient], Symptom | NotJudged | None]


def disease(
    name: str, title: str, *, stage: Stage, severity: Severity, needs: Sequence[Need] = (), thorough: bool = False
) -> Callable[[Check], Check]:
    """Register a function of a `Patient` as the check of a disease; the first line of its docstring is its help.

    See `Disease` for the arguments.

    Raises:
        ChoiceError: another function is registered under this name.
    """

    def register(check: Check) -> Check:
        described = (inspect.getdoc(check) or "").split("\n")[0].rstrip(".")
        entry = Disease(name, title, stage, severity, tuple(needs), check, described, thorough)
        DISEASES.put(name, entry, origin_of(check))
        return check

    return register


def _data(patient: Patient) -> str | None:
    return None if patient.data is not None else f"the data are unavailable: {patient.missing}"


def _settings(patient: Patient) -> str | None:
    return None if patient.composition is not None else "the recipe refuses these data"


def _run(patient: Patient) -> str | None:
    return None if patient.run is not None else "there is no run yet"


def _trained(patient: Patient) -> str | None:
    if patient.run is None:
        return "there is no run yet"
    return None if patient.weights else "the run has no saved weights"


def _density(patient: Patient) -> str | None:
    composition = patient.composition
    return None if composition is None or composition.model.no_density is None else composition.model.no_density


def _images(patient: Patient) -> str | None:
    kind = patient.kind
    return None if kind == "image" else f"it is for images, and these are {kind} data"


DATA = Need("the data", _data)
SETTINGS = Need("a recipe that accepts the data", _settings)
RUN = Need("a run", _run)
TRAINED = Need("trained weights", _trained)
DENSITY = Need("a density", _density)
IMAGES = Need("images", _images)
