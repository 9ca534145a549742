"""What the page knows of the data is what the run says of them."""

import io

import numpy as np
import pytest
from explorer_helpers import HOSTILE, QUIET, pictures, trained
from sklearn.decomposition import PCA

import vaekit as vk
from vaekit.errors import DataError
from vaekit.explorer import about, maps
from vaekit.explorer import points as gathering
from vaekit.explorer.points import MOST_THUMBS, SHOWN, gather, rounding, sources, stored_tsne
from vaekit.latents.editing import direction

ROOM = 4e6


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("gather") / "run", n=120)


@pytest.fixture(scope="module")
def points(run):
    return gather(run, 1000, ROOM, quiet)


def test_all_data_test_first_each_once(run, points):
    assert [s.name for s in points.sources] == ["test", "train"]
    assert points.count("test") == len(run.data.test)
    assert points.count("train") == len(run.data.train)
    assert sorted(points.sources[0].row) == list(range(len(run.data.test)))
    assert list(points.sources[0].row) != sorted(points.sources[0].row)


def test_codes_are_the_runs_to_a_small_part_of_the_posteriors_deviation(run, points):
    for source in points.sources:
        start = 0 if source.name == "test" else points.count("test")
        z = points.z[start : start + len(source)].astype(np.float32)
        step = rounding(run, points.sources[0])
        # half a step, and float16's own rounding
        assert (np.abs(z - run.encode(source.name, rows=source.row)) <= 0.5 * step + 1e-3 * np.abs(z) + 1e-6).all()
    spread = np.sqrt(run.composition.model.posterior(run.observed("test")(np.arange(10))).variance.detach().numpy())
    assert (rounding(run, points.sources[0]) <= np.median(spread, 0)).all()


def test_labels_thumbnails_and_rows_belong_together(run, points):
    test = run.data.test
    rows = points.sources[0].row
    assert (points.label[: len(rows)] == test.label[rows]).all()
    assert points.thumbs.shape == (len(rows), 6, 5, 1)
    np.testing.assert_array_equal(points.thumbs[..., 0], test[rows])


def test_log_px_is_what_the_run_scores(run, points):
    rows = points.sources[0].row
    scores = run.score("test", samples=8)[rows]
    np.testing.assert_allclose(points.logpx[: len(rows)], scores, rtol=2e-3)  # kept to 12 bits
    assert np.isfinite(points.logpx).all()


def test_log_px_ends_after_a_counted_amount_of_work(run, points, monkeypatch):
    """The number of points with log p(x) depends on the model and the limit, not on the machine's speed."""
    monkeypatch.setattr(gathering, "WORK", 7.5 * gathering._work(run, points.sources[0].head(1), 8))
    some = gather(run, 20, ROOM, quiet)
    assert (points.scored, some.scored) == (len(points), 7)
    np.testing.assert_allclose(some.logpx[:7], points.logpx[:7], rtol=1e-3)
    assert np.isnan(some.logpx[7:]).all()


def test_errors_are_root_mean_squares_in_the_datas_units(run, points):
    rows = points.sources[0].row
    made = run.decode(points.z[: len(rows)].astype(np.float32))
    off = made - run.data.test[rows][:, None].astype(np.float64)
    np.testing.assert_allclose(points.error[: len(rows)], np.sqrt((off**2).mean((1, 2, 3))), rtol=1e-3)


def test_an_autoencoder_has_no_log_px(tmp_path):
    points = gather(trained(tmp_path / "run", "ae"), 30, ROOM, quiet)
    assert np.isnan(points.logpx).all()
    assert np.isfinite(points.error).all()


def test_a_conditional_run_is_told_its_labels(tmp_path):
    run = trained(tmp_path / "run", "conditional")
    points = gather(run, 100, ROOM, quiet)
    np.testing.assert_array_equal(points.z[:, -3:].argmax(1), points.label)
    found = about.latents(run, points)
    assert found["condition"] == 3
    assert found["names"][-3:] == HOSTILE
    assert found["dims"] == 6
    assert found["order"][-3:] == [3, 4, 5]
    assert np.isfinite(points.logpx).all()


