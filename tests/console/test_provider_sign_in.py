"""Tests of the sign-in through an OIDC provider: a real provider and a real API on loopback, and whatever can go wrong between them."""

import logging
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
from bentoml.exceptions import BentoMLException
from click.testing import CliRunner
from starlette.testclient import TestClient

from bento.access import token_verifier
from bento.cli.console_command import console
from bento.console.api_client import ApiClient
from bento.console.console_app import build_console
from bento.console.sign_in import oidc_provider, pending_sign_ins
from bento.console.sign_in.oidc_client import OidcClient
from bento.console.sign_in.pending_sign_ins import PENDING_COOKIE, PENDING_LIFE_S, PendingSignIns
from bento.console.sign_in.sessions import COOKIE
from bento.service import FinRisk
from finrisk_assets.settings import Settings, SettingsError
from tests.console.conftest import find_token
from tests.console.loopback_provider import CLIENT_ID, CLIENT_SECRET, LoopbackProvider, run_provider
from tests.service.conftest import Serving
from tests.service.examples import write_linear_bundles
from tests.service.serving import SINGLE_PROCESS, Served, serving, store_models
from tests.tokens import AUDIENCE, OTHER

CONSOLE_URL = "http://127.0.0.1:3001/console"
HOUR_S = 3600


def name_issuer(provider: LoopbackProvider) -> dict[str, str]:
    """Return the settings of an API that trusts the provider."""
    return {"FINRISK_JWT_ISSUER": provider.issuer, "FINRISK_JWT_AUDIENCE": AUDIENCE, "FINRISK_JWT_JWKS": f"{provider.issuer}/keys"}


@pytest.fixture(scope="module")
def running() -> Iterator[LoopbackProvider]:
    """Yield the provider of the module."""
    with run_provider(f"{CONSOLE_URL}/signed-in") as provider:
        yield provider


@pytest.fixture(scope="module")
def api(running: LoopbackProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Yield a served API that trusts the provider."""
    folder = tmp_path_factory.mktemp("api")
    store_models(folder, write_linear_bundles(folder / "bundles"))
    settings = name_issuer(running) | {"FINRISK_UNKNOWN_BURST": "1000"}
    with serving(folder, folder, folder / "serve.log", SINGLE_PROCESS, **settings) as served:
        yield served


@pytest.fixture
def provider(running: LoopbackProvider) -> LoopbackProvider:
    """Return the provider as it answers without a fault."""
    running.__init__(running.issuer, running.redirect_uri)  # type: ignore[misc]
    return running


@dataclass
class Visitor:
    """A person's browser before a console of its own, and the answers that it got."""

    provider: LoopbackProvider
    client: TestClient
    answers: list[httpx.Response] = field(default_factory=list)

    def get(self, address: str) -> httpx.Response:
        answer = self.client.get(address, follow_redirects=False)
        self.answers.append(answer)
        return answer

    def start(self, next_path: str = "/console/alerts?state=closed") -> httpx.Response:
        """Follow the link of the sign-in page."""
        page = self.get(f"/console/sign-in?next={quote(next_path)}")
        link = re.search(r'class="button" href="([^"]+)"', page.text)
        assert link, page.text
        return self.get(link[1])

    def visit_provider(self, next_path: str = "/console/alerts?state=closed") -> str:
        """Begin a sign-in; return the address to which the provider leads back."""
        answer = httpx.get(self.start(next_path).headers["location"])
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"])

    def sign_in(self, next_path: str = "/console/alerts?state=closed") -> httpx.Response:
        return self.get(self.visit_provider(next_path))


@pytest.fixture
def visit(api: Served, provider: LoopbackProvider, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., Visitor]]:
    """Yield a function that opens a console for one visitor. No answer and no log line may hold a code or a token."""
    visitors = []

    def open_console(**settings: str) -> Visitor:
        settings = {"jwt_issuer": provider.issuer, "oidc_client_id": CLIENT_ID, "console_url": CONSOLE_URL} | settings
        app = build_console(ApiClient(api.address), client=OidcClient.from_settings(Settings(**settings)))  # type: ignore[arg-type]
        client = stack.enter_context(TestClient(app, base_url=CONSOLE_URL.removesuffix("/console")))
        visitors.append(Visitor(provider, client))
        return visitors[-1]

    with caplog.at_level(logging.DEBUG, "finrisk"), ExitStack() as stack:
        yield open_console
    logged = "\n".join(f"{record.getMessage()}{record.exc_text}" for record in caplog.records if record.name.startswith("finrisk"))
    shown = "\n".join(f"{answer.headers}{answer.text}" for visitor in visitors for answer in visitor.answers)
    for secret in (*provider.issued, CLIENT_SECRET):
        assert secret not in logged + shown + api.log.read_text()


