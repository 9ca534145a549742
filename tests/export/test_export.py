"""Exported graphs give what the run gives: each held against PyTorch by onnxruntime, and against the run itself."""

import math
import sys
import zipfile

import numpy as np
import pytest
import torch
from core_helpers import weekly
from explorer_helpers import QUIET, Recorded, made_up, raw_of, trained

import vaekit as vk
from vaekit import heads
from vaekit.data.observation import Binary, Identity
from vaekit.errors import ChoiceError
from vaekit.export import build, export_graphs, several, write_export
from vaekit.export.graphs import Graph, Port, blur, certain
from vaekit.export.onnx import Session, convert, difference
from vaekit.export.several import check_names
from vaekit.heads import Conditional
from vaekit.models.priors import StandardNormal
from vaekit.models.vae import VAE
from vaekit.objectives import ELBO
from vaekit.objectives.terms import log_weights
from vaekit.recipes import get_recipe
from vaekit.recipes.composition import Composition, DataSpec, Defaults
from vaekit.runs.trained import TrainedModel
from vaekit.training.prepare import prepare

pytest.importorskip("onnx", reason="needs vaekit[onnx]")
pytest.importorskip("onnxscript", reason="needs vaekit[onnx]")
pytest.importorskip("onnxruntime", reason="needs vaekit[onnx]")
pytestmark = pytest.mark.usefixtures("onnx_operators_once")

N = 7
# `weights` encodes and decodes within itself: graphs apart are exported where they have a form of their own
MATRIX = [
    ("vae", "image", {}, "decode draw encode weights"),
    ("vae", "image", {"likelihood": "gaussian", "observation": "dequantised"}, "draw weights"),
    ("vae", "image", {"likelihood": "student-t"}, "weights"),
    ("vae", "image", {"likelihood": "discretised-logistic"}, "decode"),
    ("ae", "image", {}, "decode encode"),
    ("mixture", "image", {"components": 4}, "weights"),
    ("hierarchical", "image", {}, "weights"),
    ("full-covariance", "image", {}, "weights"),
    ("iaf", "image", {"transforms": 2}, "weights"),
    ("hyperspherical", "image", {}, "weights"),
    ("conditional", "image", {}, "encode weights"),
    ("semi-supervised", "image", {}, "encode weights"),
    ("vq", "image", {"hidden": (4, 8)}, "decode weights"),
    ("vq", "image", {"posterior": "stochastic", "network": "dense", "positions": 3}, "encode weights"),
    ("ladder", "image", {"layers": (1, 1)}, "decode weights"),
    ("vae", "signal", {}, "decode encode"),
    ("vae", "counts", {"likelihood": "poisson"}, "decode weights"),
    ("vae", "table", {}, "decode weights"),
    ("vae", "missing", {}, "encode weights"),
]
LIKE_OTHERS = [MATRIX[i] for i in (2, 3, 6, 7, 11, 12)]
CASES = [
    pytest.param(*m, id=f"{m[0]}-{m[1]}-{'-'.join(map(str, m[2]))}", marks=weekly if m in LIKE_OTHERS else ())
    for m in MATRIX
]


def inputs(run, graph, kind, n=N):
    """Data, codes and noise to feed a graph with: x and what is conditional as data have them."""
    x = torch.from_numpy(raw_of(kind, n))
    c = None if run.composition.condition is None else torch.eye(3)[torch.arange(n) % 3]
    with torch.no_grad():
        z = run.model.encode(run.composition.observation.expected(x), c)
    held = {"x": x, "c": c, "z": z}
    ports = zip(graph.example(n), graph.inputs, strict=True)
    return tuple(e if held.get(p.kind) is None else held[p.kind] for e, p in ports)


@pytest.mark.parametrize(("recipe", "kind", "choices", "names"), CASES)
def test_each_graph_gives_what_pytorch_gives(recipe, kind, choices, names):
    run = made_up(recipe, kind, **choices)
    for name in names.split():
        graph = build(run, name)
        session = Session(convert(graph))
        for n in (N, 1):  # the batch axis is free
            assert max(difference(graph, session, inputs(run, graph, kind, n))) < 1e-4, name


