"""Links, pictures and paths on the pages name files and headings that exist, and every picture is on a page."""

import re

import pytest

from tests.docs.pages import ROOT, pages

PATH = re.compile(r"`((?:data|docs|inference|layers|recipes|tests|tools|utils|ytvis)/[\w/]+\.(?:md|pyx?|toml))`")
LINK = re.compile(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")


def links(page):
    """The targets of a page's links, except those of other sites."""
    text = (ROOT / page).read_text("utf-8")
    found = ["".join(groups) for groups in LINK.findall(text)]
    return [target for target in found if not target.startswith(("http:", "https:"))]


def anchors(path):
    """The anchors of a page's headings as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page):
    for target in links(page):
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.is_file(), target
        assert not anchor or anchor in anchors(path), target


@pytest.mark.parametrize(
    "page", [*pages(), *(f"tests/fixtures/{name}/README.md" for name in ("evaluator", "reference"))]
)
def test_paths_are_files(page):
    paths = PATH.findall((ROOT / page).read_text("utf-8"))
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_every_picture_is_on_a_page():
    shown = {((ROOT / page).parent / target).resolve() for page in pages() for target in links(page)}
    assert {path for path in (ROOT / "docs" / "images").iterdir()} <= shown
