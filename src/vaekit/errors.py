"""Errors that a user can put right.

Every message says what was wrong, what was expected, what was got and what to do; the command line prints it as one
line and ends with status 2. A failed invariant of our own is an `AssertionError`, never one of these.
"""


class VaekitError(ValueError):
    """Something asked of vaekit cannot be done as asked."""


class DataError(VaekitError):
    """The data cannot be found, read or used."""


class UnavailableError(DataError):
    """A named data set is not on this machine and can be downloaded from nowhere: the program ends with status 3."""


class RunError(VaekitError):
    """A run directory is missing, damaged or does not fit what is asked of it."""


class ChoiceError(VaekitError):
    """A choice (recipe, option, combination of parts) does not exist or does not fit the others."""


class TrainingError(VaekitError):
    """Training cannot start or cannot go on."""
