"""Run directories from somebody else: what they may not describe, name or cost."""

import json
import os
import resource
import shutil

import numpy as np
import pytest
import torch
from core_helpers import QUIET, blobs, tensors
from PIL import Image

import vaekit as vk
from vaekit.errors import DataError, RunError, TrainingError, VaekitError
from vaekit.run import fit
from vaekit.runs import stored
from vaekit.utils.files import read_tensors, write_tensors


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    np.save(folder / "x.npy", blobs(40))
    fit(folder / "x.npy", "vae", out=folder / "run", steps=3, latent=2, hidden=(8,), batch=16, **QUIET)
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def change(run, *path, to):
    """Set one entry of run.json."""
    config = json.loads((run / "run.json").read_text())
    part = config
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = to
    (run / "run.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("path", "to", "says"),
    [
        (("recipe",), 3, "recipe is 3, expected text or null"),
        (("arguments",), [], "arguments is"),
        (("arguments", "latent"), "2", "latent. is '2', expected a whole number"),
        (("arguments", "latent"), 10**30, "latent. is a number too large"),
        (("data", "facts", "shape"), [1, -6, 5], "shape is .* expected whole numbers of 1 or more"),
        (("data", "facts", "shape"), [1, 2**20, 2**20], "shape"),
        (("data", "facts", "shape"), [30], "expected 3 numbers for image data"),
        (("data", "facts", "scale"), [0.0, 0.5], "expected whole numbers for data that are whole numbers"),
        (("data", "facts", "class_counts"), [3, -1], "class_counts is .* for each class"),
        (("training", "batch"), None, "training.batch is missing"),
        (("data", "facts", "kind"), "movie", "kind is 'movie'"),
        (("data", "facts", "columns"), [{"name": "a", "kind": "real", "categories": ["b"]}], "column"),
        (("data", "source"), {}, "data.source is an object, expected text or null"),
        (("data", "n"), {"train": None}, "data.n.train is null"),
        (("training", "batch"), True, "training.batch is True"),
        (("training", "colour"), "red", "training.colour is unknown"),
        (("training", "lr"), -1.0, "lr. must be above 0"),
        (("decided", "parameters"), "many", "decided.parameters"),
        (("state",), "new and shiny", "state"),
        (("step",), -3, "step is -3"),
        (("created",), None, "created is null"),
    ],
)
def test_an_entry_that_is_not_what_it_should_be_is_named(run, path, to, says):
    change(run, *path, to=to)
    with pytest.raises(VaekitError, match=says):
        vk.open(run)


def test_a_condition_that_names_no_column_is_refused_on_resume(run):
    change(run, "arguments", "condition", to=True)
    change(run, "state", to="interrupted")
    with pytest.raises(RunError, match="condition is True, expected the name of a column"):
        fit(out=run, resume=True, **QUIET)


@pytest.mark.parametrize("name", ["cache", "splits", "progress", "schema", "source", "colour"])
def test_a_run_may_not_say_where_to_write(run, tmp_path, name):
    change(run, "data", "options", name, to=str(tmp_path / "elsewhere"))
    with pytest.raises(RunError, match=f"unknown data option '{name}'"):
        vk.open(run)
    assert not (tmp_path / "elsewhere").exists()


def test_a_run_may_say_how_to_read_its_data(run):
    change(run, "data", "options", "kind", to="image")
    assert len(vk.open(run).data.test) == 4
    change(run, "data", "options", "split_seed", to="one")
    with pytest.raises(RunError, match="split_seed is damaged: it is 'one'"):
        vk.open(run)


