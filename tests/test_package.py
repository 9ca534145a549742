"""What the built package must carry."""

import fnmatch
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_file_that_is_no_module_is_packaged():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["vaekit"]
    package = ROOT / "src" / "vaekit"
    others = [f.relative_to(package) for f in package.rglob("*") if f.is_file() and f.suffix not in (".py", ".pyc")]
    assert others
    for file in others:
        assert any(fnmatch.fnmatch(file.as_posix(), p) for p in patterns), f"{file} is missing from package-data"


def test_nothing_unpickles_and_nothing_is_left_undone():
    for file in (ROOT / "src").rglob("*.py"):
        text = file.read_text(encoding="utf8")
        for word in ("import pickle", "allow_pickle=True", "TODO", "FIXME", "NotImplementedError(", "torch.load("):
            assert word not in text, f"{file.name} holds {word!r}"


def test_every_run_that_the_lessons_open_fits_the_code():
    """A change of the networks shows here, not in a page: train them again with `make docs-runs`."""
    import vaekit as vk

    runs = sorted(f.parent for f in (ROOT / "docs" / "runs").glob("*/run.json"))
    assert runs
    for path in runs:
        assert vk.open(path).model is not None, path.name
