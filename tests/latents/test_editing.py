"""Attribute directions, masks and filling in, against closed forms."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vaekit as vk
from vaekit.cli import main
from vaekit.data.condition import Condition
from vaekit.errors import ChoiceError
from vaekit.latents.editing import named_mask, own_class, walk_start
from vaekit.latents.fill import fill_masked, infer_visible, visible_log_prob
from vaekit.latents.paths import attribute_direction


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# --- directions -------------------------------------------------------------------------------------------------


def test_direction_without_others_is_the_difference_of_means(rng):
    z, has = rng.normal(size=(200, 4)), rng.random(200) < 0.3
    np.testing.assert_allclose(attribute_direction(z, has), z[has].mean(0) - z[~has].mean(0), atol=1e-12)


def test_balance_takes_out_what_only_comes_along(rng):
    """Codes with two effects whose attributes are correlated: each direction contains only its own effect."""
    a = rng.random(500) < 0.5
    b = np.where(rng.random(500) < 0.9, a, ~a)
    effects = np.array([[1.0, 0, 2], [0, 3.0, 0]])
    z = a[:, None] * effects[0] + b[:, None] * effects[1] + 5
    np.testing.assert_allclose(attribute_direction(z, a, others=b[:, None]), effects[0], atol=1e-9)
    assert attribute_direction(z, a)[1] > 2  # unbalanced, most of the other's effect is taken for its own


def test_groups_compare_data_with_their_own_kind_alone(rng):
    group = np.arange(300) // 3
    has = np.arange(300) % 3 == 0
    z = rng.normal(size=(100, 5))[group] * 10 + has[:, None] * np.array([0, 0, 0, 0, 0.1])
    np.testing.assert_allclose(attribute_direction(z, has, groups=group), [0, 0, 0, 0, 0.1], atol=1e-9)


def test_a_direction_that_is_not_there_is_refused(rng):
    z, has = rng.normal(size=(50, 2)), rng.random(50) < 0.5
    with pytest.raises(ChoiceError, match="does not vary"):
        attribute_direction(z, np.ones(50))
    with pytest.raises(ChoiceError, match="within any group"):
        attribute_direction(z, has, groups=has)
    with pytest.raises(ChoiceError, match="determine"):
        attribute_direction(z, has, others=1.0 - has[:, None])


# --- masks ------------------------------------------------------------------------------------------------------


def test_named_masks():
    half = named_mask("half", (3, 6, 4))
    assert not half[:, :3].any()
    assert half[:, 3:].all()
    box = named_mask("box", (1, 8, 8))
    assert box.sum() == 16
    assert box[0, 2:6, 2:6].all()
    assert named_mask("half", (5,)).tolist() == [False, False, True, True, True]
    assert named_mask("box", (2, 8)).sum() == 8
    with pytest.raises(ChoiceError, match="half, box"):
        named_mask("whole", (3,))


# --- filling in -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    """A linear Gaussian model with weights that couple its latents."""
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(300, 2)) @ rng.normal(size=(2, 6)) + 0.3 * rng.normal(size=(300, 6))).astype(np.float32)
    out = tmp_path_factory.mktemp("runs") / "linear"
    return vk.fit(vk.from_arrays(x * 2 + 7), "linear", latent=2, out=out, steps=400, compile="off", progress=False)


def parts(run):
    """W (D, L), b (D,), sigma of p(x | z) = N(Wz + b, sigma^2), as the model sees x."""
    with torch.no_grad():
        px = run.model.decode(torch.cat([torch.zeros(1, 2), torch.eye(2)]))
    mean = px.mean.double().numpy()
    return (mean[1:] - mean[0]).T, mean[0], float(px.base_dist.scale.flatten()[0])


def test_filling_in_a_linear_gaussian_model_is_its_conditional_mean(linear):
    w, b, sigma = parts(linear)
    raw = linear.observed("test").raw(np.arange(25))
    x = linear.observed("test")(np.arange(25)).double().numpy()
    hidden = np.array([False, True, False, True, True, False])
    wo, wm = w[~hidden], w[hidden]
    precision = np.eye(2) + wo.T @ wo / sigma**2
    mean = np.linalg.solve(precision, wo.T @ (x[:, ~hidden] - b[~hidden]).T / sigma**2).T  # p(z | x_visible)
    changed = np.where(hidden, np.float32(1000), raw)  # hidden values are not used
    found = fill_masked(linear, changed, hidden)
    scale = float(linear.composition.observation.scale)
    want = (mean @ wm.T + b[hidden]) * scale + linear.composition.observation.mean.numpy()[hidden]
    np.testing.assert_allclose(found.filled[:, hidden], want, atol=2e-3 * scale)
    np.testing.assert_array_equal(found.filled[:, ~hidden], raw[:, ~hidden])
    again = fill_masked(linear, raw, hidden)
    np.testing.assert_array_equal(found.filled[:, hidden], again.filled[:, hidden])
    # the best diagonal Gaussian: variances from the diagonal of the precision; its bound in closed form
    covariance = wo @ wo.T + sigma**2 * np.eye(3)
    off = x[:, ~hidden] - b[~hidden]
    log_p = -0.5 * (
        np.einsum("ni,ij,nj->n", off, np.linalg.inv(covariance), off) + np.linalg.slogdet(2 * np.pi * covariance)[1]
    )
    gap = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    assert gap > 0.01
    visible = torch.from_numpy(~np.broadcast_to(hidden, raw.shape))
    seen = torch.from_numpy(x).float()
    q, bound = infer_visible(linear.model, seen, visible, pairs=64)
    np.testing.assert_allclose(q.stddev.numpy() ** -2, np.broadcast_to(np.diag(precision), (25, 2)), rtol=0.1)
    # a bound's quadratic part, about 1 nat in each of 64 draws and 25 data: its mean is known to 0.025
    np.testing.assert_allclose(bound.numpy().mean(), (log_p - gap).mean(), atol=0.1)


def test_draws_spread_as_the_posterior_does(linear):
    w, _, sigma = parts(linear)
    hidden = np.array([False, False, False, False, True, True])
    raw = linear.observed("test").raw(np.arange(1))
    wo = w[~hidden]
    deviation = 1 / np.sqrt(np.diag(np.eye(2) + wo.T @ wo / sigma**2))  # of the best diagonal Gaussian
    found = fill_masked(linear, raw, hidden, draws=400)
    scale = float(linear.composition.observation.scale)
    want = np.sqrt(w[hidden] ** 2 @ deviation**2) * scale
    np.testing.assert_allclose(found.draws[:, 0, hidden].std(0), want, rtol=0.15)


def test_the_likelihood_of_all_elements_is_the_likelihood(linear):
    x = linear.observed("test")(np.arange(3))
    px = linear.model.decode(torch.zeros(3, 2))
    everything = torch.ones_like(x, dtype=torch.bool)
    torch.testing.assert_close(visible_log_prob(px, x, everything), px.log_prob(x))


def test_a_mixture_of_logistics_without_some_pixels_sums_over_the_others():
    from vaekit.densities import LogisticMixture

    torch.manual_seed(0)
    px = LogisticMixture(torch.randn(1, 4, 2, 2), 5 + 3 * torch.randn(1, 4, 3, 2, 2), torch.zeros(1, 4, 3, 2, 2), 4, 2)
    x = torch.randint(0, 4, (1, 3, 2, 2)).float()
    there = torch.ones(1, 3, 2, 2, dtype=torch.bool)
    there[0, 1, 0, 1] = False  # one channel of one pixel
    total = torch.stack([px.log_prob(torch.where(there, x, v)) for v in range(4)]).logsumexp(0)
    torch.testing.assert_close(visible_log_prob(px, x, there), total)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "digits"
    return vk.fit("digits", out=out, steps=1000, latent=8, hidden=(128,), compile="off", progress=False)


def test_filled_digits_are_nearer_than_the_mean_image(digits):
    raw = digits.observed("test").raw(np.arange(100)).astype(float)
    hidden = named_mask("half", digits.spec.shape)
    found = digits.fill(raw.astype(np.uint8), "half", draws=8)
    mean = digits.data.events(digits.data.train[:]).mean(0)
    ours = ((found.filled - raw)[:, hidden] ** 2).mean()
    assert ours < 0.8 * ((mean - raw)[:, hidden] ** 2).mean()


def test_rows_are_filled_in_blocks_with_the_noise_of_their_numbers(linear, monkeypatch):
    raw, hidden = linear.observed("test").raw(np.arange(5)), np.arange(linear.spec.dims) < 2
    at_once, done = fill_masked(linear, raw, hidden, steps=5, draws=4), []
    monkeypatch.setattr("vaekit.latents.fill.VALUES", 2 * linear.spec.dims)
    in_blocks = fill_masked(linear, raw, hidden, steps=5, draws=4, progress=lambda *at: done.append(at))
    assert len(fill_masked(linear, raw, hidden, steps=1, draws=3).draws) == 3
    assert done == [(2, 5), (4, 5), (5, 5)]
    for one, other in zip(at_once[:3], in_blocks[:3], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_edit_moves_towards_the_class(digits):
    z = digits.encode("test")
    label = digits.data.test.label
    three = int(np.flatnonzero(label == 3)[0])
    strip = digits.edit(three, "8", strength=1.0, steps=3, against="3")
    assert strip.shape == (3, 1, 8, 8)
    eights = digits.decode(z[label == 8]).mean(0)
    distance = ((strip - eights) ** 2).mean((1, 2, 3))
    assert distance[2] < distance[1] < distance[0]


def test_towards_a_class_a_row_of_the_test_set_moves_against_its_own(digits):
    label = digits.data.test.label
    three = int(np.flatnonzero(label == 3)[0])
    np.testing.assert_array_equal(digits.edit(three, "8"), digits.edit(three, "8", against="3"))
    assert own_class(digits, three, "3") is None  # more of its own class: away from all others
    assert own_class(digits, digits.observed("test").raw(np.array([three])), "8") is None  # of a file it is unknown


def test_a_walk_starts_at_a_datum_where_the_priors_centre_shows_little(digits, monkeypatch):
    means = digits.encode("test", n=100)
    start, row = walk_start(digits, means)
    assert row is None
    assert not start.any()
    decode = digits.decode
    flat = lambda z, *rest: decode(z, *rest) * (np.abs(z).sum(1) > 0)[:, None, None, None]  # noqa: E731
    monkeypatch.setattr(digits, "decode", flat)  # nothing to see at the centre
    start, row = walk_start(digits, means)
    np.testing.assert_array_equal(start, means[row])
    assert np.square(start - means.mean(0)).sum() == np.square(means - means.mean(0)).sum(1).min()


def test_interpolate_by_number_and_by_array(digits):
    raw = digits.observed("test").raw(np.arange(2))
    line = digits.interpolate(0, raw[1], steps=5, mode="slerp")
    assert line.shape == (5, 1, 8, 8)
    np.testing.assert_allclose(line[0], digits.reconstruct("test", n=1)[0], atol=1e-3)


def test_what_cannot_be_filled_is_refused(digits, tmp_path):
    with pytest.raises(ChoiceError, match="some of the datum"):
        digits.fill(0, np.ones((1, 8, 8), bool))
    with pytest.raises(ChoiceError, match="some of the datum"):
        digits.fill(0, np.zeros((1, 8, 8), bool))
    with pytest.raises(ChoiceError, match="unknown attribute 'hat'"):
        digits.edit(0, "hat")


def test_on_the_command_line(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = str(digits.path)
    assert main(["edit", run, "3", "--attribute", "8", "--strength", "2", "--out", "e.npz"]) == 0
    with np.load("e.npz") as held:
        assert held["strengths"].tolist() == np.linspace(-2, 2, 9).tolist()
        np.testing.assert_allclose(held["z"][8] - held["z"][0], 4 * held["direction"], atol=1e-5)
    assert main(["edit", run, "3", "--attribute", "8"]) == 0
    labelled = Image.open("edit.png").size
    assert labelled[0] > 10 * 96
    assert main(["edit", run, "3", "--attribute", "8", "--bare"]) == 0
    assert Image.open("edit.png").size[0] < labelled[0]
    mask = np.zeros((8, 8), np.uint8)
    mask[:, :2] = 255
    Image.fromarray(mask).save("mask.png")
    Image.fromarray(np.full((8, 8), 128, np.uint8)).save("grey.png")
    assert main(["fill", run, "3", "--mask", "mask.png", "--draws", "8", "--out", "f.npz"]) == 0
    with np.load("f.npz") as held:
        assert held["hidden"][0].tolist() == (mask > 0).tolist()
        np.testing.assert_array_equal(held["filled"][~held["hidden"]], held["x"][~held["hidden"]])
        assert held["draws"].shape == (8, 1, 8, 8)
    assert main(["fill", run, "grey.png", "--mask", "box"]) == 0
    capsys.readouterr()
    assert main(["fill", run, "3", "--latents", "GMM", "--draws", "2", "--out", "g.npz"]) == 0
    assert capsys.readouterr().out.startswith("gmm: 10 Gaussians")
    with np.load("g.npz") as held:
        found = vk.open(run).fill(3, "half", latents="gmm", draws=2)
        np.testing.assert_allclose(held["filled"], found.filled[0], rtol=1e-5)
    for words, said in (
        (["edit", run, "3", "--attribute", "hat"], "unknown attribute 'hat'"),
        (["fill", run, "3", "--mask", "nowhere.png"], "neither half nor box nor a file"),
        (["fill", run, "3000"], "has no row 3000"),
        (["fill", run, "3", "--latents", "gm"], "did you mean 'gmm'"),
        (["fill", run, "3", "--latents", "two-stage"], "choose gmm, flow, flow-matching or prior"),
    ):
        assert main(words) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1


def test_conditional_runs_take_the_condition_of_the_test_set_or_a_label(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--steps", "60", "--latent", "2", "--hidden", "16", "--compile", "off"]
    assert main(["fit", "digits", "--recipe", "conditional", "--out", "run", *words]) == 0
    run = vk.open("run")
    own = int(run.data.test.label[3])
    np.save("row.npy", run.observed("test").raw(np.array([3])))
    for image, label in (("3", None), ("row.npy", str(own))):
        told = [] if label is None else ["--label", label]
        assert main(["edit", "run", image, "--attribute", "8", "--out", "e.npz", *told]) == 0
        with np.load("e.npz") as held:
            np.testing.assert_allclose(held["z"][4, 2:], np.eye(10)[own], atol=1e-6)  # strength 0: its own class
            np.testing.assert_allclose(held["z"][-1, 2:] - held["z"][4, 2:], held["direction"][2:], atol=1e-5)
            assert held["direction"][2 + 8] > 0.9
        assert main(["fill", "run", image, "--out", "f.npz", "--draws", "8", *told]) == 0
        with np.load("f.npz") as held:
            filled = held["filled"]
        np.testing.assert_array_equal(filled, run.fill(3, draws=8).filled[0])
    other = str((own + 1) % 10)
    assert main(["fill", "run", "row.npy", "--out", "f.npz", "--draws", "8", "--label", other]) == 0
    with np.load("f.npz") as held:
        assert not np.array_equal(held["filled"], filled)
    assert main(["sample", "run", "-n", "5", "--label", "7", "--out", "s.npz"]) == 0
    with np.load("s.npz") as held:
        np.testing.assert_array_equal(held["z"][:, 2:], np.eye(10, dtype=np.float32)[[7] * 5])
    capsys.readouterr()
    for words, said in (
        (["fill", "run", "row.npy"], "--label"),
        (["edit", "run", "row.npy", "--attribute", "8"], "--label"),
        (["fill", "run", "3", "--label", "7"], "its own condition"),
        (["edit", "run", "3", "--attribute", "8", "--label", "7"], "its own condition"),
        (["sample", "run", "--label", "hat"], "unknown class 'hat': choose from 0, 1"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err


def test_a_condition_is_read_by_name_code_or_values():
    classes = Condition("label", ("bee", "ant", "wasp"))
    assert [int(classes.encoded(classes.read(given)).argmax()) for given in ("ant", "0", "wasp")] == [1, 0, 2]
    numbered = Condition("label", ("1", "2", "3"))  # there a number is a name, never a place
    assert int(numbered.encoded(numbered.read("1")).argmax()) == 0
    attributes = Condition("attributes", ("dark", "size"))
    np.testing.assert_array_equal(attributes.read("1,0.5"), [[1, 0.5]])
    for condition, given in (
        (classes, "7"),
        (numbered, "0"),
        (classes, "-1"),
        (attributes, "1"),
        (attributes, "1,x"),
        (attributes, "1,nan"),
    ):
        with pytest.raises(ChoiceError):
            condition.read(given)


# --- tables -----------------------------------------------------------------------------------------------------


def test_a_table_end_to_end(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    n = 400
    kind = rng.integers(0, 3, n)
    size = 10.0 * kind + rng.normal(size=n)
    count = rng.poisson(2 + 5 * kind)
    names, ready = np.array(["bee", "ant", "wasp"])[kind], np.where(kind > 0, "yes", "no")
    holes = rng.random((n, 4)) < 0.1
    holes[0], holes[1] = True, False
    lines = ["kind,size,count,ready"]
    for i in range(n):
        row = [names[i], f"{size[i]:.3f}", str(count[i]), ready[i]]
        lines.append(",".join("" if h else v for h, v in zip(holes[i], row, strict=True)))
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("\n".join(lines) + "\n")
    fit = ["fit", "a.csv", "--missing", "mask", "--latent", "2", "--steps", "600", "--hidden", "32", "--compile", "off"]
    assert main([*fit, "--out", "run"]) == 0
    assert main(["evaluate", "run", "--samples", "10"]) == 0
    capsys.readouterr()
    assert main(["fill", "run", "a.csv", "--out", "filled.csv"]) == 0
    said = capsys.readouterr()
    assert said.out == "filled.csv\n"
    assert f"{holes[2:].sum():,} values filled in" in said.err
    assert "1 row without any value stayed empty" in said.err
    filled = [line.split(",") for line in Path("filled.csv").read_text().splitlines()]
    assert filled[0] == ["kind", "size", "count", "ready"]
    given = [line.split(",") for line in lines]
    for row, before, hole in zip(filled[1:], given[1:], holes, strict=True):
        for value, old, hidden in zip(row, before, hole, strict=True):
            if old and not hidden:  # what was there is there
                assert value == old or float(value) == pytest.approx(float(old), rel=1e-5)
    # categories, counts and numbers that were missing are close to what they were
    lost = np.flatnonzero(holes[:, 0] & ~holes[:, 1])
    assert np.mean([filled[1 + i][0] == names[i] for i in lost]) > 0.8
    lost = np.flatnonzero(holes[:, 1] & ~holes[:, 0])
    assert np.std([float(filled[1 + i][1]) - size[i] for i in lost]) < 3 < size.std()
    lost = np.flatnonzero(holes[:, 2] & ~holes[:, 0])
    assert np.corrcoef([float(filled[1 + i][2]) for i in lost], count[lost])[0, 1] > 0.6
    assert main(["sample", "run", "-n", "7", "--noise", "--out", "new.csv"]) == 0
    new = [line.split(",") for line in Path("new.csv").read_text().splitlines()]
    assert len(new) == 8
    assert {row[0] for row in new[1:]} <= {"bee", "ant", "wasp"}
    assert {row[3] for row in new[1:]} <= {"yes", "no"}
    assert main(["reconstruct", "run", "-n", "3", "--out", "both.csv"]) == 0
    both = [line.split(",") for line in Path("both.csv").read_text().splitlines()][1:]
    rows = vk.open("run").data.test.index[:3]
    assert len(both) == 6
    for i, row in enumerate(rows):  # each datum, then its reconstruction, which has no holes
        assert [bool(v) for v in both[2 * i]] == (~holes[row]).tolist()
        assert all(both[2 * i + 1])
    assert main(["sample", "run", "--out", "new.png"]) == 2
    assert "new.csv" in capsys.readouterr().err
    assert main(["score", "run", "--data", "a.csv", "--out", "scores.csv", "--samples", "5"]) == 0
