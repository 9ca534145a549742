"""What every registered part owes: built with its defaults, it keeps the contract of its kind.

The parts are read from the registers, so that a new one is covered without a change here.
"""

import dataclasses
import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cell_helpers import AnnData, installed
from core_helpers import QUIET, blobs
from plugin_helpers import contributing, install, kept, remove
from torch import nn

import vaekit as vk
from vaekit import heads, networks
from vaekit.data.core import Column
from vaekit.data.loading import data_options
from vaekit.data.readers.registry import reader_of, readers
from vaekit.densities import draw
from vaekit.errors import ChoiceError, VaekitError
from vaekit.heads.posteriors import POSTERIORS
from vaekit.latents.densities import DENSITIES
from vaekit.metrics.measurement import Measurement
from vaekit.metrics.registry import METRICS
from vaekit.models.vae import Model
from vaekit.noise import Noise
from vaekit.objectives import Batch
from vaekit.recipes import RECIPES, DataSpec, compose, get_recipe
from vaekit.report import FIGURES, Look, blocks
from vaekit.runs.trained import TrainedModel
from vaekit.studies import STUDIES
from vaekit.utils.register import Chosen

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from fuzz_seeds import examples

ROWS, LATENT = 12, 3
IMAGES = DataSpec("image", (1, 8, 8), 50, (0.0, 255.0), True, classes=("a", "b", "c"))
VECTORS = DataSpec("vector", (6,), 50, (-3.0, 3.0), False)
COUNTS = DataSpec("counts", (6,), 50, (0.0, 9.0), False)
COLUMNS = (Column("size", "real"), Column("kind", "categorical", ("a", "b", "c")), Column("number", "counts"))
TABLE = DataSpec("vector", (3,), 50, (0.0, 9.0), False, columns=COLUMNS)
SMALL = {"latent": LATENT, "hidden": (5,)}
PARTS = {
    (pick.register.kind, name): part
    for recipe in RECIPES.values()
    for pick in recipe.signature.picks.values()
    for name, part in pick.register.items()
}


def raw_rows(spec):
    """Rows as the data would hold them."""
    rng = np.random.default_rng(0)
    if spec.columns:
        columns = [rng.normal(size=ROWS), rng.integers(0, 3, ROWS), rng.poisson(2, ROWS)]
        return torch.from_numpy(np.stack(columns, 1).astype(np.float32))
    if spec.kind == "counts":
        return torch.from_numpy(rng.poisson(2, (ROWS, *spec.shape)).astype(np.float32))
    if spec.kind == "image":
        return torch.from_numpy(rng.integers(0, 256, (ROWS, *spec.shape)).astype(np.uint8))
    return torch.from_numpy(rng.normal(size=(ROWS, *spec.shape)).astype(np.float32))


def composed(spec=VECTORS, **choices):
    torch.manual_seed(0)
    return get_recipe("vae")(spec, **{**SMALL, **choices})


def trained(composition, spec):
    """Check one step: each loss is finite, and its gradient finite and in its own parameter group only."""
    noise = Noise.of(0, ROWS)
    batch = Batch(composition.observation(raw_rows(spec), noise), Noise.of(1, ROWS))
    model, objective = composition.model.train(), composition.objective.train()
    groups = objective.parameter_groups(model)
    losses, stats = objective(model, batch, torch.tensor(1))
    assert set(losses) == set(groups)
    assert stats
    assert all(value.ndim == 0 and bool(torch.isfinite(value)) for value in stats.values())
    owner = {id(p): group for group, parameters in groups.items() for p in parameters}
    assert len(owner) == sum(map(len, groups.values())), "a parameter is in two groups"
    every = [p for parameters in groups.values() for p in parameters]
    for group, loss in losses.items():
        assert loss.ndim == 0
        assert bool(torch.isfinite(loss))
        gradients = torch.autograd.grad(loss, every, retain_graph=True, allow_unused=True)
        assert all(bool(torch.isfinite(g).all()) for g in gradients if g is not None)
        assert {owner[id(p)] for p, g in zip(every, gradients, strict=True) if g is not None and g.any()} == {group}
    composition.model.eval()


def used(composition, spec):
    """Check that the model encodes, decodes, samples and, if it has a density, scores."""
    model, raw = TrainedModel(composition, spec), raw_rows(spec).numpy()
    z = model.encode(raw)
    assert len(z) == ROWS
    for x in (model.decode(z), model.sample(ROWS), model.sample(ROWS, noise=True)):
        assert x.shape == (ROWS, *spec.shape)
        assert np.isfinite(x).all()
    if model.model.no_density is None:
        assert np.isfinite(model.score(raw, samples=2)).all()


