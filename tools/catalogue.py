"""Write src/vaekit/catalogue.json from the registers of recipes and studies: `python tools/catalogue.py`.

The command line answers its lists, help and wrong names from that file, without importing torch. A test holds it
against the registers, so run this after a change of what a recipe or a study is called, takes or says of itself.
"""

from __future__ import annotations

import json

from vaekit.catalogue import FILE, written
from vaekit.recipes import RECIPES
from vaekit.studies import STUDIES


def text() -> str:
    """The file: JSON with an object a line, so that changes can be read and merged."""
    held = written(RECIPES.values(), STUDIES.values())

    def lines(objects: list[dict[str, object]], indent: str) -> str:
        return ",\n".join(indent + json.dumps(one, ensure_ascii=False) for one in objects)

    functions = ",\n".join(
        f"  {json.dumps(name)}: {{\n"
        + ",\n".join(f"   {json.dumps(heading)}: [\n{lines(group, '    ')}\n   ]" for heading, group in groups.items())
        + "\n  }"
        for name, groups in held["functions"].items()
    )
    rest = ",\n".join(f' "{key}": [\n{lines(held[key], "  ")}\n ]' for key in ("recipes", "studies"))
    data = ",\n".join(f"  {json.dumps(name)}: {json.dumps(names)}" for name, names in held["data"].items())
    return f'{{\n "functions": {{\n{functions}\n }},\n{rest},\n "data": {{\n{data}\n }}\n}}\n'


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf8")
    print(FILE)
