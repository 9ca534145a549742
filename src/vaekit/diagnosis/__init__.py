"""Diseases of data, settings and runs, each with evidence and a remedy: `doctor` and the register of diseases."""

from vaekit.utils.environment import Environment, environment

from . import after, before, during, samples  # noqa: F401 - they register their diseases, in this order
from .examination import STAGES, Diagnosis, Finding, doctor, opened
from .registry import DISEASES, Disease, NotJudged, Stage, Symptom, disease

__all__ = [
    "DISEASES",
    "STAGES",
    "Diagnosis",
    "Disease",
    "Environment",
    "Finding",
    "NotJudged",
    "Stage",
    "Symptom",
    "disease",
    "doctor",
    "environment",
    "opened",
]
