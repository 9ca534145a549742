"""A small VAE of our own writing, right or with one fault, as the audit is to find it."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class Audited(nn.Module):
    """`fault` names what is wrong; "" for nothing."""

    def __init__(self, fault: str = "", latent_dim: int = 3, dims: int = 12):
        super().__init__()
        self.fault, self.alpha, self.beta = fault, 1.0, 6.0
        layers = [nn.Linear(dims, 8), nn.Tanh()]
        self.encoder = nn.Sequential(*layers[:1], *([nn.BatchNorm1d(8)] if fault == "norm" else []), *layers[1:])
        self.heads = nn.Linear(8, 2 * latent_dim)
        self.decoder = nn.Sequential(nn.Linear(latent_dim, 8), nn.Tanh(), nn.Linear(8, dims), nn.Sigmoid())
        with torch.no_grad():
            self.decoder[0].weight.mul_(3)
            self.decoder[2].weight.mul_(4)
        self.critic = nn.Linear(latent_dim, 2)
        self.register_buffer("calls", torch.zeros(()))

    def encode(self, x):
        mu, logvar = self.heads(self.encoder(x)).chunk(2, -1)
        if self.fault == "random":
            mu = mu + torch.randn_like(mu)
        return mu, logvar

    def decode(self, z):
        return self.decoder(z)

    def loss(self, x):
        if self.fault != "silent" and x.max() > 1:
            raise ValueError("x must lie in [0, 1]")
        mu, logvar = self.encode(x)
        std = torch.exp(logvar if self.fault == "variance" else logvar / 2)
        at_mean = self.fault == "mean" or (self.fault == "eval-mean" and not self.training)
        z = mu if at_mean else mu + std * torch.randn_like(std)
        out = self.decode(z)
        recon = F.binary_cross_entropy(out, x.clamp(0, 1), reduction="none").sum(1).mean()
        kl = 0.5 * (mu**2 + logvar.exp() - logvar - 1).sum(1)
        kl = kl.sum() if self.fault == "sum-kl" else kl.mean()
        if self.fault == "elements":
            recon = recon / x.shape[1]
        if self.fault == "doubled":
            recon = 2 * recon
        if self.fault == "clamped":
            kl = kl.clamp(0, 0)
        if self.fault == "sign":
            kl = -kl
        if self.fault == "seed":
            torch.manual_seed(7)
        if self.fault == "state":
            self.calls += 1
        codes = z if self.fault == "critic" else z.detach()
        critic = F.cross_entropy(self.critic(codes), torch.zeros(len(x), dtype=torch.long))
        if self.fault == "commit":
            return {"loss": recon + kl, "recon": recon, "commitment": (mu - mu.round().detach()).square().sum()}
        if self.fault == "best":  # the best of 64 draws in place of their mean
            outs = torch.stack([self.decode(mu + std * torch.randn_like(std)) for _ in range(64)])
            each = F.binary_cross_entropy(outs, x.expand_as(outs), reduction="none").sum(-1)
            return each.min(0).values.mean() + kl
        if self.fault.startswith("tc"):
            mi, tc, dw = 0.2 * kl, 0.3 * kl, 0.5 * kl
            a, b = (self.beta, self.alpha) if self.fault == "tc-wrong" else (self.alpha, self.beta)
            return {"loss": recon + a * mi + b * tc + dw, "mi": mi, "tc": tc, "dwkl": dw}
        return {"loss": recon + kl, "recon": recon, "kl": kl, "critic": critic}

    def nll(self, x):
        mu, logvar = self.encode(x)
        generator = torch.Generator().manual_seed(0)
        weights = []
        for _ in range(64):
            e = torch.randn(mu.shape, generator=generator if self.fault != "random-score" else None)
            z = mu + e * torch.exp(logvar / 2)
            log_px = -F.binary_cross_entropy(self.decode(z), x, reduction="none").sum(-1)
            weights.append(log_px + ((e**2 - z**2) / 2 + logvar / 2).sum(-1))
        total = torch.logsumexp(torch.stack(weights), 0) - math.log(64)
        total = total.sum() if self.fault == "count" else total.mean()
        return total if self.fault == "nll-sign" else -total
