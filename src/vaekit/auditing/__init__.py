"""Audits of anybody's VAE in torch by experiments on its methods: `audit` and its faults."""

from . import likelihoods  # its experiments
from .bench import Audit, Fault
from .experiments import audit
from .subject import Subject, from_file

__all__ = ["Audit", "Fault", "Subject", "audit", "from_file", "likelihoods"]
