"""Named recipes: `compose` with other defaults, each with its equation and paper."""

from __future__ import annotations

from .compose import compose
from .registry import setting

setting(
    "conv",
    compose,
    "Kingma and Welling 2013, arXiv:1312.6114",
    """Convolutional networks for images and signals of any size; 512 latents, enough for 64x64 colour images.

    The model of `vae` with strided convolutions down to a small grid and transposed convolutions back up.
    """,
    network="conv",
    latent=512,
)

setting(
    "grid",
    compose,
    "Rombach et al. 2022, arXiv:2112.10752",
    """Codes that are small images, such as 4 x 8 x 8, for densities of codes that sample well.

    loss = E_q[-log p(x|z)] + beta KL(q(z|x) || N(0, I)), z = (C, H / 2^n, W / 2^n): convolutions, residual blocks and
    attention, no dense layer.
    """,
    network="grid",
    beta=0.1,
)

# --- autoencoders -----------------------------------------------------------------------------------------------

setting(
    "ae",
    compose,
    "Rumelhart, Hinton and Williams 1986, doi:10.1038/323533a0",
    """An autoencoder: deterministic codes, no prior; undercomplete by default, overcomplete with a large `latent`.

    loss = -log p(x | z = f(x)). It has no log p(x), and codes between those of the data may decode to anything.
    """,
    posterior="point",
    objective="autoencoder",
)
setting(
    "sparse",
    compose,
    "Ng 2011, CS294A lecture notes; Ranzato et al. 2007",
    """A sparse autoencoder: a code of 256 numbers, only a few of which are large for any one datum.

    loss = -log p(x | z) + l1 sum_j |z_j|.
    """,
    posterior="point",
    objective="autoencoder",
    latent=256,
    l1=0.5,
)
setting(
    "denoising",
    compose,
    "Vincent et al. 2008, doi:10.1145/1390156.1390294",
    """A denoising autoencoder: it encodes a corrupted x and learns to reconstruct the clean x.

    loss = -log p(x | z = f(x~)), where x~ is x with masking (the default), Gaussian or salt-and-pepper noise.
    """,
    posterior="point",
    objective="autoencoder",
    corruption="masking",
    corruption_level=0.3,
)
setting(
    "rae-l2",
    compose,
    "Ghosh et al. 2020, arXiv:1903.12436",
    """A regularised autoencoder: penalties on the squared code z and the squared decoder weights W.

    loss = -log p(x | z) + l2/2 |z|^2 + decoder_decay/2 |W|^2; sample from a density fitted to the codes
    (`latents='gmm'`).
    """,
    posterior="point",
    objective="autoencoder",
    l2=1.0,
    decoder_decay=0.1,
)
setting(
    "rae-gp",
    compose,
    "Ghosh et al. 2020, arXiv:1903.12436",
    """A regularised autoencoder: penalties on the squared code and the squared gradient of the decoder.

    loss = -log p(x | z) + l2/2 |z|^2 + gradient_penalty |d decoder(z) / dz|^2.
    """,
    posterior="point",
    objective="autoencoder",
    l2=1.0,
    gradient_penalty=0.1,
)

# --- the weight of the KL ---------------------------------------------------------------------------------------

setting(
    "beta",
    compose,
    "Higgins et al. 2017, openreview Sy2fzU9gl",
    """beta-VAE: the KL has the weight beta.

    loss = E_q[-log p(x|z)] + beta KL(q(z|x) || p(z)).
    """,
    beta=4.0,
)
setting(
    "annealed",
    compose,
    "Burgess et al. 2018, arXiv:1804.03599",
    """Annealed capacity: the KL is held near a target that grows during training.

    loss = E_q[-log p(x|z)] + gamma |KL - C(step)|, C from 0 to `capacity` over `capacity_steps`.
    """,
    objective="capacity",
)
setting(
    "constrained",
    compose,
    "Rezende and Viola 2018, arXiv:1810.00597",
    """A constraint instead of a weight: a learned multiplier holds the rate (KL) or the distortion at a target.

    min distortion subject to rate <= target, or the other way round (`hold='distortion'`), by a Lagrange multiplier.
    """,
    objective="constrained",
)
setting(
    "free-bits",
    compose,
    "Kingma et al. 2016, arXiv:1606.04934",
    """Free bits: the KL of a latent is penalised only above a minimum, so that latents stay in use.

    loss = E_q[-log p(x|z)] + sum_j max(free_bits, KL_j averaged over the batch).
    """,
    free_bits=0.1,
)

