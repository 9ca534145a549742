"""Train Pythae's default VAE and score it as time passes; for bench/curve.py, in the peer's environment.

    worker_curve.py IMAGES DRAW STARTED SECONDS,SECONDS,... FOLDER

IMAGES are training images (n, 28, 28) in 0 to 255, DRAW binary test images (n, 784), STARTED the time of the start by
the clock of `time.time`. Prints a JSON line for each of the given times: seconds, epochs, ELBO and IW-100 in nats.
Scoring does not count. Pythae's trainer, batches of 100, Adam at 1e-3, grey images as targets.
"""

import contextlib
import io
import json
import math
import sys
import time

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch.nn.functional import binary_cross_entropy

SAMPLES, ROWS = 100, 50


def score(model, x: torch.Tensor) -> tuple[float, float]:
    """The mean ELBO and IW-100 of binary images (n, 784), with the model's own encoder and decoder."""
    elbo, bound = [], []
    model.eval()
    with torch.no_grad():
        for rows in x.split(ROWS):
            seen = model.encoder(rows.reshape(-1, 1, 28, 28))
            mean, std = seen.embedding, (0.5 * seen.log_covariance).exp()
            noise = torch.randn(SAMPLES, *mean.shape)
            z = mean + std * noise
            p = model.decoder(z.flatten(0, 1)).reconstruction.reshape(SAMPLES, len(rows), -1)
            log_px = -binary_cross_entropy(p, rows.expand_as(p), reduction="none").sum(-1)
            weight = log_px + (0.5 * (noise.square() - z.square()) + std.log()).sum(-1)
            elbo.append(weight.mean(0))
            bound.append(weight.logsumexp(0) - math.log(SAMPLES))
    model.train()
    return float(torch.cat(elbo).mean()), float(torch.cat(bound).mean())


def main() -> None:
    answer, (images, draw, started, times, folder) = sys.stdout, sys.argv[1:6]
    sys.stdout = io.StringIO()  # its progress bars
    torch.manual_seed(int(sys.argv[6]))
    x = torch.from_numpy(np.load(images)).float().div_(255).reshape(-1, 1, 28, 28)
    test = torch.from_numpy(np.load(draw)).float()
    model = VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=16, reconstruction_loss="bce"))
    settings = BaseTrainerConfig(
        output_dir=folder, per_device_train_batch_size=100, num_epochs=1, learning_rate=1e-3, no_cuda=True
    )
    trainer = BaseTrainer(model, BaseDataset(x, torch.ones(len(x))), training_config=settings)
    trainer.prepare_training()
    epoch, apart = 0, 0.0
    for until in map(float, times.split(",")):
        while (seconds := time.time() - float(started) - apart) < until:
            epoch += 1
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                trainer.train_step(epoch)
        paused = time.time()
        elbo, bound = score(model, test)
        apart += time.time() - paused
        print(json.dumps({"seconds": seconds, "epochs": epoch, "elbo": elbo, "bound": bound}), file=answer, flush=True)


if __name__ == "__main__":
    main()
