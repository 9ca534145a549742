"""Packages that are installed without pip: a module and its dist-info with an entry point, on sys.path."""

import contextlib
import sys
from pathlib import Path

from vaekit.cli import catalogue
from vaekit.data.readers.registry import READERS
from vaekit.latents.densities import DENSITIES
from vaekit.metrics import METRICS
from vaekit.recipes import RECIPES
from vaekit.report import FIGURES
from vaekit.studies import STUDIES
from vaekit.utils import plugins


@contextlib.contextmanager
def kept():
    """The registers as they are, whatever is registered meanwhile."""
    picks = [pick for recipe in RECIPES.values() for pick in recipe.signature.picks.values()]
    registers = [RECIPES, STUDIES, FIGURES, DENSITIES, METRICS, READERS, *(pick.register for pick in picks)]
    held = [register.entries for register in registers]
    before = [dict(entries) for entries in held]
    yield
    for entries, old in zip(held, before, strict=True):
        entries.clear()
        entries.update(old)


def forget() -> None:
    """Look for plug-ins anew, as a fresh process does."""
    plugins.installed.cache_clear()
    plugins._begun.clear()
    plugins._failed.clear()
    for known in (catalogue._read, catalogue.recipes, catalogue.studies, catalogue.metrics, catalogue.data_options):
        known.cache_clear()


def install(folder: Path, package: str, module: str, source: str) -> None:
    """Write a package to a folder on sys.path; `module` is its entry point."""
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[vaekit.parts]\nmine = {module}\n")
    forget()


def remove(folder: Path) -> None:
    """Delete all that was installed in the folder."""
    for file in folder.glob("*.py"):
        sys.modules.pop(file.stem, None)
        file.unlink()
    for info in folder.glob("*.dist-info"):
        for file in info.iterdir():
            file.unlink()
        info.rmdir()
    forget()


def contributing(heading: str) -> str:
    """The Python code below a heading of CONTRIBUTING.md, as one module."""
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf8")
    chapter = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return "\n".join(code.partition("```")[0] for code in chapter.split("```python\n")[1:])


@contextlib.contextmanager
def installed(tmp_path: Path, monkeypatch, package: str, module: str, heading: str):
    """The folder of a package that is installed with the code under a heading of CONTRIBUTING.md, and then removed."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    with kept():
        install(folder, package, module, contributing(heading))
        yield folder
        remove(folder)
