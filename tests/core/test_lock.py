"""One training per directory: a lock that dead processes do not hold."""

import errno
import json
import os
import threading

import pytest
from core_helpers import QUIET, blobs

import vaekit as vk
from vaekit import lock
from vaekit.errors import RunError
from vaekit.lock import LOCK, only_trainer
from vaekit.train import fit

WITHOUT = pytest.mark.parametrize("flock", [True, False], ids=["flock", "without flock"])


@pytest.fixture
def system(request, monkeypatch):
    """With the system's lock, or on a file system that has none."""

    def unsupported(fd, how):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    def choose(flock):
        if not flock:
            monkeypatch.setattr(lock.fcntl, "flock", unsupported)

    return choose


@WITHOUT
def test_a_second_one_is_refused_with_the_number_of_the_first(tmp_path, system, flock):
    system(flock)
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
def test_what_dead_processes_left_does_not_block(tmp_path, system, flock, change):
    system(flock)
    owner = {} if change is None else lock._ourselves() | {"pid": os.getppid(), "begun": lock._begun(os.getppid())}
    text = json.dumps(owner | change) if change else '{"pid": 1'
    (tmp_path / LOCK).write_text(text)
    with only_trainer(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_where_the_system_has_no_locks_a_running_process_and_another_machine_are_believed(tmp_path, system):
    system(False)
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
