"""The wheel and the source archive: built, installed without the network, and used outside the repository."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import vaekit

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "vaekit"
OF_THE_BUILD = ("pyproject.toml", "README.md", "LICENSE")

pytest.importorskip("build", reason="the packages are built with `build`")
pytest.importorskip("setuptools", minversion="77", reason="the packages are built with setuptools")
pytest.importorskip("pip", reason="the wheel is installed with pip")


def done(*command, cwd):
    """Run a program without this process's paths, so that it finds only what is installed; its standard output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ran = subprocess.run([*map(str, command)], cwd=cwd, env=kept, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the source archive and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"  # a copy, because setuptools writes into the folder that it builds
    shutil.copytree(PACKAGE, source / "src" / "vaekit", ignore=shutil.ignore_patterns("__pycache__"))
    for name in OF_THE_BUILD:
        shutil.copy(ROOT / name, source / name)
    done(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", source, cwd=folder)
    return folder / "dist"


def test_the_archives_hold_every_file_of_the_package(built):
    files = {f.relative_to(PACKAGE.parent).as_posix(): f for f in PACKAGE.rglob("*") if f.is_file()}
    files = {name: f for name, f in files.items() if "__pycache__" not in name}
    assert len(files) > 200
    with zipfile.ZipFile(*built.glob("*.whl")) as wheel:
        inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
        assert inside == set(files)
        assert [name for name in inside if wheel.read(name) != files[name].read_bytes()] == []
    with tarfile.open(*built.glob("*.tar.gz")) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert inside >= {*(f"src/{name}" for name in files), *OF_THE_BUILD}


def test_the_wheel_works_where_only_its_dependencies_are_installed(built, tmp_path):
    """The environment sees the packages beside this Python's, but neither the repository nor an editable install."""
    venv.create(tmp_path / "bare", with_pip=False)
    scripts = tmp_path / "bare" / ("Scripts" if sys.platform == "win32" else "bin")
    python = shutil.which("python", path=scripts)
    own = sysconfig.get_path("purelib", "venv", {"base": str(tmp_path / "bare")})
    (wheel,) = built.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    done(*pip, "install", "--no-deps", "--no-index", "--no-compile", wheel, cwd=tmp_path)
    # a path in a .pth file adds the packages of a folder without the .pth files, thus editable installs, in it
    (Path(own) / "dependencies.pth").write_text("\n".join({sysconfig.get_path(n) for n in ("purelib", "platlib")}))
    assert done(shutil.which("vaekit", path=scripts), "--version", cwd=tmp_path).strip() == vaekit.__version__
    code = "import vaekit as vk; print(vk.__file__); print(vk.open('example').sample(2).shape)"
    file, shape = done(python, "-c", code, cwd=tmp_path).splitlines()
    assert Path(file).resolve().is_relative_to(Path(own).resolve())
    assert shape == "(2, 1, 28, 28)"
