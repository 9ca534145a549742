"""A second VAE over codes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaekit.noise import Key, fold
from vaekit.options import Options
from vaekit.runs.saved import SavedRun
from vaekit.utils.files import part_of

from .base import Density, Fitting, OnProgress, latent_density


@latent_density("two-stage", "Dai and Wipf 2019, arXiv:1903.05789", "a second VAE")
class SecondStage(Density):
    """A small VAE trained on the codes, with as many latents as the codes have dimensions.

    Its decoder predicts a standard deviation per dimension and datum. The single shared one of Dai and Wipf (2019) is
    worse: the log-density of codes of a Fashion-MNIST autoencoder is a nat lower, and that of codes on a ring is no
    better than under one Gaussian.
    """

    bound = is_run = True
    STEPS, HIDDEN, SAMPLES = 6000, (256, 256), 50

    def __init__(self, run: SavedRun):
        self.run, self.steps = run, run.config["step"]
        self.choices = {"latent": run.config["arguments"]["latent"]}

    @classmethod
    def fit(
        cls,
        u: Tensor,
        folder: Path | None,
        max_steps: int,
        seed: int,
        on_progress: OnProgress | None = None,
        device: str | torch.device = "cpu",
    ) -> SecondStage:
        """Train the VAE on standardised codes u (N, D), for at most `max_steps` steps.

        Arguments:
            folder: where it will be saved; it is trained there under a temporary name. None for a temporary
                directory.
        """
        from vaekit.data import from_arrays
        from vaekit.training.fit import train

        temporary = None
        if folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="vaekit-")
            folder = Path(temporary.name)
        directory = part_of(folder / "two-stage")
        options = Options(
            steps=max_steps, batch=500, lr=2e-3, seed=seed, validate_steps=250, patience=8, device=str(device)
        )
        try:
            run = train(
                from_arrays(u.numpy(), name="codes", kind="vector", split_seed=seed % 2**32),
                "vae",
                out=directory,
                progress=Fitting("two-stage", on_progress),
                on_interrupt="raise",
                options=options,
                latent=u.shape[1],
                hidden=cls.HIDDEN,
                likelihood="gaussian",
                sigma="learned",
            )
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)  # a half-trained VAE is of no use
            raise
        run.folder = temporary
        return cls(run)

    def log_prob(self, u: Tensor) -> Tensor:
        return torch.from_numpy(self.run.score(u.cpu().numpy(), samples=self.SAMPLES))

    def draw(self, n: int, seed: int) -> Tensor:
        # with its own keys, or the codes would share their noise with the data decoded from them
        return torch.from_numpy(self.run.sample(n, noise=True, seed=fold(seed, Key.SECOND_STAGE)))

    def save(self, folder: Path, name: str, more: dict[str, Tensor]) -> None:
        shutil.rmtree(folder / "two-stage", ignore_errors=True)
        self.run.path.rename(folder / "two-stage")
        self.run.path = folder / "two-stage"
        super().save(folder, name, more)

    @classmethod
    def open(cls, folder: Path, tensors: dict[str, Tensor], choices: dict[str, Any]) -> SecondStage:
        return cls(SavedRun.open(folder / "two-stage"))

    @property
    def line(self) -> str:
        return f"a second VAE with {self.choices['latent']} latents"
