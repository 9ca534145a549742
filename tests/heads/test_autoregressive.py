"""The autoregressive likelihood: densities against sums and integrals, the order of the columns, and draws."""

import itertools
import math

import numpy as np
import pytest
import torch
from core_helpers import QUIET
from torch import nn

import vaekit as vk
from vaekit.anomalies.detection import PENALTY
from vaekit.anomalies.reasons import columns as log_p_of_columns
from vaekit.data.core import Column
from vaekit.data.observation.quantiles import SIZE
from vaekit.densities import draw
from vaekit.densities.binned import BinnedMixture, bins_of
from vaekit.densities.drawing import from_noise
from vaekit.densities.mixed import DIFFERS
from vaekit.errors import ChoiceError
from vaekit.export.graphs import build
from vaekit.heads.autoregressive import AutoregressiveHead
from vaekit.noise import Noise
from vaekit.report.commands import following
from vaekit.training.prepare import few_rows

COLUMNS = (
    Column("city", "categorical", ("Bern", "Lyon", "Rome")),
    Column("age", "real"),
    Column("visits", "counts"),
    Column("sex", "binary", ("f", "m")),
    Column("town", "categorical", tuple("abcde")),
)
ROWS = torch.tensor([[2.0, 0.3, 4.0, 1.0, 3.0], [0.0, -1.2, 0.0, 0.0, 4.0]])


@pytest.fixture
def head():
    torch.manual_seed(0)
    made = AutoregressiveHead(COLUMNS, masked_width=12, normals=2, bins=4, most=4).eval()
    for p in made.parameters():
        nn.init.normal_(p, std=0.15)
    return made


def context_of(head, n=1, seed=0):
    return torch.randn(n, head.features, generator=torch.Generator().manual_seed(seed))


def intervals(*ends):
    """Edges and atoms of one column whose values stand for the intervals between each pair of ends."""
    edges, atom = np.full((1, SIZE), np.inf), np.zeros((1, SIZE + 1), dtype=np.bool_)
    edges[0, : len(ends)] = ends
    atom[0, 1 : len(ends) : 2] = True
    return edges, atom


# --- the density of one number ----------------------------------------------------------------------------------


def test_a_mixture_of_normals_and_bins_integrates_to_one_and_has_its_mean_and_variance():
    bins = bins_of(np.full((1, SIZE), np.inf), np.zeros((1, SIZE + 1), dtype=np.bool_), 5)
    d = BinnedMixture(torch.randn(1, 7), torch.tensor([[-1.0, 2.0]]), torch.tensor([[-1.0, 0.3]]), bins)
    x = torch.linspace(-10, 10, 50_001, dtype=torch.float64)[:, None]
    p = torch.exp(d.log_prob(x)) * (x[1] - x[0])
    # the sum misplaces at most half a step at each of the 4 cuts, where the density jumps by less than 1
    assert float(p.sum()) == pytest.approx(1, abs=8e-4)
    assert float((p * x).sum()) == pytest.approx(float(d.mean), abs=2e-3)
    assert float((p * x.square()).sum() - (p * x).sum() ** 2) == pytest.approx(float(d.variance), abs=3e-3)


def test_values_that_stand_for_intervals_have_the_mass_of_their_intervals():
    edges, atom = intervals(-1.0, 0.2, 0.2, 0.9, 1.5, 1.8)
    bins = bins_of(edges, atom, 4)
    inner = edges[0][(edges[0] < np.inf)]
    for cut in bins.cuts[0][bins.cuts[0] < 10].tolist():  # none within an interval
        assert not any(low + 1e-6 < cut < high - 1e-6 for low, high in inner.reshape(-1, 2)), cut
    d = BinnedMixture(torch.randn(1, 6), torch.tensor([[-0.5, 1.0]]), torch.tensor([[-0.5, 0.1]]), bins)
    at = bins.represented(torch.tensor([[-0.4], [0.5], [1.6]]))
    x = torch.linspace(-8, 8, 160_001, dtype=torch.float64)[:, None]
    plain = BinnedMixture(d.logits, d.loc, d.log_scale, bins._replace(atom=torch.zeros_like(bins.atom)))
    p = torch.exp(plain.log_prob(x)) * (x[1] - x[0])
    for value, (low, high) in zip(at, ((-1, 0.2), (0.2, 0.9), (1.5, 1.8)), strict=True):
        mass = float(p[(x >= low) & (x < high)].sum())
        assert float(torch.exp(d.log_prob(value))) == pytest.approx(mass, abs=3e-4)
    u = from_noise(d, Noise.of(0, 20_000), (1,), None)
    shares = [(u == value).double().mean().item() for value in at]
    expected = [math.exp(float(d.log_prob(value))) for value in at]
    assert shares == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 20_000))  # four standard errors


def test_a_column_with_few_values_has_a_bin_for_each():
    ends = np.array([-4.5, -0.9, -0.8, 0.1, 0.9, 1.2, 4.5])
    edges, atom = intervals(*np.repeat(ends, 2)[1:-1])
    assert bins_of(edges, atom, 9).cuts[0, :5].tolist() == pytest.approx(ends[1:-1].tolist())
    assert bool((bins_of(edges, atom, 9).mass[0, 6:] == 0).all())  # none for the thin tails