def test_a_source_that_is_a_pipe_or_a_system_folder_is_refused_at_once(run, tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    for source in (tmp_path / "pipe.npy", "/dev/zero", "/proc", "/"):
        change(run, "data", "source", to=str(source))
        opened = vk.open(run)
        with pytest.raises(DataError, match=r"a device or a pipe|not a folder of data"):
            opened.use_data()


@pytest.fixture
def of_images(tmp_path, monkeypatch):
    """A run of 20 images in a folder."""
    monkeypatch.setenv("VAEKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    for i, x in enumerate(blobs(20)):
        Image.fromarray(x).save(tmp_path / "images" / f"{i}.png")
    settings = {"latent": 1, "hidden": (2,), "steps": 1, **QUIET}
    return fit(tmp_path / "images", "vae", out=tmp_path / "run", **settings).path


def test_a_folder_of_other_images_is_not_decoded(of_images, tmp_path, monkeypatch):
    """Fewer images than the run has data, or far more files: neither is opened, nor walked to the end."""
    assert len(vk.open(of_images).data.train) == 16
    (tmp_path / "few").mkdir()
    shutil.copytree(tmp_path / "images", tmp_path / "few" / "a")
    (tmp_path / "few" / "a" / "0.png").rename(tmp_path / "few" / "a" / "0.txt")
    monkeypatch.setattr(Image, "open", lambda *given, **named: pytest.fail("an image was opened"))
    change(of_images, "data", "source", to=str(tmp_path / "few"))
    with pytest.raises(DataError, match=r"trained on 20 images, but .*few, .* holds 19 images.*pass `data=PATH`"):
        vk.open(of_images).use_data()
    for i in range(30):
        (tmp_path / "many" / str(i)).mkdir(parents=True)
        for j in range(50):
            (tmp_path / "many" / str(i) / f"{j}.png").touch()
    change(of_images, "data", "source", to=str(tmp_path / "many"))
    with pytest.raises(DataError, match=r"as its 20 data, but that folder has more than 1,200 files: pass `data=PATH`"):
        vk.open(of_images).use_data()
    walked = []
    walk = os.walk
    monkeypatch.setattr(
        os, "walk", lambda *given, **named: (walked.append(at[0]) or at for at in walk(*given, **named))
    )
    monkeypatch.setattr(stored, "MOST_FILES", 100)
    change(of_images, "data", "n", to={"train": 10**12, "valid": 1, "test": 1})
    with pytest.raises(DataError, match="that folder has more than 100 files"):
        vk.open(of_images).use_data()
    assert len(walked) <= 4


def test_source_with_other_shapes_than_the_facts(run):
    change(run, "data", "facts", "shape", to=[1, 5, 6])  # as many numbers: the weights fit
    opened = vk.open(run)
    with pytest.raises(DataError, match=r"shape \(1, 6, 5\).*was trained on image data of shape \(1, 5, 6\)"):
        opened.use_data()
    change(run, "state", to="running")
    with pytest.raises(RunError, match=r"damaged: its run.json has data of shape \[1, 5, 6\], .* have \[1, 6, 5\]"):
        fit(resume=True, out=run, **QUIET)


def test_a_model_larger_than_its_weights_is_refused_before_it_is_built(run):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    change(run, "arguments", "latent", to=10**7)
    change(run, "arguments", "hidden", to=[1000, 1000])
    with pytest.raises(RunError, match="far larger than the weights"):
        vk.open(run)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


def test_splits_that_name_more_rows_than_the_data_have(run):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    held = tensors(run / "splits.safetensors")
    write_tensors(run / "splits.safetensors", held | {"train": torch.tensor([[0, 2**30]], dtype=torch.int32)})
    with pytest.raises(DataError, match=r"contains rows 0 to 1073741823, but the data have rows 0\.\.39"):
        vk.open(run).use_data()
    write_tensors(run / "splits.safetensors", held | {"train": torch.tensor([[-(2**60), 5]])})
    with pytest.raises(DataError, match="contains rows"):
        vk.open(run).use_data()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


@pytest.mark.parametrize(
    "tensor", [torch.zeros(3), torch.zeros(2, 3, dtype=torch.int32), torch.zeros(2, dtype=torch.bool)]
)
def test_splits_that_are_no_rows(run, tensor):
    write_tensors(run / "splits.safetensors", tensors(run / "splits.safetensors") | {"train": tensor})
    with pytest.raises(RunError, match=r"splits\.safetensors is damaged: train is"):
        vk.open(run).use_data()


def test_weights_that_are_not_finite_or_no_numbers_of_their_kind(run):
    file = run / "model.safetensors"
    held = tensors(file)
    name = next(n for n, t in held.items() if t.dim() == 2)
    broken = held[name].clone()
    broken[0, 0] = float("nan")
    for wrong, says in ((broken, "not finite"), (held[name].long(), "int64, expected torch.float32")):
        write_tensors(file, held | {name: wrong})
        with pytest.raises(RunError, match=says):
            vk.open(run)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"format": NaN}', "NaN is not JSON"),
        ('{"format": 1' + "0" * 10_000 + "}", "damaged"),
        ('{"format": 2, "recipe": "\\ud800"}', "surrogates"),
    ],
)
def test_json_that_is_none(run, text, says):
    (run / "run.json").write_text(text)
    with pytest.raises(RunError, match=says):
        vk.open(run)


@pytest.mark.parametrize(
    "text", ["{}", "[3]", '[{"name": "elbo"}]', '[{"name": 3, "value": 1, "unit": "", "protocol": {}}]']
)
def test_metrics_that_are_none(run, text):
    (run / "metrics.json").write_text(text)
    with pytest.raises(RunError, match=r"metrics\.json is damaged"):
        _ = vk.open(run).metrics


