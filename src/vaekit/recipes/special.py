"""Recipes whose latents are not one real vector: classes, several layers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Literal

from vaekit.data.condition import Targets
from vaekit.errors import ChoiceError
from vaekit.heads import Bernoulli
from vaekit.models.dense_hierarchy import DenseTopDown
from vaekit.models.hierarchy import top_down
from vaekit.models.m2 import m2
from vaekit.models.vae import Model
from vaekit.objectives import ELBO, SemiSupervised
from vaekit.objectives.elbo import Beta
from vaekit.objectives.semi import ALPHA, Alpha
from vaekit.utils.arguments import Knob
from vaekit.utils.wording import in_python

from .architectures import OF_IMAGES, by_size, steadied
from .composition import USUAL, Composition, DataSpec, long_enough
from .observations import Observe
from .parts import Activation, Likelihood, Widths, observe, plain, start
from .registry import recipe


@recipe("semi-supervised", "Kingma et al. 2014, arXiv:1406.5298")
def semi_supervised(
    spec: DataSpec,
    *,
    labelled: Annotated[
        int | None,
        Knob(
            "number of labels used in training, the same for each class; by default a hundredth of the data, or all "
            "labels if some rows have none",
            low=1,
        ),
    ] = None,
    label_seed: Annotated[int, Knob("seed of the choice of these labels")] = 0,
    class_prior: Annotated[
        Literal["labels", "uniform"],
        Knob("p(y): the frequencies of all training labels, including those that `labelled` leaves out, or uniform"),
    ] = "labels",
    frequencies: Annotated[
        tuple[float, ...] | None,
        Knob("p(y), up to a common factor: one number per class, in the order of the class codes"),
    ] = None,
    alpha: Alpha = ALPHA,
    latent: Annotated[int, Knob("number of latents beside the class", low=1)] = 40,
    hidden: Widths = (300, 300),
    activation: Activation,
    likelihood: Likelihood,
    observation: Observe,
) -> Composition:
    """M2: the class is a latent variable, known for some of the data; the model also learns a classifier.

    p(x) = sum_y p(y) integral p(z) p(x | y, z) dz, with q(y|x) q(z|x,y); q(y|x) is the classifier.
    """
    classes = len(spec.classes)
    if classes < 2:
        raise ChoiceError(
            f"recipe 'semi-supervised' needs labels of two classes or more, and these data have {classes or 'none'}: "
            f"read them with their labels (`label=COLUMN`{in_python(' or vk.from_arrays(x, label=y)')}), or use "
            "`recipe='vae'`"
        )
    known = sum(spec.class_counts) or spec.n
    if labelled is not None and labelled > known:
        raise ChoiceError(f"`labelled={labelled}` is more than the {known} training data that have a label")
    default_count = known if known < spec.n else max(classes, spec.n // 100)
    count = labelled if labelled is not None else default_count
    shares = class_frequencies(spec, class_prior, frequencies)
    x_observation, head, event, wrap = observe(spec, likelihood, observation)
    model = m2(event, classes, latent, hidden, activation.name, head, shares, spec.rules > 1)
    for part in (model.classifier, model.posterior):
        part.net = wrap(part.net)  # type: ignore[arg-type]
    return Composition(
        model,
        SemiSupervised(alpha, count / spec.n),
        x_observation,
        long_enough(USUAL, spec.n),
        start,
        targets=Targets(classes, count, label_seed),
    )


def class_frequencies(spec: DataSpec, name: str, frequencies: tuple[float, ...] | None) -> list[float]:
    """p(y) of each class, up to a common factor.

    Arguments:
        name: "labels" for the numbers of training rows (at least 1 per class), or "uniform".
        frequencies: p(y) itself, which takes precedence over `name`.

    Raises:
        ChoiceError: `frequencies` is not one number above 0 per class.
    """
    classes = len(spec.classes)
    if frequencies is not None:
        if len(frequencies) != classes or not all(0 < f < math.inf for f in frequencies):
            raise ChoiceError(
                f"`frequencies` must be {classes} numbers above 0, one for each of {', '.join(spec.classes)}, "
                f"got {', '.join(f'{f:g}' for f in frequencies)}"
            )
        return list(frequencies)
    counts = spec.class_counts if name == "labels" else ()
    return [float(max(n, 1)) for n in counts or (1,) * classes]


LATENTS = (40, 20)
"""Latents of the first and of each further layer of a dense hierarchy of images."""


@recipe("ladder", "Sonderby et al. 2016, arXiv:1602.02282; Child 2021, arXiv:2011.10650")
def ladder(
    spec: DataSpec,
    *,
    layers: Annotated[
        tuple[int, ...] | None,
        Knob(
            "number of stochastic layers: one number for dense layers only; or a number for dense layers, then one for "
            "each grid, coarsest first; by default 2 dense layers for images and signals of at most 1,024 elements, 3 "
            "for vectors, and grids for larger images",
            low=0,
        ),
    ] = None,
    width: Annotated[
        int | None, Knob("width of dense layers; or channels on the finest grid, doubled on coarser ones", low=1)
    ] = None,
    latent: Annotated[
        int | None,
        Knob("latents per dense layer, by default 40, then 20; or latent channels per layer on a grid", low=1),
    ] = None,
    blocks: Annotated[int, Knob("hidden layers or residual blocks on each grid of the encoder", low=1)] = 1,
    likelihood: Likelihood,
    observation: Observe,
    beta: Beta = 1.0,
    warmup: Annotated[
        int | None,
        Knob("steps over which beta rises from 0; by default half of the training for dense layers of images", low=0),
    ] = None,
    free_bits: Annotated[float, Knob("least KL of a layer in the loss, in nats; less is not rewarded", low=0)] = 0.0,
) -> Composition:
    """A hierarchy of latent layers; generation and inference share one pass from the top layer down.

    p(x, z) = p(z_L) prod_l p(z_l | z_>l) p(x | z), with q(z | x) = prod_l q(z_l | z_>l, x).
    """
    if layers is not None and sum(layers) < 1:
        raise ChoiceError(f"`layers` must be numbers of layers with a sum of 1 or more, got {layers}")
    x_observation, head = plain(spec, likelihood, observation)
    gridded = spec.kind in ("image", "signal")
    if layers is None and gridded and spec.rules > 4 and by_size(spec, {}) == "dense":
        layers = (len(LATENTS),)
    dense = gridded and layers is not None and len(layers) == 1
    of_image = dense and spec.kind == "image"
    values = x_observation.network_range
    model: Model
    if dense and layers is not None:
        latents = [latent] * layers[0] if latent else [LATENTS[0], *[LATENTS[1]] * (layers[0] - 1)]
        model = DenseTopDown(spec.shape, head, width or 300, latents, blocks, values)
    else:
        model = top_down(spec.shape, head, layers, width, latent, blocks, values)
    loss = ELBO(beta, warmup=warmup, free_bits=free_bits, images=of_image)
    defaults = long_enough(OF_IMAGES if of_image else replace(USUAL, clip=200.0), spec.n)
    if loss.planned:
        defaults = steadied(defaults, spec, isinstance(head, Bernoulli), dense)
    return Composition(model, loss, x_observation, defaults, start)