# --- the density of a row ---------------------------------------------------------------------------------------


def test_the_density_of_a_row_integrates_and_sums_to_one():
    columns = [column for column in COLUMNS if column.kind != "counts"]  # whose tails would need a long sum
    torch.manual_seed(0)
    head = AutoregressiveHead(columns, masked_width=12, normals=2, bins=4, most=4).eval()
    px = head(context_of(head))
    n = 2000
    x = torch.linspace(-15, 15, n + 1)
    x = (x[1:] + x[:-1]) / 2  # the three cuts of the bins are ends of these intervals, or near them
    rows = [
        torch.stack([torch.full_like(x, v) if j != 1 else x for j, v in enumerate((city, 0.0, sex, town))], -1)
        for city, sex, town in itertools.product(range(3), range(2), range(5))
    ]
    with torch.no_grad():
        total = torch.exp(px.log_prob(torch.cat(rows)).double()).sum() * 30 / n
    assert float(total) == pytest.approx(1, abs=0.005)


def test_each_column_depends_on_the_columns_before_it_and_no_others(head):
    head = head.double()
    context = context_of(head).double().requires_grad_()
    changed = torch.tensor([[1.0, -0.9, 7.0, 0.0, 1.0]], dtype=torch.float64)
    x = ROWS[:1].double()
    before = head(context).given(x)
    for j in range(5):
        other = x.clone()
        other[0, j] = changed[0, j]
        after = head(context).given(other)
        same = torch.isclose(before.each(x), after.each(x), rtol=0, atol=1e-12)[0].tolist()
        assert same == [i <= j for i in range(5)]
    (slope,) = torch.autograd.grad(before.each(x)[0, 0], context)
    assert bool(slope.any())  # the first column depends on the code


def test_drawing_column_by_column_follows_the_density(head):
    px = head(context_of(head).expand(20_000, -1))
    x = draw(px, Noise.of(0, 20_000))
    assert bool(px.support.check(x).all())
    first = head(context_of(head)).given(ROWS[:1]).whole
    chance = torch.softmax(next(d for which, d in first.parts if which.tolist() == [0]).logits[0, 0], -1)
    shares = torch.bincount(x[:, 0].long(), minlength=3) / len(x)
    torch.testing.assert_close(shares, chance.detach(), atol=4 * math.sqrt(0.25 / 20_000), rtol=0)
    given = x[(x[:, 0] == 1) & (x[:, 2] == x[:, 2].median())]  # sex among rows with one city and number of visits
    expected = px.conditionals.given(context_of(head), given)
    chance = next(d for which, d in expected.parts if which.tolist() == [3]).probs.mean().detach()
    assert float(given[:, 3].mean()) == pytest.approx(float(chance), abs=4 * math.sqrt(0.25 / len(given)))


def test_draws_are_a_function_of_the_key_whatever_the_batch(head):
    context = context_of(head, 9)
    whole = draw(head(context), Noise.of(3, 9))
    assert torch.equal(draw(head(context[4:]), Noise.of(3, torch.arange(4, 9))), whole[4:])
    several = draw(head(context), Noise.of(3, 9), 4)
    assert several.shape == (4, 9, 5)
    again = draw(head(context.expand(4, -1, -1)), Noise.of(3, 9))
    assert torch.equal(several, again)
    torch.testing.assert_close(
        head(context.expand(4, -1, -1)).log_prob(whole), head(context).log_prob(whole).expand(4, 9)
    )


def test_the_mean_is_the_greedy_row_and_of_categories_the_most_probable(head):
    px = head(context_of(head, 3))
    mean = px.mean
    first = px.given(mean).whole.mean
    torch.testing.assert_close(mean[:, :2], first[:, :2])
    assert bool((mean[:, [0, 4]] == mean[:, [0, 4]].round()).all())
    assert px.variance.shape == (3, 5)
    assert bool((px.variance[:, [0, 4]] == 0).all())


def test_missing_values_are_left_out_and_shown_to_the_columns_after_them(head):
    x = ROWS.clone()
    x[0, 1] = math.nan
    px = head(context_of(head, 2).requires_grad_())
    each = px.each(x)
    assert each[0, 1] == 0
    assert bool(torch.isfinite(each).all())
    assert bool((each[0] != px.each(ROWS)[0])[1:].all())
    torch.testing.assert_close(each[1], px.each(ROWS)[1])
    assert bool(px.support.check(x).all())
    parameters = list(head.parameters())
    assert all(
        bool(torch.isfinite(g).all())
        for g in torch.autograd.grad(each.sum(), parameters, allow_unused=True)
        if g is not None
    )


def test_constant_columns_are_drawn_as_they_are(head):
    head.hold({1: 0.3})
    px = head(context_of(head, 2))
    assert px.each(ROWS)[:, 1].tolist() == [0, -DIFFERS]
    assert draw(px, Noise.of(0, 2))[:, 1].tolist() == pytest.approx([0.3, 0.3])
    assert px.mean[:, 1].tolist() == pytest.approx([0.3, 0.3])


