"""Public functions and methods take their arguments in one order: data first, options by name."""

import ast
import graphlib
import importlib
import inspect
import itertools
import re
from pathlib import Path

import pytest

import vaekit as vk
from vaekit.latents.resample import LatentDensity
from vaekit.metrics import Measurement
from vaekit.sklearn import VAEEstimator

ROOT = Path(__file__).parents[1]
PACKAGES = ("latents", "metrics", "synthetic", "studies", "report", "explorer", "export")
PAGES = ("use", "measure", "look")
SUBJECTS = {
    "b",
    "data",
    "path",
    "mask",
    "recipe",
    "observed",
    "c",
    "y",
    "group",
    "inside_group",
    "out_group",
    "input_features",
}
"""Arguments that say what a call is about. They may be given by position even if they have a default."""
NAMED = (inspect.Parameter.KEYWORD_ONLY,)
PLACED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def modules():
    """The modules of the reference whose functions people call on runs, data and arrays; figures have their own."""
    text = "".join((ROOT / "docs" / "reference" / f"{page}.md").read_text(encoding="utf8") for page in PAGES)
    named = [n for n in re.findall(r"automodule:: (\S+)", text) if ".figures" not in n]
    return [importlib.import_module(n) for n in [*named, *(f"vaekit.{package}" for package in PACKAGES)]]


def public():
    """Every public function and method, by the name that people write."""
    found = {f"vk.{n}": getattr(vk, n) for n in [*vk.__all__, "open"] if inspect.isfunction(getattr(vk, n))}
    for module in modules():
        inside = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
        for name in inside:
            one = getattr(module, name)
            own = hasattr(module, "__all__") or one.__module__ == module.__name__ if callable(one) else False
            if inspect.isfunction(one) and own:
                found[f"{module.__name__}.{name}"] = one
    for owner in (vk.Run, vk.Data, LatentDensity, VAEEstimator):
        for name, one in inspect.getmembers(owner, lambda m: inspect.isfunction(m) or inspect.ismethod(m)):
            if not name.startswith("_") and one.__module__.startswith("vaekit"):
                found[f"{owner.__name__}.{name}"] = one
    return {**found, "Measurement": Measurement}


PUBLIC = public()


def parameters(function, kinds):
    return [p for p in inspect.signature(function).parameters.values() if p.kind in kinds and p.name != "self"]


def test_what_is_checked_is_what_people_call():
    assert {"vk.fit", "vk.open", "vk.compare", "Run.encode", "Run.fill", "Run.open", "VAEEstimator.sample"} <= set(
        PUBLIC
    )
    assert {"vaekit.latents.paths.nearest", "vaekit.metrics.codes.tsne", "vaekit.export.write_export"} <= set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_options_are_given_by_name(name):
    """By position: what is required, what the call is about, and a first argument that says how many."""
    placed = parameters(PUBLIC[name], PLACED)
    optional = {p.name for p in placed if p.default is not p.empty} - SUBJECTS
    assert optional <= ({placed[0].name} & {"n", "n_samples"} if placed else set())


def test_options_stand_in_one_order():
    """Two options that stand together in several signatures have one order in all of them."""
    order = graphlib.TopologicalSorter()
    for one in PUBLIC.values():
        for before, after in itertools.pairwise(p.name for p in parameters(one, NAMED)):
            order.add(after, before)
    assert list(order.static_order())  # raises CycleError, naming the options, if there is no such order


@pytest.mark.parametrize("name", ["encode", "reconstruct", "score", "evaluate", "observed", "kl_per_latent"])
def test_the_data_come_first_under_one_name(name):
    first, *others = parameters(getattr(vk.Run, name), PLACED)
    assert (first.name, first.default, others) == ("data", "test", [])


# --- nothing of our own uses an earlier form ----------------------------------------------------------------------

NOT_RUNS = re.compile(r"\b(model|toys|places|tab|q|density|gzip|bz2|zlib)\b|\)$|(^|\.)[A-Z]\w*$")
"""Receivers of calls that are not runs: models and densities in torch, toys, tabs of a browser, classes."""


def sources():
    """The code of each file of the documentation and the benchmarks."""
    for file in [*(ROOT / "docs").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]:
        yield file.name, file.read_text(encoding="utf8")
    for file in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        blocks = re.findall(r"```(?:python|\{code-cell\}[^\n]*)\n(.*?)```", file.read_text(encoding="utf8"), re.S)
        lines = [line for block in blocks if "%%" not in block for line in block.split("\n")]
        yield file.name, "\n".join(re.sub(r"^(>>>|\.\.\.) ?", "", ln) for ln in lines if ln[:1] not in (":", "%", "!"))


def earlier_forms(text):
    """Calls with too many arguments by position: of methods of a run, or of functions imported from vaekit."""
    any_number = (inspect.Parameter.VAR_POSITIONAL,)
    placed = {id(one): len(parameters(one, PLACED)) for one in PUBLIC.values()}
    most = {id(one): 99 if parameters(one, any_number) else placed[id(one)] for one in PUBLIC.values()}
    tree = ast.parse(text)
    imported = {}
    for n in ast.walk(tree):
        if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("vaekit"):
            module = importlib.import_module(n.module)
            imported |= {a.asname or a.name: getattr(module, a.name, None) for a in n.names}
    for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
        one = imported.get(call.func.id) if isinstance(call.func, ast.Name) else None
        if isinstance(call.func, ast.Attribute):
            of, name = ast.unparse(call.func.value), call.func.attr
            one = PUBLIC.get(f"vk.{name}" if of in ("vk", "vaekit") else "" if NOT_RUNS.search(of) else f"Run.{name}")
        if len(call.args) > most.get(id(one), 99) and not any(isinstance(a, ast.Starred) for a in call.args):
            yield ast.unparse(call)[:80]


def test_documentation_and_benchmarks_use_the_present_form():
    texts = dict(sources())
    assert len(texts) > 40
    assert sum(text.count("run.") for text in texts.values()) > 100
    assert [f"{name}: {call}" for name, text in texts.items() for call in earlier_forms(text)] == []


def test_the_check_of_the_form_finds_earlier_ones():
    text = "import vaekit as vk\nfrom vaekit.latents import nearest\nrun = vk.open('example', None, x)\nrun.score(x, 9)"
    assert len([*earlier_forms(f"{text}\nnearest(a, b, 3)\nnearest(a, b, k=3)\nrun.score(x, samples=9)")]) == 3
