"""Browser tests of the book: it reads and searches without a request to another server, and its pictures are small."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from book.pages import build_book
from book.pictures import MAX_PICTURE_BYTES, PAGES, SCALE, WIDTH, save_picture
from finrisk_assets.settings import Settings
from tests.browser.conftest import SHOTS, VIEWS
from tests.service.serving import Served

pytestmark = [pytest.mark.browser, pytest.mark.slow]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None: ...


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of the served book."""
    site: Path = build_book(tmp_path_factory.mktemp("book"))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("view", VIEWS)
def test_the_book_reads_and_searches_without_another_server(address: str, open_page: Callable[..., Any], view: str) -> None:
    page = open_page(view)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    for name in ("index", "docs/quick-start", "docs/how-to/fraud-analyst", "docs/reference/api"):
        answer = page.goto(f"{address}/{name}.html")
        assert answer.ok
        page.wait_for_load_state("networkidle")
        SHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SHOTS / f"book-{name.replace('/', '-')}-{view}.png")
    page.keyboard.press("Control+k")
    page.keyboard.type("payday")
    page.wait_for_selector("text=/[1-9][0-9]* results?/")
    assert not [request for request in requests if not request.startswith((address, "data:", "blob:"))]


@pytest.mark.parametrize("name", ["overview", "alert", "models"])
def test_a_picture_of_a_page_is_small_enough_to_commit(chromium: Any, service: Served, tmp_path: Path, name: str) -> None:
    show, height = PAGES[name]
    with chromium.new_context(locale="en-GB", viewport={"width": WIDTH, "height": height}, device_scale_factor=SCALE) as context:
        page = context.new_page()
        show(page, f"{service.address}/console/", Settings(home=tmp_path))
        page.wait_for_load_state("networkidle")
        save_picture(page.screenshot(), tmp_path / "picture.webp")
    picture = (tmp_path / "picture.webp").read_bytes()
    assert picture[8:12] == b"WEBP" and len(picture) <= MAX_PICTURE_BYTES
