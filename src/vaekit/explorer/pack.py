"""Build one self-contained HTML file from a template, modules, arrays and bytes."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np

HOLES = ("title", "style", "first", "data", "modules")
"""Comments in the template that are replaced: <!--title-->, ..."""
_IMPORT = re.compile(r'(?:\bfrom|\bimport)\s*"\./([\w.-]+)"')
_HERE = files(__package__)
LEVEL = 6
"""Level of gzip; at 8, codes take three times as long and thumbnails four times, for 3% and 1% of their size."""


@dataclass
class Blobs:
    """Named bytes for the page, compressed and in base64, each as a script element of its own."""

    shapes: dict[str, dict[str, Any]] = field(default_factory=dict)
    elements: list[str] = field(default_factory=list)

    def add(self, name: str, x: np.ndarray) -> None:
        """Add an array, little endian."""
        little = np.ascontiguousarray(x).astype(x.dtype.newbyteorder("<"), copy=False)
        self._put(name, gzip.compress(little.tobytes(), LEVEL, mtime=0), x.dtype.name, list(x.shape))

    def add_bytes(self, name: str, raw: bytes) -> None:
        """Add bytes, which are compressed with gzip."""
        self.add_packed(name, gzip.compress(raw, LEVEL, mtime=0), len(raw))

    def add_packed(self, name: str, packed: bytes, size: int) -> None:
        """Add bytes that are already compressed with gzip; `size` is their uncompressed size."""
        self._put(name, packed, "bytes", [size])

    def _put(self, name: str, packed: bytes, dtype: str, shape: list[int]) -> None:
        self.shapes[name] = {"dtype": dtype, "shape": shape}
        text = base64.b64encode(packed).decode("ascii")
        kind = "application/octet-stream"
        self.elements.append(f'<script type="{kind}" data-blob="{html.escape(name)}">{text}</script>')

    @property
    def size(self) -> int:
        """Bytes in the page."""
        return sum(map(len, self.elements))


def add_runtime(blobs: Blobs) -> dict[str, str]:
    """Add the runtime's files as blobs; returns its name, version and licence for display."""
    folder = _HERE / "runtime"
    for name in ("ort.mjs", "ort.wasm", "ThirdPartyNotices.txt"):
        packed = (folder / f"{name}.gz").read_bytes()
        blobs.add_packed(name, packed, int.from_bytes(packed[-4:], "little"))  # gzip ends in the size of its content
    about = json.loads((folder / "about.json").read_text(encoding="utf8"))
    licence = (folder / "LICENSE").read_text(encoding="utf8")
    return {"name": "ONNX Runtime Web", "version": about["version"], "licence": licence}


def page(
    title: str, meta: Mapping[str, Any], blobs: Blobs, folder: Traversable | None = None, first: bytes | None = None
) -> str:
    """The page as HTML.

    Arguments:
        title: the title, as plain text.
        meta: JSON for the page; NaN and infinities raise ValueError.
        blobs: arrays and files embedded in the page.
        folder: the folder of the template, the style and the modules; by default the package's own.
        first: a PNG file, shown until the decoder runs.
    """
    folder = _HERE / "page" if folder is None else folder
    template = (folder / "template.html").read_text(encoding="utf8")
    boot = (_HERE / "boot.js").read_text(encoding="utf8")
    data = [f'<script type="application/json" id="meta">{safe_json(meta)}</script>', *blobs.elements]
    modules = [
        f'<script type="text/plain" data-module="{html.escape(name)}">{safe_script(source)}</script>'
        for name, source in ordered(folder).items()
    ]
    parts = {
        "title": html.escape(title),
        "style": f"<style>\n{(folder / 'style.css').read_text(encoding='utf8')}</style>",
        "first": "" if first is None else _picture(first),
        "data": "\n".join(data),
        "modules": "\n".join([*modules, f'<script type="module">{safe_script(boot)}</script>']),
    }
    missing = [name for name in HOLES if f"<!--{name}-->" not in template]
    if missing:
        raise ValueError(f"the template lacks the comment <!--{missing[0]}-->")
    return re.sub(rf"<!--({'|'.join(HOLES)})-->", lambda m: parts[m[1]], template)


def _picture(png: bytes) -> str:
    source = base64.b64encode(png).decode("ascii")
    return f'<img alt="Decoder output" elementtiming="first" src="data:image/png;base64,{source}">'


def safe_json(value: Any) -> str:
    """JSON that is safe inside a script element: it contains no `<`, so it cannot close or open one."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def safe_script(source: str) -> str:
    """The source unchanged; raises ValueError if it contains text that would end a script element or hide its end."""
    for wrong in ("</script", "<script", "<!--"):
        if wrong in source.lower():
            raise ValueError(f"a module of the page contains {wrong!r}; write it as two strings")
    return source


def ordered(folder: Traversable) -> dict[str, str]:
    """The modules of a folder by name, each after the modules that it imports.

    Raises:
        ValueError: a module imports one that is missing, or modules import each other in a circle.
    """
    sources = {f.name: f.read_text(encoding="utf8") for f in folder.iterdir() if f.name.endswith(".js")}
    done: dict[str, str] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ValueError(f"modules import each other in a circle: {' -> '.join((*path, name))}")
        if name not in sources:
            raise ValueError(f"{path[-1]} imports {name}, which is missing")
        if name not in done:
            for wanted in _IMPORT.findall(sources[name]):
                visit(wanted, (*path, name))
            done[name] = sources[name]

    for name in sorted(sources):
        visit(name, ())
    return done
