"""A study in one file of another package, as CONTRIBUTING.md says, is listed and run like those of vaekit."""

import json
import sys

import numpy as np
import pytest
from plugin_helpers import installed

from vaekit.cli import main
from vaekit.errors import ChoiceError
from vaekit.studies import STUDIES, get_study


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder of an installed package with the study that CONTRIBUTING shows."""
    with installed(tmp_path, monkeypatch, "vaekit-width", "width_study", "Add a study") as folder:
        yield folder


def test_a_study_of_a_plugin_is_listed_and_writes_its_page(package, tmp_path, study_clock, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    study_clock.per_step = 0.05
    assert main(["study"]) == 0
    out = capsys.readouterr().out
    assert "width" in out
    assert "Compares a narrow and a wide network by the ELBO of test data." in out
    assert main(["study", "widht"]) == 2
    assert "did you mean 'width'" in capsys.readouterr().err
    assert main(["study", "width", "--minutes", "0.25"]) == 0
    page = (tmp_path / "study-width-digits.html").read_text(encoding="utf8")
    for text in ("The ELBO", "narrow", "wide", "one hidden layer, of 16 and of 256 units", "vaekit study width digits"):
        assert text in page
    numbers = json.loads((tmp_path / "study-width-digits.runs" / "findings.json").read_text())["numbers"]
    assert {name: np.isfinite(elbo).all() for name, elbo in numbers.items()} == {"narrow": True, "wide": True}


def test_its_sentences_follow_the_numbers(package):
    assert get_study("width").paper
    read = sys.modules["width_study"].read
    low, high = np.linspace(-3, -2, 50).tolist(), np.linspace(-2, -1, 50).tolist()
    assert "higher than that of the narrow one" in read({"narrow": low, "wide": high})[0]
    assert "lower than that of the narrow one" in read({"narrow": high, "wide": low})[0]
    assert "not significantly different from" in read({"narrow": low, "wide": low[::-1]})[0]


def test_a_name_is_taken_once():
    with pytest.raises(ChoiceError, match=r"there is a study 'beta' already, vaekit\.studies\.beta\.\w+: choose"):
        STUDIES.put("beta", get_study("blur"), "another_package.beta")
