"""Right VAEs in the styles that people write them in, and copies with one fault of these styles."""

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

D, L = 12, 3


def kl_of(mu, logvar):
    return 0.5 * (mu**2 + logvar.exp() - logvar - 1).flatten(1).sum(1)


def drawn(mu, logvar):
    return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)


class Base(nn.Module):
    """Linear encoder and decoder; `loss` from the parts of a subclass."""

    spread = 1

    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(D, 2 * L), nn.Linear(L, D)

    def encode(self, x):
        return self.enc(x).chunk(2, -1)

    def decode(self, z):
        return torch.sigmoid(self.dec(z))

    def bce(self, z, x):
        return F.binary_cross_entropy(self.decode(z), x, reduction="none").sum(1)


class SummedOverTheBatch(Base):
    """As in PyTorch's examples: sums of everything, returned as a tuple with other things."""

    def loss(self, x):
        mu, logvar = self.encode(x.view(-1, D))
        recon = self.decode(drawn(mu, logvar))
        bce = F.binary_cross_entropy(recon, x.view(-1, D), reduction="sum")
        return bce + kl_of(mu, logvar).sum(), recon, mu, logvar


class MeansWithABeta(Base):
    """Means over elements, and a KL that is divided by their number."""

    def loss(self, x):
        mu, logvar = self.encode(x)
        return F.binary_cross_entropy(self.decode(drawn(mu, logvar)), x) + kl_of(mu, logvar).mean() / D


class Training(Base):
    """A training_step on a pair, with encode that draws, drop-out, logits, and a beta of its own.

    Nothing here refuses x of 0 to 255, as nothing in torch does for logits: this fault it has.
    """

    def __init__(self):
        super().__init__()
        self.drop, self.beta = nn.Dropout(0.3), 4.0

    def encode(self, x):
        mu, logvar = self.enc(self.drop(x)).chunk(2, -1)
        return drawn(mu, logvar), mu, logvar

    def decode(self, z):
        return self.dec(self.drop(z))

    def training_step(self, batch, batch_idx):
        x, _ = batch
        z, mu, logvar = self.encode(x)
        bce = F.binary_cross_entropy_with_logits(self.decode(z), x, reduction="none").sum(-1).mean()
        return bce + self.beta * kl_of(mu, logvar).mean()