# --- the contracts by kind ----------------------------------------------------------------------------------------


def prior(part):
    posterior = next(one.name for one in POSTERIORS.values() if one.traits["space"] == part.traits["space"])
    composition = composed(prior=part.name, posterior=posterior)
    trained(composition, VECTORS)
    used(composition, VECTORS)
    built = composition.model.prior
    p = built()
    if isinstance(part.build, type) and issubclass(part.build, nn.Module) and not issubclass(part.build, Model):
        assert isinstance(built, part.build)
    z = draw(p, Noise.of(2, ROWS))
    assert z.shape[0] == ROWS
    assert p.log_prob(z).shape == (ROWS,)
    assert bool(torch.isfinite(p.log_prob(z)).all())


def posterior(part):
    head = Chosen(part, {}).make(event=(LATENT,))
    raw = torch.randn(ROWS, head.features, generator=torch.Generator().manual_seed(0)).requires_grad_()
    q = head(raw)
    z = draw(q, Noise.of(0, ROWS))
    assert z.shape == q.mean.shape == (ROWS, LATENT)
    assert bool(torch.isfinite(q.mean).all())
    (slope,) = torch.autograd.grad(z.square().sum() + z.sum(), raw, retain_graph=True)
    assert bool(torch.isfinite(slope).all())
    assert bool(slope.any()), "draws are not reparametrised"
    if head.no_density is None:
        assert q.log_prob(z).shape == (ROWS,)
        assert bool(torch.isfinite(q.log_prob(z)).all())
    if part.traits["space"] == "sphere":
        torch.testing.assert_close(z.norm(dim=-1), torch.ones(ROWS))


def likelihood(part):
    event = (len(COLUMNS),) if part.traits["tables"] else (1, 4, 4)
    head = Chosen(part, {}).make(event=event, levels=16, columns=COLUMNS, **heads.count_range())
    raw = 0.5 * torch.randn(ROWS, head.features, generator=torch.Generator().manual_seed(0))
    px = head(raw.requires_grad_())
    x = draw(px, Noise.of(0, ROWS))
    assert x.shape == px.mean.shape == (ROWS, *event)
    assert bool(torch.isfinite(px.mean).all())
    assert bool(head.support.check(x).all()), "its draws lie outside its support"
    log_px = px.log_prob(x.detach())
    assert log_px.shape == (ROWS,)
    assert bool(torch.isfinite(log_px).all())
    (slope,) = torch.autograd.grad(log_px.sum(), raw)
    assert bool(torch.isfinite(slope).all())
    assert bool(slope.any())


def objective(part):
    """With a Gaussian posterior; an objective that refuses one is for autoencoders."""
    try:
        composition = composed(objective=part.name)
    except ChoiceError:
        composition = composed(objective=part.name, posterior="point")
    trained(composition, VECTORS)
    used(composition, VECTORS)


def network(part):
    """On images, where every network works; with a condition too, unless it refuses one."""
    composition = composed(IMAGES, network=part.name, latent=None)
    trained(composition, IMAGES)
    used(composition, IMAGES)
    try:
        model = composed(IMAGES, network=part.name, latent=None, condition="label").model
    except ChoiceError:
        return
    x, c = torch.rand(ROWS, *IMAGES.shape), torch.eye(3)[torch.arange(ROWS) % 3]
    trace = model.trace(x, c, noise=Noise.of(0, ROWS))
    assert trace.px.event_shape == IMAGES.shape
    other = model.trace(x, c.roll(1, 0), noise=Noise.of(0, ROWS))
    assert not torch.equal(trace.latents[0].q.mean, other.latents[0].q.mean), "the encoder ignores the condition"


def activation(part):
    torch.manual_seed(0)
    layer = nn.Sequential(*part.build(4, 5))
    x = torch.randn(ROWS, 4)
    assert layer(x).shape == (ROWS, 5)
    assert not torch.allclose(layer(2 * x) - layer(0 * x), 2 * (layer(x) - layer(0 * x))), "it is affine"
    net = networks.MLP((4,), 2, (5,), part.name)
    gradients = torch.autograd.grad(net(x).sum(), list(net.parameters()))
    assert all(bool(torch.isfinite(g).all()) and bool(g.any()) for g in gradients)


