"""The section of the report about the densities that were fitted to the codes of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaekit import figures
from vaekit.latents.densities import DENSITIES
from vaekit.latents.records import records
from vaekit.runs.stored import read_log

from . import (
    factors,  # noqa: F401 - its section comes first
    numbers,
)
from .blocks import Block, Table, plot
from .look import Look
from .registry import figure
from .sections import series_of


@figure("densities", "Densities of the codes")
def densities(look: Look) -> list[Block]:
    """The densities stored with the run: how well each fits held-out codes, and the training of those that are runs."""
    found = records(look.run)
    if not found:
        return []
    caption = (
        "Mean log-density of codes of validation data, in nats per code ± standard error; higher is better. They were "
        "fitted to codes of training data, and `vaekit sample --latents` draws from them."
    )
    rows = [_row(name, record) for name, record in found.items()]
    blocks: list[Block] = [
        Table(["density", "codes", "steps", "log-density", "under N(0, I)"], rows, caption, numeric=range(1, 5))
    ]
    for name in found:
        folder = look.run.path / "latents" / name
        if DENSITIES[name].traits["kind"].of_posterior and (folder / "log.jsonl").exists():
            log = read_log(folder)
            train, valid = series_of(log, "train"), series_of(log, "valid")
            caption = (
                f"Training of {name}: −log p(z | z at a time t between noise and code), in nats per code. Up to "
                "constants it is half the squared error of the velocity. The curve of validation rises if the density "
                "memorises codes; the weights that are used are those of its lowest point."
            )
            blocks.append(
                plot(
                    f"densities-{name}",
                    lambda train=train, valid=valid: figures.training_curves(train, valid),  # type: ignore[misc]
                    f"Line plot of the loss of {name} against the training step",
                    caption,
                )
            )
    return blocks


def _row(name: str, record: Mapping[str, Any]) -> tuple[str, ...]:
    """The table's row of a density."""
    held = record["held_out"]
    least = "at least " if held["bound"] else ""
    return (
        name,
        f"{record['n']:,}",
        f"{record['steps']:,}",
        least + numbers.number(held["log_density"], held["se"]),
        numbers.number(held["log_density_normal"], held["se_normal"]),
    )
