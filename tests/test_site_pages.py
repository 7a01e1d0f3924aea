"""The site of the documentation: what its navigation names, and where its links lead."""

import re
from collections import Counter

import pytest
import yaml

from docs import site_pages
from docs.site_pages import ROOT

NAV = list(site_pages.pages_in(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
PEOPLE = ["docs/for-trainers.md", "docs/for-operators.md", "docs/for-git.md"]


def test_the_navigation_names_every_page_exactly_once() -> None:
    assert Counter(NAV) == Counter(site_pages.pages())
    assert {f"docs/{path.relative_to(ROOT / 'docs')}" for path in (ROOT / "docs").rglob("*.md")} < {
        *NAV
    }


def test_the_navigation_begins_with_the_pages_of_the_three_people() -> None:
    assert [page for page in NAV if page in PEOPLE] == PEOPLE


def test_pages_are_found_at_every_depth_of_a_navigation() -> None:
    nav = [{"Home": "README.md"}, {"Part": [{"Page": "a.md"}, "b.md", {"Deeper": ["c.md"]}]}]

    assert list(site_pages.pages_in(nav)) == ["README.md", "a.md", "b.md", "c.md"]


def test_every_link_leads_to_a_file_or_a_folder_of_the_site() -> None:
    files, folders = site_pages.site_files()
    for page in site_pages.pages():
        for target in site_pages.targets(page, (ROOT / page).read_text()):
            index = site_pages.index_of(target)
            assert target in files or target in folders or index in files, f"{page}: {target}"


def test_links_in_code_are_no_links() -> None:
    text = "[a](b.md#c) `[d](e.md)` [f](../g)\n```sh\n[h](i.md)\n```\n[j](https://k.example)\n"

    assert list(site_pages.targets("docs/page.md", text)) == ["docs/b.md", "g"]


@pytest.mark.parametrize(
    ("folder", "index"),
    [
        ("examples/gitops", "examples/gitops/README.md"),
        ("docs/decisions", "docs/decisions/index.md"),
    ],
)
def test_a_folder_has_a_page(folder: str, index: str) -> None:
    assert site_pages.index_of(folder) == index


def test_the_page_of_a_folder_lists_its_files() -> None:
    lines = site_pages.listing("examples/gitops/kustomize").splitlines()

    assert lines[0] == "# examples/gitops/kustomize"
    assert "- [base/run.yaml](base/run.yaml)" in lines


def test_a_link_to_a_folder_leads_to_its_page() -> None:
    class Page:
        class file:  # noqa: N801 - as MkDocs calls it
            src_uri = "docs/storage.md"

    markdown = "[runs](../tests/runs) and [why](decisions), [config](config.md#train)"

    assert site_pages.on_page_markdown(markdown, Page, None, None) == (
        "[runs](../tests/runs/README.md) and [why](decisions/index.md), [config](config.md#train)"
    )


_FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", site_pages.pages())
def test_what_is_inside_a_list_is_indented_by_four(page: str) -> None:
    """GitHub is content with less; the site would show a table as text and a list as its parent."""
    text = _FENCED.sub("", (ROOT / page).read_text())

    assert not re.findall(r"^ {1,3}(?:\||[-*] |\d+\. ).*", text, re.MULTILINE)
    assert not re.findall(r"^[|\s]+\n\|-.*", text, re.MULTILINE), "a table without a head"
