"""Rules of style that no linter knows: how long functions and files are, and what is never written."""

import ast
from pathlib import Path

import vaekit

ROOT = Path(vaekit.__file__).parent
FILES = {str(f.relative_to(ROOT)): f.read_text(encoding="utf8") for f in sorted(ROOT.rglob("*.py"))}
LINES_OF_A_FUNCTION = 80
LINES_OF_A_FILE = 500
OF_TORCH_AND_OTHERS = {
    "forward", "sample", "rsample", "log_prob", "expand", "mean", "variance", "stddev", "mode", "entropy", "support",
    "cdf", "icdf", "check", "backward", "connect", "http_open", "https_open", "uuid",
    "arguments", "summary",
}  # fmt: skip
"""Methods that a class outside vaekit documents, such as `torch.distributions.Distribution`."""


def functions(text):
    return (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def test_functions_are_short():
    lengths = {
        f"{file}: {f.name}": f.end_lineno - f.lineno + 1 for file, text in FILES.items() for f in functions(text)
    }
    assert len(lengths) > 1000
    assert {name: n for name, n in lengths.items() if n > LINES_OF_A_FUNCTION} == {}


def test_files_are_short():
    lengths = {file: text.count("\n") for file, text in FILES.items()}
    assert {file: n for file, n in lengths.items() if n > LINES_OF_A_FILE} == {}


def test_nothing_is_asked_whether_it_has_an_attribute():
    """A class or protocol says what its objects can do; `isinstance` asks for that."""
    found = {
        file
        for file, text in FILES.items()
        for n in ast.walk(ast.parse(text))
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "hasattr"
    }
    assert found == set()


def test_public_methods_are_documented_where_they_first_stand():
    """Ruff asks for docstrings of modules, classes and functions; a method that overrides another inherits its own."""
    classes = {
        n.name: (file, n)
        for file, text in FILES.items()
        for n in ast.walk(ast.parse(text))
        if isinstance(n, ast.ClassDef)
    }

    def bases(node):
        for base in node.bases:
            name = ast.unparse(base).split(".")[-1].split("[")[0]
            if name in classes:
                yield classes[name][1]
                yield from bases(classes[name][1])

    def methods(node):
        return {m.name: m for m in node.body if isinstance(m, ast.FunctionDef)}

    missing = set()
    for name, (file, node) in classes.items():
        inherited = {m for base in bases(node) for m, f in methods(base).items() if ast.get_docstring(f)}
        for method, function in methods(node).items():
            setter = any(ast.unparse(d).endswith(".setter") for d in function.decorator_list)
            known = method in OF_TORCH_AND_OTHERS or method in inherited or ast.get_docstring(function) or setter
            if not (known or method.startswith("_") or name.startswith("_")):
                missing.add(f"{file}: {name}.{method}")
    assert missing == set()


LINES_OF_A_COPY = 6


def telling_lines(text):
    """The numbered lines that say something: without imports, comments, brackets alone and signatures.

    A signature is left out because it declares what a function takes, for readers, `help` and the command line: a
    method of `Run` repeats the parameters of the function that it calls, a recipe or command those of its siblings.
    """
    left_out = set()
    for n in ast.walk(ast.parse(text)):
        if isinstance(n, ast.Import | ast.ImportFrom):
            left_out.update(range(n.lineno, n.end_lineno + 1))
        elif isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef):
            left_out.update(range(n.lineno, n.body[0].lineno))
    for number, line in enumerate(text.splitlines(), 1):
        said = " ".join(line.split("  #")[0].split())
        if number not in left_out and not said.startswith("#") and said.strip("()[]{},:* '\""):
            yield number, said


def test_nothing_is_written_twice():
    """No six lines in a row, docstrings included, stand in two places: one function or help text serves both."""
    places = {}
    for file, text in FILES.items():
        lines = list(telling_lines(text))
        for i in range(len(lines) - LINES_OF_A_COPY + 1):
            window = lines[i : i + LINES_OF_A_COPY]
            places.setdefault(tuple(said for _, said in window), []).append(f"{file}:{window[0][0]}")
    assert [found for found in places.values() if len(found) > 1] == []