class Convolved(nn.Module):
    """Convolutions with batch norm, latent maps, and squared errors of half of their sum."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1))
        self.decoder = nn.Sequential(nn.ConvTranspose2d(2, 4, 2, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1))

    def encode(self, x):
        mu, logvar = self.encoder(x).chunk(2, 1)
        return {"mu": mu, "logvar": logvar}

    def forward(self, x):
        q = self.encode(x)
        recon = 0.5 * F.mse_loss(self.decoder(drawn(q["mu"], q["logvar"])), x, reduction="sum") / len(x)
        kl = kl_of(q["mu"], q["logvar"]).mean()
        return SimpleNamespace(loss=recon + kl, recon=recon, kl=kl)


class Sigma(Base):
    """A Gaussian likelihood with a trained standard deviation and its constant."""

    def __init__(self):
        super().__init__()
        self.log_s = nn.Parameter(torch.tensor(-0.7))

    def loss(self, x):
        mu, logvar = self.encode(x)
        out = self.decode(drawn(mu, logvar))
        recon = -Normal(out, self.log_s.exp()).log_prob(x).sum(-1)
        return {"loss": (recon + kl_of(mu, logvar)).mean(), "recon_loss": recon, "kl": kl_of(mu, logvar)}


class FixedSigma(Base):
    """Squared errors over twice a variance that the module holds, without the constant."""

    def __init__(self):
        super().__init__()
        self.sigma_x = 0.3

    def loss(self, x):
        mu, logvar = self.encode(x)
        recon = ((x - self.decode(drawn(mu, logvar))) ** 2).sum(-1) / (2 * self.sigma_x**2)
        return (recon + kl_of(mu, logvar)).mean()


class Distributions(Base):
    """encode returns a distribution, and elbo is maximised with a KL of one draw."""

    def encode(self, x):
        mu, raw = self.enc(x).chunk(2, -1)
        return Independent(Normal(mu, F.softplus(raw)), 1)

    def elbo(self, x):
        q, p = self.encode(x), Independent(Normal(torch.zeros(L), torch.ones(L)), 1)
        z = q.rsample()
        return (p.log_prob(z) - q.log_prob(z) - self.bce(z, x)).mean()


class Deviations(Base):
    """An unnamed pair of mean and standard deviation."""

    def encode(self, x):
        mu, raw = self.enc(x).chunk(2, -1)
        return mu, F.softplus(raw) + 1e-4

    def loss(self, x):
        mu, std = self.encode(x)
        z = mu + std * torch.randn_like(std)
        return (self.bce(z, x) + kl_divergence(Normal(mu, std), Normal(0.0, 1.0)).sum(-1)).mean()


class FreeBits(Base):
    """A floor of half a nat in each latent."""

    def loss(self, x):
        mu, logvar = self.encode(x)
        each = 0.5 * (mu**2 + logvar.exp() - logvar - 1).mean(0)
        return self.bce(drawn(mu, logvar), x).mean() + each.clamp(min=0.5).sum()


class Weighted(Base):
    """The importance-weighted bound of 5 draws; with a fault, log p(x|z) of several draws beside an analytic KL, or
    the sum of normalised weights times log weights in place of the bound."""

    def __init__(self, fault=""):
        super().__init__()
        self.fault = fault

    def loss(self, x):
        mu, logvar = (a.expand(5, *a.shape) for a in self.encode(x))
        z = drawn(mu, logvar)
        log_px = -F.binary_cross_entropy(
            self.decode(z.reshape(-1, L)).view(5, len(x), D), x.expand(5, -1, -1), reduction="none"
        ).sum(-1)
        if self.fault == "analytic":
            return (kl_of(mu[0], logvar[0]) - torch.logsumexp(log_px, 0) + math.log(5)).mean()
        log_w = log_px + Normal(0.0, 1.0).log_prob(z).sum(-1) - Normal(mu, torch.exp(logvar / 2)).log_prob(z).sum(-1)
        if self.fault == "normalised":
            return -(torch.softmax(log_w, 0).detach() * log_w).sum(0).mean()
        return (math.log(5) - torch.logsumexp(log_w, 0)).mean()

    def nll(self, x, n_samples=5):
        """With the fault "count", always 5 draws."""
        n = 5 if self.fault == "count" else n_samples
        mu, logvar = self.encode(x.repeat(n, 1))
        generator = torch.Generator().manual_seed(0)
        e = torch.randn(mu.shape, generator=generator)
        z = mu + e * torch.exp(logvar / 2)
        log_w = -self.bce(z, x.repeat(n, 1)) + ((e**2 - z**2) / 2 + logvar / 2).sum(-1)
        return math.log(n) - torch.logsumexp(log_w.view(n, -1), 0)


class Flow(Base):
    """Codes that go through a flow before they are decoded."""

    def __init__(self):
        super().__init__()
        self.log_a = nn.Parameter(torch.tensor([0.5, 0.2, -0.4]))

    def loss(self, x):
        mu, logvar = self.encode(x)
        z0 = drawn(mu, logvar)
        z = z0 * self.log_a.exp() + 0.3
        log_q = Normal(mu, torch.exp(logvar / 2)).log_prob(z0).sum(-1) - self.log_a.sum()
        return (self.bce(z, x) + log_q - Normal(0.0, 1.0).log_prob(z).sum(-1)).mean()


class Heteroscedastic(Base):
    """decode returns mean and log-variance of x."""

    def __init__(self):
        super().__init__()
        self.dec = nn.Linear(L, 2 * D)

    def decode(self, z):
        return self.dec(z).chunk(2, -1)

    def loss(self, x):
        mu, logvar = self.encode(x)
        out, spread = self.decode(drawn(mu, logvar))
        recon = 0.5 * ((x - out) ** 2 * torch.exp(-spread) + spread).sum(-1)
        return (recon + kl_of(mu, logvar)).mean()


class Inlined(Base):
    """The loss does not call encode and decode."""

    def loss(self, x):
        mu, logvar = self.enc(x).chunk(2, -1)
        out = torch.sigmoid(self.dec(drawn(mu, logvar)))
        return (F.binary_cross_entropy(out, x, reduction="none").sum(1) + kl_of(mu, logvar)).mean()


class Quantised(nn.Module):
    """A VQ-VAE; with a fault, its commitment is summed over the batch, beside a mean. `told` returns the parts."""

    def __init__(self, fault="", told=True):
        super().__init__()
        self.fault, self.told = fault, told
        self.encoder, self.decoder = nn.Linear(D, 4), nn.Linear(4, D)
        self.book = nn.Parameter(torch.randn(8, 4))

    def encode(self, x):
        return self.encoder(x)

    def decode(self, z):
        return self.decoder(z)

    def loss(self, x):
        h = self.encode(x)
        q = self.book[torch.cdist(h, self.book).argmin(1)]
        vq = ((q - h.detach()) ** 2).sum(1) + 0.25 * ((h - q.detach()) ** 2).sum(1)
        vq = vq.sum() if self.fault else vq.mean()
        recon = ((self.decode(h + (q - h).detach()) - x) ** 2).sum(1).mean()
        return {"loss": recon + vq, "recon": recon, "vq": vq} if self.told else recon + vq


class Factorised(Base):
    """A FactorVAE with a critic of its own optimiser; with a fault, the critic's loss reaches the encoder."""

    def __init__(self, fault="", name="discriminator_loss"):
        super().__init__()
        self.fault, self.name, self.judge = fault, name, nn.Linear(L, 2)

    def loss(self, x):
        mu, logvar = self.encode(x)
        z = drawn(mu, logvar)
        score = self.judge(z)
        tc = (score[:, 0] - score[:, 1]).mean() if self.name == "discriminator_loss" else 0.0
        mixed = z.detach()[:, :1], z.detach()[torch.randperm(len(z)), 1:]
        codes = torch.cat([z if self.fault else z.detach(), torch.cat(mixed, 1)])
        own = F.cross_entropy(self.judge(codes), torch.arange(2).repeat_interleave(len(z)))
        return {"loss": (self.bce(z, x) + kl_of(mu, logvar)).mean() + tc, self.name: own}


RIGHT = {
    SummedOverTheBatch: {}, MeansWithABeta: {}, Training: {"loss": "training_step", "key": "pair"},
    Convolved: {"loss": "forward", "decode": "decoder"}, Sigma: {}, FixedSigma: {}, Distributions: {"loss": "elbo"},
    Deviations: {}, FreeBits: {}, Weighted: {"score": "nll"}, Flow: {}, Heteroscedastic: {}, Inlined: {},
    Quantised: {}, Factorised: {},
}  # fmt: skip
