"""The lessons as notebooks: valid, with the code of the page, and without markup that a notebook cannot show."""

import importlib.util
import re
import zipfile
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the lessons become notebooks with nbformat")
DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted((DOCS / "lessons").glob("[0-9]*.md"))


@pytest.fixture(scope="module")
def notebooks():
    """The module docs/notebooks.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("notebooks", DOCS / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_lessons_become_notebooks(notebooks, path):
    book, files = notebooks.convert(path, version="1.2")
    assert nbformat.validate(book) is None
    text = "\n".join(c.source for c in book.cells if c.cell_type == "markdown")
    code = [c for c in book.cells if c.cell_type == "code"]
    assert re.findall(r":::|\{code-cell\}|\]\(\.\./|\.md[)#]", text) == []
    assert text.count("# ") >= 2
    page = path.read_text(encoding="utf8")
    assert len(code) == 1 + page.count("```{code-cell}")
    assert all(c.source.strip() and c.source.strip() in page for c in code[1:])
    hidden = sum(c.metadata.get("jupyter", {}).get("source_hidden", False) for c in code)
    assert hidden == page.count(":tags: [hide-input]")
    assert bool(files) == ('"../' in "".join(c.source for c in code[1:]))
    assert all((DOCS / file).is_file() for file in files)


def test_cells_are_those_of_the_site(notebooks):
    """Compared with the reader of the site, which parses Markdown instead of searching for cells."""
    read = pytest.importorskip("myst_nb.core.read", reason="the site's reader is myst-nb")
    for path in PAGES:
        text = path.read_text(encoding="utf8")
        theirs = read.read_myst_markdown_notebook(text).cells
        assert [(c.cell_type, c.source) for c in notebooks.cells(text)] == [(c.cell_type, c.source) for c in theirs]


def test_boxes_and_links(notebooks):
    text = (
        "See [the *term*](../glossary.md#bound) and [next](02-nonlinear-model.md), ![x](../images/x.png).\n\n"
        ":::{admonition} Where <b>\n:class: warning\n\n- one\n:::\n\n:::{dropdown} Answer\n$x$ ends.\n:::\n"
    )
    expected = (
        "See the *term* and next, ![x](../images/x.png).\n\n> **Where <b>**\n>\n> - one\n\n"
        "<details><summary>Answer</summary>\n\n$x$ ends.\n\n</details>\n"
    )
    assert notebooks.plain(text) == expected
    linked = notebooks.plain(text, "https://x.org/docs")
    assert "[the *term*](https://x.org/docs/glossary.html#bound)" in linked
    assert "[next](https://x.org/docs/lessons/02-nonlinear-model.html)" in linked


def test_lessons_with_models_are_archives_that_hold_them(notebooks, tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "HERE", tmp_path)
    (tmp_path / "lessons").mkdir()
    for name in ("runs/a", "runs/b-x", "runs/other"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").write_text("{}")
    (tmp_path / "results.json").write_text("{}")
    cell = '```{code-cell} python\nopen("../results.json"), [f"../runs/b-{n}" for n in ["x"]], "../runs/a"\n```\n'
    (tmp_path / "lessons" / "01-one.md").write_text(f"---\na: b\n---\n\n# 1. One\n\n{cell}")
    (tmp_path / "lessons" / "02-two.md").write_text("# 2. Two\n\ntext\n")
    written = notebooks.write(tmp_path / "out", "https://x.org", "1.2")
    assert written == {"01-one": "01-one.zip", "02-two": "02-two.ipynb"}
    with zipfile.ZipFile(tmp_path / "out" / "01-one.zip") as archive:
        inside = set(archive.namelist())
    assert inside == {"lessons/01-one.ipynb", "results.json", "runs/a/run.json", "runs/b-x/run.json"}
    book = nbformat.read(tmp_path / "out" / "01-one.ipynb", 4)
    assert "https://x.org/notebooks/01-one.zip" in book.cells[1].source
    (tmp_path / "lessons" / "03-three.md").write_text('# 3.\n\n```{code-cell} python\n"../absent"\n```\n')
    with pytest.raises(ValueError, match=r"03-three opens absent"):
        notebooks.write(tmp_path / "out")


def test_a_lesson_runs_as_a_notebook(notebooks, tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="notebooks are run with nbclient")
    pytest.importorskip("ipykernel", reason="notebooks need a kernel")
    book, _ = notebooks.convert(DOCS / "lessons" / "01-latent-variables.md")
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=600, kernel_name="python3", resources=where).execute()
    assert sum(bool(c.get("outputs")) for c in book.cells) > 4
