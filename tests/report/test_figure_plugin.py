"""A figure in one file of another package, as CONTRIBUTING.md says, is in the report of a run."""

import pytest
from core_helpers import QUIET, blobs
from plugin_helpers import installed, kept

import vaekit as vk
from vaekit.report import DATA, FIGURES, Look, figure, write_report
from vaekit.report.blocks import Text


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder of an installed package with the figure that CONTRIBUTING shows."""
    with installed(tmp_path, monkeypatch, "vaekit-lengths", "lengths_figure", "Add a figure to the report") as folder:
        yield folder


@pytest.fixture
def run(tmp_path):
    data = vk.from_arrays(blobs(60, 4, 4), name="blobs")
    made = vk.fit(data, "vae", out=tmp_path / "run", latent=2, hidden=(4,), steps=2, batch=20, **QUIET)
    made.use_data(data)
    return made


def test_a_figure_of_a_plugin_is_a_section_of_the_report(package, run):
    names = list(FIGURES)
    assert names[-1] == "lengths"
    for name in names[:-1]:
        FIGURES.entries.pop(name)  # the others take their time
    page = write_report([run]).read_text(encoding="utf8")
    assert "Lengths of codes" in page
    assert f"the first {len(run.data.test)} test examples" in page
    assert (run.path / "figures" / "code-lengths.png").read_bytes()[:4] == b"\x89PNG"
    page = write_report([vk.open(run.path)]).read_text(encoding="utf8")
    assert "Not shown, because the data are unavailable" in page
    assert "code-lengths" not in page


def test_a_figure_without_blocks_is_left_out_and_the_first_unmet_need_is_named(run):
    with kept():
        figure("nothing", "Nothing")(lambda look: [])
        figure("needy", "Needy", needs=[DATA])(lambda look: [Text("drawn")])
        look = Look(run)
        assert FIGURES["nothing"].section(look) is None
        assert FIGURES["needy"].section(look).blocks == [Text("drawn")]
        look.data = None
        (said,) = FIGURES["needy"].section(look).blocks
        assert (said.tone, said.text[:10]) == ("note", "Not shown,")