@pytest.mark.parametrize(("recipe", "kind", "choices", "names"), MATRIX, ids=[f"{m[0]}-{m[1]}" for m in MATRIX])
def test_the_modules_are_the_run_itself(recipe, kind, choices, names):
    run = made_up(recipe, kind, **choices)
    observation, model = run.composition.observation, run.model
    raw = torch.from_numpy(raw_of(kind, N))
    c = None if run.composition.condition is None else torch.eye(3)[torch.arange(N) % 3]
    given = () if c is None else (c,)
    with torch.no_grad():
        x = observation.expected(raw)
        z = build(run, "encode").module(raw, *given)[0]
        torch.testing.assert_close(z, model.encode(x, c))
        torch.testing.assert_close(
            build(run, "decode").module(z), torch.from_numpy(run.decode(z)), rtol=1e-6, atol=1e-6, equal_nan=True
        )
        if model.no_density is not None:
            with pytest.raises(ChoiceError, match="autoencoder"):
                build(run, "weights")
            return
        noise, x = Recorded(N), certain(observation, raw)
        trace = model.trace(x, c, noise=noise)
        graph = build(run, "weights")
        assert [p.kind for p in graph.inputs if p.name[0] == "u"] == [
            "uniform" if float(u.min()) > 0 else "normal" for u in noise.given
        ]
        code, log_px, log_pz, log_qz = graph.module(raw, *given, *noise.given)
        units = observation.log_jacobian_of(x)
        torch.testing.assert_close(
            log_px + log_pz - log_qz, log_weights(trace, x) + units.float(), rtol=1e-5, atol=1e-4
        )
        torch.testing.assert_close(model.decode(code).log_prob(x), trace.px.log_prob(x), rtol=1e-5, atol=1e-4)


def test_draws_of_the_deviation_are_draws_of_the_posterior():
    run = made_up("vae")
    raw = torch.from_numpy(raw_of("image", 3))
    with torch.no_grad():
        z, spread = build(run, "encode").module(raw)
        q = run.model.posterior(run.composition.observation.expected(raw))
    torch.testing.assert_close(z, q.mean)
    torch.testing.assert_close(spread, q.stddev)


def test_a_binarised_image_may_be_grey_or_drawn():
    run = made_up("vae")
    raw = torch.from_numpy(raw_of("image", 4))
    drawn = 255 * (raw > 127.5).float()
    graph = build(run, "weights")
    noise = graph.example(4)[1:]
    with torch.no_grad():
        for grey, black in zip(graph.module(raw, *noise), graph.module(drawn, *noise), strict=True):
            torch.testing.assert_close(grey, black)


def test_whole_numbers_are_rounded_to():
    observation = made_up("vae", likelihood="categorical").composition.observation
    x = torch.tensor([[-0.2, 0.4, 0.6, 254.7, 256.0]])
    assert certain(observation, x).tolist() == [[0, 0, 1, 255, 255]]
    counts = made_up("vae", "counts").composition.observation
    assert certain(counts, x).tolist() == [[0, 0, 1, 255, 256]]


def test_log_gamma_in_onnx():
    class LogGamma(torch.nn.Module):
        def forward(self, x):
            return torch.lgamma(x)

    port = Port("z", (40,), "z")
    graph = Graph("decode", LogGamma(), (port,), (Port("x", (40,), "x"),), "")
    x = torch.from_numpy(np.geomspace(1e-3, 1e5, 40)).float()
    (found,) = Session(convert(graph))(graph, (x[None],))
    want = [math.lgamma(v) for v in x.tolist()]
    np.testing.assert_allclose(found[0], want, rtol=3e-7, atol=3e-6)  # log of a product of eight, in float32


def test_operators_of_numbers_that_are_far_from_zero_or_near_it_in_onnx():
    class Three(torch.nn.Module):
        def forward(self, x):
            total = torch.logsumexp(x[:, :-1].where(x[:, :-1] < -100, -torch.inf), 1)
            return torch.nn.functional.logsigmoid(x), torch.expm1(-x.abs()), total

    x = torch.tensor([[1e4, -1000.0, -1001.0, -20.0, -1e-3, 1e-6, 1e-3, 1.0, 20.0], [2.0] * 9])
    ports = (Port("log_sigmoid", (9,), "x"), Port("expm1", (9,), "x"), Port("logsumexp", (), "log_px"))
    graph = Graph("decode", Three(), (Port("z", (9,), "z"),), ports, "")
    found = Session(convert(graph))(graph, (x,))
    for ours, exact in zip(found, graph.module(x.double()), strict=True):
        np.testing.assert_allclose(ours, exact, rtol=1e-6, atol=1e-7)


