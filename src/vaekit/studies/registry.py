"""The register of studies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vaekit.errors import ChoiceError
from vaekit.utils.register import Named, origin_of
from vaekit.utils.suggest import unknown

if TYPE_CHECKING:
    from vaekit.data.core import Data
    from vaekit.report.blocks import Section

    from .bench import Bench


@dataclass
class Findings:
    """The results of a study.

    Attributes:
        sentences: the results in words, each composed from the numbers; the main result comes first.
        sections: figures and tables, in the order of the page.
        numbers: the numbers behind the sentences and figures, as JSON.
        notes: caveats that a reader needs in order to judge the numbers.
    """

    sentences: list[str]
    sections: list[Section]
    numbers: dict[str, Any]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Study:
    """One experiment from the literature.

    Attributes:
        name: its name, as on the command line.
        paper: the papers it follows.
        data: its default data set.
        work: the function that trains and measures, given a `Bench`, and returns the findings.
        check: raises ChoiceError before training for data that `work` cannot use; `check_sizes` is called as well.
    """

    name: str
    paper: str
    data: str
    work: Callable[[Bench], Findings]
    check: Callable[[Data], None] = lambda data: None

    @property
    def summary(self) -> str:
        """The first line of the docstring of `work`."""
        return (self.work.__doc__ or "").strip().split("\n")[0]

    @property
    def description(self) -> str:
        """The docstring of `work` after its first line, as one paragraph."""
        lines = (self.work.__doc__ or "").strip().split("\n\n", 1)[1:]
        return " ".join(" ".join(lines).split())


STUDIES = Named[Study]("study")
"""The studies by name."""


def study(
    name: str, paper: str, data: str = "fashion-mnist", check: Callable[[Data], None] = lambda data: None
) -> Callable[[Callable[[Bench], Findings]], Callable[[Bench], Findings]]:
    """Register the decorated function as the study `name`; `vaekit study` lists the first line of its docstring.

    Arguments:
        name: its name on the command line.
        paper: the papers it follows.
        data: the name of its default data set.
        check: raises ChoiceError for data that it cannot use, before training.
    """

    def register(work: Callable[[Bench], Findings]) -> Callable[[Bench], Findings]:
        STUDIES.put(name, Study(name, paper, data, work, check), origin_of(work))
        return work

    return register


def get_study(name: str) -> Study:
    """The study called `name`.

    Raises:
        ChoiceError: no study has this name.
    """
    if name not in STUDIES:
        raise ChoiceError(unknown("study", name, STUDIES, 0.4))
    return STUDIES[name]
