"""What `vaekit doctor` prints without a subject: enough for a bug report, and nothing private."""

import getpass
import json
import platform
import socket
from pathlib import Path

import pytest
import torch

import vaekit
from vaekit.cli import main
from vaekit.diagnosis import environment


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """A cache of 1.5 MB in a place with a telling name, and none of compiled code."""
    place = tmp_path / "secret-name"
    (place / "inside").mkdir(parents=True)
    (place / "a.npy").write_bytes(bytes(1_000_000))
    (place / "inside" / "b.npy").write_bytes(bytes(500_000))
    monkeypatch.setenv("VAEKIT_CACHE", str(place))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "secret-too"))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    return place


def test_it_says_what_matters(caches):
    found = environment().groups
    assert found["versions"]["vaekit"] == vaekit.__version__
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"]["Python"].startswith(platform.python_version())
    assert found["processor"]["vector instructions"] == torch.backends.cpu.get_cpu_capability()
    assert found["torch"]["threads"].startswith(f"{torch.get_num_threads()} within an operation")
    assert found["caches"]["data"] == "1.5 MB in the place that VAEKIT_CACHE sets, writable"
    assert found["caches"]["compiled code"] == "none yet, in the place that TORCHINDUCTOR_CACHE_DIR sets"
    assert found["variables"]["OMP_NUM_THREADS"] == "3"
    assert found["variables"]["VAEKIT_CACHE"] == "set"


def test_nothing_private_is_in_it(caches):
    text = str(environment())
    words = ["secret", str(Path.cwd()), str(Path.home()), str(Path(vaekit.__file__).parent)]
    words += [name for name in (getpass.getuser(), socket.gethostname()) if len(name) > 4]
    assert [word for word in words if word in text] == []


def test_a_large_cache_is_not_counted_to_its_end(caches, monkeypatch):
    monkeypatch.setattr("vaekit.utils.environment.COUNTED", 1)
    assert environment().groups["caches"]["data"].startswith("more than 1")


def test_the_command(caches, capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert f"  vaekit         {vaekit.__version__}\n" in said or f" {vaekit.__version__}\n" in said
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["caches"]["data"].startswith("1.5 MB")
    assert main(["doctor", "--recipe", "vae"]) == 2
    assert "vaekit doctor DATA" in capsys.readouterr().err
    assert main(["doctor", "--thorough"]) == 2
