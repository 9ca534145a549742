"""The bench of pictures: a tiny measurement, and the page that is written from its numbers."""

import contextlib
import dataclasses
import importlib
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vaekit as vk
from vaekit.latents.densities import flow_matching
from vaekit.metrics.samples import MEASURES, learned
from vaekit.training import loop

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def imported():
    """The modules of the bench, by name, imported as the command does."""
    names = ("pictures_measure", "pictures_page", "pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "bench")
        yield {name: importlib.import_module(name) for name in names}
    for name in names:
        del sys.modules[name]


@pytest.fixture(scope="module")
def bench(imported):
    return imported["pictures_measure"]


@pytest.fixture(scope="module")
def page(imported):
    return imported["pictures_page"]


TINY = {
    "base": ("vae", {"latent": 4, "hidden": (16,)}),
    "grid": ("grid", {"hidden": (8,), "code_channels": 2}),
    "vq": ("vq", {"hidden": (8,)}),
}
STEPS = 5


@pytest.fixture(scope="module")
def plan(bench, tmp_path_factory):
    return bench.Plan(0.01, 1, False, tmp_path_factory.mktemp("tiny"), most=140, steps=STEPS)


@pytest.fixture(scope="module")
def found(bench, plan):
    """The rows and the pictures of the digits after a few steps of each training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learned, "STEPS", 5)
        patch.setattr(flow_matching, "EXACT", 0)  # the exact divergence of held-out codes takes most of the time
        patch.setattr(flow_matching.FlowMatchingDensity, "PROBES", 1)
        patch.setitem(bench.SETS, "tiny", bench.DataSet("Digits, 8 x 8 grey", vk.load, None, TINY))
        for key in ("dense", "grid"):
            sampler = bench.SAMPLERS[key]
            small = dataclasses.replace(sampler, options={**sampler.options, "width": 8, "layers": 1})
            patch.setitem(bench.SAMPLERS, key, small)
        rows = bench.measure("tiny", vk.load("digits"), plan)
        shown = {key: np.load(plan.folder / "rows" / f"{key}.npz")["x"] for key in ("real", *rows["rows"])}
        yield rows, shown


def test_every_sampler_has_a_row_with_every_measure_and_its_first_samples(bench, found):
    rows, shown = found
    assert set(rows["rows"]) == {*bench.SAMPLERS, bench.REBUILT}
    for key in bench.SAMPLERS:
        assert [one["name"] for one in rows["rows"][key]["measures"]] == list(MEASURES)
        assert shown[key].shape == (100, 8, 8, 3)
    assert (rows["n"], rows["resumed"]) == (140, False)
    assert json.loads(json.dumps(rows))["rows"] == rows["rows"]


def test_steps_of_the_plan_are_those_of_every_training(bench, found):
    rows, _ = found
    assert {row["steps"] for row in rows["rows"].values()} == {STEPS}
    fits = {
        key: rows["rows"][key]["fit_steps"] for key, sampler in bench.SAMPLERS.items() if sampler.latents != "prior"
    }
    assert {key: fits[key] for key in ("dense", "grid", "two-stage")} == dict.fromkeys(
        ("dense", "grid", "two-stage"), STEPS
    )
    assert max(fits.values()) <= STEPS


def test_a_fit_that_was_stopped_within_flow_matching_is_resumed(bench, found, plan, monkeypatch):
    run, sampler, kept = vk.open(plan.folder / "base"), bench.SAMPLERS["dense"], loop.Trainer.save
    stored = run.path / "latents" / "flow-matching"
    weights = (stored / "model.safetensors").read_bytes()
    stored.with_suffix(".json").unlink()
    shutil.rmtree(stored)

    def killed(self, state):  # as by kill -9 after a checkpoint
        kept(self, state)
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "save", killed)
        with pytest.raises(SystemExit):
            bench.fitted(run, sampler, plan)
    assert (stored / "run.json").exists()
    assert not stored.with_suffix(".json").exists()
    assert bench.fitted(run, sampler, plan)["fit_steps"] == STEPS
    assert (stored / "model.safetensors").read_bytes() == weights


def test_a_measured_row_is_kept_and_one_with_other_settings_is_refused(bench, found, plan, monkeypatch, capsys):
    rows, _ = found
    with monkeypatch.context() as patch:
        patch.setattr(bench, "trained", None)  # nothing is trained again
        again = bench.measure("tiny", vk.load("digits"), plan, ["vq", "normal"])
    assert again["rows"] == {key: rows["rows"][key] for key in ("vq", "normal")}
    assert len(capsys.readouterr().out.splitlines()) == 2
    longer = dataclasses.replace(plan, minutes=2 * plan.minutes)
    with pytest.raises(SystemExit, match=r"vq.json was measured with other settings: remove it and \S+vq to measure"):
        bench.measure("tiny", vk.load("digits"), longer, ["vq"])


def test_the_time_is_shared_by_the_data_sets_that_can_be_read(imported, bench, tmp_path, monkeypatch):
    pictures = imported["pictures"]
    assert [pictures.share(30, sets) for sets in (1, 3, 4)] == [60, 20, 15]
    parts = [*bench.MODELS.values(), *(sampler.share for sampler in bench.SAMPLERS.values())]
    assert sum(parts) <= 0.9  # the rest is for measures and for densities with a number of steps
    monkeypatch.setattr(pictures, "read", lambda name, path: None if name in ("fashion-mnist", "emoji") else "missing")
    monkeypatch.setattr(pictures, "started", lambda name, minutes, asked: {"skipped": f"{minutes:g}, {asked.rows}"})
    monkeypatch.setattr(sys, "argv", ["pictures.py", "--only", "emoji", "--rows", "grid", "--minutes", "3"])
    with contextlib.redirect_stdout(io.StringIO()) as out:
        pictures.main()
    assert out.getvalue() == "emoji: 3, ['grid']\n"


def test_goals_are_shares_of_the_first_row_and_of_real_data(page, found):
    rows, _ = found
    first, best = rows["rows"]["normal"]["measures"], rows["rows"]["grid"]["measures"]
    goals = page.reached(rows)
    assert goals["frechet_distance"][0] == pytest.approx(best[0]["value"] / first[0]["value"])
    recall = next(one for one in best if one["name"] == "sample_recall")
    assert goals["sample_recall"] == (recall["value"] / recall["floor"]["value"], goals["sample_recall"][0] >= 0.6)
    assert page.reached(rows, "normal")["frechet_distance"] == (1.0, False)


def test_a_data_set_that_is_not_given_is_skipped_with_the_reason(bench, tmp_path):
    assert bench.read("emoji", None) == "not given (`--emoji`)"
    assert str(tmp_path / "none") in bench.read("emoji", tmp_path / "none")


def test_sheets_have_ten_columns_and_the_row_of_the_readme_two_lines_per_data_set(page, found, tmp_path):
    _, shown = found
    page.pictures({"tiny": shown}, tmp_path)
    with Image.open(tmp_path / "pictures" / "tiny-grid.webp") as sheet:
        assert sheet.size == (98, 98)  # ten tiles of 8, and gaps of 2
    with Image.open(tmp_path / "pictures.webp") as row:
        assert row.size == (10 * 64 + 18, 2 * 64 + 2)


def test_the_page_holds_the_numbers_of_every_row(page, found):
    rows, _ = found
    sets = {"tiny": rows, "emoji": {"skipped": "not given (`--emoji`)"}}
    text = page.page({"minutes": 6, "seed": 0, "sets": sets, "machine": "2 cores."})
    for row in rows["rows"].values():
        line = next(line for line in text.splitlines() if line.startswith(f"| {row['sampler']} | "))
        values = {one["name"]: one["value"] for one in row["measures"]}
        cells = [cell.split(" (")[0] for cell in line.strip("| ").split(" | ")[1:]]
        for name, cell in zip(MEASURES, cells, strict=True):
            value = values.get(name)
            assert cell == ("–" if value is None else f"{value:.{page.DIGITS[name]}f}")
    share = page.reached(rows)["frechet_distance"][0]
    assert f"| Digits | `grid`, `flow-matching` | {share:.3f}" in text
    assert "Skipped: not given (`--emoji`)." in text
    assert "instead of 30 minutes" in text
    assert "All rows together took" in text
    resumed = page.page({"minutes": 30, "seed": 0, "sets": {"tiny": {**rows, "resumed": True}}, "machine": ""})
    assert "Some rows were resumed; their last starts took" in resumed
    assert "instead of 30 minutes" not in resumed
