"""Bugs of peers that no other test here would catch, and that docs/checked.md, which lists all of them, holds."""

import ast
import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from core_helpers import QUIET, blobs, same

import vaekit as vk
from vaekit.metrics.likelihood import per_datum
from vaekit.run import fit

ROOT = Path(__file__).parents[2]
TINY = {**QUIET, "latent": 2, "hidden": (8,), "batch": 16}


@pytest.fixture(scope="module")
def images():
    return vk.from_arrays(blobs(61), label=np.arange(61) % 3, name="blobs")


def test_the_best_weights_are_those_of_the_best_bound_whatever_was_minimised(images, tmp_path):
    """With beta 0 the distortion falls at every validation while the rate rises faster: the best bound comes early."""
    run = fit(
        images,
        "vae",
        out=tmp_path / "run",
        beta=0.0,
        steps=300,
        lr=0.02,
        patience=100,
        validate_steps=10,
        ema=0,
        **TINY,
    )
    valid = [r for r in run.log if r["kind"] == "valid"]
    best = max(valid, key=lambda r: r["elbo"])
    assert min(valid, key=lambda r: r["distortion"])["step"] > best["step"]  # else nothing is told apart
    assert run.config["best"]["step"] == best["step"]
    run.use_data(images)
    rate = next(m for m in run.evaluate("valid", samples=1) if m["name"] == "rate")
    assert rate["value"] == pytest.approx(best["rate"], rel=1e-4)


def test_the_bound_of_validation_is_an_expectation_over_draws(tmp_path):
    """Held against many draws of the evaluator, beside what the code alone would give."""
    data = vk.from_arrays(blobs(600), splits={"train": range(60), "valid": range(60, 560), "test": range(560, 600)})
    run = fit(data, "vae", out=tmp_path / "run", steps=300, lr=0.01, **TINY)
    run.use_data(data)
    recorded = [r for r in run.log if r["kind"] == "valid"][-1]["distortion"]
    observed = run.observed("valid")
    drawn = per_datum(run, observed, 1, seed=7).distortion
    many = per_datum(run, observed, 200).distortion
    rows = np.arange(500)
    at_code = -run.model.decode(run.model.encode(observed(rows))).log_prob(observed(rows)).mean().item()
    error = (drawn - many).std() / np.sqrt(500)  # of one draw a datum
    assert recorded == pytest.approx(many.mean(), abs=5 * error)
    assert many.mean() - at_code > 10 * error


@pytest.mark.parametrize("recipe", ["vae", "vq", "factor", "constrained"])
def test_a_training_leaves_nothing_behind_for_the_next(recipe, images, tmp_path):
    """The same run before and after one of the same shapes with other data and choices."""
    sizes = {"codes": 6, "dim": 2, "positions": 3, "hidden": (8,)} if recipe == "vq" else {"latent": 2, "hidden": (8,)}
    quiet = {**QUIET, "batch": 16, "steps": 6, **sizes}
    fit(images, recipe, out=tmp_path / "before", seed=1, **quiet)
    other = vk.from_arrays(255 - blobs(61, seed=3), name="others")
    fit(other, recipe, out=tmp_path / "between", seed=2, lr=0.1, schedule="constant", **quiet)
    fit(images, recipe, out=tmp_path / "after", seed=1, **quiet)
    assert same(tmp_path / "before", tmp_path / "after")
    assert not same(tmp_path / "before", tmp_path / "between")


# --- the list ---------------------------------------------------------------------------------------------------


def checked():
    spec = importlib.util.spec_from_file_location("checked", ROOT / "tools" / "checked.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["checked"] = module
    spec.loader.exec_module(module)
    return module


def test_every_test_that_the_page_names_exists():
    named = re.findall(r"`tests/(\S+?\.py)::(\w+)", (ROOT / "docs" / "checked.md").read_text())
    assert len(named) >= 20
    for file, name in named:
        tree = ast.parse((ROOT / "tests" / file).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{name}"


def test_the_page_is_that_of_the_list_and_every_bug_can_still_be_put_in():
    module = checked()
    assert (ROOT / "docs" / "checked.md").read_text() == module.page()
    for bug in module.BUGS:
        text = (ROOT / "src" / "vaekit" / bug.file).read_text()
        for old, new in bug.swaps:
            assert text.count(old) == 1, (bug.file, old)
            text = text.replace(old, new)
        ast.parse(text)
