"""The model card of a run on the Hugging Face hub: README.md with YAML front matter."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vaekit.data.beside import as_texts
from vaekit.data.writing import typed
from vaekit.recipes import RECIPES
from vaekit.report.about import duration
from vaekit.report.numbers import all_numbers, best_known, is_shown, label, rank
from vaekit.runs.saved import SavedRun

OF_IMAGES = "unconditional-image-generation"
"""The name of the hub for models that draw images."""
FRONT = '---\nlibrary_name: "vaekit"\n'
"""The beginning of every card."""
MOST_COLUMNS = 12
"""A table of samples shows at most this number of columns."""
Pictures = Sequence[tuple[str, str, str]]
"""Pictures of a card: the file, its alternative text and the sentence below it."""


def card(run: SavedRun, name: str, license: str | None, pictures: Pictures, rows: np.ndarray | None = None) -> str:
    """The text of README.md.

    Arguments:
        name: of the repository, user/name; or of a folder.
        license: an identifier of the hub, such as apache-2.0, or None to state none.
        pictures: shown in the section of samples.
        rows: samples of a table (N, D), shown instead of a picture.
    """
    measured = sorted((m for m in best_known(run.metrics).values() if is_shown(m)), key=lambda m: rank(m["name"]))
    front = "\n".join(_yaml(_front(run, name, license, measured)))
    sections = [
        f"# {_plain(name.rpartition('/')[2])}",
        _opening(run),
        _use(run, name),
        _samples(run, pictures, rows),
        _numbers(measured),
        _settings(run),
    ]
    return f"---\n{front}\n---\n\n" + "\n\n".join(section for section in sections if section) + "\n"


# --- front matter -----------------------------------------------------------------------------------------------


def _front(run: SavedRun, name: str, license: str | None, measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The metadata that the hub reads: library, licence, tags, and metrics as a model-index."""
    kind, data = run.spec.kind, run.config["data"]
    recipe = [run.config["recipe"]] if run.config["recipe"] else []
    task = {"type": OF_IMAGES if kind == "image" else "other", "name": "Density estimation"}
    front: dict[str, Any] = {"library_name": "vaekit"}
    if license:
        front["license"] = license
    front["tags"] = [*dict.fromkeys(["vaekit", "vae", "variational-autoencoder", *recipe, kind])]
    if kind == "image":
        front["pipeline_tag"] = OF_IMAGES
    if not measured:
        return front
    front["metrics"] = [m["name"] for m in measured]
    results = []
    for split in dict.fromkeys(m["protocol"].get("split") for m in measured):
        of_split = [m for m in measured if m["protocol"].get("split") == split]
        results.append(
            {
                "task": task,
                "dataset": {
                    "name": data["name"],
                    "type": re.sub(r"[^\w.-]+", "-", data["name"]).strip("-.") or "data",
                    **({"split": split} if split else {}),
                },
                "metrics": [_metric(m) for m in of_split],
            }
        )
    front["model-index"] = [{"name": name.rpartition("/")[2], "results": results}]
    return front


def _metric(m: Mapping[str, Any]) -> dict[str, Any]:
    """A metric of a model-index; `args` has its unit, standard error and protocol."""
    error = {} if m.get("se") is None else {"standard_error": m["se"]}
    protocol = {name: value for name, value in m["protocol"].items() if value is not None}
    how = {"unit": m["unit"], **error, **protocol}
    return {"type": m["name"], "name": label(m["name"]), "value": m["value"], "args": how}


def _yaml(value: Any, indent: str = "") -> list[str]:
    """Mappings, lists and scalars as lines of YAML; every scalar is written as in JSON, which YAML contains."""
    lines = []
    named = isinstance(value, Mapping)
    for head, one in [(f"{name}:", v) for name, v in value.items()] if named else [("-", v) for v in value]:
        if isinstance(one, Mapping | list) and one:
            inner = _yaml(one, indent + "  ")
            joined = head == "-" and isinstance(one, Mapping)  # the first entry follows the dash
            lines += [f"{indent}- {inner[0].strip()}", *inner[1:]] if joined else [f"{indent}{head}", *inner]
        else:
            lines.append(f"{indent}{head} {json.dumps(one, ensure_ascii=False)}")
    return lines


# --- sections ---------------------------------------------------------------------------------------------------


def _plain(text: str) -> str:
    """Text that Markdown and HTML show as it is, in one line."""
    marked = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{c}" if c in "\\`*_{}[]|#" else c for c in marked)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _opening(run: SavedRun) -> str:
    """What the model is and what it was trained on."""
    config, spec = run.config, run.spec
    shape = " × ".join(map(str, spec.shape))
    known = RECIPES.get(config["recipe"] or "")
    made = f"the recipe `{config['recipe']}` of vaekit" if known else "composition built by hand"
    text = (
        f"A variational autoencoder ({made}) of {spec.kind} data of shape {shape}, trained on "
        f"{config['data']['n']['train']:,} examples of {_plain(config['data']['name'])}. The data are not included."
    )
    return f"{text} {_plain(known.paper)}." if known else text


def _use(run: SavedRun, name: str) -> str:
    """How to open and sample the model."""
    where = f"hf://{name}" if "/" in name else name
    composed = "" if run.config["recipe"] else ", model=composition"
    lines = [
        "## Use",
        "```python",
        "import vaekit as vk  # pip install 'vaekit[hub]'",
        "",
        f'run = vk.open("{where}"{composed})',
        'x = run.sample(64, latents="fitted")  # in the units of the data',
        "```",
    ]
    if not composed:
        suffix = "png" if run.spec.kind in ("image", "signal") else "csv"
        lines += ["", f"On the command line: `vaekit sample {where} -n 64 --out samples.{suffix}`"]
    return "\n".join(lines)


def _samples(run: SavedRun, pictures: Pictures, rows: np.ndarray | None) -> str:
    """The pictures, or rows of a table."""
    parts = [f"![{alt}]({file})\n\n{_plain(caption)}" for file, alt, caption in pictures]
    if rows is not None and run.columns:
        columns = run.columns[:MOST_COLUMNS]
        cells = [as_texts(column) for column in typed(columns, rows[:, : len(columns)]).values()]
        more = f" The first {MOST_COLUMNS} of {len(run.columns)} columns." if len(run.columns) > MOST_COLUMNS else ""
        shown = _table([_plain(column.name) for column in columns], [*zip(*cells, strict=True)])
        parts.append(f"{shown}\n\nDraws of the model with seed 0, not selected.{more}")
    return "\n\n".join(["## Samples", *parts]) if parts else ""


def _numbers(measured: Sequence[dict[str, Any]]) -> str:
    """The measured numbers with their protocols."""
    if not measured:
        return ""
    table = all_numbers(measured)
    return "## Numbers\n\n" + _table(table.head, table.rows)


def _settings(run: SavedRun) -> str:
    """What the run was trained with."""
    config, options = run.config, run.options
    versions = ", ".join(f"{name} {version}" for name, version in config["versions"].items())
    rows = [
        ["recipe", config["recipe"] or "built by hand"],
        ["arguments", json.dumps(config["arguments"], ensure_ascii=False)],
        ["observation", config["observation"]],
        ["parameters", f"{config['decided']['parameters']:,}"],
        ["trained", f"{config.get('step', 0):,} steps of {options.batch} in {duration(config.get('seconds', 0.0))}"],
        ["seed", str(options.seed)],
        ["data", f"{config['data']['name']}, digest {config['data']['digest']}"],
        ["versions", versions],
    ]
    return "## Settings\n\n" + _table(["setting", "value"], rows)
