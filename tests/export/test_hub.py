"""Runs on the Hugging Face hub: the folder, the upload and the download, against a server that speaks its protocol."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from core_helpers import QUIET, blobs
from hub_server import TOKEN, Repo, point_to, serving

import vaekit as vk
from vaekit.cli import main
from vaekit.errors import RunError
from vaekit.export import upload, write_hub
from vaekit.runs.example import PLACE
from vaekit.utils.hub import address, origin

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs vaekit[hub]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run on images in a file, with a density of codes, and one of a table."""
    folder = tmp_path_factory.mktemp("hub")
    np.save(folder / "private.npy", blobs(60, 1, 6, 5))
    small = {"steps": 4, "latent": 2, "hidden": (8,), **QUIET}
    run = vk.fit(folder / "private.npy", out=folder / "run", **small)
    run.fit_latents("gmm", components=2, steps=2)
    run.evaluate(samples=2, metrics=["elbo"])
    rows = [f"{'ab'[i % 2]},{i * 0.37 % 5:.2f}" for i in range(60)]
    (folder / "table.csv").write_text("\n".join(["kind,pipes|n", *rows]))
    vk.fit(folder / "table.csv", out=folder / "rows", **small)
    return folder


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serving() as server:
        point_to(server, monkeypatch, tmp_path / "cache")
        monkeypatch.chdir(tmp_path)
        yield server


def names(path):
    return sorted(f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file())


MODEL = ["README.md", "log.jsonl", "metrics.json", "model.safetensors", "run.json", "samples.png", "splits.safetensors"]


# --- the folder -------------------------------------------------------------------------------------------------


def test_the_folder_has_the_model_and_no_data(folder, tmp_path):
    run = vk.open(folder / "run")
    files = write_hub(run, tmp_path / "out", name="me/blobs", license="mit")
    assert names(tmp_path / "out") == sorted([*MODEL, "latents/gmm.json", "latents/gmm.safetensors"])
    assert sorted(f.relative_to(tmp_path / "out").as_posix() for f in files) == names(tmp_path / "out")
    content = b"".join(file.read_bytes() for file in files)
    assert str(folder).encode() not in content  # no path of this machine
    assert blobs(60, 1, 6, 5)[:1].tobytes() not in content
    assert json.loads((tmp_path / "out" / "run.json").read_text())["data"]["source"] is None
    again = vk.open(tmp_path / "out")
    for source in (None, "fitted"):
        np.testing.assert_array_equal(again.sample(5, latents=source), run.sample(5, latents=source))
    with pytest.raises(vk.VaekitError, match="pass `data=PATH`"):
        _ = again.data
    np.testing.assert_array_equal(again.use_data(folder / "private.npy").test[:3], run.data.test[:3])


def test_what_a_compiler_said_stays_here(folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "run.json").read_text())
    config["decided"]["compile_why"] = "compiling failed: CppCompileError: g++ /tmp/torchinductor_me/a.cpp"
    for place in (tmp_path / "run", tmp_path / "run" / "latents" / "flow-matching"):
        place.mkdir(exist_ok=True)
        (place / "run.json").write_text(json.dumps(config))
    write_hub(vk.open(tmp_path / "run"), tmp_path / "out")
    for file in ("run.json", "latents/flow-matching/run.json"):
        published = json.loads((tmp_path / "out" / file).read_text())
        assert published["decided"]["compile_why"] == "compiling failed"
        assert published["data"]["source"] is None


def test_what_is_in_the_folder_is_asked_for(folder, tmp_path):
    run = vk.open(folder / "run")
    write_hub(run, tmp_path / "out", densities=False, reconstructions=True, checkpoints=True)
    found = names(tmp_path / "out")
    assert "reconstructions.png" in found
    assert not any(name.startswith("latents") for name in found)
    assert sum(name.startswith("checkpoint/") and name.endswith(".safetensors") for name in found) >= 1
    shutil.rmtree(tmp_path / "out" / "checkpoint")  # an export without a state of training may be replaced
    write_hub(run, tmp_path / "out", densities=False)
    assert names(tmp_path / "out") == MODEL
    write_hub(vk.open(folder / "rows"), tmp_path / "rows")
    card = (tmp_path / "rows" / "README.md").read_text()
    assert "| kind | pipes\\|n |" in card
    assert "samples.png" not in names(tmp_path / "rows")


