"""The files of a run: damaged ones are told apart, and none is pickle."""

import dataclasses
import errno
import json
import os
import pickle
import shutil
import tempfile
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from core_helpers import QUIET, blobs, same, tensors
from hypothesis import given
from hypothesis import strategies as st

import vaekit as vk
from vaekit.errors import DataError, RunError, VaekitError
from vaekit.run import fit
from vaekit.runs.stored import rows_of, stored_splits, write_splits
from vaekit.training import loop as trainer
from vaekit.utils import files
from vaekit.utils.files import write_tensors


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("files") / "run"
    fit(blobs(40), "vae", out=out, steps=3, latent=2, hidden=(8,), batch=16, **QUIET)
    return out


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def test_a_run_says_what_it_is(run):
    text = repr(vk.open(run))
    assert text.startswith("vae(latent=2, hidden=[8]) on ")
    assert "3 steps of 16" in text
    assert "finished" in text
    assert vk.open(run).config["created"][:10] in text


@given(st.lists(st.integers(0, 40), unique=True), st.booleans())
def test_rows_of_splits_come_back_in_their_order(rows, ordered):
    rows = np.array(sorted(rows) if ordered else rows, np.int64)
    with tempfile.TemporaryDirectory() as folder:
        write_splits(Path(folder), {"train": rows, "valid": np.arange(5, 50_000), "test": np.zeros(0, np.int64)})
        found = {part: rows_of(kept) for part, kept in stored_splits(Path(folder)).items()}
        assert (Path(folder) / "splits.safetensors").stat().st_size < 1000
    np.testing.assert_array_equal(found["train"], rows)
    np.testing.assert_array_equal(found["valid"], np.arange(5, 50_000))
    assert found["test"].shape == (0,)
    assert {v.dtype for v in found.values()} == {np.dtype(np.int64)}


def test_splits_of_the_first_format_are_read(run):
    data = vk.from_arrays(blobs(40))
    rows = {part: torch.from_numpy(np.asarray(getattr(data, part).index)) for part in ("train", "valid", "test")}
    write_tensors(run / "splits.safetensors", rows)  # every row, as it was written then
    for part, kept in stored_splits(run).items():
        np.testing.assert_array_equal(rows_of(kept), rows[part])
    assert vk.open(run, data=data).data is data


def test_a_run_keeps_the_defaults_of_its_day(run, monkeypatch):
    """A later version with other defaults opens it as it was trained."""
    from vaekit.recipes import registry

    was = vk.open(run).decode(np.zeros((1, 2), np.float32))
    ours = registry.RECIPES["vae"]
    monkeypatch.setitem(registry.RECIPES.entries, "vae", dataclasses.replace(ours, settings={"activation": "relu"}))
    np.testing.assert_array_equal(vk.open(run).decode(np.zeros((1, 2), np.float32)), was)


@pytest.mark.parametrize("left", [0, 5, 100, -1])
def test_truncated_weights(run, left):
    file = run / "model.safetensors"
    file.write_bytes(file.read_bytes()[: left if left >= 0 else file.stat().st_size - 1])
    with pytest.raises(RunError, match=r"model\.safetensors is not a whole"):
        vk.open(run)


def test_a_pickle_in_the_weights_place_is_not_run(run, tmp_path):
    mark = tmp_path / "executed"

    class Evil:
        def __reduce__(self):
            return (mark.touch, ())

    (run / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RunError, match="not a whole safetensors"):
        vk.open(run)
    torch.save({"weight": torch.zeros(3)}, run / "model.safetensors")
    with pytest.raises(RunError, match="not a whole safetensors"):
        vk.open(run)
    assert not mark.exists()


def test_weights_of_other_shapes_or_names(run):
    file = run / "model.safetensors"
    held = tensors(file)
    name = sorted(held)[0]
    for wrong in (
        held | {name: torch.zeros(2, 3)},
        {n: t for n, t in held.items() if n != name},
        held | {name + "x": torch.zeros(1)},
    ):
        write_tensors(file, wrong)
        with pytest.raises(RunError, match="does not fit"):
            vk.open(run)


def test_missing_files(run, tmp_path):
    with pytest.raises(RunError, match="no run at"):
        vk.open(tmp_path / "nowhere")
    (run / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"model\.safetensors is missing"):
        vk.open(run)
    (run / "run.json").unlink()
    with pytest.raises(RunError, match="not a vaekit run"):
        vk.open(run)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", '{"format": 1}', '{"format": "one"}', "\x00\x01", '{"format": null}']
)
def test_a_damaged_description(run, text):
    (run / "run.json").write_text(text)
    with pytest.raises(RunError, match="damaged"):
        vk.open(run)


def test_a_description_without_one_of_its_parts(run):
    config = json.loads((run / "run.json").read_text())
    for part in ("recipe", "arguments", "data", "training", "state"):
        (run / "run.json").write_text(json.dumps({k: v for k, v in config.items() if k != part}))
        with pytest.raises(RunError, match="damaged"):
            vk.open(run)
    (run / "run.json").write_text(json.dumps(config | {"recipe": "vea"}))
    with pytest.raises(VaekitError, match="'vae'"):
        vk.open(run)
    (run / "run.json").write_text(json.dumps(config | {"arguments": {"latent": 3, "hidden": [8]}}))
    with pytest.raises(RunError, match="does not fit"):
        vk.open(run)


