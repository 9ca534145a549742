"""The progress of training in a notebook's cell, with a stand-in for IPython; tests/report runs a real kernel."""

import sys
import types

import pytest

from vaekit.utils import cell
from vaekit.utils.cell import Cell, in_notebook, progress_for
from vaekit.utils.progress import Plain


class Handle:
    """Keeps what is displayed."""

    def __init__(self):
        self.shown = []

    def update(self, bundle, raw):
        assert raw
        self.shown.append(bundle)


@pytest.fixture
def notebook(monkeypatch):
    """A module IPython as a kernel has it; returns the handle of its display."""
    handle, shell = Handle(), types.SimpleNamespace(config={"IPKernelApp": {}})
    ipython, inner = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    ipython.get_ipython = lambda: shell

    def display(bundle, raw, display_id):
        assert display_id is True
        handle.update(bundle, raw)
        return handle

    inner.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", inner)
    handle.shell = shell
    return handle


@pytest.fixture
def clock(monkeypatch):
    """Stands for the module `time` where the cell reads it."""
    found = types.SimpleNamespace(now=100.0)
    found.monotonic = lambda: found.now
    monkeypatch.setattr(cell, "time", found)
    return found


def test_only_a_kernel_is_a_notebook(notebook, monkeypatch):
    assert in_notebook()
    assert isinstance(progress_for(), Cell)
    notebook.shell.config = {"TerminalIPythonApp": {}}  # IPython on a terminal
    assert not in_notebook()
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)  # imported by a script
    assert not in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_notebook()
    monkeypatch.setattr(sys, "stderr", types.SimpleNamespace(isatty=lambda: False))
    assert isinstance(progress_for(), Plain)


def test_updates_are_few_and_the_last_one_is_shown(notebook, clock):
    with Cell() as shown:
        first = len(notebook.shown)
        for step in range(1, 1001):
            clock.now += 0.01
            shown.update(step, 1000, step / 10, {"elbo": -3.0, "rate": 1.0, "distortion": 2.0}, {}, 1e4)
    assert 40 <= len(notebook.shown) - first <= 43  # ten seconds, four times per second, and the end
    assert 'aria-valuenow="100.0"' in notebook.shown[-1]["text/html"]
    assert (
        notebook.shown[-1]["text/plain"]
        == "step 1,000/1,000  epoch 100.00  10,000 images/s  ELBO -3.00 rate 1.00 distortion 2.00"
    )


def test_numbers_and_notes(notebook, clock):
    shown = Cell()
    shown.note("note: <b>bold</b>")
    valid = {"step": 5, "elbo": -4.0, "rate": 1.5, "distortion": 2.5}
    shown.update(10, 10, 1.0, {"distortion": 2.0}, valid, 0.0)
    html = notebook.shown[-1]["text/html"]
    assert "&lt;b&gt;bold" in html
    assert "valid, step 5" in html
    assert "-4.00" in html
    assert "images/s" not in html
    shown.update(10, 10, 1.0, {}, {}, 0.0)
    assert "<table" not in notebook.shown[-1]["text/html"]


def test_where_the_notebook_is_gone_lines_are_printed(notebook, clock, capsys):
    def gone(*args, **kwargs):
        raise BrokenPipeError

    with Cell() as shown:
        notebook.update = gone
        shown.update(1, 1, 1.0, {"distortion": 2.0}, {}, 0.0)
    assert "step 1/1" in capsys.readouterr().err
