"""Which module may import which, and what `import vaekit` gives and costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vaekit

ROOT = Path(vaekit.__file__).parent
LAYERS = [
    {"errors", "suggest", "wording", "guide", "options"},
    {"schedules", "progress", "noise", "typed", "allocation", "isolation"},
    {
        "files",
        "lock",
        "catalogue",
        "example",
        "nets",
        "distributions",
        "optimisers",
        "parallel",
        "data",
        "compiled",
        "functional",
        "flows",
        "corruption",
        "augment",
    },
    {"conditional", "mixed", "priors", "posteriors", "quantize", "model", "hierarchy", "semi"},
    {"terms", "aggregate", "impute"},
    {"objectives"},
    {"composition"},
    {"recipes"},
    {"run", "stored", "configuration", "observed", "engine", "hardware"},
    {"resume", "metrics", "trainer", "latent", "resample", "infill", "editing", "commands"},
    {"train"},
    {"figures"},
    {"doctor", "sklearn", "toys"},
    {"report", "explorer", "export"},
    {"studies"},
    {"cli", "__main__"},
]
"""Lowest first. A module imports only from layers below its own, or from its own layer without a cycle."""


def area(module: str) -> str:
    return module.split(".")[0]


def imports() -> dict[str, set[str]]:
    """The modules that each module of the package imports at its top level, not inside functions or TYPE_CHECKING."""
    found: dict[str, set[str]] = {}
    modules = {
        ".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for f in ROOT.rglob("*.py")
    }
    for file in sorted(ROOT.rglob("*.py")):
        parts = list(file.relative_to(ROOT).with_suffix("").parts)
        package = parts[:-1]
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        targets = set()
        for node in ast.parse(file.read_text(encoding="utf8")).body:
            if isinstance(node, ast.Import):
                names = [a.name.removeprefix("vaekit.") for a in node.names if a.name.startswith("vaekit.")]
            elif isinstance(node, ast.ImportFrom):
                if node.level:
                    base = package[: len(package) - node.level + 1]
                elif (node.module or "").split(".")[0] == "vaekit":
                    base = []
                else:
                    continue
                inner = (node.module or "").removeprefix("vaekit").strip(".")
                stem = [*base, *([inner] if inner else [])]
                names = []
                for alias in node.names:
                    deeper = ".".join([*stem, alias.name])
                    names.append(deeper if deeper in modules else ".".join(stem))
            else:
                continue
            targets |= {n for n in names if n and n != name}
        found[name] = targets
    return found


GRAPH = imports()
LEVEL = {name: i for i, layer in enumerate(LAYERS) for name in layer}


def test_the_package_was_read():
    assert len(GRAPH) > 25
    assert {"noise", "model"} <= {area(t) for t in GRAPH["engine"] | GRAPH["model"]} | {"model"}
    assert "objectives.base" in GRAPH["objectives.elbo"] or "objectives" in GRAPH["objectives.elbo"]


@pytest.mark.parametrize("name", sorted(n for n in GRAPH if n != "__init__"))
def test_imports_point_one_way(name):
    if area(name) not in LEVEL:
        pytest.skip(f"{area(name)} has no layer yet")
    for target in GRAPH[name]:
        if area(target) in LEVEL and area(target) != area(name):
            assert LEVEL[area(target)] <= LEVEL[area(name)], f"{name} imports {target}, which lies above it"


def test_no_modules_import_each_other_in_a_circle():
    state: dict[str, int] = {}

    def visit(name, path):
        assert state.get(name) != 1, "circle: " + " -> ".join([*path[path.index(name) :], name])
        if state.get(name) == 2:
            return
        state[name] = 1
        for target in sorted(GRAPH.get(name, ())):
            visit(target, [*path, name])
        state[name] = 2

    for name in GRAPH:
        visit(name, [])


@pytest.mark.parametrize(
    ("below", "above"),
    [
        ("model", "objectives"),
        ("model", "terms"),
        ("latent", "train"),
        ("latent", "trainer"),
        ("figures", "train"),
        ("figures", "trainer"),
        ("objectives", "composition"),
        ("metrics", "train"),
        ("terms", "objectives"),
        ("data", "recipes"),
    ],
)
def test_what_must_never_import_what(below, above):
    for name, targets in GRAPH.items():
        if area(name) == below:
            assert above not in {area(t) for t in targets}, name


def test_public_names_are_sorted_and_there():
    assert list(vaekit.__all__) == sorted(vaekit.__all__)
    assert len(set(vaekit.__all__)) == len(vaekit.__all__)
    for name in vaekit.__all__:
        assert getattr(vaekit, name) is not None
    assert set(dir(vaekit)) == set(vaekit.__all__)
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = vaekit.no_such_thing


def test_importing_vaekit_imports_nothing_heavy():
    heavy = ["torch", "matplotlib", "sklearn", "numpy", "rich", "lightning_fabric"]
    code = f"import sys, vaekit; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "[]", done.stderr


def test_fitting_modules_do_not_import_what_only_pictures_need():
    code = (
        "import sys, vaekit.train, vaekit.metrics; "
        "print([m for m in ('matplotlib', 'sklearn', 'onnx', 'lightning_fabric') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "[]", done.stderr