# --- disentangling, and other distances to the prior ------------------------------------------------------------

setting(
    "tc",
    compose,
    "Chen et al. 2018, arXiv:1802.04942",
    """beta-TCVAE: the KL is split into three parts, and one of them, the total correlation, gets a larger weight.

    loss = E_q[-log p(x|z)] + alpha I(x; z) + beta KL(q(z) || prod_j q(z_j)) + gamma sum_j KL(q(z_j) || p(z_j)).
    """,
    objective="tc",
)
setting(
    "factor",
    compose,
    "Kim and Mnih 2018, arXiv:1802.05983",
    """FactorVAE: a penalty on the total correlation, which a critic estimates from codes and shuffled codes.

    loss = E_q[-log p(x|z)] + KL + gamma E_q[critic's log-odds that z is not shuffled].
    """,
    objective="factor",
)
setting(
    "dip",
    compose,
    "Kumar et al. 2018, arXiv:1711.00848",
    """DIP-VAE: a penalty draws the covariance of the codes over the data to the identity matrix.

    loss = -ELBO + off_diagonal sum_{i != j} Cov_ij^2 + diagonal sum_i (Cov_ii - 1)^2.
    """,
    objective="dip",
)
setting(
    "info",
    compose,
    "Zhao et al. 2019, arXiv:1706.02262",
    """InfoVAE: an MMD matches the aggregate posterior to the prior; `alpha` reduces the weight of the KL.

    loss = E_q[-log p(x|z)] + (1 - alpha) KL + (alpha + weight - 1) MMD(q(z), p(z)).
    """,
    objective="info",
)
setting(
    "wae",
    compose,
    "Tolstikhin et al. 2018, arXiv:1711.01558",
    """Wasserstein autoencoder: deterministic codes; an MMD matches their distribution to the prior.

    loss = -log p(x | z) + weight MMD(q(z), p(z)).
    """,
    posterior="point",
    objective="wae",
)
setting(
    "aae",
    compose,
    "Makhzani et al. 2016, arXiv:1511.05644",
    """Adversarial autoencoder: deterministic codes; a critic matches their distribution to the prior.

    loss = -log p(x | z) - weight log D(z); the critic D is trained separately, to tell prior samples from codes.
    """,
    posterior="point",
    objective="aae",
)

# --- tighter bounds ---------------------------------------------------------------------------------------------

setting(
    "iwae",
    compose,
    "Burda et al. 2016, arXiv:1509.00519; Tucker et al. 2019, arXiv:1810.04152",
    """Importance-weighted autoencoder: a tighter bound from K samples.

    log p(x) >= E log 1/K sum_k p(x, z_k) / q(z_k | x); `gradient='dreg'` for the doubly reparametrised gradient.
    """,
    objective="iwae",
    samples=20,
)
setting(
    "piwae",
    compose,
    "Rainforth et al. 2018, arXiv:1802.04537",
    """Partially importance-weighted: the decoder trains on the bound of K samples, the encoder on bounds of groups.""",
    objective="piwae",
    samples=20,
    groups=4,
)
setting(
    "ciwae",
    compose,
    "Rainforth et al. 2018, arXiv:1802.04537",
    """Combined bound: a weighted mean of the ELBO, with weight `mix`, and the importance-weighted bound.""",
    objective="ciwae",
    samples=20,
)
setting(
    "wake-sleep",
    compose,
    "Hinton et al. 1995, doi:10.1126/science.7761831",
    """Wake-sleep: the decoder learns from data, the encoder from samples of the model.

    wake: -log p(x, z), z ~ q(z|x); sleep: -log q(z|x), (x, z) ~ p(x, z). Two parameter groups, each with its own loss.
    """,
    objective="wake-sleep",
)
setting(
    "reweighted-wake-sleep",
    compose,
    "Bornschein and Bengio 2015, arXiv:1406.2751",
    """Reweighted wake-sleep: wake-sleep with K importance weights, for both networks.

    v_k = w_k / sum w, w_k = p(x, z_k) / q(z_k|x); decoder: -sum_k v_k log p(x, z_k); encoder: the mean of
    -sum_k v_k log q(z_k|x) on data (wake) and -log q(z|x), (x, z) ~ p(x, z) (sleep).
    """,
    objective="reweighted-wake-sleep",
)

