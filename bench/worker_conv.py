"""Time Pythae's trainer on convolutional networks, on commands from standard input.

Runs in the peer's environment. Arguments: an .npy file of images (N, C, H, W) in [0, 1], an output folder. Answers each
line `own` (Pythae's networks for this size) or `same` (vaekit's network, in plain PyTorch) with seconds per step.
"""

import contextlib
import io
import itertools
import sys
import time

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.models.nn.benchmarks import celeba, mnist
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import nn

BATCH = 64
STEPS = {"own": 1, "same": 3}


def grids(size, levels):
    sizes = [size]
    for _ in range(levels):
        sizes.append((sizes[-1] + 1) // 2)
    return sizes


class Encoder(BaseEncoder):
    """Strided convolutions, and the linear layer beside them, of vaekit's encoder."""

    def __init__(self, shape, channels, latent):
        super().__init__()
        layers = []
        for a, b in itertools.pairwise([shape[0], *channels]):
            layers += [nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.SiLU()]
        self.convs, self.latent = nn.Sequential(*layers), latent
        self.out = nn.Linear(channels[-1] * grids(shape[1], len(channels))[-1] ** 2, 2 * latent)
        self.direct = nn.Linear(int(np.prod(shape)), latent, bias=False)

    def forward(self, x):
        mean, log_variance = self.out(self.convs(x).flatten(1)).chunk(2, 1)
        return ModelOutput(embedding=mean + self.direct(x.flatten(1)), log_covariance=log_variance)


class Decoder(BaseDecoder):
    """Transposed convolutions, and the linear layer beside them, of vaekit's decoder.

    It computes as many planes as vaekit's likelihood needs; Pythae's loss uses the first of them.
    """

    def __init__(self, shape, channels, latent, planes):
        super().__init__()
        self.shape, self.sizes = shape, grids(shape[1], len(channels))[::-1]
        widths = channels[::-1]
        self.inp = nn.Linear(latent, widths[0] * self.sizes[0] ** 2)
        self.steps = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(8, a), nn.SiLU(), nn.ConvTranspose2d(a, b, 4, 2, 1))
            for a, b in itertools.pairwise([*widths, planes])
        )
        self.direct = nn.Linear(latent, int(np.prod(shape)))
        self.mix = nn.Conv2d(shape[0], planes, 1, bias=False)

    def forward(self, z):
        h = self.inp(z).unflatten(1, (-1, self.sizes[0], self.sizes[0]))
        for step, size in zip(self.steps, self.sizes[1:], strict=True):
            h = step(h)[:, :, :size, :size]
        h = h + self.mix(self.direct(z).unflatten(1, self.shape))
        return ModelOutput(reconstruction=torch.sigmoid(h[:, : self.shape[0]]))


def trainer(kind, images, folder):
    shape = tuple(images.shape[1:])
    colour = shape[0] == 3
    latent = 128
    config = VAEConfig(input_dim=shape, latent_dim=latent, reconstruction_loss="mse" if colour else "bce")
    if kind == "same":
        channels = [32, 64, 128, 256][: 4 if colour else 3]
        encoder = Encoder(shape, channels, latent)
        decoder = Decoder(shape, channels, latent, 6 if colour else 1)
    elif colour:
        encoder, decoder = celeba.Encoder_Conv_VAE_CELEBA(config), celeba.Decoder_Conv_AE_CELEBA(config)
    else:
        encoder, decoder = mnist.Encoder_Conv_VAE_MNIST(config), mnist.Decoder_Conv_AE_MNIST(config)
    rows = BATCH * STEPS[kind]
    settings = BaseTrainerConfig(
        output_dir=folder, per_device_train_batch_size=BATCH, num_epochs=1, learning_rate=1e-3, no_cuda=True
    )
    data = BaseDataset(images[:rows], torch.ones(rows))
    built = BaseTrainer(VAE(config, encoder, decoder), data, training_config=settings)
    built.prepare_training()
    return built


def main() -> None:
    answer = sys.stdout
    sys.stdout = sys.stderr = io.StringIO()  # its progress bars
    torch.manual_seed(0)
    images = torch.from_numpy(np.load(sys.argv[1])).float()
    trainers = {}
    print("ready", file=answer, flush=True)
    for epoch, line in enumerate(sys.stdin, 1):
        kind = line.strip()
        if kind not in trainers:
            trainers[kind] = trainer(kind, images, sys.argv[2])
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            trainers[kind].train_step(epoch)
        print((time.perf_counter() - start) / STEPS[kind], file=answer, flush=True)


if __name__ == "__main__":
    main()
