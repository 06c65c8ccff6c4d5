"""README and the site lead somewhere: links, terms, the way from the first page, the rendering."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harness import source

DOCS = source.ROOT / "docs"
README = (source.ROOT / "README.md").read_text(encoding="utf-8")
SITE = "https://nurseryio.readthedocs.io/en/latest/"
FILES = "https://github.com/nurseryio/nurseryio/blob/main/"
RAW = "https://raw.githubusercontent.com/nurseryio/nurseryio/main/"
PAGES = {path: path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
OF_README = sorted(
    set(re.findall(r"\]\(([^)]+)\)", README)) | set(re.findall(r'(?:src|srcset)="([^"]+)"', README))
)


# -- README ---------------------------------------------------------------------------


@pytest.mark.parametrize("link", OF_README)
def test_a_link_of_readme_is_absolute_and_its_target_exists(link: str) -> None:
    address, _, anchor = link.partition("#")
    if address.startswith((FILES, RAW)):
        path = address.removeprefix(FILES).removeprefix(RAW)
        assert (source.ROOT / path).is_file()
        assert not anchor
    elif address.startswith(SITE):
        page = DOCS / address.removeprefix(SITE).replace(".html", ".md")
        assert page.is_file()
        assert not anchor or anchor in anchors(page.read_text(encoding="utf-8"))
    else:
        assert address == SITE.partition("/en/")[0]


def anchors(text: str) -> set[str]:
    """The anchors of a page: its headings and its labels."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    made = {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }
    return made | set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))


def test_readme_is_rendered_as_a_package_index_renders_it() -> None:
    render = pytest.importorskip("readme_renderer.markdown").render
    page = render(README)
    assert page is not None
    assert page.count("<table") >= 4
    assert "docs/pictures/nursery-light.svg" in page


def test_readme_explains_each_extra_that_is_for_users() -> None:
    project = (source.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = re.findall(r"^(\w+) = \[", project.partition("[project.optional-dependencies]")[2]
                        .partition("\n[project.")[0], re.MULTILINE)  # fmt: skip
    for_the_project = {"test", "docs", "dev", "examples", "wild", "loops", "bench"}
    for extra in set(extras) - for_the_project:
        assert f"'.[{extra}]'" in README


def test_the_support_table_of_readme_is_that_of_the_project() -> None:
    table = README.partition("## What it runs on")[2]
    project = (source.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    versions = re.findall(r"Python :: (3\.\d+)\"", project)
    assert f"| CPython | {versions[0]} to {versions[-1]} |" in table
    loops = PAGES[DOCS / "loops.md"].partition("## What differs")[0]
    others = len(re.findall(r"^\| .* \| cross-section", loops, re.MULTILINE))
    words = {8: "eight", 9: "nine", 10: "ten", 11: "eleven", 12: "twelve"}
    assert f"[{words[others]} others]" in table


# -- the site ---------------------------------------------------------------------------


def listed(page: Path) -> set[Path]:
    """The pages that a page links to, by its tables of contents and its text."""
    text = PAGES[page]
    found = set()
    for contents in re.findall(r"^```\{toctree\}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for entry in re.findall(r"^[\w/*-]+$", contents, re.MULTILINE):
            found.update(page.parent.glob(f"{entry}.md"))
    for link in re.findall(r"\]\(([\w./-]+\.md)", text):
        target = (page.parent / link).resolve()
        if target in PAGES:
            found.add(target)
    return found


def test_each_page_is_found_in_two_clicks() -> None:
    first = listed(DOCS / "index.md")
    second = set().union(*(listed(page) for page in first))
    assert set(PAGES) - {DOCS / "index.md"} <= first | second


def test_the_terms_stand_before_the_guides() -> None:
    index = PAGES[DOCS / "index.md"]
    assert index.index("\nglossary\n") < index.index(":caption: Guides")


TERMS = re.findall(r"^(\w[^\n]*)\n  \S", PAGES[DOCS / "glossary.md"], re.MULTILINE)


@pytest.mark.parametrize("term", TERMS)
def test_a_term_of_the_glossary_is_used_in_the_guides(term: str) -> None:
    words = r"\s+".join(map(re.escape, term.lower().split()))
    guides = (
        text.lower()
        for page, text in PAGES.items()
        if page.parent == DOCS and page.name != "glossary.md"
    )
    assert any(re.search(rf"\b{words}", text) for text in guides)


def test_the_glossary_is_in_the_order_of_the_alphabet() -> None:
    assert len(TERMS) > 25
    assert sorted(TERMS, key=str.lower) == TERMS


@pytest.mark.parametrize("name", ["CHANGELOG", "CONTRIBUTING", "SECURITY"])
def test_the_files_of_the_project_are_in_the_site(name: str) -> None:
    page = PAGES[DOCS / f"{name.lower()}.md"]
    assert f"{{include}} ../{name}.md" in page
