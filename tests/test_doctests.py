"""The examples of the reference run, and every public name is in them."""

import doctest
import re
from pathlib import Path

import vaekit as vk
from vaekit import options

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "names.md"


def test_the_page_of_public_names_has_them_all_and_its_examples_run(tmp_path):
    text = PAGE.read_text(encoding="utf8")
    examples = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    used = set(re.findall(r"\bvk\.(\w+)", examples))
    assert {*vk.__all__, "open"} - used == set()
    test = doctest.DocTestParser().get_doctest(examples, {"folder": tmp_path}, PAGE.name, str(PAGE), 0)
    runner = doctest.DocTestRunner(verbose=False)
    report: list[str] = []
    runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)


def test_options_are_described_with_an_example_that_runs():
    assert doctest.testmod(options).failed == 0
    for name in options.abouts():
        assert f"\n        {name}: " in vk.Options.__doc__