def observation(part):
    """On each kind of data that it accepts, of which there is one at least."""
    accepted = 0
    for spec in (IMAGES, VECTORS, COUNTS, TABLE):
        try:
            seen = part.build(spec)
        except ChoiceError:
            continue
        accepted += 1
        raw = raw_rows(spec)
        seen.fit(lambda raw=raw: iter([raw]))
        assert seen.sound
        x = seen(raw, Noise.of(0, ROWS))
        assert x.shape == raw.shape
        assert x.dtype == torch.float32
        assert bool(seen.support.check(x).all())
        low, high = seen.x_range or (-np.inf, np.inf)
        assert bool(((low <= x) & (x <= high)).all())
        assert torch.equal(seen(raw, Noise.of(0, ROWS)), x)
        assert seen.to_raw(x).shape == raw.shape
        assert bool(torch.isfinite(seen.to_raw(x)).all())
        assert seen.log_units(spec.shape).shape == spec.shape
    assert accepted


def corruption(part):
    module = Chosen(part, {}).make(low=0.0, high=1.0)
    if module is None:
        return
    x = torch.rand(ROWS, 4, 5, generator=torch.Generator().manual_seed(0))
    corrupted = module(x, Noise.of(0, ROWS))
    assert corrupted.shape == x.shape
    assert bool(torch.isfinite(corrupted).all())
    assert not torch.equal(corrupted, x)
    rows = torch.tensor([7, 2])
    assert torch.equal(module(x[rows], Noise.of(0, rows)), corrupted[rows]), "it depends on the batch"
    trained(composed(corruption=part.name), VECTORS)


def code_prior(part):
    """Logits of each code go by the codes before it alone, and the probabilities of all sequences sum to 1."""
    torch.manual_seed(0)
    net = Chosen(part, {}).make(positions=3, codes=2)
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    every = torch.cartesian_prod(*[torch.arange(2)] * 3)
    logits = net(every)
    assert logits.shape == (8, 3, 2)
    log_p = torch.log_softmax(logits, -1).gather(-1, every[..., None]).sum((1, 2))
    assert float(log_p.exp().sum().detach()) == pytest.approx(1.0, rel=1e-5)
    drawn = net.generate(4, lambda i, logits: logits.argmax(-1))
    assert drawn.shape == (4, 3)
    images = get_recipe("vq")(IMAGES, prior=part.name, codes=4, dim=2, hidden=(4, 8))
    trained(images, IMAGES)
    used(images, IMAGES)


def quantiser(part):
    """Codes are those of their entries, in training as drawn and as nearest codes."""
    for stochastic in (False, True):
        made = Chosen(part, {}).make(stochastic=stochastic)
        codes = torch.randint(0, made.codes, (3, 2 * made.stages))
        entries = made.lookup(codes)
        assert entries.shape == (*codes.shape, made.dim)
        assert torch.equal(made.nearest(entries), codes)
        assert [table.shape for table in made.tables()] == [(made.codes, made.dim)] * made.stages
        way = "stochastic" if stochastic else "nearest"
        images = get_recipe("vq")(IMAGES, quantiser=part.name, posterior=way, network="dense", positions=2, hidden=(5,))
        trained(images, IMAGES)
        used(images, IMAGES)


KINDS_OF_PARTS = (
    prior, posterior, likelihood, objective, network, activation, observation, corruption, code_prior, quantiser
)  # fmt: skip
CONTRACTS = {one.__name__.replace("_", " "): one for one in KINDS_OF_PARTS}


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_a_part_keeps_the_contract_of_its_kind(kind, name):
    part = PARTS[kind, name]
    assert set(part.knobs) <= set(inspect.signature(part.build).parameters)
    assert all(knob.help for knob in part.knobs.values())
    CONTRACTS[kind](part)


def test_the_parts_that_contributing_shows_keep_their_contracts(tmp_path, monkeypatch):
    """So a part of a plug-in would be checked as those of vaekit are."""
    monkeypatch.syspath_prepend(str(tmp_path))
    with kept():
        install(tmp_path, "vaekit-mine", "mine_parts", contributing("Add a prior, posterior, likelihood or objective"))
        shown = [part for pick in compose.signature.picks.values() for part in pick.register.values() if part.package]
        remove(tmp_path)
        assert {part.kind for part in shown} == set(compose.signature.picks)
        for part in shown:
            CONTRACTS[part.kind](part)


