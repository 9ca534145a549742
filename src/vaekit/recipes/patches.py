"""Start a model whose codes are small images as probabilistic PCA of patches, one for each place of the code."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from vaekit import networks
from vaekit.heads import Bernoulli, Conditional, Gaussian, Head, LocationScale
from vaekit.heads.base import raw_of_scale
from vaekit.heads.levels import DiscretisedLogisticHead, LogisticMixtureHead
from vaekit.heads.posteriors import PointHead
from vaekit.models.vae import Model
from vaekit.objectives import ELBO
from vaekit.objectives.base import Objective

from .factors import LEAST, principal

Net = TypeVar("Net", bound=nn.Module)

ROUNDS = 20
"""The largest number of Newton steps for the slope of logits."""


class PatchFactors(NamedTuple):
    """Every patch is mean + loading z + noise, z ~ N(0, I), with a posterior of diagonal covariance.

    Attributes:
        loading: (D, L); its columns are orthogonal.
        inference: the posterior's mean is inference (patch - mean), (L, D).
        scale: the posterior's standard deviations, (L,).
    """

    loading: Tensor
    inference: Tensor
    scale: Tensor


def patch_factors(patches: Tensor, latent: int, weight: float = 1.0) -> PatchFactors:
    """Probabilistic PCA of centred patches (n, D), where the KL has a weight of at most 1; see `principal`.

    With v the variance along an axis u and s^2 = weight sigma^2, the loading is u sqrt(v - s^2), and the posterior is
    N(u . patch sqrt(v - s^2) / v, s^2 / v). Over the patches, codes drawn from it have mean 0 and variance 1.
    """
    patches = patches.double()
    variances, axes, noise = principal(patches.T @ patches / len(patches), latent, weight)
    signal = (variances - weight * noise).clamp_min(0)
    used = signal > 0
    safe = torch.where(used, variances, 1.0)
    loading = axes * signal.sqrt()
    inference = (axes * (signal.sqrt() / safe)).T
    scale = torch.where(used, (weight * noise / safe).sqrt(), 1.0)
    more = latent - len(variances)
    return PatchFactors(
        nn.functional.pad(loading, (0, more)),
        nn.functional.pad(inference, (0, 0, 0, more)),
        nn.functional.pad(scale, (0, more), value=1.0),
    )


def weight_of_kl(objective: Objective) -> float:
    """The weight of the KL at the end of training, at most 1; 1 for objectives that have none, such as bounds."""
    return min(1.0, getattr(objective.beta, "value", 1.0)) if isinstance(objective, ELBO) else 1.0


@torch.no_grad()
def start_as_patches(model: Model, x: Tensor, wrap: Callable[[nn.Module], nn.Module], weight: float = 1.0) -> None:
    """Set a model with `GridEncoder(direct=...)` and `GridDecoder(direct=True)` to `patch_factors` of x (n, *event).

    The mean image is the decoder's offset, and the convolutions contribute nothing until they are trained. The scale of
    the likelihood, per element where it has one, is that of the error of this model.

    Models of another form are left as they are: the posterior must be a diagonal Gaussian or a point, and the
    likelihood a location and scale, a discretised logistic or a mixture of these, or Bernoulli. The logits of a
    Bernoulli are those of the mean image plus a multiple of the reconstructed deviation from it, whose factor has the
    highest likelihood. A condition has no part in this start.

    Arguments:
        wrap: as in `Adapted`: an affine map of x before the encoder.
        weight: of the KL, at most 1; a point has none.
    """
    q, p = getattr(model, "posterior", None), getattr(model, "likelihood", None)
    if not (isinstance(q, Conditional) and isinstance(p, Conditional)):
        return
    encoder, decoder = _part(q.net, networks.GridEncoder), _part(p.net, networks.GridDecoder)
    if encoder is None or decoder is None or encoder.direct is None or decoder.direct is None:
        return
    point = type(q.head) is PointHead
    if not (point or (type(q.head) is Gaussian and q.head.scale == "learned")) or not _follows(p.head):
        return
    mean, step, size = x.mean(0), encoder.direct.step, encoder.direct.size
    patches = networks.cut(x - mean, size, step).reshape(-1, encoder.direct.conv.weight[0].numel())
    latent = encoder.direct.conv.out_channels
    found = patch_factors(patches, latent, 0.0 if point else weight)
    bias = _silenced(encoder.convs)
    if not point:
        bias[latent:] = raw_of_scale(found.scale)
    _silenced(decoder.steps)
    read = wrap(nn.Identity())
    reach = (read(torch.ones_like(x[:1])) - read(torch.zeros_like(x[:1])))[0, : len(mean)].mean()
    encoder.direct.centre.copy_(read(mean[None])[0, : len(mean)])
    encoder.direct.conv.weight.copy_((found.inference / reach).reshape(latent, len(mean), *(step for _ in size)))

    def through(weight: Tensor, slopes: Tensor) -> networks.PatchOut:
        """The decoder's linear path with weights (D, L) in units of x, times `slopes` for the parameters of p(x|z)."""
        assert decoder.direct is not None
        each = weight.T.reshape(latent, 1, len(mean), *(step for _ in size))
        slopes = slopes.reshape(-1, *(1 for _ in each.shape[2:]))
        decoder.direct.conv.weight.copy_((each * slopes).flatten(1, 2))
        return decoder.direct

    first = nn.functional.one_hot(torch.tensor(0), p.head.params)
    codes = encoder.direct(read(x)[:, : len(mean)])
    deviation = through(found.loading, first)(codes)[:, : len(mean)]
    drawn = found.scale.square().to(codes).reshape(-1, *(1 for _ in size)).expand_as(codes[0])[None]
    variance = (x - mean - deviation).square().mean(0)
    if not point:
        variance = variance + through(found.loading.square(), first)(drawn)[0, : len(mean)]
    std = torch.maximum(variance.sqrt(), LEAST * (x - mean).square().mean(0).sqrt())
    _start_head(p, mean, std)
    through(found.loading, _slopes(p.head, x, mean, deviation))


