"""Tests of the book: it builds with strict links, leads nowhere outside, its references are those of the code, its pictures are there."""

import re
import shutil
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from book.lineage import draw_lineage
from book.pages import CONFIGURATION, LINK, ROOT, BookError, build_book, list_linked_files, list_pages
from book.pictures import DOMAIN, MAX_BYTES, MAX_PICTURE_BYTES, PAGES
from book.reference import FOLDER
from book.reference import PAGES as REFERENCES

PICTURES = ROOT / "docs" / "pictures"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_book(tmp_path_factory.mktemp("book"))


def list_navigation(entries: list[Any]) -> Iterator[str]:
    """Yield the pages of a navigation."""
    for entry in entries:
        if isinstance(entry, str):
            yield entry
            continue
        for target in entry.values():
            yield from [target] if isinstance(target, str) else list_navigation(target)


class Addresses(HTMLParser):
    """The addresses of a page: what the browser fetches by itself, and what a reader's click leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: set[str] = set()
        self.linked: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "href" and tag == "a":
                self.linked.add(value or "")
            elif name in ("href", "src", "srcset", "poster", "data") and value:
                self.fetched.add(value)


def read_addresses(page: Path) -> Addresses:
    addresses = Addresses()
    addresses.feed(page.read_text(encoding="utf-8"))
    return addresses


def test_every_page_stands_in_the_navigation_once() -> None:
    """A new page gets its line in book/zensical.toml."""
    navigation = tomllib.loads(CONFIGURATION.read_text(encoding="utf-8"))["project"]["nav"]
    assert sorted(list_navigation(navigation)) == list_pages()


def test_every_page_is_built(site: Path) -> None:
    for name in list_pages():
        page = Path(name)
        built = page.with_name("index.html") if page.name == "README.md" else page.with_suffix(".html")
        assert (site / built).is_file(), name


def test_the_pages_fetch_nothing_from_other_servers(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert not [address for address in read_addresses(page).fetched if urlsplit(address).netloc], page
    for style in site.rglob("*.css"):
        assert not re.findall(r"url\([\"']?(?:https?:)?//|@import", style.read_text(encoding="utf-8")), style


def test_every_link_and_picture_leads_to_a_file_of_the_site(site: Path) -> None:
    outside = set()
    for page in site.rglob("*.html"):
        if page.name == "404.html":  # its addresses are those of a server's root
            continue
        addresses = read_addresses(page)
        for address in addresses.fetched | addresses.linked:
            parts = urlsplit(address)
            if parts.scheme in ("http", "https"):
                outside.add(parts.netloc)
            elif parts.path and parts.scheme != "data":
                assert (page.parent / unquote(parts.path)).exists(), f"{page.relative_to(site)}: {address}"
    assert outside == {"zensical.org", "dvc.org"}


@pytest.mark.parametrize(
    ("link", "said"),
    [("docs/no-such-page.md", "page does not exist"), ("docs/policy.md#no-such-part", "anchor does not exist")],
)
def test_a_link_that_leads_nowhere_fails_the_build(link: str, said: str, tmp_path: Path) -> None:
    for name in [*list_pages(), *list_linked_files()]:
        copy = tmp_path / "tree" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy)
    with (tmp_path / "tree" / "README.md").open("a", encoding="utf-8") as page:
        page.write(f"\n[nowhere]({link})\n")
    with pytest.raises(BookError, match=said):
        build_book(tmp_path / "book", tmp_path / "tree")


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_page_is_that_of_the_code(name: str) -> None:
    """After a change run `python -m book.reference`."""
    assert (FOLDER / name).read_text(encoding="utf-8") == REFERENCES[name]()


def test_the_references_name_every_command_and_route() -> None:
    commands, routes = ((FOLDER / name).read_text(encoding="utf-8") for name in ("commands.md", "api.md"))
    assert "## finrisk audit verify\n" in commands and "`--checkpoint FILE`" in commands
    assert "### `POST /v1/transactions`\n" in routes and "| `amount` | number | required |" in routes


def test_the_lineage_is_that_of_the_code() -> None:
    """After a change run `make pictures`."""
    assert (PICTURES / "lineage.svg").read_text(encoding="utf-8") == draw_lineage(DOMAIN)


def test_every_picture_is_shown_by_a_page_and_small() -> None:
    shown = set()
    for page in list_pages():
        for link in LINK.findall((ROOT / page).read_text(encoding="utf-8")):
            target = ((ROOT / page).parent / link).resolve()
            if target.parent == PICTURES:
                shown.add(target.name)
    pictures = {file.name: file.stat().st_size for file in PICTURES.iterdir()}
    assert pictures.keys() == shown == {*(f"{name}.webp" for name in PAGES), "shap.webp", "lineage.svg"}
    assert max(pictures.values()) <= MAX_PICTURE_BYTES and sum(pictures.values()) <= MAX_BYTES
