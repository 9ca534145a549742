"""Plug-ins are found by their entry points, imported once, and named where they are missing or broken."""

import sys

import pytest

from vaekit.utils import plugins


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Write packages with one module and an entry point each to a folder on sys.path, as pip would."""

    def write(package, module, source):
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[vaekit.parts]\nmine = {module}\n")
        plugins.found.cache_clear()

    monkeypatch.syspath_prepend(str(tmp_path))
    yield write
    plugins.found.cache_clear()
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(file.stem, None)


def test_a_plugin_is_imported_once_and_belongs_to_its_package(install):
    install("vaekit-counting", "counting_plugin", "import builtins\nclass Part: pass\nTIMES = [1]\n")
    plugins.load_plugins()
    module = sys.modules["counting_plugin"]
    module.TIMES.append(2)
    plugins.load_plugins()
    assert sys.modules["counting_plugin"].TIMES == [1, 2]
    assert plugins.package_of(module.Part) == "vaekit-counting"
    assert plugins.package_of(plugins.load_plugins) is None
    assert plugins.why_absent("vaekit-counting") is None


def test_a_broken_plugin_is_left_out_and_named(install):
    install("vaekit-broken", "broken_plugin", "import no_such_module_at_all\n")
    with pytest.warns(UserWarning, match=r"broken_plugin of the package vaekit-broken.*no_such_module_at_all"):
        plugins.load_plugins()
    assert "could not be imported" in plugins.why_absent("vaekit-broken")


def test_a_missing_package_is_named_with_the_command_that_installs_it():
    assert plugins.why_absent("vaekit-nowhere") == (
        "the package vaekit-nowhere is not installed: `pip install vaekit-nowhere`"
    )