def test_the_hub_reads_the_card(folder, tmp_path):
    run = vk.open(folder / "run")
    write_hub(run, tmp_path / "out", name="me/blobs", license="apache-2.0", reconstructions=True)
    card = huggingface_hub.ModelCard.load(tmp_path / "out" / "README.md")
    assert (card.data.library_name, card.data.license) == ("vaekit", "apache-2.0")
    assert {"vae", "image"} <= set(card.data.tags)
    (elbo,) = card.data.eval_results
    (stored,) = (m for m in run.metrics if m["name"] == "elbo")
    assert (elbo.metric_type, elbo.metric_value) == ("elbo", stored["value"])
    assert elbo.metric_args["standard_error"] == stored["se"]
    assert elbo.dataset_split == "test"
    assert 'vk.open("hf://me/blobs")' in card.text
    for picture in ("samples.png", "reconstructions.png"):
        assert f"]({picture})" in card.text


def test_what_a_model_tells_of_training_rows_is_said(tmp_path, capsys):
    data = vk.from_arrays(blobs(60, 1, 6, 5), label=np.arange(60) % 2)
    run = vk.fit(data, out=tmp_path / "run", prior="vamp", components=4, steps=2, latent=2, hidden=(4,), **QUIET)
    run.use_data(data)
    run.fit_latents("flow-matching", steps=2, width=8, layers=1)
    capsys.readouterr()
    write_hub(run, tmp_path / "out")
    said = capsys.readouterr().err
    assert "has the pseudo-inputs of the VampPrior" in said
    assert "latents/flow-matching.safetensors has the labels of the training rows" in said
    inside = ("/log.jsonl", "/model.safetensors", "/run.json", "/splits.safetensors", ".json", ".safetensors")
    assert names(tmp_path / "out" / "latents") == sorted(f"flow-matching{name}" for name in inside)
    again = vk.open(tmp_path / "out", data=data)
    np.testing.assert_array_equal(again.sample(3, latents="flow-matching"), run.sample(3, latents="flow-matching"))


def test_hostile_names_stay_text(tmp_path):
    data = vk.from_arrays(blobs(60, 1, 6, 5), name='x"\n---\n<script>|`a`')
    run = vk.fit(data, out=tmp_path / "run", steps=2, latent=2, hidden=(4,), **QUIET)
    run.evaluate(samples=2, metrics=["elbo"])
    write_hub(run, tmp_path / "out")
    card = huggingface_hub.ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.eval_results[0].dataset_name == 'x"\n---\n<script>|`a`'
    assert "<script>" not in card.text


def test_nothing_but_an_export_is_replaced(folder, tmp_path):
    run = vk.open(folder / "run")
    for place in (folder, folder / "run", folder / "rows"):
        before = names(place)
        with pytest.raises(RunError, match="holds other files: name a new folder"):
            write_hub(run, place)
        assert names(place) == before
    write_hub(run, tmp_path / "out")
    with pytest.raises(RunError, match="holds other files"):
        write_hub(vk.open(tmp_path / "out"), tmp_path / "out")


# --- there and back ---------------------------------------------------------------------------------------------


def test_a_run_comes_back_the_same(folder, hub, capsys):
    assert main(["push", str(folder / "run"), "me/blobs", "--license", "mit"]) == 0
    said = capsys.readouterr()
    listed = [line.split()[0] for line in said.err.splitlines() if line.startswith("  ")]
    sent = hub.files("me/blobs")
    assert sorted(listed) == sorted(set(sent) - {".gitattributes"})
    assert "sending to hf://me/blobs: 9 files" in said.err
    commit = hub.repos["me/blobs"].branches["main"]
    assert said.out.split() == [f"hf://me/blobs@{commit}"]
    here, there = vk.open(folder / "run"), vk.open("hf://me/blobs")
    for source in (None, "gmm"):
        np.testing.assert_array_equal(there.sample(6, latents=source), here.sample(6, latents=source))
    assert there.metrics == here.metrics
    assert (there.name, origin(there.path)) == ("blobs", address(f"hf://me/blobs@{commit}"))
    assert names(there.path) == [name for name in names(there.path) if name in sent]
    assert not {"README.md", "samples.png"} & set(names(there.path))  # only what opening needs is loaded


