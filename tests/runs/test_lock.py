"""One training per directory: a lock that dead processes do not hold."""

import errno
import json
import os
import threading
from pathlib import Path

import pytest
from core_helpers import QUIET, blobs

import vaekit as vk
from vaekit.errors import RunError
from vaekit.run import fit
from vaekit.runs import lock, saved
from vaekit.runs.lock import LOCK, only_trainer, only_writer

SYSTEMS = ["flock", "without flock", "without fcntl"]
WITHOUT = pytest.mark.parametrize("kind", SYSTEMS)


@pytest.fixture
def system(monkeypatch):
    """With the system's lock, on a file system that has none, or on a system (Windows) that has none.

    The last removes no file that is open, and has neither the start of the machine nor that of a process in /proc.
    """
    opened = {}
    real_open, real_close, real_unlink = os.open, os.close, Path.unlink

    def unsupported(fd, how):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    def open_it(path, *given):
        fd = real_open(path, *given)
        opened[fd] = str(path)
        return fd

    def close_it(fd):
        opened.pop(fd, None)
        real_close(fd)

    def unlink_it(path, missing_ok=False):
        if str(path) in opened.values():
            raise PermissionError(errno.EACCES, "The process cannot access the file: it is being used")
        real_unlink(path, missing_ok)

    def choose(kind):
        if kind == "without flock":
            monkeypatch.setattr(lock.fcntl, "flock", unsupported)
        if kind == "without fcntl":
            monkeypatch.setattr(lock, "fcntl", None)
            monkeypatch.setattr(lock, "_boot", lambda: None)
            monkeypatch.setattr(lock, "_begun", lambda pid: None)
            monkeypatch.setattr(os, "open", open_it)
            monkeypatch.setattr(os, "close", close_it)
            monkeypatch.setattr(Path, "unlink", unlink_it)

    return choose


@WITHOUT
def test_a_second_one_is_refused_with_the_number_of_the_first(tmp_path, system, kind):
    system(kind)
    with only_trainer(tmp_path):
        said = rf"being trained by this process \({os.getpid()}\)"
        with pytest.raises(RunError, match=said), only_trainer(tmp_path):
            pass
        assert (tmp_path / LOCK).exists()
    assert not (tmp_path / LOCK).exists()
    with only_trainer(tmp_path):
        pass


@WITHOUT
@pytest.mark.parametrize(
    "change",
    [{"pid": 4194305}, {"boot": "before the reboot"}, {"begun": "1"}, None],
    ids=["dead", "rebooted", "another process of its number", "half written"],
)
def test_what_dead_processes_left_does_not_block(tmp_path, system, kind, change):
    system(kind)
    if kind == "without fcntl" and change not in ({"pid": 4194305}, None):
        pytest.skip("a running process and another of its number are alike there")
    owner = {} if change is None else lock._ourselves() | {"pid": os.getppid(), "begun": lock._begun(os.getppid())}
    text = json.dumps(owner | change) if change else '{"pid": 1'
    (tmp_path / LOCK).write_text(text)
    with only_trainer(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("kind", SYSTEMS[1:])
def test_where_the_system_has_no_locks_a_running_process_and_another_machine_are_believed(tmp_path, system, kind):
    system(kind)
    parent = lock._ourselves() | {"pid": os.getppid(), "begun": lock._begun(os.getppid())}
    for owner, said in ((parent, f"process {os.getppid()} on"), (parent | {"host": "elsewhere"}, "on elsewhere")):
        (tmp_path / LOCK).write_text(json.dumps(owner))
        with pytest.raises(RunError, match=said), only_trainer(tmp_path):
            pass


def test_of_many_at_once_one_trains(tmp_path):
    together, inside, refused = threading.Barrier(8), [], []

    def enter():
        together.wait()
        try:
            with only_trainer(tmp_path):
                inside.append(1)
                together.wait()
        except RunError:
            refused.append(1)
            together.wait()

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert (len(inside), len(refused)) == (1, 7)


def test_two_trainings_into_one_directory(tmp_path):
    """The second is refused whether it starts or resumes, and neither changes the first; reading needs no lock."""
    data, out = vk.from_arrays(blobs(40)), tmp_path / "run"
    settings = {"latent": 2, "hidden": (8,), "batch": 16, "steps": 6, "checkpoint_steps": 3, **QUIET}

    def second(config):
        for resume in (False, True):
            with pytest.raises(RunError, match=r"being trained by|already holds a run"):
                fit(data, out=out, resume=resume, **settings)

    run = fit(data, "vae", out=out, on_start=second, **settings)
    assert run.config["state"] == "finished"
    (out / LOCK).write_text("{}")
    out.chmod(0o500)
    try:
        assert vk.open(out).config["step"] == 6
        assert fit(data, out=out, resume=True, progress=False).config["step"] == 6  # nothing is left to train
    finally:
        out.chmod(0o700)


# --- files that several processes change ------------------------------------------------------------------------


@WITHOUT
def test_a_writer_waits_for_the_one_before_it(tmp_path, system, kind, monkeypatch):
    """It writes as soon as the other has ended, and what it finds then is what that one left."""
    system(kind)
    file, order, waiting = tmp_path / "numbers.json", [], threading.Event()
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: waiting.set())

    def second():
        with only_writer(file):
            order.append("second")

    with only_writer(file):
        other = threading.Thread(target=second)
        other.start()
        assert waiting.wait(60)
        order.append("first")
    other.join(60)
    assert order == ["first", "second"]
    assert list(tmp_path.iterdir()) == []


def test_a_writer_does_not_wait_for_ever(tmp_path, monkeypatch):
    now = iter(range(0, 1000, 25))
    monkeypatch.setattr(lock.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: None)
    with only_writer(tmp_path / "a.json"):
        with (
            pytest.raises(RunError, match=r"a\.json is being changed by this process"),
            only_writer(tmp_path / "a.json"),
        ):
            pass
        with only_writer(tmp_path / "b.json"):  # each file has a lock of its own
            pass


def metric(name, value):
    return {"name": name, "value": value, "se": None, "unit": "nats", "protocol": {}}


@pytest.fixture
def run(tmp_path):
    settings = {"latent": 2, "hidden": (8,), "batch": 16, "steps": 3, **QUIET}
    return fit(vk.from_arrays(blobs(40)), "vae", out=tmp_path / "run", **settings)


def test_two_evaluations_at_once_both_store_their_numbers(run, monkeypatch):
    """The second begins while the first has read metrics.json and not yet written it."""
    waiting, others, write = threading.Event(), [], saved.write_json
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: waiting.set())

    def write_json(file, value):
        if not others:
            other = vk.open(run.path)
            others.append(threading.Thread(target=lambda: other.add_metrics([metric("rate", 2.0)])))
            others[0].start()
            assert waiting.wait(60)
        write(file, value)

    monkeypatch.setattr(saved, "write_json", write_json)
    run.add_metrics([metric("elbo", 1.0)])
    others[0].join(60)
    assert {m["name"]: m["value"] for m in run.metrics} == {"elbo": 1.0, "rate": 2.0}


def test_numbers_of_weights_that_were_trained_on_are_not_stored(run):
    before = vk.open(run.path)
    fit(vk.from_arrays(blobs(40)), out=run.path, extend=True, steps=6, progress=False)
    with pytest.raises(RunError, match="was trained further to step 6, but these metrics are those of step 3"):
        before.add_metrics([metric("elbo", 1.0)])
    assert vk.open(run.path).metrics == []
