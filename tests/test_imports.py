"""Which module may import which, and what `import vaekit` gives and costs."""

import ast
import builtins
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import vaekit

ROOT = Path(vaekit.__file__).parent
LAYERS = (
    ["errors", "noise"],
    ["utils"],
    ["options"],
    ["data"],
    ["densities"],
    ["networks"],
    ["heads"],
    ["models"],
    ["objectives"],
    ["estimators"],
    ["recipes"],
    ["runs"],
    ["figures"],
    ["callbacks"],
    ["training"],
    ["latents"],
    ["metrics"],
    ["coding"],
    ["anomalies", "auditing", "certificate", "expression"],
    ["diagnosis"],
    ["synthetic"],
    ["report"],
    ["export"],
    ["explorer"],
    ["run"],
    ["toys", "sklearn"],
    ["pyod"],
    ["studies"],
    ["tuning"],
    ["cli"],
    ["__main__"],
)
"""Lowest first. A module imports from its own package and from layers below, inside functions and for types too."""

LEVEL = {name: i for i, layer in enumerate(LAYERS) for name in layer}
FILES = {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in ROOT.rglob("*.py")}


def area(module: str) -> str:
    return module.split(".")[0]


def imports(module: str, tree: ast.AST) -> set[str]:
    """The modules of vaekit that a module imports anywhere: at its top, inside functions, or for types only."""
    package = list(FILES[module].relative_to(ROOT).parts[:-1])
    targets = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets |= {a.name.removeprefix("vaekit.") for a in node.names if a.name.startswith("vaekit.")}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
            elif (node.module or "").split(".")[0] == "vaekit":
                base = []
            else:
                continue
            inner = (node.module or "").removeprefix("vaekit").strip(".")
            stem = [*base, *([inner] if inner else [])]
            for alias in node.names:
                deeper = ".".join([*stem, alias.name])
                targets.add(deeper if deeper in FILES else ".".join(stem))
    return {t for t in targets if t and t != module}


@functools.cache
def trees():
    return {name: ast.parse(file.read_text(encoding="utf8")) for name, file in FILES.items()}


@functools.cache
def graph():
    return {name: imports(name, tree) for name, tree in trees().items()}


def test_every_module_has_a_layer():
    assert {area(name) for name in FILES} - {"__init__"} == set(LEVEL)
    assert len(graph()) > 150


@pytest.mark.parametrize("name", sorted(n for n in FILES if n != "__init__"))
def test_imports_point_one_way(name):
    for target in graph()[name]:
        if area(target) != area(name):
            assert LEVEL[area(target)] < LEVEL[area(name)], f"{name} imports {target}, which does not lie below it"


def test_no_modules_import_each_other_in_a_circle():
    state: dict[str, int] = {}

    def visit(name, path):
        assert state.get(name) != 1, "circle: " + " -> ".join([*path[path.index(name) :], name])
        if state.get(name) == 2:
            return
        state[name] = 1
        for target in sorted(graph().get(name, ())):
            visit(target, [*path, name])
        state[name] = 2

    for name in graph():
        visit(name, [])


def test_modules_are_imported_by_statements_only():
    """`importlib.import_module` would hide an import from these tests; `__init__` alone is lazy with it."""
    for name, tree in trees().items():
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func).endswith("import_module")]
        assert not calls or name in ("__init__",), name


def test_public_names_are_sorted_and_there():
    assert list(vaekit.__all__) == sorted(vaekit.__all__)
    assert len(set(vaekit.__all__)) == len(vaekit.__all__)
    for name in vaekit.__all__:
        assert getattr(vaekit, name) is not None
    assert set(dir(vaekit)) == {*vaekit.__all__, "open"}
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = vaekit.no_such_thing


def test_a_star_import_hides_no_builtin():
    given: dict[str, object] = {}
    exec("from vaekit import *", given)
    assert "fit" in given
    assert not set(dir(builtins)) & set(given) - {"__builtins__", "__doc__", "__name__"}


def test_importing_vaekit_imports_nothing_heavy():
    heavy = ["torch", "matplotlib", "sklearn", "numpy", "rich", "lightning_fabric"]
    code = f"import sys, vaekit; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "[]", done.stderr


def test_fitting_modules_do_not_import_what_only_pictures_or_compilers_need():
    code = (
        "import sys, vaekit.training.fit, vaekit.metrics, vaekit.utils.compiled, vaekit.report.commands; "
        "heavy = ('matplotlib', 'sklearn', 'onnx', 'lightning_fabric', 'scipy', 'sympy', 'torch._inductor'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "[]", done.stderr
