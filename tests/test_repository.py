"""The files by which hosts, reference managers and pre-commit know the repository."""

import re
import shlex
from pathlib import Path

import pytest

import vaekit

yaml = pytest.importorskip("yaml", reason="these files are YAML")
ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(f for f in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if f.name != "config.yml")
PINNED = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf8"))


def test_the_citation_fits_its_format_and_this_version():
    """The parts of the schema of CFF 1.2.0 that the file uses; the whole schema has 60 kB."""
    cited = read(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    known = {"cff-version", "message", "title", "authors", "type", "version", "license", "abstract", "keywords"}
    assert set(cited) <= known | {"references", "date-released", "doi", "repository-code", "url"}
    assert cited["cff-version"] == "1.2.0"
    assert cited["type"] == "software"
    for one in (cited, *cited["references"]):
        assert one["title"]
        for author in one["authors"]:
            assert set(author) in ({"name"}, {"family-names", "given-names"})
    for one in cited["references"]:
        assert {"type", "title", "authors"} <= set(one) <= {"type", "title", "authors", "year", "notes", "doi", "url"}
        assert isinstance(one["year"], int)
    assert str(cited["version"]) == vaekit.__version__
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf8")
    assert cited["license"] == "Apache-2.0"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_workflows_are_pinned_and_may_do_little(path):
    workflow, text = read(path), path.read_text(encoding="utf8")
    assert workflow["permissions"] == {"contents": "read"}
    assert "group" in workflow["concurrency"]
    used = re.findall(r"uses: (.+)", text)
    assert used
    assert [one for one in used if not PINNED.fullmatch(one)] == []
    assert not re.search(r"https?://", text)
    assert "secrets." not in text
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
        for step in job["steps"]:
            assert "${{" not in step.get("run", ""), "an expression in a script runs what its value says: use env"
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_tests_run_on_every_system_and_version():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    matrix = read(GITHUB / "workflows" / "tests.yml")["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == versions
    assert project["requires-python"] == f">={versions[0]}"
    assert [name.partition("-")[0] for name in matrix["os"]] == ["ubuntu", "macos", "windows"]


def test_only_releases_may_publish():
    workflow = read(GITHUB / "workflows" / "release.yml")
    assert set(workflow[True]) == {"push"}  # YAML reads the key `on` as true
    assert set(workflow[True]["push"]) == {"tags"}
    assert workflow["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert workflow["jobs"]["publish"]["environment"] == "release"
    assert "id-token" not in str(workflow["jobs"]["build"])


@pytest.mark.parametrize("path", FORMS, ids=lambda p: p.stem)
def test_issue_forms_fit_their_format(path):
    form = read(path)
    assert {"name", "description", "body"} <= set(form)
    asked = [part for part in form["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in asked}) == len(asked)
    assert any(part["validations"]["required"] for part in asked if "validations" in part)
    for part in form["body"]:
        assert part["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes")
        assert part["attributes"].get("label") or part["attributes"].get("value")


def test_the_bug_form_asks_for_what_the_doctor_prints():
    asked = {part["id"]: part for part in read(GITHUB / "ISSUE_TEMPLATE" / "bug.yml")["body"] if "id" in part}
    assert "`vaekit doctor`" in asked["environment"]["attributes"]["label"]
    assert asked["environment"]["validations"]["required"]


def test_hooks_run_what_make_lint_runs():
    hooks = [hook for repo in read(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    makefile = (ROOT / "Makefile").read_text(encoding="utf8")
    lint = re.findall(r"\$\(BIN\)/(ruff \w+|mypy)", makefile.partition("\nlint:")[2].partition("\n\n")[0])
    entries = [shlex.split(hook["entry"]) for hook in hooks]
    assert [" ".join(words[2:4] if words[2] == "ruff" else words[2:3]) for words in entries] == lint
    assert all(words[:2] == ["python", "-m"] for words in entries)


def test_the_files_that_people_look_for_exist():
    for name in ("README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md"):
        assert (ROOT / name).stat().st_size > 500, name
    assert (GITHUB / "pull_request_template.md").is_file()
    targets = set(re.findall(r"`make ([a-z-]+)`", (GITHUB / "pull_request_template.md").read_text(encoding="utf8")))
    makefile = (ROOT / "Makefile").read_text(encoding="utf8")
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
