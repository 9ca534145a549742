"""A wrong name is answered with the right one."""

from dataclasses import fields

import pytest

import vaekit as vk
from vaekit.cli import catalogue
from vaekit.errors import ChoiceError, DataError
from vaekit.utils.suggest import ELSEWHERE, MODELS, meant, unknown

ARGUMENTS = {f.name for f in fields(vk.Options)} | {a.name for a in catalogue.recipe("vae").arguments}


@pytest.mark.parametrize(
    ("given", "here"),
    [
        ("optimizer", "optimiser"),
        ("batch_size", "batch"),
        ("learning_rate", "lr"),
        ("hidden_dims", "hidden"),
        ("latent_dim", "latent"),
        ("num_epochs", "epochs"),
        ("lr_schedule", "schedule"),
        ("gpu", "device"),
        ("n_latent", "latent"),
        ("kl_weight", "beta"),
        ("random_state", "seed"),
        ("weight-decay", "weight_decay"),
        ("Epochs", "epochs"),
        ("betta", "beta"),
        ("nothing_like_it", None),
    ],
)
def test_arguments_by_what_others_call_them(given, here):
    assert meant(given, ARGUMENTS) == here


@pytest.mark.parametrize(
    ("given", "here"),
    [
        ("VAE", "vae"),
        ("beta-vae", "beta"),
        ("cvae", "conditional"),
        ("VQ-VAE", "vq"),
        ("beta-tcvae", "tc"),
        ("covn", "conv"),
    ],
)
def test_recipes_by_what_papers_call_them(given, here):
    with pytest.raises(ChoiceError, match=f"unknown recipe {given!r}: did you mean {here!r}"):
        catalogue.recipe(given)


def test_every_name_of_elsewhere_leads_somewhere():
    from vaekit.cli import arguments

    assert set(ELSEWHERE.values()) <= arguments()
    assert not set(ELSEWHERE) & ARGUMENTS & {"lr", "batch", "hidden", "latent", "epochs", "beta"}
    assert set(MODELS.values()) <= set(catalogue.recipes())


def test_few_names_are_listed_and_many_only_where_none_is_near():
    assert (
        unknown("colour", "redd", ["red", "blue"]) == "unknown colour 'redd': did you mean 'red'? Choose from red, blue"
    )
    assert unknown("colour", "x", ["red", "blue"]) == "unknown colour 'x'; choose from red, blue"
    many = [f"name{i}" for i in range(40)]
    assert unknown("name", "nam1", many).endswith("?")
    assert unknown("name", "zzz", many).endswith("name39")


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"learning_rate": 1e-3}, "unknown argument of vae 'learning_rate': did you mean 'lr'"),
        ({"optimizer": "adam"}, "did you mean 'optimiser'"),
        ({"hidden_dims": (8,)}, "did you mean 'hidden'"),
        ({"size": 8}, r"vk\.load\(source, size=\.\.\.\)"),
        ({"beta": -1}, "`beta` must be 0 or more"),
        ({"lr": 0}, "`lr` must be above 0"),
        ({"optimiser": "adamm"}, "unknown `optimiser` 'adamm': did you mean 'adam"),
    ],
)
def test_python_is_answered_in_python(choices, said, tmp_path):
    with pytest.raises(ChoiceError, match=said):
        vk.fit("digits", out=tmp_path / "r", **choices)


def test_a_file_nearby_is_suggested(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text("a\n1\n")
    for given in ("tabel.csv", "Table.csv"):
        with pytest.raises(DataError, match=f"{given}' is neither .* did you mean 'table.csv'"):
            vk.load(given)
    with pytest.raises(DataError, match="did you mean 'digits'"):
        vk.load("digts")
