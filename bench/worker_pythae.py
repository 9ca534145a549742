"""Time Pythae's own trainer and likelihood estimator on commands from standard input.

Runs in the peer's environment. Reads one command per line and answers each with seconds.
"""

import contextlib
import io
import sys
import time

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.trainers import BaseTrainer, BaseTrainerConfig

BATCH, STEPS = 100, 200


def main() -> None:
    answer = sys.stdout
    sys.stdout = sys.stderr = io.StringIO()  # its progress bars
    torch.manual_seed(0)
    images = torch.from_numpy(np.load(sys.argv[1])).float().div_(255).reshape(-1, 1, 28, 28)
    rows = BATCH * STEPS
    data = BaseDataset(images[:rows], torch.ones(rows))
    model = VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=16, reconstruction_loss="bce"))
    settings = BaseTrainerConfig(
        output_dir=sys.argv[2], per_device_train_batch_size=BATCH, num_epochs=1, learning_rate=1e-3, no_cuda=True
    )
    trainer = BaseTrainer(model, data, training_config=settings)
    trainer.prepare_training()
    print("ready", file=answer, flush=True)
    epoch = 0
    for line in sys.stdin:
        command = line.split()
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if command[0] == "train":
                epoch += 1
                trainer.train_step(epoch)
            else:
                n, samples = int(command[1]), int(command[2])
                model.eval()
                with torch.no_grad():
                    model.get_nll((images[:n] > 0.5).float(), n_samples=samples, batch_size=100)
        print(time.perf_counter() - start, file=answer, flush=True)


if __name__ == "__main__":
    main()
