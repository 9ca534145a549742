"""Two processes on one global batch reach the weights of one process."""

import json

import pytest
import torch
from core_helpers import python, tensors

SCRIPT = """
import sys
import torch
torch.set_num_threads(1)
import vaekit as vk
from core_helpers import blobs
from vaekit import conditional as heads, nets
from vaekit.data.observation import Binary
from vaekit.objectives import Objective, Terms
from vaekit.recipes import Composition, Defaults, gaussian_vae
from vaekit.terms import distortion, rate


class TwoPlayers(Objective):
    def players(self, model):
        return {"encoder": list(model.posterior.parameters()), "decoder": list(model.likelihood.parameters())}

    def forward(self, model, batch, step):
        trace = model.trace(batch.x, noise=batch.noise)
        d, r = distortion(trace, batch.x), rate(trace)
        stats = {"elbo": -(d + r).mean(), "rate": r.mean(), "distortion": d.mean()}
        return Terms({"encoder": (d + 2 * r).mean(), "decoder": d.mean()}, stats)


event = (1, 6, 5)
torch.manual_seed(0)
model = gaussian_vae(nets.MLP(event, 4, (8,)), nets.MLP((2,), 30, (8,)), 2, heads.Bernoulli(event))
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
    for devices in ("1", "2"):
        done = python(str(script), str(tmp_path / devices), devices)
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
