"""Certificates: how far each estimator of log p(x) can be off for a run, and whether its densities are consistent."""

from .certify import Certificate, Verdict, certify
from .checks import Check

__all__ = ["Certificate", "Check", "Verdict", "certify"]
