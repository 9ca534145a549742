"""Sphinx settings for `make docs`. Building runs every page, so all displayed results are computed."""

import ast
import hashlib
import inspect
import os
import re
import shutil
import sys
from pathlib import Path

from sphinx.domains.python import PythonDomain

import vaekit

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import notebooks  # noqa: E402
from execute import execute  # noqa: E402

MAGIC = HERE / "bash_magic.py"
SOURCES = sorted([MAGIC, *(HERE.parent / "src").rglob("*.py"), *(HERE / "runs").rglob("*.safetensors")])

project = "vaekit"
copyright = "the authors of vaekit, Apache License 2.0"
author = "the authors of vaekit"
version = release = vaekit.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinx_design",
]
exclude_patterns = ["_build", "runs/**/*.md"]
suppress_warnings = ["mystnb.unknown_mime_type"]

html_theme = "furo"
html_title = "vaekit"
html_static_path = ["_static"]
# the lessons as notebooks; DOCS_URL is the address of the site, from which they fetch the models that they open
EXTRA = HERE / "_build" / "extra"
LESSONS = notebooks.write(EXTRA / "notebooks", notebooks.site(os.environ.get("DOCS_URL")), release)
html_extra_path = ["extra", str(EXTRA)]
html_baseurl = os.environ.get("DOCS_URL", "")
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {
    "top_of_page_buttons": [],
    "light_css_variables": {"color-brand-primary": "#2468a0", "color-brand-content": "#2468a0"},
    "dark_css_variables": {"color-brand-primary": "#7db9ea", "color-brand-content": "#7db9ea"},
}

myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
myst_links_external_new_tab = True

# a page is run again when its code or vaekit's code has changed
nb_execution_mode = "cache"
_code = hashlib.sha256(b"".join(f.read_bytes() for f in SOURCES)).hexdigest()[:12]
nb_execution_cache_path = str(HERE / "_build" / "cache" / _code)
# load our own %%bash, which keeps the order of outputs, in every kernel
_startup = HERE / "_build" / "ipython" / "profile_default" / "startup"
_startup.mkdir(parents=True, exist_ok=True)
shutil.copy(MAGIC, _startup)
os.environ["IPYTHONDIR"] = str(_startup.parents[1])
nb_execution_timeout = 1200  # seconds, generous for slow or busy machines
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_code_prompt_show = "Show code"
nb_code_prompt_hide = "Hide code"

default_role = "code"  # docstrings are plain text with `names` in it
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_use_rtype = False
napoleon_use_param = False


def _plain(app, what, name, obj, options, lines):
    """Escape docstrings, which are plain text: only backticks and block headings are markup."""
    for i, line in enumerate(lines):
        parts = line.replace("``", "`").split("`")
        for j in range(0, len(parts), 2):
            parts[j] = re.sub(r"([\\\\*|]|_(?=\W|$))", r"\\\1", parts[j])
        lines[i] = "`".join(parts)
    if what in ("attribute", "data", "property"):  # else napoleon takes the words before a colon for a type
        lines.insert(0, "")


def _skipped(app, what, name, obj, skip, options):
    """Skip the methods that scikit-learn adds to every estimator and documents itself."""
    return True if name.startswith("set_") and name.endswith("_request") else None


class _Shown(str):
    """An annotation as it is written, without quotes."""

    __repr__ = str.__str__


class _Plain(ast.NodeTransformer):
    """`Annotated[T, ...]` becomes T."""

    def visit_Subscript(self, node):
        self.generic_visit(node)
        annotated = ast.unparse(node.value).endswith("Annotated") and isinstance(node.slice, ast.Tuple)
        return node.slice.elts[0] if annotated else node


def _types(app, what, name, obj, options, signature, returns):
    """Show the types of parameters without the help and range of each, which the tables of docs/family.md have."""
    if not signature or "Annotated[" not in signature:
        return None
    found = inspect.signature(obj)
    plain = []
    for parameter in found.parameters.values():
        if isinstance(parameter.annotation, str):
            tree = _Plain().visit(ast.parse(parameter.annotation, mode="eval"))
            parameter = parameter.replace(annotation=_Shown(ast.unparse(tree)))
        plain.append(parameter)
    return str(found.replace(parameters=plain, return_annotation=inspect.Signature.empty)), returns


class _Nearest(PythonDomain):
    """A short name that several modules define links to the one with the nearest module, or to none of equally near."""

    def find_obj(self, env, modname, classname, name, type, searchmode=0):
        found = super().find_obj(env, modname, classname, name, type, searchmode)
        if len(found) < 2:
            return found
        here = (modname or "").split(".")
        near = [[a == b for a, b in zip(here, one.split("."), strict=False)] for one, _ in found]
        shared = [[*same, False].index(False) for same in near]  # parts of the path before the first other one
        nearest = [each for each, parts in zip(found, shared, strict=True) if parts == max(shared)]
        return nearest if len(nearest) == 1 else []


def _linked(app, name, source):
    """Put a link to the notebook of a lesson below its title."""
    if (file := LESSONS.get(name.removeprefix("lessons/"))) and name.startswith("lessons/"):
        line = notebooks.link(name, file)
        source[0] = re.sub(r"^(# .+)$", lambda title: f"{title[1]}\n\n{line}", source[0], count=1, flags=re.M)


def setup(app):
    app.add_domain(_Nearest, override=True)
    app.extensions["sphinx-mathjax-offline"].parallel_read_safe = True  # it only adds a script; it does not say so
    app.connect("env-before-read-docs", execute)
    app.connect("source-read", _linked)
    app.connect("autodoc-process-signature", _types)
    app.connect("autodoc-skip-member", _skipped)
    app.connect("autodoc-process-docstring", _plain, priority=100)
