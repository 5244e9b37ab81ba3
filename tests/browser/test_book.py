"""Browser tests of the book: it reads and searches without a request to another server."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from book.pages import build_book
from tests.browser.conftest import SHOTS, VIEWS

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
