"""Browser tests of the sign-in through an OIDC provider, which is another site than the console: the redirects, cookies and referrers."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.test_console_pages import examine
from tests.console.loopback_provider import CLIENT_ID, LoopbackProvider, run_provider
from tests.service import serving
from tests.service.serving import SINGLE_PROCESS, Served, free_port
from tests.tokens import AUDIENCE

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def trusting(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, LoopbackProvider]]:
    """Yield a service with its console, and the provider that it trusts: `localhost` is another site than `127.0.0.1`."""
    folder, port = tmp_path_factory.mktemp("trusting"), free_port()
    shutil.copytree(home / "models", folder / "models")
    console = f"http://127.0.0.1:{port}/console"
    with run_provider(f"{console}/signed-in") as provider:
        settings = {
            "FINRISK_CONSOLE": "true", "FINRISK_CONSOLE_URL": console, "FINRISK_OIDC_CLIENT_ID": CLIENT_ID,
            "FINRISK_JWT_ISSUER": provider.issuer, "FINRISK_JWT_AUDIENCE": AUDIENCE, "FINRISK_JWT_JWKS": f"{provider.issuer}/keys",
        }  # fmt: skip
        served = serving.start(folder, folder, port, folder / "serve.log", SINGLE_PROCESS, **settings)
        try:
            served.wait_until_ready()
            yield served, provider
        finally:
            serving.stop(served)


@pytest.fixture
def service(trusting: tuple[Served, LoopbackProvider]) -> Served:
    return trusting[0]


@pytest.fixture
def provider(trusting: tuple[Served, LoopbackProvider]) -> LoopbackProvider:
    """Return the provider, which asks who one is, as it answers without a fault."""
    trusting[1].denies, trusting[1].asks = False, True
    return trusting[1]


def test_the_provider_leads_back_to_the_page_that_was_asked_for(service: Served, provider: LoopbackProvider, open_page: Any) -> None:
    page = open_page()
    seen: list[tuple[str, str]] = []
    page.on("request", lambda request: seen.append((request.url, request.all_headers().get("referer", ""))))
    page.goto(f"{service.address}/console/alerts?state=closed")
    assert page.evaluate("document.activeElement.innerText").startswith("Sign in with localhost:")
    page.keyboard.press("Enter")
    page.click("text=I am Ada")
    page.wait_for_url(f"{service.address}/console/alerts?state=closed")
    assert page.inner_text("h1") == "Alerts"
    kept = {cookie["name"]: (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) for cookie in page.context.cookies()}
    assert kept["finrisk_console"] == (True, "Strict", "/console") and "finrisk_console_pending" not in kept
    page.click("text=Sign out")
    page.wait_for_selector("text=A session at localhost")
    page.goto(f"{service.address}/console/alerts")
    assert "sign-in" in page.url

    with_code = [url for url, _ in seen if "code=" in url]
    assert len(with_code) == 1 and with_code[0].startswith(provider.redirect_uri)
    assert not [referrer for _, referrer in seen if "code=" in referrer]
    assert not [url for url, referrer in seen if url.startswith(provider.issuer) and referrer.startswith(service.address)]
    assert not [url for url, _ in seen if not url.startswith((service.address, provider.issuer, "data:"))]
    log = service.log.read_text()
    assert provider.issued and not [secret for secret in provider.issued if secret in log]


def test_a_person_who_declines_reads_so_and_may_use_a_key(service: Served, provider: LoopbackProvider, open_page: Any) -> None:
    page = open_page()
    provider.denies = True
    page.goto(f"{service.address}/console/alerts")
    page.click("text=Sign in with localhost")
    page.click("text=I am Ada")
    page.wait_for_selector("text=was denied")
    page.fill("#credential", "finrisk_" + "0" * 16 + "_" + "Z" * 43)
    page.click("button:text('Sign in')")
    page.wait_for_selector("text=This API key is not known here.")


def test_a_console_under_another_name_of_this_machine_leads_to_its_address(
    service: Served, provider: LoopbackProvider, open_page: Any
) -> None:
    page = open_page()
    page.goto(f"{service.address.replace('127.0.0.1', 'localhost')}/console/models")
    page.click("text=Sign in with localhost")
    page.click("text=I am Ada")
    page.wait_for_url(f"{service.address}/console/models")


@pytest.mark.parametrize("view", ["light", "phone-dark"])
def test_the_sign_in_with_a_provider_is_accessible_and_fits(service: Served, open_page: Any, view: str) -> None:
    page = open_page(view)
    page.goto(f"{service.address}/console/sign-in?out=1")
    assert re.search("Sign in with localhost:[0-9]+", page.inner_text("main"))
    examine(page, f"sign-in-provider-{view}")
