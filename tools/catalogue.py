"""Write src/vaekit/cli/catalogue.json from the registers of vaekit: `python tools/catalogue.py`.

The command line uses this file for lists, help and unknown names, so that it need not import torch. A test compares it
with the registers: run this after changing the name, options or docstring of a recipe, study, metric or reader.
"""

from __future__ import annotations

import json

from vaekit.cli.catalogue import FILE, written
from vaekit.metrics import METRICS
from vaekit.recipes import RECIPES
from vaekit.studies import STUDIES


def text() -> str:
    """The file's text: JSON with one object per line, so that changes are easy to read and merge."""
    content = written(RECIPES.values(), STUDIES.values(), METRICS.values())

    def lines(objects: list[dict[str, object]], indent: str) -> str:
        return ",\n".join(indent + json.dumps(one, ensure_ascii=False) for one in objects)

    def grouped(groups: dict[str, list[dict[str, object]]], indent: str) -> str:
        return ",\n".join(
            f"{indent}{json.dumps(heading)}: [\n{lines(group, indent + ' ')}\n{indent}]"
            for heading, group in groups.items()
        )

    functions = ",\n".join(
        f"  {json.dumps(name)}: {{\n{grouped(groups, '   ')}\n  }}" for name, groups in content["functions"].items()
    )
    rest = ",\n".join(f' "{key}": [\n{lines(content[key], "  ")}\n ]' for key in ("recipes", "studies", "metrics"))
    data = grouped(content["data"], "  ")
    return f'{{\n "functions": {{\n{functions}\n }},\n{rest},\n "data": {{\n{data}\n }}\n}}\n'


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf8")
    print(FILE)
