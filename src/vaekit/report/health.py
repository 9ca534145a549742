"""The section of the report with the diagnosis of the run: what was found, with evidence and remedy."""

from __future__ import annotations

from vaekit.diagnosis import Diagnosis, doctor
from vaekit.utils.wording import worded

from .blocks import Block, Table, Text
from .look import Look
from .registry import figure


@figure("health", "Health")
def health(look: Look) -> list[Block]:
    """The findings of `vaekit doctor` as a table, and what was checked."""
    found = doctor(look.run)
    blocks: list[Block] = [Text(_opening(found), "warning" if found.serious else "plain")]
    if found.findings:
        rows = [[f"{one.severity}{'' if one.certain else ', uncertain'}", one.title, one.evidence, worded(one.remedy)]
                for one in found.findings]  # fmt: skip
        blocks.append(Table(["severity", "finding", "evidence", "remedy"], rows, wide=(2, 3)))
    if found.skipped:
        blocks.append(Text("Not checked: " + "; ".join(f"{name} ({why})" for name, why in found.skipped.items()) + "."))
    return blocks


def _opening(found: Diagnosis) -> str:
    checked = len(found.healthy) + len(found.findings)
    if not found.findings:
        return f"`vaekit doctor` checked {checked} diseases of data, training and model, and found none."
    return f"`vaekit doctor` checked {checked} diseases of data, training and model."