# --- anomalies --------------------------------------------------------------------------------------------------

setting(
    "robust",
    compose,
    "Hadi and Luceno 1997; Neykov et al. 2007, doi:10.1016/j.csda.2006.12.024",
    """A model of the most likely rows, to find anomalies with `vaekit detect`, even if the training rows contain some.

    loss = -ELBO averaged over the batch, leaving out the share `trim` of its rows with the lowest ELBO.
    """,
    objective="trimmed",
)

# --- the highest log p(x) ---------------------------------------------------------------------------------------

setting(
    "best",
    compose,
    "Dilokthanakul et al. 2016, arXiv:1611.02648; Roeder, Wu and Duvenaud 2017, arXiv:1703.09194",
    """The highest log p(x) of small images per minute on a CPU: 500 Gaussians as the prior, less noise in gradients.

    p(z) = sum_k pi_k N(z; m_k, s_k^2), and the encoder learns by sticking the landing (`gradient='stl'`).
    """,
    prior="mixture",
    components=500,
    gradient="stl",
)

# --- priors and posteriors --------------------------------------------------------------------------------------

setting(
    "mixture",
    compose,
    "Dilokthanakul et al. 2016, arXiv:1611.02648; Tomczak and Welling 2018",
    """A learned mixture of Gaussians as the prior.

    p(z) = sum_k pi_k N(z; m_k, s_k^2).
    """,
    prior="mixture",
)
setting(
    "vamp",
    compose,
    "Tomczak and Welling 2018, arXiv:1705.07120",
    """VampPrior: a mixture of the model's own posteriors at learned pseudo-inputs.

    p(z) = 1/K sum_k q(z | u_k).
    """,
    prior="vamp",
)
setting(
    "flow-prior",
    compose,
    "Chen et al. 2017, arXiv:1611.02731; Durkan et al. 2019, arXiv:1906.04032",
    """A normalising flow as the prior.

    log p(z) = log N(f(z); 0, I) + log |det df/dz|.
    """,
    prior="flow",
)
setting(
    "hierarchical",
    compose,
    "Burda et al. 2016; Tomczak and Welling 2018, section 3",
    """A hierarchical prior: a second layer of latents generates the first.

    p(z1) = integral p(z1 | z2) N(z2; 0, I) dz2, with q(z1 | x) q(z2 | z1).
    """,
    prior="hierarchical",
)
setting(
    "full-covariance",
    compose,
    "Kingma and Welling 2019, arXiv:1906.02691, section 2.5",
    """A Gaussian posterior with full covariance.

    q(z|x) = N(m(x), L(x) L(x)^T).
    """,
    posterior="full",
)
setting(
    "iaf",
    compose,
    "Kingma et al. 2016, arXiv:1606.04934",
    """An inverse autoregressive flow as the posterior.""",
    posterior="iaf",
)
setting(
    "nsf",
    compose,
    "Rezende and Mohamed 2015, arXiv:1505.05770; Durkan et al. 2019, arXiv:1906.04032",
    """A neural spline coupling flow as the posterior; its density is as cheap as its samples.""",
    posterior="nsf",
)
setting(
    "hyperspherical",
    compose,
    "Davidson et al. 2018, arXiv:1804.00891; De Cao and Aziz 2020, arXiv:2006.04437",
    """Codes on the unit sphere, with a uniform prior.""",
    posterior="sphere",
    latent=16,
)
setting(
    "conditional",
    compose,
    "Sohn, Lee and Yan 2015",
    """A conditional VAE: encoder and decoder also get the label (or the attributes, `condition='attributes'`).

    log p(x|c) >= E_{q(z|x,c)}[log p(x|z,c)] - KL(q(z|x,c) || p(z)).
    """,
    condition="label",
)
