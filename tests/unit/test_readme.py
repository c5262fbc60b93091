"""The pages for readers: the two READMEs have the same content, stay short, and their links lead somewhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from rendering import ROOT

from docs import read_specs

READMES = {
    language: (ROOT / name).read_text(encoding="utf-8") for language, name in (("en", "README.md"), ("zh", "README.zh-CN.md"))
}


def headings(text: str) -> list[int]:
    """Return the level of each heading."""
    return [len(level) for level in re.findall(r"^(#+) ", text, re.MULTILINE)]


def code(text: str) -> list[list[str]]:
    """Return the lines of each code block, without their comments, which are in the language of the page."""
    blocks = re.findall(r"(?:(?:^    .*\n)|(?:^\n(?=    )))+", text, re.MULTILINE)
    return [[re.sub(r"\s+# .*", "", line).strip() for line in block.strip().splitlines()] for block in blocks if block.strip()]


def rows(text: str) -> list[tuple[str, list[str]]]:
    """Return what stands in backticks in each row of a table: in its first cell as written, in the others in any order."""
    cells = [row.strip("| ").split(" | ", 1) for row in re.findall(r"^\| .*", text, re.MULTILINE)]
    quoted = [(re.findall(r"`([^`]+)`", name), re.findall(r"`([^`]+)`", rest)) for name, rest in cells]
    return [(", ".join(names), sorted(others)) for names, others in quoted]


def links(text: str) -> list[str]:
    """Return the files that a page links to, but for the other README."""
    return [link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("README")]


@pytest.mark.parametrize("part", [headings, code, rows, links])
def test_the_two_readmes_have_the_same(part: object) -> None:
    assert callable(part)
    assert part(READMES["en"])
    assert part(READMES["zh"]) == part(READMES["en"])


@pytest.mark.parametrize("language", READMES)
def test_a_readme_stays_on_two_screens(language: str) -> None:
    assert len(READMES[language].splitlines()) <= 120


PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob(".github/*.md"), *ROOT.glob("bench/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text(encoding="utf-8")):
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, anchor


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "bench"], ids=lambda page: page.name)
def test_a_page_names_variables_and_roles_that_exist(page: Path) -> None:
    specs = read_specs()
    known = {"prometheus_fastapi_instrumentator", *(name for spec in specs.values() for name in spec["options"])}
    prefixes = "|".join(specs)
    # Names of the page that end with an asterisk or a slash stand for several, or for files.
    named = set(re.findall(rf"(?<![\w/.-])(?:{prefixes})_[a-z]\w*(?![\w*/])(?!\.\w)", page.read_text(encoding="utf-8")))
    assert named - known == set()


def test_the_architecture_names_files_that_exist() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w./-]+(?:\.py|\.yml|/))`", page))
    places = (ROOT, ROOT / "src/slipway", ROOT / "roles/app", ROOT / "molecule/release")
    assert len(named) > 40
    assert {name for name in named if not any((place / name).exists() for place in places)} == set()


def test_the_changelog_has_the_version_and_what_is_unreleased() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    unreleased, newest = re.findall(r"^## (.+)$", text, re.MULTILINE)[:2]
    assert unreleased == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d", newest)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= kinds