@pytest.fixture
def visitor(visit: Callable[..., Visitor]) -> Visitor:
    return visit()


def find_cookie(answer: httpx.Response, name: str) -> set[str]:
    """Return the attributes of a cookie that an answer sets, in small letters."""
    header = next(header for header in answer.headers.get_list("set-cookie") if header.startswith(f"{name}="))
    return {part.strip().lower() for part in header.split(";")[1:]}


def assert_refused(visitor: Visitor, answer: httpx.Response, status: int, text: str) -> None:
    """The answer is the sign-in page with one fault, and nobody is signed in."""
    faults = re.findall(r'role="alert">([^<]*)</p>', answer.text)
    assert (answer.status_code, len(faults)) == (status, 1), answer.text
    assert text in faults[0] and "Sign in with localhost:" in answer.text and 'name="credential"' in answer.text
    assert COOKIE not in visitor.client.cookies
    assert visitor.get("/console/alerts").status_code == 303


@pytest.mark.parametrize("secret", ["", CLIENT_SECRET])
def test_a_person_comes_back_with_a_session_of_the_token_s_roles(visit: Callable[..., Visitor], secret: str) -> None:
    visitor = visit(oidc_client_secret=secret, oidc_scopes="openid finrisk")
    visitor.provider.secret = secret
    answer = visitor.sign_in()

    assert answer.status_code == 200 and 'http-equiv="refresh" content="0; url=/console/alerts?state=closed"' in answer.text
    assert {"httponly", "samesite=strict", "path=/console"} <= find_cookie(answer, COOKIE)
    assert PENDING_COOKIE not in visitor.client.cookies
    assert visitor.get("/console/alerts?state=closed").status_code == 200
    refused = visitor.get("/console/audit")
    assert refused.status_code == 200 and "jwt:" in refused.text and "Roles: analyst" in refused.text
    assert visitor.client.post("/console/audit/verify", data={"csrf": find_token(visitor.get("/console/policy").text)}).status_code == 403


def test_the_way_to_the_provider_is_bound_to_the_browser(visitor: Visitor) -> None:
    answer = visitor.start()
    address = urlsplit(answer.headers["location"])
    query = {name: values[0] for name, values in parse_qs(address.query).items()}

    assert answer.status_code == 303 and f"{address.scheme}://{address.netloc}" == visitor.provider.issuer
    assert {"httponly", "samesite=lax", "path=/console/signed-in", f"max-age={PENDING_LIFE_S}"} <= find_cookie(answer, PENDING_COOKIE)
    assert query | {"state": "", "nonce": "", "code_challenge": ""} == {
        "tenant": "bank", "response_type": "code", "client_id": CLIENT_ID, "redirect_uri": f"{CONSOLE_URL}/signed-in", "scope": "openid",
        "state": "", "nonce": "", "code_challenge": "", "code_challenge_method": "S256",
    }  # fmt: skip
    assert len({query["state"], query["nonce"], query["code_challenge"], visitor.client.cookies[PENDING_COOKIE]}) == 4
    assert not {query["state"], query["nonce"]} & set(parse_qs(urlsplit(visitor.start().headers["location"]).query)["state"])


def test_no_page_of_the_way_back_tells_its_address_to_another(visitor: Visitor) -> None:
    assert visitor.sign_in().headers["referrer-policy"] == "strict-origin"
    assert visitor.get("/console/signed-in?state=x&code=y").headers["referrer-policy"] == "strict-origin"


