"""Pictures have the sizes and colours they should; plots draw what they are given and stay out of global state."""

import io

import numpy as np
import pytest
from PIL import Image

from vaekit import figures
from vaekit.errors import ChoiceError, RunError


def pixels(figure):
    return np.asarray(Image.open(io.BytesIO(figures.figure_png(figure, dpi=50))).convert("RGB"))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_to_uint8_of_grey_colour_and_floats():
    grey = np.array([[[0, 255], [128, 7]]], dtype=np.uint8)
    assert figures.to_uint8(grey).shape == (1, 2, 2, 3)
    assert (figures.to_uint8(grey) == grey[..., None]).all()
    floats = np.array([[[-1.0, 0.0], [0.5, 3.0]]])
    assert figures.to_uint8(floats, (0, 1))[0, :, :, 0].tolist() == [[0, 0], [128, 255]]
    colour = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 3)).astype(np.uint8)
    assert (figures.to_uint8(colour) == colour).all()
    assert (figures.to_uint8(np.full((1, 2, 2, 2), 9, np.uint8))[0, 0, 0] == [9, 9, 0]).all()
    with pytest.raises(ChoiceError, match="shape"):
        figures.to_uint8(np.zeros((2, 2)))
    with pytest.raises(ChoiceError, match="scale"):
        figures.to_uint8(grey, (1, 1))


def test_what_is_missing_has_a_colour_of_its_own():
    sand = figures.pictures.MISSING
    grey = np.array([[[0.0, np.nan], [0.5, 1.0]]], np.float32)
    shown = figures.to_uint8(grey, (0, 1))
    assert shown[0].tolist() == [[[0, 0, 0], [*sand]], [[128] * 3, [255] * 3]]
    colour = np.zeros((1, 2, 2, 3))
    colour[0, 1, 0, 2] = np.nan
    assert [tuple(v) for v in figures.to_uint8(colour, (0, 1))[0, 1]] == [sand, (0, 0, 0)]
    errors = figures.error_map(grey, np.ones_like(grey))
    assert tuple(errors[0, 0, 1]) == sand
    assert tuple(errors[0, 0, 0]) == (178, 24, 43)  # the largest error that there is
    assert tuple(errors[0, 1, 1]) == (247, 247, 247)
    assert figures.error_map(np.full((1, 2, 2), np.nan), np.ones((1, 2, 2))).shape == (1, 2, 2, 3)


