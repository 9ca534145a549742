"""The semi-supervised model M2: a class y and a style z, the class known for some data (Kingma et al. 2014)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, OneHotCategorical

from vaekit import heads, networks
from vaekit.densities import draw, draw_tempered
from vaekit.heads import Conditional, Head
from vaekit.noise import Noise

from .priors import StandardNormal
from .vae import Latent, Model, Trace


class Classes(Head):
    """One of C classes as a one-hot vector (C,), its probabilities softmax(raw)."""

    support = OneHotCategorical.support
    discrete = True

    def __init__(self, classes: int):
        super().__init__((classes,))

    def forward(self, raw: Tensor) -> Distribution:
        (logits,) = self.split(raw)
        return OneHotCategorical(logits=logits, validate_args=False)


class ClassPrior(nn.Module):
    """p(y): the class frequencies, uniform where they are not given."""

    logits: Tensor

    def __init__(self, classes: int, frequencies: Sequence[float] | None = None):
        super().__init__()
        shares = torch.ones(classes) if frequencies is None else torch.tensor(frequencies, dtype=torch.float32)
        if shares.shape != (classes,) or not bool((shares > 0).all() and torch.isfinite(shares).all()):
            raise ValueError(f"frequencies must be {classes} numbers above 0, one a class, got {frequencies}")
        self.register_buffer("logits", torch.log(shares / shares.sum()))

    def forward(self) -> Distribution:
        return OneHotCategorical(logits=self.logits, validate_args=False)


class M2(Model):
    r"""p(y) p(z) p(x | z, y) with q(y | x) q(z | x, y): Kingma et al. (2014), arXiv:1406.5298.

    The code of a datum is flat, [y, z]: the class one-hot (C numbers), then the style (D numbers). Where the class is
    known it is given as `c`, one-hot (K?, B, C): a pass then has the one latent z, and its weights estimate
    log p(x | y); otherwise both are latents, y first, and they estimate log p(x).

    Arguments:
        classifier: q(y | x), a density over one-hot vectors (C,).
        posterior: q(z | x, y), over (D,).
        likelihood: p(x | z, y).
        classes, latent: C and D.
        frequencies: p(y), uniform where not given.
    """

    def __init__(
        self,
        classifier: nn.Module,
        posterior: nn.Module,
        likelihood: nn.Module,
        classes: int,
        latent: int,
        frequencies: Sequence[float] | None = None,
    ):
        super().__init__()
        self.classifier, self.posterior, self.likelihood = classifier, posterior, likelihood
        self.class_prior, self.prior = ClassPrior(classes, frequencies), StandardNormal((latent,))
        self.classes, self.latent = classes, latent

    def trace(self, x: Tensor, c: Tensor | None = None, k: int | None = None, noise: Noise | None = None) -> Trace:
        noise = noise or Noise.fresh(len(x), x.device)
        above: tuple[Latent, ...] = ()
        if c is None:
            q = self.classifier(x)
            c = draw(q, noise, k)
            above = (Latent(c, q, self.class_prior()),)
        q = self.posterior(x, c)
        z = draw(q, noise, None if len(q.batch_shape) > 1 else k)  # classes on a leading axis: a draw for each
        return Trace((*above, Latent(z, q, self.prior())), self.likelihood(z, c))

    @property
    def latent_dims(self) -> slice:
        return slice(self.classes, None)

    def each_class(self, x: Tensor, samples: int = 1) -> Tensor:
        """Every class for every datum, as `c` of a pass: one-hot (samples * C, B, C), the classes in turn."""
        every = torch.eye(self.classes, dtype=x.dtype, device=x.device).repeat(samples, 1)
        return every[:, None].expand(-1, len(x), -1)

    def encode(self, x: Tensor, c: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        if c is None:
            q = self.classifier(x)
            c = draw(q, noise) if noise is not None else q.mode
        q = self.posterior(x, c)
        return torch.cat([c, q.mean if noise is None else draw(q, noise)], -1)

    def decode(self, z: Tensor) -> Distribution:
        return self.likelihood(z[..., self.classes :], z[..., : self.classes])

    def sample(self, n: int, c: Tensor | None = None, noise: Noise | None = None, temperature: float = 1.0) -> Tensor:
        """n codes (n, C + D): the class from p(y) unless it is given as `c` (n, C), the style from N(0, I)."""
        noise, p = noise or Noise.fresh(n), self.prior()
        y = draw(self.class_prior(), noise) if c is None else c
        return torch.cat([y, draw_tempered(p, noise, temperature)], -1)

    @torch.no_grad()
    def class_log_probabilities(self, x: Tensor, samples: int = 100, noise: Noise | None = None) -> Tensor:
        r"""log p(y | x) of each class by Bayes' rule, (B, C): p(y) p(x | y) normalised, p(x | y) by importance samples.

        Dearer than q(y | x), and right where that is not.
        """
        trace = self.trace(x, self.each_class(x, samples), noise=noise)
        (style,) = trace.latents
        weights = trace.px.log_prob(x) + style.log_p - style.log_q  # (K C, B)
        log_px = torch.logsumexp(weights.unflatten(0, (samples, self.classes)), 0) - math.log(samples)  # (C, B)
        return torch.log_softmax(self.class_prior.logits + log_px.T, -1)


class Joined(nn.Module):
    """`net` on what it is given, each flattened to its last axis and laid side by side; leading axes broadcast.

    Arguments:
        net: takes (..., sum of the events' sizes).
        events: how many axes the event of each given tensor has.
    """

    def __init__(self, net: nn.Module, events: Sequence[int]):
        super().__init__()
        self.net, self.events = net, tuple(events)

    def forward(self, *given: Tensor) -> Tensor:
        flat = [g.flatten(-dims) if dims > 1 else g for g, dims in zip(given, self.events, strict=True)]
        lead = torch.broadcast_shapes(*(f.shape[:-1] for f in flat))
        return self.net(torch.cat([f.expand(*lead, -1) for f in flat], -1))


def m2(
    event: tuple[int, ...],
    classes: int,
    latent: int,
    hidden: tuple[int, ...],
    activation: str,
    head: Head,
    frequencies: Sequence[float] | None = None,
    wide: bool = False,
) -> M2:
    """M2 with dense networks: three of the same hidden layers, the decoder's in reverse order.

    Arguments:
        event: shape of one x.
        classes, latent: C and D.
        head: of p(x | z, y).
        frequencies: p(y), uniform where not given.
        wide: as for `networks.MLP`.
    """
    return M2(
        Conditional(networks.MLP(event, classes, hidden, activation, wide), Classes(classes)),
        Conditional(
            Joined(networks.MLP((math.prod(event) + classes,), 2 * latent, hidden, activation, wide), (len(event), 1)),
            heads.Gaussian((latent,), "learned"),
        ),
        Conditional(Joined(networks.MLP((latent + classes,), head.features, hidden[::-1], activation), (1, 1)), head),
        classes,
        latent,
        frequencies,
    )
