"""AutoencoderKL of diffusers, loaded from an exported folder, computes what the run computes."""

import numpy as np
import pytest
import torch
from core_helpers import QUIET, blobs

import vaekit as vk
from vaekit.cli import main
from vaekit.errors import ChoiceError

pytest.importorskip("diffusers", reason="needs vaekit[diffusers]")

SMALL = {"hidden": (8, 16), "code_channels": 2, "network": "autoencoder-kl", "steps": 3, "batch": 8, **QUIET}
CASES = {
    "grey": ((1, 8, 12), {"likelihood": "gaussian", "sigma": "optimal"}),
    "colour": ((3, 8, 8), {"attention": False}),
    "three levels": ((3, 8, 8), {"hidden": (8, 8, 16), "likelihood": "laplace", "observation": "grey"}),
    "autoencoder": ((1, 8, 8), {"recipe": "ae", "likelihood": "gaussian"}),
}


def trained(folder, shape, recipe="vae", **choices):
    """A run whose weights are far from their start, which leaves some blocks without effect."""
    run = vk.fit(vk.from_arrays(blobs(40, *shape)), recipe, out=folder / "run", **SMALL | choices)
    generator = torch.Generator().manual_seed(0)
    for parameter in run.model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return run


@pytest.mark.parametrize("name", CASES)
def test_it_computes_what_the_run_computes(name, tmp_path):
    from diffusers import AutoencoderKL

    shape, choices = CASES[name]
    run = trained(tmp_path, shape, **choices)
    files = run.export(tmp_path / "kl", format="diffusers")
    assert [file.name for file in files] == ["config.json", "diffusion_pytorch_model.safetensors", "README.md"]
    model = AutoencoderKL.from_pretrained(tmp_path / "kl")
    raw = torch.from_numpy(blobs(5, *shape, seed=1)).float()
    x = 2 * raw / 255 - 1 if name == "colour" else raw / 255
    with torch.no_grad():
        q = model.encode(x).latent_dist
        np.testing.assert_allclose(q.mean.flatten(1), run.encode(raw.numpy()), atol=1e-5)
        z = torch.randn(5, *run.model.grid, generator=torch.Generator().manual_seed(1))
        decoded = model.decode(z).sample
        px = run.model.decode(z.flatten(1)).base_dist
        own = px.loc / 127.5 - 1 if name == "colour" else px.mean
        np.testing.assert_allclose(decoded, own, atol=1e-5)
        if name != "colour":
            np.testing.assert_allclose(255 * decoded, run.decode(z.flatten(1).numpy()), atol=255e-5)
        if name == "autoencoder":
            assert float(q.std.max()) < 1e-6
        else:
            own_std = run.model.posterior(run.composition.observation.expected(raw)).stddev
            small = own_std < 1  # vaekit lets larger ones grow more slowly
            assert bool(small.any())
            np.testing.assert_allclose(q.std.flatten(1)[small], own_std[small], rtol=0.02)
    assert model.config.scaling_factor == pytest.approx(run.scaling_factor or 1.0)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"network": "grid"}, "train with `network='autoencoder-kl'`"),
        ({"likelihood": "bernoulli"}, "train with `likelihood='gaussian'`"),
        ({"likelihood": "gaussian", "observation": "centred"}, "train with `observation='grey'`"),
        ({"likelihood": "gaussian", "posterior": "iaf"}, "train with `posterior='gaussian'`"),
    ],
)
def test_what_it_cannot_represent_is_refused_with_a_remedy(choices, words, tmp_path):
    run = trained(tmp_path, (1, 8, 8), **choices)
    with pytest.raises(ChoiceError, match=words):
        run.export(tmp_path / "kl", format="diffusers")
    assert not (tmp_path / "kl").exists()


def test_the_network_refuses_what_it_cannot_hold(tmp_path):
    for shape, choices, words in (
        ((1, 7, 8), {}, "7 x 8 are not multiples of 2"),
        ((1, 8, 8), {"hidden": (8,) * 5}, "8 x 8 are not multiples of 16"),
        ((5,), {"hidden": (8,)}, "for images without missing values"),
    ):
        with pytest.raises(ChoiceError, match=words):
            vk.fit(vk.from_arrays(blobs(40, *shape)), out=tmp_path / "run", **SMALL | choices)
    labelled = vk.from_arrays(blobs(40, 1, 8, 8), label=np.arange(40) % 2)
    with pytest.raises(ChoiceError, match="takes no condition"):
        vk.fit(labelled, out=tmp_path / "run", condition="label", **SMALL)


def test_the_command_says_how_both_differ(tmp_path, capsys):
    np.save(tmp_path / "x.npy", blobs(40, 8, 8, 3))
    path = str(tmp_path / "run")
    words = ["--network", "autoencoder-kl", "--hidden", "8", "8", "--steps", "2", "--compile", "off"]
    assert main(["fit", str(tmp_path / "x.npy"), *words, "--out", path]) == 0
    capsys.readouterr()
    assert main(["export", path, "--format", "diffusers", "--out", str(tmp_path / "kl")]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 3
    assert "decoded images are the location of the logistic" in said.err
    assert "scaled to -1 to 1" in (tmp_path / "kl" / "README.md").read_text()
    assert main(["export", path, "--format", "diffusers", "--graphs", "decode", "--out", "other"]) == 2
    again = ["export", path, "--format", "diffusers", "--out", str(tmp_path / "kl")]
    assert main(again) == 0  # an earlier export is replaced
    capsys.readouterr()
    (tmp_path / "kl" / "README.md").write_text("# My project\n")
    assert main(again) == 2
    assert "holds another config.json: name a new folder" in capsys.readouterr().err
    assert (tmp_path / "kl" / "README.md").read_text() == "# My project\n"
