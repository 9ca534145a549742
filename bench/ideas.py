"""Try ways of learning that vaekit does not have as options: `make bench-learning` runs it before bench/learning.py.

A plain PyTorch loop trains `vae` on Fashion-MNIST (784-300-300 with gates, 40 latents, AdamW at 0.003 with a cosine
schedule, average of the weights, beta that rises over the first half), and the same with one thing changed.
fp32, one thread. The measure is IW-100 on the first 1,000 validation images, one binary draw of each. Differences are
paired by seed: equal order of images, noise and first weights. Resumable: results are kept in bench/.runs/ideas. Writes
docs/learning-ideas.json, of which bench/learning.py makes its page.

    python bench/ideas.py [--steps 3000] [--seeds 0 1 2] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import vaekit as vk
from vaekit.networks import MLP
from vaekit.utils.files import write_json

HERE = Path(__file__).parent
RUNS, DOCS = HERE / ".runs" / "ideas", HERE.parent / "docs"
IMAGES, SAMPLES, LATENT = 1000, 100, 40
PLAIN = "the plain loop, unchanged"
IDEAS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "grey targets for the first half": {"grey": 0.5},
    "grey targets": {"grey": 1.0},
    "sticking the landing": {"sticking": 0.0},
    "sticking the landing in the second half": {"sticking": 0.5},
    "IWAE with 5 samples in the last quarter": {"importance": 0.75},
    "beta2 of Adam 0.99": {"beta2": 0.99},
    "learning rate 0.003 from the first step": {"rise_lr": 0.0},
    "learning rate falls linearly": {"fall": 1.0},
    "learning rate falls over the last half": {"fall": 0.5},
    "learning rate falls over the last 30%": {"fall": 0.3},
    "learning rate falls over the last 15%": {"fall": 0.15},
    "falls over the last 30%, beta2 0.99": {"fall": 0.3, "beta2": 0.99},
    "falls over the last 30%, beta2 0.99, learning rate 0.005": {"fall": 0.3, "beta2": 0.99, "lr": 5e-3},
    "decoder's bias 0 at the start": {"bias": False},
    "decoder's last weights times 0.3 at the start": {"scale": 0.3},
    "encoder centred at the mean image at the start": {"centre": True},
    "batches of 50, then 100, then 200": {"batches": (50, 100, 200)},
    "Muon for the hidden layers": {"muon": 0.02},
}


def networks(x: Tensor, bias: bool, scale: float, centre: bool) -> tuple[MLP, MLP]:
    """The encoder and the decoder with their first weights; x are training images (n, 784) in 0 to 255."""
    encoder, decoder = MLP((784,), 2 * LATENT, (300, 300), "gated"), MLP((LATENT,), 784, (300, 300), "gated")
    mean = x.float().mean(0).div(255).clamp(1 / len(x), 1 - 1 / len(x))
    with torch.no_grad():
        if bias:
            decoder.out.bias.copy_(mean.logit())
        decoder.out.weight.mul_(scale)
        if centre:
            for layer in (m for m in encoder.hidden[0].modules() if isinstance(m, nn.Linear)):
                layer.bias.sub_(layer.weight @ mean)
    return encoder, decoder


def optimisers(
    encoder: MLP, decoder: MLP, lr: float, muon: float, beta2: float
) -> list[tuple[torch.optim.Optimizer, float]]:
    """The optimisers with their learning rates; `muon`, unless 0, is the rate of Muon for the hidden matrices."""
    everything = [*encoder.parameters(), *decoder.parameters()]
    hidden = [p for net in (encoder, decoder) for p in net.hidden.parameters() if p.dim() == 2] if muon else []
    rest = [p for p in everything if all(p is not h for h in hidden)]
    found: list[tuple[torch.optim.Optimizer, float]] = [
        (torch.optim.AdamW(rest, lr=lr, betas=(0.9, beta2), weight_decay=1e-4, fused=True), lr)
    ]
    if hidden:
        found.append((torch.optim.Muon(hidden, lr=muon, weight_decay=1e-4), muon))
    return found


def factor(share: float, rise: float, fall: float) -> float:
    """The factor of the learning rate after this share of the steps: a cosine, or linear over the last `fall`."""
    if share < rise:
        return max(share / rise, 1e-3)
    if fall:
        return min(1.0, (1 - share) / fall)
    return 0.5 * (1 + math.cos(math.pi * (share - rise) / (1 - rise)))


def loss(
    encoder: MLP, decoder: MLP, x: Tensor, target: Tensor, beta: float, noise: Tensor, sticking: bool, k: int
) -> Tensor:
    """The mean negative bound of a batch x (B, 784); noise (k, B, latents)."""
    mean, log_scale = encoder(x).chunk(2, -1)
    z = mean + log_scale.exp() * noise
    logits = decoder(z)
    distortion = binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none").sum(-1)
    if sticking or k > 1:
        m, s = (mean.detach(), log_scale.detach()) if sticking else (mean, log_scale)
        ratio = (0.5 * z.square() - 0.5 * ((z - m) / s.exp()).square() - s).sum(-1)
        weight = -(distortion + beta * ratio)
        return -(weight.logsumexp(0) - math.log(k)).mean() if k > 1 else -weight.mean()
    rate = (0.5 * (mean.square() + (2 * log_scale).exp() - 1) - log_scale).sum(-1)
    return (distortion.mean(0) + beta * rate).mean()


def trained(
    x: Tensor, steps: int, seed: int, grey: float = 0.0, sticking: float = 1.0, importance: float = 1.0,
    lr: float = 3e-3, muon: float = 0.0, beta2: float = 0.999, rise_lr: float = 0.01, fall: float = 0.0,
    bias: bool = True, scale: float = 1.0, centre: bool = False, batches: tuple[int, ...] = (100,),
) -> tuple[MLP, MLP]:  # fmt: skip
    """The networks with averaged weights, after this many steps; shares of the steps are from 0 to 1."""
    torch.manual_seed(seed)
    encoder, decoder = networks(x, bias, scale, centre)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    average = [p.detach().clone() for p in parameters]
    rules = optimisers(encoder, decoder, lr, muon, beta2)
    stream, order, at = torch.Generator().manual_seed(seed + 1), torch.empty(0, dtype=torch.long), 0
    for t in range(steps):
        share = t / steps
        batch = batches[int(share * len(batches))]
        if at + batch > len(order):
            order, at = torch.randperm(len(x), generator=stream), 0
        raw = x[order[at : at + batch]].float().div_(255)
        at += batch
        binary = (torch.rand(raw.shape, generator=stream) < raw).float()
        k = 5 if share >= importance else 1
        noise = torch.randn(k, batch, LATENT, generator=stream)
        target = raw if share < grey else binary
        value = loss(encoder, decoder, binary, target, min(1.0, 2 * share), noise, share >= sticking, k)
        for rule, highest in rules:
            rule.zero_grad()
            rule.param_groups[0]["lr"] = highest * factor(share, rise_lr, fall)
        value.backward()
        for rule, _ in rules:
            rule.step()
        torch._foreach_lerp_(average, parameters, 1 - min(0.999, (1 + t) / (10 + t)))
    with torch.no_grad():
        for p, a in zip(parameters, average, strict=True):
            p.copy_(a)
    return encoder, decoder


@torch.no_grad()
def scores(encoder: MLP, decoder: MLP, x: Tensor) -> tuple[float, float]:
    """The mean ELBO and IW-100 of binary images x (n, 784)."""
    stream, elbo, bound = torch.Generator().manual_seed(9), [], []
    for rows in x.split(50):
        mean, log_scale = encoder(rows).chunk(2, -1)
        noise = torch.randn(SAMPLES, *mean.shape, generator=stream)
        z = mean + log_scale.exp() * noise
        logits = decoder(z)
        log_px = -binary_cross_entropy_with_logits(logits, rows.expand_as(logits), reduction="none").sum(-1)
        weight = log_px + (0.5 * (noise.square() - z.square()) + log_scale).sum(-1)
        elbo.append(weight.mean(0))
        bound.append(weight.logsumexp(0) - math.log(SAMPLES))
    return float(torch.cat(elbo).mean()), float(torch.cat(bound).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=list(IDEAS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    RUNS.mkdir(parents=True, exist_ok=True)
    data = vk.load("fashion-mnist")
    train = torch.as_tensor(data.train[:]).flatten(1)
    stream = torch.Generator().manual_seed(8)
    grey = torch.as_tensor(data.valid[:IMAGES]).flatten(1).float().div(255)
    valid = (torch.rand(grey.shape, generator=stream) < grey).float()
    for seed in asked.seeds:
        for name in asked.only:
            kept = RUNS / f"{name.replace(' ', '-').replace('%', '')}-{asked.steps}-{seed}.json"
            if kept.exists():
                continue
            begun = time.process_time()
            nets = trained(train, asked.steps, seed, **IDEAS[name])
            seconds = time.process_time() - begun
            elbo, bound = scores(*nets, valid)
            result = {"name": name, "steps": asked.steps, "seed": seed, "elbo": elbo, "bound": bound, "cpu": seconds}
            write_json(kept, result)
            print(result, flush=True)
    found = [json.loads(file.read_text()) for file in sorted(RUNS.glob(f"*-{asked.steps}-*.json"))]
    write_json(DOCS / "learning-ideas.json", found)


if __name__ == "__main__":
    main()
