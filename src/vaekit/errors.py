"""Errors that a user can correct.

Every message names the problem, the expected and the actual value, and a remedy; the command line prints it as one
line and exits with status 2. A bug in vaekit raises an `AssertionError`, never one of these.
"""


class VaekitError(ValueError):
    """Base class: the request cannot be carried out."""

    def __str__(self) -> str:
        """The message, with escapes for what cannot be printed: bytes of names of files that are not UTF-8."""
        return super().__str__().encode("utf-8", "backslashreplace").decode("utf-8")


class DataError(VaekitError):
    """The data cannot be found, read or used."""


class UnavailableError(DataError):
    """A named data set is neither cached nor downloadable; the command line exits with status 3."""


class RunError(VaekitError):
    """A run directory is missing, damaged or does not support the request."""


class ChoiceError(VaekitError):
    """A choice (recipe, option, combination of parts) is unknown or does not fit the others."""


class SupportError(ChoiceError):
    """The values of the data lie outside what the likelihood or the observation accepts."""


class TrainingError(VaekitError):
    """Training cannot start or continue."""
