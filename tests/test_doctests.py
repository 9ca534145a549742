"""The examples of the reference run; every public name is in them, and every name of a package in the reference."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import vaekit as vk
from vaekit import options

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
PAGE = REFERENCE / "names.md"
PACKAGES = ("data", "export", "explorer", "report", "synthetic", *vk._MODULES.values())
OWN_USE = {"add_metrics", "facts", "of", "of_frame", "place_of"}
"""Methods of a run that the rest of vaekit calls, and the name of `spec` in version 0.1."""


def examples():
    return "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf8"), re.DOTALL))


def test_the_page_of_public_names_has_them_all_and_its_examples_run(tmp_path):
    used = set(re.findall(r"\bvk\.(\w+)", examples()))
    assert {*vk.__all__, "open"} - used == set()
    test = doctest.DocTestParser().get_doctest(examples(), {"folder": tmp_path}, PAGE.name, str(PAGE), 0)
    runner = doctest.DocTestRunner(verbose=False)
    report: list[str] = []
    runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)


def test_it_shows_everything_that_a_run_can_do():
    used = set(re.findall(r"\.(\w+)", examples()))
    assert {name for name in dir(vk.Run) if not name.startswith("_")} - used - OWN_USE == set()


def test_every_public_class_and_function_of_a_package_is_in_the_reference():
    pages = "".join(page.read_text(encoding="utf8") for page in REFERENCE.glob("*.md"))
    documented = set(re.findall(r"automodule:: (\S+)\n```", pages)) | set(re.findall(r"automodule:: (\S+)\n\n", pages))
    seen, missing = 0, []
    for package in sorted(PACKAGES):
        module = importlib.import_module(f"vaekit.{package}")
        for name in getattr(module, "__all__", ()):
            one = getattr(module, name)
            if name.startswith("_") or not (inspect.isclass(one) or inspect.isfunction(one)):
                continue
            seen += 1
            if module.__name__ not in documented and one.__module__ not in documented:
                missing.append(f"{one.__module__}.{name}")
    assert seen > 100
    assert missing == []


def test_options_are_described_with_an_example_that_runs():
    assert doctest.testmod(options).failed == 0
    for name in options.abouts():
        assert f"\n        {name}: " in vk.Options.__doc__