def test_a_newer_format_is_refused(run):
    config = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(config | {"format": config["format"] + 1}))
    with pytest.raises(RunError, match="newer vaekit"):
        vk.open(run)


def test_a_damaged_checkpoint_is_told_when_resuming(run):
    config = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(config | {"state": "running"}))
    newest = sorted((run / "checkpoint").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-9])
    with pytest.raises(RunError, match="not a whole safetensors"):
        fit(blobs(40), out=run, resume=True, progress=False)


def test_no_file_of_a_run_is_pickle(run):
    vk.open(run, data=vk.from_arrays(blobs(40))).evaluate(samples=2)
    files = [f for f in run.rglob("*") if f.is_file()]
    assert {"run.json", "model.safetensors", "log.jsonl", "metrics.json", "splits.safetensors"} <= {
        f.name for f in files
    }
    for file in files:
        start = file.read_bytes()[:16]
        assert start[:1] != b"\x80", f"{file} is a pickle"
        assert start[:2] != b"PK", f"{file} is a zip archive, as torch.save writes"
        assert start[:1] in b"{[" or start[8:9] == b"{", file  # JSON, or safetensors with its JSON header


def test_the_data_of_a_run_in_memory_must_be_given_back(run):
    opened = vk.open(run)
    with pytest.raises(DataError, match="pass them again"):
        _ = opened.data
    assert opened.score(blobs(4), samples=2).shape == (4,)
    assert np.isfinite(opened.sample(2)).all()


def test_a_named_source_gives_the_same_splits_back(tmp_path):
    np.save(tmp_path / "x.npy", blobs(40))
    data = vk.load(tmp_path / "x.npy", split_seed=5)
    run = fit(data, "vae", out=tmp_path / "run", steps=1, latent=2, hidden=(8,), **QUIET)
    assert run.config["data"]["source"]
    again = vk.open(tmp_path / "run").data
    assert np.array_equal(again.test.index, data.test.index)
    np.save(tmp_path / "x.npy", blobs(40, seed=1))
    with pytest.raises(DataError, match="holds other data"):
        _ = vk.open(tmp_path / "run").data


@pytest.fixture
def read_only(run, monkeypatch):
    """A run on a file system that refuses to be written, as it does for any user."""

    def refused(place):
        if run in [Path(place), *Path(place).parents]:
            raise OSError(errno.EROFS, "Read-only file system")

    def opened(path, mode="r", *given, **named):
        if set(mode) & set("wax+"):
            refused(path)
        return open(path, mode, *given, **named)

    def temporary(dir):
        refused(dir)
        return tempfile.TemporaryFile(dir=dir)

    for module in (files, trainer):
        monkeypatch.setattr(module, "open", opened, raising=False)
    monkeypatch.setattr(files, "tempfile", types.SimpleNamespace(TemporaryFile=temporary))
    return run


def test_a_read_only_run_is_opened_measured_and_reported(read_only, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path / "run" / "..")
    before = {p: p.read_bytes() for p in read_only.rglob("*") if p.is_file()}
    opened = vk.open(read_only, data=vk.from_arrays(blobs(40)))
    measured = opened.evaluate(samples=2)
    assert np.isfinite(next(m["value"] for m in measured if m["name"] == "elbo"))
    said = capsys.readouterr().err
    assert "Read-only file system" in said
    assert "not stored" in said
    page = opened.report()
    assert page.as_posix() == "run-report.html"
    assert page.exists()
    assert "is written to run-report.html" in capsys.readouterr().err
    assert fit(blobs(40), out=read_only, resume=True, progress=False).state == "finished"
    with pytest.raises(RunError, match="Read-only file system"):
        fit(blobs(40), out=read_only, extend=True, steps=5, progress=False)
    assert {p: p.read_bytes() for p in read_only.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("full", ["log.jsonl", "checkpoint", "model.safetensors", "run.json"])
def test_a_full_disk_costs_what_came_after_the_last_checkpoint(tmp_path, monkeypatch, full):
    """Whatever file the disk is full at, the message names it, earlier files stay whole, and the run can go on."""
    settings = {"latent": 2, "hidden": (8,), "batch": 16, "steps": 12, "checkpoint_steps": 3, **QUIET}
    out, renamed = tmp_path / "run", os.replace

    def at_capacity(path):
        done = json.loads((out / "run.json").read_text()).get("step", 0) if (out / "run.json").exists() else 0
        return done >= 6 and full in (Path(path).name, Path(path).parent.name)

    def replace(part, path):
        if at_capacity(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        renamed(part, path)

    def opened(path, mode="r", *given, **named):
        if at_capacity(path) and "a" in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return open(path, mode, *given, **named)

    with monkeypatch.context() as m:
        m.setattr(os, "replace", replace)
        m.setattr(trainer, "open", opened, raising=False)
        with pytest.raises(RunError, match=rf"cannot write .*{full}.*No space left on device; free some space"):
            fit(blobs(40), "vae", out=out, **settings)
    assert not list(out.rglob("*.part"))
    assert vk.open(out).config["step"] == 6
    fit(blobs(40), out=out, resume=True, progress=False)
    fit(blobs(40), "vae", out=tmp_path / "whole", **settings)
    assert same(out, tmp_path / "whole")
