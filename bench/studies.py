"""Run the studies at full length for the documentation: python bench/studies.py [NAME ...]

Without names, runs all ten on Fashion-MNIST for 7 minutes each and `beta` on dSprites for an hour, one after another.
Use an otherwise idle machine. Models are kept in bench/.runs/studies and resumed from there. Writes
docs/extra/studies/*.html, docs/studies.json and docs/studies.md; the last lists every page made so far.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from vaekit.studies import MINUTES, STUDIES, get_study
from vaekit.utils.files import read_json, write_json, write_text

HERE = Path(__file__).parent
RUNS, DOCS = HERE / ".runs" / "studies", HERE.parent / "docs"
BUILT = DOCS / "extra" / "studies"  # docs/extra is copied into the site unchanged
PAGES: dict[str, tuple[str, str, float]] = {  # name of the page: study, data, minutes
    **{name: (name, get_study(name).data, MINUTES) for name in STUDIES},
    "beta": ("beta", "dsprites", 60.0),
    "beta-fashion-mnist": ("beta", "fashion-mnist", MINUTES),
}


def run(page: str) -> dict[str, Any]:
    """Run one study as a user would; its findings and its cost."""
    study, data, minutes = PAGES[page]
    RUNS.mkdir(parents=True, exist_ok=True)
    program = Path(sys.executable).with_name("vaekit")
    before = len(list((RUNS / f"{page}.runs").glob("*/run.json")))
    begun = time.monotonic()
    command = [str(program), "study", study, data, "--minutes", f"{minutes:g}", "--out", f"{page}.html"]
    subprocess.run(command, cwd=RUNS, check=True)
    took = time.monotonic() - begun
    BUILT.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(RUNS / f"{page}.html", BUILT / f"{page}.html")
    models = [read_json(p) for p in (RUNS / f"{page}.runs").glob("*/run.json") if p.parent.name != "pilot"]
    steps = sorted(m["step"] for m in models)
    return {
        "study": study, "data": data, "minutes": minutes, "resumed": before > 0, "took": took, "models": len(models),
        "steps": [steps[0], steps[-1]], "load": os.getloadavg()[2],
        "sentences": read_json(RUNS / f"{page}.runs" / "findings.json")["sentences"],
    }  # fmt: skip


def written(found: dict[str, dict[str, Any]]) -> str:
    """docs/studies.md."""
    out = [
        "# The studies",
        "",
        "`vaekit study NAME [DATA]` trains a few models, measures them, and writes a page with conclusions from its",
        "numbers. The pages below were made by `python bench/studies.py` on two CPU cores. Each states how many",
        "[steps](glossary.md#step) its models were trained for; a longer time limit (`--minutes`) gives more.",
        "",
        "| page | data | models | steps each | time limit, minutes | time used, minutes |",
        "|---|---|---|---|---|---|",
    ]
    for page in (p for p in PAGES if p in found):
        it = found[page]
        low, high = it["steps"]
        steps = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        took = "resumed" if it["resumed"] else f"{it['took'] / 60:.1f}"
        link = f"<a href='studies/{page}.html'>{it['study']}</a>"
        out.append(f"| {link} | {it['data']} | {it['models']} | {steps} | {it['minutes']:g} | {took} |")
    for page in (p for p in PAGES if p in found):
        it = found[page]
        out += ["", f"## {it['study']} on {it['data']}", "", get_study(it["study"]).summary, ""]
        out += [f"> {it['sentences'][0]}", "", f"<a href='studies/{page}.html'>Open the page</a>"]
    return "\n".join([*out, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*PAGES, []], help="pages to make; default: all")
    file = DOCS / "studies.json"
    for page in parser.parse_args().names or PAGES:
        it = run(page)
        last = read_json(file).get(page) if file.exists() else None
        if last and last["steps"] == it["steps"]:  # measured again without more training
            it |= {key: last[key] for key in ("took", "resumed", "load")}
        print(f"{page}: {it['took'] / 60:.2f} of {it['minutes']:g} minutes; {it['sentences'][0]}", flush=True)
        found = {**(read_json(file) if file.exists() else {}), page: it}
        write_json(file, found)
        write_text(DOCS / "studies.md", written(found))


if __name__ == "__main__":
    main()