def test_a_damaged_line_of_the_log_is_named_and_a_cut_one_left_out(run):
    log = run / "log.jsonl"
    whole = vk.open(run).log
    assert whole
    log.write_text(log.read_text() + '{"step": 3, "ki')
    assert vk.open(run).log == whole
    for line in ('{"step": 3, "ki', "[]", '{"step": "3", "kind": "train"}', '{"step": 3, "kind": "valid", "elbo": []}'):
        log.write_text(line + "\n" + json.dumps(whole[0]) + "\n")
        with pytest.raises(RunError, match=r"log\.jsonl, line 1, is damaged"):
            _ = vk.open(run).log


def test_a_checkpoint_whose_description_is_damaged_is_passed_over(trained, tmp_path):
    source = trained.parent / "x.npy"
    options = {"batch": 16, "latent": 2, "hidden": (8,), "checkpoint_steps": 1, **QUIET}
    whole = fit(source, "vae", out=tmp_path / "whole", steps=4, **options)
    run = shutil.copytree(whole.path, tmp_path / "run")
    newest = sorted((run / "checkpoint").iterdir())[-1]
    described = read_tensors(newest)[1]
    assert described["best"]
    wrongs = ({"step": -2}, {"step": 3}, {"seconds": -1.0}, {"best": {"step": 4}})
    for wrong in ({"step": "four"}, *(described | one for one in wrongs)):
        write_tensors(newest, tensors(newest), wrong)
        change(run, "state", to="running")
        fit(source, "vae", out=run, resume=True, **QUIET)
    for name, tensor in tensors(whole.path / "model.safetensors").items():
        torch.testing.assert_close(tensors(run / "model.safetensors")[name], tensor)


def test_indices_in_a_checkpoint_are_not_used(tmp_path):
    """They follow from the columns of the table; others would be out of bounds. Earlier versions stored them."""
    rows = "".join(f"{i % 3}.5,{'abc'[i % 3]}\n" for i in range(30))
    (tmp_path / "t.csv").write_text("v,k\n" + rows)
    options = {"batch": 16, "latent": 2, "hidden": (8,), "checkpoint_steps": 1, **QUIET}
    whole = fit(tmp_path / "t.csv", "vae", out=tmp_path / "whole", steps=4, **options)
    run = shutil.copytree(whole.path, tmp_path / "run")
    for file in (run / "checkpoint").iterdir():
        kept, meta = read_tensors(file)
        assert all(tensor.is_floating_point() for tensor in kept.values())
        stored = {"place": torch.full((3,), 2**40), "none": torch.ones(3, dtype=torch.bool)}
        write_tensors(file, kept | {f"buffer/model.likelihood.head.{name}": t for name, t in stored.items()}, meta)
    sorted((run / "checkpoint").iterdir())[-1].unlink()
    change(run, "state", to="running")
    fit(tmp_path / "t.csv", "vae", out=run, resume=True, **QUIET)
    for name, tensor in tensors(whole.path / "model.safetensors").items():
        torch.testing.assert_close(tensors(run / "model.safetensors")[name], tensor)


def test_a_checkpoint_of_another_model_is_passed_over(trained, tmp_path):
    source = trained.parent / "x.npy"
    options = {"batch": 16, "latent": 2, "hidden": (8,), "checkpoint_steps": 1, **QUIET}
    run = fit(source, "vae", out=tmp_path / "run", steps=4, **options).path
    newest = sorted((run / "checkpoint").iterdir())[-1]
    kept, meta = read_tensors(newest)
    name = next(n for n in kept if n.startswith("weight/"))
    for wrong in (torch.full_like(kept[name], torch.nan), kept[name][:0], kept[name].long()):
        write_tensors(newest, kept | {name: wrong}, meta)
        change(run, "state", to="running")
        assert fit(source, "vae", out=run, resume=True, **QUIET).state == "finished"
    for file in (run / "checkpoint").iterdir():
        write_tensors(file, kept | {name: wrong}, read_tensors(file)[1])
    change(run, "state", to="running")
    with pytest.raises(TrainingError, match=f"does not fit this model and its training .{name}"):
        fit(source, "vae", out=run, resume=True, **QUIET)


def test_a_kept_density_larger_than_its_numbers(run):
    opened = vk.open(run)
    opened.fit_latents("flow", steps=1)
    file = run / "latents" / "flow.json"
    record = json.loads(file.read_text())
    record["choices"]["transforms"] = 10**9
    file.write_text(json.dumps(record))
    with pytest.raises(RunError, match="far larger than its stored numbers"):
        opened.fit_latents("flow")


def test_a_number_that_is_not_finite_is_not_stored(run):
    opened = vk.open(run)
    with pytest.raises(RunError, match="elbo is -inf"):
        opened.add_metrics([{"name": "elbo", "value": float("-inf"), "se": None, "unit": "nats", "protocol": {}}])
    assert opened.metrics == []
