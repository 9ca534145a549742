"""Processes that torchrun starts share rows and batches: the results are those of one process."""

import json
import socket
import subprocess
import sys

import numpy as np
import pytest
from core_helpers import environment, python_here, tensors

import vaekit as vk
from vaekit.runs.processes import place, shared, together

FIT = """
import sys
import torch
torch.set_num_threads(1)
import vaekit as vk
from core_helpers import blobs

vk.fit(vk.from_arrays(blobs(64), name="blobs"), "vae", out=sys.argv[1], latent=2, hidden=(8,), steps=6, batch=16,
       seed=1, optimiser="sgd", lr=1e-4, device="cpu", compile="off", precision="fp32", progress=False)
"""

USE = """
import sys
from vaekit.cli import main

run, data, out = sys.argv[1:]
main(["score", run, data, "--samples", "5", "--out", f"{out}/s.npz"])
main(["encode", run, data, "--out", f"{out}/z.npz"])
main(["evaluate", run, "--samples", "5", "--metrics", "elbo", "log_px_iw", "--out", f"{out}/m.json"])
"""


def port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def launched(machines, here, *command):
    """Start torchrun once for each of so many machines, all of them this one, and wait for them."""
    address = f"127.0.0.1:{port()}"
    start = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={machines}", f"--nproc-per-node={here}"]
    start += ["--rdzv-backend=c10d", f"--rdzv-endpoint={address}", "--rdzv-id=test", "--local-addr=127.0.0.1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment()}
    nodes = [subprocess.Popen([*start, *command], **pipes) for _ in range(machines)]
    outputs = [node.communicate(timeout=300) for node in nodes]
    for node, (_, errors) in zip(nodes, outputs, strict=True):
        assert node.returncode == 0, errors[-3000:]
    return "".join(out for out, _ in outputs)


def test_two_machines_of_two_processes_reach_the_weights_of_one_process(tmp_path):
    pytest.importorskip("lightning_fabric")
    script = tmp_path / "fit.py"
    script.write_text(FIT)
    python_here(str(script), str(tmp_path / "one"))
    launched(2, 2, str(script), str(tmp_path / "four"))
    one, four = (tensors(tmp_path / name / "model.safetensors") for name in ("one", "four"))
    for name, weights in one.items():
        np.testing.assert_allclose(four[name].numpy(), weights.numpy(), rtol=1e-4, atol=1e-6)
    assert json.loads((tmp_path / "four" / "run.json").read_text())["state"] == "finished"


def test_score_encode_and_evaluate_are_shared_among_processes(tmp_path):
    data = tmp_path / "rows.npy"
    np.save(data, np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32))
    run = vk.fit(str(data), out=tmp_path / "run", latent=2, hidden=(8,), steps=20, compile="off", progress=False)
    script = tmp_path / "use.py"
    script.write_text(USE)
    printed = launched(1, 3, str(script), str(run.path), str(data), str(tmp_path))
    assert printed.count("s.npz") == 1
    np.testing.assert_allclose(np.load(tmp_path / "s.npz")["log_px"], run.score(str(data), samples=5), atol=1e-4)
    np.testing.assert_allclose(np.load(tmp_path / "z.npz")["z"], run.encode(str(data)), rtol=1e-5, atol=1e-6)
    alone = {m["name"]: m["value"] for m in run.evaluate(samples=5, metrics=["elbo", "log_px_iw"])}
    for m in json.loads((tmp_path / "m.json").read_text()):
        assert m["value"] == pytest.approx(alone[m["name"]], rel=1e-5)


def test_one_process_shares_nothing(monkeypatch):
    rows = np.arange(5)
    with together() as first:
        assert first
        assert shared(rows, lambda part: part.sum(), lambda s: [s], lambda a: a[0]) == 10
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert place() == (1, 2)
    assert shared(rows, lambda part: part.sum(), lambda s: [s], lambda a: a[0]) == 10  # outside `together`
