"""Examine data or a run: every disease is checked, and the findings are collected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from vaekit.data.core import Data
from vaekit.data.loading import data_of
from vaekit.errors import ChoiceError, RunError, VaekitError
from vaekit.options import Options
from vaekit.runs.example import place
from vaekit.runs.find import is_run
from vaekit.runs.saved import SavedRun
from vaekit.runs.stored import read_config, rebuild
from vaekit.utils.suggest import unknown
from vaekit.utils.waiting import adaptive_waiting

from .patient import Patient
from .registry import DISEASES, Disease, NotJudged, Severity, Stage, Symptom

STAGES: tuple[Stage, ...] = ("before", "during", "after")
ORDER: tuple[Severity, ...] = ("serious", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """A disease that was found, with its evidence and its remedy; see `Disease` and `Symptom`."""

    name: str
    title: str
    stage: Stage
    severity: Severity
    certain: bool
    evidence: str
    remedy: str
    numbers: dict[str, Any]

    @classmethod
    def of(cls, disease: Disease, symptom: Symptom) -> Finding:
        """The finding of a disease by a symptom."""
        return cls(
            disease.name,
            disease.title,
            disease.stage,
            symptom.severity or disease.severity,
            symptom.certain,
            symptom.evidence,
            symptom.remedy,
            dict(symptom.numbers),
        )

    def __str__(self) -> str:
        """Severity, title, evidence and remedy, in three lines."""
        doubt = "" if self.certain else ", uncertain"
        return f"{self.severity}{doubt}: {self.title} ({self.name})\n  {self.evidence}\n  Remedy: {self.remedy}"


@dataclass(frozen=True)
class Diagnosis:
    """The result of an examination.

    Attributes:
        of: the name of the data or the run.
        findings: what was found, the most severe first.
        healthy: the names of the diseases that were checked and not found.
        skipped: why each other disease was not checked, by name.
    """

    of: str
    findings: tuple[Finding, ...]
    healthy: tuple[str, ...]
    skipped: dict[str, str]

    @property
    def serious(self) -> bool:
        """Whether a serious finding is certain."""
        return any(finding.severity == "serious" and finding.certain for finding in self.findings)

    @property
    def clean(self) -> bool:
        """Whether nothing but notes was found."""
        return all(finding.severity == "note" for finding in self.findings)

    def __getitem__(self, name: str) -> Finding:
        """The finding of this name. Raises KeyError if it was not found."""
        found = {finding.name: finding for finding in self.findings}
        return found[name]

    def __contains__(self, name: object) -> bool:
        return any(finding.name == name for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """The diagnosis as JSON values."""
        found = [asdict(finding) for finding in self.findings]
        healthy, skipped = list(self.healthy), dict(self.skipped)
        return {"of": self.of, "serious": self.serious, "findings": found, "healthy": healthy, "skipped": skipped}

    def __str__(self) -> str:
        """The number of checks, the findings, and the diseases that were not checked by reason."""
        checked, count = len(self.healthy) + len(self.findings), len(self.findings)
        found = "nothing found" if not count else f"{count} finding{'s' * (count > 1)}"
        lines = [f"{self.of}: {found}; {checked} diseases checked, {len(self.skipped)} not checked"]
        unchecked: dict[str, list[str]] = {}
        for name, why in self.skipped.items():
            unchecked.setdefault(why, []).append(name)
        left_out = [f"not checked: {', '.join(names)} ({why})" for why, names in unchecked.items()]
        return "\n".join([*lines, *map(str, self.findings), *left_out])


@adaptive_waiting()
def doctor(
    data: Any,
    recipe: str | None = None,
    *,
    stages: Sequence[Stage] = STAGES,
    thorough: bool = False,
    options: Options | None = None,
    **choices: Any,
) -> Diagnosis:
    """Name the diseases of data or of a run, each with evidence and a remedy.

    Data are examined with the settings of a recipe, as they would be passed to `fit`: nothing is trained. A run is
    examined with its data, its log and its weights. Each threshold is explained in the evidence; a finding that chance
    or an assumption may explain is marked as uncertain.

    Arguments:
        data: a run or its directory, or whatever `fit` takes as data.
        recipe: the recipe to train data with, by default "vae"; not for a run.
        stages: the stages to examine: before, during and after training.
        thorough: whether to make checks that take longer than seconds.
        options: training options; any of them may instead be passed by name.
        choices: arguments of the recipe, and training options by name; not for a run.

    Raises:
        ChoiceError: there is no such recipe or stage, or an option is unknown, wrong or does not suit the data.
        VaekitError: the data or the run cannot be read.
    """
    for stage in stages:
        if stage not in STAGES:
            raise ChoiceError(unknown("stage", stage, STAGES))
    run = _run_of(data)
    if run is None:
        asked = {f.name for f in fields(Options)} & set(choices)
        training = {**({} if options is None else asdict(options)), **{name: choices[name] for name in asked}}
        rest = {name: value for name, value in choices.items() if name not in asked}
        loaded = data_of(data)
        patient = Patient.of_data(loaded, recipe or "vae", Options(**training).checked(), rest)
        return examine(patient, loaded.name, [stage for stage in stages if stage == "before"], thorough)
    if recipe is not None or options is not None or choices:
        raise ChoiceError("a run has its own settings: omit `recipe` and its options, or give data in place of the run")
    return examine(Patient.of_run(run), run.name, stages, thorough)


def _run_of(data: Any) -> SavedRun | None:
    """The run, if it is one or the directory of one; None for data."""
    if isinstance(data, SavedRun):
        return data
    if isinstance(data, str | Path) and (str(data) == "example" or is_run(data)):
        return opened(place(data))
    if isinstance(data, Data) or not isinstance(data, str | Path):
        return None
    if (Path(data) / "log.jsonl").is_file():
        raise RunError(f"{data} holds a log but no run.json: restore run.json, or examine another run")
    return None


def opened(path: Path) -> SavedRun:
    """The run at `path`. One that failed before it saved weights is opened with fresh ones, for its log alone."""
    if (path / "model.safetensors").is_file():
        return SavedRun.open(path)
    config = read_config(path)
    return SavedRun(path, config, rebuild(config))


def examine(patient: Patient, of: str, stages: Sequence[Stage] = STAGES, thorough: bool = False) -> Diagnosis:
    """Check every disease of these stages."""
    findings, healthy, skipped = [], [], {}
    for disease in DISEASES.values():
        if disease.stage not in stages:
            continue
        why = disease.lacking(patient)
        if why is None and disease.thorough and not thorough:
            why = "it takes longer: add `thorough=True`"
        try:
            symptom = disease.check(patient) if why is None else None
        except VaekitError as error:
            why, symptom = str(error), None
        if isinstance(symptom, NotJudged):
            why, symptom = symptom.why, None
        if why is not None:
            skipped[disease.name] = why
        elif symptom is None:
            healthy.append(disease.name)
        else:
            findings.append(Finding.of(disease, symptom))
    findings.sort(key=lambda f: (ORDER.index(f.severity), not f.certain, STAGES.index(f.stage)))
    return Diagnosis(of, tuple(findings), tuple(healthy), skipped)
