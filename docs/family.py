"""Writes docs/family.md: every recipe with its equation, paper and settings, from the recipes themselves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from vaekit.guide import FITTING, PURPOSES
from vaekit.recipes import RECIPES, Recipe
from vaekit.recipes.choices import OBJECTIVES, POSTERIORS, PriorName, takes
from vaekit.recipes.parts import LikelihoodName

HERE = Path(__file__).parent


def linked(paper: str) -> str:
    paper = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", paper)
    return re.sub(r"doi:(\S+?)(?=$|[;,])", r"[doi:\1](https://doi.org/\1)", paper)


def entry(recipe: Recipe) -> list[str]:
    head, _, rest = recipe.description.partition("\n")
    settings = " ".join(f"--{n.replace('_', '-')} {v}" for n, v in recipe.settings.items())
    lines = [f"### {recipe.name}", "", head, ""]
    rest = rest.strip()
    if rest:
        lines += ["```text", rest, "```", ""]
    lines.append(linked(recipe.paper) + ".")
    if settings:
        lines[-1] += f" The same as `vaekit fit DATA {settings}`."
    return [*lines, ""]


def fitting() -> list[str]:
    """The table of what to write for which data."""
    return ["| you have, or want | write |", "|---|---|", *(f"| {have} | `{command}` |" for have, command in FITTING)]


def page() -> str:
    objectives = "\n".join(
        f"| `{name}` | {', '.join(f'`--{c}`'.replace('_', '-') for c in takes(part)) or '-'} |"
        for name, part in OBJECTIVES.items()
    )
    lines = [
        "# The family",
        "",
        "## Which recipe for my data",
        "",
        *fitting(),
        "",
        "## How a model is composed",
        "",
        "A variational autoencoder is four choices: a prior p(z), a posterior q(z|x), a likelihood p(x|z) and an",
        "objective. They compose freely; what cannot work together is refused before training, with the reason:",
        "",
        "```text",
        "vaekit fit DATA --prior vamp --posterior iaf --likelihood gaussian --objective iwae",
        "```",
        "",
        f"- priors: {', '.join(f'`{n}`' for n in get_args(PriorName))}",
        f"- posteriors: {', '.join(f'`{n}`' for n in POSTERIORS)}",
        f"- likelihoods: {', '.join(f'`{n}`' for n in get_args(LikelihoodName))}",
        "- conditions: `--condition label` or `attributes`; corrupted inputs: `--corruption gaussian`, `masking` or",
        "  `salt-and-pepper`",
        "",
        "| objective | takes |",
        "|---|---|",
        objectives,
        "",
        "A named recipe is a good setting of these, or a model of its own where the latents are not one real vector.",
        "How they perform on Fashion-MNIST is in [recipes.md](recipes.md). This page is written by",
        "`python docs/family.py`.",
        "",
    ]
    for purpose, names in PURPOSES.items():
        lines += [f"## {purpose}", ""]
        for name in names:
            lines += entry(RECIPES[name])
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    (HERE / "family.md").write_text(page(), encoding="utf8")
