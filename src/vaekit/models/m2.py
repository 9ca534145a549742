"""The semi-supervised model M2 with a class y and a style z; some examples are labelled (Kingma et al. 2014)."""

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
    """A categorical distribution over one-hot vectors (C,), with probabilities softmax(raw)."""

    support = OneHotCategorical.support
    discrete = True

    def __init__(self, classes: int):
        super().__init__((classes,))

    def forward(self, raw: Tensor) -> Distribution:
        (logits,) = self.split(raw)
        return OneHotCategorical(logits=logits, validate_args=False)


class ClassPrior(nn.Module):
    """p(y): the class frequencies, uniform by default.

    Arguments:
        classes: C.
        frequencies: C positive numbers; normalised to sum 1.

    Raises:
        ValueError: `frequencies` are not C positive numbers.
    """

    logits: Tensor

    def __init__(self, classes: int, frequencies: Sequence[float] | None = None):
        super().__init__()
        shares = torch.ones(classes) if frequencies is None else torch.tensor(frequencies, dtype=torch.float32)
        if shares.shape != (classes,) or not bool((shares > 0).all() and torch.isfinite(shares).all()):
            raise ValueError(f"frequencies must be {classes} numbers above 0, one per class, got {frequencies}")
        self.register_buffer("logits", torch.log(shares / shares.sum()))

    def forward(self) -> Distribution:
        return OneHotCategorical(logits=self.logits, validate_args=False)


class M2(Model):
    r"""p(y) p(z) p(x | z, y) with q(y | x) q(z | x, y): Kingma et al. (2014), arXiv:1406.5298.

    The code of an example is the vector [y, z]: the one-hot class (C numbers), then the style (D numbers). With a known
    class `c`, one-hot (K?, B, C), z is the only latent, and the importance weights estimate log p(x | y). Without `c`
    both y and z are latents, in this order, and the weights estimate log p(x).

    Arguments:
        classifier: q(y | x), a density over one-hot vectors (C,).
        posterior: q(z | x, y), over (D,).
        likelihood: p(x | z, y).
        classes, latent: C and D.
        frequencies: p(y); uniform by default.
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
        z = draw(q, noise, None if len(q.batch_shape) > 1 else k)  # classes on a leading axis get one sample each
        return Trace((*above, Latent(z, q, self.prior())), self.likelihood(z, c))

    @property
    def latent_dims(self) -> slice:
        return slice(self.classes, None)

    def each_class(self, x: Tensor, samples: int = 1) -> Tensor:
        """Every class for every example, as an argument `c`: one-hot (samples * C, B, C); row i has class i mod C."""
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
        """n codes (n, C + D): the class is `c` (n, C) or sampled from p(y), the style is sampled from N(0, I)."""
        noise, p = noise or Noise.fresh(n), self.prior()
        y = draw(self.class_prior(), noise) if c is None else c
        return torch.cat([y, draw_tempered(p, noise, temperature)], -1)


class Joined(nn.Module):
    """Applies `net` to its inputs, flattened and concatenated along the last axis; leading axes broadcast.

    Arguments:
        net: takes (..., sum of the events' sizes).
        events: the number of event axes of each input.
    """

    def __init__(self, net: nn.Module, events: Sequence[int]):
        super().__init__()
        self.net, self.events = net, tuple(events)

    def forward(self, *inputs: Tensor) -> Tensor:
        flat = [x.flatten(-dims) if dims > 1 else x for x, dims in zip(inputs, self.events, strict=True)]
        leads = [f.shape[:-1] for f in flat]
        if any(lead != leads[0] for lead in leads):  # broadcast_shapes is slow, even if they are equal
            lead = torch.broadcast_shapes(*leads)
            flat = [f.expand(*lead, -1) for f in flat]
        return self.net(torch.cat(flat, -1))


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
    """M2 with dense networks: classifier, encoder and decoder have the same hidden layers, the decoder's reversed.

    Arguments:
        event: shape of one x.
        classes, latent: C and D.
        hidden, activation: of the hidden layers.
        head: of p(x | z, y).
        frequencies: p(y); uniform by default.
        wide: as in `networks.MLP`.
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
