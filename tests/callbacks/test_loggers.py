"""Loggers: what they write is read back by the reader of each tool, resumed runs continue, and nothing is sent."""

import csv
import errno
import json
import socket
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import vaekit as vk
from vaekit.callbacks.loggers import LOGGERS, CSVLogger, Logger, loggers_of
from vaekit.errors import ChoiceError, RunError

SETTINGS = {"hidden": (16,), "latent": 3, "validate_steps": 50, "compile": "off", "progress": False}
STEPS = 150


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 1, 8, 8))[rng.integers(0, 3, 240)]
    noisy = np.clip(pictures + rng.normal(0, 20, (240, 1, 8, 8)), 0, 255).astype(np.uint8)
    return vk.from_arrays(noisy, label=np.arange(240) % 3)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """Each test has its own working directory; WANDB_MODE is as for users without a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def addresses(monkeypatch):
    """The addresses that this process connects to, other than on this machine."""
    found, connect = [], socket.socket.connect

    def watched(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            found.append(address)
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", watched)
    return found


def fitted(images, out, log, **more):
    return vk.fit(images, out=out, log=log, **SETTINGS | {"steps": STEPS} | more)


def interrupted_and_resumed(images, out, log):
    """A run that stops after 100 steps and is resumed."""

    class Stop(vk.Callback):
        def on_step(self, training, terms):
            if training.step == 100:
                training.stop()

    fitted(images, out, log, callbacks=[Stop()])
    return vk.fit(images, out=out, resume=True, progress=False, log=log)


def recorded(run):
    """Step and training ELBO of each record of log.jsonl, and step and ELBO of each validation."""
    records = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    return [{r["step"]: r["elbo"] for r in records if r["kind"] == kind} for kind in ("train", "valid")]


def test_csv_has_the_figures_of_the_log(images, tmp_path):
    run = interrupted_and_resumed(images, tmp_path / "run", "csv")
    rows = list(csv.DictReader((run.path / "log.csv").open(newline="")))
    train, valid = recorded(run)
    for part, wanted in (("train/elbo", train), ("valid/elbo", valid)):
        assert {int(r["step"]): float(r[part]) for r in rows if r[part]} == pytest.approx(wanted)
    assert len(train) == len(valid) == 3


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_csv_keeps_its_rows_if_a_column_cannot_be_added(tmp_path, monkeypatch, error):
    def half(part, data):
        with open(part, "wb") as file:
            file.write(data[: len(data) // 2])
        raise error

    log = CSVLogger(str(tmp_path / "log.csv"))
    log.open(SimpleNamespace(first=0, path=tmp_path), {})
    for step in (50, 100):
        log.scalars(step, {"train/elbo": -float(step), "train/rate": 0.1 + step})
    before = (tmp_path / "log.csv").read_bytes()
    assert before == b"step,train/elbo,train/rate\r\n50,-50.0,50.1\r\n100,-100.0,100.1\r\n"

    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", half)
        with pytest.raises((RunError, KeyboardInterrupt)) as raised:
            log.scalars(100, {"valid/elbo": -99.0})
    assert (tmp_path / "log.csv").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["log.csv"]
    assert isinstance(raised.value, KeyboardInterrupt) or "free some space" in str(raised.value)

    resumed = CSVLogger(str(tmp_path / "log.csv"))
    resumed.open(SimpleNamespace(first=100, path=tmp_path), {})
    resumed.scalars(100, {"valid/elbo": -99.0})
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines == ["step,train/elbo,train/rate,valid/elbo", "50,-50.0,50.1,", "100,-100.0,100.1,", "100,,,-99.0"]


def test_csv_takes_a_file_and_refuses_one_that_exists(images, tmp_path):
    fitted(images, tmp_path / "a", f"csv:{tmp_path / 'logs' / 'mine.csv'}")
    assert (tmp_path / "logs" / "mine.csv").read_text().startswith("step,")
    with pytest.raises(RunError, match=r"mine\.csv exists already"):
        fitted(images, tmp_path / "b", f"csv:{tmp_path / 'logs' / 'mine.csv'}")


def test_tensorboard_reads_curves_pictures_and_hyper_parameters(images, tmp_path, addresses):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    run = interrupted_and_resumed(images, tmp_path / "run", "tensorboard")
    events = EventAccumulator(str(run.path / "tensorboard"), {"images": 0, "scalars": 0})
    events.Reload()
    train, valid = recorded(run)
    for name, wanted in (("train/elbo", train), ("valid/elbo", valid)):
        assert {e.step: e.value for e in events.Scalars(name)} == pytest.approx(wanted)
    assert set(events.Tags()["images"]) == {"reconstructions", "samples", "latent map"}
    assert [e.step for e in events.Images("samples")] == [50, 100, 150]
    assert events.Images("samples")[0].encoded_image_string.startswith(b"\x89PNG")
    stored = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = plugin_data_pb2.HParamsPluginData.FromString(stored).session_start_info.hparams
    assert settings["latent"].number_value == 3
    assert settings["recipe"].string_value == "vae"
    assert not addresses


def stored(content):
    """The records of an offline run of W&B: a header of 7 bytes, then LevelDB's log format with blocks of 32 KiB."""
    assert content.startswith(b":W&B")
    place, parts = 7, []
    while place + 7 <= len(content):
        if (left := -place % 32768) and left < 7:
            place += left
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        parts.append(content[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield b"".join(parts)
            parts = []


def test_wandb_offline_has_the_figures_and_sends_nothing(images, tmp_path, addresses):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    run = fitted(images, tmp_path / "run", "wandb:mine")
    (file,) = (run.path / "wandb").glob("offline-run-*/run-*.wandb")
    found, settings, project = {}, {}, ""
    for data in stored(file.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        if record.run.project:
            project = record.run.project
            settings |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        row = {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in record.history.item}
        if "train/elbo" in row:
            found[row["step"]] = row["train/elbo"]
    assert found == pytest.approx(recorded(run)[0])
    assert project == "mine"
    assert settings["latent"] == 3
    assert list((run.path / "wandb").glob("offline-run-*/files/media/images/samples*.png"))
    assert not addresses


def test_mlflow_has_the_figures_and_pictures(images, tmp_path, addresses):
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    where = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run = interrupted_and_resumed(images, tmp_path / "run", f"mlflow:{where}")
    client = MlflowClient(where)
    (stored,) = client.search_runs([client.get_experiment_by_name("vaekit").experiment_id])
    train, _ = recorded(run)
    found = {m.step: m.value for m in client.get_metric_history(stored.info.run_id, "train/elbo")}
    assert found == pytest.approx(train)
    assert stored.info.status == "FINISHED"
    assert stored.data.params["latent"] == "3"
    assert client.list_artifacts(stored.info.run_id, "images")
    assert not addresses


def test_several_loggers_change_nothing(images, tmp_path):
    plain = fitted(images, tmp_path / "plain", ())
    logged = fitted(images, tmp_path / "logged", "csv, tensorboard" if tensorboard() else "csv")
    both = [(run.path / "model.safetensors").read_bytes() for run in (plain, logged)]
    assert both[0] == both[1]


def tensorboard():
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        return False
    return True


def test_an_own_logger_gets_all_figures(images, tmp_path):
    class Mine(Logger):
        def open(self, training, settings):
            self.settings, self.steps = settings, []

        def scalars(self, step, figures):
            assert all(isinstance(value, float) for value in figures.values())
            self.steps.append(step)

        def close(self, state):
            self.state = state

    mine = Mine()
    fitted(images, tmp_path / "run", mine)
    assert (mine.state, sorted(set(mine.steps))) == ("finished", [50, 100, 150])
    assert mine.settings["recipe"] == "vae"


def test_unknown_loggers_are_refused_before_the_run_is_created(images, tmp_path):
    with pytest.raises(ChoiceError, match="unknown `logger` 'tensorbord': did you mean 'tensorboard'"):
        fitted(images, tmp_path / "run", "tensorbord")
    with pytest.raises(ChoiceError, match="must be names of loggers"):
        loggers_of([3])
    assert not (tmp_path / "run").exists()
    assert set(LOGGERS) == {"csv", "tensorboard", "wandb", "mlflow"}