@pytest.mark.parametrize(
    ("recipe", "choices"),
    [
        ("vq", {"hidden": (4, 8), "network": "grid"}),
        ("ladder", {"layers": (1, 1)}),
        ("semi-supervised", {}),
        ("iaf", {"transforms": 1}),
    ],
)
def test_other_kinds_of_codes(tmp_path, recipe, choices):
    run = trained(tmp_path / "run", recipe, **choices)
    points = gather(run, 20, ROOM, quiet)
    found = about.latents(run, points)
    assert len(points) == 20
    assert found["discrete"] == (recipe == "vq")
    assert found["classes"] == (3 if recipe == "semi-supervised" else 0)
    assert found["gaussian_prior"] == (recipe in ("ladder", "iaf"))
    assert len(found["names"]) == len(found["scale"]) == points.z.shape[1]
    assert np.isfinite(points.logpx).all()
    assert maps.prior(run, points.z.shape[1]).shape[1] == points.z.shape[1]
    if recipe == "vq":  # discrete codes are kept exactly, but for float16
        rows = points.sources[0].row
        np.testing.assert_array_equal(points.z[: len(rows)], run.encode("test", rows=rows).astype(np.float16))


def test_a_small_page_gets_fewer_data(run):
    small = gather(run, 1000, 300.0, quiet, samples=0)
    assert len(small) == 120 - len(run.data.valid)  # never fewer than 500, where there are as many
    assert len(small.thumbs) < len(run.data.test) <= MOST_THUMBS
    assert np.isnan(small.logpx).all()


def test_fewer_points_are_test_points(run):
    assert [(s.name, len(s)) for s in sources(run, 5)] == [("test", 5)]


def test_large_pictures_become_thumbnails(tmp_path):
    x = np.repeat(np.repeat(pictures(60), 10, 1), 8, 2)  # 60 x 40
    data = vk.from_arrays(np.stack([x, x, x], -1), name="large")
    run = vk.fit(data, "vae", out=tmp_path / "run", steps=2, batch=8, latent=2, hidden=(8,), likelihood="gaussian",
                 network="dense", **QUIET)  # fmt: skip
    run.use_data(data)
    points = gather(run, 10, ROOM, quiet, samples=0)
    assert points.thumbs.shape[1:] == (32, 21, 3)
    assert points.label is None


# --- maps -------------------------------------------------------------------------------------------------------


def test_the_plane_is_that_of_principal_components():
    z = np.random.default_rng(0).normal(size=(300, 5)) * [3, 0.0, 2, 1, 0.5] + 1
    live = np.array([True, False, True, True, True])
    plane = maps.plane(z, live)
    known = PCA(2).fit(z[:, live])
    np.testing.assert_allclose(np.abs(np.array(plane["components"])[:, live]), np.abs(known.components_), atol=1e-5)
    np.testing.assert_allclose(plane["explained"], known.explained_variance_ratio_, rtol=1e-5)
    assert np.array(plane["components"])[:, 1].tolist() == [0, 0]


def test_one_latent_has_a_plane_too():
    plane = maps.plane(np.linspace(0, 1, 9)[:, None], np.array([True]))
    assert plane["components"] == [[1.0], [0.0]]
    assert plane["explained"] == [1.0, 0.0]


def test_tsne_keeps_groups_apart_and_is_repeatable(capsys):
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(size=(40, 3)), rng.normal(size=(40, 3)) + 9])
    told = []
    y = maps.tsne(z, np.ones(3, bool), 80, lambda *what: told.append(what))
    assert told[0] == ("t-SNE", 0, 750)
    assert told[-1] == ("t-SNE", 750, 750)
    assert {done for _, done, _ in told} >= {50, 100, 150}
    assert capsys.readouterr().out == ""
    apart = np.linalg.norm(y[:40].mean(0) - y[40:].mean(0))
    assert apart > y[:40].std() + y[40:].std()
    np.testing.assert_array_equal(y, maps.tsne(z, np.ones(3, bool), 80, quiet))
    assert maps.tsne(z, np.array([True, False, False]), 80, quiet).shape == (0, 2)


def test_tsne_of_a_part_places_the_others_among_their_neighbours(monkeypatch):
    monkeypatch.setattr(maps, "LEAST_PART", 60)
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, 150)
    z = (rng.normal(size=(150, 4)) + 9 * np.eye(4)[group]).astype(np.float32)
    told = []
    y = maps.tsne(z, np.ones(4, bool), 150, lambda *what: told.append(what))
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1] == ("t-SNE", 1100, 1100)
    assert "60 of the examples" in maps.how_tsne(150)
    off = np.linalg.norm(y[:, None] - y, axis=-1) + 1e9 * np.eye(150)
    assert (group[off.argmin(1)] == group).all()  # the groups do not touch
    np.testing.assert_array_equal(y, maps.tsne(z, np.ones(4, bool), 150, quiet))


