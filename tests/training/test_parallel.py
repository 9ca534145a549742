"""Two processes on one global batch reach the weights of one process."""

import json

import pytest
import torch
from core_helpers import QUIET, blobs, python, python_here, tensors

import vaekit as vk
from vaekit.errors import ChoiceError, RunError
from vaekit.training import parallel

SCRIPT = """
import sys
import torch
torch.set_num_threads(1)
import vaekit as vk
from core_helpers import blobs
from vaekit import heads, networks
from vaekit.data.observation import Binary
from vaekit.objectives import Objective, Losses
from vaekit.recipes import Composition, Defaults, gaussian_vae
from vaekit.objectives.terms import distortion, rate


class TwoPlayers(Objective):
    def parameter_groups(self, model):
        return {"encoder": list(model.posterior.parameters()), "decoder": list(model.likelihood.parameters())}

    def forward(self, model, batch, step):
        trace = model.trace(batch.x, noise=batch.noise)
        d, r = distortion(trace, batch.x), rate(trace)
        stats = {"elbo": -(d + r).mean(), "rate": r.mean(), "distortion": d.mean()}
        return Losses({"encoder": (d + 2 * r).mean(), "decoder": d.mean()}, stats)


event = (1, 6, 5)
torch.manual_seed(0)
model = gaussian_vae(networks.MLP(event, 4, (8,)), networks.MLP((2,), 30, (8,)), 2, heads.Bernoulli(event))
made = Composition(model, TwoPlayers(), Binary(), Defaults("adam", 1e-2, 15, clip=3.0, ema=0.9))
data = vk.from_arrays(blobs(61), name="blobs")
vk.fit(data, made, out=sys.argv[1], devices=int(sys.argv[2]), steps=10, seed=1, checkpoint_steps=5, device="cpu",
       compile="off", progress=False)
"""


def test_two_processes_reach_the_weights_of_one(tmp_path):
    """A batch of 15 is cut in 8 and 7: each process counts by its rows, and draws their noise by their global place."""
    pytest.importorskip("lightning_fabric")
    script = tmp_path / "two.py"
    script.write_text(SCRIPT)
    python_here(str(script), str(tmp_path / "1"), "1")
    done = python(str(script), str(tmp_path / "2"), "2")
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = tensors(tmp_path / "1/model.safetensors"), tensors(tmp_path / "2/model.safetensors")
    for n in one:
        # sums in another order, divided by Adam by their own small size: some 1e-4 of the ten steps of 1e-2
        torch.testing.assert_close(two[n], one[n], rtol=1e-3, atol=2e-5)
    logs = [[json.loads(line) for line in (tmp_path / d / "log.jsonl").read_text().splitlines()] for d in ("1", "2")]
    assert [r["kind"] for r in logs[0]] == [r["kind"] for r in logs[1]]
    for a, b in zip(*logs, strict=True):
        for key in ("loss/encoder", "loss/decoder", "elbo", "rate"):
            assert (key in a) == (key in b)
            assert key not in a or b[key] == pytest.approx(a[key], rel=1e-4)
    assert json.loads((tmp_path / "2/run.json").read_text())["state"] == "finished"


def test_more_devices_than_the_machine_has_are_refused_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 12)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device, most in (("cpu", "12 processes"), ("cuda", "2 GPUs")):
        with pytest.raises(ChoiceError, match=f"`devices` is 13, but training on this machine can use at most {most}"):
            parallel.launch(13, device, 64)
    with pytest.raises(ChoiceError, match="`devices` is 13"):
        vk.fit(vk.from_arrays(blobs(40)), out=tmp_path / "run", steps=2, devices=13, **QUIET)
    with pytest.raises(ChoiceError, match="a batch has 3 rows, fewer than the 4 processes"):
        vk.fit(vk.from_arrays(blobs(40)), out=tmp_path / "run", steps=2, devices=4, batch=3, **QUIET)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("devices", [0, -1, 1025, 10**9, 2**70, True, 1.5, "2"])
def test_a_run_that_asks_for_devices_that_no_machine_has_is_damaged(tmp_path, devices):
    run = vk.fit(vk.from_arrays(blobs(40)), out=tmp_path / "run", steps=1, latent=1, hidden=(2,), **QUIET)
    config = json.loads((run.path / "run.json").read_text())
    config["training"]["devices"] = devices
    (run.path / "run.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match="devices"):
        vk.open(run.path)