def test_half_precision_only_where_it_costs_nothing(monkeypatch):
    run = made_up("vae", latent=8, hidden=(64,))
    given = inputs(run, export_graphs(run, names=("decode",)).graphs["decode"], "image")

    def cost(exported):
        graph = exported.graphs["decode"]
        return difference(graph, Session(exported.models["decode"], exported.store), given)[0]

    halved = export_graphs(run, half=True, names=("decode",))
    assert halved.store.half
    assert 0 < cost(halved) < several.SHARP
    monkeypatch.setattr(several, "SHARP", 0.0)  # no difference is allowed
    whole = export_graphs(run, half=True, names=("decode",))
    assert not whole.store.half
    assert cost(whole) < cost(halved) / 10


def test_graphs_share_their_numbers():
    run = made_up("vae", latent=8, hidden=(32,))
    exported = export_graphs(run, names=("decode", "draw"))
    parameters = sum(p.numel() for p in run.model.likelihood.parameters())
    assert 3.5 * parameters < len(exported.store.bytes) < 4.1 * parameters  # once (but for biases, which stay inside)
    assert all(len(model.SerializeToString()) < 8000 for model in exported.models.values())


def test_what_cannot_be_exported_says_why(tmp_path):
    class Own(heads.Head):
        """A density that nobody registered a keyed draw for."""

        params = 1

        def forward(self, raw):
            (location,) = self.split(raw)
            return self.independent(torch.distributions.Gumbel(location, torch.ones_like(location)))

    posterior = Conditional(torch.nn.Linear(5, 4), heads.Gaussian((2,), "learned"))
    model = VAE(StandardNormal((2,)), posterior, Conditional(torch.nn.Linear(2, 5), Own((5,))))
    composition = Composition(model, ELBO(), Identity(), Defaults("adam", 1e-3, 16))
    run = vk.fit(raw_of("vector", 40), composition, out=tmp_path / "run", steps=1, **QUIET)
    with pytest.raises(ChoiceError, match="special sampler"):
        build(run, "draw")
    files, why = write_export(run, tmp_path / "out", graphs=("decode", "draw"))
    assert [f.name for f in files] == ["decode.onnx"]
    assert "sampler" in why["draw"]


def test_without_onnx_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ChoiceError, match=r"pip install 'vaekit\[onnx\]'"):
        export_graphs(made_up("vae"))


def test_wrong_wishes_are_refused(tmp_path):
    run = made_up("vae")
    with pytest.raises(ChoiceError, match="unknown graph 'nonsense'"):
        check_names(("decode", "nonsense"))
    with pytest.raises(ChoiceError, match=r"unknown .format."):
        write_export(run, tmp_path, format="tflite")
    with pytest.raises(ChoiceError, match=r"not to a\.pt2"):
        write_export(run, tmp_path / "a.pt2", format="onnx")
    with pytest.raises(ChoiceError, match="one graph"):
        write_export(run, tmp_path / "a.onnx", format="onnx", graphs=("decode", "encode"))


def test_a_torch_program_holds_no_pickle_and_is_the_run(tmp_path):
    run = trained(tmp_path / "run")
    files, why = write_export(run, tmp_path / "exported", format="torch")
    assert [f.name for f in files] == ["decode.pt2", "draw.pt2", "encode.pt2", "weights.pt2", "detect.pt2"]
    assert not why
    with zipfile.ZipFile(files[0]) as archive:
        for member in archive.namelist():
            assert not member.endswith((".pkl", ".pickle"))
            content = archive.read(member)
            assert content[:2] != b"PK", member  # torch.save would have left an archive with a pickle in it
            assert not (content[:1] == b"\x80" and content.endswith(b".")), member
    z = torch.randn(4, 3)
    program = torch.export.load(files[0]).module()
    np.testing.assert_allclose(program(z).detach().numpy(), run.decode(z), rtol=1e-5, atol=1e-4)


def test_on_the_command_line(tmp_path, capsys):
    from vaekit.cli import main

    trained(tmp_path / "run", "ae")
    data = tmp_path / "x.npy"
    np.save(data, raw_of("image", 5))
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "decode.onnx")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "decode.onnx")
    assert (tmp_path / "decode.onnx").stat().st_size > 1000
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "all"), "--graphs", "encode", "weights"]) == 0
    done = capsys.readouterr()
    assert "no weights: an autoencoder has no log p(x)" in done.err
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == ["encode.onnx", "graphs.json"]
    assert main(["export", str(tmp_path / "run"), "--out", "x.onnx", "--graphs", "weights"]) == 2
    assert "cannot be exported" in capsys.readouterr().err


