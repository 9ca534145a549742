"""A small share of `make torture`, and places where nothing can be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vaekit.errors import RunError
from vaekit.utils.files import write_text

TOOLS = Path(__file__).parents[2] / "tools"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def run(code: str, **more) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TOOLS), *sys.path])}
    return subprocess.run([sys.executable, "-c", code], env=environment, text=True, check=False, **more)


def test_killed_starved_and_crowded_trainings_end_in_the_same_bytes():
    code = (
        "import torture\n"
        "for kind, n in (('kill', 6), ('disk', 3), ('crowd', 1)):\n"
        "    counts = torture.torture(n, 0, kind)\n"
        "    assert counts['ended in the same bytes'] == counts[f'rounds of {kind}'] > 0\n"
        "    assert kind != 'kill' or counts['kills'] >= 6\n"
    )
    done = run(code, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written():
    with open("/dev/full", "w") as full:
        done = run(
            "from vaekit.cli import main; raise SystemExit(main(['datasets']))", stdout=full, stderr=subprocess.PIPE
        )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "cannot be written: No space left" in done.stderr


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path):
        with pytest.raises(RunError, match="a folder or a device"):
            write_text(place, "text")
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]
