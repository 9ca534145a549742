"""Rules of style that no linter knows: how long functions and files are, and what is never written."""

import ast
from pathlib import Path

import vaekit

ROOT = Path(vaekit.__file__).parent
FILES = {str(f.relative_to(ROOT)): f.read_text(encoding="utf8") for f in sorted(ROOT.rglob("*.py"))}
LINES_OF_A_FUNCTION = 80
LINES_OF_A_FILE = 500
TO_BE_SPLIT = {
    "data/loading.py: from_arrays",
    "data/observation.py",
    "data/readers/images.py",
    "recipes/compose.py: compose",
    "runs/likelihood.py: per_datum",
    "training/fit.py: train",
}
"""What is longer than it may be; nothing is added here."""


def functions(text):
    return (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def test_functions_are_short():
    lengths = {
        f"{file}: {f.name}": f.end_lineno - f.lineno + 1 for file, text in FILES.items() for f in functions(text)
    }
    assert len(lengths) > 1000
    assert {name for name, n in lengths.items() if n > LINES_OF_A_FUNCTION} <= TO_BE_SPLIT


def test_files_are_short():
    lengths = {file: text.count("\n") for file, text in FILES.items()}
    assert {file for file, n in lengths.items() if n > LINES_OF_A_FILE} <= TO_BE_SPLIT


def test_nothing_is_asked_whether_it_has_an_attribute():
    """A class or protocol says what its objects can do; `isinstance` asks for that."""
    found = {
        file
        for file, text in FILES.items()
        for n in ast.walk(ast.parse(text))
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "hasattr"
    }
    assert found == set()
