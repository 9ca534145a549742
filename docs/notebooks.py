"""The lessons as notebooks to download, beside the site's pages. See conf.py.

A lesson that opens stored models or results is offered as an archive: the notebook with those files around it.
"""

import html
import json
import re
import zipfile
from pathlib import Path

import nbformat

HERE = Path(__file__).parent
COLON = re.compile(r"^:::\{(admonition|dropdown)\} *(.*?)\n(.*?)^:::$", re.M | re.S)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./|\d\d-|index)[^)\s]*?)\)")
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n((?::[\w-]+:[^\n]*\n)*)(.*?)\n?^```$", re.M | re.S)
FRONT = re.compile(r"\A---\n.*?\n---\n", re.S)
FILES = re.compile(r"""["']\.\./([\w./{}-]+)["']""")


def site(url):
    """The address of the site without a slash at its end, or "" if it is unknown."""
    return (url or "").rstrip("/")


def plain(text, url=""):
    """MyST as Markdown of notebooks: boxes become quotations, answers fold, links lead to the site or are left out."""

    def box(match):
        kind, title, body = match[1], match[2], match[3]
        body = re.sub(r"\A(:[\w-]+:.*\n)+", "", body).strip("\n")
        if kind == "dropdown":
            return f"<details><summary>{html.escape(title)}</summary>\n\n{body}\n\n</details>"
        return "\n".join(f"> {line}".rstrip() for line in [f"**{title}**", "", *body.split("\n")])

    def link(match):
        words, target = match[1], match[2]
        if not url:
            return words
        page, _, anchor = target.removeprefix("../").partition("#")
        folder = "" if target.startswith("../") else "lessons/"
        page = f"{url}/{folder}{page.removesuffix('.md')}" + (".html" if page.endswith(".md") else "")
        return f"[{words}]({page}{'#' * bool(anchor)}{anchor})"

    return LINK.sub(link, COLON.sub(box, text))


def cells(text):
    """The cells of a page: its code cells, with their tags, and the text between them."""
    text, at, found = FRONT.sub("", text, count=1), 0, []

    def words(part):
        return [nbformat.v4.new_markdown_cell(part.strip("\n"))] if part.strip() else []

    for match in CELL.finditer(text):
        tags = re.findall(r"[\w-]+", (re.findall(r"^:tags:(.*)$", match[1], re.M) or [""])[0])
        code = nbformat.v4.new_code_cell(match[2], metadata={"tags": tags} if tags else {})
        found += [*words(text[at : match.start()]), code]
        at = match.end()
    return [*found, *words(text[at:])]


def files_of(name, code):
    """The files of docs/ that the code of a lesson opens, relative to docs/: of a run, all files in its folder."""
    found, named = set(), set(re.findall(r"""["']([\w.-]+)["']""", code))
    for path in FILES.findall(code):
        parts = re.split(r"\{[^}]*\}", path)
        fits = {HERE / path} if len(parts) == 1 else {HERE / each.join(parts) for each in named}
        fits = {one for one in fits if one.exists()}
        if not fits:
            raise ValueError(f"lesson {name} opens {path}, which does not exist")
        found |= fits
    inside = [f for path in found for f in ([path] if path.is_file() else path.rglob("*")) if f.is_file()]
    return sorted({f.relative_to(HERE).as_posix() for f in inside})


def opening(name, title, files, url, version):
    """The cells at the head of a notebook: what it is, and what makes it run on a fresh machine, such as in Colab."""
    page = f"[{title}]({url}/lessons/{name}.html)" if url else title
    text = f"*This notebook is the lesson “{page}” of vaekit {version}. Run the next cell first.*"
    lines = [
        "import importlib.util",
        "",
        "if importlib.util.find_spec('vaekit') is None:  # as in a new Colab notebook",
        "    %pip install --quiet vaekit",
    ]
    if files:
        archive = f"{name}.zip"
        lines += ["", "import os", "", f"if not os.path.exists({'../' + files[0]!r}):"]
        if url:
            lines += [
                "    import io, urllib.request, zipfile",
                "",
                f"    archive = urllib.request.urlopen({f'{url}/notebooks/{archive}'!r}).read()",
                "    zipfile.ZipFile(io.BytesIO(archive)).extractall('vaekit-lessons')",
                "    os.chdir('vaekit-lessons/lessons')",
            ]
        else:
            lines += [
                f"    raise FileNotFoundError('this lesson opens stored models: unpack {archive}, which its page '",
                "                            'offers, and open the notebook in its folder lessons')",
            ]
    return [
        nbformat.v4.new_markdown_cell(text, metadata={"tags": ["opening"]}),
        nbformat.v4.new_code_cell("\n".join(lines), metadata={"tags": ["opening"]}),
    ]


def convert(path, url="", version=""):
    """A lesson as a notebook without outputs, and the files of docs/ that it opens."""
    found, name = cells(path.read_text(encoding="utf8")), path.stem
    files = files_of(name, "\n".join(cell.source for cell in found if cell.cell_type == "code"))
    title = re.search(r"^# (.+)$", found[0].source, re.M)[1]
    for cell in found:
        if cell.cell_type == "markdown":
            cell.source = plain(cell.source, url)
        elif "hide-input" in cell.metadata.get("tags", []):
            cell.metadata["jupyter"] = {"source_hidden": True}
            cell.metadata["cellView"] = "form"  # the same in Colab
    notebook = nbformat.v4.new_notebook(cells=[*opening(name, title, files, url, version), *found])
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"{name[:2]}-{i}"  # the same at every build
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
        }
    )
    nbformat.validate(notebook)
    return notebook, files


def write(folder, url="", version=""):
    """Write every lesson as a notebook into `folder`, and an archive for those that open files: {lesson: its file}."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for path in sorted((HERE / "lessons").glob("[0-9]*.md")):
        notebook, files = convert(path, url, version)
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        (folder / f"{path.stem}.ipynb").write_text(text, encoding="utf8")
        written[path.stem] = f"{path.stem}.ipynb"
        if files:
            written[path.stem] = f"{path.stem}.zip"
            with zipfile.ZipFile(folder / written[path.stem], "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(f"lessons/{path.stem}.ipynb", text)
                for file in files:
                    archive.write(HERE / file, file)
    return written


def link(name, file):
    """The line below the title of a lesson's page."""
    words = "this lesson as a notebook" + (", with the models that it opens" if file.endswith(".zip") else "")
    return f'<a class="notebook" href="../notebooks/{file}" download>Download {words}</a>\n'