FAULTS: dict[str, tuple[dict[str, Any], int, str]] = {
    "the person declines": ({"denies": True}, 403, "was denied"),
    "the provider fails": ({"answer": {"error": "<b>server_error", "code": None}}, 502, "did not sign you in"),
    "no code": ({"answer": {"code": None}}, 502, "did not sign you in"),
    "another state": ({"answer": {"state": "x"}}, 403, "began no such sign-in"),
    "no state": ({"answer": {"state": None}}, 403, "began no such sign-in"),
    "another provider's answer": ({"answer": {"iss": "https://evil.example"}}, 403, "is not of localhost"),
    "an answer without its issuer": ({"metadata": {"authorization_response_iss_parameter_supported": True}}, 403, "is not of localhost"),
    "an unknown code": ({"answer": {"code": "guessed"}}, 403, "no longer accepts"),
    "another secret": ({"secret": "other"}, 502, "does not know this console: check FINRISK_OIDC_CLIENT_ID"),
    "another sign-in's ID token": ({"identity": {"nonce": "x"}}, 403, "The ID token"),
    "no nonce": ({"identity": {"nonce": None}}, 403, "The ID token"),
    "a nonce of another type": ({"identity": {"nonce": 1}}, 403, "The ID token"),
    "an ID token for another client": ({"identity": {"aud": "other"}}, 403, "The ID token"),
    "an ID token that another client asked for": ({"identity": {"azp": "other"}}, 403, "The ID token"),
    "an ID token of another issuer": ({"identity": {"iss": "https://evil.example"}}, 403, "The ID token"),
    "an old ID token": ({"identity": {"exp": int(time.time()) - HOUR_S}}, 403, "The ID token"),
    "a forged ID token": ({"signer": OTHER}, 403, "The ID token"),
    "a token without a role": ({"roles": ()}, 403, "gives you no role here"),
    "a token with foreign roles": ({"roles": ("owner",)}, 403, "gives you no role here"),
    "a token for another API": ({"access": {"aud": "other"}}, 502, "Check that it is a JWT for FINRISK_JWT_AUDIENCE"),
    "an old token": ({"access": {"exp": int(time.time()) - HOUR_S}}, 502, "Check that it is a JWT for FINRISK_JWT_AUDIENCE"),
}
"""A fault of the provider's answers -> what the provider does, the status of the page, and what it says."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_way_back_ends_on_the_sign_in_page(visitor: Visitor, fault: str) -> None:
    changes, status, text = FAULTS[fault]
    for name, value in changes.items():
        setattr(visitor.provider, name, value)
    answer = visitor.sign_in()

    assert_refused(visitor, answer, status, text)
    assert "evil" not in answer.text and "server_error" not in answer.text and "who?" not in answer.text
    for name in changes:
        setattr(visitor.provider, name, getattr(LoopbackProvider(visitor.provider.issuer, ""), name))
    if "metadata" not in changes:
        assert visitor.sign_in().status_code == 200, "the next sign-in succeeds"


DISCOVERIES: dict[str, tuple[dict[str, Any], str]] = {
    "another issuer": ({"issuer": "https://evil.example"}, "is not the issuer of FINRISK_JWT_ISSUER"),
    "codes go over plain http": ({"token_endpoint": "http://login.bank.example/token"}, "names addresses without https"),
    "people go over plain http": ({"authorization_endpoint": "http://login.bank.example/"}, "names addresses without https"),
    "no keys": ({"jwks_uri": None}, "names addresses without https"),
    "no end": ({"padding": "x" * oidc_provider.MAX_ANSWER_BYTES}, "an answer that is not of OIDC"),
}


@pytest.mark.parametrize("discovery", DISCOVERIES)
def test_a_provider_that_describes_itself_wrongly_gets_nobody(visitor: Visitor, discovery: str) -> None:
    visitor.provider.metadata, text = DISCOVERIES[discovery]
    assert_refused(visitor, visitor.start(), 502, text)


def test_a_provider_that_answers_nothing_is_waited_for_in_vain(visit: Callable[..., Visitor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc_provider, "TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        visitor = visit(jwt_issuer=f"http://localhost:{silent.getsockname()[1]}")
        assert_refused(visitor, visitor.start(), 502, "does not answer")
    assert_refused(visitor, visitor.start(), 502, "does not answer")


def test_a_provider_that_is_gone_when_the_person_is_back(visitor: Visitor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        visitor.provider.metadata = {"token_endpoint": f"http://localhost:{gone.getsockname()[1]}/token"}
    assert_refused(visitor, visitor.sign_in(), 502, "does not answer")


def test_endpoints_are_asked_for_once_an_hour(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    for _ in range(3):
        visitor.start()
    assert visitor.provider.requests == ["discovery"]


def test_an_answer_counts_once(visitor: Visitor) -> None:
    back = visitor.visit_provider()
    assert visitor.get(back).status_code == 200
    visitor.client.cookies.delete(COOKIE)
    assert_refused(visitor, visitor.get(back), 403, "it is done already")
    assert visitor.provider.requests.count("token") == 1


def test_a_code_of_another_sign_in_is_of_no_use(visit: Callable[..., Visitor]) -> None:
    victim, attacker = visit(), visit()
    for stolen in (victim.visit_provider(), attacker.visit_provider()):
        code = parse_qs(urlsplit(stolen).query)["code"][0]
        attacker.provider.answer = {"code": code}
        assert_refused(attacker, attacker.sign_in(), 403, "no longer accepts this sign-in")
        attacker.provider.answer = {}


def test_an_answer_in_another_browser_signs_nobody_in_and_ends_no_sign_in(visit: Callable[..., Visitor]) -> None:
    attacker, victim = visit(), visit()
    back = attacker.visit_provider()
    assert_refused(victim, victim.get(back), 403, "This browser began no such sign-in")
    own = victim.visit_provider()
    assert_refused(victim, victim.get(back), 403, "This browser began no such sign-in")
    assert victim.get(own).status_code == 200


def test_a_pending_sign_in_ends_and_there_are_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    kept = PendingSignIns(lambda: now[0])
    (browser, pending), (other, late) = kept.open("/console/alerts"), kept.open("/console/alerts")
    assert kept.take(browser, late.state) is None and kept.take(None, pending.state) is None and kept.take("", "ß") is None
    now[0] = PENDING_LIFE_S - 1
    assert kept.take(browser, pending.state) is pending and kept.take(browser, pending.state) is None
    now[0] = PENDING_LIFE_S
    assert kept.take(other, late.state) is None
    monkeypatch.setattr(pending_sign_ins, "MAX_PENDING", 2)
    first, *rest = [kept.open("/console/alerts") for _ in range(3)]
    assert kept.take(first[0], first[1].state) is None and all(kept.take(name, one.state) is one for name, one in rest)


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/", "//evil.example", "/v1/models", "/console/../v1/models", "/console/%2e%2e/v1/models", "/console\\evil",
        "/console/sign-out", "/console/signed-in?code=x", "/console/sign-in/provider", "javascript:alert(1)", "",
    ],
)  # fmt: skip
def test_a_sign_in_leads_to_no_other_page(visitor: Visitor, target: str) -> None:
    assert 'content="0; url=/console/overview"' in visitor.sign_in(target).text
    link = f"/console/sign-in/provider?next={quote(target)}"
    back = httpx.get(visitor.get(link).headers["location"]).headers["location"]
    assert 'content="0; url=/console/overview"' in visitor.get(back).text


def test_sign_ins_are_slowed_down_before_the_provider_is_asked(visitor: Visitor) -> None:
    answers = [visitor.start() for _ in range(12)]
    assert (answers[0].status_code, answers[-1].status_code) == (303, 429) and "Too many sign-ins" in answers[-1].text


def test_a_sign_out_says_that_the_session_of_the_provider_goes_on(visitor: Visitor) -> None:
    assert visitor.sign_in().status_code == 200
    left = visitor.client.post("/console/sign-out", data={"csrf": find_token(visitor.get("/console/policy").text)})
    assert "You are signed out of the console. A session at localhost:" in left.text
    assert visitor.get("/console/alerts").status_code == 303


def test_a_key_or_a_token_signs_in_as_before(visitor: Visitor) -> None:
    page = visitor.get("/console/sign-in")
    form = {"csrf": find_token(page.text), "credential": "finrisk_" + "0" * 16 + "_" + "Z" * 43, "next": ""}
    assert visitor.client.post("/console/sign-in", data=form).status_code == 401


def test_without_a_provider_the_console_is_as_it_was() -> None:
    assert OidcClient.from_settings(Settings(jwt_issuer="https://login.bank.example", console_url=CONSOLE_URL)) is None
    with TestClient(build_console(ApiClient("http://127.0.0.1:9"))) as client:
        page = client.get("/console/sign-in?out=1")
        assert 'class="button"' not in page.text and "signed out" not in page.text
        assert [client.get(f"/console/{path}").status_code for path in ("sign-in/provider", "signed-in")] == [404, 404]


@contextmanager
def mounted(serve: Serving, provider: LoopbackProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Visitor]:
    """Run a service with the console beside its API, as its settings describe both."""
    (tmp_path / "secret").write_text(f"{CLIENT_SECRET}\n")
    (tmp_path / "secret").chmod(0o600)
    provider.secret = CLIENT_SECRET
    named = {"OIDC_CLIENT_ID": CLIENT_ID, "OIDC_CLIENT_SECRET_FILE": str(tmp_path / "secret"), "CONSOLE_URL": f"{CONSOLE_URL}/"}
    for name, value in (name_issuer(provider) | {f"FINRISK_{name}": value for name, value in named.items()}).items():
        monkeypatch.setenv(name, value)
    client = serve(write_linear_bundles(tmp_path / "bundles"))
    client.base_url = httpx.URL(CONSOLE_URL.removesuffix("/console"))
    with client:
        yield Visitor(provider, client)


def test_a_token_that_expires_ends_the_session(
    serve: Serving, provider: LoopbackProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_verifier, "_CACHE_TTL_S", 0.0)
    provider.access = {"nbf": None}
    with mounted(serve, provider, tmp_path, monkeypatch) as visitor:
        assert visitor.sign_in().status_code == 200
        assert visitor.get("/console/alerts").status_code == 200
        monkeypatch.setattr(token_verifier, "LEEWAY_S", -HOUR_S)  # the API's clock an hour later
        answer = visitor.get("/console/alerts?state=closed")
        assert answer.status_code == 401 and "This token has expired." in answer.text
        assert f"{CONSOLE_URL}/sign-in/provider?next=/console/alerts%3Fstate%3Dclosed" in answer.text
        monkeypatch.setattr(token_verifier, "LEEWAY_S", 30)
        assert visitor.get("/console/alerts").status_code == 303
        assert visitor.sign_in().status_code == 200


SETTINGS = {
    "oidc_client_id": CLIENT_ID,
    "jwt_issuer": "https://login.bank.example/realms/risk",
    "console_url": "https://risk.bank.example/console",
}


def test_the_client_s_secret_is_never_printed() -> None:
    client = OidcClient.from_settings(Settings(**SETTINGS, oidc_client_secret=CLIENT_SECRET))  # type: ignore[arg-type]
    assert client is not None and CLIENT_SECRET not in repr(client)
    assert (client.provider_name, client.redirect_uri) == ("login.bank.example", "https://risk.bank.example/console/signed-in")


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"oidc_client_id": "", "oidc_client_secret": "x"}, "FINRISK_OIDC_CLIENT_SECRET is set without FINRISK_OIDC_CLIENT_ID"),
        ({"jwt_issuer": ""}, "needs FINRISK_JWT_ISSUER, which is not set: set an address with https://"),
        ({"jwt_issuer": "http://login.bank.example"}, "needs FINRISK_JWT_ISSUER, which is http://login.bank.example: set"),
        ({"jwt_issuer": "https://[login"}, "needs FINRISK_JWT_ISSUER"),
        ({"console_url": ""}, "needs FINRISK_CONSOLE_URL, which is not set"),
        ({"console_url": "http://risk.bank.example/console"}, "needs FINRISK_CONSOLE_URL"),
        ({"console_url": "https://risk.bank.example/"}, "set https://HOST/console"),
        ({"oidc_scopes": "profile"}, "FINRISK_OIDC_SCOPES='profile' lacks openid"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_sentence(changes: dict[str, str], wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=re.escape(wanted)):
        OidcClient.from_settings(Settings(**SETTINGS | changes))  # type: ignore[arg-type]
    for name, value in (SETTINGS | changes).items():
        monkeypatch.setenv(f"FINRISK_{name.upper()}", value)
    done = CliRunner().invoke(console, ["--port", "0"])
    assert done.exit_code == 1 and done.output.count("\n") == 1 and wanted in done.output


def test_a_service_with_such_a_setting_does_not_start(serve: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(write_linear_bundles(tmp_path / "bundles"))
    FinRisk.inner.prepare()
    monkeypatch.setenv("FINRISK_OIDC_CLIENT_ID", CLIENT_ID)
    with pytest.raises(BentoMLException, match=r"^FINRISK_OIDC_CLIENT_ID needs FINRISK_JWT_ISSUER, which is not set"):
        FinRisk.inner.prepare()