# --- runs -------------------------------------------------------------------------------------------------------

SMALL = {"likelihood": "autoregressive", "latent": 2, "hidden": (6,), "masked_width": 16, "compile": "off", **QUIET}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A table whose second category follows from the first, with numbers that are mostly 0."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 3, 400)
    amount = np.where(rng.random(400) < 0.6, 0.0, rng.lognormal(size=400) + a)
    lines = [f"{'xyz'[i]},{'uvw'[i]},{v:.4f},{v > 0:d}" for i, v in zip(a, amount, strict=True)]
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_text("\n".join(["first,second,amount,paid", *lines]))
    return vk.load(path)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return vk.fit(data, out=tmp_path_factory.mktemp("run") / "run", steps=150, batch=100, lr=0.01, **SMALL)


def test_sampled_rows_keep_what_follows_from_other_columns(data, run):
    rows = run.sample(400, noise=True)
    assert (rows[:, 0] == rows[:, 1]).mean() > 0.9  # independent columns would agree in a third of the rows
    assert ((rows[:, 2] > 0) == (rows[:, 3] == 1)).mean() > 0.9
    assert (rows[:, 2] == 0).mean() == pytest.approx(0.6, abs=0.15)
    opened = vk.open(run.path)
    np.testing.assert_array_equal(opened.sample(5, noise=True), run.sample(5, noise=True))
    np.testing.assert_allclose(opened.score("test", samples=4), run.score("test", samples=4))


def test_the_next_steps_compare_its_rows_instead_of_exploring_them(run):
    commands = following(run, "runs/a")
    assert "vaekit report runs/a --synthetic sample" in commands
    assert not any("explore" in command for command in commands)


def test_a_note_says_that_the_rows_are_few(data, run):
    assert f"{len(data.train)} training rows" in few_rows(data, run.composition)
    assert few_rows(data, vk.recipes.get_recipe("vae")(run.spec, latent=2, hidden=(6,))) is None


def test_the_terms_of_the_columns_name_a_value_that_contradicts_the_columns_before_it(data, run):
    x = data.test[:4].astype(float)
    x[0, :2] = 0, 2
    found = log_p_of_columns(run, run.observed(x), np.arange(4))
    assert found.log_p.shape == (4, 4)
    assert found.log_p[0, :2].argmin() == 1
    assert found.expected[0, 1] == 0


def test_what_the_likelihood_cannot_do_is_refused_with_the_one_that_can(data, run, tmp_path):
    x = data.test[:2].astype(float)
    unseen = tmp_path / "unseen.csv"
    unseen.write_text("first,second,amount,paid\nq,u,1.5,1\n")
    for ask in (
        lambda: run.fill(x, np.eye(2, 4, dtype=bool)),
        lambda: run.sample(2, given={"paid": 1}),
        lambda: build(run, "decode"),
        lambda: build(run, "draw"),
        lambda: build(run, "detect"),
        lambda: run.detect(unseen),
        lambda: vk.fit(data, out=tmp_path / "run", objective="not-miwae", **SMALL),
    ):
        with pytest.raises(ChoiceError, match="`likelihood='mixed'`"):
            ask()


def test_a_table_of_real_numbers_only_and_one_with_missing_values_are_trained(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3))
    for name, holes in (("whole", 0.0), ("holes", 0.2)):
        path = tmp_path / f"{name}.csv"
        cells = np.where(rng.random(x.shape) < holes, "", np.char.mod("%.4f", x))
        path.write_text("\n".join(["a,b,c", *(",".join(row) for row in cells)]))
        made = vk.fit(vk.load(path, missing="mask"), out=tmp_path / name, steps=3, batch=20, **SMALL)
        assert np.isfinite(made.score("test", samples=3)).all()
        assert np.isfinite(made.sample(4, noise=True)).all()


def test_a_new_category_is_a_missing_value_for_a_run_that_was_trained_with_them(tmp_path):
    rng = np.random.default_rng(0)
    rows = [f"{'xyz'[i]},{'' if rng.random() < 0.2 else i}.5" for i in rng.integers(0, 3, 200)]
    for name, lines in (("table", rows), ("new", ["q,0.5", "x,0.5"]), ("gap", [",0.5", "x,0.5"])):
        (tmp_path / f"{name}.csv").write_text(
            "\n".join(["first,amount", *(line.replace(",.5", ",") for line in lines)])
        )
    run = vk.fit(vk.load(tmp_path / "table.csv", missing="mask"), out=tmp_path / "run", steps=3, batch=20, **SMALL)
    new, gap = (run.detect(tmp_path / f"{name}.csv", samples=8) for name in ("new", "gap"))
    np.testing.assert_allclose(new.score[1], gap.score[1], rtol=1e-5)
    np.testing.assert_allclose(new.score[0], gap.score[0] - PENALTY, rtol=1e-5)
