"""Plug-ins are found by their entry points, imported once, and named where they are missing or broken."""

import sys

import pytest
from plugin_helpers import install, remove

from vaekit.utils import plugins


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    remove(tmp_path)


def test_a_plugin_is_imported_once_and_belongs_to_its_package(folder):
    install(folder, "vaekit-counting", "counting_plugin", "TIMES = [1]\n")
    plugins.load_plugins()
    sys.modules["counting_plugin"].TIMES.append(2)
    plugins.load_plugins()
    assert sys.modules["counting_plugin"].TIMES == [1, 2]
    assert plugins.package_of("counting_plugin.inner") == "vaekit-counting"
    assert plugins.package_of(plugins.__name__) is None
    assert plugins.why_absent("vaekit-counting") is None


def test_a_broken_plugin_is_left_out_and_named(folder):
    install(folder, "vaekit-broken", "broken_plugin", "import no_such_module_at_all\n")
    with pytest.warns(UserWarning, match=r"broken_plugin of the package vaekit-broken.*no_such_module_at_all"):
        plugins.load_plugins()
    assert "could not be imported" in plugins.why_absent("vaekit-broken")


def test_a_missing_package_is_named_with_the_command_that_installs_it():
    assert plugins.why_absent("vaekit-nowhere") == (
        "the package vaekit-nowhere is not installed: `pip install vaekit-nowhere`"
    )