def test_commands_take_addresses(folder, hub, tmp_path, capsys):
    vk.open(folder / "run").push("me/blobs")
    assert main(["sample", "hf://me/blobs", "-n", "4", "--out", "there.npz"]) == 0
    assert main(["sample", str(folder / "run"), "-n", "4", "--out", "here.npz"]) == 0
    np.testing.assert_array_equal(np.load("there.npz")["x"], np.load("here.npz")["x"])
    data = str(folder / "private.npy")
    assert main(["evaluate", "hf://me/blobs", "--data", data, "--samples", "2", "--metrics", "mse"]) == 0
    assert main(["encode", "hf://me/blobs", data, "--out", "z.npz"]) == 0
    capsys.readouterr()
    before = names(tmp_path / "cache")
    there = vk.open("hf://me/blobs", data=data)
    there.evaluate(samples=2, metrics=["mse"])
    there.fit_latents("gmm", components=3, steps=2, refit=True)
    assert names(tmp_path / "cache") == before  # what is downloaded is never changed
    assert "in the cache is never changed" in capsys.readouterr().err
    assert there.place_of("report.html").as_posix() == "blobs-report.html"
    start = vk.fit(data, out="new", steps=1, latent=2, hidden=(8,), init_from="hf://me/blobs", **QUIET)
    assert start.config["init_from"] == "hf://me/blobs"


def test_two_revisions(folder, hub, tmp_path):
    first = vk.open(folder / "run").push("me/blobs")
    shutil.copytree(folder / "run", tmp_path / "longer")
    longer = vk.fit(out=tmp_path / "longer", steps=8, extend=True, progress=False)
    second = longer.push("hf://me/blobs", message="trained longer")
    assert first != second
    samples = [vk.open(name).sample(4) for name in (first, second, "hf://me/blobs", "hf://me/blobs@main")]
    np.testing.assert_array_equal(samples[0], vk.open(folder / "run").sample(4))
    for one in samples[1:]:
        np.testing.assert_array_equal(one, longer.sample(4))
    assert not np.array_equal(samples[0], samples[1])
    repo = hub.repos["me/blobs"]
    assert repo.messages[-1] == "trained longer"
    branch = vk.open(folder / "run").push("me/blobs", revision="short")
    assert repo.branches["short"] == address(branch).revision != repo.branches["main"]
    np.testing.assert_array_equal(vk.open("hf://me/blobs@short").sample(4), samples[0])


def test_earlier_files_go_and_those_of_others_stay(folder, hub):
    run = vk.open(folder / "run")
    run.push("me/blobs", reconstructions=True)
    repo = hub.repos["me/blobs"]
    repo.commit("main", {**hub.files("me/blobs"), "LICENSE": b"own"}, "a licence")
    run.push("me/blobs", densities=False)
    assert set(hub.files("me/blobs")) == {*MODEL, "LICENSE", ".gitattributes"}


def test_large_files_go_by_lfs(folder, hub):
    hub.large = (".safetensors",)
    run = vk.open(folder / "run")
    there = vk.open(run.push("me/blobs"))
    assert "model.safetensors" in hub.repos["me/blobs"].lfs
    np.testing.assert_array_equal(there.sample(3), run.sample(3))


def test_a_private_repository(folder, hub, monkeypatch):
    run = vk.open(folder / "run")
    where = run.push("me/secret", private=True)
    assert hub.repos["me/secret"].private
    assert vk.open(where).state == "finished"
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(RunError, match="no repository me/secret, or it is private"):
        vk.open("hf://me/secret")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    run.push("me/open")
    before = dict(hub.files("me/open"))
    with pytest.raises(RunError, match="exists and is public"):
        run.push("me/open", private=True)
    assert hub.files("me/open") == before