@pytest.mark.parametrize("shape", [(7, 28, 28), (7, 5, 9, 3), (7, 100, 60, 1)])
def test_image_grid_sizes(shape):
    images = np.full(shape, 255, np.uint8)
    height, width = shape[1:3]
    zoom = max(1, -(-56 // max(height, width)))
    grid = figures.image_grid(images, 3, gap=2, background=(10, 20, 30))
    assert grid.shape == (3 * (height * zoom + 2) - 2, 3 * (width * zoom + 2) - 2, 3)
    assert (grid[-1, -1] == (10, 20, 30)).all()  # two places are left over
    assert (grid[0, 0] == 255).all()


def test_labels_take_room_beside_pictures_and_change_none():
    """Every tile stands whole and enlarged in the grid, with its words outside of it."""
    tiles = np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((8, 8), np.uint8) * 20 + 60
    labels = figures.Labels("a title", rows=["one", "two"], columns=["a", "a rather long label", "c"])
    grid = figures.labelled_grid(tiles, 3, labels)
    for tile in tiles:
        rows, columns = np.nonzero((grid == tile[0, 0]).all(-1))
        assert np.ptp(rows) + 1 == np.ptp(columns) + 1 == 96
        assert (grid[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] == tile[0, 0]).all()
    bare = figures.labelled_grid(tiles, 3, figures.Labels())
    assert bare.shape[0] < grid.shape[0]
    assert bare.shape[1] < grid.shape[1]
    with pytest.raises(ChoiceError, match="4 labels of columns"):
        figures.labelled_grid(tiles, 3, figures.Labels(columns=["a"] * 4))


def test_image_grid_puts_tiles_row_by_row_and_clears_gaps():
    images = np.arange(4, dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2)
    grid = figures.image_grid(images, 2, gap=1, background=None, zoom=1)
    assert grid.shape == (5, 5, 4)
    assert grid[0, 0, 0] == 0
    assert grid[0, 3, 0] == 1
    assert grid[3, 0, 0] == 2
    assert (grid[2, :, 3] == 0).all()
    assert (grid[..., 3] == 255).sum() == 16
    with pytest.raises(ChoiceError, match="one image"):
        figures.image_grid(images[:0])


def test_error_map_is_blue_below_and_red_above():
    data = np.array([[[0, 100, 50]]], dtype=np.uint8)
    error = figures.error_map(data, np.array([[[100, 0, 50]]], dtype=np.float32), 100)
    red, blue, zero = error[0, 0].astype(int)
    assert red[0] > red[2] + 90
    assert blue[2] > blue[0] + 90
    assert zero.min() == zero.max() == 247
    assert figures.error_map(np.zeros((2, 3, 4, 3)), np.zeros((2, 3, 4, 3))).shape == (2, 3, 4, 3)
    with pytest.raises(ChoiceError, match="differ"):
        figures.error_map(data, data[:, :, :2])


def test_save_png_is_whole_or_not_there(tmp_path, rng):
    picture = rng.integers(0, 255, (4, 6, 3)).astype(np.uint8)
    path = figures.save_png(tmp_path / "a.png", picture)
    assert (np.asarray(Image.open(path)) == picture).all()
    with pytest.raises(RunError, match="cannot write"):
        figures.save_png(tmp_path / "nowhere" / "a.png", picture)
    with pytest.raises(ChoiceError, match="uint8"):
        figures.save_png(tmp_path / "b.png", picture.astype(float))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def plots(rng):
    steps = {"step": np.arange(1, 20) * 50, "elbo": -np.linspace(9, 5, 19), "rate": np.ones(19)}
    with_nan = {**steps, "elbo": np.where(np.arange(19) == 4, np.nan, steps["elbo"])}
    return {
        "curves": lambda: figures.training_curves(with_nan, steps, epoch_steps=100, floor=3.0),
        "no curves": lambda: figures.training_curves({"step": np.array([])}, {"step": np.array([])}),
        "compared": lambda: figures.compared_curves({"a": {**steps}, "b": {**steps}}),
        "rate-distortion": lambda: figures.rate_distortion({"a": (10.0, 90.0), "b": (20.0, 75.0)}),
        "kl": lambda: figures.kl_bars(rng.exponential(size=12), rng.random(12) > 0.5),
        "many kl": lambda: figures.kl_bars(rng.exponential(size=300)),
        "active": lambda: figures.active_units(rng.exponential(size=12) * [0, *np.ones(11)]),
        "histogram": lambda: figures.histogram(rng.normal(size=50), "log p(x)"),
        "scatter": lambda: figures.latent_scatter(rng.normal(size=(60, 2)), np.arange(60) % 30 - 1),
        "no labels": lambda: figures.latent_scatter(rng.normal(size=(5, 1))),
        "pca": lambda: figures.latent_scatter(rng.normal(size=(40, 7)), np.arange(40) % 2, ["$x^", "<b>"]),
        "signals": lambda: figures.lines(rng.normal(size=(5, 2, 30)), rng.normal(size=(5, 2, 30)), list("abcde")),
        "vectors": lambda: figures.lines(rng.normal(size=(3, 6)), names=[f"f{i}" for i in range(6)], unit="sd"),
        "families": lambda: figures.families(rng.normal(size=(2, 4, 8)), ["a", "b"], [False, True]),
        "heat": lambda: figures.heat(rng.normal(size=(4, 5)), rng.normal(size=(4, 5)), list("abcde"), "sd"),
    }


@pytest.mark.parametrize("name", plots(np.random.default_rng(0)))
def test_every_plot_draws_in_its_theme_and_leaves_no_trace(name, rng):
    import matplotlib

    before = dict(matplotlib.rcParams)
    with figures.theme("dark"):
        picture = pixels(plots(rng)[name]())
    assert (picture[0, 0] == (0x1B, 0x20, 0x26)).all()
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 5
    assert dict(matplotlib.rcParams) == before


def test_curves_that_there_are_none_of_have_no_panel():
    step = np.arange(5.0)
    with figures.theme("light"):
        alone = figures.training_curves({"step": step, "distortion": step}, {"step": step[:0]})
        whole = figures.training_curves({"step": step, "distortion": step, "elbo": -step, "rate": step}, {"step": step})
    assert [axes.get_title(loc="left") for axes in alone.axes] == ["distortion, −log p(x|z)"]
    assert alone.axes[0].get_ylabel() == "nats per example"
    assert len(whole.axes) == 3


def test_an_unknown_theme_is_refused():
    with pytest.raises(ChoiceError, match="sepia"), figures.theme("sepia"):
        pass


def test_project_is_the_plane_of_largest_variance(rng):
    flat = rng.normal(size=(200, 2)) * [5, 2]
    turned = flat @ np.linalg.qr(rng.normal(size=(6, 6)))[0][:2]
    points, shares = figures.project(turned)
    assert shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(points.var(0), np.linalg.eigvalsh(np.cov(flat.T, ddof=0))[::-1], rtol=1e-9)
    assert figures.project(flat)[1] is None


def test_forty_classes_are_told_apart_by_colour_and_marker():
    from vaekit.figures.style import class_style

    assert len({class_style(i) for i in range(49)}) == 49


def test_shapes_that_do_not_fit_are_refused(rng):
    for make in (
        lambda: figures.lines(np.zeros((2, 3)), np.zeros((2, 4))),
        lambda: figures.lines(np.zeros(3)),
        lambda: figures.families(np.zeros((2, 3)), ["a", "b"]),
        lambda: figures.heat(np.zeros((2, 3)), np.zeros((2, 4))),
        lambda: figures.channels_last(np.zeros((2, 3))),
        lambda: figures.project(np.zeros(3)),
    ):
        with pytest.raises(ChoiceError):
            make()
