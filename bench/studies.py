"""Run the studies at full length for the documentation: python bench/studies.py [NAME ...]

Without names, runs all, one after another: about 3 hours on 2 cores. Most use Fashion-MNIST, `kingma2013-marginal`
MNIST, and `beta` dSprites too.
The number of training steps is given, so the results do not depend on the speed of the machine. Models are kept in
bench/.runs/studies and resumed from there. Writes docs/extra/studies/*.html, docs/studies.json and docs/studies.md;
the last lists every page made so far.
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

from vaekit.studies import get_study
from vaekit.studies.beta import over_seeds
from vaekit.utils.files import read_json, write_json, write_text

HERE = Path(__file__).parent
RUNS, DOCS = HERE / ".runs" / "studies", HERE.parent / "docs"
BUILT = DOCS / "extra" / "studies"  # docs/extra is copied into the site unchanged
BUSY = 2.9  # load average of a machine that did other work, too
PAGES: dict[str, tuple[str, str, int]] = {  # name of the page: study, data, steps of each model
    "ae-vs-vae": ("ae-vs-vae", "fashion-mnist", 8_000),
    "beta": ("beta", "dsprites", 45_000),
    "blur": ("blur", "fashion-mnist", 2_000),
    "kl-weight": ("kl-weight", "fashion-mnist", 1_700),
    "collapse": ("collapse", "fashion-mnist", 6_500),
    "denoising": ("denoising", "fashion-mnist", 12_000),
    "complete": ("complete", "fashion-mnist", 1_800),
    "importance": ("importance", "fashion-mnist", 5_800),
    "interpolation": ("interpolation", "fashion-mnist", 11_600),
    "kingma2013-bound": ("kingma2013-bound", "fashion-mnist", 3_800),
    "kingma2013-marginal": ("kingma2013-marginal", "mnist", 15_000),
    "beta-fashion-mnist": ("beta", "fashion-mnist", 5_600),
}
MINUTES = {"kingma2013-marginal": 10}
"""Minutes that set the number of data measured, where they are not the default."""


def run(page: str) -> dict[str, Any]:
    """Run one study as a user would; its findings and its cost."""
    study, data, steps = PAGES[page]
    RUNS.mkdir(parents=True, exist_ok=True)
    program = Path(sys.executable).with_name("vaekit")
    before = len(list((RUNS / f"{page}.runs").rglob("run.json")))
    begun = time.monotonic()
    command = [str(program), "study", study, data, "--steps", str(steps), "--out", f"{page}.html"]
    if page in MINUTES:
        command += ["--minutes", str(MINUTES[page])]
    subprocess.run(command, cwd=RUNS, check=True)
    took = time.monotonic() - begun
    BUILT.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(RUNS / f"{page}.html", BUILT / f"{page}.html")
    return {
        "study": study, "data": data, "models": trained(page), "steps": steps, "resumed": before > 0, "took": took,
        "load": os.getloadavg()[2],
        "sentences": read_json(RUNS / f"{page}.runs" / "findings.json")["sentences"],
    }  # fmt: skip


def trained(page: str) -> int:
    """The number of models of a page: runs, and models of Monte Carlo EM, which are none."""
    folder = RUNS / f"{page}.runs"
    return sum(len(list(folder.rglob(name))) for name in ("run.json", "monte-carlo-em.safetensors"))


def written(found: dict[str, dict[str, Any]]) -> str:
    """docs/studies.md."""
    pages = [page for page in PAGES if page in found]
    out = [
        "# The studies",
        "",
        "`vaekit study NAME [DATA]` trains a few models, measures them, and writes a page with conclusions from its",
        "numbers. The pages below were made by `python bench/studies.py` on two CPU cores. The table lists how many",
        "[steps](glossary.md#step) each model of a page was trained for; more steps (`--steps`) or more time",
        # The stored pages; delete this sentence when they are made again.
        "(`--minutes`) continue the training. All pages were made with the former defaults of dense networks for",
        "images, `lr=0.001, schedule='cosine', beta2=0.999`, but the two of Kingma and Welling (2013), which train by",
        "Adagrad as the paper does.",
        "",
        "A page calls a difference significant by Student's t test over seeds or examples, and corrects for the number",
        "of claims on the page. With three seeds, as in kl-weight, this rarely settles which weight is best. All other",
        "studies train one seed per model.",
        "",
    ]
    if any(found[page].get("old_rule") for page in pages):
        out += [
            "Pages marked * are older than this rule and claim every difference beyond two",
            "[standard errors](glossary.md#standard-error). Other pages claim less.",
            "",
        ]
    out += ["| page | data | models | steps each | minutes |", "|---|---|---|---|---|"]
    for page in pages:
        it = found[page]
        took = "resumed" if it["resumed"] else "machine busy" if it["load"] > BUSY else f"{it['took'] / 60:.1f}"
        link = f"<a href='studies/{page}.html'>{it['study']}</a>{' *' * it.get('old_rule', False)}"
        out.append(f"| {link} | {it['data']} | {it['models']} | {it['steps']:,} | {took} |")
    for page in (p for p in PAGES if p in found):
        it = found[page]
        out += ["", f"## {it['study']} on {it['data']}", "", get_study(it["study"]).summary, ""]
        out += [f"> {it['sentences'][0]}", ""]
        if page == "beta":  # its data are those of the comparison
            out += ["Each model has one seed. [Over several seeds](falling.md):", "", f"> {over_seeds()}", ""]
        out += [f"<a href='studies/{page}.html'>Open the page</a>"]
    return "\n".join([*out, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*PAGES, []], help="pages to make; default: all")
    file = DOCS / "studies.json"
    for page in parser.parse_args().names or PAGES:
        it = run(page)
        last = read_json(file).get(page) if file.exists() else None
        if last and it["resumed"] and last["steps"] == it["steps"]:  # measured again without more training
            it |= {key: last[key] for key in ("took", "resumed", "load")}
        print(f"{page}: {it['took'] / 60:.2f} minutes; {it['sentences'][0]}", flush=True)
        pages = {**(read_json(file) if file.exists() else {}), page: it}
        write_json(file, pages)
        write_text(DOCS / "studies.md", written(pages))


if __name__ == "__main__":
    main()
