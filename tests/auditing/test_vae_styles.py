"""Right VAEs of many styles are not accused; the faults of these styles are found."""

import pytest
import torch
from vae_styles import RIGHT, Base, Convolved, Factorised, Heteroscedastic, Inlined, Quantised, Training, Weighted

import vaekit as vk
from vaekit.auditing import audit


@pytest.fixture(scope="module")
def data():
    torch.manual_seed(0)
    return {"binary": (torch.rand(16, 12) > 0.5).float(), "real": torch.rand(16, 12), "image": torch.rand(16, 1, 8, 8)}


def names(module, x, **kwargs):
    return {fault.name for fault in audit(module, x, **kwargs).faults}


@pytest.mark.parametrize("kind", ["binary", "real"])
@pytest.mark.parametrize("style", RIGHT, ids=lambda style: style.__name__)
def test_a_right_one_is_not_accused(style, kind, data):
    torch.manual_seed(0)
    seen = audit(style(), data["image" if style is Convolved else kind], **RIGHT[style])
    allowed = {"silent-range"} if style is Training else set()  # torch takes any x beside logits
    assert {fault.name for fault in seen.faults} <= allowed, str(seen)
    assert {"seed", "batch-of-one"} <= set(seen.passed)
    if style not in (Inlined, Quantised, Heteroscedastic):
        assert "unused-kl" in seen.passed, str(seen)


def test_what_cannot_be_judged_is_skipped_with_the_reason(data):
    seen = audit(Inlined(), data["binary"])
    assert "does not call encode" in seen.skipped["unused-kl"]
    with pytest.raises(vk.VaekitError, match="must take a batch alone"):
        audit(Training(), data["binary"], loss="register_buffer")


@pytest.mark.parametrize("fault", ["analytic", "normalised"])
@pytest.mark.parametrize("seed", range(2))
def test_several_draws_that_are_no_bound(fault, seed, data):
    torch.manual_seed(seed)
    by_name = {one.name: one for one in audit(Weighted(fault), data["binary"]).faults}
    assert set(by_name) == {"bound"}
    numbers = by_name["bound"].numbers
    assert numbers["claimed"] - numbers["log_px"] > 10 * numbers["error"]


def test_another_count_of_draws(data):
    assert names(Weighted("count"), data["binary"], score="nll") == {"score-samples"}


@pytest.mark.parametrize("told", [True, False])
def test_a_commitment_summed_over_the_batch(told, data):
    assert names(Quantised("sum", told), data["real"]) == {"batch-reduction"}
    assert names(Quantised("", told), data["real"]) == set()


@pytest.mark.parametrize("name", ["discriminator_loss", "second"])
def test_a_critic_is_told_by_its_gradients(name, data):
    assert names(Factorised("shared", name), data["binary"]) == {"critic"}
    assert "critic" in audit(Factorised("", name), data["binary"]).passed


def test_buffers_are_left_as_they_were(data):
    module = Convolved().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    audit(module, data["image"], **RIGHT[Convolved])
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class Capacity(Base):
    """|KL - C| has no constant slope."""

    def loss(self, x):
        mu, logvar = self.encode(x)
        z = mu + torch.exp(logvar / 2) * torch.randn_like(mu)
        kl = 0.5 * (mu**2 + logvar.exp() - logvar - 1).sum(1)
        return (self.bce(z, x) + 10 * (kl - 25).abs()).mean()


class Mixture(Capacity):
    """A prior of posteriors: encode is called again for pseudo-inputs."""

    def loss(self, x):
        mu, logvar = self.encode(x)
        z = mu + torch.exp(logvar / 2) * torch.randn_like(mu)
        means, spreads = self.encode(torch.eye(12))
        each = torch.distributions.Normal(means, torch.exp(spreads / 2)).log_prob(z[:, None]).sum(-1)
        log_q = torch.distributions.Normal(mu, torch.exp(logvar / 2)).log_prob(z).sum(-1)
        return (self.bce(z, x) + log_q - torch.logsumexp(each, 1)).mean()


@pytest.mark.parametrize("style", [Capacity, Mixture])
def test_another_regulariser_is_not_accused(style, data):
    seen = audit(style(), data["binary"])
    assert seen.faults == (), str(seen)
