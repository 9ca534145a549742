"""The studies by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vaekit.errors import ChoiceError
from vaekit.utils.suggest import unknown

if TYPE_CHECKING:
    from vaekit.data.core import Data
    from vaekit.report.blocks import Section

    from .bench import Bench


@dataclass
class Findings:
    """What a study found.

    Attributes:
        sentences: what the numbers say, each made from them; the first is the main one.
        sections: figures and tables, in the order of the page.
        numbers: what the sentences and figures were made from, as JSON.
        notes: what the reader must know of these numbers before believing them.
    """

    sentences: list[str]
    sections: list[Section]
    numbers: dict[str, Any]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Study:
    """One experiment of the literature.

    Attributes:
        name: on the command line.
        paper: where it comes from.
        data: the data set it runs on by default.
        summary, description: of the docstring of `work`.
        work: called with a `Bench`; trains, measures and reads.
        check: refuses data that `work` cannot use, before anything is trained; beside what all studies need.
    """

    name: str
    paper: str
    data: str
    work: Callable[[Bench], Findings]
    check: Callable[[Data], None] = lambda data: None

    @property
    def summary(self) -> str:
        return (self.work.__doc__ or "").strip().split("\n")[0]

    @property
    def description(self) -> str:
        lines = (self.work.__doc__ or "").strip().split("\n\n", 1)[1:]
        return " ".join(" ".join(lines).split())


STUDIES: dict[str, Study] = {}


def study(name: str, paper: str, data: str = "fashion-mnist", check: Callable[[Data], None] = lambda data: None):
    """Register a function as the study of this name; its docstring's first line is what `vaekit study` lists."""

    def keep(work: Callable[[Bench], Findings]) -> Callable[[Bench], Findings]:
        STUDIES[name] = Study(name, paper, data, work, check)
        return work

    return keep


def get_study(name: str) -> Study:
    """The study of this name.

    Raises:
        ChoiceError: there is none.
    """
    if name not in STUDIES:
        raise ChoiceError(unknown("study", name, STUDIES, 0.4))
    return STUDIES[name]