def test_a_dry_run_sends_nothing(hub, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    assert main(["push", "example", "me/clothes", "--dry-run"]) == 0
    said = capsys.readouterr()
    assert hub.asked == []
    assert said.out.split() == ["clothes-hub"]
    assert "not sent (dry run) to hf://me/clothes: 7 files" in said.err
    assert "the model card states no licence: add one, such as --license apache-2.0" in said.err
    assert main(["export", "example", "--format", "hub", "--out", "exported"]) == 0
    np.testing.assert_array_equal(vk.open("exported").sample(2), vk.open("clothes-hub").sample(2))
    np.testing.assert_array_equal(vk.open("exported").sample(2), vk.open(PLACE).sample(2))


# --- what is refused --------------------------------------------------------------------------------------------


def test_what_is_missing_is_named(folder, hub, monkeypatch, capsys):
    run = vk.open(folder / "run")
    for text in ("hf://alone", "hf://a/b/c", "hf://me/blobs@"):
        with pytest.raises(RunError, match="write hf://user/name"):
            vk.open(text)
    for absent in ("hf://me/absent", Path("hf://me/absent")):  # a path has one slash
        with pytest.raises(RunError, match="no repository me/absent, or it is private"):
            vk.open(absent)
    run.push("me/blobs")
    with pytest.raises(RunError, match="no revision 'v9'"):
        vk.open("hf://me/blobs@v9")
    hub.repos["me/other"] = Repo()
    hub.repos["me/other"].commit("main", {"config.json": b"{}"}, "another model")
    with pytest.raises(RunError, match=r"no run\.json, which `vaekit push` writes"):
        vk.open("hf://me/other")
    with pytest.raises(RunError, match="not the name of a repository"):
        run.push("me/bad--name")
    monkeypatch.delenv("HF_TOKEN")
    hub.asked.clear()
    with pytest.raises(RunError, match="log in with `hf auth login`, or set HF_TOKEN"):
        run.push("me/blobs")
    assert hub.asked == []
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(RunError, match="refused access to me/blobs"):
        run.push("me/blobs")
    capsys.readouterr()
    assert main(["sample", "example", "--out", "hf://me/blobs"]) == 2
    assert "is an address of the Hugging Face hub, expected a path" in capsys.readouterr().err
    assert main(["hf://me/blobs"]) == 2
    assert "use `vaekit report hf://me/blobs`" in capsys.readouterr().err


def test_without_the_package(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(RunError, match=r"pip install 'vaekit\[hub\]'"):
        vk.open("hf://me/blobs")
    assert main(["push", "example", "me/clothes"]) == 2
    assert "pip install 'vaekit[hub]'" in capsys.readouterr().err


def test_without_a_connection_the_copy_is_used_and_said(folder, hub, monkeypatch, tmp_path, capsys):
    run = vk.open(folder / "run")
    commit = address(run.push("me/blobs")).revision
    vk.open("hf://me/blobs")
    hub.url = "http://127.0.0.1:9"  # where nothing listens
    point_to(hub, monkeypatch, tmp_path / "cache")
    capsys.readouterr()
    np.testing.assert_array_equal(vk.open("hf://me/blobs").sample(2), run.sample(2))
    said = capsys.readouterr().err
    assert "cannot be reached" in said
    assert commit in said
    with pytest.raises(RunError, match="is not in the cache, and the hub cannot be reached"):
        vk.open("hf://me/never")


def test_the_commands_of_the_guide_run(hub, monkeypatch):
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "hub.md").read_text(encoding="utf8")
    assert main(["fit", "digits", "--latent", "4", "--steps", "2", "--compile", "off", "--out", "runs/digits"]) == 0
    lines = re.search(r"```bash\n(.*?)```", guide, re.S)[1].splitlines()
    assert len(lines) == 3
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        assert main([*words, "--steps", "1"] if words[0] == "fit" else words) == 0, line


def test_an_upload_of_a_folder(folder, hub, tmp_path):
    write_hub(vk.open(folder / "run"), tmp_path / "out", name="me/blobs")
    (tmp_path / "out" / "notes.txt").write_text("own")
    upload(tmp_path / "out", "me/blobs")
    assert "notes.txt" not in hub.files("me/blobs")
    assert {"README.md", "latents/gmm.json"} <= set(hub.files("me/blobs"))