def test_what_others_print_during_tsne_is_passed_on():
    out, told = io.StringIO(), []
    stream = maps._Iterations(out, told.append)
    for text in ("[t-SNE] Iteration 50: error = 1.5", "\n", "\n", "[t-SNE] Indexed 9 samples", "\n", "mine", "\n"):
        stream.write(text)
    assert told == [50]
    assert out.getvalue() == "\nmine\n"


def test_distances_and_histograms():
    z = np.random.default_rng(0).normal(size=(4000, 2)) * [1, 3] + [0, 5]
    mean, spread = z.mean(0), z.std(0)
    quantiles = maps.away(z, mean, spread)["distance_quantiles"]
    # of two standard normal numbers the squared length is exponential with mean 2
    assert quantiles[50] == pytest.approx(np.sqrt(2 * np.log(2)), abs=0.05)
    counts = maps.histogram(z, mean, spread)
    assert counts.shape == (2, 41)
    assert counts[:, 20].min() > counts[:, 5].max()
    assert (counts.sum(1) >= 3995).all()  # all but those beyond 4.1 deviations
    assert maps.histogram(np.zeros((70_000, 1)), np.zeros(1), np.zeros(1)).max() == 65535


def test_directions_of_attributes(tmp_path):
    x = pictures(80)
    bright = (x.reshape(80, -1).argmax(1) > 15).astype(np.int64)
    often = np.where(np.arange(80) % 3 == 0, 1 - bright, bright)  # mostly where it is bright
    data = vk.from_arrays(x, columns={HOSTILE[0]: bright, "often": often}, name="attributes")
    run = vk.fit(data, "vae", out=tmp_path / "run", steps=2, batch=8, latent=2, hidden=(8,), **QUIET)
    run.use_data(data)
    points = gather(run, 100, ROOM, quiet, samples=0)
    found = {d["name"]: d for d in maps.directions(run, points)}
    assert list(found) == [HOSTILE[0], "often"]
    has = data.train.columns["often"] > 0
    assert (found["often"]["n_with"], found["often"]["n_without"]) == (has.sum(), (~has).sum())
    for name, of_page in found.items():  # those along which the run edits, the other attribute held equal
        np.testing.assert_allclose(of_page["vector"], direction(run, name), rtol=1e-4, atol=1e-6)
        assert not np.allclose(of_page["vector"], direction(run, name, balance=False), rtol=1e-2)


def test_a_run_that_brings_its_data_needs_no_others(run, tmp_path):
    for name in ("run.json", "model.safetensors"):
        (tmp_path / name).write_bytes((run.path / name).read_bytes())
    test = run.data.test
    np.savez(tmp_path / SHOWN, x=test[:], label=test.label, row=np.arange(len(test)), tsne=np.zeros((4, 2)))
    alone = vk.open(tmp_path)
    points = gather(alone, 8, ROOM, quiet)
    np.testing.assert_array_equal(points.row, np.arange(8))
    np.testing.assert_array_equal(points.thumbs[..., 0], test[:8])
    assert stored_tsne(alone).shape == (4, 2)
    assert about.latents(alone, points)["kl"] is not None


@pytest.mark.parametrize(
    "change", [{"label": None}, {"row": np.zeros((5, 2))}, {"label": np.full(5, 99)}, {"tsne": np.eye(9)}]
)
def test_data_that_a_run_brings_are_checked(run, tmp_path, change):
    for name in ("run.json", "model.safetensors"):
        (tmp_path / name).write_bytes((run.path / name).read_bytes())
    test = run.data.test.head(5)
    whole = {"x": test[:], "label": test.label, "row": np.arange(5)}
    np.savez(tmp_path / SHOWN, **{name: value for name, value in {**whole, **change}.items() if value is not None})
    with pytest.raises(DataError, match=r"shown\.npz is damaged"):
        sources(vk.open(tmp_path), 5)
    (tmp_path / SHOWN).write_bytes((tmp_path / SHOWN).read_bytes()[:-30])
    with pytest.raises(DataError, match=r"shown\.npz cannot be read"):
        sources(vk.open(tmp_path), 5)