def _part(net: nn.Module, kind: type[Net]) -> Net | None:
    """The network of this class in `net`, if there is one."""
    return next((m for m in net.modules() if isinstance(m, kind)), None)


def _silenced(layers: nn.Module) -> Tensor:
    """The bias of the last convolution of `layers`, whose weights and bias are set to zero."""
    last = [m for m in layers.modules() if isinstance(m, nn.modules.conv._ConvNd)][-1]
    assert last.bias is not None
    last.weight.zero_()
    return last.bias.zero_()


def _follows(head: Head) -> bool:
    """Whether the mean of p(x|z) follows raw numbers in proportion, or is a Bernoulli's."""
    if isinstance(head, Gaussian):
        return head.squash == "none"
    return isinstance(head, LocationScale | DiscretisedLogisticHead | LogisticMixtureHead | Bernoulli)


def _start_head(p: Conditional, mean: Tensor, std: Tensor) -> None:
    """Set the raw numbers that do not depend on z, and the head's own, to those of this mean and standard deviation."""
    bias = p.head.initial_bias(mean, std)
    assert bias is not None
    networks.set_output_bias(p.net, bias)
    if isinstance(p.head, LocationScale) and p.head.scale in ("shared", "each", "optimal"):
        scale = p.head.scale_of(std if p.head.scale == "each" else std.square().mean().sqrt())
        p.head.log_scale.copy_(torch.log(scale) if p.head.scale == "optimal" else raw_of_scale(scale))


def _slopes(head: Head, x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """The change of each raw number per element when the mean of p(x|z) rises by 1, (params,).

    Of a Bernoulli, it is the one with which logit(mean) + slope deviation has the highest likelihood, by Newton's
    method from 0, where the likelihood is concave.
    """
    if not isinstance(head, Bernoulli):
        low, high = (head.initial_bias(v.expand(mean.shape), torch.ones_like(mean)) for v in mean.new_tensor([0, 1]))
        assert low is not None
        assert high is not None
        return (high - low).reshape(head.params, -1).double().mean(1)
    offset, slope = torch.logit(mean, eps=1e-3), mean.new_zeros(())
    for _ in range(ROUNDS):
        p = torch.sigmoid(offset + slope * deviation)
        gain = ((x - p) * deviation).sum() / (p * (1 - p) * deviation.square()).sum().clamp_min(1e-6)
        gain = gain.clamp(-1, 1)  # where p saturates, a whole step can be far too long
        slope = slope + gain
        if abs(float(gain)) < 1e-3:
            break
    return slope[None]