def test_a_network_of_ones_own_is_exported_too(tmp_path):
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(30, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    decoder = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 30))
    mine = vk.Composition(
        model=vk.VAE(
            vk.StandardNormal((2,)),
            Conditional(encoder, heads.Gaussian((2,))),
            Conditional(decoder, heads.Bernoulli((1, 6, 5))),
        ),
        objective=vk.ELBO(),
        observation=Binary(),
    )
    data = vk.from_arrays(raw_of("image", 40).astype(np.uint8)[:, 0], name="own")
    run = vk.fit(data, mine, out=tmp_path / "run", steps=2, batch=8, **QUIET)
    files = run.export(tmp_path / "out", graphs=("decode",))
    import onnxruntime

    z = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    (x,) = onnxruntime.InferenceSession(files[0]).run(None, {"z": z})
    np.testing.assert_allclose(x, run.decode(z), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("spread", "kind"), [(1e5, "vector"), (1e5, "signal"), (10.0, "vector")])
def test_what_float32_costs_is_told_or_refused(tmp_path, capsys, spread, kind):
    """Time stamps: rounded to float32 they move by up to 128 s in all, 64 for the datum and as many for the mean."""
    x = 1.7e9 + spread * np.random.default_rng(0).normal(size=(60, 4))
    run = vk.fit(vk.from_arrays(x, kind=kind), out=tmp_path / "run", latent=1, hidden=(4,), steps=3, **QUIET)
    assert run.spec.double
    if spread < 128:
        with pytest.raises(
            ChoiceError, match="float32, which rounds the raw data of this run by more than their standard"
        ):
            run.export(tmp_path / "graphs", format="torch")
        with pytest.raises(ChoiceError, match="has no explorer: exported graphs are in float32"):
            run.explore(tmp_path / "page.html")
        return
    moved = blur(run.composition.observation)
    assert moved == pytest.approx(128 / spread, rel=0.3)
    graph = build(run, "encode")
    want = run.composition.observation(torch.from_numpy(x.reshape(60, *run.spec.shape)))
    with torch.no_grad():
        have = graph.module.observation(torch.from_numpy(x.reshape(60, *run.spec.shape)).float())
    assert 0.2 * moved < float((have - want).abs().max()) <= 1.01 * moved
    run.export(tmp_path / "graphs", format="torch", graphs=["encode"])
    said = "Graphs are in float32, but the run is in float64: raw data are rounded by up to 0.001"
    assert f"note: {said}" in capsys.readouterr().err
    assert said in (tmp_path / "graphs" / "graphs.json").read_text()
    assert blur(made_up("vae", "vector").composition.observation) == 0


def test_graphs_of_columns_that_are_mapped_by_their_quantiles():
    rng = np.random.default_rng(0)
    raw = np.stack([np.where(rng.random(200) < 0.7, 0, np.exp(rng.normal(1, 1, 200))), rng.integers(0, 9, 200)], 1)
    data = vk.from_arrays(raw.astype(np.float32))
    spec = DataSpec.of(data)
    composition = get_recipe("vae")(spec, latent=2, hidden=(4,))
    prepare(data, composition, 0)
    for module in composition.modules.values():
        module.eval()
    run = TrainedModel(composition, spec, data)
    x = torch.from_numpy(data.test[:5])
    for name, kinds in (("decode", "z"), ("draw", "z"), ("weights", "x")):
        graph = build(run, name)
        example = [x if port.kind == "x" else value for value, port in zip(graph.example(5), graph.inputs, strict=True)]
        assert max(difference(graph, Session(convert(graph)), tuple(example))) < 1e-4, name
        assert graph.inputs[0].kind == kinds
    noise = example[1:]
    with torch.no_grad():
        z, log_px, _, _ = graph.module(x, *noise)
        expected_px = run.model.decode(z).log_prob(composition.observation(x))
    units = composition.observation.log_jacobian_of(composition.observation(x))
    torch.testing.assert_close(log_px.double(), expected_px + units, rtol=1e-5, atol=1e-5)