# --- what works on trained runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run on images with classes."""
    data = vk.from_arrays(blobs(200, 8, 8), label=np.arange(200) % 3, name="blobs")
    out = tmp_path_factory.mktemp("parts") / "run"
    made = vk.fit(data, "vae", out=out, latent=2, hidden=(8,), steps=8, batch=40, **QUIET)
    made.use_data(data)
    return made


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_measures_or_says_what_it_needs(run, name):
    metric = METRICS[name]
    assert metric.help
    samples = 3
    if metric.lacking(Measurement(run, samples=samples)) is not None:
        with pytest.raises(VaekitError, match=name):
            run.evaluate(metrics=[name], samples=samples)
        samples = 100
    if metric.lacking(Measurement(run, samples=samples)) is not None:
        return
    (found,) = run.evaluate(metrics=[name], samples=samples)
    assert np.isfinite(np.asarray(found["value"], dtype=float)).all()
    assert found["unit"]
    assert found["protocol"]["estimator"]


@pytest.mark.parametrize("name", DENSITIES)
def test_a_latent_density_is_fitted_and_sampled(run, name):
    fitted = run.fit_latents(name, steps=20)
    z = fitted.sample(5)
    assert z.shape == (5, 2)
    assert np.isfinite(fitted.log_prob(z)).all()
    assert np.allclose(fitted.sample(3), z[:3], rtol=1e-5, atol=1e-6)  # a matrix product rounds by the number of rows
    assert np.array_equal(vk.open(run.path).fit_latents(name).sample(5), z)
    assert run.sample(4, latents=name).shape == (4, 1, 8, 8)


WORDS = {"text": ("text",), "code": ("text",), "table": ("rows",), "cards": ("cards",)}
"""What a block without a picture has; one with a picture has an alternative text and a caption."""


def test_a_figure_draws_its_section_or_says_why_not(run, monkeypatch):
    monkeypatch.setattr(blocks, "VERSIONS", ("light",))
    look, keys = Look(run), set()
    for name, figure in FIGURES.items():
        section = figure.section(look)
        assert figure.title
        if section is None:
            continue
        assert section.blocks
        for block in section.blocks:
            texts = {field.name: getattr(block, field.name) for field in dataclasses.fields(block)}
            shown = ("alt", "caption") if "alt" in texts else WORDS[block.kind]
            assert all(texts[field] for field in shown), (name, block.kind)
            keys.add(texts.get("name"))
    assert len(keys) > 5


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_says_what_it_is(name):
    study = STUDIES[name]
    assert study.summary.endswith(".")
    assert study.description
    assert study.paper
    assert study.data in {known["name"] for known in vk.datasets()}


def test_every_reader_reads_an_example_with_its_defaults(tmp_path):
    """Examples of files are those of tools/fuzz_seeds.py, which has one of every format."""
    read = {"named": vk.load("digits"), "arrays": vk.from_arrays(blobs(40, 6))}
    read["frame"] = vk.from_arrays(pytest.importorskip("pyarrow").table({name: np.arange(40.0) for name in "abc"}))
    with installed():
        read["anndata"] = vk.load(AnnData(np.random.default_rng(0).poisson(2.0, (40, 6))))
    for name, files in examples().items():
        for place, content in files.items():
            file = tmp_path / name / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        path = tmp_path / name / next(iter(files)).split("/")[0]
        reader = reader_of(path)
        assert reader is not None, name
        if reader.name not in read:
            read[reader.name] = vk.load(path)
    assert set(read) == {reader.name for reader in readers()}
    for data in read.values():
        assert data.events(data.train[:2]).shape == (2, *data.shape)
        assert len(data.valid)
        assert len(data.test)


@pytest.mark.parametrize("reader", readers(), ids=lambda one: one.name)
def test_a_reader_documents_its_options_and_claims_only_its_files(reader, tmp_path):
    assert all(option.help for option in reader.options.values())
    listed = {argument.name for group, _ in data_options().values() for argument in group}
    assert set(reader.options) <= listed
    (tmp_path / "unknown.zzz").touch()
    assert not reader.reads(tmp_path / "unknown.zzz")
    for suffix in (word.strip(" .") for word in reader.files.split(",") if word.strip().startswith(".")):
        assert reader.reads(tmp_path / f"x.{suffix.split()[0]}"), suffix
